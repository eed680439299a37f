"""A remote file as the catalog knows it, and the rules that decide by its id and recorded path, never by name alone."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, NamedTuple

UNAVAILABLE_AFTER_RUNS = 3
"""A file that answers 404 or 410 in so many runs is *unavailable* and no longer fails its run."""

LONGEST_FOLDER = 255
"""Bytes of one folder's name."""

UNAVAILABLE_RETRY = timedelta(days=7)
"""How long an unavailable file is left alone before it is tried again."""


class FileState(StrEnum):
    """Where a remote file stands."""

    PRESENT = "present"
    """Listed at the remote, and in place here."""
    FAILED = "failed"
    """Listed, but not downloaded yet: its last transfer failed."""
    UNAVAILABLE = "unavailable"
    """Listed, but the site has answered 404 or 410 for it in three runs."""
    MISSING = "missing"
    """In place here, but not in the last complete listing; the local file stays."""
    ABSORBED = "absorbed"
    """Downloaded, then taken by a post-processor of the operator (packed into an archive, say)."""
    TRASHED = "trashed"
    """Gone at the remote, and moved to the trash, from where it can be restored."""
    REMOVED = "removed"
    """Gone at the remote, and nothing of it is here any more."""
    FORGOTTEN = "forgotten"
    """Deleted here on purpose: it is not downloaded again."""

    @property
    def is_gone(self) -> bool:
        """Nothing of it lies in its folder, and none of its names is taken."""
        return self in (FileState.TRASHED, FileState.REMOVED, FileState.FORGOTTEN)


class KnownFile(NamedTuple):
    """What a run needs to know of a file: `path` is relative to CONTENT_ROOT; `size` in bytes.

    A tuple: a run reads and hands over thousands of these, and nothing is cheaper to make and to pickle.
    """

    path: str | None
    state: FileState
    size: int | None = None
    sha256: str | None = None
    """Only when asked for, like `validator`."""
    validator: str | None = None
    """What tells this version from a later one, as the site said when it was downloaded; only when asked for."""
    announced: bool = False
    """Its download belongs to this very run: an earlier attempt has told the world already."""
    gone_runs: int = 0
    """In how many runs in a row it answered 404 or 410, this run not counted."""
    retry: bool = True
    """For an unavailable file: whether it is time to try again."""

    @property
    def is_left_alone(self) -> bool:
        """Not to be fetched although it is not in place."""
        if self.state is FileState.UNAVAILABLE:
            return not self.retry
        return self.state in (FileState.ABSORBED, FileState.FORGOTTEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Words:
    """The listing's own words about a file, where it has them. `date` is ISO 8601."""

    page_url: str | None = None
    title: str | None = None
    date: str | None = None
    tags: tuple[str, ...] = ()


def plain(text: str) -> str:
    """Without NUL and lone surrogates: sites send them, and no terminal, database or broker takes them."""
    if text.isascii() and "\x00" not in text:  # nearly always, and asked for every file of every listing
        return text
    return text.replace("\x00", "\ufffd").encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")


def distinct_name(filename: str, remote_id: str) -> str:
    """The name for a remote file whose own name another remote file holds: stable over runs, extension kept.

    It has at most 249 bytes; what follows the last dot is no extension when it is longer than 20.

    >>> distinct_name("1.jpg", "albumB_17")
    '1~04eb2a22.jpg'
    """
    suffix = PurePosixPath(filename).suffix
    if len(suffix.encode(errors="surrogatepass")) > 20:
        suffix = ""
    mark = hashlib.sha256(remote_id.encode(errors="surrogatepass")).hexdigest()[:8]
    stem = filename.removesuffix(suffix).encode(errors="ignore")
    return f"{stem[: 240 - len(suffix.encode(errors='surrogatepass'))].decode(errors='ignore')}~{mark}{suffix}"


def fitting_folder(segment: str) -> str:
    """A folder's name as every file system takes it: at most 255 bytes, cut between two characters, and two long
    names that begin alike stay two.

    >>> len(fitting_folder("ä" * 200).encode())
    249
    """
    return segment if len(segment.encode(errors="surrogatepass")) <= LONGEST_FOLDER else distinct_name(segment, segment)


def file_key(text: str) -> str:
    """A key of fixed width for an id or a path of any length: databases limit the length of what they index."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:40]


def is_unavailable(known: KnownFile | None) -> bool:
    """Whether one more 404 or 410 makes a file unavailable."""
    return (known.gone_runs if known else 0) + 1 >= UNAVAILABLE_AFTER_RUNS


def retry_unavailable(last_try: datetime | None, now: datetime) -> bool:
    return last_try is None or now - last_try >= UNAVAILABLE_RETRY


def words_of(metadata: dict[str, Any]) -> Words:
    """Pick what extractors commonly call page, title, date and tags; anything else is left where it is."""
    pages = (_text(metadata.get(key), 2000) for key in ("post_url", "page_url", "pageurl", "webpage_url"))
    tags = metadata.get("tags")
    if isinstance(tags, str):
        tags = re.split(r",\s*" if "," in tags else r"\s+", tags.strip())
    date = metadata.get("date")
    return Words(
        page_url=next(filter(None, pages), None),
        title=_text(metadata.get("title"), 500),
        date=date.isoformat() if isinstance(date, datetime) else None,
        tags=tuple(tag for tag in (_text(tag, 200) for tag in tags[:500]) if tag)
        if isinstance(tags, (list, tuple))
        else (),
    )


def _text(value: object, longest: int) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    return plain(value[:longest])


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFact:
    """What a run found out about one remote file, as it goes into the catalog.

    `path` is relative to CONTENT_ROOT (None: nothing of it is here); `size` in bytes; `sha256` in hexadecimal;
    `downloaded`: it came in now, as against a file that was in the folder already; `gone`: it answered 404/410.
    """

    remote_id: str
    state: FileState
    path: str | None = None
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    validator: str | None = None
    words: Words = Words()
    downloaded: bool = False
    gone: bool = False
