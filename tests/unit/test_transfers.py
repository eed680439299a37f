"""What is taken from a site: sizes, speeds, parts and promises, as pure rules."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from gallery_dl import config, extractor
from hypothesis import given
from hypothesis import strategies as st

from http_downloader.domain.bodies import Body, Promise, fault_of
from http_downloader.domain.sizes import parse_size, size_in_words
from http_downloader.domain.transfers import (
    BOMB_RATIO,
    BOMB_SIZE,
    Flow,
    Limits,
    first_byte,
    flowed,
    in_words,
    is_bomb,
    is_the_rest,
    whole_size,
)
from http_downloader.gallery.promises import NOTHING, promise_of

# Sizes


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("17", 17),
        ("1K", 1024),
        ("500m", 500 << 20),
        ("2G", 2 << 30),
        ("1.5 GiB", 3 << 29),
        (" 1TB ", 1 << 40),
        ("3b", 3),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "K", "-1", "1e9", "2 G B", "1P", "1,5G", "none", "0x10", "٣"])
def test_no_sizes(text: str) -> None:
    """A sentence says what is allowed."""
    with pytest.raises(ValueError, match="a size like 500M or 2G is allowed, or 0 for none"):
        parse_size(text)


@given(st.integers(0, 1023), st.sampled_from(["bytes", "kB", "MB", "GB", "TB"]))
def test_sizes_in_words_can_be_read(number: int, unit: str) -> None:
    size = parse_size(f"{number}{unit.removesuffix('ytes')}")
    assert parse_size(size_in_words(size).removesuffix("ytes")) == size


# Speed


def fed(limits: Limits, *parts: tuple[int, float]) -> Flow | None:
    flow: Flow | None = Flow()
    for size, seconds in parts:
        assert flow is not None
        flow = flowed(flow, size, seconds, limits)
    return flow


def test_a_drip_is_given_up() -> None:
    """A byte each five seconds: given up when the window is full, not before."""
    limits = Limits(speed=1000, window=60)
    assert fed(limits, *[(1, 5.0)] * 11) is not None
    assert fed(limits, *[(1, 5.0)] * 12) is None


def test_a_window_begins_anew() -> None:
    """Much at the beginning does not pay for a drip later: that is noticed within two windows."""
    limits = Limits(speed=1000, window=60)
    assert fed(limits, (10**9, 0.0), (0, 60.0)) == Flow()
    assert fed(limits, (10**9, 0.0), (0, 60.0), (59_999, 60.0)) is None


def test_a_long_wait_is_measured_as_long() -> None:
    """One read that lasts longer than a window is judged by all of its time."""
    limits = Limits(speed=1000, window=10)
    assert fed(limits, (99_000, 100.0)) is None
    assert fed(limits, (100_000, 100.0)) == Flow()


def test_any_speed() -> None:
    assert fed(Limits(speed=0, window=1), *[(0, 100.0)] * 9) == Flow()


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(0, 2)), max_size=50))
def test_what_is_fast_enough_is_never_given_up(parts: list[tuple[int, float]]) -> None:
    """Whoever brings at least the speed in every part is never too slow."""
    assert fed(Limits(speed=100, window=3), *[(max(size, int(seconds * 100) + 1), seconds) for size, seconds in parts])


def test_bombs() -> None:
    """Large, and far larger than what was sent: one of both is everyday."""
    assert is_bomb(BOMB_SIZE + 1, BOMB_SIZE // BOMB_RATIO)
    assert not is_bomb(BOMB_SIZE, 1)
    assert not is_bomb(100 * BOMB_SIZE, BOMB_SIZE)


# Parts


@pytest.mark.parametrize(
    ("asked", "told", "size", "right"),
    [
        ("bytes=10-", "bytes 10-19/20", 20, True),
        ("bytes=10-", "bytes 10-19/20", None, True),
        ("bytes=10-", "bytes 10-19/*", 20, True),
        ("bytes=10-", "bytes 9-19/20", 20, False),
        ("bytes=10-", "bytes 0-19/20", 20, False),
        ("bytes=10-", "bytes 10-19/21", 20, False),
        ("bytes=10-", "", 20, False),
        ("bytes=10-", "bytes */20", 20, False),
        ("bytes=10-", "bytes 10-19", 20, False),
        ("bytes=10-", "items 10-19/20", 20, False),
        ("bytes=10-", f"bytes 10-19/{'9' * 5000}", None, False),
        ("", "bytes 0-19/20", 20, False),
    ],
)
def test_the_rest_of_a_file(asked: str, told: str, size: int | None, right: bool) -> None:
    """It begins where it was asked to, and belongs to a file of the size that was told before."""
    assert is_the_rest(asked, told, size=size) == right


def test_what_a_part_says() -> None:
    assert (first_byte("bytes 3-7/9"), whole_size("bytes 3-7/9")) == (3, 9)
    assert (first_byte("bytes 3-7/*"), whole_size("bytes 3-7/*")) == (3, None)
    assert (first_byte("x"), whole_size("x")) == (None, None)


# What came


def body(data: bytes, kind: str = "image/png") -> Body:
    hashes = {"md5": hashlib.md5(data, usedforsecurity=False).hexdigest()}
    return Body(size=len(data), head=data[:1024], hashes=hashes, content_type=kind)


PAGES = [
    b"<!DOCTYPE html><p>",
    b"<!doctype  HTML public",
    b"\xef\xbb\xbf\r\n <html lang=en>",
    b"<!-- a --><!-- b -->\n<head>",
    b"<body>",
]
NO_PAGES = [b"\x89PNG\r\n\x1a\n<html>", b"GIF89a", b"<svg><html/></svg>", b"<?xml version='1.0'?>", b"html", b"<htmlx>"]


@pytest.mark.parametrize("data", PAGES)
def test_pages(data: bytes) -> None:
    """A page is no picture, video or archive, whatever the site calls it; of a page it is one."""
    assert "page in place" in (fault_of(body(data), Promise(), "png") or "")
    assert "page in place" in (fault_of(body(data), Promise(), "ZIP") or "")
    assert "page in place" in (fault_of(body(data), Promise(), "") or "")
    assert fault_of(body(data, "application/octet-stream"), Promise(), "") is None
    assert fault_of(body(data, "text/html"), Promise(), "html") is None
    assert fault_of(body(data), Promise(), "txt") is None


@pytest.mark.parametrize("data", NO_PAGES)
def test_no_pages(data: bytes) -> None:
    assert fault_of(body(data), Promise(), "png") is None


def test_answers_for_programs() -> None:
    assert "JSON" in (fault_of(body(b' {"error": 1}', "application/json"), Promise(), "jpg") or "")
    assert fault_of(body(b' {"error": 1}', "application/json"), Promise(), "json") is None
    assert fault_of(body(b"{not json, but a picture", "image/jpeg"), Promise(), "jpg") is None


def test_promises() -> None:
    """Nothing, the size and the hashes, in this order; a hash is compared without regard to case."""
    good = body(b"abc")
    assert fault_of(good, Promise(size=3, hashes={"md5": good.hashes["md5"].upper()}), "png") is None
    assert fault_of(body(b""), Promise(size=3), "png") == "the site sent an empty file"
    assert fault_of(good, Promise(size=4), "png") == "3 bytes came, and the listing promised 4"
    broken = fault_of(good, Promise(size=3, hashes={"md5": "0" * 32}), "png")
    assert broken == "what came has not the MD5 that the listing promised"


def test_words_of_libraries() -> None:
    """What is not known stays as it is."""
    cut_off = "('Connection broken: IncompleteRead(1 bytes read)', IncompleteRead(1 bytes read)) (5/5)"
    assert in_words(cut_off) == in_words("file size mismatch (1 < 2) (5/5)") == "the connection broke off in mid-file"
    assert in_words("HTTPConnectionPool(host='a'): Read timed out. (5/5)") == "the site sent nothing for too long"
    assert in_words("'404 Not Found' for 'http://a/b'") == "'404 Not Found' for 'http://a/b'"


# What listings promise

MD5 = "0123456789abcdef0123456789abcdef"
DANBOORU = {"file_url": "https://cdn.donmai.us/original/01/23/x.jpg", "file_size": 9, "md5": MD5}
PROMISE = Promise(size=9, hashes={"md5": MD5})


@pytest.mark.parametrize(
    ("url", "file", "post", "expected"),
    [
        ("https://danbooru.donmai.us/posts?tags=x", DANBOORU["file_url"], DANBOORU, PROMISE),
        ("https://danbooru.donmai.us/posts?tags=x", "https://cdn.donmai.us/sample/01/23/sample-x.webm", DANBOORU, None),
        ("https://danbooru.donmai.us/posts?tags=x", DANBOORU["file_url"], DANBOORU | {"md5": None}, None),
        ("https://danbooru.donmai.us/posts?tags=x", DANBOORU["file_url"], DANBOORU | {"file_size": 0}, None),
        ("https://danbooru.donmai.us/posts?tags=x", DANBOORU["file_url"], {}, None),
        (
            "https://danbooru.donmai.us/posts?tags=x",
            "https://danbooru.donmai.us/data/x.jpg",
            DANBOORU | {"file_url": "/data/x.jpg"},
            PROMISE,
        ),
        ("https://yande.re/post?tags=x", DANBOORU["file_url"], DANBOORU, PROMISE),
        (
            "https://e621.net/posts?tags=x",
            "https://static1.e621.net/data/x.png",
            {"file": {"url": "https://static1.e621.net/data/x.png", "size": 9, "md5": MD5}},
            PROMISE,
        ),
        ("https://e621.net/posts?tags=x", "https://static1.e621.net/data/x.png", {"file": None}, None),
        ("https://gelbooru.com/index.php?page=post&s=list&tags=x", DANBOORU["file_url"], DANBOORU, None),
        ("https://example.org/x.jpg", DANBOORU["file_url"], DANBOORU, None),
    ],
)
def test_what_listings_promise(url: str, file: str, post: dict[str, Any], expected: Promise | None) -> None:
    """Only the sites of the table, only for the original file, and only when size and hash are both there."""
    found = extractor.find(url)
    assert found is not None
    assert promise_of(found, str(file), post) == (expected or NOTHING)


def test_promises_can_be_switched_off() -> None:
    found = extractor.find("https://danbooru.donmai.us/posts?tags=x")
    config.set(("extractor", "danbooru"), "promises", False)
    try:
        assert promise_of(found, DANBOORU["file_url"], DANBOORU) == NOTHING
    finally:
        config.clear()
