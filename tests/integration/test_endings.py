"""How a run can end: one test for each row of the design's section 3, through the installed command and a real broker."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from email.message import Message as Headers
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from http_downloader.catalog import files, journal
from http_downloader.catalog.engine import Catalog, open_catalog
from http_downloader.cli import show
from http_downloader.demo import site as demo_site
from tests.installation import COMMAND, Installation, wait_until
from tests.queues import Message, Queues
from tests.site import Action, FaultySite, Post, drip, empty_listing, hang, login_page, raw, status

SOURCE = 725
LISTING = "/posts.json"
TEMPLATE: dict[str, Any] = {"sleep-request": 0, "retries": 0, "threshold": 1}
"""No pauses, no retries of gallery-dl's own, and a crawl that goes on until a page is empty."""


def template(**options: Any) -> dict[str, Any]:
    return {"extractor": {"sleep-request": 0, "retries": 0, "Danbooru": TEMPLATE | options}}


@dataclass(frozen=True, kw_only=True)
class End:
    """One call of `sync --json`: what it said, what the catalog keeps of its run, what came to the broker."""

    code: int
    printed: list[dict[str, Any]]
    errors: str
    run: dict[str, Any]
    posted: dict[str, list[Message]] = field(repr=False)

    def names(self, kind: str) -> list[str]:
        """The filenames of the events in a queue."""
        return sorted(message.json["filename"] for message in self.posted[kind])

    @property
    def gaps(self) -> list[str]:
        return [gap["reason"] for gap in self.run["gaps"]]


class Mirror:
    """A machine with a broker, and one source on it."""

    def __init__(self, machine: Installation, queues: Queues, url: str) -> None:
        self.machine, self.queues, self.url = machine, queues, url

    def sync(self) -> End:
        done = self.machine.sync(self.url, "--to", "a", "--source-id", str(SOURCE), "--json")
        return self.end(done.returncode, done.stdout, done.stderr)

    def end(self, code: int, output: str, errors: str) -> End:
        posted = {name: self.queues.take(name) for name in ("downloaded", "skipped", "synchronized", "failed")}
        printed = [json.loads(line) for line in output.splitlines()]
        end = End(code=code, printed=printed, errors=errors, run=self.runs()[0], posted=posted)
        _check_events(end)
        return end

    def runs(self) -> list[dict[str, Any]]:
        """What `runs --json` prints, without the second that another process takes to start."""
        return self._printed(
            lambda catalog: show.runs(journal.list_runs(catalog, source_id=None, limit=9), as_json=True)
        )

    @property
    def files(self) -> dict[str, str]:
        """The states that `files --json` prints, by the last part of the remote id (the post's number)."""

        def print_files(catalog: Catalog) -> None:
            show.files(
                lambda after: files.list_files(catalog, source_id=SOURCE, state=None, after=after, limit=100),
                as_json=True,
            )

        return {row["remote_id"].rpartition("_")[2]: row["state"] for row in self._printed(print_files)}

    def _printed(self, command: Callable[[Catalog], None]) -> list[dict[str, Any]]:
        catalog = open_catalog(f"sqlite:///{self.machine.runtime / 'catalog.sqlite3'}")
        with contextlib.closing(catalog), contextlib.redirect_stdout(io.StringIO()) as output:
            command(catalog)
        return [json.loads(line) for line in output.getvalue().splitlines()]

    @property
    def on_disk(self) -> dict[str, bytes]:
        return self.machine.on_disk()


def _check_events(end: End) -> None:
    """Bodies are exactly the documented ones, and the terminal tells the same events as the broker."""
    for kind in ("downloaded", "skipped"):
        for message in end.posted[kind]:
            assert message.body == _json({"source_id": SOURCE, "filename": message.json["filename"]})
    assert all(message.body == b'{"source_id": 725}' for message in end.posted["synchronized"])
    posted = {message.properties.message_id for messages in end.posted.values() for message in messages}
    assert {event["message_id"] for event in end.printed} == posted


