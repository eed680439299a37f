"""Orders that cannot be run: each goes to the queue of rejected orders as it came, and holds up none behind it."""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from http_downloader.domain.errors import OrderFault
from http_downloader.domain.orders import MAX_BODY
from tests.installation import Installation, Service, wait_until
from tests.queues import Message, Queues
from tests.site import FaultySite

PASSWORD = "s3cr3t-w0rd"
GOOD = {"source_id": 1, "url": "https://example.org/a.jpg", "content_path": "portraits/"}
"""Good by itself; every bad order differs from it in one thing."""


def order(**changes: Any) -> bytes:
    return json.dumps({**GOOD, **changes}).encode()


def without(key: str) -> bytes:
    return json.dumps({name: value for name, value in GOOD.items() if name != key}).encode()


def written(name: str, value: str) -> bytes:
    """The order with a value as it is written in JSON, for what `json.dumps` would not write."""
    return order(**{name: "HERE"}).replace(b'"HERE"', value.encode(errors="surrogatepass"))


NOT_JSON = [
    b"",
    b" ",
    b"sync please",
    b"{",
    order()[:-1],
    order() + b"}",
    order().replace(b'"', b"'"),
    b"\xef\xbb\xbf" + order(),  # a byte order mark: RFC 8259 forbids to send one
    written("source_id", "NaN"),
    written("source_id", "-Infinity"),
    written("extra", "NaN"),
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"[" * 100_000 + b"]" * 100_000,
    written("extra", "[" * 100_000 + "]" * 100_000),
]
NOT_UTF8 = [b"\xff\xfe\x00", order().decode().encode("utf-16"), order(url="https://example.org/ü").replace(b"\\u00fc", b"\xfc"), order().replace(b"portraits", b"\xed\xa0\x80")]  # fmt: skip
NOT_AN_OBJECT = [b"null", b"true", b"1", b'"order"', b"[]", b"[" + order() + b"]", b"9" * 5000]
DUPLICATE_KEY = [
    order().replace(b"{", b'{"source_id": 2, '),
    order().replace(b"{", b'{"\\u0075rl": "https://example.org/b.jpg", '),
]
TOO_LARGE = [b"\x00" * 1_000_000, b"{" * 1_000_000, order() + b" " * MAX_BODY]
MISSING_KEY = [b"{}", without("source_id"), without("url"), without("content_path"), b'{"Source_ID": 1}']

BAD_SOURCE_ID = [
    written("source_id", text)
    for text in (
        "0", "-1", "true", "false", "null", '"1"', "1.0", "1e0", "1e400", "-1e400", str(2**63), "9" * 5000, "[1]", "{}",
    )
]  # fmt: skip

BAD_URL = [
    written("url", text)
    for text in (
        "null", "1", "true", "[]", "{}", '""', '"example.org/a.jpg"', '"https://"', '"https:///a.jpg"',
        '"https://example.org:99999/a.jpg"', '"https://[::1/a.jpg"', '"https://example.org/a.jpg\\n"',
        '"https://example.org/\\r\\nHost: x"', '"https://example.org/\\u0000.jpg"', '"https://example.org/\\ud800.jpg"',
        '" https://example.org/a.jpg"', '"--input-file=x"', '"noop"',
        f'"https://example.org/{"a" * 2000}.jpg"',
    )
]  # fmt: skip
WITH_PASSWORD = [
    order(url=url)
    for url in (
        f"https://user:{PASSWORD}@example.org/a.jpg",
        f"https://{PASSWORD}@example.org/a.jpg",
        f"generic:https://user:{PASSWORD}@example.org/",
        f"https://user:{PASSWORD}@example.org:99999/a.jpg",
        f"https://user:{PASSWORD} x@example.org/a.jpg",
    )
]

FORBIDDEN_SCHEME = [
    order(url=url)
    for url in (
        "ftp://example.org/a.jpg", "javascript:alert(1)", "file:///etc/passwd", "FILE:///etc/passwd", "data:image/png,a",
        "recursive:https://example.org/", "recursive:file:///etc/passwd", "r:https://example.org/", "R:http://example.org/",
        "oauth:https://example.org/", "oauth:deviantart", "ytdl:https://example.org/v", "noop:https://example.org/",
        f"ftp://user:{PASSWORD}@example.org/a.jpg",
    )
]  # fmt: skip
NO_EXTRACTOR = [order(url=url) for url in ("https://example.org/gallery", "nosuchcategory:https://example.org/gallery")]
TRUNCATED_URL = [order(url="generic:http://example.org:99/a")]

