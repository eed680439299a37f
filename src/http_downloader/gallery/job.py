"""gallery-dl's download job, with the decisions of a mirror: by remote id and recorded path, never by name alone.

What is overridden here is checked against the installed gallery-dl by `tests/unit/test_upstream.py`.
"""

from __future__ import annotations

import filecmp
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from gallery_dl import exception, formatter
from gallery_dl.extractor.common import Extractor
from gallery_dl.job import DownloadJob

from ..domain.files import FileState, distinct_name, plain
from ..domain.listing import Failure, narrowing_options
from ..domain.reasons import Kind, Reason
from .config import PARTIAL_FOLDER
from .evidence import GONE, Evidence, classify, storage_failure
from .hooks import Hooks, Report
from .messages import Expects, Progress, RunRequest
from .names import LONGEST_NAME, Names, OutsideFolderError, Standing, clean

MISSING = "\x00"
"""Stands in a remote id where the extractor gave no value for a part of it."""


class Run:
    """What all jobs of one run share: an album of albums is a job with child jobs."""

    def __init__(
        self, request: RunRequest, evidence: Evidence, report: Report, held_elsewhere: Callable[[str], bool]
    ) -> None:
        self.request = request
        self.evidence = evidence
        self.names = Names(request, held_elsewhere)
        self.report = report
        self.base = f"{request.content_root / request.content_path}/"
        self.hooks = Hooks(report, self.base)
        self.partial = request.content_root / PARTIAL_FOLDER / request.run_id
        self.seen: dict[str, str] = {}
        """Remote ids of this listing, each with its URL without the query."""
        self.expected = 0
        self.stop = threading.Event()

    def is_in_place(self, path: str) -> bool:
        """Whether a recorded path lies in this run's folder, and a file is there."""
        return path.startswith(f"{self.request.content_path}/") and self.names.is_file(path)

    def relative(self, path: str) -> str:
        """A path under CONTENT_ROOT, as the catalog stores it."""
        root = f"{self.request.content_root}/"
        if not path.startswith(root):
            raise OutsideFolderError(f"the path {path!r} is outside of CONTENT_ROOT")
        return path.removeprefix(root)


