"""A worker says every few seconds that it is there, and what it is at: `http-downloader status` shows it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from .. import __version__
from ..catalog import workers
from ..catalog.calls import CatalogCalls
from ..domain.errors import CatalogError

EVERY = 3.0
LAST_BEAT = 5.0
"""Seconds for one that is under way at the end: after it, the worker is forgotten."""


class Heartbeat:
    """`report`: what the worker is at, as plain values for JSON."""

    def __init__(
        self, calls: CatalogCalls, name: str, slots: int, report: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        self._calls = calls
        self._name = name
        self._report = report
        self._facts: dict[str, Any] = {
            "host": socket.gethostname()[:255],
            "pid": os.getpid(),
            "version": __version__,
            "slots": slots,
        }

    async def run(self, after: float = 0.0) -> None:
        """Until cancelled; the first one after so many seconds: a short command pays nothing."""
        await asyncio.sleep(after)
        while True:
            beat = asyncio.create_task(self._beat())
            try:
                await asyncio.shield(beat)
            except asyncio.CancelledError:
                await asyncio.wait({beat}, timeout=LAST_BEAT)
                raise
            await asyncio.sleep(EVERY)

    async def _beat(self) -> None:
        with contextlib.suppress(CatalogError):  # said by the catalog itself
            await self._calls(workers.beat, self._name, await self._report(), **self._facts)
