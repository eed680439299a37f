"""What the catalog is asked all the time, and how many rows that may read, however large the catalog is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from benchmarks.filler import FIRST_SOURCE, OWNER, Shape
from http_downloader.catalog import files, journal, outbox, removals, retention, sites, verification
from http_downloader.catalog.engine import Catalog, utcnow
from http_downloader.catalog.journal import Claim
from http_downloader.catalog.removals import Removed
from http_downloader.domain.events import EventType, RunContext, file_event, file_removed, source_synchronized
from http_downloader.domain.files import FileFact, FileState
from http_downloader.domain.orders import Order
from http_downloader.domain.removals import Decision, Missing, Verdict
from http_downloader.domain.runs import Ending, RunState
from tests.plans import watched

LARGE = {"files", "runs", "orders", "sources", "outbox"}
GIANT = FIRST_SOURCE
"""A tenth of all files are of this source."""


def shape(rows: int) -> Shape:
    """Sources of very different size, and a journal and an outbox that are never empty."""
    return Shape(files=rows, per_source=20, uneven=True, runs=2, queued=3000, running=40, events=20_000)


OURS = 7
KNOWN = 100
LEASE = timedelta(seconds=60)


@dataclass(kw_only=True)
class World:
    """A full catalog in which one run is under way, of a source with `KNOWN` files."""

    catalog: Catalog
    claim: Claim
    now: datetime = field(default_factory=utcnow)

    @property
    def facts(self) -> list[FileFact]:
        return [fact(number) for number in range(KNOWN)]

    @property
    def context(self) -> RunContext:
        return RunContext(run_id=self.claim.run_id, source_id=OURS)

    def submit(self, **more: Any) -> journal.Submitted:
        order = Order(source_id=OURS, url="https://example.org/ours", content_path="ours")
        return journal.submit(self.catalog, order, site="ours", now=self.now, **more)


def fact(number: int, **more: Any) -> FileFact:
    return FileFact(remote_id=f"r{number}", path=f"ours/{number}.jpg", state=FileState.PRESENT, size=1, **more)


def world_of(catalog: Catalog) -> World:
    """Our source and its run, beside what is there."""
    order = Order(source_id=OURS, url="https://example.org/ours", content_path="ours")
    run = journal.submit(catalog, order, site="ours", now=utcnow(), message_id="m1").run
    claim = journal.claim(catalog, owner="w1", lease=LEASE, site_concurrency=1, run=run)
    assert claim is not None
    world = World(catalog=catalog, claim=claim)
    events = {
        f"r{number}": file_event(
            EventType.FILE_DOWNLOADED, world.context, remote_id=f"r{number}", filename=f"{number}.jpg"
        )
        for number in range(KNOWN)
    }
    files.record(catalog, claim, [fact(number, downloaded=True) for number in range(KNOWN)], events, utcnow())
    return world


Call = Callable[[World], object]

PAGE = 100


def missing(world: World) -> dict[str, Decision]:
    series = Missing(times=1, since=world.now, last=world.now, since_run=world.claim.run, fingerprint="f", beside=0)
    decision = Decision(verdict=Verdict.MISSING, missing=series)
    return {f"r{number}": decision for number in range(10)}


CALLS: dict[str, Call] = {
    # Orders.
    "submit": lambda w: w.submit(message_id="m2"),
    "submit: redelivered": lambda w: w.submit(message_id="m1", redelivered=True),
    "submit: a message that is known": lambda w: w.submit(message_id="m1"),
    "local_source_id": lambda w: journal.local_source_id(
        w.catalog, "https://example.org/new", content_path="new", site="ours", now=w.now
    ),
    "find_source": lambda w: journal.find_source(w.catalog, "https://example.org/ours", None),
    "folder_of": lambda w: journal.folder_of(w.catalog, OURS),
    # Claims and leases.
    "claim": lambda w: journal.claim(w.catalog, owner="w2", lease=LEASE, site_concurrency=1),
    "claim: one run": lambda w: journal.claim(w.catalog, owner="w2", lease=LEASE, site_concurrency=1, run=w.claim.run),
    "renew": lambda w: journal.renew(w.catalog, "w1", LEASE, [w.claim.run]),
    "give_back": lambda w: journal.give_back(w.catalog, "w1", [w.claim.run], LEASE),
    "release": lambda w: journal.release(w.catalog, ["w3"]),
    "owners": lambda w: journal.owners(w.catalog),
    "time_left": lambda w: journal.time_left(w.catalog, w.claim.run),
    "hold_off": lambda w: sites.hold_off(w.catalog, "ours", LEASE),
    "waits": lambda w: sites.waits(w.catalog, ["ours", "theirs"]),
    "wait_of": lambda w: sites.wait_of(w.catalog, w.claim.run),
    # Files.
    "known_files": lambda w: files.known_files(w.catalog, w.claim, w.now, validators=True),
    "record: known files": lambda w: files.record(w.catalog, w.claim, w.facts, {}, w.now),
    "record: new files": lambda w: files.record(
        w.catalog, w.claim, [fact(number) for number in range(KNOWN, 2 * KNOWN)], {}, w.now
    ),
    "mark_present": lambda w: files.mark_present(w.catalog, w.claim, [f"r{number}" for number in range(10)]),
    "holds": lambda w: files.holds(w.catalog, OURS, "ours/1.jpg"),
    "shares_folder": lambda w: files.shares_folder(w.catalog, OURS, "ours/deep/folder"),
    "count_by_state": lambda w: files.count_by_state(w.catalog, OURS),
    # Removals.
    "standing": lambda w: removals.standing(w.catalog, w.claim),
    "settle": lambda w: removals.settle(w.catalog, w.claim, missing(w), {"r1": ".trash/r1"}),
    "removed": lambda w: removals.removed(
        w.catalog,
        w.claim,
        [Removed(remote_id="r1", trash_path=".trash/r1", kept=True)],
        [file_removed(w.context, remote_id="r1", filename="1.jpg", removal="trash")],
        w.now,
    ),
    "give_up": lambda w: removals.give_up(w.catalog, w.claim, ["r1", "r2"]),
    "interrupted": lambda w: removals.interrupted(w.catalog, OURS),
    "left_behind": lambda w: removals.left_behind(w.catalog, OURS),
    "find_files": lambda w: removals.find_files(w.catalog, OURS, ["1.jpg", "r2"]),
    "held_plans": lambda w: removals.held_plans(w.catalog),
    "held_files": lambda w: removals.held_files(w.catalog, w.claim.run),
    "reject": lambda w: removals.reject(w.catalog, w.claim.run),
    "is_free": lambda w: removals.is_free(w.catalog, "ours/1.jpg", 1),
    "pin": lambda w: removals.pin(w.catalog, [1, 2, 3], True),
    "emptied": lambda w: removals.emptied(w.catalog, [1, 2, 3], w.now),
    "expired: nothing": lambda w: removals.expired(w.catalog, w.now - timedelta(days=30), PAGE),
    "expired: everything": lambda w: removals.expired(w.catalog, w.now + timedelta(days=30), PAGE),
    # Events.
    "waiting": lambda w: outbox.waiting(w.catalog, "w1", PAGE),
    "waiting: of many": lambda w: outbox.waiting(w.catalog, OWNER, PAGE),
    "confirmed": lambda w: outbox.confirmed(w.catalog, [1, 2, 3], OWNER),
    "adopt": lambda w: outbox.adopt(w.catalog, "w1", LEASE),
    # What people look at.
    "get_run": lambda w: journal.get_run(w.catalog, w.claim.run),
    "order_ids": lambda w: journal.order_ids(w.catalog, w.claim.run),
    "list_runs": lambda w: journal.list_runs(w.catalog, source_id=None, limit=PAGE),
    "list_runs: of a source": lambda w: journal.list_runs(w.catalog, source_id=GIANT, limit=PAGE),
    "list_runs: of a new source": lambda w: journal.list_runs(w.catalog, source_id=OURS, limit=PAGE),
    "list_sources": lambda w: journal.list_sources(w.catalog, limit=PAGE),
    "list_sources: the next page": lambda w: journal.list_sources(w.catalog, after=GIANT + 1000, limit=PAGE),
    "list_files": lambda w: files.list_files(w.catalog, source_id=None, state=None, after=0, limit=PAGE),
    "list_files: the next page": lambda w: files.list_files(
        w.catalog, source_id=None, state=None, after=50_000, limit=PAGE
    ),
    "list_files: of a large source": lambda w: files.list_files(
        w.catalog, source_id=GIANT, state=None, after=2_000, limit=PAGE
    ),
    "list_files: of our source": lambda w: files.list_files(w.catalog, source_id=OURS, state=None, after=0, limit=PAGE),
    "list_files: in a state": lambda w: files.list_files(
        w.catalog, source_id=None, state=FileState.TRASHED, after=0, limit=PAGE
    ),
    "list_files: in a state that is rare": lambda w: files.list_files(
        w.catalog, source_id=None, state=FileState.ABSORBED, after=0, limit=PAGE
    ),
    "list_files: of a large source in a state": lambda w: files.list_files(
        w.catalog, source_id=GIANT, state=FileState.PRESENT, after=2_000, limit=PAGE
    ),
    # Verification.
    "page": lambda w: verification.page(w.catalog, None, 0, PAGE),
    "page: the next": lambda w: verification.page(w.catalog, None, 50_000, PAGE),
    "page: of a large source": lambda w: verification.page(w.catalog, GIANT, 2_000, PAGE),
    "page: of our source": lambda w: verification.page(w.catalog, OURS, 0, PAGE),
    "by_ids": lambda w: verification.by_ids(w.catalog, [1, 2, 3]),
    "standings": lambda w: verification.standings(w.catalog, [1, 2, 3]),
    "running": lambda w: verification.running(w.catalog),
    "held": lambda w: verification.held(w.catalog, ["ours/1.jpg", "ours/2.jpg"]),
    "copies_aside": lambda w: verification.copies_aside(w.catalog, OURS),
    # In the background.
    "forget_runs: too young": lambda w: retention.forget_runs(w.catalog, w.now - timedelta(days=1), 0, PAGE),
    "forget_runs": lambda w: retention.forget_runs(w.catalog, w.now + timedelta(days=1), 1000, PAGE),
    # At the end.
    "finish": lambda w: journal.finish(
        w.catalog,
        w.claim,
        now=w.now,
        ending=Ending(state=RunState.SYNCHRONIZED, listing_proves=True),
        counts={},
        gaps=[],
        log="",
        events=[source_synchronized(w.context, orders=[], counts={})],
    ),
}

AT_MOST = 2_500
"""Rows that one call may read: some for each of our files, or of a page."""
MORE = {
    # Whoever pages through a state walks over the others, when they are few.
    "list_files: in a state": 100 * PAGE,
    # The oldest of one run among those of all others.
    "waiting: of many": 50 * PAGE,
    # Every run that is queued, to find the first that may start.
    "claim": 4 * 3000,
}


def too_much(world: World, name: str) -> str | None:
    """What is wrong with a call: it walks over a large table, or reads too many rows."""
    with watched(world.catalog.engine) as cost:
        CALLS[name](world)
    walked, most = cost.walked & LARGE, MORE.get(name, AT_MOST)
    if not walked and cost.read <= most:
        return None
    statements = "\n".join(cost.statements)
    return f"{name} reads {cost.read} rows, of {most}; all of {', '.join(walked) or 'no table'}:\n{statements}"


def trust_indexes(engine: sa.Engine) -> None:
    """PostgreSQL walks over what fits into a few pages: from the next connection on it behaves as with large tables."""

    @sa.event.listens_for(engine, "connect")
    def set_up(connection: Any, _record: object) -> None:
        if engine.dialect.name == "postgresql":
            connection.execute("SET enable_seqscan = off")
            connection.commit()

    engine.dispose()
