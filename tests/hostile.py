"""What a site, or a sender, may write to do harm: strategies for orders and for metadata that becomes names."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from hypothesis import strategies as st

NASTY = (
    "", " ", ".", "..", "...", "/", "//", "~", "-", "-rf", "--exec=x", "../..", "../../../evil", "/evil", "a/../../../evil",
    "..\\..\\evil", "\\\\server\\evil", "C:\\evil", "%2e%2e%2f", "%2e%2e/evil", "..%c0%af", "\uff0e\uff0e", "\u2025", "\u2024\u2024",
    ".\u200b.", ".\x00.", ".\x01.", "..\x7f", "\x1b[2J", "\x1b]0;evil\x07", "\x9b31m", "a\nb", "a\rb", "a\tb", "a\u2028b", "a\x85b",
    "\u202egpj.exe", "\u2066x", "\ufeff", "\ud800", "\udfff\ud800", "a\udcffb", "\x00", "\x00evil", "evil\x00.png",
    "CON", "NUL", "aux.txt", "COM1", "LPT9.png", "con.", ".trash", ".partial", ".http-downloader", ".TRASH", ".htaccess",
    "trailing.", "trailing ", " leading", "link", "link/evil", "pipe", "dir", "file", "file/evil", "loop", "Dir", "FILE",
    "\u00e9", "e\u0301", "A", "a", "\u0130", "i\u0307", "\u017f", "s", "\u00df", "ss",
    "a" * 255, "a" * 256, "a" * 5000, "\u00e4" * 127, "\u00e4" * 128, "\U0001f600" * 64, "e" + "\u0301" * 300, "x." + "y" * 300,
    "a/" * 60, "a" * 250 + ".jpeg", "{id}", "{title.__class__}", "\fE 1", "$(touch evil)", "`touch evil`", ";touch evil;", "'\"", "%s%n", "*?<>|:",
)  # fmt: skip
"""Words that have led somebody else's program out of its folder, or over."""

words = st.sampled_from(NASTY)
any_text = st.text(max_size=12) | st.text(st.characters(), max_size=12)  # the second one: with surrogates
nasty_text = words | any_text | st.lists(words | any_text, min_size=2, max_size=3).map("".join)
path_text = nasty_text | st.lists(words | any_text, max_size=4).map("/".join)

numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 2**63, 10**40, math.nan, math.inf, -0.0])
values = (
    path_text
    | numbers
    | st.none()
    | st.booleans()
    | st.lists(nasty_text, max_size=4)
    | st.dictionaries(nasty_text, nasty_text, max_size=2)
    | st.just(datetime(2026, 1, 1, tzinfo=UTC))
)
metadata = st.fixed_dictionaries(
    {"title": path_text, "artist": path_text},
    optional={"name": values, "tags": values, "num": values, "date": values, "extension": values},
)
"""Of one file."""

# Orders: JSON that is nearly one, and then is mutated as text.

_ODD = st.sampled_from(
    [
        "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "9" * 5000, "1." + "0" * 5000, "1e-999999999", "-0", "0x10", "01", "+1", "1_000", "'x'", "undefined",
        "[" * 5000 + "]" * 5000, '{"a":' * 3000 + "1" + "}" * 3000, "[" * 60_000, '"' + "\\\\" * 2000 + '"', '"\\ud800"', '"\\u0000"', '"\\x41"', '"\n"', "\ufeff1", "/*x*/1", "",
    ]
)  # fmt: skip
_urls = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "generic:", "Danbooru:", "recursive:", "r:", "oauth:", "noop", "ytdl:", "file:", "--", " ", "\x00"]),
        st.sampled_from(["https://", "http://", "HTTPS://", "https:/", "file:///", "data:,", "ftp://", "javascript:", "//", ""]),
        st.sampled_from(["example.org", "user:pw@example.org", "[::1]", "[::1", "münchen.de", "example.org:99999", "127.1", "\u2024\u2024", "", "a\nb"]) | any_text,
        path_text | st.sampled_from(["", "/", "/a?b=c", "/a b", "/\r\nHost: x"]),
    ),
)  # fmt: skip
_json_values = st.recursive(
    st.none() | st.booleans() | numbers | path_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(nasty_text, inner, max_size=3),
    max_leaves=6,
)


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


_any_value = _json_values.map(_written) | _ODD
_good = {"source_id": "1", "url": '"https://example.org/a.jpg"', "content_path": '"a"'}
_hostile = {
    "source_id": st.integers(min_value=-2, max_value=2**64).map(str) | _any_value,
    "url": _urls.map(_written) | _any_value,
    "content_path": path_text.map(_written) | _any_value,
    "remote_deletes": st.sampled_from(['"keep"', '"Keep"', "1", '["trash"]']) | _any_value,
}
_extra = st.tuples(
    st.sampled_from(["priority", "\\u0075rl", "url", "Source_ID"]).map('"{}"'.format) | nasty_text.map(_written),
    _any_value,
)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """The bytes of an order, of something that resembles one, or of anything."""
    fields = dict(_good)
    for name in draw(st.lists(st.sampled_from(sorted(_hostile)), max_size=2)):
        fields[name] = draw(_hostile[name])
    members = [f'"{name}": {value}' for name, value in fields.items()]
    what = draw(st.integers(min_value=0, max_value=19))
    if what in (1, 2):
        del members[draw(st.integers(min_value=0, max_value=len(members) - 1))]
    if what in (3, 4, 5):
        members += [f"{name}: {value}" for name, value in draw(st.lists(_extra, max_size=2))]
    data = ("{" + ", ".join(members) + "}").encode("utf-8", errors="surrogatepass")
    match what:
        case 6:
            return draw(st.binary(max_size=200))
        case 7:
            encoding = draw(st.sampled_from(["utf-16", "utf-32", "utf-8-sig"]))
            return data.decode("utf-8", errors="replace").encode(encoding, errors="replace")
        case 8 | 9:
            start = draw(st.integers(min_value=0, max_value=len(data)))
            return data[:start] + draw(st.binary(max_size=4)) + data[start + draw(st.integers(0, 8)) :]
        case 10:
            return draw(_any_value).encode("utf-8", errors="surrogatepass")
        case 11 if draw(st.integers(0, 20)) == 0:
            return data + b" " * 1_000_000
        case _:
            return data
