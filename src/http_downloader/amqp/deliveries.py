"""What the broker delivers on one channel: the messages that wait here, and those that may still be acked."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pika
from pika import exceptions

from .topology import ask

CONSUMER_TAG = "orders"
"""Unique within a channel is enough."""
CANCELLING_TIME = 5.0
"""Seconds that the broker has to confirm the end of consuming; one that hangs must not keep the service from ending."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delivery:
    """One message received; never equal to another delivery, not even of the same message."""

    body: bytes
    message_id: str | None
    correlation_id: str | None
    headers: Mapping[str, object]
    redelivered: bool
    returns: int
    """How often a quorum queue has had it back; 0 in other queues, which do not count."""
    properties: pika.BasicProperties
    # A delivery tag counts per channel: on a later channel it would ack some other message.
    deliveries: Deliveries = field(repr=False)
    tag: int = field(repr=False)

    @property
    def is_open(self) -> bool:
        """It may be acked. False after its connection was lost, too: then the broker delivers it again."""
        return self.deliveries.is_unsettled(self.tag)


class Deliveries:
    """The deliveries of one channel: those that wait here, and those that may be acked."""

    def __init__(self) -> None:
        self.channel: Any = None
        self._waiting: deque[Delivery] = deque()
        self._unacked: dict[int, Delivery] = {}  # by tag, waiting or handed over: a second ack would close the channel
        self._consuming = False

    async def start(self, queue: str, prefetch: int, on_arrival: Callable[[], None]) -> None:
        def arrived(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            delivery = self._delivery(method, properties, body)
            self._unacked[delivery.tag] = delivery
            self._waiting.append(delivery)
            on_arrival()

        self._consuming = True
        await ask(self.channel, "basic_qos", prefetch_count=prefetch)
        await ask(
            self.channel,
            "basic_consume",
            queue=queue,
            on_message_callback=arrived,
            consumer_tag=CONSUMER_TAG,
        )

    def is_unsettled(self, tag: int) -> bool:
        return tag in self._unacked

    def take(self, most: int) -> list[Delivery]:
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def unsettled(self) -> list[Delivery]:
        """All that may still be acked, whether they wait here or were handed over."""
        return list(self._unacked.values())

    def ack(self, tag: int) -> None:
        if self._settles(tag):
            self.channel.basic_ack(tag)

    def requeue(self, tag: int) -> None:
        if self._settles(tag):
            self.channel.basic_nack(tag, requeue=True)

    async def stop(self, *, ask_broker: bool = True) -> None:
        """ask_broker: false when it would not hear. What waits here then goes back with the connection."""
        if not self._consuming:
            return
        self._consuming = False
        if not ask_broker:
            return
        try:
            async with asyncio.timeout(CANCELLING_TIME):
                await ask(self.channel, "basic_cancel", consumer_tag=CONSUMER_TAG)
        except (exceptions.AMQPError, TimeoutError):
            return  # with the connection everything goes back
        # Not before the answer, or the broker would deliver them to us once more.
        while self._waiting:
            self.requeue(self._waiting.popleft().tag)

    def abandon(self) -> None:
        self._consuming = False
        self._waiting.clear()
        self._unacked.clear()

    def _settles(self, tag: int) -> bool:
        if tag not in self._unacked or not self.channel.is_open:
            return False
        del self._unacked[tag]
        return True

    def _delivery(self, method: Any, properties: Any, body: bytes) -> Delivery:
        return Delivery(
            body=body,
            message_id=_text(properties.message_id),
            correlation_id=_text(properties.correlation_id),
            headers=properties.headers or {},
            redelivered=method.redelivered,
            returns=_count((properties.headers or {}).get("x-delivery-count")),
            properties=properties,
            deliveries=self,
            tag=method.delivery_tag,
        )


def _count(header: object) -> int:
    return header if isinstance(header, int) else 0


def _text(name: str | bytes | None) -> str | None:
    """pika gives bytes where a name is not UTF-8: some senders take the 16 bytes of a UUID."""
    return name.decode(errors="backslashreplace") if isinstance(name, bytes) else name
