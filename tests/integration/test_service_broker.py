"""The service and its broker: whatever happens to the broker or to a queue, no event is lost and none comes too early."""

from __future__ import annotations

import contextlib
import itertools
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pika
import pytest

from tests.broker_node import BrokerNode
from tests.installation import Installation, Service, wait_until
from tests.proxy import Proxy
from tests.queues import PORT, Message, NodeQueues, Queues
from tests.site import Action, FaultyExchange, FaultySite, Post, kind_of, status

NO_BROKER = "no connection to the broker"


class Raw(bytes):
    """A header's value as it goes over the wire, with its type in front."""


def one_queue(queues: Queues) -> dict[str, str]:
    """Settings under which all events go to one queue, which shows their order: `synchronized`."""
    name = queues.names["synchronized"]
    return queues.settings | {
        "AMQP_Q_FILE_DOWNLOADED": name,
        "AMQP_Q_FILE_DOWNLOAD_SKIPPED": name,
        "AMQP_Q_SOURCE_SYNC_FAILED": name,
    }


def posts(count: int, first: int = 1) -> list[Post]:
    """Small files: here the events count."""
    return [Post(id=number, body=f"picture {number}".encode()) for number in range(first, first + count)]


def order(site: FaultySite, source_id: int = 1) -> dict[str, Any]:
    url = f"Danbooru:{site.root}/posts?tags=demo"
    return {"source_id": source_id, "url": url, "content_path": f"folder{source_id}/"}


def types(messages: list[Message]) -> list[str]:
    return [message.properties.type for message in messages]


def without_repetitions(messages: list[Message]) -> list[Message]:
    """As a consumer sees them that drops what has a message id that it knows."""
    return list({message.properties.message_id: message for message in messages}.values())


# The broker comes and goes


def test_a_broker_that_is_killed_in_mid_run_loses_nothing(
    install: Callable[..., Installation], node: BrokerNode, node_queues: NodeQueues
) -> None:
    """Every file is announced, repeated only under the same id, and source synchronized is the last event of its run."""
    machine = install(**one_queue(node_queues))
    with FaultySite(posts(200)) as site, Service(machine) as service:
        site.file_latency = 0.03
        back = threading.Event()
        site.rule(Post(id=60).path, hold(back))  # one of the last: they are listed from the newest on
        node_queues.post(order(site))
        node_queues.wait_for("synchronized", 20)
        node_queues.during_outage(node.kill)
        assert len(site.requests("^/data/")) > 100  # files kept coming while the broker was away
        assert "run ended" not in service.log
        back.set()
        wait_until(lambda: "run ended" in service.log, what="the end of the run")
        wait_until(lambda: node_queues.count("synchronized") >= 201, what="all events")
        messages = node_queues.take("synchronized")
        assert types(messages).count("source-synchronized") == 1
        assert types(messages)[-1] == "source-synchronized"
        ids: dict[str, set[str]] = {}
        for message in messages[:-1]:
            assert message.properties.type == "file-downloaded"
            ids.setdefault(message.json["filename"], set()).add(message.properties.message_id)
        assert set(ids) == {row["filename"] for row in machine.files(1)}
        assert len(ids) == 200
        assert all(len(same) == 1 for same in ids.values())
        assert service.log.count(NO_BROKER) == 1


def test_confirms_that_get_lost_repeat_events_under_the_same_id(
    install: Callable[..., Installation], queues: Queues
) -> None:
    """What the broker has, and could not say so before the connection broke, comes again: that alone, with the same id."""
    with Proxy(PORT) as line, FaultySite(posts(60)) as site:
        machine = install(**one_queue(queues) | {"RABBITMQ_PORT": str(line.port)})
        with Service(machine) as service:
            site.file_latency = 0.02
            queues.post(order(site))
            queues.wait_for("synchronized", 5)
            line.hold_answers()
            served = len(site.requests("^/data/"))
            wait_until(lambda: len(site.requests("^/data/")) > served + 20, what="more files, and a batch of events")
            line.cut()
            line.resume()
            wait_until(lambda: "run ended" in service.log, what="the end of the run")
            wait_until(lambda: service.log.count("connected to the broker") == 2, what="the connection")
            assert service.stop() == 0  # when its last event was confirmed
            messages = queues.take("synchronized")
            files = [message.json["filename"] for message in messages[:-1]]
            assert 60 < len(files) < 120
            assert len(set(files)) == len({message.properties.message_id for message in messages[:-1]}) == 60
            assert messages[-1].properties.type == "source-synchronized"


