"""The main job: an order in, a mirrored gallery, its catalog, its events out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from http_downloader.demo import site as demo_site
from tests.installation import Installation, Service
from tests.queues import Queues
from tests.site import FaultySite, Post, cut, hang_up

THREE_PAGES = {"extractor": {"Danbooru": {"sleep-request": 0, "threshold": 1}}}
"""The crawl goes on until a page is empty, so pages may have any size."""


def test_300_files_over_3_pages(
    install: Callable[..., Installation], queues: Queues, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new gallery is announced file by file; known files are skipped; ten more are the only downloads."""
    monkeypatch.setattr(demo_site, "LARGEST_PAGE", 100)
    machine = install(**queues.settings)
    machine.configure(THREE_PAGES)
    with FaultySite([Post(id=number) for number in range(1, 301)]) as site, Service(machine):
        order = {"source_id": 725, "url": f"Danbooru:{site.root}/posts?tags=demo", "content_path": "portraits/"}
        queues.post(order, message_id="first", correlation_id="ticket")
        queues.wait_for("synchronized", 1)
        assert counts(queues) == (300, 0, 1)
        assert len([page for page in site.requests("/posts.json") if page.status == 200]) == 4  # 3, and an empty one

        expected = {f"portraits/{name(site, post)}": post.content() for post in site.posts}
        assert machine.on_disk() == expected
        rows = machine.files(725)
        assert {row["path"]: (row["size"], row["sha256"], row["state"]) for row in rows} == {
            path: (len(body), hashlib.sha256(body).hexdigest(), "present") for path, body in expected.items()
        }

        downloaded = queues.take("downloaded")
        assert sorted(message.body for message in downloaded) == sorted(
            f'{{"source_id": 725, "filename": "{name(site, post)}"}}'.encode() for post in site.posts
        )
        assert len({message.properties.message_id for message in downloaded}) == 300
        sample = downloaded[0]
        row = next(row for row in rows if row["filename"] == sample.json["filename"])
        assert sample.properties.delivery_mode == 2
        assert sample.properties.content_type == "application/json"
        assert sample.properties.type == "file-downloaded"
        assert sample.properties.correlation_id == "ticket"
        assert sample.headers == {
            "run_id": machine.runs()[0]["run_id"],
            "url": row["url"],
            "size": row["size"],
            "sha256": row["sha256"],
        }
        (synchronized,) = queues.take("synchronized")
        assert synchronized.body == b'{"source_id": 725}'
        assert synchronized.properties.correlation_id == "ticket"
        assert synchronized.headers["orders"] == ["first"]
        assert (synchronized.headers["downloaded"], synchronized.headers["listed"]) == (300, 300)

        queues.post(order, message_id="second")
        queues.wait_for("synchronized", 1)
        assert counts(queues) == (0, 300, 1)
        assert {message.json["filename"] for message in queues.take("skipped")} == {row["filename"] for row in rows}
        assert queues.take("synchronized")[0].properties.correlation_id == "second"

        site.add(*(Post(id=number) for number in range(301, 311)))
        queues.post(order)
        queues.wait_for("synchronized", 1)
        assert counts(queues) == (10, 300, 1)
        assert len(site.requests("^/data/")) == 310  # nothing was ever fetched twice


def test_a_transfer_that_breaks_off_is_completed(install: Callable[..., Installation]) -> None:
    """A body cut in the middle, and a connection closed without an answer: the file is whole in the end."""
    machine = install()
    with FaultySite([Post(id=1), Post(id=2)]) as site:
        first, second = site.posts
        site.rule(first.path, cut(), times=1)
        site.rule(second.path, hang_up(), times=1)
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a").returncode == 0
        assert machine.on_disk() == {f"a/{name(site, post)}": post.content() for post in site.posts}


def test_two_albums_with_the_same_names_in_one_folder(install: Callable[..., Installation]) -> None:
    """Files of two sources with equal names are all kept, under names that are the same in every run."""
    machine = install()
    machine.configure({"extractor": {"Danbooru": {"sleep-request": 0, "filename": "{filename}.{extension}"}}})
    posts = [
        Post(id=10 * number + 1, tags=(album,), folder=album, name=str(number), body=f"{album} {number}".encode())
        for album in ("albumA", "albumB")
        for number in range(1, 6)
    ]
    posts = [Post(id=i, tags=p.tags, folder=p.folder, name=p.name, body=p.body) for i, p in enumerate(posts, 1)]
    with FaultySite(posts) as site:
        seen = []
        for _ in range(3):
            for source_id, album in ((1, "albumA"), (2, "albumB")):
                url = f"Danbooru:{site.root}/posts?tags={album}"
                done = machine.sync(url, "--to", "flat", "--source-id", str(source_id))
                assert done.returncode == 0, done.stdout + done.stderr
            seen.append((machine.on_disk(), [row["filename"] for row in machine.rows("files")]))
        disk, names = seen[0]
        assert sorted(disk.values()) == sorted(post.content() for post in posts)
        assert len(set(names)) == 10
        assert {"1.png", "2.png", "3.png", "4.png", "5.png"} < set(names)
        assert seen[1] == seen[0]
        assert seen[2] == seen[0]
        assert len(site.requests("^/data/")) == 10


