"""A run that only looks: what it would download and remove. Nothing is written but into a folder of its own."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from pathlib import Path

from ..catalog import files
from ..catalog.calls import CatalogCalls
from ..catalog.engine import utcnow
from ..catalog.journal import Claim
from ..domain.listing import Failure, Listing
from ..domain.reasons import Reason
from ..domain.removals import Plan, Seen
from ..domain.runs import Counts, Ending, conclude
from ..gallery.messages import Asks, Ended, FromRun, Listed, Logged, Waiting
from ..gallery.pool import GalleryPool, GalleryProcess
from .recorder import Attempt
from .removal import Remover
from .runner import RunnerSettings, make_request
from .updates import Observer


@dataclass(slots=True, kw_only=True)
class Rehearsed:
    """`listed`: what would become of each listed file; `plan`: of those that are not listed, None when the listing
    proves nothing or nothing is missing. `paths`: where files lie that are not listed, by remote id."""

    ending: Ending
    listed: list[Listed] = field(default_factory=list)
    plan: Plan | None = None
    paths: dict[str, str] = field(default_factory=dict)


class Rehearsal:
    """`calls` and `remover` are None when there is no catalog yet."""

    def __init__(
        self,
        calls: CatalogCalls | None,
        remover: Remover | None,
        pool: GalleryPool,
        settings: RunnerSettings,
        observer: Observer,
    ) -> None:
        self._calls = calls
        self._remover = remover
        self._pool = pool
        self._settings = settings
        self._observer = observer

    async def perform(self, claim: Claim, run_folder: Path) -> Rehearsed:
        """`claim` stands for a run that is in no journal. Raises `GalleryError`, `SettingsError`."""
        if self._remover is not None and (problem := await self._remover.look_at_root()) is not None:
            failure = Failure(reason=Reason.ROOT_NOT_MOUNTED, detail=problem)
            return Rehearsed(ending=conclude(Listing(failure=failure), [], known_files=0))
        known = {} if self._calls is None else await self._calls(files.known_files, claim, utcnow())
        attempt = Attempt(known=known, counts=Counts(), announced=set())
        request = await make_request(
            self._calls, self._settings, claim, known, run_folder, run_folder / "landing", rehearsal=True
        )
        process = await self._pool.run(request)
        try:
            listed = await self._crawl(claim, process, attempt)
            expected = sum(not file.state.is_gone for file in known.values())
            ended = process.ended
            listing = Listing(files=len(listed), gaps=ended.gaps, failure=ended.failure)
            ending = conclude(listing, attempt.failures, known_files=expected, cancelled=ended.stopped)
            plan = await self._plan(claim, attempt, ending, ended, process)
        finally:
            await process.close()
        paths = {remote_id: file.path for remote_id, file in known.items() if file.path is not None}
        return Rehearsed(ending=ending, listed=listed, plan=plan, paths=paths)

    async def _crawl(self, claim: Claim, process: GalleryProcess, attempt: Attempt) -> list[Listed]:
        listed = []
        async for batch in process.batches():
            for message in batch:
                if isinstance(message, Listed):
                    listed.append(message)
                    self._note(message, attempt)
                else:
                    await self._take(claim, process, message)
        return listed

    def _note(self, message: Listed, attempt: Attempt) -> None:
        attempt.seen.add(message.remote_id)
        if message.failure is not None:
            attempt.failures.append(message.failure)
        if message.url is not None:
            is_new = message.remote_id not in attempt.known
            attempt.came_in[message.remote_id] = Seen(url=message.url, sha256=message.sha256, is_new=is_new)

    async def _take(self, claim: Claim, process: GalleryProcess, message: FromRun) -> None:
        match message:
            case Asks(path):
                held = self._calls is not None and await self._calls(files.holds, claim.source_id, path)
                await process.answer(held)
            case Waiting():
                self._observer(claim, message)
            case Logged(level=level) if level >= logging.WARNING:
                self._observer(claim, message)

    async def _plan(
        self, claim: Claim, attempt: Attempt, ending: Ending, ended: Ended, process: GalleryProcess
    ) -> Plan | None:
        if self._remover is None or not ending.listing_proves or not attempt.missing():
            return None
        _, plan = await asyncio.shield(self._remover.plan(claim, attempt, ended, process))
        return plan
