"""One file on its way: its own path object and metadata, so that any thread may carry it."""

from __future__ import annotations

import copy
import filecmp
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from gallery_dl import exception, text, util
from gallery_dl.job import DownloadJob

from .. import faults
from ..domain.bodies import is_media
from ..domain.files import distinct_name, plain
from ..domain.listing import Failure
from ..domain.reasons import Reason
from .answers import UnacceptableAnswer
from .disk import StorageError
from .evidence import GONE, out_of_files
from .incoming import Digest, Incoming
from .lanes import Lane
from .names import LONGEST_NAME, Standing
from .paths import OF_ONE_FILE, sentence
from .promises import promise_of

if TYPE_CHECKING:
    from .job import MirrorJob, Run

MOST_REFUSALS = 10
"""Times that a site may refuse one file before it counts as failed."""


class Transfer:
    """Made in the extractor's thread, from a job's path object as it stands for this file."""

    def __init__(self, job: MirrorJob, remote_id: str, url: str, kwdict: dict[str, Any]) -> None:
        self.job = job
        self.run = job.mirror
        self.remote_id = remote_id
        self.url = url
        # Some extractors use one dict for all files of a post, and go on with it at once.
        self.kwdict = kwdict.copy()
        pathfmt = self.pathfmt = copy.copy(job.pathfmt)
        pathfmt.kwdict = self.kwdict
        pathfmt.exists = self._is_there
        pathfmt.open = self._open
        pathfmt.build_path = self._build_path
        pathfmt.part_enable = self._enable_part
        self._extension = str(self.kwdict.get("extension") or "")
        """As it was listed: the answer may change it."""
        self._incoming: Incoming | None = None
        self._digest: Digest | None = None
        self._validator: str | None = None
        self._came_in = False
        """Its part file has become the file: nothing is left in the lane's folder."""

    # In the extractor's thread.

    def settle(self) -> bool:
        """Give the file its path. True when it is there already, and reported."""
        place = self.run.names.settle(self.run.relative(self.pathfmt.realpath), self.remote_id)
        self._point(place.path)
        match place.standing:
            case Standing.FREE:
                return False
            case Standing.LANDED:
                self._landed()
            case Standing.FOUND if not self.run.names.was_there_before(place.path):
                return False  # it is fetched, and compared
            case Standing.FOUND:
                self._adopt()
        return True

    def rehearse(self) -> None:
        """Say what would become of it, in place of doing it."""
        self.run.hooks.on_file_new(self.remote_id, self.pathfmt.realpath or "", self.url)

    # In a lane.

    def perform(self, lane: Lane) -> None:
        try:
            self._perform(lane)
        except OF_ONE_FILE as error:
            self._fail(Failure(reason=Reason.FILES_FAILED, detail=sentence(error)[:500]))
        finally:
            if not self._came_in:
                lane.sweep()

    def _perform(self, lane: Lane) -> None:
        if not self._fetch(lane):
            if not self.run.halt.is_set():
                self._report_failure()
            return
        if not self.pathfmt.temppath:  # its name became known with the answer, and a file of that name is here
            if not self.settle():
                self.run.hooks.on_file_passed(self.remote_id)  # too small or too large for the configuration
            return
        self.run.gate.went_well()
        if self.job.hooks and "file" in self.job.hooks:
            self._digest = None  # they may change what came in
            self.call("file")
        if self._place():
            self._landed()

    def _fetch(self, lane: Lane) -> bool:
        """Download to the temporary path, from the first of the file's URLs that answers."""
        with self.run.evidence.transfer():
            fetched = any(self._fetch_politely(lane, url) for url in self._urls())
            self._validator = self.run.evidence.validator
            return fetched

    def _urls(self) -> Iterator[str]:
        yield self.url
        if self._is_too_large:
            return  # a smaller version of it is not what was listed
        fallback = self.kwdict.get("_fallback") if self.job.fallback else None
        if not fallback:
            return
        following = iter(fallback)
        while True:
            with self.run.extractor_turn:  # it runs the extractor's code, which knows one thread only
                url = next(following, None)
            if url is None:
                return
            yield url

    def _fetch_politely(self, lane: Lane, url: str) -> bool:
        """One URL, again when the site refused it for being asked too much."""
        evidence, gate = self.run.evidence, self.run.gate
        interval = self.job.sleep() if self.job.sleep is not None else 0.0
        for _ in range(MOST_REFUSALS):
            self._digest = None
            with gate.enter(interval) as begun_at:
                if self.run.halt.is_set():
                    return False
                evidence.begin_transfer(functools.partial(gate.was_refused, begun_at))
                try:
                    if self._download(lane, url):
                        return True
                except exception.StopDownload:
                    return False
            lane.sweep()
            if evidence.transfer_status != 429 and evidence.transfer_retry_after is None:
                return False
        return False

    def _download(self, lane: Lane, url: str) -> bool:
        """Any disk that cannot be written ends the run, not only a full one as upstream."""
        downloader = self.job.downloader_of(lane, url)
        if downloader is None:
            return False
        promise = promise_of(self.job.extractor, url, self.kwdict)
        incoming = self._incoming = Incoming(self.run.request.limits, promise, self._extension)
        try:
            with self.run.evidence.receiving(incoming):
                incoming.check_promise()
                if not self._bring(downloader, lane, url):
                    return False
                self._judge(incoming)
                return True
        except UnacceptableAnswer as error:
            self.run.evidence.complain(str(error))
            return False
        except OSError as error:
            if self.run.disk.failure_of(error) is not None:
                raise
            self.job.log.warning("%s: %s", type(error).__name__, error)
            return False

    def _bring(self, downloader: Any, lane: Lane, url: str) -> bool:
        if not downloader.download(url, self.pathfmt):
            return False
        if self.run.evidence.transfer_status != 416:
            return True
        # The site refused the rest of a broken-off file, which upstream takes for its end: from the beginning then.
        lane.sweep()
        self._digest = None
        return bool(downloader.download(url, self.pathfmt)) and self.run.evidence.transfer_status != 416

    def _judge(self, incoming: Incoming) -> None:
        """Raises `UnacceptableAnswer` when what came is not the file."""
        path = self.pathfmt.temppath
        if not path or not os.path.isfile(path):
            return  # it was found to be here already
        if self._digest is not None:
            incoming.judge(incoming.body_of(self._digest, path))
        else:  # not by HTTP as we know it: yt-dlp, or a text of the listing itself
            incoming.check_size(os.stat(path).st_size)

    @property
    def _is_too_large(self) -> bool:
        return self._incoming is not None and self._incoming.reason is Reason.TOO_LARGE

    def _report_failure(self) -> None:
        evidence = self.run.evidence
        if (failure := out_of_files(evidence.transfer_words)) is not None:
            raise StorageError(failure)
        words = f"{self.pathfmt.filename or self.url}: {evidence.transfer_words or 'the download failed'}"
        failed = self._incoming.reason if self._incoming is not None else Reason.FILES_FAILED
        reason = Reason.FORBIDDEN_ADDRESS if evidence.forbidden else failed
        gone = evidence.transfer_status in GONE and not evidence.forbidden
        self._fail(Failure(reason=reason, detail=plain(words[:500])), gone=gone)
        self.call("error")

    def _fail(self, failure: Failure, *, gone: bool = False) -> None:
        self.run.hooks.on_file_failed(self.remote_id, self.url, self.kwdict, failure, gone=gone)

    # In either.

    def _place(self) -> bool:
        """Give the whole file its final name, never over another file. False when nothing is left to announce."""
        pathfmt = self.pathfmt
        if pathfmt.delete:  # a post-processor has packed it elsewhere
            pathfmt.delete = False
            os.unlink(pathfmt.temppath)
            self.run.hooks.on_file_downloaded(self.remote_id, None, self.url, self.kwdict)
            return False
        names = self.run.names
        path = self.run.relative(pathfmt.realpath)
        while True:
            place = names.settle(path, self.remote_id)
            self._point(place.path)
            if place.standing is Standing.FOUND:
                if filecmp.cmp(pathfmt.temppath, pathfmt.realpath, shallow=False):
                    os.unlink(pathfmt.temppath)
                    self._adopt()
                    return False
                names.leave_alone(place.path)
                continue
            pathfmt.set_mtime(pathfmt.temppath)  # while nobody else knows it
            self.run.disk.secure_file(pathfmt.temppath)
            names.will_land(place.path, self.remote_id, self.url)
            faults.at("lane.before_rename")
            if names.move(pathfmt.temppath, place.path, replace=place.standing is Standing.LANDED):
                faults.at("lane.after_rename")
                self._came_in = True
                pathfmt.part = False
                return True
            if not names.is_file(place.path):  # a folder or a symlink of this name: it stays
                names.leave_alone(place.path)

    def _landed(self) -> None:
        """The file is in place: run what the operator attached to that, then report what exists afterwards."""
        pathfmt, job = self.pathfmt, self.job
        placed = _stamp(pathfmt.realpath)
        with self.run.turn:
            if job.archive is not None and job._archive_write_file:
                job.archive.add(self.kwdict)
            self.call("after")
            if job.archive is not None and job._archive_write_after:
                job.archive.add(self.kwdict)
        stamp = _stamp(pathfmt.realpath)
        measured = None
        if self._digest is not None and stamp is not None and stamp == placed:
            # Nothing has touched it since it came in: the bytes that were hashed on the way are the file.
            measured = self._digest.result(stamp[0])
        path = pathfmt.realpath if stamp is not None else None
        hooks = self.run.hooks
        hooks.on_file_downloaded(self.remote_id, path, self.url, self.kwdict, measured, self._validator)

    def _adopt(self) -> None:
        job = self.job
        self.run.hooks.on_file_adopted(self.remote_id, self.pathfmt.realpath, self.url, self.kwdict)
        with self.run.turn:
            if job.archive is not None and job._archive_write_skip:
                job.archive.add(self.kwdict)
            self.call("skip")

    def call(self, event: str) -> None:
        """Post-processors were not written for threads: one at a time."""
        hooks = self.job.hooks
        if hooks and event in hooks:
            self.run.disk.check_there()  # they make the folders that they need
            with self.run.turn:
                for callback in hooks[event]:
                    callback(self.pathfmt)

    def _point(self, path: str) -> None:
        """Make gallery-dl's path object stand for a path under CONTENT_ROOT."""
        point(self.pathfmt, self.run.request.content_root, path)

    # What gallery-dl's downloaders ask of the path object.

    def _is_there(self) -> bool:
        """The answer has told the name: is there a file that can be adopted?"""
        if is_media(self._extension) and self.pathfmt.extension in ("html", "htm"):
            return False  # a page that came in its place takes no other page for it
        return self.run.names.can_adopt(self.run.relative(self.pathfmt.realpath), self.remote_id)

    def _build_path(self) -> None:
        """gallery-dl's formatters keep what they build in one list: two threads would mix two names."""
        with self.run.turn:
            type(self.pathfmt).build_path(self.pathfmt)

    def _enable_part(self, folder: Any = None) -> None:
        """The name of a part file is the longer one: where the final name just fits, it would not. And a name that is
        empty, or that of a folder, gets another one only when the file is put in place."""
        pathfmt = self.pathfmt
        type(pathfmt).part_enable(pathfmt, folder)
        folder, name = os.path.split(pathfmt.temppath)
        if len(name.encode()) > LONGEST_NAME or name in ("", ".", ".."):
            pathfmt.temppath = os.path.join(folder, distinct_name(name, self.remote_id))

    def _open(self, mode: str = "wb") -> Any:
        try:
            file = open(self.pathfmt.temppath, mode)  # noqa: SIM115 - upstream would make the folder, and CONTENT_ROOT
        except FileNotFoundError:
            if "r" not in mode:
                raise
            return util.NullContext()  # as upstream: the part file exists no longer
        if "+" not in mode:
            return file
        if self._digest is None or mode == "w+b":  # else it goes on behind what an earlier try has written
            self._digest = Digest(self._incoming)
        try:
            self.run.disk.begin_file(self.run.evidence.promised_size)
        except StorageError:
            file.close()
            raise
        return HashedFile(file, self._digest, self.job.bytes_per_second, self.run.rate_limit, self.run)


