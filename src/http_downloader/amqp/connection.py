"""One lasting connection to the broker, around pika's connection that does not reconnect by itself.

Whatever breaks in a session (connection, channel, consumer) ends the whole session, and the next one connects,
declares and consumes afresh: there is only one way up.
Everything runs on one event loop, on which pika calls back too, so nothing here needs a lock.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import pika
from pika import exceptions

from .acceptance import Acceptance
from .address import parse_address
from .confirms import CHUNK, Batch
from .deliveries import Delivery
from .frames import Outgoing
from .outage import LONGEST_PAUSE, Outage, pauses, sentence
from .session import Session
from .topology import BrokerRefused, Topology, ask_apart


class Broker:
    """Publishes, and consumes orders, over a connection that `run` keeps up.

    What needs a connection waits for one; only `last_problem` tells why there is none.
    """

    def __init__(
        self, url: str, topology: Topology, *, orders_queue: str | None, prefetch: int = 100, heartbeat: int = 60
    ) -> None:
        """Connects nowhere yet. orders_queue: None to publish only; heartbeat: seconds, one in the URL wins.

        Raises ValueError for a malformed URL or an orders queue that `topology` lacks; never shows the password.
        """
        if orders_queue is not None and orders_queue not in topology.queues:
            raise ValueError(f"the orders queue {orders_queue!r} is not one of the queues to declare")
        self._parameters = parse_address(url, heartbeat)
        self._topology = topology
        self._orders_queue = orders_queue
        self._prefetch = prefetch
        self._session: Session | None = None  # only while connected and declared
        self._up = asyncio.Event()
        self._arrived = asyncio.Event()  # a delivery, or the end of consuming
        self._stopped = False
        self._outage = Outage(f"{self._parameters.host}:{self._parameters.port}")
        self._acceptance = Acceptance()

    @property
    def is_connected(self) -> bool:
        return self._session is not None

    @property
    def is_blocked(self) -> bool:
        """Connected, but the broker reads nothing of what it is told: it is short of memory or disk space."""
        return self._session is not None and bool(self._session.publisher.blocked)

    @property
    def last_problem(self) -> str | None:
        """Why there is no connection, or why the broker or a queue takes no messages; None when all is well."""
        if self._session is not None and self._session.publisher.blocked:
            return f"the broker takes no messages for now: {self._session.publisher.blocked}"
        return self._outage.problem or self._acceptance.problem

    async def connected(self) -> None:
        """Wait until connected and everything is declared."""
        await self._ready()

    async def run(self) -> None:
        """Keep the connection up until cancelled; then close it, so that what is not acked goes back."""
        loop = asyncio.get_running_loop()
        attempts = pauses()
        while True:
            session = Session(self._parameters, self._topology, self._is_down, self._acceptance)
            began = loop.time()
            try:
                reason = await self._live(session)
            finally:
                self._outage.close()
                await session.close()
            self._outage.disconnected(reason)
            if loop.time() - began > 2 * LONGEST_PAUSE:  # it stood; a flapping one is not worth a quick retry
                attempts = pauses()
            await asyncio.sleep(next(attempts))

    async def publish(self, messages: Sequence[Outgoing]) -> set[str]:
        """Publish, and give the ids of those that are safe: confirmed by the broker, and taken by a queue.

        Waits for a connection. When it is lost in mid-batch, gives what was confirmed so far; the rest may or may
        not have arrived and has to be published again. An id that occurs twice counts when both are safe.
        Raises pika's AMQPError for a message that AMQP cannot express (a name over 255 bytes).
        """
        publisher = (await self._ready()).publisher
        batch = Batch()
        sent = 0
        while sent < len(messages) and await publisher.has_room():
            chunk = messages[sent : sent + CHUNK]
            publisher.send(chunk, batch)
            sent += len(chunk)
            await asyncio.sleep(0)
        await batch.settled.wait()
        return batch.safe - batch.unsafe - {message.message_id for message in messages[sent:]}

    async def publish_apart(self, message: Outgoing) -> bool:
        """Publish one message on a channel of its own, so that what the broker has against it harms nothing else.
        Whether it is safe; if not, it has to be published again. Waits for a connection.

        Raises BrokerRefused when the broker closes that channel over it.
        """
        session = await self._ready()
        try:
            return await session.publish_apart(message)
        except exceptions.AMQPError:
            return False  # the connection is lost

    async def takes_messages(self) -> None:
        """Wait until the broker takes a message: one for a queue that is not there, so that it is thrown away."""
        nowhere = f"http-downloader.nowhere.{uuid.uuid4()}"
        properties = pika.BasicProperties(expiration="0")  # where an alternate exchange catches what has no queue
        probe = Outgoing(routing_key=nowhere, body=b"", message_id=nowhere, properties=properties)
        while True:
            session = await self._ready()
            await self.publish([probe])
            await self.publish([probe])  # in an alarm the broker takes the first message of a connection, then no more
            if self._session is session:  # or the broker has ended it over this message
                return

    async def next_deliveries(self, most: int) -> list[Delivery]:
        """Wait for at least one delivery, and give up to `most`; an empty list once consuming was stopped."""
        while not self._stopped:
            if self._session is not None and (deliveries := self._session.deliveries.take(most)):
                return deliveries
            self._arrived.clear()
            await self._arrived.wait()
        return []

    def ack(self, delivery: Delivery) -> None:
        """Nothing happens when its connection is gone: the broker delivers it again, marked as redelivered."""
        delivery.deliveries.ack(delivery.tag)

    def requeue(self, delivery: Delivery) -> None:
        """Give it back for redelivery; as with `ack`, nothing happens when its connection is gone."""
        delivery.deliveries.requeue(delivery.tag)

    async def stop_consuming(self) -> None:
        """Take no more orders, for good. What was handed over may still be acked; the rest goes back."""
        self._stopped = True
        self._arrived.set()
        if self._session is not None:
            await self._session.deliveries.stop(ask_broker=not self.is_blocked)

    async def message_count(self, queue: str) -> int:
        """The number of messages that are ready in `queue`. Waits for a connection.

        Raises BrokerRefused when there is no such queue, ConnectionError when the connection is lost meanwhile.
        """
        connection = (await self._ready()).connection
        try:
            answer = await ask_apart(connection, f"queue {queue!r}", "queue_declare", queue=queue, passive=True)
        except exceptions.AMQPError as error:
            raise ConnectionError(f"the broker did not count queue {queue!r}: {sentence(error)}") from None
        return int(answer.method.message_count)

    async def _ready(self) -> Session:
        while self._session is None:
            await self._up.wait()
        return self._session

    async def _live(self, session: Session) -> Exception:
        """From opening to the end of one session; gives the reason why it ended."""
        try:
            await session.open()
            if self._orders_queue is not None and not self._stopped:
                await session.deliveries.start(self._orders_queue, self._prefetch, self._arrived.set)
            if not session.lost.done():
                self._is_up(session)
            if self._stopped:  # meanwhile
                await session.deliveries.stop()
            return await session.watch()
        except BrokerRefused as refusal:
            return refusal
        except exceptions.AMQPError as error:
            return session.lost.result() if session.lost.done() else error

    def _is_up(self, session: Session) -> None:
        self._session = session
        self._up.set()
        self._arrived.set()
        self._outage.connected()

    def _is_down(self) -> None:
        """Called at the very moment of the loss, or a caller who repeats a publish would meet the dead session."""
        self._session = None
        self._up.clear()
