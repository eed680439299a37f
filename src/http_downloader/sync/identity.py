"""Who a worker is, and how others on this machine find out that it is dead."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
from pathlib import Path
from typing import TextIO


class Identity:
    """A name that no other worker has or ever had, and a lock file that is held for as long as the process lives."""

    def __init__(self, folder: Path) -> None:
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())[:60]
        self.name = f"{host}-{os.getpid()}-{secrets.token_hex(3)}"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / self.name
        self._handle: TextIO | None = self._file.open("w")
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def close(self) -> None:
        if self._handle is not None:
            self._file.unlink(missing_ok=True)
            self._handle.close()
            self._handle = None


def dead_workers(folder: Path) -> list[str]:
    """Names of workers that used this runtime folder and are gone: the kernel has dropped their locks."""
    dead = []
    for file in folder.iterdir() if folder.is_dir() else ():
        try:
            with file.open("r+") as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                dead.append(file.name)
        except OSError:
            continue  # alive
    return dead


def forget(folder: Path, names: list[str]) -> None:
    for name in names:
        (folder / name).unlink(missing_ok=True)
