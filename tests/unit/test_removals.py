"""The rule about files that are gone at the remote: what is in doubt stays."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from http_downloader.domain.files import FileState
from http_downloader.domain.removals import (
    Check,
    FullListing,
    Hold,
    Known,
    Missing,
    OnDisk,
    Plan,
    Policy,
    Probe,
    RemoteDeletes,
    Seen,
    Served,
    Verdict,
    decide,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
HERE = (FileState.PRESENT, FileState.MISSING)
TRASH = Policy(action=RemoteDeletes.TRASH)
GOES = Check(served=Served.GONE, on_disk=OnDisk.OURS, shared=False)


def url(name: str) -> str:
    return f"https://example.org/{name}.jpg"


def known(*names: str, state: FileState = FileState.PRESENT, pinned: bool = False) -> list[Known]:
    return [
        Known(remote_id=name, state=state, url=url(name), sha256=f"hash of {name}", pinned=pinned) for name in names
    ]


def numbered(count: int) -> list[str]:
    return [f"file{number}" for number in range(count)]


def listing(*names: str, complete: bool = True, fingerprint: str = "f", positional: bool = False) -> FullListing:
    files = {name: Seen(url=url(name) if positional else None) for name in names}
    return FullListing(complete=complete, files=files, fingerprint=fingerprint, positional=positional, at=NOW, run=9)


def missing(times: int = 1, *, ago: timedelta = HOUR, fingerprint: str = "f", beside: int = 0, run: int = 8) -> Missing:
    return Missing(times=times, since=NOW - ago, last=NOW - ago, since_run=run, fingerprint=fingerprint, beside=beside)


def lost(names: list[str], seen: FullListing, policy: Policy = TRASH, **history: Missing) -> Plan:
    """The plan for a source with these files, of which those with a history are missing, and checks let all go."""
    files = [
        replace(file, state=FileState.MISSING if file.remote_id in history else FileState.PRESENT)
        for file in known(*names)
    ]
    return decide(files, seen, policy, history, dict.fromkeys(names, GOES))


def test_a_file_goes_at_the_second_complete_listing_without_it() -> None:
    names = numbered(10)
    first = lost(names, listing(*names[1:]))
    assert first.decisions["file0"].verdict is Verdict.MISSING
    counted = first.decisions["file0"].missing
    assert counted == Missing(times=1, since=NOW, last=NOW, since_run=9, fingerprint="f", beside=0)
    later = replace(listing(*names[1:]), at=NOW + HOUR, run=10)
    assert lost(names, later, file0=counted).to_remove == ["file0"]


def test_a_listing_that_comes_too_early_does_not_count() -> None:
    names = numbered(10)
    early = missing(ago=HOUR - timedelta(milliseconds=1))
    plan = lost(names, listing(*names[1:]), file0=early)
    assert (plan.decisions["file0"].verdict, plan.decisions["file0"].missing) == (Verdict.MISSING, early)


def test_another_way_of_listing_counts_anew() -> None:
    names = numbered(10)
    plan = lost(names, listing(*names[1:], fingerprint="other"), file0=missing(times=7, beside=3))
    decision = plan.decisions["file0"]
    assert decision.verdict is Verdict.MISSING
    assert decision.missing == Missing(times=1, since=NOW, last=NOW, since_run=8, fingerprint="other", beside=3)


def test_nothing_goes_without_a_check() -> None:
    """A caller that forgets to look removes nothing: the plan says what has to be looked at."""
    plan = decide(known(*numbered(10)), listing(*numbered(10)[1:]), TRASH, {"file0": missing()})
    assert (plan.to_remove, plan.to_check, plan.held) == ([], ["file0"], ["file0"])


@pytest.mark.parametrize(
    ("check", "hold"),
    [
        (replace(GOES, served=Served.SERVED), Hold.STILL_SERVED),
        (replace(GOES, served=Served.UNKNOWN), Hold.NOT_ASKED),
        (replace(GOES, on_disk=OnDisk.CHANGED), Hold.CHANGED_LOCALLY),
        (replace(GOES, on_disk=OnDisk.SYMLINK), Hold.SYMLINK),
        (replace(GOES, shared=True), Hold.SHARED),
        (replace(GOES, on_disk=OnDisk.ABSENT), None),
        (replace(GOES, on_disk=OnDisk.ABSENT, served=Served.SERVED), None),
        (GOES, None),
    ],
)
def test_checks(check: Check, hold: Hold | None) -> None:
    plan = decide(known(*numbered(10)), listing(*numbered(10)[1:]), TRASH, {"file0": missing()}, {"file0": check})
    assert plan.decisions["file0"].hold is hold
    assert plan.to_remove == ([] if hold else ["file0"])


def test_a_site_that_serves_what_it_deleted_need_not_be_asked() -> None:
    ignoring = replace(TRASH, probe=Probe.IGNORE)
    checks = {"file0": replace(GOES, served=Served.SERVED)}
    plan = decide(known(*numbered(10)), listing(*numbered(10)[1:]), ignoring, {"file0": missing()}, checks)
    assert plan.to_remove == ["file0"]


def test_what_is_listed_again() -> None:
    """Whatever had become of it; what was never gone is just there."""
    for state in FileState:
        plan = decide(known("file0", state=state), listing("file0"), TRASH, {"file0": missing(times=9)})
        gone = state in (FileState.MISSING, FileState.TRASHED, FileState.REMOVED)
        assert plan.decisions["file0"].verdict is (Verdict.REAPPEARED if gone else Verdict.PRESENT)
        assert plan.decisions["file0"].missing is None


def test_what_has_nothing_here_cannot_go() -> None:
    for state in set(FileState) - set(HERE):
        files = [*known("file0", state=state), *known(*numbered(10)[1:])]
        plan = decide(files, listing(*numbered(10)[1:]), TRASH, {"file0": missing(times=9)}, {"file0": GOES})
        assert plan.decisions["file0"].verdict is Verdict.ABSENT


def test_a_pinned_file_stays() -> None:
    files = [*known("file0", pinned=True), *known(*numbered(10)[1:])]
    plan = decide(files, listing(*numbered(10)[1:]), TRASH, {"file0": missing()}, {"file0": GOES})
    assert plan.decisions["file0"].hold is Hold.PINNED
    assert plan.to_check == []


def test_keep_counts_and_touches_nothing() -> None:
    names = numbered(10)
    plan = lost(names, listing(*names[1:]), replace(TRASH, action=RemoteDeletes.KEEP), file0=missing(times=5))
    assert plan.decisions["file0"].verdict is Verdict.KEPT
    assert plan.decisions["file0"].missing == missing(times=5)  # often enough: not counted any further
    assert plan.summary(RemoteDeletes.KEEP) == "1 kept"
    plan = lost(names, listing(*names[1:]), replace(TRASH, action=RemoteDeletes.KEEP), file0=missing())
    assert plan.decisions["file0"].missing == replace(missing(times=2), since=NOW - HOUR, last=NOW)


# Many at once


@pytest.mark.parametrize(
    ("files", "gone", "hold"),
    [
        (4, 1, Hold.SMALL_SOURCE),
        (5, 1, None),
        (1000, 100, None),
        (1000, 101, Hold.TOO_MANY),
        (50, 10, None),
        (50, 11, Hold.TOO_LARGE_A_SHARE),
    ],
)
def test_caps(files: int, gone: int, hold: Hold | None) -> None:
    """Exactly as many as the caps say may go; one more, and the whole plan is held."""
    names = numbered(files)
    plan = lost(
        names, listing(*names[gone:]), **{name: missing(run=number) for number, name in enumerate(names[:gone])}
    )
    assert plan.held_as_a_whole is hold
    assert len(plan.to_remove) == (0 if hold else gone)
    assert {plan.decisions[name].hold for name in names[:gone]} == {hold}


def test_the_whole_plan_is_held_for_files_that_something_else_holds_too() -> None:
    """Eleven of fifty: that ten of them are pinned does not make the eleventh harmless."""
    files = [*known(*numbered(10), pinned=True), *known(*numbered(50)[10:])]
    history = {name: missing(run=number) for number, name in enumerate(numbered(11))}
    plan = decide(files, listing(*numbered(50)[11:]), TRASH, history, {"file10": GOES})
    assert Counter(plan.decisions[name].hold for name in numbered(11)) == {Hold.PINNED: 10, Hold.TOO_LARGE_A_SHARE: 1}


@pytest.mark.parametrize(
    ("gone", "beside", "hold"),
    [(4, 4, None), (5, 4, None), (5, 5, Hold.RENAMED), (5, 10, Hold.RENAMED), (5, 11, None), (10, 10, Hold.RENAMED)],
)
def test_as_many_new_files_as_lost_ones(gone: int, beside: int, hold: Hold | None) -> None:
    """In the listing that lacked the old ones first. Far more new ones are a gallery that grows."""
    names = numbered(100)
    history = dict.fromkeys(names[:gone], missing(beside=beside))
    plan = lost(names, listing(*names[gone:]), **history)
    assert plan.held_as_a_whole is hold


def test_what_came_beside_the_loss_is_counted_in_the_listing_that_begins_it() -> None:
    seen = {**listing(*numbered(10)[6:]).files, **{f"new{n}": Seen(is_new=True) for n in range(6)}}
    plan = lost(numbered(10), replace(listing(), files=seen))
    assert {plan.decisions[name].missing.beside for name in numbered(6)} == {6}  # type: ignore[union-attr]
    assert plan.decisions["new0"].verdict is Verdict.NEW


def test_two_losses_are_not_added_up_to_one_rename() -> None:
    names = numbered(100)
    history = {name: missing(run=1 + number % 2, beside=6) for number, name in enumerate(names[:6])}
    assert lost(names, listing(*names[6:]), **history).held_as_a_whole is None


# Ids that cannot be trusted


def positional(**urls: str) -> FullListing:
    return replace(listing(positional=True), files={name: Seen(url=address) for name, address in urls.items()})


def test_picture_2_of_4_under_ids_that_count() -> None:
    """The last id is missing, and its picture is there under the one before."""
    files = [Known(remote_id=f"id{n}", state=FileState.PRESENT, url=url(f"picture{n}")) for n in range(1, 9)]
    seen = positional(id1=url("picture1"), **{f"id{n}": url(f"picture{n + 1}") for n in range(2, 8)})
    plan = decide(files, seen, TRASH, {"id8": missing()}, {"id8": GOES})
    assert plan.decisions["id8"].hold is Hold.IDS_NOT_STABLE


def test_the_last_picture_under_ids_that_count() -> None:
    """Nothing has shifted, and its address is nowhere in the listing: this one is gone."""
    files = known(*numbered(8))
    seen = listing(*numbered(7), positional=True)
    assert decide(files, seen, TRASH, {"file7": missing()}, {"file7": GOES}).to_remove == ["file7"]
    with_query = replace(seen, files={name: Seen(url=f"{one.url}?token=1") for name, one in seen.files.items()})
    assert decide(files, with_query, TRASH, {"file7": missing()}, {"file7": GOES}).to_remove == ["file7"]


def test_ids_that_count_without_addresses_hold_everything() -> None:
    seen = replace(listing(*numbered(7)), positional=True)
    plan = decide(known(*numbered(8)), seen, TRASH, {"file7": missing()}, {"file7": GOES})
    assert plan.decisions["file7"].hold is Hold.IDS_NOT_STABLE
    nameless = [*known(*numbered(7)), Known(remote_id="file7", state=FileState.PRESENT)]
    plan = decide(nameless, listing(*numbered(7), positional=True), TRASH, {"file7": missing()}, {"file7": GOES})
    assert plan.decisions["file7"].hold is Hold.IDS_NOT_STABLE


def test_the_same_address_under_another_id() -> None:
    """Also when that one is known since the run before, and the listing says nothing of it but that it is there."""
    files = [*known(*numbered(8)), Known(remote_id="again", state=FileState.PRESENT, url=url("file0") + "?expires=2")]
    plan = decide(files, listing(*numbered(8)[1:], "again"), TRASH, {"file0": missing()}, {"file0": GOES})
    assert plan.decisions["file0"].hold is Hold.STILL_LISTED


# Words


def test_the_summary() -> None:
    names = numbered(50)
    history = {name: missing(run=number) for number, name in enumerate(names[:4])}
    checks = {**dict.fromkeys(names[:3], GOES), names[3]: replace(GOES, served=Served.SERVED)}
    plan = decide(known(*names), listing(*names[6:]), TRASH, history, checks)
    expected = "3 {}; 2 waiting for a second listing; 1 held: still served at its URL"
    assert plan.summary(RemoteDeletes.TRASH) == expected.format("moved to trash")
    assert plan.summary(RemoteDeletes.DELETE) == expected.format("deleted")
    assert decide(known(*names), listing(*names), TRASH, {}).summary(RemoteDeletes.TRASH) == ""
    patient = replace(TRASH, confirmations=3)
    assert "1 waiting for another listing" in lost(names, listing(*names[1:]), patient, file0=missing()).summary(
        RemoteDeletes.TRASH
    )


def test_the_more_careful_of_two() -> None:
    keep, trash, delete = RemoteDeletes
    assert [keep.at_most(delete), delete.at_most(keep), trash.at_most(delete), delete.at_most(delete)] == [
        keep,
        keep,
        trash,
        delete,
    ]


def test_every_hold_has_a_sentence() -> None:
    assert all(hold.sentence for hold in Hold)
    assert {hold for hold in Hold if not hold.may_be_approved} == {
        Hold.PINNED,
        Hold.CHANGED_LOCALLY,
        Hold.SHARED,
        Hold.SYMLINK,
        Hold.NOT_CHECKED,
    }


# Properties

IDS = st.sampled_from([f"id{number}" for number in range(12)])


@st.composite
def situations(
    draw: st.DrawFn,
) -> tuple[list[Known], FullListing, Policy, dict[str, Missing], dict[str, Check]]:
    """Near the thresholds: histories about as long and old as the policy asks for, plans about as large as it allows."""
    bulk = [f"bulk{number}" for number in range(draw(st.sampled_from([0, 3, 20, 60, 60])))]
    ids = [*draw(st.lists(IDS, unique=True, min_size=1)), *bulk]
    listed = set(bulk) | draw(st.sets(IDS, max_size=4))
    odd = draw(st.dictionaries(IDS, st.sampled_from(FileState), max_size=3))
    pinned = draw(st.sets(IDS, max_size=2))
    files = [
        Known(
            remote_id=one,
            state=odd.get(one, FileState.PRESENT),
            url=draw(st.sampled_from([None, url("elsewhere")])) if one in odd else url(one),
            pinned=one in pinned,
        )
        for one in ids
    ]
    policy = Policy(
        action=draw(st.sampled_from([*3 * [RemoteDeletes.TRASH], *RemoteDeletes])),
        confirmations=draw(st.sampled_from([2, 2, 2, 3])),
        max_count=draw(st.sampled_from([0, 2, 5, 100, 100])),
        max_share=draw(st.sampled_from([0.0, 0.1, 0.2, 0.5, 1.0, 1.0])),
        probe=draw(st.sampled_from(Probe)),
    )
    seen = {
        one: Seen(
            url=draw(st.sampled_from([None, url(one), url("shifted")])) if one in odd else url(one),
            is_new=one not in ids and draw(st.booleans()),
        )
        for one in sorted(listed)
    }
    found = FullListing(
        complete=draw(st.sampled_from([*4 * [True], False])),
        files=seen,
        fingerprint="f",
        positional=draw(st.sampled_from([*3 * [False], True])),
        at=NOW,
        run=9,
    )
    history = {
        one: missing(
            times=draw(st.integers(1, 4)),
            ago=draw(st.sampled_from([HOUR, HOUR, timedelta(minutes=59), 5 * HOUR])),
            fingerprint=draw(st.sampled_from([*4 * ["f"], "g"])),
            beside=draw(st.sampled_from([0, 0, 0, 5, 8])),
            run=draw(st.integers(6, 8)),
        )
        for one in draw(st.sets(IDS, min_size=3))
        if one in ids
    }
    checks = {
        one: Check(
            served=draw(st.sampled_from([*4 * [Served.GONE], *Served])),
            on_disk=draw(st.sampled_from([*5 * [OnDisk.OURS], *OnDisk])),
            shared=draw(st.sampled_from([False, False, False, True])),
        )
        for one in sorted(set(ids) - draw(st.sets(IDS, max_size=2)) - set(bulk))
    }
    return files, found, policy, history, checks


@settings(max_examples=1500, deadline=None)
@given(situations())
def test_what_goes_is_proven_gone(
    situation: tuple[list[Known], FullListing, Policy, dict[str, Missing], dict[str, Check]],
) -> None:
    """Counted again, by hand: complete, confirmed, few, checked, nobody's, and not there under another name."""
    files, found, policy, history, checks = situation
    plan = decide(files, found, policy, history, checks)
    by_id = {file.remote_id: file for file in files}
    event(f"removes {min(len(plan.to_remove), 3)}")
    assert set(plan.decisions) == by_id.keys() | found.files.keys()
    for one in plan.to_remove:
        before, check = history[one], checks[one]
        assert found.complete
        assert policy.action is not RemoteDeletes.KEEP
        assert one not in found.files
        assert by_id[one].state in HERE
        assert not by_id[one].pinned
        assert before.fingerprint == found.fingerprint
        assert before.times + (found.at - before.last >= policy.min_age) >= policy.confirmations
        if check.on_disk is not OnDisk.ABSENT:
            assert check.on_disk is OnDisk.OURS
            assert not check.shared
            assert check.served is Served.GONE or policy.probe is Probe.IGNORE
        assert by_id[one].url not in {seen.url for seen in found.files.values() if seen.url is not None}
        if found.positional:
            assert by_id[one].url is not None
    in_place = [file for file in files if file.state in HERE]
    assert len(plan.to_remove) <= policy.max_count
    assert len(plan.to_remove) <= policy.max_share * len(in_place)
    assert not plan.to_remove or len(in_place) >= 5