def _json(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def assert_synchronized(end: End) -> None:
    assert (end.code, end.run["state"], end.run["reason"], end.gaps) == (0, "synchronized", None, []), end
    assert len(end.posted["synchronized"]) == 1
    assert end.posted["failed"] == []


def assert_not_synchronized(
    end: End, code: int, state: str, reason: str, *, detail: str, gaps: Iterable[str] = (), attempts: int = 1
) -> None:
    """The one event of the end is `source sync failed`, and names state, reason and detail of the run."""
    run = end.run
    assert (end.code, run["state"], run["reason"]) == (code, state, reason), end
    assert end.gaps == list(gaps)
    assert run["attempt"] == attempts
    assert detail in run["detail"]
    assert "\n" not in run["detail"]
    body = {"source_id": SOURCE, "state": state, "reason": reason, "detail": run["detail"]}
    assert [message.body for message in end.posted["failed"]] == [_json(body)]
    assert end.posted["synchronized"] == []


@pytest.fixture
def mirror(install: Callable[..., Installation], queues: Queues) -> Callable[..., Mirror]:
    """`mirror(site, options of gallery-dl, SETTING=…)`: a source that is everything that the site has."""

    def make(site: FaultySite, options: dict[str, Any] | None = None, **settings: object) -> Mirror:
        machine = install(**{"SYNC_RETRY_DELAY": 0.05, "SYNC_ATTEMPTS": 1, **queues.settings, **settings})
        machine.configure(template(**(options or {})))
        return Mirror(machine, queues, f"Danbooru:{site.root}/posts?tags=demo")

    return make


def posts(*ids: int) -> list[Post]:
    return [Post(id=number) for number in ids]


def name(site: FaultySite, number: int) -> str:
    post = Post(id=number)
    return f"{site.root.removeprefix('http://')}_{number}_{post.md5}.png"


def names(site: FaultySite, *numbers: int) -> list[str]:
    return sorted(name(site, number) for number in numbers)


def content(site: FaultySite, *numbers: int) -> dict[str, bytes]:
    return {f"a/{name(site, number)}": Post(id=number).content() for number in numbers}


# Synchronized.


def test_everything_in_place(mirror: Callable[..., Mirror]) -> None:
    """A complete listing with every file in place is synchronized: exit code 0, and `source synchronized`."""
    with FaultySite(posts(1, 2)) as site:
        source = mirror(site)
        end = source.sync()
        assert_synchronized(end)
        assert end.names("downloaded") == names(site, 1, 2)
        assert source.on_disk == content(site, 1, 2)
        assert source.machine.runs() == source.runs() == [end.run]
        assert {row["state"] for row in source.machine.files(SOURCE)} == set(source.files.values())


def test_an_empty_gallery(mirror: Callable[..., Mirror]) -> None:
    """An empty listing of a source that never had files is synchronized."""
    with FaultySite() as site:
        source = mirror(site)
        assert_synchronized(source.sync())
        assert source.on_disk == {}


def test_a_file_that_is_gone_at_the_third_run(mirror: Callable[..., Mirror]) -> None:
    """404 and 410: failed in two runs, however many attempts these have; then shown as unavailable and left alone."""
    with FaultySite(posts(1, 2, 3)) as site:
        source = mirror(site, SYNC_ATTEMPTS=2)
        site.rule(Post(id=2).path, status(404))
        site.rule(Post(id=3).path, status(410))
        asked = "|".join(post.path for post in posts(2, 3))
        for run in (1, 2):
            end = source.sync()
            detail = "2 files failed"
            assert_not_synchronized(end, 4, "failed", "files-failed", detail=detail, attempts=2)
            assert end.names("downloaded") == (names(site, 1) if run == 1 else [])
            assert end.names("skipped") == (names(site, 1) if run == 2 else [])
            assert end.run["counts"]["failed"] == 2
            assert source.files == {"1": "present", "2": "failed", "3": "failed"}
        third = source.sync()
        assert_synchronized(third)
        assert third.run["counts"]["unavailable"] == 2
        assert source.files == {"1": "present", "2": "unavailable", "3": "unavailable"}
        assert len(site.requests(asked)) == 2 * (2 + 2 + 1)
        site.clear_log()
        fourth = source.sync()
        assert_synchronized(fourth)
        assert fourth.run["counts"]["unavailable"] == 2
        assert site.requests(asked) == []
        assert source.on_disk == content(site, 1)


def test_another_error_in_the_third_run_is_no_proof(mirror: Callable[..., Mirror]) -> None:
    """404, 404, then 500: the site does not say that the file is gone, so it is still failed, and counting begins anew."""
    with FaultySite(posts(1)) as site:
        source = mirror(site, SYNC_ATTEMPTS=1)
        source.machine.configure({"extractor": {"Danbooru": {"sleep-request": 0, "retries": 0}}})
        for answer in (404, 404, 500, 404, 404):
            site.clear_rules()
            site.rule("^/data/", status(answer))
            assert source.sync().code == 4
            assert source.files == {"1": "failed"}
        assert source.sync().code == 0
        assert source.files == {"1": "unavailable"}


def test_a_file_that_the_site_removes_and_brings_back(mirror: Callable[..., Mirror]) -> None:
    """What a complete listing does not show is missing; the local file stays, and is present when listed again."""
    with FaultySite(posts(1, 2, 3)) as site:
        source = mirror(site)
        source.sync()
        site.remove(2)
        end = source.sync()
        assert_synchronized(end)
        assert end.run["counts"]["missing"] == 1
        assert source.files == {"1": "present", "2": "missing", "3": "present"}
        assert source.on_disk == content(site, 1, 2, 3)
        site.add(Post(id=2))
        end = source.sync()
        assert_synchronized(end)
        assert end.names("skipped") == names(site, 1, 2, 3)
        assert source.files == {"1": "present", "2": "present", "3": "present"}
        assert len(site.requests(Post(id=2).path)) == 1


def test_hostile_listing(mirror: Callable[..., Mirror]) -> None:
    """Whatever a listing names its files: each is stored, under a name that is the same in the next run.

    An address that is none fails its own file only.
    """
    titles = {
        1: "",
        2: "..",
        3: "\u00e9" * 200 + ".png",
        4: "x." + "y" * 300,
        5: "lone \ud800.png",
        6: "folder",
        7: "link",
    }
    with FaultySite(posts(*range(1, 9))) as site:
        described = json.loads(site.answer("/posts.json?limit=200", Headers()).body)
        for post in described:
            post["title"] = titles.get(post["id"], "bad address")
            if post is not described[-1]:  # this one goes into the address of the next page
                post["id"] = f"{post['id']}_\ud800\x00"
            if post["title"] == "bad address":
                post["file_url"] = f"{site.root}/data/\ud800.png"
        site.rule(LISTING, raw(json.dumps(described).encode(), "application/json"), page=1)
        site.rule(LISTING, empty_listing())
        source = mirror(site, {"filename": "{title}"})
        (source.machine.content / "a" / "folder").mkdir(parents=True)
        (source.machine.content / "a" / "link").symlink_to("nowhere")
        first, second = source.sync(), source.sync()
        for end in (first, second):
            assert_not_synchronized(end, 4, "failed", "files-failed", detail="bad address")
            assert end.run["counts"]["failed"] == 1
        assert second.names("skipped") == first.names("downloaded")
        assert len(site.requests("^/data/[0-9a-f]{32}")) == 7
        assert sorted(source.on_disk.values()) == sorted(Post(id=number).content() for number in titles)
        assert (source.machine.content / "a" / "link").is_symlink()


# Partial.


def test_an_empty_listing_while_files_are_known(mirror: Callable[..., Mirror]) -> None:
    """An empty listing proves nothing when files are known: partial, and nothing becomes missing."""
    with FaultySite(posts(1, 2)) as site:
        source = mirror(site)
        source.sync()
        site.rule(LISTING, empty_listing())
        end = source.sync()
        assert_not_synchronized(end, 3, "partial", "empty-listing", detail="2 files are known", gaps=["empty-listing"])
        assert end.run["counts"]["missing"] == 0
        assert source.files == {"1": "present", "2": "present"}
        assert source.on_disk == content(site, 1, 2)


def test_a_crawl_that_an_option_stops(mirror: Callable[..., Mirror]) -> None:
    """`skip: abort:3` is a quick run: the new file comes, nothing is missing, the end is partial. So is `terminate:3`."""
    with FaultySite(posts(1, 2, 3, 4, 5)) as site:
        source = mirror(site)
        source.sync()
        site.remove(1)
        for skip, new in (("abort:3", 6), ("terminate:3", 7)):
            source.machine.configure(template(skip=skip))
            site.add(Post(id=new))
            end = source.sync()
            detail = f"by the option skip: {skip}"
            assert_not_synchronized(end, 3, "partial", "stopped-early", detail=detail, gaps=["stopped-early"])
            assert end.names("downloaded") == names(site, new)
            assert end.names("skipped") == names(site, *range(new - 3, new))
        assert source.files == {str(number): "present" for number in range(1, 8)}
        assert source.on_disk == content(site, *range(1, 8))


def test_a_listing_that_an_option_narrows(mirror: Callable[..., Mirror]) -> None:
    """With a filter or a range the listing proves nothing about the rest: partial, and nothing becomes missing."""
    with FaultySite(posts(1, 2, 3)) as site:
        source = mirror(site)
        source.sync()
        for option, value, listed, gaps in (
            ("image-filter", "id > 2", [3], ["narrowed"]),
            ("image-range", "1-2", [2, 3], ["narrowed", "stopped-early"]),
        ):
            source.machine.configure(template(**{option: value}))
            end = source.sync()
            assert_not_synchronized(end, 3, "partial", "narrowed", detail=repr(option), gaps=gaps)
            assert end.names("skipped") == names(site, *listed)
        assert set(source.files.values()) == {"present"}
        assert source.on_disk == content(site, 1, 2, 3)


def test_a_warning_of_the_extractor(mirror: Callable[..., Mirror]) -> None:
    """An extractor that warns (no login found, say) may not see everything: partial, with its words."""
    with FaultySite(posts(1, 2)) as site:
        source = mirror(site)
        source.sync()
        source.machine.configure(template(netrc=True))
        netrc = source.machine.home / ".netrc"
        netrc.write_text("machine elsewhere login me password secret\n")
        netrc.chmod(0o600)
        site.remove(1)
        end = source.sync()
        assert_not_synchronized(
            end,
            3,
            "partial",
            "extractor-warning",
            detail="netrc: No authentication info",
            gaps=["extractor-warning"],
        )
        assert end.names("skipped") == names(site, 2)
        assert source.files == {"1": "present", "2": "present"}


def test_a_warning_and_a_plain_return(mirror: Callable[..., Mirror]) -> None:
    """A wiki that refuses to be read is a line in gallery-dl's log and exit status 0 there; here it is partial."""
    refusal = {"error": {"code": "readapidenied", "info": "You need read permission to use this module."}}
    with FaultySite() as site:
        source = mirror(site)
        source.url = f"wikimedia:{site.root}/wiki/Category:Demo"
        site.rule("/api.php", raw(json.dumps(refusal).encode(), "application/json"))
        end = source.sync()
        assert_not_synchronized(
            end, 3, "partial", "extractor-warning", detail="readapidenied", gaps=["extractor-warning"]
        )
        assert source.on_disk == {}


# Failed, and tried again.


def test_the_site_is_down(mirror: Callable[..., Mirror]) -> None:
    """A refused connection is a transient failure of the listing."""
    with FaultySite() as site:
        pass
    source = mirror(site, SYNC_ATTEMPTS=2)
    end = source.sync()
    assert_not_synchronized(end, 4, "failed", "unreachable", detail="Connection refused", attempts=2)
    assert "next try" in end.errors
    assert source.on_disk == {}


def test_the_second_page_fails(mirror: Callable[..., Mirror], monkeypatch: pytest.MonkeyPatch) -> None:
    """500 on page 2: what page 1 listed is downloaded and told, nothing is missing, the run has failed."""
    monkeypatch.setattr(demo_site, "LARGEST_PAGE", 2)
    with FaultySite(posts(1, 2, 3, 4)) as site:
        source = mirror(site)
        source.sync()
        site.add(Post(id=5))
        site.rule(LISTING, status(500), page=2)
        end = source.sync()
        assert_not_synchronized(end, 4, "failed", "server-error", detail="500")
        assert (end.names("downloaded"), end.names("skipped")) == (names(site, 5), names(site, 4))
        assert set(source.files.values()) == {"present"}
        assert source.on_disk == content(site, 1, 2, 3, 4, 5)


def test_one_file_fails(mirror: Callable[..., Mirror]) -> None:
    """A file that answers 500 fails the run; the others are there, and the listing still proves what is missing."""
    with FaultySite(posts(1, 2)) as site:
        source = mirror(site)
        source.sync()
        site.remove(1)
        site.add(*posts(3, 4))
        site.rule(Post(id=3).path, status(500))
        end = source.sync()
        assert_not_synchronized(end, 4, "failed", "files-failed", detail=f"{name(site, 3)}: '500 ")
        assert (end.names("downloaded"), end.names("skipped")) == (names(site, 4), names(site, 2))
        assert (end.run["counts"]["failed"], end.run["counts"]["missing"]) == (1, 1)
        assert source.files == {"1": "missing", "2": "present", "3": "failed", "4": "present"}
        assert source.on_disk == content(site, 1, 2, 4)


@pytest.mark.parametrize(
    ("action", "reason", "detail"),
    [
        (status(429), "rate-limited", "429"),
        (login_page(), "unexpected-answer", "JSONDecodeError"),
        (hang(20), "unreachable", "timed out"),
    ],
    ids=["429", "login page in place of JSON", "timeout"],
)
def test_a_listing_that_may_answer_next_time(
    mirror: Callable[..., Mirror], action: Action, reason: str, detail: str
) -> None:
    """The listing fails in a way that may pass: failed, transient."""
    with FaultySite(posts(1)) as site:
        source = mirror(site, {"timeout": 0.3})
        site.rule(LISTING, action)
        assert_not_synchronized(source.sync(), 4, "failed", reason, detail=detail)
        assert source.on_disk == {}


def test_a_process_that_stalls(mirror: Callable[..., Mirror]) -> None:
    """A gallery process that reports nothing for RUN_STALL_TIMEOUT is ended, and its run has failed."""
    with FaultySite(posts(1)) as site:
        source = mirror(site, RUN_STALL_TIMEOUT=1)
        site.rule(LISTING, hang(60))
        end = source.sync()
        assert time.monotonic() - site.log[0].at < 10
        assert_not_synchronized(end, 4, "failed", "stalled", detail="reported nothing for 1 s")
        assert source.on_disk == {}


def test_attempts_with_growing_gaps(mirror: Callable[..., Mirror]) -> None:
    """A transient failure is tried SYNC_ATTEMPTS times, with gaps that grow, and told once."""
    with FaultySite(posts(1)) as site:
        source = mirror(site, SYNC_ATTEMPTS=4, SYNC_RETRY_DELAY=0.3)
        site.rule(LISTING, status(500))
        end = source.sync()
        assert_not_synchronized(end, 4, "failed", "server-error", detail="500", attempts=4)
        tries = [request.at for request in site.requests(LISTING)]
        assert len(tries) == 4
        gaps = [after - before for before, after in pairwise(tries)]
        assert gaps == sorted(gaps)
        assert gaps[0] >= 0.3 * 0.8
        assert gaps[2] >= 1.2 * 0.8


def test_a_failure_that_heals(mirror: Callable[..., Mirror], monkeypatch: pytest.MonkeyPatch) -> None:
    """Synchronized in the third attempt: each file has exactly one event over all attempts, and no failure is told."""
    monkeypatch.setattr(demo_site, "LARGEST_PAGE", 2)
    with FaultySite(posts(1, 2, 3)) as site:
        source = mirror(site, SYNC_ATTEMPTS=4)
        source.sync()
        site.add(*posts(4, 5))
        site.rule(LISTING, status(500), page=2, times=1)
        site.rule(Post(id=4).path, status(500), times=2)
        end = source.sync()
        assert_synchronized(end)
        assert end.run["attempt"] == 3
        assert (end.names("downloaded"), end.names("skipped")) == (names(site, 4, 5), names(site, 1, 2, 3))
        counts = end.run["counts"]
        assert (counts["listed"], counts["downloaded"], counts["skipped"], counts["failed"]) == (5, 2, 3, 0)
        assert len(end.printed) == 6
        assert len(site.requests(Post(id=5).path)) == 1
        assert source.on_disk == content(site, 1, 2, 3, 4, 5)


# Failed, until somebody acts.


@pytest.mark.parametrize(("code", "reason"), [(401, "login-required"), (404, "not-found")])
def test_a_listing_that_refuses(mirror: Callable[..., Mirror], code: int, reason: str) -> None:
    """401 and 404 in the listing are permanent: one attempt, one request, exit code 5."""
    with FaultySite(posts(1)) as site:
        source = mirror(site, SYNC_ATTEMPTS=4)
        site.rule(LISTING, status(code))
        assert_not_synchronized(source.sync(), 5, "failed", reason, detail=str(code))
        assert len(site.log) == 1
        assert source.on_disk == {}


def test_a_template_that_gallery_dl_refuses(mirror: Callable[..., Mirror]) -> None:
    """Bad input, a filename format that is none, is permanent."""
    with FaultySite(posts(1)) as site:
        source = mirror(site, {"filename": "{id"}, SYNC_ATTEMPTS=4)
        assert_not_synchronized(source.sync(), 5, "failed", "bad-input", detail="filename format string failed")
        assert source.on_disk == {}


def test_a_missing_cookie_file(mirror: Callable[..., Mirror]) -> None:
    """A cookie file that the template names and that is not there: one clear line, and the site is not asked."""
    with FaultySite(posts(1)) as site:
        source = mirror(site, {"cookies": "/nowhere/cookies.txt"}, SYNC_ATTEMPTS=4)
        detail = "the cookie file does not exist: /nowhere/cookies.txt"
        end = source.sync()
        assert_not_synchronized(end, 5, "failed", "cookies-unreadable", detail=detail)
        assert end.run["detail"] == detail
        assert site.log == []


NO_NETSCAPE_FILE = b"127.0.0.1\tFALSE\t/\tFALSE\t0\tsession s3cret-value\n"


@pytest.mark.parametrize(
    ("named", "content", "detail"),
    [
        (False, NO_NETSCAPE_FILE, "is not in Netscape format"),
        (True, NO_NETSCAPE_FILE, "is not in Netscape format"),
        (False, b"\xff\xfes3cret-value", "is not UTF-8 text"),
        (True, None, "cannot be read"),
    ],
    ids=["fields, host and port", "fields, named by the template", "bytes", "folder"],
)
def test_a_cookie_file_that_is_none(
    mirror: Callable[..., Mirror], named: bool, content: bytes | None, detail: str
) -> None:
    """A file in CONFIG_PATH/cookies that cannot be used fails the run of its category, and its values stay secret."""
    with FaultySite(posts(1)) as site:
        source = mirror(site, {"mine": {"root": site.root}} if named else None, SYNC_ATTEMPTS=4)
        category = "mine" if named else site.root.removeprefix("http://")
        if named:
            source.url = f"{site.root}/posts?tags=demo"
        file = source.machine.config / "cookies" / f"{category}.txt"
        _put(file, content)
        end = source.sync()
        assert_not_synchronized(end, 5, "failed", "cookies-unreadable", detail=detail)
        assert str(file) in end.run["detail"]
        assert site.log == []
        secrets = json.dumps(end.printed).encode() + end.errors.encode() + source.machine.everything_we_wrote()
        assert b"s3cret" not in secrets


def _put(file: Path, content: bytes | None) -> None:
    """None makes a folder of that name, which root cannot read either."""
    file.parent.mkdir()
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)


