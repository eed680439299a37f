"""Disks that are full, read-only, broken or gone, and too many open files: one line, nothing short, nothing left, and
all of it made good once the cause is gone."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from http_downloader.catalog import files, journal
from http_downloader.catalog.engine import Catalog, open_catalog
from tests.installation import Installation, Service, wait_until
from tests.integration.test_crashes import SLOW, transfers
from tests.mounts import bind, disk, make_writable, needs_mounts, resize, unmount, unmounted_at_last
from tests.queues import Queues
from tests.site import FaultyExchange, FaultySite, Post

Install = Callable[..., Installation]

PERSISTENT: dict[str, object] = {"SYNC_ATTEMPTS": 100, "SYNC_RETRY_DELAY": 0.2}
"""Runs that are tried until the disk is well again."""


def posts(number: int, size: int = 20_000) -> list[Post]:
    """Files that no compression and no accident makes equal."""
    return [Post(id=one, body=random.Random(one).randbytes(size)) for one in range(1, number + 1)]


def order(site: FaultySite, source_id: int = 1, folder: str = "a") -> dict[str, object]:
    return {"source_id": source_id, "url": f"Danbooru:{site.root}/posts?tags=demo", "content_path": folder}


def mirrored(machine: Installation) -> dict[str, bytes]:
    """What lies under the content root, by its last name, without our own folders."""
    return {path.rpartition("_")[2]: body for path, body in machine.on_disk().items() if not path.startswith(".")}


def catalog_of(machine: Installation) -> contextlib.closing[Catalog]:
    url = machine.env.get("DATABASE_URL") or f"sqlite:///{machine.runtime}/catalog.sqlite3"
    return contextlib.closing(open_catalog(url))


def rows(machine: Installation) -> list[dict[str, Any]]:
    """What `files --json` prints, without the second that another process takes to start."""
    with catalog_of(machine) as catalog:
        return files.list_files(catalog, source_id=None, state=None, after=0, limit=1000)


def runs(machine: Installation) -> list[dict[str, Any]]:
    """The newest first."""
    with catalog_of(machine) as catalog:
        return journal.list_runs(catalog, source_id=None, limit=100)


def assert_nothing_short(machine: Installation, site: FaultySite) -> None:
    """What has its final name is what the site has, and the catalog knows it; nothing else is left."""
    whole = {f"{post.md5}.png": post.content() for post in site.posts}
    there = mirrored(machine)
    assert {name: body for name, body in there.items() if whole.get(name) != body} == {}
    present = [row for row in rows(machine) if row["state"] == "present"]
    assert {row["path"].rpartition("_")[2] for row in present} <= set(there)
    assert not list(machine.content.glob(".partial/*/*/*"))


def assert_complete(machine: Installation, site: FaultySite, queues: Queues) -> None:
    """Every file is there and has its row, and was announced as downloaded once, or again under the same id."""
    assert_nothing_short(machine, site)
    assert set(mirrored(machine)) == {f"{post.md5}.png" for post in site.posts}
    assert Counter(row["state"] for row in rows(machine)) == {"present": len(site.posts)}
    ids = {message.json["filename"]: message.properties.message_id for message in queues.take("downloaded")}
    assert set(ids) == {row["path"].partition("/")[2] for row in rows(machine)}
    assert (queues.count("skipped"), queues.count("failed")) == (0, 0)


@contextmanager
def holding_back(site: FaultySite, machine: Installation) -> Iterator[None]:
    """The site answers no listing meanwhile, so that no transfer is under way."""
    go_on = threading.Event()

    def act(exchange: FaultyExchange) -> None:
        go_on.wait(60)
        exchange.send(exchange.usual())

    site.rule(r"^/posts\.json", act)
    wait_until(lambda: site.active and not list(machine.content.glob(".partial/*/*/*")), what="a listing")
    try:
        yield
    finally:
        site.clear_rules()
        go_on.set()


def failed_attempts(service: Service) -> list[str]:
    return [line for line in service.log.splitlines() if "attempt ended" in line]


def wait_for_failure(service: Service, *words: str) -> None:
    wait_until(lambda: failed_attempts(service), what="a failed attempt")
    first = failed_attempts(service)[0]
    assert all(word in first for word in words), first


@needs_mounts
def test_a_disk_of_16_mb_fills_and_gets_space(install: Install, queues: Queues) -> None:
    """A run over a disk that is too small fails cleanly, again and again, and is completed once there is space."""
    machine = install(**queues.settings, **PERSISTENT, MIN_FREE_SPACE=0)
    with disk(machine.content, "16m"), FaultySite(posts(30, 1 << 20)) as site, Service(machine) as service:
        queues.post(order(site))
        wait_for_failure(service, "disk-full", f"CONTENT_ROOT ({machine.content}) is full", "make space there")
        wait_until(lambda: len(failed_attempts(service)) >= 2, what="another attempt")
        with holding_back(site, machine):
            assert_nothing_short(machine, site)
            assert 10 <= len(mirrored(machine)) < 16
            assert runs(machine)[0]["state"] in ("queued", "running")
            assert "Traceback" not in service.log
            resize(machine.content, "64m")
        queues.wait_for("synchronized", 1)
        assert_complete(machine, site, queues)


@needs_mounts
def test_some_space_stays_free(install: Install, queues: Queues) -> None:
    """With MIN_FREE_SPACE a run stops before the disk is full; none begins until there is space, and that is said once."""
    machine = install(**queues.settings, **PERSISTENT, MIN_FREE_SPACE="5500k")
    with disk(machine.content, "16m"), FaultySite(posts(20, 1 << 20)) as site, Service(machine) as service:
        queues.post(order(site))
        wait_for_failure(service, "disk-full", "MIN_FREE_SPACE keeps 5.371 MB free", str(machine.content))
        with holding_back(site, machine):
            assert_nothing_short(machine, site)
            found = os.statvfs(machine.content)
            assert found.f_bavail * found.f_frsize >= 5500 << 10
            # Somebody else takes of the rest, so that no run may begin. How much there is depends on what was under way.
            (machine.content / "other").write_bytes(bytes(found.f_bavail * found.f_frsize - (4500 << 10)))
        wait_until(lambda: "no run begins until there is space" in service.log, what="a run that is not begun")
        attempts, begun = len(failed_attempts(service)), len(site.requests("^/posts"))
        wait_until(lambda: len(failed_attempts(service)) > attempts, what="another attempt")
        assert len(site.requests("^/posts")) == begun
        assert service.log.count("no run begins until there is space") == 1
        (machine.content / "other").unlink()
        resize(machine.content, "64m")
        queues.wait_for("synchronized", 1)
        assert service.log.count("there is space again") == 1
        assert_complete(machine, site, queues)


@needs_mounts
def test_a_file_that_is_too_large_is_not_begun(install: Install) -> None:
    """The site says how long a file is: one that would leave less than MIN_FREE_SPACE is left alone."""
    machine = install(MIN_FREE_SPACE="10M", SYNC_ATTEMPTS=1)
    with disk(machine.content, "16m"), FaultySite(posts(1, 8 << 20)) as site:
        done = machine.sync(str(order(site)["url"]), "--to", "a")
        assert done.returncode == 4
        assert "a file of 8 MB is to come, and MIN_FREE_SPACE keeps 10 MB free" in done.stdout
        found = os.statvfs(machine.content)
        assert found.f_bavail * found.f_frsize > 15 << 20
        assert mirrored(machine) == {}


@needs_mounts
def test_a_disk_that_has_turned_read_only(install: Install, queues: Queues) -> None:
    """The line says so, and the run is completed when the disk can be written again."""
    machine = install(**queues.settings, **PERSISTENT, MIN_FREE_SPACE=0)
    with disk(machine.content, "16m"), FaultySite(posts(5)) as site, Service(machine) as service:
        queues.post(order(site))
        queues.wait_for("synchronized", 1)
        make_writable(machine.content, writable=False)
        site.add(*posts(10)[5:])
        queues.post(order(site))
        wait_for_failure(service, "storage-error", f"CONTENT_ROOT ({machine.content}) is mounted read-only")
        make_writable(machine.content, writable=True)
        queues.wait_for("synchronized", 2)
        assert "Traceback" not in service.log
        assert_nothing_short(machine, site)
        assert len(mirrored(machine)) == 10
        assert queues.count("downloaded") == 10


@needs_mounts
@pytest.mark.parametrize("how", ["renamed", "unmounted"])
def test_the_content_root_goes_away_in_mid_run(install: Install, queues: Queues, how: str) -> None:
    """Nothing is written into the place where it was, nothing is called missing, and the run goes on when it is back."""
    machine = install(**queues.settings, **PERSISTENT, MIN_FREE_SPACE=0)
    away = machine.home / "away"
    with disk(away, "16m"), unmounted_at_last(machine.content), FaultySite(posts(40)) as site:
        if how == "renamed":
            away = machine.home / "renamed"
        else:
            bind(away, machine.content)
        with Service(machine) as service:
            site.file_latency = 0.1
            queues.post(order(site))
            wait_until(lambda: len(site.requests("^/data/")) > 8, what="downloads")
            _take(machine.content, away, how)
            wait_for_failure(service, "root-not-mounted", "is missing", str(machine.content))
            wait_until(lambda: len(failed_attempts(service)) >= 2, what="another attempt")
            assert not machine.content.exists() or not list(machine.content.iterdir())
            assert {row["state"] for row in rows(machine)} <= {"present"}
            _bring_back(machine.content, away, how)
            site.file_latency = 0
            queues.wait_for("synchronized", 1)
            assert "Traceback" not in service.log
            assert_complete(machine, site, queues)


def _take(place: Path, away: Path, how: str) -> None:
    if how == "renamed":
        place.rename(away)
    else:
        unmount(place)


def _bring_back(place: Path, away: Path, how: str) -> None:
    if how == "renamed":
        away.rename(place)
    else:
        bind(away, place)


@needs_mounts
def test_a_service_that_starts_without_its_disk(install: Install, queues: Queues) -> None:
    """It does not make the folder anew: what is made there would be hidden, or in the way, when the disk is back."""
    machine = install(**queues.settings, **PERSISTENT)
    with FaultySite(posts(3)) as site:
        assert machine.sync(str(order(site)["url"]), "--to", "a", "--source-id", "1").returncode == 0
        machine.content.rename(machine.home / "away")
        with Service(machine) as service:
            queues.post(order(site))
            wait_for_failure(service, "root-not-mounted", "Mount the disk")
            assert not machine.content.exists()
            (machine.home / "away").rename(machine.content)
            queues.wait_for("synchronized", 2)


@needs_mounts
def test_a_full_runtime_path(install: Install, queues: Queues) -> None:
    """Where runs keep their cookies there is no space: the line names RUNTIME_PATH, and no site is asked without them."""
    machine = install(**queues.settings, **PERSISTENT)
    machine.set(DATABASE_URL=f"sqlite:///{machine.home}/database/catalog.sqlite3")
    with disk(machine.runtime, "1m"), FaultySite(posts(10)) as site, Service(machine) as service:
        (machine.config / "cookies").mkdir()
        (machine.config / "cookies" / "danbooru.txt").write_text(
            f"127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\t{'x' * 5000}\n"
        )
        _fill(machine.runtime / "ballast")
        queues.post(order(site))
        wait_for_failure(service, "disk-full", f"RUNTIME_PATH ({machine.runtime}) is full")
        assert not site.requests("^/posts")
        (machine.runtime / "ballast").unlink()
        queues.wait_for("synchronized", 1)
        assert "Traceback" not in service.log
        assert_complete(machine, site, queues)


def _fill(file: Path) -> None:
    with file.open("wb", buffering=0) as out, suppress(OSError):
        while out.write(bytes(4096)):
            pass


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        ("lane.write:3=full", "disk-full", "CONTENT_ROOT ({root}) is full"),
        ("lane.before_rename:2=read-only", "storage-error", "CONTENT_ROOT ({root}) is mounted read-only"),
        ("lane.after_rename:2=broken", "storage-error", "CONTENT_ROOT ({root}) does not work (Input/output error)"),
    ],
)
def test_a_disk_that_says_no(install: Install, queues: Queues, fault: str, reason: str, words: str) -> None:
    """At every step of a file's way: the run stops at once, and the next one finds nothing short and all that came in."""
    machine = install(**queues.settings, SYNC_ATTEMPTS=1, FAULT_AT=fault)
    with FaultySite(posts(40)) as site:
        command = (str(order(site)["url"]), "--to", "a", "--source-id", "1")
        done = machine.sync(*command)
        assert done.returncode == 4
        assert words.format(root=machine.content) in done.stdout
        assert "Traceback" not in done.stdout + done.stderr
        del machine.env["FAULT_AT"]
        assert runs(machine)[0]["reason"] == reason
        assert len(site.requests("^/data/")) < 20  # not all of them were asked for
        assert not list(machine.content.glob(".partial/*/*"))
        assert queues.count("failed") == 1
        queues.take("failed")
        assert machine.sync(*command).returncode == 0
        assert_nothing_short(machine, site)
        told = Counter(message.json["filename"] for message in queues.take("downloaded"))
        assert told == Counter(row["path"].partition("/")[2] for row in rows(machine))
        assert len(told) == 40