def test_a_broker_that_stops_while_orders_are_queued(
    install: Callable[..., Installation], node: BrokerNode, node_queues: NodeQueues
) -> None:
    """Each order is run once, and skips wait for the broker for longer than a run may stall otherwise."""
    machine = install(**node_queues.settings, SYNC_CONCURRENCY=1, RUN_STALL_TIMEOUT=2)
    with FaultySite(posts(30)) as site, Service(machine):
        node_queues.post(order(site, 1))
        node_queues.wait_for("synchronized", 1)
        node_queues.take("downloaded")
        site.listing_latency = 1.0
        for source_id in (1, 2, 3, 4):
            node_queues.post(order(site, source_id), message_id=f"order {source_id}")
        wait_until(lambda: site.active, what="the listing of source 1, whose files are known")
        begun = time.monotonic()
        node_queues.during_outage(node.stop)
        assert time.monotonic() - begun > 3  # listed, and stuck with the first skip, for more than the stall timeout
        site.listing_latency = 0
        node_queues.wait_for("synchronized", 5)
        assert sorted(run["source_id"] for run in machine.runs()) == [1, 1, 2, 3, 4]
        assert {run["attempt"] for run in machine.runs()} == {1}
        assert len(without_repetitions(node_queues.take("skipped"))) == 30
        assert len(without_repetitions(node_queues.take("downloaded"))) == 90
        answered = [message.headers["orders"] for message in node_queues.take("synchronized")]
        assert sorted(itertools.chain(*answered)) == [f"order {number}" for number in (1, 2, 3, 4)]


def test_the_service_ends_and_starts_while_the_broker_is_down(
    install: Callable[..., Installation], node: BrokerNode, node_queues: NodeQueues
) -> None:
    """It ends in time with exit code 0, also with a run that waits for the broker; the next start waits, and tells all."""
    machine = install(**node_queues.settings, SHUTDOWN_GRACE=1)
    with FaultySite(posts(20)) as known, FaultySite(posts(20)) as fresh, contextlib.ExitStack() as stack:
        service, again = Service(machine).start(), Service(machine)
        stack.callback(service.__exit__)
        node_queues.post(order(known, 1))
        node_queues.wait_for("synchronized", 1)
        node_queues.take("downloaded")
        node_queues.take("synchronized")
        known.listing_latency = fresh.listing_latency = 1.5
        node_queues.post(order(known, 1))
        node_queues.post(order(fresh, 2))
        wait_until(lambda: known.active and fresh.active, what="both listings")

        def restart() -> None:
            wait_until(lambda: service.log.count("run ended") == 2, what="the end of the run with new files")
            begun = time.monotonic()
            assert service.stop() == 0
            assert time.monotonic() - begun < 12
            again.start()
            stack.callback(again.__exit__)
            wait_until(lambda: NO_BROKER in again.log, what="the line about the broker")

        node_queues.during_outage(node.stop, restart)
        node_queues.wait_for("synchronized", 2, timeout=30)
        assert again.log.count(NO_BROKER) == 1
        assert "Connection refused" in again.log
        assert again.log.count("connected to the broker") == 1
        assert len(without_repetitions(node_queues.take("downloaded"))) == 20
        assert len(without_repetitions(node_queues.take("skipped"))) == 20
        assert {message.json["source_id"] for message in node_queues.take("synchronized")} == {1, 2}


def test_a_wrong_password_is_one_line(
    install: Callable[..., Installation], node: BrokerNode, node_queues: NodeQueues
) -> None:
    """The service keeps trying, never shows the password, and works as soon as the broker knows it."""
    user, secret = f"me-{node_queues.mark}", "s3cr3t/p@ss"
    machine = install(**node_queues.settings, RABBITMQ_USER=user, RABBITMQ_PASS=secret)
    with FaultySite(posts(1)) as site, Service(machine) as service:
        wait_until(lambda: NO_BROKER in service.log, what="the line about the password")
        node.ctl("add_user", user, secret)
        node.ctl("set_permissions", user, ".*", ".*", ".*")
        node_queues.post(order(site))
        node_queues.wait_for("synchronized", 1)
        assert service.log.count(NO_BROKER) == 1
        assert "the broker refuses this user and password" in service.log
        assert "s3cr3t" not in service.log
        assert b"s3cr3t" not in machine.everything_we_wrote()