def test_one_listing_with_equal_names(install: Callable[..., Installation]) -> None:
    """Two files of one source with equal names are both kept, and both names are stable."""
    machine = install()
    machine.configure({"extractor": {"Danbooru": {"sleep-request": 0, "filename": "same.{extension}"}}})
    posts = [Post(id=number, body=f"picture {number}".encode()) for number in range(1, 6)]
    with FaultySite(posts) as site:
        for _ in range(2):
            assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "flat").returncode == 0
            assert sorted(machine.on_disk().values()) == sorted(post.content() for post in posts)
        assert len(site.requests("^/data/")) == 5


def test_a_file_that_vanished_here_is_fetched_again(install: Callable[..., Installation]) -> None:
    """Deleting a file in the folder is no order to forget it: the next run brings it back."""
    machine = install()
    with FaultySite([Post(id=1), Post(id=2)]) as site:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        machine.sync(url, "--to", "a")
        before = machine.on_disk()
        (machine.content / sorted(before)[0]).unlink()
        assert machine.sync(url, "--to", "a").returncode == 0
        assert machine.on_disk() == before


def test_a_source_that_moves_to_another_folder(install: Callable[..., Installation]) -> None:
    """Its files are in the new folder afterwards; what lies in the old one is not touched."""
    machine = install()
    with FaultySite([Post(id=1), Post(id=2)]) as site:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        machine.sync(url, "--to", "old")
        assert machine.sync(url, "--to", "new").returncode == 0
        assert len([path for path in machine.on_disk() if path.startswith("old/")]) == 2
        assert len([path for path in machine.on_disk() if path.startswith("new/")]) == 2
        assert {row["path"].partition("/")[0] for row in machine.rows("files")} == {"new"}


def test_direct_link(install: Callable[..., Installation]) -> None:
    """A single picture is a source, too, and its site is the host."""
    machine = install()
    with FaultySite() as site:
        done = machine.sync(f"{site.root}/direct/one.png", "--to", "a")
        assert done.returncode == 0, done.stderr
        assert len(machine.on_disk()) == 1
        assert machine.rows("sources")[0]["site"] == site.root.removeprefix("http://")


def test_an_extension_that_the_content_belies(install: Callable[..., Installation]) -> None:
    """A picture named .jpg that is a PNG is stored as .png, announced so, and skipped by the next run."""
    machine = install()
    with FaultySite([Post(id=1, extension="jpg", body=Post(id=1).content())]) as site:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        machine.sync(url, "--to", "a")
        (path,) = machine.on_disk()
        assert path.endswith(".png")
        assert machine.rows("files")[0]["path"] == path
        machine.sync(url, "--to", "a")
        assert len(site.requests("^/data/")) == 1


def test_metadata_cannot_lead_out_of_the_folder(install: Callable[..., Installation]) -> None:
    """A directory made of the site's words is refused when it leads elsewhere: file by file, nothing is written there."""
    machine = install()
    machine.configure(
        {"extractor": {"Danbooru": {"sleep-request": 0, "directory": ["{tags[0]}", "{tags[1]}"], "path-restrict": ""}}}
    )
    posts = [Post(id=1, tags=("..", "demo")), Post(id=2, tags=("fine", "demo")), Post(id=3, tags=("../..", "demo"))]
    with FaultySite(posts) as site:
        done = machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a", "--attempts", "1")
        assert done.returncode == 4
        assert [path.split("/")[:3] for path in machine.on_disk()] == [["a", "fine", "demo"]]
        assert not (machine.home / "demo").exists()


def test_a_symlinked_folder_is_refused(install: Callable[..., Installation]) -> None:
    """A folder that leads through a symlink could lie anywhere: the run fails and says so."""
    machine = install()
    elsewhere = machine.home / "elsewhere"
    elsewhere.mkdir()
    machine.content.mkdir()
    (machine.content / "link").symlink_to(elsewhere)
    with FaultySite([Post(id=1)]) as site:
        done = machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "link/a")
        assert done.returncode == 5
        assert "symlink" in done.stdout
        assert list(elsewhere.iterdir()) == []


def name(site: FaultySite, post: Post) -> str:
    """The filename that gallery-dl gives to a post of this site."""
    host = site.root.removeprefix("http://")
    return f"{host}_{post.id}_{post.name or post.md5}.{post.extension}"


def counts(queues: Queues) -> tuple[int, int, int]:
    found = queues.counts()
    assert (found["orders"], found["failed"], found["rejected"]) == (0, 0, 0)
    return found["downloaded"], found["skipped"], found["synchronized"]
