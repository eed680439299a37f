"""Files that are gone at the remote: a site that misbehaves costs none, what is proven gone goes, and every one of them
has a way back."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from http_downloader.catalog import files, journal
from http_downloader.catalog.engine import Catalog, open_catalog
from http_downloader.domain.removals import RemoteDeletes
from tests.installation import Installation, Service, gallery_processes, wait_until
from tests.queues import Message, Queues
from tests.site import (
    Action,
    FaultyExchange,
    FaultySite,
    Post,
    empty_listing,
    hang,
    hang_up,
    login_page,
    raw,
    status,
)

LISTING = "/posts.json"
UNHELD: dict[str, object] = {"REMOVAL_PROBE": "ignore", "REMOVAL_MAX_SHARE": 100, "REMOVAL_MAX_COUNT": 1_000_000}
"""Off is everything that can hold a removal after a complete listing, as far as it can be switched off."""
PLAIN: dict[str, Any] = {"sleep-request": 0, "retries": 0}


def template(**options: Any) -> dict[str, Any]:
    return {"extractor": PLAIN | {"Danbooru": PLAIN | options}}


def post(number: int, **fields: Any) -> Post:
    return Post(id=number, body=f"picture {number} ".encode() * 99, **fields)


def posts(first: int, last: int) -> list[Post]:
    return [post(number) for number in range(first, last + 1)]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What the catalog keeps of a run that has ended."""

    run_id: str
    state: str
    reason: str | None
    gaps: list[str]
    removals: str | None
    counts: dict[str, int] = field(repr=False)
    attempt: int


