"""What this process has done since its start, and what it is at now, drawn from the updates of its runs.

Whoever asks (metrics, heartbeat) reads it; to count costs an addition.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ..catalog.engine import utcnow
from ..catalog.journal import Claim, Submitted
from ..domain.errors import OrderFault
from ..domain.events import Event, EventType
from ..domain.reasons import Reason
from ..gallery.messages import Busy, Expects, Progress, Waiting
from .updates import FileFailed, Finished, Started, Update

LATENCIES = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0, 7200.0)
"""Seconds: the upper bounds of the histogram."""

MOST_SITES = 50
"""Sites that are counted by name, those that asked to wait first; there may be very many."""
OTHER_SITES = "other"

MOST_TRANSFERS = 64
"""No run has more lanes: beyond that are files that failed, or ended under another name."""


class Speed:
    """Bytes per second over the last few seconds."""

    SPAN = 5.0

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []

    def add(self, count: int) -> None:
        now = time.monotonic()
        if self._samples and now - self._samples[0][0] > 2 * self.SPAN:
            self._forget(now)
        self._samples.append((now, max(count, 0)))

    def per_second(self) -> float:
        self._forget(time.monotonic())
        return sum(count for _, count in self._samples) / self.SPAN

    def _forget(self, now: float) -> None:
        self._samples = [sample for sample in self._samples if now - sample[0] < self.SPAN]


@dataclass(slots=True, kw_only=True)
class Underway:
    """One attempt of a run that is being made."""

    claim: Claim
    known: int = 0
    """Files that the catalog held before."""
    expected: int = 0
    """Files that the site says it has; 0: it has not said."""
    downloaded: int = 0
    skipped: int = 0
    failed: int = 0
    bytes: int = 0
    waits_until: float = 0.0
    """On the monotonic clock."""
    waits_for: str = ""
    speed: Speed = field(default_factory=Speed)
    lanes: int = 0
    """At work."""
    transfers: dict[str, int] = field(default_factory=dict)
    """Bytes of downloads that have told how far they are, by filename."""

    def transfer(self, filename: str, done: int, *, whole: bool) -> None:
        self.speed.add(done - self.transfers.pop(filename, 0))
        if not whole:
            self.transfers[filename] = done
            while len(self.transfers) > MOST_TRANSFERS:
                del self.transfers[next(iter(self.transfers))]

    def report(self) -> dict[str, Any]:
        """For people at another machine."""
        wait = max(self.waits_until - time.monotonic(), 0.0)
        return {
            "run": self.claim.run,
            "known": self.known,
            "expected": self.expected,
            "downloaded": self.downloaded,
            "skipped": self.skipped,
            "failed": self.failed,
            "bytes": self.bytes,
            "bytes_per_second": round(self.speed.per_second()),
            "lanes": self.lanes,
            "waits": round(wait, 1),
            "waits_for": self.waits_for if wait else "",
        }


class Latencies:
    """A histogram over `LATENCIES`."""

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCIES) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(LATENCIES, seconds)] += 1
        self.seconds += seconds


class Tally:
    """`saw` is an observer of runs."""

    def __init__(self) -> None:
        self.accepted = self.joined = self.attempts = 0
        self.rejected: Counter[str] = Counter()
        """Orders, by fault."""
        self.ended: Counter[tuple[str, str]] = Counter()
        """Runs, by state and reason."""
        self.downloaded = self.bytes = self.skipped = self.failed = 0
        self.removed: Counter[str] = Counter()
        """Files, by what was done."""
        self.waits: Counter[str] = Counter()
        self.waited: dict[str, float] = defaultdict(float)
        """Seconds that sites asked to wait, and above how often, by site."""
        self.latencies = Latencies()
        """Of events: from the commit that told them to the broker's confirmation."""
        self._underway: dict[int, Underway] = {}

    def underway(self, performed: Iterable[int]) -> list[Underway]:
        """The runs among those that are performed; what was seen of others is forgotten: they were broken off."""
        self._underway = {run: self._underway[run] for run in performed if run in self._underway}
        return list(self._underway.values())

    def counting(self, accept: Callable[..., Awaitable[Submitted]]) -> Callable[..., Awaitable[Submitted]]:
        """`Intake.accept`, counted."""

        async def counted(*order: Any, **details: Any) -> Submitted:
            submitted = await accept(*order, **details)
            self.accepted += 1
            self.joined += submitted.joined
            return submitted

        return counted

    def saw_rejected(self, fault: OrderFault) -> None:
        self.rejected[str(fault)] += 1

    def saw_confirmed(self, told_at: Iterable[datetime]) -> None:
        """Events that the broker has."""
        now = utcnow()
        for moment in told_at:
            self.latencies.add(max((now - moment).total_seconds(), 0.0))

    def saw(self, claim: Claim, update: Update) -> None:
        run = self._underway.get(claim.run)
        if run is None or isinstance(update, Started):
            run = self._underway[claim.run] = Underway(claim=claim)
        match update:
            case Event():
                self._saw_event(run, update)
            case Progress(filename, done):
                run.transfer(filename, done, whole=False)
            case Busy(lanes):
                run.lanes = lanes
            case FileFailed():
                self.failed += 1
                run.failed += 1
            case Waiting(seconds, why, asked) if seconds:
                self._saw_wait(run, seconds, why, asked)
            case Started(known=known):
                self.attempts += 1
                run.known = known
            case Expects(files):
                run.expected = files
            case Finished(again=None, ending=ending):
                self.ended[str(ending.state), str(ending.reason or "")] += 1
                del self._underway[claim.run]
            case Finished(again=again, ending=ending) if again is not None:
                if ending.reason is Reason.RATE_LIMITED:
                    self._saw_wait(run, (again - utcnow()).total_seconds(), ending.detail, asked=True)
                del self._underway[claim.run]

    def _saw_event(self, run: Underway, event: Event) -> None:
        match event.type:
            case EventType.FILE_SKIPPED:  # first: of some runs a hundred thousand
                self.skipped += 1
                run.skipped += 1
            case EventType.FILE_DOWNLOADED:
                size = event.headers.get("size", 0)
                self.downloaded += 1
                self.bytes += size
                run.downloaded += 1
                run.bytes += size
                run.transfer(event.body["filename"], size, whole=True)
            case EventType.FILE_REMOVED:
                self.removed[str(event.body["removal"])] += 1

    def _saw_wait(self, run: Underway, seconds: float, why: str, asked: bool) -> None:
        """Each lane of a run may tell of the same wait."""
        now = time.monotonic()
        more = now + seconds - max(run.waits_until, now)
        if more <= 0:
            return
        run.waits_until, run.waits_for = now + seconds, why
        if asked:
            site = run.claim.site
            name = site if site in self.waits or len(self.waits) < MOST_SITES else OTHER_SITES
            self.waits[name] += 1
            self.waited[name] += more
