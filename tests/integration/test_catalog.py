"""The catalog: one behaviour on SQLite, PostgreSQL and MariaDB, each of them real."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import os
import pkgutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from sqlalchemy.dialects import mysql

from http_downloader import catalog as package
from http_downloader.catalog import files, journal, migrations, outbox, removals, retention, schema, sites
from http_downloader.catalog.calls import CatalogCalls
from http_downloader.catalog.clock import NOW as CLOCK
from http_downloader.catalog.engine import Catalog, look_into_catalog, open_catalog, query, transaction, utcnow
from http_downloader.catalog.journal import Claim, Submitted
from http_downloader.catalog.removals import Removed
from http_downloader.domain.errors import CatalogError, LeaseLost, OutgrownError, SettingsError, SourceBusyError
from http_downloader.domain.events import (
    Event,
    EventType,
    RunContext,
    file_event,
    file_removed,
    source_synchronized,
)
from http_downloader.domain.files import UNAVAILABLE_RETRY, FileFact, FileState, Words, is_unavailable
from http_downloader.domain.listing import Gap
from http_downloader.domain.orders import FIRST_LOCAL_SOURCE_ID, MAX_SOURCE_ID, Order
from http_downloader.domain.reasons import Reason
from http_downloader.domain.removals import Decision, Hold, Missing, RemoteDeletes, Verdict
from http_downloader.domain.runs import Ending, RunState
from http_downloader.sync import retention as sweeping
from tests.databases import ENGINES, database, pass_time

SERVERS = pytest.mark.parametrize("opened", ["postgresql", "mariadb"], indirect=True)
"""For what cannot happen on SQLite, where one transaction writes at a time."""

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=60)
SYNCHRONIZED = Ending(state=RunState.SYNCHRONIZED, listing_proves=True)
FAILED = Ending(state=RunState.FAILED, reason=Reason.UNREACHABLE, detail="no answer")
SECRET = "s3cr3t-w0rd"

LOOKALIKES = [
    "a.jpg", "A.jpg", "a.JPG", "a.jpg ", " a.jpg", "caf\u00e9", "cafe\u0301", "cafe", "\U0001f600", "\U0001f601",
    "\U0001f468\u200d\U0001f469", "stra\u00dfe", "strasse", "i", "I", "\u0131", "\u0130", "\uff41.jpg", "1", "01", "1.0",
    "a%", "a_", "a\\", "a'", 'a"', "x" * 1000, "x" * 1001,
]  # fmt: skip
"""Names that one database or another takes for the same, unless it is told not to."""


# Databases


@pytest.fixture(scope="module", params=ENGINES)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    with database(request.param, tmp_path_factory.mktemp("catalog")) as url:
        catalog = open_catalog(url)
        yield catalog
        catalog.close()


@pytest.fixture
def catalog(opened: Catalog) -> Catalog:
    """An empty catalog, on each engine in turn."""
    with opened.engine.begin() as db:
        for table in reversed(schema.metadata.sorted_tables):
            if table is not schema.catalog:
                db.execute(sa.delete(table))
    return opened


@pytest.fixture(params=ENGINES)
def new_database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database that nobody has opened yet."""
    with database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def opening() -> Iterator[Callable[..., Catalog]]:
    """`open_catalog`, closed again at the end."""
    found: list[Catalog] = []

    def open_(url: str, **options: Any) -> Catalog:
        found.append(open_catalog(url, **options))
        return found[-1]

    yield open_
    for catalog in found:
        catalog.close()


# Words of these tests


def order(source_id: int = 1, url: str = "https://example.org/1", folder: str = "one") -> Order:
    return Order(source_id=source_id, url=url, content_path=folder)


def submit(catalog: Catalog, source_id: int = 1, *, site: str = "site", now: datetime = NOW, **more: Any) -> Submitted:
    place = {"url": f"https://example.org/{source_id}", "folder": f"folder{source_id}"}
    place |= {key: more.pop(key) for key in ("url", "folder") if key in more}
    return journal.submit(catalog, order(source_id, **place), site=site, now=now, **more)


def claim(catalog: Catalog, owner: str = "w1", *, sites: int = 1, run: int | None = None) -> Claim | None:
    return journal.claim(catalog, owner=owner, lease=LEASE, site_concurrency=sites, run=run)


def until(catalog: Catalog, run: int, column: str) -> timedelta:
    """From now, by the database's clock."""
    with catalog.engine.connect().execution_options(reads_only=True) as db:
        moment = sa.type_coerce(schema.runs.c[column], sa.BigInteger)
        return timedelta(milliseconds=db.execute(sa.select(moment - CLOCK).where(schema.runs.c.id == run)).scalar_one())


def started(catalog: Catalog, source_id: int = 1, owner: str = "w1", **more: Any) -> Claim:
    """A run of this source that has just been claimed."""
    run = submit(catalog, source_id, **more).run
    claimed = claim(catalog, owner, sites=99, run=run)
    assert claimed is not None
    return claimed


def finish(catalog: Catalog, claimed: Claim, ending: Ending = SYNCHRONIZED, *events: Event, log: str = "") -> None:
    journal.finish(
        catalog, claimed, now=NOW, ending=ending, counts={"listed": 1}, gaps=[], log=log, events=list(events)
    )


def put_back(
    catalog: Catalog,
    claimed: Claim,
    ending: Ending = FAILED,
    after: timedelta = timedelta(),
    log: str = "",
    same_attempt: bool = False,
) -> None:
    journal.put_back(
        catalog,
        claimed,
        after=after,
        ending=ending,
        same_attempt=same_attempt,
        counts={"downloaded": 2},
        gaps=[],
        log=log,
    )


def fact(remote_id: str, path: str | None = None, state: FileState = FileState.PRESENT, **more: Any) -> FileFact:
    return FileFact(remote_id=remote_id, path=path or f"one/{remote_id}", state=state, **more)


def mark_missing(catalog: Catalog, claimed: Claim, remote_ids: list[str], now: datetime) -> None:
    """What a complete listing without these files leaves behind."""
    series = Missing(times=1, since=now, last=now, since_run=claimed.run, fingerprint="f", beside=0)
    decision = Decision(verdict=Verdict.MISSING, missing=series)
    removals.settle(catalog, claimed, dict.fromkeys(remote_ids, decision), {})


def told(claimed: Claim, remote_id: str, **more: Any) -> Event:
    context = RunContext(run_id=claimed.run_id, source_id=claimed.source_id)
    return file_event(EventType.FILE_DOWNLOADED, context, remote_id=remote_id, filename=remote_id, **more)


def last_event(claimed: Claim) -> Event:
    context = RunContext(run_id=claimed.run_id, source_id=claimed.source_id)
    return source_synchronized(context, orders=["m1"], counts={"listed": 1})


def row(catalog: Catalog, run: int) -> dict[str, Any]:
    found = journal.get_run(catalog, run)
    assert found is not None
    return found


def paths(catalog: Catalog, source_id: int | None = None) -> dict[str, Any]:
    return {
        one["remote_id"]: one["path"]
        for one in files.list_files(catalog, source_id=source_id, state=None, after=0, limit=1000)
    }


def everything(catalog: Catalog) -> dict[str, list[Any]]:
    """All rows of all tables."""
    with catalog.engine.connect().execution_options(reads_only=True) as db:
        return {
            table.name: sorted(map(repr, db.execute(sa.select(table)).all())) for table in schema.metadata.sorted_tables
        }


def in_threads(count: int, function: Callable[[int], Any]) -> list[Any]:
    """What each of so many threads returns that all start in the same moment."""
    together = threading.Barrier(count)

    def run(number: int) -> Any:
        together.wait(10)
        return function(number)

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


def meeting(function: Callable[..., Any], seconds: float = 0.7) -> Callable[..., Any]:
    """`function`, after which two threads wait for each other for a moment: both are then at the same place, unless
    something keeps them apart."""
    both = threading.Barrier(2)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(seconds)
        return result

    return wrapped


# The schema


def described(engine: sa.Engine) -> dict[str, Any]:
    """Everything that the engine tells about our tables."""
    seen = sa.inspect(engine)

    def kind(type_: Any) -> str:
        collation = getattr(type_, "collation", None)
        charset = getattr(type_, "charset", None) if isinstance(type_, mysql.VARCHAR | mysql.MEDIUMTEXT) else None
        return f"{type_.compile(engine.dialect)} {collation} {charset}"

    return {
        table: {
            "columns": [
                (one["name"], kind(one["type"]), one["nullable"], one["default"], one.get("autoincrement"))
                for one in seen.get_columns(table)
            ],
            "primary key": seen.get_pk_constraint(table),
            "foreign keys": sorted(map(repr, seen.get_foreign_keys(table))),
            "uniques": sorted(repr((one["name"], one["column_names"])) for one in seen.get_unique_constraints(table)),
            "indexes": sorted(
                repr((one["name"], one["column_names"], one["unique"])) for one in seen.get_indexes(table)
            ),
        }
        for table in seen.get_table_names()
        if table != "alembic_version"
    }


def test_up_down_up(new_database: str, opening: Callable[..., Catalog]) -> None:
    """The migrations lead up, all the way down to nothing, and up again to the same schema."""
    engine = opening(new_database).engine
    first = described(engine)
    assert set(first) == set(schema.metadata.tables)
    migrations.downgrade(engine, "base")
    assert described(engine) == {}
    migrations.upgrade(engine)
    assert described(engine) == first
    assert opening(new_database).identity


def test_alembic_finds_no_difference(opened: Catalog) -> None:
    """`alembic check`: the migrations lead to the tables of schema.py."""
    with opened.engine.begin() as db:
        command.check(migrations.config(db))


def test_the_migrated_schema_is_the_declared_one(opened: Catalog, tmp_path: Path) -> None:
    """Tables, columns with their types and collations, keys and indexes: as if made from schema.py directly."""
    with database(opened.engine.url.get_backend_name(), tmp_path) as url:
        created = sa.create_engine(opened.engine.url.set(database=sa.make_url(url).database))
        schema.metadata.create_all(created)
        declared = described(created)
        created.dispose()
    assert declared == described(opened.engine)


