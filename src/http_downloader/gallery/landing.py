"""What has got its final name, and may not be in the catalog yet: a line for each file, written just before its rename.

After a crash in the next instant the file is announced as downloaded, not taken for one that was always there. The log
belongs to the source, not to the run: another run of the source may be the next to see the file.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import NamedTuple

from .disk import Disk


class Landing(NamedTuple):
    path: str
    """Relative to CONTENT_ROOT."""
    remote_id: str
    url: str


class LandingLog:
    """`landings`, by path: those that an earlier process has left behind, and then this one's. The service removes the
    file once all of them are told. Calls must take turns."""

    def __init__(self, file: Path, disk: Disk) -> None:
        self._file = file
        self._disk = disk
        self._handle: int | None = None
        self.landings = _read(file)
        self.earlier = frozenset(self.landings)

    def note(self, landing: Landing) -> None:
        handle = self._open() if self._handle is None else self._handle
        # The end of a line stands before it: one that a full disk has cut off spoils none but itself.
        line = ("\n" + json.dumps(landing)).encode()
        if os.write(handle, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._file))
        self.landings[landing.path] = landing

    def secure(self) -> None:
        """Return when all that is noted has reached the disk. Need not take turns."""
        if self._handle is not None:
            self._disk.secure_log(self._handle)

    def _open(self) -> int:
        self._file.parent.mkdir(0o700, exist_ok=True)  # in the marker's folder: never one of our own making
        self._handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._disk.secure_path(self._file.parent)
        return self._handle


def _read(file: Path) -> dict[str, Landing]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        try:
            landing = Landing(*json.loads(line))
        except (ValueError, TypeError):
            continue  # the last line of a process that was killed while it wrote
        found[landing.path] = landing
    return found
