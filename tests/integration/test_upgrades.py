"""Upgrades of the catalog under programs that are at work there: older ones go on, or end; nothing is ever half written."""

from __future__ import annotations

import itertools
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from http_downloader.catalog import migrations
from http_downloader.catalog.address import make_engine
from http_downloader.catalog.engine import open_catalog, transaction
from http_downloader.domain.errors import OutgrownError
from tests.databases import ENGINES, database
from tests.installation import Installation, Service, wait_until
from tests.newer import CONTRACTED, EXPANDED, OURS, NewerProgram
from tests.queues import Queues
from tests.site import Action, FaultyExchange, FaultySite, Post


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, tmp_path) as url:
        yield url


def behind(gate: threading.Event) -> Action:
    """Answer as usual, but only when the gate is open."""

    def act(exchange: FaultyExchange) -> None:
        gate.wait(300)
        exchange.send(exchange.usual())

    return act


WAITING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'LOCK TABLE catalog%'"
    " AND datname = current_database()",
    "mariadb": "SELECT count(*) FROM information_schema.processlist WHERE state LIKE 'Waiting for table metadata lock%'"
    " AND info LIKE 'LOCK TABLES catalog%' AND db = DATABASE()",
}
"""How many upgrades wait for transactions that have read `catalog`. SQLite tells nobody."""


def is_waiting(engine: sa.Engine) -> bool:
    with engine.connect().execution_options(reads_only=True) as db:
        return bool(db.execute(sa.text(WAITING[engine.dialect.name])).scalar())


@pytest.mark.parametrize(
    "url",
    ["postgresql", *(pytest.param(name, marks=pytest.mark.long) for name in ("sqlite", "mariadb"))],
    indirect=True,
)
@pytest.mark.timeout(400)  # nine commands and three services start in it
def test_the_fleet_is_upgraded_while_it_works(
    install: Callable[..., Installation], queues: Queues, url: str, tmp_path: Path
) -> None:
    """An older worker goes on through an upgrade that expands, in its run and beside newer workers. One that contracts is
    refused while the older one runs; forced, it ends the older one with one line, and the fleet goes on with its run."""
    shared = {**queues.settings, "DATABASE_URL": url, "SYNC_CONCURRENCY": 1, "SITE_CONCURRENCY": 9}
    first = install(**shared)
    second = install(**shared, CONTENT_ROOT=first.content)
    expanding, contracting = NewerProgram(tmp_path / "a"), NewerProgram(tmp_path / "b", contracts=True)
    gate = threading.Event()
    ordered = 0

    def order(count: int) -> None:
        nonlocal ordered
        for source in range(ordered + 1, ordered + count + 1):
            place = f"Danbooru:{site.root}/posts?tags=demo"
            queues.post({"source_id": source, "url": place, "content_path": f"folder{source}"}, timestamp=1_700_000_000)
        ordered += count

    def synchronized(count: int) -> None:
        wait_until(lambda: queues.count("synchronized") >= count, 120, f"{count} synchronized sources")

    def hanging(count: int) -> None:
        """From now on listings wait for the gate; so many orders, each under way."""
        gate.clear()
        site.rule(r"/posts\.json", behind(gate))
        order(count)
        wait_until(lambda: site.active == count, what=f"{count} runs under way")

    def go_on() -> None:
        site.clear_rules()
        gate.set()

    with FaultySite([Post(id=number) for number in (1, 2, 3)]) as site, Service(first) as old:
        order(1)
        synchronized(1)
        hanging(1)
        done = expanding.run(first, "db", "upgrade")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.endswith(f" has schema {EXPANDED}\n")
        go_on()
        synchronized(2)
        with Service(second, expanding.command) as newer:
            hanging(2)  # each of the two has one slot
            done = contracting.run(first, "db", "upgrade")
            assert done.returncode == 6
            assert f"cannot be upgraded from schema {EXPANDED} while workers of an older program run: " in done.stderr
            assert f"-{old.pid}-" in done.stderr
            told = contracting.run(first, "db", "upgrade", "--check")
            assert told.returncode == 6
            assert f"{CONTRACTED}  An old column goes (only programs that know {EXPANDED} can go on)" in told.stdout
            assert f"-{old.pid}-" in told.stdout
            assert contracting.run(first, "db", "upgrade", "--force").returncode == 0
            wait_until(old.has_ended, what="the older worker's end")
            assert old.process is not None
            assert old.process.wait() == 6
            old.process = None
            line = (
                f"has been upgraded, and programs that do not know schema {EXPANDED} may not use it any more; upgrade"
            )
            assert old.log.count(line) == 1
            assert "Traceback" not in old.log
            go_on()
            synchronized(3)  # of the newer one
            refused = first.run("db", "show")
            assert refused.returncode == 6
            assert (
                f"has schema {CONTRACTED}, which is newer than this program; upgrade http-downloader" in refused.stderr
            )
            with Service(first, contracting.command):
                order(2)
                synchronized(6)
            assert not newer.has_ended()
    assert {message.json["source_id"] for message in queues.take("synchronized")} == set(range(1, ordered + 1))
    assert len({message.properties.message_id for message in queues.take("downloaded")}) == 6 * 3
    assert len(first.on_disk()) == 6 * 3