class _Display:
    """Takes the place of gallery-dl's terminal output: a few progress messages a second."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._path = ""
        self._next = 0.0

    def start(self, path: str) -> None:
        self._path = path.removeprefix(self._run.base)
        self._next = time.monotonic() + 0.2

    def skip(self, path: str) -> None:
        pass

    def success(self, path: str) -> None:
        pass

    def progress(self, total: int | None, done: int, _speed: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 0.2
            self._run.report(Progress(self._path, done, total))


class MirrorJob(DownloadJob):  # type: ignore[misc]
    """One gallery. `run` is set on a subclass for the process's only run."""

    run_state: Run

    def __init__(self, extractor: Extractor, parent: MirrorJob | None = None) -> None:
        super().__init__(extractor, parent)
        self.parent = parent
        self.mirror = self.run_state
        self.evidence = self.mirror.evidence
        self.out = _Display(self.mirror)
        self.evidence.loggers |= {extractor.category, extractor.__class__.category}
        self._id_of: Callable[[dict[str, Any]], object] | None = None
        self._current = ""
        self._skipexc = None
        self.sleep_skip = None

    # The listing, and what it proves.

    def dispatch(self, messages: Iterator[Any]) -> Any:
        """Walk the listing. Only when this returns was the extractor exhausted by itself."""
        for option in narrowing_options(self.extractor.config):
            self.evidence.gap(Reason.NARROWED, f"the option {option!r} is set for {self.extractor.category}")
        try:
            return super().dispatch(messages)
        except BaseException as error:
            self._note(error)
            raise

    def _note(self, error: BaseException) -> None:
        match error:
            case _ if self.mirror.stop.is_set():
                pass
            case exception.AbortExtraction():
                self._fail(Failure(reason=Reason.EXTRACTOR_ERROR, detail=str(error)))
            case exception.StopExtraction() | exception.TerminateExtraction() | exception.RestartExtraction():
                self.evidence.gap(Reason.STOPPED_EARLY, self._who_stopped())
            case SystemExit():
                self.evidence.gap(Reason.STOPPED_EARLY, self._who_stopped())
            case _:
                self._fail(classify(error))

    def _who_stopped(self) -> str:
        skip = self.extractor.config("skip")
        return f"by the option skip: {skip}" if isinstance(skip, str) else f"by {self.extractor.category}"

    def _fail(self, failure: Failure) -> None:
        # One linked gallery that is gone or closed must not keep all others from being mirrored: a gap. One that
        # may answer next time is worth another attempt of the run.
        if self.parent is not None and failure.reason.kind is Kind.PERMANENT:
            self.evidence.gap(Reason.CHILD_FAILED, f"{self.extractor.url}: {failure.detail}")
        else:
            self.evidence.fail(failure)

    def _write_unsupported(self, url: str) -> None:
        if not self.evidence.transferring:
            self.evidence.gap(Reason.CHILD_UNSUPPORTED, url)

    def initialize(self, kwdict: dict[str, Any] | None = None) -> None:
        super().initialize(kwdict)
        pathfmt = self.pathfmt
        clean_upstream = pathfmt.clean_path
        pathfmt.clean_path = lambda text: clean(clean_upstream(text))
        pathfmt.exists = self._is_there
        enable_part_upstream = pathfmt.part_enable

        def enable_part(folder: Any = None) -> None:
            enable_part_upstream(folder)
            folder, name = os.path.split(pathfmt.temppath)
            if len(name.encode()) > LONGEST_NAME:
                pathfmt.temppath = os.path.join(folder, distinct_name(name, self._current))

        pathfmt.part_enable = enable_part
        if kwdict is not None:
            pathfmt.set_directory(kwdict)

    def handle_directory(self, kwdict: dict[str, Any]) -> None:
        count = kwdict.get("count")
        if isinstance(count, int) and self.pathfmt is None:
            self.mirror.expected += count
            self.mirror.report(Expects(self.mirror.expected))
        super().handle_directory(kwdict)

    # One file of the listing.

    def handle_url(self, url: str, kwdict: dict[str, Any]) -> None:
        if self.mirror.stop.is_set():
            raise exception.TerminateExtraction()
        remote_id = self._remote_id(url, kwdict)
        if remote_id is None:
            return None
        self._current = remote_id
        self.pathfmt.set_filename(kwdict)
        self._call("prepare")
        known = self.mirror.request.known.get(remote_id)
        if known is not None:
            if known.path is not None and self.mirror.is_in_place(known.path):
                return self._skip(remote_id, known.path)
            if known.state is FileState.ABSORBED or (known.state is FileState.UNAVAILABLE and not known.retry):
                return self.mirror.hooks.on_file_passed(remote_id)
        try:
            self._take(remote_id, url, kwdict)
        except OutsideFolderError as error:
            failure = Failure(reason=Reason.FILES_FAILED, detail=str(error))
            self.mirror.hooks.on_file_failed(remote_id, url, kwdict, failure)

    def _remote_id(self, url: str, kwdict: dict[str, Any]) -> str | None:
        """gallery-dl's archive id of a file; None when this listing has shown the file already.

        Where the extractor gives no value for a part of it, or one id to two files, the URL tells them apart.
        """
        if self._id_of is None:
            config, extractor = self.extractor.config, self.extractor
            prefix = config("archive-prefix")
            text = config("archive-format") or extractor.archive_fmt
            text = (extractor.category if prefix is None else prefix) + text if text else "{}"
            self._id_of = formatter.parse(text, _NoValue()).format_map if text != "{}" else lambda _: MISSING
        address = plain(urlsplit(url)._replace(query="", fragment="").geturl())
        remote_id = str(self._id_of(kwdict))
        if MISSING in remote_id:
            remote_id = f"{remote_id.replace(MISSING, '')} {address}".strip()
        remote_id = plain(remote_id)
        seen = self.mirror.seen
        first = seen.setdefault(remote_id, address)
        if first is address:
            return remote_id
        if first == address:
            return None
        remote_id = f"{remote_id} {address}"
        if remote_id in seen:
            return None
        seen[remote_id] = address
        return remote_id

    def _skip(self, remote_id: str, path: str) -> None:
        """A known file, in place. The path is built only for post-processors that will read it."""
        self.mirror.hooks.on_file_skipped(remote_id, path[len(self.mirror.request.content_path) + 1 :])
        if self.hooks and "skip" in self.hooks:
            self._point(path)
        self.handle_skip()  # counts for abort:N, and sleeps as configured

    def _take(self, remote_id: str, url: str, kwdict: dict[str, Any]) -> None:
        """A file that is not in the catalog, or not in place: adopt it from the folder, or download it."""
        pathfmt = self.pathfmt
        archived = self.archive is not None and self.archive.check(kwdict)
        if pathfmt.extension and not self.metadata_http:
            pathfmt.build_path()
            if self._settle(remote_id, url, kwdict):
                return None
        self._call("prepare-after")
        if kwdict.pop("_file_recheck", False) and self._settle(remote_id, url, kwdict):
            return None
        if archived:
            # The operator's own archive says that it was fetched once, and it is not here: so it is wanted no more.
            return self.mirror.hooks.on_file_passed(remote_id)
        if self.sleep is not None:
            self.extractor.sleep(self.sleep(), "download")
        if not self._fetch(url, kwdict):
            return self._report_failure(remote_id, url, kwdict)
        if not pathfmt.temppath:  # its name became known with the answer, and a file of that name is here
            if not self._settle(remote_id, url, kwdict):
                self.mirror.hooks.on_file_passed(remote_id)  # too small or too large for the configuration
            return None
        self._call("file")
        if self._place(remote_id, url, kwdict):
            self._landed(remote_id, url, kwdict)

    def _settle(self, remote_id: str, url: str, kwdict: dict[str, Any]) -> bool:
        """Give the file its path. True when it is there already, and reported."""
        place = self.mirror.names.settle(self.mirror.relative(self.pathfmt.realpath), remote_id)
        self._point(place.path)
        match place.standing:
            case Standing.FREE:
                return False
            case Standing.LANDED:
                self._landed(remote_id, url, kwdict)
            case Standing.FOUND:
                self._adopt(remote_id, url, kwdict)
        return True

    def _adopt(self, remote_id: str, url: str, kwdict: dict[str, Any]) -> None:
        self.mirror.hooks.on_file_adopted(remote_id, self.pathfmt.realpath, url, kwdict)
        if self.archive is not None and self._archive_write_skip:
            self.archive.add(kwdict)
        self.handle_skip()

    def _fetch(self, url: str, kwdict: dict[str, Any]) -> bool:
        """Download to the temporary path, from the first of the file's URLs that answers."""
        evidence = self.evidence
        evidence.transferring, evidence.transfer_status, evidence.transfer_words = True, 0, ""
        evidence.forbidden = None
        self._sweep()
        try:
            if self.download(url):
                return True
            for fallback in kwdict.get("_fallback", ()) if self.fallback else ():
                self._sweep()
                if self.download(fallback):
                    return True
        except exception.StopDownload:
            pass
        finally:
            evidence.transferring = False
        return False

    def download(self, url: str) -> bool:
        """Upstream's, except that any disk that cannot be written ends the run, not only a full one."""
        downloader = self.get_downloader(url[: url.find(":")])
        if downloader is None:
            return False
        try:
            return bool(downloader.download(url, self.pathfmt))
        except OSError as error:
            if storage_failure(error):
                raise
            self.log.warning("%s: %s", type(error).__name__, error)
            return False

    def _report_failure(self, remote_id: str, url: str, kwdict: dict[str, Any]) -> None:
        self._sweep()
        evidence = self.evidence
        words = f"{self.pathfmt.filename or url}: {evidence.transfer_words or 'the download failed'}"
        reason = Reason.FORBIDDEN_ADDRESS if evidence.forbidden else Reason.FILES_FAILED
        gone = evidence.transfer_status in GONE and not evidence.forbidden
        failure = Failure(reason=reason, detail=plain(words[:500]))
        self.mirror.hooks.on_file_failed(remote_id, url, kwdict, failure, gone=gone)
        self._call("error")

    def _place(self, remote_id: str, url: str, kwdict: dict[str, Any]) -> bool:
        """Give the whole file its final name, never over another file. False when nothing is left to announce."""
        pathfmt = self.pathfmt
        if pathfmt.delete:  # a post-processor has packed it elsewhere
            pathfmt.delete = False
            os.unlink(pathfmt.temppath)
            self.mirror.hooks.on_file_downloaded(remote_id, None, url, kwdict)
            return False
        names = self.mirror.names
        path = self.mirror.relative(pathfmt.realpath)
        while True:
            place = names.settle(path, remote_id)
            self._point(place.path)
            if place.standing is Standing.FOUND:
                if _same_content(pathfmt.temppath, pathfmt.realpath):
                    os.unlink(pathfmt.temppath)
                    self._adopt(remote_id, url, kwdict)
                    return False
                names.leave_alone(place.path)
                continue
            names.will_land(place.path)
            Path(pathfmt.realpath).parent.mkdir(parents=True, exist_ok=True)
            if _move(pathfmt.temppath, pathfmt.realpath, replace=place.standing is Standing.LANDED):
                pathfmt.part = False
                pathfmt.set_mtime()
                return True
            if not names.is_file(place.path):  # a folder or a symlink of this name: it stays
                names.leave_alone(place.path)

    def _landed(self, remote_id: str, url: str, kwdict: dict[str, Any]) -> None:
        """The file is in place: run what the operator attached to that, then report what exists afterwards."""
        pathfmt = self.pathfmt
        self._skipcnt = 0
        if self.archive is not None and self._archive_write_file:
            self.archive.add(kwdict)
        self._call("after")
        if self.archive is not None and self._archive_write_after:
            self.archive.add(kwdict)
        path = pathfmt.realpath if os.path.isfile(pathfmt.realpath) else None
        self.mirror.hooks.on_file_downloaded(remote_id, path, url, kwdict)

    def _is_there(self) -> bool:
        """Asked by the downloader when the answer has told the name: is there a file that can be adopted?"""
        return self.mirror.names.can_adopt(self.mirror.relative(self.pathfmt.realpath), self._current)

    def _point(self, path: str) -> None:
        """Make gallery-dl's path object stand for a path under CONTENT_ROOT."""
        pathfmt = self.pathfmt
        pathfmt.path = pathfmt.realpath = f"{self.mirror.request.content_root}/{path}"
        pathfmt.filename = path.rpartition("/")[2]

    def _sweep(self) -> None:
        """What an earlier transfer left behind must never be taken for the beginning of this one."""
        for leftover in self.mirror.partial.iterdir():
            leftover.unlink(missing_ok=True)

    def _call(self, event: str) -> None:
        if self.hooks and event in self.hooks:
            for callback in self.hooks[event]:
                callback(self.pathfmt)


class _NoValue:
    """What gallery-dl's formatter puts where a key is missing: whatever is asked of it stays recognizable."""

    def __getattr__(self, name: str) -> _NoValue:
        return self

    def __getitem__(self, key: object) -> _NoValue:
        return self

    def __format__(self, spec: str) -> str:
        return MISSING

    def __str__(self) -> str:
        return MISSING


def _same_content(one: str, other: str) -> bool:
    return filecmp.cmp(one, other, shallow=False)


def _move(source: str, target: str, *, replace: bool) -> bool:
    """Rename, but never over another file unless told so. False when a file of that name has come meanwhile."""
    if not replace:
        try:
            os.link(source, target)
        except FileExistsError:
            return False
        except OSError:
            # No hard links on this file system: look, then rename.
            if os.path.lexists(target):
                return False
        else:
            os.unlink(source)
            return True
    os.replace(source, target)
    return True
