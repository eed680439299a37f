"""What is counted of runs, and that looking at something slow holds nobody up."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from http_downloader.catalog.engine import utcnow
from http_downloader.catalog.journal import Claim
from http_downloader.domain.errors import CatalogError
from http_downloader.domain.events import EventType, RunContext, file_event
from http_downloader.domain.reasons import Reason
from http_downloader.domain.runs import Counts, Ending, RunState
from http_downloader.gallery.messages import Busy, Progress, Waiting
from http_downloader.sync.tally import LATENCIES, MOST_SITES, OTHER_SITES, Latencies, Tally
from http_downloader.sync.updates import Finished, Started
from http_downloader.web import glance
from http_downloader.web.glance import Glance


def claim(run: int = 1, site: str = "s") -> Claim:
    return Claim(
        run=run, run_id=f"x-{run}", source_id=run, url="https://a", content_path="a", site=site, owner="w", fence=1,
        attempt=1, correlation_id=None, counts={},
    )  # fmt: skip


def came(run: int, name: str, size: int | None):  # type: ignore[no-untyped-def]
    return file_event(
        EventType.FILE_DOWNLOADED, RunContext(run_id="x", source_id=run), remote_id=name, filename=name, size=size
    )


def test_a_run_from_its_start_to_its_end() -> None:
    """While it is performed it is reported with its counts; a run that was broken off is forgotten; totals stay."""
    tally = Tally()
    tally.saw(claim(), Started(attempt=1, known=3))
    tally.saw(claim(2), Started(attempt=1, known=0))
    tally.saw(claim(), Busy(2))
    tally.saw(claim(), Progress("a", 10, 30))
    tally.saw(claim(), Progress("a", 20, 30))
    tally.saw(claim(), came(1, "a", 30))
    tally.saw(claim(), came(1, "b", None))
    (report,) = (run.report() for run in tally.underway([1]))
    assert {key: report[key] for key in ("run", "known", "downloaded", "bytes", "lanes")} == {
        "run": 1, "known": 3, "downloaded": 2, "bytes": 30, "lanes": 2,
    }  # fmt: skip
    assert report["bytes_per_second"] == 6  # 30 bytes, over five seconds
    assert tally.underway([1, 2]) == tally.underway([1])
    ending = Ending(state=RunState.FAILED, reason=Reason.CRASHED, detail="")
    tally.saw(claim(), Finished(ending=ending, counts=Counts(), gaps=[], again=utcnow() + timedelta(seconds=9)))
    assert tally.underway([1]) == []
    tally.saw(claim(), Started(attempt=2, known=3))
    tally.saw(claim(), Finished(ending=ending, counts=Counts(), gaps=[]))
    assert (tally.attempts, tally.downloaded, tally.bytes, dict(tally.ended)) == (3, 2, 30, {("failed", "crashed"): 1})


def test_waits_count_once_and_by_site() -> None:
    """Lanes that are told of the same wait do not add it up; a pause that no site asked for counts nowhere; sites
    beyond the first ones share a name; a wait that is too long for a slot counts as well."""
    tally = Tally()
    tally.saw(claim(), Waiting(100, "the site asks", asked=True))
    tally.saw(claim(), Waiting(100, "the site asks", asked=True))
    tally.saw(claim(), Waiting(0))
    tally.saw(claim(2), Waiting(50, "another run was asked"))
    assert 99 < tally.waited["s"] < 101
    assert tally.waits["s"] <= 2
    limited = Ending(state=RunState.FAILED, reason=Reason.RATE_LIMITED, detail="later")
    tally.saw(claim(3, "t"), Finished(ending=limited, counts=Counts(), gaps=[], again=utcnow() + timedelta(hours=1)))
    assert 3590 < tally.waited["t"] <= 3600
    for number in range(4, 4 + 2 * MOST_SITES):
        tally.saw(claim(number, f"site{number}"), Waiting(10, "the site asks", asked=True))
    assert len(tally.waits) == len(tally.waited) == MOST_SITES + 1
    assert tally.waits[OTHER_SITES] == MOST_SITES + 2


@given(st.lists(st.floats(0, 1e5)))
def test_latencies(values: list[float]) -> None:
    """Each bucket holds what is not larger than its bound and larger than the one before."""
    latencies = Latencies()
    for value in values:
        latencies.add(value)
    for index, bound in enumerate(LATENCIES):
        assert sum(latencies.counts[: index + 1]) == sum(value <= bound for value in values)
    assert sum(latencies.counts) == len(values)
    assert latencies.seconds == pytest.approx(sum(values))


def test_a_look_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it longer than a moment, and no second one is begun; once it ends, what it saw is good."""
    monkeypatch.setattr(glance, "PATIENCE", 0.05)
    begun, end = 0, asyncio.Event()

    async def look() -> int:
        nonlocal begun
        begun += 1
        await end.wait()
        return 7

    async def ask() -> None:
        seen = Glance(look)
        assert [await seen.value(), await seen.value()] == [None, None]
        assert begun == 1
        end.set()
        assert [await seen.value(), await seen.value()] == [7, 7]
        assert begun == 1

    asyncio.run(ask())


def test_a_look_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """It tells nothing, also not what was seen before, and is tried again only after a while."""
    monkeypatch.setattr(glance, "FRESH", 0.0)
    monkeypatch.setattr(glance, "SHARE", 0)
    answers: list[int | Exception] = [1, CatalogError("away"), 2]

    async def look() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def ask() -> list[int | None]:
        seen = Glance(look)
        return [await seen.value() for _ in range(3)]

    assert asyncio.run(ask()) == [1, None, 2]
