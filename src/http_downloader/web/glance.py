"""Something that takes time to look at: looked at anew when it was asked for, not too often, and never waited for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from ..domain.errors import DownloaderError

T = TypeVar("T")

FRESH = 5.0
"""Seconds for which what was seen is good."""
SHARE = 20
"""And so many times as long as looking took: it never takes more than a small part of anybody's time."""
PATIENCE = 2.0


class Glance(Generic[T]):
    def __init__(self, look: Callable[[], Awaitable[T]]) -> None:
        self._look = look
        self._seen: T | None = None
        self._good_until = float("-inf")
        self._looking: asyncio.Task[T] | None = None

    async def value(self) -> T | None:
        """None when it cannot be seen now: looking fails, or takes too long."""
        if self._looking is None:
            if time.monotonic() < self._good_until:
                return self._seen
            self._looking = asyncio.create_task(self._timed())
        looking = self._looking
        done, _ = await asyncio.wait({looking}, timeout=PATIENCE)
        if not done:
            return None  # a look that hangs is waited for again, in place of a second one: each holds a thread
        if self._looking is looking:
            self._looking = None
        try:
            self._seen = looking.result()
        except (DownloaderError, OSError):
            self._seen = None
        return self._seen

    async def _timed(self) -> T:
        begun = time.monotonic()
        try:
            return await self._look()
        finally:
            took = time.monotonic() - begun
            self._good_until = time.monotonic() + max(FRESH, SHARE * took)
