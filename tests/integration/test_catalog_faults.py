"""The catalog when its database fails: locks, lost connections, lost answers, damage, another schema, a network share."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from http_downloader.catalog import files, journal, migrations, outbox, schema
from http_downloader.catalog.address import make_engine
from http_downloader.catalog.engine import Catalog, open_catalog, query, transaction
from http_downloader.catalog.journal import Claim
from http_downloader.domain.errors import CatalogError, LeaseLost, SettingsError
from http_downloader.domain.events import Event, EventType, RunContext, file_event, source_synchronized
from http_downloader.domain.files import FileFact, FileState
from http_downloader.domain.orders import Order
from http_downloader.domain.reasons import Reason
from http_downloader.domain.runs import Ending, RunState
from tests.databases import ENGINES, database, end_connections, locked, pass_time
from tests.installation import COMMAND, Installation, wait_until

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=60)
SERVERS = ("postgresql", "mariadb")
SYNCHRONIZED = Ending(state=RunState.SYNCHRONIZED, listing_proves=True)
FAILED = Ending(state=RunState.FAILED, reason=Reason.UNREACHABLE, detail="no answer")
IMPATIENT = {
    "sqlite": "?timeout=0.5",
    "postgresql": "?options=-c%20lock_timeout%3D500",
    "mariadb": "?init_command=SET%20SESSION%20innodb_lock_wait_timeout%3D1%2C%20lock_wait_timeout%3D1",
}
"""At the end of a URL: a transaction gives up after a second at most."""


class ForgetfulLine:
    """Stands between a catalog and its server. Armed, it passes the next COMMIT on, waits until the server has answered,
    and cuts the connection in place of telling the answer."""

    def __init__(self, port: int) -> None:
        self.armed = False
        self.cuts = 0
        self._server = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])

    def __enter__(self) -> ForgetfulLine:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        forgets = threading.Event()
        with client, socket.create_connection(("127.0.0.1", self._server)) as server:
            answers = threading.Thread(target=self._pass_on, args=(server, client, lambda _: forgets.is_set()))
            answers.start()
            self._pass_on(client, server, lambda data: self._watch(data, forgets))
            answers.join()

    def _watch(self, data: bytes, forgets: threading.Event) -> bool:
        if self.armed and b"COMMIT" in data:
            self.armed = False
            self.cuts += 1
            forgets.set()
        return False

    def _pass_on(self, source: socket.socket, target: socket.socket, ends: Callable[[bytes], bool]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if ends(data):
                    break
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, tmp_path) as url:
        yield url


@pytest.fixture(params=SERVERS)
def server_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, tmp_path) as url:
        yield url


@pytest.fixture
def behind(server_url: str) -> Iterator[tuple[Catalog, ForgetfulLine]]:
    """A catalog on a server, and the line to it."""
    address = sa.make_url(server_url)
    assert address.port is not None
    with ForgetfulLine(address.port) as line:
        catalog = open_catalog(address.set(port=line.port).render_as_string(hide_password=False))
        yield catalog, line
        catalog.close()


def kind_of(url: str) -> str:
    return url.partition(":")[0]


def submit(catalog: Catalog, source_id: int = 1, message_id: str | None = None) -> int:
    order = Order(source_id=source_id, url=f"https://example.org/{source_id}", content_path=f"folder{source_id}")
    return journal.submit(catalog, order, site="site", now=NOW, message_id=message_id).run


def claim(catalog: Catalog) -> Claim | None:
    return journal.claim(catalog, owner="w1", lease=LEASE, site_concurrency=9)


def started(catalog: Catalog) -> Claim:
    submit(catalog)
    claimed = claim(catalog)
    assert claimed is not None
    return claimed


def downloaded(claimed: Claim, remote_id: str) -> tuple[list[FileFact], dict[str, Event]]:
    context = RunContext(run_id=claimed.run_id, source_id=claimed.source_id)
    event = file_event(EventType.FILE_DOWNLOADED, context, remote_id=remote_id, filename=remote_id)
    fact = FileFact(remote_id=remote_id, path=f"folder1/{remote_id}", state=FileState.PRESENT, downloaded=True)
    return [fact], {remote_id: event}


def finish(catalog: Catalog, claimed: Claim, ending: Ending = SYNCHRONIZED) -> None:
    context = RunContext(run_id=claimed.run_id, source_id=claimed.source_id)
    last = source_synchronized(context, orders=[], counts={})
    journal.finish(catalog, claimed, now=NOW, ending=ending, counts={}, gaps=[], log="", events=[last])


def put_back(catalog: Catalog, claimed: Claim) -> None:
    journal.put_back(
        catalog,
        claimed,
        after=timedelta(),
        ending=FAILED,
        same_attempt=False,
        counts={"downloaded": 2},
        gaps=[],
        log="",
    )


def count(catalog: Catalog, table: sa.Table) -> int:
    with catalog.engine.connect().execution_options(reads_only=True) as db:
        return int(db.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def row(catalog: Catalog, run: int) -> dict[str, Any]:
    found = journal.get_run(catalog, run)
    assert found is not None
    return found


def end_own_connection(db: sa.Connection) -> None:
    """As an administrator does, or a server that is shut down, in the middle of the transaction."""
    number = db.execute(
        sa.text("SELECT pg_backend_pid()" if db.dialect.name == "postgresql" else "SELECT CONNECTION_ID()")
    ).scalar_one()
    end_connections(db.engine.url.render_as_string(hide_password=False), [number])


# Locks


def test_a_lock_is_waited_for_and_then_named(url: str) -> None:
    """A transaction waits for as long as it may, then says that another program is in the way; afterwards all is well."""
    open_catalog(url).close()
    catalog = open_catalog(url + IMPATIENT[kind_of(url)])
    with locked(url):
        began = time.monotonic()
        with pytest.raises(CatalogError, match=r"does not work: .*another program holds it locked") as caught:
            submit(catalog)
        assert time.monotonic() - began < 10
        assert "\n" not in str(caught.value)
    assert submit(catalog) == 1
    catalog.close()


def test_threads_that_wait_for_one_lock_give_up_together(tmp_path: Path) -> None:
    """Four transactions of one process that meet a locked SQLite file do not wait one after the other."""
    url = f"sqlite:///{tmp_path}/catalog.sqlite3"
    open_catalog(url).close()
    catalog = open_catalog(f"{url}?timeout=1")
    problems: list[str] = []

    def attempt(number: int) -> None:
        try:
            submit(catalog, number)
        except CatalogError as error:
            problems.append(str(error))

    with locked(url):
        began = time.monotonic()
        threads = [threading.Thread(target=attempt, args=(number,)) for number in range(1, 5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.monotonic() - began < 3
    assert len(problems) == 4
    catalog.close()


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf", "3601"])
def test_a_wait_that_cannot_be(tmp_path: Path, text: str) -> None:
    """One line that names the setting, the value and what is allowed."""
    with pytest.raises(SettingsError, match=f"^DATABASE_URL has the timeout '{text}'; a number of seconds up to 3600"):
        open_catalog(f"sqlite:///{tmp_path}/catalog.sqlite3?timeout={text}")


def test_no_wait_for_a_lock_is_endless(server_url: str) -> None:
    """A server waits for ever by default, MariaDB a day for a table that is being altered: ours is half a minute."""
    catalog = open_catalog(server_url)
    with catalog.engine.connect() as db:
        if kind_of(server_url) == "postgresql":
            assert db.execute(sa.text("SHOW lock_timeout")).scalar() == "30s"
        else:
            found = db.execute(sa.text("SELECT @@innodb_lock_wait_timeout, @@lock_wait_timeout")).one()
            assert tuple(found) == (30, 30)
    catalog.close()


def test_reading_waits_for_no_lock(install: Callable[..., Installation]) -> None:
    """The list of sources is there while another program writes for long; what has to write is one line and code 6."""
    machine = install()
    url = f"sqlite:///{machine.runtime}/catalog.sqlite3"
    open_catalog(url).close()
    machine.set(DATABASE_URL=f"{url}?timeout=0.3")
    with locked(url):
        assert machine.run("sources").returncode == 0
        done = machine.sync("https://danbooru.donmai.us/posts?tags=none")
    assert done.returncode == 6
    assert done.stderr.strip().count("\n") == 0
    assert "catalog.sqlite3 does not work" in done.stderr
    assert "another program holds it locked" in done.stderr


# Lost connections


def test_a_transaction_is_run_again_when_its_connection_ends(server_url: str) -> None:
    """Cut off in the middle, it has done nothing: it runs once more, and is committed once."""
    catalog = open_catalog(server_url)
    submit(catalog)
    passes: list[int] = []

    @transaction
    def rename(db: sa.Connection) -> None:
        old = db.execute(sa.select(schema.sources.c.site)).scalar()
        db.execute(sa.update(schema.sources).values(site=f"{old}+"))
        passes.append(1)
        if len(passes) == 1:
            end_own_connection(db)

    @query
    def site(db: sa.Connection) -> str:
        passes.append(1)
        if len(passes) == 3:
            end_own_connection(db)
        return str(db.execute(sa.select(schema.sources.c.site)).scalar())

    rename(catalog)
    assert len(passes) == 2
    assert site(catalog) == "site+"
    assert len(passes) == 4
    catalog.close()


def test_an_order_whose_commit_went_unanswered(behind: tuple[Catalog, ForgetfulLine]) -> None:
    """It was journalled, and nobody said so: it is not journalled a second time."""
    catalog, line = behind
    line.armed = True
    run = submit(catalog, message_id="m1")
    assert line.cuts == 1
    assert count(catalog, schema.orders) == 1
    assert count(catalog, schema.runs) == 1
    assert journal.order_ids(catalog, run) == ["m1"]


def test_a_batch_whose_commit_went_unanswered(behind: tuple[Catalog, ForgetfulLine]) -> None:
    """One row for the file; its event may go out twice, under one message id."""
    catalog, line = behind
    claimed = started(catalog)
    facts, events = downloaded(claimed, "a")
    line.armed = True
    assert files.record(catalog, claimed, facts, events, NOW) == set()
    assert line.cuts == 1
    assert count(catalog, schema.files) == 1
    assert {event.message_id for _, event in outbox.waiting(catalog, "w1", 10)} == {events["a"].message_id}


def test_an_end_whose_commit_went_unanswered(behind: tuple[Catalog, ForgetfulLine]) -> None:
    """The run has ended, with one last event, and its worker does not take it for lost."""
    catalog, line = behind
    claimed = started(catalog)
    line.armed = True
    finish(catalog, claimed)
    assert line.cuts == 1
    assert row(catalog, claimed.run)["state"] == RunState.SYNCHRONIZED
    assert count(catalog, schema.outbox) == 1


def test_a_retry_whose_commit_went_unanswered(behind: tuple[Catalog, ForgetfulLine]) -> None:
    """The attempt has ended and counts once; what it found is there for the next."""
    catalog, line = behind
    claimed = started(catalog)
    line.armed = True
    put_back(catalog, claimed)
    assert line.cuts == 1
    again = claim(catalog)
    assert again is not None
    assert (again.attempt, again.counts) == (2, {"downloaded": 2})


def test_a_claim_whose_commit_went_unanswered(behind: tuple[Catalog, ForgetfulLine]) -> None:
    """Nobody performs what was claimed: the worker puts it back as it was, and takes it anew."""
    catalog, line = behind
    performed = started(catalog)
    submit(catalog, 2)
    line.armed = True
    with pytest.raises(CatalogError, match="lost while a run was claimed"):
        claim(catalog)
    assert line.cuts == 1
    assert claim(catalog) is None
    assert journal.give_back(catalog, "w1", [performed.run], timedelta()) == 1
    assert row(catalog, performed.run)["state"] == RunState.RUNNING
    again = claim(catalog)
    assert again is not None
    assert (again.source_id, again.attempt) == (2, 1)


def test_a_repeated_end_of_a_run_that_was_taken_over_is_refused(server_url: str) -> None:
    """Cut off before its commit, while another worker took the run over: the second pass is nobody's."""
    catalog = open_catalog(server_url)
    claimed = started(catalog)

    @transaction
    def end(db: sa.Connection) -> None:
        if not db.get_execution_options().get("repeated"):
            end_own_connection(db)
            db.execute(sa.select(1))
        pass_time(catalog, 2 * LEASE)
        assert claim(catalog) is not None
        journal.finish.__wrapped__(  # type: ignore[attr-defined]
            db, claimed, now=NOW, ending=SYNCHRONIZED, counts={}, gaps=[], log="", events=[]
        )

    with pytest.raises(LeaseLost):
        end(catalog)
    assert row(catalog, claimed.run)["state"] == RunState.RUNNING
    catalog.close()


