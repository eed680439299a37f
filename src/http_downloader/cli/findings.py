"""How `verify` looks: a line for each file that is not as recorded, and a summary; or NDJSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from ..domain.files import FileState, plain
from ..domain.verification import Fault
from ..settings import Settings
from ..sync.repair import Repaired, Result
from ..sync.verification import Finding, Tally
from . import show
from .progress import PlainDisplay, QuietDisplay

MOST_LINES = 20
"""Lines for people about one kind of fault; `--json` has all of them."""

_WORDS = {
    Fault.MISSING: "missing",
    Fault.CHANGED: "changed",
    Fault.UNREADABLE: "unreadable",
    Fault.NOT_A_FILE: "not a file",
    Fault.UNKNOWN: "unknown",
}


class Report:
    """For people: a line for each fault, a progress bar where there is a terminal, and a summary."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        self._lines: Counter[Fault | Result] = Counter()
        self._expected = (0, 0)
        self._bar: Progress | None = None

    @contextmanager
    def progress(self) -> Iterator[Callable[[int, int], None]]:
        if not self.console.is_terminal or self.console.is_dumb_terminal:
            yield lambda files, size: None
            return
        bar = self._bar = Progress(
            TextColumn("verifying"),
            BarColumn(30),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[files]} of {task.fields[of]} files"),
            console=self.console,
            transient=True,
        )
        task = bar.add_task("", total=None, files=0, of=0)
        files = 0

        def advance(more: int, size: int) -> None:
            nonlocal files
            files += more  # from one thread only
            bar.update(task, advance=size, files=files)

        with bar:
            yield advance

    def expect(self, files: int, size: int) -> None:
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], total=size, of=files)

    def _is_one_too_many(self, kind: Fault | Result, words: str) -> bool:
        """Nobody reads a thousand lines of one kind, and the summary must not be far from the first of another."""
        self._lines[kind] += 1
        if self._lines[kind] == MOST_LINES + 1:
            self.line(f"  … more that are {words}; --json lists all of them")
        return self._lines[kind] > MOST_LINES

    def found(self, finding: Finding) -> None:
        if self._is_one_too_many(finding.fault, _WORDS[finding.fault]):
            return
        mark = "?" if finding.fault is Fault.UNKNOWN else "!"
        words = "" if finding.fault in (Fault.UNKNOWN, Fault.MISSING) else f": {finding.words}"
        words += "; not listed at the remote any more" if finding.row and finding.row.state is FileState.MISSING else ""
        words += " (a run of its source is under way)" if finding.running else ""
        self.line(f"{mark} {_WORDS[finding.fault]:10} {plain(finding.path)}{words}")

    def note(self, problem: str) -> None:
        self.line(f"! {problem}")

    def display(self, settings: Settings) -> QuietDisplay:
        return PlainDisplay(settings.content_root, self.console)

    def repaired(self, repaired: Repaired) -> None:
        words = repaired.result.name.lower().replace("_", " ")
        if self._is_one_too_many(repaired.result, words):
            return
        if repaired.result is Result.NOT_REPAIRED:
            self.line(f"✗ not repaired {plain(repaired.path)}: {repaired.words}")
            return
        copy = f"; the one that was here is {repaired.copy}" if repaired.copy else ""
        self.line(f"✓ repaired {plain(repaired.path)}: {repaired.words}{plain(copy)}")

    def line(self, text: str) -> None:
        self.console.print(escape(text), soft_wrap=True)

    def summary(self, tally: Tally, results: Counter[Result], *, done: bool, quick: bool, repair: bool) -> None:
        for line in summary_lines(tally, results, done=done, quick=quick, repair=repair):
            self.console.print(line, soft_wrap=True)


