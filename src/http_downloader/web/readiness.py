"""Whether everything is there that a run needs, in sentences. Whoever asks often does not make us look often."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from ..domain.errors import DownloaderError

Check = Callable[[], Awaitable[str | None]]
"""Gives a sentence on what is wrong, None when all is well; or raises one of our errors."""

FRESH = 1.0
"""Seconds for which an answer is good."""
PATIENCE = 5.0
"""Seconds after which a part that does not answer counts as not there."""


class Readiness:
    """`checks`: for each part of the service how it is looked at."""

    def __init__(self, checks: Mapping[str, Check]) -> None:
        self._checks = checks
        self._found: dict[str, str | None] = {}
        self._looked_at = float("-inf")
        self._looking: dict[str, asyncio.Task[str | None]] = {}
        self._turn = asyncio.Lock()

    async def problems(self) -> dict[str, str | None]:
        """For each part what is wrong with it; None when it is well."""
        async with self._turn:
            if time.monotonic() - self._looked_at > FRESH:
                found = await asyncio.gather(*(self._look(part) for part in self._checks))
                self._found = dict(zip(self._checks, found, strict=True))
                self._looked_at = time.monotonic()
        return self._found

    async def _look(self, part: str) -> str | None:
        """A look that hangs is waited for again, in place of a second one: each holds a thread."""
        looking = self._looking.get(part)
        if looking is None:
            looking = self._looking[part] = asyncio.create_task(self._check(part))
        done, _ = await asyncio.wait({looking}, timeout=PATIENCE)
        if not done:
            return f"it has not answered for {PATIENCE:g} s"
        del self._looking[part]
        return looking.result()

    async def _check(self, part: str) -> str | None:
        try:
            return await self._checks[part]()
        except DownloaderError as error:
            return str(error)
