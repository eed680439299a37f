"""Single files on the disk, looked at for a verification: nothing is followed that is a symlink, nothing is changed."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from .. import faults
from ..domain.verification import Found, Kind, Recorded
from .trash import Trash

PIECE = 1024 * 1024

Stamp = tuple[int, int, int]
"""What changes when a file is changed: size, time, number."""


class Reader:
    """Looks at single files. `advance` is told how many bytes were read, from any thread."""

    def __init__(
        self, content_root: Path, *, quick: bool = False, advance: Callable[[int], None] = lambda _: None
    ) -> None:
        self.trash = Trash(content_root)
        self._quick = quick
        self._advance = advance
        self._stop = threading.Event()

    def stop(self) -> None:
        self._stop.set()

    def look(self, path: str, recorded: Recorded) -> tuple[Found, Stamp | None]:
        """What lies at a path. Its content is read only where that can still tell something."""
        try:
            with self.trash.opened(path) as (folder, name):
                there = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISREG(there.st_mode):
                    return Found(kind=Kind.OTHER), None
                sha256 = None
                if not self._quick and recorded.sha256 is not None and recorded.size in (None, there.st_size):
                    sha256 = self._hash(folder, name)
                return _file(there, sha256), stamp_of(there)
        except OSError as error:
            return _not_opened(error), None

    def look_closely(self, path: str) -> tuple[Found, Stamp | None]:
        """The same, and the content is read as far as the disk gives it."""
        try:
            with self.trash.opened(path) as (folder, name):
                there = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISREG(there.st_mode):
                    return Found(kind=Kind.OTHER), None
                try:
                    sha256 = self._hash(folder, name)
                except OSError:
                    sha256 = None
                return _file(there, sha256), stamp_of(there)
        except OSError as error:
            return _not_opened(error), None

    def stamp(self, path: str) -> Stamp | None:
        """None when no file is there."""
        with suppress(OSError), self.trash.opened(path) as (folder, name):
            there = os.stat(name, dir_fd=folder, follow_symlinks=False)
            return stamp_of(there) if stat.S_ISREG(there.st_mode) else None
        return None

    def _hash(self, folder: int, name: str) -> str:
        faults.at("verify.read")
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
        try:
            # What is in memory says nothing of the disk, and what is read here should push nothing else out of memory.
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            digest, piece = hashlib.sha256(), bytearray(PIECE)
            view = memoryview(piece)
            while count := os.readv(file, [piece]):
                if self._stop.is_set():
                    raise InterruptedError(errno.EINTR, "stopped")
                digest.update(view[:count])
                self._advance(count)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            return digest.hexdigest()
        finally:
            os.close(file)


def stamp_of(found: os.stat_result) -> Stamp:
    return found.st_size, found.st_mtime_ns, found.st_ino


def _file(there: os.stat_result, sha256: str | None) -> Found:
    try:
        mtime = datetime.fromtimestamp(there.st_mtime, UTC)
    except (OverflowError, ValueError):
        mtime = None  # a time that no calendar has
    return Found(kind=Kind.FILE, size=there.st_size, sha256=sha256, mtime=mtime)


def _not_opened(error: OSError) -> Found:
    match error.errno:
        case errno.ENOENT:
            return Found(kind=Kind.ABSENT)
        case errno.ELOOP | errno.ENOTDIR:
            return Found(kind=Kind.BEHIND_LINK)
        case errno.EACCES | errno.EPERM:
            return Found(kind=Kind.FORBIDDEN, error=f"{error.strerror}; change its permissions")
    return Found(kind=Kind.UNREADABLE, error=error.strerror or str(error))
