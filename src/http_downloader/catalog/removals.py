"""Files that are gone at the remote: what is remembered of them, what holds them here, and the trash."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..domain.errors import SourceBusyError
from ..domain.events import Event
from ..domain.files import FileState, file_key
from ..domain.removals import Decision, Hold, Known, Missing
from ..domain.runs import RunState
from . import journal, outbox
from .engine import query, transaction
from .files import CHUNK, NOT_MISSING, files_first
from .journal import Claim
from .schema import files, runs, sources

STILL_THERE = datetime(1970, 1, 1, tzinfo=UTC)
"""When a file was removed that is removed for good, and whose copy has yet to be deleted from the trash: before all
others, where `expired` finds it among millions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """What is needed to remove a file, or to bring it back. Paths are relative to CONTENT_ROOT."""

    id: int
    source_id: int
    remote_id: str
    state: FileState
    path: str
    url: str | None
    size: int | None
    sha256: str | None
    trash_path: str | None
    removed_at: datetime | None
    content_path: str

    @property
    def filename(self) -> str:
        return self.path.removeprefix(f"{self.content_path}/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """All files of a source, as `decide()` wants them, and the rows of those that a removal may concern."""

    known: list[Known]
    history: dict[str, Missing]
    rows: dict[str, StoredFile]
    held: dict[str, Hold]


@query
def standing(db: Connection, claim: Claim) -> Standing:
    known, history, rows, held = [], {}, {}, {}
    choice = sa.select(*_STORED, *_REMEMBERED).where(files.c.source_id == claim.source_id)
    for row in db.execute(choice).mappings():
        state = FileState(row["state"])
        remote_id = row["remote_id"]
        known.append(
            Known(
                remote_id=remote_id,
                state=state,
                url=row["url"],
                size=row["size"],
                sha256=row["sha256"],
                pinned=row["pinned"],
            )
        )
        if row["path"] is not None:
            rows[remote_id] = _stored(row, claim.content_path)
        if state is FileState.MISSING and row["missing_times"] is not None:
            history[remote_id] = Missing(
                times=row["missing_times"],
                since=row["missing_since"],
                last=row["missing_last"],
                since_run=row["missing_run"],
                fingerprint=row["fingerprint"],
                beside=row["missing_beside"],
            )
        if row["hold"] is not None:
            held[remote_id] = Hold(row["hold"])
    return Standing(known=known, history=history, rows=rows, held=held)


@transaction
def settle(db: Connection, claim: Claim, decisions: Mapping[str, Decision], trash_paths: Mapping[str, str]) -> None:
    """Write what a complete listing says of files that it did not show.

    `trash_paths`: where those that are removed now are about to go. Noted before they are moved, so that a crash in
    between leaves none of them lost.
    """
    journal.guard(db, claim)
    for remote_id, decision in decisions.items():
        missing = decision.missing
        values: dict[str, Any] = {
            "state": FileState.MISSING,
            "hold": decision.hold,
            "hold_run": claim.run if decision.hold else None,
            "trash_path": trash_paths.get(remote_id),
        }
        if missing is not None:
            values |= {
                "missing_since": missing.since,
                "missing_last": missing.last,
                "missing_times": missing.times,
                "missing_run": missing.since_run,
                "missing_beside": missing.beside,
                "fingerprint": missing.fingerprint,
            }
        db.execute(sa.update(files).where(*_this(claim.source_id, remote_id)).values(**values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """`trash_path` None: nothing of it is left here. `kept`: it is in the trash for as long as TRASH_RETENTION."""

    remote_id: str
    trash_path: str | None
    kept: bool


@transaction
def removed(db: Connection, claim: Claim, removals: list[Removed], events: list[Event], now: datetime) -> None:
    """Files that a run has removed, together with the events that tell of it."""
    journal.guard(db, claim)
    _write_removed(db, claim.source_id, claim.run, removals, events, now)


@transaction
def removed_by_hand(
    db: Connection, source_id: int, run: int, removals: list[Removed], events: list[Event], now: datetime
) -> None:
    """The same for a plan of an earlier run that a person has approved. Raises `SourceBusyError`."""
    hold_idle(db, source_id)
    _write_removed(db, source_id, run, removals, events, now)


def _write_removed(
    db: Connection, source_id: int, run: int, removals: list[Removed], events: list[Event], now: datetime
) -> None:
    for one in removals:
        values = {
            "state": FileState.TRASHED if one.kept else FileState.REMOVED,
            "path_key": None,  # the name is free
            "trash_path": one.trash_path,
            "removed_at": now if one.kept or one.trash_path is None else STILL_THERE,
            "hold": None,
            "hold_run": None,
        }
        db.execute(sa.update(files).where(*_this(source_id, one.remote_id)).values(**values))
    outbox.add(db, run, events, now)


@transaction
def intend(db: Connection, source_id: int, trash_paths: Mapping[str, str]) -> None:
    """Note where files of an approved plan are about to go. Raises `SourceBusyError`."""
    hold_idle(db, source_id)
    for remote_id, trash_path in trash_paths.items():
        db.execute(sa.update(files).where(*_this(source_id, remote_id)).values(trash_path=trash_path))


@transaction
def give_up(db: Connection, claim: Claim, remote_ids: Iterable[str]) -> None:
    """Files that a run was about to remove, and that could not be moved."""
    journal.guard(db, claim)
    _write_given_up(db, claim.source_id, remote_ids)


@transaction
def give_up_by_hand(db: Connection, source_id: int, remote_ids: Iterable[str]) -> None:
    """The same for a plan that a person has approved."""
    _write_given_up(db, source_id, remote_ids)


def _write_given_up(db: Connection, source_id: int, remote_ids: Iterable[str]) -> None:
    for remote_id in remote_ids:
        # Still about to: a run that has begun meanwhile must not lose what it has moved.
        going = files.c.state == FileState.MISSING
        db.execute(sa.update(files).where(*_this(source_id, remote_id), going).values(trash_path=None))


@query
def interrupted(db: Connection, source_id: int) -> list[tuple[StoredFile, bool]]:
    """Files that were about to be removed when the worker died, and whether they are pinned."""
    choice = _choice(files.c.pinned).where(files.c.source_id == source_id, _GOING).order_by(files.c.id)
    return [(_stored(row, row["content_path"]), row["pinned"]) for row in db.execute(choice).mappings()]


@query
def left_behind(db: Connection, source_id: int) -> list[StoredFile]:
    """What a removal has left in the trash although nobody wants it: the worker died before it deleted it."""
    return _select(db, files.c.source_id == source_id, _LEFT_BEHIND)


def hold_idle(db: Connection, source_id: int) -> None:
    """Hold the source for the rest of this transaction: no run of it is under way, and none begins."""
    db.execute(sa.select(sources.c.id).where(sources.c.id == source_id).with_for_update())
    running = sa.select(runs.c.id).where(runs.c.source_id == source_id, runs.c.state == RunState.RUNNING)
    if db.execute(running.limit(1)).first() is not None:
        raise SourceBusyError(f"a run of source {source_id} is under way; try again when it has ended")


# Held plans.


@query
def held_plans(db: Connection) -> list[dict[str, Any]]:
    """The plans that wait for a person, one for each run that made one: its source, and how many files it holds. What
    is pinned waits for nobody: a person has decided."""
    plans = (
        sa.select(
            files.c.hold_run,
            files.c.source_id,
            files.c.hold,
            sa.func.count().label("files"),
            sa.func.min(files.c.missing_since).label("missing_since"),
        )
        .where(files.c.hold_run.is_not(None), files.c.hold != Hold.PINNED)
        .group_by(files.c.hold_run, files.c.source_id, files.c.hold)
        .subquery()
    )
    choice = (
        sa.select(plans, sources.c.url, sources.c.content_path)
        .join(sources, sources.c.id == plans.c.source_id)
        .order_by(plans.c.hold_run, plans.c.hold)
    )
    found = [dict(row) for row in db.execute(choice).mappings()]
    identity = journal.run_name(db, 0).removesuffix("0")
    return [{**row, "run_id": f"{identity}{row['hold_run']}"} for row in found]


@query
def held_files(db: Connection, run: int) -> list[tuple[StoredFile, Hold]]:
    """The files that the plan of a run holds."""
    choice = _choice(files.c.hold).where(files.c.hold_run == run).order_by(files.c.id)
    return [(_stored(row, row["content_path"]), Hold(row["hold"])) for row in db.execute(choice).mappings()]


@transaction
def reject(db: Connection, run: int) -> int:
    """Keep what the plan of a run holds, whatever the remote says. Returns how many files."""
    done = db.execute(sa.update(files).where(files.c.hold_run == run).values(pinned=True, hold=None, hold_run=None))
    return done.rowcount


# What people decide about single files.


@query
def find_files(db: Connection, source_id: int, names: list[str]) -> list[StoredFile]:
    """Files of a source by filename, path or remote id."""
    keys = {file_key(name) for name in names}
    folder = db.execute(sa.select(sources.c.content_path).where(sources.c.id == source_id)).scalar()
    paths = set(names) | {f"{folder}/{name}" for name in names}
    found: dict[int, StoredFile] = {}
    by_id = sa.and_(files.c.source_id == source_id, files.c.remote_key.in_(keys))
    by_path = sa.and_(files.c.source_id == source_id, files.c.path_key.in_([file_key(path) for path in paths]))
    gone = sa.and_(
        files.c.source_id == source_id,
        files.c.state.in_([FileState.TRASHED, FileState.REMOVED, FileState.FORGOTTEN]),
        files.c.path.in_(paths),
    )
    for condition in (by_id, by_path, gone):
        found |= {row.id: row for row in _select(db, condition)}
    return list(found.values())


@transaction
def pin(db: Connection, ids: list[int], pinned: bool) -> None:
    values: dict[str, Any] = {"pinned": pinned}
    if pinned:
        values |= {"hold": None, "hold_run": None}
    for start in range(0, len(ids), CHUNK):
        db.execute(sa.update(files).where(files.c.id.in_(ids[start : start + CHUNK])).values(**values))


@transaction
def forget(db: Connection, file: StoredFile) -> None:
    """A tombstone: it is not downloaded again. A copy in the trash stays there for as long as any.

    Raises `SourceBusyError`.
    """
    hold_idle(db, file.source_id)
    if db.execute(sa.select(files.c.id).where(files.c.id == file.id, _GOING)).first() is not None:
        raise SourceBusyError(f"the removal of {file.path} was cut off; try again after the next run of the source")
    values = {**NOT_MISSING, "state": FileState.FORGOTTEN, "path_key": None}
    del values["trash_path"]
    db.execute(sa.update(files).where(files.c.id == file.id).values(**values))


@transaction
def want(db: Connection, file: StoredFile) -> None:
    """Undo `forget`: to the next run the file is new, or comes back from the trash. Raises `SourceBusyError`."""
    hold_idle(db, file.source_id)
    this = sa.and_(files.c.id == file.id, files.c.state == FileState.FORGOTTEN)
    db.execute(sa.update(files).where(this, files.c.trash_path.is_not(None)).values(state=FileState.TRASHED))
    db.execute(sa.delete(files).where(this))


# The trash.


@query
def trashed(db: Connection, source_id: int | None = None) -> list[StoredFile]:
    """What is in the trash and can be restored, in state *trashed* or *forgotten*."""
    return _select(db, _IN_TRASH, *([files.c.source_id == source_id] if source_id is not None else []))


@query
def expired(db: Connection, before: datetime, limit: int) -> list[StoredFile]:
    """What has been in the trash since before then, and what a removal has left there although nobody wants it."""
    found = _select(db, _LEFT_BEHIND, files.c.removed_at <= STILL_THERE, limit=limit, order=files.c.removed_at)
    for state in (FileState.TRASHED, FileState.FORGOTTEN):  # one by one: the index has them in this order
        old = sa.and_(files.c.state == state, files.c.trash_path.is_not(None), files.c.removed_at < before)
        found += _select(db, old, limit=limit - len(found), order=files.c.removed_at)
    return found


@transaction
def emptied(db: Connection, ids: list[int], now: datetime) -> None:
    """What is not in the trash any more."""
    for start in range(0, len(ids), CHUNK):
        some = files.c.id.in_(ids[start : start + CHUNK])
        db.execute(sa.update(files).where(some, files.c.state == FileState.TRASHED).values(state=FileState.REMOVED))
        db.execute(sa.update(files).where(some, files.c.removed_at <= STILL_THERE).values(removed_at=now))
        db.execute(sa.update(files).where(some).values(trash_path=None))


@query
def is_free(db: Connection, path: str, file: int) -> bool:
    """Whether the catalog gives a path to no other file."""
    holder = sa.select(files.c.id).where(files.c.path_key == file_key(path), files.c.id != file)
    return db.execute(holder).first() is None


@transaction
def restored(db: Connection, file: StoredFile, path: str) -> None:
    """A file that a person took out of the trash: it stays, although the remote does not have it.

    Raises `SourceBusyError`: a run may be bringing it back right now.
    """
    hold_idle(db, file.source_id)
    values = {**NOT_MISSING, "state": FileState.PRESENT, "path": path, "path_key": file_key(path), "pinned": True}
    db.execute(sa.update(files).where(files.c.id == file.id, _IN_TRASH).values(removed_at=None, **values))


_GOING = sa.and_(files.c.state == FileState.MISSING, files.c.trash_path.is_not(None))
_IN_TRASH = sa.and_(files.c.state.in_([FileState.TRASHED, FileState.FORGOTTEN]), files.c.trash_path.is_not(None))
_LEFT_BEHIND = sa.and_(files.c.state == FileState.REMOVED, files.c.trash_path.is_not(None))


def _this(source_id: int, remote_id: str) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    return files.c.source_id == source_id, files.c.remote_key == file_key(remote_id)


_STORED = tuple(files.c[name] for name in StoredFile.__slots__ if name != "content_path")
_REMEMBERED = (
    files.c.pinned,
    files.c.hold,
    files.c.missing_since,
    files.c.missing_last,
    files.c.missing_times,
    files.c.missing_run,
    files.c.missing_beside,
    files.c.fingerprint,
)


def _choice(*more: sa.ColumnElement[Any]) -> sa.Select[Any]:
    choice = sa.select(*_STORED, sources.c.content_path, *more).join(sources, sources.c.id == files.c.source_id)
    return files_first(choice)


def _select(
    db: Connection,
    *conditions: sa.ColumnElement[bool],
    limit: int | None = None,
    order: sa.ColumnElement[Any] = files.c.id,
) -> list[StoredFile]:
    choice = _choice().where(*conditions, files.c.path.is_not(None)).order_by(order).limit(limit)
    return [_stored(row, row["content_path"]) for row in db.execute(choice).mappings()]


def _stored(row: Any, content_path: str) -> StoredFile:
    return StoredFile(
        id=row["id"],
        source_id=row["source_id"],
        remote_id=row["remote_id"],
        state=FileState(row["state"]),
        path=row["path"],
        url=row["url"],
        size=row["size"],
        sha256=row["sha256"],
        trash_path=row["trash_path"],
        removed_at=row["removed_at"],
        content_path=content_path,
    )
