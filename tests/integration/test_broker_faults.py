"""What goes wrong at the broker while the service runs: nothing is lost, nothing spins, and people are told once."""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.broker_node import BrokerNode
from tests.installation import Installation, Service, wait_until
from tests.integration.test_service_broker import NO_BROKER, hold, order, posts, without_repetitions
from tests.proxy import Proxy
from tests.queues import PORT, NodeQueues, Queues
from tests.site import FaultySite, Post

CONNECTED = "connected to the broker"


# The line to the broker


def test_a_broker_that_hangs_up_at_once_is_asked_ever_less_often(
    install: Callable[..., Installation], queues: Queues
) -> None:
    """Skips get lost with the line, later connections end in the handshake: one line in the log, few attempts, hardly
    any work, and all is told afterwards."""
    with Proxy(PORT) as line, FaultySite(posts(20)) as site:
        machine = install(**queues.settings | {"RABBITMQ_PORT": str(line.port)})
        with Service(machine) as service:
            queues.post(order(site))
            queues.wait_for("synchronized", 1)
            site.listing_latency = 1
            queues.post(order(site))
            queues.post(order(site, 2))
            wait_until(lambda: site.active, what="the run")
            attempts, worked, begun = line.connections, seconds_of_work(service), time.monotonic()
            line.black_hole()
            wait_until(lambda: line.held_questions, what="events that do not get through")
            line.slam()
            line.cut()
            wait_until(lambda: line.connections >= attempts + 4, what="four attempts")
            took = time.monotonic() - begun
            assert took > 4 * 0.5
            assert seconds_of_work(service) - worked < 0.5 * took
            line.resume()
            line.accept()
            wait_for_ends(queues, 3)
            assert len(without_repetitions(queues.take("skipped"))) == 20
            assert len(without_repetitions(queues.take("downloaded"))) == 40
            assert service.log.count(NO_BROKER) == 1
            assert service.log.count(CONNECTED) == 2


def test_a_black_hole_is_noticed_by_its_silence(install: Callable[..., Installation], queues: Queues) -> None:
    """No byte and no end comes through: heartbeats tell. Downloads go on meanwhile, and are told afterwards."""
    with Proxy(PORT) as line, FaultySite(posts(40)) as site:
        url = f"amqp://guest:guest@127.0.0.1:{line.port}/%2F?heartbeat=1&stack_timeout=1"
        machine = install(**queues.settings, AMQP_URL=url)
        with Service(machine) as service:
            site.file_latency = 0.1
            queues.post(order(site))
            queues.wait_for("downloaded", 1)
            line.black_hole()
            wait_until(lambda: NO_BROKER in service.log, what="the line about the broker")
            wait_until(lambda: "run ended" in service.log, what="the end of the run")
            doctor = machine.run("doctor")
            assert doctor.returncode == 6
            assert "the broker cannot be used: what listens there does not answer as a broker" in doctor.stdout
            line.resume()
            wait_for_ends(queues, 1)
            assert len(without_repetitions(queues.take("downloaded"))) == 40
            assert service.log.count(NO_BROKER) == 1
            assert "heartbeats" in service.log
            assert service.log.count(CONNECTED) == 2


# What the broker refuses


