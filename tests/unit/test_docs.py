"""The documentation says what the code does: settings, commands, reasons, codes, messages and links."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from http_downloader.cli.commands import commands
from http_downloader.domain.errors import Exit, OrderFault
from http_downloader.domain.events import (
    Event,
    EventType,
    HookValue,
    RunContext,
    file_event,
    file_removed,
    source_sync_failed,
    source_synchronized,
)
from http_downloader.domain.files import FileState
from http_downloader.domain.orders import parse_order
from http_downloader.domain.reasons import Reason
from http_downloader.domain.runs import Counts, RunState
from http_downloader.settings import Settings, load_settings, suspicious_names

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ENV_EXAMPLE = ROOT / ".env.example"
PAGES = sorted(
    page.relative_to(ROOT)
    for folder in (ROOT, ROOT / "docs", ROOT / "deploy")
    for page in folder.iterdir()
    if page.suffix in (".md", ".yml", ".yaml", ".service", ".example")
    or page.name in (".env.example", "Dockerfile", "Makefile")
)
ON_LINUX = {
    "content_root": "~/Pictures/http-downloader",
    "config_path": "~/.config/http-downloader",
    "runtime_path": "~/.local/share/http-downloader",
}
"""Defaults that depend on the machine, as they are in a plain home folder."""


@pytest.fixture
def plain_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no settings at all."""
    for name in (*(field.upper() for field in Settings.model_fields), "XDG_CONFIG_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in ("XDG_PICTURES_DIR", "XDG_CONFIG_DIRS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(heading: str) -> dict[str, list[str]]:
    """The table of README whose first header cell is this: the cells behind the first one, by the first one."""
    lines = iter(README.splitlines())
    for line in lines:
        if line.startswith(f"| {heading} |"):
            next(lines)
            break
    else:
        pytest.fail(f"README has no table that begins with {heading!r}")
    found: dict[str, list[str]] = {}
    for line in lines:
        if not line.startswith("|"):
            return found
        first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
        assert first not in found, f"{first} stands twice in README"
        found[first.strip("`")] = rest
    return found


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def json_examples() -> list[dict[str, Any]]:
    return [json.loads(line) for block in fenced(README, "json") for line in block.splitlines()]


# Settings


def default_in_words(name: str) -> str:
    if name in ON_LINUX:
        return f"`{ON_LINUX[name]}`"
    value = Settings.model_fields[name].default
    if value == "":
        return "empty"
    return f"`{plain(value)}`"


def plain(value: object) -> str:
    """As one writes it into a file."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_setting_is_in_the_readme() -> None:
    """README's table has every setting, in the order of `Settings`, with its default and its description."""
    documented = rows("setting")
    expected = "\n".join(
        f"| `{name.upper()}` | {default_in_words(name)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    )
    assert list(documented) == [name.upper() for name in Settings.model_fields], f"should be:\n{expected}"
    for name, field in Settings.model_fields.items():
        default, meaning = documented[name.upper()]
        assert meaning == field.description, name
        assert default.endswith(default_in_words(name)), name
        if name not in ON_LINUX:
            assert default == default_in_words(name)


@pytest.mark.skipif(sys.platform != "linux", reason="the folders are those of Linux")
def test_documented_folders_are_the_defaults(plain_home: Path) -> None:
    """The folders that README and .env.example name are what a machine without settings uses."""
    settings = load_settings()
    for name, path in ON_LINUX.items():
        assert getattr(settings, name) == Path(path).expanduser()


def env_example() -> dict[str, str]:
    lines = re.findall(r"^#?([A-Z_]+)=(.*)$", ENV_EXAMPLE.read_text(), re.MULTILINE)
    assert len(lines) == len(dict(lines)), "a setting stands twice in .env.example"
    return dict(lines)


def test_env_example_names_every_setting_with_its_default(plain_home: Path) -> None:
    """.env.example is complete, and each value there is the default."""
    given = env_example()
    assert set(given) == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        assert given[name.upper()] == (ON_LINUX.get(name) or plain(field.default)), name


def test_env_example_can_be_used_as_it_is(plain_home: Path) -> None:
    """Copied to .env, with all lines taken in, it changes nothing and names nothing unknown."""
    without = load_settings()
    (plain_home / ".env").write_text(ENV_EXAMPLE.read_text())
    assert load_settings() == without
    (plain_home / ".env").write_text(re.sub(r"^#(?=[A-Z_]+=)", "", ENV_EXAMPLE.read_text(), flags=re.MULTILINE))
    assert load_settings() == without
    assert suspicious_names() == []


def test_settings_in_the_pages_exist() -> None:
    """No page names a setting that there is not."""
    known = {name.upper() for name in Settings.model_fields}
    for page in ("README.md", *(f"docs/{name}.md" for name in ("architecture", "migration", "hooks", "operations"))):
        words = set(re.findall(r"\b(?:AMQP|RABBITMQ|SYNC|SITE|HOOK|LOG|HTTP)_[A-Z_]+\b", (ROOT / page).read_text()))
        assert {word for word in words if word not in known and not word.endswith("_")} == set(), page


# Commands


def all_commands() -> Iterator[tuple[str, Any]]:
    for name, command in typer.main.get_command(commands).commands.items():  # type: ignore[attr-defined]
        if hasattr(command, "commands"):
            if command.invoke_without_command:
                yield name, command
            yield from ((f"{name} {inner}", found) for inner, found in command.commands.items())
        else:
            yield name, command


def test_every_command_and_option_is_in_the_readme() -> None:
    """The command table has every command with exactly the options that it takes."""
    documented = {re.sub(r" \[?[A-Z].*$", "", first): rest for first, rest in rows("command").items()}
    assert set(documented) == {name for name, _ in all_commands()}
    for name, command in all_commands():
        options = {max(option.opts, key=len) for option in command.params if option.param_type_name == "option"}
        assert set(re.findall(r"--[a-z-]+", documented[name][1])) == options - {"--help"}, name


def test_the_program_s_own_options_are_in_the_readme() -> None:
    for option in typer.main.get_command(commands).params:
        assert f"{max(option.opts, key=len)}`" in README


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md"], ids=str)
def test_commands_of_the_pages_exist(page: Path) -> None:
    """With their options: in code between backticks and in blocks of shell."""
    known = dict(all_commands())
    text = (ROOT / page).read_text()
    for words in re.findall(r"(?:^|`)http-downloader ((?:[a-z][a-z-]*)(?: [^`\n]*)?)", text, re.MULTILINE):
        parts = words.split("#")[0].split()
        name = " ".join(parts[:2]) if " ".join(parts[:2]) in known else parts[0]
        assert name in known, f"{page}: http-downloader {words}"
        options = {option for given in known[name].params for option in given.opts}
        assert set(re.findall(r"(?<!\S)--[a-z-]+", words)) <= options | {"--help"}, f"{page}: http-downloader {words}"


def test_exit_codes() -> None:
    """README lists every exit code."""
    assert sorted(int(code) for code in rows("code")) == sorted(Exit)


# Reasons and states


def test_reasons() -> None:
    """README has every reason with its kind and its sentence."""
    expected = {str(reason): [reason.kind.name.lower(), reason.sentence] for reason in Reason}
    lines = "\n".join(f"| `{name}` | {kind} | {sentence} |" for name, (kind, sentence) in expected.items())
    assert README.count("| reason | kind | meaning |") == 1
    table = README.partition("| reason | kind | meaning |\n| --- | --- | --- |\n")[2].partition("\n\n")[0]
    assert table == lines


def test_faults_of_orders() -> None:
    """README has every reason for which an order is rejected."""
    assert list(rows("reason")) == [str(fault) for fault in OrderFault]


def test_states() -> None:
    """README has every state in which a run can end, with its exit code, and every state of a file."""
    ends = rows("state")
    assert list(ends) == [str(state) for state in RunState if state.ended]
    assert all(str(state) in README for state in RunState)
    assert {code for *_, codes in ends.values() for code in re.findall(r"\d+", codes)} == {"0", "3", "4", "5", "130"}
    assert list(rows("state of a file")) == [str(state) for state in FileState]


# Messages


def test_orders_of_the_readme_are_accepted() -> None:
    """What README shows as an order is one."""
    orders = [example for example in json_examples() if "content_path" in example]
    assert orders
    for example in orders:
        assert parse_order(json.dumps(example).encode()).source_id == example["source_id"]


RUN = RunContext(run_id="f539c1a9-1", source_id=725)


def test_events_of_the_readme() -> None:
    """The bodies that README shows are those that are made."""
    bodies = [line for line in json_examples() if "source_id" in line and not {"content_path", "event"} & line.keys()]
    made = [
        file_event(EventType.FILE_DOWNLOADED, RUN, remote_id="1", filename="6miu5n4ybt3.jpg"),
        file_event(EventType.FILE_SKIPPED, RUN, remote_id="1", filename="6miu5n4ybt3.jpg"),
        source_synchronized(RUN, orders=[], counts={}),
        source_sync_failed(RUN, state="failed", reason=str(Reason.NOT_FOUND), detail=bodies[3]["detail"]),
        file_removed(RUN, remote_id="1", filename="6miu5n4ybt3.jpg", removal="trash"),
    ]
    assert [json.dumps(body) for body in bodies] == [json.dumps(dict(event.body)) for event in made]
    assert list(rows("event")) == [str(event.type) for event in made]


def test_json_lines_of_the_readme() -> None:
    """What README shows as the output of `sync --json` has the keys, and the message ids, of real events."""
    shown = [example for example in json_examples() if "event" in example]
    run = RunContext(run_id=shown[0]["run_id"], source_id=shown[0]["source_id"])
    first, last = shown
    file = {key: first[key] for key in ("filename", "url", "size", "sha256")}
    counts = Counts(**{key: last[key] for key in Counts().as_dict()})
    made = [
        file_event(EventType.FILE_DOWNLOADED, run, remote_id="danbooru_5824371", **file),
        source_synchronized(run, orders=[], counts=counts.as_dict()),
    ]
    assert shown == [as_line(event) for event in made]
    assert [list(line) for line in shown] == [list(as_line(event)) for event in made]


def as_line(event: Event) -> dict[str, Any]:
    return {"event": str(event.type), **event.body, **event.headers, "message_id": event.message_id}


def test_headers_and_properties() -> None:
    """README's table has every header of every event."""
    events = [
        file_event(EventType.FILE_DOWNLOADED, RUN, remote_id="1", filename="a", url="b", size=1, sha256="c"),
        source_synchronized(RUN, orders=["1"], counts=Counts().as_dict()),
        source_sync_failed(RUN, state="failed", reason="crashed", detail=""),
    ]
    documented = {name.removeprefix("header `") for name in rows("property or header") if name.startswith("header")}
    assert documented == {name for event in events for name in event.headers}
    assert {"message_id", "correlation_id", "type", "timestamp", "content_type"} <= set(rows("property or header"))


# Hook scripts


def test_the_hook_value() -> None:
    """docs/hooks.md has every field of the value, in its order."""
    page = (ROOT / "docs/hooks.md").read_text()
    table = page.partition("| field |")[2].partition("\n\n")[0]
    fields = [field.name for field in dataclasses.fields(HookValue)]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == fields
    assert all(f"`{name}`" in table for name in Counts().as_dict())


def test_the_hook_script(tmp_path: Path) -> None:
    """The example of docs/hooks.md does what it says."""
    (example,) = fenced((ROOT / "docs/hooks.md").read_text(), "python")
    notes = tmp_path / "notes.txt"
    script: dict[str, Any] = {}
    exec(example.replace("/var/log/http-downloader-notes.txt", str(notes)), script)
    file = HookValue(
        event="file-downloaded", message_id="m", source_id=1, run_id="a-1", filename="b.jpg", path="/c/b.jpg", size=3
    )
    script["on_file_downloaded"](file)
    done = HookValue(
        event="source-synchronized", message_id="m", source_id=1, run_id="a-1", counts=Counts(downloaded=1).as_dict()
    )
    script["on_source_synchronized"](done)
    assert notes.read_text() == "source 1: /c/b.jpg has 3 bytes\nsource 1: 1 new files\n"


# Pages


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md"], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link is a file here, and every anchor a heading of it."""
    text = re.sub(r"^```.*?^```$", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / page).parent / name if name else ROOT / page
        assert file.exists(), f"{page} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page} links to {target}"


@pytest.mark.parametrize("page", [*PAGES, Path("pyproject.toml")], ids=str)
def test_no_page_tells_of_one_machine(page: Path) -> None:
    """No folder of a person, no address of a private package index."""
    text = (ROOT / page).read_text()
    assert re.findall(r"/(?:home|Users)/\w+|/root/|/work/", text) == []
    assert re.findall(r"(?:index-url|UV_INDEX\w*=|PIP_INDEX\w*=|find-links)\S*", text) == []
    assert re.findall(r"https?://[^\s/]*(?:mirror|artifactory|nexus)[^\s]*", text) == []


def test_the_lock_names_the_public_index_only() -> None:
    """uv.lock can be used anywhere."""
    hosts = set(re.findall(r"https?://([^/\"]+)/", (ROOT / "uv.lock").read_text()))
    assert hosts <= {"pypi.org", "files.pythonhosted.org"}
