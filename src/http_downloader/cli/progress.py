"""How a run looks in a terminal. These classes only draw: they are told what happens."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.filesize import decimal
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ..catalog.journal import Claim
from ..domain.characters import visible
from ..domain.events import Event, EventType
from ..domain.reasons import Reason
from ..domain.runs import Counts, Ending, RunState
from ..domain.secrets import masked
from ..gallery.messages import Expects, Logged, Progress, Waiting
from ..sync.tally import Speed
from ..sync.updates import FileFailed, Finished, Started, Update
from .literal import literal

WARNING = 30
MOST_NAMES = 5
MOST_BARS = 8


class QuietDisplay:
    """Errors only. Also the base of the others: it keeps what the summary needs."""

    def __init__(self, content_root: Path, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self.errors = Console(stderr=True, highlight=False)
        self.content_root = content_root
        self.claim: Claim | None = None
        self.finished: Finished | None = None
        self._failed_lines = 0
        self._waits_for = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def waiting(self, why: str) -> None:
        pass

    def saw(self, claim: Claim, update: Update) -> None:
        self.claim = claim
        if isinstance(update, Finished):
            self.finished = update

    def summary(self, ending: Ending) -> None:
        if ending.state is not RunState.SYNCHRONIZED:
            self.errors.print(f"[bold red]{ending.state}[/]: {literal(ending.detail or '')}", soft_wrap=True)


class PlainDisplay(QuietDisplay):
    """A line for every new file and every problem, then the summary: for pipes, files and dumb terminals."""

    def waiting(self, why: str) -> None:
        if why != self._waits_for:  # it is told every second
            self._waits_for = why
            self.line(f"waiting: {why}")

    def _fail_line(self, detail: str) -> None:
        """The first few; a gallery of dead links must not fill the screen. All are in the run's log."""
        self._failed_lines += 1
        if self._failed_lines <= MOST_NAMES:
            self.line(f"! {detail}")
        elif self._failed_lines == MOST_NAMES + 1:
            self.line("! and more; `http-downloader runs --log RUN` has all of them")

    def line(self, text: str) -> None:
        self.console.print(literal(text), soft_wrap=True)

    def saw(self, claim: Claim, update: Update) -> None:
        super().saw(claim, update)
        match update:
            case Started(attempt=attempt, known=known):
                again = f", try {attempt}" if attempt > 1 else ""
                self.line(f"{masked(claim.url)} → {claim.content_path} ({known} known{again})")
            case Event(type=EventType.FILE_DOWNLOADED):
                self.line(f"+ {update.body['filename']}")
            case FileFailed(detail=detail):
                self._fail_line(detail)
            case Logged() if _is_told(update):
                self.line(f"! [{update.logger}] {update.text}")
            case Waiting(seconds, why) if seconds >= 5:
                self.line(f"… waiting {seconds:.0f} s {why}".rstrip())
            case Finished(again=again) if again is not None:
                pause = again.timestamp() - time.time()
                self.line(f"! {update.ending.detail}; next try in {max(pause, 0):.0f} s")

    def summary(self, ending: Ending) -> None:
        for row in summary_lines(ending, self.finished, self.claim, self.content_root):
            self.console.print(row, soft_wrap=True)


