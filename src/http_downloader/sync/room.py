"""Whether CONTENT_ROOT has room for a run: asked before each one, said once when it has not, and once when it has."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from ..domain.listing import Failure
from ..domain.sizes import size_in_words
from ..domain.storage import shortage
from ..gallery.disk import free_space

log = structlog.get_logger(__name__)


class Room:
    """`kept`: bytes that stay free; 0: nobody asks."""

    def __init__(self, root: Path, kept: int) -> None:
        self._root = root
        self._kept = kept
        self._short = False

    async def check(self) -> Failure | None:
        """Why no run may begin now."""
        if not self._kept:
            return None
        free = await asyncio.to_thread(free_space, self._root)
        failure = shortage(free, 0, self._kept, f"CONTENT_ROOT ({self._root})")
        if failure is not None and not self._short:
            log.error("no run begins until there is space", why=failure.detail)
        elif failure is None and self._short:
            log.info("there is space again", free=None if free is None else size_in_words(free))
        self._short = failure is not None
        return failure
