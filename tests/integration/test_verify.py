"""`verify`: whatever has happened to the files of the mirror is told, what can be had again is fetched, and no repair makes
a file vanish that was here."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from http_downloader.catalog import files, journal
from http_downloader.catalog.engine import open_catalog, utcnow
from http_downloader.domain.files import FileFact, FileState
from http_downloader.domain.orders import FIRST_LOCAL_SOURCE_ID, Order
from http_downloader.domain.verification import Fault
from http_downloader.sync import verification
from http_downloader.sync.verification import Verification
from tests.installation import COMMAND, Installation, Service, wait_until
from tests.integration.test_catalog import database
from tests.queues import Queues
from tests.site import FaultySite, Post, hang, status

PLAIN: dict[str, Any] = {"sleep-request": 0, "retries": 0}
TEMPLATE = {"extractor": PLAIN | {"Danbooru": PLAIN}}


@dataclass
class Verified:
    code: int
    findings: list[dict[str, Any]]
    repairs: list[dict[str, Any]]
    total: dict[str, Any]

    def faults(self) -> dict[int, str]:
        """What is wrong with each post that is in the catalog."""
        return {number(line["path"]): line["finding"] for line in self.findings if line["remote_id"]}

    def results(self) -> dict[int, str]:
        return {number(line["path"]): line["repair"] for line in self.repairs}


def number(path: str) -> int:
    """The id of the post whose file this is."""
    found = re.search(r"_(\d+)_", path)
    assert found, path
    return int(found[1])


class Mirror:
    """A gallery of ten pictures, and its mirror in the folder `g`."""

    def __init__(self, machine: Installation, site: FaultySite, *, filled: bool = False) -> None:
        self.machine, self.site = machine, site
        self.url = f"Danbooru:{site.root}/posts?tags=demo"
        machine.configure(TEMPLATE)
        if not filled:
            self.sync()
        self.source_id = FIRST_LOCAL_SOURCE_ID

    def sync(self) -> None:
        done = self.machine.sync(self.url, "--to", "g")
        assert done.returncode == 0, done.stdout + done.stderr

    def file(self, post: int) -> Path:
        (found,) = (self.machine.content / "g").glob(f"*_{post}_{Post(id=post).md5}.png")
        return found

    def rot(self, post: int) -> bytes:
        """One bit of a file flips, as disks do it: its time stays. Returns the bytes that are there now."""
        file = self.file(post)
        before, body = file.stat(), bytearray(file.read_bytes())
        body[len(body) // 2] ^= 1
        file.write_bytes(body)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        return bytes(body)

    def verify(self, *arguments: str) -> Verified:
        done = self.machine.run("verify", "--json", *arguments)
        assert "Traceback" not in done.stderr
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        assert lines, done.stderr
        repairs = [line for line in lines[:-1] if "repair" in line]
        return Verified(done.returncode, [line for line in lines[:-1] if "repair" not in line], repairs, lines[-1])

    def body(self, post: int) -> bytes:
        return next(one for one in self.site.posts if one.id == post).content()

    def rows(self, where: str = "true") -> list[dict[str, Any]]:
        """Files of the catalog, read directly: the commands say the same, and take a second to start."""
        with contextlib.closing(
            sqlite3.connect(f"file:{self.machine.runtime}/catalog.sqlite3?mode=ro", uri=True)
        ) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(f"SELECT * FROM files WHERE {where} ORDER BY id")]

    def trashed(self) -> list[dict[str, Any]]:
        return self.rows("state = 'trashed' AND trash_path IS NOT NULL")

    def states(self) -> Counter[str]:
        return Counter(row["state"] for row in self.rows())


POSTS = range(1, 11)


@pytest.fixture(scope="module")
def only_site() -> Iterator[FaultySite]:
    with FaultySite() as site:
        yield site


@pytest.fixture
def site(only_site: FaultySite) -> FaultySite:
    only_site.remove(*(post.id for post in only_site.posts))
    only_site.add(*(Post(id=post) for post in POSTS))
    only_site.clear_rules()
    only_site.file_latency = 0
    return only_site


@pytest.fixture(scope="module")
def filled(only_site: FaultySite, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of a machine that has mirrored the gallery: made once, and copied for each test."""
    home = tmp_path_factory.mktemp("filled") / "home"
    only_site.add(*(Post(id=post) for post in POSTS))
    Mirror(Installation(home), only_site)
    return home


