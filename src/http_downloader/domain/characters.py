"""Characters that are not written as they came: into names on a disk, onto a terminal, into one line of a log."""

from __future__ import annotations

import json
import re
from typing import Any

CONTROL = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff"
"""For a class of a regular expression: control characters (a terminal obeys them), line separators, direction overrides
(`gpj.exe` that reads `exe.jpg`) and lone surrogates, which no encoding has."""

_CONTROL = re.compile(f"[{CONTROL}]")
_WHITE = re.compile(r"[\t\n\v\f\r\x1c-\x1f\x85\u2028\u2029]+")


def clean_name(text: str) -> str:
    """A name as it may be given to a file."""
    return _CONTROL.sub("_", text)


def visible(text: str) -> str:
    """Foreign text as it may be shown to a person: one line, and nothing in it that a terminal would obey.

    >>> visible("a\\x1b[31m red\\nline")
    'a\ufffd[31m red line'
    """
    if text.isascii() and text.isprintable():
        return text
    return _CONTROL.sub("\ufffd", _WHITE.sub(" ", text))


def json_line(value: object, **options: Any) -> str:
    """JSON for people and machines: readable, and what a terminal would obey is written as an escape."""
    text = json.dumps(value, **{"ensure_ascii": False, **options})
    return text if text.isascii() and text.isprintable() else _CONTROL.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
