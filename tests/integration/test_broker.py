"""The broker connection against a real RabbitMQ: nothing is lost and nothing hangs, whatever happens to it."""

import asyncio
import contextlib
import gc
import itertools
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pika
import pytest
from structlog.testing import capture_logs

from http_downloader.amqp import deliveries, outage, session
from http_downloader.amqp.confirms import MOST_UNCONFIRMED
from http_downloader.amqp.connection import Broker
from http_downloader.amqp.deliveries import Delivery
from http_downloader.amqp.frames import Outgoing
from http_downloader.amqp.topology import BrokerRefused, Topology
from http_downloader.amqp.wire import EventFormat
from http_downloader.domain.events import Event, EventType
from tests.broker_node import BrokerNode
from tests.proxy import Proxy
from tests.queues import PORT

SHARED_URL = f"amqp://guest:guest@127.0.0.1:{PORT}/%2F"
PATIENCE = 60


class Admin:
    """A second client, with a blocking connection: what an operator does, and what a consumer sees."""

    def __init__(self, url: str) -> None:
        self._connection = pika.BlockingConnection(pika.URLParameters(url))
        self._queues: set[str] = set()
        self._exchanges: set[str] = set()

    def name(self, kind: str = "queue") -> str:
        """A name that is deleted after the test."""
        name = f"test.{kind}.{uuid.uuid4().hex}"
        (self._exchanges if kind == "exchange" else self._queues).add(name)
        return name

    def do(self, method: str, **arguments: Any) -> Any:
        """One method of pika's channel, on a channel of its own."""
        channel = self._connection.channel()
        try:
            return getattr(channel, method)(**arguments)
        finally:
            if channel.is_open:
                channel.close()

    def publish(self, queue: str, *bodies: bytes, **properties: Any) -> None:
        for body in bodies:
            properties.setdefault("delivery_mode", 2)
            sent = pika.BasicProperties(**properties)
            self.do("basic_publish", exchange="", routing_key=queue, body=body, properties=sent)

    def drain(self, queue: str) -> list[tuple[Any, bytes]]:
        """Every message of the queue, as properties and body."""
        channel = self._connection.channel()
        count = channel.queue_declare(queue, passive=True).method.message_count
        received = itertools.islice(channel.consume(queue, auto_ack=True), count)
        messages = [(properties, body) for _, properties, body in received]
        channel.cancel()
        channel.close()
        return messages

    def close(self) -> None:
        for queue in self._queues:
            self.do("queue_delete", queue=queue)
        for exchange in self._exchanges:
            self.do("exchange_delete", exchange=exchange)
        self._connection.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect again sooner than in life."""
    monkeypatch.setattr(outage, "SHORTEST_PAUSE", 0.05)
    monkeypatch.setattr(outage, "LONGEST_PAUSE", 0.5)


@pytest.fixture
def admin() -> Iterator[Admin]:
    with contextlib.closing(Admin(SHARED_URL)) as admin:
        yield admin


def topology(*queues: str, exchange: str = "", durable: bool = True) -> Topology:
    return Topology(exchange=exchange, queues=queues, durable=durable)


def messages(queue: str, count: int, prefix: str = "") -> list[Outgoing]:
    return [Outgoing(routing_key=queue, body=b"%d" % number, message_id=f"{prefix}{number}") for number in range(count)]


def ids(outgoing: list[Outgoing]) -> set[str]:
    return {message.message_id for message in outgoing}


def run(story: Coroutine[Any, Any, None]) -> None:
    complaints: list[dict[str, Any]] = []  # of callbacks and forgotten futures, which would land on stderr

    async def in_time() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: complaints.append(context))
        async with asyncio.timeout(PATIENCE):
            await story

    asyncio.run(in_time())
    gc.collect()
    assert complaints == []


@contextlib.asynccontextmanager
async def running(broker: Broker, *, connected: bool = True) -> AsyncIterator[Broker]:
    task = asyncio.create_task(broker.run())
    try:
        if connected:
            await broker.connected()
        yield broker
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert not broker.is_connected


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110 - the condition is not ours to signal
        await asyncio.sleep(0.02)


async def receive(broker: Broker, count: int) -> list[Delivery]:
    got: list[Delivery] = []
    while len(got) < count:
        got += await broker.next_deliveries(count - len(got))
    return got


def lines(logs: Any, event: str) -> list[Any]:
    return [line for line in logs if line["event"].startswith(event)]


# Declaring


@pytest.mark.parametrize("durable", [True, False])
def test_missing_queues_are_declared_and_bound_to_a_missing_exchange(admin: Admin, durable: bool) -> None:
    """The exchange is made durable and direct, the queues as the setting says, each bound under its name."""
    exchange, first, second = admin.name("exchange"), admin.name(), admin.name()

    async def story() -> None:
        broker = Broker(SHARED_URL, topology(first, second, exchange=exchange, durable=durable), orders_queue=None)
        async with running(broker):
            assert await broker.publish(messages(first, 1) + messages(second, 2, "b")) == {"0", "b0", "b1"}

    run(story())
    admin.do("exchange_declare", exchange=exchange, exchange_type="direct", durable=True)  # or a 406
    for queue, count in ((first, 1), (second, 2)):
        assert admin.do("queue_declare", queue=queue, durable=durable).method.message_count == count


@pytest.mark.parametrize("with_exchange", [False, True])
def test_queues_that_exist_are_used_as_they_are(admin: Admin, with_exchange: bool) -> None:
    """Older deployments have queues that are not durable on a durable exchange, and arguments of their own."""
    queue = admin.name()
    exchange = admin.name("exchange") if with_exchange else ""
    arguments = {"x-max-length": 1000}
    admin.do("queue_declare", queue=queue, durable=False, arguments=arguments)
    if exchange:
        admin.do("exchange_declare", exchange=exchange, exchange_type="direct", durable=True)

    async def story() -> None:
        broker = Broker(SHARED_URL, topology(queue, exchange=exchange), orders_queue=queue)
        async with running(broker):
            assert await broker.publish(messages(queue, 3)) == {"0", "1", "2"}
            assert [delivery.body for delivery in await receive(broker, 3)] == [b"0", b"1", b"2"]

    run(story())
    admin.do("queue_declare", queue=queue, durable=False, arguments=arguments)  # unchanged, or a 406


def test_a_refusal_names_the_queue_and_heals_without_a_restart(admin: Admin) -> None:
    """A queue that is another client's alone is one log line, a named problem, and no tight loop."""
    queue = admin.name()

    async def story() -> None:
        admin.do("queue_declare", queue=queue, exclusive=True)
        broker = Broker(SHARED_URL, topology(queue), orders_queue=queue)
        with capture_logs() as logs:
            async with running(broker, connected=False):
                await until(lambda: broker.last_problem != "not connected yet")
                assert f"the broker refuses queue '{queue}': RESOURCE_LOCKED" in str(broker.last_problem)
                await asyncio.sleep(0.6)  # several attempts
                admin.do("queue_delete", queue=queue)
                await broker.connected()
                assert broker.last_problem is None
        assert len(lines(logs, "no connection")) == len(lines(logs, "connected")) == 1

    run(story())


