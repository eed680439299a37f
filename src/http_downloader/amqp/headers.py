"""Header tables that pika cannot read, or that fill more than a frame: an order that carries one is an order all the same.

Left alone, a single such message would cut the connection each time that it is delivered.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import pika

MOST_HEADER_BYTES = 100_000
"""All headers of a message go into one frame, of 128 KiB by default."""

_strictly = pika.data.decode_value


def read_any_time() -> None:
    """Make pika give None for a time beyond the year 9999, as is one in milliseconds."""
    pika.data.decode_value = _leniently


def fit(headers: Mapping[str, Any]) -> bool:
    """Whether these headers can be sent again."""
    try:
        return int(pika.data.encode_table([], dict(headers))) <= MOST_HEADER_BYTES
    except (pika.exceptions.AMQPError, struct.error, ArithmeticError):
        return False


def _leniently(encoded: bytes, offset: int) -> tuple[Any, int]:
    try:
        value, end = _strictly(encoded, offset)
    except (ValueError, OverflowError, OSError):
        if encoded[offset : offset + 1] != b"T":
            raise
        return None, offset + 9
    return value, int(end)
