"""What the catalog says should lie where, page by page; and what a repair notes of the copies that it sets aside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..domain.files import FileState, file_key
from ..domain.runs import RunState
from ..domain.verification import SET_ASIDE, Recorded, set_aside_from
from .engine import query, transaction
from .files import CHUNK, NOT_MISSING, files_first
from .removals import hold_idle
from .schema import files, runs, sources


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFile:
    """A row that says: here lies a file. Paths are relative to CONTENT_ROOT.

    `place`: where it lies, in the mirror or in the trash; `going_to`: where a removal that is under way moves it.
    """

    id: int
    source_id: int
    remote_id: str
    state: FileState
    path: str
    place: str
    going_to: str | None
    content_path: str
    recorded: Recorded

    @property
    def in_trash(self) -> bool:
        return self.state in (FileState.TRASHED, FileState.FORGOTTEN)

    @property
    def filename(self) -> str:
        return self.path.removeprefix(f"{self.content_path}/")


_HERE = sa.case(
    (files.c.state.in_([FileState.PRESENT, FileState.MISSING]), files.c.path),
    (files.c.state.in_([FileState.TRASHED, FileState.FORGOTTEN]), files.c.trash_path),
).is_not(None)
"""One expression, not one condition for each state: SQLite would gather them by state, and sort all of them for a page."""
_COLUMNS = (
    *(files.c[name] for name in ("id", "source_id", "remote_id", "state", "path", "trash_path", "size", "sha256")),
    *(files.c[name] for name in ("first_seen_at", "downloaded_at", "removed_at")),
)


@query
def extent(db: Connection, source_id: int | None) -> tuple[int, int]:
    """How many files should be here, and their bytes."""
    choice = sa.select(sa.func.count(), sa.func.sum(files.c.size)).where(_HERE, *_of(source_id))
    count, size = db.execute(choice).one()
    return count, int(size or 0)


@query
def lacking(db: Connection, source_id: int | None) -> int:
    """How many files are listed at the remote, and could not be fetched yet."""
    state = files.c.state.in_([FileState.FAILED, FileState.UNAVAILABLE])
    return int(db.execute(sa.select(sa.func.count()).where(state, *_of(source_id))).scalar_one())


@query
def page(db: Connection, source_id: int | None, after: int, limit: int) -> list[RecordedFile]:
    """Files that should be here, those with a row id greater than `after`, in the order of their row ids."""
    choice = _choice().where(_HERE, files.c.id > after, *_of(source_id)).order_by(files.c.id).limit(limit)
    return [_recorded(row) for row in db.execute(choice).mappings()]


@query
def by_ids(db: Connection, ids: list[int]) -> dict[int, RecordedFile]:
    """Those of these rows that still say that a file is here."""
    found: dict[int, RecordedFile] = {}
    for start in range(0, len(ids), CHUNK):
        choice = _choice().where(_HERE, files.c.id.in_(ids[start : start + CHUNK]))
        found |= {row["id"]: _recorded(row) for row in db.execute(choice).mappings()}
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """`gone`: the site's last answer for it was 404 or 410. `since`: when its content came in, or it was first seen."""

    state: FileState
    gone: bool
    since: datetime


@query
def standings(db: Connection, ids: list[int]) -> dict[int, Standing]:
    """How rows stand, whatever they say."""
    found: dict[int, Standing] = {}
    columns = (files.c.id, files.c.state, files.c.gone_runs, files.c.downloaded_at, files.c.first_seen_at)
    for start in range(0, len(ids), CHUNK):
        for row in db.execute(sa.select(*columns).where(files.c.id.in_(ids[start : start + CHUNK]))):
            since = row.downloaded_at or row.first_seen_at
            found[row.id] = Standing(state=FileState(row.state), gone=row.gone_runs > 0, since=since)
    return found


@query
def running(db: Connection) -> set[int]:
    """The sources of which a run is under way."""
    return set(db.execute(sa.select(runs.c.source_id).where(runs.c.state == RunState.RUNNING)).scalars())


@query
def folders(db: Connection, source_id: int | None) -> dict[str, int]:
    """The folders of sources, each with one source that has it."""
    choice = sa.select(sources.c.content_path, sa.func.min(sources.c.id)).group_by(sources.c.content_path)
    if source_id is not None:
        choice = choice.where(sources.c.id == source_id)
    return {row[0]: row[1] for row in db.execute(choice)}


@query
def held(db: Connection, paths: list[str]) -> set[str]:
    """Those of these paths that the catalog gives to a file, of whatever source."""
    keys = {file_key(path): path for path in paths}
    found: set[str] = set()
    wanted = list(keys)
    for start in range(0, len(wanted), CHUNK):
        choice = sa.select(files.c.path_key).where(files.c.path_key.in_(wanted[start : start + CHUNK]))
        found.update(keys[key] for key in db.execute(choice).scalars())
    return found


# Repair.


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """A copy that is moved out of the way of its repair, as it was found. `remote_id` is its own: `aside_id()`."""

    remote_id: str
    trash_path: str
    size: int | None
    sha256: str | None


@transaction
def need_idle(db: Connection, source_id: int) -> None:
    """Raises `SourceBusyError` when a run of the source is under way."""
    hold_idle(db, source_id)


