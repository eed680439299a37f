"""Claims runs from the journal while slots are free, keeps their leases, and winds down when told to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog

from .. import faults
from ..catalog import journal, sites
from ..catalog.calls import CatalogCalls
from ..catalog.journal import Claim
from ..domain.errors import CatalogError, LeaseLost
from ..domain.runs import Ending, RunState
from ..gallery.lease import now
from .identity import dead_workers, forget
from .lease import LEASE, RENEW_EVERY, Lease
from .runner import Runner

log = structlog.get_logger(__name__)

POLL = 2.0
"""Seconds between two looks into the journal when nothing woke us: another process may have put a run there."""

SHORTEST_REST, LONGEST_REST = 2.0, 300.0
"""Seconds before a run goes on that the catalog has interrupted; longer each time in a row, as its site is asked anew."""

LONGEST_PAUSE = 60.0
"""Seconds for which a worker takes no run after its own disk has failed one, at most; longer each time in a row, from
SHORTEST_REST on. It fails runs faster than others perform them, and would soon have failed all there are."""

STOPPING_TIME = 7.0
"""Seconds that a run has to end after it was told to stop. One that waits for a broker that is away never does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    owner: str
    workers_folder: Path
    slots: int
    site_concurrency: int
    shutdown_grace: float


class Worker:
    def __init__(self, calls: CatalogCalls, runner: Runner, settings: WorkerSettings) -> None:
        self._calls = calls
        self._runner = runner
        self._settings = settings
        self._wake = asyncio.Event()
        self._running: dict[int, asyncio.Task[None]] = {}
        self._unsure = False
        """The catalog has not worked: it may give us runs that we do not perform, and leases may be about to end."""
        self._rest = SHORTEST_REST
        self._pause = SHORTEST_REST
        self._paused_until = 0.0

    def wake(self) -> None:
        """A run has been queued, or a slot has become free."""
        self._wake.set()

    def _pause_after_trouble(self) -> None:
        if (trouble := self._runner.trouble) is None:
            self._pause = SHORTEST_REST
        elif _clock() >= self._paused_until:
            log.warning("no run begins here for a while: others may do better", why=trouble, seconds=self._pause)
            self._paused_until = _clock() + self._pause
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    async def run(self, stop: asyncio.Event) -> None:
        """Perform runs until `stop`; then let them finish for the grace time, and put back what is left."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                if _clock() >= self._paused_until:
                    await self._fill()
                self._wake.clear()
                waking = asyncio.create_task(self._wake.wait())
                await asyncio.wait({stopping, waking}, timeout=POLL, return_when=asyncio.FIRST_COMPLETED)
                waking.cancel()
            await self._wind_down()
        finally:
            stopping.cancel()
            for task in self._running.values():
                task.cancel()

    async def keep_leases(self) -> None:
        """Until cancelled. A run whose lease cannot be renewed is broken off, and another worker takes over."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._renew_leases())
            group.create_task(self._follow_sites())

    async def _follow_sites(self) -> None:
        while True:
            await asyncio.sleep(POLL)
            with contextlib.suppress(CatalogError):  # said by the catalog itself
                await self._runner.follow_sites()

    async def _renew_leases(self) -> None:
        pause = RENEW_EVERY
        while True:
            await asyncio.sleep(pause)
            try:
                await self._renew()
                pause = RENEW_EVERY
            except CatalogError:
                self._unsure = True
                pause = POLL

    async def _renew(self) -> None:
        asked_at = now()
        kept = await self._calls(journal.renew, self._settings.owner, LEASE, self._runner.performed())
        for run, fence in kept.items():
            await self._runner.renewed(run, fence, asked_at)

    async def release_dead(self) -> None:
        """Take back at once what a worker of this machine owned when it was killed, and sweep up after it."""
        folder = self._settings.workers_folder
        dead = await asyncio.to_thread(dead_workers, folder)
        if dead:
            count = await self._calls(journal.release, dead)
            forget(folder, dead)
            if count:
                log.info("runs of a worker that died are taken up again", runs=count)
            await self._runner.sweep()

    async def run_now(self, run: int, *, stop: asyncio.Event, waiting: Callable[[str], None]) -> Ending:
        """Perform one run to its end, with all its attempts, while a person waits. `waiting` is told why not yet."""
        while True:
            claimed = await self._claim(run)
            if claimed is None:
                if (ended := await self._ended_elsewhere(run)) is not None:
                    return ended
                asked = await self._calls(sites.wait_of, run)
                waiting("the site asks to wait" if asked else "another run of this source or its site is under way")
                if await _sleep(1.0, stop):
                    return Ending(state=RunState.CANCELLED)
                continue
            try:
                ending = await self._attempt_now(*claimed, stop)
            except LeaseLost as error:
                self._say_lost(claimed[0], error)
                await self._calls(journal.give_back, self._settings.owner, [], timedelta())
                continue
            if ending is not None:
                return ending
            if await self._pause_before_retry(run, stop):
                return Ending(state=RunState.CANCELLED)

    async def _attempt_now(self, claim: Claim, lease: Lease, stop: asyncio.Event) -> Ending | None:
        task = asyncio.create_task(self._runner.perform(claim, lease, cancel_is_final=True))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                await self._runner.stop(claim.run)
                await _end({task})
            return Ending(state=RunState.CANCELLED) if task.cancelled() else await task
        finally:
            stopping.cancel()
            task.cancel()

    async def kill_all(self) -> None:
        for run in self._runner.performed():
            await self._runner.kill(run)

    async def _pause_before_retry(self, run: int, stop: asyncio.Event) -> bool:
        pause = await self._calls(journal.time_left, run)
        return await _sleep(pause.total_seconds(), stop)

    async def _ended_elsewhere(self, run: int) -> Ending | None:
        """The end of a run that another process has claimed, if it has one."""
        row = await self._calls(journal.get_run, run)
        if row is None or not RunState(row["state"]).ended:
            return None
        return journal.ending_of(row)

    async def _claim(self, run: int | None = None) -> tuple[Claim, Lease] | None:
        asked_at = now()
        claim = await self._calls(
            journal.claim,
            owner=self._settings.owner,
            lease=LEASE,
            site_concurrency=self._settings.site_concurrency,
            run=run,
        )
        return None if claim is None else (claim, Lease(claim, asked_at))

    async def _fill(self) -> None:
        while len(self._running) < self._settings.slots:
            try:
                await self._put_in_order()
                claimed = await self._claim()
            except CatalogError:
                self._unsure = True
                return
            if claimed is None:
                return
            claim, lease = claimed
            faults.at("worker.after_claim")
            if (lost := self._running.get(claim.run)) is not None:
                # Its lease ended while the catalog was locked, and now it is ours again: not twice at a time.
                lost.cancel()
                await asyncio.wait({lost})
            task = asyncio.create_task(self._perform(claim, lease))
            self._running[claim.run] = task

    async def _put_in_order(self) -> None:
        """After a trouble with the catalog: keep what we perform, and put back what we own and do not perform."""
        if not self._unsure:
            return
        self._unsure = False  # before we look: it may happen again meanwhile
        await self._renew()
        rest = timedelta(seconds=self._rest)
        if await self._calls(journal.give_back, self._settings.owner, list(self._running), rest):
            self._rest = min(2 * self._rest, LONGEST_REST)

    async def _perform(self, claim: Claim, lease: Lease) -> None:
        try:
            await self._runner.perform(claim, lease)
            self._rest = SHORTEST_REST
        except LeaseLost as error:
            self._unsure = True  # unless another worker has it already
            self._say_lost(claim, error)
        except CatalogError:
            self._unsure = True
            log.warning("run interrupted by the catalog, to be taken up again", **claim.names)
        except Exception:
            # A defect of ours. The run is not lost: its lease runs out, and it is taken up again.
            log.exception("run interrupted, to be taken up again", **claim.names)
        finally:
            self._running.pop(claim.run, None)
            self._pause_after_trouble()
            self.wake()

    def _say_lost(self, claim: Claim, error: LeaseLost) -> None:
        log.warning("lease lost", why=str(error), **claim.names)

    async def _wind_down(self) -> None:
        if not self._running:
            return
        log.info("waiting for running syncs", runs=len(self._running), at_most=f"{self._settings.shutdown_grace:g} s")
        await asyncio.wait(self._running.values(), timeout=self._settings.shutdown_grace)
        left = list(self._running)
        if left:
            log.info("stopping runs, to be resumed at the next start", runs=len(left))
            await asyncio.gather(*(self._runner.stop(run) for run in left))
            await _end(set(self._running.values()))


def _clock() -> float:
    return asyncio.get_running_loop().time()


async def _end(tasks: set[asyncio.Task[Any]]) -> None:
    """Wait for runs that were told to stop, then give them up: on leaving, the worker puts back what it still owns."""
    if tasks:
        _, stuck = await asyncio.wait(tasks, timeout=STOPPING_TIME)
        for task in stuck:
            task.cancel()
        if stuck:
            await asyncio.wait(stuck)


async def _sleep(seconds: float, stop: asyncio.Event) -> bool:
    """True when it was cut short by `stop`."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True
