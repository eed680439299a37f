"""`sync --dry-run`: it says what a run would do, and changes nothing."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.installation import COMMAND, Installation, Service, wait_until
from tests.queues import Queues
from tests.site import FaultySite, Post, hang, login_page, set_cookie, status


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
    assert not machine.runtime.exists()


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
        files, total = rehearse(machine, url)
        back = next(row["filename"] for row in machine.rows("trash"))
        assert [file["filename"] for file in files if file["verdict"] == "restored"] == [back]
        assert (total["restored"], total["new"], total["known"]) == (1, 0, 9)
        assert "1 would come back from the trash" in machine.sync(url, "--dry-run").stdout
        files, _ = rehearse(machine, url, "--source-id", "7", "--to", "other")
        assert [file["filename"] for file in files if file["verdict"] == "adopted"] == [found]
        assert everything(machine) == before
        (copy,) = [path for path in machine.content.glob(".trash/**/*") if path.is_file()]
        copy.write_bytes(b"not what was thrown away")
        _, total = rehearse(machine, url)
        assert (total["restored"], total["new"]) == (0, 1)  # it would be downloaded


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


def test_the_run_does_what_was_foretold(install: Callable[..., Installation]) -> None:
    """The names that come in, that are found in the folder and that go to the trash are those of the rehearsal."""
    machine = install(REMOVAL_MIN_AGE=0)
    with FaultySite(posts(30)) as site:
        url = url_of(site)
        assert machine.sync(url, "--to", "g").returncode == 0
        site.remove(1, 2)
        assert machine.sync(url).returncode == 0
        site.add(*posts(3, first=100))
        files, total = rehearse(machine, url)
        adopted = next(file["filename"] for file in files if file["verdict"] == "new")
        (machine.content / "g" / adopted).write_bytes(b"from before")
        files, total = rehearse(machine, url)
        before = machine.on_disk()
        events = [json.loads(line) for line in machine.sync(url, "--json").stdout.splitlines()]
        after = machine.on_disk()

    def foretold(verdict: str) -> set[str]:
        return {file["filename"] for file in files if file["verdict"] == verdict}

    assert foretold("adopted") == {adopted}
    assert foretold("new") == {event["filename"] for event in events if event["event"] == "file-downloaded"}
    assert foretold("remove") == {path.removeprefix("g/") for path in before.keys() - after.keys()}
    assert foretold("known") | {adopted} == {event["filename"] for event in events if event["event"] == "file-skipped"}
    assert (total["state"], total["new"], total["remove"]) == ("synchronized", 2, 2)


def test_nobody_is_told(install: Callable[..., Installation], tmp_path: Path) -> None:
    """A broker is set, and nobody connects to it; a hook script is set, and nobody calls it."""
    trace, script = tmp_path / "trace", tmp_path / "hooks.py"
    script.write_text(
        f"open({str(trace)!r}, 'w')\ndef on_file_downloaded(value): pass\non_source_synchronized = on_file_downloaded\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as broker, FaultySite(posts(3)) as site:
        broker.setblocking(False)
        machine = install(RABBITMQ_HOST="127.0.0.1", RABBITMQ_PORT=broker.getsockname()[1])
        machine.set(HOOK_FILE_DOWNLOADED=script, HOOK_SOURCE_SYNCHRONIZED=script)
        _, total = rehearse(machine, url_of(site))
        assert total["new"] == 3
        with pytest.raises(BlockingIOError):
            broker.accept()
    assert not trace.exists()


def with_cookie(machine: Installation, site: FaultySite) -> Path:
    file = machine.config / "cookies" / f"{site.root.removeprefix('http://')}.txt"
    file.parent.mkdir()
    file.write_text("# Netscape HTTP Cookie File\n\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\told\n")
    return file


def test_cookies_are_read_and_never_written(install: Callable[..., Installation], tmp_path: Path) -> None:
    """The site renews a cookie: the file stays as it was, none appears elsewhere, and no copy is left behind."""
    machine = install(TMPDIR=tmp_path / "temporary")
    (tmp_path / "temporary").mkdir()
    exported = tmp_path / "exported.txt"
    machine.configure({"extractor": {"Danbooru": {"sleep-request": 0}, "cookies-update": str(exported)}})
    with FaultySite(posts(3)) as site:
        file = with_cookie(machine, site)
        before = file.read_bytes(), file.stat().st_mtime_ns
        site.rule(r"/posts\.json", set_cookie("session", "renewed"))
        _, total = rehearse(machine, url_of(site))
        assert total["new"] == 3
        assert all("session=old" in request.headers["Cookie"] for request in site.requests("page=1"))
    assert (file.read_bytes(), file.stat().st_mtime_ns) == before
    assert list(file.parent.iterdir()) == [file]
    assert not exported.exists()
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_no_copy_of_a_cookie_is_left_when_it_is_stopped(
    install: Callable[..., Installation], tmp_path: Path, number: signal.Signals
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    machine = install(TMPDIR=temporary)
    with FaultySite(posts(3)) as site:
        with_cookie(machine, site)
        site.rule(r"/posts\.json", hang(60))
        command = [str(COMMAND), "sync", url_of(site), "--dry-run"]
        with subprocess.Popen(command, env=machine.env, cwd=machine.home, stderr=subprocess.DEVNULL) as looking:
            wait_until(lambda: site.requests(r"/posts\.json"), what="the request for the listing")
            assert len(list(temporary.rglob("*.txt"))) == 1
            looking.send_signal(number)
            assert looking.wait(30) == 130
        assert list(temporary.iterdir()) == []


def test_nothing_of_the_configuration_is_started_or_written(
    install: Callable[..., Installation], tmp_path: Path
) -> None:
    """Neither commands that answer to log lines nor pages that are dumped into the working folder; and the listing
    counts as made in the same way as that of a run, which does both."""
    machine = install(REMOVAL_MIN_AGE=0)
    trace = tmp_path / "trace"
    section = {"sleep-request": 0, "write-pages": True, "actions": {"*": f"exec touch {trace}"}}
    machine.configure({"extractor": {"Danbooru": section, "archive": str(tmp_path / "archive.sqlite3")}})
    with FaultySite(posts(30)) as site:
        url = url_of(site)
        assert machine.sync(url, "--to", "g").returncode == 0
        site.remove(1)
        site.rule(r"/posts\.json", status(500), times=1)  # gallery-dl tries again, and says so
        assert machine.sync(url).returncode == 0
        assert trace.exists()
        trace.unlink()
        dumped = list(machine.home.glob("*.txt"))
        assert dumped
        site.rule(r"/posts\.json", status(500), times=1)
        before = everything(machine)
        _, total = rehearse(machine, url)
        assert (total["remove"], total["missing"]) == (1, 0)
        assert everything(machine) == before
    assert not trace.exists()
    assert list(machine.home.glob("*.txt")) == dumped


def test_a_newer_catalog_is_refused(install: Callable[..., Installation]) -> None:
    machine = install()
    with FaultySite(posts(3)) as site:
        assert machine.sync(url_of(site)).returncode == 0
        with sqlite3.connect(machine.runtime / "catalog.sqlite3") as db:
            db.execute("UPDATE alembic_version SET version_num = '9999'")
            db.execute("UPDATE catalog SET works_with = '9999'")
        done = machine.sync(url_of(site), "--dry-run")
    assert done.returncode == 6
    assert f"sqlite:///{machine.runtime}/catalog.sqlite3 has schema 9999" in done.stderr
    assert "upgrade http-downloader" in done.stderr
