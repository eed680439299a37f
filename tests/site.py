"""A gallery that misbehaves when it is told to, and that remembers what was asked of it."""  # noqa: A005

import gzip
import hashlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.message import Message
from http.cookies import SimpleCookie
from typing import Any, cast
from urllib.parse import parse_qs, unquote, urlsplit

from http_downloader.demo.pictures import picture
from http_downloader.demo.site import (
    LARGEST_PAGE,
    NOT_FOUND,
    Exchange,
    GallerySite,
    Post,
    Response,
    file_response,
    html_response,
    json_response,
)

__all__ = [
    "FaultySite",
    "Post",
    "Record",
    "Response",
    "Rule",
    "chunked",
    "cut",
    "direct_picture",
    "drip",
    "empty_listing",
    "gzipped",
    "hang",
    "hang_up",
    "login_page",
    "part_of",
    "raw",
    "redirect",
    "set_cookie",
    "status",
    "verbatim",
]

Action = Callable[["FaultyExchange"], None]
"""Answers one request in place of the site."""


def status(code: int, headers: Mapping[str, str] | None = None, body: bytes = b"as you wish\n") -> Action:
    """Answer with this status, and with headers such as Retry-After."""
    return _answer(Response(status=code, headers=headers or {}, body=body))


def redirect(url: str, code: int = 302) -> Action:
    """Send the client to another address."""
    return _answer(Response(status=code, headers={"Location": url}))


def raw(body: bytes, content_type: str = "application/octet-stream") -> Action:
    """Answer 200 with these bytes."""
    return _answer(Response(body=body, content_type=content_type))


def login_page() -> Action:
    """Answer 200 with a page that asks for a password, as sites do whose session has ended."""
    return _answer(
        html_response(
            "<!doctype html><title>Log in</title><h1>Please log in</h1>"
            '<form method="post" action="/login"><input name="user"><input name="password"></form>'
        )
    )


def empty_listing() -> Action:
    """Answer 200 with a listing of nothing."""
    return _answer(json_response([]))


def set_cookie(name: str, value: str, attributes: str = "Path=/") -> Action:
    """Answer as usual, with a cookie."""

    def act(exchange: "FaultyExchange") -> None:
        usual = exchange.usual()
        cookie = {"Set-Cookie": f"{name}={value}; {attributes}"}
        exchange.send(replace(usual, headers={**usual.headers, **cookie}))

    return act


def hang_up() -> Action:
    """Close the connection without an answer."""

    def act(exchange: "FaultyExchange") -> None:
        exchange.close_connection = True

    return act


