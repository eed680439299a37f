"""The service when its database fails: nothing is lost, it says once what is wrong and once that it is well again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from http_downloader.amqp import relay
from http_downloader.amqp.connection import Broker
from http_downloader.amqp.topology import Topology
from http_downloader.amqp.wire import EventFormat
from http_downloader.catalog import files, journal, outbox
from http_downloader.catalog.calls import CatalogCalls
from http_downloader.catalog.engine import open_catalog, utcnow
from http_downloader.domain.events import EventType, RunContext, file_event
from http_downloader.domain.files import FileFact, FileState
from http_downloader.domain.orders import Order
from tests.database_node import DatabaseNode, private_database
from tests.databases import database, end_connections, locked
from tests.installation import COMMAND, Installation, Service, gallery_processes, wait_until
from tests.queues import PORT, Queues
from tests.site import FaultySite, Post, drip, hang

WRONG = "the catalog does not work"
WELL = "the catalog works again"
INTERRUPTED = "run interrupted by the catalog"


@pytest.fixture(scope="session")
def only_database() -> Iterator[DatabaseNode]:
    try:
        node = private_database()
    except FileNotFoundError as missing:
        pytest.fail(str(missing), pytrace=False)
    with node:
        yield node


@pytest.fixture
def node(only_database: DatabaseNode) -> DatabaseNode:
    """Up, whatever the test before did to it."""
    only_database.start()
    return only_database


@pytest.fixture
def sqlite(tmp_path: Path) -> str:
    """In a folder of its own, beside the rest of what we write. A transaction waits half a second for another one."""
    (tmp_path / "database").mkdir()
    return f"sqlite:///{tmp_path}/database/catalog.sqlite3?timeout=0.5"


def posts(count: int, first: int = 1) -> list[Post]:
    return [Post(id=number, body=f"picture {number} ".encode() * 9) for number in range(first, first + count)]


def order(site: FaultySite, source_id: int = 1) -> dict[str, object]:
    url = f"Danbooru:{site.root}/posts?tags=demo"
    return {"source_id": source_id, "url": url, "content_path": f"folder{source_id}"}


def all_is_there(machine: Installation, queues: Queues, site: FaultySite, *sources: int) -> None:
    """What the outside was told, what the catalog says and what is on the disk is the site's truth, and nothing else."""
    names = {f"{site.root.removeprefix('http://')}_{post.id}_{post.md5}.png": post.content() for post in site.posts}
    told: dict[tuple[int, str], set[str]] = {}
    for message in queues.take("downloaded"):
        key = message.json["source_id"], message.json["filename"]
        told.setdefault(key, set()).add(message.properties.message_id)
    ended = queues.take("synchronized")
    disk = machine.on_disk()
    assert set(disk) == {f"folder{source}/{name}" for source in sources for name in names}
    assert all(body == names[path.partition("/")[2]] for path, body in disk.items())
    assert set(told) == {(source, name) for source in sources for name in names}
    assert all(len(ids) == 1 for ids in told.values())
    assert {message.json["source_id"] for message in ended} == set(sources)
    assert len({message.properties.message_id for message in ended}) == len(sources)
    assert all(message.headers["downloaded"] + message.headers["skipped"] == len(names) for message in ended)
    assert queues.counts() == dict.fromkeys(queues.names, 0)
    catalog = open_catalog(machine.env["DATABASE_URL"])
    rows = files.list_files(catalog, source_id=None, state=None, after=0, limit=1000)
    catalog.close()
    assert sorted(row["path"] for row in rows) == sorted(disk)
    assert {row["state"] for row in rows} == {"present"}


def said_once(service: Service) -> None:
    wait_until(lambda: WELL in service.log, what="the word that all is well")
    assert service.log.count(WRONG) == 1
    assert service.log.count(WELL) == 1
    assert "Traceback" not in service.log


def in_mid_run(queues: Queues, files: int = 3) -> None:
    wait_until(lambda: queues.count("downloaded") >= files, what=f"{files} downloads")


# Locked


