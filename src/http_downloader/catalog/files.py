"""The files of a source: what is known before a run, and what a run found out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..domain.events import Event
from ..domain.files import (
    FileFact,
    FileState,
    KnownFile,
    file_key,
    retry_unavailable,
)
from . import journal, outbox
from .engine import query, transaction
from .journal import Claim
from .schema import files, sources

CHUNK = 400
"""Values in one IN list: far below what any of the engines allows."""

NOT_MISSING: dict[str, Any] = {
    "missing_since": None,
    "missing_last": None,
    "missing_times": None,
    "missing_run": None,
    "missing_beside": None,
    "fingerprint": None,
    "hold": None,
    "hold_run": None,
    "trash_path": None,
}
"""What is remembered of a missing file ends when it is listed again."""


@query
def known_files(db: Connection, claim: Claim, now: datetime, *, validators: bool = False) -> dict[str, KnownFile]:
    """Everything that is known of the source of this run, by remote id; `validators` only when asked for."""
    choice = sa.select(
        files.c.remote_id,
        files.c.path,
        files.c.state,
        files.c.size,
        files.c.downloaded_run,
        files.c.gone_runs,
        files.c.gone_run,
        files.c.tried_at,
        *(
            [files.c.validator, files.c.sha256]
            if validators
            else [sa.null().label("validator"), sa.null().label("sha256")]
        ),
    ).where(files.c.source_id == claim.source_id)
    states = {str(state): state for state in FileState}
    nothing_here = {str(state) for state in FileState if state.is_gone}
    return {
        remote_id: KnownFile(
            None if state in nothing_here else path,
            states[state],
            size,
            sha256,
            validator,
            downloaded_run == claim.run,
            gone_runs - (gone_run == claim.run),
            tried_at is None or retry_unavailable(tried_at, now),
        )
        # Unpacked, not by name: this is read for every run, and is most of what a known file costs here.
        for (
            remote_id,
            path,
            state,
            size,
            downloaded_run,
            gone_runs,
            gone_run,
            tried_at,
            validator,
            sha256,
        ) in db.execute(choice)
    }


@query
def shares_folder(db: Connection, source_id: int, content_path: str) -> bool:
    """Whether the folder of another source is this one, lies in it, or holds it."""
    parts = content_path.split("/")
    above = ["/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    shared = sa.or_(
        sources.c.content_path.in_(above),
        # All that begins with the folder and a slash; `0` comes after `/`. LIKE folds case on SQLite.
        sa.and_(sources.c.content_path > content_path + "/", sources.c.content_path < content_path + "0"),
    )
    return db.execute(sa.select(sources.c.id).where(sources.c.id != source_id, shared).limit(1)).first() is not None


@query
def holds(db: Connection, source_id: int, path: str) -> bool:
    """Whether the catalog gives this path to a file of another source."""
    found = db.execute(sa.select(files.c.id).where(files.c.path_key == file_key(path), files.c.source_id != source_id))
    return found.first() is not None


@transaction
def record(
    db: Connection,
    claim: Claim,
    facts: list[FileFact],
    events: Mapping[str, Event],
    now: datetime,
) -> set[str]:
    """Commit what a run found out, together with the events that tell of it (by remote id).

    Returns the remote ids that were left out, since another file holds their path: the caller reports them.
    """
    journal.guard(db, claim)
    rows = _rows(db, claim.source_id, (fact.remote_id for fact in facts))
    conflicts = _conflicts(db, claim.source_id, facts)
    new, changed = [], []
    for fact in facts:
        if fact.remote_id in conflicts:
            continue
        key = file_key(fact.remote_id)
        row = rows.get(key)
        values = _values(claim, fact, row, now)
        if row is None:
            new.append({"source_id": claim.source_id, "remote_key": key, "remote_id": fact.remote_id, **values})
        else:
            changed.append({"row": row["id"], **values})
    if new:
        db.execute(sa.insert(files), new)
    for values in changed:
        db.execute(sa.update(files).where(files.c.id == values.pop("row")).values(**values))
    outbox.add(db, claim.run, [event for key, event in events.items() if key not in conflicts], now)
    return conflicts


def _rows(db: Connection, source_id: int, remote_ids: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    keys = [file_key(remote_id) for remote_id in remote_ids]
    found: dict[str, Mapping[str, Any]] = {}
    for start in range(0, len(keys), CHUNK):
        choice = sa.select(files).where(
            files.c.source_id == source_id, files.c.remote_key.in_(keys[start : start + CHUNK])
        )
        found.update({row["remote_key"]: row for row in db.execute(choice).mappings()})
    return found


def _conflicts(db: Connection, source_id: int, facts: list[FileFact]) -> set[str]:
    wanted: dict[str, str] = {}
    conflicts = set()
    for fact in facts:
        if fact.path is not None and wanted.setdefault(file_key(fact.path), fact.remote_id) != fact.remote_id:
            conflicts.add(fact.remote_id)
    keys = list(wanted)
    for start in range(0, len(keys), CHUNK):
        holders = sa.select(files.c.path_key, files.c.source_id, files.c.remote_id).where(
            files.c.path_key.in_(keys[start : start + CHUNK])
        )
        for row in db.execute(holders):
            if (row.source_id, row.remote_id) != (source_id, wanted[row.path_key]):
                conflicts.add(wanted[row.path_key])
    return conflicts


def _values(claim: Claim, fact: FileFact, row: Mapping[str, Any] | None, now: datetime) -> dict[str, Any]:
    words = fact.words
    values: dict[str, Any] = {
        "state": fact.state,
        "url": fact.url,
        "page_url": words.page_url,
        "title": words.title,
        "date": words.date,
        "tags": list(words.tags),
    }
    if row is None:
        values |= {"first_seen_at": now, "gone_runs": 0, "gone_run": None, "path": None, "path_key": None}
        values |= {"size": None, "sha256": None, "downloaded_at": None, "downloaded_run": None, "tried_at": None}
        values |= {**NOT_MISSING, "validator": None, "removed_at": None}
    if fact.state in (FileState.PRESENT, FileState.ABSORBED):
        values |= {
            "path": fact.path,
            "path_key": None if fact.path is None else file_key(fact.path),
            "size": fact.size,
            "sha256": fact.sha256,
            "removed_at": None,
            "gone_runs": 0,
            "gone_run": None,
            **NOT_MISSING,
        }
        if fact.downloaded:
            values |= {"downloaded_at": now, "downloaded_run": claim.run, "validator": fact.validator}
    else:
        values["tried_at"] = now
        if row is not None and row["state"] == FileState.TRASHED:
            values["state"] = FileState.TRASHED  # its copy still waits there, and may come back at the next try
        else:
            values |= NOT_MISSING  # it is listed
        counted = row is not None and row["gone_run"] == claim.run
        if not fact.gone:
            values |= {"gone_runs": 0, "gone_run": None}
        elif not counted:
            values |= {"gone_runs": (row["gone_runs"] if row else 0) + 1, "gone_run": claim.run}
    return values


@transaction
def mark_present(db: Connection, claim: Claim, remote_ids: list[str]) -> None:
    """Files that were missing, and are listed again."""
    journal.guard(db, claim)
    back = {**NOT_MISSING, "state": FileState.PRESENT, "gone_runs": 0, "gone_run": None}
    keys = [file_key(remote_id) for remote_id in remote_ids]
    for start in range(0, len(keys), CHUNK):
        db.execute(
            sa.update(files)
            .where(files.c.source_id == claim.source_id, files.c.remote_key.in_(keys[start : start + CHUNK]))
            .values(**back)
        )


def files_first(choice: sa.Select[Any]) -> sa.Select[Any]:
    """For a page of files with their sources. MariaDB would begin with the sources, and sort millions of files."""
    return choice.prefix_with("STRAIGHT_JOIN", dialect="mariadb").prefix_with("STRAIGHT_JOIN", dialect="mysql")


@query
def list_files(
    db: Connection, *, source_id: int | None, state: FileState | None, after: int, limit: int
) -> list[dict[str, Any]]:
    """A page of files in the order of their row ids, those after `after`, each with its source's folder."""
    choice = (
        sa.select(files, sources.c.content_path)
        .join(sources, sources.c.id == files.c.source_id)
        .where(files.c.id > after)
        .order_by(files.c.id)
        .limit(limit)
    )
    if source_id is not None:
        choice = choice.where(files.c.source_id == source_id)
    if state is not None:
        choice = choice.where(files.c.state == state)
    return [dict(row) for row in db.execute(files_first(choice)).mappings()]


@query
def count_by_state(db: Connection, source_id: int) -> dict[str, int]:
    found = db.execute(
        sa.select(files.c.state, sa.func.count()).where(files.c.source_id == source_id).group_by(files.c.state)
    )
    return {row[0]: row[1] for row in found}
