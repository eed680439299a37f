"""Bytes on the wire: events become messages, deliveries become orders. Nothing is decided here."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pika

from ..domain.errors import OrderRejected
from ..domain.events import Event, EventType
from ..domain.orders import HIGHEST_PRIORITY
from .deliveries import Delivery
from .frames import LONGEST_SHORT_STRING, Outgoing
from .headers import fit

LONGEST_REASON = 1000

LONGEST_HEADER = 10_000
"""Characters. What is longer is no address but a whole text: gallery-dl gives novels as `text:…` URLs."""


_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFormat:
    """`queues`: the queue of each event that is sent; `content_type`: empty to leave the property out."""

    queues: Mapping[EventType, str]
    content_type: str

    def messages(self, events: Sequence[Event]) -> list[Outgoing]:
        """One for each event, in their order. Neighbours share their properties where they are equal, as are those
        of a run's skips."""
        messages: list[Outgoing] = []
        last: Event | None = None
        for event in events:
            if last is None or not _share_properties(last, event):
                properties = self._properties(event)
            last = event
            messages.append(
                Outgoing(
                    routing_key=self.queues[event.type],
                    body=_encode(event.body).encode("utf-8", errors="replace"),
                    message_id=event.message_id,
                    properties=properties,
                )
            )
        return messages

    def _properties(self, event: Event) -> pika.BasicProperties:
        return pika.BasicProperties(
            content_type=self.content_type or None,
            correlation_id=short(event.correlation_id),
            type=str(event.type),
            timestamp=int(time.time()),
            headers={key: _header(value) for key, value in event.headers.items() if not _is_too_long(value)},
        )


def rejection(delivery: Delivery, error: OrderRejected, queue: str) -> Outgoing:
    """The order as it came, body and properties untouched; the reason stands in added headers."""
    return _copy(delivery, queue, {"reason": str(error.fault), "detail": str(error)[:LONGEST_REASON]})


def once_more(delivery: Delivery, queue: str) -> Outgoing:
    """The order as it came, as a message that nobody has had yet."""
    return _copy(delivery, queue, {})


def _copy(delivery: Delivery, queue: str, added: Mapping[str, object]) -> Outgoing:
    properties = pika.BasicProperties(
        **{
            name: getattr(delivery.properties, name)
            for name in (
                "content_type",
                "content_encoding",
                "correlation_id",
                "priority",
                "reply_to",
                "type",
                "timestamp",
                "priority",
                "app_id",
            )
        }
    )
    # CC and BCC are instructions to the broker: repeated, they would send copies elsewhere. The count is of the old one.
    headers = {key: value for key, value in delivery.headers.items() if key not in ("CC", "BCC", "x-delivery-count")}
    properties.headers = {**(headers if fit(headers) else {}), **added}
    return Outgoing(
        routing_key=queue,
        body=delivery.body,
        message_id=delivery.message_id or f"copy-{uuid.uuid4()}",
        properties=properties,
    )


def order_message(order: Mapping[str, Any], *, queue: str, message_id: str) -> Outgoing:
    return Outgoing(
        routing_key=queue,
        body=json.dumps(dict(order), ensure_ascii=False).encode(),
        message_id=message_id,
        properties=pika.BasicProperties(content_type="application/json", timestamp=int(time.time())),
    )


def sent_at(properties: pika.BasicProperties) -> datetime | None:
    """When its sender made a message, as far as it says so: seconds since 1970, which nobody checks on the way."""
    seconds = properties.timestamp
    if not isinstance(seconds, int) or seconds <= 0:
        return None
    return datetime.fromtimestamp(min(seconds, time.time()), UTC)  # not later than now: some give milliseconds


def priority(properties: pika.BasicProperties) -> int:
    """Of a message, 0 to 9. The property is a byte, and some brokers' queues take all of it."""
    return min(int(properties.priority or 0), HIGHEST_PRIORITY)


def short(text: str | None) -> str | None:
    """What fits into a property, and into every database's text columns."""
    return (
        None if text is None else text.replace("\x00", "\ufffd").encode()[:LONGEST_SHORT_STRING].decode(errors="ignore")
    )


def _share_properties(one: Event, other: Event) -> bool:
    return (one.type, one.correlation_id, one.headers) == (other.type, other.correlation_id, other.headers)


def _header(value: Any) -> Any:
    return value.encode("utf-8", errors="replace").decode() if isinstance(value, str) else value


def _is_too_long(value: Any) -> bool:
    return isinstance(value, str) and len(value) > LONGEST_HEADER
