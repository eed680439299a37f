"""Publishing with nothing around it: what the broker and its client cost by themselves."""

from __future__ import annotations

import asyncio
import itertools
import json
import time
import uuid
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection

from tests.queues import PORT

CHUNK = 500
"""Messages that are written before the loop reads confirms."""


def publish_confirmed(queue: str, count: int) -> float:
    """Seconds in which so many events are published, persistent, and all confirmed. Connecting does not count."""
    return asyncio.run(_publish(queue, [_event(number) for number in range(count)]))


def _event(number: int) -> tuple[bytes, pika.BasicProperties]:
    """Like ours: the same body, and properties of the same kinds."""
    body = json.dumps({"source_id": 1, "filename": f"127.0.0.1:12345_{number}_{number:08}.jpg"}).encode()
    return body, pika.BasicProperties(
        content_type="application/json",
        delivery_mode=2,
        message_id=str(uuid.UUID(int=number)),
        correlation_id=str(uuid.UUID(int=0)),
        type="file-skipped",
        timestamp=int(time.time()),
        headers={"run_id": "00000000-1"},
    )


async def _publish(queue: str, events: list[tuple[bytes, pika.BasicProperties]]) -> float:
    loop = asyncio.get_running_loop()
    opened: asyncio.Future[Any] = loop.create_future()
    ready: asyncio.Future[Any] = loop.create_future()
    all_confirmed: asyncio.Future[None] = loop.create_future()
    waiting = dict.fromkeys(range(1, len(events) + 1))

    def confirm(frame: Any) -> None:
        tag = frame.method.delivery_tag
        tags = list(itertools.takewhile(lambda one: one <= tag, waiting)) if frame.method.multiple else [tag]
        for one in tags:
            waiting.pop(one, None)
        if not waiting and not all_confirmed.done():
            all_confirmed.set_result(None)

    connection = AsyncioConnection(pika.ConnectionParameters("127.0.0.1", PORT), on_open_callback=opened.set_result)
    await opened
    channel: Any = connection.channel(on_open_callback=lambda _: channel.confirm_delivery(confirm, ready.set_result))
    await ready
    began = time.perf_counter()
    for number, (body, properties) in enumerate(events, 1):
        channel.basic_publish("", queue, body, properties, mandatory=True)
        if number % CHUNK == 0:
            await asyncio.sleep(0)
    await all_confirmed
    took = time.perf_counter() - began
    connection.close()
    await asyncio.sleep(0.05)
    return took