# Publishing


def test_ten_thousand_messages_are_confirmed(admin: Admin) -> None:
    """Persistent, with their ids, and there when the broker is asked."""
    queue = admin.name()

    async def story() -> None:
        broker = Broker(SHARED_URL, topology(queue), orders_queue=None)
        async with running(broker):
            batch = messages(queue, 10_000)
            assert await broker.publish(batch) == ids(batch)
            assert await broker.message_count(queue) == len(batch)

    run(story())
    sent = admin.drain(queue)
    assert {properties.message_id for properties, _ in sent} == {str(number) for number in range(10_000)}
    assert all(properties.delivery_mode == 2 for properties, _ in sent)


def test_calls_may_publish_at_once(admin: Admin) -> None:
    """Each gets its own ids, also when together they exceed what may be in flight."""
    queue = admin.name()

    async def story() -> None:
        broker = Broker(SHARED_URL, topology(queue), orders_queue=None)
        async with running(broker):
            batches = [messages(queue, MOST_UNCONFIRMED, prefix) for prefix in "abcd"]
            results = await asyncio.gather(*(broker.publish(batch) for batch in batches))
            assert results == [ids(batch) for batch in batches]

    run(story())


def test_a_message_that_no_queue_takes_is_not_safe(admin: Admin) -> None:
    """The broker returns and then confirms it: its neighbours count, it does not, and neither does its twin id."""
    queue, nowhere = admin.name(), "test.nowhere"

    async def story() -> None:
        broker = Broker(SHARED_URL, topology(queue), orders_queue=None)
        async with running(broker):
            batch = messages(queue, 100)
            lost = messages(nowhere, 1, "lost") + messages(nowhere, 1)  # the latter shares the id "0"
            assert await broker.publish(batch[:50] + lost + batch[50:]) == ids(batch) - {"0"}
            assert await broker.publish(messages(queue, 1)) == {"0"}

    run(story())


