"""One claimed run, from its gallery process to its end in the catalog."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

import structlog

from .. import faults
from ..catalog import files, journal, removals, sites
from ..catalog.calls import CatalogCalls
from ..catalog.engine import utcnow
from ..catalog.journal import Claim
from ..domain.errors import DownloaderError, SettingsError
from ..domain.events import Event, HookValue, RunContext, source_sync_failed, source_synchronized
from ..domain.files import FileState, KnownFile
from ..domain.listing import Failure, Listing
from ..domain.reasons import Reason
from ..domain.runs import Counts, Ending, RunState, conclude, retry_delay
from ..domain.transfers import Limits
from ..gallery.messages import (
    Asks,
    Busy,
    Ended,
    Expects,
    FromRun,
    Listed,
    Logged,
    Progress,
    RunRequest,
    Trashed,
    Unlocked,
    Waiting,
)
from ..gallery.pool import GalleryPool, GalleryProcess, NoProcessError
from ..logs import redact
from .lease import Lease
from .recorder import Attempt, Outlet, Recorder
from .removal import Outcome, Remover, together
from .room import Room
from .scripts import HookScripts
from .trash import MARKER_FOLDER, marker_file
from .updates import FileFailed, Finished, Observer, Started

log = structlog.get_logger(__name__)

LOG_LINES = 200
REMEMBERED_RUNS = 500
"""Runs between two attempts whose announced skips are remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerSettings:
    content_root: Path
    runtime_path: Path
    cookies_folder: Path
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] | None
    """Private networks that may be connected to; None: any."""
    refresh_changed: bool
    lanes: int
    rate_limit_max_wait: float
    attempts: int
    retry_delay: timedelta
    log_level: int
    durable: bool
    min_free_space: int
    """Bytes that CONTENT_ROOT keeps free."""
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class _Again:
    after: timedelta
    same_attempt: bool
    """It was interrupted or postponed, which is no failure of the attempt."""


