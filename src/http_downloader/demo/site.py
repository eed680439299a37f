"""A gallery on loopback that answers like a danbooru instance, as far as gallery-dl asks."""

import hashlib
import html
import json
import mimetypes
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import Message
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from http_downloader.demo.pictures import picture

LARGEST_PAGE = 200
"""What danbooru gives at most, and what gallery-dl asks for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Post:
    """One picture of the gallery and what is told about it; `Post(id=7)` is a whole one."""

    id: int
    title: str = ""
    tags: tuple[str, ...] = ("demo",)
    created_at: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    name: str = ""
    """The file's name without extension; made from the id, and looking like an MD5, unless given."""
    extension: str = "png"
    folder: str = ""
    """Where below /data/ the file lies, so that two albums may hold the same names."""
    body: bytes | Callable[[], bytes] | None = None
    """The file, or what makes it on demand; the picture that belongs to the id unless given."""
    hidden: bool = False
    """Listed without an address and not served, as for visitors without the right account."""
    told: Mapping[str, object] = field(default_factory=dict, hash=False)
    """What else the listing says of it."""

    @property
    def md5(self) -> str:
        """32 hexadecimal digits that belong to the id: nobody compares them with the bytes."""
        return hashlib.md5(str(self.id).encode(), usedforsecurity=False).hexdigest()

    @property
    def path(self) -> str:
        """The path of the file on the site, not yet quoted."""
        parts = ("/data", self.folder.strip("/"), f"{self.name or self.md5}.{self.extension}")
        return "/".join(part for part in parts if part)

    def content(self) -> bytes:
        """The bytes of the file."""
        if self.body is None:
            return picture(self.id)
        return self.body if isinstance(self.body, bytes) else self.body()


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """What is sent for one request; Content-Length follows from the body."""

    status: int = HTTPStatus.OK
    body: bytes = b""
    content_type: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


def json_response(value: object, status: int = HTTPStatus.OK) -> Response:
    """`value` as JSON."""
    return Response(status=status, body=json.dumps(value).encode(), content_type="application/json; charset=utf-8")


def html_response(text: str) -> Response:
    """`text` as a page."""
    return Response(body=text.encode(), content_type="text/html; charset=utf-8")


NOT_FOUND = Response(status=HTTPStatus.NOT_FOUND, body=b"not found\n")


class Exchange(BaseHTTPRequestHandler):
    """One client's connection, and the requests on it."""

    server: "_Server"
    protocol_version = "HTTP/1.1"
    server_version = "gallery"
    sys_version = ""
    # Headers and body are two writes: Nagle's algorithm would hold the second one back for 40 ms.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        self.send(self.server.site.answer(self.path, self.headers))

    def do_HEAD(self) -> None:
        self.do_GET()

    def send(self, response: Response) -> None:
        """Send a whole response."""
        self.send_head(response, {"Content-Length": str(len(response.body))})
        if self.command != "HEAD":
            self.wfile.write(response.body)

    def send_head(self, response: Response, more_headers: Mapping[str, str]) -> None:
        """Send all that comes before the body."""
        self.send_response(response.status)
        self.send_header("Content-Type", response.content_type)
        for name, value in (*response.headers.items(), *more_headers.items()):
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class names it)
        """Say nothing: stderr belongs to the program that starts the site."""


class _Server(ThreadingHTTPServer):
    """A server that can end the connections which its clients keep open."""

    # A site that nobody closed must not keep the interpreter from exiting. Threads are joined in
    # end_connections(): the base class would wait for clients that never hang up.
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, site: "GallerySite", port: int) -> None:
        self.site = site
        self._connections: dict[socket.socket, threading.Thread] = {}
        super().__init__(("127.0.0.1", port), site.exchange)

    def server_bind(self) -> None:
        """Bind without the base class's search for the host's name, which may ask a name server."""
        if self.allow_reuse_address:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        # Only the accepting thread comes here, and end_connections() comes after that thread: no lock.
        self._connections = {sock: thread for sock, thread in self._connections.items() if thread.is_alive()}
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="gallery connection",
            daemon=True,
        )
        self._connections[request] = thread
        thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that hang up, and those whom we hang up on: both are everyday."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def end_connections(self) -> None:
        """Hang up, and return when no thread of the server is left; to be called after shutdown()."""
        for connection in self._connections:
            with suppress(OSError):  # closed already
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._connections.values():
            thread.join()


