"""The service's memory does not grow with what it has done."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.installation import Installation, Service, children, wait_until
from tests.queues import Queues
from tests.site import FaultySite, Post

SOURCES, FILES, ROUNDS = 200, 20, 50
FIRST_ROUNDS = 5
MIB = 1024


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_memory_after_ten_thousand_orders(install: Callable[..., Installation], queues: Queues) -> None:
    """10,000 orders with 200,000 events later, the service and its fork server take what they took after 1,000."""
    machine = install(**queues.settings, SYNC_CONCURRENCY=4, SITE_CONCURRENCY=4)
    posts = [Post(id=number, body=b"%d" % number) for number in range(1, FILES + 1)]
    with FaultySite(posts) as site, Service(machine) as service:
        taken = {}
        events = 0
        for number, events_of_round in enumerate(rounds(site, queues), 1):
            events += events_of_round
            if number % FIRST_ROUNDS == 0:
                taken[number * SOURCES] = memory(service.pid)
                print(f"{number * SOURCES} orders, {events} events of files: {taken[number * SOURCES] / MIB:.1f} MiB")
            site.clear_log()
        first, last = taken[FIRST_ROUNDS * SOURCES], taken[ROUNDS * SOURCES]
        assert events == SOURCES * FILES * ROUNDS
        assert last < 1.2 * first, taken


def rounds(site: FaultySite, queues: Queues) -> Iterator[int]:
    """In each an order for every source; gives the events of files. The first downloads, the others find all there."""
    wait_until(lambda: queues.exists("orders"), what="the orders queue")
    for _ in range(ROUNDS):
        for source_id in range(1, SOURCES + 1):
            url = f"Danbooru:{site.root}/posts?tags=demo"
            queues.publish({"source_id": source_id, "url": url, "content_path": f"folder{source_id}"})
        queues.wait_for("synchronized", SOURCES, timeout=300)
        assert queues.purge("synchronized") == SOURCES
        assert queues.count("failed") == queues.count("rejected") == 0
        yield queues.purge("downloaded") + queues.purge("skipped")


def memory(service_pid: int) -> int:
    """KiB that the service and its fork server hold, and not a file's pages: those are everybody's."""
    return sum(anonymous(pid) for pid in (service_pid, *children(service_pid)))


def anonymous(pid: int) -> int:
    shares = re.search(r"^Pss_Anon: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert shares is not None
    return int(shares[1])