def test_properties_are_passed_on(admin: Admin) -> None:
    """A received message can be published again as it is, though another user had signed it."""
    queue, target = admin.name(), admin.name()
    admin.do("queue_declare", queue=queue)
    admin.publish(queue, b"\xff", user_id="guest", headers={"a": [1, {"b": None}]}, priority=3, delivery_mode=1)

    async def story() -> None:
        broker = Broker(SHARED_URL, topology(queue, target), orders_queue=queue)
        async with running(broker):
            (order,) = await broker.next_deliveries(10)
            again = Outgoing(routing_key=target, body=order.body, message_id="new", properties=order.properties)
            assert await broker.publish([again]) == {"new"}
            assert order.properties.message_id is None

    run(story())
    ((properties, body),) = admin.drain(target)
    assert body == b"\xff"
    assert properties.headers == {"a": [1, {"b": None}]}
    assert (properties.priority, properties.delivery_mode, properties.user_id) == (3, 2, None)


def test_an_address_that_is_a_whole_text_stays_out_of_the_headers(admin: Admin) -> None:
    """gallery-dl gives a novel as a text: URL; in a header it would cut the connection at each attempt to tell of it."""
    queue = admin.name()
    novel = Event(
        type=EventType.FILE_DOWNLOADED,
        run_id="run",
        source_id=1,
        body={"source_id": 1, "filename": "novel.txt"},
        headers={"url": "text:" + 60_000 * "word ", "size": 300_000},
    )

    async def story() -> None:
        format_ = EventFormat(queues={EventType.FILE_DOWNLOADED: queue}, content_type="")
        async with running(Broker(SHARED_URL, topology(queue), orders_queue=None)) as broker:
            assert await broker.publish(format_.messages([novel])) == {novel.message_id}

    run(story())
    ((properties, _),) = admin.drain(queue)
    assert properties.headers == {"size": 300_000}


def test_a_queue_deleted_under_the_publisher_is_declared_again(admin: Admin) -> None:
    """The message that came back is not safe; soon after, it can be published."""
    queue = admin.name()

    async def story() -> None:
        broker = Broker(SHARED_URL, topology(queue), orders_queue=None)
        async with running(broker):
            admin.do("queue_delete", queue=queue)
            assert await broker.publish(messages(queue, 1)) == set()
            while not await broker.publish(messages(queue, 1)):
                pass  # each round waits for the broker's answer
            assert await broker.message_count(queue) == 1

    run(story())


def test_an_exchange_deleted_under_the_publisher_is_declared_again(admin: Admin) -> None:
    """The broker closes the channel: nothing of the batch counts, one line says why, the next batch goes out."""
    exchange, queue = admin.name("exchange"), admin.name()

    async def story() -> None:
        broker = Broker(SHARED_URL, topology(queue, exchange=exchange), orders_queue=None)
        with capture_logs() as logs:
            async with running(broker):
                admin.do("exchange_delete", exchange=exchange)
                assert await broker.publish(messages(queue, 10)) == set()
                await until(lambda: not broker.is_connected)
                assert await broker.publish(messages(queue, 10)) == ids(messages(queue, 10))
        (line,) = lines(logs, "no connection")
        assert "no exchange" in line["problem"]

    run(story())


def test_messages_of_a_missing_queue_cannot_be_counted(admin: Admin) -> None:
    """The error names the queue, and the connection stands."""
    queue = admin.name()

    async def story() -> None:
        broker = Broker(SHARED_URL, topology(queue), orders_queue=None)
        async with running(broker):
            with pytest.raises(BrokerRefused, match=r"queue 'test\.missing'"):
                await broker.message_count("test.missing")
            assert await broker.message_count(queue) == 0

    run(story())


# Consuming


