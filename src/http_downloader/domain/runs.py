"""How a run can end: the table of the design as one pure function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import StrEnum

from .errors import Exit
from .listing import Failure, Gap, Listing
from .reasons import Kind, Reason


class RunState(StrEnum):
    QUEUED = "queued"
    """Waits in the journal for a worker, a free slot of its site, or the time of its next attempt."""
    RUNNING = "running"
    """Owned by a worker whose lease has not ended."""
    SYNCHRONIZED = "synchronized"
    """The listing was complete and every listed file is in place (or shown as unavailable)."""
    PARTIAL = "partial"
    """Ended without failure, but the listing is not complete: nothing can be said of what it did not see."""
    FAILED = "failed"
    """Something went wrong; the reason says what, and whether another order may help."""
    CANCELLED = "cancelled"
    """Asked to stop by a person."""

    @property
    def ended(self) -> bool:
        return self not in (RunState.QUEUED, RunState.RUNNING)


@dataclass(slots=True, kw_only=True)
class Counts:
    """What one run did, over all its attempts. `bytes` counts what was downloaded; `absorbed` files were, too, and
    then a post-processor took them away: they have no event. `missing` files are gone at the remote and still here,
    `held` ones among them wait for a person; `removed` ones are in the trash, or deleted."""

    listed: int = 0
    downloaded: int = 0
    skipped: int = 0
    absorbed: int = 0
    failed: int = 0
    unavailable: int = 0
    missing: int = 0
    held: int = 0
    removed: int = 0
    bytes: int = 0

    def as_dict(self) -> dict[str, int]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How an attempt ended. `reason` is None only for *synchronized*."""

    state: RunState
    reason: Reason | None = None
    detail: str = ""
    listing_proves: bool = False
    """Whether what the listing did not show may be called missing."""
    gaps: tuple[Gap, ...] = ()
    """All reasons why the listing is not complete."""

    @property
    def transient(self) -> bool:
        return self.state is RunState.FAILED and self.reason is not None and self.reason.kind is Kind.TRANSIENT

    @property
    def exit_code(self) -> Exit:
        match self.state:
            case RunState.SYNCHRONIZED:
                return Exit.OK
            case RunState.PARTIAL:
                return Exit.PARTIAL
            case RunState.FAILED:
                return Exit.FAILED_TRANSIENT if self.transient else Exit.FAILED_PERMANENT
            case _:
                return Exit.CANCELLED


def conclude(
    listing: Listing,
    transfer_failures: list[Failure],
    *,
    known_files: int,
    cancelled: bool = False,
) -> Ending:
    """Decide how an attempt ended. `known_files`: files of this source that the catalog held before it.

    Files that are *unavailable* are not failures: leave them out of `transfer_failures`.
    """
    gaps = listing.gaps
    if cancelled:
        detail = Reason.CANCELLED.sentence
        return Ending(state=RunState.CANCELLED, reason=Reason.CANCELLED, detail=detail, gaps=gaps)
    if listing.failure is not None:
        return _failed(listing.failure, gaps)
    if listing.files == 0 and known_files > 0 and not gaps:
        # One expired cookie gives an empty listing with exit status 0: it proves nothing.
        gaps = (Gap(reason=Reason.EMPTY_LISTING, detail=f"{known_files} files are known"),)
    if transfer_failures:
        return _failed(_worst(transfer_failures), gaps, listing_proves=not gaps)
    if gaps:
        first = gaps[0]
        detail = first.detail or first.reason.sentence
        return Ending(state=RunState.PARTIAL, reason=first.reason, detail=detail, gaps=gaps)
    return Ending(state=RunState.SYNCHRONIZED, listing_proves=listing.files > 0)


def _failed(failure: Failure, gaps: tuple[Gap, ...], *, listing_proves: bool = False) -> Ending:
    return Ending(
        state=RunState.FAILED,
        reason=failure.reason,
        detail=failure.detail or failure.reason.sentence,
        listing_proves=listing_proves,
        gaps=gaps,
    )


def _worst(failures: list[Failure]) -> Failure:
    """One failure that speaks for all: a transient one if there is any, since trying again may then help."""
    transient = [failure for failure in failures if failure.reason.kind is Kind.TRANSIENT]
    chosen = (transient or failures)[0]
    if len(failures) == 1:
        return chosen
    return Failure(reason=chosen.reason, detail=f"{len(failures)} files failed, among them: {chosen.detail}")


LONGEST_DELAY = 3600.0
"""Seconds, with all jitter."""


def retry_delay(attempt: int, first: timedelta, jitter: Callable[[], float]) -> timedelta:
    """How long to wait after the failed attempt number `attempt` (from 1): doubling, at most an hour.

    `jitter` gives a number in [0, 1); the delay is spread over ±20 % so that sources do not return in step.
    Gaps still grow from attempt to attempt: 2 · 0.8 > 1.2.
    """
    seconds = min(first.total_seconds() * 2 ** (attempt - 1), LONGEST_DELAY / 1.2)
    return timedelta(seconds=seconds * (0.8 + 0.4 * jitter()))
