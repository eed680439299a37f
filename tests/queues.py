"""The broker as a test sees it: queues with names of their own, counted and read there."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import pika

from tests.broker_node import BrokerNode
from tests.installation import wait_until

PORT = int(os.environ.get("TEST_RABBITMQ_PORT", "5672"))


@dataclass(frozen=True)
class Message:
    body: bytes
    properties: pika.BasicProperties

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def headers(self) -> dict[str, Any]:
        return self.properties.headers or {}


class Queues:
    """Unique queue names for one service; `settings` are what that service needs to use them.

    `removed`: there is a queue for removals, too, and so they are made.
    """

    NAMES = ("orders", "downloaded", "skipped", "synchronized", "failed")

    def __init__(self, exchange: str = "", *, removed: bool = False) -> None:
        self.mark = uuid.uuid4().hex[:8]
        self.exchange = exchange
        self.names = {name: f"test.{self.mark}.{name}" for name in (*self.NAMES, *(["removed"] if removed else []))}
        self.names["rejected"] = f"{self.names['orders']}.rejected"

    @property
    def settings(self) -> dict[str, str]:
        return {
            "RABBITMQ_HOST": "127.0.0.1",
            "RABBITMQ_PORT": str(PORT),
            "AMQP_EXCHANGE": self.exchange,
            "AMQP_Q_SYNC_HTTP_SRC_ORDERS": self.names["orders"],
            "AMQP_Q_FILE_DOWNLOADED": self.names["downloaded"],
            "AMQP_Q_FILE_DOWNLOAD_SKIPPED": self.names["skipped"],
            "AMQP_Q_SOURCE_SYNCHRONIZED": self.names["synchronized"],
            "AMQP_Q_SOURCE_SYNC_FAILED": self.names["failed"],
            **({"AMQP_Q_FILE_REMOVED": self.names["removed"]} if "removed" in self.names else {}),
        }

    def __enter__(self) -> Self:
        parameters = pika.ConnectionParameters("127.0.0.1", PORT, heartbeat=600)
        self._connection = pika.BlockingConnection(parameters)
        self.channel = self._connection.channel()
        return self

    def __exit__(self, *_: object) -> None:
        if self.channel.is_closed:
            self.channel = self._connection.channel()
        for name in self.names.values():
            self.channel.queue_delete(name)
        if self.exchange:
            self.channel.exchange_delete(self.exchange)
        self._connection.close()

    def declare_orders(self) -> None:
        """For orders that are posted before any service has run."""
        self.channel.queue_declare(self.names["orders"], durable=True)

    def post(self, body: bytes | dict[str, Any], **properties: Any) -> None:
        """Post an order; waits until a service has declared the queue, since the broker drops what no queue takes."""
        wait_until(lambda: self.exists("orders"), what="the orders queue")
        self.publish(body, **properties)

    def publish(self, body: bytes | dict[str, Any], **properties: Any) -> None:
        """Post an order to a queue that is there."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        key = self.names["orders"]
        self.channel.basic_publish(self.exchange, key, data, pika.BasicProperties(delivery_mode=2, **properties))

    def purge(self, name: str) -> int:
        """Throw away what is in a queue; gives the number of messages."""
        return int(self.channel.queue_purge(self.names[name]).method.message_count)

    def exists(self, name: str) -> bool:
        return self._messages(name) is not None

    def count(self, name: str) -> int:
        """Messages ready in a queue; 0 while it is not there yet."""
        return self._messages(name) or 0

    def _messages(self, name: str) -> int | None:
        try:
            return int(self.channel.queue_declare(self.names[name], passive=True).method.message_count)
        except pika.exceptions.ChannelClosedByBroker:
            self.channel = self._connection.channel()
            return None

    def counts(self) -> dict[str, int]:
        return {name: self.count(name) for name in self.names}

    def wait_for(self, name: str, count: int, timeout: float = 60) -> None:
        wait_until(lambda: self.count(name) >= count, timeout, f"{count} messages in {name}")

    def take(self, name: str) -> list[Message]:
        """Everything that is in a queue now, in its order."""
        messages = []
        while True:
            method, properties, body = self.channel.basic_get(self.names[name], auto_ack=True)
            if method is None:
                return messages
            messages.append(Message(body, properties))


class NodeQueues(Queues):
    """Queues at the node that the tests stop and kill."""

    def __init__(self, node: BrokerNode) -> None:
        super().__init__()
        self._node = node
        self.vhost = "/"

    @property
    def settings(self) -> dict[str, str]:
        return super().settings | {"RABBITMQ_PORT": str(self._node.port), "RABBITMQ_VHOST": self.vhost}

    def __enter__(self) -> Self:
        self.connect()
        return self

    def connect(self) -> None:
        parameters = pika.ConnectionParameters("127.0.0.1", self._node.port, self.vhost)
        self._connection = pika.BlockingConnection(parameters)
        self.channel = self._connection.channel()

    def move(self, node: BrokerNode) -> None:
        """See the same queues from another node of a cluster."""
        self.disconnect()
        self._node = node
        self.connect()

    def disconnect(self) -> None:
        with contextlib.suppress(pika.exceptions.AMQPError):
            self._connection.close()

    def during_outage(self, end: Callable[[], None], then: Callable[[], None] = lambda: None) -> None:
        """The node is gone while `then` is done, and is back afterwards."""
        self.disconnect()
        end()
        then()
        self._node.start()
        self.connect()
