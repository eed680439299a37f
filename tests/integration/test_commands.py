"""The commands: their help, the ones that README shows, and what they say when they are used wrongly."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

from http_downloader import __version__
from http_downloader.cli import main
from http_downloader.cli.commands import commands
from tests.installation import Installation, Service
from tests.queues import Queues
from tests.site import FaultySite, Post

ROOT = Path(__file__).parents[2]
SHOWN_URL = "https://danbooru.donmai.us/posts?tags=cat+hat"
"""The gallery of README's commands; a site on loopback takes its place here."""

NOT_RUN_HERE = {
    "pip install .": "the command that all tests run was installed by pip or uv, see the Makefile",
    "pip install '.[video]'": "needs the network; the extra is resolved in uv.lock",
    "docker compose --file deploy/docker-compose.yml up --detach --build": "needs a Docker engine",
}
"""Commands of README that cannot be run here, each with the reason."""


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command of an installation inside this process: for the many that only look, or end at once."""

    def run(machine: Installation, *arguments: str) -> subprocess.CompletedProcess[str]:
        for name in os.environ.keys() - machine.env.keys():
            monkeypatch.delenv(name)
        for name, value in machine.env.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(machine.home)
        monkeypatch.setattr(sys, "argv", ["http-downloader", *arguments])
        monkeypatch.setattr(sys.modules["__main__"], "__package__", None)  # else the usage names pytest
        monkeypatch.setattr("http_downloader.cli.commands.configure_logs", lambda *_: None)  # for the whole process
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), *capsys.readouterr())

    return run


# Help


def all_commands() -> dict[str, Any]:
    """Every command and every group of commands, by the words behind `http-downloader`."""
    root = typer.main.get_command(commands)
    found: dict[str, Any] = {"": root}
    for name, command in root.commands.items():  # type: ignore[attr-defined]
        found[name] = command
        found |= {f"{name} {inner}": leaf for inner, leaf in getattr(command, "commands", {}).items()}
    return found


@pytest.mark.parametrize("name", all_commands())
def test_help(install: Callable[..., Installation], run_here: Run, name: str) -> None:
    """Each command explains itself, with every argument and every option that it takes, each in words."""
    command = all_commands()[name]
    done = run_here(install(), *name.split(), "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert command.help.split("\n")[0][:60] in done.stdout
    for parameter in command.params:
        assert parameter.help, f"{parameter.name} is not explained"
        for word in parameter.opts if parameter.param_type_name == "option" else [parameter.name]:
            assert word in done.stdout
    for inner in getattr(command, "commands", {}):
        assert f"  {inner} " in done.stdout


def test_version(install: Callable[..., Installation]) -> None:
    """`--version` prints the version and nothing else."""
    done = install().run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


# README


def commands_of_readme() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


def test_commands_of_the_readme(install: Callable[..., Installation], queues: Queues) -> None:
    """Every command that README shows works, in README's order, or is listed here with the reason why it is not run."""
    queues.declare_orders()
    machine = install(**queues.settings)
    (machine.home / "deploy").mkdir()
    for name in (".env.example", "deploy/compose.env.example"):
        (machine.home / name).write_bytes((ROOT / name).read_bytes())
    lines = commands_of_readme()
    assert not set(NOT_RUN_HERE) - set(lines), "listed as not run, and not in README"
    with FaultySite([Post(id=number) for number in range(1, 4)]) as site, Service(machine):
        url = f"Danbooru:{site.root}/posts?tags=demo"
        for line in lines:
            if line not in NOT_RUN_HERE:
                run_shown(machine, line.replace(SHOWN_URL, url))
        queues.wait_for("synchronized", 4)
        assert {path.rpartition("/")[0].rpartition("/")[2] for path in machine.on_disk()} >= {"cats", "portraits"}


def run_shown(machine: Installation, line: str) -> None:
    """Run one line in a shell, as a person who pasted it."""
    if line == "http-downloader serve":
        return  # it runs all the while
    assert re.match(r"(make|http-downloader|cp) ", line), f"nothing runs this line of README: {line}"
    line = re.sub(r"^make ", f"make --directory={ROOT} --old-file=.venv/.installed BIN={bin_folder()} ", line)
    path = f"{bin_folder()}{os.pathsep}{machine.env['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line],
        env=machine.env | {"PATH": path},
        cwd=machine.home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    assert "Traceback" not in done.stderr


