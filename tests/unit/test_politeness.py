"""How many downloads go on at once: halved on a refusal, grown one by one, and never above what is allowed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from http_downloader.domain.politeness import PATIENCE, QUIET, Pace, full_pace, refused, succeeded

events = st.lists(st.tuples(st.floats(0, 30), st.booleans(), st.one_of(st.none(), st.floats(0, 100))), max_size=60)


@given(st.integers(1, 32), events)
def test_lanes_stay_between_one_and_most(most: int, steps: list[tuple[float, bool, float | None]]) -> None:
    """Whatever the site answers, at least one lane works, and never more than are configured."""
    pace, now = full_pace(most), 0.0
    for seconds, success, retry_after in steps:
        now += seconds
        pace = succeeded(pace, now) if success else refused(pace, now, begun_at=now, retry_after=retry_after)
        assert 1 <= pace.lanes <= pace.most == most
        assert pace.lanes <= max(pace.ceiling, 1)


@given(st.integers(1, 32), st.floats(0, 1000))
def test_retry_after_is_honoured(most: int, seconds: float) -> None:
    """Nothing starts before the time that the site named."""
    assert refused(full_pace(most), 10.0, begun_at=10.0, retry_after=seconds).resume_at == 10.0 + seconds


def test_one_burst_counts_once() -> None:
    """Eight requests refused at the same moment halve the lanes once, not eight times."""
    pace = full_pace(8)
    for _ in range(8):
        pace = refused(pace, 10.0, begun_at=9.9, retry_after=None)
    assert pace.lanes == 4


def test_settles_below_what_was_refused() -> None:
    """A site that bears three: after two refusals it is three, and stays three for a long while."""
    pace, now, refusals, lanes = full_pace(8), 0.0, 0, []
    for _ in range(3000):
        now += 0.1
        if now < pace.resume_at:
            continue
        if pace.lanes > 3:
            pace = refused(pace, now, begun_at=now, retry_after=None)
            refusals += 1
        else:
            pace = succeeded(pace, now)
        lanes.append(pace.lanes)
    assert lanes[500:1000] == [3] * 500
    assert refusals <= 5


def test_grows_back_when_all_is_quiet() -> None:
    """A site that refused once is trusted again, step by step, to the full number."""
    pace = refused(full_pace(8), 0.0, begun_at=0.0, retry_after=0.0)
    now = 0.0
    while pace.lanes < 8:
        now += QUIET
        pace = succeeded(pace, now)
        assert now < PATIENCE * 4
    assert isinstance(pace, Pace)


def test_pauses_grow_without_a_success_between() -> None:
    """A site that does not say how long is asked more and more rarely, at least once a minute."""
    pace, now, pauses = full_pace(1), 0.0, []
    for _ in range(10):
        pace = refused(pace, now, begun_at=now, retry_after=None)
        pauses.append(pace.resume_at - now)
        now = pace.resume_at
    assert pauses == sorted(pauses)
    assert pauses[0] == 1.0
    assert pauses[-1] == 60.0