def cut(after: int | None = None, promise: bool = True) -> Action:
    """Close the connection after so many bytes of the body, or in its middle.

    Without the promise of a Content-Length the client cannot tell that there was more.
    """

    def act(exchange: "FaultyExchange") -> None:
        usual = exchange.usual()
        headers = {"Content-Length": str(len(usual.body))} if promise else {}
        exchange.send_head(usual, {**headers, "Connection": "close"})
        exchange.deliver(usual.body[: len(usual.body) // 2 if after is None else after])
        exchange.close_connection = True

    return act


def chunked(body: bytes | None = None, *, piece: int = 1000, cut_off: bool = False) -> Action:
    """Answer in chunks, so that no length is told; `cut_off`: close the connection before the last of them."""

    def act(exchange: "FaultyExchange") -> None:
        usual = exchange.usual()
        exchange.send_head(usual, {"Transfer-Encoding": "chunked"})
        content = usual.body if body is None else body
        chunks = [content[start : start + piece] for start in range(0, len(content), piece)]
        for chunk in chunks[:-1] if cut_off else chunks:
            exchange.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if cut_off:
            exchange.close_connection = True
        else:
            exchange.deliver(b"0\r\n\r\n")

    return act


def gzipped(body: bytes | None = None, *, times: int = 1) -> Action:
    """Answer 200 with a body that is packed, so many times over."""

    def pack(content: bytes) -> bytes:
        for _ in range(times):
            content = gzip.compress(content, 6)
        return content

    packed = None if body is None else pack(body)

    def act(exchange: "FaultyExchange") -> None:
        usual = exchange.usual()
        content = pack(usual.body) if packed is None else packed
        encoding = {"Content-Encoding": ", ".join(["gzip"] * times)}
        exchange.send(replace(usual, body=content, headers={**usual.headers, **encoding}))

    return act


def part_of(body: bytes, start: int, total: int | None = None, headers: Mapping[str, str] | None = None) -> Action:
    """Answer 206 with what is said to be the rest of a file from byte `start` on, whatever was asked for."""
    span = {"Content-Range": f"bytes {start}-{start + len(body) - 1}/{start + len(body) if total is None else total}"}
    return _answer(Response(status=206, headers={**span, **(headers or {})}, body=body, content_type="image/png"))


def verbatim(*pieces: bytes, interval: float = 0.0) -> Action:
    """Send exactly these bytes, head and all, with `interval` seconds between; then close the connection."""

    def act(exchange: "FaultyExchange") -> None:
        for piece in pieces:
            exchange.wfile.write(piece)
            exchange.site.pause(interval)
        exchange.close_connection = True

    return act


def hang(seconds: float) -> Action:
    """Answer as usual, but so much later; stop() ends the wait, and then there is no answer."""

    def act(exchange: "FaultyExchange") -> None:
        exchange.site.pause(seconds)
        exchange.send(exchange.usual())

    return act


def drip(size: int, interval: float) -> Action:
    """Answer as usual, but `size` bytes of the body at a time, with `interval` seconds between."""

    def act(exchange: "FaultyExchange") -> None:
        usual = exchange.usual()
        exchange.send_head(usual, {"Content-Length": str(len(usual.body))})
        for start in range(0, len(usual.body) - size, size):
            exchange.wfile.write(usual.body[start : start + size])
            exchange.site.pause(interval)
        exchange.deliver(usual.body[(len(usual.body) - 1) // size * size :])

    return act


def _answer(response: Response) -> Action:
    return lambda exchange: exchange.send(response)


def direct_picture(path: str) -> bytes:
    """The file that every FaultySite serves at this path below /direct/."""
    return picture(int.from_bytes(hashlib.sha256(path.encode()).digest()[:6], "big"), 64, 48)


@dataclass(kw_only=True, slots=True)
class Record:
    """One request as it came in; complete before the client has its answer."""

    at: float
    """The time of arrival, of the monotonic clock."""
    method: str
    path: str
    """With its query, as it was sent."""
    headers: dict[str, str]
    status: int | None = None
    """None as long as nothing was sent."""


@dataclass(kw_only=True, slots=True, eq=False)
class Rule:
    """Which requests an action takes over."""

    path: re.Pattern[str]
    action: Action
    times: int | None
    """How often it may fire; None for always."""
    page: int | None
    fired: int = 0


class _Gauge:
    """How many are there now, and how many there were at most; its owner locks."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def change(self, by: int) -> None:
        self.now += by
        self.most = max(self.most, self.now)


class FaultyExchange(Exchange):
    """One client's connection, watched."""

    def setup(self) -> None:
        self.site = cast("FaultySite", self.server.site)
        super().setup()

    def handle(self) -> None:
        with self.site.counted_connection():
            super().handle()

    def do_GET(self) -> None:  # noqa: N802  (http.server names it)
        action = self.site.receive(self)
        try:
            self.site.pause(self.site.latency(self.path))
            action(self) if action else self.send(self.usual())
        finally:
            self.site.leave(self)

    def do_POST(self) -> None:  # noqa: N802
        """misskey asks for everything in this way."""
        self.asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.do_GET()

    def usual(self) -> Response:
        """What the site would answer if it behaved."""
        if self.command == "POST":
            return self.site.answer_misskey(self.path, self.asked)
        return self.site.answer(self.path, self.headers)

    def send(self, response: Response) -> None:
        if self.command == "HEAD" or not response.body:
            self.site.leave(self)
        self.send_head(response, {"Content-Length": str(len(response.body))})
        if self.command != "HEAD":
            self.deliver(response.body)

    def deliver(self, body: bytes) -> None:
        """Send the end of a body.

        The request stops counting before its last byte: the client may send the next one as soon as it
        has that byte, and would seem to have two at once.
        """
        self.wfile.write(body[:-1])
        self.site.leave(self)
        self.wfile.write(body[-1:])

    def send_head(self, response: Response, more_headers: Mapping[str, str]) -> None:
        self.site.tell_status(self, response.status)
        super().send_head(response, more_headers)


class FaultySite(GallerySite):
    """The demo's gallery with rules for what goes wrong, and with a log.

    More is served than there: any `/direct/….png`, `/plain/<n>.html` with n pictures of those, the
    moebooru API for the same posts (`moebooru:{site.root}/post?tags=demo`) and the one of misskey
    (`misskey:{site.root}/@demo/notes`), a thread of a message board (`lynxchan:{site.root}/b/res/1`) and a wiki
    (`wikimedia:{site.root}/wiki/Category:Demo`), both with pictures of `/direct/`.
    """

    exchange = FaultyExchange

    def __init__(self, posts: Iterable[Post] = (), *, port: int = 0) -> None:
        self.listing_latency = 0.0
        self.file_latency = 0.0
        self.require_cookie: tuple[str, str] | None = None
        """Name and value of the cookie without which listings answer 401."""
        self.most_files: int | None = None
        """More files at the same time are answered with 429."""
        self.artists: list[str] = []
        """Tags that `/artists?…` lists, each of them a gallery of its own."""
        self.page_size: int | None = None
        """Posts on a page at most; what clients ask for, unless given."""
        self.omits_hidden = False
        """Hidden posts are left out of their page altogether, which is that much shorter."""
        self.thread: list[str] = []
        """Pictures of the thread: its ids count them, so that all behind a deleted one get other ids."""
        self.wiki: list[str] = []
        """Pictures of the wiki."""
        self._watch = threading.Lock()
        self._stopping = threading.Event()
        self._rules: list[Rule] = []
        self._under_way: dict[FaultyExchange, tuple[Record, list[_Gauge]]] = {}
        self._connected = _Gauge()
        self._gauges = {kind: _Gauge() for kind in ("any", "listing", "file", "other")}
        self._log: list[Record] = []
        super().__init__(posts, port=port)

    def start(self) -> None:
        self._stopping.clear()
        super().start()

    def stop(self) -> None:
        self._stopping.set()
        super().stop()

    # What goes wrong

    def rule(self, path_regex: str, action: Action, times: int | None = None, page: int | None = None) -> Rule:
        """Let `action` answer requests whose path and query contain `path_regex`.

        `page` narrows it to that page of a listing, counted from 1. The first rule that fits and has not
        fired `times` often is taken.
        """
        rule = Rule(path=re.compile(path_regex), action=action, times=times, page=page)
        with self._watch:
            self._rules.append(rule)
        return rule

    def clear_rules(self) -> None:
        """Behave well from the next request on."""
        with self._watch:
            self._rules.clear()

    def pause(self, seconds: float) -> None:
        """Wait; ConnectionAbortedError as soon as the site is stopped."""
        if seconds > 0 and self._stopping.wait(seconds):
            raise ConnectionAbortedError("the site was stopped")

    def latency(self, path: str) -> float:
        """How long a request of this path has to wait."""
        return {"listing": self.listing_latency, "file": self.file_latency}.get(kind_of(path), 0.0)

    # What was seen

    @property
    def log(self) -> list[Record]:
        """All requests so far, in the order of their arrival."""
        with self._watch:
            return list(self._log)

    def requests(self, path_regex: str = "") -> list[Record]:
        """The logged requests whose path and query contain `path_regex`."""
        return [record for record in self.log if re.search(path_regex, record.path)]

    def clear_log(self) -> None:
        """Forget the requests, and begin the maxima anew."""
        with self._watch:
            self._log.clear()
            for gauge in (self._connected, *self._gauges.values()):
                gauge.most = gauge.now

    @property
    def active(self) -> int:
        """Requests that are being answered now."""
        return self._gauges["any"].now

    @property
    def max_active(self) -> int:
        """Requests that were being answered at the same time, at most."""
        return self._gauges["any"].most

    @property
    def max_active_listings(self) -> int:
        """The same of listings only."""
        return self._gauges["listing"].most

    @property
    def max_active_files(self) -> int:
        """The same of files only."""
        return self._gauges["file"].most

    @property
    def connections(self) -> int:
        """Connections that are open now."""
        return self._connected.now

    @property
    def max_connections(self) -> int:
        """Connections that were open at the same time, at most."""
        return self._connected.most

    # What the exchanges report

    @contextmanager
    def counted_connection(self) -> Iterator[None]:
        """Count one connection."""
        with self._watch:
            self._connected.change(+1)
        try:
            yield
        finally:
            with self._watch:
                self._connected.change(-1)

    def receive(self, exchange: FaultyExchange) -> Action | None:
        """Log a request, count it, and say which action takes it over."""
        page = self._listing_page(exchange.path)
        record = Record(
            at=time.monotonic(),
            method=exchange.command,
            path=exchange.path,
            headers=dict(exchange.headers.items()),
        )
        with self._watch:
            gauges = [self._gauges["any"], self._gauges[kind_of(exchange.path)]]
            for gauge in gauges:
                gauge.change(+1)
            self._under_way[exchange] = (record, gauges)
            self._log.append(record)
            if self.most_files is not None and self._gauges["file"].now > self.most_files:
                return status(429) if kind_of(exchange.path) == "file" else None
            for rule in self._rules:
                spent = rule.times is not None and rule.fired >= rule.times
                if not spent and rule.page in (None, page) and rule.path.search(exchange.path):
                    rule.fired += 1
                    return rule.action
        return None

    def tell_status(self, exchange: FaultyExchange, code: int) -> None:
        """Note what a request is answered with."""
        with self._watch:
            if exchange in self._under_way:
                self._under_way[exchange][0].status = int(code)

    def leave(self, exchange: FaultyExchange) -> None:
        """Count a request as answered; the second call for it does nothing."""
        with self._watch:
            _, gauges = self._under_way.pop(exchange, (None, ()))
            for gauge in gauges:
                gauge.change(-1)

    # What is served

    def answer(self, target: str, headers: Message) -> Response:
        url = urlsplit(target)
        if self.require_cookie and kind_of(target) == "listing":
            name, value = self.require_cookie
            cookie = SimpleCookie(headers.get("Cookie", "")).get(name)
            if cookie is None or cookie.value != value:
                return json_response({"success": False, "message": "log in first"}, status=401)
        if url.path.startswith("/direct/"):
            return self._direct(unquote(url.path), headers)
        if plain := re.fullmatch(r"/plain/(\d+)\.html", url.path):
            return html_response(_plain_page(self.root, int(plain[1])))
        if url.path == "/artists.json":
            page = parse_qs(url.query).get("page", ["1"])[-1]
            return json_response(
                [{"id": n, "name": name} for n, name in enumerate(self.artists)] if page == "1" else []
            )
        if url.path == "/post.json":
            return self._moebooru_listing(parse_qs(url.query))
        if url.path == "/b/res/1.json":
            return self._thread_page()
        if url.path == "/api.php":
            return self._wiki_page() if "subcat" not in url.query else json_response({})
        return super().answer(target, headers)

    def _listing(self, tags: str, limit: str, page: str) -> Response:
        response = super()._listing(tags, str(self._size(limit)), page)
        if not self.omits_hidden:
            return response
        return json_response([post for post in json.loads(response.body) if "file_url" in post])

    def _size(self, limit: str) -> int:
        return min(int(limit) if limit.isdecimal() else 20, self.page_size or LARGEST_PAGE)

    def _thread_page(self) -> Response:
        """A post for each ten pictures. Source: gallery_dl/extractor/lynxchan.py."""
        files = [{"originalName": f"{name}.png", "path": f"/direct/thread/{name}.png"} for name in self.thread]
        later = [{"postId": 1 + start // 10, "files": files[start : start + 10]} for start in range(10, len(files), 10)]
        first = {"boardUri": "b", "threadId": 1, "subject": "Demo", "message": "", "files": files[:10]}
        return json_response(first | {"posts": later})

    def _wiki_page(self) -> Response:
        """Source: gallery_dl/extractor/wikimedia.py."""
        pages = {
            str(number): {
                "title": f"File:{name}.png",
                "imageinfo": [
                    {
                        "canonicaltitle": f"File:{name}.png",
                        "url": f"{self.root}/direct/wiki/{name}.png",
                        "sha1": hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest(),
                        "timestamp": "2026-01-01T00:00:00Z",
                        "metadata": [],
                        "commonmetadata": [],
                    }
                ],
            }
            for number, name in enumerate(self.wiki, 1)
        }
        return json_response({"query": {"pages": pages}})

    def _direct(self, path: str, headers: Message) -> Response:
        name, _, extension = path.removeprefix("/direct/").rpartition(".")
        post = Post(id=0, name=name, extension=extension, body=direct_picture(path))
        return file_response(post, headers.get("Range", ""))

    def _moebooru_listing(self, query: dict[str, list[str]]) -> Response:
        """Numbered pages only; posts with the keys and the kind of date that moebooru has."""
        posts = self.search(query.get("tags", [""])[-1])
        size, page = int(query.get("limit", ["40"])[-1]), int(query.get("page", ["1"])[-1])
        return json_response(
            [
                {
                    "id": post.id,
                    "tags": " ".join(post.tags),
                    "created_at": int(post.created_at.timestamp()),
                    "md5": post.md5,
                }
                | ({} if post.hidden else {"file_url": self.file_url(post), **post.told})
                for post in posts[(page - 1) * size : page * size]
            ]
        )

    def answer_misskey(self, target: str, asked: dict[str, Any]) -> Response:
        """A user's notes, newest first: posts that lie in one folder are the files of one note, whose id it is."""
        if target == "/api/users/show":
            return json_response({"id": "1", "username": asked["username"]})
        if target != "/api/users/notes":
            return NOT_FOUND
        notes: dict[str, list[Post]] = {}
        for post in reversed(self.posts):
            notes.setdefault(post.folder, []).append(post)
        ids = sorted((note for note in notes if note < asked.get("untilId", "~")), reverse=True)
        return json_response([self._note(note, notes[note]) for note in ids[: asked["limit"]]])

    def _note(self, note: str, posts: list[Post]) -> dict[str, Any]:
        return {
            "id": note,
            "createdAt": posts[0].created_at.isoformat(),
            "user": {"username": "demo", "host": None},
            "files": [
                {"id": str(post.id), "url": self.file_url(post), "createdAt": post.created_at.isoformat()}
                for post in posts
            ],
        }

    def _listing_page(self, target: str) -> int | None:
        """Which page of its listing a request asks for; None if it asks for something else.

        gallery-dl counts by the last id that it saw: the page follows from how many posts lie before that.
        """
        url = urlsplit(target)
        if url.path not in ("/posts.json", "/post.json"):
            return None
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        page, size = query.get("page", "1"), self._size(query.get("limit", "20"))
        if page.isdecimal():
            return int(page)
        before, border = page[0] == "b", int(page[1:])
        seen = [
            post for post in self.search(query.get("tags", "")) if (post.id >= border if before else post.id <= border)
        ]
        return 1 + math.ceil(len(seen) / size)


def kind_of(path: str) -> str:
    """`listing`, `file` or `other`."""
    if re.match(r"/(posts|post)\.json|/posts/\d+\.json", path):
        return "listing"
    return "file" if path.startswith(("/data/", "/direct/")) else "other"


def _plain_page(root: str, count: int) -> str:
    images = "\n".join(f'<img src="{root}/direct/plain/{n}.png" alt="">' for n in range(1, count + 1))
    return f"<!doctype html>\n<html><head><title>Plain</title></head><body>\n{images}\n</body></html>\n"
