"""Folders below CONTENT_ROOT, opened step by step: no symlink is followed, also none that comes in the last moment."""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OF_A_NAME = {errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ}
"""What a file system says of a name that it does not take, however well the disk is."""
_IN_THE_WAY = {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP}
"""What it says when something else has the name already."""


class UnusableNameError(Exception):
    """Nothing can be written under this name. It concerns one file, never the listing."""


class OutsideFolderError(UnusableNameError):
    """A name or folder from the site's metadata would leave the source's folder."""


@contextmanager
def opened(
    root: Path, folder: str, *, make: bool = False, made: Callable[[int, str], None] = lambda above, path: None
) -> Iterator[int]:
    """A descriptor of a folder below `root`; `make`: with all folders on the way that are not there yet. `made` is
    called for each of them, with a descriptor of the folder above and the path below `root`, also if it was there.

    Raises `UnusableNameError` when a file or a symlink stands in the way, FileNotFoundError without `make`.
    """
    current = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        path = ""
        for segment in folder.split("/"):
            if make:
                path = f"{path}/{segment}" if path else segment
                with naming(folder), suppress(FileExistsError):
                    os.mkdir(segment, dir_fd=current)
                made(current, path)
            following = _step(current, segment, folder)
            os.close(current)
            current = following
        yield current
    finally:
        os.close(current)


def _step(current: int, segment: str, folder: str) -> int:
    try:
        with naming(folder):
            return os.open(segment, _FOLDER, dir_fd=current)
    except OSError as error:
        if error.errno not in (errno.ENOTDIR, errno.ELOOP):
            raise
        raise OutsideFolderError(
            f"the folder {folder!r} leads through {segment!r}, which is no folder of ours"
        ) from error


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Tell what a file system has against a name from what is wrong with the disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in _OF_A_NAME:
            raise
        raise UnusableNameError(f"the name {_shortened(path)!r} cannot be written here: {error.strerror}") from error
    except ValueError as error:  # a NUL in it, or what no encoding has
        raise UnusableNameError(f"the name {_shortened(path)!r} cannot be written here: {error}") from error


def is_about_a_name(error: OSError) -> bool:
    """Whether another name would have done, on the same disk."""
    return error.errno in _OF_A_NAME | _IN_THE_WAY


def spelling(folder: str, name: str) -> str:
    """The name by which the disk lists what is found as `name`. It is another one where a file system takes `A` and
    `a`, or the two Unicode forms of `é`, for the same."""
    try:
        found = os.lstat(f"{folder}/{name}")
    except OSError:
        return name
    twins = {name.swapcase(), unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)} - {name}
    if not any(_is_same(found, f"{folder}/{twin}") for twin in twins):
        return name  # nearly always, and without a look at the whole folder
    listed = [entry.name for entry in Path(folder).iterdir()]
    return name if name in listed else next((other for other in listed if _folded(other) == _folded(name)), name)


def _is_same(found: os.stat_result, path: str) -> bool:
    try:
        return os.path.samestat(found, os.lstat(path))
    except OSError:
        return False


def _folded(name: str) -> str:
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def _shortened(path: str) -> str:
    return path if len(path) <= 100 else f"{path[:80]}…{path[-19:]}"
