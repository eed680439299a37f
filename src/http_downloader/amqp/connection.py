"""One lasting connection to the broker, around pika's connection that does not reconnect by itself.

A session is one TCP connection with two channels. Whatever breaks in it (connection, channel, consumer) ends the
whole session, and the next one connects, declares and consumes afresh: there is only one way up.
Everything runs on one event loop, on which pika calls back too, so nothing here needs a lock.
"""

import asyncio
import copy
import logging
import os
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any
from urllib.parse import urlsplit

import pika
import structlog
from pika import exceptions
from pika.adapters.asyncio_connection import AsyncioConnection

from http_downloader.amqp.topology import BrokerRefused, Topology, ask, ask_apart, ensure, open_channel, settle

log = structlog.get_logger(__name__)

# pika logs a refused connection with several tracebacks; our one line says what is needed.
logging.getLogger("pika").setLevel(logging.CRITICAL)

MOST_UNCONFIRMED = 2000  # messages in flight, over all calls of publish()
CHUNK = 200  # messages written in one go, before the loop gets air for heartbeats and deliveries
SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds between two attempts to connect
CLOSING_TIME = 5.0  # seconds that the broker has to say goodbye
CONSUMER_TAG = "orders"  # unique within a channel is enough
PERSISTENT = 2

# What time alone does not heal.
REFUSALS = (
    BrokerRefused,
    exceptions.AuthenticationError,
    exceptions.ProbableAuthenticationError,
    exceptions.ProbableAccessDeniedError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One message to publish.

    properties: may be those of a received message; persistence and message id are set on a copy of them.
    """

    routing_key: str
    body: bytes
    message_id: str
    properties: pika.BasicProperties = field(default_factory=pika.BasicProperties)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Delivery:
    """One message received; never equal to another delivery, not even of the same message."""

    body: bytes
    message_id: str | None
    correlation_id: str | None
    headers: Mapping[str, object]
    redelivered: bool
    properties: pika.BasicProperties
    # A delivery tag counts per channel: on a later channel it would ack some other message.
    consumer: "_Consumer" = field(repr=False)
    tag: int = field(repr=False)


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
        self._parameters = _parameters(url, heartbeat)
        self._topology = topology
        self._orders_queue = orders_queue
        self._prefetch = prefetch
        self._session: _Session | None = None  # only while connected and declared
        self._up = asyncio.Event()
        self._arrived = asyncio.Event()  # a delivery, or the end of consuming
        self._stopped = False
        self._problem: str | None = "not connected yet"
        self._told = 0  # how much of this outage was logged: nothing, its begin, that a person has to act

    @property
    def is_connected(self) -> bool:
        return self._session is not None

    @property
    def last_problem(self) -> str | None:
        """Why there is no connection, or why the broker takes no messages; None when all is well."""
        if self._session is not None and self._session.publisher.blocked:
            return f"the broker takes no messages for now: {self._session.publisher.blocked}"
        return self._problem

    async def connected(self) -> None:
        """Wait until connected and everything is declared."""
        await self._ready()

    async def run(self) -> None:
        """Keep the connection up until cancelled; then close it, so that what is not acked goes back."""
        loop = asyncio.get_running_loop()
        pauses = _pauses()
        while True:
            session = _Session(self._parameters, self._topology, self._is_down)
            began = loop.time()
            try:
                reason = await self._live(session)
            finally:
                await session.close()
            self._report(reason)
            if loop.time() - began > 2 * LONGEST_PAUSE:  # it stood; a flapping one is not worth a quick retry
                pauses = _pauses()
            await asyncio.sleep(next(pauses))

    async def publish(self, messages: Sequence[Outgoing]) -> set[str]:
        """Publish, and give the ids of those that are safe: confirmed by the broker, and taken by a queue.

        Waits for a connection. When it is lost in mid-batch, gives what was confirmed so far; the rest may or may
        not have arrived and has to be published again. An id that occurs twice counts when both are safe.
        Raises pika's AMQPError for a message that AMQP cannot express (a name over 255 bytes).
        """
        publisher = (await self._ready()).publisher
        batch = _Batch()
        sent = 0
        while sent < len(messages) and await publisher.has_room():
            chunk = messages[sent : sent + CHUNK]
            for message in chunk:
                publisher.send(message, batch)
            sent += len(chunk)
            await asyncio.sleep(0)
        await batch.settled.wait()
        return batch.safe - batch.unsafe - {message.message_id for message in messages[sent:]}

    async def next_deliveries(self, most: int) -> list[Delivery]:
        """Wait for at least one delivery, and give up to `most`; an empty list once consuming was stopped."""
        while not self._stopped:
            if self._session is not None and (deliveries := self._session.consumer.take(most)):
                return deliveries
            self._arrived.clear()
            await self._arrived.wait()
        return []

    def ack(self, delivery: Delivery) -> None:
        """Nothing happens when its connection is gone: the broker delivers it again, marked as redelivered."""
        delivery.consumer.ack(delivery.tag)

    def requeue(self, delivery: Delivery) -> None:
        """Give it back for redelivery; as with `ack`, nothing happens when its connection is gone."""
        delivery.consumer.requeue(delivery.tag)

    async def stop_consuming(self) -> None:
        """Take no more orders, for good. What was handed over may still be acked; the rest goes back."""
        self._stopped = True
        self._arrived.set()
        if self._session is not None:
            await self._session.consumer.stop()

    async def message_count(self, queue: str) -> int:
        """The number of messages that are ready in `queue`. Waits for a connection.

        Raises BrokerRefused when there is no such queue, ConnectionError when the connection is lost meanwhile.
        """
        connection = (await self._ready()).connection
        try:
            answer = await ask_apart(connection, f"queue {queue!r}", "queue_declare", queue=queue, passive=True)
        except exceptions.AMQPError as error:
            raise ConnectionError(f"the broker did not count queue {queue!r}: {_sentence(error)}") from None
        return int(answer.method.message_count)

    async def _ready(self) -> "_Session":
        while self._session is None:
            await self._up.wait()
        return self._session

    async def _live(self, session: "_Session") -> Exception:
        """From opening to the end of one session; gives the reason why it ended."""
        try:
            await session.open()
            if self._orders_queue is not None and not self._stopped:
                await session.consumer.start(self._orders_queue, self._prefetch, self._arrived.set)
            if not session.lost.done():
                self._is_up(session)
            if self._stopped:  # meanwhile
                await session.consumer.stop()
            return await session.watch()
        except BrokerRefused as refusal:
            return refusal
        except exceptions.AMQPError as error:
            return session.lost.result() if session.lost.done() else error

    def _is_up(self, session: "_Session") -> None:
        self._session = session
        self._up.set()
        self._arrived.set()
        self._problem, self._told = None, 0
        log.info("connected to the broker", broker=self._place)

    def _is_down(self) -> None:
        """Called at the very moment of the loss, or a caller who repeats a publish would meet the dead session."""
        self._session = None
        self._up.clear()

    def _report(self, reason: Exception) -> None:
        """One line when an outage begins, and at most a second one when it turns out to be a refusal."""
        self._problem = _sentence(reason)
        grade = 2 if isinstance(reason, REFUSALS) else 1
        if grade > self._told:
            self._told = grade
            log.warning("no connection to the broker, trying again", broker=self._place, problem=self._problem)

    @property
    def _place(self) -> str:
        return f"{self._parameters.host}:{self._parameters.port}"


class _Session:
    """One connection, from opening to loss; nothing of it outlives it."""

    def __init__(self, parameters: pika.URLParameters, topology: Topology, on_loss: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self.lost: asyncio.Future[Exception] = loop.create_future()  # its result is the reason
        self.publisher = _Publisher(topology.exchange, self._returned)
        self.consumer = _Consumer()
        self._topology = topology
        self._on_loss = on_loss
        self._opened: asyncio.Future[None] = loop.create_future()
        self._closed: asyncio.Future[None] = loop.create_future()
        self._untaken: asyncio.Future[str] = loop.create_future()  # a queue of ours that took no message
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
        await self.publisher.start(await self._open_channel())
        self.consumer.channel = await self._open_channel()
        self.consumer.channel.add_on_cancel_callback(self._consumer_cancelled)

    async def watch(self) -> Exception:
        """Wait for the end, and give its reason. Declare again what took no message: somebody deleted it."""
        while True:
            await _either(self.lost, self._untaken)
            if self.lost.done():
                return self.lost.result()
            log.warning("a queue took no message, declaring it again", queue=self._untaken.result())
            await ensure(self.connection, self._topology)
            # It may be returned again for a reason that declaring does not heal: not in a tight loop.
            await asyncio.wait({self.lost}, timeout=LONGEST_PAUSE)
            self._untaken = asyncio.get_running_loop().create_future()

    async def close(self) -> None:
        self._lose(_Lost("closed"))
        if self.connection.is_closed:
            return
        timer = asyncio.get_running_loop().call_later(CLOSING_TIME, self._cut)
        try:
            if not self._opened.done() and self.connection._transport is not None:
                self._cut()  # closing in the middle of the handshake trips over an assertion of pika's
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
        channel.add_on_close_callback(lambda _channel, reason: self._lose(reason))
        return channel

    def _lose(self, reason: Exception) -> None:
        settle(self.lost, _root(reason))
        self._on_loss()
        self.publisher.abandon()
        self.consumer.abandon()

    def _ended(self, _connection: AsyncioConnection, reason: Exception) -> None:
        self._lose(reason)
        settle(self._closed)

    def _consumer_cancelled(self, _frame: Any) -> None:
        self._lose(_Lost("the broker ended our consumer: the orders queue was deleted, or has moved"))

    def _returned(self, queue: str) -> None:
        if queue in self._topology.queues:
            settle(self._untaken, queue)

    def _blocked(self, _connection: AsyncioConnection, frame: Any) -> None:
        self.publisher.block(frame.method.reason or "an alarm")
        log.warning("the broker takes no messages for now", problem=frame.method.reason)

    def _unblocked(self, _connection: AsyncioConnection, _frame: Any) -> None:
        self.publisher.block("")
        log.info("the broker takes messages again")


class _Batch:
    """What became of the messages of one call of publish()."""

    def __init__(self) -> None:
        self.safe: set[str] = set()
        self.unsafe: set[str] = set()
        self.settled = asyncio.Event()  # nothing is in flight
        self.settled.set()
        self._in_flight = 0

    def sent(self) -> None:
        self._in_flight += 1
        self.settled.clear()

    def settle(self, message_id: str, *, safe: bool) -> None:
        (self.safe if safe else self.unsafe).add(message_id)
        self._in_flight -= 1
        if not self._in_flight:
            self.settled.set()


class _Publisher:
    """A channel in confirm mode: which messages are in flight, and what the broker says of them."""

    def __init__(self, exchange: str, on_return: Callable[[str], None]) -> None:
        self.blocked = ""  # why the broker takes nothing at present
        self._exchange = exchange
        self._on_return = on_return
        self._channel: Any = None
        self._lost = False
        self._last_tag = 0
        self._in_flight: dict[int, tuple[Outgoing, _Batch]] = {}  # by tag, which the broker counts likewise
        self._returned: Counter[tuple[str, str]] = Counter()  # message id and routing key, until its confirm
        self._roomy = asyncio.Event()

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

    def send(self, message: Outgoing, batch: _Batch) -> None:
        properties = copy.copy(message.properties)
        properties.message_id = message.message_id
        properties.delivery_mode = PERSISTENT
        properties.user_id = None  # of a message passed on: the broker closes the channel over any name but ours
        self._channel.basic_publish(self._exchange, message.routing_key, message.body, properties, mandatory=True)
        self._last_tag += 1
        self._in_flight[self._last_tag] = message, batch
        batch.sent()

    def block(self, reason: str) -> None:
        self.blocked = reason
        self._roomy.set()

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
        confirm = frame.method
        acked = isinstance(confirm, pika.spec.Basic.Ack)
        tags = [confirm.delivery_tag]
        if confirm.multiple:  # everything up to the tag, and 0 means all
            tags = list(takewhile(lambda tag: tag <= (confirm.delivery_tag or tag), self._in_flight))
        for tag in tags:
            if tag in self._in_flight:
                message, batch = self._in_flight.pop(tag)
                batch.settle(message.message_id, safe=not self._was_returned(message) and acked)
        if len(self._in_flight) <= MOST_UNCONFIRMED - CHUNK:
            self._roomy.set()

    def _was_returned(self, message: Outgoing) -> bool:
        key = message.message_id, message.routing_key
        times = self._returned.pop(key, 0)
        if times > 1:  # a copy of the same message is in flight
            self._returned[key] = times - 1
        return times > 0


class _Consumer:
    """The deliveries of one channel: those that wait here, and those that may be acked."""

    def __init__(self) -> None:
        self.channel: Any = None
        self._waiting: deque[Delivery] = deque()
        self._unacked: set[int] = set()  # tags, waiting or handed over: a second ack would close the channel
        self._consuming = False

    async def start(self, queue: str, prefetch: int, on_arrival: Callable[[], None]) -> None:
        def arrived(_channel: Any, method: Any, properties: Any, body: bytes) -> None:
            self._unacked.add(method.delivery_tag)
            self._waiting.append(self._delivery(method, properties, body))
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

    def take(self, most: int) -> list[Delivery]:
        return [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]

    def ack(self, tag: int) -> None:
        if self._settles(tag):
            self.channel.basic_ack(tag)

    def requeue(self, tag: int) -> None:
        if self._settles(tag):
            self.channel.basic_nack(tag, requeue=True)

    async def stop(self) -> None:
        if not self._consuming:
            return
        self._consuming = False
        try:
            await ask(self.channel, "basic_cancel", consumer_tag=CONSUMER_TAG)
        except exceptions.AMQPError:
            return  # the connection is lost, and with it everything goes back
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
        self._unacked.remove(tag)
        return True

    def _delivery(self, method: Any, properties: Any, body: bytes) -> Delivery:
        return Delivery(
            body=body,
            message_id=properties.message_id,
            correlation_id=properties.correlation_id,
            headers=properties.headers or {},
            redelivered=method.redelivered,
            properties=properties,
            consumer=self,
            tag=method.delivery_tag,
        )


class _Lost(Exception):
    """A session ended for a reason that pika has no exception for; the sentence is the message."""


def _parameters(url: str, heartbeat: int) -> pika.URLParameters:
    """Raises ValueError with a sentence that shows nothing of the URL, as a part of it may be the password."""
    problem = "it is not of the form amqp://user:password@host:port/vhost"
    try:
        parts = urlsplit(url)
        if parts.scheme not in {"amqp", "amqps"}:
            problem = "it has to begin with amqp:// or amqps://"
        elif "@" in parts.path + parts.query or parts.fragment or parts.path.count("/") > 1:
            problem = "special characters of user, password and vhost have to be percent-encoded (/ is %2F)"
        elif parts.hostname and (parts.username is None) == (parts.password is None):
            parameters = pika.URLParameters(url)
            if parameters.heartbeat is None:
                parameters.heartbeat = heartbeat
            return parameters
    except (ValueError, TypeError, SyntaxError, OSError):
        pass  # their texts quote the URL
    raise ValueError(f"the broker's URL cannot be used: {problem}")


async def _either(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _pauses() -> Iterator[float]:
    """Seconds to wait before each further attempt; with jitter, so that many of us do not come back at once."""
    ceiling = 2 * SHORTEST_PAUSE
    while True:
        yield random.uniform(SHORTEST_PAUSE, ceiling)  # noqa: S311 - no secret
        ceiling = min(2 * ceiling, LONGEST_PAUSE)


def _root(problem: BaseException) -> BaseException:
    """The cause inside the wrappers that pika puts around a failed attempt to connect."""
    inner = getattr(problem, "exceptions", None) or [getattr(problem, "exception", None)]
    candidates = [*inner[-1:], *problem.args[:1]]
    for candidate in candidates:
        if isinstance(candidate, BaseException):
            return _root(candidate)
    return problem


def _sentence(problem: BaseException) -> str:
    match problem:
        case exceptions.AuthenticationError() | exceptions.ProbableAuthenticationError():
            return "the broker refuses this user and password"
        case exceptions.ProbableAccessDeniedError():
            return "there is no such vhost, or this user may not use it"
        case exceptions.ConnectionClosed() | exceptions.ChannelClosed():
            return f"the broker says {problem.reply_text}"
        case exceptions.StreamLostError():
            return "the connection was cut"
        case exceptions.ConnectionOpenAborted():
            return "what listens there does not answer as a broker"
        case OSError(errno=int(number), strerror=None):
            return os.strerror(number)
        case OSError(strerror=str(words)):
            return words
    return str(problem) or type(problem).__name__
