"""The mirror held against the catalog: every file that should be here is looked at, and every file that is here is asked
for. Nothing is changed."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..catalog import content, verification
from ..catalog.engine import Catalog
from ..catalog.verification import RecordedFile
from ..domain.errors import ContentError
from ..domain.files import FileState
from ..domain.verification import Fault, Found, Judgement, Kind, Mend, judge, mend
from .reading import Reader, Stamp
from .trash import RootMarker

THREADS = 4
"""Files that are read at once."""
AHEAD = 64
"""Files that are handed to the threads before the first of them is waited for."""
PAGE = 1000
SUSPECTS = 200
"""Faults that are looked at again together, unless that takes longer than SUSPENSE seconds."""
SUSPENSE = 1.0
GRACE = 2.0
"""Seconds that a run has, after it changed a file, to say so in the catalog."""
MOST_DEFERRED = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One file that is not as the catalog says. `path` is relative to CONTENT_ROOT; `row` None: no row has it.
    `running`: a run of its source is under way, and may be about to say what it did."""

    fault: Fault
    source_id: int
    path: str
    words: str
    row: RecordedFile | None = None
    found: Found | None = None
    stamp: Stamp | None = None
    edited: bool = False
    running: bool = False

    @property
    def mend(self) -> Mend:
        if self.row is None:
            return Mend.NOTHING
        listed = self.row.state is FileState.PRESENT
        return mend(self.fault, self.found.kind if self.found else None, listed=listed, in_trash=self.row.in_trash)


@dataclass(slots=True, kw_only=True)
class Tally:
    """What a verification has seen so far. `by_size`: files whose content was never measured; `bytes`: that were read;
    `lacking`: files that the catalog does not call present, since they could not be fetched yet."""

    files: int = 0
    bytes: int = 0
    by_size: int = 0
    trashed: int = 0
    lacking: int = 0
    faults: Counter[Fault] = field(default_factory=Counter)

    @property
    def damaged(self) -> int:
        """Files of the catalog that are not as it says; what the catalog does not know is no damage."""
        return self.faults.total() - self.faults[Fault.UNKNOWN]


