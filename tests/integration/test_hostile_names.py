"""Names and folders made of a site's words: whatever they are, files stay in their source's folder, nothing else is
touched, and what is wrong with one file is that file's failure."""

from __future__ import annotations

import json
import os
import pty
import random
import socket
import subprocess
import threading
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.hostile import NASTY
from tests.installation import COMMAND, Installation, wait_until
from tests.site import FaultyExchange, FaultySite, Post, raw

HARMFUL = (
    "..", ".", "", "/etc/x", "a/../../b", "fine", "-rf", "--exec=x", ".hidden", "trailing. ", "CON", "NUL.txt", ".trash", ".partial",
    "x\x1b]0;evil\x07y", "rtl\u202egpj.exe", "c1\x9b31m", "lone \ud800", "\u00e4" * 300, "\U0001f600" * 80, "two\nlines", "\x00",
    "%2e%2e%2fz", "..\\..\\w", "\u2028", "a" * 255, "x" * 239 + "\u00e4\u00e4", "$(touch evil)", "tab\there",
)  # fmt: skip


def titled(*titles: str) -> list[Post]:
    return [Post(id=number, title=title, body=f"body {number}".encode()) for number, title in enumerate(titles, 1)]


def configure(machine: Installation, **options: Any) -> None:
    machine.configure({"extractor": {"Danbooru": {"sleep-request": 0, **options}}})


def mirror(machine: Installation, site: FaultySite, *options: str) -> subprocess.CompletedProcess[str]:
    return machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a/b", "--source-id", "1", "--attempts", "1", *options)  # fmt: skip


def outside(machine: Installation) -> dict[str, bytes | None]:
    """Everything around the source's folder but our own state."""
    around = machine.home.parent
    ours = (machine.content / "a" / "b", machine.runtime, machine.content / ".http-downloader")
    return {
        str(path.relative_to(around)): path.read_bytes() if path.is_file() and not path.is_symlink() else None
        for path in around.rglob("*")
        if not any(path.is_relative_to(folder) for folder in ours)
    }


def canaries(machine: Installation) -> None:
    for path in ("evil", "content/evil", "content/a/evil", "content/a/b2/x", "content/.trash/x", "elsewhere/x"):
        (machine.home / path).parent.mkdir(parents=True, exist_ok=True)
        (machine.home / path).write_text("canary")


def has_control(text: str) -> bool:
    return any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in "\u202a\u202b\u202d\u202e" for character in text.replace("\n", ""))  # fmt: skip


def bodies(machine: Installation) -> dict[str, bytes]:
    folder = f"{machine.content}/a/b/"
    return {f"{path.parent}/{path.name}".removeprefix(folder): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}  # fmt: skip


def test_names_that_mean_harm(install: Callable[..., Installation]) -> None:
    """Traversal, absolute, reserved, overlong, empty names, control characters and lone surrogates: each file is in its
    source's folder under a name that a disk and a terminal bear, and the next run knows it."""
    machine = install()
    configure(machine, filename="{title}")
    canaries(machine)
    posts = titled(*HARMFUL)
    with FaultySite(posts) as site:
        before = outside(machine)
        done = mirror(machine, site)
        assert done.returncode == 0, done.stdout + done.stderr
        assert outside(machine) == before
        found = bodies(machine)
        assert sorted(found.values()) == sorted(post.content() for post in posts)
        assert all("/" not in name and len(name.encode()) <= 255 and not has_control(name) for name in found)
        assert not has_control(done.stdout + done.stderr)
        assert {"fine", "-rf", ".hidden", "CON", ".trash", "..\\..\\w", "%2e%2e%2fz", "_etc_x", "a_.._.._b", "rtl_gpj.exe"} <= set(found)  # fmt: skip
        assert mirror(machine, site).returncode == 0
        assert bodies(machine) == found
        assert len(site.requests("^/data/")) == len(posts)
    rows = machine.files(1)
    assert {row["filename"] for row in rows} == set(found)
    for arguments in (["files"], ["files", "--json"], ["runs", "--json"]):
        assert not has_control(machine.run(*arguments).stdout), arguments