class Runner:
    """Performs claimed runs, one call of `perform` each; many calls may be under way."""

    def __init__(
        self,
        calls: CatalogCalls,
        pool: GalleryPool,
        settings: RunnerSettings,
        *,
        outlet: Outlet | None,
        remover: Remover,
        scripts: HookScripts,
        observer: Observer,
    ) -> None:
        self._calls = calls
        self._pool = pool
        self._settings = settings
        self._outlet = outlet
        self._remover = remover
        self._room = Room(settings.content_root, settings.min_free_space)
        self._scripts = scripts
        self._observer = observer
        self._processes: dict[int, GalleryProcess] = {}
        self._leases: dict[int, Lease] = {}
        """Of the runs that are being performed now."""
        self._sites: dict[int, str] = {}
        """Theirs."""
        self._rests: dict[str, float] = {}
        """Until when a site wants to be left alone, as far as we have told the others; of the monotonic clock."""
        self._unlocked = False
        """CONTENT_ROOT knows no locks, and that was said."""
        self._stopping: set[int] = set()
        self.trouble: Reason | None = None
        """What kept this machine from performing the run that ended last."""
        self._announced: dict[int, set[str]] = {}
        """By run: what its earlier attempts announced as skipped. Lost in a crash: those events then repeat, with
        the same message ids."""

    async def perform(self, claim: Claim, lease: Lease, *, cancel_is_final: bool = False) -> Ending | None:
        """Make one attempt of a run. Returns how it ended; None when it was put back into the journal.

        `cancel_is_final`: a stop was asked for by a person, so the run is cancelled, not resumed later.

        Raises `LeaseLost` when the lease has ended, or another worker has taken over.
        """
        with structlog.contextvars.bound_contextvars(**claim.names):
            self._leases[claim.run], self._sites[claim.run] = lease, claim.site
            try:
                async with lease.held():
                    return await self._perform(claim, lease, cancel_is_final)
            finally:
                del self._leases[claim.run], self._sites[claim.run]
                await self._end_process(claim)

    def performed(self) -> list[int]:
        """The runs that are being performed now."""
        return list(self._leases)

    async def renewed(self, run: int, fence: int, asked_at: float) -> None:
        """The catalog has renewed the lease of a run, as it was asked at that time."""
        if (lease := self._leases.get(run)) is not None:
            lease.renewed(fence, asked_at)
            if (process := self._processes.get(run)) is not None:
                await process.renew(lease.of_process)

    async def follow_sites(self) -> None:
        """Tell the gallery processes what their sites have asked of runs of other workers. Raises `CatalogError`."""
        if not self._processes:
            return
        waits = await self._calls(sites.waits, set(self._sites.values()))
        for run, process in list(self._processes.items()):
            if (wait := waits.get(self._sites.get(run, ""))) is not None:
                await process.rest(wait.total_seconds())

    async def _tell_of_wait(self, site: str, seconds: float) -> None:
        """Every worker leaves it alone for so long, but none for longer than a run would wait for it."""
        seconds = min(seconds, self._settings.rate_limit_max_wait)
        until = time.monotonic() + seconds
        if until > self._rests.get(site, 0.0) + 1:  # each lane says so, and each time
            self._rests[site] = until
            await self._calls(sites.hold_off, site, timedelta(seconds=seconds))

    async def sweep(self) -> None:
        """Remove what is left of runs that had ended when their worker was killed: copies of cookies may be in there."""
        for folder in await asyncio.to_thread(lambda: list((self._settings.runtime_path / "runs").glob("*"))):
            row = await self._calls(journal.get_run, journal.run_number(folder.name))
            if row is not None and row["run_id"] == folder.name and RunState(row["state"]).ended:
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def stop(self, run: int) -> None:
        """Let a run finish its current files, then end."""
        self._stopping.add(run)
        if (process := self._processes.get(run)) is not None:
            await process.stop()

    async def kill(self, run: int) -> None:
        self._stopping.add(run)
        if (process := self._processes.get(run)) is not None:
            await process.kill()

    async def _perform(self, claim: Claim, lease: Lease, cancel_is_final: bool) -> Ending | None:
        tail: deque[str] = deque(claim.log.splitlines(), maxlen=LOG_LINES)
        known, finished = await self._known(claim, lease)
        counts = Counts(**{name: claim.counts.get(name, 0) for name in ("downloaded", "bytes", "removed")})
        counts.removed += finished.removed
        _count_recorded(counts, known)
        attempt = Attempt(known=known, counts=counts, announced=self._announced_before(claim))
        self._observer(claim, Started(attempt=claim.attempt, known=len(known)))
        log.info("run started", attempt=claim.attempt, url=claim.url, known_files=len(known))
        await self._tell_removals(claim, finished, tail)
        faults.at("runner.before_crawl")
        ended = await self._crawl(claim, lease, attempt, tail)
        lease.check()  # its process may have ended for that
        stopped = ended.stopped or claim.run in self._stopping
        listing = Listing(files=counts.listed, gaps=ended.gaps, failure=ended.failure)
        expected = sum(not file.state.is_gone for file in known.values())
        ending = conclude(listing, attempt.failures, known_files=expected, cancelled=stopped)
        removal = finished + await self._remove(claim, lease, attempt, ending, ended, tail)
        lease.check()  # before scripts of the operator hear of the end
        when = self._next_try(claim, ending, ended.again_after, cancel_is_final)
        return await self._conclude(claim, attempt, ending, removal, tail, when)

    async def _known(self, claim: Claim, lease: Lease) -> tuple[dict[str, KnownFile], Outcome]:
        """The files of the source, after what a killed worker has left undone about them."""
        with_validators = self._settings.refresh_changed
        known = await self._calls(files.known_files, claim, utcnow(), validators=with_validators)
        going = any(file.state in (FileState.MISSING, FileState.REMOVED) for file in known.values())
        finished = await self._remover.finish_interrupted(claim, lease) if going else Outcome()
        if finished.removed:
            known = await self._calls(files.known_files, claim, utcnow(), validators=with_validators)
        return known, finished

    async def _remove(
        self, claim: Claim, lease: Lease, attempt: Attempt, ending: Ending, ended: Ended, tail: deque[str]
    ) -> Outcome:
        """What is done about files that the listing did not show: only a complete one says anything of them."""
        process = self._processes.get(claim.run)
        if not ending.listing_proves or process is None:
            return Outcome()
        gone = attempt.missing()
        outcome = await self._remover.settle(claim, lease, attempt, ended, process)
        attempt.counts.removed += outcome.removed
        attempt.counts.held = outcome.held
        attempt.counts.missing = len(gone) - outcome.removed
        await self._tell_removals(claim, outcome, tail)
        return outcome

    async def _tell_removals(self, claim: Claim, outcome: Outcome, tail: deque[str]) -> None:
        for event in outcome.events:
            await self._tell(claim, event, tail)
        if outcome.summary:
            log.info("gone at the remote", what=outcome.summary)
            tail.append(f"{time.strftime('%H:%M:%S')} gone at the remote: {outcome.summary}")

    async def _crawl(self, claim: Claim, lease: Lease, attempt: Attempt, tail: deque[str]) -> Ended:
        """Run the gallery process to its end, recording what it reports."""
        if claim.run in self._stopping:
            return Ended(stopped=True)
        if (failure := await self._remover.check_root()) is not None:
            return Ended(failure=failure)
        if (failure := await self._room.check()) is not None:
            return Ended(failure=failure)
        request = await self._request(
            claim, lease, attempt
        )  # a catalog that does not work is no failure of the gallery
        try:
            process = await self._pool.run(request)
        except SettingsError as error:
            return Ended(failure=Failure(reason=Reason.BAD_INPUT, detail=str(error)))
        except NoProcessError as error:
            return Ended(failure=error.failure)
        except DownloaderError as error:
            return Ended(failure=Failure(reason=Reason.CRASHED, detail=str(error)))
        self._processes[claim.run] = process
        await process.renew(lease.of_process)  # it may have taken long to start
        if claim.run in self._stopping:
            await process.stop()
        recorder = Recorder(
            self._calls, claim, lease, attempt, self._outlet, lambda event: self._tell(claim, event, tail)
        )
        try:
            async for batch in process.batches():
                await self._take(claim, process, recorder, batch, tail)
            await recorder.confirmed()
        finally:
            recorder.close()
        ended = process.ended
        if ended.again_after is not None and ended.failure and ended.failure.reason is Reason.RATE_LIMITED:
            await self._tell_of_wait(claim.site, ended.again_after)
        if ended.landings_told:
            try:
                await asyncio.to_thread(self._landing_log(claim).unlink, missing_ok=True)
            except OSError as error:  # the next run finds that all of it is recorded
                log.warning("the landing log stays", why=str(error))
        return ended

    async def _request(self, claim: Claim, lease: Lease, attempt: Attempt) -> RunRequest:
        folder, log = self._run_folder(claim), self._landing_log(claim)
        request = await make_request(self._calls, self._settings, claim, attempt.known, folder, log)
        return replace(request, lease_until=lease.of_process)

    def _landing_log(self, claim: Claim) -> Path:
        """Beside the files that it tells of, where workers of other machines find it, too. Catalogs may share the root."""
        name = f"{self._calls.catalog.identity}-{claim.source_id}"
        return self._settings.content_root / MARKER_FOLDER / "landing" / name

    def _announced_before(self, claim: Claim) -> set[str]:
        while len(self._announced) >= REMEMBERED_RUNS:
            self._announced.pop(next(iter(self._announced)))
        return self._announced.setdefault(claim.run, set())

    def _run_folder(self, claim: Claim) -> Path:
        return self._settings.runtime_path / "runs" / claim.run_id

    async def _take(
        self, claim: Claim, process: GalleryProcess, recorder: Recorder, batch: list[FromRun], tail: deque[str]
    ) -> None:
        listed = [message for message in batch if isinstance(message, Listed)]
        for message in batch:
            match message:
                case Asks(path):
                    await process.answer(await self._calls(files.holds, claim.source_id, path))
                case Logged(level, logger, text):
                    tail.append(f"{time.strftime('%H:%M:%S')} [{logger}] {text}")
                    log.log(level, text, logger=logger)
                    self._observer(claim, message)
                case Progress() | Busy() | Expects() | Waiting():
                    self._observer(claim, message)
                    if isinstance(message, Waiting) and message.asked:
                        await self._tell_of_wait(claim.site, message.seconds)
                case Unlocked(why):
                    self._say_unlocked(why)
                case Listed() | Ended():
                    pass
        if listed:
            for failure in await recorder.record(listed):
                tail.append(f"{time.strftime('%H:%M:%S')} failed: {failure.detail}")
                self._observer(claim, FileFailed(detail=failure.detail))

    def _say_unlocked(self, why: str) -> None:
        if not self._unlocked:
            self._unlocked = True
            log.warning("CONTENT_ROOT knows no locks: only leases keep two processes from one source", why=why)

    def _next_try(
        self, claim: Claim, ending: Ending, again_after: float | None, cancel_is_final: bool
    ) -> _Again | None:
        """When the run goes on; None when it is over."""
        if ending.state is RunState.CANCELLED:
            return None if cancel_is_final else _Again(timedelta(), same_attempt=True)
        if again_after is not None:
            # Not a failed attempt: the site named the time at which it goes on, or an earlier process still runs.
            return _Again(timedelta(seconds=again_after), same_attempt=True)
        if ending.transient and claim.attempt < self._settings.attempts:
            delay = retry_delay(claim.attempt, self._settings.retry_delay, random.random)
            return _Again(delay, same_attempt=False)
        return None

    async def _conclude(
        self,
        claim: Claim,
        attempt: Attempt,
        ending: Ending,
        removal: Outcome,
        tail: deque[str],
        again: _Again | None,
    ) -> Ending | None:
        counts, gaps = attempt.counts, list(ending.gaps)
        self.trouble = ending.reason if ending.reason is not None and ending.reason.of_the_machine else None
        context = RunContext(run_id=claim.run_id, source_id=claim.source_id, correlation_id=claim.correlation_id)
        again_at: datetime | None = None
        if again is not None:
            await self._calls(
                journal.put_back,
                claim,
                after=again.after,
                ending=ending,
                same_attempt=again.same_attempt,
                counts=counts.as_dict(),
                gaps=gaps,
                log="\n".join(tail),
                # What was only found waits for the next attempt's word; what was removed was removed.
                removals=together(claim.removals, removal.summary if removal.removed else ""),
            )
            again_at = utcnow() + again.after
            log.info(
                "attempt ended", state=ending.state, reason=ending.reason, detail=ending.detail, again=str(again_at)
            )
        else:
            event = await self._last_event(context, claim, counts, ending)
            removal = replace(removal, summary=together(claim.removals, removal.summary))
            await self._finish(claim, ending, counts, removal, tail, event)
        self._observer(
            claim,
            Finished(
                ending=ending,
                counts=counts,
                gaps=gaps,
                removals=removal.summary,
                again=again_at,
            ),
        )
        return None if again is not None else ending

    async def _finish(
        self,
        claim: Claim,
        ending: Ending,
        counts: Counts,
        removal: Outcome,
        tail: deque[str],
        event: Event | None,
    ) -> None:
        if event is not None:
            # Before the end is written: what a script reports is part of the run.
            await self._tell(claim, event, tail)
        to_broker = event is not None and self._outlet is not None and event.type in self._outlet.types
        faults.at("runner.before_end")
        await self._calls(
            journal.finish,
            claim,
            now=utcnow(),
            ending=ending,
            counts=counts.as_dict(),
            gaps=list(ending.gaps),
            log="\n".join(tail),
            events=[event] if event is not None and to_broker else [],
            removals=removal.summary,
        )
        faults.at("runner.after_end")
        if to_broker and self._outlet is not None:
            self._outlet.wake()
        why = {} if ending.reason is None else {"reason": ending.reason, "detail": ending.detail}
        log.info("run ended", state=ending.state, **why, **counts.as_dict())
        self._announced.pop(claim.run, None)
        self._stopping.discard(claim.run)
        shutil.rmtree(self._run_folder(claim), ignore_errors=True)

    async def _last_event(self, context: RunContext, claim: Claim, counts: Counts, ending: Ending) -> Event | None:
        match ending.state:
            case RunState.SYNCHRONIZED:
                orders = await self._calls(journal.order_ids, claim.run)
                return source_synchronized(context, orders=orders, counts=counts.as_dict())
            case RunState.PARTIAL | RunState.FAILED:
                reason = str(ending.reason)
                return source_sync_failed(context, state=str(ending.state), reason=reason, detail=ending.detail)
            case _:
                return None

    async def _tell(self, claim: Claim, event: Event, tail: deque[str]) -> None:
        """Local listeners: the terminal, and the operator's hook script for this event."""
        self._observer(claim, event)
        if not self._scripts.wants(event.type):
            return
        filename = event.body.get("filename")
        counts = {key: value for key, value in event.headers.items() if key in Counts().as_dict()}
        path = self._settings.content_root / claim.content_path / filename if filename else None
        problem = await self._scripts.call(
            event.type,
            HookValue(
                event=str(event.type),
                message_id=event.message_id,
                source_id=event.source_id,
                run_id=event.run_id,
                filename=filename,
                path=str(path) if path else None,
                url=event.headers.get("url"),
                size=event.headers.get("size"),
                sha256=event.headers.get("sha256"),
                counts=counts if path is None else {},
            ),
        )
        if problem is not None:
            problem = redact(problem)  # a script may have been told secrets of ours
            log.warning(problem)
            tail.append(f"{time.strftime('%H:%M:%S')} {problem}")

    async def _end_process(self, claim: Claim) -> None:
        if (process := self._processes.pop(claim.run, None)) is not None:
            await process.close()


