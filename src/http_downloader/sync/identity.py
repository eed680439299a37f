"""Who a worker is, and how others on this machine find out that it is dead."""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import socket
from pathlib import Path
from typing import TextIO

from ..domain.errors import ContentError
from ..domain.storage import storage_failure


def new_name() -> str:
    """One that no other worker has or ever had."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname())[:60]
    return f"{host}-{os.getpid()}-{secrets.token_hex(3)}"


class Identity:
    """A worker's name, and a lock file that is held for as long as the process lives.

    Raises `ContentError`.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._file = folder / self.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._handle: TextIO | None = self._file.open("w")
        except OSError as error:
            place = f"RUNTIME_PATH ({folder.parent})"
            known = storage_failure(error.errno, place)
            raise ContentError(known.detail if known else f"{place} cannot be used: {error.strerror}") from error
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def close(self, *, forget: bool = True) -> None:
        """`forget` False: the next worker on this machine finds the name of a dead one, and takes back what it owned."""
        if self._handle is not None:
            if forget:
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