@settings(max_examples=500, deadline=None)
@given(situations())
def test_an_incomplete_listing_says_nothing(
    situation: tuple[list[Known], FullListing, Policy, dict[str, Missing], dict[str, Check]],
) -> None:
    """Nothing goes, nothing is held, and no history changes."""
    files, found, policy, history, checks = situation
    plan = decide(files, replace(found, complete=False), policy, history, checks)
    assert not plan.to_remove
    assert not plan.held
    for one, decision in plan.decisions.items():
        assert decision.missing in (None, history.get(one))
        assert decision.verdict not in (Verdict.MISSING, Verdict.KEPT)


@settings(max_examples=500, deadline=None)
@given(situations())
def test_a_plan_that_was_carried_out_changes_nothing_the_second_time(
    situation: tuple[list[Known], FullListing, Policy, dict[str, Missing], dict[str, Check]],
) -> None:
    """Decided again at the same moment: nothing more goes, and no history moves."""
    files, found, policy, history, checks = situation
    plan = decide(files, found, policy, history, checks)
    after, remembered = carried_out(files, plan, history)
    again = decide(after, found, policy, remembered, checks)
    assert not set(again.to_remove) - set(plan.held)
    for one, decision in again.decisions.items():
        if decision.missing is not None:
            assert decision.missing == remembered[one]


def carried_out(
    files: list[Known], plan: Plan, history: Mapping[str, Missing]
) -> tuple[list[Known], dict[str, Missing]]:
    gone = {Verdict.REMOVE: FileState.TRASHED}
    waiting = dict.fromkeys((Verdict.MISSING, Verdict.HELD, Verdict.KEPT), FileState.MISSING)
    back = {Verdict.REAPPEARED: FileState.PRESENT}
    states = gone | waiting | back
    decisions = plan.decisions
    after = [replace(file, state=states.get(decisions[file.remote_id].verdict, file.state)) for file in files]
    kept = {file.remote_id for file in after if file.state is FileState.MISSING}
    updated = {one: decision.missing for one, decision in decisions.items() if decision.missing is not None}
    return after, {one: series for one, series in {**history, **updated}.items() if one in kept}