@pytest.fixture
def mirror(install: Callable[..., Installation], site: FaultySite, filled: Path) -> Mirror:
    machine = install(SYNC_ATTEMPTS=1, REMOVAL_MIN_AGE=0)
    shutil.copytree(filled, machine.home, dirs_exist_ok=True)
    return Mirror(machine, site, filled=True)


def everything(machine: Installation) -> tuple[dict[str, Any], list[Any]]:
    """Every file and folder with its time, and every row of the catalog."""
    disk = {
        str(path): (path.lstat().st_mtime_ns, path.lstat().st_ino, path.is_symlink())
        for path in machine.content.rglob("*")
    }
    with contextlib.closing(sqlite3.connect(f"file:{machine.runtime}/catalog.sqlite3?mode=ro", uri=True)) as db:
        return disk, db.execute("SELECT * FROM files ORDER BY id").fetchall()


# What is told


def test_each_finding(mirror: Mirror) -> None:
    """Everything that can be wrong with a file has a line, every file that is well has none, and nothing is touched."""
    machine = mirror.machine
    mirror.site.remove(9, 10)
    machine.set(REMOVAL_PROBE="ignore", REMOVAL_MAX_SHARE=100)
    mirror.sync()
    mirror.sync()
    trashed = {number(row["trash_path"]): machine.content / row["trash_path"] for row in mirror.trashed()}
    assert set(trashed) == {9, 10}
    assert mirror.verify().code == 0

    trashed[9].unlink()
    trashed[10].write_bytes(b"somebody looked for room here")
    mirror.file(1).unlink()
    mirror.rot(2)
    mirror.file(3).write_bytes(b"my edit")
    os.truncate(mirror.file(4), 100)
    os.utime(mirror.file(4), (0, 0))
    for post, make in ((5, lambda path: path.symlink_to("/etc/passwd")), (6, Path.mkdir)):
        place = mirror.file(post)
        place.unlink()
        make(place)
    own = machine.content / "g" / "own"
    own.mkdir()
    for name in ("notes.txt", "own/a.jpg", "own/a.jpg.part", b"not text \xff.jpg"):
        with open(os.path.join(os.fsencode(machine.content / "g"), os.fsencode(name)), "wb") as file:  # noqa: PTH118, PTH123
            file.write(b"x")
    (machine.content / "g" / "elsewhere").symlink_to(machine.content / ".trash")
    before = everything(machine)

    found = mirror.verify()
    quick = mirror.verify("--quick")
    words = machine.run("verify")
    assert everything(machine) == before
    assert found.code == quick.code == words.returncode == 3
    assert found.faults() == {
        1: "missing",
        2: "changed",
        3: "changed",
        4: "changed",
        5: "not-a-file",
        6: "not-a-file",
        9: "missing",
        10: "changed",
    }
    assert {number(line["path"]): line["edited"] for line in found.findings if line["finding"] == "changed"} == {
        2: False,
        3: True,
        4: False,
        10: True,
    }
    assert {line["path"] for line in found.findings if line["state"] == "trashed"} == {
        str(path.relative_to(machine.content)) for path in trashed.values()
    }
    unknown = {line["path"] for line in found.findings if line["finding"] == "unknown"}
    assert unknown == {"g/notes.txt", "g/own/a.jpg", "g/not text \ufffd.jpg", "g/elsewhere"}
    assert found.total | {"bytes": 0} == {
        "files": 10, "bytes": 0, "in_trash": 2, "without_hash": 0, "not_fetched_yet": 0, "missing": 2, "changed": 4,
        "unreadable": 0, "not_a_file": 2, "unknown": 4, "repaired": 0, "not_repaired": 0, "quick": False,
        "complete": True,
    }  # fmt: skip
    assert quick.faults() == {post: fault for post, fault in found.faults().items() if post != 2}
    assert quick.total["bytes"] == 0
    for line in (
        f"! missing    g/{place_of(found, 1)}",
        "other content than recorded; not written since: damaged?",
        "7 bytes, ",
        ": edited here?",
        "! not a file g/",
        "? unknown    g/notes.txt",
        "✗ not as recorded: 2 missing, 4 changed, 2 not a file of 10 files",
        "4 files that the catalog does not know",
    ):
        assert line in words.stdout


