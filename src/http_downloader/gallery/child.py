"""What happens inside a forked gallery process, from its first instruction to its last."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import netrc
import os
import queue
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn
from urllib.request import getproxies

import gallery_dl
import requests
from gallery_dl import actions, config, exception, extractor

from .. import faults
from ..domain.characters import visible
from ..domain.listing import Failure
from ..domain.reasons import Reason
from ..domain.secrets import Redaction, passwords_in
from . import cookies, proof, resolver
from .answers import bound_pages, watch_reading, watch_requests
from .config import PLACEHOLDER, build_config, cookie_files, fingerprint, secrets_in
from .disk import writing_to
from .evidence import Evidence, classify
from .folders import UnusableNameError
from .hooks import Report
from .job import MirrorJob, Run
from .messages import (
    Answer,
    Asks,
    AsksAddresses,
    AsksServed,
    Ended,
    Renewed,
    ResolveRequest,
    Rest,
    RunRequest,
    Stop,
    Unlocked,
    Waiting,
)
from .network import ForbiddenAddress, check_behind_proxy, proxies_in, refuse_private_addresses
from .reporter import LogHandler, Reporter

LOCK_WAIT = 3.0
"""Seconds that a process waits for an earlier one of the same source to be gone."""
BUSY_PAUSE = 5.0
"""Seconds after which a run is tried again that met one."""

_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}
"""What file systems say that know no locks; network shares, mostly."""


def main(control: socket.socket) -> NoReturn:
    """Serve one request on the pipe and exit. Never returns into the fork server's code."""
    # A group of its own: whatever it starts (ffmpeg, an operator's command) ends with it.
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.umask(0o022)
    connection = Connection(control.detach())
    try:
        request = connection.recv()
        if isinstance(request, ResolveRequest):
            resolver.answer_questions(connection)
        else:
            _mirror(connection, request)
    except (EOFError, OSError):
        pass  # the parent is gone: nobody is left to report to
    os._exit(0)


def _mirror(connection: Connection, request: RunRequest) -> None:
    faults.at("child.start")
    redaction = Redaction()
    evidence = Evidence(redaction)
    reporter = Reporter(connection)
    handler = LogHandler(reporter, evidence, redaction, request.log_level)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(min(logging.INFO, request.log_level))
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
    questions: queue.SimpleQueue[AsksServed | AsksAddresses] = queue.SimpleQueue()

    def held_elsewhere(path: str) -> bool:
        reporter(Asks(path))
        return answers.get()

    run = Run(request, evidence, reporter, held_elsewhere)
    run.disk.lease.arm()
    threading.Thread(target=_listen, args=(connection, run, answers, questions), name="control", daemon=True).start()
    try:
        ended = _crawl(run, redaction)
    except Exception as error:  # whatever it is, the parent learns of it in one sentence
        ended = Ended(failure=classify(error))
    if ended.failure is not None:
        detail = visible(redaction(ended.failure.detail))
        ended = replace(ended, failure=replace(ended.failure, detail=detail))
    faults.at("child.before_end")
    reporter(ended)
    reporter.close()
    if ended.failure is None and not ended.gaps and not ended.stopped:
        proof.answer_questions(connection, questions, run)


def _listen(
    connection: Connection,
    run: Run,
    answers: queue.SimpleQueue[bool],
    questions: queue.SimpleQueue[AsksServed | AsksAddresses],
) -> None:
    """The parent's commands. When the pipe closes, the parent is dead or done with us; when the lease ends, it is frozen,
    or the catalog does not know it any more: nothing may be written later."""
    lease = run.disk.lease
    while True:
        try:
            if not connection.poll(min(max(lease.left(), 0.0), 1.0)):  # not in one: this clock stops while we sleep
                lease.check()
                continue
            command = connection.recv()
        except (EOFError, OSError):
            os.killpg(0, signal.SIGKILL)
        match command:
            case Renewed(until):
                lease.renew(until)
            case Rest(seconds):
                run.rest(seconds)
            case Stop():
                run.stop()
            case Answer(held):
                answers.put(held)
            case AsksServed() | AsksAddresses():
                questions.put(command)