def test_permissions_are_taken_away(
    install: Callable[..., Installation], node: BrokerNode, node_queues: NodeQueues
) -> None:
    """Without the permission to write each connection comes up and breaks down with the first message: told once."""
    user = f"me-{node_queues.mark}"
    node.ctl("add_user", user, "secret")
    node.ctl("set_permissions", user, ".*", ".*", ".*")
    machine = install(**node_queues.settings, RABBITMQ_USER=user, RABBITMQ_PASS="secret")
    with FaultySite(posts(20)) as site, Service(machine) as service:
        node_queues.post(order(site, 1))
        node_queues.wait_for("synchronized", 1)
        node.ctl("set_permissions", user, ".*", "^$", ".*")
        worked, begun = seconds_of_work(service), time.monotonic()
        # A broker may go on by what it remembers of an open channel's user.
        node.ctl("close_all_user_connections", user, "permissions have changed")
        node_queues.post(order(site, 1))
        node_queues.post(order(site, 2))
        wait_until(lambda: "set_permissions" in service.log, what="the line with the remedy")
        doctor = machine.run("doctor")
        assert doctor.returncode == 6
        assert re.search(r"✗ broker .*ACCESS_REFUSED.*; permit it: rabbitmqctl set_permissions", doctor.stdout)
        assert seconds_of_work(service) - worked < 0.5 * (time.monotonic() - begun)
        node.ctl("clear_permissions", user)
        node.ctl("set_permissions", user, ".*", ".*", ".*")
        wait_for_ends(node_queues, 3)
        wait_until(lambda: service.log.count(CONNECTED) > 1, what="the line that all is well")
        assert len(without_repetitions(node_queues.take("skipped"))) == 20
        assert len(without_repetitions(node_queues.take("downloaded"))) == 40
        # A second one is allowed: that the vhost cannot even be opened.
        assert 1 <= service.log.count(NO_BROKER) <= 2
        assert service.log.count(CONNECTED) == 2
        assert "secret" not in service.log


@pytest.mark.long
def test_the_vhost_is_deleted(install: Callable[..., Installation], node: BrokerNode, node_queues: NodeQueues) -> None:
    """With its queues. The service waits for a new one, declares them there, and goes on; the doctor names the vhost."""
    vhost = node_queues.vhost = f"vhost-{node_queues.mark}"

    def make() -> None:
        node.ctl("add_vhost", vhost)
        node.ctl("set_permissions", "-p", vhost, "guest", ".*", ".*", ".*")

    make()
    node_queues.disconnect()
    node_queues.connect()
    with FaultySite(posts(20)) as site, Service(machine := install(**node_queues.settings)) as service:
        gone = threading.Event()
        site.rule(Post(id=1).path, hold(gone))
        node_queues.post(order(site, 1))
        wait_until(lambda: site.active, what="the run")
        node_queues.disconnect()
        node.ctl("delete_vhost", vhost)
        gone.set()
        wait_until(lambda: "there is no such vhost" in service.log, what="the line about the vhost")
        wait_until(lambda: "run ended" in service.log, what="the end of the run")
        doctor = machine.run("doctor")
        assert doctor.returncode == 6
        assert "there is no such vhost, or this user may not use it; set RABBITMQ_VHOST" in doctor.stdout
        make()
        node_queues.connect()
        wait_for_ends(node_queues, 1)
        node_queues.post(order(site, 2))
        wait_for_ends(node_queues, 1)
        assert service.log.count(NO_BROKER) == 2  # first that the connection was ended, then that there is no vhost
        assert service.log.count(CONNECTED) == 2


def test_a_full_queue_is_told_once_and_loses_nothing(install: Callable[..., Installation], queues: Queues) -> None:
    """It exists with a limit and refuses what is over it; other queues are served, and its consumer gets everything."""
    declare_full(queues, "downloaded", most=5)
    machine = install(**queues.settings)
    with FaultySite(posts(20)) as site, FaultySite() as empty, Service(machine) as service:
        queues.post(order(site, 1))
        wait_until(lambda: "a queue takes no messages" in service.log, what="the line about the queue")
        queues.post(order(empty, 2))
        queues.wait_for("synchronized", 1)
        assert [message.json["source_id"] for message in queues.take("synchronized")] == [2]
        got = []

        def consume() -> bool:
            got.extend(queues.take("downloaded"))
            return len(without_repetitions(got)) == 20

        wait_until(consume, what="all events, a few at a time")
        queues.wait_for("synchronized", 1)
        wait_until(lambda: "a queue takes messages again" in service.log, what="the line that all is well")
        assert service.log.count("a queue takes no messages") == 1
        assert service.log.count("a queue takes messages again") == 1
        assert "it is full (x-max-length with reject-publish)" in service.log
        assert NO_BROKER not in service.log


