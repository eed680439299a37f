"""Sites, a broker, a service, and all that can happen to them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pika
import sqlalchemy as sa

from http_downloader.catalog.address import make_engine
from http_downloader.demo.pictures import picture
from tests.broker_node import BrokerNode
from tests.databases import end_connections, locked
from tests.installation import Installation, Service, gallery_processes, wait_until
from tests.proxy import Proxy
from tests.site import FaultySite, Post, cut, hang_up, status

from .plan import SITES, SOURCES_PER_SITE, Change, Life, Mishap, Round, Trouble
from .promises import Observed, Row, Told

ORDERS, EVENTS = "torture.orders", "torture.events"
REJECTED = f"{ORDERS}.rejected"
SHORT_SERVICE = 1.5
"""Seconds that a service with a failpoint has, after its last mishap, to come to that point."""
LONGEST_DRAIN = 240.0

SETTINGS: dict[str, object] = {
    "AMQP_Q_SYNC_HTTP_SRC_ORDERS": ORDERS,
    # All in one queue: what it holds is the order in which the broker took them.
    "AMQP_Q_FILE_DOWNLOADED": EVENTS,
    "AMQP_Q_FILE_DOWNLOAD_SKIPPED": EVENTS,
    "AMQP_Q_SOURCE_SYNCHRONIZED": EVENTS,
    "AMQP_Q_SOURCE_SYNC_FAILED": EVENTS,
    "AMQP_Q_FILE_REMOVED": EVENTS,
    "REMOTE_DELETES": "trash",
    "REMOVAL_MIN_AGE": 0,
    "REMOVAL_MAX_SHARE": 100,
    "REMOVAL_MAX_COUNT": 100_000,
    "SYNC_ATTEMPTS": 100,
    "SYNC_RETRY_DELAY": 0.05,
    "SHUTDOWN_GRACE": 1,
}
TEMPLATE = {
    "extractor": {"sleep-request": 0, "retries": 1, "timeout": 10, "Danbooru": {"sleep-request": 0}},
    "downloader": {"retries": 1, "timeout": 10},
}
GARBAGE = (
    b"",
    b"{",
    b'{"source_id": 0}',
    b"\xff\xfe",
    b'{"source_id": 1, "url": "file:///etc/passwd", "content_path": "x"}',
)


class World:
    """`troubles` counts what happened, `seen` is what is known of it."""

    def __init__(
        self,
        home: Path,
        node: BrokerNode,
        catalog: str,
        workers: int = 1,
        sites: Sequence[FaultySite] | None = None,
        sources_per_site: int = SOURCES_PER_SITE,
        **settings: object,
    ) -> None:
        """`catalog`: the URL of an empty database. Sources count from 1, those of the first site first."""
        self.troubles: Counter[str] = Counter()
        self.seen = Observed()
        self.files = 0
        self._node = node
        self._proxy = Proxy(node.port)
        self._url = catalog
        self._catalog = make_engine(catalog)
        self._machines = [self._machine_of(home, number, settings) for number in range(workers)]
        self._content = self._machines[0].content
        self._outside = home / "outside"
        self._outside.mkdir()
        for name in ("a.jpg", "b.txt"):
            (self._outside / name).write_text(name)
        self._sites = [FaultySite() for _ in range(SITES)] if sites is None else sites
        self._sources_per_site = sources_per_site
        self._sources = range(1, len(self._sites) * sources_per_site + 1)
        self._next_post = 1
        self.running: dict[int, Service] = {}
        """The services that have been started and not ended yet, by the number of their machine."""
        self._services: list[Service] = []
        """Those of this round."""
        self._posts: dict[int, dict[int, Post]] = {source: {} for source in self._sources}
        self._ended_before: set[str] = set()

    def _machine_of(self, home: Path, number: int, settings: Mapping[str, object]) -> Installation:
        """They share the broker, the catalog, the mirror and the configuration, and nothing else."""
        address = f"amqp://guest:guest@127.0.0.1:{self._proxy.port}/%2F?heartbeat=5"
        machine = Installation(home / f"machine{number}", **SETTINGS, AMQP_URL=address, DATABASE_URL=self._url)
        machine.configure(TEMPLATE)
        first = home / "machine0"
        machine.set(CONTENT_ROOT=first / "content", CONFIG_PATH=first / "config", **settings)
        return machine

    def __enter__(self) -> Self:
        for site in self._sites:
            site.start()
        for source in self._sources:
            folder = self.seen.folders[source] = f"galleries/{source}"
            self.seen.listed[source], self.seen.ever[source] = {}, {}
            foreign = self._content / folder / "holiday.txt"
            foreign.parent.mkdir(parents=True, exist_ok=True)
            foreign.write_text(f"mine {source}")
            self.seen.foreign[f"{folder}/holiday.txt"] = _hash(foreign)
        with self._channel() as channel:
            for queue in (ORDERS, EVENTS, REJECTED):
                channel.queue_declare(queue, durable=True)
                channel.queue_purge(queue)  # of a world before this one, at the same node
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for service in self.running.values():
            service.kill()
        self._proxy.close()
        for site in self._sites:
            site.stop()
        self._catalog.dispose()

    @property
    def log(self) -> str:
        """What all services have logged, as far as it was kept."""
        return "".join(service.log for service in self._services)

    # One round

    def play(self, plan: Round) -> None:
        """Let everything of a round happen, put all in order again, and wait until nothing is left to do."""
        for service in self._services:
            service.log_file.unlink(missing_ok=True)
        self._services.clear()
        for change in plan.changes:
            self.change(change)
        for site in self._sites:
            site.file_latency = plan.file_latency
        self.post(plan.orders, plan.garbage)
        for number, life in enumerate(plan.lives):
            self._live(life, plan.later_orders if number == 0 else ())
        for site in self._sites:
            site.clear_rules()
            site.file_latency = 0.0
        self.start_all()
        self.drain()
        for number in list(self.running):
            self.stop(number)
        self.look()

    def change(self, change: Change) -> None:
        """The galleries as they are from now on, until the next change."""
        posts, site = self._posts[change.source], self._site(change.source)
        gone = sorted(posts)[: int(len(posts) * change.removed)]
        site.remove(*gone)
        for number in gone:
            del posts[number]
        for size in change.added:
            number, self._next_post = self._next_post, self._next_post + 1
            body = picture(number, 16, 16)
            body += random.Random(number).randbytes(max(size - len(body), 0))
            posts[number] = Post(id=number, tags=(f"s{change.source}",), folder=f"s{change.source}", body=body)
            self.files += 1
        site.add(*posts.values())
        listed = {_name(site, post): hashlib.sha256(post.content()).hexdigest() for post in posts.values()}
        self.seen.listed[change.source] = listed
        self.seen.ever[change.source] |= listed
        self.seen.ordered.discard(change.source)

    def post(self, sources: Iterable[int], garbage: int = 0) -> None:
        with self._channel() as channel:
            channel.confirm_delivery()
            for source in sources:
                order = {
                    "source_id": source,
                    "url": f"Danbooru:{self._site(source).root}/posts?tags=s{source}",
                    "content_path": self.seen.folders[source],
                }
                self.seen.posted[_publish(channel, json.dumps(order).encode())] = source
                self.seen.ordered.add(source)
            for number in range(garbage):
                body = GARBAGE[number % len(GARBAGE)]
                self.seen.garbage[_publish(channel, body)] = body

    def _live(self, life: Life, orders: tuple[int, ...]) -> None:
        for number in list(self.running):
            self.kill(number)
        self.start(0, life.fault)
        self.start_all()
        began = time.monotonic()
        if orders:
            self.post(orders)
        for mishap in life.mishaps:
            self._wait(began + mishap.at)
            if self.running:
                self._happen(mishap)
        if life.fault:
            self._wait(time.monotonic() + SHORT_SERVICE)
            if 0 in self.running:  # it may never come to its point
                self.kill(0)

    def _wait(self, until: float) -> None:
        """Until then, or until a failpoint was reached."""
        while time.monotonic() < until and not self._has_died():
            time.sleep(0.02)

    def _has_died(self) -> bool:
        dead = [number for number, service in self.running.items() if service.has_ended()]
        for number in dead:
            self._note_end(self.running.pop(number))
        return bool(dead)

    def _note_end(self, service: Service) -> None:
        """Only a failpoint may have ended it."""
        assert service.process is not None
        code = service.process.wait()
        assert code == -signal.SIGKILL, f"the service ended with exit code {code}:\n{service.log[-3000:]}"
        self.troubles[Trouble.FAILPOINT] += 1

    # What happens

    def _happen(self, mishap: Mishap) -> None:
        numbers = list(self.running)
        number = numbers[int(mishap.choice * len(numbers))]
        match mishap.trouble:
            case Trouble.KILL_SERVICE:
                self.kill(number)
                self.start(number, "")
                return
            case Trouble.STOP_SERVICE:
                self.stop(number)
                self.start(number, "")
            case Trouble.KILL_GALLERY:
                if not self._kill_gallery(self.running[number], mishap.choice):
                    return
            case Trouble.BROKER_RESTART | Trouble.BROKER_KILL:
                self._node.stop() if mishap.trouble is Trouble.BROKER_RESTART else self._node.kill()
                self._node.start()
            case Trouble.BROKER_HANG:
                self._node.pause()
                self._wait(time.monotonic() + 1)
                self._node.resume()
            case Trouble.CUT:
                self._proxy.cut()
            case Trouble.CUT_BEFORE_CONFIRM:
                self._proxy.hold_answers()
                self._wait(time.monotonic() + 0.3)
                self._proxy.cut()
                self._proxy.resume()
            case Trouble.REFUSE:
                self._proxy.refuse()
                self._proxy.cut()
                self._wait(time.monotonic() + 0.5)
                self._proxy.accept()
            case Trouble.SITE_ERRORS:
                site = self._sites[int(mishap.choice * len(self._sites))]
                dice = random.Random(mishap.choice)
                path = dice.choice((r"/posts\.json", "/data/"))
                action = dice.choice((status(503), status(500), hang_up(), cut(), status(429, {"Retry-After": "1"})))
                site.rule(path, action, times=dice.randint(1, 6))
            case Trouble.SITE_DOWN:
                site = self._sites[int(mishap.choice * len(self._sites))]
                site.stop()
                self._wait(time.monotonic() + 1)
                site.start()
            case Trouble.CATALOG_LOCKED:
                with locked(self._url, "UPDATE catalog SET id = id"):
                    self._wait(time.monotonic() + 1)
            case Trouble.CATALOG_CUT:
                if self._catalog.dialect.name == "sqlite" or not end_connections(self._url):
                    return
        self.troubles[mishap.trouble] += 1

    def _kill_gallery(self, service: Service, choice: float) -> bool:
        try:
            found = gallery_processes(service.pid)
            os.kill(found[int(choice * len(found))], signal.SIGKILL)
        except (OSError, IndexError):  # the service has come to its failpoint, or has none
            return False
        return True

    # The services

    def start(self, number: int, fault: str) -> None:
        machine = self._machines[number]
        machine.set(FAULT_AT=fault)
        service = Service(machine)
        self._services.append(service)
        if "=" in fault:
            self.troubles[Trouble.DISK] += 1
        self.running[number] = service.start()

    def start_all(self) -> None:
        for number in range(len(self._machines)):
            if number not in self.running:
                self.start(number, "")

    def kill(self, number: int) -> None:
        self.running.pop(number).kill()
        self.troubles[Trouble.KILL_SERVICE] += 1

    def stop(self, number: int) -> None:
        service = self.running.pop(number)
        code = service.stop(90)
        if code == -signal.SIGKILL:
            self.troubles[Trouble.FAILPOINT] += 1  # on its way to the end
            return
        assert code == 0, f"the service ended with exit code {code}:\n{service.log[-3000:]}"

    def drain(self) -> None:
        """Until every order is answered, and every event out."""
        wait_until(self._is_at_rest, LONGEST_DRAIN, "the end of all runs")

    def _is_at_rest(self) -> bool:
        for service in self.running.values():
            assert not service.has_ended(), f"the service has ended:\n{service.log[-3000:]}"
        time.sleep(0.1)
        with self._channel() as channel:
            if channel.queue_declare(ORDERS, passive=True).method.message_count:
                return False
            rejected = channel.queue_declare(REJECTED, passive=True).method.message_count
        if rejected + len(self.seen.rejected) < len(self.seen.garbage):
            return False
        with self.reading() as db:
            known = {row[0] for row in db("SELECT message_id FROM orders")}
            open_runs = db("SELECT count(*) FROM runs WHERE state IN ('queued', 'running')")[0][0]
            outbox = db("SELECT count(*) FROM outbox")[0][0]
        return not open_runs and not outbox and known >= self.seen.posted.keys()

    # What came of it

    def look(self) -> None:
        seen = self.seen
        before = self._ended_before
        with self.reading() as db:
            identity = db("SELECT id FROM catalog")[0][0]
            seen.runs = {f"{identity}-{run}": state for run, state in db("SELECT id, state FROM runs")}
            seen.journal = {}
            for message_id, run in db("SELECT message_id, run_id FROM orders"):
                seen.journal.setdefault(message_id, set()).add(f"{identity}-{run}")
            seen.rows = [
                Row(source_id=row[0], path=row[1], state=row[2], sha256=row[3], trash_path=row[4])
                for row in db("SELECT source_id, path, state, sha256, trash_path FROM files WHERE path IS NOT NULL")
            ]
        seen.this_round = seen.runs.keys() - before
        self._ended_before = set(seen.runs)
        with self._channel() as channel:
            seen.events += [_told(properties, body) for properties, body in _take(channel, EVENTS)]
            seen.rejected |= {str(properties.message_id): body for properties, body in _take(channel, REJECTED)}
        seen.disk = {
            str(file.relative_to(self._content)): _hash(file)
            for file in self._content.rglob("*")
            if file.is_file() and ".http-downloader" not in file.parts
        }
        seen.outside = {
            file.name: "was changed"
            for file in self._outside.iterdir()
            if file.name not in ("a.jpg", "b.txt") or file.read_text() != file.name
        }
        expected = {"content", "config", "runtime"}
        seen.outside |= {
            file.name: "was made"
            for machine in self._machines
            for file in machine.home.iterdir()
            if file.name not in expected and not file.name.startswith("serve-")
        }
        seen.outside |= {
            f"runs/{folder.name}": "is left although its run has ended"
            for machine in self._machines
            for folder in machine.runtime.glob("runs/*")
        }
        seen.processes = _left_over(self._content)

    @contextlib.contextmanager
    def reading(self) -> Iterator[Callable[[str], Sequence[Any]]]:
        with self._catalog.connect() as db:
            yield lambda question: db.execute(sa.text(question)).all()

    def _site(self, source: int) -> FaultySite:
        return self._sites[(source - 1) // self._sources_per_site]

    @contextlib.contextmanager
    def _channel(self) -> Iterator[Any]:
        """Straight to the broker, past the proxy."""
        with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", self._node.port)) as connection:
            yield connection.channel()


def _publish(channel: Any, body: bytes) -> str:
    message_id = str(uuid.uuid4())
    properties = pika.BasicProperties(delivery_mode=2, message_id=message_id)
    channel.basic_publish("", ORDERS, body, properties, mandatory=True)
    return message_id


def _take(channel: Any, queue: str) -> Iterator[tuple[pika.BasicProperties, bytes]]:
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return
        yield properties, body


def _told(properties: pika.BasicProperties, body: bytes) -> Told:
    facts, headers = json.loads(body), properties.headers or {}
    return Told(
        type=str(properties.type),
        message_id=str(properties.message_id),
        run_id=headers.get("run_id", ""),
        source_id=facts["source_id"],
        filename=facts.get("filename"),
        orders=tuple(headers.get("orders", ())),
    )


def _name(site: FaultySite, post: Post) -> str:
    return f"{site.root.removeprefix('http://')}_{post.id}_{post.md5}.png"


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _left_over(content: Path) -> list[str]:
    """Processes that were started with this CONTENT_ROOT. A killed service's children end within a moment."""
    mark = f"CONTENT_ROOT={content}".encode()
    until = time.monotonic() + 5
    while True:
        found = []
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with contextlib.suppress(OSError):
                    if mark in (process / "environ").read_bytes().split(b"\0"):
                        found.append(process.name)
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.05)