BAD_CONTENT_PATH = [
    written("content_path", text)
    for text in (
        "null", "1", '["a"]', '""', '"/"', '"//"', '"."', '".."', '"a/../b"', '"../../etc"', '"/../etc"', '"a/./b"',
        '".partial/x"', '".trash"', '"/.PARTIAL/"', '".http-downloader"', '"a\\u0000b"', '"a\\nb"', '"\\udfff"',
        f'"{"a" * 256}"', f'"{"a/" * 400}"',
    )
]  # fmt: skip

BAD_REMOTE_DELETES = [
    json.dumps({**json.loads(order()), "remote_deletes": value}).encode()
    for value in ("", "Keep", "remove", 1, True, ["keep"], {"keep": "keep"})
]

BAD_PRIORITIES = [written("priority", text) for text in ("-1", "10", "1.0", "true", '"5"', "[5]", "1e400", "9" * 30)]

BAD = [
    *((OrderFault.NOT_JSON, body) for body in NOT_JSON),
    *((OrderFault.NOT_UTF8, body) for body in NOT_UTF8),
    *((OrderFault.NOT_AN_OBJECT, body) for body in NOT_AN_OBJECT),
    *((OrderFault.DUPLICATE_KEY, body) for body in DUPLICATE_KEY),
    *((OrderFault.TOO_LARGE, body) for body in TOO_LARGE),
    *((OrderFault.MISSING_KEY, body) for body in MISSING_KEY),
    *((OrderFault.BAD_SOURCE_ID, body) for body in BAD_SOURCE_ID),
    *((OrderFault.BAD_URL, body) for body in [*BAD_URL, *WITH_PASSWORD]),
    *((OrderFault.FORBIDDEN_SCHEME, body) for body in FORBIDDEN_SCHEME),
    *((OrderFault.NO_EXTRACTOR, body) for body in NO_EXTRACTOR),
    *((OrderFault.TRUNCATED_URL, body) for body in TRUNCATED_URL),
    *((OrderFault.BAD_CONTENT_PATH, body) for body in BAD_CONTENT_PATH),
    *((OrderFault.BAD_REMOTE_DELETES, body) for body in BAD_REMOTE_DELETES),
    *((OrderFault.BAD_PRIORITY, body) for body in BAD_PRIORITIES),
]


def answered(messages: list[Message]) -> set[str]:
    """The message ids of the orders that these `source synchronized` answer."""
    return {str(message_id) for message in messages for message_id in message.headers["orders"]}


def test_bad_orders_are_rejected_and_good_ones_behind_them_served(
    install: Callable[..., Installation], queues: Queues
) -> None:
    """Over a hundred bad orders, a good one behind each: the bad ones are in the queue of rejected orders as they
    came, with reason and detail; all good ones are served; nothing is left in the orders queue; the service lives."""
    assert {fault for fault, _ in BAD} == set(OrderFault)
    machine = install(SITE_CONCURRENCY=4, **queues.settings)
    with FaultySite() as site, Service(machine) as service:
        wait_until(lambda: "connected to the broker" in service.log, what="the service's queues")
        good = {f"good-{number}" for number in range(len(BAD))}
        for number, (_, body) in enumerate(BAD):
            queues.post(body, message_id=f"bad-{number}", correlation_id=f"ticket-{number}")
            source_id = 1 + number % 3
            queues.post(
                {
                    "source_id": source_id,
                    "url": f"{site.root}/direct/{source_id}.png",
                    "content_path": f"/folder{source_id}/",
                    "priority": 3,  # unknown keys are ignored
                    "notes": {"by": ["ü", None, 1.5]},
                },
                message_id=f"good-{number}",
            )
        queues.wait_for("rejected", len(BAD))
        served: list[Message] = []

        def all_served() -> bool:
            served.extend(queues.take("synchronized"))
            return answered(served) >= good

        wait_until(all_served, what="all good orders")
        assert answered(served) == good
        assert service.process is not None
        assert service.process.poll() is None
        assert service.stop() == 0
        log = service.log
    rejected = queues.take("rejected")
    assert queues.counts() == {"orders": 0, "downloaded": 3, "skipped": queues.count("skipped"), "synchronized": 0, "failed": 0, "rejected": 0}  # fmt: skip
    rejected.sort(key=lambda message: int(message.properties.message_id.removeprefix("bad-")))
    assert [message.properties.message_id for message in rejected] == [f"bad-{number}" for number in range(len(BAD))]
    for number, ((fault, body), message) in enumerate(zip(BAD, rejected, strict=True)):
        assert message.body == body
        assert message.headers["reason"] == fault, (body[:200], message.headers)
        detail = message.headers["detail"]
        assert 10 < len(detail) < 500
        assert detail.isprintable()
        assert PASSWORD not in detail
        assert message.properties.correlation_id == f"ticket-{number}"
        assert message.properties.delivery_mode == 2
    assert [path.partition("/")[0] for path in machine.on_disk()] == ["folder1", "folder2", "folder3"]
    assert {run["state"] for run in machine.runs()} == {"synchronized"}
    assert log.count("order rejected") == len(BAD)
    assert "Traceback" not in log
    assert PASSWORD not in log
    assert PASSWORD.encode() not in machine.everything_we_wrote()