def test_a_full_queue_of_rejected_orders_holds_up_no_good_order(
    install: Callable[..., Installation], queues: Queues
) -> None:
    """Bad orders wait at the broker until they can be put there, and are all put there."""
    declare_full(queues, "rejected", most=1)
    machine = install(**queues.settings)
    with FaultySite(posts(1)) as site, Service(machine) as service:
        for number in range(4):
            queues.post(b"bad %d" % number, message_id=f"bad {number}")
        queues.wait_for("rejected", 1)
        queues.post(order(site))
        queues.wait_for("synchronized", 1)
        got: list[bytes] = []

        def consume() -> bool:
            got.extend(message.body for message in queues.take("rejected"))
            return len(set(got)) == 4

        wait_until(consume, what="all rejected orders")
        assert service.log.count("order rejected") == 4
        assert service.log.count("a queue takes no messages") == 1


def test_queues_come_back_with_other_arguments(install: Callable[..., Installation], queues: Queues) -> None:
    """Somebody deletes queues and makes them by other rules: they are used as they are, with one line about each."""
    machine = install(**queues.settings)
    with FaultySite(posts(20)) as site, Service(machine) as service:
        queues.post(order(site, 1))
        queues.wait_for("synchronized", 1)
        assert len(queues.take("downloaded")) == 20
        for name, arguments in (("downloaded", {"x-queue-mode": "lazy"}), ("orders", {"x-max-priority": 5})):
            queues.channel.queue_delete(queues.names[name])
            queues.channel.queue_declare(queues.names[name], durable=False, arguments=arguments)
        wait_until(lambda: NO_BROKER in service.log, what="the end of consuming")
        queues.post(order(site, 2), priority=3)
        queues.wait_for("synchronized", 2)
        assert len(without_repetitions(queues.take("downloaded"))) == 20
        assert service.log.count(NO_BROKER) == 1
        assert service.log.count(CONNECTED) == 2


@pytest.mark.parametrize("kind", ["memory", pytest.param("disk", marks=pytest.mark.long)])
def test_an_alarm_at_the_broker(
    install: Callable[..., Installation], node: BrokerNode, node_queues: NodeQueues, kind: str
) -> None:
    """Downloads go on, events wait in the catalog. It is told once, the doctor says it, and SIGTERM is answered."""
    setting, low, usual = {
        "memory": ("set_vm_memory_high_watermark", "0.0000001", "0.4"),
        "disk": ("set_disk_free_limit", "9999GB", "50MB"),
    }[kind]
    machine = install(**node_queues.settings, SHUTDOWN_GRACE=1)
    with FaultySite(posts(20)) as site, Service(machine) as service:
        node_queues.post(order(site, 1))
        node_queues.wait_for("synchronized", 1)
        low_now = threading.Event()
        site.rule("/posts.json", hold(low_now))
        sources = (2, 3) if kind == "memory" else (2, 3, 1)  # the last one has only known files, and waits
        for source_id in sources:
            node_queues.post(order(site, source_id))
        wait_until(lambda: site.active, what="the run")
        node_queues.disconnect()  # the test's own connection would be blocked, too
        node.ctl(setting, low)
        low_now.set()
        try:
            wait_until(lambda: service.log.count("run ended") == 3, what="the end of the runs with new files")
            wait_until(lambda: "the broker takes no messages for now" in service.log, what="the line about the alarm")
            doctor = machine.run("doctor")
            assert doctor.returncode == 6
            assert re.search(rf"✗ broker .*takes no messages for now: low on {kind}; see", doctor.stdout)
            wait_until(lambda: service.log.count("run started") == 1 + len(sources), what="all runs")
            if kind == "memory":
                begun = time.monotonic()
                assert service.stop() == 0
                assert time.monotonic() - begun < 5
                assert service.log.count("the broker takes no messages for now") == 1
        finally:
            node.ctl(setting, usual)
        node_queues.connect()
        if kind == "memory":
            service.start()
        wait_for_ends(node_queues, 1 + len(sources))
        assert len(without_repetitions(node_queues.take("downloaded"))) == 60
        assert len(without_repetitions(node_queues.take("skipped"))) == (20 if 1 in sources else 0)
        assert service.log.count("the broker takes no messages for now") == 1
        assert service.log.count("the broker takes messages again") == (kind == "disk")
        assert NO_BROKER not in service.log


