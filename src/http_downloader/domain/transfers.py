"""What is taken from a site while it sends: how much, how slowly, and which part of a file."""

from __future__ import annotations

import re
from dataclasses import dataclass

LARGEST_PAGE = 64 * 1024 * 1024
"""Bytes of an answer that is no file (a page of a listing, the text of an error), unpacked. They are held in memory."""

LARGEST_HEAD = 1024 * 1024
"""Bytes that come before an answer begins: its headers, and the interim answers before them."""

BOMB_SIZE = 64 * 1024 * 1024
BOMB_RATIO = 100
"""A file of more than the size, and so many times as large as what was sent for it, was packed to harm."""

_SPAN = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_ASKED = re.compile(r"bytes=(\d{1,18})-(?:\d{1,18})?")

_WORDS = (
    (re.compile(r"IncompleteRead|ended prematurely|file size mismatch"), "the connection broke off in mid-file"),
    (re.compile(r"timed out", re.IGNORECASE), "the site sent nothing for too long"),
    (re.compile(r"failed to decode"), "the site sent something that cannot be unpacked"),
    (re.compile(r"Empty file"), "the site sent an empty file"),
    (re.compile(r"HTML response|HTTP redirect to"), "the site sent a page in place of the file"),
)
"""What gallery-dl and its libraries say of a transfer, and what that means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`file_size`: bytes of the largest file that is taken, 0 for any. `speed`: bytes a second that a site must bring
    over `window` seconds of waiting for it, 0 for any."""

    file_size: int = 0
    speed: int = 0
    window: float = 60.0


@dataclass(frozen=True, slots=True)
class Flow:
    """Bytes that came in the present window, and the seconds that we waited for them. What we do with them takes time,
    too: that is not held against the site."""

    size: int = 0
    seconds: float = 0.0


def flowed(flow: Flow, size: int, seconds: float, limits: Limits) -> Flow | None:
    """The flow after `size` more bytes, for which we waited `seconds`. None: a window is full, and that was too little.

    A transfer that slows down is noticed after two windows at most.
    """
    if not limits.speed:
        return flow
    total = Flow(flow.size + size, flow.seconds + seconds)
    if total.seconds < limits.window:
        return total
    # Measured over all of it: one long wait with much behind it is no slow transfer, nor is the reverse a fast one.
    return Flow() if total.size >= limits.speed * total.seconds else None


def is_bomb(size: int, sent: int) -> bool:
    """Whether `size` bytes of a file were unpacked from suspiciously few that were sent."""
    return size > BOMB_SIZE and size > BOMB_RATIO * sent


def first_byte(content_range: str) -> int | None:
    """Where the part of a file begins that an answer says to hold; None when it says nothing that can be read."""
    found = _SPAN.fullmatch(content_range.strip())
    return int(found[1]) if found is not None else None


def whole_size(content_range: str) -> int | None:
    """The size of the whole file, as an answer with a part of it says."""
    found = _SPAN.fullmatch(content_range.strip())
    return int(found[3]) if found is not None and found[3] != "*" else None


def is_the_rest(asked: str, content_range: str, *, size: int | None) -> bool:
    """Whether an answer to the request header `Range: asked` is the rest of the file, of which the site said before that
    it has `size` bytes (None: nothing)."""
    wanted, total = _ASKED.fullmatch(asked.strip()), whole_size(content_range)
    if wanted is None or first_byte(content_range) != int(wanted[1]):
        return False
    return size is None or total is None or total == size


def in_words(text: str) -> str:
    """What gallery-dl or a library says of a failed transfer, as one sentence where we know what it means."""
    return next((sentence for pattern, sentence in _WORDS if pattern.search(text)), text)
