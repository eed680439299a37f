"""One file as it comes in: what the site says of it on the way, and what it is in the end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

import requests
from urllib3.response import HTTPResponse

from ..domain.bodies import HEAD_SIZE, Body, Promise, fault_of
from ..domain.reasons import Reason
from ..domain.sizes import size_in_words
from ..domain.transfers import Limits, first_byte, is_bomb, is_the_rest, whole_size
from .answers import UnacceptableAnswer, received

PIECE = 1024 * 1024


class Incoming:
    """`url` is the one that is asked for, `extension` the listed one (empty: none was). It may take several answers:
    gallery-dl goes on where a connection broke off."""

    def __init__(self, limits: Limits, promise: Promise, extension: str) -> None:
        self._limits = limits
        self._promise = promise
        self._extension = extension
        self._response: requests.Response | None = None
        self._size: int | None = None
        self._validator: str | None = None
        self.reason = Reason.FILES_FAILED
        """Why it fails, if it does."""

    def check_promise(self) -> None:
        """Before anything is asked for. Raises `UnacceptableAnswer`, as do all the others."""
        self.check_size(self._promise.size)

    def take(self, request: requests.PreparedRequest, response: requests.Response, validator: str | None) -> bool:
        """An answer of the site. False: it is not the part that was asked for, so ask for the whole file."""
        self._response = response
        if response.status_code not in (200, 206):
            return True
        encoding = response.headers.get("Content-Encoding", "").lower()
        if response.status_code == 206 and not self._is_part(request.headers, response, encoding, validator):
            return False
        if encoding not in ("", "identity"):
            _check_encoding(encoding)
            # It is the length of what is sent, and gallery-dl would compare it with what is unpacked from that.
            response.headers.pop("Content-Length", None)
        length = response.headers.get("Content-Length", "")
        size = whole_size(response.headers.get("Content-Range", "")) if response.status_code == 206 else None
        if response.status_code == 200 and length.isdecimal():
            size = int(length)
        self.check_size(size)
        self._size, self._validator = size, validator
        return True

    def _is_part(
        self, asked: Mapping[str, Any], response: requests.Response, encoding: str, validator: str | None
    ) -> bool:
        span = response.headers.get("Content-Range", "")
        if "Range" not in asked:
            if first_byte(span) != 0:
                raise UnacceptableAnswer("the site sent a part of the file that was not asked for")
            return True
        same = validator == self._validator or self._validator is None
        return same and encoding in ("", "identity") and is_the_rest(str(asked["Range"]), span, size=self._size)

    def count(self, size: int) -> None:
        """So many bytes of the file are here."""
        self.check_size(size)
        if is_bomb(size, received()):
            raise UnacceptableAnswer(
                f"the site sent a file that unpacks to more than {size_in_words(size)} from {size_in_words(received())}"
            )

    def judge(self, body: Body) -> None:
        """All of it has come. Raises what speaks against it."""
        if self._is_cut_short():
            raise UnacceptableAnswer("the site sent a packed file without its end")
        if (fault := fault_of(body, self._promise, self._extension)) is not None:
            raise UnacceptableAnswer(fault)

    def body_of(self, digest: Digest, path: str) -> Body:
        """What has come. Read again only if it was not written from its beginning to its end."""
        size = os.stat(path).st_size  # noqa: PTH116 - as a string from gallery-dl
        if not digest.usable or digest.size != size:
            digest = read(path, self)
        kind = self._response.headers.get("Content-Type", "") if self._response is not None else ""
        return Body(size=size, head=digest.head, hashes=digest.hashes(), content_type=kind.lower())

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The hashes that were promised."""
        return tuple(self._promise.hashes)

    def close(self) -> None:
        """Give the connection back. gallery-dl keeps those of some answers that it does not like, and when all of the
        pool are kept, every lane waits for one forever."""
        if self._response is not None:
            self._response.close()

    def check_size(self, size: int | None) -> None:
        """Of the whole file, as far as it is known."""
        most = self._limits.file_size
        if most and size is not None and size > most:
            self.reason = Reason.TOO_LARGE
            raise UnacceptableAnswer(f"larger than MAX_FILE_SIZE ({size_in_words(most)})")

    def _is_cut_short(self) -> bool:
        """Whether an unpacker still waits for more: zlib does not mind."""
        decoder = getattr(getattr(self._response, "raw", None), "_decoder", None)
        decoders = getattr(decoder, "_decoders", [decoder])
        streams = [getattr(each, "_obj", None) for each in decoders]
        return any(getattr(stream, "eof", True) is False for stream in streams)


class Digest:
    """The hashes of what was written, as long as it was written from the beginning to the end."""

    def __init__(self, incoming: Incoming | None = None) -> None:
        self._incoming = incoming
        self._hash = hashlib.sha256()
        names = incoming.algorithms if incoming is not None else ()
        self._promised = {name: hashlib.new(name, usedforsecurity=False) for name in names}
        self.head = b""
        self.size = 0
        self.usable = True

    def add(self, data: bytes) -> None:
        """Raises `UnacceptableAnswer` when it becomes too much."""
        if self._incoming is not None:
            self._incoming.count(self.size + len(data))
        self._add(data)

    def _add(self, data: bytes) -> None:
        if self.size < HEAD_SIZE:
            self.head += data[: HEAD_SIZE - self.size]
        self._hash.update(data)
        for promised in self._promised.values():
            promised.update(data)
        self.size += len(data)

    def hashes(self) -> dict[str, str]:
        return {name: promised.hexdigest() for name, promised in self._promised.items()}

    def result(self, size: int) -> tuple[int, str] | None:
        """Size and SHA-256, if that is what a file of this size holds."""
        return (size, self._hash.hexdigest()) if self.usable and size == self.size else None


def read(path: str, incoming: Incoming) -> Digest:
    """The same of a file that lies on the disk."""
    digest = Digest(incoming)
    with open(path, "rb") as file:  # noqa: PTH123 - as a string from gallery-dl
        while piece := file.read(PIECE):
            digest._add(piece)
    return digest


def _check_encoding(encoding: str) -> None:
    names = [name.strip() for name in encoding.split(",")]
    unknown = [name for name in names if name not in HTTPResponse.CONTENT_DECODERS and name != "identity"]
    if unknown:
        raise UnacceptableAnswer(f"the site packs the file in a way that was not asked for ({unknown[0][:40]})")
