"""Processes are killed in the middle of their work: nothing is lost, nothing short is left, nothing is written later."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from http_downloader.faults import POINTS
from tests.installation import Installation, Service, gallery_processes, wait_until
from tests.queues import Queues
from tests.site import FaultySite, Post, drip, hang

SLOW = drip(512, 0.02)
"""A file of some kilobytes takes about half a second."""


def order(site: FaultySite, source_id: int = 1) -> dict[str, object]:
    return {"source_id": source_id, "url": f"Danbooru:{site.root}/posts?tags=demo", "content_path": "a"}


def transfers(service: Service) -> list[int]:
    """Gallery processes of runs: those that have a file of ours open for writing."""
    found = []
    for pid in gallery_processes(service.pid):
        try:
            files = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        if any("/.partial/" in file for file in files):
            found.append(pid)
    return found


def test_killed_gallery_process_fails_only_its_run(install: Callable[..., Installation], queues: Queues) -> None:
    """The run of a killed process says so and is tried again; a run beside it does not notice."""
    machine = install(**queues.settings)
    posts = [Post(id=number) for number in range(1, 13)]
    with FaultySite(posts) as site, FaultySite(posts) as other, Service(machine) as service:
        site.rule("^/data/", SLOW)
        other.file_latency = 0.1
        queues.post(order(site, 1))
        wait_until(lambda: transfers(service), what="a transfer")
        queues.post(order(other, 2) | {"content_path": "b"})
        os.kill(transfers(service)[0], signal.SIGKILL)
        site.clear_rules()
        queues.wait_for("synchronized", 2)
        done = {message.json["source_id"]: message for message in queues.take("synchronized")}
        assert set(done) == {1, 2}
        attempts = {run["source_id"]: run["attempt"] for run in machine.runs()}
        assert attempts == {1: 2, 2: 1}
        assert "killed by SIGKILL" in service.log
        assert_whole(machine, site, "a")
        assert_whole(machine, other, "b")
        assert len(queues.take("downloaded")) == 24
        assert queues.count("skipped") == 0


def test_killed_service_takes_its_children_with_it(install: Callable[..., Installation], queues: Queues) -> None:
    """When the service dies, its processes end at once; the next start completes the run and leaves no file unannounced."""
    machine = install(**queues.settings)
    with FaultySite([Post(id=number) for number in range(1, 9)]) as site:
        site.rule("^/data/", SLOW)
        service = Service(machine).start()
        queues.post(order(site))
        wait_until(lambda: transfers(service), what="a transfer")
        family = gallery_processes(service.pid)
        service.kill()
        wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in family), 5, "the children's end")
        after = snapshot(machine)
        whole = {post.content() for post in site.posts}
        assert all(body in whole for path, body in machine.on_disk().items() if not path.startswith(".partial/"))
        site.clear_rules()
        time.sleep(0.5)
        assert snapshot(machine) == after  # nothing was written later

        with Service(machine):
            queues.wait_for("synchronized", 1)
            assert_whole(machine, site, "a")
            announced = {message.json["filename"] for message in queues.take("downloaded")}
            assert announced == {row["filename"] for row in machine.files(1)}
            assert queues.count("skipped") == 0


def test_killed_again_and_again(install: Callable[..., Installation], queues: Queues) -> None:
    """Killed at five arbitrary moments: every file is announced as downloaded, repeated only under the same id."""
    machine = install(**queues.settings)
    with FaultySite([Post(id=number) for number in range(1, 301)]) as site:
        site.file_latency = 0.05
        for number, pause in enumerate((0.05, 0.15, 0.1, 0.3, 0.2)):
            with Service(machine) as service:
                if number == 0:
                    queues.post(order(site))
                served = len(site.requests("^/data/"))
                wait_until(lambda served=served: len(site.requests("^/data/")) > served, what="a download")
                time.sleep(pause)
                service.kill()
        site.file_latency = 0
        with Service(machine):
            queues.wait_for("synchronized", 1)
            assert_whole(machine, site, "a")
            ids: dict[str, set[str]] = {}
            for message in queues.take("downloaded"):
                ids.setdefault(message.json["filename"], set()).add(message.properties.message_id)
            assert set(ids) == {row["filename"] for row in machine.files(1)}
            assert all(len(found) == 1 for found in ids.values())
            assert queues.count("skipped") == 0


def test_sigterm_while_downloading(install: Callable[..., Installation], queues: Queues) -> None:
    """The service stops within its grace time, and what it had begun is completed at the next start."""
    machine = install(**queues.settings, SHUTDOWN_GRACE=0.2)
    with FaultySite([Post(id=number) for number in range(1, 41)]) as site:
        site.file_latency = 0.1
        service = Service(machine).start()
        queues.post(order(site))
        wait_until(lambda: queues.count("downloaded") >= 3, what="three downloads")
        begun = time.monotonic()
        assert service.stop() == 0
        assert time.monotonic() - begun < 10
        assert machine.runs()[0]["state"] == "queued"
        assert machine.runs()[0]["attempt"] == 0
        site.file_latency = 0
        with Service(machine):
            queues.wait_for("synchronized", 1)
            assert_whole(machine, site, "a")
            assert len(queues.take("downloaded")) == 40
            assert len(site.requests("^/data/")) == 40


def test_sigterm_lets_a_short_run_finish(install: Callable[..., Installation], queues: Queues) -> None:
    """Within SHUTDOWN_GRACE a run is finished, not put back."""
    machine = install(**queues.settings)
    with FaultySite([Post(id=number) for number in range(1, 6)]) as site:
        site.file_latency = 0.1
        service = Service(machine).start()
        queues.post(order(site))
        wait_until(lambda: queues.count("downloaded") >= 1, what="a download")
        assert service.stop() == 0
        assert queues.count("synchronized") == 1
        assert machine.runs()[0]["state"] == "synchronized"


def test_sigterm_during_a_hanging_listing(install: Callable[..., Installation], queues: Queues) -> None:
    """A site that does not answer cannot keep the service from stopping."""
    machine = install(**queues.settings, SHUTDOWN_GRACE=0.2)
    with FaultySite([Post(id=1)]) as site:
        site.rule(r"/posts\.json", hang(60))
        service = Service(machine).start()
        queues.post(order(site))
        wait_until(lambda: site.active, what="the listing")
        assert service.stop(20) == 0
        assert machine.runs()[0]["state"] == "queued"


@pytest.mark.parametrize(
    "point", sorted(point for point in POINTS if not point.startswith(("removal.", "verify.", "repair.")))
)
def test_killed_at_each_point_of_the_flow(point: str, install: Callable[..., Installation], queues: Queues) -> None:
    """Whoever passes the point dies there; the next start makes good what was begun, and tells of each file once."""
    machine = install(**queues.settings, FAULT_AT=f"{point}:1")
    with FaultySite([Post(id=number) for number in range(1, 5)]) as site:
        service = Service(machine).start()
        queues.post(order(site), message_id="the-order")
        dies = (
            (lambda: "killed by SIGKILL" in service.log) if point.startswith(("child.", "lane.")) else service.has_ended
        )
        wait_until(dies, what=f"the end at {point}")
        if not service.has_ended():
            service.kill()
        machine.set(FAULT_AT="")
        with Service(machine):
            queues.wait_for("synchronized", 1)
            wait_until(lambda: {run["state"] for run in machine.runs()} == {"synchronized"}, what="the end of all runs")
        assert_whole(machine, site, "a")
        told: dict[str, set[str]] = {}
        for message in queues.take("downloaded"):
            told.setdefault(message.json["filename"], set()).add(message.properties.message_id)
        assert set(told) == {row["filename"] for row in machine.files(1)}
        assert all(len(ids) == 1 for ids in told.values())
        assert "the-order" in {one for message in queues.take("synchronized") for one in message.headers["orders"]}


def assert_whole(machine: Installation, site: FaultySite, folder: str) -> None:
    """The folder holds exactly the site's files, and the catalog says so."""
    host = site.root.removeprefix("http://")
    disk = {path: body for path, body in machine.on_disk().items() if path.startswith(f"{folder}/")}
    assert disk == {f"{folder}/{host}_{post.id}_{post.md5}.png": post.content() for post in site.posts}
    assert {row["path"] for row in machine.rows("files") if row["path"].startswith(f"{folder}/")} == set(disk)
    assert not list(machine.content.glob(".partial/*/*"))


