"""What an order may say: bytes in, a valid order or a named fault out, and never anything else."""

from __future__ import annotations

import json
import posixpath
import unicodedata

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from http_downloader.domain.errors import OrderFault, OrderRejected
from http_downloader.domain.orders import (
    MAX_BODY,
    MAX_FOLDER_BYTES,
    MAX_SOURCE_ID,
    MAX_URL,
    OWN_FOLDERS,
    Order,
    check_content_path,
    check_url,
    default_content_path,
    make_order,
    parse_order,
)

GOOD = {"source_id": 1, "url": "https://example.org/gallery", "content_path": "portraits/"}
SECRET = "s3cr3t-w0rd"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
segments = st.text(st.characters(exclude_characters="/"), max_size=12) | st.sampled_from(
    ["", ".", "..", ".partial", ".TRASH", ".http-downloader", "..\\..", "a\\b", "\x00", "\ud800", "a" * 256, "%2e%2e"]
)
folders = st.lists(segments, max_size=6).map("/".join) | st.text(max_size=40)
prefixes = st.sampled_from(["", "generic:", "Danbooru:", "recursive:", "r:", "oauth:", "ytdl:", "file:"])
schemes = st.sampled_from(["http://", "https://", "HTTPS://", "ftp://", "file:///", "javascript:", "//", ""])
urls = st.builds(
    lambda prefix, scheme, host, rest: prefix + scheme + host + rest,
    prefixes,
    schemes,
    st.sampled_from(["example.org", "[::1]", "[::1", "user:pw@host", "host:99", "host:99999", "münchen.de", ".", ""])
    | st.text(max_size=20),
    st.sampled_from(["", "/", "/a?b=c#d", "/%00", "/\n", "/..", "/?q=%2F..%2F"]) | st.text(max_size=30),
)


def fault_of(body: bytes) -> OrderFault:
    """The fault of an order that must be refused; its sentence is one printable line."""
    with pytest.raises(OrderRejected) as caught:
        parse_order(body)
    sentence = str(caught.value)
    assert sentence
    assert sentence.isprintable()
    assert len(sentence) < 500
    return caught.value.fault


def refuses(body: bytes) -> bool:
    """Whether an order is refused; any other exception than `OrderRejected` is the test's failure."""
    try:
        order = parse_order(body)
    except OrderRejected as error:
        refusal = error
    else:
        assert isinstance(order, Order)
        return False
    assert isinstance(refusal.fault, OrderFault)
    assert str(refusal).isprintable()
    return True


def is_accepted(check: object, value: str) -> bool:
    try:
        check(value)  # type: ignore[operator]
    except OrderRejected:
        return False
    return True


# Bytes and JSON


@given(
    st.binary()
    | st.text().map(lambda text: text.encode("utf-16"))
    | st.from_regex(r'[\[{"0-9.eE+\-,: tfn]*').map(str.encode)
)
@example(b"")
@example(b"\xef\xbb\xbf{}")
@example(b"[" * 100_000)
@example(b'{"a":' * 40_000)
@example(b"9" * 5000)
@example(b"\xff\xfe")
def test_bytes_of_any_kind_are_refused_with_a_fault(body: bytes) -> None:
    """Whatever arrives: an order or `OrderRejected`, never another exception."""
    assert refuses(body)


@given(json_values)
def test_json_of_any_kind_is_refused_with_a_fault(value: object) -> None:
    """Every JSON value that is no order is refused."""
    assert refuses(json.dumps(value).encode())


@given(
    source_id=json_values | st.just(1),
    url=json_values | urls | st.just(GOOD["url"]),
    content_path=json_values | folders | st.just("a"),
    ascii_only=st.booleans(),
)
@settings(max_examples=300)
def test_values_of_any_kind_give_an_order_or_a_fault(
    source_id: object, url: object, content_path: object, ascii_only: bool
) -> None:
    """The three keys may hold anything: what comes out is a valid order, or a fault."""
    order = {"source_id": source_id, "url": url, "content_path": content_path}
    refuses(json.dumps(order, ensure_ascii=ascii_only).encode(errors="surrogatepass"))


def test_a_good_order() -> None:
    """The documented order is read; the slash at the end of the folder is dropped."""
    assert parse_order(json.dumps(GOOD).encode()) == Order(source_id=1, url=str(GOOD["url"]), content_path="portraits")


