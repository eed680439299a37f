"""Turns what a gallery process reports into facts and events: one transaction for each batch."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import faults
from ..catalog import files
from ..catalog.calls import CatalogCalls
from ..catalog.engine import utcnow
from ..catalog.journal import Claim
from ..domain.events import Event, EventType, RunContext, file_event
from ..domain.files import FileFact, FileState, KnownFile, is_unavailable
from ..domain.listing import Failure
from ..domain.reasons import Reason
from ..domain.removals import Seen
from ..domain.runs import Counts
from ..gallery.messages import Listed, Outcome
from .lease import Lease

MOST_PUBLICATIONS = 4
"""Batches of skips on their way to the broker, while the next ones are read; then the broker's pace is ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlet:
    """The way to the broker. `types` are the events that have a queue there."""

    types: frozenset[EventType]
    publish: Callable[[Sequence[Event]], Coroutine[Any, Any, None]]
    """Returns when the broker has confirmed all of them; waits while there is no broker."""
    wake: Callable[[], None]
    """Something new is in the outbox."""


@dataclass(slots=True, kw_only=True)
class Attempt:
    """What one attempt of a run has found so far."""

    known: dict[str, KnownFile]
    counts: Counts
    announced: set[str]
    """Remote ids of files that were announced as skipped, in this attempt or an earlier one of the same run."""
    seen: set[str] = field(default_factory=set)
    came_in: dict[str, Seen] = field(default_factory=dict)
    """What is known of listed files that are not just as they were."""
    failures: list[Failure] = field(default_factory=list)

    def missing(self) -> list[str]:
        """Remote ids that are in place here, and not in this listing."""
        here = (FileState.PRESENT, FileState.MISSING)
        return [
            remote_id for remote_id, known in self.known.items() if remote_id not in self.seen and known.state in here
        ]