def place_of(found: Verified, post: int) -> str:
    return next(str(line["path"]).removeprefix("g/") for line in found.findings if number_or_none(line) == post)


def number_or_none(line: dict[str, Any]) -> int | None:
    return number(line["path"]) if line["remote_id"] else None


def test_all_well_but_for_what_nobody_measured(mirror: Mirror) -> None:
    """Exit code 0, and it is said of how many files only the size was compared, and which are not here at all. A file whose
    removal was cut off is not missing: it is where the removal has noted it."""
    machine = mirror.machine
    with contextlib.closing(sqlite3.connect(machine.runtime / "catalog.sqlite3")) as db:
        rows = [row[0] for row in db.execute("SELECT id FROM files ORDER BY id LIMIT 3")]
        db.execute("UPDATE files SET sha256 = NULL WHERE id IN (?, ?)", rows[:2])
        db.execute("UPDATE files SET state = 'failed' WHERE id = ?", rows[2:])
        path = db.execute("SELECT path FROM files ORDER BY id DESC").fetchone()[0]
        db.execute("UPDATE files SET state = 'missing', trash_path = ? WHERE path = ?", (f".trash/day/{path}", path))
        db.commit()
    (machine.content / ".trash/day/g").mkdir(parents=True)
    (machine.content / path).rename(machine.content / ".trash/day" / path)
    done = machine.run("verify")
    assert done.returncode == 0, done.stdout
    assert "✓ all well: 9 files" in done.stdout
    assert "2 files without a recorded hash" in done.stdout
    assert "1 file could not be fetched yet" in done.stdout


@pytest.mark.parametrize("repair", [(), ("--repair",)], ids=["verify", "repair"])
def test_a_disk_that_is_not_mounted(mirror: Mirror, repair: tuple[str, ...]) -> None:
    """Nothing is called missing: exit code 6, with the sentence that every command has for it."""
    away = mirror.machine.content.rename(mirror.machine.home / "away")
    mirror.machine.content.mkdir()
    done = mirror.machine.run("verify", *repair)
    assert (done.returncode, done.stdout) == (6, "")
    assert "CONTENT_ROOT is not the folder that the catalog speaks of" in done.stderr
    assert mirror.states() == {"present": 10}
    assert len(list((away / "g").iterdir())) == 10


def test_nothing_to_verify_against(install: Callable[..., Installation]) -> None:
    """A catalog that is not there is not made, and a source that is not there is named."""
    machine = install()
    done = machine.run("verify")
    assert done.returncode == 6
    assert "there is no catalog to verify against" in done.stderr
    assert not machine.runtime.exists()
    assert machine.rows("sources") == []
    done = machine.run("verify", "--source-id", "7")
    assert done.returncode == 2
    assert "there is no source 7" in done.stderr


# Repair