def test_workers_that_start_at_once(new_database: str) -> None:
    """Many open a new database together, where commits take their time: it is migrated once, and all see one identity."""

    def slowly(_db: object) -> None:
        time.sleep(0.1)

    sa.event.listen(sa.Engine, "commit", slowly)
    try:
        found = in_threads(6, lambda _: open_catalog(new_database))
    finally:
        sa.event.remove(sa.Engine, "commit", slowly)
    try:
        assert len({catalog.identity for catalog in found}) == 1
        assert len(everything(found[0])["catalog"]) == 1
    finally:
        for catalog in found:
            catalog.close()


@SERVERS
def test_a_migration_that_takes_too_long(opened: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that waits in vain for another one's migration says so, and changes nothing."""
    monkeypatch.setattr(migrations, "PATIENCE", 0.3)
    inside, done = threading.Event(), threading.Event()

    def slowly(_config: object, _db: object) -> None:
        inside.set()
        done.wait(10)

    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(migrations._under_lock, opened.engine, slowly)
        try:
            assert inside.wait(10)
            with pytest.raises((CatalogError, sa.exc.OperationalError)):
                migrations.downgrade(opened.engine, "base")
        finally:
            done.set()
        other.result(10)
    assert described(opened.engine)


def test_the_identity_stays(new_database: str, opening: Callable[..., Catalog]) -> None:
    """Runs keep their names over restarts: message ids are made of them."""
    first = opening(new_database)
    name = started(first).run_id
    assert name.startswith(f"{first.identity}-")
    again = opening(new_database)
    assert again.identity == first.identity
    assert journal.list_runs(again, source_id=None, limit=9)[0]["run_id"] == name


# Opening


def test_a_newer_schema_is_refused(new_database: str, opening: Callable[..., Catalog]) -> None:
    """An old program keeps its hands off a catalog that a newer one has changed, unless that has only been added to."""
    with opening(new_database).engine.begin() as db:
        db.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    added_to = opening(new_database)
    assert "newer schema 9999, and this program" in str(added_to.doubt())
    submit(added_to)
    with added_to.engine.begin() as db:
        db.execute(sa.text("UPDATE catalog SET works_with = '9999'"))
    with pytest.raises(OutgrownError, match="programs that do not know schema 9999 may not use it any more; upgrade"):
        submit(added_to, 2)
    with pytest.raises(CatalogError, match="schema 9999, which is newer than this program; upgrade http-downloader"):
        open_catalog(new_database)


def test_an_older_schema(new_database: str, opening: Callable[..., Catalog], monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite is brought up to date; a server only when it is asked for: other workers may be at work there."""
    opening(new_database)
    upgraded: list[sa.Engine] = []
    ours = migrations.known()
    monkeypatch.setattr(migrations, "known", lambda: [*ours, "9998"])
    monkeypatch.setattr(migrations, "newest", lambda: "9998")
    monkeypatch.setattr(migrations, "upgrade", upgraded.append)
    if new_database.startswith("sqlite"):
        opening(new_database)
    else:
        with pytest.raises(CatalogError, match=f"older schema {ours[-1]}; run: http-downloader db upgrade"):
            open_catalog(new_database)
        assert upgraded == []
        opening(new_database, upgrade=True)
    assert len(upgraded) == 1


@pytest.mark.parametrize(
    "url",
    [
        "", "catalog.sqlite3", "/var/lib/catalog.sqlite3", "oracle://host/db", "http://host/db", "sqlite://",
        "sqlite:///:memory:", f"postgresql://user:{SECRET}@host:port/db",
        f"mariadb://user:{SECRET}#@[::1/db", f"{SECRET}://host",
    ],
)  # fmt: skip
def test_a_url_of_no_known_form(url: str) -> None:
    """One line that says what is allowed, and shows nothing of the URL, as part of it may be the password."""
    with pytest.raises(SettingsError, match=r"^DATABASE_URL .*sqlite|^DATABASE_URL .*SQLite") as caught:
        open_catalog(url)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://user:{SECRET}@127.0.0.1:1/db",
        f"postgresql://user@127.0.0.1:1/db?password={SECRET}",
        f"postgresql://user:{SECRET}@127.0.0.1:1/db?nonsense={SECRET}",
        f"mariadb://user:{SECRET}@127.0.0.1:1/db",
        f"mysql://user@127.0.0.1:1/db?password={SECRET}",
        f"mariadb://user:{SECRET}@127.0.0.1:1/db?nonsense={SECRET}",
        f"mariadb://user:{SECRET}@127.0.0.1:{os.environ.get('TEST_MARIADB_PORT', '3306')}/db",
        f"postgresql://nobody:{SECRET}@127.0.0.1:{os.environ.get('TEST_POSTGRESQL_PORT', '5432')}/no_such_db",
        f"postgresql://user:{SECRET}@no-such-host.invalid/db?connect_timeout=2",
    ],
)
def test_a_server_that_does_not_let_us_in(url: str) -> None:
    """One line with the address, never with the password, wherever in the URL it stands."""
    with pytest.raises((CatalogError, SettingsError)) as caught:
        open_catalog(url)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "://" in str(caught.value) or "DATABASE_URL" in str(caught.value)


def test_an_sqlite_file_that_cannot_be(tmp_path: Path) -> None:
    """A folder that cannot be made, a folder in place of the file, a file that is no database: one line each."""
    (tmp_path / "file").write_text("not a database, but long enough to be looked at" * 100)
    for url, says in (
        (f"sqlite:///{tmp_path}/file/sub/catalog.sqlite3", "folder of the catalog cannot be made"),
        (f"sqlite:///{tmp_path}", "unable to open"),
        (f"sqlite:///{tmp_path}/file", "not a database"),
    ):
        with pytest.raises((CatalogError, SettingsError), match=says) as caught:
            open_catalog(url)
        assert "\n" not in str(caught.value)


def test_the_address_has_no_password(new_database: str, opening: Callable[..., Catalog]) -> None:
    """What is logged at the start tells where the catalog is, and nothing more."""
    if new_database.startswith("sqlite"):
        assert opening(new_database).address == new_database
        return
    # Both servers of the tests ask for no password, and so ignore one.
    user, _, rest = new_database.partition("@")
    with contextlib.suppress(CatalogError):
        assert SECRET not in opening(f"{user}:{SECRET}@{rest}").address


# Orders become runs


def test_an_order_makes_a_run(catalog: Catalog) -> None:
    """The run has the order's URL and folder, and waits."""
    submitted = submit(
        catalog, 7, url="https://example.org/x", folder="a/b", site="s", message_id="m", correlation_id="c"
    )
    assert not submitted.joined
    run = row(catalog, submitted.run)
    assert (run["source_id"], run["url"], run["content_path"], run["site"]) == (7, "https://example.org/x", "a/b", "s")
    assert (run["state"], run["attempt"], run["fence"]) == (RunState.QUEUED, 0, 0)
    assert journal.time_left(catalog, submitted.run) == timedelta()
    assert (run["correlation_id"], run["created_at"], run["started_at"]) == ("c", NOW, None)
    assert journal.order_ids(catalog, submitted.run) == ["m"]
    assert journal.folder_of(catalog, 7) == "a/b"
    assert journal.folder_of(catalog, 8) is None


def test_an_order_joins_the_queued_run(catalog: Catalog) -> None:
    """Twenty orders, one run: it answers all of them, with the latest URL and folder."""
    made = [submit(catalog, message_id=f"m{n}", url=f"https://example.org/{n}", folder=f"f{n}") for n in range(20)]
    assert len({one.run for one in made}) == 1
    assert [one.joined for one in made] == [False] + [True] * 19
    run = claim(catalog)
    assert run is not None
    assert (run.url, run.content_path, run.correlation_id) == ("https://example.org/19", "f19", "m0")
    assert journal.order_ids(catalog, run.run) == [f"m{n}" for n in range(20)]
    assert claim(catalog) is None


def test_orders_for_a_running_source_make_one_more_run(catalog: Catalog) -> None:
    """What is under way keeps its URL and folder; the one run after it has the latest of both."""
    first = started(catalog, url="https://example.org/old", folder="old", message_id="m0")
    later = [submit(catalog, message_id=f"m{n}", url=f"https://example.org/{n}", folder=f"f{n}") for n in (1, 2, 3)]
    assert len({one.run for one in later} - {first.run}) == 1
    assert row(catalog, first.run)["content_path"] == "old"
    assert claim(catalog) is None
    finish(catalog, first)
    second = claim(catalog)
    assert second is not None
    assert (second.url, second.content_path) == ("https://example.org/3", "f3")
    assert journal.order_ids(catalog, first.run) == ["m0"]
    assert journal.order_ids(catalog, second.run) == ["m1", "m2", "m3"]
    finish(catalog, second)
    assert claim(catalog) is None
    assert not submit(catalog).joined


def test_a_retry_does_not_bring_back_an_older_order(catalog: Catalog) -> None:
    """A run that fails and waits, after the source has moved: its next attempt goes to where the source is now."""
    first = started(catalog, url="https://example.org/old", folder="old")
    submit(catalog, url="https://new.example/", folder="new", site="newsite")
    put_back(catalog, first, after=LEASE)
    second = claim(catalog)
    assert second is not None
    assert second.run != first.run
    finish(catalog, second)
    pass_time(catalog, LEASE)
    again = claim(catalog)
    assert again is not None
    assert again.run == first.run
    assert (again.url, again.content_path, again.site) == ("https://new.example/", "new", "newsite")


def test_a_redelivered_order_is_journalled_once(catalog: Catalog) -> None:
    """The ack was lost with its connection: the order comes again, marked, and makes no second run, ever."""
    first = submit(catalog, message_id="m1")
    assert submit(catalog, message_id="m1", redelivered=True) == Submitted(run=first.run, joined=True)
    assert journal.order_ids(catalog, first.run) == ["m1"]
    claimed = claim(catalog)
    assert claimed is not None
    finish(catalog, claimed)
    assert submit(catalog, message_id="m1", redelivered=True).run == first.run
    assert claim(catalog) is None


@pytest.mark.parametrize(
    ("message_id", "redelivered", "source_id"),
    [("m1", False, 1), (None, True, 1), ("M1", True, 1), ("m1 ", True, 1), ("m2", True, 1), ("m1", True, 2)],
)
def test_what_merely_resembles_a_known_order_is_journalled(
    catalog: Catalog, message_id: str | None, redelivered: bool, source_id: int
) -> None:
    """Not marked as redelivered, without an id, with another id, or for another source: no order is lost."""
    claimed = started(catalog, message_id="m1")
    finish(catalog, claimed)
    assert submit(catalog, source_id, message_id=message_id, redelivered=redelivered).run != claimed.run


MINUTE = timedelta(minutes=1)


def place(catalog: Catalog, run: int | None = None) -> tuple[str, str, str]:
    """Where the source is; with `run`, where that run goes."""
    row = journal.get_run(catalog, run) if run is not None else journal.list_sources(catalog)[0]
    assert row is not None
    return row["url"], row["content_path"], row["site"]


OLD, NEW = ("https://old.example/", "old", "oldsite"), ("https://new.example/", "new", "newsite")


def placed(catalog: Catalog, where: tuple[str, str, str], **more: Any) -> Submitted:
    return submit(catalog, url=where[0], folder=where[1], site=where[2], **more)


@pytest.mark.parametrize("queued", [True, False])
def test_an_order_that_was_sent_earlier_does_not_move_a_source_back(catalog: Catalog, queued: bool) -> None:
    """It is answered by a run, where the newest order has put the source: in the queue or when nothing waits."""
    newest = placed(catalog, NEW, message_id="new", sent_at=NOW - MINUTE)
    if not queued:
        claimed = claim(catalog)
        assert claimed is not None
        finish(catalog, claimed)
    late = placed(catalog, OLD, message_id="old", sent_at=NOW - 2 * MINUTE)
    assert (late.outdated, late.joined, late.run == newest.run) == (True, queued, queued)
    assert place(catalog) == place(catalog, late.run) == NEW
    assert "old" in journal.order_ids(catalog, late.run)
    assert placed(catalog, OLD, sent_at=NOW).outdated is False
    assert place(catalog) == OLD


def test_a_message_that_was_journalled_before_does_not_move_a_source_back(catalog: Catalog) -> None:
    """Without a time: the very message of an earlier order, put into the queue again, by hand say."""
    placed(catalog, OLD, message_id="m1")
    placed(catalog, NEW, message_id="m2")
    assert placed(catalog, OLD, message_id="m1").outdated
    assert place(catalog) == NEW


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({}, {}),
        ({"sent_at": NOW - MINUTE}, {"sent_at": NOW - MINUTE}),  # in one second: the order of their arrival
        ({"sent_at": NOW}, {}),
        ({}, {"sent_at": NOW - MINUTE}),
        ({"message_id": "always the same"}, {"message_id": "always the same"}),
        ({"sent_at": NOW + 1000 * MINUTE}, {"sent_at": NOW}),  # nobody's clock is ahead of ours
    ],
)
def test_the_latest_order_counts_where_nothing_says_otherwise(
    catalog: Catalog, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """No time, the same time, a time in the future, a message id that never changes: the last to arrive."""
    assert placed(catalog, OLD, **first).outdated is False
    assert placed(catalog, NEW, **second).outdated is False
    assert place(catalog) == NEW


def test_an_outdated_order_can_only_make_removals_more_careful(catalog: Catalog) -> None:
    """What it allows counts, as that of every order which a run answers."""
    placed(catalog, NEW, sent_at=NOW)
    late = journal.submit(
        catalog, replace(order(1, OLD[0], OLD[1]), remote_deletes=RemoteDeletes.KEEP), site="oldsite", now=NOW, sent_at=NOW - MINUTE
    )  # fmt: skip
    claimed = claim(catalog)
    assert claimed is not None
    assert (claimed.run, claimed.url, claimed.order_deletes) == (late.run, NEW[0], RemoteDeletes.KEEP)


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "\udcff", "\U0001f600" * 60])
def test_message_ids_of_any_kind_are_journalled(catalog: Catalog, text: str) -> None:
    """What a stranger puts into a property must not hold up the orders behind it."""
    submitted = submit(catalog, message_id=text, correlation_id=text)
    assert len(journal.order_ids(catalog, submitted.run)) == 1
    assert claim(catalog) is not None


