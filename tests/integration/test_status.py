"""`status` shows all workers that share a catalog, and workers say that they are there: on the three engines."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from http_downloader.catalog import journal, overview, schema, workers
from http_downloader.catalog.clock import in_time
from http_downloader.catalog.engine import Catalog, open_catalog, transaction, utcnow
from http_downloader.domain.events import RunContext, source_sync_failed
from http_downloader.domain.orders import make_order
from http_downloader.domain.reasons import Reason
from http_downloader.domain.runs import Ending, RunState
from tests.databases import ENGINES, database, pass_time
from tests.installation import COMMAND, Installation, Service, wait_until
from tests.queues import Queues
from tests.site import FaultySite, Post, hang

ME = {"host": "h", "pid": 7, "version": "1", "slots": 4}


@pytest.fixture(params=ENGINES)
def catalog(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Catalog]:
    with database(request.param, tmp_path) as url, contextlib.closing(open_catalog(url)) as catalog:
        yield catalog


@transaction
def move_back(db: Any, name: str, past: timedelta) -> None:
    """A worker was last seen so long ago."""
    seen = db.execute(sa.select(schema.workers.c.seen_at).where(schema.workers.c.name == name)).scalar_one()
    db.execute(sa.update(schema.workers).where(schema.workers.c.name == name).values(seen_at=seen - past))


@transaction
def clock(db: Any) -> Any:
    return db.execute(sa.select(in_time(timedelta()))).scalar_one()


def test_workers_say_that_they_are_there(catalog: Catalog) -> None:
    """By the database's clock, each with its last report. One that has left, or that nobody has seen for an hour, is
    not among them."""
    assert abs(clock(catalog) - utcnow()) < timedelta(seconds=5)  # this machine's clock is the server's
    workers.beat(catalog, "old", {}, **ME)
    move_back(catalog, "old", timedelta(hours=2))
    workers.beat(catalog, "w1", {"runs": []}, **ME)
    workers.beat(catalog, "w1", {"runs": [1]}, **ME)
    workers.beat(catalog, "w2", {}, **ME)
    move_back(catalog, "w2", timedelta(seconds=30))
    by_name = {row["name"]: row for row in workers.list_workers(catalog)}
    assert set(by_name) == {"w1", "w2"}
    assert by_name["w1"]["report"] == {"runs": [1]}
    assert by_name["w1"]["age"] < 20 < by_name["w2"]["age"]
    journal.release(catalog, ["w1"])
    assert [row["name"] for row in workers.list_workers(catalog)] == ["w2"]


def test_what_waits_and_what_fails(catalog: Catalog) -> None:
    """Queued runs by site and their age, what is delayed and why, what goes on, events on their way, failing sources."""
    empty = overview.look(catalog)
    assert empty.load == overview.Load(waiting=0, waiting_age=0, delayed=0, running=0, events=0, events_age=0, held=0)
    now = utcnow()
    for number in range(1, 7):
        order = make_order(number, f"https://example.org/{number}", f"a/{number}")
        site = "busy" if number > 3 else f"site{number}"
        journal.submit(catalog, order, site=site, now=now)
    pass_time(catalog, timedelta(seconds=100))
    claims = [_claim(catalog), _claim(catalog), _claim(catalog)]
    failed = Ending(state=RunState.FAILED, reason=Reason.NOT_FOUND, detail="404")
    context = RunContext(run_id=claims[0].run_id, source_id=claims[0].source_id)
    event = source_sync_failed(context, state="failed", reason="not-found", detail="404")
    rest: dict[str, Any] = {"ending": failed, "counts": {}, "gaps": [], "log": ""}
    journal.finish(catalog, claims[0], now=now, events=[event], **rest)
    later = {"after": timedelta(seconds=500), "same_attempt": False}
    journal.put_back(catalog, claims[1], **{**rest, **later})
    seen = overview.look(catalog)
    load = seen.load
    assert (load.waiting, load.delayed, load.running, load.events, load.held) == (3, 1, 1, 1, 0)
    assert 90 < load.waiting_age < 160
    assert 0 <= load.events_age < 60
    assert seen.by_site == [{"site": "busy", "runs": 3}, {"site": claims[1].site, "runs": 1}]
    assert [(row["run_id"], row["owner"]) for row in seen.running] == [(claims[2].run_id, "w")]
    assert [(row["source_id"], row["reason"], row["detail"]) for row in seen.delayed] == [
        (claims[1].source_id, "not-found", "404")
    ]
    assert [(row["source_id"], row["reason"]) for row in seen.failing] == [(claims[0].source_id, "not-found")]
    # An order for it is news: it fails no longer.
    again = make_order(claims[0].source_id, claims[0].url, claims[0].content_path)
    journal.submit(catalog, again, site="site1", now=now)
    assert overview.look(catalog).failing == []


def _claim(catalog: Catalog) -> journal.Claim:
    claim = journal.claim(catalog, owner="w", lease=timedelta(minutes=1), site_concurrency=1)
    assert claim is not None
    return claim


def test_two_workers(install: Callable[..., Installation], tmp_path: Path) -> None:
    """From anywhere with the catalog's address: both workers, the run of one of them with its files, and no broker is
    asked. A worker that was killed is shown as such; when both have ended, the words say what to do."""
    with database("postgresql", tmp_path) as url, Queues() as queues, FaultySite([Post(id=1), Post(id=2)]) as site:
        site.rule(r"/data/", hang(60))
        machines = [install(DATABASE_URL=url, SHUTDOWN_GRACE=0, **queues.settings) for _ in range(2)]
        onlooker = install(DATABASE_URL=url)
        with Service(machines[0]) as first, Service(machines[1]) as second:
            queues.post({"source_id": 5, "url": f"Danbooru:{site.root}/posts?tags=demo", "content_path": "a/b"})
            wait_until(lambda: [run["lanes"] for run in status(onlooker)["runs"]] == [2], what="the run to be seen")
            seen = status(onlooker)
            assert {worker["pid"] for worker in seen["workers"]} == {first.pid, second.pid}
            assert {worker["broker"] for worker in seen["workers"]} == {"ok"}
            (run,) = seen["runs"]
            assert (run["source_id"], run["content_path"], run["files_done"]) == (5, "a/b", 0)
            owner = next(worker for worker in seen["workers"] if worker["name"] == run["worker"])
            assert (owner["slots_used"], owner["slots"]) == (1, 4)
            text = onlooker.run("status").stdout
            assert text.startswith("2 workers · 1 of 8 slots busy")
            assert "a/b" in text
            dead = second.pid
            second.kill()
            wait_until(lambda: "late" in onlooker.run("status").stdout, what="the dead one to be missed")
        assert [worker["pid"] for worker in status(onlooker)["workers"]] == [dead]


def status(machine: Installation) -> dict[str, Any]:
    (found,) = machine.rows("status")
    return found


def test_beside_a_service_with_sqlite(install: Callable[..., Installation]) -> None:
    """Before there is a catalog, with a service at work, and after its end: each time the words say how it is."""
    machine = install()
    assert machine.run("status").stdout.startswith("there is no catalog yet")
    with Service(machine):
        wait_until(lambda: status(machine)["workers"], what="the worker")
        assert machine.run("status", "--once").stdout.startswith("1 worker · 0 of 4 slots busy")
    assert machine.run("status").stdout.startswith("no worker is at work; start one with: http-downloader serve")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"])
def test_live_on_a_terminal(install: Callable[..., Installation], number: signal.Signals) -> None:
    """It draws again and again on a screen of its own; when told to end it gives the screen back, shows the last
    picture, and that is no error."""
    machine = install()
    with Service(machine):
        wait_until(lambda: status(machine)["workers"], what="the worker")
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [COMMAND, "status"], env=machine.env | {"TERM": "xterm", "COLUMNS": "80", "LINES": "24"},
            stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        shown: list[bytes] = []
        reading = threading.Thread(target=_read, args=(ours, shown), daemon=True)
        reading.start()
        wait_until(lambda: b"".join(shown).count(b"slots busy") >= 3, what="the second picture")
        process.send_signal(number)
        assert process.wait(20) == 0
        reading.join()
        os.close(ours)
    begin, _, after = b"".join(shown).partition(b"\x1b[?1049l")
    assert b"\x1b[?1049h" in begin
    assert after.count(b"1 worker") == 1
    assert b"Traceback" not in after


def _read(terminal: int, shown: list[bytes]) -> None:
    with contextlib.suppress(OSError):  # nobody has it open any more
        while data := os.read(terminal, 10_000):
            shown.append(data)
