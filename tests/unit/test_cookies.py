"""Cookie files: read, copied for one run, and merged back without losing what another run has brought."""

from __future__ import annotations

import os
import random
import stat
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from http_downloader.gallery.cookies import (
    UnreadableCookiesError,
    copy_private,
    merge_back,
    read_cookies,
    values,
)

SECRET = "s3cr3t-w0rd"


def line(
    name: str, value: str, domain: str = ".example.org", path: str = "/", prefix: str = "", expires: int = 1999999999
) -> str:
    return f"{prefix}{domain}\tTRUE\t{path}\tTRUE\t{expires}\t{name}\t{value}"


def write(file: Path, *lines: str) -> Path:
    file.write_text("# Netscape HTTP Cookie File\n\n" + "".join(f"{text}\n" for text in lines), encoding="utf-8")
    return file


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def names_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


@pytest.fixture
def jar(tmp_path: Path) -> Path:
    return write(tmp_path / "example.txt", line("session", "one"), line("theme", "dark"))


# Reading


def test_reading(tmp_path: Path) -> None:
    """Comments, blank lines and CRLF do not matter; an HttpOnly cookie is a cookie; a value may be empty."""
    file = tmp_path / "x.txt"
    lines = ["# Netscape", "", "$ note", line("a", "1"), line("b", "", prefix="#HttpOnly_"), line("a", "2", path="/x")]
    file.write_bytes("\r\n".join(lines).encode())
    assert read_cookies(file) == {
        (".example.org", "/", "a"): line("a", "1"),
        (".example.org", "/", "b"): line("b", "", prefix="#HttpOnly_"),
        (".example.org", "/x", "a"): line("a", "2", path="/x"),
    }
    assert values(file) == ["1", "", "2"]


@pytest.mark.parametrize("character", ["\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028"])
def test_only_a_line_feed_ends_a_line(character: str, tmp_path: Path) -> None:
    """gallery-dl reads such a value as one line, and so do we."""
    file = write(tmp_path / "x.txt", line("a", f"left{character}right"))
    assert values(file) == [f"left{character}right"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "does not exist"),
        (b"\xff\xfe", "not UTF-8"),
        (f"session={SECRET}\n".encode(), "line 1 has 1 fields"),
        (b"# Netscape\n\n" + f".example.org\tTRUE\t/\tTRUE\t0\t{SECRET}\n".encode(), "line 3 has 6 fields"),
        (f".example.org\tTRUE\t/\tTRUE\t0\tname\t{SECRET}\tmore\n".encode(), "line 1 has 8 fields"),
    ],
)
def test_an_unreadable_file_is_one_line(content: bytes | None, says: str, tmp_path: Path) -> None:
    """It names the file and what is wrong; never a value."""
    file = tmp_path / "x.txt"
    if content is not None:
        file.write_bytes(content)
    for action in (read_cookies, lambda file: copy_private(file, tmp_path / "copies")):
        with pytest.raises(UnreadableCookiesError) as caught:
            action(file)
        sentence = str(caught.value)
        assert says in sentence
        assert str(file) in sentence
        assert SECRET not in sentence
        assert "\n" not in sentence


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    """The same one line."""
    with pytest.raises(UnreadableCookiesError, match="cannot be read"):
        read_cookies(tmp_path)


# Copying


def test_a_copy_is_private(jar: Path, tmp_path: Path) -> None:
    """Mode 0600 whatever the original and the umask say, byte for byte the same, and one copy for each call."""
    jar.chmod(0o644)
    before = os.umask(0)
    try:
        copies = [copy_private(jar, tmp_path / "run" / "cookies") for _ in range(3)]
    finally:
        os.umask(before)
    assert len(set(copies)) == 3
    for copy in copies:
        assert mode(copy) == 0o600
        assert copy.read_bytes() == jar.read_bytes()


# Merging back


def test_only_what_changed_is_brought_back(jar: Path) -> None:
    """Another run has changed a third cookie meanwhile, and logged in anew: both stay, what we changed is taken over."""
    before = read_cookies(jar)
    write(jar, line("session", "other run"), line("theme", "dark"), line("consent", "yes"))
    after = {**before, (".example.org", "/", "theme"): line("theme", "light")}
    assert merge_back(before, after, jar) == 1
    assert values(jar) == ["other run", "light", "yes"]