def test_orders_from_many_threads(catalog: Catalog) -> None:
    """New sources on new sites, ordered by many at once: one queued run for each source, no order lost."""
    made = in_threads(
        8, lambda number: [submit(catalog, n, site=f"s{n % 2}", message_id=f"{number}/{n}") for n in (1, 2, 3, 4)]
    )
    runs = {(one.run, n) for each in made for n, one in enumerate(each, 1)}
    assert len(runs) == 4
    for run, source_id in runs:
        assert sorted(journal.order_ids(catalog, run)) == sorted(f"{number}/{source_id}" for number in range(8))
    assert len(journal.list_sources(catalog)) == 4


def test_an_order_that_meets_a_claim(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order that arrives in the instant in which its source's run is claimed is answered by a further run: the
    one that starts has read its URL already."""
    first = submit(catalog, url="https://example.org/old").run
    orders: list[threading.Thread] = []
    second: list[Submitted] = []
    original = journal._claim

    def claimed_meanwhile(db: Any, run: int) -> Claim:
        result = original(db, run)
        orders.append(threading.Thread(target=lambda: second.append(submit(catalog, url="https://example.org/new"))))
        orders[0].start()
        orders[0].join(0.5)
        return result

    monkeypatch.setattr(journal, "_claim", claimed_meanwhile)
    running = claim(catalog)
    orders[0].join(10)
    assert running is not None
    assert (running.run, running.url) == (first, "https://example.org/old")
    assert second[0].run != first
    assert row(catalog, first)["url"] == "https://example.org/old"


def local_source_id(catalog: Catalog, url: str) -> int:
    return journal.local_source_id(catalog, url, content_path="local", site="example", now=NOW)


def test_local_source_ids(catalog: Catalog) -> None:
    """The same URL is the same source, byte by byte; a new one gets the next id, whatever ids a platform uses."""
    assert local_source_id(catalog, "https://a.example/") == FIRST_LOCAL_SOURCE_ID
    submit(catalog, MAX_SOURCE_ID, url="https://platform.example/")
    submit(catalog, 3, url="https://other.example/")
    assert local_source_id(catalog, "https://a.example/") == FIRST_LOCAL_SOURCE_ID
    assert local_source_id(catalog, "https://A.example/") == FIRST_LOCAL_SOURCE_ID + 1
    assert local_source_id(catalog, "https://other.example/") == 3


def test_local_source_ids_that_are_asked_for_at_once(catalog: Catalog) -> None:
    """Two URLs that are added in the same moment are two sources."""
    ids = in_threads(6, lambda number: local_source_id(catalog, f"https://{number}.example/"))
    assert len(set(ids)) == 6


# Claiming


def test_the_oldest_run_that_may_start_is_claimed(catalog: Catalog) -> None:
    """First come, first served, and each run once."""
    runs = []
    for n in (5, 3, 4):
        runs.append(submit(catalog, n, site=f"s{n}").run)
        pass_time(catalog, timedelta(milliseconds=1))
    found = [claim(catalog) for _ in range(4)]
    assert [one and one.run for one in found] == [*runs, None]
    first = found[0]
    assert first is not None
    assert (first.owner, first.attempt, first.fence) == ("w1", 1, 1)
    assert LEASE - timedelta(seconds=10) < until(catalog, first.run, "lease_until") <= LEASE
    assert -timedelta(seconds=10) < until(catalog, first.run, "started_at") <= timedelta()


def test_site_limit(catalog: Catalog) -> None:
    """Runs of one site wait for each other, those of other sites pass them by."""
    same = [submit(catalog, n).run for n in (1, 2, 3)]
    pass_time(catalog, timedelta(milliseconds=1))
    other = submit(catalog, 4, site="SITE").run
    claims = [claim(catalog, sites=2) for _ in range(4)]
    assert [one and one.run for one in claims] == [same[0], other, same[1], None]
    assert claims[0] is not None
    finish(catalog, claims[0])
    assert (last := claim(catalog, "w2", sites=2)) is not None
    assert last.run == same[2]


def test_a_busy_site_starves_no_other(catalog: Catalog) -> None:
    """The slots are shared by the sites that have something to do; with one slot, they take turns."""
    for n in range(1, 41):
        submit(catalog, n, site="busy")
    for n in range(41, 45):
        submit(catalog, n, site=f"s{n % 2}")
    slots = [claim(catalog, sites=99) for _ in range(9)]
    assert Counter(one.site for one in slots if one) == {"busy": 5, "s0": 2, "s1": 2}
    assert {one.site for one in slots[:3] if one} == {"busy", "s0", "s1"}
    for one in slots:
        assert one is not None
        finish(catalog, one)
    for n in range(51, 54):
        submit(catalog, n, site="s0")
    turns = []
    for _ in range(6):
        pass_time(catalog, timedelta(milliseconds=1))
        one = claim(catalog, sites=99)
        assert one is not None
        turns.append(one.site)
        finish(catalog, one)
    assert sorted(turns[:2]) == sorted(turns[2:4]) == sorted(turns[4:]) == ["busy", "s0"]


def test_priority(catalog: Catalog) -> None:
    """Within a site the highest goes first, then the oldest; between sites it counts when as many of their runs are under
    way; never over a site's limit. A run that answers several orders has the highest of theirs."""
    low, high, message, old, own = (
        submit(catalog, 1).run,
        journal.submit(catalog, replace(order(2), priority=9), site="site", now=NOW).run,
        submit(catalog, 3, priority=5).run,
        submit(catalog, 4, priority=5).run,
        journal.submit(catalog, replace(order(5), priority=1), site="site", now=NOW, priority=8).run,
    )
    raised = submit(catalog, 6).run
    assert submit(catalog, 6, priority=7).run == submit(catalog, 6).run == raised
    found = [claim(catalog, sites=9) for _ in range(6)]
    assert [one and one.run for one in found] == [high, raised, message, old, own, low]
    submit(catalog, 7, priority=9)
    submit(catalog, 8, site="b")
    urgent = submit(catalog, 9, site="c", priority=1).run
    assert (next_one := claim(catalog, sites=6)) is not None
    assert next_one.run == urgent
    assert (last := claim(catalog, sites=6)) is not None
    assert last.site == "b"
    assert claim(catalog, sites=6) is None


def test_a_site_that_has_asked_for_a_pause(catalog: Catalog) -> None:
    """No worker begins a run of it before, not even one that a person waits for; a shorter pause does not shorten it."""
    run = submit(catalog, 1, site="tired").run
    other = submit(catalog, 2, site="awake").run
    sites.hold_off(catalog, "tired", timedelta(minutes=2))
    sites.hold_off(catalog, "tired", timedelta(minutes=1))
    assert (found := claim(catalog)) is not None
    assert found.run == other
    assert claim(catalog) is None
    assert claim(catalog, run=run) is None
    waits = sites.waits(catalog, ["tired", "awake", "unknown"])
    assert set(waits) == {"tired"}
    for left in (waits["tired"], sites.wait_of(catalog, run)):
        assert timedelta(seconds=100) < left <= timedelta(minutes=2)
    pass_time(catalog, timedelta(minutes=2))
    assert (sites.waits(catalog, ["tired"]), sites.wait_of(catalog, run)) == ({}, timedelta())
    assert (found := claim(catalog)) is not None
    assert found.run == run


def test_a_run_waits_for_its_time(catalog: Catalog) -> None:
    first = started(catalog)
    put_back(catalog, first, after=timedelta(seconds=30))
    assert timedelta(seconds=20) < journal.time_left(catalog, first.run) <= timedelta(seconds=30)
    pass_time(catalog, timedelta(seconds=15))
    assert claim(catalog) is None
    pass_time(catalog, timedelta(seconds=15))
    assert journal.time_left(catalog, first.run) == timedelta()
    again = claim(catalog)
    assert again is not None
    assert (again.run, again.attempt, again.fence, again.counts) == (first.run, 2, 2, {"downloaded": 2})


def test_a_run_that_a_person_waits_for(catalog: Catalog) -> None:
    """That one and no other, even before its time; but never beside a run of its source, nor over its site's limit."""
    other = submit(catalog, 1, site="a").run
    first = started(catalog, 2, site="b")
    put_back(catalog, first, after=timedelta(hours=1))
    again = claim(catalog, run=first.run)
    assert again is not None
    assert again.run == first.run
    more = submit(catalog, 2, site="c").run
    blocked = submit(catalog, 3, site="b").run
    assert claim(catalog, run=more) is None
    assert claim(catalog, run=blocked) is None
    assert claim(catalog, run=first.run) is None
    assert claim(catalog, run=10**9) is None
    assert (left := claim(catalog)) is not None
    assert left.run == other


def test_leases_are_renewed_after_a_long_outage(catalog: Catalog) -> None:
    """While the broker is away runs end whose events wait: more than an engine takes in one statement. None of the
    worker's leases is lost over that."""
    submit(catalog)
    ours = claim(catalog)
    assert ours is not None
    with catalog.engine.begin() as db:
        row = dict(db.execute(sa.select(schema.runs).where(schema.runs.c.id == ours.run)).mappings().one())
        ended = {**row, "state": RunState.SYNCHRONIZED, "owner": "w1"}
        del ended["id"]
        for _ in range(7):
            db.execute(sa.insert(schema.runs), [ended] * 10_000)
    pass_time(catalog, LEASE / 2)
    assert journal.renew(catalog, "w1", LEASE, [ours.run]) == {ours.run: ours.fence}
    with catalog.engine.begin() as db:
        assert db.execute(sa.select(sa.func.count()).where(schema.runs.c.lease_until <= CLOCK + 30_000)).scalar() == 0


def test_many_workers_never_share_a_run_nor_exceed_a_site(catalog: Catalog) -> None:
    """Six workers, 24 runs of three sites, two at a time: every run is performed once, and the limit always holds."""
    for n in range(1, 25):
        submit(catalog, n, site=f"s{n % 3}")
    watch = threading.Lock()
    active: Counter[str] = Counter()
    most: Counter[str] = Counter()
    performed: list[int] = []

    def work(number: int) -> None:
        held: list[Claim] = []
        while len(performed) < 24 or held:
            claimed = claim(catalog, f"w{number}", sites=2)
            if claimed is not None:
                held.append(claimed)
                with watch:
                    performed.append(claimed.run)
                    active[claimed.site] += 1
                    most[claimed.site] = max(most[claimed.site], active[claimed.site])
            elif held:
                with watch:
                    active[held[0].site] -= 1
                finish(catalog, held.pop(0))
            else:
                time.sleep(0.01)

    in_threads(6, work)
    assert len(performed) == len(set(performed)) == 24
    assert set(most.values()) == {2}


def test_two_claims_in_one_instant(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have chosen before either has committed: the site's limit still holds."""
    runs = [submit(catalog, n).run for n in (1, 2)]
    monkeypatch.setattr(journal, "_claim", meeting(journal._claim))
    found = in_threads(2, lambda number: claim(catalog, f"w{number}", run=runs[number]))
    assert sum(one is not None for one in found) == 1


def test_two_claims_for_one_source(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that has moved to another site has two runs, one of each: they are never under way together."""
    first = started(catalog, site="old")
    runs = [first.run, submit(catalog, site="new").run]
    journal.release(catalog, ["w1"])
    monkeypatch.setattr(journal, "_claim", meeting(journal._claim))
    found = in_threads(2, lambda number: claim(catalog, f"w{number}", run=runs[number]))
    assert sum(one is not None for one in found) == 1


# Leases and fences


def test_a_lease_that_ends_gives_the_run_back(catalog: Catalog) -> None:
    """Another worker takes over: it is the same attempt, since it was not its fault, under a higher fence."""
    first = started(catalog)
    pass_time(catalog, LEASE / 2)
    assert claim(catalog, "w2") is None
    pass_time(catalog, LEASE / 2 + timedelta(milliseconds=1))
    second = claim(catalog, "w2")
    assert second is not None
    assert (second.run, second.attempt) == (first.run, first.attempt)
    assert second.fence > first.fence
    assert second.owner == "w2"


WORKER_WITH_A_WRONG_CLOCK = """
import datetime, sys
from datetime import timedelta
class Wrong(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + timedelta(hours=int(sys.argv[2]))
datetime.datetime = Wrong
from http_downloader.catalog import engine, journal, outbox
from http_downloader.domain.orders import Order
catalog, lease = engine.open_catalog(sys.argv[1]), timedelta(seconds=60)
journal.submit(catalog, Order(source_id=2, url="https://a.example", content_path="b"), site="s", now=engine.utcnow())
claims = [journal.claim(catalog, owner="wrong", lease=lease, site_concurrency=9) for _ in range(2)]
journal.renew(catalog, "wrong", lease, [claims[0].run])
print([claim and claim.source_id for claim in claims], outbox.adopt(catalog, "wrong", lease))
"""


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_worker_whose_own_clock_is_wrong(new_database: str, opening: Callable[..., Catalog], hours: int) -> None:
    """Leases are agreed on by the database's clock: it neither steals runs nor loses its own, and its orders wait for
    nothing."""
    catalog = opening(new_database)
    theirs, told_of = started(catalog, 1, "right"), started(catalog, 3, "right")
    finish(catalog, told_of, SYNCHRONIZED, last_event(told_of))
    command = [sys.executable, "-c", WORKER_WITH_A_WRONG_CLOCK, new_database, str(hours)]
    assert subprocess.check_output(command, text=True).strip() == "[2, None] 0"
    assert claim(catalog, "right", sites=9) is None
    finish(catalog, theirs)
    pass_time(catalog, timedelta(seconds=30))
    assert claim(catalog, "right", sites=9) is None
    pass_time(catalog, timedelta(seconds=31))
    assert (again := claim(catalog, "right", sites=9)) is not None
    assert again.source_id == 2


def test_a_renewed_lease_holds(catalog: Catalog) -> None:
    """Of the worker that renews, and of no other."""
    mine, other = started(catalog, 1), started(catalog, 2, owner="w2")
    assert journal.renew(catalog, "w1", 10 * LEASE, [mine.run, other.run]) == {mine.run: mine.fence}
    pass_time(catalog, 5 * LEASE)
    found = claim(catalog, "w3", sites=9)
    assert found is not None
    assert found.run == other.run
    assert claim(catalog, "w3", sites=9) is None
    finish(catalog, mine)


@pytest.mark.parametrize("taken_over", [True, False])
def test_a_zombie_writes_nothing(catalog: Catalog, taken_over: bool) -> None:
    """A worker that was away for longer than its lease: each of its writes is refused, and nothing has changed."""
    zombie = started(catalog)
    files.record(catalog, zombie, [fact("a"), fact("b")], {"a": told(zombie, "a")}, NOW)
    mark_missing(catalog, zombie, ["b"], NOW)
    pass_time(catalog, 2 * LEASE)
    if taken_over:
        assert claim(catalog, "w1") is not None  # even by itself
    else:
        submit(catalog, 2, site="elsewhere")
        assert claim(catalog, "w2") is not None
        journal.release(catalog, ["w1"])
    before = everything(catalog)
    writes: dict[Callable[..., Any], Callable[[], object]] = {
        files.record: lambda: files.record(catalog, zombie, [fact("c")], {"c": told(zombie, "c")}, NOW),
        files.mark_present: lambda: files.mark_present(catalog, zombie, ["a"]),
        removals.settle: lambda: mark_missing(catalog, zombie, ["a"], NOW),
        removals.removed: lambda: removals.removed(
            catalog, zombie, [Removed(remote_id="a", trash_path=None, kept=False)], [], NOW
        ),
        removals.give_up: lambda: removals.give_up(catalog, zombie, ["b"]),
        journal.put_back: lambda: put_back(catalog, zombie),
        journal.finish: lambda: finish(catalog, zombie, SYNCHRONIZED, last_event(zombie)),
    }
    assert set(writes) == writers_of_runs()
    for write in writes.values():
        with pytest.raises(LeaseLost, match=zombie.run_id):
            write()
    assert everything(catalog) == before
    assert journal.renew(catalog, zombie.owner, LEASE, [zombie.run]).get(zombie.run) != zombie.fence


def writers_of_runs() -> set[Callable[..., Any]]:
    """Every transaction of the catalog that is told for which claim it writes."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.iter_modules(package.__path__, "http_downloader.catalog.")
    ]
    return {
        function
        for module in modules
        for function in vars(module).values()
        if getattr(function, "__module__", None) == module.__name__
        and getattr(getattr(function, "__code__", None), "co_qualname", "").startswith("transaction.")
        and any(found.annotation == "Claim" for found in inspect.signature(function).parameters.values())
    }


def test_a_run_that_has_ended_takes_no_writes(catalog: Catalog) -> None:
    """What comes late for it is refused."""
    claimed = started(catalog)
    finish(catalog, claimed)
    with pytest.raises(LeaseLost):
        files.record(catalog, claimed, [fact("a")], {}, NOW)
    with pytest.raises(LeaseLost):
        finish(catalog, claimed, FAILED)
    assert row(catalog, claimed.run)["state"] == RunState.SYNCHRONIZED


def test_dead_workers_are_released_at_once(catalog: Catalog) -> None:
    """Their runs are queued again as the same attempt, and the events of runs that they had ended find a new owner."""
    running, ended, other = started(catalog, 1, "dead"), started(catalog, 2, "dead"), started(catalog, 3, "alive")
    finish(catalog, ended, SYNCHRONIZED, last_event(ended))
    assert sorted(journal.owners(catalog)) == ["alive", "dead"]
    assert journal.release(catalog, ["dead", "never seen"]) == 1
    assert journal.owners(catalog) == ["alive"]
    again = claim(catalog, "w2", sites=9)
    assert again is not None
    assert (again.run, again.attempt) == (running.run, 1)
    assert row(catalog, ended.run)["state"] == RunState.SYNCHRONIZED
    assert outbox.adopt(catalog, "w2", LEASE) == 1
    assert [event for _, event in outbox.waiting(catalog, "w2", 9)] == [last_event(ended)]
    finish(catalog, other)


def test_an_interrupted_attempt_counts_again(catalog: Catalog) -> None:
    """A shutdown costs a run no attempt; a failure does, and is remembered until the run ends."""
    first = started(catalog)
    put_back(catalog, first, same_attempt=True)
    second = claim(catalog)
    assert second is not None
    assert second.attempt == 1
    put_back(catalog, second, FAILED)
    assert (row(catalog, first.run)["reason"], row(catalog, first.run)["detail"]) == ("unreachable", "no answer")
    third = claim(catalog)
    assert third is not None
    assert third.attempt == 2


def test_how_a_run_ended_is_kept(catalog: Catalog) -> None:
    """State, reason, counts, gaps and the end of the log."""
    claimed = started(catalog)
    gaps = [Gap(reason=Reason.NARROWED, detail="file-range: 1-\U0001f600")]
    ending = Ending(state=RunState.PARTIAL, reason=Reason.NARROWED, detail="file-range")
    journal.finish(
        catalog, claimed, now=NOW + LEASE, ending=ending, counts={"listed": 3}, gaps=gaps, log="line", events=[]
    )
    run = row(catalog, claimed.run)
    assert (run["state"], run["reason"], run["detail"]) == ("partial", "narrowed", "file-range")
    assert (run["counts"], run["gaps"]) == ({"listed": 3}, [["narrowed", "file-range: 1-\U0001f600"]])
    assert (run["ended_at"], run["log"]) == (NOW + LEASE, "line")
    assert journal.ending_of(run) == ending
    (source,) = journal.list_sources(catalog)
    assert (source["state"], source["reason"], source["synchronized_at"]) == ("partial", "narrowed", None)
    finish(catalog, started(catalog))
    (source,) = journal.list_sources(catalog)
    assert (source["state"], source["synchronized_at"]) == ("synchronized", NOW)
    assert [one["id"] > claimed.run for one in journal.list_runs(catalog, source_id=1, limit=9)] == [True, False]
    assert journal.list_runs(catalog, source_id=2, limit=9) == []


@pytest.mark.parametrize("character", ["x", "\U0001f600"])
def test_a_long_log_is_cut(catalog: Catalog, character: str) -> None:
    """60,000 characters: the end is kept, since it tells how the run ended."""
    claimed = started(catalog)
    put_back(catalog, claimed, log=character * 60_000 + "first end")
    again = claim(catalog)
    assert again is not None
    assert len(again.log) == journal.LOG_LENGTH
    assert again.log.endswith(f"{character}first end")
    finish(catalog, again, log=character * 60_000 + "second end")
    assert row(catalog, again.run)["log"] == (character * 60_000 + "second end")[-journal.LOG_LENGTH :]


# Files


def test_a_file_as_it_was_recorded(catalog: Catalog) -> None:
    """Everything that a run found out is there, as it was."""
    claimed = started(catalog)
    words = Words(page_url="https://p.example/1", title="Schön \U0001f600", date="2026-01-01T00:00:00", tags=("a", "ü"))
    new = fact(
        "1", "folder1/a.jpg", url="https://f.example/a", size=2**40, sha256="ab" * 32, words=words, downloaded=True
    )
    adopted = fact("2", "folder1/b.jpg", size=1)
    assert files.record(catalog, claimed, [new, adopted], {}, NOW) == set()
    first, second = files.list_files(catalog, source_id=1, state=None, after=0, limit=9)
    assert {key: first[key] for key in ("remote_id", "path", "url", "size", "sha256", "state", "content_path")} == {
        "remote_id": "1", "path": "folder1/a.jpg", "url": "https://f.example/a", "size": 2**40, "sha256": "ab" * 32,
        "state": "present", "content_path": "folder1",
    }  # fmt: skip
    assert (first["page_url"], first["title"], first["date"]) == (words.page_url, words.title, words.date)
    assert first["tags"] == ["a", "ü"]
    assert (first["first_seen_at"], first["downloaded_at"], first["downloaded_run"]) == (NOW, NOW, claimed.run)
    assert (second["first_seen_at"], second["downloaded_at"], second["downloaded_run"]) == (NOW, None, None)


def test_names_that_look_alike_stay_distinct(catalog: Catalog) -> None:
    """Case, normal form, 4-byte characters, blanks at the end: each remote id and each path is a file of its own."""
    claimed = started(catalog)
    facts = [fact(name, f"folder1/{name}") for name in LOOKALIKES]
    assert files.record(catalog, claimed, facts, {}, NOW) == set()
    assert paths(catalog) == {name: f"folder1/{name}" for name in LOOKALIKES}
    assert set(files.known_files(catalog, claimed, NOW)) == set(LOOKALIKES)
    mark_missing(catalog, claimed, LOOKALIKES[::2], NOW)
    known = files.known_files(catalog, claimed, NOW)
    assert [name for name in LOOKALIKES if known[name].state is FileState.MISSING] == LOOKALIKES[::2]
    for name in LOOKALIKES:
        assert files.holds(catalog, 2, f"folder1/{name}")
        assert not files.holds(catalog, 2, f"folder1/{name}\u0302")


def test_one_remote_id_in_two_sources(catalog: Catalog) -> None:
    """Ids are a source's own: what one run writes does not touch the other source."""
    first, second = started(catalog, 1), started(catalog, 2)
    files.record(catalog, first, [fact("x", "folder1/x")], {}, NOW)
    files.record(catalog, second, [fact("x", "folder2/x")], {}, NOW)
    mark_missing(catalog, second, ["x"], NOW)
    assert files.known_files(catalog, first, NOW)["x"].state is FileState.PRESENT
    assert files.count_by_state(catalog, 1) == {"present": 1}
    assert files.count_by_state(catalog, 2) == {"missing": 1}


def test_a_fact_and_its_event_are_one_commit(catalog: Catalog) -> None:
    """An event that cannot be written takes the facts with it, and the facts of the whole batch."""
    claimed = started(catalog)
    files.record(catalog, claimed, [fact("old", size=1)], {"old": told(claimed, "old")}, NOW)
    before = everything(catalog)
    events = {"a": told(claimed, "a"), "b": told(claimed, "b", size=object())}
    with pytest.raises((CatalogError, TypeError)):
        files.record(catalog, claimed, [fact("a"), fact("b"), fact("old", size=2)], events, NOW)
    assert everything(catalog) == before
    with pytest.raises((CatalogError, TypeError)):
        finish(catalog, claimed, SYNCHRONIZED, told(claimed, "c", size=object()))
    assert everything(catalog) == before
    assert files.record(catalog, claimed, [fact("a"), fact("b")], {"a": told(claimed, "a")}, NOW) == set()


def test_an_error_in_the_facts_leaves_no_event(catalog: Catalog) -> None:
    """The other way round: a row that the database refuses."""
    claimed = started(catalog)
    before = everything(catalog)
    with pytest.raises((CatalogError, OverflowError)):
        files.record(catalog, claimed, [fact("a"), fact("b", size=2**70)], {"a": told(claimed, "a")}, NOW)
    assert everything(catalog) == before


def test_a_path_that_another_file_holds(catalog: Catalog) -> None:
    """Of another source, of another file of this source, or of the same batch: reported, and neither it nor its event stored."""
    other = started(catalog, 2)
    files.record(catalog, other, [fact("theirs", "shared/1.jpg")], {}, NOW)
    mine = started(catalog, 1)
    files.record(catalog, mine, [fact("mine", "shared/2.jpg")], {}, NOW)
    facts = [
        fact("a", "shared/1.jpg"),
        fact("b", "shared/2.jpg"),
        fact("c", "shared/3.jpg"),
        fact("d", "shared/4.jpg"),
        fact("e", "shared/4.jpg"),
        fact("f", None, FileState.FAILED),
    ]
    conflicts = files.record(catalog, mine, facts, {one.remote_id: told(mine, one.remote_id) for one in facts}, NOW)
    assert conflicts == {"a", "b", "e"}
    assert set(paths(catalog, 1)) == {"mine", "c", "d", "f"}
    assert [event.subject for _, event in outbox.waiting(catalog, "w1", 99)] == ["c", "d", "f"]
    assert files.record(catalog, mine, [fact("mine", "shared/2.jpg", size=5)], {}, NOW) == set()


def test_two_sources_take_one_path_in_one_instant(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both found it free: one gets it, the other is told of the conflict, and nothing fails."""
    claims = [started(catalog, 1), started(catalog, 2)]
    monkeypatch.setattr(files, "_conflicts", meeting(files._conflicts))
    found = in_threads(2, lambda n: files.record(catalog, claims[n], [fact("x", "shared/x"), fact(f"own{n}")], {}, NOW))
    assert sorted(map(len, found)) == [0, 1]
    assert len(paths(catalog, 1)) + len(paths(catalog, 2)) == 3


def test_a_file_that_moves(catalog: Catalog) -> None:
    """It gives its old path free for others."""
    claimed = started(catalog)
    files.record(catalog, claimed, [fact("a", "one/1")], {}, NOW)
    files.record(catalog, claimed, [fact("a", "two/1")], {}, NOW)
    assert files.record(catalog, claimed, [fact("b", "one/1")], {}, NOW) == set()
    assert paths(catalog) == {"a": "two/1", "b": "one/1"}


def test_text_of_any_kind_is_recorded(catalog: Catalog) -> None:
    """NUL and lone surrogates come from sites and logs; no database may refuse a whole batch, or a run's end, for them."""
    claimed = started(catalog)
    odd = "a\x00b\ud800c\U0001f600"
    words = Words(page_url=odd, title=odd, date="2026", tags=(odd,))
    files.record(catalog, claimed, [fact("x", url=odd, words=words)], {"x": told(claimed, odd, url=odd)}, NOW)
    (found,) = files.list_files(catalog, source_id=1, state=None, after=0, limit=9)
    assert found["title"] == found["url"] == "a\ufffdb\ufffdc\U0001f600"
    gap = Gap(reason=Reason.CHILD_FAILED, detail=odd)
    ending = Ending(state=RunState.PARTIAL, reason=Reason.CHILD_FAILED, detail=odd)
    journal.finish(catalog, claimed, now=NOW, ending=ending, counts={}, gaps=[gap], log=odd, events=[])
    assert row(catalog, claimed.run)["log"] == row(catalog, claimed.run)["detail"] == "a\ufffdb\ufffdc\U0001f600"
    assert [event.body["source_id"] for _, event in outbox.waiting(catalog, "w1", 9)] == [1]


def test_announced_in_this_run(catalog: Catalog) -> None:
    """A later attempt of a run knows what an earlier one has told; the next run does not count it as told."""
    first = started(catalog)
    files.record(catalog, first, [fact("new", downloaded=True), fact("adopted")], {}, NOW)
    put_back(catalog, first)
    second = claim(catalog)
    assert second is not None
    known = files.known_files(catalog, second, NOW)
    assert (known["new"].announced, known["adopted"].announced) == (True, False)
    finish(catalog, second)
    assert not files.known_files(catalog, started(catalog), NOW)["new"].announced


def test_gone_in_three_runs(catalog: Catalog) -> None:
    """404 in three runs in a row makes a file unavailable; the attempts of one run count once."""
    gone = fact("x", state=FileState.FAILED, gone=True)
    for run in range(3):
        claimed = started(catalog)
        for attempt in range(3):
            known = files.known_files(catalog, claimed, NOW).get("x")
            assert (known.gone_runs if known else 0) == run
            assert is_unavailable(known) == (run == 2)
            files.record(catalog, claimed, [gone], {}, NOW)
            if attempt < 2:
                put_back(catalog, claimed)
                again = claim(catalog)
                assert again is not None
                claimed = again
        finish(catalog, claimed, FAILED)


@pytest.mark.parametrize("how", ["another failure", "downloaded", "listed again"])
def test_runs_that_count_are_in_a_row(catalog: Catalog, how: str) -> None:
    """A file that failed otherwise, came, or is in place again, starts anew."""
    for _ in range(2):
        claimed = started(catalog)
        files.record(catalog, claimed, [fact("x", state=FileState.FAILED, gone=True)], {}, NOW)
        finish(catalog, claimed, FAILED)
    claimed = started(catalog)
    assert files.known_files(catalog, claimed, NOW)["x"].gone_runs == 2
    if how == "another failure":
        files.record(catalog, claimed, [fact("x", state=FileState.FAILED)], {}, NOW)
    elif how == "downloaded":
        files.record(catalog, claimed, [fact("x", downloaded=True)], {}, NOW)
    else:
        files.mark_present(catalog, claimed, ["x"])
    assert files.known_files(catalog, claimed, NOW)["x"].gone_runs == 0
    finish(catalog, claimed)
    assert files.known_files(catalog, started(catalog), NOW)["x"].gone_runs == 0


def test_an_unavailable_file_is_rarely_retried(catalog: Catalog) -> None:
    """Left alone for a week after its last try."""
    claimed = started(catalog)
    files.record(catalog, claimed, [fact("x", state=FileState.UNAVAILABLE, gone=True)], {}, NOW)
    for later, retry in ((timedelta(), False), (UNAVAILABLE_RETRY - LEASE, False), (UNAVAILABLE_RETRY, True)):
        known = files.known_files(catalog, claimed, NOW + later)["x"]
        assert (known.state, known.retry) == (FileState.UNAVAILABLE, retry)


def test_a_failed_transfer_keeps_the_path(catalog: Catalog) -> None:
    """A file that was in place and could not be renewed keeps what is known of it, and its name."""
    claimed = started(catalog)
    files.record(catalog, claimed, [fact("x", "folder1/x", size=3, sha256="ab", downloaded=True)], {}, NOW)
    files.record(catalog, claimed, [fact("x", None, FileState.FAILED)], {}, NOW)
    known = files.known_files(catalog, claimed, NOW)["x"]
    assert (known.path, known.state, known.size) == ("folder1/x", FileState.FAILED, 3)
    assert files.holds(catalog, 2, "folder1/x")


def test_missing_and_back(catalog: Catalog) -> None:
    """More files than fit into one statement: all of them are marked, and all of them come back."""
    claimed = started(catalog)
    ids = [f"file {n}" for n in range(1001)]
    files.record(catalog, claimed, [fact(one) for one in [*ids, "stays"]], {}, NOW)
    mark_missing(catalog, claimed, [*ids, "never seen"], NOW + LEASE)
    assert files.count_by_state(catalog, 1) == {"missing": 1001, "present": 1}
    missing = files.list_files(catalog, source_id=1, state=FileState.MISSING, after=0, limit=2000)
    assert {one["missing_since"] for one in missing} == {NOW + LEASE}
    assert len({one["path"] for one in missing}) == 1001
    files.mark_present(catalog, claimed, ids)
    assert files.count_by_state(catalog, 1) == {"present": 1002}
    assert {
        one["missing_since"] for one in files.list_files(catalog, source_id=1, state=None, after=0, limit=2000)
    } == {None}


FOLDERS = [
    ("a/b", "a/b", True),
    ("a/b", "a", True),
    ("a/b", "a/b/c", True),
    ("a/b", "a/b/c/d", True),
    ("a/b", "a/c", False),
    ("a/b", "a/bc", False),
    ("a/b", "a/b c", False),
    ("a/b", "a/b0", False),
    ("a/b", "a/b.c", False),
    ("a/b", "b", False),
    ("a", "ab/c", False),
    ("a", "A", False),
    ("a", "A/b", False),
    ("A", "a/b", False),
    ("a_b", "axb/c", False),
    ("a_b", "a_b/c", True),
    ("a%", "abc/d", False),
    ("a%", "a%/d", True),
    ("a\\", "a\\/d", True),
    ("a\\", "a/d", False),
    ("caf\u00e9", "cafe\u0301/x", False),
    ("\U0001f600", "\U0001f600/x", True),
    ("\U0001f600", "\U0001f601/x", False),
    ("a", "a/\U0010ffff", True),
]
"""Two sources' folders, and whether they share one."""


def test_sharing_a_folder(catalog: Catalog) -> None:
    """With a source that has the same folder, lies in it, or holds it; `_` and `%` are characters like others."""
    submit(catalog, 1)
    submit(catalog, 2)

    @transaction
    def move(db: sa.Connection, source_id: int, folder: str) -> None:
        db.execute(sa.update(schema.sources).where(schema.sources.c.id == source_id).values(content_path=folder))

    found = []
    for mine, other, _ in FOLDERS:
        move(catalog, 1, mine)
        move(catalog, 2, other)
        found.append((mine, other, files.shares_folder(catalog, 1, mine)))
        assert files.shares_folder(catalog, 2, other) is found[-1][2]
    assert found == FOLDERS


def test_a_source_shares_no_folder_with_itself(catalog: Catalog) -> None:
    """Alone in its folder."""
    submit(catalog, 1, folder="a/b")
    assert not files.shares_folder(catalog, 1, "a/b")


def test_holding_a_path(catalog: Catalog) -> None:
    """Only files of other sources hold a path against a source."""
    files.record(catalog, started(catalog), [fact("x", "one/x")], {}, NOW)
    assert files.holds(catalog, 2, "one/x")
    assert not files.holds(catalog, 1, "one/x")
    assert not files.holds(catalog, 2, "one/y")


def test_files_come_in_pages(catalog: Catalog) -> None:
    """Page after page gives every file once, of one source or of all, in one state or in any."""
    first, second = started(catalog, 1), started(catalog, 2)
    for n in range(12):
        files.record(catalog, first, [fact(f"a{n}")], {}, NOW)
        files.record(catalog, second, [fact(f"b{n}", f"two/{n}")], {}, NOW)
    mark_missing(catalog, first, [f"a{n}" for n in range(0, 12, 2)], NOW)

    def pages(source_id: int | None, state: FileState | None) -> list[str]:
        found, after = [], 0
        while page := files.list_files(catalog, source_id=source_id, state=state, after=after, limit=5):
            assert len(page) <= 5
            found += [one["remote_id"] for one in page]
            after = page[-1]["id"]
        return found

    assert pages(1, None) == [f"a{n}" for n in range(12)]
    assert pages(None, None) == [name for n in range(12) for name in (f"a{n}", f"b{n}")]
    assert pages(1, FileState.MISSING) == [f"a{n}" for n in range(0, 12, 2)]
    assert pages(2, FileState.MISSING) == []


# The outbox


def test_the_last_event_waits_for_the_others(catalog: Catalog) -> None:
    """`source synchronized` goes out when every other event of its run is confirmed, and no sooner."""
    claimed, other = started(catalog, 1), started(catalog, 2)
    files.record(catalog, claimed, [fact("a"), fact("b")], {"a": told(claimed, "a"), "b": told(claimed, "b")}, NOW)
    files.record(catalog, other, [fact("c")], {"c": told(other, "c")}, NOW)
    finish(catalog, claimed, SYNCHRONIZED, last_event(claimed))
    waiting = outbox.waiting(catalog, "w1", 99)
    assert [event for _, event in waiting] == [told(claimed, "a"), told(claimed, "b"), told(other, "c")]
    assert [event for _, event in outbox.waiting(catalog, "w1", 1)] == [told(claimed, "a")]
    outbox.confirmed(catalog, [waiting[0][0], waiting[2][0]])
    assert [event for _, event in outbox.waiting(catalog, "w1", 99)] == [told(claimed, "b")]
    outbox.confirmed(catalog, [waiting[1][0]])
    ((last, event),) = outbox.waiting(catalog, "w1", 99)
    assert event == last_event(claimed)
    outbox.confirmed(catalog, [last])
    assert outbox.depth(catalog) == 0


def test_events_belong_to_the_owner_of_their_run(catalog: Catalog) -> None:
    """No other worker relays them; one that takes over the run takes over its events."""
    claimed = started(catalog)
    files.record(catalog, claimed, [fact("a")], {"a": told(claimed, "a")}, NOW)
    assert outbox.waiting(catalog, "w2", 99) == []
    pass_time(catalog, 2 * LEASE)
    assert claim(catalog, "w2") is not None
    assert outbox.waiting(catalog, "w1", 99) == []
    assert [event for _, event in outbox.waiting(catalog, "w2", 99)] == [told(claimed, "a")]


def test_a_run_is_disowned_when_its_events_are_out(catalog: Catalog) -> None:
    """An ended run keeps its owner for its events only; one without events has none."""
    silent, telling, running = started(catalog, 1), started(catalog, 2), started(catalog, 3)
    finish(catalog, silent)
    finish(catalog, telling, SYNCHRONIZED, last_event(telling))
    files.record(catalog, running, [fact("a")], {"a": told(running, "a")}, NOW)
    assert [row(catalog, one.run)["owner"] for one in (silent, telling, running)] == [None, "w1", "w1"]
    outbox.confirmed(catalog, [number for number, _ in outbox.waiting(catalog, "w1", 99)])
    assert [row(catalog, one.run)["owner"] for one in (silent, telling, running)] == [None, None, "w1"]
    put_back(catalog, running)
    assert row(catalog, running.run)["owner"] is None


def test_orphaned_events_are_adopted(catalog: Catalog) -> None:
    """Of runs that nobody owns, or whose owner's lease has ended: not of a live worker, nor of a run under way."""
    left, live, under_way, queued = (started(catalog, n) for n in (1, 2, 3, 4))
    for claimed in (left, live):
        finish(catalog, claimed, SYNCHRONIZED, last_event(claimed))
    for claimed in (under_way, queued):
        path = f"{claimed.source_id}/x"
        files.record(catalog, claimed, [fact("x", path)], {"x": told(claimed, "x")}, NOW)
    put_back(catalog, queued)
    assert outbox.adopt(catalog, "w2", LEASE) == 0
    journal.renew(catalog, "w1", 9 * LEASE, [under_way.run])
    with catalog.engine.begin() as db:
        # A run under way whose lease has ended is for `claim` to give away, under a new fence.
        late = schema.runs.c.id.in_([left.run, under_way.run])
        db.execute(sa.update(schema.runs).where(late).values(lease_until=NOW))
        db.execute(sa.update(schema.runs).where(schema.runs.c.id == queued.run).values(owner=None))
    assert outbox.adopt(catalog, "w2", LEASE) == 2
    assert [event for _, event in outbox.waiting(catalog, "w2", 99)] == [last_event(left), told(queued, "x")]
    assert [event for _, event in outbox.waiting(catalog, "w1", 99)] == [last_event(live), told(under_way, "x")]


# Transactions


@SERVERS
def test_a_deadlock_is_run_again(catalog: Catalog) -> None:
    """Two transactions that wait for each other: the database ends one, it runs again, and both are committed."""
    submit(catalog, 1)
    submit(catalog, 2)
    calls: list[int] = []
    both = threading.Barrier(2)

    @transaction
    def rename(db: sa.Connection, first: int, second: int) -> None:
        calls.append(first)
        for number, source_id in enumerate((first, second)):
            old = db.execute(sa.select(schema.sources.c.site).where(schema.sources.c.id == source_id)).scalar()
            db.execute(sa.update(schema.sources).where(schema.sources.c.id == source_id).values(site=f"{old}+"))
            if number == 0 and len(calls) <= 2:
                both.wait(10)

    in_threads(2, lambda number: rename(catalog, 1 + number, 2 - number))
    assert len(calls) == 3
    assert [one["site"] for one in journal.list_sources(catalog)] == ["site++", "site++"]


def test_transactions_take_turns(catalog: Catalog) -> None:
    """Read, then write, by many at once: none is refused because another was faster, none is lost."""
    submit(catalog, 1, site="0")

    @transaction
    def count(db: sa.Connection) -> None:
        mine = schema.sources.c.id == 1
        found = db.execute(sa.select(schema.sources.c.site).where(mine).with_for_update()).scalar_one()
        db.execute(sa.update(schema.sources).where(mine).values(site=str(int(found) + 1)))

    in_threads(8, lambda _: [count(catalog) for _ in range(5)])
    assert journal.list_sources(catalog)[0]["site"] == "40"


def test_readers_do_not_wait(catalog: Catalog) -> None:
    """While a transaction is open, others read what was before it."""
    claimed = started(catalog)
    inside, done = threading.Event(), threading.Event()

    @transaction
    def slowly(db: sa.Connection) -> None:
        db.execute(sa.update(schema.runs).values(site="changed"))
        inside.set()
        done.wait(10)

    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(slowly, catalog)
        try:
            assert inside.wait(10)
            began = time.monotonic()
            assert row(catalog, claimed.run)["site"] == "site"
            assert time.monotonic() - began < 2
        finally:
            done.set()
        writing.result(10)
    assert row(catalog, claimed.run)["site"] == "changed"


def test_an_error_of_the_database_is_one_line(catalog: Catalog) -> None:
    """In words, with where the catalog is, and nothing of the values."""

    @query
    def nonsense(db: sa.Connection) -> None:
        db.execute(sa.text("SELECT :secret FROM no_such_table"), {"secret": SECRET})

    with pytest.raises(CatalogError, match="no_such_table") as caught:
        nonsense(catalog)
    assert catalog.address in str(caught.value)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


# Removals


def missing_file(catalog: Catalog, source_id: int = 1, remote_id: str = "x") -> Claim:
    """A file that a complete listing did not show, and the run of that listing, which goes on."""
    claimed = started(catalog, source_id)
    files.record(catalog, claimed, [fact(remote_id, f"folder{source_id}/{remote_id}", size=3, sha256="ab")], {}, NOW)
    mark_missing(catalog, claimed, [remote_id], NOW)
    return claimed


def stored(catalog: Catalog, source_id: int = 1, name: str = "x") -> removals.StoredFile:
    (found,) = removals.find_files(catalog, source_id, [name])
    return found


def removal_event(claimed: Claim, remote_id: str = "x") -> Event:
    context = RunContext(run_id=claimed.run_id, source_id=claimed.source_id)
    return file_removed(context, remote_id=remote_id, filename=remote_id, removal="trash")


def test_what_is_remembered_of_a_missing_file(catalog: Catalog) -> None:
    """Its history comes back as it was written, and ends when the file is listed again."""
    claimed = missing_file(catalog)
    standing = removals.standing(catalog, claimed)
    assert standing.history == {
        "x": Missing(times=1, since=NOW, last=NOW, since_run=claimed.run, fingerprint="f", beside=0)
    }
    assert standing.rows["x"].path == "folder1/x"
    files.mark_present(catalog, claimed, ["x"])
    assert removals.standing(catalog, claimed).history == {}


def test_a_removal_and_its_event_are_one_commit(catalog: Catalog) -> None:
    """With the intent before it; the name is free afterwards, and the file is in the trash."""
    claimed = missing_file(catalog)
    place = ".trash/2026-03-01/folder1/x"
    decision = Decision(verdict=Verdict.REMOVE, missing=removals.standing(catalog, claimed).history["x"])
    removals.settle(catalog, claimed, {"x": decision}, {"x": place})
    ((row, pinned),) = removals.interrupted(catalog, 1)
    assert (row.trash_path, row.state, pinned) == (place, FileState.MISSING, False)
    before = everything(catalog)
    one = Removed(remote_id="x", trash_path=place, kept=True)
    broken = replace(removal_event(claimed), headers={"size": object()})
    with pytest.raises((CatalogError, TypeError)):
        removals.removed(catalog, claimed, [one], [broken], NOW)
    assert everything(catalog) == before
    removals.removed(catalog, claimed, [one], [removal_event(claimed)], NOW)
    assert removals.interrupted(catalog, 1) == []
    assert [row.trash_path for row in removals.trashed(catalog)] == [place]
    assert [event.type for _, event in outbox.waiting(catalog, "w1", 9)] == [EventType.FILE_REMOVED]
    assert not files.holds(catalog, 2, "folder1/x")
    assert files.known_files(catalog, claimed, NOW)["x"].path is None


def test_a_zombie_removes_nothing(catalog: Catalog) -> None:
    zombie = missing_file(catalog)
    journal.release(catalog, ["w1"])
    before = everything(catalog)
    decision = Decision(verdict=Verdict.MISSING)
    for write in (
        lambda: removals.settle(catalog, zombie, {"x": decision}, {}),
        lambda: removals.removed(catalog, zombie, [Removed(remote_id="x", trash_path=None, kept=False)], [], NOW),
    ):
        with pytest.raises(LeaseLost):
            write()
    assert everything(catalog) == before


def test_a_person_waits_for_the_run_of_a_source(catalog: Catalog) -> None:
    """Approving, forgetting, wanting and restoring need a source at rest; another source's run does not matter."""
    claimed = missing_file(catalog)
    file = stored(catalog)
    writes: list[Callable[[], object]] = [
        lambda: removals.intend(catalog, 1, {"x": ".trash/x"}),
        lambda: removals.removed_by_hand(catalog, 1, claimed.run, [], [], NOW),
        lambda: removals.forget(catalog, file),
        lambda: removals.want(catalog, file),
        lambda: removals.restored(catalog, file, "folder1/x"),
    ]
    before = everything(catalog)
    for write in writes:
        with pytest.raises(SourceBusyError, match="a run of source 1 is under way"):
            write()
    assert everything(catalog) == before
    finish(catalog, claimed, SYNCHRONIZED)
    started(catalog, 2)
    for write in writes[1:]:  # an intent would be a removal that was cut off
        write()


def test_a_file_that_is_listed_again_and_cannot_be_fetched(catalog: Catalog) -> None:
    """It is missing no more, and nothing holds it; a copy in the trash stays where it is known."""
    claimed = missing_file(catalog)
    history = removals.standing(catalog, claimed).history["x"]
    removals.settle(
        catalog, claimed, {"x": Decision(verdict=Verdict.HELD, hold=Hold.STILL_SERVED, missing=history)}, {}
    )
    files.record(catalog, claimed, [fact("x", None, FileState.FAILED)], {}, NOW)
    assert removals.held_plans(catalog) == []
    files.record(catalog, claimed, [fact("y")], {}, NOW)
    removals.removed(catalog, claimed, [Removed(remote_id="y", trash_path=".trash/y", kept=True)], [], NOW)
    files.record(catalog, claimed, [fact("y", None, FileState.FAILED)], {}, NOW)
    removals.give_up_by_hand(catalog, 1, ["y"])
    assert [row.trash_path for row in removals.trashed(catalog)] == [".trash/y"]


def test_held_plans(catalog: Catalog) -> None:
    """One for each run, with its reasons; rejected files are pinned, and pinned files wait for nobody."""
    claimed = missing_file(catalog)
    history = removals.standing(catalog, claimed).history["x"]
    decision = Decision(verdict=Verdict.HELD, hold=Hold.STILL_SERVED, missing=history)
    removals.settle(catalog, claimed, {"x": decision}, {})
    (plan,) = removals.held_plans(catalog)
    assert (plan["run_id"], plan["source_id"], plan["hold"], plan["files"]) == (claimed.run_id, 1, "still-served", 1)
    ((row, hold),) = removals.held_files(catalog, claimed.run)
    assert (row.remote_id, row.filename, hold) == ("x", "x", Hold.STILL_SERVED)
    assert removals.reject(catalog, claimed.run) == 1
    assert removals.held_plans(catalog) == []
    (known,) = removals.standing(catalog, claimed).known
    assert known.pinned
    removals.pin(catalog, [row.id], False)
    (known,) = removals.standing(catalog, claimed).known
    assert not known.pinned


def test_what_has_been_in_the_trash_for_long(catalog: Catalog) -> None:
    """Only that expires, and what a removal has left there although nobody wants it."""
    claimed = started(catalog)
    for number, kept in enumerate((True, True, False)):
        files.record(catalog, claimed, [fact(f"{number}")], {}, NOW)
        one = Removed(remote_id=f"{number}", trash_path=f".trash/{number}", kept=kept)
        removals.removed(catalog, claimed, [one], [], NOW + number * LEASE)
    rows = removals.expired(catalog, NOW + LEASE, 9)
    assert sorted(row.trash_path for row in rows) == [".trash/0", ".trash/2"]
    removals.emptied(catalog, [row.id for row in rows], NOW)
    assert removals.expired(catalog, NOW + LEASE, 9) == []
    assert [row.trash_path for row in removals.trashed(catalog)] == [".trash/1"]
    assert files.count_by_state(catalog, 1) == {"removed": 2, "trashed": 1}


def test_tombstones(catalog: Catalog) -> None:
    """A forgotten file is left alone, and new again when it is wanted."""
    claimed = missing_file(catalog)
    finish(catalog, claimed, SYNCHRONIZED)
    removals.forget(catalog, stored(catalog))
    claimed = started(catalog)
    assert files.known_files(catalog, claimed, NOW)["x"].is_left_alone
    finish(catalog, claimed, SYNCHRONIZED)
    removals.want(catalog, stored(catalog))
    assert files.count_by_state(catalog, 1) == {}


def test_a_restored_file_is_present_and_pinned(catalog: Catalog) -> None:
    claimed = missing_file(catalog)
    removals.removed(catalog, claimed, [Removed(remote_id="x", trash_path=".trash/x", kept=True)], [], NOW)
    finish(catalog, claimed, SYNCHRONIZED)
    (row,) = removals.trashed(catalog, 1)
    removals.restored(catalog, row, "folder1/x~2")
    claimed = started(catalog)
    (known,) = removals.standing(catalog, claimed).known
    assert (known.state, known.pinned) == (FileState.PRESENT, True)
    assert files.known_files(catalog, claimed, NOW)["x"].path == "folder1/x~2"
    assert removals.trashed(catalog) == []


def test_the_most_careful_order_counts(catalog: Catalog) -> None:
    """Of those that one run answers; the source's own setting is beside it."""
    for action in (RemoteDeletes.DELETE, RemoteDeletes.KEEP, None, RemoteDeletes.TRASH):
        order = Order(source_id=1, url="https://example.org/1", content_path="folder1", remote_deletes=action)
        journal.submit(catalog, order, site="site", now=NOW)
    assert journal.set_remote_deletes(catalog, 1, RemoteDeletes.DELETE)
    assert not journal.set_remote_deletes(catalog, 2, RemoteDeletes.DELETE)
    claimed = claim(catalog, "w1")
    assert claimed is not None
    assert (claimed.order_deletes, claimed.source_deletes) == (RemoteDeletes.KEEP, RemoteDeletes.DELETE)


def test_a_catalog_from_before_removals_is_brought_up_to_date(
    new_database: str, opening: Callable[..., Catalog]
) -> None:
    """With what is in it: its files are neither pinned nor missing any longer than they were."""
    opened = opening(new_database)
    migrations.downgrade(opened.engine, "0001")
    with opened.engine.begin() as db:
        db.execute(
            sa.text(
                "INSERT INTO sources (id, url, url_key, content_path, site, created_at)"
                " VALUES (1, 'https://example.org/1', 'k', 'folder1', 'site', 0)"
            )
        )
        db.execute(
            sa.text(
                "INSERT INTO files (source_id, remote_key, remote_id, path_key, path, state, first_seen_at, gone_runs,"
                " tags) VALUES (1, 'k', 'x', 'p', 'folder1/x', 'missing', 0, 0, '[]')"
            )
        )
    migrations.upgrade(opened.engine)
    submit(opened, 1)
    claimed = claim(opened, "w1")
    assert claimed is not None
    standing = removals.standing(opened, claimed)
    assert [(one.state, one.pinned) for one in standing.known] == [(FileState.MISSING, False)]
    assert standing.history == {}


# What is forgotten


def forget_runs(catalog: Catalog, before: datetime) -> int:
    """All pages, each of two runs. Returns how many were forgotten."""
    after: int | None = 0
    count = 0
    while after is not None:
        after, forgotten = retention.forget_runs(catalog, before, after, 2)
        count += forgotten
    return count


def test_old_runs_are_forgotten(catalog: Catalog) -> None:
    """With their orders; but for the newest of each source, whatever has not ended, and what is young."""
    old = []
    for number in range(5):
        for source_id in (1, 2):
            claimed = started(catalog, source_id, message_id=f"{source_id} {number}")
            finish(catalog, claimed, SYNCHRONIZED)
            old.append(claimed.run)
    waiting = submit(catalog, 1, message_id="queued").run
    running = started(catalog, 3).run
    assert forget_runs(catalog, NOW) == 0
    assert forget_runs(catalog, NOW + LEASE) == 9
    left = {row["id"] for row in journal.list_runs(catalog, source_id=None, limit=99)}
    assert left == {old[-1], waiting, running}
    assert journal.order_ids(catalog, old[-1]) == ["2 4"]
    assert journal.order_ids(catalog, old[0]) == []
    assert [one["state"] for one in journal.list_sources(catalog)] == ["queued", "synchronized", "running"]
    assert forget_runs(catalog, NOW + LEASE) == 0


def test_a_sweep_goes_through_all_pages(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the service does it, by its own clock."""
    monkeypatch.setattr(sweeping, "BATCH", 3)
    for _ in range(8):
        finish(catalog, started(catalog, now=utcnow() - timedelta(days=9)), SYNCHRONIZED)
    with catalog.engine.begin() as db:
        db.execute(sa.update(schema.runs).values(ended_at=utcnow() - timedelta(days=9)))
    calls = CatalogCalls(catalog)
    assert asyncio.run(sweeping.forget_old_runs(calls, timedelta(days=10))) == 0
    assert asyncio.run(sweeping.forget_old_runs(calls, timedelta(days=8))) == 7


def test_what_a_run_still_has_to_do_is_not_forgotten(catalog: Catalog) -> None:
    """Events that nobody has sent, and files that its plan holds."""
    telling = started(catalog)
    finish(catalog, telling, SYNCHRONIZED, last_event(telling))
    holding = missing_file(catalog, remote_id="held")
    removals.settle(catalog, holding, {"held": Decision(verdict=Verdict.HELD, hold=Hold.TOO_MANY)}, {})
    finish(catalog, holding, SYNCHRONIZED)
    finish(catalog, started(catalog), SYNCHRONIZED)
    assert forget_runs(catalog, NOW + LEASE) == 0
    outbox.confirmed(catalog, [number for number, _ in outbox.waiting(catalog, "w1", 9)], "w1")
    removals.reject(catalog, holding.run)
    assert forget_runs(catalog, NOW + LEASE) == 2


def test_a_number_is_not_given_to_a_second_run(catalog: Catalog) -> None:
    """Message ids are made of it."""
    for _ in range(3):
        finish(catalog, started(catalog), SYNCHRONIZED)
    (newest,) = [row["id"] for row in journal.list_runs(catalog, source_id=None, limit=1)]
    forget_runs(catalog, NOW + LEASE)
    assert submit(catalog, 2).run > newest


def test_another_program_looks_into_the_sqlite_file(tmp_path: Path) -> None:
    """When it closes, what we commit afterwards still goes to the log that everybody reads."""
    url = f"sqlite:///{tmp_path / 'catalog.sqlite3'}"
    look = "import sqlite3, sys; db = sqlite3.connect(sys.argv[1]); print(db.execute('SELECT count(*) FROM runs').fetchone()[0]); db.close()"

    def runs_that_others_see() -> int:
        command = [sys.executable, "-c", look, str(tmp_path / "catalog.sqlite3")]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    catalog = open_catalog(url)
    try:
        assert runs_that_others_see() == 0
        look_into_catalog(url)
        journal.submit(catalog, Order(source_id=1, url="https://a.example/1", content_path="a"), site="a", now=NOW)
        assert runs_that_others_see() == 1
        journal.submit(catalog, Order(source_id=2, url="https://a.example/2", content_path="b"), site="a", now=NOW)
        assert runs_that_others_see() == 2
    finally:
        catalog.close()