@transaction
def set_aside(db: Connection, file: RecordedFile, copy: Aside, now: datetime) -> str | None:
    """Note, before it is moved, where the copy of a file goes. Returns the place that counts: a repair that was cut off
    may have noted another. None when the file is not what it was when it was looked at.

    Raises `SourceBusyError`.
    """
    hold_idle(db, file.source_id)
    row = db.execute(_choice().where(files.c.id == file.id)).mappings().first()
    if row is None or _recorded(row) != file:
        return None
    remote_id, earlier = copy.remote_id, None
    while (earlier := _earlier(db, file.source_id, remote_id)) is not None and not FileState(earlier.state).is_gone:
        remote_id += (
            "~"  # the same copy was set aside before, and somebody has brought it back: that is another file now
        )
    if earlier is not None and FileState(earlier.state) is FileState.TRASHED and earlier.trash_path:
        db.execute(sa.update(files).where(files.c.id == earlier.id).values(removed_at=now))
        return str(earlier.trash_path)
    values: dict[str, Any] = {
        **NOT_MISSING,
        "state": FileState.TRASHED,
        "path": file.path,
        "path_key": None,
        "size": copy.size,
        "sha256": copy.sha256,
        "trash_path": copy.trash_path,
        "removed_at": now,
        "pinned": False,
    }
    if earlier is not None:
        db.execute(sa.update(files).where(files.c.id == earlier.id).values(**values))
    else:
        values |= {"source_id": file.source_id, "remote_id": remote_id, "remote_key": file_key(remote_id)}
        db.execute(sa.insert(files).values(**values, first_seen_at=now, gone_runs=0, tags=[]))
    return copy.trash_path


def _earlier(db: Connection, source_id: int, remote_id: str) -> Any:
    this = sa.and_(files.c.source_id == source_id, files.c.remote_key == file_key(remote_id))
    return db.execute(sa.select(files.c.id, files.c.state, files.c.trash_path).where(this)).first()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAside:
    """A copy that a repair has set aside, and that is in the trash since then."""

    id: int
    remote_id: str
    trash_path: str
    since: datetime


@query
def copies_aside(db: Connection, source_id: int) -> dict[str, list[SetAside]]:
    """By the remote id of their file; the latest last."""
    choice = sa.select(files.c.id, files.c.remote_id, files.c.trash_path, files.c.removed_at).where(
        files.c.source_id == source_id,
        files.c.state == FileState.TRASHED,
        files.c.trash_path.is_not(None),
        files.c.remote_id.contains(SET_ASIDE, autoescape=True),
    )
    found: dict[str, list[SetAside]] = {}
    # Put in order here: for the order SQLite would go through the trash of all sources.
    for row in sorted(db.execute(choice), key=lambda row: (row.removed_at, row.id)):
        if (file := set_aside_from(row.remote_id)) is not None:
            copy = SetAside(id=row.id, remote_id=row.remote_id, trash_path=row.trash_path, since=row.removed_at)
            found.setdefault(file, []).append(copy)
    return found


@transaction
def put_back(db: Connection, file: int, copy: int) -> None:
    """The copy of a file lies in its old place again: there is one row for it, and that says so.

    Raises `SourceBusyError`.
    """
    source_id = db.execute(sa.select(files.c.source_id).where(files.c.id == file)).scalar_one()
    hold_idle(db, source_id)
    failed = files.c.state.in_([FileState.FAILED, FileState.UNAVAILABLE])
    db.execute(sa.update(files).where(files.c.id == file, failed).values(state=FileState.PRESENT))
    db.execute(sa.delete(files).where(files.c.id == copy))


@transaction
def keep_copy(db: Connection, copy: int, path: str) -> None:
    """The same when its file is gone at the remote by now: the copy is a file of its own, which stays.

    Raises `SourceBusyError`.
    """
    source_id = db.execute(sa.select(files.c.source_id).where(files.c.id == copy)).scalar_one()
    hold_idle(db, source_id)
    values = {**NOT_MISSING, "state": FileState.PRESENT, "path": path, "path_key": file_key(path), "pinned": True}
    db.execute(sa.update(files).where(files.c.id == copy).values(removed_at=None, **values))


def _of(source_id: int | None) -> Iterable[sa.ColumnElement[bool]]:
    return () if source_id is None else (files.c.source_id == source_id,)


def _choice() -> sa.Select[Any]:
    choice = sa.select(*_COLUMNS, sources.c.content_path).join(sources, sources.c.id == files.c.source_id)
    return files_first(choice)


def _recorded(row: Mapping[Any, Any]) -> RecordedFile:
    state = FileState(row["state"])
    in_trash = state in (FileState.TRASHED, FileState.FORGOTTEN)
    # What was set aside was measured then, not when its file came in.
    since = row["downloaded_at"] or (row["removed_at"] if in_trash else None) or row["first_seen_at"]
    return RecordedFile(
        id=row["id"],
        source_id=row["source_id"],
        remote_id=row["remote_id"],
        state=state,
        path=row["path"],
        place=row["trash_path"] if in_trash else row["path"],
        going_to=None if in_trash else row["trash_path"],
        content_path=row["content_path"],
        recorded=Recorded(size=row["size"], sha256=row["sha256"], since=since),
    )
