"""The judge of the torture run finds each kind of loss: an empty verdict means something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from http_downloader.faults import POINTS, parse
from tests.torture.plan import draw
from tests.torture.promises import CHECKS, Observed, Row, Told, broken, duplicates

GOOD = "good-order"
FOLDERS = {1: "galleries/1"}


def all_is_well() -> Observed:
    """One source with two files, of which one has been removed; one run before, one in this round."""
    events = [
        Told(type="file-downloaded", message_id="d1", run_id="c-1", source_id=1, filename="a.png"),
        Told(type="file-downloaded", message_id="d2", run_id="c-1", source_id=1, filename="b.png"),
        Told(type="source-synchronized", message_id="s1", run_id="c-1", source_id=1, orders=("older",)),
        Told(type="file-skipped", message_id="k1", run_id="c-2", source_id=1, filename="a.png"),
        Told(type="file-skipped", message_id="k1", run_id="c-2", source_id=1, filename="a.png"),
        Told(type="file-removed", message_id="r2", run_id="c-2", source_id=1, filename="b.png"),
        Told(type="source-synchronized", message_id="s2", run_id="c-2", source_id=1, orders=(GOOD,)),
    ]
    return Observed(
        posted={GOOD: 1, "older": 1},
        ordered={1},
        garbage={"bad": b"{"},
        rejected={"bad": b"{"},
        journal={GOOD: {"c-2"}, "older": {"c-1"}},
        runs={"c-1": "synchronized", "c-2": "synchronized"},
        listed={1: {"a.png": "A"}},
        ever={1: {"a.png": "A", "b.png": "B"}},
        folders=FOLDERS,
        disk={"galleries/1/a.png": "A", ".trash/day/b.png": "B", "galleries/1/mine.txt": "M"},
        foreign={"galleries/1/mine.txt": "M"},
        rows=[
            Row(source_id=1, path="galleries/1/a.png", state="present", sha256="A"),
            Row(source_id=1, path="galleries/1/b.png", state="trashed", sha256="B", trash_path=".trash/day/b.png"),
        ],
        events=events,
        this_round={"c-2"},
    )


def test_nothing_is_found_when_all_is_well() -> None:
    assert broken(all_is_well()) == []
    assert duplicates(all_is_well().events) == 1


def without_event(message_id: str) -> Callable[[Observed], None]:
    def spoil(seen: Observed) -> None:
        seen.events = [event for event in seen.events if event.message_id != message_id]

    return spoil


def early_end(seen: Observed) -> None:
    seen.events.insert(3, seen.events.pop())


def second_download(seen: Observed) -> None:
    seen.events.insert(3, replace(seen.events[0], message_id="other", run_id="c-2"))


def one_id_for_two(seen: Observed) -> None:
    seen.events[3] = replace(seen.events[3], message_id="d1")


def removed_though_listed(seen: Observed) -> None:
    seen.listed[1]["b.png"] = "B"


SPOILERS: dict[str, tuple[str, Callable[[Observed], None]]] = {
    "an order in no journal": ("orders", lambda seen: seen.journal.pop(GOOD) and None),
    "an order whose run failed": ("orders", lambda seen: seen.runs.update({"c-2": "failed"})),
    "an order that no event names": ("orders", without_event("s2")),
    "a bad order in no queue": ("orders", lambda seen: seen.rejected.clear()),
    "a bad order that was changed": ("orders", lambda seen: seen.rejected.update(bad=b"")),
    "a short file": ("files", lambda seen: seen.disk.update({"galleries/1/a.png": "half"})),
    "a file from nowhere": ("files", lambda seen: seen.disk.update({"galleries/1/x": "X"})),
    "a listed file that is not there": ("files", lambda seen: seen.disk.pop("galleries/1/a.png") and None),
    "a removed file that is in no trash": ("files", lambda seen: seen.disk.pop(".trash/day/b.png") and None),
    "a person's file that is gone": ("files", lambda seen: seen.disk.pop("galleries/1/mine.txt") and None),
    "a part file": ("other", lambda seen: seen.disk.update({".partial/c-2/0/a.part": "A"})),
    "a change outside": ("other", lambda seen: seen.outside.update({"passwd": "was changed"})),
    "a process that goes on": ("other", lambda seen: seen.processes.append("4711")),
    "two rows for a file": ("rows", lambda seen: seen.rows.append(seen.rows[0])),
    "a row without its file": ("rows", lambda seen: seen.disk.pop("galleries/1/a.png") and None),
    "a row with another hash": ("rows", lambda seen: seen.rows.insert(0, replace(seen.rows.pop(0), sha256="other"))),
    "a trashed row without its copy": ("rows", lambda seen: seen.disk.pop(".trash/day/b.png") and None),
    "a file without a row": ("rows", lambda seen: seen.rows.pop(0) and None),
    "a download that was never told": ("events", without_event("d1")),
    "a download that was told under two ids": ("events", second_download),
    "a skip of a file that is not there": ("events", lambda seen: seen.disk.pop("galleries/1/a.png") and None),
    "a removal that was not told": ("events", without_event("r2")),
    "a removal of what the site has": ("events", removed_though_listed),
    "an end that came too early": ("events", early_end),
    "an end of a run that failed": ("events", lambda seen: seen.runs.update({"c-1": "failed"})),
    "an end that was not told": ("events", without_event("s1")),
    "a listed file that was not told": ("events", without_event("k1")),
    "one id for two facts": ("events", one_id_for_two),
}


@pytest.mark.parametrize("name", SPOILERS)
def test_each_loss_is_found(name: str) -> None:
    what, spoil = SPOILERS[name]
    seen = all_is_well()
    spoil(seen)
    assert what in {problem.what for problem in broken(seen)}


def test_every_check_has_found_something() -> None:
    """No check is there for show."""
    for what, check in CHECKS:
        found = []
        for _, spoil in SPOILERS.values():
            seen = all_is_well()
            spoil(seen)
            found += list(check(seen))
        assert found, f"{what}: {check.__name__} never finds anything"


def test_the_same_seed_gives_the_same_rounds() -> None:
    assert [draw(7, number) for number in range(20)] == [draw(7, number) for number in range(20)]
    assert draw(7, 3) != draw(8, 3)


def test_every_failpoint_is_tortured() -> None:
    """The 200 rounds of the stored result draw all but those that only `verify` passes, which is no part of the service."""
    faults = [life.fault for number in range(200) for life in draw(1, number).lives if life.fault]
    for fault in faults:
        parse(fault)
    assert {fault.partition(":")[0] for fault in faults if "=" not in fault} == {
        point for point in POINTS if not point.startswith(("verify.", "repair."))
    }