def test_sqlite_is_locked_in_mid_run(install: Callable[..., Installation], queues: Queues, sqlite: str) -> None:
    """The run is interrupted with its process, the next order waits; both go on as soon as the lock is free."""
    machine = install(**queues.settings, DATABASE_URL=sqlite)
    with FaultySite(posts(40)) as site, Service(machine) as service:
        site.file_latency = 0.1
        queues.post(order(site, 1))
        in_mid_run(queues)
        with locked(sqlite):
            queues.post(order(site, 2))
            wait_until(lambda: INTERRUPTED in service.log, what="the interruption")
            wait_until(lambda: not site.active, 10, "the end of the gallery process")
            assert queues.count("rejected") == 0
            time.sleep(2.5)  # longer than all pauses between two attempts: nothing may be said again
        site.file_latency = 0
        queues.wait_for("synchronized", 2, 40)  # a lease would have lasted longer
        said_once(service)
        all_is_there(machine, queues, site, 1, 2)


def test_an_order_that_cannot_be_journalled_stays_at_the_broker(
    install: Callable[..., Installation], queues: Queues, sqlite: str
) -> None:
    """It is neither acknowledged nor rejected: when the service is killed meanwhile, the broker still has it."""
    machine = install(**queues.settings, DATABASE_URL=sqlite)
    with FaultySite(posts(2)) as site, Service(machine) as service:
        with locked(sqlite):
            queues.post(order(site))
            wait_until(lambda: WRONG in service.log, what="the word that something is wrong")
            service.kill()
            queues.wait_for("orders", 1)
        assert queues.count("rejected") == 0
        service.start()
        queues.wait_for("synchronized", 1)
        all_is_there(machine, queues, site, 1)


def test_a_command_whose_catalog_is_locked_in_mid_run(install: Callable[..., Installation], sqlite: str) -> None:
    """`sync` ends with one line and code 6; the next one takes up its run at once and completes it."""
    machine = install(DATABASE_URL=sqlite)
    with FaultySite(posts(20)) as site:
        site.file_latency = 0.1
        command = [str(COMMAND), "sync", str(order(site)["url"]), "--to", "folder1", "--quiet"]
        process = subprocess.Popen(command, env=machine.env, cwd=machine.home, stderr=subprocess.PIPE, text=True)
        wait_until(lambda: len(site.requests("^/data/")) > 3, what="some downloads")
        with locked(sqlite):
            _, complaint = process.communicate(timeout=60)
        assert process.returncode == 6
        assert complaint.strip().count("\n") == 0
        assert "another program holds it locked" in complaint
        site.file_latency = 0
        assert machine.sync(*command[2:]).returncode == 0
        assert len(machine.on_disk()) == 20
        (run,) = machine.runs()
        assert (run["state"], run["counts"]["downloaded"], run["counts"]["skipped"]) == ("synchronized", 20, 0)
        assert machine.rows("files", "--source-id", str(run["source_id"]))[19]["state"] == "present"