def test_too_many_open_files_in_a_gallery_process(install: Install, queues: Queues) -> None:
    """The run says so and is tried again; one beside it does not notice."""
    machine = install(**queues.settings, **PERSISTENT)
    with FaultySite(posts(40)) as site, FaultySite(posts(10)) as other, Service(machine) as service:
        site.file_latency = 0.1
        site.rule("^/data/", SLOW)
        queues.post(order(site))
        wait_until(lambda: transfers(service), what="a transfer")
        (process,) = transfers(service)
        queues.post(order(other, 2, "b"))
        resource.prlimit(process, resource.RLIMIT_NOFILE, (5, 5))
        site.clear_rules()
        wait_for_failure(service, "storage-error", "too many files", "ulimit -n")
        queues.wait_for("synchronized", 2)
        attempts = {run["source_id"]: run["attempt"] for run in runs(machine)}
        assert (attempts[1] > 1, attempts[2]) == (True, 1)
        assert "Traceback" not in service.log
        assert len(mirrored(machine)) == 40  # the ten of the other site are among them
        assert queues.count("failed") == 0


def test_too_many_open_files_in_the_service(install: Install, queues: Queues) -> None:
    """It says so (`NoProcessError`), does not spin, loses no order, and goes on when it may open more."""
    machine = install(**queues.settings, **PERSISTENT, SYNC_CONCURRENCY=8, SITE_CONCURRENCY=8)
    with FaultySite(posts(4)) as site, Service(machine) as service:
        wait_until(lambda: queues.exists("synchronized"), what="the broker")
        before = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
        for room in (0, 3):
            number = len(list(Path(f"/proc/{service.pid}/fd").iterdir()))
            resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (number + room, before[1]))
            length = len(service.log)
            for one in range(1, 7):
                queues.post(order(site, 10 * room + one, f"{room}-{one}"))
            wait_until(lambda length=length: "ulimit -n" in service.log[length:], what="a word about it")
            resource.prlimit(service.pid, resource.RLIMIT_NOFILE, before)
        queues.wait_for("synchronized", 12, timeout=90)
        assert "Traceback" not in service.log
        assert "should not have happened" not in service.log
        assert len(service.log.splitlines()) < 200
        assert queues.counts()["rejected"] == 0