def _crawl(run: Run, redaction: Redaction) -> Ended:
    request, evidence = run.request, run.evidence
    with _source_lock(run) as free:
        if not free:
            return Ended(failure=Failure(reason=Reason.BUSY, detail=Reason.BUSY.sentence), again_after=BUSY_PAUSE)
        try:
            run.names.check_base()
        except UnusableNameError as error:
            return Ended(failure=Failure(reason=Reason.BAD_INPUT, detail=str(error)))
        private = _Private(run)
        try:
            effective, dropped = build_config(config._config, request)
            made_with = deepcopy(effective)  # extractors and our cookies change it
            config._config.clear()
            config._config.update(effective)
            if request.rehearsal:
                _hold_still()
            if dropped:
                logging.getLogger("config").info(
                    "dropped %d post-processor(s) with the placeholder command %r", dropped, PLACEHOLDER
                )
            found = extractor.find(request.url)
            if found is None:
                return Ended(failure=Failure(reason=Reason.NO_EXTRACTOR, detail=request.url))
            try:
                private.take_cookies(found.category, found.basecategory, redaction)
            except cookies.UnreadableCookiesError as error:
                return Ended(failure=Failure(reason=Reason.COOKIES_UNREADABLE, detail=str(error)))
            redaction.learn(secrets_in(config._config))
            redaction.learn(_secrets_of_the_home())
            _guard_network(run, redaction)
            _make_sleep_interruptible(run)
            _run_job(run, found)
            told = _tell_landings(run)
            gaps = evidence.gaps()
            if run.stopped:
                return Ended(stopped=True, landings_told=told)
            if run.rate_limited is not None and evidence.failure is None:
                detail = f"the site asks to wait {run.rate_limited:.0f} s"
                failure = Failure(reason=Reason.RATE_LIMITED, detail=detail)
                return Ended(failure=failure, again_after=run.rate_limited, landings_told=told)
            if evidence.failure is None and not gaps and not request.rehearsal:
                private.return_cookies()
            how = (request.url, type(found).__name__, gallery_dl.__version__, *private.login())
            mark = fingerprint(made_with, *how)
            return Ended(
                gaps=gaps,
                failure=evidence.failure,
                fingerprint=mark,
                ids_are_stable=run.ids_are_stable,
                landings_told=told,
            )
        finally:
            private.clear()


def _secrets_of_the_home() -> Iterator[str]:
    """Of ~/.netrc, which the option `netrc` reads, and of proxies that the environment names."""
    with contextlib.suppress(OSError, netrc.NetrcParseError, UnicodeDecodeError):
        yield from (login[2] for login in netrc.netrc().hosts.values() if login[2])
    for name, value in os.environ.items():
        if name.lower().endswith("_proxy"):
            yield from passwords_in(value)


def _hold_still() -> None:
    """In a rehearsal: nothing of what a configuration writes or starts beside the files. Not in `build_config`, since the
    listing is made in the same way, and has the same fingerprint."""
    config._config.update({"cookies-update": False, "write-pages": False})
    actions.ACTIONS["exec"] = lambda _: (None, lambda _: None)


def _run_job(run: Run, found: Any) -> None:
    """Run gallery-dl's job to its end. Its exit status is ignored: 0 proves nothing."""
    job = type("RunJob", (MirrorJob,), {"run_state": run})(found)
    run.extractor = job.extractor
    run.open_lanes(_lane_count(job.extractor, run.request.lanes))
    try:
        job.run()
    except (exception.ControlException, SystemExit):
        pass  # noted where it was raised
    except Exception as error:  # before the listing began: a login, an option
        if run.evidence.failure is None:
            run.evidence.fail(classify(error))
    finally:
        run.lanes.close()


def _tell_landings(run: Run) -> bool:
    """Report what has got its name and was not told of: by a killed process, or since something broke behind the rename.
    False when that cannot be said of all of them now."""
    if run.request.rehearsal or run.broken or run.disk.has_gone():
        return False
    root = run.request.content_root
    try:
        for landing in run.names.left_behind(run.hooks.told):
            listed = landing.remote_id in run.seen
            run.hooks.on_file_left(landing.remote_id, f"{root}/{landing.path}", landing.url, listed=listed)
    except OSError as error:
        logging.getLogger("landing").warning("a file that has come in cannot be read: %s", error)
        return False
    return not (run.request.refresh_changed and run.names.has_newer_versions(run.hooks.told))


def _lane_count(found: Any, default: int) -> int:
    """The option `lanes` of the site in the gallery-dl configuration, or what the service is set to."""
    lanes = found.config("lanes")
    return lanes if isinstance(lanes, int) and not isinstance(lanes, bool) and lanes >= 1 else default


