"""Messages as bytes: what is written for a whole batch is what pika itself would write, message by message."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pika
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import exceptions, spec
from pika.connection import Connection

from http_downloader.amqp.frames import LONGEST_SHORT_STRING, PERSISTENT, Outgoing, published

CHANNEL = 7

short_strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=LONGEST_SHORT_STRING // 4) | st.sampled_from(
    ["", "\x00", "here goes the message id", "é" * (LONGEST_SHORT_STRING // 2), "x" * LONGEST_SHORT_STRING]
)
header_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | short_strings | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(short_strings, inner, max_size=3),
    max_leaves=6,
)
properties = st.builds(
    pika.BasicProperties,
    content_type=st.none() | short_strings,
    content_encoding=st.none() | short_strings,
    headers=st.none() | st.dictionaries(short_strings, header_values, max_size=4),
    delivery_mode=st.none() | st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | short_strings,
    reply_to=st.none() | short_strings,
    expiration=st.none() | short_strings,
    message_id=st.none() | short_strings,
    timestamp=st.none() | st.integers(0, 2**64 - 1),
    type=st.none() | short_strings,
    user_id=st.none() | short_strings,
    app_id=st.none() | short_strings,
    cluster_id=st.none() | short_strings,
)


@st.composite
def batches(draw: st.DrawFn) -> list[Outgoing]:
    """Messages of a few queues; some share their properties, next to each other or not."""
    shared = draw(st.lists(properties, min_size=1, max_size=3))
    message = st.builds(
        Outgoing,
        routing_key=st.sampled_from(["queue", "", "Ωueue"]),
        body=st.binary(max_size=40),
        message_id=short_strings,
        properties=st.sampled_from(shared),
    )
    return draw(st.lists(message, max_size=6))


def by_pika(messages: list[Outgoing], exchange: str, longest_body: int) -> bytes:
    written: list[bytes] = []
    connection = SimpleNamespace(_body_max_length=longest_body, _output_marshaled_frames=written.extend)
    for message in messages:
        own = copy.copy(message.properties)
        own.message_id, own.delivery_mode, own.user_id = message.message_id, PERSISTENT, None
        method = spec.Basic.Publish(exchange=exchange, routing_key=message.routing_key, mandatory=True)
        Connection._send_message(connection, CHANNEL, method, (own, message.body))  # type: ignore[arg-type]
    return b"".join(written)


@given(batches(), st.sampled_from(["", "exchange"]), st.integers(1, 50))
def test_a_batch_is_written_as_pika_writes_its_messages(
    messages: list[Outgoing], exchange: str, longest_body: int
) -> None:
    """Byte for byte, whatever the properties hold, and with bodies that fill several frames."""
    written = published(messages, exchange=exchange, channel_number=CHANNEL, longest_body=longest_body)
    assert written == by_pika(messages, exchange, longest_body)


@given(properties)
def test_the_properties_of_a_received_message_stay_as_they_are(received: pika.BasicProperties) -> None:
    """They are those of an order that is passed on, and are still read afterwards."""
    before = copy.deepcopy(received)
    message = Outgoing(routing_key="queue", body=b"", message_id="new", properties=received)
    published([message], exchange="", channel_number=CHANNEL, longest_body=50)
    assert received == before


@pytest.mark.parametrize("name", ["message_id", "routing_key"])
def test_a_name_that_amqp_cannot_express_is_an_error(name: str) -> None:
    """A cut one would be another name, and a broker that is sent nonsense closes the connection."""
    fields = {"routing_key": "queue", "message_id": "id", name: "é" * 128}
    with pytest.raises(exceptions.ShortStringTooLong):
        published([Outgoing(body=b"", **fields)], exchange="", channel_number=CHANNEL, longest_body=50)
