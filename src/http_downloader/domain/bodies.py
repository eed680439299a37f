"""Whether what came is the file that was promised."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

HEAD_SIZE = 1024
"""Bytes of a file's beginning that are looked at."""

_IMAGES = {
    "jpg",
    "jpeg",
    "jpe",
    "jfif",
    "png",
    "apng",
    "gif",
    "bmp",
    "webp",
    "avif",
    "heic",
    "heif",
    "jxl",
    "tif",
    "tiff",
}
_PICTURES = _IMAGES | {"ico", "cur", "psd", "svg", "swf", "clip"}
_VIDEOS = {"mp4", "m4v", "mov", "mkv", "webm", "avi", "flv", "wmv", "mpg", "mpeg", "ogv", "3gp", "ts"}
_SOUNDS = {"mp3", "m4a", "ogg", "opus", "oga", "wav", "flac", "aac", "wma"}
_ARCHIVES = {"zip", "rar", "7z", "tar", "gz", "xz", "bz2", "cbz", "cbr", "cb7", "epub", "pdf"}
_MEDIA = _PICTURES | _VIDEOS | _SOUNDS | _ARCHIVES
"""Extensions of files that no page is."""

_PAGE = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S)
_JSON = re.compile(rb"\A\s*[{\[]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a listing says of a file: bytes, and its hashes in hexadecimal by algorithm (as `hashlib` calls them)."""

    size: int | None = None
    hashes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """What came. `head`: its first `HEAD_SIZE` bytes. `content_type`: what the site called it."""

    size: int
    head: bytes
    hashes: dict[str, str]
    content_type: str = ""


def fault_of(body: Body, promise: Promise, extension: str) -> str | None:
    """Why this is not the file; None when nothing speaks against it. `extension` is the one that was listed, empty when
    none was."""
    if not body.size:
        return "the site sent an empty file"
    if _should_be_media(body, extension):
        if _PAGE.search(body.head):
            return "the site sent a page in place of the file (a login page?)"
        if "json" in body.content_type and _JSON.search(body.head):
            return "the site sent an answer for programs (JSON) in place of the file"
    if promise.size is not None and body.size != promise.size:
        return f"{body.size} bytes came, and the listing promised {promise.size}"
    broken = [name for name, value in promise.hashes.items() if body.hashes.get(name) != value.lower()]
    return f"what came has not the {broken[0].upper()} that the listing promised" if broken else None


def is_media(extension: str) -> bool:
    return extension.lower() in _MEDIA


def _should_be_media(body: Body, extension: str) -> bool:
    if extension:
        return is_media(extension)
    return body.content_type.startswith(("image/", "video/", "audio/"))