@pytest.mark.parametrize(
    ("theirs", "ours", "stays"),
    [(2_000_000_100, 2_000_000_200, "ours"), (2_000_000_200, 2_000_000_100, "theirs"), (0, 0, "theirs")],
)
def test_the_newer_of_two_sessions_stays(theirs: int, ours: int, stays: str, jar: Path) -> None:
    """Somebody else has renewed it meanwhile: what lasts longer was given later. Where neither tells, the one that is
    there stays: it may be the operator's."""
    before = read_cookies(jar)
    write(jar, line("session", "theirs", expires=theirs))
    after = {**before, (".example.org", "/", "session"): line("session", "ours", expires=ours)}
    assert merge_back(before, after, jar) == (stays == "ours")
    assert values(jar) == [stays]


def test_new_cookies_are_added_and_lost_ones_stay(jar: Path) -> None:
    """A cookie that a run no longer has may be one that it never got: it is not deleted."""
    before = read_cookies(jar)
    after = {(".example.org", "/", "new"): line("new", "1", prefix="#HttpOnly_")}
    assert merge_back(before, after, jar) == 1
    assert values(jar) == ["one", "dark", "1"]
    assert line("new", "1", prefix="#HttpOnly_") in jar.read_text()


def test_nothing_changed_nothing_written(jar: Path) -> None:
    """The file is not touched, and no lock file is left beside it."""
    inode, names = jar.stat().st_ino, names_in(jar.parent)
    before = read_cookies(jar)
    assert merge_back(before, dict(before), jar) == 0
    assert jar.stat().st_ino == inode
    assert names_in(jar.parent) == names


@pytest.mark.parametrize("before", [0o600, 0o640, 0o644])
def test_the_merged_file_keeps_its_mode(jar: Path, before: int) -> None:
    """Whoever could read it before can read it now, and nobody else."""
    jar.chmod(before)
    owner = jar.stat().st_uid, jar.stat().st_gid
    merge_back({}, {(".example.org", "/", "new"): line("new", "1")}, jar)
    assert (mode(jar), (jar.stat().st_uid, jar.stat().st_gid)) == (before, owner)


def test_who_may_write_there_may_merge(jar: Path) -> None:
    """Workers of several users share the folder: the lock that one has made does not shut out the others."""
    jar.parent.chmod(0o770)
    merge_back({}, {(".example.org", "/", "new"): line("new", "1")}, jar)
    assert mode(jar.parent / f".{jar.name}.lock") == 0o660


def test_what_a_killed_merge_left_is_swept(jar: Path) -> None:
    """A merge that was killed leaves a private file with all cookies in it; the next one removes it, and nothing else."""
    left, other = jar.parent / f".{jar.name}.abcd_123", jar.parent / f".{jar.name}.backup"
    left.write_text("secret")
    other.write_text("the operator's own")
    merge_back({}, {(".example.org", "/", "new"): line("new", "1")}, jar)
    assert (left.exists(), other.exists()) == (False, True)


def test_a_symlink_stays_one(jar: Path, tmp_path: Path) -> None:
    """Who keeps the file elsewhere finds the new cookies there."""
    link = tmp_path / "cookies" / "example.txt"
    link.parent.mkdir()
    link.symlink_to(jar)
    merge_back({}, {(".example.org", "/", "new"): line("new", "1")}, link)
    assert link.is_symlink()
    assert "1" in values(jar)


def test_threads_lose_nothing(jar: Path) -> None:
    """Many runs that end at once: every cookie that one of them has brought is there."""
    before = read_cookies(jar)

    def run(number: int) -> int:
        key = (".example.org", "/", f"run{number}")
        return merge_back(before, {**before, key: line(f"run{number}", str(number))}, jar)

    with ThreadPoolExecutor(16) as threads:
        assert sum(threads.map(run, range(64))) == 64
    assert set(values(jar)) == {"one", "dark", *map(str, range(64))}