def test_unknown_keys_are_ignored() -> None:
    """Whatever else an order holds, however deep or large, does not matter."""
    extra = {"urgency": 3, "tags": [{"a": None}], "source": {"source_id": "x"}, "huge": 1e300}
    assert parse_order(json.dumps({**extra, **GOOD}).encode()) == parse_order(json.dumps(GOOD).encode())
    assert refuses(json.dumps({**GOOD, "huge": 0}).replace(": 0}", f": {'9' * 5000}}}").encode()) is False


@given(json_values)
def test_a_priority_is_a_whole_number_from_0_to_9(value: object) -> None:
    """Or none; whatever else stands there is a fault."""
    if value is None or (type(value) is int and value in range(10)):
        assert make_order(1, GOOD["url"], "a", priority=value).priority == value
    else:
        with pytest.raises(OrderRejected) as refused:
            make_order(1, GOOD["url"], "a", priority=value)
        assert refused.value.fault is OrderFault.BAD_PRIORITY


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", OrderFault.NOT_JSON),
        ("{", OrderFault.NOT_JSON),
        ("{'source_id': 1}", OrderFault.NOT_JSON),
        ('{"source_id": 1} {}', OrderFault.NOT_JSON),
        ('{"source_id": NaN}', OrderFault.NOT_JSON),
        ('{"source_id": -Infinity}', OrderFault.NOT_JSON),
        ("\ufeff" + json.dumps(GOOD), OrderFault.NOT_JSON),
        ("null", OrderFault.NOT_AN_OBJECT),
        ("[1, 2]", OrderFault.NOT_AN_OBJECT),
        ('"x"', OrderFault.NOT_AN_OBJECT),
        ("1", OrderFault.NOT_AN_OBJECT),
        ('{"a": 1, "a": 1}', OrderFault.DUPLICATE_KEY),
        ('{"a": {"b": 1, "b": 2}}', OrderFault.DUPLICATE_KEY),
        ('{"url": 1, "\\u0075rl": 2}', OrderFault.DUPLICATE_KEY),
        ("{}", OrderFault.MISSING_KEY),
        ("9" * 5000, OrderFault.NOT_AN_OBJECT),
    ],
)
def test_what_is_no_json_object(text: str, fault: OrderFault) -> None:
    """JSON as its RFC has it: no byte order mark, no NaN, every key once."""
    assert fault_of(text.encode()) is fault


def test_a_body_that_is_too_large() -> None:
    """Garbage of a megabyte is not parsed; a body of the greatest length is."""
    assert fault_of(b"{" + b" " * MAX_BODY) is OrderFault.TOO_LARGE
    good = json.dumps(GOOD).encode()
    assert parse_order(good + b" " * (MAX_BODY - len(good)))


@pytest.mark.parametrize("key", list(GOOD))
def test_each_key_is_needed(key: str) -> None:
    """An order without one of its keys is refused, and the sentence names the key."""
    order = {name: value for name, value in GOOD.items() if name != key}
    with pytest.raises(OrderRejected, match=key) as caught:
        parse_order(json.dumps(order).encode())
    assert caught.value.fault is OrderFault.MISSING_KEY


@pytest.mark.parametrize(
    "text", ["0", "-1", "true", "false", '"1"', "1.0", "1e0", "1e400", str(2**63), "9" * 5000, "null", "[]", "{}"]
)
def test_source_ids_that_are_refused(text: str) -> None:
    """Only a positive integer of 63 bits is a source id."""
    body = json.dumps(GOOD).replace('"source_id": 1', f'"source_id": {text}').encode()
    assert fault_of(body) is OrderFault.BAD_SOURCE_ID


@pytest.mark.parametrize("value", [1, 725, MAX_SOURCE_ID])
def test_source_ids_that_are_taken(value: int) -> None:
    """The smallest and the greatest id are valid."""
    assert make_order(value, GOOD["url"], "a").source_id == value


def test_an_integer_of_any_length_is_refused() -> None:
    """Also one that Python does not write in decimal."""
    with pytest.raises(OrderRejected):
        make_order(10**6000, GOOD["url"], "a")


