"""`status`: how all workers do that share the catalog, what waits, and what needs a person. Asks the catalog only."""

from __future__ import annotations

import contextlib
import signal
import time
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..catalog.engine import Catalog, look_into_catalog
from ..catalog.overview import Overview, look
from ..domain.characters import json_line, visible
from ..domain.errors import CatalogError
from ..settings import Settings
from .show import time as moment

REFRESH = 1.0
SHARE = 10
"""And so many times as long as asking the catalog took: to be watched must not cost it much."""

LATE, LOST = 10.0, 60.0
"""Seconds without a word from a worker, which speaks every three. After the latter its runs go to others."""

NARROW = 100
"""Columns below which only the most needful are shown."""


def run(settings: Settings, *, once: bool, as_json: bool) -> None:
    """Until Ctrl-C on a terminal; once for everything else. Raises `CatalogError`, `SettingsError`."""
    console = Console(highlight=False)
    lookout = _Lookout(settings)
    seen = lookout.look()
    if as_json:
        print(json_line(seen))
    elif once or not console.is_terminal or console.is_dumb_terminal:
        if not console.is_terminal:
            console.width = 160  # nobody's screen: little is cut
        console.print(draw(seen, console.width))
    else:
        _watch(console, lookout, seen)


class _Lookout:
    """Opens the catalog as soon as there is one."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._catalog: Catalog | None = None

    def look(self) -> dict[str, Any]:
        if self._catalog is None:
            self._catalog = look_into_catalog(self._settings.catalog_url)
        if self._catalog is None:
            return {"catalog": None, "place": self._settings.catalog_url}
        return {"catalog": self._catalog.address, **describe(look(self._catalog))}


def _watch(console: Console, lookout: _Lookout, seen: dict[str, Any]) -> None:
    # The terminal gets back what it showed before; and what a shell has put into the background ignores Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    trouble, took = "", 0.0
    with contextlib.suppress(KeyboardInterrupt), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            lines = [Text(trouble, style="bold red")] if trouble else []
            live.update(Group(*lines, draw(seen, console.width)), refresh=True)
            time.sleep(max(REFRESH, SHARE * took))
            begun = time.monotonic()
            try:
                seen, trouble = lookout.look(), ""
            except CatalogError as error:
                trouble = str(error)
            took = time.monotonic() - begun
    console.print(draw(seen, console.width))


def describe(seen: Overview) -> dict[str, Any]:
    """What is shown, as plain values: the object that `--json` prints."""
    load = seen.load
    reports = {run["run"]: run for worker in seen.workers for run in worker["report"].get("runs", [])}
    rows = [_run(row, reports.get(row["id"], {}), seen) for row in seen.running]
    return {
        "now": moment(seen.now),
        "workers": [_worker(row, rows) for row in seen.workers],
        "runs": rows,
        "queue": {
            "waiting": load.waiting,
            "oldest_seconds": load.waiting_age,
            "delayed": load.delayed,
            "by_site": seen.by_site,
            "next": [
                {**_named(row), "attempt": row["attempt"], "in_seconds": _until(row["not_before"], seen)}
                for row in seen.delayed
            ],
        },
        "sites": [{"site": row["name"], "in_seconds": _until(row["resume_at"], seen)} for row in seen.waiting_sites],
        "outbox": {"events": load.events, "oldest_seconds": load.events_age},
        "held": {"files": load.held},
        "failing": [
            {**_named(row), "content_path": row["content_path"], "ended_at": moment(row["ended_at"])}
            for row in seen.failing
        ],
    }


def _worker(row: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    report = row["report"]
    mine = [run for run in rows if run["worker"] == row["name"]]
    return {
        "name": row["name"],
        "host": row["host"],
        "pid": row["pid"],
        "version": row["version"],
        "state": "well" if row["age"] < LATE else "late" if row["age"] < LOST else "lost",
        "slots": row["slots"],
        "slots_used": len(mine),
        "started_at": moment(row["started_at"]),
        "seen_at": moment(row["seen_at"]),
        "seen_seconds": row["age"],
        "up_seconds": row["up"],
        "bytes_per_second": sum(run["bytes_per_second"] for run in mine),
        "memory_bytes": report.get("memory"),
        "broker": report.get("broker"),
        "trouble": report.get("trouble"),
    }


def _run(row: dict[str, Any], report: dict[str, Any], seen: Overview) -> dict[str, Any]:
    """`report`: what its worker says; empty when it has said nothing yet."""
    done = sum(report.get(name, 0) for name in ("downloaded", "skipped", "failed"))
    files = max(report.get("expected", 0), report.get("known", 0))
    return {
        **_named(row),
        "content_path": row["content_path"],
        "worker": row["owner"],
        "attempt": row["attempt"],
        "started_at": moment(row["started_at"]),
        "files_done": done,
        "files": files if files >= done else None,
        **{name: report.get(name, 0) for name in ("downloaded", "skipped", "failed", "bytes", "bytes_per_second")},
        "lanes": report.get("lanes", 0),
        "waits_seconds": report.get("waits", 0.0),
        "waits_for": report.get("waits_for", ""),
    }


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("run_id", "source_id", "site", "state", "reason", "detail")}


def _until(when: Any, seen: Overview) -> float:
    return max(float((when - seen.now).total_seconds()), 0.0)


def draw(seen: dict[str, Any], width: int) -> RenderableType:
    """For a terminal of so many columns."""
    if seen["catalog"] is None:
        return Text("there is no catalog yet; http-downloader serve makes one, or: http-downloader sync URL")
    parts: list[RenderableType] = [_head(seen)]
    if seen["workers"]:
        parts += [Text(), _workers(seen["workers"], width)]
    if seen["runs"]:
        parts += [Text(), _runs(seen["runs"], width, len(seen["workers"]) > 1)]
    parts += [Text(), _rest(seen)]
    return Group(*parts)


def _head(seen: dict[str, Any]) -> RenderableType:
    alive = [worker for worker in seen["workers"] if worker["state"] != "lost"]
    if not alive:
        words = Text.assemble(("no worker is at work", "bold yellow"), "; start one with: http-downloader serve")
    else:
        used, slots = (sum(worker[name] for worker in alive) for name in ("slots_used", "slots"))
        speed = sum(worker["bytes_per_second"] for worker in alive)
        words = Text.assemble(
            (_many(len(alive), "worker"), "bold"),
            f" · {used} of {_many(slots, 'slot')} busy · {decimal(speed)}/s · ",
            f"{_many(seen['queue']['waiting'], 'run')} in the queue",
        )
    head = Table.grid(expand=True)
    head.add_column(no_wrap=True, overflow="ellipsis")
    head.add_column(justify="right", no_wrap=True, min_width=8)
    head.add_row(words, Text(str(seen["now"])[11:19], style="dim"))
    head.add_row(Text(visible(seen["catalog"]), style="dim", overflow="ellipsis"))
    return head


def _workers(workers: list[dict[str, Any]], width: int) -> Table:
    wide = width >= NARROW
    table = _table(("worker", 14), ("slots", 5), ("up", 8), ("seen", 8), ("speed", 9), ("broker", 6))
    if wide:
        table.add_column("memory", no_wrap=True)
        table.add_column("version", no_wrap=True)
    for worker in workers:
        colour = {"well": "green", "late": "yellow", "lost": "red"}[worker["state"]]
        seen = _span(worker["seen_seconds"]) + ("" if worker["state"] == "well" else f", {worker['state']}")
        lost = worker["state"] == "lost"  # what it said last is of no use any more
        broker = "–" if lost else worker["trouble"] or worker["broker"] or "none set"
        memory = worker["memory_bytes"]
        table.add_row(
            Text.assemble(("● ", colour), visible(f"{worker['host']} {worker['pid']}")),
            f"{worker['slots_used']}/{worker['slots']}",
            _span(worker["up_seconds"]),
            Text(seen, style="" if worker["state"] == "well" else colour),
            _speed(0 if lost else worker["bytes_per_second"]),
            Text(visible(broker), style="" if broker in ("ok", "none set", "–") else "red"),
            *((decimal(memory) if memory else "", visible(worker["version"])) if wide else ()),
        )
    return table


def _runs(runs: list[dict[str, Any]], width: int, several: bool) -> Table:
    wide = width >= NARROW
    files = [_files(run) for run in runs]
    # What one copies into the next command, and what one looks for, stays whole.
    source = max(6, *(len(str(run["source_id"])) for run in runs))
    table = _table(("source", source), ("site", 10), ("files", max(map(len, files))), ("speed", 9), ("doing", 11))
    if wide:
        table.add_column("folder", no_wrap=True, min_width=12)
    if wide and several:
        table.add_column("worker", no_wrap=True)
    for run, done in zip(runs, files, strict=True):
        cells: list[RenderableType] = [
            str(run["source_id"]),
            Text(visible(run["site"])),
            done,
            _speed(run["bytes_per_second"]),
            _doing(run),
        ]
        if wide:
            cells.append(Text(visible(run["content_path"])))
        if wide and several:
            cells.append(Text(visible(str(run["worker"]).rpartition("-")[0])))
        table.add_row(*cells)
    return table


def _files(run: dict[str, Any]) -> Text:
    words = f"{run['files_done']:,} of {run['files']:,}" if run["files"] else f"{run['files_done']:,} so far"
    failed = run["failed"]
    return Text.assemble(words, (f", {failed} failed", "red") if failed else "")


def _doing(run: dict[str, Any]) -> Text:
    again = f", try {run['attempt']}" if run["attempt"] > 1 else ""
    if run["waits_seconds"] >= 1:
        why = run["waits_for"] or "pause between requests"
        return Text(f"waits {_span(run['waits_seconds'])}: {visible(why)}{again}", style="yellow")
    return Text((_many(run["lanes"], "download") if run["lanes"] else "listing") + again)


def _rest(seen: dict[str, Any]) -> Table:
    """What waits, and what needs somebody."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True, min_width=7)
    table.add_column(overflow="ellipsis", no_wrap=True)
    queue, outbox, held = seen["queue"], seen["outbox"], seen["held"]["files"]
    table.add_row("queue", _queue(queue))
    if len(queue["by_site"]) > 1 or queue["waiting"]:
        sites = " · ".join(f"{visible(row['site'])} {row['runs']:,}" for row in queue["by_site"])
        table.add_row("", Text(sites, style="dim"))
    for run in queue["next"]:
        why = f": {visible(run['detail'] or run['reason'])}" if run["reason"] else ""
        words = f"source {run['source_id']} in {_span(run['in_seconds'])}{why}"
        table.add_row("", Text(words, style="dim"))
    if seen["sites"]:
        sites = " · ".join(f"{visible(row['site'])} for {_span(row['in_seconds'])}" for row in seen["sites"])
        table.add_row("sites", Text(f"asked to wait: {sites}", style="yellow"))
    events = f"{_many(outbox['events'], 'event')} on the way, the oldest for {_span(outbox['oldest_seconds'])}"
    table.add_row("events", Text(events if outbox["events"] else "all confirmed"))
    if held:
        words = f"{_many(held, 'removal')} wait for you: http-downloader removals" if held > 1 else ""
        table.add_row("held", Text(words or "1 removal waits for you: http-downloader removals", style="yellow"))
    for number, row in enumerate(seen["failing"]):
        words = f"source {row['source_id']} ({visible(row['content_path'])}): {visible(row['detail'] or row['reason'])}"
        table.add_row("" if number else "failing", Text(words, style="red" if row["state"] == "failed" else "yellow"))
    return table


def _queue(queue: dict[str, Any]) -> Text:
    if not queue["waiting"] + queue["delayed"]:
        return Text("empty")
    words = []
    if queue["waiting"]:
        words.append(f"{_many(queue['waiting'], 'run')}, the first for {_span(queue['oldest_seconds'])}")
    if queue["delayed"]:
        words.append(f"{_many(queue['delayed'], 'run')} later")
    return Text("; ".join(words))


def _table(*columns: tuple[str, int]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
    for name, least in columns:
        table.add_column(name, no_wrap=True, min_width=least)
    return table


def _speed(per_second: float) -> str:
    return f"{decimal(int(per_second))}/s" if per_second else "–"


def _many(count: int, thing: str) -> str:
    return f"{count:,} {thing}" + ("" if count == 1 else "s")


def _span(seconds: float) -> str:
    """
    >>> [_span(seconds) for seconds in (0.2, 59, 61, 3700, 200_000)]
    ['0 s', '59 s', '1 min', '1 h 1 min', '2 d 7 h']
    """
    seconds = int(seconds)
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days} d {hours % 24} h"
    if hours:
        return f"{hours} h {minutes % 60} min"
    return f"{minutes} min" if minutes else f"{seconds} s"