def _count_recorded(counts: Counts, known: dict[str, KnownFile]) -> None:
    """What an interrupted attempt of this run has recorded and told; its counts are not in the catalog."""
    told = [file for file in known.values() if file.announced and file.state is not FileState.ABSORBED]
    counts.downloaded = max(counts.downloaded, len(told))
    counts.bytes = max(counts.bytes, sum(file.size or 0 for file in told))


async def make_request(
    calls: CatalogCalls | None,
    settings: RunnerSettings,
    claim: Claim,
    known: dict[str, KnownFile],
    run_folder: Path,
    landing_log: Path,
    *,
    rehearsal: bool = False,
) -> RunRequest:
    """What a gallery process has to know. `calls` None: there is no catalog yet."""
    marker = None if calls is None else marker_file(settings.content_root, calls.catalog.identity)
    trashed = {}
    if calls is not None and any(file.state is FileState.TRASHED for file in known.values()):
        trashed = {
            row.remote_id: Trashed(path=row.path, trash_path=row.trash_path, sha256=row.sha256)
            for row in await calls(removals.trashed, claim.source_id)
            if row.state is FileState.TRASHED and row.trash_path is not None
        }
    shares = calls is not None and await calls(files.shares_folder, claim.source_id, claim.content_path)
    return RunRequest(
        run_id=claim.run_id,
        source_id=claim.source_id,
        url=claim.url,
        content_root=settings.content_root,
        content_path=claim.content_path,
        run_folder=run_folder,
        landing_log=landing_log,
        lock_file=None if rehearsal or marker is None else marker.with_suffix(".locks"),
        cookies_folder=settings.cookies_folder,
        cache_file=settings.runtime_path / "cache.sqlite3",
        known=known,
        trashed=trashed,
        shares_folder=shares,
        allowed_networks=settings.allowed_networks,
        refresh_changed=settings.refresh_changed,
        lanes=settings.lanes,
        rate_limit_max_wait=settings.rate_limit_max_wait,
        limits=settings.limits,
        log_level=settings.log_level,
        marker=None if rehearsal else marker,
        durable=settings.durable,
        min_free_space=settings.min_free_space,
        rehearsal=rehearsal,
    )