# URLs


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "https://example.org/a/b?c=d&e=%20#f",
        "HTTPS://Example.ORG/",
        "http://127.0.0.1:8080/posts?tags=demo",
        "http://[::1]:8080/x",
        "https://example.org/@user/post",
        "https://example.org/a?mail=a@b.c",
        "https://münchen.example/ä",
        "Danbooru:https://danbooru.donmai.us/posts?tags=a",
        "generic:https://example.org/page",
        "moebooru:http://127.0.0.1:9/post",
        "https://example.org/" + "a" * (MAX_URL - 20),
    ],
)
def test_urls_that_are_taken(url: str) -> None:
    """http and https, alone or behind a category, come out as they went in."""
    assert check_url(url) == url


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("", OrderFault.BAD_URL),
        ("example.org/a", OrderFault.BAD_URL),
        ("https://", OrderFault.BAD_URL),
        ("https:///path", OrderFault.BAD_URL),
        ("https://example.org:0/", OrderFault.BAD_URL),
        ("https://example.org:99999/", OrderFault.BAD_URL),
        ("https://[::1/", OrderFault.BAD_URL),
        ("https://example.org/\n", OrderFault.BAD_URL),
        ("https://example.org/a\nb", OrderFault.BAD_URL),
        ("https://example.org/\x00", OrderFault.BAD_URL),
        ("https://example.org/\ud800", OrderFault.BAD_URL),
        ("https://example.org/a b", OrderFault.BAD_URL),
        (" https://example.org/", OrderFault.BAD_URL),
        ("https://example.org/\u202egpj.exe", OrderFault.BAD_URL),
        ("https://example.org/" + "a" * MAX_URL, OrderFault.BAD_URL),
        ("--input-file=x", OrderFault.BAD_URL),
        ("noop", OrderFault.BAD_URL),
        ("noop:", OrderFault.FORBIDDEN_SCHEME),
        ("noop:https://example.org/", OrderFault.FORBIDDEN_SCHEME),
        ("ftp://example.org/a", OrderFault.FORBIDDEN_SCHEME),
        ("javascript:alert(1)", OrderFault.FORBIDDEN_SCHEME),
        ("file:///etc/passwd", OrderFault.FORBIDDEN_SCHEME),
        ("FILE:///etc/passwd", OrderFault.FORBIDDEN_SCHEME),
        ("recursive:https://example.org/", OrderFault.FORBIDDEN_SCHEME),
        ("Recursive:https://example.org/", OrderFault.FORBIDDEN_SCHEME),
        ("r:https://example.org/", OrderFault.FORBIDDEN_SCHEME),
        ("oauth:https://example.org/", OrderFault.FORBIDDEN_SCHEME),
        ("oauth:deviantart", OrderFault.FORBIDDEN_SCHEME),
        ("ytdl:https://example.org/v", OrderFault.FORBIDDEN_SCHEME),
        ("generic:r:https://example.org/", OrderFault.FORBIDDEN_SCHEME),
        ("generic:file:///etc/passwd", OrderFault.FORBIDDEN_SCHEME),
        ("https://user@example.org/", OrderFault.BAD_URL),
        ("generic:https://u:p@example.org/", OrderFault.BAD_URL),
    ],
)
def test_urls_that_are_refused(url: str, fault: OrderFault) -> None:
    """Each with its fault, and a sentence that may stand in a log line."""
    assert fault_of(json.dumps({**GOOD, "url": url}).encode()) is fault


@pytest.mark.parametrize(
    "url",
    [
        f"https://user:{SECRET}@example.org/",
        f"https://{SECRET}@example.org/",
        f"https://user:{SECRET}@example.org:99999/",
        f"https://user:{SECRET}@example.org:port/",
        f"https://user:{SECRET}@[::1/",
        f"https://user:{SECRET}/more@example.org/",
        f"https://user:{SECRET}@more@example.org/",
        f"https://user:{SECRET} more@example.org/",
        f"https://user:{SECRET}@exa\u2100mple.org/",
        f"https://user:{SECRET}@example.org/\n",
        f" https://user:{SECRET}@example.org/",
        f"ftp://user:{SECRET}@example.org/",
        f"generic:https://user:{SECRET}@example.org:99999/",
        f"user:{SECRET}@example.org/",
    ],
)
def test_a_password_is_never_shown(url: str) -> None:
    """Whatever else is wrong with a URL that carries a password: the sentence does not repeat it."""
    with pytest.raises(OrderRejected) as caught:
        check_url(url)
    assert SECRET not in str(caught.value)