def test_folders_that_mean_harm(install: Callable[..., Installation]) -> None:
    """The same words as a folder: those that lead elsewhere fail their file with a sentence, overlong ones are cut at a
    character, and all other files come in."""
    machine = install()
    configure(machine, directory=["{title}"], filename="{id}.{extension}")
    canaries(machine)
    blocked = ("link", "file")
    posts = titled(*HARMFUL, *blocked, "\u00e4" * 300 + "z")
    base = machine.content / "a" / "b"
    base.mkdir(parents=True)
    (base / "link").symlink_to(machine.home / "elsewhere")
    (base / "file").write_bytes(b"mine")
    with FaultySite(posts) as site:
        before = outside(machine)
        done = mirror(machine, site)
    assert done.returncode == 4
    assert outside(machine) == before
    refused = {posts[HARMFUL.index(title)] for title in ("..", ".")} | set(posts[len(HARMFUL) : len(HARMFUL) + 2])
    found = {int(Path(path).stem): path for path, body in bodies(machine).items() if body != b"mine"}
    assert set(found) == {post.id for post in posts if post not in refused}
    assert all(
        len(part.encode()) <= 255 and not has_control(part) for path in found.values() for part in path.split("/")
    )
    assert len({Path(found[number]).parent for number, title in enumerate((*HARMFUL, *blocked, "\u00e4" * 300 + "z"), 1) if title.startswith("\u00e4")}) == 2  # fmt: skip
    log = machine.run("runs", "--log", machine.runs()[0]["run_id"]).stdout
    assert [line.partition("failed: ")[2] for line in log.splitlines() if "failed: " in line and "folder" in line] != []
    assert log.count("has a segment that leads elsewhere") == 2
    assert "leads through a symlink" in log
    assert "'a/b/file', which is no folder" in log
    assert {row["state"] for row in machine.files(1) if int(row["remote_id"].rpartition("_")[2]) in {post.id for post in refused}} == {"failed"}  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize(
    ("folder", "name", "restrict"),
    [([], "{title}", "/"), (["{title}"], "{id}", "/"), (["{title}"], "{title}.{extension}", "")],
)
def test_a_gallery_of_names_that_mean_harm(
    install: Callable[..., Installation], folder: list[str], name: str, restrict: str
) -> None:
    """Hundreds of names put together of the worst words: each file is in place, whole, or failed with a sentence."""
    chance = random.Random(f"{folder} {name}")
    titles = ["".join(chance.choices(NASTY, k=chance.randint(1, 3))) for _ in range(400)]
    machine = install()
    configure(machine, directory=folder, filename=name, **{"path-restrict": restrict})
    canaries(machine)
    posts = titled(*titles)
    with FaultySite(posts) as site:
        before = outside(machine)
        done = mirror(machine, site)
    assert done.returncode in (0, 4)
    assert outside(machine) == before
    assert not has_control(done.stdout + done.stderr)
    rows = {int(row["remote_id"].rpartition("_")[2]): row for row in machine.files(1)}
    assert set(rows) == {post.id for post in posts}
    found = bodies(machine)
    whole = {number: row["filename"] for number, row in rows.items() if row["state"] == "present"}
    assert {found[filename] for filename in whole.values()} == {f"body {number}".encode() for number in whole}
    assert len(found) == len(whole) > 100
    assert {row["state"] for row in rows.values()} <= {"present", "failed"}
    log = machine.run("runs", "--log", machine.runs()[0]["run_id"]).stdout
    assert bool(len(whole) < len(posts)) == ("failed: " in log)


