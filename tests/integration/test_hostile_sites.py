"""A site that sends something other than it promised: such a file fails with one sentence that names it, the others
arrive, nothing short or wrong gets a final name, and a later good answer heals it."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from http_downloader.catalog import journal
from http_downloader.catalog.engine import open_catalog
from http_downloader.cli import show
from http_downloader.demo.pictures import picture
from tests.installation import Installation
from tests.site import (
    Action,
    FaultySite,
    Post,
    Response,
    chunked,
    cut,
    drip,
    gzipped,
    login_page,
    part_of,
    raw,
    redirect,
    status,
    verbatim,
)

URL = "Danbooru:{root}/posts?tags=demo"
IMPATIENT = {"sleep-request": 0, "retries": 1, "timeout": 10}
"""One try more than the first, so that a broken connection is gone on with."""
GOOD = picture(7, 64, 48)
HALF = len(GOOD) // 2
PAGE = b"<!-- x -->\n <HTML><body>Please log in</body></HTML>"
ZEROS = bytes(100 << 20)
LATER = {"Last-Modified": "Tue, 02 Jun 2026 00:00:00 GMT"}


def impatient(machine: Installation, **options: object) -> Installation:
    machine.configure({"extractor": {"sleep-request": 0, "Danbooru": {**IMPATIENT, **options}}})
    return machine


def promised(body: bytes) -> dict[str, object]:
    """What danbooru lists of a file beside its address."""
    return {"md5": hashlib.md5(body, usedforsecurity=False).hexdigest(), "file_size": len(body)}


def last_run(machine: Installation) -> dict[str, Any]:
    """As `runs --json` prints it, without the second that another process takes to start."""
    catalog = open_catalog(f"sqlite:///{machine.runtime / 'catalog.sqlite3'}")
    with contextlib.closing(catalog), contextlib.redirect_stdout(io.StringIO()) as output:
        show.runs(journal.list_runs(catalog, source_id=None, limit=1), as_json=True)
    run: dict[str, Any] = json.loads(output.getvalue())
    return run


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What the site does about one file. `sentence`: how it is told; None when the file arrives all the same."""

    actions: tuple[Action, ...]
    sentence: str | None
    told: dict[str, object] = field(default_factory=dict)
    extension: str = "png"


CUT_TWICE = "the connection broke off in mid-file"
NO_FILE = "the site sent a page in place of the file (a login page?)"
NOT_ASKED = "the site sent a part of the file that was not asked for"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n"

