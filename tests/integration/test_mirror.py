"""The main job: an order in, a mirrored gallery, its catalog, its events out."""

from __future__ import annotations

from collections.abc import Callable

from tests.installation import Installation, Service
from tests.queues import Queues
from tests.site import FaultySite, Post


def test_300_files_over_3_pages(install: Callable[..., Installation], queues: Queues) -> None:
    """A new gallery: every file on disk, in the catalog and announced; again: skipped; ten more: only they are new."""
    machine = install(**queues.settings)
    with FaultySite([Post(id=number) for number in range(1, 601)]) as site, Service(machine):
        for number in range(301, 601):
            site.remove(number)
        order = {
            "source_id": 725,
            "url": f"Danbooru:{site.root}/posts?tags=demo&limit=100",
            "content_path": "portraits/",
        }
        queues.post(order, message_id="first", correlation_id="ticket")
        queues.wait_for("synchronized", 1)
        assert queues.counts() == {
            "orders": 0, "downloaded": 300, "skipped": 0, "synchronized": 1, "failed": 0, "rejected": 0
        }  # fmt: skip
