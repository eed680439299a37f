"""Every error that a person can meet is one of ours: a line that names the thing and the remedy, and an exit code.

The classes, the faults of orders and the reasons of runs are looked up in the code: a new one without a case here fails.
"""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import textwrap
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from http_downloader.catalog import journal
from http_downloader.catalog.engine import open_catalog, utcnow
from http_downloader.domain import errors
from http_downloader.domain.errors import DownloaderError, Exit, OrderFault
from http_downloader.domain.orders import make_order
from http_downloader.domain.reasons import Kind, Reason
from http_downloader.domain.runs import RunState
from http_downloader.gallery.pool import NoProcessError
from tests.installation import COMMAND, Installation, Service, wait_until
from tests.site import FaultySite, status

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A command that ends with an error. `thing` and `remedy` are parts of its line; `before` prepares the machine."""

    command: tuple[str, ...]
    thing: str
    remedy: str
    settings: dict[str, str] = field(default_factory=dict)
    before: Callable[[Installation], Any] | None = None
    stream: str = "stderr"


@contextmanager
def nobody_answers(machine: Installation) -> Iterator[None]:
    """The broker's port is taken by a program that says nothing to the purpose."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    machine.set(AMQP_URL=f"amqp://guest:guest@127.0.0.1:{port}/%2F")
    yield


@contextmanager
def newer_catalog(machine: Installation) -> Iterator[None]:
    machine.run("sources")
    with closing(sqlite3.connect(machine.runtime / "catalog.sqlite3")) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
        db.execute("UPDATE catalog SET works_with = '9999'")
        db.commit()
    yield


@contextmanager
def damaged_catalog(machine: Installation) -> Iterator[None]:
    machine.runtime.mkdir(exist_ok=True)
    (machine.runtime / "catalog.sqlite3").write_bytes(b"no database " * 1000)
    yield


@contextmanager
def no_folder(machine: Installation) -> Iterator[None]:
    machine.content.write_text("a file in the folder's place")
    yield


@contextmanager
def broken_gallery_dl(machine: Installation) -> Iterator[None]:
    package = machine.home / "broken" / "gallery_dl"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import os\nos._exit(1)\n")
    machine.set(PYTHONPATH=f"{package.parent}:{machine.env.get('PYTHONPATH', '')}")
    yield


@contextmanager
def taken_port(machine: Installation) -> Iterator[None]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        machine.set(HTTP_PORT=listener.getsockname()[1])
        yield


URL = "http://127.0.0.1:1/a.jpg"

CASES: dict[type[DownloaderError], Case] = {
    errors.SettingsError: Case(
        command=("sources",),
        settings={"SYNC_ATTEMPTS": "many"},
        thing="SYNC_ATTEMPTS has the wrong value 'many'",
        remedy="a whole number is allowed",
    ),
    errors.OrderRejected: Case(command=("sync", "ftp://host/a"), thing="'ftp://host/a'", remedy="url must be http://"),
    errors.CatalogError: Case(
        command=("sources",), before=damaged_catalog, thing="not a database", remedy="put a backup in its place"
    ),
    errors.OutgrownError: Case(
        command=("sources",), before=newer_catalog, thing="has schema 9999", remedy="; upgrade http-downloader"
    ),
    errors.BrokerError: Case(
        command=("doctor", "--quiet"),
        before=nobody_answers,
        thing="Connection refused",
        remedy="; is RabbitMQ up? Else set RABBITMQ_HOST",
        stream="stdout",
    ),
    errors.GalleryError: Case(
        command=("sync", URL),
        before=broken_gallery_dl,
        thing="gallery-dl could not be loaded",
        remedy="; try: python -m gallery_dl --version",
    ),
    errors.ContentError: Case(
        command=("sync", URL), before=no_folder, thing="CONTENT_ROOT cannot be used: /", remedy="; make that folder, or"
    ),
    errors.WebError: Case(
        command=("serve",), before=taken_port, thing="HTTP_HOST 127.0.0.1, HTTP_PORT", remedy="; set another HTTP_PORT"
    ),
}
"""One line for each class; those that need more than a command are below."""

ELSEWHERE: dict[type[DownloaderError] | OrderFault | Reason, str] = {
    errors.SourceBusyError: "test_catalog.py::test_a_person_waits_for_the_run_of_a_source",
    NoProcessError: "test_disk_faults.py::test_too_many_open_files_in_the_service",
    errors.LeaseLost: "test_catalog.py::test_a_zombie_writes_nothing",
    Reason.BUSY: "test_leases.py::test_a_frozen_machine_lands_no_file_when_it_thaws",
    Reason.ROOT_NOT_MOUNTED: "test_removals.py::test_the_content_root_is_not_mounted",
    Reason.COOKIES_EXPIRED: "test_removals.py::test_a_cookie_expires_and_the_site_shows_less",
    Reason.EMPTY_LISTING: "test_endings.py::test_an_empty_listing_while_files_are_known",
    Reason.NARROWED: "test_endings.py::test_a_listing_that_an_option_narrows",
    Reason.CANCELLED: "test_endings.py::test_asked_to_stop",
    **dict.fromkeys(OrderFault, "test_bad_orders.py::test_bad_orders_are_rejected_and_good_ones_behind_them_served"),
}
"""What another test shows already, or needs more around it than there is here."""