def test_amqp_url_wins_over_rabbitmq(install: Callable[..., Installation], queues: Queues) -> None:
    """Whatever else is said about the broker."""
    url = f"amqp://guest:guest@127.0.0.1:{PORT}/%2F"
    machine = install(**queues.settings | {"RABBITMQ_PORT": 1, "RABBITMQ_PASS": "wrong"}, AMQP_URL=url)
    with FaultySite(posts(1)) as site, Service(machine) as service:
        queues.post(order(site))
        queues.wait_for("synchronized", 1)
        assert NO_BROKER not in service.log


def test_orders_that_pika_or_a_frame_cannot_hold(
    install: Callable[..., Installation], queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strange headers and ids reject no good order, do not keep a bad one from being rejected, and cut no connection."""
    encode = pika.data.encode_value

    def encode_raw(pieces: list[bytes], value: object) -> int:
        if not isinstance(value, Raw):
            return int(encode(pieces, value))
        pieces.append(value)
        return len(value)

    monkeypatch.setattr(pika.data, "encode_value", encode_raw)
    machine = install(**queues.settings)
    milliseconds = Raw(b"T" + struct.pack(">Q", 1_800_000_000_000))
    with FaultySite(posts(1)) as site, Service(machine) as service:
        for headers in ({"sent": milliseconds}, {"note": 130_950 * "x"}):
            queues.post(b"bad", headers=headers)
        queues.wait_for("rejected", 2)
        kept = [set(message.headers) - {"reason", "detail"} for message in queues.take("rejected")]
        assert sorted(kept, key=len) == [set(), {"sent"}]  # the one left no room for the reason
        queues.post(order(site), message_id=b"\xff\x00id", headers={"sent": milliseconds})
        queues.wait_for("synchronized", 1)
        assert queues.take("synchronized")[0].headers["orders"] == ["\\xff\ufffdid"]
        assert NO_BROKER not in service.log


# Queues vanish


def test_the_orders_queue_is_deleted_while_running(install: Callable[..., Installation], queues: Queues) -> None:
    """It is declared again, the run under way is not disturbed, and the next order is served."""
    machine = install(**queues.settings)
    with FaultySite(posts(20)) as site, Service(machine) as service:
        site.file_latency = 0.05
        queues.post(order(site, 1))
        queues.wait_for("downloaded", 3)
        queues.channel.queue_delete(queues.names["orders"])
        wait_until(lambda: NO_BROKER in service.log, what="the line about the queue")
        site.file_latency = 0
        queues.post(order(site, 2))
        queues.wait_for("synchronized", 2)
        assert len(without_repetitions(queues.take("downloaded"))) == 40
        assert {run["attempt"] for run in machine.runs()} == {1}
        assert "the orders queue was deleted" in service.log


@pytest.mark.parametrize("known", [False, True], ids=["downloaded", "skipped"])
def test_an_events_queue_is_deleted_while_running(
    install: Callable[..., Installation], queues: Queues, known: bool
) -> None:
    """What the broker returned arrives after the queue is declared again; source synchronized waits for that."""
    machine = install(**queues.settings)
    name = "skipped" if known else "downloaded"
    with FaultySite(posts(20)) as site, Service(machine) as service:
        if known:
            queues.post(order(site))
            queues.wait_for("synchronized", 1)
            queues.take("synchronized")
            site.listing_latency = 0.5
        else:
            site.file_latency = 0.3
        queues.post(order(site))
        wait_until(lambda: site.active and (known or queues.count(name) >= 4), what="the run")
        taken = delete_empty(queues, name)
        if not known:
            wait_until(lambda: queues.exists(name), what="the queue, declared again")
            # Not before some seconds is it declared once more: by then the run is over, and its last event must wait.
            taken += delete_empty(queues, name)
        queues.wait_for("synchronized", 1)
        late = queues.take(name)  # asked after source synchronized was there: all must have been there by then
        assert len(without_repetitions(taken + late)) == 20
        assert service.log.count("a queue took no message, declaring it again") == (1 if known else 2)
        assert NO_BROKER not in service.log


def delete_empty(queues: Queues, name: str) -> list[Message]:
    """Delete a queue, and give what was in it: nothing is lost with it that the broker had confirmed."""
    taken = []
    while True:
        taken += queues.take(name)
        try:
            queues.channel.queue_delete(queues.names[name], if_empty=True)
        except pika.exceptions.ChannelClosedByBroker:  # something has just come
            queues.channel = queues.channel.connection.channel()
        else:
            return taken


# The order of events, and of runs


def test_source_synchronized_is_last_behind_a_large_backlog(
    install: Callable[..., Installation], queues: Queues
) -> None:
    """All events in one queue: 10 downloads and 300 skips, then the one that ends the run, and nothing behind it."""
    machine = install(**one_queue(queues))
    with FaultySite(posts(300, first=10)) as site, Service(machine):
        queues.post(order(site))
        queues.wait_for("synchronized", 301)
        first = types(queues.take("synchronized"))
        assert first == ["file-downloaded"] * 300 + ["source-synchronized"]
        site.add(*posts(5, first=310))
        site.add(*posts(5, first=5))  # the oldest: behind all that is skipped
        queues.post(order(site))
        queues.wait_for("synchronized", 311)
        messages = queues.take("synchronized")
        assert types(messages).count("file-downloaded") == 10
        assert types(messages).count("file-skipped") == 300
        assert types(messages)[310:] == ["source-synchronized"]
        assert len(without_repetitions(messages)) == 311
        assert len({message.headers["run_id"] for message in messages}) == 1


def test_twenty_orders_at_once_for_one_source(install: Callable[..., Installation], queues: Queues) -> None:
    """One makes a run, and those that come while it goes on make one more, and each finds its message id in the orders header of one of them."""
    machine = install(**queues.settings)
    with FaultySite(posts(4)) as site, FaultySite(posts(1)) as other, Service(machine):
        journalled = threading.Event()
        site.rule("/data/", hold(journalled), times=1)
        queues.post(order(site), message_id="order 0")
        wait_until(lambda: site.requests("/data/"), what="the first run, which is held there")
        for number in range(1, 20):
            queues.post(order(site), message_id=f"order {number}")
        queues.post(order(other, 2), message_id="behind them")
        queues.wait_for("synchronized", 1)
        assert [message.headers["orders"] for message in queues.take("synchronized")] == [["behind them"]]
        journalled.set()
        queues.wait_for("synchronized", 2)
        messages = queues.take("synchronized")
        answered = [message.headers["orders"] for message in messages]
        assert sorted(itertools.chain(*answered)) == sorted(f"order {number}" for number in range(20))
        assert [message.headers["orders_total"] for message in messages] == [len(orders) for orders in answered]
        runs = {run["run_id"]: run["state"] for run in machine.runs() if run["source_id"] == 1}
        assert runs == {message.headers["run_id"]: "synchronized" for message in messages}
        assert len(runs) == 2


def test_one_site_is_served_one_run_at_a_time(install: Callable[..., Installation], queues: Queues) -> None:
    """Sources of two sites overlap in time, as the sites' clocks prove; two sources of one site never do."""
    machine = install(**queues.settings, SITE_CONCURRENCY=1, SYNC_CONCURRENCY=4, DOWNLOADS_PER_SOURCE=1)
    with FaultySite(posts(8)) as one, FaultySite(posts(8)) as other, Service(machine):
        one.file_latency = other.file_latency = 0.1
        for source_id, site in ((1, one), (2, one), (3, other)):
            queues.post(order(site, source_id))
        queues.wait_for("synchronized", 3)
        first_pages = [at for at, record in enumerate(one.log) if record.path.endswith("&limit=200")]
        assert len(first_pages) == 2
        runs = one.log[: first_pages[1]], one.log[first_pages[1] :]
        assert [sum(kind_of(record.path) == "file" for record in run) for run in runs] == [8, 8]
        (one_began, one_ended), (other_began, other_ended) = ((s.log[0].at, s.log[-1].at) for s in (one, other))
        assert other_began < one_ended
        assert one_began < other_ended


def test_events_carry_the_id_of_their_order(install: Callable[..., Installation], queues: Queues) -> None:
    """correlation_id is the order's correlation_id, else its message_id, else it is left out."""
    machine = install(**queues.settings)
    with FaultySite(posts(2)) as site, FaultySite() as gone, Service(machine):
        gone.rule("/posts.json", status(404))
        for number, ids in enumerate(({"correlation_id": "c", "message_id": "m"}, {"message_id": "m"}, {}), 1):
            queues.post(order(site, number), **ids)
            queues.wait_for("synchronized", 1)
            queues.post(order(site, number), **ids)
            queues.wait_for("synchronized", 2)
            queues.post(order(gone, 4), **ids)
            queues.wait_for("failed", 1)
            for name, count in (("downloaded", 2), ("skipped", 2), ("synchronized", 2), ("failed", 1)):
                found = [message.properties.correlation_id for message in queues.take(name)]
                assert found == count * [ids.get("correlation_id", ids.get("message_id"))]


def hold(until: threading.Event) -> Action:
    """Answer as usual, but not before then."""

    def act(exchange: FaultyExchange) -> None:
        assert until.wait(60)
        exchange.send(exchange.usual())

    return act