class House:
    """A machine with a running service and its queues, for all rows that need no settings of their own."""

    def __init__(self, home: Path, queues: Queues, **settings: object) -> None:
        self.queues = queues
        self.machine = Installation(home, **queues.settings, REMOVAL_MIN_AGE=0, SYNC_ATTEMPTS=1, **settings)
        self.service = Service(self.machine)
        self._numbers = itertools.count(1)
        self._catalog: Catalog | None = None

    @property
    def catalog(self) -> Catalog:
        """Read directly: the commands say the same, and take a second to start."""
        if self._catalog is None:
            self._catalog = open_catalog(f"sqlite:///{self.machine.runtime / 'catalog.sqlite3'}")
        return self._catalog

    def __enter__(self) -> House:
        self.service.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.service.__exit__()
        if self._catalog is not None:
            self._catalog.close()

    @contextlib.contextmanager
    def tidied(self) -> Iterator[House]:
        self.machine.configure(template())
        yield self
        for name in ("downloaded", "skipped", "synchronized", "failed", "removed", "rejected"):
            if self.queues.exists(name):
                self.queues.take(name)

    def gallery(self, site: FaultySite, url: str = "Danbooru:{root}/posts?tags=demo", folder: str = "") -> Gallery:
        number = next(self._numbers)
        return Gallery(self, number, url.format(root=site.root), folder or f"g{number}")

    def command(self, *arguments: str) -> str:
        done = self.machine.run(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout


class Gallery:
    """One source: what is ordered of it, what the catalog says of it, and what lies in its folder."""

    def __init__(self, house: House, source_id: int, url: str, folder: str) -> None:
        self.house, self.source_id, self.url, self.folder = house, source_id, url, folder
        self._told: list[Message] = []

    def order(self, **more: object) -> None:
        self.house.queues.post({"source_id": self.source_id, "url": self.url, "content_path": self.folder, **more})

    def run(self, **more: object) -> Run:
        """Order one, and wait for its end."""
        before = len(self.runs())
        self.order(**more)
        wait_until(lambda: len(self.runs()) > before and self.runs()[0]["ended_at"], what="the run's end")
        return self.last

    @property
    def last(self) -> Run:
        row = self.runs()[0]
        gaps = [reason for reason, _ in row["gaps"]]
        return Run(gaps=gaps, **{name: row[name] for name in Run.__dataclass_fields__ if name != "gaps"})

    def runs(self) -> list[dict[str, Any]]:
        return journal.list_runs(self.house.catalog, source_id=self.source_id, limit=99)

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Of the catalog, by the last part of the remote id: the number of the post, or the place in the thread."""
        found = files.list_files(self.house.catalog, source_id=self.source_id, state=None, after=0, limit=999)
        return {row["remote_id"].rpartition("_")[2]: row for row in found}

    @property
    def states(self) -> dict[str, str]:
        return {number: row["state"] for number, row in self.rows.items()}

    @property
    def holds(self) -> dict[str, str]:
        return {number: row["hold"] for number, row in self.rows.items() if row["hold"]}

    @property
    def disk(self) -> dict[str, bytes]:
        return self._below(self.folder)

    @property
    def trash(self) -> dict[str, bytes]:
        """By their old paths."""
        root = self.house.machine.content
        return {
            name: body
            for day in root.glob(".trash/*")
            for name, body in self._below(str(day.relative_to(root) / self.folder)).items()
        }

    def _below(self, folder: str) -> dict[str, bytes]:
        top = self.house.machine.content / folder
        return {str(file.relative_to(top)): file.read_bytes() for file in top.rglob("*") if file.is_file()}

    def names(self, *numbers: int) -> set[str]:
        """The filenames of posts, as they are without anything in the way."""
        host = self.url.partition("://")[2].partition("/")[0]
        return {f"{host}_{number}_{Post(id=number).md5}.png" for number in numbers}

    def told(self, queue: str = "removed") -> list[Message]:
        """The events of this source since the last call, as far as they came; `run()` has waited for none of them."""
        mine = [message for message in self.house.queues.take(queue) if message.json["source_id"] == self.source_id]
        return sorted(mine, key=lambda message: message.json["filename"])

    def hears(self, count: int, queue: str = "removed") -> list[Message]:
        """So many events, and not one more: `source synchronized` comes after all others of its run."""
        wait_until(lambda: self.house.queues.count(queue) >= count, what=f"{count} messages in {queue}")
        messages = self.told(queue)
        assert len(messages) == count, messages
        return messages


@pytest.fixture(scope="module")
def one_house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with Queues(removed=True) as queues, House(tmp_path_factory.mktemp("house"), queues) as house:
        yield house


@pytest.fixture(scope="module")
def one_unheld(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with Queues(removed=True) as queues, House(tmp_path_factory.mktemp("unheld"), queues, **UNHELD) as house:
        yield house


@pytest.fixture
def house(one_house: House) -> Iterator[House]:
    """With the template that all rows begin with, and nothing in its queues."""
    with one_house.tidied() as house:
        yield house


@pytest.fixture
def unheld(one_unheld: House) -> Iterator[House]:
    """The same where only the listing and the rule about ids hold anything."""
    with one_unheld.tidied() as house:
        yield house


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Callable[..., House]]:
    """`build(REMOVAL_MAX_COUNT=3)`: a house of the test's own, with other settings."""
    with Queues(removed=True) as queues, contextlib.ExitStack() as stack:

        def make(**settings: object) -> House:
            house = House(tmp_path, queues, **settings)
            house.machine.configure(template())
            return stack.enter_context(house)

        yield make


@pytest.fixture
def site() -> Iterator[FaultySite]:
    """Twelve posts on three pages."""
    with FaultySite(posts(1, 12)) as site:
        site.page_size = 5
        yield site


def removals(*events: Message) -> dict[str, str]:
    """What the events say was done, by filename; their bodies are exactly the documented ones."""
    for event in events:
        body = {name: event.json[name] for name in ("source_id", "filename", "removal")}
        assert event.body == json.dumps(body).encode()
    return {event.json["filename"]: event.json["removal"] for event in events}


def mirrored(gallery: Gallery) -> dict[str, bytes]:
    """The first run of a gallery; what it brought."""
    assert gallery.run().state == "synchronized"
    return gallery.disk


def assert_removed(gallery: Gallery, before: dict[str, bytes], names: set[str]) -> None:
    """These files are in the trash, byte for byte, and all others in their places."""
    assert gallery.disk == {name: body for name, body in before.items() if name not in names}
    assert gallery.trash == {name: before[name] for name in names}


def assert_nothing_removed(gallery: Gallery, before: dict[str, bytes]) -> None:
    assert {name: body for name, body in gallery.disk.items() if name in before} == before
    assert gallery.trash == {}
    assert gallery.told() == []


def assert_removed_when_well(gallery: Gallery, before: dict[str, bytes], *numbers: int) -> None:
    """The site behaves again: counting begins, and what is really gone goes with the second listing. So it was the
    fault that held the files before, and nothing else did."""
    first, second = gallery.run(), gallery.run()
    assert (first.state, first.removals) == ("synchronized", f"{len(numbers)} waiting for a second listing")
    assert (second.state, second.removals) == ("synchronized", f"{len(numbers)} moved to trash")
    names = gallery.names(*numbers)
    assert_removed(gallery, before, names)
    assert removals(*gallery.hears(len(numbers))) == dict.fromkeys(names, "trash")


# Listings that prove nothing.


@dataclass(frozen=True, kw_only=True)
class Row:
    """What goes wrong, and how the run must end."""

    name: str
    state: str
    reason: str
    gaps: tuple[str, ...] = ()
    action: Action | None = None
    page: int | None = None
    options: dict[str, Any] = field(default_factory=dict)


FAULTS = [
    Row(name="empty-listing", action=empty_listing(), state="partial", reason="empty-listing", gaps=("empty-listing",)),
    Row(name="login-page", action=login_page(), state="failed", reason="unexpected-answer"),
    Row(name="login-page-later", action=login_page(), page=2, state="failed", reason="unexpected-answer"),
    Row(name="401", action=status(401), state="failed", reason="login-required"),
    Row(name="403", action=status(403), state="failed", reason="login-required"),
    Row(name="403-later", action=status(403), page=3, state="failed", reason="login-required"),
    Row(name="404", action=status(404), state="failed", reason="not-found"),
    Row(name="500-on-page-2", action=status(500), page=2, state="failed", reason="server-error"),
    Row(name="429-to-the-end", action=status(429), page=2, state="failed", reason="rate-limited"),
]
STOPPED = ("narrowed", "stopped-early")
OPTIONS = [
    Row(name="skip", options={"skip": "abort:3"}, state="partial", reason="stopped-early", gaps=("stopped-early",)),
    Row(name="image-range", options={"image-range": "1-8"}, state="partial", reason="narrowed", gaps=STOPPED),
    Row(
        name="image-filter", options={"image-filter": "id > 7"}, state="partial", reason="narrowed", gaps=("narrowed",)
    ),
    Row(name="date-after", options={"date-after": "2026-01-02"}, state="partial", reason="narrowed", gaps=STOPPED),
    # The extractor's own: a page that is shorter than this is taken for the last one.
    Row(name="threshold", options={"threshold": 180}, state="partial", reason="narrowed", gaps=("narrowed",)),
    Row(name="videos", options={"videos": False}, state="partial", reason="narrowed", gaps=("narrowed",)),
]


@pytest.mark.parametrize("row", FAULTS + OPTIONS, ids=lambda row: row.name)
def test_a_listing_that_proves_nothing(unheld: House, site: FaultySite, row: Row) -> None:
    """However often it comes, no file is called missing, let alone removed, even where only the listing could hold a
    removal; the run says why."""
    house = unheld
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    if row.action is not None:
        site.rule(LISTING, row.action, page=row.page)
    if row.options:
        house.machine.configure(template(**row.options))
    for _ in range(2):
        run = gallery.run()
        assert (run.state, run.reason, run.gaps, run.removals) == (row.state, row.reason, list(row.gaps), None)
        assert gallery.disk == before
        assert set(gallery.states.values()) == {"present"}
    assert_nothing_removed(gallery, before)
    site.clear_rules()
    house.machine.configure(template())
    assert_removed_when_well(gallery, before, 5)


def test_a_warning_and_a_plain_return(house: House) -> None:
    """A wiki that wants a login: to gallery-dl that is a line in its log and a listing of nothing."""
    refusal = {"error": {"code": "readapidenied", "info": "You are not logged in."}}
    with FaultySite() as site:
        site.wiki = [f"picture{number}" for number in range(12)]
        gallery = house.gallery(site, "wikimedia:{root}/wiki/Category:Demo")
        before = mirrored(gallery)
        assert len(before) == 12
        gone = site.wiki.pop()
        site.rule(f"/direct/wiki/{gone}", status(404))
        refused = site.rule(r"/api\.php", raw(json.dumps(refusal).encode(), "application/json"))
        for _ in range(2):
            run = gallery.run()
            assert (run.state, run.reason, run.gaps) == ("partial", "extractor-warning", ["extractor-warning"])
            assert set(gallery.states.values()) == {"present"}
        assert_nothing_removed(gallery, before)
        refused.times = 0
        assert gallery.run().removals == "1 waiting for a second listing"
        assert gallery.run().removals == "1 moved to trash"
        assert_removed(gallery, before, {name for name in before if gone in name})


TIMID = """
from gallery_dl.extractor.common import Extractor, Message

class TimidExtractor(Extractor):
    category = "timid"
    subcategory = "album"
    filename_fmt = "{name}.{extension}"
    archive_fmt = "_{name}"
    pattern = r"(https?://127\\.0\\.0\\.1:\\d+)/timid"

    def items(self):
        root = self.groups[0]
        album = self.request_json(root + "/timid.json")
        for name in album["names"]:
            metadata = {"name": name, "extension": "png"}
            yield Message.Directory, "", metadata
            yield Message.Url, f"{root}/direct/{name}.png", metadata
        if not album["logged_in"]:
            self.log.warning("not logged in")
            return
"""
"""An extractor that says in gallery-dl's log what is wrong, and nowhere else."""


def test_a_warning_and_a_part_of_the_listing(unheld: House) -> None:
    """A visitor is shown the first five, and told in a log line only that there are more."""
    house = unheld
    extractors = house.machine.home / "extractors"
    extractors.mkdir(exist_ok=True)
    (extractors / "timid.py").write_text(TIMID)
    names = [f"picture{number}" for number in range(12)]

    def show(shown: list[str], logged_in: bool) -> None:
        site.clear_rules()
        site.rule("^/timid.json", raw(json.dumps({"names": shown, "logged_in": logged_in}).encode()))

    with FaultySite() as site:
        house.machine.configure({"extractor": PLAIN | {"module-sources": [str(extractors), None]}})
        gallery = house.gallery(site, "{root}/timid")
        show(names, True)
        before = mirrored(gallery)
        assert set(before) == {f"{name}.png" for name in names}
        show(names[:5], False)
        for _ in range(3):
            run = gallery.run()
            assert (run.state, run.reason, run.gaps) == ("partial", "extractor-warning", ["extractor-warning"])
            assert run.removals is None
        assert set(gallery.states.values()) == {"present"}
        assert_nothing_removed(gallery, before)
        show(names[1:], True)
        gallery.run()
        assert gallery.run().removals == "1 moved to trash"
        assert_removed(gallery, before, {"picture0.png"})


# Listings that are complete, and wrong.


def test_an_empty_page_in_mid_listing(house: House) -> None:
    """gallery-dl takes it for the end, and nothing tells: the files that it hides are asked for, and still served."""
    with FaultySite(posts(1, 44)) as site:
        site.page_size = 4
        gallery = house.gallery(site)
        before = mirrored(gallery)
        site.rule(LISTING, empty_listing(), page=10)
        lost = [str(number) for number in range(1, 9)]
        assert gallery.run().removals == "8 waiting for a second listing"
        for _ in range(2):
            run = gallery.run()
            assert (run.state, run.removals) == ("synchronized", "8 held: still served at its URL")
            assert gallery.holds == dict.fromkeys(lost, "still-served")
        assert_nothing_removed(gallery, before)
        site.clear_rules()
        assert gallery.run().removals is None
        assert (gallery.holds, set(gallery.states.values())) == ({}, {"present"})


def test_a_page_with_more_hidden_than_shown_posts(house: House) -> None:
    """The site leaves hidden posts out of their page. Those behind it are listed all the same, and the hidden ones stay
    as long as their files are served."""
    with FaultySite(posts(1, 60)) as site:
        site.page_size, site.omits_hidden = 10, True
        gallery = house.gallery(site)
        before = mirrored(gallery)
        hidden = range(42, 49)
        site.add(*(post(number, hidden=True) for number in hidden))
        for number in hidden:
            site.rule(post(number).path, raw(post(number).content(), "image/png"))
        for _ in range(2):
            run = gallery.run()
            assert (run.state, run.counts["listed"]) == ("synchronized", 53)
        assert gallery.holds == {str(number): "still-served" for number in hidden}
        assert_nothing_removed(gallery, before)
        assert gallery.disk == before


def test_the_template_changes_between_two_runs(house: House, site: FaultySite) -> None:
    """Two listings that were made in two ways do not confirm each other: counting begins anew."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    assert gallery.run().removals == "1 waiting for a second listing"
    house.machine.configure(template(ugoira=True))
    assert gallery.run().removals == "1 waiting for a second listing"
    assert gallery.rows["5"]["missing_times"] == 1
    assert_nothing_removed(gallery, before)
    assert gallery.run().removals == "1 moved to trash"
    assert_removed(gallery, before, gallery.names(5))


def test_the_url_changes_between_two_runs(house: House, site: FaultySite) -> None:
    """The same: another URL is another question."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    assert gallery.run().removals == "1 waiting for a second listing"
    gallery.url += "&z=1"
    assert gallery.run().removals == "1 waiting for a second listing"
    assert_nothing_removed(gallery, before)


def test_a_listing_that_shrinks(house: House) -> None:
    """By 60 %: a person is asked about all of it."""
    with FaultySite(posts(1, 20)) as site:
        gallery = house.gallery(site)
        before = mirrored(gallery)
        site.remove(*range(1, 13))
        gallery.run()
        for _ in range(2):
            run = gallery.run()
            assert run.removals == "12 held: a larger part of the source than REMOVAL_MAX_SHARE"
            assert gallery.holds == {str(number): "too-large-a-share" for number in range(1, 13)}
        assert_nothing_removed(gallery, before)


def test_all_ids_change(house: House, site: FaultySite) -> None:
    """As many new ids as lost ones: renamed at the site, and kept."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(*range(1, 13))
    site.add(*posts(101, 112))
    gallery.run()
    for _ in range(2):
        assert gallery.run().removals == "12 held: as many new files as lost ones: renamed at the site?"
        assert gallery.holds == {str(number): "renamed" for number in range(1, 13)}
    assert_nothing_removed(gallery, before)
    assert set(gallery.disk) == set(before) | gallery.names(*range(101, 113))


def thread_gallery(house: House, site: FaultySite) -> Gallery:
    """Two posts of a thread, the second with the four pictures 10 to 13, and ids that count them."""
    site.thread = [f"picture{number:02}" for number in range(14)]
    house.machine.configure({"extractor": PLAIN | {"lynxchan": PLAIN}})
    return house.gallery(site, "lynxchan:{root}/b/res/1")


def test_picture_2_of_4_is_deleted_under_positional_ids(house: House) -> None:
    """The last id vanishes, and its picture is still there under another one."""
    with FaultySite() as site:
        gallery = thread_gallery(house, site)
        before = mirrored(gallery)
        assert len(before) == 14
        site.rule(f"/direct/thread/{site.thread.pop(11)}", status(404))
        for _ in range(3):
            assert gallery.run().state == "synchronized"
        assert list(gallery.holds.values()) == ["ids-not-stable"]
        assert gallery.last.removals == "1 held: ids not stable: it may be listed under another one"
        assert_nothing_removed(gallery, before)
        assert gallery.disk == before


def test_picture_4_of_4_is_deleted_under_positional_ids(house: House) -> None:
    """No other picture has moved to another id: it is gone, and goes."""
    with FaultySite() as site:
        gallery = thread_gallery(house, site)
        before = mirrored(gallery)
        gone = site.thread.pop()
        site.rule(f"/direct/thread/{gone}", status(404))
        gallery.run()
        assert gallery.run().removals == "1 moved to trash"
        assert_removed(gallery, before, {name for name in before if gone in name})


def test_gone_and_still_served(house: House, site: FaultySite) -> None:
    """Not listed any more, but the file is still to be had."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    site.rule(post(5).path, raw(post(5).content(), "image/png"))
    gallery.run()
    for _ in range(2):
        assert gallery.run().removals == "1 held: still served at its URL"
        assert gallery.holds == {"5": "still-served"}
    assert_nothing_removed(gallery, before)
    site.clear_rules()
    assert gallery.run().removals == "1 moved to trash"
    assert_removed(gallery, before, gallery.names(5))


@pytest.mark.parametrize("answer", [401, 403, 429, 500, 503])
def test_gone_and_the_site_does_not_say(house: House, site: FaultySite, answer: int) -> None:
    """Only 404 and 410 say that a file is gone."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    site.rule(post(5).path, status(answer))
    gallery.run()
    assert gallery.run().removals == "1 held: the site does not say whether it still serves it"
    assert gallery.holds == {"5": "not-asked"}
    assert_nothing_removed(gallery, before)


def test_gone_and_the_site_hangs_up(house: House, site: FaultySite) -> None:
    """No answer is none; when there is one at last, that counts."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    silent = site.rule(post(5).path, hang_up())
    for _ in range(3):
        run = gallery.run()
    assert run.removals == "1 held: the site does not say whether it still serves it"
    assert gallery.holds == {"5": "not-asked"}
    assert_nothing_removed(gallery, before)
    silent.times = 0
    assert gallery.run().removals == "1 moved to trash"
    assert gallery.holds == {}
    assert_removed(gallery, before, gallery.names(5))


def test_a_site_that_serves_what_is_gone(unheld: House, site: FaultySite) -> None:
    """REMOVAL_PROBE=ignore: the file goes, and its URL is not asked for."""
    gallery = unheld.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    site.rule(post(5).path, raw(post(5).content()))
    site.clear_log()
    gallery.run()
    assert gallery.run().removals == "1 moved to trash"
    assert site.requests("^/data/") == []
    assert_removed(gallery, before, gallery.names(5))


def test_renamed_on_a_site_that_is_not_asked(unheld: House) -> None:
    """Neither new ids nor ids that count files need an answer of the site to be held."""
    house = unheld
    with FaultySite(posts(1, 12)) as site:
        gallery = house.gallery(site)
        before = mirrored(gallery)
        site.remove(*range(1, 13))
        site.add(*posts(101, 112))
        for _ in range(3):
            gallery.run()
        assert gallery.holds == {str(number): "renamed" for number in range(1, 13)}
        assert_nothing_removed(gallery, before)
    with FaultySite() as site:
        gallery = thread_gallery(house, site)
        before = mirrored(gallery)
        del site.thread[11]
        for _ in range(3):
            gallery.run()
        assert list(gallery.holds.values()) == ["ids-not-stable"]
        assert_nothing_removed(gallery, before)


def test_three_listings_are_asked_for(build: Callable[..., House], site: FaultySite) -> None:
    """REMOVAL_CONFIRMATIONS=3: two are not enough."""
    gallery = build(REMOVAL_CONFIRMATIONS=3).gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    assert gallery.run().removals == "1 waiting for a second listing"
    assert gallery.run().removals == "1 waiting for another listing"
    assert_nothing_removed(gallery, before)
    assert gallery.run().removals == "1 moved to trash"
    assert_removed(gallery, before, gallery.names(5))


def test_more_files_than_the_limit(build: Callable[..., House]) -> None:
    """One file above REMOVAL_MAX_COUNT holds all of them; as many as that go."""
    with FaultySite(posts(1, 40)) as site:
        gallery = build(REMOVAL_MAX_COUNT=3).gallery(site)
        before = mirrored(gallery)
        site.remove(1, 2, 3, 4)
        for _ in range(3):
            run = gallery.run()
        assert run.removals == "4 held: more files than REMOVAL_MAX_COUNT"
        assert gallery.holds == dict.fromkeys("1234", "too-many")
        assert_nothing_removed(gallery, before)
        site.add(post(4))
        assert gallery.run().removals == "3 moved to trash"
        assert_removed(gallery, before, gallery.names(1, 2, 3))


def test_gone_and_back_with_another_file_in_the_trash(house: House, site: FaultySite) -> None:
    """What somebody changed in the trash is not what the site has: the file is downloaded."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    gallery.run()
    gallery.run()
    assert_removed(gallery, before, gallery.names(5))
    (house.machine.content / gallery.rows["5"]["trash_path"]).write_bytes(b"something else")
    site.add(post(5))
    site.clear_log()
    gallery.told("downloaded")
    assert gallery.run().counts["downloaded"] == 1
    assert len(site.requests(post(5).path)) == 1
    assert gallery.disk == before
    assert {event.json["filename"] for event in gallery.hears(1, "downloaded")} == gallery.names(5)


def test_gone_and_back(house: House, site: FaultySite) -> None:
    """It comes back from the trash: not downloaded, and announced like any file that came in."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    gallery.run()
    gallery.run()
    assert_removed(gallery, before, gallery.names(5))
    site.clear_log()
    site.add(post(5))
    gallery.told("downloaded")
    run = gallery.run()
    assert (run.state, run.counts["listed"], run.counts["missing"]) == ("synchronized", 12, 0)
    assert site.requests("^/data/") == []
    assert (gallery.disk, gallery.trash) == (before, {})
    (event,) = gallery.hears(1, "downloaded")
    assert {event.json["filename"]} == gallery.names(5)
    assert set(gallery.states.values()) == {"present"}
    run = gallery.run()
    assert (run.counts["skipped"], run.removals) == (12, None)


def test_gone_for_one_listing(house: House, site: FaultySite) -> None:
    """Missing, present, missing: two listings that are not in a row."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    gallery.run()
    site.add(post(5))
    assert gallery.run().removals is None
    site.remove(5)
    assert gallery.run().removals == "1 waiting for a second listing"
    assert_nothing_removed(gallery, before)
    assert len(site.requests(post(5).path)) == 1


def test_one_file_fails_while_another_is_gone(house: House, site: FaultySite) -> None:
    """A failed transfer says nothing against the listing."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    site.add(post(13))
    site.rule(post(13).path, status(500))
    first, second = gallery.run(), gallery.run()
    for run in (first, second):
        assert (run.state, run.reason, run.gaps) == ("failed", "files-failed", [])
    assert (first.removals, second.removals) == ("1 waiting for a second listing", "1 moved to trash")
    assert gallery.states["13"] == "failed"
    assert_removed(gallery, before, gallery.names(5))
    assert removals(*gallery.hears(1)) == dict.fromkeys(gallery.names(5), "trash")


# Cookies.


def write_cookie(house: House, site: FaultySite, value: str, expires: int) -> None:
    folder = house.machine.config / "cookies"
    folder.mkdir(exist_ok=True)
    file = folder / f"{site.root.removeprefix('http://')}.txt"
    file.write_text(f"# Netscape HTTP Cookie File\n\n127.0.0.1\tFALSE\t/\tFALSE\t{expires}\tsession\t{value}\n")
    file.chmod(0o600)


FAR, PAST = 4_000_000_000, 1_000_000_000


def for_members(*numbers: int) -> Action:
    """Whoever has no cookie sees a listing without these posts, and it looks whole."""

    def act(exchange: FaultyExchange) -> None:
        usual = exchange.usual()
        if "session=" not in exchange.headers.get("Cookie", ""):
            shown = [one for one in json.loads(usual.body) if one["id"] not in numbers]
            usual = replace(usual, body=json.dumps(shown).encode())
        exchange.send(usual)

    return act


def members_file() -> Action:
    def act(exchange: FaultyExchange) -> None:
        if "session=" in exchange.headers.get("Cookie", ""):
            exchange.send(exchange.usual())
        else:
            status(404)(exchange)

    return act


def test_a_cookie_expires_between_two_runs(house: House, site: FaultySite) -> None:
    """The site refuses: the run before counts, the refused ones do not."""
    site.require_cookie = ("session", "good")
    write_cookie(house, site, "good", FAR)
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    assert gallery.run().removals == "1 waiting for a second listing"
    write_cookie(house, site, "good", PAST)
    for _ in range(2):
        run = gallery.run()
        assert (run.state, run.reason, run.removals) == ("failed", "login-required", None)
    assert_nothing_removed(gallery, before)
    write_cookie(house, site, "good", FAR)
    assert gallery.run().removals == "1 moved to trash"
    assert_removed(gallery, before, gallery.names(5))


def test_a_cookie_expires_and_the_site_shows_less(house: House, site: FaultySite) -> None:
    """The listing looks whole, and is a visitor's: what only members see is not gone."""
    site.rule(LISTING, for_members(7))
    site.rule(post(7).path, members_file())
    write_cookie(house, site, "good", FAR)
    gallery = house.gallery(site)
    before = mirrored(gallery)
    assert len(before) == 12
    write_cookie(house, site, "good", PAST)
    for _ in range(3):
        run = gallery.run()
        assert (run.state, run.reason, run.gaps) == ("partial", "cookies-expired", ["cookies-expired"])
    assert_nothing_removed(gallery, before)
    assert gallery.disk == before
    write_cookie(house, site, "good", FAR)
    run = gallery.run()
    assert (run.state, run.removals) == ("synchronized", None)


def test_the_cookie_file_is_taken_away(unheld: House, site: FaultySite) -> None:
    """Who is logged in sees more: a visitor's listing does not confirm it, and counting begins anew."""
    house = unheld
    write_cookie(house, site, "good", FAR)
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    gallery.run()
    site.rule(LISTING, for_members(7))
    (house.machine.config / "cookies" / f"{site.root.removeprefix('http://')}.txt").unlink()
    assert gallery.run().removals == "2 waiting for a second listing"
    assert [gallery.rows[number]["missing_times"] for number in "57"] == [1, 1]
    write_cookie(house, site, "good", FAR)
    assert gallery.run().removals == "1 waiting for a second listing"
    assert_nothing_removed(gallery, before)
    assert gallery.run().removals == "1 moved to trash"
    assert_removed(gallery, before, gallery.names(5))


# The disk.


def test_the_content_root_is_not_mounted(house: House, site: FaultySite) -> None:
    """An empty folder in its place: the run does not begin, and writes nothing there."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    gallery.run()
    root = house.machine.content
    away = root.with_name("disk")
    site.clear_log()
    root.rename(away)
    root.mkdir()
    try:
        for _ in range(2):
            run = gallery.run()
            assert (run.state, run.reason, run.removals) == ("failed", "root-not-mounted", None)
        assert list(root.iterdir()) == []
        assert site.log == []
    finally:
        root.rmdir()
        away.rename(root)
    assert_nothing_removed(gallery, before)
    assert gallery.run().removals == "1 moved to trash"
    assert_removed(gallery, before, gallery.names(5))


def test_the_trash_of_a_content_root_that_is_not_mounted(house: House, site: FaultySite) -> None:
    """Nothing of it is found there: that must not be taken for emptied, restored, or deleted by somebody."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    gallery.run()
    gallery.run()
    trashed = gallery.trash
    root = house.machine.content
    away = root.with_name("disk")
    root.rename(away)
    root.mkdir()
    try:
        for what in ("empty", "restore"):
            done = house.machine.run("trash", what, "--source-id", str(gallery.source_id))
            assert done.returncode == 6
            assert "CONTENT_ROOT is not the folder that the catalog speaks of" in done.stderr
        assert list(root.iterdir()) == []
    finally:
        root.rmdir()
        away.rename(root)
    assert gallery.trash == trashed
    house.command("trash", "restore", "--source-id", str(gallery.source_id))
    assert gallery.disk == before


def test_the_content_root_goes_away_during_a_run(house: House, site: FaultySite) -> None:
    """The marker is looked for once more, right before the removal."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    gallery.run()
    markers = house.machine.content / ".http-downloader"

    def unmount(exchange: FaultyExchange) -> None:
        markers.rename(markers.with_name(".away"))
        exchange.send(exchange.usual())

    site.rule(LISTING, unmount, times=1)
    run = gallery.run()
    markers.with_name(".away").rename(markers)
    assert run.state == "synchronized"
    assert str(run.removals).startswith("nothing removed: CONTENT_ROOT is not the folder that the catalog speaks of")
    assert gallery.disk == before
    assert_nothing_removed(gallery, before)
    assert gallery.run().removals == "1 moved to trash"
    assert_removed(gallery, before, gallery.names(5))


def test_two_sources_with_one_folder(house: House) -> None:
    """Each has its own copy of what both list; a removal of one source touches nothing of the other."""
    with FaultySite([post(number, tags=("left", "right")) for number in range(1, 13)]) as site:
        left = house.gallery(site, "Danbooru:{root}/posts?tags=left", "both")
        right = house.gallery(site, "Danbooru:{root}/posts?tags=right", "both")
        left.run()
        before = mirrored(right)
        assert len(before) == 24
        site.add(post(5, tags=("right",)))  # not gone: taken out of one gallery
        left.run()
        left.run()
        assert left.holds == {"5": "still-served"}
        assert_nothing_removed(left, before)
        site.remove(5)
        assert left.run().removals == "1 moved to trash"
        theirs = {Path(right.rows["5"]["path"]).name}
        ours = {Path(left.rows["5"]["path"]).name}
        assert ours != theirs
        assert_removed(left, before, ours)
        assert right.run().removals == "1 waiting for a second listing"
        assert_removed(right, before, ours)
        assert right.run().removals == "1 moved to trash"
        assert_removed(right, before, ours | theirs)


def test_a_symlinked_folder(house: House, site: FaultySite) -> None:
    """A part of the gallery was moved to another disk: what lies behind the symlink is not ours to take."""
    house.machine.configure(template(directory=["pictures"]))
    gallery = house.gallery(site)
    before = mirrored(gallery)
    pictures = house.machine.content / gallery.folder / "pictures"
    elsewhere = house.machine.home / "elsewhere"
    pictures.rename(elsewhere)
    pictures.symlink_to(elsewhere)
    site.remove(5)
    gallery.run()
    for _ in range(2):
        assert gallery.run().removals == "1 held: it lies behind a symbolic link"
        assert gallery.holds == {"5": "symlink"}
    assert {f"pictures/{file.name}": file.read_bytes() for file in elsewhere.iterdir()} == before
    assert (gallery.trash, gallery.told()) == ({}, [])


def test_the_sources_own_folder_is_a_symlink(house: House, site: FaultySite) -> None:
    """Then nothing is written there at all."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    folder = house.machine.content / gallery.folder
    elsewhere = house.machine.home / "elsewhere too"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    site.remove(5)
    for _ in range(2):
        run = gallery.run()
        assert (run.state, run.reason) == ("failed", "bad-input")
    assert {file.name: file.read_bytes() for file in elsewhere.iterdir()} == before
    assert (gallery.trash, gallery.told()) == ({}, [])


@pytest.mark.parametrize("size", ["same", "other"])
def test_an_edited_file(house: House, site: FaultySite, size: str) -> None:
    """What a person made of it is not at the remote, wherever the original is."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    (name,) = gallery.names(5)
    edited = before[name].upper() if size == "same" else b"edited"
    (house.machine.content / gallery.folder / name).write_bytes(edited)
    site.remove(5)
    gallery.run()
    for _ in range(2):
        assert gallery.run().removals == "1 held: changed here since it was downloaded"
        assert gallery.holds == {"5": "changed-locally"}
    assert_nothing_removed(gallery, before | {name: edited})


def test_a_file_that_is_gone_here_too(house: House, site: FaultySite) -> None:
    """Nothing is left to move: the catalog says so, and the event, too."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    (name,) = gallery.names(5)
    (house.machine.content / gallery.folder / name).unlink()
    site.remove(5)
    gallery.run()
    gallery.run()
    assert gallery.states["5"] == "removed"
    assert (gallery.disk, gallery.trash) == ({key: body for key, body in before.items() if key != name}, {})
    assert removals(*gallery.hears(1)) == {name: "delete"}


def test_a_small_source(house: House) -> None:
    """Of four files any share is large: held."""
    with FaultySite(posts(1, 4)) as site:
        gallery = house.gallery(site)
        before = mirrored(gallery)
        site.remove(2)
        gallery.run()
        gallery.run()
        assert gallery.holds == {"2": "small-source"}
        assert_nothing_removed(gallery, before)


# What goes, and the way back.


def test_20_of_200_files(house: House) -> None:
    """After two complete runs exactly these are in the trash, each with its event; restored, they are what they were,
    and stay."""
    with FaultySite(posts(1, 200)) as site:
        gallery = house.gallery(site)
        before = mirrored(gallery)
        assert len(before) == 200
        gone = set(range(7, 200, 10))
        site.remove(*gone)
        assert gallery.run().removals == "20 waiting for a second listing"
        assert gallery.disk == before
        run = gallery.run()
        assert (run.state, run.removals, run.counts["removed"]) == ("synchronized", "20 moved to trash", 20)
        names = gallery.names(*gone)
        assert_removed(gallery, before, names)
        events = gallery.hears(20)
        assert removals(*events) == dict.fromkeys(names, "trash")
        assert len({event.properties.message_id for event in events}) == 20
        assert {event.headers["run_id"] for event in events} == {run.run_id}
        listed = house.machine.rows("trash", "--source-id", str(gallery.source_id))
        assert {row["filename"] for row in listed} == names
        house.command("trash", "restore", "--source-id", str(gallery.source_id))
        assert (gallery.disk, gallery.trash) == (before, {})
        assert set(gallery.states.values()) == {"present"}
        gallery.run()
        gallery.run()
        assert gallery.holds == {str(number): "pinned" for number in gone}
        assert gallery.disk == before
        assert gallery.told() == []


def test_a_held_plan_is_approved(house: House) -> None:
    """A person looks at it and says yes: the files go, and their events go out."""
    with FaultySite(posts(1, 20)) as site:
        gallery = house.gallery(site)
        before = mirrored(gallery)
        site.remove(*range(1, 13))
        gallery.run()
        run = gallery.run()
        (name,) = gallery.names(3)
        (house.machine.content / gallery.folder / name).write_bytes(b"edited meanwhile")
        plan = next(row for row in house.machine.rows("removals") if row["source_id"] == gallery.source_id)
        assert (plan["run_id"], plan["files"], plan["reason"]) == (run.run_id, 12, "too-large-a-share")
        shown = house.machine.rows("removals", "show", run.run_id)
        assert {row["filename"] for row in shown} == gallery.names(*range(1, 13))
        assert {(row["reason"], row["may_be_approved"]) for row in shown} == {("too-large-a-share", True)}
        said = house.command("removals", "approve", run.run_id)
        assert "11 moved to trash, 1 stay" in said
        assert f"{name}: changed here since it was downloaded" in said
        names = gallery.names(*range(1, 13)) - {name}
        assert_removed(gallery, before | {name: b"edited meanwhile"}, names)
        events = gallery.hears(11)
        assert removals(*events) == dict.fromkeys(names, "trash")
        assert {event.headers["run_id"] for event in events} == {run.run_id}


def test_a_held_plan_that_changes(house: House) -> None:
    """It stays the same run's while nothing is added, so that a person has time to look at it. With more files it is a
    new plan: nobody approves files unseen."""
    with FaultySite(posts(1, 20)) as site:
        gallery = house.gallery(site)
        before = mirrored(gallery)
        site.remove(*range(1, 13))
        gallery.run()
        made = gallery.run()
        site.add(*posts(1, 3))
        gallery.run()
        (plan,) = held_plans(gallery)
        assert (plan["run_id"], plan["files"], plan["reason"]) == (made.run_id, 9, "too-large-a-share")
        site.remove(13)
        gallery.run()
        changed = gallery.run()
        (plan,) = held_plans(gallery)
        assert (plan["run_id"], plan["files"], plan["reason"]) == (changed.run_id, 10, "too-large-a-share")
        done = house.machine.run("removals", "approve", made.run_id)
        assert (done.returncode, "nothing is held for run" in done.stderr) == (2, True)
        assert_nothing_removed(gallery, before)
        assert "10 moved to trash" in house.command("removals", "approve", changed.run_id)
        names = gallery.names(*range(4, 14))
        assert_removed(gallery, before, names)
        assert removals(*gallery.hears(10)) == dict.fromkeys(names, "trash")


def held_plans(gallery: Gallery) -> list[dict[str, Any]]:
    return [row for row in gallery.house.machine.rows("removals") if row["source_id"] == gallery.source_id]


def test_a_held_plan_of_a_source_that_deletes(house: House) -> None:
    """Approved, it is carried out as the source wants it: nothing of it stays, and the events say so."""
    with FaultySite(posts(1, 20)) as site:
        gallery = house.gallery(site)
        before = mirrored(gallery)
        house.command("sources", "edit", str(gallery.source_id), "--remote-deletes", "delete")
        site.remove(*range(1, 13))
        gallery.run()
        assert "12 deleted" in house.command("removals", "approve", gallery.run().run_id)
        names = gallery.names(*range(1, 13))
        assert gallery.disk == {name: body for name, body in before.items() if name not in names}
        assert gallery.trash == {}
        assert {gallery.states[str(number)] for number in range(1, 13)} == {"removed"}
        assert removals(*gallery.hears(12)) == dict.fromkeys(names, "delete")


def test_a_held_plan_is_rejected(house: House) -> None:
    """A person says no: the files stay, and nobody is asked again."""
    with FaultySite(posts(1, 20)) as site:
        gallery = house.gallery(site)
        before = mirrored(gallery)
        site.remove(*range(1, 13))
        gallery.run()
        run = gallery.run()
        assert "12 kept and pinned" in house.command("removals", "reject", run.run_id)
        assert gallery.holds == {}
        gallery.run()
        assert_nothing_removed(gallery, before)
        assert gallery.holds == {str(number): "pinned" for number in range(1, 13)}
        assert gallery.source_id not in {row["source_id"] for row in house.machine.rows("removals")}
        done = house.machine.run("removals", "approve", run.run_id)
        assert (done.returncode, "nothing is held for run" in done.stderr) == (2, True)


def test_pin_and_unpin(house: House, site: FaultySite) -> None:
    """A pinned file stays until it is unpinned."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    (name,) = gallery.names(5)
    house.command("files", "pin", name, "--source-id", str(gallery.source_id))
    site.remove(5)
    gallery.run()
    for _ in range(2):
        assert gallery.run().removals == "1 held: pinned"
        assert gallery.holds == {"5": "pinned"}
    assert_nothing_removed(gallery, before)
    house.command("files", "unpin", name, "--source-id", str(gallery.source_id))
    assert gallery.run().removals == "1 moved to trash"
    assert_removed(gallery, before, {name})


def test_forget_and_want(house: House, site: FaultySite) -> None:
    """A file that vanished here is downloaded again, unless it was forgotten; wanted, it comes back."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    (name,) = gallery.names(5)
    path = house.machine.content / gallery.folder / name
    source = ("--source-id", str(gallery.source_id))
    path.unlink()
    gallery.run()
    assert gallery.disk == before
    refused = house.machine.run("files", "forget", name, *source)
    assert (refused.returncode, "is still here; delete it first" in refused.stderr) == (2, True)
    path.unlink()
    house.command("files", "forget", name, *source)
    site.clear_log()
    gallery.told("downloaded")
    for _ in range(2):
        run = gallery.run()
        assert (run.state, run.removals, run.counts["skipped"]) == ("synchronized", None, 11)
    assert site.requests("^/data/") == []
    assert name not in gallery.disk
    assert gallery.told() == []
    house.command("files", "want", name, *source)
    gallery.run()
    assert gallery.disk == before
    assert [event.json["filename"] for event in gallery.hears(1, "downloaded")] == [name]


def test_restore_when_the_old_name_is_taken(house: House, site: FaultySite) -> None:
    """Never over another file: beside it."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    gallery.run()
    gallery.run()
    (name,) = gallery.names(5)
    (house.machine.content / gallery.folder / name).write_bytes(b"somebody's own")
    said = house.command("trash", "restore", name, "--source-id", str(gallery.source_id)).strip()
    beside = said.removeprefix(f"{gallery.folder}/")
    assert beside != name
    assert gallery.disk == before | {name: b"somebody's own", beside: before[name]}
    assert gallery.trash == {}
    assert gallery.rows["5"]["path"] == said
    gallery.run()
    assert gallery.disk == before | {name: b"somebody's own", beside: before[name]}


def test_another_file_takes_the_name(house: House) -> None:
    """The name of a removed file is free. Whoever has it then keeps it, also when the first one comes back."""
    with FaultySite([post(number, title=f"picture {number}") for number in range(1, 13)]) as site:
        house.machine.configure(template(filename="{title}.{extension}"))
        gallery = house.gallery(site)
        before = mirrored(gallery)
        name = "picture 5.png"
        site.remove(5)
        gallery.run()
        gallery.run()
        assert_removed(gallery, before, {name})
        site.add(post(13, title="picture 5"))
        gallery.run()
        assert gallery.disk == before | {name: post(13).content()}
        assert gallery.trash == {name: before[name]}
        site.add(post(5, title="picture 5"))
        site.clear_log()
        gallery.run()
        (beside,) = set(gallery.disk) - set(before)
        assert gallery.disk == before | {name: post(13).content(), beside: before[name]}
        assert gallery.trash == {}
        assert site.requests("^/data/") == []
        site.remove(13)
        gallery.run()
        gallery.run()
        assert gallery.trash == {name: post(13).content()}
        assert gallery.disk == {key: body for key, body in before.items() if key != name} | {beside: before[name]}


def test_the_trash_is_emptied(house: House, site: FaultySite) -> None:
    """By a person: for good, and the folders with it."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    gallery.run()
    gallery.run()
    assert len(gallery.trash) == 1
    assert "1 deleted" in house.command("trash", "empty", "--source-id", str(gallery.source_id))
    assert gallery.trash == {}
    assert not list(house.machine.content.glob(f".trash/*/{gallery.folder}"))
    assert gallery.states["5"] == "removed"
    site.add(post(5))
    gallery.run()
    assert gallery.disk == before


# What is to be done: by instance, by source, by order.


def test_the_source_says_otherwise(house: House, site: FaultySite) -> None:
    """`sources edit`: this source keeps what is gone; later it deletes at once; then it does what the instance does."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    number = str(gallery.source_id)
    house.command("sources", "edit", number, "--remote-deletes", "keep")
    site.remove(5)
    for _ in range(3):
        assert gallery.run().removals == "1 kept"
    assert gallery.states["5"] == "missing"
    assert_nothing_removed(gallery, before)
    house.command("sources", "edit", number, "--remote-deletes", "delete")
    assert gallery.run().removals == "1 deleted"
    rest = {name: body for name, body in before.items() if name not in gallery.names(5)}
    assert (gallery.disk, gallery.trash, gallery.states["5"]) == (rest, {}, "removed")
    assert removals(*gallery.hears(1)) == dict.fromkeys(gallery.names(5), "delete")
    house.command("sources", "edit", number, "--remote-deletes", "default")
    site.remove(6)
    gallery.run()
    assert gallery.run().removals == "1 moved to trash"
    assert_removed(gallery, rest, gallery.names(6))
    wrong = house.machine.run("sources", "edit", number, "--remote-deletes", "burn")
    assert wrong.returncode == 2
    assert "remote_deletes must be keep, trash or delete" in wrong.stderr


def test_an_order_says_otherwise(house: House, site: FaultySite) -> None:
    """Only to be more careful. One that asks for anything else is rejected, and says why."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    for _ in range(3):
        assert gallery.run(remote_deletes="keep").removals == "1 kept"
    assert_nothing_removed(gallery, before)
    gallery.order(remote_deletes="burn")
    house.queues.wait_for("rejected", 1)
    (rejected,) = house.queues.take("rejected")
    assert rejected.json["remote_deletes"] == "burn"
    assert "remote_deletes must be keep, trash or delete" in rejected.headers["detail"]
    assert gallery.run(remote_deletes="delete").removals == "1 moved to trash"
    assert_removed(gallery, before, gallery.names(5))


@pytest.mark.parametrize(
    ("instance", "words"),
    [
        ("keep", [(None, "delete", "kept"), ("trash", "delete", "moved to trash"), ("delete", None, "deleted")]),
        (
            "trash",
            [
                ("keep", "delete", "kept"),
                ("delete", "trash", "moved to trash"),
                ("delete", "keep", "kept"),
                ("delete", "delete", "deleted"),
            ],
        ),
        ("delete", [(None, None, "deleted"), (None, "trash", "moved to trash"), ("keep", "delete", "kept")]),
    ],
)
def test_who_may_say_what(
    build: Callable[..., House], site: FaultySite, instance: str, words: list[tuple[str | None, str | None, str]]
) -> None:
    """The source's word replaces the instance's; the order's counts only where it is the more careful one."""
    house = build(REMOTE_DELETES=instance)
    for source, order, done in words:
        site.add(post(5))
        gallery = house.gallery(site)
        before = mirrored(gallery)
        journal.set_remote_deletes(house.catalog, gallery.source_id, RemoteDeletes(source) if source else None)
        site.remove(5)
        gallery.run()
        assert gallery.run(**({"remote_deletes": order} if order else {})).removals == f"1 {done}"
        if done == "kept":
            assert_nothing_removed(gallery, before)
            continue
        rest = {name: body for name, body in before.items() if name not in gallery.names(5)}
        assert gallery.disk == rest
        assert gallery.trash == {name: before[name] for name in gallery.names(5) if done == "moved to trash"}
        removal = "trash" if done == "moved to trash" else "delete"
        assert removals(*gallery.hears(1)) == dict.fromkeys(gallery.names(5), removal)


def synced(machine: Installation, site: FaultySite, *arguments: str) -> str:
    """`http-downloader sync`, and what its run says about removals."""
    done = machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a", "--quiet", *arguments)
    assert done.returncode == 0, done.stderr
    with contextlib.closing(open_catalog(f"sqlite:///{machine.runtime / 'catalog.sqlite3'}")) as catalog:
        return journal.list_runs(catalog, source_id=None, limit=1)[0]["removals"] or ""


def test_the_instance_says(install: Callable[..., Installation], site: FaultySite) -> None:
    """REMOTE_DELETES: keep, delete, and trash when nothing is set and no broker is."""
    machine = install(REMOVAL_MIN_AGE=0, REMOTE_DELETES="keep")
    machine.configure(template())
    synced(machine, site)
    before = machine.on_disk()
    site.remove(5)
    for _ in range(2):
        assert synced(machine, site) == "1 kept"
    assert machine.on_disk() == before
    machine.set(REMOTE_DELETES="delete")
    assert synced(machine, site) == "1 deleted"
    kept = {path: body for path, body in before.items() if "_5_" not in path}
    assert machine.on_disk() == kept
    machine.set(REMOTE_DELETES="")
    site.remove(6)
    synced(machine, site)
    assert synced(machine, site) == "1 moved to trash"
    moved = {path: body for path, body in machine.on_disk().items() if path.startswith(".trash/")}
    assert list(moved.values()) == [post(6).content()]
    assert machine.on_disk() == {path: body for path, body in kept.items() if "_6_" not in path} | moved


def test_nobody_loses_files_untold(install: Callable[..., Installation], queues: Queues, site: FaultySite) -> None:
    """With a broker and without AMQP_Q_FILE_REMOVED files are kept, unless somebody says REMOTE_DELETES."""
    machine = install(REMOVAL_MIN_AGE=0, **queues.settings)
    machine.configure(template())
    synced(machine, site)
    before = machine.on_disk()
    site.remove(5)
    for _ in range(2):
        assert synced(machine, site) == "1 kept"
    assert machine.on_disk() == before
    machine.set(REMOTE_DELETES="trash")
    assert synced(machine, site) == "1 moved to trash"


def test_waiting_times(install: Callable[..., Installation], site: FaultySite) -> None:
    """Within REMOVAL_MIN_AGE, an hour unless set, two listings are one. What lies in the trash for longer than
    TRASH_RETENTION, 30 days unless set, is deleted for good."""
    machine = install()
    machine.configure(template())
    synced(machine, site)
    before = machine.on_disk()
    site.remove(5)
    for _ in range(2):
        assert synced(machine, site) == "1 waiting for a second listing"
    assert machine.on_disk() == before
    assert [row["missing_times"] for row in machine.rows("files", "--state", "missing")] == [1]
    machine.set(REMOVAL_MIN_AGE=0)
    assert synced(machine, site) == "1 moved to trash"
    synced(machine, site)
    assert [body for path, body in machine.on_disk().items() if path.startswith(".trash/")] == [post(5).content()]
    machine.set(TRASH_RETENTION="0.000001")
    synced(machine, site)
    assert machine.on_disk() == {path: body for path, body in before.items() if "_5_" not in path}
    assert not (machine.content / ".trash").exists()
    assert {row["state"] for row in machine.rows("files")} == {"present", "removed"}


def test_a_run_of_two_attempts(install: Callable[..., Installation], site: FaultySite) -> None:
    """What the first attempt removed is not forgotten in the second, which has nothing left to remove."""
    machine = install(REMOVAL_MIN_AGE=0, SYNC_ATTEMPTS=2, SYNC_RETRY_DELAY=0.05)
    machine.configure(template())
    synced(machine, site)
    site.remove(5)
    synced(machine, site)
    site.add(post(13))
    site.rule(post(13).path, status(500), times=1)
    assert synced(machine, site) == "1 moved to trash"
    run = machine.runs()[0]
    assert (run["state"], run["attempt"], run["counts"]["removed"]) == ("synchronized", 2, 1)


# Killed.

KILLED = {
    "before-the-move": "trash.Trash.move = die",
    "in-mid-move": "trash._rename = lambda a, b, c, d, _: die(os.link(b, d, src_dir_fd=a, dst_dir_fd=c))",
    "moved": "removals.removed = die",
    "committed": "removed = removals.removed; removals.removed = lambda *a: die(removed(*a))",
    "sent": "outbox.confirmed = die",
}
DIES = """
import os, signal
from http_downloader.catalog import outbox, removals
from http_downloader.sync import trash
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
{where}
from http_downloader.cli import main
main()
"""


@pytest.mark.parametrize("where", KILLED)
def test_the_service_is_killed_during_a_removal(house: House, site: FaultySite, where: str) -> None:
    """Between any two steps: the next start carries it to its end, and tells of each file once."""
    site.remove(*range(9, 13))
    site.add(*posts(9, 40))
    gallery = house.gallery(site)
    before = mirrored(gallery)
    gone = range(5, 9)
    site.remove(*gone)
    gallery.run()
    house.service.stop()  # with everything told
    house.queues.take("synchronized")
    command = [sys.executable, "-c", DIES.format(where=KILLED[where])]
    dying = Service(house.machine, command).start()
    gallery.order()
    assert dying.process is not None
    assert dying.process.wait(60) == -signal.SIGKILL
    everything = gallery.disk | gallery.trash
    assert everything == before  # nothing is lost at any moment
    house.service = Service(house.machine).start()
    wait_until(lambda: gallery.runs()[0]["ended_at"], what="the run's end")
    names = gallery.names(*gone)
    assert_removed(gallery, before, names)
    assert {gallery.states[str(number)] for number in gone} == {"trashed"}
    # Once it is in the catalog, nothing is left to carry to its end.
    assert where in ("committed", "sent") or gallery.last.removals == "4 moved to trash"
    house.queues.wait_for("synchronized", 1)
    events = gallery.told()
    assert removals(*events) == dict.fromkeys(names, "trash")
    assert len({event.properties.message_id for event in events}) == 4
    assert where == "sent" or len(events) == 4
    assert gallery.run().removals is None
    assert gallery.told() == []


def test_the_gallery_process_is_killed_while_it_asks(house: House, site: FaultySite) -> None:
    """No answer is no proof: held, and asked again in the next run."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    gallery.run()
    site.rule(post(5).path, hang(60))
    others = set(gallery_processes(house.service.pid))
    ended = len(gallery.runs())
    site.clear_log()
    gallery.order()
    wait_until(lambda: site.requests(post(5).path), what="the question")
    (asking,) = set(gallery_processes(house.service.pid)) - others
    os.kill(asking, signal.SIGKILL)
    wait_until(lambda: len(gallery.runs()) > ended and gallery.runs()[0]["ended_at"], what="the run's end")
    assert (gallery.last.state, gallery.holds) == ("synchronized", {"5": "not-asked"})
    assert_nothing_removed(gallery, before)
    site.clear_rules()
    assert gallery.run().removals == "1 moved to trash"
    assert_removed(gallery, before, gallery.names(5))


@pytest.mark.parametrize("where", ["before-the-move", "in-mid-move", "moved"])
def test_an_approval_is_killed(house: House, where: str) -> None:
    """The next run finds what a person has approved half done, and completes it."""
    with FaultySite(posts(1, 20)) as site:
        gallery = house.gallery(site)
        before = mirrored(gallery)
        site.remove(*range(1, 13))
        gallery.run()
        run = gallery.run()
        kill = KILLED[where].replace("removals.removed", "removals.removed_by_hand")
        command = [sys.executable, "-c", DIES.format(where=kill), "removals", "approve", run.run_id]
        done = subprocess.run(command, env=house.machine.env, cwd=house.machine.home, check=False, timeout=60)
        assert done.returncode == -signal.SIGKILL
        assert gallery.disk | gallery.trash == before
        gallery.run()
        names = gallery.names(*range(1, 13))
        assert_removed(gallery, before, names)
        assert removals(*gallery.hears(12)) == dict.fromkeys(names, "trash")


DIES_IN_THE_GALLERY = """
import os, signal
def dying(real, fires):
    def call(*a, **k):
        done = real(*a, **k)
        if fires(*a) and os.path.exists({flag!r}):
            os.rename({flag!r}, {flag!r} + ".fired")
            os.kill(os.getpid(), signal.SIGKILL)
        return done
    return call
os.{function} = dying(os.{function}, lambda path, *_: "/.trash/" in str(path))
"""


@pytest.mark.parametrize("function", ["link", "unlink"])
def test_the_gallery_process_is_killed_while_it_restores(house: House, site: FaultySite, function: str) -> None:
    """In the middle of the way back from the trash, and at its end: brought back whole, announced once, nothing left."""
    gallery = house.gallery(site)
    before = mirrored(gallery)
    site.remove(5)
    gallery.run()
    gallery.run()
    site.add(post(5))
    flag = house.machine.home / f"kill-in-{function}"
    code = house.machine.home / f"python-{function}"
    code.mkdir()
    (code / "sitecustomize.py").write_text(DIES_IN_THE_GALLERY.format(flag=str(flag), function=function))
    flag.touch()
    house.service.stop()
    usual = house.machine.env
    path = os.pathsep.join(filter(None, (str(code), usual.get("PYTHONPATH"))))
    house.machine.env = usual | {"PYTHONPATH": path, "SYNC_ATTEMPTS": "2"}
    house.queues.take("downloaded")
    with Service(house.machine):
        run = gallery.run()
    house.machine.env = usual
    house.service = Service(house.machine).start()
    assert not flag.exists()
    assert (run.state, run.attempt) == ("synchronized", 2)
    assert (gallery.disk, gallery.trash) == (before, {})
    (event,) = gallery.told("downloaded")
    assert {event.json["filename"]} == gallery.names(5)
    assert len(site.requests(post(5).path)) == 1 + 1  # the first download, and the question whether it is gone
