"""`sync --dry-run`: it says what a run would do, and changes nothing."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.installation import Installation, Service
from tests.queues import Queues
from tests.site import FaultySite, Post, login_page, status


def posts(count: int, first: int = 1) -> list[Post]:
    return [Post(id=number) for number in range(first, first + count)]


def url_of(site: FaultySite) -> str:
    return f"Danbooru:{site.root}/posts?tags=demo"


def everything(machine: Installation) -> tuple[dict[str, list[Any]], dict[str, Any]]:
    """Every row of every table, read by somebody else who may only read, and every file and folder with its times."""
    tables: dict[str, list[Any]] = {}
    catalog = machine.runtime / "catalog.sqlite3"
    if catalog.exists():
        with sqlite3.connect(f"file:{catalog}?mode=ro", uri=True) as db:
            names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            tables = {name: sorted(db.execute(f"SELECT * FROM {name}").fetchall(), key=repr) for name in names}
    found = [machine.content, *machine.content.rglob("*")] if machine.content.exists() else []
    return tables, {str(path): (described(path), path.stat().st_mtime_ns) for path in found}


def described(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def rehearse(machine: Installation, url: str, *arguments: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The verdicts of single files, and the last line."""
    done = machine.sync(url, "--dry-run", "--json", *arguments)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    return lines[:-1], lines[-1]


def test_nothing_changes(install: Callable[..., Installation]) -> None:
    """New, known, waiting, leaving and held files are told apart; catalog and content folder are as before."""
    machine = install(REMOVAL_MIN_AGE=0)
    with FaultySite(posts(30)) as site:
        url = url_of(site)
        assert machine.sync(url, "--to", "g").returncode == 0
        site.remove(1, 2)
        assert machine.sync(url).returncode == 0  # the first listing without them
        kept = site.posts[0]
        assert machine.run("files", "pin", name(machine, kept), "--source-id", "9000000000001").returncode == 0
        site.remove(kept.id)
        site.remove(3)
        assert machine.sync(url, "--attempts", "1").returncode == 0
        site.add(*posts(4, first=100))
        site.remove(4)
        before = everything(machine)

        files, total = rehearse(machine, url)
        words = machine.sync(url, "--dry-run", "-v")
        assert everything(machine) == before
    by_verdict: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        by_verdict.setdefault(file["verdict"], []).append(file)
    assert {verdict: len(found) for verdict, found in by_verdict.items()} == {
        "new": 4,
        "known": 25,
        "remove": 1,
        "missing": 1,
        "held": 1,
    }
    assert by_verdict["held"][0]["reason"] == "pinned"
    assert {key: total[key] for key in ("state", "listing_proves", "gaps", "new", "known", "remove", "held")} == {
        "state": "synchronized",
        "listing_proves": True,
        "gaps": [],
        "new": 4,
        "known": 25,
        "remove": 1,
        "held": 1,
    }
    assert words.returncode == 0
    for line in ("4 new", "25 known", "1 would be moved to trash", "1 gone at the remote, held: pinned"):
        assert line in words.stdout
    assert by_verdict["remove"][0]["filename"] in words.stdout


def name(machine: Installation, post: Post) -> str:
    return next(str(file["filename"]) for file in machine.rows("files") if f"_{post.id}_" in file["filename"])


def test_before_anything_is_there(install: Callable[..., Installation]) -> None:
    """A gallery that nobody has mirrored yet, on a machine without catalog and content folder: both stay away."""
    machine = install()
    with FaultySite(posts(3)) as site:
        files, total = rehearse(machine, url_of(site))
    assert [file["verdict"] for file in files] == ["new"] * 3
    assert (total["new"], total["source_id"]) == (3, None)
    assert not machine.content.exists()
    assert not (machine.runtime / "catalog.sqlite3").exists()


def test_a_listing_that_proves_nothing(install: Callable[..., Installation]) -> None:
    """It says so, and why; the exit code is that of a run."""
    machine = install(REMOVAL_MIN_AGE=0)
    with FaultySite(posts(10)) as site:
        assert machine.sync(url_of(site), "--to", "g").returncode == 0
        before = everything(machine)
        site.rule(r"/posts\.json", login_page())
        done = machine.sync(url_of(site), "--dry-run")
        assert done.returncode == 4
        assert "The listing proves nothing" in done.stdout
        site.clear_rules()
        site.rule(r"/posts\.json", status(403))
        files, total = rehearse(machine, url_of(site))
        assert (files, total["reason"], total["listing_proves"]) == ([], "login-required", False)
        assert everything(machine) == before


def test_files_that_would_be_registered_or_come_back(install: Callable[..., Installation]) -> None:
    """One that lies in the folder already, and one whose copy is in the trash: neither is touched."""
    machine = install(REMOVAL_MIN_AGE=0)
    with FaultySite(posts(10)) as site:
        url, first = url_of(site), site.posts[-1]
        assert machine.sync(url, "--to", "g").returncode == 0
        site.remove(first.id)
        for _ in range(2):
            assert machine.sync(url).returncode == 0
        site.add(first)
        found = machine.files(9000000000001)[0]["filename"]
        foreign = machine.content / "other" / found
        foreign.parent.mkdir()
        foreign.write_bytes(b"from before")
        before = everything(machine)
        files, _ = rehearse(machine, url)
        assert sum(file["verdict"] == "new" for file in files) == 1
        files, _ = rehearse(machine, url, "--source-id", "7", "--to", "other")
        assert [file["filename"] for file in files if file["verdict"] == "adopted"] == [found]
        assert everything(machine) == before


def test_post_processors_and_archives_stay_off(install: Callable[..., Installation], tmp_path: Path) -> None:
    machine = install()
    trace = tmp_path / "trace"
    machine.configure(
        {
            "extractor": {
                "Danbooru": {"sleep-request": 0},
                "archive": str(tmp_path / "archive.sqlite3"),
                "postprocessors": [{"name": "exec", "event": ["prepare", "skip"], "command": ["touch", str(trace)]}],
            }
        }
    )
    with FaultySite(posts(3)) as site:
        _, total = rehearse(machine, url_of(site))
        assert total["new"] == 3
        assert list(tmp_path.glob("archive*")) == []
        assert not trace.exists()


def test_an_older_catalog_is_not_brought_up_to_date(install: Callable[..., Installation]) -> None:
    machine = install()
    with FaultySite(posts(3)) as site:
        assert machine.sync(url_of(site)).returncode == 0
        with sqlite3.connect(machine.runtime / "catalog.sqlite3") as db:
            db.execute("UPDATE alembic_version SET version_num = '0001'")
        before = everything(machine)
        done = machine.sync(url_of(site), "--dry-run")
        assert done.returncode == 6
        assert "run: http-downloader db upgrade" in done.stderr
        assert everything(machine) == before


@pytest.mark.usefixtures("queues")
def test_beside_a_service_that_is_at_it(install: Callable[..., Installation], queues: Queues) -> None:
    """The run of the service goes on as if nobody looked, and no event comes from the rehearsal."""
    machine = install(**queues.settings)
    with FaultySite(posts(12)) as site, Service(machine):
        site.file_latency = 0.4
        queues.post({"source_id": 7, "url": url_of(site), "content_path": "g"})
        queues.wait_for("downloaded", 1)
        _, total = rehearse(machine, url_of(site))
        assert total["new"] + total["adopted"] + total["known"] == 12
        queues.wait_for("synchronized", 1)
        assert queues.count("downloaded") == 12
        assert queues.count("skipped") == 0
    assert len(machine.files(7)) == 12
    assert len(machine.runs()) == 1
