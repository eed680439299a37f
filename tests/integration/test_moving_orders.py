"""Orders that say something else about a source than the ones before: newer, older, or about a shared folder."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.installation import Installation, Service, wait_until
from tests.queues import Queues
from tests.site import FaultySite, Post, status


def test_an_old_order_that_is_replayed_moves_nothing(install: Callable[..., Installation], queues: Queues) -> None:
    """It is answered by a run where the source is now, and the log says so."""
    machine = install(**queues.settings)
    now = int(time.time())
    with FaultySite([Post(id=1)]) as site, Service(machine) as service:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        old = {"source_id": 1, "url": url + "+order:id", "content_path": "old"}
        new = {"source_id": 1, "url": url, "content_path": "new"}
        queues.post(old, message_id="first", timestamp=now - 60)
        queues.wait_for("synchronized", 1)
        queues.post(new, message_id="second", timestamp=now - 30)
        queues.wait_for("synchronized", 2)
        assert "a newer order" not in service.log
        before = machine.on_disk()
        queues.post(old, message_id="first", timestamp=now - 60)  # the message itself
        queues.wait_for("synchronized", 3)
        queues.post(old, message_id="third", timestamp=now - 45)  # sent long ago, and late
        queues.wait_for("synchronized", 4)
        assert service.log.count("a newer order has said where this source is") == 2
        assert machine.on_disk() == before
        assert [run["content_path"] for run in machine.runs()] == ["new", "new", "new", "old"]
        (source,) = machine.rows("sources")
        assert (source["url"], source["content_path"]) == (url, "new")
        answered = [message.headers["orders"] for message in queues.take("synchronized")]
        assert answered == [["first"], ["second"], ["first"], ["third"]]


def test_files_of_a_source_that_moves_to_another_folder(install: Callable[..., Installation]) -> None:
    """What is listed is fetched into the new folder. What cannot be fetched now keeps its copy in the old one; what is
    gone at the remote is looked for there, and one listing does not remove it."""
    machine = install(REMOTE_DELETES="trash", SYNC_ATTEMPTS=1)
    with FaultySite([Post(id=number) for number in range(1, 5)]) as site:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        sync = ("--source-id", "1", "--to")
        assert machine.sync(url, *sync, "old").returncode == 0
        old = machine.on_disk()
        site.remove(1)
        site.rule(Post(id=4).path, status(404))
        assert machine.sync(url, *sync, "new").returncode == 4
        assert {path: body for path, body in machine.on_disk().items() if path.startswith("old/")} == old
        states = {row["remote_id"].rpartition("_")[2]: (row["path"].partition("/")[0], row["state"]) for row in machine.files(1)}  # fmt: skip
        assert states == {"1": ("old", "missing"), "2": ("new", "present"), "3": ("new", "present"), "4": ("old", "failed")}  # fmt: skip
        site.clear_rules()
        assert machine.sync(url, *sync, "new").returncode == 0
        assert {path: body for path, body in machine.on_disk().items() if path.startswith("old/")} == old
        site.clear_log()
        assert machine.sync(url, *sync, "old").returncode == 0  # and back: they are there still
        assert site.requests("^/data/") == []
        assert {row["path"].partition("/")[0] for row in machine.files(1)} == {"old"}


@pytest.mark.long
def test_a_source_that_gets_another_url(install: Callable[..., Installation]) -> None:
    """The files of its old gallery are not in the listing of the new one, and are not gone for that: they stay, also
    where one listing would do, until a person says otherwise."""
    machine = install(REMOTE_DELETES="trash", REMOVAL_CONFIRMATIONS=2, REMOVAL_MIN_AGE=0)
    with FaultySite([Post(id=1, tags=("one",)), Post(id=2, tags=("two",)), Post(id=3, tags=("two",))]) as site:
        for tag in ("one", "two", "two", "two"):
            url = f"Danbooru:{site.root}/posts?tags={tag}"
            assert machine.sync(url, "--source-id", "1", "--to", "a").returncode == 0
        assert sorted(machine.on_disk().values()) == sorted(post.content() for post in site.posts)
        rows = {row["url"].rpartition("/")[2].partition(".")[0]: (row["state"], bool(row["hold"])) for row in machine.files(1)}  # fmt: skip
        assert rows == {Post(id=1).md5: ("missing", True), Post(id=2).md5: ("present", False), Post(id=3).md5: ("present", False)}  # fmt: skip


def test_sources_in_one_folder_and_in_each_other(install: Callable[..., Installation], queues: Queues) -> None:
    """Ordered at once, with the same names: every file of all three is there, each with its own row, and stays."""
    machine = install(SITE_CONCURRENCY=3, **queues.settings)
    machine.configure(
        {
            "extractor": {
                "Danbooru": {"sleep-request": 0, "directory": ["{title}"], "filename": "{filename}.{extension}"}
            }
        }
    )
    posts = [
        Post(id=10 * source + number, tags=(f"s{source}",), folder=f"{source}", name=f"{number}", title=title, body=f"{source} {number}".encode())
        for source, title in ((1, ""), (2, "inner"), (3, ""))
        for number in range(1, 9)
    ]  # fmt: skip
    folders = {1: "outer/inner", 2: "outer", 3: "outer/inner"}
    with FaultySite(posts) as site, Service(machine):
        for number in (1, 2):
            for source, folder in folders.items():
                url = f"Danbooru:{site.root}/posts?tags=s{source}"
                queues.post({"source_id": source, "url": url, "content_path": folder})
            queues.wait_for("synchronized", 3 * number)
            found = machine.on_disk()
            assert sorted(found.values()) == sorted(post.content() for post in posts)
            rows = [row for source in folders for row in machine.files(source)]
            assert sorted(row["path"] for row in rows) == sorted(found)
            assert {found[row["path"]].split()[0] for row in machine.files(2)} == {b"2"}
        wait_until(lambda: queues.count("synchronized") == 6, what="both runs of all three")