def test_a_repair(mirror: Mirror, queues: Queues) -> None:
    """Each kind of damage is made good by one run, which announces the files as downloaded. What somebody had edited is in
    the trash, comes back beside the file, and stays."""
    mirror.machine.set(**queues.settings)
    machine = mirror.machine
    mirror.file(1).unlink()
    rotten = mirror.rot(2)
    mirror.file(3).write_bytes(b"my edit")
    link = mirror.file(4)
    link.unlink()
    link.symlink_to("/etc/passwd")
    done = mirror.verify("--repair")
    assert done.code == 0, done
    assert done.results() == {1: "repaired", 2: "repaired", 3: "repaired", 4: "repaired"}
    told = queues.take("downloaded")
    assert sorted(number(message.json["filename"]) for message in told) == [1, 2, 3, 4]
    assert queues.count("synchronized") == 1

    assert [mirror.file(post).read_bytes() for post in (1, 2, 3)] == [mirror.body(post) for post in (1, 2, 3)]
    assert link.is_symlink()
    now_at = next(line["now_at"] for line in done.repairs if number(line["path"]) == 4)
    assert (machine.content / now_at).read_bytes() == mirror.body(4)
    copies = {number(row["path"]): row for row in mirror.trashed()}
    kept = {post: (machine.content / row["trash_path"]).read_bytes() for post, row in copies.items()}
    assert kept == {2: rotten, 3: b"my edit"}
    assert copies[3]["sha256"] == hashlib.sha256(b"my edit").hexdigest()

    name = mirror.file(3).name
    restored = machine.run("trash", "restore", name)
    assert restored.returncode == 0, restored.stderr
    beside = machine.content / restored.stdout.strip()
    assert beside.read_bytes() == b"my edit"
    mirror.sync()
    mirror.sync()
    assert beside.read_bytes() == b"my edit"
    assert mirror.file(3).read_bytes() == mirror.body(3)
    assert mirror.verify().code == 0


def test_a_repair_of_what_has_changed_at_the_site(mirror: Mirror) -> None:
    """The site's present version comes in, that is said, and the damaged copy of the older one is in the trash."""
    rotten = mirror.rot(1)
    mirror.site.add(Post(id=1, body=b"quite another picture"))
    done = mirror.machine.run("verify", "--repair")
    assert done.returncode == 0
    assert "the site has another version of it now" in done.stdout
    assert mirror.file(1).read_bytes() == b"quite another picture"
    (row,) = mirror.trashed()
    assert (mirror.machine.content / row["trash_path"]).read_bytes() == rotten
    assert mirror.verify().code == 0


@pytest.mark.long
def test_the_same_damage_twice(mirror: Mirror) -> None:
    """The copy of the first time is in the trash still, and in nobody's way."""
    rotten = {mirror.rot(1)}
    for _ in range(2):
        assert mirror.verify("--repair").results() == {1: "repaired"}
        assert mirror.file(1).read_bytes() == mirror.body(1)
        rotten.add(mirror.rot(1))
    assert len(rotten) == 1
    copies = [mirror.machine.content / row["trash_path"] for row in mirror.trashed()]
    assert [copy.read_bytes() for copy in copies] == [*rotten] * 2


def test_a_repair_of_what_the_site_has_lost(mirror: Mirror) -> None:
    """Listed no more, or answered with 404: that is said, and the damaged copies are where they were, the trash is empty.
    What fails for now can be repaired later."""
    bodies = {post: mirror.rot(post) for post in (1, 2, 3)}
    mirror.file(4).unlink()
    mirror.site.remove(1)
    gone = mirror.site.rule(Post(id=2).path, status(404))
    mirror.site.rule(Post(id=3).path, status(500))
    mirror.site.rule(Post(id=4).path, status(404))
    done = mirror.verify("--repair")
    assert done.code == 3
    assert done.results() == dict.fromkeys((1, 2, 3, 4), "not-repaired")
    why = {number(line["path"]): line["why"] for line in done.repairs}
    assert "not listed there any more; the copy that was here stays" in why[1]
    assert "404 or 410" in why[2]
    assert "could not be downloaded" in why[3]
    assert "404 or 410" in why[4]
    assert gone.fired >= 1
    assert {post: mirror.file(post).read_bytes() for post in bodies} == bodies
    assert mirror.trashed() == []
    assert not (mirror.machine.content / ".trash").exists() or not list((mirror.machine.content / ".trash").iterdir())
    assert mirror.states() == {"present": 8, "missing": 1, "failed": 1}

    mirror.site.clear_rules()
    done = mirror.verify("--repair")
    assert done.results() == {1: "not-repaired", 2: "repaired", 3: "repaired"}
    assert mirror.file(1).read_bytes() == bodies[1]
    assert mirror.file(4).read_bytes() == mirror.body(4)  # the run that repaired the others fetched it, too