class _Private:
    """The copies of cookie files that belong to this run alone."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._folder = run.request.run_folder / "cookies"
        self._copies: list[tuple[Path, Path, dict[cookies.Key, str]]] = []
        shutil.rmtree(self._folder, ignore_errors=True)

    def take_cookies(self, category: str, basecategory: str, redaction: Redaction) -> None:
        """Point the configuration to private copies of the cookie files that this category asks for, and of those
        that linked galleries of other sites may ask for.

        A file in CONFIG_PATH/cookies counts where the template names none. Raises `UnreadableCookiesError`.
        """
        named = list(cookie_files(config._config, category, basecategory))
        for section, name in named:
            section["cookies"] = str(self._copy(Path(name).expanduser(), redaction, ours=True))
        for section, name in list(cookie_files(config._config, *config._config["extractor"])):
            if Path(name).parent == self._folder:
                continue
            try:
                section["cookies"] = str(self._copy(Path(name).expanduser(), redaction))
            except cookies.UnreadableCookiesError as error:
                logging.getLogger("cookies").warning("%s", error)
        shared = self._run.request.cookies_folder
        for file in sorted(shared.glob("*.txt")) if shared.is_dir() else ():
            section = config._config["extractor"].setdefault(file.stem, {})
            if not isinstance(section, dict) or "cookies" in section or (file.stem == category and named):
                continue
            try:
                section["cookies"] = str(self._copy(file, redaction, ours=file.stem == category))
            except cookies.UnreadableCookiesError as error:
                if file.stem == category:
                    raise
                logging.getLogger("cookies").warning("%s", error)

    def _copy(self, file: Path, redaction: Redaction, *, ours: bool = False) -> Path:
        """`ours`: it is for the site of this run, not only for what its listing may link to."""
        with writing_to(f"RUNTIME_PATH ({self._run.request.run_folder.parent.parent})"):
            self._folder.parent.mkdir(0o700, parents=True, exist_ok=True)
            copy = cookies.copy_private(file, self._folder)
        before = cookies.read_cookies(copy)
        self._copies.append((file, copy, before))
        redaction.learn(cookies.secrets_of(copy))
        if ours and before and all(cookies.has_expired(line, time.time()) for line in before.values()):
            # A visitor's listing looks whole, and lacks what only members see.
            self._run.evidence.gap(Reason.COOKIES_EXPIRED, f"all cookies in {file.name} have expired")
        return copy

    def return_cookies(self) -> None:
        for file, copy, before in self._copies:
            try:
                changed = cookies.merge_back(before, cookies.read_cookies(copy), file)
            except cookies.ReadOnlyError:
                said = file.parent == self._run.request.cookies_folder  # by the service, at its start
                level = logging.DEBUG if said else logging.WARNING
                logging.getLogger("cookies").log(level, "renewed cookies are not saved: %s cannot be written", file)
            except (OSError, cookies.UnreadableCookiesError) as error:
                logging.getLogger("cookies").warning("changed cookies could not be saved: %s", error)
            else:
                if changed:
                    logging.getLogger("cookies").info("%d cookie(s) in %s were renewed by the site", changed, file.name)

    def login(self) -> list[str]:
        """Which cookies the run began with that had not expired: who looks decides what is seen."""
        now = time.time()
        lines = [line for _, _, before in self._copies for line in before.values()]
        return sorted(" ".join(cookies.name_of(line)) for line in lines if not cookies.has_expired(line, now))

    def clear(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        self._run.clear_parts()


@contextlib.contextmanager
def _source_lock(run: Run) -> Iterator[bool]:
    """Hold the lock of a source; `False` when an earlier process still has it. One byte of one file for each source:
    network shares know such locks, programs that we start do not inherit them, and nothing is left behind."""
    if run.request.lock_file is None:
        yield True
        return
    run.disk.check_there()
    with writing_to(f"CONTENT_ROOT ({run.request.content_root})"):
        handle = os.open(run.request.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        yield _lock(handle, run.request.source_id, run.report)
    finally:
        os.close(handle)


def _lock(handle: int, source_id: int, report: Report) -> bool:
    until = time.monotonic() + LOCK_WAIT
    while True:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, source_id)
        except OSError as error:
            if error.errno in _NO_LOCKS:
                report(Unlocked(error.strerror or ""))
                return True
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        else:
            return True


def _guard_network(run: Run, redaction: Redaction) -> None:
    request, evidence = run.request, run.evidence
    networks = request.allowed_networks
    if networks is not None:
        refuse_private_addresses(networks, proxies_in(config._config, getproxies()), evidence.refuse)
    last_sign = 0.0

    def before(asked: requests.PreparedRequest, options: Mapping[str, Any]) -> None:
        if not evidence.transferring:
            run.wait_for_site()
        evidence.begin_request()
        if networks is not None:
            try:
                check_behind_proxy(str(asked.url), options.get("proxies") or {}, networks)
            except ForbiddenAddress as error:
                evidence.refuse(error)
                raise

    def after(asked: requests.PreparedRequest, answer: requests.Response) -> bool:
        nonlocal last_sign
        evidence.observe(str(asked.method), str(asked.url), answer.status_code, answer.headers)
        if (set_cookie := answer.headers.get("Set-Cookie")) is not None:
            redaction.learn(cookies.values_set_by(set_cookie))
        if time.monotonic() - last_sign > 1:
            last_sign = time.monotonic()
            run.report(Waiting(0))
        incoming = evidence.incoming
        return incoming is None or incoming.take(asked, answer, evidence.validator)

    watch_requests(before, after)
    bound_pages(evidence.complain)
    watch_reading(request.limits, evidence.complain)


def _make_sleep_interruptible(run: Run) -> None:
    """gallery-dl waits with `time.sleep`, for minutes if a site asks for it: say so, keep to what the site asked
    for, and wake up when told to stop."""

    def sleep(seconds: float) -> None:
        why, asked = "", False
        if not run.evidence.transferring and run.evidence.retry_after is not None:
            seconds, run.evidence.retry_after = run.evidence.retry_after, None
            why, asked = "the site asks for fewer requests", True
        if seconds > run.request.rate_limit_max_wait:
            run.continue_later(seconds)
        elif seconds >= 1:
            run.report(Waiting(seconds, why, asked))
        if run.halt.wait(seconds):
            raise exception.TerminateExtraction()

    time.sleep = sleep  # type: ignore[assignment]
