"""Until when a gallery process may write. Its parent moves that on while it holds the run's lease; a process whose parent
is frozen, or gone from the catalog, ends by itself before another one begins on the same folder."""

from __future__ import annotations

import math
import os
import signal
import time

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

BACKSTOP = 1.0
"""Seconds after the end at which the kernel ends a process that no Python of ours could: a regular expression that runs
away keeps all threads from running, and a frozen process is ended before it runs again."""


def now() -> float:
    """Seconds of a clock that nobody sets, that goes on while the machine sleeps, and that all its processes share."""
    return time.clock_gettime(_CLOCK)


class Lease:
    """`until`: of `now()`; infinite: nobody else may come."""

    def __init__(self, until: float = math.inf) -> None:
        self._until = until

    def renew(self, until: float) -> None:
        self._until = until
        self.arm()

    def arm(self) -> None:
        """Have the kernel end this process by SIGALRM, should it not do so by itself."""
        if self._until < math.inf:
            signal.setitimer(signal.ITIMER_REAL, max(self.left(), 0.0) + BACKSTOP)

    def left(self) -> float:
        return self._until - now()

    def check(self) -> None:
        """Return while it lasts; then this process ends, with all that it has started."""
        if self.left() <= 0:
            os.killpg(0, signal.SIGKILL)