def test_a_cookie_file_of_another_site_that_is_none(mirror: Callable[..., Mirror]) -> None:
    """Nobody asked for that file here: it stops only the runs of its own site."""
    with FaultySite(posts(1)) as site:
        source = mirror(site)
        _put(source.machine.config / "cookies" / "elsewhere.txt", NO_NETSCAPE_FILE)
        assert_synchronized(source.sync())


# Cancelled.


def test_asked_to_stop_twice(mirror: Callable[..., Mirror]) -> None:
    """The second Ctrl-C does not wait for the file under way."""
    with FaultySite(posts(1)) as site:
        source = mirror(site)
        site.rule("^/data/", drip(10, 1.0))
        command = [str(COMMAND), "sync", source.url, "--to", "a", "--source-id", str(SOURCE), "--json"]
        process = subprocess.Popen(command, env=source.machine.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        wait_until(lambda: site.requests("^/data/"), what="the download")
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        wait_until(lambda: time.monotonic() > begun + 0.5, what="half a second")
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        assert process.returncode == 130
        assert time.monotonic() - begun < 4
        assert source.on_disk == {}


def test_asked_to_stop(mirror: Callable[..., Mirror]) -> None:
    """A person's Ctrl-C: the file under way is finished, the run is cancelled, and no event tells of its end."""
    with FaultySite(posts(1, 2, 3)) as site:
        source = mirror(site)
        source.machine.set(DOWNLOADS_PER_SOURCE=1)
        site.rule(Post(id=2).path, drip(2000, 0.05))
        command = [str(COMMAND), "sync", source.url, "--to", "a", "--source-id", str(SOURCE), "--json"]
        process = subprocess.Popen(
            command, env=source.machine.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        wait_until(lambda: site.requests(Post(id=2).path), what="the second file")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
        end = source.end(process.returncode, output, errors)
        assert (end.code, end.run["state"], end.run["reason"]) == (130, "cancelled", "cancelled")
        assert end.names("downloaded") == names(site, 2, 3)
        assert (end.posted["synchronized"], end.posted["failed"]) == ([], [])
        assert source.on_disk == content(site, 2, 3)
        assert site.requests(Post(id=1).path) == []