@pytest.mark.parametrize(
    "hook",
    [
        {"name": "metadata", "event": "post", "filename": "info.json"},
        {"name": "metadata", "event": ["prepare", "after", "finalize"]},
        pytest.param({"name": "metadata", "directory": "{title}"}, marks=pytest.mark.long),
        pytest.param({"name": "metadata", "filename": "{title}.json"}, marks=pytest.mark.long),
    ],
)
def test_post_processors_write_nothing_outside(install: Callable[..., Installation], hook: dict[str, Any]) -> None:
    """A template that lets slashes pass, and a post-processor that writes beside the files: not for words that lead
    elsewhere. What else is listed comes in, with its metadata."""
    machine = install()
    folder = ["{title}", "{title}", "{title}", "evil"] if "event" in hook else []
    configure(machine, directory=folder, filename="{id}.{extension}", postprocessors=[hook], **{"path-restrict": ""})
    canaries(machine)
    (machine.content / "a" / "b").mkdir()
    (machine.content / "a" / "b" / "link").symlink_to(machine.home / "elsewhere")
    with FaultySite(titled("fine", "..", "../../../evil", f"{machine.home}/evil", "link/evil")) as site:
        before = outside(machine)
        assert mirror(machine, site).returncode == (4 if folder else 0)
    assert outside(machine) == before
    found = bodies(machine)
    assert len([path for path in found if path.endswith(".png")]) == (1 if folder else 5)
    assert any("fine" in path and path.endswith(".json") for path in found) or hook.get("directory") is not None


def test_a_post_processors_folder_beside_the_files(install: Callable[..., Installation]) -> None:
    """`..` that the operator has written himself into a post-processor's folder counts."""
    machine = install()
    hook = {"name": "metadata", "directory": ["..", "beside"]}
    configure(machine, filename="{id}.{extension}", postprocessors=[hook])
    with FaultySite(titled("fine")) as site:
        assert mirror(machine, site).returncode == 0
    assert (machine.content / "a" / "beside" / "1.png.json").is_file()


def test_values_of_another_kind_than_the_format_expects(install: Callable[..., Installation]) -> None:
    """A number that is none, in the name, the folder and the id: the failure of that file; the listing goes on."""
    for option, value in (("filename", "{title:>04d}"), ("directory", ["{title:>04d}"]), ("archive-format", "{title:>04d}")):  # fmt: skip
        machine = install()
        configure(machine, **{option: value})
        with FaultySite([Post(id=1), Post(id=2, title="x")]) as site:
            site.rule("/posts.json", raw(listing(site, title=[7, "x"])), page=1)
            done = mirror(machine, site)
            fails = option != "archive-format"
            assert done.returncode == (4 if fails else 0), done.stdout
            assert len(bodies(machine)) == (1 if fails else 2)
            assert ("Unknown format code" in done.stdout) is fails


def listing(site: FaultySite, **values: list[Any]) -> bytes:
    """The first page of the site, with these values in its posts."""
    described = [site._describe(post) for post in site.posts]
    for name, each in values.items():
        for post, value in zip(described, each, strict=True):
            post[name] = value
    return json.dumps(described).encode()


def test_names_that_differ_only_in_case_or_unicode_form(install: Callable[..., Installation]) -> None:
    """On a disk that tells them apart all are there, each with its own bytes and row, and stay so."""
    machine = install()
    configure(machine, filename="{title}")
    posts = titled("A.jpg", "a.jpg", "\u00e9", "e\u0301", "\u017f", "S", "stra\u00dfe", "STRASSE", "a.jpg ")
    with FaultySite(posts) as site:
        for _ in range(2):
            assert mirror(machine, site).returncode == 0
            assert bodies(machine) == {post.title: post.content() for post in posts}
        assert len(site.requests("^/data/")) == len(posts)
    assert {(row["filename"], row["size"]) for row in machine.files(1)} == {(post.title, 6) for post in posts}


