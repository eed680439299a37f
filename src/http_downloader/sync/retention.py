"""Beside everything else, runs that ended long ago are forgotten."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import structlog

from ..catalog import retention
from ..catalog.calls import CatalogCalls
from ..catalog.engine import utcnow
from ..domain.errors import CatalogError

log = structlog.get_logger(__name__)

EVERY = 86_400.0
SOON = 3600.0
"""Seconds within which it is done first, at a random moment: many workers may share the catalog."""
BATCH = 200
"""Runs of one transaction."""


async def keep_journal_small(calls: CatalogCalls, keep: timedelta) -> None:
    """Until cancelled. `keep`: for how long ended runs stay."""
    await asyncio.sleep(random.uniform(0, SOON))  # noqa: S311
    while True:
        try:
            if count := await forget_old_runs(calls, keep):
                log.info("old runs were forgotten", runs=count)
        except CatalogError:
            pass  # said by the catalog itself
        await asyncio.sleep(EVERY)


async def forget_old_runs(calls: CatalogCalls, keep: timedelta) -> int:
    """Returns how many. Raises `CatalogError`."""
    before, count = utcnow() - keep, 0
    after: int | None = 0
    while after is not None:
        after, forgotten = await calls(retention.forget_runs, before, after, BATCH)
        count += forgotten
    return count
