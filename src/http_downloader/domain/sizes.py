"""Sizes as people write them."""

from __future__ import annotations

import re

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE | re.ASCII)
_UNITS = ("", "k", "m", "g", "t")


def parse_size(text: str) -> int:
    """Bytes: `0`, `500M`, `1.5 GiB`. Units are powers of 1024. Raises `ValueError` with what is allowed.

    >>> parse_size("2G"), parse_size("1.5k"), parse_size("0")
    (2147483648, 1536, 0)
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise ValueError("a size like 500M or 2G is allowed, or 0 for none")
    number, unit = found.groups()
    return int(float(number) * 1024 ** _UNITS.index(unit.lower()))


def size_in_words(size: int) -> str:
    """In the units that `parse_size` reads.

    >>> size_in_words(1536), size_in_words(17)
    ('1.5 kB', '17 bytes')
    """
    amount = float(size)
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(amount) < 1024:
            return f"{amount:.4g} {unit}"
        amount /= 1024
    return f"{amount:.4g} TB"