def test_what_is_given_back_keeps_its_events(url: str) -> None:
    """A run that the catalog interrupted waits for its time as the same attempt; its worker still relays its events."""
    catalog = open_catalog(url)
    claimed = started(catalog)
    files.record(catalog, claimed, *downloaded(claimed, "a"), NOW)
    assert journal.give_back(catalog, "w1", [], LEASE) == 1
    assert len(outbox.waiting(catalog, "w1", 10)) == 1
    assert claim(catalog) is None
    pass_time(catalog, LEASE)
    again = claim(catalog)
    assert again is not None
    assert (again.run, again.attempt) == (claimed.run, 1)
    assert again.fence > claimed.fence
    with pytest.raises(LeaseLost):
        finish(catalog, claimed)
    catalog.close()


def test_only_the_owner_forgets_events(url: str) -> None:
    """A worker that comes late, with row ids that may be other events' by now, deletes none of them."""
    catalog = open_catalog(url)
    claimed = started(catalog)
    files.record(catalog, claimed, *downloaded(claimed, "a"), NOW)
    ids = [number for number, _ in outbox.waiting(catalog, "w1", 10)]
    outbox.confirmed(catalog, ids, "w0")
    assert outbox.depth(catalog) == 1
    outbox.confirmed(catalog, ids, "w1")
    assert outbox.depth(catalog) == 0
    catalog.close()


