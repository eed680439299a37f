"""CONTENT_ROOT as a run writes to it: whether it is still there and ours to write to, whether it has room, and what has
surely reached it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..domain.listing import Failure
from ..domain.reasons import Reason
from ..domain.storage import NO_FOLDER_SYNC, shortage, storage_failure
from .folders import opened
from .lease import Lease
from .messages import RunRequest

LOOK_EVERY = 8 << 20
"""Bytes that all lanes together write between two looks at the free space."""


class StorageError(Exception):
    """Nothing more can be written: no other file of this run would fare better."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.detail)
        self.failure = failure


class Disk:
    def __init__(self, request: RunRequest) -> None:
        self.root = request.content_root
        self.lease = Lease(request.lease_until)
        self._marker = request.marker
        self._durable = request.durable
        self._kept = request.min_free_space
        self._place = f"CONTENT_ROOT ({self.root})"
        self._unseen = 0
        self._to_come: dict[int, int] = {}
        """Bytes that the site still owes, for each lane's thread."""
        self._turn = threading.Lock()
        self._sure: set[str] = set()
        """Folders of which a power failure does not take the name any more."""

    # Whether it is there.

    def check_there(self) -> None:
        """Raises `StorageError` when the disk has gone: nothing may be written into the place where it was."""
        if self.has_gone():
            raise StorageError(self._gone())

    def has_gone(self) -> bool:
        if self._marker is None:
            return False
        try:
            self._marker.stat()
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False  # it is there, and does not work: that is said in other words
        return False

    def _gone(self) -> Failure:
        return Failure(
            reason=Reason.ROOT_NOT_MOUNTED,
            detail=f"CONTENT_ROOT went away while the run was under way: {self._marker} is missing; mount the disk again",
        )

    def failure_of(self, error: BaseException) -> Failure | None:
        """Why an error ends the run; None when it concerns its file only."""
        if isinstance(error, StorageError):
            return error.failure
        if not isinstance(error, OSError) or error.errno is None:
            return None
        if self.has_gone():
            return self._gone()
        return storage_failure(error.errno, self._place)

    # Whether it has room.

    def begin_file(self, size: int) -> None:
        """A file of so many bytes is to come into this lane; 0: nobody knows how many. Raises `StorageError` when it
        would, with what is to come into the others, leave less than MIN_FREE_SPACE."""
        if self._kept:
            with self._turn:
                self._to_come.pop(threading.get_ident(), None)
                self._check_room(size)
                self._to_come[threading.get_ident()] = size

    def wrote(self, count: int) -> None:
        """Look again, now and then. Other programs write, too, and not every site says how long a file is."""
        if not self._kept:
            return
        here = threading.get_ident()
        self._to_come[here] = max(self._to_come.get(here, 0) - count, 0)
        self._unseen += count
        if self._unseen >= LOOK_EVERY:
            self._unseen = 0
            self._check_room(0)

    def end_file(self) -> None:
        self._to_come.pop(threading.get_ident(), None)

    def _check_room(self, wanted: int) -> None:
        free = free_space(self.root)
        left = None if free is None else free - sum(tuple(self._to_come.values()))
        if (failure := shortage(left, wanted, self._kept, self._place)) is not None:
            raise StorageError(failure)

    # Folders.

    def make_folder(self, folder: str, *, lasting: bool = True) -> None:
        """Make a folder and those above it, below CONTENT_ROOT and never that itself. With DURABILITY=full, the name of
        a `lasting` one survives a power failure when this returns.

        Raises `StorageError`, `UnusableNameError`; `FileNotFoundError` when another run has taken an empty folder away
        meanwhile.
        """
        self.check_there()

        def made(above: int, path: str) -> None:
            if lasting and path not in self._sure:
                self.secure_folder(above)
                self._sure.add(path)

        with opened(self.root, folder, make=True, made=made):
            pass

    # What has surely reached it.

    def secure_file(self, path: str) -> None:
        """Return when the bytes of a file are on the disk."""
        if self._durable:
            _sync(path)

    def secure_name(self, path: str) -> None:
        """Return when the name of a file is on the disk, or when it is gone from there."""
        if self._durable:
            _sync_folder(os.path.dirname(path))  # noqa: PTH120 - as a string from gallery-dl

    def secure_folder(self, descriptor: int) -> None:
        """Return when the names in an open folder are on the disk."""
        if self._durable:
            with _where_folders_can_be_synced():
                os.fsync(descriptor)

    def secure_log(self, descriptor: int) -> None:
        """Return when what was appended to an open file is on the disk."""
        if self._durable:
            os.fdatasync(descriptor)

    def secure_path(self, folder: Path) -> None:
        """Return when the names in a folder are on the disk, and its own name in the one above it."""
        if self._durable:
            _sync_folder(folder)
            _sync_folder(folder.parent)


@contextmanager
def writing_to(place: str) -> Iterator[None]:
    """What fails here fails at `place`, which is not CONTENT_ROOT. Raises `StorageError`."""
    try:
        yield
    except OSError as error:
        if (failure := storage_failure(error.errno, place)) is not None:
            raise StorageError(failure) from error
        raise


def free_space(folder: Path) -> int | None:
    """Bytes that an ordinary user may still write; None when the file system does not say."""
    try:
        found = os.statvfs(folder)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize if found.f_blocks else None


def _sync(path: str | Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: str | Path) -> None:
    with _where_folders_can_be_synced():
        _sync(path)


@contextmanager
def _where_folders_can_be_synced() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise
