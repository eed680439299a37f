"""Over a hundred thousand orders and files that mean harm: nothing is written outside, nothing breaks, each refusal is
told in a sentence. In `make test` a few hundred of them."""

from __future__ import annotations

import os
import shutil
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from gallery_dl import config
from gallery_dl.extractor.common import Extractor
from gallery_dl.extractor.message import Message
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from http_downloader.domain.errors import OrderFault, OrderRejected
from http_downloader.domain.orders import MAX_FOLDER_BYTES, OWN_FOLDERS, Order, parse_order
from http_downloader.gallery.config import build_config
from http_downloader.gallery.evidence import Evidence
from http_downloader.gallery.job import MirrorJob, Run
from http_downloader.gallery.messages import FromRun, Listed, Outcome, RunRequest
from tests.hostile import bodies, metadata

ORDERS = 60_000
NAMES = 50_000
"""Cases of the long tests, together more than 100,000."""
FEW = 300


def fuzzed(check: Callable[..., None], cases: int, **strategies: Any) -> None:
    """Call `check` with so many examples, one after the other."""
    settings(
        max_examples=cases,
        deadline=None,
        database=None,
        derandomize=cases <= FEW,  # the few are the same ones every time
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )(given(**strategies)(check))()


def is_told(sentence: str) -> bool:
    """One line that a person can read, and that no terminal obeys."""
    return bool(sentence.strip()) and len(sentence.splitlines()) == 1 and not has_control(sentence)


def has_control(text: str) -> bool:
    return any(
        character < " " or "\x7f" <= character <= "\x9f" or character in "\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
        or "\ud800" <= character <= "\udfff"
        for character in text
    )  # fmt: skip


# Orders


def parsed(body: bytes) -> Order | OrderRejected:
    try:
        return parse_order(body)
    except OrderRejected as error:
        return error


def fuzz_orders(cases: int) -> Counter[str]:
    seen: Counter[str] = Counter()

    def check(body: bytes) -> None:
        order = parsed(body)
        if isinstance(order, OrderRejected):
            assert isinstance(order.fault, OrderFault)
            assert is_told(str(order)), ascii(str(order))
            assert len(str(order)) < 500
            seen[order.fault] += 1
            return
        seen["accepted"] += 1
        folder = os.path.normpath(f"/srv/content/{order.content_path}")
        assert folder == f"/srv/content/{order.content_path}"
        assert order.content_path.split("/")[0].casefold() not in OWN_FOLDERS
        assert len(order.content_path.encode()) <= MAX_FOLDER_BYTES
        assert not has_control(order.url + order.content_path)
        assert order.url.rpartition("://")[0].lower().rpartition(":")[2] in ("http", "https")
        assert 1 <= order.source_id < 2**63

    fuzzed(check, cases, body=bodies())
    return seen


def test_a_few_hostile_orders() -> None:
    """Some of the cases of the long test: accepted, or refused with a fault and a sentence."""
    seen = fuzz_orders(FEW)
    assert seen.total() >= FEW
    assert len(seen) > 5


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_sixty_thousand_hostile_orders() -> None:
    """Bytes that are orders, or nearly: accepted, or refused with a fault and a sentence; never anything else."""
    seen = fuzz_orders(ORDERS)
    print(f"{seen.total()} orders: {dict(seen)}")
    assert seen.total() >= ORDERS
    assert set(seen) >= {"accepted", *OrderFault} - {OrderFault.NO_EXTRACTOR, OrderFault.TRUNCATED_URL}


# Metadata that becomes names

FOLDERS = (
    [], ["{artist}"], ["{artist}", "{title}"], ["{tags}"], ["x", "{name[0]}"], ["{tags:J/}"], ["{artist}", "..", "{title}"],
    ["{title}"] * 12, ["{date:%Y}"],
)  # fmt: skip
FILENAMES = (
    "{title}", "{title}.{extension}", "{id}.{extension}", "{artist}/{title}.{extension}", "{num:>03}_{title[:40]}", "{num:>03d}{title}",
    "{name}", "{title!u}", "{date:%Y-%m-%d}{title}", "",
)  # fmt: skip
templates = st.fixed_dictionaries(
    {"directory": st.sampled_from(FOLDERS), "filename": st.sampled_from(FILENAMES)},
    optional={
        "path-restrict": st.sampled_from(["", "windows", "ascii", "unix"]),
        "path-remove": st.just(""),
        "path-strip": st.sampled_from(["", "windows"]),
        "postprocessors": st.sampled_from(
            [
                [{"name": "metadata", "event": ["post", "prepare", "after", "finalize"]}],
                [{"name": "metadata", "event": "post", "filename": "{title}.json"}],
                [{"name": "metadata", "directory": "{title}"}],
                [{"name": "metadata", "directory": ["..", "beside", "{title}"]}],
            ]
        ),
    },
)


class Hostile(Extractor):  # type: ignore[misc]
    """Lists what the fuzzer has thought up. Its files come with the listing: `text:` needs no network."""

    category = "hostile"
    subcategory = "gallery"
    archive_fmt = ":{id}"
    pattern = r"hostile:(.+)"
    files: tuple[dict[str, Any], ...] = ()

    def items(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
        for number, fields in enumerate(self.files):
            kwdict = {"extension": "txt", **fields, "id": number}
            yield Message.Directory, "", kwdict
            yield Message.Url, f"text:this is {number}", kwdict


class Outside:
    """A source's folder, and around it what must stay as it is."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.content = home / "outer" / "content"
        self.source = self.content / "mirror" / "a"
        for path in ("outer/evil.txt", "outer/elsewhere/file", "outer/content/mirror/b/file", "outer/content/.trash/file", "evil/x"):  # fmt: skip
            (home / path).parent.mkdir(parents=True, exist_ok=True)
            (home / path).write_text("canary")
        self.furnish()
        self.before = self.tree()

    def furnish(self) -> None:
        """An empty folder for the source, with what may lie in the way of a name."""
        shutil.rmtree(self.source, ignore_errors=True)
        shutil.rmtree(self.source.parent / "beside", ignore_errors=True)  # where a template of ours says
        self.source.mkdir()
        (self.source / "link").symlink_to(self.home / "outer" / "elsewhere")
        (self.source / "loop").symlink_to("loop")
        (self.source / "file").write_text("canary")
        (self.source / "dir").mkdir()
        os.mkfifo(self.source / "pipe")

    def tree(self) -> dict[str, tuple[int, int, bytes]]:
        """Everything but the source's own folder."""
        found = {}
        for folder, folders, files in os.walk(self.home):
            if Path(folder) == self.source.parent:
                folders[:] = [name for name in folders if name not in ("a", "beside")]
            for name in (*folders, *files):
                path = Path(folder, name)
                is_file = path.is_file()
                details = path.lstat()
                found[str(path)] = (details.st_mode, details.st_mtime_ns if is_file else 0, path.read_bytes() if is_file else b"")  # fmt: skip
        return found


def mirror(outside: Outside, template: dict[str, Any], files: list[dict[str, Any]]) -> tuple[Run, list[Listed]]:
    """One run over these files, by the real job and its lanes, in this process."""
    request = RunRequest(
        run_id="c-1",
        source_id=1,
        url="hostile:x",
        content_root=outside.content,
        content_path="mirror/a",
        run_folder=outside.source / ".run",
        landing_log=outside.source / ".run" / "landing",
        lock_file=outside.home / "lock",
        cookies_folder=outside.home / "cookies",
        cache_file=outside.home / "cache",
        known={},
        lanes=2,
        durable=False,
    )
    messages: list[FromRun] = []
    run = Run(request, Evidence(), messages.append, lambda _: False)
    config._config.clear()
    config._config.update(build_config({"extractor": {"hostile": template}}, request)[0])
    kind = type("These", (Hostile,), {"files": tuple(files)})
    job = type("RunJob", (MirrorJob,), {"run_state": run})(kind.from_url("hostile:x"))
    run.extractor = job.extractor
    run.open_lanes(2)
    try:
        job.run()
    finally:
        run.lanes.close()
        run.clear_parts()
    return run, [message for message in messages if isinstance(message, Listed)]


def number_of(file: Listed) -> int:
    return int(file.remote_id.removeprefix("hostile:"))


def fuzz_names(home: Path, cases: int, per_run: int = 10) -> Counter[str]:
    outside = Outside(home)
    seen: Counter[str] = Counter()

    def check(template: dict[str, Any], files: list[dict[str, Any]]) -> None:
        outside.furnish()
        run, listed = mirror(outside, template, files)
        assert (run.evidence.failure, run.halt.is_set()) == (None, False)  # the listing came to its end
        assert sorted(number_of(file) for file in listed) == list(range(len(files)))
        assert outside.tree() == outside.before
        assert (outside.source / "file").read_text() == "canary"
        paths = []
        for file in listed:
            seen[file.outcome] += 1
            if file.outcome is Outcome.FAILED:
                assert file.failure is not None
                assert is_told(file.failure.detail), ascii(file.failure.detail)
                continue
            assert file.outcome is not Outcome.PASSED
            assert file.filename is not None
            assert not has_control(file.filename), ascii(file.filename)
            path = outside.source / file.filename
            assert stat.S_ISREG(path.lstat().st_mode)
            assert path.resolve() == path
            if file.outcome is Outcome.DOWNLOADED:
                assert path.read_text() == f"this is {number_of(file)}"
            paths.append(str(path))
        assert len(set(paths)) == len(paths)

    before = dict(config._config)
    try:
        runs = 0
        while seen.total() < cases:
            runs += 1
            fuzzed(
                check,
                max(cases // (2 * per_run), 10),
                template=templates,
                files=st.lists(metadata, min_size=per_run // 2, max_size=per_run * 2),
            )
    finally:
        config._config.clear()
        config._config.update(before)
    return seen


def test_a_few_hostile_names(tmp_path: Path) -> None:
    """Some of the cases of the long test: each file is in its source's folder, or has failed with a sentence."""
    seen = fuzz_names(tmp_path, FEW)
    assert seen.total() >= FEW
    assert seen[Outcome.DOWNLOADED] > 50
    assert seen[Outcome.FAILED] > 5


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_fifty_thousand_hostile_names(tmp_path: Path) -> None:
    """Files whose metadata means harm, through gallery-dl's job and our lanes onto a real disk: each lies in its source's
    folder under a name of its own, or has failed with a sentence; nothing else is touched, and no listing ends early."""
    seen = fuzz_names(tmp_path, NAMES)
    print(f"{seen.total()} files: {dict(seen)}")
    assert seen.total() >= NAMES
