"""One lasting connection to the broker, or to one node of a cluster, around pika's connection, which does not reconnect
by itself.

Whatever breaks in a session (connection, channel, consumer) ends the whole session, and the next one connects,
declares and consumes afresh: there is only one way up.
Everything runs on one event loop, on which pika calls back too, so nothing here needs a lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import uuid
from collections.abc import Sequence

import pika
from pika import exceptions

from ..domain.errors import SettingsError
from . import outage
from .acceptance import Acceptance
from .address import Tls, parse_addresses, place
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
        self,
        url: str,
        topology: Topology,
        *,
        orders_queue: str | None,
        tls: Tls | None = None,
        prefetch: int = 100,
        heartbeat: int = 60,
    ) -> None:
        """Connects nowhere yet. url: one address, or those of a cluster's nodes with commas between them.
        orders_queue: None to publish only; heartbeat: seconds, one in the URL wins.

        Raises ValueError for a malformed URL or an orders queue that `topology` lacks, SettingsError for files of `tls`;
        never shows the password.
        """
        if orders_queue is not None and orders_queue not in topology.queues:
            raise ValueError(f"the orders queue {orders_queue!r} is not one of the queues to declare")
        self._tls = tls or Tls()
        self._addresses = parse_addresses(url, heartbeat, self._tls)
        self._topology = topology
        self.orders_queue = orders_queue
        self._prefetch = prefetch
        self._session: Session | None = None  # only while connected and declared
        self._up = asyncio.Event()
        self._arrived = asyncio.Event()  # a delivery, or the end of consuming
        self._stopped = False
        self._outage = Outage([place(address) for address in self._addresses])
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
        if self._session is not None and (silence := self._session.publisher.silence) > outage.SILENCE:
            return f"for {silence:.0f} s no queue has confirmed a message; {outage.NO_MAJORITY}"
        return self._outage.problem or self._acceptance.problem

    async def connected(self) -> None:
        """Wait until connected and everything is declared."""
        await self._ready()

    async def run(self) -> None:
        """Keep the connection up until cancelled; then close it, so that what is not acked goes back."""
        loop = asyncio.get_running_loop()
        attempts = pauses()
        untried: list[pika.URLParameters] = []
        while True:
            # Shuffled, so that many of us spread over the nodes, and the clients of one that dies over all others.
            untried = untried or random.sample(self._addresses, len(self._addresses))
            address = untried.pop()
            self._renew_tls(address)
            session = Session(address, self._topology, self._is_down, self._acceptance)
            began = loop.time()
            try:
                reason = await self._live(session, address)
            finally:
                self._outage.close()
                await session.close()
            self._outage.disconnected(place(address), reason)
            if loop.time() - began > 2 * LONGEST_PAUSE:  # it stood; a flapping one is not worth a quick retry
                attempts = pauses()
                untried = [other for other in self._addresses if other is not address]
                random.shuffle(untried)
            if not untried:
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

    def unsettled(self) -> list[Delivery]:
        """What was delivered and may still be acked, whether it was handed over or not."""
        return [] if self._session is None else self._session.deliveries.unsettled()

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

    def _renew_tls(self, address: pika.URLParameters) -> None:
        """Certificates are renewed while a service runs. One that is half renewed is left for the next time."""
        if address.ssl_options is not None:
            with contextlib.suppress(SettingsError):
                address.ssl_options = pika.SSLOptions(self._tls.context())

    async def _live(self, session: Session, address: pika.URLParameters) -> Exception:
        """From opening to the end of one session; gives the reason why it ended."""
        slow = asyncio.get_running_loop().call_later(outage.SLOW, self._is_slow, session, address)
        try:
            await session.open()
            if self.orders_queue is not None and not self._stopped:
                await session.deliveries.start(self.orders_queue, self._prefetch, self._arrived.set)
            if not session.lost.done():
                self._is_up(session)
                self._outage.connected(place(address))
            if self._stopped:  # meanwhile
                await session.deliveries.stop()
            return await session.watch()
        except BrokerRefused as refusal:
            return refusal
        except exceptions.AMQPError as error:
            return session.lost.result() if session.lost.done() else error
        finally:
            slow.cancel()

    def _is_slow(self, session: Session, address: pika.URLParameters) -> None:
        if self._session is None and session.connection.is_open:
            self._outage.slow(place(address))

    def _is_up(self, session: Session) -> None:
        self._session = session
        self._up.set()
        self._arrived.set()

    def _is_down(self) -> None:
        """Called at the very moment of the loss, or a caller who repeats a publish would meet the dead session."""
        self._session = None
        self._up.clear()