# What one reads


POSTGRESQL = f"127.0.0.1:{os.environ.get('TEST_POSTGRESQL_PORT', '5432')}"
MARIADB = f"127.0.0.1:{os.environ.get('TEST_MARIADB_PORT', '3306')}"


@pytest.mark.parametrize(
    ("url", "remedy"),
    [
        (f"postgresql://postgres@{POSTGRESQL}/no_such_database", "check user, password and database in DATABASE_URL"),
        (f"postgresql://nobody@{POSTGRESQL}/postgres", "check user, password and database in DATABASE_URL"),
        ("postgresql://postgres@127.0.0.1:1/db", "see whether the server runs, and check host and port"),
        (f"mariadb://root@{MARIADB}/no_such_database", "make the database, or name another one in DATABASE_URL"),
        (f"mariadb://nobody:wrong@{MARIADB}/db", "check user, password and database in DATABASE_URL"),
        ("mariadb://root@127.0.0.1:1/db", "see whether the server runs, and check host and port"),
    ],
)
def test_a_server_that_lets_nobody_in(url: str, remedy: str) -> None:
    """What the server says, and what to look at."""
    with pytest.raises(CatalogError, match=r"does not work: [A-Za-z]") as caught:
        open_catalog(url)
    assert remedy in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["pages", "header"])
