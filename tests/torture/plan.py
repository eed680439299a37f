"""What happens in each round, drawn from a seed: the same seed gives the same rounds."""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from http_downloader.faults import POINTS

SITES = 3
SOURCES_PER_SITE = 3
SOURCES = tuple(range(1, SITES * SOURCES_PER_SITE + 1))


class Trouble(StrEnum):
    """What goes wrong. The names are those of the result."""

    KILL_SERVICE = "service killed"
    KILL_GALLERY = "gallery process killed"
    STOP_SERVICE = "service told to stop"
    BROKER_RESTART = "broker stopped and started"
    BROKER_KILL = "broker killed and started"
    BROKER_HANG = "broker hung for a second"
    CUT = "connection to the broker cut"
    CUT_BEFORE_CONFIRM = "connection cut between publish and confirm"
    REFUSE = "connections to the broker refused"
    SITE_ERRORS = "site answers with errors"
    SITE_DOWN = "site gone for a second"
    CATALOG_LOCKED = "catalog locked for a second"
    CATALOG_CUT = "connections to the catalog cut"
    FAILPOINT = "killed at a failpoint"
    DISK = "disk full or broken"


WEIGHTS = {
    Trouble.KILL_SERVICE: 5,
    Trouble.KILL_GALLERY: 6,
    Trouble.STOP_SERVICE: 2,
    Trouble.BROKER_RESTART: 0.3,
    Trouble.BROKER_KILL: 0.3,
    Trouble.BROKER_HANG: 1,
    Trouble.CUT: 4,
    Trouble.CUT_BEFORE_CONFIRM: 4,
    Trouble.REFUSE: 2,
    Trouble.SITE_ERRORS: 4,
    Trouble.SITE_DOWN: 1,
    Trouble.CATALOG_LOCKED: 1,
    Trouble.CATALOG_CUT: 2,
}
"""How often each comes, among those that come at a time of their own."""

KILLING_POINTS = tuple(point for point in POINTS if not point.startswith(("verify.", "repair.")))
"""All that the service and its gallery processes pass; in this order the seed of a stored result gives the same rounds."""
DISK_FAULTS = ("full", "broken", "read-only", "too-many-files")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mishap:
    at: float
    """Seconds after the service has started."""
    trouble: Trouble
    choice: float
    """From 0 to 1: which of the processes, sites or errors there are then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """From one start of the service to its end, whoever brings it."""

    fault: str
    """FAULT_AT; empty: none."""
    mishaps: tuple[Mishap, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What is different at a source since the round before. Sizes in bytes."""

    source: int
    added: tuple[int, ...]
    """The size of each new file."""
    removed: float
    """From 0 to 1: the part of its files that is gone; 0 mostly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    number: int
    changes: tuple[Change, ...]
    orders: tuple[int, ...]
    """Sources that are ordered at the beginning; the same one may come again."""
    later_orders: tuple[int, ...]
    """Sources that are ordered while it goes on."""
    garbage: int
    """How many orders cannot be understood."""
    file_latency: float
    lives: tuple[Life, ...]


def draw(seed: int, number: int) -> Round:
    """The round with this number, from 0."""
    dice = random.Random(f"{seed}/{number}")
    # The first one brings every source to life; afterwards some of them are at rest.
    changed = SOURCES if number == 0 else dice.sample(SOURCES, dice.randint(2, 5))
    return Round(
        number=number,
        changes=tuple(_change(dice, source, first=number == 0) for source in changed),
        orders=tuple(dice.sample(changed, len(changed))) + tuple(dice.choices(SOURCES, k=dice.randint(0, 3))),
        later_orders=tuple(dice.choices(SOURCES, k=dice.randint(0, 3))),
        garbage=dice.choice((0, 0, 0, 1, 2)),
        file_latency=dice.choice((0.0, 0.02, 0.05, 0.1)),
        lives=tuple(_life(dice) for _ in range(dice.randint(1, 3))),
    )


def _change(dice: random.Random, source: int, *, first: bool) -> Change:
    count = dice.randint(5, 15) if first else dice.randint(0, 6)
    return Change(
        source=source,
        added=tuple(dice.choice((300, 3_000, 20_000, 400_000)) for _ in range(count)),
        removed=dice.choice((0, 0, 0.1, 0.3)) if not first else 0,
    )


def _life(dice: random.Random) -> Life:
    fault, kind = "", dice.random()
    if kind < 0.6:
        fault = f"{dice.choice(KILLING_POINTS)}:{dice.choice((1, 1, 2, 3, 5, 9))}"
    elif kind < 0.75:
        point = dice.choice(("lane.write", "lane.before_rename", "lane.after_rename"))
        fault = f"{point}:{dice.randint(1, 5)}={dice.choice(DISK_FAULTS)}"
    kinds, weights = zip(*WEIGHTS.items(), strict=True)
    mishaps = [
        Mishap(at=dice.uniform(0, 1.5), trouble=dice.choices(kinds, weights)[0], choice=dice.random())
        for _ in range(dice.randint(1, 3))
    ]
    return Life(fault=fault, mishaps=tuple(sorted(mishaps, key=lambda mishap: mishap.at)))