def test_a_lease_that_ended_while_the_catalog_was_locked(
    install: Callable[..., Installation], queues: Queues, sqlite: str
) -> None:
    """The worker renews it before it claims anything: its run goes on undisturbed."""
    machine = install(**queues.settings, DATABASE_URL=sqlite)
    with FaultySite([Post(id=1)]) as site, Service(machine) as service:
        site.rule("^/data/", drip(len(site.posts[0].content()) // 8, 1.0))
        queues.post(order(site))
        wait_until(lambda: site.requests("^/data/"), what="the download")
        with locked(sqlite, "UPDATE runs SET lease_until = 1"):
            wait_until(lambda: WRONG in service.log, what="the word that something is wrong")
            time.sleep(2.5)  # longer than the pause after which the worker looks again
        queues.wait_for("synchronized", 1)
        said_once(service)
        assert len(site.requests("^/data/")) == 1
        assert service.log.count("run started") == 1
        all_is_there(machine, queues, site, 1)


def test_a_run_that_its_own_worker_claims_again(
    install: Callable[..., Installation], queues: Queues, sqlite: str
) -> None:
    """Its lease has ended unnoticed: the first attempt ends with its process before the second begins."""
    machine = install(**queues.settings, DATABASE_URL=sqlite)
    with FaultySite([Post(id=1)]) as site, Service(machine) as service:
        site.rule("^/data/", hang(60), times=1)
        queues.post(order(site))
        wait_until(lambda: site.requests("^/data/"), what="the download")
        first = gallery_processes(service.pid)
        with locked(sqlite, "UPDATE runs SET lease_until = 1"):
            pass
        queues.wait_for("synchronized", 1, 30)
        assert service.log.count("run started") == 2
        assert len(set(first) & set(gallery_processes(service.pid))) < len(first)
        all_is_there(machine, queues, site, 1)


def test_events_that_the_broker_has_are_not_sent_for_ever(
    queues: Queues, sqlite: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the outbox can be read and not written, each of its events goes out once."""
    monkeypatch.setattr(relay, "PAUSE", 0.1)
    catalog = open_catalog(sqlite)
    source = Order(source_id=1, url="https://example.org/1", content_path="a")
    journal.submit(catalog, source, site="site", now=utcnow())
    claim = journal.claim(catalog, owner="w1", lease=timedelta(seconds=60), site_concurrency=1)
    assert claim is not None
    context = RunContext(run_id=claim.run_id, source_id=1)
    event = file_event(EventType.FILE_DOWNLOADED, context, remote_id="a", filename="a")
    files.record(catalog, claim, [FileFact(remote_id="a", state=FileState.PRESENT, path="a/a")], {"a": event}, utcnow())
    name = queues.names["downloaded"]

    async def story() -> None:
        address = f"amqp://guest:guest@127.0.0.1:{PORT}/%2F"
        broker = Broker(address, Topology(exchange="", queues=(name,), durable=True), orders_queue=None)
        calls = CatalogCalls(catalog)
        relaying = relay.Relay(broker, calls, EventFormat(queues={event.type: name}, content_type=""), "w1")
        tasks = [asyncio.create_task(broker.run())]
        await broker.connected()
        with locked(sqlite):
            tasks.append(asyncio.create_task(relaying.run()))
            await asyncio.sleep(3)  # five rounds
            assert queues.count("downloaded") == 1
        async with asyncio.timeout(10):
            while outbox.depth(catalog):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        assert queues.count("downloaded") == 1
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        calls.close()

    asyncio.run(story())


@pytest.mark.long
@pytest.mark.timeout(300)
def test_sqlite_is_locked_for_longer_than_a_lease(
    install: Callable[..., Installation], queues: Queues, tmp_path: Path
) -> None:
    """With the patience that everybody has. A run that needs nothing of the catalog meanwhile is broken off in time for
    another worker, one that has something to record before that; both go on afterwards, as the same attempt."""
    url = f"sqlite:///{tmp_path}/catalog.sqlite3"
    machine = install(**queues.settings, DATABASE_URL=url)
    with FaultySite([Post(id=1)]) as slow, FaultySite(posts(40)) as site, Service(machine) as service:
        slow.rule("^/data/", drip(len(slow.posts[0].content()) // 90, 1.0), times=1)
        site.file_latency = 0.1
        queues.post(order(slow, 1))
        wait_until(lambda: slow.active, what="the slow download")
        queues.post(order(site, 2))
        in_mid_run(queues)
        with locked(url):
            time.sleep(40)
            assert slow.active
            wait_until(lambda: not slow.active, 30, "the end of the slow one")
            time.sleep(10)
        queues.wait_for("synchronized", 2, 120)
        said_once(service)
        assert service.log.count("lease lost") == 1
        attempts = {run["source_id"]: run["attempt"] for run in machine.runs()}
        assert attempts == {1: 1, 2: 1}
        assert service.log.count("run started") == 4
        assert queues.count("downloaded") == 41


# Connections


@pytest.mark.parametrize("kind", ["postgresql", pytest.param("mariadb", marks=pytest.mark.long)])
def test_connections_end_again_and_again(
    install: Callable[..., Installation], queues: Queues, tmp_path: Path, kind: str
) -> None:
    """Whatever the service is at: ordering, claiming, recording, relaying, ending. Nothing is lost or done twice."""
    with database(kind, tmp_path) as url, FaultySite(posts(60)) as site:
        machine = install(**queues.settings, DATABASE_URL=url)
        site.file_latency = 0.02
        with Service(machine) as service:
            for source in (1, 2):
                queues.post(order(site, source))
            ended = 0
            while ended < 15:
                ended += end_connections(url)
                time.sleep(0.05)
            queues.wait_for("synchronized", 2)
            wait_until(lambda: service.log.count(WRONG) == service.log.count(WELL), what="the word that all is well")
            assert "Traceback" not in service.log
            all_is_there(machine, queues, site, 1, 2)


# Away


def test_the_server_restarts_in_mid_run(
    install: Callable[..., Installation], queues: Queues, node: DatabaseNode
) -> None:
    """Away for a while: the run is interrupted, orders wait at the broker, and all goes on when it is back."""
    machine = install(**queues.settings, DATABASE_URL=node.url(node.new_database()))
    with FaultySite(posts(40)) as site, Service(machine) as service:
        site.file_latency = 0.1
        queues.post(order(site, 1))
        in_mid_run(queues)
        node.kill()
        wait_until(lambda: INTERRUPTED in service.log, what="the interruption")
        queues.post(order(site, 2))
        time.sleep(2.5)  # longer than all pauses between two attempts
        assert queues.count("rejected") == 0
        node.start()
        site.file_latency = 0
        queues.wait_for("synchronized", 2, 40)  # a lease would have lasted longer
        said_once(service)
        all_is_there(machine, queues, site, 1, 2)


def test_a_service_that_stops_while_the_server_is_away(
    install: Callable[..., Installation], queues: Queues, node: DatabaseNode
) -> None:
    """It ends in time. The next one says in one line that it cannot start; when it can, it takes up the run at once."""
    machine = install(**queues.settings, DATABASE_URL=node.url(node.new_database()), SHUTDOWN_GRACE=0.2)
    with FaultySite(posts(40)) as site:
        site.file_latency = 0.1
        service = Service(machine).start()
        queues.post(order(site))
        in_mid_run(queues)
        node.stop()
        began = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - began < 10
        assert "Traceback" not in service.log
        done = machine.run("serve")
        assert done.returncode == 6
        assert done.stderr.strip().count("\n") == 0
        assert f"@127.0.0.1:{node.port}/" in done.stderr
        assert "does not work: " in done.stderr
        assert "see whether the server runs, and check host and port in DATABASE_URL" in done.stderr
        node.start()
        site.file_latency = 0
        with Service(machine):
            queues.wait_for("synchronized", 1, 20)  # its lease would have lasted longer
            all_is_there(machine, queues, site, 1)


# Not writable, full


def test_the_server_becomes_read_only(install: Callable[..., Installation], queues: Queues, node: DatabaseNode) -> None:
    """As after a failover: what can be read does not count as well, and nothing is announced for ever meanwhile."""
    name = node.new_database()
    machine = install(**queues.settings, DATABASE_URL=node.url(name))
    with FaultySite(posts(40)) as site, Service(machine) as service:
        site.file_latency = 0.1
        queues.post(order(site, 1))
        in_mid_run(queues)
        node.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        end_connections(node.url(name))
        wait_until(lambda: INTERRUPTED in service.log, what="the interruption")
        queues.post(order(site, 2))
        quiet = queues.count("downloaded")
        time.sleep(3)  # longer than all pauses between two attempts
        assert queues.count("downloaded") == quiet
        node.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = off")
        end_connections(node.url(name))
        site.file_latency = 0
        queues.wait_for("synchronized", 2)
        said_once(service)
        assert "end its read-only mode" in service.log
        all_is_there(machine, queues, site, 1, 2)


def test_the_disk_of_the_catalog_is_full(
    install: Callable[..., Installation], queues: Queues, sqlite: str, tmp_path: Path
) -> None:
    """The run is put off, with nothing written by halves; when there is room again it goes on."""
    machine = install(**queues.settings, DATABASE_URL=sqlite)
    with (
        small_disk(tmp_path / "database", megabytes=6) as disk,
        FaultySite(posts(150)) as site,
        Service(machine) as service,
    ):
        site.file_latency = 0.05
        queues.post(order(site, 1))
        in_mid_run(queues)
        fill(disk / "filler")
        wait_until(lambda: INTERRUPTED in service.log, what="the interruption")
        queues.post(order(site, 2))
        time.sleep(2.5)
        (disk / "filler").unlink()
        site.file_latency = 0
        queues.wait_for("synchronized", 2)
        wait_until(lambda: service.log.count(WRONG) == service.log.count(WELL), what="the word that all is well")
        assert "its disk is full; make room there" in service.log or "its free space" in service.log
        assert service.log.count(WRONG) <= 3
        assert "Traceback" not in service.log
        all_is_there(machine, queues, site, 1, 2)


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.fail("this test needs root, to mount a disk that is soon full", pytrace=False)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def fill(file: Path) -> None:
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as handle:
        while True:
            handle.write(bytes(4096))
