"""Messages as the bytes that go to the broker: what pika's basic_publish writes, for many messages at once.

pika encodes every message from its beginning, and hands each of its frames to the system by itself. Nearly all messages
of a batch differ in their id and body only, and are written together here: that is a third of the work, for the
broker as well.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import pika
from pika import exceptions, frame, spec

PERSISTENT = 2
LONGEST_SHORT_STRING = 255
"""Bytes of a property such as correlation_id; a longer one closes the channel."""

_FRAME = struct.Struct(">BHI")
_CONTENT = struct.Struct(">HxxQ")
_END = bytes([spec.FRAME_END])
_MARK: Any = b"here goes the message id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """One message to publish.

    properties: may be those of a received message; persistence and message id are set on a copy of them. Messages
    that share them are encoded faster.
    """

    routing_key: str
    body: bytes
    message_id: str
    properties: pika.BasicProperties = field(default_factory=pika.BasicProperties)


def published(messages: Sequence[Outgoing], *, exchange: str, channel_number: int, longest_body: int) -> bytes:
    """The frames of all messages, each one persistent and mandatory. longest_body: bytes in one frame.

    Raises pika's AMQPError for a message that AMQP cannot express (a name over 255 bytes).
    """
    pieces: list[bytes] = []
    properties = None
    before = after = b""
    for message in messages:
        if message.properties is not properties:
            properties = message.properties
            before, after = _around_message_id(properties)
        message_id = message.message_id.encode()
        if len(message_id) > LONGEST_SHORT_STRING:
            raise exceptions.ShortStringTooLong(message_id)
        size = _CONTENT.size + len(before) + 1 + len(message_id) + len(after)
        pieces += (
            _method(channel_number, exchange, message.routing_key),
            _FRAME.pack(spec.FRAME_HEADER, channel_number, size),
            _CONTENT.pack(spec.BasicProperties.INDEX, len(message.body)),
            before,
            bytes([len(message_id)]),
            message_id,
            after,
            _END,
        )
        for start in range(0, len(message.body), longest_body):
            part = message.body[start : start + longest_body]
            pieces += _FRAME.pack(spec.FRAME_BODY, channel_number, len(part)), part, _END
    return b"".join(pieces)


@lru_cache(maxsize=64)
def _method(channel_number: int, exchange: str, routing_key: str) -> bytes:
    publish = spec.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True)
    return bytes(frame.Method(channel_number, publish).marshal())


def _around_message_id(properties: pika.BasicProperties) -> tuple[bytes, bytes]:
    """The encoded properties, cut where the length of the message id stands."""
    marked = copy.copy(properties)
    marked.message_id = _MARK
    marked.delivery_mode = PERSISTENT
    marked.user_id = None  # of a message passed on: the broker closes the channel over any name but ours
    pieces = marked.encode()
    place = next(index for index, piece in enumerate(pieces) if piece is _MARK)
    return b"".join(pieces[: place - 1]), b"".join(pieces[place + 1 :])
