"""In the predecessor's place: its queues, its consumers, its folder and its configuration, all as they are."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aio_pika
import pytest
from aio_pika.abc import AbstractChannel, AbstractIncomingMessage

from http_downloader.gallery.config import PLACEHOLDER
from tests.installation import Installation, Service
from tests.queues import PORT, Queues
from tests.site import FaultySite, Post

EVENTS = ("downloaded", "skipped", "synchronized")
PATIENCE = 60


class OldConsumer:
    """Written years ago with another AMQP library: decodes each body by itself, and takes nothing else for an event."""

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self._arrived = asyncio.Event()
        self.bodies: dict[str, list[dict[str, Any]]] = {name: [] for name in EVENTS}
        self.complaints: list[str] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[AbstractChannel]:
        async with await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{PORT}/") as connection:
            channel = await connection.channel()
            for name in EVENTS:
                queue = await channel.get_queue(self._queues.names[name])
                await queue.consume(self._callback(name))
            yield channel

    def _callback(self, name: str) -> Callable[[AbstractIncomingMessage], Any]:
        async def take(message: AbstractIncomingMessage) -> None:
            async with message.process():
                keys = {"source_id"} if name == "synchronized" else {"source_id", "filename"}
                body = json.loads(message.body.decode())
                if message.content_type is not None or set(body) != keys:
                    self.complaints.append(f"{name}: {message.content_type} {message.body!r}")
                self.bodies[name].append(body)
                self._arrived.set()

        return take

    async def wait_for(self, name: str, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.bodies[name]) < count:
                self._arrived.clear()
                await self._arrived.wait()

    def counts(self) -> tuple[int, ...]:
        return tuple(len(self.bodies[name]) for name in EVENTS)


@pytest.fixture
def old_queues() -> Iterator[Queues]:
    """As the predecessor made them: not durable, on a durable direct exchange, each bound under its own name."""
    with Queues() as queues:
        queues.exchange = f"test.{queues.mark}"
        queues.channel.exchange_declare(queues.exchange, "direct", durable=True)
        for name in ("orders", *EVENTS):
            queues.channel.queue_declare(queues.names[name], durable=False)
            queues.channel.queue_bind(queues.names[name], queues.exchange)
        yield queues


def old_template(marks: Path) -> dict[str, Any]:
    """The old template with its placeholders at every level, and with three post-processors of the operator's own."""
    after = {"name": "exec", "event": "after", "command": PLACEHOLDER}
    skip = {"name": "exec", "event": "skip", "command": [PLACEHOLDER, "{_path}"]}
    return {
        "extractor": {
            "postprocessors": [after, skip, "old hook", "own skip"],
            "Danbooru": {
                "sleep-request": 0,
                "postprocessors": [
                    skip,
                    {"name": "exec", "event": ["after", "skip"], "commands": [PLACEHOLDER, [PLACEHOLDER]]},
                    {"name": "exec", "event": "after", "command": ["touch", f"{marks}/after {{id}}"]},
                    {"name": "metadata", "event": "after,skip", "base-directory": f"{marks}/", "directory": "metadata"},
                ],
            },
        },
        "postprocessor": {
            "old hook": {"name": "exec", "event": "skip,after", "command": PLACEHOLDER},
            "own skip": {"name": "exec", "event": "skip", "command": f"echo {{_filename}} >> '{marks}/skipped'"},
        },
    }


def set_traps(folder: Path, sprung: Path) -> None:
    """Programs of the names that a shell, or an execution without a shell, would look for."""
    folder.mkdir()
    for name in (PLACEHOLDER, PLACEHOLDER.split()[0]):
        program = folder / name
        program.write_text(f"#!/bin/sh\n: > '{sprung}'\n")
        program.chmod(0o755)


def test_a_galleries_deployment_goes_on(install: Callable[..., Installation], old_queues: Queues) -> None:
    """A full folder and an empty catalog: nothing is downloaded, all is announced as skipped, and old hooks never run."""
    machine = install(**old_queues.settings | {"AMQP_EVENT_CONTENT_TYPE": "", "AMQP_Q_SOURCE_SYNC_FAILED": ""})
    marks, sprung = machine.home / "marks", machine.home / "sprung"
    marks.mkdir()
    set_traps(machine.home / "bin", sprung)
    machine.set(PATH=f"{machine.home / 'bin'}{os.pathsep}{machine.env['PATH']}")
    machine.configure(old_template(marks))

    with FaultySite([Post(id=number) for number in range(1, 31)]) as site, Service(machine) as service:
        name = {post.id: f"{site.root.removeprefix('http://')}_{post.id}_{post.md5}.png" for post in site.posts}
        folder = machine.content / "portraits"
        folder.mkdir(parents=True)
        for post in site.posts:
            (folder / name[post.id]).write_bytes(post.content())
        before = machine.on_disk()
        order = {"source_id": 725, "url": f"Danbooru:{site.root}/posts?tags=demo", "content_path": "portraits/"}
        body = aio_pika.Message(json.dumps(order).encode())

        async def story() -> None:
            consumer = OldConsumer(old_queues)
            async with consumer.running() as channel:
                exchange = await channel.get_exchange(old_queues.exchange)

                await exchange.publish(body, old_queues.names["orders"])
                await consumer.wait_for("synchronized", 1)
                assert consumer.counts() == (0, 30, 1)
                assert {event["filename"] for event in consumer.bodies["skipped"]} == set(name.values())
                assert site.requests("^/data/") == []
                assert machine.on_disk() == before
                assert (marks / "skipped").read_text().split() == [name[number] for number in range(30, 0, -1)]

                site.add(Post(id=31))
                await exchange.publish(body, old_queues.names["orders"])
                await consumer.wait_for("synchronized", 2)
                assert consumer.counts() == (1, 60, 2)
                assert consumer.complaints == []

        asyncio.run(story())
        assert [post.path for post in site.requests("^/data/")] == [Post(id=31).path]
        assert (marks / "after 31").exists()
        assert len(list((marks / "metadata").iterdir())) == 31
        assert not sprung.exists()
        assert service.log.count("dropped 5 post-processor(s) with the placeholder command") == 2
        assert {row["filename"]: (row["size"], row["sha256"], row["state"]) for row in machine.files(725)} == {
            file.name: (file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest(), "present")
            for file in folder.iterdir()
        }
        assert_unchanged(old_queues)


def assert_unchanged(queues: Queues) -> None:
    """To declare what is there with other arguments would be a 406."""
    queues.channel.exchange_declare(queues.exchange, "direct", durable=True)
    for name in ("orders", *EVENTS):
        queues.channel.queue_declare(queues.names[name], durable=False)
