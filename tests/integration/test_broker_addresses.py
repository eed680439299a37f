"""Several addresses: the nodes of a cluster. When one is gone the next one is taken, and nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Iterator

import pytest

from http_downloader.amqp import outage
from http_downloader.amqp.connection import Broker
from http_downloader.amqp.topology import Topology
from tests.broker_node import InstalledNode, cluster
from tests.installation import Installation, Service, wait_until
from tests.integration.test_service_broker import NO_BROKER, hold, one_queue, order, posts, types, without_repetitions
from tests.proxy import Proxy
from tests.queues import PORT, NodeQueues, Queues
from tests.site import FaultySite, Post

CONNECTED = re.compile(r"connected to the broker +broker=127\.0\.0\.1:(\d+)")


@pytest.fixture
def lines() -> Iterator[list[Proxy]]:
    """To the same broker."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Proxy(PORT)) for _ in range(3)]


def hosts(lines: list[Proxy]) -> str:
    return ",".join(f"127.0.0.1:{line.port}" for line in lines)


def test_the_next_address_is_taken_when_one_is_gone(
    install: Callable[..., Installation], queues: Queues, lines: list[Proxy]
) -> None:
    """In mid-run, with one line about it that names the address; `order` and `doctor` find the ones that are left, and
    when none is, the doctor says what is wrong with each."""
    machine = install(**queues.settings | {"RABBITMQ_HOST": hosts(lines)})
    with FaultySite(posts(20)) as site, Service(machine) as service:
        downloads = threading.Event()
        site.rule(Post(id=10).path, hold(downloads))
        queues.post(order(site))
        wait_until(lambda: site.requests(Post(id=10).path), what="a run in its middle")
        (used,) = [line for line in lines if line.connections]
        used.refuse()
        used.cut()
        downloads.set()
        queues.wait_for("synchronized", 1)
        assert len(without_repetitions(queues.take("downloaded"))) == 20
        wait_until(lambda: len(CONNECTED.findall(service.log)) == 2, what="the next connection")
        first, second = CONNECTED.findall(service.log)
        assert int(first) == used.port != int(second)
        assert re.findall(rf"{NO_BROKER}.*broker=127\.0\.0\.1:(\d+)", service.log) == [first]
        url = f"Danbooru:{site.root}/posts?tags=demo"
        for _ in range(3):  # each time in another order
            assert machine.run("order", url, "--source-id", "2", "--to", "b").returncode == 0
        queues.wait_for("synchronized", 2)
        assert "✓ broker" in machine.run("doctor").stdout
        for line in lines:
            line.refuse()
        doctor = machine.run("doctor")
        assert doctor.returncode == 6
        (told,) = [line for line in doctor.stdout.splitlines() if "broker" in line]
        assert all(f"127.0.0.1:{line.port}" in told for line in lines)
        assert told.count("Connection refused") == 1
        for line in lines:
            line.accept()


def test_there_is_a_pause_behind_each_round_and_none_in_it(monkeypatch: pytest.MonkeyPatch, lines: list[Proxy]) -> None:
    """An address that refuses costs no time, and a broker that is away is not hammered."""
    monkeypatch.setattr(outage, "SHORTEST_PAUSE", 600)
    url = ",".join(f"amqp://127.0.0.1:{line.port}/%2F" for line in lines)
    nothing = Topology(exchange="", queues=(), durable=True)

    async def attempt(patience: float) -> bool:
        broker = Broker(url, nothing, orders_queue=None)
        running = asyncio.create_task(broker.run())
        try:
            async with asyncio.timeout(patience):
                await broker.connected()
            return True
        except TimeoutError:
            return False
        finally:
            running.cancel()
            await asyncio.wait({running})

    lines[0].refuse()
    lines[1].slam()
    used = {asyncio.run(attempt(60)) for _ in range(6)}
    assert used == {True}
    lines[0].slam()
    lines[2].slam()
    before = [line.connections for line in lines]
    assert not asyncio.run(attempt(3))
    assert [line.connections - had for line, had in zip(lines, before, strict=True)] == [1, 1, 1]


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_node_of_a_cluster_dies(install: Callable[..., Installation]) -> None:
    """The one that we are connected to, with -9, in mid-run, and then the next one when the first is back: with quorum
    queues no event and no order is lost, and what ends a run is told behind its files."""
    with cluster(3) as nodes, FaultySite(posts(60)) as site, NodeQueues(nodes[0]) as queues:
        site.file_latency = 0.2
        settings = one_queue(queues) | {"RABBITMQ_HOST": ",".join(f"127.0.0.1:{node.port}" for node in nodes)}
        machine = install(**settings, AMQP_QUEUE_TYPE="quorum", SITE_CONCURRENCY=2, DOWNLOADS_PER_SOURCE=1)
        with Service(machine) as service:
            for round_ in (0, 1):
                node = used_by(service, nodes, round_)
                others = [other for other in nodes if other is not node]
                queues.move(others[0])
                for source_id in (1, 2, 3):
                    queues.post(order(site, 10 * round_ + source_id))
                queues.wait_for("synchronized", 61 * 3 * round_ + 10)
                node.kill()
                used_by(service, others, round_ + 1)
                queues.wait_for("synchronized", 61 * 3 * (round_ + 1), 120)
                node.start()
        told = without_repetitions(queues.take("synchronized"))
        assert queues.count("orders") == 0
    for source_id in (1, 2, 3, 11, 12, 13):
        of_source = [message for message in told if message.json["source_id"] == source_id]
        assert types(of_source) == ["file-downloaded"] * 60 + ["source-synchronized"]


def used_by(service: Service, nodes: list[InstalledNode], before: int) -> InstalledNode:
    """The node that the service is connected to, now that it has lost this many others before."""
    wait_until(lambda: len(CONNECTED.findall(service.log)) == before + 1, 60, "a connection")
    port = int(CONNECTED.findall(service.log)[-1])
    (node,) = [node for node in nodes if node.port == port]
    return node
