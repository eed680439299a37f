"""What becomes of files that are gone at the remote: the rule decides, and here its plan is carried out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from .. import faults
from ..catalog import content, files, journal, removals
from ..catalog.calls import CatalogCalls
from ..catalog.engine import utcnow
from ..catalog.journal import Claim
from ..catalog.removals import Removed, Standing, StoredFile
from ..domain.errors import ContentError, SourceBusyError
from ..domain.events import Event, EventType, RunContext, file_removed
from ..domain.files import FileState, distinct_name
from ..domain.listing import Failure
from ..domain.reasons import Reason
from ..domain.removals import (
    Check,
    FullListing,
    Hold,
    OnDisk,
    Plan,
    Policy,
    Probe,
    RemoteDeletes,
    Seen,
    Served,
    Verdict,
    decide,
)
from ..gallery.messages import Ended
from ..gallery.pool import GalleryProcess
from .lease import Lease
from .recorder import Attempt, Outlet
from .trash import RootMarker, Trash

log = structlog.get_logger(__name__)

BATCH = 200
"""Files that are moved between two transactions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run did about missing files: how many were removed and are held, and one line for people."""

    removed: int = 0
    held: int = 0
    summary: str = ""
    events: tuple[Event, ...] = ()

    def __add__(self, later: Outcome) -> Outcome:
        return Outcome(
            removed=self.removed + later.removed,
            held=later.held,
            summary=together(self.summary, later.summary),
            events=self.events + later.events,
        )


def together(*summaries: str) -> str:
    """One line of several, some of which say nothing."""
    return "; ".join(summary for summary in summaries if summary)


class Remover:
    """`policy`: of this instance; sources and orders may say otherwise. `clock`: the time of a listing, of a removal,
    and of the end of what lies in the trash."""

    def __init__(
        self,
        calls: CatalogCalls,
        content_root: Path,
        policy: Policy,
        retention: timedelta | None,
        outlet: Outlet | None,
        clock: Callable[[], datetime] = utcnow,
        *,
        durable: bool = True,
    ) -> None:
        self._calls = calls
        self._clock = clock
        self._root = content_root
        self._policy = policy
        self._retention = retention
        self._outlet = outlet
        self._durable = durable
        self._trash = Trash(content_root, durable=durable)

    async def check_root(self) -> Failure | None:
        """Why CONTENT_ROOT cannot be used now; None when it is the folder that the catalog speaks of, which is marked
        if it was not before."""
        if (problem := await self.look_at_root()) is not None:
            return Failure(reason=Reason.ROOT_NOT_MOUNTED, detail=problem)
        if not self._root.is_dir():
            return Failure(reason=Reason.ROOT_NOT_MOUNTED, detail=f"CONTENT_ROOT is not there: {self._root}")
        marker = RootMarker(self._root, self._calls.catalog.identity)
        if await asyncio.to_thread(marker.is_there):
            return None
        try:
            await asyncio.to_thread(marker.write, durable=self._durable)
        except ContentError as error:
            return Failure(reason=Reason.STORAGE_ERROR, detail=str(error))
        await self._calls(content.mark, self._clock())
        return None

    async def look_at_root(self) -> str | None:
        """The same without marking anything."""
        marker = RootMarker(self._root, self._calls.catalog.identity)
        if await asyncio.to_thread(marker.is_there) or not await self._calls(content.is_marked):
            return None
        return marker.missing

    async def _need_root(self) -> None:
        """On an empty place where the disk is not mounted, every file would seem to be gone."""
        if (problem := await self.look_at_root()) is not None:
            raise ContentError(problem)

    async def finish_interrupted(self, claim: Claim, lease: Lease) -> Outcome:
        """Carry to its end what a killed worker was about to remove.

        A person may have decided otherwise since then, or changed the file: what should stay now is put back.
        """
        if await self.look_at_root() is not None:
            return Outcome()  # the files are not gone, their disk is
        try:
            await self.empty(await self._calls(removals.left_behind, claim.source_id))
        except ContentError as error:  # tried again by whoever empties the trash
            log.warning("what was removed stays in the trash for now", why=str(error))
        action = self._policy_of(claim).action
        leaving: list[StoredFile] = []
        staying: list[StoredFile] = []
        for row, pinned in await self._calls(removals.interrupted, claim.source_id):
            keep = pinned or action is RemoteDeletes.KEEP
            lease.check()
            (staying if await asyncio.to_thread(self._call_off, row, keep) else leaving).append(row)
        if staying:
            await self._calls(removals.give_up, claim, [row.remote_id for row in staying])
        events = await self._remove(_Hand.of(claim, lease), leaving, self._places(leaving), action)
        what = "deleted" if action is RemoteDeletes.DELETE else "moved to trash"
        summary = f"{len(events)} {what}" if events else ""
        return Outcome(removed=len(events), summary=summary, events=tuple(events))

    def _call_off(self, row: StoredFile, keep: bool) -> bool:
        """Undo a removal that was begun, if the file is to stay. False when it goes, or cannot be put back."""
        if not keep and self._trash.inspect(row.path, size=row.size, sha256=row.sha256) in (OnDisk.OURS, OnDisk.ABSENT):
            return False
        place = str(row.trash_path)
        try:
            return self._trash.move(place, row.path) or not self._trash.is_file(place)
        except ContentError:
            return False

    async def settle(
        self, claim: Claim, lease: Lease, attempt: Attempt, ended: Ended, process: GalleryProcess
    ) -> Outcome:
        """Decide about what a complete listing did not show, and do it."""
        missing, policy = attempt.missing(), self._policy_of(claim)
        if not missing:
            return Outcome()
        known_as_missing = all(attempt.known[remote_id].state is FileState.MISSING for remote_id in missing)
        if policy.action is RemoteDeletes.KEEP and known_as_missing:
            return Outcome(summary=f"{len(missing)} kept")  # no news, and nothing to do
        standing, plan = await self.plan(claim, attempt, ended, process)
        leaving = [standing.rows[remote_id] for remote_id in plan.to_remove]
        if leaving and (problem := await self.check_root()) is not None:
            log.error("nothing is removed", why=problem.detail)
            return Outcome(summary=f"nothing removed: {problem.detail}")
        places = self._places(leaving)
        await self._write(claim, standing, plan, places)
        events = await self._remove(_Hand.of(claim, lease), leaving, places, policy.action)
        return Outcome(
            removed=len(events), held=len(plan.held), summary=plan.summary(policy.action), events=tuple(events)
        )

    async def approve(self, run: int, run_id: str) -> tuple[list[Event], list[str]]:
        """Remove what the plan of a run holds, because a person says so: what a person may decide, and what is still
        as the plan saw it. Returns the events, and a line for each file that stays.

        Raises `SourceBusyError`, `ContentError`.
        """
        await self._need_root()
        leaving, staying = [], []
        for row, hold in await self._calls(removals.held_files, run):
            why = await self._why_not(row, hold)
            if why:
                staying.append(f"{row.path}: {why}")
            else:
                leaving.append(row)
        if not leaving:
            return [], staying
        hand = _Hand(source_id=leaving[0].source_id, run=run, run_id=run_id, claim=None, lease=None)
        source = await self._calls(journal.find_source, "", hand.source_id)
        action = RemoteDeletes((source or {}).get("remote_deletes") or self._policy.action)
        if action is RemoteDeletes.KEEP:  # set after the plan was made; a person has decided now
            action = RemoteDeletes.TRASH
        places = self._places(leaving)
        await self._calls(removals.intend, hand.source_id, places)
        return await self._remove(hand, leaving, places, action), staying

    async def _why_not(self, row: StoredFile, hold: Hold) -> str:
        if not hold.may_be_approved:
            return hold.sentence
        match await asyncio.to_thread(self._trash.inspect, row.path, size=row.size, sha256=row.sha256):
            case OnDisk.CHANGED:
                return Hold.CHANGED_LOCALLY.sentence
            case OnDisk.SYMLINK:
                return Hold.SYMLINK.sentence
        return Hold.SHARED.sentence if await self._calls(files.holds, row.source_id, row.path) else ""

    async def plan(
        self, claim: Claim, attempt: Attempt, ended: Ended, process: GalleryProcess
    ) -> tuple[Standing, Plan]:
        """What would be done. Asks the site and looks at files, and changes nothing."""
        policy = self._policy_of(claim)
        standing = await self._calls(removals.standing, claim)
        listing = await self._listing(claim, attempt, ended, process)
        plan = decide(standing.known, listing, policy, standing.history)
        if plan.to_check:
            checks = {
                remote_id: await self._check(claim, standing.rows[remote_id], policy, process)
                for remote_id in plan.to_check
            }
            plan = decide(standing.known, listing, policy, standing.history, checks)
        return standing, plan

    def _policy_of(self, claim: Claim) -> Policy:
        """The source's own setting wins over the instance's; an order can only make it more careful."""
        action = claim.source_deletes or self._policy.action
        if claim.order_deletes is not None:
            action = action.at_most(claim.order_deletes)
        return replace(self._policy, action=action)

    async def _listing(self, claim: Claim, attempt: Attempt, ended: Ended, process: GalleryProcess) -> FullListing:
        seen = {remote_id: attempt.came_in.get(remote_id, _UNCHANGED) for remote_id in attempt.seen}
        if not ended.ids_are_stable and (addresses := await process.addresses()) is not None:
            seen = {
                remote_id: Seen(url=addresses.get(remote_id), sha256=found.sha256, is_new=found.is_new)
                for remote_id, found in seen.items()
            }
        return FullListing(
            complete=True,
            files=seen,
            fingerprint=ended.fingerprint,
            positional=not ended.ids_are_stable,
            at=self._clock(),
            run=claim.run,
        )

    async def _check(self, claim: Claim, row: StoredFile, policy: Policy, process: GalleryProcess) -> Check:
        served = Served.UNKNOWN
        if policy.probe is Probe.HOLD and row.url is not None:
            served = await process.is_served(row.url)
        return Check(
            served=served,
            on_disk=await asyncio.to_thread(self._trash.inspect, row.path, size=row.size, sha256=row.sha256),
            shared=await self._calls(files.holds, claim.source_id, row.path),
        )

    def _places(self, leaving: Iterable[StoredFile]) -> dict[str, str]:
        """Where a removal was begun and cut off, the place that was noted: the file may be there already."""
        day = self._clock().date()
        return {row.remote_id: row.trash_path or self._trash.place_for(row.path, row.remote_id, day) for row in leaving}

    async def _write(self, claim: Claim, standing: Standing, plan: Plan, places: dict[str, str]) -> None:
        """Only what changed; but all that is held, when that is not what was held before: one run has the whole plan."""
        held = {remote_id: decision.hold for remote_id, decision in plan.decisions.items() if decision.hold}
        changed = {
            remote_id: decision
            for remote_id, decision in plan.decisions.items()
            if decision.verdict in (Verdict.MISSING, Verdict.KEPT, Verdict.REMOVE, Verdict.HELD)
            and (
                remote_id in places
                or decision.missing != standing.history.get(remote_id)
                or ((remote_id in held or remote_id in standing.held) and held != standing.held)
            )
        }
        if changed:
            await self._calls(removals.settle, claim, changed, places)

    async def _remove(
        self, hand: _Hand, rows: list[StoredFile], places: dict[str, str], action: RemoteDeletes
    ) -> list[Event]:
        """Move files whose destinations are noted, and write that down together with the events that tell of it."""
        told: list[Event] = []
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            faults.at("removal.after_intent")
            moved, stuck = await asyncio.to_thread(self._carry, hand, batch, places, action)
            faults.at("removal.after_move")
            if (problem := await self.look_at_root()) is not None:
                log.error(
                    "removals interrupted, to be taken up again", why=problem
                )  # the disk is gone, not these files
                break
            if stuck:
                log.error("files could not be removed", files=len(stuck), first=next(iter(stuck.values())))
                if hand.claim is not None:
                    await self._calls(removals.give_up, hand.claim, list(stuck))
                else:
                    await self._calls(removals.give_up_by_hand, hand.source_id, list(stuck))
            by_id = {row.remote_id: row for row in batch}
            events = [_event(hand, by_id[one.remote_id], one) for one in moved]
            queued = events if self._outlet is not None and EventType.FILE_REMOVED in self._outlet.types else []
            if hand.claim is not None:
                await self._calls(removals.removed, hand.claim, moved, queued, self._clock())
            else:
                await self._calls(removals.removed_by_hand, hand.source_id, hand.run, moved, queued, self._clock())
            if queued and self._outlet is not None:
                self._outlet.wake()
            told += events
            await self._empty([by_id[one.remote_id].id for one in moved if not one.kept and one.trash_path], moved)
        return told

    def _carry(
        self, hand: _Hand, rows: list[StoredFile], places: dict[str, str], action: RemoteDeletes
    ) -> tuple[list[Removed], dict[str, str]]:
        """Returns what is out of the way now, and what stays with the reason."""
        moved, stuck = [], {}
        for row in rows:
            place = places[row.remote_id]
            if hand.lease is not None:
                hand.lease.check()
            try:
                if action is not RemoteDeletes.KEEP:
                    self._trash.move(row.path, place)
                there = self._trash.inspect(place, size=row.size, sha256=row.sha256)
                here = self._trash.is_file(row.path)
            except ContentError as error:
                stuck[row.remote_id] = str(error)
                continue
            if there is OnDisk.ABSENT and here:
                stuck[row.remote_id] = f"{row.path} stays"
            elif there is OnDisk.ABSENT:  # somebody has deleted it here
                moved.append(Removed(remote_id=row.remote_id, trash_path=None, kept=False))
            else:
                # What changed in the last moment is nobody's to delete.
                kept = action is not RemoteDeletes.DELETE or there is not OnDisk.OURS
                moved.append(Removed(remote_id=row.remote_id, trash_path=place, kept=kept))
        return moved, stuck

    async def _empty(self, ids: list[int], moved: list[Removed]) -> None:
        """`delete`: only after the catalog and the outbox have it."""
        try:
            for one in moved:
                if not one.kept and one.trash_path is not None:
                    await asyncio.to_thread(self._trash.delete, one.trash_path)
        except ContentError as error:  # the removal is told; the copy goes when the trash is emptied
            log.warning("what was removed stays in the trash for now", why=str(error))
            return
        if ids:
            await self._calls(removals.emptied, ids, self._clock())

    async def restore(self, row: StoredFile) -> str | None:
        """Bring a file back from the trash, to its old path or a free one beside it. Returns that path; None when it
        is not in the trash any more. It is pinned: the remote does not have it.

        Raises `SourceBusyError`, `ContentError`.
        """
        await self._need_root()
        place = str(row.trash_path)
        folder, _, name = row.path.rpartition("/")
        for path in (row.path, f"{folder}/{distinct_name(name, row.remote_id)}"):
            if await self._calls(removals.is_free, path, row.id) and await asyncio.to_thread(
                self._comes_back, row, place, path
            ):
                break
        else:
            return None
        try:
            await self._calls(removals.restored, row, path)
        except SourceBusyError:
            await asyncio.to_thread(self._trash.move, path, place)
            raise
        return path

    def _comes_back(self, row: StoredFile, place: str, path: str) -> bool:
        """Move a file out of the trash, unless an earlier call did and was cut off before the catalog knew."""
        if self._trash.move(place, path):
            return True
        was_moved = not self._trash.is_file(place)
        return was_moved and self._trash.inspect(path, size=row.size, sha256=row.sha256) is OnDisk.OURS

    async def empty(self, rows: list[StoredFile]) -> None:
        """Delete files from the trash for good. Raises `ContentError`."""
        if rows:
            await self._need_root()
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            for row in batch:
                await asyncio.to_thread(self._trash.delete, str(row.trash_path))
            await self._calls(removals.emptied, [row.id for row in batch], self._clock())

    async def empty_expired(self) -> int:
        """Delete what has been in the trash for longer than TRASH_RETENTION. Returns how many files.

        Raises `ContentError`.
        """
        before = self._clock() - self._retention if self._retention is not None else _NEVER
        count = 0
        while rows := await self._calls(removals.expired, before, BATCH):
            await self.empty(rows)
            count += len(rows)
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hand:
    """Who removes: a run that is under way, or a person who approves the plan of one that has ended."""

    source_id: int
    run: int
    run_id: str
    claim: Claim | None
    lease: Lease | None

    @classmethod
    def of(cls, claim: Claim, lease: Lease) -> _Hand:
        return cls(source_id=claim.source_id, run=claim.run, run_id=claim.run_id, claim=claim, lease=lease)


def _event(hand: _Hand, row: StoredFile, removed: Removed) -> Event:
    return file_removed(
        RunContext(
            run_id=hand.run_id,
            source_id=hand.source_id,
            correlation_id=hand.claim.correlation_id if hand.claim else None,
        ),
        remote_id=row.remote_id,
        filename=row.filename,
        removal=str(RemoteDeletes.TRASH if removed.kept else RemoteDeletes.DELETE),
        url=row.url,
        size=row.size,
        sha256=row.sha256,
    )


_NEVER = datetime(1970, 1, 1, tzinfo=UTC)
_UNCHANGED = Seen()
"""Of most listed files no more needs to be known than that they are there."""