def classes(root: type[DownloaderError] = DownloaderError) -> Iterator[type[DownloaderError]]:
    for found in root.__subclasses__():
        yield found
        yield from classes(found)


OURS = [found for found in classes() if found.__module__.startswith("http_downloader")]


@pytest.mark.parametrize("error", OURS, ids=lambda error: error.__name__)
def test_an_error_is_one_line_with_a_remedy(install: Callable[..., Installation], error: type[DownloaderError]) -> None:
    """Met at the command line: the thing, the remedy, no traceback, the exit code of its class."""
    if error in ELSEWHERE:
        return
    case = CASES[error]
    machine = install(**case.settings)
    with case.before(machine) if case.before is not None else closing(socket.socket()):
        done = machine.run(*case.command)
    told = getattr(done, case.stream)
    assert done.returncode == error.exit_code, done.stdout + done.stderr
    assert case.thing in told
    assert case.remedy in told
    assert told.count("\n") == 1
    assert "Traceback" not in done.stdout + done.stderr


def test_what_is_shown_elsewhere_is_there() -> None:
    """Each test that is named here exists, in a file that speaks of what it is named for."""
    for what, name in ELSEWHERE.items():
        file, _, test = name.partition("::")
        text = (ROOT / "tests" / "integration" / file).read_text()
        assert f"def {test}(" in text, name
        words = (what.__name__,) if isinstance(what, type) else (str(what), f"{type(what).__name__}.{what.name}")
        assert any(word in text for word in words) or isinstance(what, OrderFault), (what, name)


# The reasons of runs

REASONS_EXTRACTOR = r"""
    import json, os, threading
    from gallery_dl import exception
    from gallery_dl.extractor.common import Extractor, Message

    class OwnExtractor(Extractor):
        category = "own"
        subcategory = "files"
        filename_fmt = "{name}.{extension}"
        archive_fmt = "{name}"
        pattern = r"(https?://127\.0\.0\.1:\d+)/own/([\w-]+)"

        def items(self):
            self.name = self.groups[1]
            yield from self.file("/direct/1.png")
            yield from getattr(self, self.name.replace("-", "_"))() or ()

        def file(self, path):
            metadata = {"name": f"{self.name} {path[8]}", "extension": "png"}
            yield Message.Directory, "", metadata
            yield Message.Url, self.groups[0] + path, metadata

        def ask(self, path, **options):
            self.request(self.groups[0] + path, **options)

        def unreachable(self):
            self.request("http://127.0.0.1:1/", retries=0)
        def server_error(self):
            self.ask("/status/500")
        def rate_limited(self):
            self.ask("/status/429")
        def challenged(self):
            raise exception.ChallengeError("a captcha", self.request(self.groups[0] + "/direct/1.png"))
        def unexpected_answer(self):
            json.loads("<html>")
        def extractor_error(self):
            raise ValueError("a page of another kind")
        def crashed(self):
            os.kill(os.getpid(), 9)
        def stalled(self):
            threading.Event().wait(100)
        def disk_full(self):
            raise OSError(28, "No space left on device")
        def storage_error(self):
            raise OSError(30, "Read-only file system")
        def files_failed(self):
            yield from self.file("/status/500.png")
        def login_required(self):
            self.ask("/status/401")
        def not_found(self):
            self.ask("/status/404")
        def bad_input(self):
            raise exception.InputError("no such option")
        def forbidden_address(self):
            self.request("http://10.0.0.1/")
        def stopped_early(self):
            raise exception.StopExtraction()
        def extractor_warning(self):
            self.log.warning("only the first page is shown to visitors")
        def error_ignored(self):
            self.ask("/status/404", fatal=None)
        def child_failed(self):
            yield Message.Queue, self.groups[0] + "/own/not-found", {"_extractor": OwnExtractor}
        def child_unsupported(self):
            yield Message.Queue, "https://no-such-site.invalid/album", {}

    class OwnMembersExtractor(OwnExtractor):
        category = "members"
        pattern = r"(https?://127\.0\.0\.1:\d+)/members/(cookies-unreadable)"
"""
PATHS = {Reason.COOKIES_UNREADABLE: "/members/cookies-unreadable", Reason.NO_EXTRACTOR: "/nobody/knows/this"}
"""Where the path is another one than `/own/<reason>`."""


def provoked_here() -> list[Reason]:
    return [reason for reason in Reason if reason not in ELSEWHERE]


def test_every_reason(install: Callable[..., Installation]) -> None:
    """One run for each: it ends with its reason, in a sentence of one line, transient, permanent or a gap as it should."""
    machine = install(
        SYNC_ATTEMPTS=1,
        SYNC_CONCURRENCY=8,
        SITE_CONCURRENCY=8,
        RUN_STALL_TIMEOUT=18,
        ALLOW_PRIVATE_ADDRESSES="127.0.0.1",
    )
    folder = machine.home / "extractors"
    folder.mkdir()
    (folder / "own.py").write_text(textwrap.dedent(REASONS_EXTRACTOR))
    members = {"cookies": str(machine.home / "no-such-cookies.txt")}
    fast = {"sleep-request": 0, "retries": 0, "sleep-429": 0}
    machine.configure({"extractor": {"module-sources": [str(folder), None], **fast, "members": members}})
    machine.run("sources")
    # Longest takes the process that says nothing (18 s), without any work.
    with FaultySite() as site:
        for code in (401, 404, 429, 500):
            site.rule(f"^/status/{code}", status(code))
        sources = dict(enumerate(provoked_here(), 1))
        submit(machine, {number: site.root + PATHS.get(reason, f"/own/{reason}") for number, reason in sources.items()})
        with Service(machine):
            wait_until(lambda: len(ended(machine)) == len(sources), 60, "the runs")
    runs = {sources[run["source_id"]]: run for run in machine.runs()}
    assert {reason: run["reason"] for reason, run in runs.items()} == {reason: str(reason) for reason in runs}
    for reason, run in runs.items():
        assert RunState(run["state"]) is (RunState.PARTIAL if reason.kind is Kind.GAP else RunState.FAILED), reason
        assert run["detail"], reason
        assert "\n" not in run["detail"], reason
        assert "Traceback" not in run["detail"], reason


def submit(machine: Installation, urls: dict[int, str]) -> None:
    """As intake does, without asking gallery-dl: a template may have changed between an order and its run."""
    with closing(open_catalog(f"sqlite:///{machine.runtime}/catalog.sqlite3")) as catalog:
        for source_id, url in urls.items():
            journal.submit(
                catalog, make_order(source_id, url, f"s{source_id}"), site="own", now=utcnow() - timedelta(1)
            )


def ended(machine: Installation) -> list[Any]:
    with closing(open_catalog(f"sqlite:///{machine.runtime}/catalog.sqlite3")) as catalog:
        return [run for run in journal.list_runs(catalog, source_id=None, limit=100) if RunState(run["state"]).ended]


# Defects, and what stands around a command


def test_a_failpoint_that_is_none(install: Callable[..., Installation]) -> None:
    """Garbage in FAULT_AT ends every command, before it does anything, with one line that says what is allowed."""
    for text, remedy in (
        ("nowhere", "there are: "),
        ("lane.write:0", "a number from 1"),
        ("lane.write=boom", "allowed"),
    ):
        done = install(FAULT_AT=text).run("sources")
        assert done.returncode == Exit.USAGE
        assert done.stderr.startswith("http-downloader: FAULT_AT ")
        assert remedy in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("shell", "code", "words"),
    [
        ("http-downloader sources >/dev/full", Exit.UNAVAILABLE, "writing has failed: No space left on device"),
        ("http-downloader sources >&- 2>&-", Exit.OK, ""),
        ("PYTHONIOENCODING=ascii http-downloader doctor >/dev/null 2>&-", Exit.OK, ""),
        ("mkdir gone; cd gone; rmdir ../gone; CONTENT_ROOT=rel http-downloader sources", Exit.USAGE, "a whole path is"),
        ("CONTENT_ROOT='~nobody_at_all/x' http-downloader sources", Exit.USAGE, "CONTENT_ROOT has the wrong value"),
        ("http-downloader sources edit 99999999999999999999 --remote-deletes keep", Exit.USAGE, "less than or equal"),
        ("http-downloader demo --folder /dev/null", Exit.UNAVAILABLE, "; name another --folder"),
        ("TMPDIR=/nowhere HOME=/dev/null RUNTIME_PATH=/dev/null http-downloader runs", Exit.UNAVAILABLE, "/dev/null"),
    ],
)
def test_a_hostile_surrounding(install: Callable[..., Installation], shell: str, code: int, words: str) -> None:
    """Closed and full outputs, characters that a terminal lacks, folders that are gone, numbers beyond all bounds."""
    machine = install()
    path = f"{COMMAND.parent}:{machine.env['PATH']}"
    done = subprocess.run(
        ["sh", "-c", shell],
        env=machine.env | {"PATH": path},
        cwd=machine.home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "should not have happened" not in done.stderr
    assert "Traceback" not in done.stderr
