"""A gallery fast enough not to be what is measured: danbooru's listing, and files of any size, in a process of its own.

It speaks just enough HTTP/1.1 for gallery-dl, straight on asyncio's transports, and counts what its clients do.
One process serves several sites, each on a port of its own: for gallery-dl a host and port is a site.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import random
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

LARGEST_PAGE = 200
"""What danbooru gives at most, and what gallery-dl asks for."""
SIGNATURE = b"\xff\xd8\xff"
"""gallery-dl looks at the first bytes of a picture, and renames one that is not what its extension says."""
BLOCK = random.Random(1).randbytes(1 << 18)
SMALL = 1 << 16
"""Bytes of a file that is sent together with its headers, in one write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """What a site is like; all of it can be changed while it serves, with `/_set?name=value`."""

    files: int = 0
    """Posts in each gallery; any tag is a gallery."""
    size: int = 20_000
    """Bytes of each file."""
    listing_latency: float = 0.0
    """Seconds from the request for a page of the listing to its answer."""
    file_latency: float = 0.0
    pace: float = 0.0
    """Files that are answered in a second, evenly spread; 0: as fast as it goes."""
    limit: int = 0
    """Simultaneous requests; one more is answered with 429 at once. 0: no limit."""
    retry_after: int = 0
    """Seconds in the Retry-After header of a 429; 0: without that header."""

    def changed(self, query: dict[str, list[str]]) -> SiteSettings:
        """With the values of a query string in place."""
        kinds = {field.name: type(getattr(self, field.name)) for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: kinds[name](values[-1]) for name, values in query.items()})


@dataclass(slots=True)
class Counters:
    """Requests for `/_…` and connections that bring nothing else are not counted."""

    requests: int = 0
    listings: int = 0
    files: int = 0
    refused: int = 0
    active: int = 0
    max_active: int = 0
    connections: int = 0
    max_connections: int = 0


def chunks(number: int, size: int) -> Iterator[bytes]:
    """The bytes of a file: always the same ones, other ones for each number, and never all of them in memory."""
    head = (SIGNATURE + number.to_bytes(8, "big"))[:size]
    yield head
    rest = size - len(head)
    while rest >= len(BLOCK):
        yield BLOCK
        rest -= len(BLOCK)
    yield BLOCK[:rest]


def page_of(files: int, size: int, page: str) -> range:
    """Post ids of one page, newest first: those before an id (`b7`), after one (`a7`), or by the page's number."""
    if page[:1] == "b" and page[1:].isdecimal():
        newest = min(int(page[1:]) - 1, files)
    elif page[:1] == "a" and page[1:].isdecimal():
        newest = min(int(page[1:]) + size, files)
        size = newest - int(page[1:])
    else:
        newest = files - (max(int(page), 1) - 1) * size if page.isdecimal() else files
    return range(newest, max(newest - size, 0), -1)


@functools.lru_cache(maxsize=1024)
def listing(root: str, tag: str, ids: range) -> bytes:
    """A page as danbooru answers it, as far as gallery-dl reads it."""
    return json.dumps([_post(root, tag, post) for post in ids]).encode()


def _post(root: str, tag: str, post: int) -> dict[str, object]:
    tags = f"{tag} landscape outdoors sky cloud no_humans scenery tree water"
    return {
        "id": post,
        "created_at": "2026-01-01T00:00:00.000+00:00",
        "source": f"https://example.org/{post}",
        "md5": f"{post:032x}",
        "file_ext": "jpg",
        "rating": "g",
        "score": post % 100,
        "image_width": 1920,
        "image_height": 1080,
        "tag_string": tags,
        "tag_string_general": tags,
        "tag_string_artist": "somebody",
        "tag_string_character": "",
        "tag_string_copyright": "original",
        "tag_string_meta": "highres",
        "file_url": f"{root}/data/{post:08}.jpg",
    }


class Gallery:
    """One site: what it is like, and what it has counted."""

    def __init__(self, settings: SiteSettings) -> None:
        self.settings = settings
        self.counters = Counters()
        self.root = ""
        self._next_file = 0.0

    def reset(self) -> None:
        """Count anew; what is under way now goes on counting as active."""
        now = self.counters
        self.counters = Counters(
            active=now.active, max_active=now.active, connections=now.connections, max_connections=now.connections
        )

    def delay_of_file(self, now: float) -> float:
        """Seconds that the answer to a request for a file is held back."""
        if not self.settings.pace:
            return self.settings.file_latency
        self._next_file = max(self._next_file + 1 / self.settings.pace, now)
        return self._next_file - now + self.settings.file_latency


