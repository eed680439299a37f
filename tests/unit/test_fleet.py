"""The judge of the fleet finds each kind of violation: an empty verdict means something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.fleet.judge import CHECKS, Facts, Struck, stays, takeovers, violations
from tests.fleet.plan import FULL, SMALL, Blow, draw
from tests.fleet.visits import Process, Visit
from tests.torture.promises import Observed, Told

SITE = "http://127.0.0.1:1"
FIRST, SECOND, BESIDE = Process(100, 1, "machine0"), Process(200, 2, "machine1"), Process(300, 3, "machine1")


def visit(process: Process | None, source: int, at: float, until: float) -> Visit:
    return Visit(at=at, until=until, site=SITE, source=source, process=process)


def all_is_well() -> Facts:
    """Source 1 was taken over from a worker that was killed at 2.5; meanwhile source 2 ran beside it, at the same site."""
    seen = Observed(
        posted={"one": 1, "two": 2},
        ordered={1, 2},
        journal={"one": {"c-1"}, "two": {"c-2"}},
        runs={"c-1": "synchronized", "c-2": "synchronized"},
        listed={1: {}, 2: {}},
        ever={1: {}, 2: {}},
        folders={1: "galleries/1", 2: "galleries/2"},
        events=[
            Told(type="source-synchronized", message_id="s1", run_id="c-1", source_id=1, orders=("one",)),
            Told(type="source-synchronized", message_id="s2", run_id="c-2", source_id=2, orders=("two",)),
        ],
    )
    visits = [
        visit(FIRST, 1, 1.0, 2.0),
        visit(BESIDE, 2, 1.5, 3.0),
        visit(FIRST, 1, 2.0, 2.0),  # it was killed before its answer
        visit(SECOND, 1, 3.5, 4.0),
        visit(SECOND, 1, 4.0, 5.0),
    ]
    return Facts(
        seen=seen,
        visits=visits,
        most_at_once={SITE: 4},
        site_concurrency=2,
        lanes=1,
        struck=[Struck(what="killed", worker="machine0", at=2.5, sources=[1])],
        expected_strikes=1,
    )


def test_nothing_is_found_when_all_is_well() -> None:
    facts = all_is_well()
    assert violations(facts) == []
    assert takeovers(facts) == [1.0]
    assert [(stay.process, stay.begin, stay.end) for stay in stays(facts.visits)] == [
        (FIRST, 1.0, 2.0),
        (BESIDE, 1.5, 3.0),
        (SECOND, 3.5, 5.0),
    ]


SPOILERS: dict[str, tuple[str, Callable[[Facts], object]]] = {
    "a zombie that asks again": ("source twice", lambda facts: facts.visits.append(visit(FIRST, 1, 4.5, 4.6))),
    "a zombie that is still answered": (
        "source twice",
        lambda facts: facts.visits.insert(0, visit(FIRST, 1, 1.0, 3.6)),
    ),
    "a zombie that outlives two others": (
        "source twice",
        lambda facts: facts.visits.extend([visit(FIRST, 1, 6.0, 6.1), visit(BESIDE, 1, 5.5, 5.6)]),
    ),
    "three runs at a site": (
        "site limit",
        lambda facts: facts.visits.append(visit(replace(SECOND, pid=400), 3, 1.8, 1.9)),
    ),
    "too many requests at once": ("site limit", lambda facts: facts.most_at_once.update({SITE: 5})),
    "a source that no site was asked for": ("harness", lambda facts: facts.seen.posted.update(three=3)),
    "requests from nowhere": ("harness", lambda facts: facts.visits.append(visit(None, 1, 6.0, 6.0))),
    "a strike that did not come": ("harness", lambda facts: facts.struck.clear()),
    "a strike that hit nobody at work": ("harness", lambda facts: facts.struck[0].sources.clear()),
    "a pause during which nobody took over": (
        "harness",
        lambda facts: facts.struck.append(Struck(what="paused", worker="machine0", at=2.5, sources=[1], until=3.0)),
    ),
    "an event that was lost": ("events", lambda facts: facts.seen.events.pop()),
    "a source that is not synchronized": ("orders", lambda facts: facts.seen.runs.update({"c-2": "failed"})),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_each_violation_is_found(name: str) -> None:
    what, spoil = SPOILERS[name]
    facts = all_is_well()
    spoil(facts)
    assert what in {problem.what for problem in violations(facts)}


def test_every_check_has_found_something() -> None:
    for what, check in CHECKS:
        found = []
        for _, spoil in SPOILERS.values():
            facts = all_is_well()
            spoil(facts)
            found += list(check(facts))
        assert found, f"{what}: {check.__name__} never finds anything"


@pytest.mark.parametrize("size", [FULL, SMALL])
def test_a_plan_is_drawn_from_its_seed(size: object) -> None:
    plan = draw(7, size)
    assert plan == draw(7, size)
    assert plan != draw(8, size)


def test_a_full_plan_is_what_was_promised() -> None:
    """400 orders for each of 40 sources on 8 sites; two of four workers are killed, one is stopped for two minutes."""
    for seed in range(50):
        plan = draw(seed, FULL)
        assert len(plan.orders) == 400
        assert {source for _, source in plan.orders} == set(range(1, 41))
        assert sorted(hit.blow for hit in plan.hits) == [Blow.KILL, Blow.KILL, Blow.PAUSE]
        assert len({hit.worker for hit in plan.hits}) == 3
        assert all(hit.at < 120 for hit in plan.hits)
        assert [hit.back_after for hit in plan.hits if hit.blow is Blow.PAUSE] == [120]