def test_a_step_that_contracts_waits_for_writers_and_stops_others(
    install: Callable[..., Installation], url: str, tmp_path: Path
) -> None:
    """What an older program has begun to write is committed first; what it begins afterwards is refused."""
    newer = NewerProgram(tmp_path / "newer", contracts=True)
    machine = install(DATABASE_URL=url)
    catalog = open_catalog(url)
    inside, leave = threading.Event(), threading.Event()
    upgrading: list[subprocess.CompletedProcess[str]] = []

    @transaction
    def write_slowly(db: Connection) -> None:
        db.execute(sa.text("INSERT INTO sites (name) VALUES ('slow')"))
        inside.set()
        leave.wait(30)

    @transaction
    def write(db: Connection) -> None:
        db.execute(sa.text("INSERT INTO sites (name) VALUES ('late')"))

    def schema() -> str | None:
        with catalog.engine.connect().execution_options(reads_only=True) as db:
            return migrations.current(db)

    writer = threading.Thread(target=write_slowly, args=(catalog,))
    upgrade = threading.Thread(target=lambda: upgrading.append(newer.run(machine, "db", "upgrade")))
    writer.start()
    try:
        assert inside.wait(10)
        upgrade.start()
        if catalog.engine.dialect.name in WAITING:
            wait_until(lambda: is_waiting(catalog.engine), what="the upgrade to wait for the writer")
        assert (schema(), upgrading) == (OURS, [])
    finally:
        leave.set()
        writer.join()
    upgrade.join()
    assert (upgrading[0].returncode, upgrading[0].stderr) == (0, "")
    assert schema() == CONTRACTED
    with pytest.raises(OutgrownError, match=f"do not know schema {EXPANDED}"):
        write(catalog)
    with catalog.engine.connect().execution_options(reads_only=True) as db:
        assert list(db.execute(sa.text("SELECT name FROM sites")).scalars()) == ["slow"]
    catalog.close()


@pytest.mark.parametrize("url", ["postgresql", "mariadb"], indirect=True)
def test_a_writer_that_does_not_end_keeps_the_upgrade_out(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gives up, and whoever could write before still can."""
    monkeypatch.setattr(migrations, "works_with", lambda _: CONTRACTED)
    monkeypatch.setattr(migrations, "PATIENCE", 1)
    catalog = open_catalog(url)
    with catalog.engine.connect() as other, other.begin():
        before = migrations.declared(other)
        with pytest.raises(sa.exc.OperationalError):
            migrations._under_lock(catalog.engine, lambda _settings, db: migrations._shut_out_older(db))
    with catalog.engine.connect() as db:
        assert migrations.declared(db) == before
    catalog.close()


def test_a_step_either_only_adds_or_says_whom_it_shuts_out(url: str) -> None:
    """From 0004 on each declares itself. One that expands leaves every column and key as it was, and what it adds to a
    table may be left out by programs that do not know it. An index may give way to a better one: nothing depends on it but
    time."""
    engine = make_engine(url)
    steps = migrations.steps(None)
    assert [step.revision for step in steps] == list(migrations.known())
    for before, step in itertools.pairwise(steps):
        if step.works_with is not None:
            assert step.works_with in migrations.known()
            continue
        migrations.upgrade(engine, before.revision)
        had = {one: what for one, what in described(engine).items() if one[1] != "index"}
        migrations.upgrade(engine, step.revision)
        has = described(engine)
        assert had.keys() <= has.keys()
        added = {one for one in has if one not in had and one[0] in {table for table, *_ in had}}
        for table, kind, name in added:
            if kind == "column":
                column = has[table, kind, name]
                assert column["nullable"] or column["default"] is not None, f"{table}.{name}"
            else:
                assert kind == "index", f"{step.revision} adds a rule to {table}: {name}"
        assert {one: has[one] for one in had} == had
    engine.dispose()


def described(engine: sa.Engine) -> dict[tuple[str, str, str], Any]:
    """Each part of each table, by table, kind and name."""
    seen = sa.inspect(engine)
    parts: dict[tuple[str, str, str], Any] = {}
    for table in seen.get_table_names():
        parts[table, "column", ""] = None
        for column in seen.get_columns(table):
            parts[table, "column", column["name"]] = {**column, "type": str(column["type"])}
        for kind, found in (
            ("key", [seen.get_pk_constraint(table)]),
            ("foreign key", seen.get_foreign_keys(table)),
            ("unique", seen.get_unique_constraints(table)),
            ("index", seen.get_indexes(table)),
        ):
            for one in found:
                kind = "unique" if kind == "index" and one["unique"] else kind
                parts[table, kind, str(one["name"])] = one
    return parts