MERGER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from http_downloader.gallery.cookies import merge_back
    file, worker = Path(sys.argv[1]), sys.argv[2]
    sys.stdin.readline()
    for n in range(20):
        name = f"w{worker}n{n}"
        merge_back({}, {(".example.org", "/", name): f".example.org\\tTRUE\\t/\\tTRUE\\t0\\t{name}\\t{name}"}, file)
    """
)


def test_processes_lose_nothing(jar: Path) -> None:
    """The same for runs in processes of their own, as they are; and the file can be read at any moment."""
    workers = [
        subprocess.Popen([sys.executable, "-c", MERGER, str(jar), str(number)], stdin=subprocess.PIPE)
        for number in range(4)
    ]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write(b"\n")
        worker.stdin.close()
    while any(worker.poll() is None for worker in workers):
        assert {"one", "dark"} <= set(values(jar))
    assert [worker.returncode for worker in workers] == [0] * 4
    assert set(values(jar)) == {"one", "dark", *(f"w{worker}n{n}" for worker in range(4) for n in range(20))}
    assert names_in(jar.parent) == [".example.txt.lock", "example.txt"]


RENEWER = textwrap.dedent(
    """
    import sys
    from pathlib import Path
    from http_downloader.gallery.cookies import merge_back
    file, worker = Path(sys.argv[1]), sys.argv[2]
    for n in range(100_000):
        name = f"w{worker}n{n}"
        merge_back({}, {("d", "/", name): f"d\\tTRUE\\t/\\tTRUE\\t0\\t{name}\\t{name}"}, file)
        print(name, flush=True)
    """
)


def test_killed_processes_lose_nothing(jar: Path) -> None:
    """Two at a time write as fast as they can, and are killed with -9: who reads all the while never sees less than was
    there before, every merge that was done is in the file, and the next one leaves nothing beside it."""

    def begin(number: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RENEWER, str(jar), str(number)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    done, seen, chance = {"one", "dark"}, {"one", "dark"}, random.Random(6)
    workers = [begin(0), begin(1)]
    for number in range(2, 14):
        worker = workers.pop(0)
        assert worker.stdout is not None
        done.add(worker.stdout.readline().strip())
        until = time.monotonic() + chance.uniform(0.01, 0.1)
        while time.monotonic() < until:
            now = set(values(jar))
            assert seen <= now
            seen = now
        worker.kill()
        done |= set(worker.communicate()[0].split())
        workers.append(begin(number))
    for worker in workers:
        worker.kill()
        done |= set(worker.communicate()[0].split())
    assert done <= set(values(jar))
    merge_back({}, {(".example.org", "/", "last"): line("last", "1")}, jar)
    assert names_in(jar.parent) == [".example.txt.lock", "example.txt"]


CRASHER = textwrap.dedent(
    """
    import os, sys
    from pathlib import Path
    from http_downloader.gallery import cookies
    file = Path(sys.argv[1])
    Path.replace = lambda *_: os._exit(9)
    cookies.merge_back({}, {("d", "/", "n"): "d\\tTRUE\\t/\\tTRUE\\t0\\tn\\tv"}, file)
    """
)


def test_a_crash_leaves_the_old_file(jar: Path) -> None:
    """A process that dies in the middle leaves the file whole, nothing readable by others, and no lock."""
    jar.chmod(0o600)
    content = jar.read_bytes()
    assert subprocess.run([sys.executable, "-c", CRASHER, str(jar)], check=False).returncode == 9
    assert jar.read_bytes() == content
    for left in jar.parent.glob(".example.txt.*"):
        assert left.suffix == ".lock" or mode(left) == 0o600
    assert merge_back({}, {("d", "/", "n"): "d\tTRUE\t/\tTRUE\t0\tn\tv"}, jar) == 1


def test_a_failed_write_leaves_the_old_file(jar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full: the error goes up, the file is whole, nothing is left beside it."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    content = jar.read_bytes()
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        merge_back({}, {("d", "/", "n"): "d\tTRUE\t/\tTRUE\t0\tn\tv"}, jar)
    assert jar.read_bytes() == content
    assert names_in(jar.parent) == [".example.txt.lock", "example.txt"]
