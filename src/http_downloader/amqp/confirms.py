"""Publishing in a pipeline: which messages are in flight, and which of them the broker has made safe.

A message is safe when the broker has confirmed it *and* has not returned it: what no queue takes is confirmed, too.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import takewhile
from typing import Any

import pika
from pika import exceptions

from .acceptance import Acceptance
from .frames import Outgoing, published
from .topology import ask

MOST_UNCONFIRMED = 2000
"""Messages in flight, over all calls of `Broker.publish`."""
CHUNK = 200
"""Messages written in one go, before the loop gets air for heartbeats and deliveries."""


class Batch:
    """What became of the messages of one call of publish()."""

    def __init__(self) -> None:
        self.safe: set[str] = set()
        self.unsafe: set[str] = set()
        self.settled = asyncio.Event()  # nothing is in flight
        self.settled.set()
        self._in_flight = 0

    def sent(self, count: int) -> None:
        self._in_flight += count
        self.settled.clear()

    def settle(self, message_id: str, *, safe: bool) -> None:
        (self.safe if safe else self.unsafe).add(message_id)
        self._in_flight -= 1
        if not self._in_flight:
            self.settled.set()


class Publisher:
    """A channel in confirm mode: which messages are in flight, and what the broker says of them."""

    def __init__(
        self,
        exchange: str,
        on_return: Callable[[str], None],
        acceptance: Acceptance,
        on_nack: Callable[[], None] = lambda: None,
    ) -> None:
        self.blocked = ""  # why the broker takes nothing at present
        self._exchange = exchange
        self._on_return = on_return
        self._on_nack = on_nack
        self._acceptance = acceptance
        self._channel: Any = None
        self._lost = False
        self._last_tag = 0
        self._in_flight: dict[int, tuple[Outgoing, Batch]] = {}  # by tag, which the broker counts likewise
        self._returned: Counter[tuple[str, str]] = Counter()  # message id and routing key, until its confirm
        self._roomy = asyncio.Event()
        self._last_sign = 0.0

    @property
    def silence(self) -> float:
        """Seconds for which the broker has confirmed nothing of what is in flight."""
        return time.monotonic() - self._last_sign if self._in_flight else 0.0

    async def start(self, channel: Any) -> None:
        channel.add_on_return_callback(self._on_basic_return)
        await ask(channel, "confirm_delivery", ack_nack_callback=self._on_confirm)
        self._channel = channel

    async def has_room(self) -> bool:
        """Wait until a chunk may be sent; false when the channel is lost."""
        while not self._lost:
            if len(self._in_flight) <= MOST_UNCONFIRMED - CHUNK and not self.blocked:
                return True
            self._roomy.clear()
            await self._roomy.wait()
        return False

    def send(self, chunk: Sequence[Outgoing], batch: Batch) -> None:
        """Write a chunk in one go; or nothing of it, when a message among it cannot be expressed."""
        channel = self._channel
        if not channel.is_open:
            raise exceptions.ChannelWrongStateError("the channel is not open")
        data = published(
            chunk,
            exchange=self._exchange,
            channel_number=channel.channel_number,
            longest_body=channel.connection._body_max_length,
        )
        channel.connection._output_marshaled_frames([data])
        if not self._in_flight:
            self._last_sign = time.monotonic()
        for tag, message in enumerate(chunk, self._last_tag + 1):
            self._in_flight[tag] = message, batch
        self._last_tag += len(chunk)
        batch.sent(len(chunk))

    def block(self, reason: str) -> None:
        self.blocked = reason
        self._roomy.set()

    def close(self) -> bool:
        """Give the channel back, unless something is in flight. Whether it was given back."""
        if not self._in_flight and self._channel.is_open:
            self.abandon()
            self._channel.close()
        return not self._in_flight

    def abandon(self) -> None:
        self._lost = True
        while self._in_flight:
            message, batch = self._in_flight.popitem()[1]
            batch.settle(message.message_id, safe=False)
        self._roomy.set()

    def _on_basic_return(self, _channel: Any, method: Any, properties: Any, _body: bytes) -> None:
        # The broker acks it next, as any other: only this tells that no queue has it.
        self._returned[properties.message_id, method.routing_key] += 1
        self._on_return(method.routing_key)

    def _on_confirm(self, frame: Any) -> None:
        self._last_sign = time.monotonic()
        confirm = frame.method
        acked = isinstance(confirm, pika.spec.Basic.Ack)
        tags = [confirm.delivery_tag]
        if confirm.multiple:  # everything up to the tag, and 0 means all
            tags = list(takewhile(lambda tag: tag <= (confirm.delivery_tag or tag), self._in_flight))
        for tag in tags:
            if tag in self._in_flight:
                message, batch = self._in_flight.pop(tag)
                self._settle(message, batch, acked)
        if len(self._in_flight) <= MOST_UNCONFIRMED - CHUNK:
            self._roomy.set()

    def _settle(self, message: Outgoing, batch: Batch, acked: bool) -> None:
        returned = self._was_returned(message)
        batch.settle(message.message_id, safe=acked and not returned)
        if not acked:
            self._acceptance.refused(message.routing_key)
            self._on_nack()
        elif not returned:
            self._acceptance.took(message.routing_key)

    def _was_returned(self, message: Outgoing) -> bool:
        key = message.message_id, message.routing_key
        times = self._returned.pop(key, 0)
        if times > 1:  # a copy of the same message is in flight
            self._returned[key] = times - 1
        return times > 0
