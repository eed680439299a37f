"""Lists of the catalog: a table for people, NDJSON for machines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from rich.console import Console
from rich.table import Table

from ..catalog import journal
from ..catalog.engine import Catalog
from ..catalog.upgrades import Plan
from ..domain.characters import json_line, visible
from ..domain.errors import Exit, SettingsError
from ..domain.secrets import masked
from .literal import literal

_COLOURS = {"synchronized": "green", "present": "green", "partial": "yellow", "failed": "red", "running": "cyan"}


WIDTHS = {"run_id": 11, "source_id": 13, "state": 12, "started_at": 11, "new": 4, "known": 5, "failed": 6}
"""Characters that a column keeps however narrow the terminal is."""


Page = Callable[[int], list[dict[str, Any]]]
"""The rows after the one with this id, up to some number."""


def _all(page: Page) -> Iterable[dict[str, Any]]:
    after = 0
    while rows := page(after):
        yield from rows
        after = rows[-1]["id"]


def sources(page: Page, *, as_json: bool) -> None:
    shown = (
        {
            "source_id": row["id"],
            "url": masked(row["url"]),
            "content_path": row["content_path"],
            "site": row["site"],
            "state": row["state"],
            "reason": row["reason"] if row["state"] != "synchronized" else None,
            "synchronized_at": time(row["synchronized_at"]),
            "remote_deletes": row["remote_deletes"],
        }
        for row in _all(page)
    )
    table(shown, as_json, ("source_id", "state", "synchronized_at", "content_path", "reason", "url"), "no sources yet")


def runs(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    shown = [_run(row) for row in rows]
    if not as_json:
        for row in shown:
            row["new"], row["known"], row["failed"] = (
                row["counts"].get(k, 0) for k in ("downloaded", "skipped", "failed")
            )
    columns = ("run_id", "source_id", "state", "new", "known", "failed", "started_at", "reason", "detail")
    table(shown, as_json, columns, "no runs yet")


def _run(row: dict[str, Any]) -> dict[str, Any]:
    synchronized = row["state"] == "synchronized"
    return {
        "run_id": row["run_id"],
        "source_id": row["source_id"],
        "url": masked(row["url"]),
        "content_path": row["content_path"],
        "state": row["state"],
        "reason": None if synchronized else row["reason"],
        "detail": None if synchronized else row["detail"],
        "attempt": row["attempt"],
        "counts": row["counts"],
        "gaps": [{"reason": reason, "detail": detail} for reason, detail in row["gaps"]],
        "created_at": time(row["created_at"]),
        "started_at": time(row["started_at"]),
        "ended_at": time(row["ended_at"]),
        "removals": row["removals"],
        "log": row["log"].splitlines(),
    }


def run_log(catalog: Catalog, run_id: str) -> None:
    row = journal.get_run(catalog, journal.run_number(run_id))
    if row is None:
        raise SettingsError(f"there is no run {run_id}; http-downloader runs lists them")
    print("\n".join(map(visible, row["log"].splitlines())))


def files(page: Page, *, as_json: bool) -> None:
    columns = ("source_id", "state", "size", "filename", "title", "downloaded_at")
    table((_file(row) for row in _all(page)), as_json, columns, "no files yet")


def _file(row: dict[str, Any]) -> dict[str, Any]:
    path = row["path"]
    prefix = row["content_path"] + "/"
    return {
        "source_id": row["source_id"],
        "filename": path.removeprefix(prefix) if path is not None else None,
        "path": path,
        "state": row["state"],
        "size": row["size"],
        "sha256": row["sha256"],
        "remote_id": row["remote_id"],
        "url": row["url"],
        "page_url": row["page_url"],
        "title": row["title"],
        "date": row["date"],
        "tags": row["tags"],
        "first_seen_at": time(row["first_seen_at"]),
        "downloaded_at": time(row["downloaded_at"]),
        "missing_since": time(row["missing_since"]),
        "missing_times": row["missing_times"],
        "hold": row["hold"],
        "pinned": row["pinned"],
        "trash_path": row["trash_path"],
        "removed_at": time(row["removed_at"]),
    }


def time(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def table(rows: Iterable[dict[str, Any]], as_json: bool, columns: tuple[str, ...], nothing: str) -> None:
    if as_json:
        for row in rows:
            print(json_line(row))
        return
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 1000  # nobody's screen: nothing is cut
    cells = [[_cell(column, row.get(column)) for column in columns] for row in rows]
    table = Table(box=None, pad_edge=False, header_style="bold")
    # A column in which nothing stands only takes room from the others.
    used = [index for index, column in enumerate(columns) if any(line[index] for line in cells)]
    for index in used:
        # What one copies into the next command stays whole; the rest is cut at its end when the line is full.
        table.add_column(columns[index].replace("_", " "), no_wrap=True, min_width=WIDTHS.get(columns[index]))
    for line in cells:
        table.add_row(*(line[index] for index in used))
    console.print(table if table.row_count else nothing)


def _cell(column: str, value: object) -> str:
    if value is None:
        return ""
    text = str(value)
    if column.endswith("_at"):
        text = text[5:16].replace("T", " ")
    if column == "state":
        return f"[{_COLOURS.get(text, 'default')}]{literal(text)}[/]"
    return literal(text)


def upgrade(plan: Plan) -> int:
    """What an upgrade would do, a line for each step. Returns the exit code: whether there is something to do."""
    print(f"{plan.address} has {f'schema {plan.found}' if plan.found else 'no schema yet'}")
    for step in plan.steps:
        who = f"only programs that know {step.works_with} can go on" if step.works_with else "older programs can go on"
        print(f"{step.revision}  {step.title.rstrip('.')} ({who})" if plan.found else f"{step.revision}  {step.title}")
    if plan.shut_out:
        print(f"workers that run now and would have to stop: {', '.join(plan.shut_out)}")
    if not plan.steps:
        print("there is nothing to do")
    return Exit.UNAVAILABLE if plan.steps else Exit.OK