def test_what_lies_in_the_way_of_a_name(install: Callable[..., Installation]) -> None:
    """A folder, a FIFO, a socket, a symlink or a stranger's file of that name stays; the file gets another name."""
    machine = install()
    configure(machine, filename="{title}")
    canaries(machine)
    base = machine.content / "a" / "b"
    (base / "folder").mkdir(parents=True)
    os.mkfifo(base / "fifo")
    (base / "link").symlink_to(machine.home / "evil")
    (base / "dangling").symlink_to(machine.home / "nowhere")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    try:
        os.chdir(base)  # a socket's path may have a hundred characters
        listener.bind("socket")
    finally:
        os.chdir(here)
        listener.close()
    names = ("folder", "fifo", "link", "dangling", "socket")
    with FaultySite(titled(*names)) as site:
        before = outside(machine)
        kinds = {name: (base / name).lstat().st_mode for name in names}
        for _ in range(2):
            assert mirror(machine, site).returncode == 0
            assert {name: (base / name).lstat().st_mode for name in names} == kinds
            assert outside(machine) == before
            found = {path.partition("~")[0]: body for path, body in bodies(machine).items() if "~" in path}
            assert found == {post.title: post.content() for post in site.posts}
        assert len(site.requests("^/data/")) == len(names)


def test_a_file_that_was_replaced_by_something_else(install: Callable[..., Installation]) -> None:
    """A known file in whose place a symlink, a folder or a FIFO lies: fetched again, never written through it."""
    machine = install()
    configure(machine, filename="{title}")
    canaries(machine)
    base = machine.content / "a" / "b"
    with FaultySite(titled("one", "two", "three")) as site:
        assert mirror(machine, site).returncode == 0
        for name in ("one", "two", "three"):
            (base / name).unlink()
        (base / "one").symlink_to(machine.home / "evil")
        (base / "two").mkdir()
        os.mkfifo(base / "three")
        before = outside(machine)
        assert mirror(machine, site).returncode == 0
        assert outside(machine) == before
        rows = {row["title"]: row["filename"] for row in machine.files(1)}
        assert {title: (base / filename).read_bytes() for title, filename in rows.items()} == {
            post.title: post.content() for post in site.posts
        }
        assert all(name.partition("~")[0] == title != name for title, name in rows.items())


def test_a_folder_that_becomes_a_symlink_in_mid_run(install: Callable[..., Installation]) -> None:
    """Between the check of a folder and the rename into it, somebody puts a symlink there: it is not followed."""
    machine = install(DOWNLOADS_PER_SOURCE=1)
    configure(machine, directory=["sub"], filename="{title}")
    canaries(machine)
    base = machine.content / "a" / "b"
    go_on = threading.Event()

    def hold(exchange: FaultyExchange) -> None:
        go_on.wait(30)
        exchange.send(exchange.usual())

    posts = titled("second", "first")
    with FaultySite(posts) as site:
        site.rule(posts[0].path, hold)
        before = outside(machine)
        done: list[subprocess.CompletedProcess[str]] = []
        run = threading.Thread(target=lambda: done.append(mirror(machine, site)))
        run.start()
        wait_until(lambda: (base / "sub" / "first").exists() and site.requests(posts[0].path), what="the second file")
        (base / "sub").rename(base / "away")
        (base / "sub").symlink_to(machine.home / "elsewhere")
        go_on.set()
        run.join()
    assert outside(machine) == before
    assert done[0].returncode == 4
    assert "leads through 'sub', which is no folder of ours" in done[0].stdout
    assert [row["state"] for row in machine.files(1) if row["title"] == "second"] == ["failed"]


