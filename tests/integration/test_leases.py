"""Workers that share everything and are frozen: a run goes over to another one, and nothing is written by two."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from http_downloader.catalog.journal import Claim
from http_downloader.domain.errors import LeaseLost
from http_downloader.gallery import child
from http_downloader.gallery.lease import now
from http_downloader.gallery.messages import FromRun, Unlocked
from http_downloader.sync import lease
from http_downloader.sync.lease import Lease
from tests.databases import database, locked
from tests.installation import Installation, Service, gallery_processes, wait_until
from tests.queues import Queues
from tests.site import FaultySite, Post, drip

SHORT = """
from datetime import timedelta
from http_downloader.sync import lease, worker
lease.LEASE = worker.LEASE = timedelta(seconds=8)
lease.MARGIN, worker.RENEW_EVERY = 3.0, 1.0
from http_downloader.cli import main
main()
"""
SLOW = drip(400, 0.05)
"""A file takes a second or so."""


@pytest.fixture
def shared(
    install: Callable[..., Installation], queues: Queues, tmp_path: Path
) -> Iterator[Callable[[], Installation]]:
    """Machines with the same catalog, broker and content root."""
    with database("postgresql", tmp_path) as url:
        yield lambda: install(**queues.settings, DATABASE_URL=url, CONTENT_ROOT=tmp_path / "content")


def service(machine: Installation, *, short: bool = True) -> Service:
    return Service(machine, (sys.executable, "-c", SHORT)) if short else Service(machine)


def order(site: FaultySite, source_id: int) -> dict[str, object]:
    return {"source_id": source_id, "url": f"Danbooru:{site.root}/posts?tags=demo", "content_path": f"f{source_id}"}


def at_work(service: Service) -> list[int]:
    """Its gallery processes that hold a file open in CONTENT_ROOT."""
    found = []
    for pid in gallery_processes(service.pid):
        try:
            files = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        if any("/.partial/" in file for file in files):
            found.append(pid)
    return found


def is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


@contextmanager
def frozen(*pids: int) -> Iterator[None]:
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            if is_alive(pid):
                os.kill(pid, signal.SIGCONT)


def all_is_told_once(content: Path, queues: Queues, site: FaultySite, *sources: int) -> None:
    """Every file is in place and was announced as downloaded, by one message id only; no other file is there."""
    bodies = Counter(post.content() for post in site.posts)
    ids: dict[tuple[int, str], set[str]] = {}
    for message in queues.take("downloaded"):
        ids.setdefault((message.json["source_id"], message.json["filename"]), set()).add(message.properties.message_id)
    assert all(len(found) == 1 for found in ids.values())
    for source in sources:
        folder = content / f"f{source}"
        assert Counter(file.read_bytes() for file in folder.iterdir()) == bodies
        assert {name for number, name in ids if number == source} == {file.name for file in folder.iterdir()}
    assert queues.count("skipped") == 0
    assert not list(content.glob(".partial/*/*"))


@pytest.mark.parametrize("short", [True, pytest.param(False, marks=[pytest.mark.long, pytest.mark.timeout(300)])])
def test_a_frozen_worker_is_relieved(shared: Callable[[], Installation], queues: Queues, short: bool) -> None:
    """Its gallery process ends by itself before another worker begins, within a minute. Continued, it says once that its
    lease is lost, writes nothing, and goes on with other runs."""
    first, second = service(shared(), short=short), service(shared(), short=short)
    content = Path(first.installation.env["CONTENT_ROOT"])
    with FaultySite([Post(id=number) for number in range(1, 13)]) as site, first, second:
        site.rule("^/data/", SLOW)
        queues.post(order(site, 1))
        wait_until(lambda: at_work(first) or at_work(second), what="a transfer")
        zombie, heir = (first, second) if at_work(first) else (second, first)
        family = at_work(zombie)
        begun = len(heir.log)
        with frozen(zombie.pid):
            frozen_at = time.monotonic()
            wait_until(lambda: "run started" in heir.log[begun:], 70, "the other worker")
            assert time.monotonic() - frozen_at < 60 + 10  # ten for this machine's load
            assert not any(map(is_alive, family))
            site.clear_rules()
            queues.wait_for("synchronized", 1)
            all_files = snapshot(content)
        wait_until(lambda: "lease lost" in zombie.log, what="the word of the frozen one")
        time.sleep(1)
        assert zombie.log.count("lease lost") == 1
        assert "Traceback" not in zombie.log + heir.log
        assert snapshot(content) == all_files
        assert heir.stop() == 0
        queues.post(order(site, 2))
        queues.wait_for("synchronized", 2)
        assert [message.json["source_id"] for message in queues.take("synchronized")] == [1, 2]
        all_is_told_once(content, queues, site, 1, 2)
        assert [run["attempt"] for run in zombie.installation.runs()] == [1, 1]


def test_a_frozen_machine_lands_no_file_when_it_thaws(shared: Callable[[], Installation], queues: Queues) -> None:
    """Service and gallery process both stand still: the source waits for the end of that process, which comes before it
    does anything else."""
    first, second = service(shared()), service(shared())
    content = Path(first.installation.env["CONTENT_ROOT"])
    with FaultySite([Post(id=number) for number in range(1, 5)]) as site, first, second:
        site.rule("^/data/", SLOW)
        queues.post(order(site, 1))
        wait_until(lambda: at_work(first) or at_work(second), what="a transfer")
        zombie, heir = (first, second) if at_work(first) else (second, first)
        (process,) = at_work(zombie)
        with frozen(zombie.pid, process):
            wait_until(lambda: "reason=busy" in heir.log, 40, "the lock that is met")
            site.clear_rules()
            before = in_place(content)
            os.kill(process, signal.SIGCONT)
            wait_until(lambda: not is_alive(process), 5, "its end")
            assert in_place(content) == before or heir.log.count("run started") > 1
            queues.wait_for("synchronized", 1)
        wait_until(lambda: "lease lost" in zombie.log, what="the word of the frozen one")
        all_is_told_once(content, queues, site, 1)
        assert [run["attempt"] for run in heir.installation.runs()] == [1]


def in_place(content: Path) -> set[str]:
    return {name for name in snapshot(content) if "/." not in name.removeprefix(str(content))}


def test_a_worker_whose_catalog_is_away_ends_its_runs_in_time(
    install: Callable[..., Installation], queues: Queues
) -> None:
    """It cannot know whether another one has taken over: nothing is written after its lease, and all goes on later."""
    machine = install(**queues.settings)
    with FaultySite([Post(id=number) for number in range(1, 41)]) as site, service(machine) as worker:
        site.rule("^/data/", drip(50, 0.1))
        queues.post(order(site, 1))
        wait_until(lambda: at_work(worker), what="a transfer")
        with locked(f"sqlite:///{machine.runtime}/catalog.sqlite3"):
            wait_until(lambda: not at_work(worker), 20, "the end of the transfers")
            wait_until(lambda: "lease lost" in worker.log, what="the word of it")
        site.clear_rules()
        queues.wait_for("synchronized", 1)
        all_is_told_once(machine.content, queues, site, 1)
        assert [run["attempt"] for run in machine.runs()] == [1]


def snapshot(content: Path) -> dict[str, int]:
    return {str(file): file.lstat().st_mtime_ns for file in content.rglob("*") if file.is_file()}


# The parts


def claim(fence: int = 1) -> Claim:
    return Claim(
        run=1, run_id="r-1", source_id=1, url="u", content_path="a", site="s", owner="w", fence=fence, attempt=1,
        correlation_id=None, counts={},
    )  # fmt: skip


def test_what_is_done_under_a_lease_is_broken_off_at_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless it was renewed for this very claim; and what was asked for long ago is not held at all."""
    monkeypatch.setattr(lease, "LEASE", timedelta(seconds=0.3))
    monkeypatch.setattr(lease, "MARGIN", 0.1)

    done: list[int] = []

    async def work(held: Lease, fence: int) -> None:
        async with held.held():
            await asyncio.sleep(0.1)
            held.renewed(fence, now() + 0.4)
            await asyncio.sleep(0.3)
            held.check()
            done.append(fence)
            await asyncio.sleep(60)

    for fence in (1, 2):
        held = Lease(claim(), now())
        with pytest.raises(LeaseLost, match="r-1"):
            asyncio.run(work(held, fence))
        with pytest.raises(LeaseLost):
            held.check()
    assert done == [1]
    with pytest.raises(LeaseLost):
        Lease(claim(), now() - 1).check()


