"""The trash on the disk: files move into it and out of it by a rename, never over another file, never through a symlink."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import date
from pathlib import Path

from ..domain.errors import ContentError
from ..domain.files import distinct_name
from ..domain.removals import OnDisk
from ..domain.storage import NO_FOLDER_SYNC

TRASH_FOLDER = ".trash"
"""Under CONTENT_ROOT, so that a file never crosses devices on its way."""
MARKER_FOLDER = ".http-downloader"

_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
"""What file systems say that know no hard links."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Trash:
    """All paths are relative to `root`, which is CONTENT_ROOT. `durable`: what `move` has done survives a power failure."""

    def __init__(self, root: Path, *, durable: bool = True) -> None:
        self._root = root
        self._durable = durable

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
                return _rename(here, name, there, new_name, self._secure)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise ContentError(f"{source} cannot be moved to {target}: {error.strerror}") from error

    def _secure(self, folder: int) -> None:
        """Return when the names in an open folder are on the disk."""
        if self._durable:
            sync(folder)

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

    def opened(self, path: str) -> AbstractContextManager[tuple[int, str]]:
        """The folder of a path as a descriptor, and the name in it. Raises `OSError`; ELOOP or ENOTDIR when the way there
        leads through a symlink."""
        return self._folder(path)

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
                        self._secure(current)
                following = os.open(folder, _FOLDER, dir_fd=current)
                os.close(current)
                current = following
            yield current, name
        finally:
            os.close(current)


def _rename(here: int, name: str, there: int, new_name: str, secure: Callable[[int], None]) -> bool:
    """`secure` returns when the names in an open folder are on the disk."""
    if (linked := _link(here, name, there, new_name)) is False:
        return False
    if linked:
        secure(there)  # before the old name goes
        os.unlink(name, dir_fd=here)
    else:
        os.rename(name, new_name, src_dir_fd=here, dst_dir_fd=there)
        secure(there)
    secure(here)
    return True


def _link(here: int, name: str, there: int, new_name: str) -> bool | None:
    """Give a file its new name beside the old one. False when that is taken, None where there are no links."""
    try:
        os.link(name, new_name, src_dir_fd=here, dst_dir_fd=there, follow_symlinks=False)
    except FileExistsError:
        old = os.stat(name, dir_fd=here, follow_symlinks=False)
        new = os.stat(new_name, dir_fd=there, follow_symlinks=False)
        # The same one: a kill came between the two halves of the move, and only the second is left to do.
        return os.path.samestat(old, new)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with suppress(FileNotFoundError):
            os.stat(new_name, dir_fd=there, follow_symlinks=False)
            return False
        return None
    return True


def sync(opened: int) -> None:
    """Return when the names in an open folder, or the bytes of an open file, are on the disk."""
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in NO_FOLDER_SYNC:
            raise


def _hash(folder: int, name: str) -> str:
    with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def marker_file(root: Path, identity: str) -> Path:
    """`identity`: of the catalog."""
    return root / MARKER_FOLDER / identity


class RootMarker:
    """A file in CONTENT_ROOT that says: this is the folder that the catalog speaks of, and not the empty place where
    its disk is usually mounted. Each catalog has its own, named after it."""

    def __init__(self, root: Path, identity: str) -> None:
        self.path = marker_file(root, identity)

    def is_there(self) -> bool:
        return self.path.is_file()

    @property
    def missing(self) -> str:
        """What to say when it was written once, and is not there now."""
        return (
            f"CONTENT_ROOT is not the folder that the catalog speaks of: {self.path} is missing. Mount the disk; or, if"
            " the files have moved here, run: http-downloader db mark-root"
        )

    def write(self, *, durable: bool = True) -> None:
        """`durable`: it survives a power failure, as the catalog's word that it is here does. Raises `ContentError`."""
        try:
            self.path.parent.mkdir(exist_ok=True)  # and never CONTENT_ROOT itself
            self.path.write_text("http-downloader keeps this file to know that this folder is mounted.\n")
            for one in (self.path, self.path.parent, self.path.parent.parent) if durable else ():
                descriptor = os.open(one, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    sync(descriptor)
                finally:
                    os.close(descriptor)
        except OSError as error:
            raise ContentError(f"CONTENT_ROOT cannot be marked: {self.path}: {error.strerror}") from error
