"""`removals` and `trash`: what waits for a person, and the way back."""

from __future__ import annotations

import asyncio
from typing import Any

from rich.console import Console
from rich.filesize import decimal

from ..app import approve, build
from ..catalog import journal, removals
from ..catalog.engine import Catalog
from ..catalog.removals import StoredFile
from ..domain.characters import visible
from ..domain.errors import SettingsError
from ..domain.files import FileState
from ..domain.removals import Hold
from ..domain.secrets import masked
from ..settings import Settings
from . import show
from .literal import literal


def list_plans(catalog: Catalog, *, as_json: bool) -> None:
    rows = [
        {
            "run_id": row["run_id"],
            "source_id": row["source_id"],
            "files": row["files"],
            "reason": row["hold"],
            "why": Hold(row["hold"]).sentence,
            "missing_since": show.time(row["missing_since"]),
            "content_path": row["content_path"],
            "url": masked(row["url"]),
        }
        for row in removals.held_plans(catalog)
    ]
    show.table(
        rows, as_json, ("run_id", "source_id", "files", "why", "missing_since", "content_path"), "nothing is held"
    )


def show_plan(catalog: Catalog, run_id: str, *, as_json: bool) -> None:
    rows = [
        {
            "source_id": row.source_id,
            "filename": row.filename,
            "path": row.path,
            "size": row.size,
            "url": row.url,
            "remote_id": row.remote_id,
            "reason": str(hold),
            "why": hold.sentence,
            "may_be_approved": hold.may_be_approved,
        }
        for row, hold in _held(catalog, run_id)
    ]
    show.table(rows, as_json, ("filename", "size", "why", "url"), "nothing is held")


def approve_plan(settings: Settings, catalog: Catalog, run_id: str) -> None:
    _held(catalog, run_id)
    events, staying = asyncio.run(approve(settings, journal.run_number(run_id), run_id))
    console = Console(highlight=False)
    for event in events:
        console.print(f"- {literal(event.body['filename'])}", soft_wrap=True)
    for line in staying:
        console.print(f"! stays: {literal(line)}", soft_wrap=True)
    trashed = sum(event.body["removal"] == "trash" for event in events)
    words = [f"{trashed} moved to trash" if trashed else "", f"{len(events) - trashed} deleted" if events else ""]
    words += [f"{len(staying)} stay" if staying else ""]
    console.print(", ".join(word for word in words if word and not word.startswith("0 ")) or "nothing to do")


def reject_plan(catalog: Catalog, run_id: str) -> None:
    _held(catalog, run_id)
    count = removals.reject(catalog, journal.run_number(run_id))
    print(f"{count} kept and pinned; `http-downloader files unpin` undoes it")


def _held(catalog: Catalog, run_id: str) -> list[tuple[StoredFile, Hold]]:
    found = removals.held_files(catalog, journal.run_number(run_id))
    if not found:
        raise SettingsError(f"nothing is held for run {run_id}; http-downloader removals lists the plans that wait")
    return found


def list_trash(catalog: Catalog, *, source_id: int | None, as_json: bool) -> None:
    rows = [_trashed(row) for row in removals.trashed(catalog, source_id)]
    show.table(rows, as_json, ("source_id", "filename", "size", "removed_at", "trash_path"), "the trash is empty")
    if rows and not as_json:
        total = sum(row["size"] or 0 for row in rows)
        print(f"{len(rows)} files, {decimal(total)}; `http-downloader trash restore` brings them back")


def restore(settings: Settings, catalog: Catalog, names: list[str], source_id: int | None, everything: bool) -> None:
    rows = _chosen(catalog, names, source_id, everything)
    for row, path in asyncio.run(_restore(settings, rows)):
        print(visible(path if path is not None else f"{row.path}: not in the trash any more"))


async def _restore(settings: Settings, rows: list[StoredFile]) -> list[tuple[StoredFile, str | None]]:
    async with build(settings) as app:
        return [(row, await app.remover.restore(row)) for row in rows]


def empty(settings: Settings, catalog: Catalog, names: list[str], source_id: int | None, everything: bool) -> None:
    rows = _chosen(catalog, names, source_id, everything)
    asyncio.run(_empty(settings, rows))
    print(f"{len(rows)} deleted, {decimal(sum(row.size or 0 for row in rows))}")


async def _empty(settings: Settings, rows: list[StoredFile]) -> None:
    async with build(settings) as app:
        await app.remover.empty(rows)


def _chosen(catalog: Catalog, names: list[str], source_id: int | None, everything: bool) -> list[StoredFile]:
    rows = removals.trashed(catalog, source_id)
    if everything:
        return rows
    if not names:
        if source_id is None:
            raise SettingsError("say which files: by name, with --source-id N, or --all")
        return rows
    chosen = [row for row in rows if {row.filename, row.path, row.trash_path, row.remote_id} & set(names)]
    found = {name for row in chosen for name in (row.filename, row.path, row.trash_path, row.remote_id)}
    if missing := [name for name in names if name not in found]:
        raise SettingsError(f"{missing[0]} is not in the trash; http-downloader trash lists what is there")
    return chosen


def _trashed(row: StoredFile) -> dict[str, Any]:
    return {
        "source_id": row.source_id,
        "filename": row.filename,
        "path": row.path,
        "trash_path": row.trash_path,
        "size": row.size,
        "sha256": row.sha256,
        "remote_id": row.remote_id,
        "url": row.url,
        "removed_at": show.time(row.removed_at),
    }


def pin(catalog: Catalog, source_id: int, names: list[str], *, pinned: bool) -> None:
    rows = _named(catalog, source_id, names)
    removals.pin(catalog, [row.id for row in rows], pinned)
    _print_paths(rows)


def forget(settings: Settings, catalog: Catalog, source_id: int, names: list[str]) -> None:
    """Tombstones for files that are not in their place any more."""
    rows = _named(catalog, source_id, names)
    for row in rows:
        if not row.state.is_gone and (settings.content_root / row.path).exists():
            raise SettingsError(f"{row.path} is still here; delete it first, then forget it")
    for row in rows:
        removals.forget(catalog, row)
    _print_paths(rows)


def want(catalog: Catalog, source_id: int, names: list[str]) -> None:
    rows = _named(catalog, source_id, names)
    for row in rows:
        if row.state is not FileState.FORGOTTEN:
            raise SettingsError(f"{row.path} is not forgotten; http-downloader files --state forgotten lists those")
    for row in rows:
        removals.want(catalog, row)
    _print_paths(rows)


def _named(catalog: Catalog, source_id: int, names: list[str]) -> list[StoredFile]:
    """Files of a source by filename, path or remote id."""
    rows = removals.find_files(catalog, source_id, names)
    found = {name for row in rows for name in (row.filename, row.path, row.remote_id)}
    if missing := [name for name in names if name not in found]:
        raise SettingsError(f"source {source_id} has no file {missing[0]}; http-downloader files lists them")
    return rows


def _print_paths(rows: list[StoredFile]) -> None:
    print("\n".join(visible(row.path) for row in rows))