# Told to stop


def test_an_order_in_hand_is_finished_when_the_service_is_told_to_stop(
    install: Callable[..., Installation], queues: Queues
) -> None:
    """Journalled and acked, although it came just then: an order without an id would be journalled again otherwise."""
    machine = install(**queues.settings)
    with FaultySite(posts(1)) as site, Service(machine) as service:
        wait_until(lambda: CONNECTED in service.log, what="the broker")
        with locked(machine):
            queues.post(order(site))
            wait_until(lambda: queues.count("orders") == 0, what="the delivery")
            time.sleep(0.5)  # from outside nobody sees that it has come to the lock
            assert service.process is not None
            service.process.terminate()
            wait_until(lambda: "stopping" in service.log, what="the signal")
        assert service.process.wait(30) == 0
        service.process = None
        # On a machine that is very busy it may have been on its way still: then it was given back, and not journalled.
        assert (journalled(machine), queues.count("orders")) in [(1, 0), (0, 1)]


# Too much


def test_orders_of_a_megabyte_each(install: Callable[..., Installation], queues: Queues) -> None:
    """They go to the queue of rejected orders as they came, cost little memory, and hold up no good order."""
    queues.declare_orders()
    machine = install(**queues.settings)
    for number in range(60):
        queues.publish(b"%d" % number + b" " * 1_000_000)
    with FaultySite(posts(1)) as site, Service(machine) as service:
        queues.post(order(site))
        queues.wait_for("synchronized", 1)
        queues.wait_for("rejected", 60)
        rejected = queues.take("rejected")
        assert {message.headers["reason"] for message in rejected} == {"too-large"}
        assert {message.body for message in rejected} == {b"%d" % number + b" " * 1_000_000 for number in range(60)}
        assert most_memory(service) < 400
        assert NO_BROKER not in service.log


def test_a_bad_order_that_the_broker_does_not_take_back(
    install: Callable[..., Installation], node: BrokerNode, node_queues: NodeQueues
) -> None:
    """Its limit is lower than it was: the order stays at the broker, and neither connection nor good orders suffer."""
    node_queues.declare_orders()
    node_queues.publish(50_000 * b"x", message_id="bad")
    node.ctl("eval", "application:set_env(rabbit, max_message_size, 10000).")
    try:
        machine = install(**node_queues.settings)
        with FaultySite(posts(1)) as site, Service(machine) as service:
            wait_until(lambda: "a rejected order stays at the broker" in service.log, what="the line about the order")
            for source_id in (1, 2, 3):
                node_queues.post(order(site, source_id))
            node_queues.wait_for("synchronized", 3)
            assert service.stop() == 0
            assert NO_BROKER not in service.log
            assert service.log.count("larger than configured max size 10000") == 1
            assert node_queues.counts() == dict.fromkeys(node_queues.names, 0) | {
                "orders": 1,
                "downloaded": 3,
                "synchronized": 3,
            }
    finally:
        node.ctl("eval", "application:set_env(rabbit, max_message_size, 134217728).")


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_flood_of_ten_thousand_orders(install: Callable[..., Installation], queues: Queues) -> None:
    """The service takes them a few at a time, ends at once when it is told to, and has journalled each one once."""
    queues.declare_orders()
    machine = install(**queues.settings, SYNC_CONCURRENCY=1, SHUTDOWN_GRACE=1)
    with FaultySite(posts(1)) as site:
        for number in range(10_000):
            # Half of them without an id: what was journalled and not acked would be journalled again.
            named = {"message_id": f"order {number}"} if number % 2 else {}
            queues.publish(order(site, 1 + number % 500), **named)
        queues.wait_for("orders", 10_000)
        service = Service(machine).start()
        try:
            before = memory(service)
            wait_until(lambda: queues.count("orders") < 7000, 600, "the first orders")
            waiting = queues.count("orders")
            assert waiting + journalled(machine) >= 9900  # few are in its hands
            assert memory(service) < before + 40
            begun = time.monotonic()
            assert service.stop() == 0
            assert time.monotonic() - begun < 10
            assert journalled(machine) + queues.count("orders") == 10_000
            service.start()
            wait_until(lambda: queues.count("orders") == 0, 600, "the other orders")
            wait_until(lambda: journalled(machine) == 10_000, what="the last orders")
            assert memory(service) < before + 40
            assert runs_made(machine) < 5_000  # most have joined
            assert NO_BROKER not in service.log
        finally:
            service.kill()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_long_run_of_known_files_waits_for_the_broker(install: Callable[..., Installation], queues: Queues) -> None:
    """10,000 skips, and no broker: some batches wait in memory, the gallery process waits with the rest."""
    with Proxy(PORT) as line, FaultySite(posts(10_000)) as site:
        machine = install(**queues.settings | {"RABBITMQ_PORT": str(line.port)}, RUN_STALL_TIMEOUT=5)
        with Service(machine) as service:
            queues.post(order(site))
            queues.wait_for("synchronized", 1, timeout=400)
            assert queues.purge("downloaded") == 10_000
            site.listing_latency = 0.5
            before = memory(service)
            queues.post(order(site))
            wait_until(lambda: site.active, what="the run")
            line.refuse()
            line.cut()
            wait_until(lambda: NO_BROKER in service.log, what="the line about the broker")
            site.listing_latency = 0
            pages = settled(lambda: len(site.requests("/posts.json")))
            worked, begun = seconds_of_work(service), time.monotonic()
            assert pages < 2 * 10_000 / 200  # of both runs
            assert memory(service) < before + 30
            wait_until(lambda: time.monotonic() - begun > 6, what="longer than a run may stall")
            assert seconds_of_work(service) - worked < 1
            line.accept()
            wait_for_ends(queues, 2)
            assert len(without_repetitions(queues.take("skipped"))) == 10_000
            assert service.log.count(NO_BROKER) == 1


