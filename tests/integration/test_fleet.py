"""Three workers on one broker and one catalog, of which one is killed: the short sibling of `make fleet`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.broker_node import BrokerNode
from tests.databases import database
from tests.fleet.fleet import Fleet
from tests.fleet.judge import violations
from tests.fleet.plan import SMALL, draw
from tests.installation import Installation, Service
from tests.queues import Queues
from tests.site import FaultySite, Post


@pytest.mark.parametrize("engine", ["postgresql", "mariadb"])
def test_three_workers_of_which_one_is_killed(engine: str, tmp_path: Path, node: BrokerNode) -> None:
    """Nothing is lost, no source runs twice at a time, and no site gets more than its limit: as the sites saw it."""
    with database(engine, tmp_path) as url, Fleet(tmp_path, node, url, draw(1, SMALL)) as fleet:
        assert violations(fleet.play()) == []


def test_a_worker_without_the_disk_leaves_the_runs_to_others(
    install: Callable[..., Installation], queues: Queues, tmp_path: Path
) -> None:
    """It fails runs faster than others perform them: it must not use up the attempts of all there are."""
    with database("postgresql", tmp_path) as url, FaultySite([Post(id=number) for number in range(1, 4)]) as site:
        settings = {"DATABASE_URL": url, "SYNC_ATTEMPTS": 3, "SYNC_CONCURRENCY": 1, "SITE_CONCURRENCY": 2}
        good, bad = install(**queues.settings, **settings), install(**queues.settings, **settings)
        order = {"url": f"Danbooru:{site.root}/posts?tags=demo"}
        assert good.sync(order["url"], "--to", "first").returncode == 0  # from now on, the folder has its marker
        queues.purge("synchronized")
        with Service(bad) as service, Service(good):
            for number in range(1, 13):
                queues.post(order | {"source_id": number, "content_path": f"galleries/{number}"})
            queues.wait_for("synchronized", 12)
            assert "root-not-mounted" in service.log
        assert queues.count("failed") == 0
