"""gallery-dl's download job, with the decisions of a mirror: by remote id and recorded path, never by name alone.

What is overridden here is checked against the installed gallery-dl by `tests/unit/test_upstream.py`.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from gallery_dl import config, exception, formatter
from gallery_dl.extractor.common import Extractor
from gallery_dl.job import DownloadJob

from .. import faults
from ..domain.files import plain
from ..domain.listing import Failure, narrowing_options
from ..domain.orders import FORBIDDEN_PREFIXES
from ..domain.reasons import Kind, Reason
from ..domain.secrets import without_login
from .config import PARTIAL_FOLDER
from .disk import Disk
from .evidence import Evidence, classify
from .folders import OutsideFolderError, UnusableNameError
from .hooks import Hooks, Report
from .lanes import Gate, Lane, Lanes, RateLimit, RateLimitedError
from .messages import Expects, RunRequest, Waiting
from .names import Names
from .paths import OF_ONE_FILE, bearing_odd_metadata, in_place_of_upstream, sentence
from .refresh import Refresh
from .restore import Restore
from .transfer import Transfer, bytes_per_second, downloader_for, point

MISSING = "\x00"
"""Stands in a remote id where the extractor gave no value for a part of it."""

_ENVIRONMENT_MATTERS = bool(getproxies()) or bool({"REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"} & os.environ.keys())
"""Whether requests would find anything in the environment, which stays as the service was started with."""

_POSITION = re.compile(r"\{(?:num|page|_?index|index_file)\b")
"""Fields of remote ids that count files: when one of them is gone, those behind it get other ids."""

SKIPPED = object()
"""The listed file is here: counts for gallery-dl's abort:N."""


class Run:
    """What all jobs of one run share: an album of albums is a job with child jobs."""

    def __init__(
        self, request: RunRequest, evidence: Evidence, report: Report, held_elsewhere: Callable[[str], bool]
    ) -> None:
        self.request = request
        self.evidence = evidence
        self.disk = Disk(request)
        self.names = Names(request, self.disk, held_elsewhere)
        self.report = report
        self.base = f"{request.content_root / request.content_path}/"
        self.hooks = Hooks(report, self.base, self.disk, evidence.redact)
        self._partial = f"{PARTIAL_FOLDER}/{request.run_id}"
        self.seen: dict[str, str] = {}
        """Remote ids of this listing, each with its URL without the query."""
        self.expected = 0
        self.halt = threading.Event()
        """Begin nothing new: asked to stop, or something happened that no other file would survive."""
        self.broken = False
        """That something: the disk. What is under way is not brought to its end either."""
        self.stopped = False
        """Asked to stop."""
        self.rests_until = 0.0
        """Of the monotonic clock: the site has asked another run to wait, and is asked nothing before."""
        self.rate_limited: float | None = None
        """Seconds that the site asks to wait, when that is too long for a run to hold its slot."""
        self.turn = threading.RLock()
        """Held while gallery-dl formats, or a post-processor runs: neither was written for threads."""
        self.extractor_turn = threading.Lock()
        """Held while the extractor's code runs."""
        self.rate_limit = RateLimit()
        self.extractor: Extractor | None = None
        """The one that the run began with: its session can ask the site something later."""
        self.ids_are_stable = True
        """Until a remote id holds a position, or does not tell two files apart."""

    def open_lanes(self, number: int) -> None:
        """The site's category decides how many, so they come when it is known."""
        self.clear_parts()
        lanes = [Lane(index, self.disk, self._partial, self.base, self.report) for index in range(number)]
        self.lane_count = number
        self.lanes = Lanes(lanes, self.halt, self._lane_failed, self.report)
        self.gate = Gate(
            number, self.request.rate_limit_max_wait, self.halt, self._announce_wait, lambda: self.rests_until
        )

    def clear_parts(self) -> None:
        """Part files are never resumed: nothing says that the rest belongs to the same content."""
        if self.request.rehearsal:
            return
        partial = self.request.content_root / self._partial
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):  # other runs may be at work there
            partial.parent.rmdir()

    def pause_between_requests(self) -> float:
        """Seconds, as `sleep-request` says."""
        interval = getattr(self.extractor, "_interval_request", None)
        return float(interval()) if interval is not None else 0.0

    def is_in_place(self, path: str) -> bool:
        """Whether a recorded path lies in this run's folder, and a file is there."""
        return path.startswith(f"{self.request.content_path}/") and self.names.is_file(path)

    def relative(self, path: str) -> str:
        """A path under CONTENT_ROOT, as the catalog stores it."""
        root = f"{self.request.content_root}/"
        if not path.startswith(root):
            raise OutsideFolderError(f"the path {path!r} is outside of CONTENT_ROOT")
        return path.removeprefix(root)

    def check_folder(self, folder: str) -> None:
        """Raises `UnusableNameError` for an absolute folder, with `/` at its end, in which no file may be."""
        self.names.check_folder(self.relative(folder)[:-1])

    def _announce_wait(self, seconds: float) -> None:
        self.report(Waiting(seconds, "the site asks for fewer requests", asked=True))

    def rest(self, seconds: float) -> None:
        """The site has asked another run to wait so long."""
        self.rests_until = max(self.rests_until, time.monotonic() + seconds)

    def wait_for_site(self) -> None:
        """Before the listing asks for anything."""
        while (left := self.rests_until - time.monotonic()) > 0 and not self.halt.is_set():
            if left > self.request.rate_limit_max_wait:
                self.continue_later(left)
            else:
                self.report(Waiting(left, "the site has asked another run for fewer requests"))
                self.halt.wait(left)

    def stop(self) -> None:
        self.stopped = True
        self.halt.set()

    def continue_later(self, seconds: float) -> None:
        """The site asks for a pause that is too long to hold a slot."""
        self.rate_limited = max(self.rate_limited or 0.0, seconds)
        self.halt.set()

    def _lane_failed(self, error: BaseException) -> None:
        if isinstance(error, RateLimitedError):
            self.continue_later(error.seconds)
        elif not self.broken:
            failure = self.disk.failure_of(error)
            self.broken = failure is not None
            if failure is not None or not self.halt.is_set():
                self.evidence.fail(failure or classify(error))
            self.halt.set()


