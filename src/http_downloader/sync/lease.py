"""How long this worker may write for a run: counted by a clock of this machine, from before it asked the catalog."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from ..catalog.journal import Claim
from ..domain.errors import LeaseLost
from ..gallery.lease import now

LEASE = timedelta(seconds=55)
"""By the database's clock. Then any worker may take over: with the pause between two looks, within a minute."""
RENEW_EVERY = 15.0
MARGIN = 5.0
"""Seconds before its end at which this worker stops by itself: what is under way then has to come to rest."""
CHILD_LONGER = 1.0
"""Seconds by which a gallery process outlives it: that it died must not seem to be a failure of the run."""


class Lease:
    """Of one claim. `asked_at`: of `now()`, before the catalog was asked for it."""

    def __init__(self, claim: Claim, asked_at: float) -> None:
        self._claim = claim
        self._ends_at = 0.0
        self._timer: asyncio.Timeout | None = None
        self.renewed(claim.fence, asked_at)

    def renewed(self, fence: int, asked_at: float) -> None:
        if fence == self._claim.fence:
            self._ends_at = asked_at + LEASE.total_seconds() - MARGIN
            if self._timer is not None and not self._timer.expired():
                self._timer.reschedule(asyncio.get_running_loop().time() + self._left())

    @property
    def of_process(self) -> float:
        """When the run's gallery process has to end, of `now()`."""
        return self._ends_at + CHILD_LONGER

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """What is done meanwhile is broken off when it ends. Raises `LeaseLost`."""
        try:
            async with asyncio.timeout(self._left()) as self._timer:
                yield
        except TimeoutError:
            if self._timer is not None and self._timer.expired():
                self._ends_at = 0.0  # the loop's clock may be a trifle ahead
                self.check()
            raise

    def check(self) -> None:
        """Before something is written that the catalog does not guard. Any thread may ask. Raises `LeaseLost`."""
        if self._left() <= 0:
            raise LeaseLost(f"run {self._claim.run_id} could not be kept; what this worker still had for it is dropped")

    def _left(self) -> float:
        return self._ends_at - now()