class JsonReport(Report):
    """A line for each fault, one for each repair, and a last one about the whole."""

    @contextmanager
    def progress(self) -> Iterator[Callable[[int, int], None]]:
        yield lambda files, size: None

    def found(self, finding: Finding) -> None:
        self._print({"finding": str(finding.fault), **_described(finding), "why": finding.words})

    def note(self, problem: str) -> None:
        Console(stderr=True, highlight=False).print(f"http-downloader: {escape(problem)}", soft_wrap=True)

    def display(self, settings: Settings) -> QuietDisplay:
        return QuietDisplay(settings.content_root)

    def repaired(self, repaired: Repaired) -> None:
        result = repaired.result.name.lower().replace("_", "-")
        more = {"now_at": plain(repaired.path), "copy": repaired.copy, "why": repaired.words}
        self._print({"repair": result, "finding": str(repaired.finding.fault), **_described(repaired.finding), **more})

    def summary(self, tally: Tally, results: Counter[Result], *, done: bool, quick: bool, repair: bool) -> None:
        self._print(
            {
                "files": tally.files,
                "bytes": tally.bytes,
                "in_trash": tally.trashed,
                "without_hash": tally.by_size,
                "not_fetched_yet": tally.lacking,
                **{str(fault).replace("-", "_"): tally.faults[fault] for fault in Fault},
                "repaired": results[Result.REPAIRED] + results[Result.RENEWED],
                "not_repaired": results[Result.NOT_REPAIRED],
                "quick": quick,
                "complete": done,
            }
        )

    def _print(self, line: dict[str, Any]) -> None:
        print(json.dumps(line, ensure_ascii=False), flush=True)


def _described(finding: Finding) -> dict[str, Any]:
    row, found = finding.row, finding.found
    return {
        "source_id": finding.source_id,
        "path": plain(finding.path),
        "remote_id": row and row.remote_id,
        "state": row and str(row.state),
        "size": row and row.recorded.size,
        "sha256": row and row.recorded.sha256,
        "found_size": found and found.size,
        "found_sha256": found and found.sha256,
        "found_mtime": show.time(found.mtime) if found else None,
        "edited": finding.edited,
        "running": finding.running,
    }


def summary_lines(tally: Tally, results: Counter[Result], *, done: bool, quick: bool, repair: bool) -> list[str]:
    """What was found, for a person with three seconds. With rich's markup."""
    seen = _files(tally.files) + (f", {decimal(tally.bytes)} read" if tally.bytes else "")
    faults = [f"{count} {_WORDS[fault]}" for fault in Fault if (count := tally.faults[fault]) and fault in _DAMAGE]
    mended = results[Result.REPAIRED] + results[Result.RENEWED]
    if not done:
        lines = [f"[bold]– interrupted[/]: {seen} so far" + (f": {', '.join(faults)}" if faults else ", all well")]
    elif not faults:
        lines = [f"[bold green]✓ all well[/]: {seen}"]
    elif tally.damaged <= mended:
        lines = [f"[bold green]✓ repaired[/]: {', '.join(faults)} of {seen}"]
    else:
        lines = [f"[bold red]✗ not as recorded[/]: {', '.join(faults)} of {seen}"]
    if repair and faults:
        lines.append(f"  {mended} repaired, {tally.damaged - mended} not")
    elif faults and done:
        lines.append("  `http-downloader verify --repair` fetches again what the site still has")
    if tally.faults[Fault.UNKNOWN]:
        lines.append(f"  {_files(tally.faults[Fault.UNKNOWN])} that the catalog does not know, left alone")
    if tally.lacking and done:
        lines.append(f"  {_files(tally.lacking)} could not be fetched yet: `http-downloader files` has them as failed")
    if tally.by_size and not quick:
        lines.append(f"  {_files(tally.by_size)} without a recorded hash: only the size was compared")
    if quick:
        lines.append("  quick: existence and size only, no content was read")
    return lines


def _files(count: int) -> str:
    return f"{count:,} file" + ("s" if count != 1 else "")


_DAMAGE = set(Fault) - {Fault.UNKNOWN}