@pytest.mark.long
def test_a_copy_whose_file_is_removed_meanwhile_stays(mirror: Mirror) -> None:
    """While a damaged copy is out of the way, the run finds its file gone for good: the copy comes back, and is pinned."""
    mirror.machine.set(SYNC_ATTEMPTS=2, REMOVAL_PROBE="ignore", REMOVAL_MAX_SHARE=100)
    rotten = mirror.rot(1)
    mirror.site.remove(1)
    mirror.site.rule(Post(id=2).path, status(500))  # makes a second listing in the same run
    mirror.file(2).unlink()
    done = mirror.verify("--repair")
    assert done.results() == dict.fromkeys((1, 2), "not-repaired")
    assert mirror.file(1).read_bytes() == rotten
    assert mirror.states() == {"present": 9, "removed": 1, "failed": 1}
    mirror.site.clear_rules()
    mirror.sync()
    mirror.sync()
    assert mirror.file(1).read_bytes() == rotten


def test_a_source_that_cannot_be_run(mirror: Mirror) -> None:
    """It is told why, its damaged copy stays, and the other sources are repaired all the same."""
    machine = mirror.machine
    assert machine.sync(f"{mirror.site.root}/direct/a.png", "--to", "h").returncode == 0
    (other,) = (machine.content / "h").iterdir()
    other.unlink()
    rotten = mirror.rot(1)
    with contextlib.closing(sqlite3.connect(machine.runtime / "catalog.sqlite3")) as db:
        db.execute("UPDATE sources SET url = 'https://example.org/no-gallery' WHERE id = ?", (mirror.source_id,))
        db.commit()
    done = machine.run("verify", "--repair")
    assert done.returncode == 3
    assert "https://example.org/no-gallery" in done.stdout
    assert "there was no run; the copy that was here stays" in done.stdout
    assert mirror.file(1).read_bytes() == rotten
    assert other.exists()


def test_a_disk_that_does_not_give_a_file(install: Callable[..., Installation], site: FaultySite) -> None:
    """An input/output error is a finding, and the repair puts a new file in the place of the unreadable one."""
    site.remove(*range(2, 11))
    mirror = Mirror(install(), site)
    mirror.machine.set(FAULT_AT="verify.read:*=broken")
    done = mirror.machine.run("verify")
    assert done.returncode == 3
    assert "! unreadable" in done.stdout
    assert "Input/output error" in done.stdout
    # It is looked at twice, read once more when it is set aside, and by then it is another file.
    mirror.machine.set(FAULT_AT=",".join(f"verify.read:{number}=broken" for number in (1, 2, 3)))
    found = mirror.verify("--repair")
    assert (found.code, found.results()) == (0, {1: "repaired"})
    assert mirror.file(1).read_bytes() == mirror.body(1)
    (copy,) = mirror.trashed()
    assert (mirror.machine.content / copy["trash_path"]).read_bytes() == mirror.body(1)


def test_a_repair_on_postgresql(install: Callable[..., Installation], site: FaultySite, tmp_path: Path) -> None:
    """The same on a server."""
    with database("postgresql", tmp_path) as url:
        mirror = Mirror(install(DATABASE_URL=url), site)
        mirror.file(1).unlink()
        mirror.rot(2)
        rotten = mirror.rot(3)
        mirror.site.remove(3)
        done = mirror.verify("--repair", "--source-id", str(mirror.source_id))
        assert (done.code, done.results()) == (3, {1: "repaired", 2: "repaired", 3: "not-repaired"})
        assert mirror.file(3).read_bytes() == rotten
        assert [row["size"] for row in mirror.machine.rows("trash")] == [len(mirror.body(2))]