class LiveDisplay(PlainDisplay):
    """A few lines that change in place: what was done, what is under way, what is waited for."""

    def __init__(self, content_root: Path, console: Console | None = None) -> None:
        super().__init__(content_root, console)
        self._spinner = Spinner("dots")
        self._begun = time.monotonic()
        self._counts = Counts()
        self._expected = 0
        self._files: dict[str, Progress] = {}
        """What is under way, by name."""
        self._wait: tuple[float, str] | None = None
        self._bytes = 0
        self._speed = Speed()
        # Last: it draws at once.
        self._live = Live(console=self.console, refresh_per_second=10, transient=True, get_renderable=self._draw)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def waiting(self, why: str) -> None:
        self._wait = (time.monotonic() + 2, why)

    def saw(self, claim: Claim, update: Update) -> None:
        QuietDisplay.saw(self, claim, update)
        self._spinner.text = ""
        match update:
            case Started():
                self._counts = Counts(downloaded=self._counts.downloaded)
                self._files.clear()
            case Event(type=EventType.FILE_DOWNLOADED):
                self._counts.downloaded += 1
                self._bytes += update.headers.get("size", 0)
                begun = self._files.pop(update.body["filename"], None)
                self._speed.add(update.headers.get("size", 0) - (begun.done if begun else 0))
            case Event(type=EventType.FILE_SKIPPED):
                self._counts.skipped += 1
            case FileFailed(detail=detail):
                self._counts.failed += 1
                self._fail_line(detail)
            case Progress():
                begun = self._files.pop(update.filename, None)
                self._speed.add(update.done - (begun.done if begun else 0))
                self._files[update.filename] = update
                while len(self._files) > MOST_BARS:  # one that failed, or ended under another name
                    del self._files[next(iter(self._files))]
            case Expects(files):
                self._expected = files
            case Waiting(seconds, why):
                self._wait = (time.monotonic() + seconds, why) if seconds else None
            case Logged() if _is_told(update):
                self.line(f"! [{update.logger}] {update.text}")
            case Finished(again=again) if again is not None:
                self._wait = (time.monotonic() + again.timestamp() - time.time(), update.ending.detail)

    def _draw(self) -> RenderableType:
        counts = self._counts
        head = Table.grid(padding=(0, 1))
        head.add_column(no_wrap=True)
        head.add_column(no_wrap=True, overflow="ellipsis")
        head.add_row(self._spinner, Text(visible(masked(self.claim.url)) if self.claim else "starting", style="bold"))
        parts = [
            f"[bold green]{counts.downloaded}[/] new",
            f"{counts.skipped} known",
            *([f"[bold red]{counts.failed}[/] failed"] if counts.failed else []),
            decimal(self._bytes + sum(file.done for file in self._files.values())),
            f"{decimal(int(self._speed.per_second()))}/s",
            _clock(time.monotonic() - self._begun),
        ]
        rows: list[RenderableType] = [head, Text.from_markup("  " + " · ".join(parts), style="default")]
        done = counts.downloaded + counts.skipped + counts.failed
        if self._expected >= done > 0:
            rows.append(_bar(f"{done} of {self._expected} files", done, self._expected))
        for file in sorted(self._files.values(), key=lambda file: file.filename):
            total = f" of {decimal(file.total)}" if file.total else ""
            rows.append(_bar(f"{decimal(file.done)}{total}  {file.filename}", file.done, file.total))
        if self._wait is not None and (left := self._wait[0] - time.monotonic()) >= 1:
            why = self._wait[1] or "pause before the next request"
            rows.append(
                Text(f"  waiting {left:.0f} s: {visible(why)}", style="yellow", no_wrap=True, overflow="ellipsis")
            )
        return Group(*rows)


def _short(folder: Path) -> str:
    """With `~` for the home folder, as a shell writes it."""
    return f"~/{folder.relative_to(Path.home())}" if folder.is_relative_to(Path.home()) else str(folder)


def _is_told(record: Logged) -> bool:
    """Warnings; those about a transfer are told once, with the file that failed for good."""
    return record.level >= WARNING and not record.logger.startswith("download")


def _bar(label: str, done: int, total: int | None) -> RenderableType:
    row = Table.grid(padding=(0, 1))
    row.add_column(width=30)
    row.add_column(no_wrap=True, overflow="ellipsis")
    # Without a total there is nothing honest to fill: a pulse says that something moves.
    row.add_row(
        ProgressBar(total=total, completed=done, width=30, pulse=total is None, animation_time=time.monotonic()),
        Text(visible(label), no_wrap=True, overflow="ellipsis"),
    )
    grid = Table.grid()
    grid.add_row("  ", row)
    return grid


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes}:{seconds:02}"


_MARKS = {
    RunState.SYNCHRONIZED: "[bold green]✓ synchronized[/]",
    RunState.PARTIAL: "[bold yellow]~ partial[/]",
    RunState.FAILED: "[bold red]✗ failed[/]",
    RunState.CANCELLED: "[bold]– cancelled[/]",
}


def summary_lines(ending: Ending, finished: Finished | None, claim: Claim | None, content_root: Path) -> list[str]:
    """What became of a run, for a person with three seconds. With rich's markup."""
    words = ending.reason.sentence if ending.reason is Reason.FILES_FAILED else ending.detail
    lines = [_MARKS[ending.state] + (f": {literal(words)}" if words else "")]
    if finished is None or claim is None:
        return lines
    counts = finished.counts
    parts = [f"{counts.downloaded} new" + (f" ({decimal(counts.bytes)})" if counts.bytes else "")]
    parts.append(f"{counts.skipped} known")
    if counts.failed:
        parts.append(f"{counts.failed} failed")
    if counts.unavailable:
        parts.append(f"{counts.unavailable} unavailable at the site")
    if counts.absorbed:
        parts.append(f"{counts.absorbed} packed away by a post-processor")
    lines.append(f"  {', '.join(parts)}")
    lines.append(f"  [dim]in {literal(_short(content_root / claim.content_path))}[/]")
    if finished.removals:
        lines.append(f"  gone at the remote: {literal(finished.removals)}")
    if ending.state is RunState.PARTIAL:
        lines += [f"  {literal(gap.reason.sentence)}: {literal(gap.detail)}" for gap in finished.gaps[:MOST_NAMES]]
    return lines
