"""One connection with two channels, from its opening to its loss; nothing of it outlives it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pika
import structlog
from pika import exceptions
from pika.adapters.asyncio_connection import AsyncioConnection

from .acceptance import Acceptance
from .confirms import Batch, Publisher
from .deliveries import Deliveries
from .frames import Outgoing
from .headers import read_any_time
from .outage import LONGEST_PAUSE, SessionEnded, alarm, root_of
from .topology import BrokerRefused, Topology, differences, ensure, open_channel, settle

log = structlog.get_logger(__name__)

# pika logs a refused connection with several tracebacks; our one line says what is needed.
logging.getLogger("pika").setLevel(logging.CRITICAL)
read_any_time()

CLOSING_TIME = 5.0
"""Seconds that the broker has to say goodbye."""


class Session:
    """`on_loss` is called at the very moment of the loss, which `lost` then gives the reason of."""

    def __init__(
        self,
        parameters: pika.URLParameters,
        topology: Topology,
        on_loss: Callable[[], None],
        acceptance: Acceptance,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Exception] = loop.create_future()  # its result is the reason
        self.publisher = Publisher(topology.exchange, self._returned, acceptance, self._nacked)
        self.deliveries = Deliveries()
        self._topology = topology
        self._on_loss = on_loss
        self._acceptance = acceptance
        self._opened: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._untaken: asyncio.Future[str] = loop.create_future()  # a queue of ours that took no message
        self._refused: asyncio.Future[None] = loop.create_future()  # one that the broker said no for
        self._older: list[Publisher] = []  # with messages in flight
        self.connection = AsyncioConnection(
            parameters,
            on_open_callback=lambda _connection: settle(self._opened),
            on_open_error_callback=self._ended,
            on_close_callback=self._ended,
            custom_ioloop=loop,
        )

    async def open(self) -> None:
        """Raises BrokerRefused, or pika's AMQPError; `lost` then has the reason."""
        await _either(self._opened, self.lost)
        if self.lost.done():
            raise exceptions.AMQPConnectionError("not opened")
        self.connection.add_on_connection_blocked_callback(self._blocked)
        self.connection.add_on_connection_unblocked_callback(self._unblocked)
        await ensure(self.connection, self._topology)
        if self._topology.quorum and not self._acceptance.compared:
            self._acceptance.differ(await differences(self.connection, self._topology))
        await self.publisher.start(await self._open_channel())
        self.deliveries.channel = await self._open_channel()
        self.deliveries.channel.add_on_cancel_callback(self._consumer_cancelled)

    async def publish_apart(self, message: Outgoing) -> bool:
        """Raises BrokerRefused, or pika's AMQPError when the connection is lost before it is sent."""
        if self.publisher.blocked:
            return False
        channel = await open_channel(self.connection)
        publisher, batch = Publisher(self._topology.exchange, self._returned, self._acceptance), Batch()
        reasons: list[Exception] = []
        channel.add_on_close_callback(lambda _channel, reason: reasons.append(reason))
        channel.add_on_close_callback(lambda _channel, _reason: publisher.abandon())
        try:
            await publisher.start(channel)
            publisher.send([message], batch)
            await batch.settled.wait()
        finally:
            if channel.is_open:
                channel.close()
        if reasons and isinstance(refusal := reasons[0], exceptions.ChannelClosedByBroker):
            raise BrokerRefused(f"a message for queue {message.routing_key!r}", refusal.reply_code, refusal.reply_text)
        return message.message_id in batch.safe

    async def watch(self) -> Exception:
        """Wait for the end, and give its reason. Declare again what took no message: somebody deleted it. And publish on
        another channel when one was refused: RabbitMQ refuses what a quorum queue without a leader is sent, and goes on
        to do so on that channel when there is a leader again (3.10; each second time that a node was killed)."""
        while True:
            await _either(self.lost, self._untaken, self._refused)
            if not self.lost.done() and self._untaken.done():
                await self._declare_again(self._untaken.result())
            if not self.lost.done() and self._refused.done():
                await self._change_publisher()
            # It may be returned or refused again for a reason that this does not heal: not in a tight loop.
            await asyncio.wait({self.lost}, timeout=LONGEST_PAUSE)
            if self.lost.done():
                return self.lost.result()
            self._older = [publisher for publisher in self._older if not publisher.close()]
            self._untaken, self._refused = (
                self._untaken.get_loop().create_future(),
                self._refused.get_loop().create_future(),
            )

    async def _change_publisher(self) -> None:
        """Who has sent something with the older one waits for its confirms; who comes now gets the new one."""
        publisher = Publisher(self._topology.exchange, self._returned, self._acceptance, self._nacked)
        await publisher.start(await self._open_channel())
        publisher.block(self.publisher.blocked)
        self._older.append(self.publisher)
        self.publisher = publisher

    async def _declare_again(self, queue: str) -> None:
        made = await ensure(self.connection, self._topology)
        self._acceptance.returned(queue, was_missing=queue in made)

    async def close(self) -> None:
        self._lose(SessionEnded("closed"))
        if self.connection.is_closed:
            return
        timer = asyncio.get_running_loop().call_later(CLOSING_TIME, self._cut)
        try:
            if not self._opened.done() and self.connection._transport is not None:
                self._cut()  # closing in the middle of the handshake trips over an assertion of pika's
            elif self.publisher.blocked:
                self._cut()  # it reads no goodbye now; what was acked it reads later, up to the end of the connection
            elif not self.connection.is_closing:
                self.connection.close()  # consumers and channels first, pika sees to that
            await self._closed
        except asyncio.CancelledError:
            self._cut()
            raise
        finally:
            timer.cancel()

    def _cut(self) -> None:
        """Drop the connection without a goodbye, the way pika's own heartbeat does it."""
        if self.connection._transport is not None:
            self.connection._terminate_stream(exceptions.AMQPConnectionError("no goodbye"))
        else:
            settle(self._closed)

    async def _open_channel(self) -> Any:
        channel = await open_channel(self.connection)
        channel.add_on_close_callback(self._channel_closed)
        return channel

    def _channel_closed(self, _channel: Any, reason: Exception) -> None:
        if not isinstance(reason, exceptions.ChannelClosedByClient):
            self._lose(reason)

    def _lose(self, reason: Exception) -> None:
        settle(self.lost, root_of(reason))
        self._on_loss()
        for publisher in self._publishers():
            publisher.abandon()
        self.deliveries.abandon()

    def _publishers(self) -> list[Publisher]:
        return [*self._older, self.publisher]

    def _ended(self, _connection: AsyncioConnection, reason: Exception) -> None:
        self._lose(reason)
        settle(self._closed)

    def _consumer_cancelled(self, _frame: Any) -> None:
        self._lose(SessionEnded("the broker ended our consumer: the orders queue was deleted, or has moved"))

    def _returned(self, queue: str) -> None:
        if queue in self._topology.queues:
            settle(self._untaken, queue)

    def _nacked(self) -> None:
        settle(self._refused)

    def _blocked(self, _connection: AsyncioConnection, frame: Any) -> None:
        for publisher in self._publishers():
            publisher.block(alarm(frame.method.reason))
        log.warning("the broker takes no messages for now", problem=self.publisher.blocked)

    def _unblocked(self, _connection: AsyncioConnection, _frame: Any) -> None:
        for publisher in self._publishers():
            publisher.block("")
        log.info("the broker takes messages again")


async def _either(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
