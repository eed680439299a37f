"""What happens in a run, for whoever draws or prints it. The flow itself knows no terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from ..catalog.journal import Claim
from ..domain.events import Event
from ..domain.listing import Gap
from ..domain.runs import Counts, Ending
from ..gallery.messages import Busy, Expects, Logged, Progress, Waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    attempt: int
    known: int
    """Files of the source that the catalog holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFailed:
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An attempt ended; `again` tells when the next one begins, None when the run is over."""

    ending: Ending
    counts: Counts
    gaps: list[Gap]
    removals: str = ""
    """One line: what became of files that are gone at the remote."""
    again: datetime | None = None


Update = Started | Event | FileFailed | Progress | Busy | Expects | Waiting | Logged | Finished
Observer = Callable[[Claim, Update], None]