class Recorder:
    def __init__(
        self,
        calls: CatalogCalls,
        claim: Claim,
        lease: Lease,
        attempt: Attempt,
        outlet: Outlet | None,
        tell: Callable[[Event], Awaitable[None]],
    ) -> None:
        self._calls = calls
        self._claim = claim
        self._lease = lease
        self._attempt = attempt
        self._outlet = outlet
        self._publications: deque[asyncio.Task[None]] = deque()
        self._tell = tell
        """Local listeners: the terminal, the operator's hook scripts."""
        self._context = RunContext(run_id=claim.run_id, source_id=claim.source_id, correlation_id=claim.correlation_id)

    async def record(self, batch: Sequence[Listed]) -> list[Failure]:
        """Commit a batch, then announce it. Returns the failures among it."""
        kept = [listed for listed in batch if listed.outcome is Outcome.KEPT]  # of most runs everything
        others = [listed for listed in batch if listed.outcome is not Outcome.KEPT]
        facts = [fact for listed in others if (fact := self._fact(listed)) is not None]
        committed = {
            listed.remote_id: self._event(listed)
            for listed in others
            if listed.outcome in (Outcome.DOWNLOADED, Outcome.ADOPTED, Outcome.LEFT)
        }
        skipped = [self._event(listed) for listed in kept if self._is_news(listed)]
        back = [listed.remote_id for listed in kept if self._is_back(listed)]
        conflicts: set[str] = set()
        if facts:
            outgoing = {key: event for key, event in committed.items() if self._has_queue(event)}
            faults.at("recorder.before_commit")
            conflicts = await self._calls(files.record, self._claim, facts, outgoing, utcnow())
            faults.at("recorder.after_commit")
            if outgoing and self._outlet is not None:
                self._outlet.wake()
        if back:
            await self._calls(files.mark_present, self._claim, back)
        if self._outlet is not None and EventType.FILE_SKIPPED in self._outlet.types and skipped:
            # A skip changes no fact and needs no outbox: a crash before this is confirmed repeats the run.
            self._lease.check()
            self._publications.append(asyncio.create_task(self._outlet.publish(skipped)))
            while len(self._publications) > MOST_PUBLICATIONS:
                await self._publications.popleft()
        failures = self._count(batch, conflicts)
        for event in [event for key, event in committed.items() if key not in conflicts] + skipped:
            await self._tell(event)
        return failures

    async def confirmed(self) -> None:
        """Wait until the broker has confirmed every skip: nothing may be said of the run's end before."""
        while self._publications:
            await self._publications.popleft()

    def close(self) -> None:
        for publication in self._publications:
            publication.cancel()

    def _fact(self, listed: Listed) -> FileFact | None:
        path = None if listed.filename is None else f"{self._claim.content_path}/{listed.filename}"
        match listed.outcome:
            case Outcome.DOWNLOADED | Outcome.ADOPTED | Outcome.LEFT:
                state = FileState.PRESENT
            case Outcome.ABSORBED:
                state = FileState.ABSORBED
            case Outcome.FAILED:
                gone = listed.gone and is_unavailable(self._attempt.known.get(listed.remote_id))
                state = FileState.UNAVAILABLE if gone else FileState.FAILED
            case _:
                return None
        return FileFact(
            remote_id=listed.remote_id,
            state=state,
            path=path,
            url=listed.url,
            size=listed.size,
            sha256=listed.sha256,
            validator=listed.validator,
            words=listed.words,
            downloaded=listed.outcome in (Outcome.DOWNLOADED, Outcome.ABSORBED, Outcome.LEFT),
            gone=listed.gone,
        )

    def _event(self, listed: Listed) -> Event:
        downloaded = listed.outcome in (Outcome.DOWNLOADED, Outcome.LEFT)
        return file_event(
            EventType.FILE_DOWNLOADED if downloaded else EventType.FILE_SKIPPED,
            self._context,
            remote_id=listed.remote_id,
            filename=listed.filename or "",
            url=listed.url,
            size=listed.size,
            sha256=listed.sha256,
        )

    def _is_news(self, listed: Listed) -> bool:
        """Over all attempts of a run each file is announced once: as downloaded, or as skipped."""
        if listed.remote_id in self._attempt.announced:
            return False
        known = self._attempt.known.get(listed.remote_id)
        return known is None or not known.announced

    def _is_back(self, listed: Listed) -> bool:
        known = self._attempt.known.get(listed.remote_id)
        return known is not None and known.state is not FileState.PRESENT

    def _has_queue(self, event: Event) -> bool:
        return self._outlet is not None and event.type in self._outlet.types

    def _count(self, batch: Sequence[Listed], conflicts: set[str]) -> list[Failure]:
        attempt, counts = self._attempt, self._attempt.counts
        failures = []
        for listed in batch:
            known = attempt.known.get(listed.remote_id)
            if listed.outcome is Outcome.LEFT:
                self._count_left(listed, conflicts)
                continue
            counts.listed += 1
            attempt.seen.add(listed.remote_id)
            if listed.url is not None:  # not of files that were kept
                is_new = known is None or known.announced
                attempt.came_in[listed.remote_id] = Seen(url=listed.url, sha256=listed.sha256, is_new=is_new)
            if listed.remote_id in conflicts:
                detail = f"{listed.filename}: a file of another source holds this name"
                failures.append(Failure(reason=Reason.FILES_FAILED, detail=detail))
                continue
            match listed.outcome:
                case Outcome.DOWNLOADED:
                    counts.downloaded += 1
                    counts.bytes += listed.size or 0
                case Outcome.ABSORBED:
                    counts.absorbed += 1
                case Outcome.KEPT | Outcome.ADOPTED:
                    if known is None or not known.announced:
                        counts.skipped += 1
                        attempt.announced.add(listed.remote_id)
                case Outcome.PASSED:
                    counts.unavailable += known is not None and known.state is FileState.UNAVAILABLE
                case Outcome.FAILED:
                    if listed.gone and is_unavailable(known):
                        counts.unavailable += 1
                    elif listed.failure is not None:
                        failures.append(listed.failure)
        counts.failed += len(failures)
        attempt.failures += failures
        return failures

    def _count_left(self, listed: Listed, conflicts: set[str]) -> None:
        """It is known from now on, and in no listing yet."""
        if listed.remote_id in conflicts:
            return
        self._attempt.counts.downloaded += 1
        self._attempt.counts.bytes += listed.size or 0
        path = f"{self._claim.content_path}/{listed.filename}"
        self._attempt.known[listed.remote_id] = KnownFile(
            path=path, state=FileState.PRESENT, size=listed.size, sha256=listed.sha256, announced=True
        )