def bin_folder() -> Path:
    return Path(sys.executable).parent


# The demo


def test_demo_twice(install: Callable[..., Installation]) -> None:
    """The first demo mirrors a gallery, and again after it changed; the second one downloads only what came new."""
    machine = install()
    first = machine.run("demo")
    assert first.returncode == 0, first.stderr
    assert lines_of(first, "+ ") == 30
    assert "24 new" in first.stdout
    assert "6 new" in first.stdout
    assert "22 known" in first.stdout
    assert "gone at the remote: 2 waiting for a second listing" in first.stdout
    pictures = machine.runtime / "demo" / "content" / "demo"
    before = {file: file.stat().st_mtime_ns for file in pictures.iterdir()}
    assert len(before) == 30

    second = machine.run("demo")
    assert second.returncode == 0, second.stderr
    assert lines_of(second, "+ ") == 6
    assert "6 new" in second.stdout
    assert "26 known" in second.stdout
    assert "gone at the remote: 2 moved to trash; 2 waiting for a second listing" in second.stdout
    assert re.search(r"2 trashed, 32 present, 2 missing", " ".join(second.stdout.split()))
    left = list(pictures.iterdir())
    assert len(left) == 34
    assert len([file for file in before if file in left]) == 28
    assert {file: file.stat().st_mtime_ns for file in before if file in left}.items() <= before.items()


def test_demo_keeps_to_its_folder(install: Callable[..., Installation], tmp_path: Path) -> None:
    """The demo needs no setting, and touches neither a broker nor the catalog and pictures of its user."""
    folder = tmp_path / "elsewhere"
    machine = install(RABBITMQ_HOST="127.0.0.1", RABBITMQ_PORT=1, DATABASE_URL="sqlite:////dev/null/no")
    done = machine.run("demo", "--folder", str(folder))
    assert done.returncode == 0, done.stderr
    assert not machine.content.exists()
    again = machine.run("demo", "--folder", str(folder), "--reset")
    assert again.returncode == 0
    assert "24 new" in again.stdout


def lines_of(done: subprocess.CompletedProcess[str], start: str) -> int:
    return sum(line.startswith(start) for line in done.stdout.splitlines())


# Wrong use


KNOWN_URL = "https://danbooru.donmai.us/posts?tags=cat"

WRONG = [
    (["sinc", KNOWN_URL], "sync"),
    (["sync"], "url"),
    (["sync", KNOWN_URL, "--too", "a"], "--to"),
    (["sync", KNOWN_URL, "--source-id", "one"], "--source-id"),
    (["sync", KNOWN_URL, "--source-id", "0"], "positive integer"),
    (["sync", KNOWN_URL, "--attempts", "0"], "--attempts"),
    (["sync", "danbooru"], "http://"),
    (["sync", "ftp://example.org/a"], "http://"),
    (["sync", "recursive:https://example.org/a"], "recursive:"),
    (["sync", "--", "--input-file=https://example.org/a"], "http://"),
    (["sync", "https://example.org/no-gallery"], "https://example.org/no-gallery"),
    (["sync", KNOWN_URL, "--to", ""], "CONTENT_ROOT"),
    (["sync", KNOWN_URL, "--to", "../elsewhere"], ".."),
    (["sync", KNOWN_URL, "--to", ".partial/a"], ".partial"),
    (["order", KNOWN_URL, "--to", "a"], "--source-id"),
    (["order", KNOWN_URL, "--to", "a", "--source-id", "1"], "RABBITMQ_HOST"),
    (["runs", "--limit", "0"], "--limit"),
    (["runs", "--log", "none-1"], "none-1"),
    (["files", "--state", "lost"], "present"),
    (["db", "downgrade"], "downgrade"),
]