class HashedFile:
    """The file that a downloader writes: hashed on the way, so that it need not be read again."""

    def __init__(self, file: IO[bytes], digest: Digest, rate: Any, limit: Any, run: Run) -> None:
        self._file = file
        self._digest = digest
        self._rate = rate
        self._limit = limit
        self._run = run

    def write(self, data: bytes) -> int:
        if self._rate is not None:
            self._limit.take(len(data), self._rate())
        if self._run.broken:
            raise exception.StopDownload()
        self._digest.add(data)
        self._run.disk.wrote(len(data))
        faults.at("lane.write")
        return self._file.write(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence or offset != self._digest.size:
            self._digest.usable = False
        return self._file.seek(offset, whence)

    def __enter__(self) -> HashedFile:
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._run.disk.end_file()
        self._file.__exit__(*error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def point(pathfmt: Any, root: Path, path: str) -> None:
    pathfmt.path = pathfmt.realpath = f"{root}/{path}"
    pathfmt.filename = path.rpartition("/")[2]


def downloader_for(job: MirrorJob, lane: Lane, scheme: str) -> Any:
    """A downloader of its own for a lane: they keep what they are doing in themselves."""
    facade = copy.copy(job)
    facade.downloaders = {}
    facade.out = lane
    downloader = DownloadJob.get_downloader(facade, scheme)
    if downloader is not None:
        downloader.partdir = str(lane.folder)
        downloader.rate = None  # over all lanes together: see HashedFile
        if job.bytes_per_second is not None and hasattr(downloader, "chunk_size"):
            # As upstream: at least one piece a second, so that progress shows.
            downloader.chunk_size = min(downloader.chunk_size, max(int(job.bytes_per_second()), 1))
    return downloader


def bytes_per_second(value: Any) -> Any:
    """gallery-dl's option `rate` as a function that gives bytes per second; None when it is not set."""
    if not value:
        return None
    rate = util.build_selection_func(value, 0, text.parse_bytes)
    return rate if rate() else None


def _stamp(path: str) -> tuple[int, int, int] | None:
    """What changes when a file is changed: size, time, number. None when it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino
