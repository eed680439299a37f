"""Removals against a model: whatever the remote, the people here and the machine do, no file is lost.

Real: the runner, the recorder, the remover, the catalog on SQLite, and the folder. What the model knows of each file
it keeps by itself; of the rule that is tested it uses nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import math
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Concatenate

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from http_downloader.catalog import journal, removals, schema
from http_downloader.catalog.calls import CatalogCalls, P, R
from http_downloader.catalog.engine import Catalog, open_catalog
from http_downloader.catalog.removals import StoredFile
from http_downloader.domain.errors import ContentError, SourceBusyError
from http_downloader.domain.events import Event, EventType
from http_downloader.domain.files import FileState
from http_downloader.domain.listing import Failure, Gap
from http_downloader.domain.orders import Order
from http_downloader.domain.reasons import Reason
from http_downloader.domain.removals import Policy, Probe, RemoteDeletes, Served
from http_downloader.gallery.disk import Disk
from http_downloader.gallery.landing import Landing
from http_downloader.gallery.lease import now
from http_downloader.gallery.messages import Ended, FromRun, Listed, Outcome, RunRequest, Trashed
from http_downloader.gallery.names import Names, Standing
from http_downloader.sync.lease import Lease
from http_downloader.sync.recorder import Outlet
from http_downloader.sync.removal import Remover
from http_downloader.sync.runner import Runner, RunnerSettings
from http_downloader.sync.scripts import HookScripts
from http_downloader.sync.trash import TRASH_FOLDER, Trash

FOLDER = "gallery"
OWNER = "worker"
HOUR = timedelta(hours=1)
RETENTION = timedelta(days=30)
LEASE = timedelta(days=10_000)
HERE = (FileState.PRESENT, FileState.MISSING)
GONE = (FileState.TRASHED, FileState.REMOVED)

# The remote


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """A file at the site."""

    remote_id: str
    name: str
    url: str
    content: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """How the site answers one run."""

    kind: str = "complete"
    """complete; logged-out: nothing; gap: a part, and a reason against it; failure: a part, then an error; crash: the
    same without a last word."""
    part: int = 0
    fingerprint: str = "f1"
    ids_are_stable: bool = True
    failing: str | None = None
    """The transfer of this file fails."""


class Site:
    """What the site shows and serves, in the model."""

    def __init__(self) -> None:
        self.listed: dict[str, Remote] = {}
        self.lost: dict[str, Remote] = {}
        """Was listed, and is not now."""
        self.answers: dict[str, Served] = {}
        """To a request for a file that is not listed; `GONE` where nothing else is said."""
        self.visit = Visit()
        self.shown: list[str] = []
        """By the last run."""

    def is_served(self, url: str) -> Served:
        if any(file.url == url for file in self.listed.values()):
            return Served.SERVED
        return self.answers.get(url, Served.GONE)


class StandIn:
    """What the parent sees of a gallery process (`gallery.pool.GalleryProcess`), made in this process.

    No gallery process is started: 2,000 steps of real ones take half an hour, and what a real one says after each
    kind of trouble is shown elsewhere, with a real site. The parent cannot tell the two apart: it gets the messages
    that the child would send, for files that lie in the folder where the child would have put them.
    """

    pid = 0

    def __init__(self, site: Site, request: RunRequest) -> None:
        self._site = site
        self._request = request
        self._names = Names(request, Disk(request), lambda path: False)
        self._told_of: set[str] = set()
        self.ended = Ended(failure=Failure(reason=Reason.CRASHED))

    async def batches(self) -> AsyncIterator[list[FromRun]]:
        visit, site = self._site.visit, self._site
        files = list(site.listed.values())
        if visit.kind == "logged-out":
            files = []
        elif visit.kind != "complete":
            files = files[: visit.part % (len(files) + 1)]
        site.shown = []
        for start in range(0, len(files), 3):
            page = files[start : start + 3]
            site.shown += [file.remote_id for file in page]
            yield [self._take(file) for file in page]
        if visit.kind == "crash":
            return
        yield [self._left(landing) for landing in self._names.left_behind(self._told_of)]
        how = Ended(fingerprint=visit.fingerprint, ids_are_stable=visit.ids_are_stable, landings_told=True)
        if visit.kind == "gap":
            how = replace(how, gaps=(Gap(reason=Reason.NARROWED),))
        if visit.kind == "failure":
            how = replace(how, failure=Failure(reason=Reason.SERVER_ERROR))
        self.ended = how

    async def renew(self, until: float) -> None:
        pass

    def _take(self, file: Remote) -> Listed:
        """As `gallery.job.MirrorJob._decide` does."""
        known = self._request.known.get(file.remote_id)
        trashed = self._request.trashed.get(file.remote_id)
        if trashed is not None:
            return self._restored(file, trashed) or self._fetched(file)
        if known is not None and known.path is not None and self._names.is_file(known.path):
            return Listed(remote_id=file.remote_id, outcome=Outcome.KEPT, filename=self._filename(known.path))
        if known is not None and known.is_left_alone:
            return Listed(remote_id=file.remote_id, outcome=Outcome.PASSED)
        place = self._names.settle(f"{FOLDER}/{file.name}", file.remote_id)
        if place.standing is Standing.FREE:
            return self._fetched(file)
        found = (self._request.content_root / place.path).read_bytes()
        outcome = Outcome.DOWNLOADED if place.standing is Standing.LANDED else Outcome.ADOPTED
        return self._told(file, outcome, place.path, found)

    def _restored(self, file: Remote, trashed: Trashed) -> Listed | None:
        """As `gallery.restore.Restore` does."""
        copy = self._request.content_root / trashed.trash_path
        if not copy.is_file() or digest(copy.read_bytes()) != trashed.sha256:
            return None
        found = copy.read_bytes()
        place = self._names.settle(trashed.path, file.remote_id)
        if place.standing is not Standing.FREE:
            return None
        self._names.will_land(place.path, file.remote_id, file.url)
        if not self._names.move(str(copy), place.path, replace=False):
            return None
        return self._told(file, Outcome.DOWNLOADED, place.path, found)

    def _fetched(self, file: Remote) -> Listed:
        if self._site.visit.failing == file.remote_id:
            failure = Failure(reason=Reason.FILES_FAILED, detail=file.name)
            return Listed(remote_id=file.remote_id, outcome=Outcome.FAILED, url=file.url, failure=failure)
        while True:
            place = self._names.settle(f"{FOLDER}/{file.name}", file.remote_id)
            if place.standing is Standing.FREE:
                break
            found = (self._request.content_root / place.path).read_bytes()
            if found == file.content:
                return self._told(file, Outcome.ADOPTED, place.path, found)
            self._names.leave_alone(place.path)
        self._names.will_land(place.path, file.remote_id, file.url)
        (self._request.content_root / place.path).write_bytes(file.content)
        return self._told(file, Outcome.DOWNLOADED, place.path, file.content)

    def _left(self, landing: Landing) -> Listed:
        """As `gallery.child._tell_landings` does."""
        found = (self._request.content_root / landing.path).read_bytes()
        return Listed(
            remote_id=landing.remote_id,
            outcome=Outcome.DOWNLOADED if landing.remote_id in self._site.shown else Outcome.LEFT,
            filename=self._filename(landing.path),
            url=landing.url,
            size=len(found),
            sha256=digest(found),
        )

    def _told(self, file: Remote, outcome: Outcome, path: str, found: bytes) -> Listed:
        self._told_of.add(file.remote_id)
        return Listed(
            remote_id=file.remote_id,
            outcome=outcome,
            filename=self._filename(path),
            url=file.url,
            size=len(found),
            sha256=digest(found),
        )

    def _filename(self, path: str) -> str:
        return path.removeprefix(f"{FOLDER}/")

    async def is_served(self, url: str) -> Served:
        return self._site.is_served(url)

    async def addresses(self) -> dict[str, str]:
        return {remote_id: self._site.listed[remote_id].url for remote_id in self._site.shown}

    async def answer(self, held: bool) -> None: ...

    async def stop(self) -> None: ...

    async def kill(self) -> None: ...

    async def close(self) -> None: ...


class StandInPool:
    """`started`: called before a run begins to list."""

    def __init__(self, site: Site, started: Callable[[], None]) -> None:
        self._site = site
        self._started = started

    async def run(self, request: RunRequest) -> StandIn:
        self._started()
        return StandIn(self._site, replace(request, lease_until=math.inf))  # its end would be ours


# The machine


class Killed(Exception):
    """The worker is not there any more."""


class MortalCalls(CatalogCalls):
    """`last`: the transaction at which the worker is killed, and whether it is still committed."""

    last: tuple[Callable[..., Any], bool] | None = None

    async def __call__(self, function: Callable[Concatenate[Catalog, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.last is None or function is not self.last[0]:
            return await super().__call__(function, *args, **kwargs)
        if self.last[1]:
            await super().__call__(function, *args, **kwargs)
        raise Killed


DEATHS = {
    "after the intent": (removals.settle, True),
    "after the move": (removals.removed, False),
    "after the catalog has it": (removals.removed, True),
    "after the file is deleted": (removals.emptied, False),
}
DEATHS_OF_APPROVAL = {
    "after the intent": (removals.intend, True),
    "after the move": (removals.removed_by_hand, False),
    "after the catalog has it": (removals.removed_by_hand, True),
}


@dataclass(frozen=True, slots=True)
class View:
    """All there is to see from outside."""

    rows: dict[str, dict[str, Any]]
    disk: dict[str, bytes]
    events: Counter[tuple[str, str]]
    """How many tell of which removal: the file's name, and whether it was moved to the trash or deleted."""


@dataclass(slots=True)
class Doings:
    """What the step that is under way may do to files."""

    removes: bool = False
    by_hand: bool = False
    policy: RemoteDeletes = RemoteDeletes.KEEP
    empties: frozenset[str] = frozenset()
    """Paths in the trash."""


class Removals(RuleBasedStateMachine):
    steps = 0
    removed = 0

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="removals-"))
        self.root = self.folder / "content"
        self.runtime = self.folder / "runtime"
        (self.root / FOLDER).mkdir(parents=True)
        (self.root / "mine.txt").write_bytes(b"nobody's business")
        self.outside = {self.folder / "beside.txt": b"outside"}
        for path, data in self.outside.items():
            path.write_bytes(data)
        (self.folder / "catalog.sqlite3").write_bytes(new_catalog())
        self.catalog = open_catalog(f"sqlite:///{self.folder / 'catalog.sqlite3'}")
        self.calls = MortalCalls(self.catalog, threads=1)
        self.loop = asyncio.Runner()
        self.site = Site()
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
        self.numbers = 0
        self.absences: dict[str, list[tuple[datetime, str]]] = {}
        """Of each file the complete listings in a row that did not show it."""
        self.pinned: set[str] = set()
        self.held_when_proven: set[tuple[str, int]] = set()
        """Files, each with the run whose plan holds it, that had been missing often enough when that plan was made."""
        self.deleted_here: set[str] = set()
        """Paths whose file the user has deleted."""
        self.moved_back: set[str] = set()
        """Remote ids of files that were out of the trash already when the worker was killed."""
        self.intended: set[str] = set()
        """Remote ids of files that were proven gone and about to be removed when the worker was killed."""
        self.trashed_at: dict[str, datetime] = {}
        """By path in the trash."""
        self.doings = Doings()
        self.view = View({}, {}, Counter())

    def teardown(self) -> None:
        self.calls.close()
        self.loop.close()
        shutil.rmtree(self.folder)

    @initialize(
        action=st.sampled_from([RemoteDeletes.TRASH] * 4 + [RemoteDeletes.DELETE] * 2 + [RemoteDeletes.KEEP]),
        confirmations=st.sampled_from([2, 2, 3]),
        probe=st.sampled_from([Probe.HOLD, Probe.HOLD, Probe.IGNORE]),
        max_count=st.sampled_from([2, 100]),
        files=st.integers(4, 12),
    )
    def set_up(self, action: RemoteDeletes, confirmations: int, probe: Probe, max_count: int, files: int) -> None:
        self.policy = Policy(
            action=action, confirmations=confirmations, min_age=HOUR, max_count=max_count, max_share=0.6, probe=probe
        )
        for _ in range(files):
            self._add()
        self._run(Visit())

    # The remote

    def _add(self) -> Remote:
        self.numbers += 1
        name = f"set{self.numbers % 2}/{self.numbers}.jpg"
        file = Remote(
            remote_id=f"id{self.numbers}",
            name=name,
            url=f"https://example.org/{name}",
            content=f"picture {self.numbers}".encode(),
        )
        self.site.listed[file.remote_id] = file
        return file

    @rule(count=st.integers(1, 3))
    def remote_adds(self, count: int) -> None:
        for _ in range(count):
            self._add()

    @precondition(lambda self: self.site.listed)
    @rule(
        data=st.data(), count=st.sampled_from([1, 1, 2, 3]), served=st.sampled_from([Served.GONE, Served.GONE, *Served])
    )
    def remote_removes(self, data: st.DataObject, count: int, served: Served) -> None:
        for _ in range(min(count, len(self.site.listed))):
            file = self.site.listed.pop(data.draw(st.sampled_from(sorted(self.site.listed))))
            self.site.lost[file.remote_id] = file
            self.site.answers[file.url] = served

    @precondition(lambda self: self.site.lost)
    @rule(data=st.data(), served=st.sampled_from(Served))
    def remote_serves_otherwise(self, data: st.DataObject, served: Served) -> None:
        file = self.site.lost[data.draw(st.sampled_from(sorted(self.site.lost)))]
        self.site.answers[file.url] = served

    @precondition(lambda self: self.site.lost)
    @rule(data=st.data())
    def remote_brings_back(self, data: st.DataObject) -> None:
        file = self.site.lost.pop(data.draw(st.sampled_from(sorted(self.site.lost))))
        self.site.listed[file.remote_id] = file

    @precondition(lambda self: self.site.listed)
    @rule(data=st.data(), everything=st.sampled_from([False] * 5 + [True]), new_url=st.booleans())
    def remote_renames(self, data: st.DataObject, everything: bool, new_url: bool) -> None:
        """The same files under other ids."""
        ids = sorted(self.site.listed)
        for remote_id in ids if everything else [data.draw(st.sampled_from(ids))]:
            file = self.site.listed.pop(remote_id)
            self.site.lost[remote_id] = file
            self.numbers += 1
            url = f"https://example.org/v{self.numbers}/{file.name}" if new_url else file.url
            renamed = replace(file, remote_id=f"id{self.numbers}", url=url)
            self.site.listed[renamed.remote_id] = renamed

    # Runs

    @rule(
        rounds=st.integers(1, 4),
        wait=st.sampled_from([HOUR, HOUR, HOUR * 2, timedelta(minutes=40)]),
        fingerprint=st.sampled_from(["f1", "f1", "f1", "f2"]),
        ids_are_stable=st.sampled_from([True, True, True, False]),
        order=st.sampled_from([None, None, None, RemoteDeletes.KEEP]),
    )
    def run(
        self, rounds: int, wait: timedelta, fingerprint: str, ids_are_stable: bool, order: RemoteDeletes | None
    ) -> None:
        for _ in range(rounds):
            self.now += wait
            self._run(Visit(fingerprint=fingerprint, ids_are_stable=ids_are_stable), order)

    @rule(
        kind=st.sampled_from(["logged-out", "gap", "failure", "crash"]),
        part=st.integers(0, 20),
        rounds=st.integers(1, 2),
    )
    def run_that_proves_nothing(self, kind: str, part: int, rounds: int) -> None:
        for _ in range(rounds):
            self.now += HOUR
            self._run(Visit(kind=kind, part=part))

    @precondition(lambda self: self.site.listed)
    @rule(data=st.data())
    def run_with_a_failed_transfer(self, data: st.DataObject) -> None:
        """It says nothing against the listing."""
        self.now += HOUR
        self._run(Visit(failing=data.draw(st.sampled_from(sorted(self.site.listed)))))

    @rule(death=st.sampled_from(sorted(DEATHS)), moved=st.integers(0, 2), halfway=st.booleans())
    def run_that_is_killed(self, death: str, moved: int, halfway: bool) -> None:
        """`moved`: so many files were on their way when the worker died after the intent, the last of them perhaps
        with the first half of its move only."""
        self.now += HOUR
        self.calls.last = DEATHS[death]
        try:
            self._run(Visit())
        except Killed:
            if death == "after the intent":
                self._get_so_far(moved, halfway)
            self._died()
        finally:
            self.calls.last = None

    @rule(kind=st.sampled_from(["complete", "failure"]))
    def run_while_the_disk_is_not_mounted(self, kind: str) -> None:
        self.now += HOUR
        with Unmounted(self.root):
            self._run(Visit(kind=kind), mounted=False)

    def _run(self, visit: Visit, order: RemoteDeletes | None = None, *, mounted: bool = True) -> None:
        self.site.visit = visit
        self.site.shown = []
        submitted = Order(source_id=1, url="https://example.org/", content_path=FOLDER, remote_deletes=order)
        run = journal.submit(self.catalog, submitted, site="example.org", now=self.now).run
        claim = journal.claim(self.catalog, owner=OWNER, lease=LEASE, site_concurrency=1, run=run)
        assert claim is not None
        allowed = claim.order_deletes  # also of an earlier order that this run answers
        policy = self.policy.action.at_most(allowed) if allowed else self.policy.action
        self.doings = Doings(removes=True, policy=policy)
        pool = StandInPool(self.site, self.look if mounted else lambda: pytest.fail("it lists without its disk"))
        runner = Runner(
            self.calls,
            pool,  # type: ignore[arg-type]
            self._runner_settings(),
            outlet=OUTLET,
            remover=self._remover(),
            scripts=HookScripts({}, 1.0),
            observer=lambda claim, update: None,
        )
        expected = {key for key, row in self.view.rows.items() if row["state"] in HERE}
        try:
            self.loop.run(runner.perform(claim, Lease(claim, now()), cancel_is_final=True))
        finally:
            self._note_listing(visit, expected)
        if mounted:
            self.look()

    def _note_listing(self, visit: Visit, known: set[str]) -> None:
        shown = self.site.shown
        for remote_id in shown:
            self.absences.pop(remote_id, None)
        if visit.kind == "complete" and shown:
            here = {key for key, row in self._rows().items() if row["state"] in (*HERE, *GONE)} & known
            for remote_id in here - set(shown):
                self.absences.setdefault(remote_id, []).append((self.now, visit.fingerprint))

    def _remover(self) -> Remover:
        return Remover(self.calls, self.root, self.policy, RETENTION, OUTLET, clock=lambda: self.now)

    def _runner_settings(self) -> RunnerSettings:
        return RunnerSettings(
            content_root=self.root,
            runtime_path=self.runtime,
            cookies_folder=self.runtime,
            allowed_networks=None,
            refresh_changed=False,
            lanes=1,
            rate_limit_max_wait=1.0,
            attempts=1,
            retry_delay=HOUR,
            log_level=50,
            durable=False,
            min_free_space=0,
        )

    def _get_so_far(self, moved: int, halfway: bool) -> None:
        trash = Trash(self.root)
        going = [row for row, _ in removals.interrupted(self.catalog, 1) if (self.root / row.path).exists()][:moved]
        for row in going:
            if halfway and row is going[-1]:
                (self.root / str(row.trash_path)).parent.mkdir(parents=True, exist_ok=True)
                os.link(self.root / row.path, self.root / str(row.trash_path))
            else:
                assert trash.move(row.path, str(row.trash_path))

    def _died(self) -> None:
        """What the next start does first; and what is taken up again then was proven before."""
        journal.release(self.catalog, [OWNER])
        self.look()
        for row, _ in removals.interrupted(self.catalog, 1):
            assert self._is_proven(row.remote_id)
            self.intended.add(row.remote_id)

    # People

    def _in_place(self) -> list[str]:
        """Paths of files of the source that lie in the folder."""
        return sorted(path for path in self.view.disk if path.startswith(f"{FOLDER}/"))

    @precondition(lambda self: self._in_place())
    @rule(data=st.data(), in_place=st.booleans())
    def user_edits(self, data: st.DataObject, in_place: bool) -> None:
        path = self.root / data.draw(st.sampled_from(self._in_place()))
        self.numbers += 1
        size = path.stat().st_size
        edited = f"{self.numbers} edited".encode().ljust(size, b".")[: max(size, 12)]
        if in_place:
            path.write_bytes(edited)
        else:
            beside = path.with_name("new")
            beside.write_bytes(edited)
            beside.replace(path)
        self._accept()

    @precondition(lambda self: self._in_place())
    @rule(data=st.data())
    def user_deletes(self, data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(self._in_place()))
        (self.root / path).unlink()
        self.deleted_here.add(path)
        self._accept()

    @precondition(lambda self: self.view.rows)
    @rule(data=st.data())
    def user_pins(self, data: st.DataObject) -> None:
        remote_id = data.draw(st.sampled_from(sorted(self.view.rows)))
        removals.pin(self.catalog, [self.view.rows[remote_id]["id"]], True)
        self.pinned.add(remote_id)
        self.look()

    @precondition(lambda self: self.pinned)
    @rule()
    def user_unpins(self) -> None:
        removals.pin(self.catalog, [row["id"] for row in self.view.rows.values()], False)
        self.pinned.clear()
        self.look()

    @precondition(lambda self: self.view.rows)
    @rule(data=st.data())
    def user_forgets(self, data: st.DataObject) -> None:
        """What is not in its place any more: the command refuses others."""
        there = [
            key
            for key, row in self.view.rows.items()
            if row["path"] and (row["state"] in GONE or row["path"] not in self.view.disk)
        ]
        if there:
            file = self._stored(data.draw(st.sampled_from(sorted(there))))
            going = file.state is FileState.MISSING and file.trash_path is not None
            with pytest.raises(SourceBusyError) if going else contextlib.nullcontext():
                removals.forget(self.catalog, file)
            self.look()

    @rule(data=st.data())
    def user_wants(self, data: st.DataObject) -> None:
        forgotten = [key for key, row in self.view.rows.items() if row["state"] == FileState.FORGOTTEN]
        if forgotten:
            remote_id = data.draw(st.sampled_from(sorted(forgotten)))
            removals.want(self.catalog, self._stored(remote_id))
            self.pinned.discard(remote_id)
            self.look()

    def _stored(self, remote_id: str) -> StoredFile:
        (file,) = removals.find_files(self.catalog, 1, [remote_id])
        return file

    @precondition(lambda self: self._held())
    @rule(data=st.data(), death=st.sampled_from([None, None, *DEATHS_OF_APPROVAL]), moved=st.integers(0, 2))
    def user_approves(self, data: st.DataObject, death: str | None, moved: int) -> None:
        run = data.draw(st.sampled_from(sorted(self._held())))
        action = RemoteDeletes.TRASH if self.policy.action is RemoteDeletes.KEEP else self.policy.action
        self.doings = Doings(removes=True, by_hand=True, policy=action)
        if death is not None:
            self.calls.last = DEATHS_OF_APPROVAL[death]
        try:
            self.loop.run(self._remover().approve(run, "run"))
            self.look()
        except Killed:
            if death == "after the intent":
                self._get_so_far(moved, halfway=False)
            self._died()
        finally:
            self.calls.last = None

    @precondition(lambda self: self._held())
    @rule(data=st.data())
    def user_rejects(self, data: st.DataObject) -> None:
        run = data.draw(st.sampled_from(sorted(self._held())))
        self.pinned |= {key for key, row in self.view.rows.items() if row["hold_run"] == run}
        removals.reject(self.catalog, run)
        self.look()

    def _held(self) -> set[int]:
        return {row["hold_run"] for row in self.view.rows.values() if row["hold_run"] is not None}

    @precondition(lambda self: removals.trashed(self.catalog))
    @rule(data=st.data(), dies=st.sampled_from([False, False, False, True]))
    def user_restores(self, data: st.DataObject, dies: bool) -> None:
        file = data.draw(st.sampled_from(removals.trashed(self.catalog)))
        if dies:
            self.calls.last = removals.restored, False
        try:
            back = self.loop.run(self._remover().restore(file))
            if back is None:
                # An earlier try was cut off behind its move, and what it put back was taken for another remote file.
                assert not (self.root / str(file.trash_path)).exists()
                assert (self.root / file.path).is_file()
                return
            self.absences.pop(file.remote_id, None)
            self.moved_back.discard(file.remote_id)
            self.pinned.add(file.remote_id)
        except Killed:
            self.moved_back.add(file.remote_id)
        finally:
            self.calls.last = None
        self.look()

    @precondition(lambda self: removals.trashed(self.catalog))
    @rule(data=st.data())
    def user_empties_the_trash(self, data: st.DataObject) -> None:
        file = data.draw(st.sampled_from(removals.trashed(self.catalog)))
        self.doings = Doings(empties=frozenset({str(file.trash_path)}))
        self.loop.run(self._remover().empty([file]))
        self.look()

    # Time, and the machine

    @rule(
        time=st.sampled_from([HOUR, timedelta(days=1), timedelta(days=16), timedelta(days=31)]), mounted=st.booleans()
    )
    def time_passes(self, time: timedelta, mounted: bool) -> None:
        """And the service looks into the trash."""
        self.now += time
        if not mounted:
            with Unmounted(self.root), contextlib.suppress(ContentError):
                assert self.loop.run(self._remover().empty_expired()) == 0
            self.look()
            return
        expired = {path for path, since in self.trashed_at.items() if self.now - since > RETENTION}
        left = {str(row["trash_path"]) for row in self.view.rows.values() if row["state"] == FileState.REMOVED}
        self.doings = Doings(empties=frozenset(expired | left))
        self.loop.run(self._remover().empty_expired())
        self.look()
        assert not expired & self.view.disk.keys()

    # What is looked at

    def look(self) -> None:
        """Compare with the last look: what has changed, and was that allowed?"""
        before, after = self.view, self._see()
        self._check_rows(before, after)
        self._check_disk(before, after)
        self.view = after
        self._check_standing()

    def _accept(self) -> None:
        """What a person does in the folder is right."""
        self.view = self._see()

    def _see(self) -> View:
        with self.catalog.engine.connect() as db:
            told = db.execute(sa.select(schema.outbox.c.event)).scalars().all()
        events = Counter((event["subject"], event["body"]["removal"]) for event in told)
        return View(self._rows(), files_in(self.root), events)

    def _rows(self) -> dict[str, dict[str, Any]]:
        with self.catalog.engine.connect() as db:
            return {row["remote_id"]: dict(row) for row in db.execute(sa.select(schema.files)).mappings()}

    def _check_rows(self, before: View, after: View) -> None:
        """Every removal is allowed, and has its one event."""
        expected: Counter[tuple[str, str]] = Counter()
        for remote_id, row in after.rows.items():
            old = before.rows.get(remote_id)
            if row["hold_run"] is not None and self._is_proven(remote_id):
                self.held_when_proven.add((remote_id, row["hold_run"]))
            if row["state"] not in GONE or old is None or old["state"] not in HERE:
                continue
            Removals.removed += 1
            expected[remote_id, "trash" if row["state"] == FileState.TRASHED else "delete"] += 1
            self._check_removal(remote_id, old, row, before)
        new = after.events - before.events
        assert new == expected, f"events {new}, removals {expected}"
        assert not before.events - after.events

    def _check_removal(self, remote_id: str, old: dict[str, Any], row: dict[str, Any], before: View) -> None:
        assert self.doings.removes, f"{remote_id} was removed by nobody"
        assert self.doings.policy is not RemoteDeletes.KEEP or remote_id in self.intended
        recovers = remote_id in self.intended
        self.intended.discard(remote_id)
        # A person may approve an older plan, when listings that are made in another way count anew since.
        approved = self.doings.by_hand and (remote_id, old["hold_run"]) in self.held_when_proven
        assert recovers or approved or self._is_proven(remote_id), f"{remote_id} was not missing often enough"
        if row["state"] == FileState.TRASHED:
            self.trashed_at[row["trash_path"]] = self.now
        here = before.disk.get(old["path"])
        if here is None:
            return  # deleted by the user, or on its way already
        assert remote_id not in self.pinned, f"{remote_id} is pinned"
        assert digest(here) == old["sha256"], f"{remote_id} was edited"
        if row["state"] == FileState.REMOVED:
            assert self.doings.policy is RemoteDeletes.DELETE
        if recovers or self.doings.by_hand:
            return
        listed = {self.site.listed[shown].url for shown in self.site.shown}
        assert old["url"] not in listed, f"{remote_id} is listed under another id"
        if self.policy.probe is Probe.HOLD:
            assert self.site.is_served(old["url"]) is Served.GONE, f"{remote_id} is still served"

    def _is_proven(self, remote_id: str) -> bool:
        """So many complete listings in a row, made in one way, an hour apart, did not show it."""
        absences = list(self.absences.get(remote_id, []))
        if remote_id not in self.site.shown and self.site.visit.kind == "complete" and self.site.shown:
            absences.append((self.now, self.site.visit.fingerprint))
        counted: list[datetime] = []
        way = ""
        for at, fingerprint in absences:
            if fingerprint != way:
                counted, way = [], fingerprint
            if not counted or at - counted[-1] >= HOUR:
                counted.append(at)
        return len(counted) >= self.policy.confirmations

    def _check_disk(self, before: View, after: View) -> None:
        """Nothing that was there is lost or changed: it may have moved, into the trash or out of it."""
        came = {path: data for path, data in after.disk.items() if before.disk.get(path) != data}
        for path, data in before.disk.items():
            if after.disk.get(path) == data:
                continue
            assert path not in after.disk, f"{path} was overwritten"
            if path in self.doings.empties:
                continue
            in_trash = path.startswith(f"{TRASH_FOLDER}/")
            moved = [new for new, other in came.items() if other == data]
            if any(in_trash or new.startswith(f"{TRASH_FOLDER}/") for new in moved):
                continue
            if in_trash and data in [after.disk.get(row["path"]) for row in after.rows.values()]:
                continue  # the first half of its move had been made
            gone = [
                row
                for row in after.rows.values()
                if path in (row["path"], before.rows.get(row["remote_id"], {}).get("trash_path"))
            ]
            assert any(
                row["state"] == FileState.REMOVED and self.doings.policy is RemoteDeletes.DELETE for row in gone
            ), f"{path} is lost"

    def _check_standing(self) -> None:
        rows, disk = self.view.rows, self.view.disk
        for remote_id, row in rows.items():
            if row["state"] in HERE and row["path"] not in disk and row["path"] not in self.deleted_here:
                going = row["state"] == FileState.MISSING and row["trash_path"] in disk
                assert going, f"the file of {remote_id} is not in its place"
            if row["state"] == FileState.TRASHED and remote_id not in self.moved_back:
                assert digest(disk.get(row["trash_path"], b"")) == row["sha256"], f"{remote_id} is not in the trash"
        known = {row["trash_path"] for row in rows.values()}
        for path in disk:
            assert not path.startswith(f"{TRASH_FOLDER}/") or path in known, f"nobody knows of {path}"
        self.deleted_here -= disk.keys()

    @invariant()
    def nothing_happens_elsewhere(self) -> None:
        Removals.steps += 1
        self.doings = Doings()
        for path, data in self.outside.items():
            assert path.read_bytes() == data
        assert (self.root / "mine.txt").read_bytes() == b"nobody's business"
        assert {path.name for path in self.folder.iterdir()} <= {
            "content", "runtime", "beside.txt", "catalog.sqlite3", "catalog.sqlite3-wal", "catalog.sqlite3-shm"
        }  # fmt: skip


class Unmounted:
    """The folder without its disk."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._elsewhere = root.with_name("elsewhere")

    def __enter__(self) -> None:
        self._root.rename(self._elsewhere)
        self._root.mkdir()

    def __exit__(self, *error: object) -> None:
        self._root.rmdir()  # nothing was put there
        self._elsewhere.rename(self._root)


async def _publish(events: Sequence[Event]) -> None: ...


OUTLET = Outlet(types=frozenset({EventType.FILE_REMOVED}), publish=_publish, wake=lambda: None)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def files_in(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".http-downloader" not in path.parts
    }


@functools.cache
def new_catalog() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "catalog.sqlite3"
        open_catalog(f"sqlite:///{file}").close()
        return file.read_bytes()


def run_machine(examples: int, steps: int, **more: Any) -> None:
    Removals.steps = Removals.removed = 0
    run_state_machine_as_test(
        Removals,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            **more,
        ),
    )
    print(f"{Removals.steps} steps, {Removals.removed} removals")


@pytest.mark.timeout(600)
def test_no_file_is_lost_whatever_happens() -> None:
    run_machine(60, 50, derandomize=True)
    assert Removals.steps >= 2000
    assert Removals.removed >= 30


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_no_file_is_lost_whatever_happens_for_long() -> None:
    run_machine(1000, 80, print_blob=True)