def snapshot(machine: Installation) -> dict[str, tuple[int, int]]:
    """Size and time of change of everything under the content root."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in machine.content.rglob("*")
        if path.is_file()
    }


def test_next_run_tells_of_what_a_killed_one_left(install: Callable[..., Installation]) -> None:
    """A file that had its final name when its process was killed is announced as downloaded by whichever run comes next."""
    machine = install(SYNC_ATTEMPTS=1, DOWNLOADS_PER_SOURCE=1)
    with FaultySite([Post(id=number) for number in range(1, 4)]) as site:
        machine.set(FAULT_AT="lane.after_rename:1")
        assert machine.sync(str(order(site)["url"]), "--to", "a").returncode == 4
        assert len(machine.on_disk()) == 1
        machine.set(FAULT_AT="")
        done = machine.sync(str(order(site)["url"]), "--to", "a", "--json")
        assert done.returncode == 0, done.stderr
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert Counter(event["event"] for event in events if "filename" in event) == {"file-downloaded": 3}
        assert len(site.requests("^/data/")) == 3
        assert not list(machine.content.glob(".http-downloader/landing/*"))


def test_what_a_killed_run_left_is_told_although_the_site_has_it_no_more(install: Callable[..., Installation]) -> None:
    machine = install(SYNC_ATTEMPTS=1, DOWNLOADS_PER_SOURCE=1)
    with FaultySite([Post(id=number) for number in range(1, 4)]) as site:
        machine.set(FAULT_AT="lane.after_rename:1")
        assert machine.sync(str(order(site)["url"]), "--to", "a").returncode == 4
        (left,) = machine.on_disk()
        site.remove(3)
        machine.set(FAULT_AT="")
        done = machine.sync(str(order(site)["url"]), "--to", "a", "--json")
        assert done.returncode == 0, done.stderr
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert f"a/{next(event['filename'] for event in told if event.get('filename') in left)}" == left
        assert {row["path"]: row["state"] for row in machine.rows("files")}[left] == "missing"
        assert left in machine.on_disk()