@pytest.mark.parametrize(("arguments", "named"), WRONG, ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_wrong_use(install: Callable[..., Installation], run_here: Run, arguments: list[str], named: str) -> None:
    """Exit code 2, and one line that names what is wrong or what would be right."""
    machine = install()
    refused(run_here(machine, *arguments), 2, named)
    assert not machine.content.exists() or machine.on_disk() == {}


@pytest.mark.parametrize("command", ["sync", "serve"])
def test_a_broken_template(install: Callable[..., Installation], command: str) -> None:
    """A gallery-dl.conf.json that is no JSON: named, with the place in it."""
    machine = install()
    template = machine.config / "gallery-dl.conf.json"
    template.write_text('{"extractor": {')
    arguments = [command] if command == "serve" else [command, KNOWN_URL]
    refused(machine.run(*arguments), 2, str(template), "line 1")
    refused_by_doctor(machine, "gallery-dl", str(template))


@pytest.mark.parametrize("folder", ["CONTENT_ROOT", "RUNTIME_PATH", "CONFIG_PATH"])
def test_a_folder_that_cannot_be_used(install: Callable[..., Installation], run_here: Run, folder: str) -> None:
    """A folder that cannot be made: the setting and the path are named."""
    machine = install(**{folder: "/dev/null/here"})
    refused(run_here(machine, "sync", KNOWN_URL), 6, folder, "/dev/null/here")


def test_a_content_root_that_cannot_be_written(install: Callable[..., Installation]) -> None:
    """A folder where nothing can be made: the run fails, with the path."""
    machine = install(CONTENT_ROOT="/proc", SYNC_ATTEMPTS=1)
    with FaultySite([Post(id=1)]) as site:
        done = machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a")
    assert done.returncode == 4
    assert "Traceback" not in done.stdout + done.stderr
    assert "/proc" in done.stdout
    assert machine.runs()[0]["reason"] == "storage-error"


@pytest.mark.parametrize(
    ("url", "code", "named"),
    [
        ("catalog.db", 2, "sqlite:///path"),
        ("oracle://127.0.0.1/a", 2, "sqlite:///path"),
        ("sqlite://", 2, "memory"),
        ("sqlite:////dev/null/here/catalog", 6, "/dev/null/here"),
        ("postgresql://somebody:secret@127.0.0.1:1/a", 6, "127.0.0.1"),
        ("mariadb://somebody:secret@127.0.0.1:1/a", 6, "127.0.0.1"),
    ],
)
@pytest.mark.parametrize("arguments", [["runs"], ["sync", KNOWN_URL]], ids=["runs", "sync"])
def test_a_broken_database_url(
    install: Callable[..., Installation], run_here: Run, arguments: list[str], url: str, code: int, named: str
) -> None:
    """A catalog that cannot be opened: where it should be, without the password."""
    done = run_here(install(DATABASE_URL=url), *arguments)
    refused(done, code, named)
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("SYNC_CONCURRENCY", "many", "whole number"),
        ("LOG_FORMAT", "xml", "json"),
        ("ALLOW_PRIVATE_ADDRESSES", "some", "192.168.1.0/24"),
        ("AMQP_QUEUES_DURABLE", "perhaps", "true or false"),
    ],
)
def test_a_wrong_setting(
    install: Callable[..., Installation], run_here: Run, setting: str, value: str, named: str
) -> None:
    """The setting, its value and what is allowed."""
    refused(run_here(install(**{setting: value}), "sources"), 2, setting, value, named)


def test_a_misspelt_setting_is_warned_of(install: Callable[..., Installation]) -> None:
    """The nearest name is suggested, and the command goes on."""
    done = install(AMQP_Q_FILE_DOWNLOADS="a").run("sources")
    assert done.returncode == 0
    assert done.stderr == (
        "warning: AMQP_Q_FILE_DOWNLOADS is no setting of ours; did you mean AMQP_Q_FILE_DOWNLOADED?\n"
    )


def test_no_broker_to_order_from(install: Callable[..., Installation]) -> None:
    """A broker that is down: exit code 6 after a little patience, and why."""
    machine = install(RABBITMQ_HOST="127.0.0.1", RABBITMQ_PORT=1)
    order = ["order", KNOWN_URL, "--source-id", "1", "--to", "a"]
    refused(machine.run(*order), 6, "broker", "refused")
    refused_by_doctor(machine, "broker", "refused")


