"""What must hold of several workers, as one pure function of what the sites saw and what came of the orders."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.torture.promises import Broken, Observed, broken

from .visits import Process, Visit

UNKNOWN = 0.01
"""The part of all requests whose process may be unknown: those of a few that were killed while they connected."""


@dataclass(slots=True, kw_only=True)
class Struck:
    """A worker that was killed or paused."""

    what: str
    worker: str
    at: float
    sources: list[int]
    """Those that it had a run of in that moment."""
    until: float = math.inf
    """When a paused one went on."""


@dataclass(slots=True, kw_only=True)
class Facts:
    seen: Observed
    visits: list[Visit]
    most_at_once: dict[str, int]
    """Requests that a site was answering at the same time, at most, by its own count."""
    site_concurrency: int
    lanes: int
    struck: list[Struck] = field(default_factory=list)
    expected_strikes: int = 0


@dataclass(frozen=True, slots=True)
class Stay:
    """From the first request of a process for a source to the end of its last one."""

    process: Process
    source: int
    site: str
    begin: float
    end: float


def stays(visits: list[Visit]) -> list[Stay]:
    """In the order in which they began."""
    found: dict[tuple[Process, int], Stay] = {}
    for visit in visits:
        if visit.process is not None:
            key = visit.process, visit.source
            known = found.get(key)
            begin = min(visit.at, known.begin) if known else visit.at
            end = max(visit.until, known.end) if known else visit.until
            found[key] = Stay(visit.process, visit.source, visit.site, begin, end)
    return sorted(found.values(), key=lambda stay: stay.begin)


def violations(facts: Facts) -> list[Broken]:
    """Everything that must not be. Empty: all is well."""
    found = broken(facts.seen)
    for what, check in CHECKS:
        found += [Broken(what, sentence) for sentence in check(facts)]
    return found


def _no_source_runs_twice_at_a_time(facts: Facts) -> Iterator[str]:
    """Once a process has asked for a source, no older one asks for it, or is still being answered while it lives."""
    last: dict[int, Stay] = {}
    for stay in stays(facts.visits):
        before = last.get(stay.source)
        if before is not None and before.end > stay.begin:
            yield (
                f"source {stay.source}: a process of {stay.process.worker} began, and one of {before.process.worker}"
                f" went on for {before.end - stay.begin:.2f} s"
            )
        if before is None or stay.end > before.end:
            last[stay.source] = stay


def _no_site_has_too_many_runs(facts: Facts) -> Iterator[str]:
    under_way: dict[str, list[Stay]] = {}
    for stay in stays(facts.visits):
        others = under_way[stay.site] = [other for other in under_way.get(stay.site, []) if other.end > stay.begin]
        others.append(stay)
        if len(others) > facts.site_concurrency:
            sources = ", ".join(f"{other.source} ({other.process.worker})" for other in others)
            yield f"{stay.site} had {len(others)} runs at once, not {facts.site_concurrency}: sources {sources}"


def _no_site_gets_too_many_requests(facts: Facts) -> Iterator[str]:
    """A run asks for its listing beside what its lanes ask for."""
    limit = facts.site_concurrency * (facts.lanes + 1)
    for site, most in facts.most_at_once.items():
        if most > limit:
            yield f"{site} had {most} requests at once, not {limit}"


def _every_source_was_seen(facts: Facts) -> Iterator[str]:
    """The site knows of each source that was ordered, and by whom."""
    visited = {visit.source for visit in facts.visits if visit.process is not None and visit.process.worker}
    yield from (f"no site was asked for source {source}" for source in {*facts.seen.posted.values()} - visited)
    unknown = sum(visit.process is None for visit in facts.visits)
    if unknown > UNKNOWN * len(facts.visits):
        yield f"{unknown} of {len(facts.visits)} requests came from nobody knows where"


def _others_took_over_from_whoever_was_struck(facts: Facts) -> Iterator[str]:
    if len(facts.struck) < facts.expected_strikes:
        yield f"{len(facts.struck)} of {facts.expected_strikes} workers were struck"
    begun = stays(facts.visits)
    for one in facts.struck:
        if not any(one.at < stay.begin < one.until for stay in begun if stay.source in one.sources):
            yield f"{one.worker} was {one.what} when nobody had anything to take over from it"


CHECKS = (
    ("source twice", _no_source_runs_twice_at_a_time),
    ("site limit", _no_site_has_too_many_runs),
    ("site limit", _no_site_gets_too_many_requests),
    ("harness", _every_source_was_seen),
    ("harness", _others_took_over_from_whoever_was_struck),
)


def takeovers(facts: Facts) -> list[float]:
    """Seconds from each strike until another process asked for each source that the struck worker had a run of: until
    its lease had ended, or it was started again, and a slot was free."""
    begun = stays(facts.visits)
    found = []
    for one in facts.struck:
        for source in one.sources:
            next_ones = [stay.begin for stay in begun if stay.source == source and stay.begin > one.at]
            found += [min(next_ones) - one.at] if next_ones else []
    return found
