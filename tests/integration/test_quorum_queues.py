"""Queues that are replicated: how they are made, and that an order which comes back often is not dropped there."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from http_downloader.amqp import consumer, outage
from http_downloader.amqp.connection import Broker
from http_downloader.amqp.consumer import Consumer
from http_downloader.amqp.topology import Topology
from http_downloader.domain.errors import CatalogError
from http_downloader.domain.orders import Order
from tests.broker_node import BrokerNode
from tests.installation import Installation, Service, wait_until
from tests.integration.test_service_broker import hold, order, posts, without_repetitions
from tests.proxy import Proxy
from tests.queues import PORT, NodeQueues, Queues
from tests.site import FaultySite, Post


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect again sooner than in life."""
    monkeypatch.setattr(outage, "SHORTEST_PAUSE", 0.02)
    monkeypatch.setattr(outage, "LONGEST_PAUSE", 0.1)
    monkeypatch.setattr(consumer, "PAUSE", 0.05)


def test_a_broker_that_is_killed_loses_nothing_of_quorum_queues(
    install: Callable[..., Installation], node: BrokerNode, node_queues: NodeQueues
) -> None:
    """kill -9 in mid-run: orders that wait there, rejected orders and all events are there afterwards."""
    machine = install(**node_queues.settings, AMQP_QUEUE_TYPE="quorum", SYNC_CONCURRENCY=1)
    with FaultySite(posts(20)) as site, Service(machine) as service:
        downloads = threading.Event()
        site.rule(Post(id=10).path, hold(downloads))
        node_queues.post(b"no order")
        node_queues.post(order(site, 1))
        node_queues.post(order(site, 2))
        wait_until(lambda: site.requests(Post(id=10).path), what="a run in its middle")
        node_queues.wait_for("rejected", 1)
        node_queues.during_outage(node.kill, downloads.set)
        node_queues.wait_for("synchronized", 2)
        downloaded = without_repetitions(node_queues.take("downloaded"))
        assert sorted(message.json["source_id"] for message in downloaded) == [1] * 20 + [2] * 20
        assert node_queues.count("rejected") == 1
        kinds = node.ctl("list_queues", "name", "type", "--quiet", "--no-table-headers").split("\n")
        ours = dict(line.split("\t") for line in kinds if node_queues.mark in line)
        assert ours == dict.fromkeys(node_queues.names.values(), "quorum")
        assert "a queue is used as it is" not in service.log


def test_queues_of_another_type_are_told_once(queues: Queues) -> None:
    """Who asks for replicated queues, and has others, hears of it, in the broker's words."""
    queues.declare_orders()
    name = queues.names["orders"]
    topology = Topology(exchange="", queues=(name, queues.names["downloaded"]), durable=True, quorum=True)

    async def story() -> None:
        for _ in range(2):  # the second time with the same acceptance: a reconnect
            await connect_once(broker)

    broker = Broker(f"amqp://127.0.0.1:{PORT}/%2F", topology, orders_queue=None)
    with capture_logs() as logs:
        asyncio.run(asyncio.wait_for(story(), 30))
    told = [line for line in logs if line["event"].startswith("a queue is used as it is")]
    assert [line["queue"] for line in told] == [name]
    assert "x-queue-type" in told[0]["why"]


async def connect_once(broker: Broker) -> None:
    running = asyncio.create_task(broker.run())
    await broker.connected()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


@pytest.mark.usefixtures("impatient")
def test_no_order_is_dropped_for_coming_back_too_often(queues: Queues) -> None:
    """The queue drops what came back more than 12 times. The line is cut 16 times while the catalog takes nothing: every
    order, also those behind the first one, arrives."""
    name = queues.names["orders"]
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 12}
    queues.channel.queue_declare(name, durable=True, arguments=arguments)
    for number in range(1, 6):
        queues.publish({"source_id": number, "url": "https://example.org/", "content_path": "a"}, priority=3)
    works = asyncio.Event()
    taken: list[int] = []

    async def accept(order: Order, **_: Any) -> None:
        if not works.is_set():
            raise CatalogError("the catalog is away")
        taken.append(order.source_id)

    async def story(line: Proxy) -> None:
        broker = Broker(
            f"amqp://127.0.0.1:{line.port}/%2F",
            Topology(exchange="", queues=(name,), durable=True),
            orders_queue=name,
        )
        intake = Consumer(broker, accept, queues.names["rejected"])
        tasks = [asyncio.create_task(broker.run()), asyncio.create_task(intake.run())]
        for _ in range(16):
            await until(lambda: broker.is_connected and len(broker.unsettled()) == 5)
            await asyncio.sleep(0.1)  # the consumer looks at them
            await until(lambda: all(one.returns < consumer.MOST_RETURNS for one in broker.unsettled()))
            line.cut()
            await until(lambda: not broker.is_connected)
        works.set()
        await until(lambda: len(set(taken)) == 5 and not broker.unsettled())
        await intake.stop()
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    with Proxy(PORT) as line:
        asyncio.run(asyncio.wait_for(story(line), 60))
    assert set(taken) == {1, 2, 3, 4, 5}
    assert queues.count("orders") == 0


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - the condition is not ours to signal
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("broker", "limit"),
    [
        ({"product": "RabbitMQ", "version": "3.10.8"}, None),
        ({"product": "RabbitMQ", "version": "3.13.7"}, None),
        ({"product": "RabbitMQ", "version": "4.0.1"}, -1),
        ({"product": "RabbitMQ", "version": "10.0.0-rc.1"}, -1),
        ({"product": "Another", "version": "4.1"}, None),
        ({}, None),
    ],
)
def test_our_own_queues_have_no_limit(broker: dict[str, str], limit: int | None) -> None:
    """RabbitMQ 4 has one by default; before that there was none, and it refuses the word for none."""
    made = Topology(exchange="", queues=("q",), durable=True, quorum=True).arguments(broker)
    assert made["durable"] is True
    assert made["arguments"].get("x-delivery-limit") == limit