class Exchange(asyncio.Protocol):
    """One client's connection: requests are answered one after the other, as they come."""

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._received = b""
        self._counted = False
        self._busy = False
        self._paused = False
        self._rest: Iterator[bytes] = iter(())

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.set_write_buffer_limits(high=1 << 20)

    def connection_lost(self, _error: Exception | None) -> None:
        if self._counted:
            self._gallery.counters.connections -= 1
        if self._busy:
            self._done()
        self._transport = None

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._busy:
            self._send_rest()

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._next_request()

    def _next_request(self) -> None:
        while not self._busy and self._transport is not None and b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            method, target, _ = head.split(b" ", 2)
            self._serve(method == b"HEAD", target.decode("latin-1"))

    def _serve(self, only_head: bool, target: str) -> None:
        if target.startswith("/_"):
            self._send(*self._control(target))
            return
        counters, settings = self._gallery.counters, self._gallery.settings
        self._count()
        if settings.limit and counters.active > settings.limit:
            counters.refused += 1
            again = f"Retry-After: {settings.retry_after}\r\n" if settings.retry_after else ""
            self._answer(b"slower, please\n", "429 Too Many Requests", more=again)
            return
        if target.startswith("/data/"):
            counters.files += 1
            delay = self._gallery.delay_of_file(self._loop.time())
            answer = functools.partial(self._answer_file, target, only_head)
        else:
            counters.listings += 1
            delay = settings.listing_latency
            answer = functools.partial(self._answer_listing, target)
        if delay > 0:
            self._loop.call_later(delay, answer)
        else:
            answer()

    def _count(self) -> None:
        counters = self._gallery.counters
        if not self._counted:
            self._counted = True
            counters.connections += 1
            counters.max_connections = max(counters.max_connections, counters.connections)
        counters.requests += 1
        counters.active += 1
        counters.max_active = max(counters.max_active, counters.active)
        self._busy = True

    def _done(self) -> None:
        self._busy = False
        self._gallery.counters.active -= 1

    def _control(self, target: str) -> tuple[bytes, str]:
        url = urlsplit(target)
        match url.path:
            case "/_counters":
                pass
            case "/_reset":
                self._gallery.reset()
            case "/_set":
                self._gallery.settings = self._gallery.settings.changed(parse_qs(url.query))
            case _:
                return b"not found\n", "404 Not Found"
        return json.dumps(dataclasses.asdict(self._gallery.counters)).encode(), "200 OK"

    def _answer_listing(self, target: str) -> None:
        url = urlsplit(target)
        if url.path != "/posts.json":
            self._answer(b"not found\n", "404 Not Found")
            return
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        limit = query.get("limit", "")
        size = min(int(limit), LARGEST_PAGE) if limit.isdecimal() else 20
        ids = page_of(self._gallery.settings.files, size, query.get("page", ""))
        self._answer(listing(self._gallery.root, query.get("tags", ""), ids), content_type="application/json")

    def _answer_file(self, target: str, only_head: bool) -> None:
        name = target.removeprefix("/data/").partition(".")[0]
        settings = self._gallery.settings
        if not name.isdecimal() or not 1 <= int(name) <= settings.files:
            self._answer(b"not found\n", "404 Not Found")
            return
        head = _head(settings.size, "200 OK", "image/jpeg", "Last-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n")
        body = chunks(int(name), 0 if only_head else settings.size)
        if settings.size <= SMALL:
            self._rest = iter(())
            self._write(b"".join((head, *body)))
        else:
            self._rest = body
            self._write(head)
        self._send_rest()

    def _answer(self, body: bytes, status: str = "200 OK", *, content_type: str = "text/plain", more: str = "") -> None:
        self._rest = iter(())
        self._write(_head(len(body), status, content_type, more) + body)
        self._send_rest()

    def _send(self, body: bytes, status: str) -> None:
        self._write(_head(len(body), status, "application/json") + body)

    def _send_rest(self) -> None:
        """Write what the socket takes; when it is full, `resume_writing` goes on."""
        while not self._paused and self._transport is not None:
            chunk = next(self._rest, None)
            if chunk is None:
                if self._busy:
                    self._done()
                self._next_request()
                return
            self._write(chunk)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


def _head(size: int, status: str, content_type: str, more: str = "") -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {size}\r\n{more}\r\n".encode()


async def _serve(settings: list[SiteSettings]) -> None:
    """Until standard input closes: a site never outlives who started it."""
    loop = asyncio.get_running_loop()
    servers, ports = [], []
    for one in settings:
        gallery = Gallery(one)
        server = await loop.create_server(functools.partial(Exchange, gallery), "127.0.0.1", 0, backlog=512)
        port = server.sockets[0].getsockname()[1]
        gallery.root = f"http://127.0.0.1:{port}"
        servers.append(server)
        ports.append(port)
    print(json.dumps(ports), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


class Sites:
    """Starts the process on enter, ends it on exit. `roots[0]` is the address of the first site."""

    def __init__(self, *settings: SiteSettings) -> None:
        self._settings = settings
        self.roots: list[str] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.site"],
            cwd=Path(__file__).parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([dataclasses.asdict(one) for one in self._settings]) + "\n")
        self._process.stdin.flush()
        self.roots = [f"http://127.0.0.1:{port}" for port in json.loads(self._process.stdout.readline())]
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def url(self, tag: str, site: int = 0) -> str:
        """A gallery of a site, as gallery-dl and orders name it."""
        return f"Danbooru:{self.roots[site]}/posts?tags={tag}"

    def counters(self, site: int = 0) -> Counters:
        return Counters(**self._ask("/_counters", site))

    def reset(self) -> None:
        for site in range(len(self.roots)):
            self._ask("/_reset", site)

    def set(self, **values: float) -> None:
        """Change all sites."""
        query = "&".join(f"{name}={value}" for name, value in values.items())
        for site in range(len(self.roots)):
            self._ask(f"/_set?{query}", site)

    def _ask(self, path: str, site: int) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(self.roots[site] + path, timeout=30) as answer:
            result: dict[str, Any] = json.load(answer)
            return result


if __name__ == "__main__":
    asyncio.run(_serve([SiteSettings(**values) for values in json.loads(sys.stdin.readline())]))