class GallerySite:
    """Serves posts while `with GallerySite(posts) as site:` is open, at `site.root`.

    `Danbooru:{site.root}/posts?tags=demo` is a source that gallery-dl can crawl. Posts may come and go
    meanwhile, from any thread. After stop(), start() opens the site at the same address.
    """

    exchange: ClassVar[type[Exchange]] = Exchange

    def __init__(self, posts: Iterable[Post] = (), *, port: int = 0) -> None:
        self.port = port
        self._lock = threading.Lock()
        self._posts: tuple[Post, ...] = ()
        self._files: dict[str, Post] = {}
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self.add(*posts)

    @property
    def root(self) -> str:
        """The address without a slash at its end; known from the first start() on."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def posts(self) -> tuple[Post, ...]:
        """The posts of this moment, newest first."""
        with self._lock:
            return self._posts

    def add(self, *posts: Post) -> None:
        """Add posts; one whose id is there already takes the place of the old one."""
        with self._lock:
            self._replace({post.id: post for post in (*self._posts, *posts)})

    def remove(self, *ids: int) -> None:
        """Remove the posts with these ids, as far as they are there, and their files."""
        with self._lock:
            self._replace({post.id: post for post in self._posts if post.id not in ids})

    def _replace(self, posts: Mapping[int, Post]) -> None:
        self._posts = tuple(posts[post_id] for post_id in sorted(posts, reverse=True))
        self._files = {post.path: post for post in self._posts if not post.hidden}

    def start(self) -> None:
        """Serve, at the port of the last time if there was one; OSError if it is taken."""
        if self._server is not None:
            return
        self._server = _Server(self, self.port)
        self.port = self._server.server_port
        # The interval is how long stop() may have to wait.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="gallery site", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Refuse new connections and end the present ones; then no thread or socket is left."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        self._server.end_connections()
        self._server = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def answer(self, target: str, headers: Message) -> Response:
        """The response to a GET of `target`, a path with its query."""
        url = urlsplit(target)
        if url.path == "/":
            return self._front_page()
        if url.path == "/posts.json":
            query = {name: values[-1] for name, values in parse_qs(url.query).items()}
            return self._listing(query.get("tags", ""), query.get("limit", ""), query.get("page", ""))
        if single := re.fullmatch(r"/posts/(\d+)\.json", url.path):
            found = [post for post in self.posts if post.id == int(single[1])]
            return json_response(self._describe(found[0])) if found else NOT_FOUND
        with self._lock:
            post = self._files.get(unquote(url.path))
        return file_response(post, headers.get("Range", "")) if post else NOT_FOUND

    def search(self, tags: str) -> list[Post]:
        """The posts that have all of `tags`, newest first; `order:id` and the like exclude none."""
        wanted = {tag for tag in tags.split() if not tag.startswith("order:")}
        return [post for post in self.posts if wanted.issubset(post.tags)]

    def _listing(self, tags: str, limit: str, page: str) -> Response:
        posts = self.search(tags)
        size = min(int(limit), LARGEST_PAGE) if limit.isdecimal() else 20
        return json_response([self._describe(post) for post in _page(posts, tags, size, page)])

    def _describe(self, post: Post) -> dict[str, object]:
        tags = " ".join(post.tags)
        description: dict[str, object] = {
            "id": post.id,
            "created_at": post.created_at.isoformat(timespec="milliseconds"),
            "title": post.title,
            "source": "",
            "md5": post.md5,
            "file_ext": post.extension,
            "tag_string": tags,
            "tag_string_general": tags,
            "tag_string_artist": "",
            "tag_string_character": "",
            "tag_string_copyright": "",
            "tag_string_meta": "",
        }
        # gallery-dl tells hidden posts by the missing key; an empty address would be an error to it.
        return description if post.hidden else {**description, "file_url": self.file_url(post), **post.told}

    def file_url(self, post: Post) -> str:
        """Where the file of `post` can be had."""
        return self.root + quote(post.path)

    def _front_page(self) -> Response:
        pictures = "\n".join(
            f'<li><img src="{quote(post.path)}" alt="{html.escape(post.title or post.path)}" loading="lazy">'
            for post in self.posts
            if not post.hidden
        )
        return html_response(
            '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Gallery</title>\n'
            "<h1>Gallery</h1>\n<ul>\n" + pictures + "\n</ul></html>\n"
        )


def _page(posts: list[Post], tags: str, size: int, page: str) -> list[Post]:
    """One page of `posts`: by its number, or of those before (`b7`) or after (`a7`) an id.

    gallery-dl names the last id that it saw, so that a listing stays whole while posts come and go.
    """
    if page[:1] == "b" and page[1:].isdecimal():
        return [post for post in posts if post.id < int(page[1:])][:size]
    if page[:1] == "a" and page[1:].isdecimal():
        # The nearest ones, but newest first: gallery-dl turns these pages round by itself.
        return [post for post in posts if post.id > int(page[1:])][-size:]
    if {"order:id", "order:id_asc"} & set(tags.split()):
        posts = posts[::-1]
    start = (max(int(page), 1) - 1) * size if page.isdecimal() else 0
    return posts[start : start + size]


def file_response(post: Post, asked_range: str) -> Response:
    """The file of `post`, or its rest when a client goes on with a broken download."""
    body = post.content()
    content_type = mimetypes.guess_type(post.path)[0] or "application/octet-stream"
    headers = {
        "Last-Modified": format_datetime(post.created_at.astimezone(UTC), usegmt=True),
        "Accept-Ranges": "bytes",
    }
    rest = re.fullmatch(r"bytes=(\d+)-", asked_range)
    if rest is None:
        return Response(body=body, content_type=content_type, headers=headers)
    start = int(rest[1])
    if start >= len(body):
        return Response(
            status=HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            headers={"Content-Range": f"bytes */{len(body)}"},
        )
    return Response(
        status=HTTPStatus.PARTIAL_CONTENT,
        body=body[start:],
        content_type=content_type,
        headers={**headers, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"},
    )