def test_a_file_whose_name_changes_at_the_site(install: Callable[..., Installation]) -> None:
    """It is known by its id: kept under its old name, whatever the site calls it now, and not fetched again."""
    machine = install()
    configure(machine, filename="{title}.{extension}")
    with FaultySite(titled("old")) as site:
        assert mirror(machine, site).returncode == 0
        site.add(Post(id=1, title="../new", extension="webp", body=b"body 1"))
        assert mirror(machine, site).returncode == 0
        assert list(bodies(machine)) == ["old.png"]
        assert len(site.requests("^/data/")) == 1
    assert [row["filename"] for row in machine.files(1)] == ["old.png"]


def test_commands_get_hostile_names_as_one_argument(install: Callable[..., Installation]) -> None:
    """A post-processor's command in one string is for a shell, and gallery-dl quotes what it puts in; in a list there
    is no shell. Nothing in a name is run."""
    machine = install()
    note = '{ for argument; do printf "%s\\0" "$argument"; done; }'
    (machine.home / "note").write_text(f'#!/bin/sh\n{note} >> "{machine.home}/noted"\n')
    (machine.home / "note").chmod(0o755)
    hooks = [
        {"name": "exec", "command": f"{machine.home}/note {{}} {{_filename}}"},
        {"name": "exec", "command": [f"{machine.home}/note", "{title}"]},
    ]
    configure(machine, filename="{title}", postprocessors=hooks)
    titles = ("$(touch evil)", "`touch evil`", ";touch evil;", "'\"'", "-rf", "* ?", "a b")
    with FaultySite(titled(*titles)) as site:
        assert mirror(machine, site).returncode == 0
    noted = (machine.home / "noted").read_text().split("\0")[:-1]
    base = machine.content / "a" / "b"
    assert sorted(noted) == sorted([f"{base}/{title}" for title in titles] + list(titles) * 2)
    assert not list(machine.home.parent.rglob("evil"))


def test_a_listing_cannot_ask_for_local_files(install: Callable[..., Installation]) -> None:
    """A link that a site gives as a gallery is followed to galleries only: not into files of this machine, whatever
    the configuration lets pass."""
    machine = install()
    configure(machine, external=True, whitelist="recursive,directlink")
    with FaultySite() as site:
        (machine.home / "secret.txt").write_text(f"{site.root}/direct/secret.png")
        post = Post(id=1, hidden=True)
        site.add(post)
        source = f"recursive:file://{machine.home}/secret.txt"
        site.rule("/posts.json", raw(listing(site, source=[source])), page=1)
        done = mirror(machine, site)
        assert site.requests("secret") == []
    assert done.returncode == 3
    assert machine.runs()[0]["gaps"][0]["reason"] == "child-unsupported"


def test_no_escape_sequence_of_a_site_reaches_a_terminal(install: Callable[..., Installation]) -> None:
    """On a real terminal: neither a run with its progress nor the lists repeat what a terminal would obey."""
    machine = install()
    machine.env["TERM"] = "xterm"
    configure(machine, directory=["{title}"], filename="{id}.{extension}")
    evil = "\x1b]0;evil\x07\x9b31m\u202e[red]"
    with FaultySite([Post(id=1, title=f"../{evil}"), Post(id=2, title=evil), Post(id=3, title="..")]) as site:
        shown = on_terminal(machine, "sync", f"Danbooru:{site.root}/posts?tags=demo", "--to", "a", "--attempts", "1")
    for arguments in (["files"], ["runs"], ["sources"]):
        shown += on_terminal(machine, *arguments)
    assert "0;evil" in shown  # its letters are shown
    assert not any(sequence in shown for sequence in ("\x1b]", "\x07", "\x9b", "\u202e"))
    assert "[red]" in shown


def on_terminal(machine: Installation, *arguments: str) -> str:
    """What a command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([str(COMMAND), *arguments], env=machine.env, cwd=machine.home, stdin=theirs, stdout=theirs, stderr=theirs):  # fmt: skip
        os.close(theirs)
        written = b""
        try:
            while piece := os.read(ours, 65536):
                written += piece
        except OSError:  # all that had it open are gone
            pass
        os.close(ours)
    return written.decode(errors="replace")
