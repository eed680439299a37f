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
    """Once per event, in one process, when the file is in place; the end of a run is told last."""
    machine = scripted(install, FILE_DOWNLOADED="", FILE_SKIPPED="", SOURCE_SYNCHRONIZED="")
    with FaultySite([Post(id=1), Post(id=2)]) as site:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        assert machine.sync(url, "--to", "a", "--source-id", "7").returncode == 0
        site.add(Post(id=3))
        assert machine.sync(url, "--to", "a", "--source-id", "7").returncode == 0
    calls = [json.loads(line) for line in (machine.home / "calls").read_text().splitlines()]
    events = [call["event"] for call in calls]
    assert events[:3] == ["file-downloaded", "file-downloaded", "source-synchronized"]
    assert sorted(events[3:6]) == ["file-downloaded", "file-skipped", "file-skipped"]
    assert events[6:] == ["source-synchronized"]
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


def test_doctor_reads_the_scripts(install: Callable[..., Installation]) -> None:
    """Without running them: what is no Python, and what lacks its function, is named with its setting."""
    machine = scripted(install, FILE_DOWNLOADED="", FILE_SKIPPED=":write", SOURCE_SYNCHRONIZED="")
    done = machine.run("doctor")
    assert done.returncode == 0, done.stdout
    assert "hooks.py:on_file_downloaded, hooks.py:write, hooks.py:on_source_synchronized" in done.stdout

    broken = machine.home / "broken.py"
    broken.write_text("import nothing_of_this_name\n\ndef on_file_skipped(value:\n")
    machine.set(
        HOOK_FILE_DOWNLOADED=f"{machine.home}/hooks.py:on_file_donwloaded",
        HOOK_FILE_SKIPPED=broken,
        HOOK_SOURCE_SYNCHRONIZED=f"{machine.home}/hooks.py:fails",
    )
    done = machine.run("doctor", "--quiet")
    assert done.returncode == 6
    assert "HOOK_FILE_DOWNLOADED: " in done.stdout
    assert "has no function on_file_donwloaded" in done.stdout
    assert f"HOOK_FILE_SKIPPED: {broken}, line 3 is no Python" in done.stdout
    assert "HOOK_SOURCE_SYNCHRONIZED" not in done.stdout