# Cut off


def started(mirror: Mirror, *arguments: str) -> subprocess.Popen[str]:
    """As in a terminal, also where the tests run in the background of a shell, which has its jobs ignore Ctrl-C."""
    machine = mirror.machine
    return subprocess.Popen(
        [str(COMMAND), "verify", *arguments],
        env=machine.env,
        cwd=machine.home,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_verify(mirror: Mirror, number: signal.Signals) -> None:
    """Ctrl-C ends it at once, with what was found so far and exit code 130."""
    mirror.file(10).unlink()
    mirror.machine.set(FAULT_AT="verify.read:*=delay/2")
    with started(mirror) as process:
        assert process.stdout is not None
        assert "! missing" in process.stdout.readline()
        process.send_signal(number)
        rest = process.stdout.read()
        assert process.wait(20) == 130
    assert "interrupted" in rest
    assert "1 missing" in rest


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.long)])
def test_an_interrupted_repair(mirror: Mirror, number: signal.Signals) -> None:
    """While the site keeps it waiting: the run ends, and the damaged copy is in its place again."""
    rotten = mirror.rot(1)
    holding = mirror.site.rule(r"/posts\.json", hang(60))
    with started(mirror, "--repair") as process:
        wait_until(lambda: holding.fired, what="the listing")
        assert list((mirror.machine.content / "g").glob("*_1_*")) == []
        process.send_signal(number)
        assert process.stdout is not None
        assert "the copy that was here stays" in process.stdout.read()
        assert process.wait(20) == 130
    assert mirror.file(1).read_bytes() == rotten
    assert mirror.trashed() == []
    assert mirror.states() == {"present": 10}


@pytest.mark.parametrize("point", ["repair.after_intent", "repair.after_move"])
def test_a_killed_repair(mirror: Mirror, point: str) -> None:
    """Killed at its most delicate moments: nothing is lost, and the next repair goes on from there, whether the site still
    has the file or not."""
    bodies = {post: mirror.rot(post) for post in (1, 2)}
    mirror.machine.set(FAULT_AT=f"{point}:2")
    assert mirror.machine.run("verify", "--repair").returncode == -signal.SIGKILL
    mirror.machine.set(FAULT_AT="")
    everywhere = mirror.machine.on_disk().values()
    assert all(body in everywhere for body in bodies.values())
    mirror.site.remove(1)
    done = mirror.verify("--repair")
    assert done.results() | {2: "", 1: ""} == {2: "", 1: ""}
    assert mirror.file(1).read_bytes() == bodies[1]
    assert mirror.file(2).read_bytes() == mirror.body(2)
    (copy,) = mirror.trashed()
    assert (mirror.machine.content / copy["trash_path"]).read_bytes() == bodies[2]


# While a service runs


def test_beside_a_running_service(mirror: Mirror, queues: Queues) -> None:
    """What a run has changed and not yet told is no finding; and no repair touches the files of a source that is at work."""
    machine, site = mirror.machine, mirror.site
    machine.set(**queues.settings)
    site.add(*(Post(id=post) for post in range(11, 71)))
    holding = site.rule(Post(id=30).path, hang(60))
    order = {"source_id": mirror.source_id, "url": mirror.url, "content_path": "g"}
    with Service(machine) as service:
        queues.post(order)
        wait_until(lambda: queues.count("downloaded") > 10, what="downloads")
        found = mirror.verify()
        assert (found.code, found.findings) == (0, [])
        assert found.total["files"] > 20

        rotten = mirror.rot(1)
        wait_until(lambda: holding.fired, what="the file that never ends")
        mirror.file(2).unlink()
        busy = machine.run("verify", "--repair")
        assert busy.returncode == 3
        assert busy.stdout.count("not repaired") == 2
        assert f"a run of source {mirror.source_id} is under way" in busy.stdout
        assert mirror.file(1).read_bytes() == rotten
        service.kill()