@given(urls)
@settings(max_examples=300)
def test_an_accepted_url_is_http_with_a_host_and_no_password(url: str) -> None:
    """What passes begins with http(s) behind at most one allowed prefix, has a host, no blank and no password."""
    if not is_accepted(check_url, url):
        return
    before, address = url.lower().split("http", 1)
    assert before.count(":") <= 1
    assert before.removesuffix(":") not in ("recursive", "r", "oauth", "ytdl", "noop", "file")
    authority = address.partition("://")[2].replace("?", "/").replace("#", "/").partition("/")[0]
    assert authority
    assert "@" not in authority
    assert not any(character.isspace() or character < " " for character in url)
    url.encode()


# Folders


@pytest.mark.parametrize(
    ("given_path", "stored"),
    [
        ("portraits", "portraits"),
        ("/portraits/", "portraits"),
        ("a//b///c", "a/b/c"),
        (" a /b", " a /b"),
        ("...", "..."),
        ("a/.partial", "a/.partial"),
        (".trash2/a", ".trash2/a"),
        ("..\\..\\etc", "..\\..\\etc"),
        ("a\\b", "a\\b"),
        ("%2e%2e/etc", "%2e%2e/etc"),
        ("münchen/図/😀", "münchen/図/😀"),
        ("a" * 255, "a" * 255),
    ],
)
def test_folders_that_are_taken(given_path: str, stored: str) -> None:
    """Slashes at the ends and doubled ones are dropped. On POSIX a backslash or %2e is a character like any other."""
    assert check_content_path(given_path) == stored


@pytest.mark.parametrize(
    "path",
    [
        "", "/", "///", ".", "..", "./a", "a/.", "a/../b", "../../etc", "/..", ".partial", ".partial/x", ".trash",
        "/.PARTIAL/", ".Trash/a", ".http-downloader/x", ".tra\u017fh", ".par\u200dtial/x", ".tr\u00adash", ".trash\ufe0f",
        "a\x00b", "a\nb", "a\x7f", "a\u2028b", "a\u202eb", "a\ud800", "a" * 256, "ä" * 128, "a/" * 400,
    ],
)  # fmt: skip
def test_folders_that_are_refused(path: str) -> None:
    """What leaves the root, is the root, is ours (in any spelling that a file system may fold) or cannot be written."""
    assert fault_of(json.dumps({**GOOD, "content_path": path}).encode()) is OrderFault.BAD_CONTENT_PATH


@given(folders)
@settings(max_examples=500)
def test_an_accepted_folder_lies_in_the_root_and_is_not_ours(path: str) -> None:
    """Joined to the root and normalized it stays what it is: below the root, outside of our own folders, encodable."""
    try:
        accepted = check_content_path(path)
    except OrderRejected:
        return
    joined = posixpath.normpath(posixpath.join("/srv/content", accepted))
    assert joined == f"/srv/content/{accepted}"
    first = accepted.split("/")[0]
    visible = "".join(character for character in first if unicodedata.category(character) != "Cf")
    assert visible.casefold() not in OWN_FOLDERS
    assert "\x00" not in accepted
    assert len(accepted.encode()) <= MAX_FOLDER_BYTES
    assert check_content_path(accepted) == accepted


@given(urls | st.text().map(lambda text: f"https://example.org/{text}"))
@settings(max_examples=500)
@example("https://.trash/")
@example("https://../")
@example("https://.partial:80/%2e%2e")
@example("https://" + "a" * 1500 + "/")
@example("https://example.org/" + "%F0%9F%98%80" * 160)
@example("https://example.org/?q=%00")
@example("https://example.org/%ED%A0%80")
def test_every_accepted_url_has_a_folder(url: str) -> None:
    """A URL that comes without a folder gets one that is valid, and the same again."""
    if not is_accepted(check_url, url):
        return
    folder = default_content_path(url)
    assert check_content_path(folder) == folder
    assert default_content_path(url) == folder


def test_the_folder_tells_galleries_apart() -> None:
    """Host and query are in the name; a category in front of the URL is not."""
    first = default_content_path("https://danbooru.donmai.us/posts?tags=cat+hat")
    assert first == "danbooru.donmai.us/posts-tags-cat-hat"
    assert default_content_path("Danbooru:https://danbooru.donmai.us/posts?tags=cat+hat") == first
    assert default_content_path("https://danbooru.donmai.us/posts?tags=dog") != first
