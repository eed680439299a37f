"""What a gallery process and its parent tell each other: frozen values, pickled over one socket, in batches."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import NamedTuple

from ..domain.errors import OrderFault
from ..domain.files import KnownFile, Words
from ..domain.listing import Failure, Gap
from ..domain.transfers import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Trashed:
    """A file that can come back without a download. Both paths are relative to CONTENT_ROOT."""

    path: str
    trash_path: str
    sha256: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRequest:
    """Parent to child, first: everything that one run needs."""

    run_id: str
    source_id: int
    url: str
    content_root: Path
    content_path: str
    run_folder: Path
    """Private to this run, kept over its attempts. Made by whoever puts something there: most runs do not."""
    landing_log: Path
    """See `gallery/landing.py`."""
    lock_file: Path | None
    """Beside the files, so that workers of all machines meet there: two processes never work on one source."""
    cookies_folder: Path
    cache_file: Path
    known: dict[str, KnownFile] = field(repr=False)
    trashed: dict[str, Trashed] = field(repr=False, default_factory=dict)
    """Files of the source that lie in the trash, by remote id."""
    shares_folder: bool = False
    """Other sources use this folder too: ask before taking a name."""
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] | None = ()
    """Private networks that may be connected to; None: any."""
    refresh_changed: bool = False
    """Fetch known files again whose content has changed at the site."""
    lanes: int = 4
    """Files that are downloaded at once, unless the gallery-dl configuration sets `lanes` for the site."""
    rate_limit_max_wait: float = 900.0
    """Seconds. When the site asks to wait longer, the run ends and is continued later."""
    limits: Limits = Limits()
    log_level: int = 20
    marker: Path | None = None
    """A file in CONTENT_ROOT that is there for as long as its disk is; None: nobody looks."""
    durable: bool = True
    """DURABILITY=full: what is reported has reached the disk."""
    min_free_space: int = 0
    """Bytes that CONTENT_ROOT keeps free; 0: until the disk says no."""
    lease_until: float = math.inf
    """Of `gallery.lease.now()`: the process ends then, unless its parent moves that on."""
    rehearsal: bool = False
    """List only: nothing is downloaded, moved, or written but what lies in `run_folder`."""


@dataclass(frozen=True, slots=True)
class ResolveRequest:
    """Parent to child, first: answer one `Question` after the other until the pipe closes."""


@dataclass(frozen=True, slots=True)
class Question:
    url: str


@dataclass(frozen=True, slots=True)
class AsksServed:
    """Parent to child, after `Ended`: does the site still serve this URL? The answer is a `Served`."""

    url: str


@dataclass(frozen=True, slots=True)
class AsksAddresses:
    """Parent to child, after `Ended`: which URL has each listed file? The answer is a dict, by remote id."""


@dataclass(frozen=True, slots=True)
class Stop:
    """Parent to child: finish the current file, list no more."""


@dataclass(frozen=True, slots=True)
class Renewed:
    """Parent to child: the run's lease lasts until then, of `gallery.lease.now()`."""

    until: float


@dataclass(frozen=True, slots=True)
class Rest:
    """Parent to child: the site has asked another run to wait; ask it nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Parent to child: whether the path of the last `Asks` is held by a file of another source."""

    held: bool


class Outcome(StrEnum):
    """What became of a file. Every listed file gets exactly one."""

    DOWNLOADED = "downloaded"
    ADOPTED = "adopted"
    """It lay in the folder already, but not in the catalog."""
    KEPT = "kept"
    """Known, and in place."""
    ABSORBED = "absorbed"
    """Downloaded; a post-processor of the operator then took the file away."""
    PASSED = "passed"
    """Known as unavailable or absorbed, or noted in an archive of the operator: left alone."""
    FAILED = "failed"
    NEW = "new"
    """Would be downloaded: this is a rehearsal."""
    RESTORED = "restored"
    """Would come back from the trash: this is a rehearsal."""
    LEFT = "left"
    """Not listed: an earlier process gave it its name, and was killed before it said so."""


class Listed(NamedTuple):
    """Child to parent: one listed file. `filename` is relative to the source's folder, `size` in bytes.

    A tuple, since there are so many of these: nothing is cheaper to make and to pickle.
    """

    remote_id: str
    outcome: Outcome
    filename: str | None = None
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    validator: str | None = None
    """The site's ETag or Last-Modified."""
    words: Words = Words()
    failure: Failure | None = None
    gone: bool = False
    """It answered 404 or 410."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Child to parent: bytes of a file so far, and in all where the site tells. `total` None: not known."""

    filename: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True)
class Busy:
    """Child to parent: how many lanes are at work."""

    lanes: int


@dataclass(frozen=True, slots=True)
class Expects:
    """Child to parent: how many files the listing says that it will have."""

    files: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Child to parent: nothing will be heard for so many seconds, and why. 0: at work (a sign of life)."""

    seconds: float
    why: str = ""
    asked: bool = False
    """The site has asked for it: whoever else works for it should wait as long."""


@dataclass(frozen=True, slots=True)
class Unlocked:
    """Child to parent: the source is not locked, since the file system of CONTENT_ROOT cannot do that."""

    why: str


@dataclass(frozen=True, slots=True)
class Logged:
    """Child to parent: a log record; `level` as in `logging`."""

    level: int
    logger: str
    text: str


@dataclass(frozen=True, slots=True)
class Asks:
    """Child to parent: does another source hold this path (relative to CONTENT_ROOT)? Waits for an `Answer`."""

    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Child to parent, last: how the listing ended."""

    gaps: tuple[Gap, ...] = ()
    failure: Failure | None = None
    stopped: bool = False
    """It was asked to stop, and did."""
    again_after: float | None = None
    """Seconds after which the run goes on, as if it had not begun: the site asks for that, and it is too long to hold a
    slot; or an earlier process of the source still runs."""
    fingerprint: str = ""
    """How the listing was made: two with another one cannot be compared."""
    ids_are_stable: bool = True
    """False when remote ids hold positions, or did not tell all files apart."""
    landings_told: bool = False
    """Every file that has got its name is reported: the landing log may go."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The answer of the resolver to a URL that can be mirrored."""

    name: str
    """What must be treated politely as one."""
    category: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unresolved:
    """The answer of the resolver to a URL that cannot."""

    fault: OrderFault
    sentence: str


FromRun = Listed | Progress | Busy | Expects | Waiting | Unlocked | Logged | Asks | Ended