class MirrorJob(DownloadJob):  # type: ignore[misc]
    """One gallery. `run_state` is set on a subclass for the process's only run."""

    run_state: Run

    def __init__(self, extractor: Extractor, parent: MirrorJob | None = None) -> None:
        super().__init__(extractor, parent)
        self.parent = parent
        self.mirror = self.run_state
        self.evidence = self.mirror.evidence
        self.evidence.loggers |= {extractor.category, extractor.__class__.category}
        self.pending = 0
        """Transfers of this job that lanes have not finished."""
        self.bytes_per_second: Callable[[], float] | None = None
        self._id_of: Callable[[dict[str, Any]], object] | None = None
        self._lane_downloaders: dict[tuple[int, str], Any] = {}
        self._child_must_settle = False
        self.hooks: Any = ()
        self._skipexc = None
        self.sleep_skip = None

    # The listing, and what it proves.

    def _init(self) -> None:
        super()._init()
        if not _ENVIRONMENT_MATTERS:
            self.extractor.session.trust_env = False  # else it is searched for proxies at every request
        for adapter in self.extractor.session.adapters.values():
            # One for each lane and one for the listing: never more connections to one host, however many want one.
            size = self.mirror.lane_count + 1
            if adapter.poolmanager.connection_pool_kw.get("maxsize") != size:
                adapter.init_poolmanager(10, size, block=True)

    def dispatch(self, messages: Iterator[Any]) -> Any:
        """Walk the listing. Only when this returns was the extractor exhausted by itself."""
        for option in narrowing_options(self.extractor.config):
            self.evidence.gap(Reason.NARROWED, f"the option {option!r} is set for {self.extractor.category}")
        try:
            return super().dispatch(self._in_turn(iter(messages)))
        except BaseException as error:
            self._note(error)
            raise

    def _in_turn(self, messages: Iterator[Any]) -> Iterator[Any]:
        while True:
            with self.mirror.extractor_turn:
                try:
                    message = next(messages)
                except StopIteration:
                    return
            yield message

    def _note(self, error: BaseException) -> None:
        match error:
            case _ if self.mirror.halt.is_set() and self.mirror.disk.failure_of(error) is None:
                pass
            case exception.AbortExtraction():
                self._fail(Failure(reason=Reason.EXTRACTOR_ERROR, detail=str(error)))
            case exception.StopExtraction() | exception.TerminateExtraction() | exception.RestartExtraction():
                self.evidence.gap(Reason.STOPPED_EARLY, self._who_stopped())
            case SystemExit():
                self.evidence.gap(Reason.STOPPED_EARLY, self._who_stopped())
            case _:
                self._fail(self.mirror.disk.failure_of(error) or self.evidence.explained(classify(error)))

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
        with in_place_of_upstream(self.mirror.check_folder):
            super().initialize(kwdict)
        if self.hooks:
            log = self.get_logger("postprocessor")
            for callbacks in self.hooks.values():
                callbacks[:] = [bearing_odd_metadata(callback, log) for callback in callbacks]
        self.bytes_per_second = bytes_per_second(self.extractor.config("rate") or _downloader_option("rate"))

    def update_kwdict(self, kwdict: dict[str, Any]) -> None:
        with self.mirror.turn:  # `keywords-eval` formats
            super().update_kwdict(kwdict)

    def handle_directory(self, kwdict: dict[str, Any]) -> None:
        count = kwdict.get("count")
        if isinstance(count, int) and self.pathfmt is None:
            self.mirror.expected += count
            self.mirror.report(Expects(self.mirror.expected))
        if self.hooks and "post-after" in self.hooks:
            self.mirror.lanes.drain(self)
        with self.mirror.turn:
            super().handle_directory(kwdict)

    def handle_queue(self, url: str, kwdict: dict[str, Any]) -> None:
        # What became of a linked gallery decides about its fallback, and is what `child-after` hooks look at.
        if url.partition(":")[0].lower() in FORBIDDEN_PREFIXES:
            # Local files, ports of our own, no-ops: what no order may ask for, a site's page may not either.
            self._write_unsupported(url)
            return
        self._child_must_settle = "_fallback" in kwdict or bool(self.hooks and "child-after" in self.hooks)
        super().handle_queue(url, kwdict)

    def handle_finalize(self) -> None:
        """Lanes go on beyond the end of a linked gallery, unless somebody looks at its files then."""
        looked_at = self.archive is not None or self.extractor.finalize is not None
        looked_at = looked_at or bool(
            self.hooks and any(event.startswith(("finalize", "post-")) for event in self.hooks)
        )
        if self.parent is None or looked_at or self.parent._child_must_settle:
            self.mirror.lanes.drain(self)
        with self.mirror.turn:
            super().handle_finalize()

    # One file of the listing.

    def handle_url(self, url: str, kwdict: dict[str, Any]) -> None:
        if self.mirror.halt.is_set():
            raise exception.TerminateExtraction()
        faults.at("child.listed")
        with self.mirror.turn:
            remote_id = self._remote_id(url, kwdict)
            if remote_id is None:
                return
            try:
                decided = self._decide(remote_id, url, kwdict)
            except OF_ONE_FILE as error:
                failure = Failure(reason=Reason.FILES_FAILED, detail=sentence(error)[:500])
                self.mirror.hooks.on_file_failed(remote_id, url, kwdict, failure)
                return
        if isinstance(decided, Transfer):
            self._skipcnt = 0  # for abort:N, a file that is fetched interrupts the row of those that are not
            self.mirror.lanes.hand_over(decided)
        elif decided is SKIPPED:
            self._count_skip()

    def _decide(self, remote_id: str, url: str, kwdict: dict[str, Any]) -> Transfer | object | None:
        """The transfer that is to be made; `SKIPPED` for a file that is here; None for one that is left alone."""
        self.pathfmt.set_filename(kwdict)
        self._call("prepare")
        known = self.mirror.request.known.get(remote_id)
        if remote_id in self.mirror.request.trashed:
            return self._if_for_real(Restore(self, remote_id, url, kwdict))
        if known is not None and known.path is not None and self.mirror.is_in_place(known.path):
            if (
                self.mirror.request.refresh_changed
                and not self.mirror.request.rehearsal
                and Refresh.may_be_needed(known, kwdict)
            ):
                refresh = Refresh(self, remote_id, url, kwdict, known)
                return SKIPPED if refresh.was_cut_off() else refresh
            self._skip(remote_id, known.path)
            return SKIPPED
        archived = self.archive is not None and bool(self.archive.check(kwdict))
        if self.pathfmt.refused:
            raise UnusableNameError(self.pathfmt.refused)
        transfer = Transfer(self, remote_id, url, kwdict)
        if not (known is not None and known.is_left_alone) and self._is_found(transfer):
            return SKIPPED
        # Gone at the site, packed away here, or fetched once according to the operator's own archive.
        if (known is not None and known.is_left_alone) or archived or not self.extractor.config("download", True):
            self.mirror.hooks.on_file_passed(remote_id)
            return None
        return self._if_for_real(transfer)

    def _if_for_real(self, transfer: Transfer) -> Transfer | None:
        if not self.mirror.request.rehearsal:
            return transfer
        self._skipcnt = 0
        transfer.rehearse()
        return None

    def _is_found(self, transfer: Transfer) -> bool:
        """Give the file its name, if that is known already. True when it lies in the folder, and is reported."""
        pathfmt = transfer.pathfmt
        if pathfmt.extension and not self.metadata_http:
            pathfmt.build_path()
            if transfer.settle():
                return True
        transfer.call("prepare-after")
        return bool(transfer.kwdict.pop("_file_recheck", False)) and transfer.settle()

    def _remote_id(self, url: str, kwdict: dict[str, Any]) -> str | None:
        """gallery-dl's archive id of a file; None when this listing has shown the file already.

        Where the extractor gives no value for a part of it, or one id to two files, the URL tells them apart.
        """
        if self._id_of is None:
            self._id_of = self._id_format()
        address = plain(without_login(url))
        if "?" in address or "#" in address:
            address = urlsplit(address)._replace(query="", fragment="").geturl()
        try:
            remote_id = str(self._id_of(kwdict))
        except Exception:  # a value of another kind than the format expects
            remote_id = MISSING
        if MISSING in remote_id:
            remote_id = f"{remote_id.replace(MISSING, '')} {address}".strip()
            self.mirror.ids_are_stable = False
        remote_id = plain(remote_id)
        seen = self.mirror.seen
        first = seen.setdefault(remote_id, address)
        if first is address:
            return remote_id
        if first == address:
            return None
        self.mirror.ids_are_stable = False
        remote_id = f"{remote_id} {address}"
        if remote_id in seen:
            return None
        seen[remote_id] = address
        return remote_id

    def _id_format(self) -> Callable[[dict[str, Any]], object]:
        option, extractor = self.extractor.config, self.extractor
        text = option("archive-format") or extractor.archive_fmt
        if not text:
            return lambda _: MISSING
        prefix = option("archive-prefix")
        text = (extractor.category if prefix is None else prefix) + text
        if _POSITION.search(text):
            self.mirror.ids_are_stable = False
        format_map: Callable[[dict[str, Any]], object] = formatter.parse(text, _NoValue()).format_map
        return format_map

    def _skip(self, remote_id: str, path: str) -> None:
        """A known file, in place. The path is built only for post-processors that will read it."""
        self.mirror.hooks.on_file_skipped(remote_id, path[len(self.mirror.request.content_path) + 1 :])
        if self.hooks and "skip" in self.hooks:
            point(self.pathfmt, self.mirror.request.content_root, path)
            self._call("skip")

    def _count_skip(self) -> None:
        """Upstream's counting for abort:N and its sleeping, without its hooks: those had their turn."""
        hooks: Any = self.hooks
        self.hooks = ()
        try:
            self.handle_skip()
        finally:
            self.hooks = hooks

    def _call(self, event: str) -> None:
        if self.hooks and event in self.hooks:
            self.mirror.disk.check_there()  # they make the folders that they need
            for callback in self.hooks[event]:
                callback(self.pathfmt)

    def downloader_of(self, lane: Lane, url: str) -> Any:
        key = lane.number, url.partition(":")[0]
        if key not in self._lane_downloaders:
            with self.mirror.turn:
                self._lane_downloaders[key] = downloader_for(self, lane, key[1])
        return self._lane_downloaders[key]


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


def _downloader_option(name: str) -> Any:
    return config.interpolate(("downloader", "http"), name)