def test_what_was_acked_is_gone_and_what_was_given_back_comes_again(admin: Admin) -> None:
    """A delivery shows what its sender set; a second ack is harmless."""
    queue = admin.name()
    admin.do("queue_declare", queue=queue)
    admin.publish(queue, b"one", message_id="m", correlation_id="c", headers={"h": 1})
    admin.publish(queue, b"two")

    async def story() -> None:
        broker = Broker(SHARED_URL, topology(queue), orders_queue=queue)
        async with running(broker):
            one, two = await receive(broker, 2)
            assert (one.message_id, one.correlation_id, one.headers, one.redelivered) == (
                "m",
                "c",
                {"h": 1},
                False,
            )
            assert (two.message_id, two.correlation_id, two.headers) == (None, None, {})
            broker.ack(one)
            broker.ack(one)
            broker.requeue(two)
            (again,) = await receive(broker, 1)
            assert (again.body, again.redelivered) == (b"two", True)
            broker.ack(again)
            assert broker.is_connected

    run(story())
    assert admin.drain(queue) == []


def test_a_stopped_consumer_gives_back_what_it_did_not_hand_over(admin: Admin) -> None:
    """What was handed over may still be acked, and nobody waits for more."""
    queue = admin.name()
    admin.do("queue_declare", queue=queue)
    admin.publish(queue, b"0", b"1", b"2", b"3")

    async def story() -> None:
        broker = Broker(SHARED_URL, topology(queue), orders_queue=queue, prefetch=3)
        async with running(broker):
            (first,) = await broker.next_deliveries(1)
            await broker.stop_consuming()
            await broker.stop_consuming()
            assert await broker.next_deliveries(1) == []
            broker.ack(first)
            assert await broker.message_count(queue) == 3

    run(story())
    assert sorted(body for _, body in admin.drain(queue)) == [b"1", b"2", b"3"]


def test_prefetch_bounds_what_is_unacked(admin: Admin) -> None:
    """The broker keeps the rest for others."""
    queue = admin.name()
    admin.do("queue_declare", queue=queue)
    admin.publish(queue, b"0", b"1", b"2", b"3")

    async def story() -> None:
        broker = Broker(SHARED_URL, topology(queue), orders_queue=queue, prefetch=2)
        async with running(broker):
            for delivery in await receive(broker, 2):
                assert await broker.message_count(queue) == 2
                assert delivery.body in {b"0", b"1"}

    run(story())


def test_a_queue_deleted_while_consuming_is_declared_again(admin: Admin) -> None:
    """One line about it, and orders come in again."""
    queue = admin.name()

    async def story() -> None:
        broker = Broker(SHARED_URL, topology(queue), orders_queue=queue)
        with capture_logs() as logs:
            async with running(broker):
                admin.do("queue_delete", queue=queue)
                await until(lambda: not broker.is_connected)
                await broker.connected()
                admin.publish(queue, b"order")
                (order,) = await broker.next_deliveries(1)
                broker.ack(order)
                assert order.body == b"order"
        assert len(lines(logs, "no connection")) == 1

    run(story())


# Losing the connection


def test_what_was_not_acked_comes_again_after_a_loss(node: BrokerNode) -> None:
    """Marked as redelivered; an ack that comes too late does nothing to the new connection's messages."""
    queue = f"test.{uuid.uuid4().hex}"

    async def story() -> None:
        broker = Broker(node.url, topology(queue), orders_queue=queue)
        async with running(broker):
            await broker.publish(messages(queue, 2))
            stale = await receive(broker, 2)
            await asyncio.to_thread(node.ctl, "close_all_connections", "a test")
            await until(lambda: not broker.is_connected)
            fresh = await receive(broker, 2)
            assert [(order.body, order.redelivered) for order in fresh] == [(b"0", True), (b"1", True)]
            for order in stale:
                broker.ack(order)
                broker.requeue(order)
            await asyncio.sleep(0.2)
            assert broker.is_connected
        async with running(broker):
            assert len(await receive(broker, 2)) == 2
            for order in fresh:
                broker.ack(order)
        async with running(broker):
            for order in await receive(broker, 2):
                broker.ack(order)
            assert await broker.message_count(queue) == 0

    run(story())


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_nothing_is_lost_when_the_broker_restarts(node: BrokerNode, how: str) -> None:
    """A publisher that repeats what is not confirmed gets everything through; one line per outage, one per return."""
    queue = f"test.{uuid.uuid4().hex}"
    sent: set[str] = set()

    async def publish_until(enough: asyncio.Event, broker: Broker) -> int:
        """Batch after batch, each repeated until all of it is safe; gives the number of repetitions."""
        repeated = 0
        while not enough.is_set():
            batch = messages(queue, 1000, f"{len(sent)}-")
            sent.update(ids(batch))
            while batch:
                safe = await broker.publish(batch)
                batch = [message for message in batch if message.message_id not in safe]
                repeated += bool(batch)
        return repeated

    async def story() -> None:
        broker = Broker(node.url, topology(queue), orders_queue=None)
        enough = asyncio.Event()
        with capture_logs() as logs:
            async with running(broker):
                publishing = asyncio.create_task(publish_until(enough, broker))
                await until(lambda: sent)
                await asyncio.to_thread(getattr(node, how))
                await until(lambda: not broker.is_connected)
                await asyncio.to_thread(node.start)
                await broker.connected()
                enough.set()
                assert await publishing > 0
        assert len(lines(logs, "no connection")) == 1
        assert len(lines(logs, "connected")) == 2

    run(story())
    with contextlib.closing(Admin(node.url)) as admin:
        assert {properties.message_id for properties, _ in admin.drain(queue)} == sent
        admin.do("queue_delete", queue=queue)


def test_an_alarm_at_the_broker_makes_publishers_wait(node: BrokerNode) -> None:
    """The connection stands, the problem has a name, and nothing piles up; afterwards all goes out."""
    queue = f"test.{uuid.uuid4().hex}"

    async def story() -> None:
        broker = Broker(node.url, topology(queue), orders_queue=None)
        async with running(broker):
            await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.000001")
            try:
                batch = messages(queue, 5000)
                publishing = asyncio.create_task(broker.publish(batch))
                await until(lambda: broker.last_problem)
                assert broker.last_problem.startswith("the broker takes no messages for now: low on memory; ")
                await asyncio.sleep(0.5)
                assert broker.is_connected
                assert not publishing.done()
            finally:
                await asyncio.to_thread(node.ctl, "set_vm_memory_high_watermark", "0.4")
            assert await publishing == ids(batch)
            assert broker.last_problem is None

    run(story())


def test_a_broker_that_confirms_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a quorum queue that is without most of its nodes; and that all is well, when it is."""
    monkeypatch.setattr(outage, "SILENCE", 0.2)
    queue = f"test.{uuid.uuid4().hex}"

    async def story(line: Proxy) -> None:
        url = f"amqp://127.0.0.1:{line.port}/%2F"
        async with running(Broker(url, topology(queue), orders_queue=None)) as broker:
            assert len(await broker.publish(messages(queue, 3))) == 3
            assert broker.last_problem is None
            line.hold_answers()
            publishing = asyncio.create_task(broker.publish(messages(queue, 3, "more")))
            await until(lambda: "no queue has confirmed a message" in (broker.last_problem or ""))
            line.resume()
            assert len(await publishing) == 3
            assert broker.last_problem is None

    with Proxy(PORT) as line:
        run(story(line))
    with contextlib.closing(Admin(SHARED_URL)) as admin:
        admin.do("queue_delete", queue=queue)


def test_a_broker_that_hangs_can_be_left(node: BrokerNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shutdown waits for its answers, but not for as long as a heartbeat takes; its deliveries go back."""
    queue = f"test.{uuid.uuid4().hex}"
    monkeypatch.setattr(deliveries, "CANCELLING_TIME", 0.3)
    monkeypatch.setattr(session, "CLOSING_TIME", 0.3)

    async def story() -> None:
        broker = Broker(node.url, topology(queue), orders_queue=queue)
        try:
            async with asyncio.timeout(10), running(broker):
                await broker.publish(messages(queue, 2))
                await receive(broker, 1)
                node.pause()
                await broker.stop_consuming()
        finally:
            node.resume()
        async with running(Broker(node.url, topology(queue), orders_queue=queue)) as again:
            assert len(await receive(again, 2)) == 2

    run(story())


def test_a_broker_that_is_not_there_is_told_once() -> None:
    """With the place and the reason, and without what the URL keeps secret."""

    async def story() -> None:
        broker = Broker("amqp://me:s3cret@127.0.0.1:1/%2F", topology("q"), orders_queue="q")
        with capture_logs() as logs:
            async with running(broker, connected=False):
                publishing = asyncio.create_task(broker.publish(messages("q", 1)))
                await asyncio.sleep(0.6)  # several attempts
                assert not publishing.done()
                publishing.cancel()
        (line,) = logs
        assert line["broker"] == "127.0.0.1:1"
        assert line["problem"].startswith("Connection refused; is RabbitMQ up?")
        assert "s3cret" not in str(line)

    run(story())


def test_a_wrong_password_is_told_as_such(admin: Admin) -> None:
    """Not as a lost connection."""

    async def story() -> None:
        wrong = SHARED_URL.replace("guest@", "s3cret@")
        broker = Broker(wrong, topology("q"), orders_queue=None)
        async with running(broker, connected=False):
            await until(lambda: broker.last_problem != "not connected yet")
            assert str(broker.last_problem).startswith("the broker refuses this user and password; set RABBITMQ_USER")

    run(story())


def test_a_listener_that_says_nothing_can_be_left_at_once() -> None:
    """A hung broker takes connections and is silent: shutdown does not wait for it."""

    async def story() -> None:
        heard = asyncio.Event()

        async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            assert (await reader.read(8)).startswith(b"AMQP")
            heard.set()
            await reader.read()
            writer.close()

        server = await asyncio.start_server(listen, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        broker = Broker(f"amqp://127.0.0.1:{port}/?stack_timeout=1", topology("q"), orders_queue=None)
        async with running(broker, connected=False):
            await heard.wait()
        heard.clear()
        async with running(broker, connected=False):
            await until(lambda: broker.last_problem != "not connected yet")
            assert str(broker.last_problem).startswith("what listens there does not answer as a broker; is it RabbitMQ")
            await heard.wait()
        server.close()
        await server.wait_closed()

    run(story())


def test_cancelled_while_connecting_it_leaves_nothing_behind(admin: Admin) -> None:
    """At whatever moment: no socket, no task, no callback that complains later."""

    async def story() -> None:
        for step in range(30):
            broker = Broker(SHARED_URL, topology(admin.name()), orders_queue=None)
            async with running(broker, connected=False):
                await asyncio.sleep(step * 0.0007)
            assert asyncio.all_tasks() - {asyncio.current_task()} == set()

    run(story())


# The address


@pytest.mark.parametrize(
    "url",
    [
        "",
        "localhost",
        "http://guest:s3cret@localhost/",
        "amqp://",
        "amqp://guest:s3cret@localhost:port/",
        "amqp://guest:s3cret@localhost:99999/",
        "amqp://guest:s3cret/x@localhost/",
        "amqp://guest:5672/s3cret@localhost/",
        "amqp://guest:s3cret#x@localhost/",
        "amqp://guest:s3cret?x@localhost/",
        "amqp://guest@localhost/",
        "amqp://guest:s3cret@localhost//",
        "amqp://guest:s3cret@localhost/?s3cret=1",
        "amqp://guest:s3cret@localhost/?heartbeat=s3cret",
        "amqps://guest:s3cret@localhost/?ssl_options={'ca_certs':'/s3cret'}",
    ],
)
def test_a_url_that_cannot_be_used_is_one_sentence(url: str) -> None:
    """The sentence shows no part of the URL, and neither does what caused it."""
    with pytest.raises(ValueError, match=r"^the broker's URL cannot be used: ") as error:
        Broker(url, topology("q"), orders_queue=None)
    assert "s3cret" not in str(error.value)
    assert error.value.__suppress_context__ or error.value.__context__ is None


def test_special_characters_are_percent_encoded(node: BrokerNode) -> None:
    """In user, password and vhost."""
    node.ctl("add_vhost", "a/b ü")
    node.ctl("add_user", "me@home", "p:/?#@%")
    node.ctl("set_permissions", "-p", "a/b ü", "me@home", ".*", ".*", ".*")

    async def story() -> None:
        place = f"127.0.0.1:{node.port}"
        url = f"amqp://me%40home:p%3A%2F%3F%23%40%25@{place}/a%2Fb%20%C3%BC"
        async with running(Broker(url, topology("q"), orders_queue="q")) as broker:
            assert await broker.publish(messages("q", 1)) == {"0"}

    run(story())


def test_the_orders_queue_has_to_be_declared() -> None:
    """A consumer of a queue that nobody declares would never come up."""
    with pytest.raises(ValueError, match="orders"):
        Broker(SHARED_URL, topology("q"), orders_queue="orders")