def test_an_error_under_a_lease_stays_what_it_is() -> None:
    async def fail() -> None:
        async with Lease(claim(), now()).held():
            raise TimeoutError("of something else")

    with pytest.raises(TimeoutError, match="something else"):
        asyncio.run(fail())


@pytest.mark.parametrize("source_id", [1, 2**63 - 1])
def test_one_process_for_each_source(tmp_path: Path, source_id: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of one source says nothing of others, and ends with its process."""
    monkeypatch.setattr(child, "LOCK_WAIT", 0.0)
    file = os.open(tmp_path / "locks", os.O_RDWR | os.O_CREAT)
    ours, theirs = os.pipe()
    if (pid := os.fork()) == 0:
        os.write(theirs, b"1" if child._lock(file, source_id, lambda _: None) else b"0")
        signal.pause()
    assert os.read(ours, 1) == b"1"
    try:
        assert not child._lock(file, source_id, lambda _: None)
        assert child._lock(file, source_id - 1 or 7, lambda _: None)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert child._lock(file, source_id, lambda _: None)
    for descriptor in (file, ours, theirs):
        os.close(descriptor)


def test_a_share_that_knows_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease has to do; the service is told."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    told: list[FromRun] = []
    file = os.open(tmp_path / "locks", os.O_RDWR | os.O_CREAT)
    assert child._lock(file, 1, told.append)
    os.close(file)
    assert told == [Unlocked("No locks available")]
