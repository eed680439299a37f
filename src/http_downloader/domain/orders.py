"""An order: a request to synchronize one source. Bytes in, a valid `Order` or a named fault out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit

from .characters import CONTROL
from .errors import OrderFault, OrderRejected
from .removals import RemoteDeletes
from .secrets import masked, without_secret_parameters

MAX_BODY = 256 * 1024
"""Bytes. An order is a few hundred bytes; this bounds what garbage may cost."""

MAX_SOURCE_ID = 2**63 - 1
"""The widest integer that all three databases store."""

HIGHEST_PRIORITY = 9
"""As in AMQP. The lowest is 0, which an order has that says nothing."""

MAX_URL = 2000
MAX_FOLDER_BYTES = 700
MAX_SEGMENT_BYTES = 255

FIRST_LOCAL_SOURCE_ID = 9_000_000_000_001
"""Sources added on this machine are numbered from here: far above a platform's own ids, still exact in a
consumer that reads JSON numbers as doubles (2^53 is 9,007,199,254,740,992)."""
LAST_LOCAL_SOURCE_ID = FIRST_LOCAL_SOURCE_ID + 999_999_999_999

OWN_FOLDERS = frozenset({".partial", ".trash", ".http-downloader"})
"""Folders directly under CONTENT_ROOT that hold our own state; no source may live in them."""

FORBIDDEN_PREFIXES = frozenset({"recursive", "r", "oauth", "ytdl", "youtube-dl", "noop", "file", "test", "tests"})
"""gallery-dl pseudo sites that read local files, open ports, or do nothing and report success."""

_URL = re.compile(r"(?:(?P<prefix>[A-Za-z0-9][A-Za-z0-9_.-]*):)?(?P<address>(?i:https?)://\S+)")
_CONTROL = re.compile(f"[{CONTROL}]")
_WEB = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_.-]*:)?https?:", re.IGNORECASE)
_BEFORE_HOST = re.compile(r"^(.*?//)?.*@", re.DOTALL)
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""What file systems that fold names leave out when they compare (Unicode: Default_Ignorable_Code_Point)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """`content_path` is relative to CONTENT_ROOT, with `/` between its segments and none at its ends."""

    source_id: int
    url: str
    content_path: str
    remote_deletes: RemoteDeletes | None = None
    """The most that may be done about files that are gone at the remote; None: as the source is set."""
    priority: int | None = None
    """0 to 9, the highest is served first; None: the order does not say."""


def parse_order(body: bytes) -> Order:
    """Read the JSON of one order. Unknown keys are ignored.

    Raises `OrderRejected` with the fault and a sentence that names what is wrong and what is allowed.
    """
    if len(body) > MAX_BODY:
        _reject(OrderFault.TOO_LARGE, f"the order has {len(body)} bytes; at most {MAX_BODY} are allowed")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        _reject(OrderFault.NOT_UTF8, f"the order is not UTF-8: byte {error.start} is wrong")
    fields = _object(text)
    for key in ("source_id", "url", "content_path"):
        if key not in fields:
            _reject(OrderFault.MISSING_KEY, f"the order has no key {key!r}")
    return make_order(
        fields["source_id"],
        fields["url"],
        fields["content_path"],
        remote_deletes=fields.get("remote_deletes"),
        priority=fields.get("priority"),
    )


def make_order(
    source_id: object, url: object, content_path: object, *, remote_deletes: object = None, priority: object = None
) -> Order:
    """Check the values of an order, wherever they come from. Raises `OrderRejected`."""
    return Order(
        source_id=check_source_id(source_id),
        url=check_url(url),
        content_path=check_content_path(content_path),
        remote_deletes=check_remote_deletes(remote_deletes),
        priority=check_priority(priority),
    )


def check_remote_deletes(value: object) -> RemoteDeletes | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in list(RemoteDeletes):
        _reject(OrderFault.BAD_REMOTE_DELETES, f"remote_deletes must be keep, trash or delete, not {_show(value)}")
    return RemoteDeletes(value)


def check_priority(value: object) -> int | None:
    if value is not None and (type(value) is not int or not 0 <= value <= HIGHEST_PRIORITY):
        _reject(
            OrderFault.BAD_PRIORITY, f"priority must be an integer from 0 to {HIGHEST_PRIORITY}, not {_show(value)}"
        )
    return value


def check_source_id(value: object) -> int:
    # bool is a subclass of int in Python: True must not become source 1.
    if type(value) is not int or not 1 <= value <= MAX_SOURCE_ID:
        _reject(OrderFault.BAD_SOURCE_ID, f"source_id must be a positive integer, not {_show(value)}")
    return value


def check_url(value: object) -> str:
    """The URL as given, when it has an allowed form; whether gallery-dl knows the site is not asked here."""
    if not isinstance(value, str):
        _reject(OrderFault.BAD_URL, f"url must be a string, not {_show(value)}")
    if len(value) > MAX_URL:
        _reject(OrderFault.BAD_URL, f"url has {len(value)} characters; at most {MAX_URL} are allowed")
    if _CONTROL.search(value) or value != value.strip():
        _reject(OrderFault.BAD_URL, f"url has control characters or blanks at its ends: {_show_url(value)}")
    match = _URL.fullmatch(value)
    if match is None:
        scheme = value.partition(":")[0].lower() if ":" in value else ""
        forbidden = scheme and " " not in scheme and not _WEB.match(value)
        fault = OrderFault.FORBIDDEN_SCHEME if forbidden else OrderFault.BAD_URL
        _reject(
            fault,
            f"url must be http://… or https://… without blanks, or a gallery-dl category in front of one, not {_show_url(value)}",
        )
    prefix = match["prefix"]
    if prefix and prefix.lower() in FORBIDDEN_PREFIXES:
        _reject(
            OrderFault.FORBIDDEN_SCHEME, f"the prefix {prefix + ':'!r} is not allowed; use a site's category or none"
        )
    try:
        address = urlsplit(match["address"])
        port = address.port
    except ValueError:  # its text may repeat a password
        _reject(OrderFault.BAD_URL, f"url has a malformed host or port: {_show_url(value)}")
    if not address.hostname or port == 0:
        _reject(OrderFault.BAD_URL, f"url names no host: {_show_url(value)}")
    if address.username is not None or address.password is not None:
        # Not shown: the catalog, the logs and the events repeat the URL, and it would carry the password there.
        _reject(OrderFault.BAD_URL, "url must not contain a user name or password; put them into gallery-dl.conf.json")
    return value


def check_content_path(value: object) -> str:
    """The folder without leading, trailing and doubled slashes, as it is stored and joined to CONTENT_ROOT."""
    if not isinstance(value, str):
        _reject(OrderFault.BAD_CONTENT_PATH, f"content_path must be a string, not {_show(value)}")
    if _CONTROL.search(value):
        _reject(OrderFault.BAD_CONTENT_PATH, f"content_path has control characters: {_show(value)}")
    segments = [segment for segment in value.split("/") if segment]
    if not segments:
        _reject(OrderFault.BAD_CONTENT_PATH, f"content_path must name a folder below CONTENT_ROOT, not {_show(value)}")
    if any(segment in (".", "..") for segment in segments):
        _reject(OrderFault.BAD_CONTENT_PATH, f"content_path must not contain '.' or '..': {_show(value)}")
    if _UNSEEN.sub("", segments[0]).casefold() in OWN_FOLDERS:
        _reject(OrderFault.BAD_CONTENT_PATH, f"content_path must not lie under our own folder {_show(segments[0])}")
    if any(len(segment.encode()) > MAX_SEGMENT_BYTES for segment in segments):
        _reject(OrderFault.BAD_CONTENT_PATH, f"content_path has a segment of more than {MAX_SEGMENT_BYTES} bytes")
    path = "/".join(segments)
    if len(path.encode()) > MAX_FOLDER_BYTES:
        _reject(OrderFault.BAD_CONTENT_PATH, f"content_path has more than {MAX_FOLDER_BYTES} bytes")
    return path


def default_content_path(url: str) -> str:
    """A folder for a URL that comes without one: host, then what names the gallery, readable and stable.

    >>> default_content_path("https://danbooru.donmai.us/posts?tags=cat+hat")
    'danbooru.donmai.us/posts-tags-cat-hat'
    """
    match = _URL.fullmatch(url)
    address = urlsplit(without_secret_parameters(match["address"] if match else url))
    words = re.findall(r"[\w.]+", unquote(f"{address.path} {address.query}"))
    name = _cut("-".join(words).strip(".-"), 120).strip(".-") or "gallery"
    host = _cut(re.sub(r"[^\w.-]", "_", address.netloc.lower()).strip("."), MAX_SEGMENT_BYTES).strip(".") or "site"
    return check_content_path(f"{host}/{name}")


def _cut(text: str, size: int) -> str:
    """The beginning of a text, at most so many bytes of it."""
    return text.encode()[:size].decode(errors="ignore")


def _object(text: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in pairs:
            if key in result:
                # Two parsers may pick different ones of the two: what was meant cannot be known.
                _reject(OrderFault.DUPLICATE_KEY, f"the order has the key {_show(key)} twice")
            result[key] = value
        return result

    def no_constant(name: str) -> NoReturn:
        _reject(OrderFault.NOT_JSON, f"the order is not JSON: {name} is not a JSON value")

    def whole_number(digits: str) -> int | float:
        # Longer ones are no id, may stand under an unknown key, and beyond 4,300 digits Python refuses them.
        return int(digits) if len(digits) <= 20 else float(digits)

    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant, parse_int=whole_number)
    except RecursionError:
        _reject(OrderFault.NOT_JSON, "the order is nested too deeply")
    except ValueError as error:
        _reject(OrderFault.NOT_JSON, f"the order is not JSON: {str(error)[:120]}")
    if not isinstance(value, dict):
        _reject(OrderFault.NOT_AN_OBJECT, f"the order must be a JSON object, not {_show(value)}")
    return value


def _reject(fault: OrderFault, sentence: str) -> NoReturn:
    raise OrderRejected(fault, sentence)


def _show(value: object) -> str:
    """A wrong value as it may stand in a log line: ASCII, short."""
    try:
        text = ascii(value)
    except (RecursionError, ValueError):  # nested too deeply; an integer of too many digits
        text = type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."


def _show_url(value: str) -> str:
    """The same for a URL, without what may be a user name and password in it."""
    return _show(masked(_BEFORE_HOST.sub(r"\1***@", value)))