FAULTS = {
    "login": Fault(actions=(login_page(),), sentence="the site sent a page in place of the file"),
    "disguised-page": Fault(actions=(raw(PAGE, "image/png"),), sentence=NO_FILE),
    "disguised-doctype": Fault(actions=(raw(b"<!DOCTYPE html><p>log in", "image/png"),), sentence=NO_FILE),
    "json": Fault(
        actions=(raw(b'{"error": "no"}', "application/json"),),
        sentence="the site sent an answer for programs (JSON) in place of the file",
    ),
    "empty": Fault(actions=(raw(b"", "image/png"),), sentence="the site sent an empty file"),
    "empty-chunked": Fault(actions=(chunked(b""),), sentence="the site sent an empty file"),
    "cut": Fault(actions=(cut(100), cut(100, promise=True)), sentence=CUT_TWICE),
    "cut-chunks": Fault(actions=(chunked(cut_off=True, piece=100),) * 2, sentence=CUT_TWICE),
    "cut-unpromised": Fault(
        actions=(cut(100, promise=False),),
        sentence=f"100 bytes came, and the listing promised {len(GOOD)}",
        told=promised(GOOD),
    ),
    "length-too-short": Fault(
        actions=(verbatim(ANSWER + b"Content-Length: 50\r\n\r\n" + GOOD),),
        sentence=f"50 bytes came, and the listing promised {len(GOOD)}",
        told=promised(GOOD),
    ),
    "two-lengths": Fault(
        actions=(verbatim(ANSWER + b"Content-Length: 50\r\nContent-Length: 60\r\n\r\n" + GOOD),),
        sentence="Content-Length contained multiple unmatching values (50, 60)",
    ),
    "length-negative": Fault(
        actions=(verbatim(ANSWER + b"Content-Length: -5\r\nConnection: close\r\n\r\n" + GOOD),), sentence=None
    ),
    "other-content": Fault(
        actions=(raw(GOOD[:-1] + b"x", "image/png"),),
        sentence="what came has not the MD5 that the listing promised",
        told=promised(GOOD),
    ),
    "part-unasked": Fault(actions=(part_of(GOOD[9:], 9),), sentence=NOT_ASKED),
    "part-without-range": Fault(actions=(status(206, {}, GOOD),), sentence=NOT_ASKED),
    "rest-of-another-place": Fault(actions=(cut(HALF), part_of(GOOD[HALF - 5 :], HALF - 5)), sentence=None),
    "rest-of-another-version": Fault(actions=(cut(HALF), part_of(b"x" * HALF, HALF, headers=LATER)), sentence=None),
    "rest-of-another-size": Fault(actions=(cut(HALF), part_of(b"x" * HALF, HALF, total=999)), sentence=None),
    "rest-packed": Fault(
        actions=(cut(HALF), part_of(gzip.compress(GOOD), HALF, headers={"Content-Encoding": "gzip"})), sentence=None
    ),
    "whole-for-rest": Fault(actions=(cut(HALF), raw(GOOD, "image/png")), sentence=None),
    "rest-refused": Fault(actions=(cut(HALF), status(416)), sentence=None),
    "packed": Fault(actions=(gzipped(),), sentence=None),
    "packed-larger": Fault(  # what is sent is longer than the file
        actions=(status(200, {"Content-Encoding": "gzip"}, gzip.compress(GOOD, 0)),) * 3, sentence=None
    ),
    "packed-twice": Fault(actions=(gzipped(times=2),), sentence=None),
    "packed-cut": Fault(
        actions=(status(200, {"Content-Encoding": "gzip"}, gzip.compress(GOOD)[:-30]),),
        sentence="the site sent a packed file without its end",
    ),
    "packed-wrongly": Fault(
        actions=(status(200, {"Content-Encoding": "gzip"}, GOOD),) * 2,
        sentence="the site sent something that cannot be unpacked",
    ),
    "packed-unasked": Fault(
        actions=(status(200, {"Content-Encoding": "gzip, rot13"}, GOOD),),
        sentence="the site packs the file in a way that was not asked for (rot13)",
    ),
    "bomb": Fault(actions=(gzipped(ZEROS),), sentence="the site sent a file that unpacks to more than 64 MB from "),
    "bomb-in-bomb": Fault(
        actions=(gzipped(ZEROS, times=2),), sentence="the site sent a file that unpacks to more than 64 MB from "
    ),
    "bomb-in-redirect": Fault(
        actions=(
            lambda exchange: exchange.send(
                Response(
                    status=302,
                    headers={"Location": "/direct/other.png", "Content-Encoding": "gzip"},
                    body=gzip.compress(ZEROS, 1),
                )
            ),
        ),
        sentence="the site sent more than 64 MB where a page was asked for",
    ),
    "endless-redirect": Fault(  # its body cannot be unpacked, and then has no end
        actions=(
            verbatim(
                b"HTTP/1.1 302 Found\r\nLocation: /data/good0.png\r\nContent-Encoding: gzip\r\n\r\n" + bytes(200_000),
                interval=60,
            ),
        ),
        sentence=None,
    ),
    "endless-head": Fault(
        actions=(verbatim(b"HTTP/1.1 100 Continue\r\n\r\n" * 100_000),) * 2,
        sentence="the site sent more than 1 MB of headers",
    ),
    "round-and-round": Fault(actions=(redirect("/data/round-and-round.png"),), sentence="Exceeded 30 redirects."),
    "scheme": Fault(actions=(redirect("file:///etc/passwd"),), sentence="No connection adapters were found for"),
}
"""By the name of the file. The actions answer its requests in turn, the last one all further ones."""

ARRIVING = [name for name, fault in FAULTS.items() if fault.sentence is None]
FAILING = [name for name, fault in FAULTS.items() if fault.sentence is not None]


def spoil(site: FaultySite, name: str, fault: Fault) -> None:
    *first, last = fault.actions
    for action in first:
        site.rule(f"/{name}.png", action, times=1)
    if fault.sentence is not None:
        site.rule(f"/{name}.png", last)
    else:
        site.rule(f"/{name}.png", last, times=1)


@dataclass(frozen=True, kw_only=True)
class Ordeal:
    """Two runs over a gallery with every fault: a first one, and one when the site is well again."""

    code: int
    failed: dict[str, str]
    """Why, by name."""
    announced: list[str]
    disk: dict[str, bytes]
    healed: int
    healed_disk: dict[str, bytes]


@pytest.fixture(scope="module")
def ordeal(tmp_path_factory: pytest.TempPathFactory) -> Ordeal:
    home: Path = tmp_path_factory.mktemp("ordeal")
    machine = impatient(Installation(home, SYNC_ATTEMPTS=1, DOWNLOADS_PER_SOURCE=8), filename="{filename}.{extension}")
    posts = [
        Post(id=number, name=name, body=GOOD, told=fault.told, extension=fault.extension)
        for number, (name, fault) in enumerate(FAULTS.items(), 1)
    ]
    posts += [Post(id=900 + number, name=f"good{number}", body=GOOD) for number in range(8)]
    with FaultySite(posts) as site:
        for name, fault in FAULTS.items():
            spoil(site, name, fault)
        first = machine.sync(URL.format(root=site.root), "--to", "a", "--source-id", "1", "--json", timeout=100)
        lines = [line.partition(" failed: ")[2] for line in last_run(machine)["log"] if " failed: " in line]
        failed = {line.partition(".")[0]: line.partition(": ")[2] for line in lines}
        events = [json.loads(line) for line in first.stdout.splitlines()]
        disk = machine.on_disk()
        site.clear_rules()
        second = machine.sync(URL.format(root=site.root), "--to", "a", "--source-id", "1", "--quiet")
        return Ordeal(
            code=first.returncode,
            failed=failed,
            announced=[event["filename"] for event in events if event["event"] == "file-downloaded"],
            disk=disk,
            healed=second.returncode,
            healed_disk=machine.on_disk(),
        )


@pytest.mark.parametrize("name", FAILING)
def test_a_broken_answer_fails_its_file(ordeal: Ordeal, name: str) -> None:
    """One sentence names the file and what was wrong; nothing of it has a final name, and nobody is told of it."""
    sentence = FAULTS[name].sentence
    assert sentence is not None
    assert ordeal.failed[name].startswith(sentence)
    assert not [path for path in ordeal.disk if f"/{name}." in path]
    assert not [filename for filename in ordeal.announced if filename.startswith(f"{name}.")]


@pytest.mark.parametrize("name", ARRIVING)
def test_a_strange_answer_that_holds_the_file(ordeal: Ordeal, name: str) -> None:
    """What can be had whole by asking once more, or by reading it rightly, arrives whole."""
    assert ordeal.disk[f"a/{name}.png"] == GOOD
    assert name not in ordeal.failed


def test_the_other_files_arrive(ordeal: Ordeal) -> None:
    """No fault of one file costs another one: every good file is here, and the run says what failed."""
    assert ordeal.code == 4
    assert sorted(ordeal.failed) == sorted(FAILING)
    assert sorted(ordeal.disk) == sorted(f"a/{name}.png" for name in [*ARRIVING, *(f"good{n}" for n in range(8))])
    assert set(ordeal.disk.values()) == {GOOD}


def test_a_good_answer_heals(ordeal: Ordeal) -> None:
    """When the site is well again, the next run fetches what failed."""
    assert ordeal.healed == 0
    assert sorted(ordeal.healed_disk) == sorted(f"a/{name}.png" for name in [*FAULTS, *(f"good{n}" for n in range(8))])
    assert set(ordeal.healed_disk.values()) == {GOOD}


def test_pages_in_place_of_all_files(install: Callable[..., Installation]) -> None:
    """A session that ended: every file answers with a page. The run ends at once, and holds no connection back."""
    machine = impatient(install(SYNC_ATTEMPTS=1, DOWNLOADS_PER_SOURCE=2))
    with FaultySite([Post(id=number) for number in range(1, 13)]) as site:
        site.rule("^/data/", login_page())
        assert machine.sync(URL.format(root=site.root), "--to", "a", timeout=30).returncode == 4
        assert last_run(machine)["detail"].startswith("12 files failed, among them: ")
        assert len(site.requests("^/data/")) == 12
    assert machine.on_disk() == {}


def test_a_name_that_becomes_known_with_the_answer(install: Callable[..., Installation]) -> None:
    """A page in place of a picture is not taken for a page that lies here under the name that it would get."""
    machine = impatient(install(SYNC_ATTEMPTS=1), filename="{filename}.{extension}")
    folder = machine.content / "a"
    folder.mkdir(parents=True)
    (folder / "one.htm").write_bytes(b"mine")
    with FaultySite([Post(id=1, name="one")]) as site:
        site.rule("^/data/", raw(b"<!DOCTYPE html><p>log in", "image/png"))
        assert machine.sync(URL.format(root=site.root), "--to", "a").returncode == 4
    assert machine.on_disk() == {"a/one.htm": b"mine"}


def test_a_promise_that_the_site_does_not_keep(install: Callable[..., Installation]) -> None:
    """`promises: false` takes what comes, for a site whose listing is wrong."""
    machine = impatient(install(SYNC_ATTEMPTS=1), promises=False)
    with FaultySite([Post(id=1, body=GOOD, told=promised(b"something else"))]) as site:
        assert machine.sync(URL.format(root=site.root), "--to", "a").returncode == 0
    assert list(machine.on_disk().values()) == [GOOD]


# How large


def test_a_file_that_is_too_large(install: Callable[..., Installation]) -> None:
    """It fails by its Content-Length, by the listing, or when it has grown too large, however it is sent. The run is not
    tried again; the smaller files arrive; with a higher limit the large ones arrive, too."""
    large = GOOD + bytes(100_000)
    machine = impatient(install(SYNC_ATTEMPTS=4, MAX_FILE_SIZE="100K"), filename="{filename}.{extension}")
    ways = ("told", "listed", "chunked", "packed")
    posts = [
        Post(id=number, name=way, body=large, told=promised(large) if way == "listed" else {})
        for number, way in enumerate(ways, 1)
    ]
    with FaultySite([*posts, Post(id=8, name="small", body=GOOD)]) as site:
        site.rule("/chunked.png", chunked())
        site.rule("/packed.png", gzipped())
        assert machine.sync(URL.format(root=site.root), "--to", "a").returncode == 5
        run = last_run(machine)
        assert (run["state"], run["reason"], run["attempt"]) == ("failed", "too-large", 1)
        failed = sorted(line.partition(" failed: ")[2] for line in run["log"] if " failed: " in line)
        assert failed == [f"{way}.png: larger than MAX_FILE_SIZE (100 kB)" for way in sorted(ways)]
        assert [len(site.requests(f"/{way}.png")) for way in ways] == [1, 0, 1, 1]
        assert machine.on_disk() == {"a/small.png": GOOD}
        machine.set(MAX_FILE_SIZE="1M")
        assert machine.sync(URL.format(root=site.root), "--to", "a").returncode == 0
    assert [machine.on_disk()[f"a/{way}.png"] for way in ways] == [large] * 4


def test_a_smaller_version_is_not_taken_for_it(install: Callable[..., Installation]) -> None:
    """Where a listing has other versions to fall back to, a file that is too large is not replaced by a sample of it."""
    machine = install(SYNC_ATTEMPTS=1, MAX_FILE_SIZE=len(GOOD) - 1)
    machine.configure({"extractor": {"sleep-request": 0, "moebooru": {"url": ["file_url", "sample_url"]}}})
    with FaultySite() as site:
        site.add(Post(id=1, body=GOOD, told={"sample_url": f"{site.root}/direct/sample.png"}))
        assert machine.sync(f"moebooru:{site.root}/post?tags=demo", "--to", "a").returncode == 5
        assert site.requests("sample") == []
    assert machine.on_disk() == {}


