"""The operator's hook scripts: called after the fact, with one value, and never in the way of the mirror."""

from __future__ import annotations

import json
from collections.abc import Callable

from tests.installation import Installation
from tests.site import FaultySite, Post

SCRIPT = """
import dataclasses, json, os, pathlib
calls = pathlib.Path(os.environ["HOME"]) / "calls"

def write(value):
    there = value.path is None or os.path.exists(value.path)
    print("scripts may print")
    with calls.open("a") as out:
        out.write(json.dumps({**dataclasses.asdict(value), "pid": os.getpid(), "there": there}) + chr(10))

on_file_downloaded = on_file_skipped = on_source_synchronized = write

def fails(value):
    raise RuntimeError("no room on the moon")

def hangs(value):
    import time
    time.sleep(60)
"""


def scripted(install: Callable[..., Installation], **functions: str) -> Installation:
    machine = install()
    script = machine.home / "hooks.py"
    script.write_text(SCRIPT)
    machine.set(**{f"HOOK_{event}": f"{script}{function}" for event, function in functions.items()})
    return machine


def test_scripts_are_called_with_the_documented_value(install: Callable[..., Installation]) -> None:
    """Once per event, in one process, when the file is in place; a whole run makes its calls in order."""
    machine = scripted(install, FILE_DOWNLOADED="", FILE_SKIPPED="", SOURCE_SYNCHRONIZED="")
    with FaultySite([Post(id=1), Post(id=2)]) as site:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        assert machine.sync(url, "--to", "a", "--source-id", "7").returncode == 0
        site.add(Post(id=3))
        assert machine.sync(url, "--to", "a", "--source-id", "7").returncode == 0
    calls = [json.loads(line) for line in (machine.home / "calls").read_text().splitlines()]
    assert [call["event"] for call in calls] == [
        *["file-downloaded"] * 2,
        "source-synchronized",
        "file-downloaded",
        *["file-skipped"] * 2,
        "source-synchronized",
    ]
    assert all(call["there"] for call in calls)
    assert len({call["pid"] for call in calls}) == 2  # one process for each of the two commands
    first = calls[0]
    row = next(row for row in machine.files(7) if row["filename"] == first["filename"])
    assert (first["source_id"], first["size"], first["sha256"], first["url"]) == (
        7, row["size"], row["sha256"], row["url"]
    )  # fmt: skip
    assert first["path"] == str(machine.content / row["path"])
    assert calls[2]["counts"]["downloaded"] == 2


def test_a_script_that_raises_or_hangs_breaks_nothing(install: Callable[..., Installation]) -> None:
    """The run is synchronized all the same, and its log says which script failed how."""
    machine = scripted(install, FILE_DOWNLOADED=":fails", SOURCE_SYNCHRONIZED=":hangs")
    machine.set(HOOK_TIMEOUT="0.5")
    with FaultySite([Post(id=1), Post(id=2)]) as site:
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo").returncode == 0
    log = "\n".join(machine.runs()[0]["log"])
    assert log.count("hook hooks.py:fails failed: RuntimeError: no room on the moon") == 2
    assert "hook hooks.py:hangs took longer than 0.5 s and was ended" in log
    assert len(machine.on_disk()) == 2


def test_a_script_that_is_not_there(install: Callable[..., Installation]) -> None:
    """A wrong path is found at the start, not at the first event."""
    machine = install(HOOK_FILE_SKIPPED="nowhere/hook.py")
    done = machine.sync("https://example.org/a.jpg")
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "http-downloader: HOOK_FILE_SKIPPED names no file: nowhere/hook.py; it must be path/to/script.py[:function]"
    ]
