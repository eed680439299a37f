"""When orders come and which workers are hit, drawn from a seed: the same seed gives the same plan."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum


class Blow(StrEnum):
    KILL = "killed"
    PAUSE = "paused"
    """SIGSTOP: its gallery processes go on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much of everything. The first source of each site is a long one."""

    workers: int
    slots: int
    """Runs at once of each worker."""
    site_concurrency: int
    lanes: int
    sites: int
    sources_per_site: int
    files: int
    long_files: int
    latency: float
    """Seconds before each answer of a site."""
    orders: int
    seconds: float
    """In which orders come, evenly; the first one of each source comes at once."""
    kills: int
    pause: float
    """Seconds that one worker is stopped; 0: none is."""

    @property
    def sources(self) -> range:
        return range(1, self.sites * self.sources_per_site + 1)

    def is_long(self, source: int) -> bool:
        return source % self.sources_per_site == 1


FULL = Size(
    workers=4,
    slots=4,
    site_concurrency=2,
    lanes=3,
    sites=8,
    sources_per_site=5,
    files=20,
    long_files=600,  # 100 seconds and more: longer than a lease
    latency=0.5,
    orders=400,
    seconds=160,
    kills=2,
    pause=120,
)
SMALL = Size(
    workers=3,
    slots=2,
    site_concurrency=2,
    lanes=2,
    sites=3,
    sources_per_site=3,
    files=6,
    long_files=30,
    latency=0.2,
    orders=40,
    seconds=6,
    kills=1,
    pause=0,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    at: float
    """Seconds after the first order; later when the worker has no run then."""
    worker: int
    blow: Blow
    back_after: float | None
    """Seconds until it is started, or continued; None: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    size: Size
    orders: tuple[tuple[float, int], ...]
    """When, in seconds, and for which source."""
    hits: tuple[Hit, ...]


def draw(seed: int, size: Size) -> Plan:
    dice = random.Random(seed)
    first = sorted(size.sources, key=lambda source: (not size.is_long(source), dice.random()))
    later = [dice.choice(size.sources) for _ in range(size.orders - len(first))]
    pause = size.seconds / len(later)
    orders = [(0.0, source) for source in first] + [(number * pause, source) for number, source in enumerate(later, 1)]
    victims = dice.sample(range(size.workers), size.kills + bool(size.pause))
    hits = []
    if size.pause:
        at = size.seconds * dice.uniform(0.06, 0.15)
        hits.append(Hit(at=at, worker=victims.pop(), blow=Blow.PAUSE, back_after=size.pause))
    for number, worker in enumerate(victims):
        # The second one comes when others have had the time and the slots to take over from the paused one.
        at = size.seconds * (0.2 + 0.4 * number + 0.15 * dice.random())
        # On a machine of its own, a killed one may stay away. In a small plan nobody waits for leases to end.
        back = dice.choice((None, size.seconds * dice.uniform(0.03, 0.2))) if size.pause else 0.5
        hits.append(Hit(at=at, worker=worker, blow=Blow.KILL, back_after=back))
    return Plan(size=size, orders=tuple(orders), hits=tuple(hits))
