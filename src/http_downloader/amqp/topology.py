"""The exchange and the queues that we need, and making sure that they are there.

A queue or an exchange that exists is used exactly as it is: declaring it again with other arguments
closes the channel (406), and deployments that are older than this program made theirs by other rules.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

NOT_FOUND = 404
DIFFERENT = 406
SHUTTING_DOWN = 320  # CONNECTION_FORCED: says nothing about what was asked


class BrokerRefused(Exception):
    """The broker refuses a queue, an exchange or a binding; the sentence names it, in the broker's words."""

    def __init__(self, what: str, code: int, words: str) -> None:
        super().__init__(f"the broker refuses {what}: {words}")
        self.code = code
        self.words = words


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """What must exist at the broker.

    exchange: empty for the default exchange, which routes to every queue by its name without bindings.
    durable, quorum: for queues that have to be made; an exchange that has to be made is durable in any case, and so is
    a quorum queue.
    """

    exchange: str
    queues: tuple[str, ...]
    durable: bool
    quorum: bool = False

    def arguments(self, broker: Mapping[str, Any]) -> dict[str, object]:
        """Of a queue that is to be made at a broker that says this of itself."""
        if not self.quorum:
            return {"durable": self.durable}
        arguments: dict[str, object] = {"x-queue-type": "quorum"}
        # From 4.0 on a quorum queue drops a message that came back 20 times, an order of ours included. Before that
        # there was no limit, and -1 was refused.
        version = re.match(r"\d+", str(broker.get("version")))
        if broker.get("product") == "RabbitMQ" and version is not None and int(version[0]) >= 4:
            arguments["x-delivery-limit"] = -1
        return {"durable": True, "arguments": arguments}


async def ensure(connection: AsyncioConnection, topology: Topology) -> set[str]:
    """Make what is missing of `topology`, and bind every queue under its own name. Returns the queues that were missing.

    Raises BrokerRefused, or pika's AMQPError when the connection is lost meanwhile.
    """
    exchange = topology.exchange
    if exchange:
        await _ensure_declared(
            connection,
            f"exchange {exchange!r}",
            "exchange_declare",
            {"exchange": exchange},
            {"exchange_type": "direct", "durable": True},
        )
    made = set()
    for queue in topology.queues:
        if await _ensure_declared(
            connection,
            f"queue {queue!r}",
            "queue_declare",
            {"queue": queue},
            topology.arguments(connection.server_properties or {}),
        ):
            made.add(queue)
        if exchange:
            binding = f"the binding of queue {queue!r} to exchange {exchange!r}"
            names = {"queue": queue, "exchange": exchange, "routing_key": queue}
            await ask_apart(connection, binding, "queue_bind", **names)
    return made


async def differences(connection: AsyncioConnection, topology: Topology) -> dict[str, str]:
    """The queues that are there and are not as we would make them, and what the broker says of each."""
    found = {}
    for queue in topology.queues:
        try:
            arguments = topology.arguments(connection.server_properties or {})
            await ask_apart(connection, f"queue {queue!r}", "queue_declare", queue=queue, **arguments)
        except BrokerRefused as refusal:
            if refusal.code == DIFFERENT:  # not that we may make none
                found[queue] = refusal.words
    return found


async def _ensure_declared(
    connection: AsyncioConnection, what: str, declare: str, name: dict[str, str], arguments: dict[str, object]
) -> bool:
    """Whether it was missing."""
    try:
        await ask_apart(connection, what, declare, **name, passive=True)
    except BrokerRefused as refusal:
        if refusal.code != NOT_FOUND:
            raise
        await ask_apart(connection, what, declare, **name, **arguments)
        return True
    return False


async def ask_apart(connection: AsyncioConnection, what: str, method: str, **arguments: object) -> Any:
    """Ask on a channel of its own, because a refusal closes the channel; gives the broker's answer frame.

    Raises BrokerRefused, which names `what`, or pika's AMQPError when the connection is lost meanwhile.
    """
    channel = None
    try:
        channel = await open_channel(connection)
        return await ask(channel, method, **arguments)
    except (ChannelClosedByBroker, ConnectionClosedByBroker) as refusal:
        # RabbitMQ closes the whole connection over features that it has switched off.
        if refusal.reply_code == SHUTTING_DOWN:
            raise
        raise BrokerRefused(what, refusal.reply_code, refusal.reply_text) from None
    finally:
        if channel is not None and channel.is_open:
            channel.close()


async def open_channel(connection: AsyncioConnection) -> Channel:
    """Raises pika's AMQPError when the connection is not open, or is lost meanwhile."""
    opened: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
    channel = connection.channel(on_open_callback=lambda channel: settle(opened, channel))
    channel.add_on_close_callback(lambda _channel, reason: fail(opened, reason))
    return await opened


async def ask(channel: Channel, method: str, **arguments: object) -> Any:
    """Call one of pika's channel methods that take a callback, and wait for the broker's answer frame.

    Raises pika's AMQPError when the channel is closed, or is closed before the answer comes.
    """
    answered: asyncio.Future[pika.frame.Method] = asyncio.get_running_loop().create_future()
    getattr(channel, method)(**arguments, callback=lambda frame: settle(answered, frame))
    # pika never answers for a channel that goes away, it only says that it went.
    channel.add_on_close_callback(lambda _channel, reason: fail(answered, reason))
    return await answered


def settle(future: asyncio.Future[Any], value: object = None) -> None:
    """Set a result that may come too late: whoever waited may have been cancelled."""
    if not future.done():
        future.set_result(value)


def fail(future: asyncio.Future[Any], reason: Exception) -> None:
    """Set an exception that may come too late, as with `settle`."""
    if not future.done():
        future.set_exception(reason)