def test_a_damaged_file(install: Callable[..., Installation], how: str) -> None:
    """One line that says what to do, and code 6."""
    machine = install()
    file = machine.runtime / "catalog.sqlite3"
    open_catalog(f"sqlite:///{file}").close()
    size = file.stat().st_size
    with file.open("r+b") as handle:
        handle.seek(100 if how == "pages" else 0)
        handle.write(b"\xa5" * (size - 100 if how == "pages" else 100))
    done = machine.run("sources")
    assert done.returncode == 6
    assert done.stderr.strip().count("\n") == 0
    assert "catalog.sqlite3 does not work" in done.stderr
    assert "move it away and put a backup in its place" in done.stderr


def test_a_read_only_disk(install: Callable[..., Installation], tmp_path: Path) -> None:
    """An SQLite catalog that lies on one: one line that says so, and code 6."""
    machine = install()
    folder = tmp_path / "database"
    url = f"sqlite:///{folder}/catalog.sqlite3"
    machine.set(DATABASE_URL=url)
    open_catalog(url).close()
    with read_only(folder):
        done = machine.sync("https://danbooru.donmai.us/posts?tags=none")
    assert done.returncode == 6
    assert done.stderr.strip().count("\n") == 0
    assert "catalog.sqlite3 does not work" in done.stderr
    assert "not mounted read-only" in done.stderr
    open_catalog(url).close()


