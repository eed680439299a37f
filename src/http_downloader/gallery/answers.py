"""Every answer of a site passes here: what it says, how large it is unpacked, and how slowly it comes."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import requests
from gallery_dl.exception import GalleryDLException

from ..domain.sizes import size_in_words
from ..domain.transfers import LARGEST_HEAD, LARGEST_PAGE, Flow, Limits, flowed

Complain = Callable[[str], None]
"""Takes what is wrong with the answer that this thread is reading: one sentence."""


class UnacceptableAnswer(GalleryDLException):  # type: ignore[misc]
    """What a site sent is not taken. No OSError, like a refused address: the same would come at once again."""

    code = 4


class TooSlow(OSError):
    """The connection is given up. An OSError: libraries then close it, and gallery-dl asks anew on another one."""


class _Here(threading.local):
    """The answer that the current thread is reading."""

    flow = Flow()
    received = 0
    """Bytes since the request was sent."""
    in_head = False


_here = _Here()


def received() -> int:
    """Bytes that came for the last request of this thread, as they were sent: not unpacked."""
    return _here.received


def watch_requests(
    before: Callable[[requests.PreparedRequest, dict[str, Any]], None],
    after: Callable[[requests.PreparedRequest, requests.Response], bool],
) -> None:
    """Call `before` with every request and its options, and `after` with its answer: also for redirects, and for answers
    that an extractor passes over silently. Where `after` says no, the file is asked for from its beginning."""
    send = requests.Session.send

    def observed(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        response = _send(session, request, options)
        if not after(request, response):
            response.close()
            whole = request.copy()
            whole.headers.pop("Range", None)
            response = _send(session, whole, options)
            after(whole, response)
        return response

    def _send(
        session: requests.Session, request: requests.PreparedRequest, options: dict[str, Any]
    ) -> requests.Response:
        before(request, options)
        _here.flow, _here.received, _here.in_head = Flow(), 0, True
        try:
            return send(session, request, **options)
        finally:
            _here.in_head = False

    requests.Session.send = observed  # type: ignore[method-assign, assignment]


def bound_pages(complain: Complain) -> None:
    """What is read into memory has a limit, unpacked: listings, and the bodies of errors and redirects."""
    read: Any = requests.Response.content.fget  # type: ignore[attr-defined]

    def content(response: Any) -> bytes:
        _here.in_head = False
        if response._content is False and not response._content_consumed:
            # Not upstream's small pieces: each of them costs a call for a page of a thousand.
            pieces = response.iter_content(64 * 1024)
            response.iter_content = lambda *_, **__: _bounded(response, pieces, complain)
        return bytes(read(response) or b"")

    requests.Response.content = property(content)  # type: ignore[method-assign, assignment]


def _bounded(response: requests.Response, pieces: Iterator[bytes], complain: Complain) -> Iterator[bytes]:
    size = 0
    try:
        for piece in pieces:
            size += len(piece)
            if size > LARGEST_PAGE:
                sentence = f"the site sent more than {size_in_words(LARGEST_PAGE)} where a page was asked for"
                complain(sentence)
                raise UnacceptableAnswer(sentence)
            yield piece
    except BaseException:
        # requests reads the rest of a redirect that cannot be unpacked as it is, however much that be.
        response.close()
        raise


def watch_reading(limits: Limits, complain: Complain) -> None:
    """Give up connections that bring too little in too long a time, or whose headers never end. Where bytes come out of
    the socket: a timeout of one read is never reached by a site that drips."""
    read = socket.SocketIO.readinto

    def readinto(stream: socket.SocketIO, buffer: Any) -> int | None:
        began = time.monotonic()
        size = read(stream, buffer)
        # How long a site may think before it says anything is gallery-dl's option `timeout`.
        waited = time.monotonic() - began if _here.received else 0.0
        flow = flowed(_here.flow, size or 0, waited, limits)
        _here.received += size or 0
        if flow is None:
            _give_up(
                f"the site sent less than {size_in_words(limits.speed)} a second for {limits.window:g} s (MIN_SPEED)"
            )
        elif _here.in_head and _here.received > LARGEST_HEAD:
            _give_up(f"the site sent more than {size_in_words(LARGEST_HEAD)} of headers")
        else:
            _here.flow = flow
        return size

    def _give_up(sentence: str) -> None:
        _here.flow = Flow()
        complain(sentence)
        raise TooSlow(sentence)

    socket.SocketIO.readinto = readinto  # type: ignore[method-assign, assignment]
