"""The trash on the disk: files move into it and out of it by a rename, never over another file, never through a symlink."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path

from ..domain.errors import ContentError
from ..domain.files import distinct_name
from ..domain.removals import OnDisk

TRASH_FOLDER = ".trash"
"""Under CONTENT_ROOT, so that a file never crosses devices on its way."""
MARKER_FOLDER = ".http-downloader"

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
"""What file systems say that know no hard links."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Trash:
    """All paths are relative to `root`, which is CONTENT_ROOT."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def inspect(self, path: str, *, size: int | None, sha256: str | None) -> OnDisk:
        """Whether the file at a path is the one that the catalog describes."""
        try:
            with self._folder(path) as (folder, name):
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISREG(found.st_mode):
                    return OnDisk.SYMLINK if stat.S_ISLNK(found.st_mode) else OnDisk.CHANGED
                if size is not None and found.st_size != size:
                    return OnDisk.CHANGED
                return OnDisk.OURS if sha256 is not None and _hash(folder, name) == sha256 else OnDisk.CHANGED
        except FileNotFoundError:
            return OnDisk.ABSENT
        except OSError as error:
            # One that cannot be read is not proven to be ours.
            return OnDisk.SYMLINK if error.errno in (errno.ELOOP, errno.ENOTDIR) else OnDisk.CHANGED

    def is_file(self, path: str) -> bool:
        with suppress(OSError), self._folder(path) as (folder, name):
            return stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
        return False

    def place_for(self, path: str, remote_id: str, day: date) -> str:
        """A free path in the trash for a file."""
        place = f"{TRASH_FOLDER}/{day.isoformat()}/{path}"
        salt = f"{day} {remote_id}"
        while os.path.lexists(self._root / place):
            folder, _, name = path.rpartition("/")
            place = f"{TRASH_FOLDER}/{day.isoformat()}/{folder}/{distinct_name(name, salt)}"
            salt += "~"
        return place

    def move(self, source: str, target: str) -> bool:
        """Rename a file, its new folder made first. False when there is none, or when the target is taken.

        Raises `ContentError` when the disk does not let it.
        """
        try:
            with self._folder(source) as (here, name), self._folder(target, make=True) as (there, new_name):
                return _rename(here, name, there, new_name)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ContentError(f"{source} cannot be moved to {target}: {error.strerror}") from error

    def delete(self, trash_path: str) -> None:
        """Remove a file from the trash for good, and the folders that become empty with it."""
        if not trash_path.startswith(f"{TRASH_FOLDER}/") or ".." in trash_path.split("/"):
            raise ContentError(f"{trash_path} does not lie in the trash")
        try:
            with suppress(FileNotFoundError), self._folder(trash_path) as (folder, name):
                os.unlink(name, dir_fd=folder)
        except OSError as error:
            raise ContentError(f"{trash_path} cannot be deleted: {error.strerror}") from error
        parent = os.path.dirname(trash_path)  # noqa: PTH120
        while parent:
            try:
                (self._root / parent).rmdir()
            except OSError:
                return  # other files are in it
            parent = os.path.dirname(parent)  # noqa: PTH120

    @contextmanager
    def _folder(self, path: str, *, make: bool = False) -> Iterator[tuple[int, str]]:
        """Open the folder of a path step by step: where one is a symlink, the next step fails."""
        *folders, name = path.split("/")
        current = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for folder in folders:
                if folder in ("", ".", ".."):
                    raise ContentError(f"the path {path!r} leads elsewhere")
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(folder, dir_fd=current)
                following = os.open(folder, _FOLDER, dir_fd=current)
                os.close(current)
                current = following
            yield current, name
        finally:
            os.close(current)


def _rename(here: int, name: str, there: int, new_name: str) -> bool:
    try:
        os.link(name, new_name, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
    except FileExistsError:
        old = os.stat(name, dir_fd=here, follow_symlinks=False)
        new = os.stat(new_name, dir_fd=there, follow_symlinks=False)
        if not os.path.samestat(old, new):
            return False
        # A kill came between the two halves of the move: only the second one is left to do.
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with suppress(FileNotFoundError):
            os.stat(new_name, dir_fd=there, follow_symlinks=False)
            return False
        os.rename(name, new_name, src_dir_fd=here, dst_dir_fd=there)
        return True
    os.unlink(name, dir_fd=here)
    return True


def _hash(folder: int, name: str) -> str:
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class RootMarker:
    """A file in CONTENT_ROOT that says: this is the folder that the catalog speaks of, and not the empty place where
    its disk is usually mounted. Each catalog has its own, named after it."""

    def __init__(self, root: Path, identity: str) -> None:
        self.path = root / MARKER_FOLDER / identity

    def is_there(self) -> bool:
        return self.path.is_file()

    @property
    def missing(self) -> str:
        """What to say when it was written once, and is not there now."""
        return (
            f"CONTENT_ROOT is not the folder that the catalog speaks of: {self.path} is missing. Mount the disk; or, if"
            " the files have moved here, run: http-downloader db mark-root"
        )

    def write(self) -> None:
        """Raises `ContentError`."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text("http-downloader keeps this file to know that this folder is mounted.\n")
        except OSError as error:
            raise ContentError(f"CONTENT_ROOT cannot be marked: {self.path}: {error.strerror}") from error
