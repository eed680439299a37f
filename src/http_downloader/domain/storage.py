"""What a disk says no with, in words for people; and how much of it has to stay free."""

from __future__ import annotations

import errno
import os

from .listing import Failure
from .reasons import Reason
from .sizes import size_in_words

_FULL = {
    errno.ENOSPC: "{place} is full: no space (or no inode) is left; make space there",
    errno.EDQUOT: "the quota for {place} is used up; make space there, or raise the quota",
}
_BROKEN = "{place} does not work ({words}); look at its disk or mount: the system's log says more"
_REFUSED = "{place} cannot be written ({words}); give the user of this program the right to"
_STORAGE = {
    errno.EROFS: "{place} is mounted read-only; mount it writable: a disk with errors turns so by itself, see the"
    " system's log",
    errno.EMFILE: "too many files and connections are open in one process; raise its limit (ulimit -n, or"
    " LimitNOFILE), or set DOWNLOADS_PER_SOURCE or SYNC_CONCURRENCY lower",
    errno.ENFILE: "too many files are open on this machine; raise fs.file-max",
    errno.EACCES: _REFUSED,
    errno.EPERM: _REFUSED,
    errno.ENOTDIR: "{place} cannot be written ({words}); a file lies where a folder is needed",
    **dict.fromkeys((errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.ENOTCONN), _BROKEN),
}
"""Errors that the next file would meet as well. All others concern one file: its name, its size."""

OUT_OF_FILES = {code: f"[Errno {code}] {os.strerror(code)}" for code in (errno.EMFILE, errno.ENFILE)}
"""How libraries say so that put the error into their own words."""

NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP}
"""What network file systems say to an fsync of a folder when they know none: they do as well as they can."""


def storage_failure(code: int | None, place: str) -> Failure | None:
    """Why nothing more can be written at `place`, from the `errno` of an `OSError`. None: only one file is concerned."""
    words = _FULL.get(code or 0) or _STORAGE.get(code or 0)
    if code is None or words is None:
        return None
    reason = Reason.DISK_FULL if code in _FULL else Reason.STORAGE_ERROR
    return Failure(reason=reason, detail=words.format(place=place, words=os.strerror(code)))


def shortage(free: int | None, wanted: int, kept: int, place: str) -> Failure | None:
    """Whether `wanted` more bytes would leave less than MIN_FREE_SPACE. `free` None: the file system does not say."""
    if not kept or free is None or free - wanted >= kept:
        return None
    more = f", a file of {size_in_words(wanted)} is to come" if wanted else ""
    return Failure(
        reason=Reason.DISK_FULL,
        detail=f"{place} has {size_in_words(free)} left{more}, and MIN_FREE_SPACE keeps {size_in_words(kept)} free; make space"
        " there, or lower MIN_FREE_SPACE",
    )
