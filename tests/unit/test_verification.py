"""The rule that says whether a file is the recorded one, and what a repair may do: for every file, whatever it is."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from http_downloader.domain.verification import (
    Depth,
    Fault,
    Found,
    Kind,
    Mend,
    Recorded,
    aside_id,
    judge,
    mend,
    set_aside_from,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
bodies = st.binary(max_size=20)
times = st.integers(-1000, 1000).map(lambda seconds: NOW + timedelta(seconds=seconds))


def sha(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def recorded(body: bytes, *, sized: bool = True, hashed: bool = True) -> Recorded:
    return Recorded(size=len(body) if sized else None, sha256=sha(body) if hashed else None, since=NOW)


def found(body: bytes, *, read: bool = True, mtime: datetime = NOW) -> Found:
    return Found(kind=Kind.FILE, size=len(body), sha256=sha(body) if read else None, mtime=mtime)


@given(bodies, bodies, times)
def test_a_file_is_well_exactly_when_its_bytes_are_the_recorded_ones(was: bytes, now: bytes, mtime: datetime) -> None:
    judgement = judge(recorded(was), found(now, mtime=mtime))
    assert (judgement.fault is None) == (was == now)
    if was != now:
        assert judgement.fault is Fault.CHANGED
        assert judgement.words


@given(bodies, bodies, times, st.booleans(), st.booleans(), st.booleans())
def test_time_alone_is_no_fault_and_no_excuse(
    was: bytes, now: bytes, mtime: datetime, sized: bool, hashed: bool, read: bool
) -> None:
    """What the time of a file says is only whether somebody here may have written it."""
    record = recorded(was, sized=sized, hashed=hashed)
    judgement = judge(record, found(now, read=read, mtime=mtime))
    assert judgement.fault is judge(record, found(now, read=read)).fault
    assert judgement.edited == (judgement.fault is Fault.CHANGED and mtime > NOW)


@given(bodies, bodies)
def test_without_a_hash_the_size_is_compared_and_no_more_is_claimed(was: bytes, now: bytes) -> None:
    for record, there in (
        (recorded(was, hashed=False), found(now)),
        (recorded(was), found(now, read=False)),
    ):
        judgement = judge(record, there)
        assert judgement.depth is Depth.SIZE
        assert (judgement.fault is None) == (len(was) == len(now))
    assert judge(recorded(was, sized=False, hashed=False), found(now)) == judge(
        recorded(was, sized=False), found(now, read=False)
    )
    assert judge(recorded(was, sized=False, hashed=False), found(now)).depth is Depth.EXISTENCE


@given(bodies)
def test_content_is_claimed_only_of_what_was_read(body: bytes) -> None:
    assert judge(recorded(body), found(body)).depth is Depth.CONTENT
    assert judge(recorded(body), found(body, read=False)).depth is not Depth.CONTENT


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Kind.ABSENT, Fault.MISSING),
        (Kind.OTHER, Fault.NOT_A_FILE),
        (Kind.BEHIND_LINK, Fault.NOT_A_FILE),
        (Kind.UNREADABLE, Fault.UNREADABLE),
        (Kind.FORBIDDEN, Fault.UNREADABLE),
    ],
)
@given(body=bodies, sized=st.booleans(), hashed=st.booleans())
def test_what_is_no_readable_file_is_never_well(
    kind: Kind, fault: Fault, body: bytes, sized: bool, hashed: bool
) -> None:
    """Whatever is recorded, and whatever else the look has given."""
    there = Found(kind=kind, size=len(body), sha256=sha(body), mtime=NOW)
    judgement = judge(recorded(body, sized=sized, hashed=hashed), there)
    assert judgement.fault is fault
    assert judgement.words


def test_every_kind_is_judged() -> None:
    for kind in Kind:
        assert judge(recorded(b"a"), Found(kind=kind, size=1, sha256=sha(b"a"))).fault in (None, *Fault)


@given(st.sampled_from(Fault), st.sampled_from([*Kind, None]), st.booleans(), st.booleans())
def test_a_repair_moves_a_file_only_where_another_copy_may_be_had(
    fault: Fault, kind: Kind | None, listed: bool, in_trash: bool
) -> None:
    """Nothing is touched that the site did not list, that lies in the trash, or that nobody knows."""
    what = mend(fault, kind, listed=listed, in_trash=in_trash)
    if in_trash or not listed or fault is Fault.UNKNOWN:
        assert what is Mend.NOTHING
    if what is Mend.REPLACE:
        assert fault in (Fault.CHANGED, Fault.UNREADABLE)
    if fault in (Fault.MISSING, Fault.CHANGED) and listed and not in_trash:
        assert what is not Mend.NOTHING


def test_what_permissions_forbid_and_what_lies_behind_a_link_is_left_alone() -> None:
    for fault, kind in ((Fault.UNREADABLE, Kind.FORBIDDEN), (Fault.NOT_A_FILE, Kind.BEHIND_LINK)):
        assert mend(fault, kind, listed=True, in_trash=False) is Mend.NOTHING


@given(st.text(), st.binary(min_size=1).map(sha))
def test_the_id_of_a_copy_leads_back_to_its_file(remote_id: str, mark: str) -> None:
    assert set_aside_from(aside_id(remote_id, mark)) == remote_id


@given(st.text(alphabet="abc_ 0123456789:/", max_size=40))
def test_an_id_of_a_site_is_no_copy(remote_id: str) -> None:
    assert set_aside_from(remote_id) is None