def wait_for_ends(queues: Queues, count: int) -> None:
    """Until `count` different runs are told of as synchronized: after an outage some may be told of twice."""
    runs: set[str] = set()

    def all_told() -> bool:
        if queues.count("synchronized"):  # which may not be there yet
            runs.update(message.headers["run_id"] for message in queues.take("synchronized"))
        return len(runs) >= count

    wait_until(all_told, 60, f"the ends of {count} runs")


def declare_full(queues: Queues, name: str, most: int) -> None:
    arguments: dict[str, Any] = {"x-max-length": most, "x-overflow": "reject-publish"}
    queues.channel.queue_declare(queues.names[name], durable=True, arguments=arguments)


def settled(count: Callable[[], int]) -> int:
    """A number that has not changed for two seconds."""
    last, since = count(), time.monotonic()

    def is_still() -> bool:
        nonlocal last, since
        if (now := count()) != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 2

    wait_until(is_still, 60, "an end of the requests")
    return last


def seconds_of_work(service: Service) -> float:
    """CPU time of the service process so far."""
    fields = Path(f"/proc/{service.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(service: Service) -> float:
    """MiB of the service process now."""
    return _status(service, "RssAnon")


def most_memory(service: Service) -> float:
    return _status(service, "VmHWM")


def _status(service: Service, field: str) -> float:
    found = re.search(rf"^{field}:\s+(\d+) kB", Path(f"/proc/{service.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


@contextlib.contextmanager
def locked(machine: Installation) -> Iterator[None]:
    """Nobody else can write into the catalog."""
    path = machine.runtime / "catalog.sqlite3"
    with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as catalog:
        catalog.execute("BEGIN IMMEDIATE")
        yield
        catalog.execute("ROLLBACK")


def journalled(machine: Installation) -> int:
    return _ask(machine, "SELECT count(*) FROM orders")


def runs_made(machine: Installation) -> int:
    return _ask(machine, "SELECT count(*) FROM runs")


def _ask(machine: Installation, question: str) -> int:
    with contextlib.closing(sqlite3.connect(machine.runtime / "catalog.sqlite3", timeout=30)) as catalog:
        return int(catalog.execute(question).fetchone()[0])
