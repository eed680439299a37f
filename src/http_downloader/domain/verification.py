"""Whether a file on disk is the one that the catalog describes: one rule without I/O, and the values it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum, auto

SET_ASIDE = " as found here "
"""Stands in the remote id of a copy that was set aside for a repair: behind the id of its file, before a mark of its
content. No site lists such an id, so the copy stays what it is: a file in the trash, with a way back."""


class Fault(StrEnum):
    """What is wrong with one file; the name is what `verify --json` prints."""

    MISSING = "missing"
    """The catalog says that it is here, and nothing is."""
    CHANGED = "changed"
    """Another size or another content than recorded."""
    UNREADABLE = "unreadable"
    """The disk or its permissions do not give it."""
    NOT_A_FILE = "not-a-file"
    """A folder or a symbolic link has its name, or it lies behind a symbolic link."""
    UNKNOWN = "unknown"
    """A file in the folder of a source that the catalog does not know."""


class Depth(Enum):
    """How much of a file was compared."""

    CONTENT = auto()
    SIZE = auto()
    EXISTENCE = auto()


class Kind(Enum):
    """What lies at a path."""

    FILE = auto()
    ABSENT = auto()
    OTHER = auto()
    """A symbolic link, a folder, a device."""
    BEHIND_LINK = auto()
    """One of its folders is a symbolic link."""
    UNREADABLE = auto()
    FORBIDDEN = auto()
    """The same, since its permissions say so: nothing is wrong with the disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What the catalog says of a content. `size` in bytes, `sha256` in hexadecimal; None where that was never measured.
    `since`: when it was measured."""

    size: int | None
    sha256: str | None
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What a look at the disk gave. `sha256` None: the content was not read. `error`: the system's words."""

    kind: Kind
    size: int | None = None
    sha256: str | None = None
    mtime: datetime | None = None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """`fault` None: as recorded, as far as `depth` says. `edited`: it was written after it was recorded, so that a
    person or a program of theirs may have changed it. `words`: the fault for people."""

    fault: Fault | None
    depth: Depth = Depth.EXISTENCE
    edited: bool = False
    words: str = ""


def judge(recorded: Recorded, found: Found) -> Judgement:
    match found.kind:
        case Kind.ABSENT:
            return Judgement(fault=Fault.MISSING, words="not on the disk")
        case Kind.OTHER:
            return Judgement(fault=Fault.NOT_A_FILE, words="a folder or a symbolic link has its name")
        case Kind.BEHIND_LINK:
            return Judgement(fault=Fault.NOT_A_FILE, words="behind a symbolic link")
        case Kind.UNREADABLE | Kind.FORBIDDEN:
            return Judgement(fault=Fault.UNREADABLE, words=found.error or "cannot be read")
    if recorded.size is not None and found.size != recorded.size:
        return _changed(recorded, found, Depth.SIZE, f"{found.size} bytes, {recorded.size} are recorded")
    if recorded.sha256 is not None and found.sha256 is not None:
        if found.sha256 != recorded.sha256:
            return _changed(recorded, found, Depth.CONTENT, "other content than recorded")
        return Judgement(fault=None, depth=Depth.CONTENT)
    return Judgement(fault=None, depth=Depth.EXISTENCE if recorded.size is None else Depth.SIZE)


def _changed(recorded: Recorded, found: Found, depth: Depth, words: str) -> Judgement:
    # A file's time is never later than that of its row: it is set, or the file is written, before the row is.
    edited = found.mtime is not None and found.mtime > recorded.since
    if found.mtime is not None:
        words += f"; written {found.mtime:%Y-%m-%d %H:%M}Z: edited here?" if edited else "; not written since: damaged?"
    return Judgement(fault=Fault.CHANGED, depth=depth, edited=edited, words=words)


class Mend(Enum):
    """What a repair does about a fault."""

    FETCH = auto()
    """A run: what is not in place is fetched again, under another name where something else has taken its own."""
    REPLACE = auto()
    """The same, after the copy that is here was moved to the trash."""
    NOTHING = auto()
    """Only reported: nobody has another copy, or it is not ours to touch."""


def mend(fault: Fault, kind: Kind | None, *, listed: bool, in_trash: bool) -> Mend:
    """`listed`: the last complete listing of the source showed the file. `in_trash`: the faulty copy lies there."""
    if in_trash or not listed:
        return Mend.NOTHING
    match fault:
        case Fault.MISSING:
            return Mend.FETCH
        case Fault.CHANGED:
            return Mend.REPLACE
        case Fault.UNREADABLE:
            return Mend.REPLACE if kind is Kind.UNREADABLE else Mend.NOTHING
        case Fault.NOT_A_FILE:
            return Mend.FETCH if kind is Kind.OTHER else Mend.NOTHING
        case Fault.UNKNOWN:
            return Mend.NOTHING


def aside_id(remote_id: str, mark: str) -> str:
    """The remote id of a copy that is set aside; the same copy gets the same one again.

    >>> aside_id("danbooru_7", "9f86d081884c7d65")
    'danbooru_7 as found here 9f86d081884c'
    """
    return f"{remote_id}{SET_ASIDE}{mark[:12]}"


def set_aside_from(remote_id: str) -> str | None:
    """The remote id of the file whose copy this is; None when it is no such copy."""
    file, found, _ = remote_id.rpartition(SET_ASIDE)
    return file if found else None