def test_a_file_that_a_run_replaces_meanwhile(tmp_path: Path) -> None:
    """The new version lies there, and the catalog still has the older one: the run that says so in a moment is waited for.
    Without such a run it is a finding."""
    root = tmp_path / "content"
    (root / "g").mkdir(parents=True)
    catalog = open_catalog(f"sqlite:///{tmp_path / 'catalog.sqlite3'}")
    submitted = journal.submit(catalog, Order(source_id=1, url="https://x", content_path="g"), site="x", now=utcnow())
    claim = journal.claim(catalog, owner="w", lease=timedelta(minutes=1), site_concurrency=1)
    assert claim is not None
    assert claim.run == submitted.run

    def record(body: bytes) -> None:
        digest = hashlib.sha256(body).hexdigest()
        for name in ("a", "b"):
            fact = FileFact(
                remote_id=name,
                state=FileState.PRESENT,
                path=f"g/{name}",
                size=len(body),
                sha256=digest,
                downloaded=True,
            )
            files.record(catalog, claim, [fact], {}, utcnow())

    record(b"older")
    (root / "g/a").write_bytes(b"newer")
    (root / "g/b").write_bytes(b"newer")

    def found_while(say_so: Callable[[], None]) -> list[verification.Finding]:
        recording = threading.Timer(verification.GRACE / 4, say_so)
        recording.start()
        found = list(Verification(catalog, root).findings())
        recording.join()
        return found

    def record_new() -> None:
        fact = FileFact(remote_id="new", state=FileState.PRESENT, path="g/new", size=1, sha256=None, downloaded=True)
        files.record(catalog, claim, [fact], {}, utcnow())

    assert found_while(lambda: record(b"newer")) == []
    (root / "g/new").write_bytes(b"1")
    assert found_while(record_new) == []

    (root / "g/a").write_bytes(b"other")
    during = list(Verification(catalog, root).findings())
    assert [(finding.fault, finding.path, finding.running) for finding in during] == [(Fault.CHANGED, "g/a", True)]
    journal.release(catalog, ["w"])
    after = list(Verification(catalog, root).findings())
    assert [(finding.fault, finding.path, finding.running) for finding in after] == [(Fault.CHANGED, "g/a", False)]
    catalog.close()


MILLION = 1_000_000


@pytest.mark.long
def test_a_million_files(mirror: Mirror) -> None:
    """They are looked at page by page: the memory that it takes does not grow with the catalog."""
    machine = mirror.machine
    multiply(machine, 1, 10_000)
    usual = most_memory(machine, "verify", "--quick")
    multiply(machine, 10_001, MILLION)
    assert most_memory(machine, "verify", "--quick") < usual * 1.2
    assert mirror.verify("--quick").total["files"] == MILLION + 10


def multiply(machine: Installation, first: int, last: int) -> None:
    """Further rows of the catalog, all of them for one file."""
    copied = "source_id, remote_id, path, size, sha256, state, first_seen_at, gone_runs, tags, pinned"
    with contextlib.closing(sqlite3.connect(machine.runtime / "catalog.sqlite3")) as db:
        db.execute(
            f"WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last})"
            f" INSERT INTO files (remote_key, {copied}) SELECT 'copy ' || n, {copied}"
            " FROM numbers, (SELECT * FROM files ORDER BY id LIMIT 1)"
        )
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def most_memory(machine: Installation, *arguments: str, code: int = 0) -> int:
    """KiB that a command took at most."""
    process = subprocess.Popen([str(COMMAND), *arguments], env=machine.env, stdout=subprocess.DEVNULL)
    _, ended, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(ended)
    assert process.returncode == code
    return usage.ru_maxrss
