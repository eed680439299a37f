"""How many downloads of one run may go on at once, when the site sometimes says: too many.

Halve on a refusal, wait as long as the site asks, grow again one by one, and remember what was too much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

QUIET = 2.0
"""Seconds without a refusal after which one more lane is tried, up to what was not yet refused."""
PATIENCE = 60.0
"""Seconds after which even the number that was refused last time is tried again; doubles with each refusal."""
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 60.0
"""Seconds that nothing starts when the site does not say how long to wait; doubles from the first to the longest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """`most`: lanes configured. `lanes`: how many may be at work now. Times in seconds of one monotonic clock."""

    most: int
    lanes: int
    ceiling: int
    """The site has refused more than this, lately."""
    changed_at: float = 0.0
    resume_at: float = 0.0
    """Nothing starts before."""
    refusals: int = 0
    """In a row, without a success between."""
    patience: float = PATIENCE


def full_pace(most: int) -> Pace:
    return Pace(most=most, lanes=most, ceiling=most)


def refused(pace: Pace, now: float, *, begun_at: float, retry_after: float | None) -> Pace:
    """The site answered 429 or 503 to a request that began at `begun_at`; `retry_after` in seconds, if it said so."""
    pause = retry_after if retry_after is not None else min(FIRST_PAUSE * 2**pace.refusals, LONGEST_PAUSE)
    resume_at = max(pace.resume_at, now + pause)
    if begun_at < pace.changed_at:
        # It was under way when we slowed down already: it tells nothing new about how many are too many.
        return replace(pace, resume_at=resume_at)
    return replace(
        pace,
        lanes=max(1, pace.lanes // 2),
        ceiling=max(1, pace.lanes - 1),
        changed_at=now,
        resume_at=resume_at,
        refusals=pace.refusals + 1,
        patience=pace.patience * 2 if pace.refusals or pace.ceiling < pace.most else pace.patience,
    )


def succeeded(pace: Pace, now: float) -> Pace:
    """A transfer went well: after a quiet while, one lane more."""
    if pace.lanes >= pace.most and not pace.refusals:
        return pace
    quiet_for = now - max(pace.changed_at, pace.resume_at)
    if pace.lanes < pace.ceiling and quiet_for >= QUIET:
        return replace(pace, lanes=pace.lanes + 1, changed_at=now, refusals=0)
    if pace.lanes == pace.ceiling < pace.most and quiet_for >= pace.patience:
        return replace(pace, lanes=pace.lanes + 1, ceiling=pace.ceiling + 1, changed_at=now, refusals=0)
    return replace(pace, refusals=0)