@pytest.mark.parametrize("server_url", ["postgresql"], indirect=True)
def test_another_schema(install: Callable[..., Installation], server_url: str) -> None:
    """Older: a line with the command that helps, which does; newer: refused, whatever is asked for."""
    machine = install(DATABASE_URL=server_url)
    open_catalog(server_url).close()
    engine = make_engine(server_url)
    migrations.downgrade(engine, migrations.known()[0])
    done = machine.run("serve")
    assert done.returncode == 6
    assert "run: http-downloader db upgrade" in done.stderr
    assert done.stderr.strip().count("\n") == 0
    assert machine.run("db", "upgrade").returncode == 0
    open_catalog(server_url).close()
    with engine.begin() as db:
        db.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
        db.execute(sa.text("UPDATE catalog SET works_with = '9999'"))
    engine.dispose()
    for arguments in (["serve"], ["db", "upgrade"]):
        done = machine.run(*arguments)
        assert done.returncode == 6
        assert "newer than this program; upgrade http-downloader" in done.stderr
        assert done.stderr.strip().count("\n") == 0


@pytest.mark.parametrize("server_url", ["mariadb"], indirect=True)
@pytest.mark.parametrize("statement", [1, 5, 25])
def test_a_migration_that_is_cut_off(server_url: str, statement: int) -> None:
    """MariaDB has no way back from a change of the schema: the next try goes on where the first one ended."""
    engine = make_engine(server_url, patient=True)
    changes = []

    @sa.event.listens_for(engine, "before_cursor_execute")
    def cut_off(_db: object, _cursor: object, words: str, *_: object) -> None:
        if words.lstrip().startswith(("CREATE", "ALTER")) and "alembic_version" not in words:
            changes.append(words)
            if len(changes) == statement + 1:
                end_connections(server_url)

    with pytest.raises(sa.exc.OperationalError):
        migrations.upgrade(engine)
    assert len(changes) > statement
    engine.dispose()
    catalog = open_catalog(server_url, upgrade=True)
    assert count(catalog, schema.catalog) == 1
    with catalog.engine.connect() as db:
        context = MigrationContext.configure(db, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    catalog.close()


def test_sqlite_on_a_network_share(install: Callable[..., Installation], tmp_path: Path) -> None:
    """`serve` and `doctor` warn of it. The kernel's list of mounts says here that RUNTIME_PATH is one."""
    machine = install()
    machine.runtime.mkdir()
    mounts = tmp_path / "mountinfo"
    share = f"900 1 0:99 / {machine.runtime} rw,relatime - nfs4 nas:/volume rw,vers=4.2"
    mounts.write_text(f"{Path('/proc/self/mountinfo').read_text()}{share}\n")
    seen = with_mounts(machine, mounts, "doctor")
    assert f"! catalog       the catalog lies on a network share (nfs4): {machine.runtime}" in seen
    assert "DATABASE_URL" in seen
    seen = with_mounts(machine, mounts, "serve", until="network share")
    assert seen.count("the catalog lies on a network share (nfs4)") == 1


def with_mounts(machine: Installation, mounts: Path, command: str, until: str | None = None) -> str:
    """What a command prints that takes the content of a file for the kernel's list of mounts."""
    need("unshare", "root, to give a process a list of mounts of its own")
    script = f'mount --bind "{mounts}" /proc/$$/mountinfo && exec "{COMMAND}" {command}'
    log = machine.home / f"{command}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script], env=machine.env, stdout=output, stderr=output
        )
    if until is not None:
        wait_until(lambda: until in log.read_text() or process.poll() is not None, what=until)
        process.terminate()
    process.wait(60)
    return log.read_text()


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """To root, modes are no hindrance: a mount is."""
    need("mount", "root, to mount a folder read-only")
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def need(program: str, what_for: str) -> None:
    if os.geteuid() != 0 or shutil.which(program) is None:
        pytest.fail(f"this test needs {what_for} ({program})", pytrace=False)
