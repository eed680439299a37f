"""What a site asks of one run, every worker keeps to."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from http_downloader.catalog import sites
from http_downloader.catalog.engine import open_catalog
from tests.databases import database, pass_time
from tests.installation import COMMAND, Installation, Service, wait_until
from tests.queues import Queues
from tests.site import FaultySite, Post, status


def test_a_pause_that_one_run_is_asked_for_holds_for_all(
    install: Callable[..., Installation], queues: Queues, tmp_path: Path
) -> None:
    """Two workers at one site: when it asks one of them to wait, it is soon left alone by both, and as long as it said."""
    settings = {**queues.settings, "SYNC_CONCURRENCY": 1, "SITE_CONCURRENCY": 2}
    posts = [Post(id=number, body=f"picture {number}".encode()) for number in range(1, 400)]
    with database("postgresql", tmp_path) as url, FaultySite(posts) as site:
        site.file_latency = 0.3
        one, other = (Service(install(**settings, DATABASE_URL=url, CONTENT_ROOT=tmp_path / "content")) for _ in "ab")
        with one, other:
            for source_id in (1, 2):
                order = {"url": f"Danbooru:{site.root}/posts?tags=demo", "content_path": f"f{source_id}"}
                queues.post({"source_id": source_id, **order})
            wait_until(lambda: all("run started" in worker.log for worker in (one, other)), what="both workers")
            wait_until(lambda: site.max_active_files > 4, what="files for both")
            refusal = site.rule("^/data/", status(429, {"Retry-After": "10"}), times=1)
            wait_until(lambda: refusal.fired, what="the refusal")
            asked_at = time.monotonic()
            wait_until(lambda: site.log[-1].at > asked_at + 9, 60, "more requests")
            asked = [record.at - asked_at for record in site.log]
            assert not [at for at in asked if 5 < at < 9]  # it takes a moment until everybody knows
            assert [at for at in asked if 0 < at < 5]


def test_sync_says_that_the_site_asks_to_wait(install: Callable[..., Installation]) -> None:
    machine = install()
    with FaultySite([Post(id=1)]) as site:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        assert machine.sync(url).returncode == 0
        catalog = open_catalog(f"sqlite:///{machine.runtime}/catalog.sqlite3")
        sites.hold_off(catalog, machine.rows("sources")[0]["site"], timedelta(hours=1))
        site.clear_log()
        command = [str(COMMAND), "sync", url]
        process = subprocess.Popen(command, env=machine.env, cwd=machine.home, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting: the site asks to wait\n"
        assert not site.log
        pass_time(catalog, timedelta(hours=1))
        catalog.close()
        rest, _ = process.communicate(timeout=60)
        assert "synchronized" in rest
        assert "waiting" not in rest
