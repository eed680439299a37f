"""What is missing or damaged, made whole by a run of its source. A damaged copy goes to the trash before, and comes back
when nothing better could be fetched: no repair makes a file vanish."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path

from .. import faults
from ..catalog import verification
from ..catalog.engine import Catalog, utcnow
from ..catalog.verification import Aside, RecordedFile, SetAside, Standing
from ..domain.errors import ContentError, SourceBusyError
from ..domain.files import FileState
from ..domain.runs import Ending, RunState
from ..domain.verification import Mend, aside_id
from .reading import Reader, Stamp
from .trash import Trash
from .verification import Finding, Verification


class Result(Enum):
    REPAIRED = auto()
    """Byte for byte as it was recorded."""
    RENEWED = auto()
    """Whole again, and the site has another version of it now."""
    NOT_REPAIRED = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """What became of one finding. `path`: where the file lies now. `copy`: where in the trash the damaged one is."""

    finding: Finding
    result: Result
    path: str
    words: str
    copy: str | None = None


class Repair:
    """Of one source. `set_aside`, then run the source, then `finish`, whatever became of the run."""

    def __init__(
        self, catalog: Catalog, content_root: Path, source_id: int, clock: Callable[[], datetime] = utcnow
    ) -> None:
        self._catalog = catalog
        self._source_id = source_id
        self._clock = clock
        self._reader = Reader(content_root)
        self._trash = Trash(content_root)
        self._verification = Verification(catalog, content_root, source_id=source_id)

    def set_aside(self, findings: Iterable[Finding]) -> list[str]:
        """Move what is damaged out of the way. Returns a line for each that could not be moved, which stays.

        Raises `SourceBusyError`, `ContentError`.
        """
        self._verification.check_root()
        verification.need_idle(self._catalog, self._source_id)
        problems = []
        copies = verification.copies_aside(self._catalog, self._source_id)
        for finding in findings:
            if finding.mend is Mend.REPLACE and finding.row is not None:
                try:
                    self._move_away(finding, finding.row, copies.get(finding.row.remote_id, []))
                except ContentError as error:
                    problems.append(str(error))
        return problems

    def _move_away(self, finding: Finding, row: RecordedFile, copies: list[SetAside]) -> None:
        found, stamp = self._reader.look_closely(row.place)
        if stamp is None or (finding.stamp is not None and stamp != finding.stamp):
            return  # not what was found: somebody is at work on it
        now = self._clock()
        mark = found.sha256 or f"{stamp[1]:x}-{stamp[0]:x}"
        remote_id = aside_id(row.remote_id, mark)
        while any(copy.remote_id == remote_id and self._is_taken(copy.trash_path, stamp) for copy in copies):
            remote_id += "~"  # the same damage once more; the copy of the first time is there still
        copy = Aside(
            remote_id=remote_id,
            trash_path=self._trash.place_for(row.path, f"{row.remote_id} {mark}", now.date()),
            size=found.size,
            sha256=found.sha256,
        )
        place = verification.set_aside(self._catalog, row, copy, now)
        faults.at("repair.after_intent")
        if place is not None and self._reader.stamp(row.place) == stamp:
            self._trash.move(row.place, place)
            faults.at("repair.after_move")

    def _is_taken(self, trash_path: str, stamp: Stamp) -> bool:
        """By another file than this one, which a repair that was killed has moved halfway."""
        return self._reader.stamp(trash_path) not in (None, stamp)

    def finish(self, findings: list[Finding], ending: Ending | None) -> list[Repaired]:
        """Look at the files again, after the run, and bring back what could not be fetched anew. `ending` None: there
        was no run. Raises `ContentError`, `CatalogError`."""
        self._verification.check_root()
        ids = [finding.row.id for finding in findings if finding.row is not None]
        again = self._verification.look_again(ids)
        rows = verification.by_ids(self._catalog, ids)
        standings = verification.standings(self._catalog, ids)
        copies = verification.copies_aside(self._catalog, self._source_id)
        repaired = []
        for finding in findings:
            if (before := finding.row) is None:
                continue
            row = rows.get(before.id)
            copy = copies[before.remote_id][-1] if before.remote_id in copies else None
            if row is not None and row.id in again and again[row.id] is None:
                repaired.append(_whole(finding, row, copy.trash_path if copy else None))
                continue
            standing = standings.get(before.id, _NO_ROW)
            words = _why_not(standing, ending)
            # Nothing has come in since it was set aside: by this repair, or by one that was cut off.
            if copy is not None and standing.since <= copy.since:
                words += self._bring_back(before, standing.state, copy.id, copy.trash_path)
            repaired.append(Repaired(finding=finding, result=Result.NOT_REPAIRED, path=before.path, words=words))
        return repaired

    def _bring_back(self, row: RecordedFile, state: FileState, copy: int, place: str) -> str:
        """Returns what to add to the reason: where the copy is now."""
        try:
            if not self._trash.move(place, row.path):
                return f"; the copy that was here is {place}" if self._trash.is_file(place) else ""
            try:
                if state.is_gone:  # the run has found it gone at the remote; what somebody here has edited stays
                    verification.keep_copy(self._catalog, copy, row.path)
                else:
                    verification.put_back(self._catalog, row.id, copy)
            except SourceBusyError:
                self._trash.move(row.path, place)
                return f"; the copy that was here is {place}"
            self._trash.delete(place)  # the folders that are empty now
        except ContentError as error:
            return f"; {error}"
        return "; the copy that was here stays"


def hopeless(finding: Finding) -> Repaired | None:
    """Why no run can help, for a finding that `mend` has nothing for; None for a file that the catalog does not know."""
    if finding.row is None:
        return None
    if finding.row.in_trash:
        words = "nobody has another copy; `http-downloader trash empty` forgets it"
    elif finding.row.state is FileState.MISSING:
        words = "gone at the remote: not listed there any more"
    else:
        words = finding.words
    return Repaired(finding=finding, result=Result.NOT_REPAIRED, path=finding.path, words=words)


def _whole(finding: Finding, row: RecordedFile, copy: str | None) -> Repaired:
    before = finding.row
    same = before is not None and before.recorded.sha256 in (None, row.recorded.sha256)
    words = "as it was recorded" if same else "the site has another version of it now"
    if before is not None and row.path != before.path:
        words += f"; under this name, since {before.path} is taken"
    return Repaired(
        finding=finding,
        result=Result.REPAIRED if same else Result.RENEWED,
        path=row.path,
        words=words,
        copy=copy if finding.mend is Mend.REPLACE else None,
    )


def _why_not(standing: Standing, ending: Ending | None) -> str:
    if ending is None:
        return "there was no run"
    match standing.state:
        case FileState.UNAVAILABLE:
            return "gone at the remote: the site answers 404 or 410 for it"
        case FileState.FAILED:
            if standing.gone:
                return "gone at the remote: the site answers 404 or 410 for it"
            return "it could not be downloaded; `http-downloader runs --log RUN` says why"
        case FileState.MISSING | FileState.TRASHED | FileState.REMOVED:
            return "gone at the remote: not listed there any more"
        case FileState.ABSORBED:
            return "packed away by a post-processor"
        case FileState.FORGOTTEN:
            return "forgotten meanwhile"
    if ending.state is not RunState.SYNCHRONIZED:
        return f"the run ended as {ending.state}: {ending.detail}".rstrip(": ")
    return "the run passed it over; does the configuration of gallery-dl leave it out (an archive, a filter)?"


_NO_ROW = Standing(state=FileState.REMOVED, gone=True, since=datetime(1970, 1, 1, tzinfo=UTC))
"""Of a file that was forgotten and is wanted again, nothing is left."""