def test_a_listing_that_is_a_bomb(install: Callable[..., Installation]) -> None:
    """A page of a listing that unpacks to more than 64 MB ends the listing with one sentence, however often it was
    packed; no known file becomes missing."""
    machine = impatient(install(SYNC_ATTEMPTS=1))
    with FaultySite([Post(id=1)]) as site:
        assert machine.sync(URL.format(root=site.root), "--to", "a").returncode == 0
        site.rule("/posts.json", gzipped(b"[]" + b" " * (100 << 20), times=2))
        assert machine.sync(URL.format(root=site.root), "--to", "a").returncode == 4
        run = last_run(machine)
        assert (run["state"], run["reason"]) == ("failed", "unexpected-answer")
        assert run["detail"] == "the site sent more than 64 MB where a page was asked for"
        assert run["counts"]["missing"] == 0
    assert len(machine.on_disk()) == 1


# How slowly


def test_a_file_that_drips(install: Callable[..., Installation]) -> None:
    """A body, and headers, that come byte by byte are given up though no read ever times out; the others arrive; a
    lane is not held for ever."""
    machine = impatient(install(SYNC_ATTEMPTS=1, MIN_SPEED_WINDOW=0.5, DOWNLOADS_PER_SOURCE=2), retries=0)
    head = [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 90]
    with FaultySite([Post(id=number, name=f"n{number}") for number in range(1, 7)]) as site:
        site.rule("/n2.png", drip(4, 0.05))
        site.rule("/n4.png", verbatim(*head, interval=0.05))
        assert machine.sync(URL.format(root=site.root), "--to", "a", timeout=30).returncode == 4
        failed = sorted(line.partition("_n")[2] for line in last_run(machine)["log"] if " failed: " in line)
        sentence = "the site sent less than 1 kB a second for 0.5 s (MIN_SPEED)"
        assert failed == [f"{number}.png: {sentence}" for number in (2, 4)]
        assert len(machine.on_disk()) == 4
        site.clear_rules()
        assert machine.sync(URL.format(root=site.root), "--to", "a").returncode == 0
    assert len(machine.on_disk()) == 6


def test_a_listing_that_drips(install: Callable[..., Installation]) -> None:
    """It is given up and tried again, like a site that cannot be reached."""
    machine = impatient(install(SYNC_ATTEMPTS=2, SYNC_RETRY_DELAY=0.1, MIN_SPEED_WINDOW=0.5), retries=0)
    with FaultySite([Post(id=1)]) as site:
        site.rule("/posts.json", drip(4, 0.05))
        assert machine.sync(URL.format(root=site.root), "--to", "a", timeout=30).returncode == 4
        run = last_run(machine)
        assert (run["reason"], run["attempt"]) == ("unreachable", 2)
        assert run["detail"] == "the site sent less than 1 kB a second for 0.5 s (MIN_SPEED)"


def test_a_slow_site_that_is_not_too_slow(install: Callable[..., Installation]) -> None:
    """MIN_SPEED=0 takes a file at any pace; so does a rate that the operator has set, however low."""
    slow = install(SYNC_ATTEMPTS=1, MIN_SPEED="0", MIN_SPEED_WINDOW=0.3)
    impatient(slow, retries=0)
    with FaultySite([Post(id=1, body=GOOD)]) as site:
        site.rule("^/data/", drip(len(GOOD) // 12, 0.05))
        assert slow.sync(URL.format(root=site.root), "--to", "a").returncode == 0
        site.clear_rules()
        throttled = install(SYNC_ATTEMPTS=1, MIN_SPEED="100K", MIN_SPEED_WINDOW=0.1)
        impatient(throttled, retries=0, rate=2000)
        assert throttled.sync(URL.format(root=site.root), "--to", "a").returncode == 0
    assert list(slow.on_disk().values()) == list(throttled.on_disk().values()) == [GOOD]