def refused(done: subprocess.CompletedProcess[str], code: int, *named: str) -> None:
    """One line of words on standard error (behind the usage, for options), nothing on standard output."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    *usage, line = done.stderr.splitlines()
    if usage:
        assert usage[0].startswith("Usage: http-downloader")
        assert usage[1].startswith("Try 'http-downloader")
        assert line.startswith("Error: ")
    else:
        assert line.startswith("http-downloader: ")
    for words in named:
        assert words in line


def refused_by_doctor(machine: Installation, check: str, *named: str) -> None:
    """The doctor finds one problem, and with --quiet tells of that only."""
    done = machine.run("doctor", "--quiet")
    assert done.returncode == 6
    (line,) = done.stdout.splitlines()
    assert shlex.split(line.replace("'", ""))[:2] == ["✗", check]
    for words in named:
        assert words in line


# Lists


def test_lists(install: Callable[..., Installation], run_here: Run) -> None:
    """Sources, runs and files: tables for people, NDJSON for machines, a sentence when there is nothing."""
    machine = install()

    def rows(*arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in run_here(machine, *arguments, "--json").stdout.splitlines()]

    for command in ("sources", "runs", "files"):
        assert run_here(machine, command).stdout == f"no {command} yet\n"
        assert rows(command) == []
    with FaultySite([Post(id=1, title="A harbour")]) as site:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        assert machine.sync(url, "--to", "a", "--source-id", "7").returncode == 0
    (run,) = rows("runs")
    (source,) = rows("sources")
    (file,) = rows("files", "--source-id", "7")
    assert source == {
        "source_id": 7,
        "url": url,
        "content_path": "a",
        "site": source["site"],
        "state": "synchronized",
        "reason": None,
        "synchronized_at": run["ended_at"],
        "remote_deletes": None,
    }
    assert (run["source_id"], run["state"], run["attempt"], run["counts"]["downloaded"]) == (7, "synchronized", 1, 1)
    assert rows("files", "--state", "present") == [file]
    assert rows("files", "--state", "missing") == rows("files", "--source-id", "8") == []
    for command, words in (("sources", url), ("runs", run["run_id"]), ("files", file["filename"])):
        header, row = run_here(machine, command).stdout.splitlines()
        assert header.startswith(("source id", "run id"))
        assert words in row
    assert run_here(machine, "runs", "--log", run["run_id"]).returncode == 0


def test_a_reader_that_has_seen_enough(install: Callable[..., Installation]) -> None:
    """`http-downloader files | head` ends without a word."""
    machine = install()
    with FaultySite([Post(id=number) for number in range(1, 400)]) as site:
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a").returncode == 0
    line = f"{bin_folder()}/http-downloader files --json | head --lines=1"
    done = subprocess.run(["bash", "-c", line], env=machine.env, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


def test_a_healthy_machine(install: Callable[..., Installation], queues: Queues) -> None:
    """The doctor finds nothing, says what it looked at, and is silent with --quiet."""
    machine = install(**queues.settings)
    done = machine.run("doctor")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert all(line.startswith("✓ ") for line in lines)
    assert len(lines) >= 7
    quiet = machine.run("doctor", "--quiet")
    assert (quiet.returncode, quiet.stdout) == (0, "")


def test_a_content_root_that_is_not_mounted(install: Callable[..., Installation]) -> None:
    """The doctor says so, and what to do when the files have moved; that heals it."""
    machine = install()
    with FaultySite([Post(id=1)]) as site:
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo").returncode == 0
    machine.content.rename(machine.home / "disk")
    machine.content.mkdir()
    done = machine.run("doctor", "--quiet")
    assert done.returncode == 6
    assert "CONTENT_ROOT is not the folder that the catalog speaks of" in done.stdout
    assert machine.run("db", "mark-root").returncode == 0
    assert machine.run("doctor").returncode == 0


def test_the_catalog_s_address_and_schema(install: Callable[..., Installation]) -> None:
    """`db show` and `db upgrade` name the catalog and its schema."""
    machine = install()
    (facts,) = machine.rows("db", "show")
    assert facts["address"] == f"sqlite:///{machine.runtime}/catalog.sqlite3"
    assert machine.run("db", "upgrade").stdout == f"{facts['address']} has schema {facts['schema']}\n"
    assert facts["identity"] in machine.run("db", "show").stdout