class Verification:
    """`source_id` None: all sources. `advance(files, bytes)` is told of progress, from any thread.

    Raises `ContentError` when CONTENT_ROOT is not the folder that the catalog speaks of, at any time.
    """

    def __init__(
        self,
        catalog: Catalog,
        content_root: Path,
        *,
        source_id: int | None = None,
        quick: bool = False,
        advance: Callable[[int, int], None] = lambda *_: None,
    ) -> None:
        self._catalog = catalog
        self._root = content_root
        self._source_id = source_id
        self._advance = advance
        self._reader = Reader(content_root, quick=quick, advance=self._read)
        self._turn = threading.Lock()
        self._deferred: list[Finding] = []
        self._deferred_at = 0.0
        self.tally = Tally()

    def check_root(self) -> None:
        """On an empty place where the disk is not mounted, every file would seem to be missing."""
        marker = RootMarker(self._root, self._catalog.identity)
        if not marker.is_there() and content.is_marked(self._catalog):
            raise ContentError(marker.missing)
        if not self._root.is_dir():
            raise ContentError(f"CONTENT_ROOT is not there: {self._root}")

    def extent(self) -> tuple[int, int]:
        """Files that will be looked at, and their bytes."""
        return verification.extent(self._catalog, self._source_id)

    def findings(self) -> Generator[Finding, None, None]:
        """Look at everything; close the generator to stop. A file that a run changes meanwhile is looked at again."""
        self.check_root()
        self.tally.lacking = verification.lacking(self._catalog, self._source_id)
        yield from self._counted(self._of_rows())
        yield from self._counted(self._unknown())

    def look_again(self, ids: list[int]) -> dict[int, Finding | None]:
        """Some rows once more; None for those that are as recorded. Without those that name no file any more."""
        rows = verification.by_ids(self._catalog, ids)
        return {row.id: self._finding(row, *self._examine(row)) for row in rows.values()}

    def _counted(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        for finding in findings:
            self.tally.faults[finding.fault] += 1
            yield finding

    def _read(self, count: int) -> None:
        with self._turn:
            self.tally.bytes += count
        self._advance(0, count)

    # The files of the catalog.

    def _of_rows(self) -> Iterator[Finding]:
        suspects: list[Finding] = []
        due = 0.0
        for row, judgement, found, stamp in self._examined():
            self._count(row, judgement, found)
            if (finding := self._finding(row, judgement, found, stamp)) is not None:
                due = due if suspects else time.monotonic() + SUSPENSE
                suspects.append(finding)
            if suspects and (len(suspects) >= SUSPECTS or time.monotonic() >= due):
                yield from self._settled(suspects)
                suspects = []
        yield from self._settled(suspects)
        yield from self._settled_late()

    def _examined(self) -> Iterator[tuple[RecordedFile, Judgement, Found, Stamp | None]]:
        """All rows in their order, a few of them read at the same time."""
        under_way: deque[tuple[RecordedFile, Future[tuple[Judgement, Found, Stamp | None]]]] = deque()
        with ThreadPoolExecutor(THREADS, thread_name_prefix="verify") as threads:
            try:
                for row in self._rows():
                    under_way.append((row, threads.submit(self._examine, row)))
                    if len(under_way) >= AHEAD:
                        first, future = under_way.popleft()
                        yield first, *future.result()
                while under_way:
                    first, future = under_way.popleft()
                    yield first, *future.result()
            finally:
                if under_way:
                    self._reader.stop()
                threads.shutdown(cancel_futures=True)

    def _rows(self) -> Iterator[RecordedFile]:
        after = 0
        while rows := verification.page(self._catalog, self._source_id, after, PAGE):
            yield from rows
            after = rows[-1].id

    def _examine(self, row: RecordedFile) -> tuple[Judgement, Found, Stamp | None]:
        found, stamp = self._reader.look(row.place, row.recorded)
        if found.kind is Kind.ABSENT and row.going_to is not None:  # a removal is moving it right now, or was cut off
            found, stamp = self._reader.look(row.going_to, row.recorded)
        return judge(row.recorded, found), found, stamp

    def _count(self, row: RecordedFile, judgement: Judgement, found: Found) -> None:
        self.tally.files += 1
        self.tally.trashed += row.in_trash
        self.tally.by_size += judgement.fault is None and row.recorded.sha256 is None
        self._advance(1, (row.recorded.size or 0) if found.sha256 is None else 0)

    def _finding(self, row: RecordedFile, judgement: Judgement, found: Found, stamp: Stamp | None) -> Finding | None:
        if judgement.fault is None:
            return None
        return Finding(
            fault=judgement.fault,
            source_id=row.source_id,
            path=row.place,
            words=judgement.words,
            row=row,
            found=found,
            stamp=stamp,
            edited=judgement.edited,
        )

    # What a run may have changed meanwhile.

    def _settled(self, suspects: list[Finding]) -> Iterator[Finding]:
        """What is still so on the second look. A run changes a file first and says so a moment later: its files wait."""
        if not suspects:
            return
        self.check_root()
        running = verification.running(self._catalog)
        for finding in self._again(suspects):
            if finding.source_id not in running:
                yield finding
                continue
            self._deferred.append(finding)
            self._deferred_at = time.monotonic()
        if len(self._deferred) >= MOST_DEFERRED:
            yield from self._settled_late()

    def _settled_late(self) -> Iterator[Finding]:
        deferred, self._deferred = self._deferred, []
        if not deferred:
            return
        self._wait(self._deferred_at)
        running = verification.running(self._catalog)
        for finding in self._again(deferred):
            yield _noted(finding, running)

    def _again(self, suspects: list[Finding]) -> Iterator[Finding]:
        rows = verification.by_ids(self._catalog, [finding.row.id for finding in suspects if finding.row])
        for finding in suspects:
            row = finding.row and rows.get(finding.row.id)
            if row is None:
                continue  # it is nowhere to be any more
            if row == finding.row and finding.stamp == self._reader.stamp(row.place) and finding.stamp is not None:
                yield finding
            elif (latest := self._finding(row, *self._examine(row))) is not None:
                yield latest

    @staticmethod
    def _wait(since: float) -> None:
        time.sleep(max(0.0, since + GRACE - time.monotonic()))

    # The files that the catalog does not know.

    def _unknown(self) -> Iterator[Finding]:
        fresh: list[Finding] = []
        for source_id, paths in self._walked():
            running = verification.running(self._catalog)
            known = verification.held(self._catalog, paths)
            for path in (path for path in paths if path not in known):
                finding = _unknown(source_id, path)
                if running:  # it may have come in this moment
                    fresh.append(finding)
                    self._deferred_at = time.monotonic()
                else:
                    yield finding
            if len(fresh) >= MOST_DEFERRED:
                yield from self._still_unknown(fresh)
                fresh = []
        yield from self._still_unknown(fresh)

    def _still_unknown(self, fresh: list[Finding]) -> Iterator[Finding]:
        if not fresh:
            return
        self._wait(self._deferred_at)
        running = verification.running(self._catalog)
        known = verification.held(self._catalog, [finding.path for finding in fresh])
        for finding in fresh:
            if finding.path not in known and os.path.lexists(self._root / finding.path):
                yield _noted(finding, running)

    def _walked(self) -> Iterator[tuple[int, list[str]]]:
        """Some files at a time, each with a source in whose folder they lie. Each folder is walked once."""
        folders = verification.folders(self._catalog, self._source_id)
        for folder, source_id in folders.items():
            if any(f"{folder}/".startswith(f"{other}/") for other in folders if other != folder):
                continue
            some: list[str] = []
            for path in self._files_in(folder):
                some.append(path)
                if len(some) >= PAGE:
                    yield source_id, some
                    some = []
            yield source_id, some

    def _files_in(self, folder: str) -> Iterator[str]:
        """No symlink is followed, and what gallery-dl has not finished is left out."""
        with suppress(OSError), self._reader.trash.opened(f"{folder}/."):
            to_do = [folder]
            while to_do:
                here = to_do.pop()
                try:
                    entries = os.scandir(self._root / here)
                except OSError:
                    continue  # it went this moment, or is closed to us: its known files are reported as unreadable
                with entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            to_do.append(f"{here}/{entry.name}")
                        elif not entry.name.endswith(".part"):
                            yield f"{here}/{entry.name}"


def _unknown(source_id: int, path: str) -> Finding:
    return Finding(fault=Fault.UNKNOWN, source_id=source_id, path=path, words="not in the catalog")


def _noted(finding: Finding, running: set[int]) -> Finding:
    return replace(finding, running=True) if finding.source_id in running else finding