def test_what_senders_put_around_an_order(install: Callable[..., Installation], queues: Queues) -> None:
    """Properties and headers of a rejected order are those that it came with; those that are no text, too many, or
    instructions to the broker, hold nothing up and do no harm."""
    machine = install(**queues.settings)
    odd = {
        "reason": "mine",
        "number": 2**40,
        "nothing": None,
        "table": {"list": [1, "ü", True, b"\xff"], "at": datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)},
        "CC": [queues.names["failed"]],
    }
    with FaultySite() as site, Service(machine) as service:
        wait_until(lambda: "connected to the broker" in service.log, what="the service's queues")
        queues.post(b"odd", headers=odd, type="t", app_id="a", content_type="text/plain")
        queues.post(b"no text", message_id=b"\xff\xfe", correlation_id=b"\xff", headers={"x": b"\xff"})
        queues.post(b"full", message_id="full", headers={"x": "y" * 130_500})
        queues.post(b"NUL", message_id="a\x00b", correlation_id="a\x00b")
        good = {"source_id": 1, "url": f"{site.root}/direct/1.png", "content_path": "a"}
        queues.post(good, message_id=b"\xff\xfe", correlation_id=b"\xff\xfe")
        queues.wait_for("synchronized", 1)
        queues.post({**good, "source_id": 2, "content_path": "b"}, message_id="a\x00b", correlation_id="x" * 255)
        queues.wait_for("synchronized", 2)
        assert service.stop() == 0
    order = [b"odd", b"no text", b"full", b"NUL"]
    rejected = sorted(queues.take("rejected"), key=lambda message: order.index(message.body))
    assert [message.body for message in rejected] == order
    assert {message.headers["reason"] for message in rejected} == {"not-json"}
    first, no_text = rejected[0], rejected[1]
    assert (first.properties.type, first.properties.app_id, first.properties.content_type) == ("t", "a", "text/plain")
    assert first.properties.message_id
    assert {name: first.headers[name] for name in ("number", "nothing")} == {"number": 2**40, "nothing": None}
    assert first.headers["table"]["list"] == [1, "ü", True, b"\xff"]
    assert no_text.properties.message_id
    assert no_text.properties.correlation_id == b"\xff"
    assert no_text.headers["x"] == b"\xff"
    assert set(rejected[2].headers) == {"reason", "detail"}
    assert queues.count("failed") == 1  # the copy that the sender asked for; none for our own message
    assert queues.count("orders") == 0


@pytest.mark.parametrize("named", [False, True])
def test_a_bad_order_from_before_the_start(install: Callable[..., Installation], named: bool) -> None:
    """What waits in the queue when the service starts is rejected, too, over the exchange that is set."""
    with Queues(f"test.{uuid.uuid4().hex[:8]}" if named else "") as queues:
        queues.declare_orders()
        queues.channel.basic_publish("", queues.names["orders"], b"waiting")
        with Service(install(**queues.settings)) as service:
            queues.wait_for("rejected", 1)
            assert service.stop() == 0
        (message,) = queues.take("rejected")
        assert (message.body, message.headers["reason"]) == (b"waiting", "not-json")
        assert queues.count("orders") == 0
