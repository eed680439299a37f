"""What the catalog says is there has reached the disk: seen in the order of the calls that real processes make."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tests
from tests.installation import POLITENESS_OFF, Installation
from tests.site import FaultySite, Post

WATCHED = Path(tests.__file__).parent / "watched"
Install = Callable[..., Installation]
Call = list[str]


@dataclass(frozen=True)
class Calls:
    """Everything that the processes of a command did, in its order."""

    all: list[Call]
    root: str

    def first(self, kind: str, *words: str, after: int = -1) -> int:
        """Where the first such call is found; every word must be in one of its arguments."""
        for place, call in enumerate(self.all):
            if place > after and call[0] == kind and all(any(word in part for part in call[1:]) for word in words):
                return place
        raise AssertionError(f"no {kind} of {words} behind {after} among {json.dumps(self.all, indent=1)}")

    def of_ours(self, kind: str) -> list[Call]:
        return [call for call in self.all if call[0] == kind]

    def synced(self, path: str, *, after: int) -> int:
        """The first sync of exactly this path behind a call."""
        for place, call in enumerate(self.all):
            if place > after and call == ["sync", path]:
                return place
        raise AssertionError(f"no sync of {path} behind {after} among {json.dumps(self.all, indent=1)}")


class Watched:
    """An installation whose processes write down what they do to the disk."""

    def __init__(self, machine: Installation) -> None:
        self.machine = machine
        self._file = machine.home / "calls"
        machine.set(PYTHONPATH=f"{WATCHED}:{machine.env.get('PYTHONPATH', '')}", WATCHED=self._file)

    def sync(self, site: FaultySite) -> Calls:
        self._file.unlink(missing_ok=True)
        done = self.machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a/b", "--source-id", "1")
        assert done.returncode == 0, done.stdout + done.stderr
        return Calls([json.loads(line) for line in self._file.read_text().splitlines()], str(self.machine.content))


def post(number: int, version: int = 0, **fields: Any) -> Post:
    return Post(id=number, body=random.Random(f"{number} {version}").randbytes(9_000), **fields)


def assert_safe(calls: Calls, name: str) -> None:
    """Bytes, then the note of the landing, then the name, then the folder: and only then the row."""
    placed = calls.first("link", "/.partial/", name)
    bytes_safe = calls.first("sync", "/.partial/", name)
    noted = calls.first("sync", "/.http-downloader/landing/")
    folder_safe = calls.synced(f"{calls.root}/a/b", after=placed)
    row = calls.first("sql", "INSERT INTO files", name)
    assert bytes_safe < placed < folder_safe < row
    assert noted < placed


def test_a_file_is_on_the_disk_before_its_row(install: Install) -> None:
    """DURABILITY=full: also new folders, up to the content root."""
    watched = Watched(install())
    with FaultySite([post(1), post(2), post(3)]) as site:
        calls = watched.sync(site)
        for one in site.posts:
            assert_safe(calls, one.md5)
        made = calls.first("mkdir", f"{calls.root}/a")
        inner = calls.first("mkdir", f"{calls.root}/a/b")
        row = calls.first("sql", "INSERT INTO files")
        assert made < calls.synced(calls.root, after=made) < row
        assert inner < calls.synced(f"{calls.root}/a", after=inner) < row
        assert next(call[1] for call in calls.of_ours("sql") if "PRAGMA" in call[1]) == "PRAGMA synchronous=FULL"
        assert not watched.sync(site).of_ours("sync")  # nothing is new, nothing is paid


def test_fast_waits_for_no_disk(install: Install) -> None:
    """DURABILITY=fast: no call of ours waits for the disk, and SQLite only where it must."""
    watched = Watched(install(DURABILITY="fast"))
    with FaultySite([post(1), post(2)]) as site:
        calls = watched.sync(site)
        assert calls.first("link", "/.partial/", site.posts[0].md5) < calls.first("sql", "INSERT INTO files")
        assert calls.of_ours("sync") == []
        assert {call[1] for call in calls.of_ours("sql") if "PRAGMA" in call[1]} == {"PRAGMA synchronous=NORMAL"}


def test_a_file_that_was_changed_here_is_on_the_disk_before_its_row(install: Install) -> None:
    """A post-processor wrote to it after it had got its name; a file that lay there already was written by somebody."""
    watched = Watched(install())
    change = {"name": "exec", "event": "after", "command": ["sh", "-c", 'echo more >> "$0"', "{_path}"]}
    watched.machine.configure(
        {**POLITENESS_OFF, "extractor": {**POLITENESS_OFF["extractor"], "postprocessors": [change]}}
    )
    with FaultySite([post(1), post(2)]) as site:
        file = f"a/b/{site.root.removeprefix('http://')}_2_{post(2).md5}.png"
        (watched.machine.content / file).parent.mkdir(parents=True)
        (watched.machine.content / file).write_bytes(post(2).content())
        calls = watched.sync(site)
        assert_safe(calls, post(1).md5)
        (changed,) = watched.machine.content.glob("a/b/*_1_*")
        placed = calls.first("link", post(1).md5)
        row = calls.first("sql", "INSERT INTO files", post(1).md5)
        assert placed < calls.synced(str(changed), after=placed) < row
        adopted = calls.synced(f"{calls.root}/{file}", after=-1)
        assert adopted < calls.first("sql", "INSERT INTO files", post(2).md5)


def test_a_newer_version_is_on_the_disk_before_its_row(install: Install) -> None:
    """REFRESH_CHANGED: the older version goes when the newer one is safe."""
    watched = Watched(install(REFRESH_CHANGED=True))
    with FaultySite([post(1)]) as site:
        watched.sync(site)
        site.add(post(1, version=1, created_at=datetime(2026, 6, 1, tzinfo=UTC)))
        calls = watched.sync(site)
        replaced = calls.first("replace", "/.partial/", post(1).md5)
        assert calls.first("sync", "/.partial/", post(1).md5) < replaced
        assert calls.first("sync", "/.http-downloader/landing/") < replaced
        assert replaced < calls.synced(f"{calls.root}/a/b", after=replaced) < calls.first("sql", "files", post(1).md5)


def test_the_trash_is_on_the_disk_before_the_catalog_says_so(install: Install) -> None:
    """Into it and out of it: the new name is safe before the old one goes, and that before the row."""
    watched = Watched(install(REMOVAL_MIN_AGE=0, REMOVAL_PROBE="ignore", REMOVAL_MAX_SHARE=100))
    with FaultySite([post(number) for number in range(1, 13)]) as site:
        watched.sync(site)
        site.remove(2)
        watched.sync(site)
        gone = watched.sync(site)
        trashed = gone.first("link", "/.trash/", post(2).md5)
        trash = str(next(watched.machine.content.glob(".trash/*/a/b")))
        taken = gone.first("unlink", "/a/b/", post(2).md5)
        told = gone.first("sql", "UPDATE files", "trashed")
        assert trashed < gone.synced(trash, after=trashed) < taken < gone.synced(f"{gone.root}/a/b", after=taken) < told
        new = gone.first("mkdir", trash)
        assert new < gone.synced(str(Path(trash).parent), after=new) < trashed
        site.add(post(2))
        back = watched.sync(site)
        returned = back.first("link", "/.trash/", post(2).md5)
        safe = back.synced(f"{back.root}/a/b", after=returned)
        left = back.first("unlink", "/.trash/", post(2).md5)
        assert (
            returned
            < safe
            < left
            < back.synced(trash, after=left)
            < back.first("sql", "files", post(2).md5, after=left)
        )
        assert len(site.requests("^/data/")) == 12  # it was not downloaded again
