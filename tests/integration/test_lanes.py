"""Several files at once: every name and byte right, the site's limits kept, gallery-dl's options still what they mean."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

from http_downloader.demo.site import picture
from tests.installation import Installation
from tests.site import FaultySite, Post, status

FAST = {"sleep-request": 0}


def templated(machine: Installation, **options: object) -> None:
    machine.configure({"extractor": {"Danbooru": FAST | options}})


def test_5000_files_in_16_lanes(install: Callable[..., Installation]) -> None:
    """A new folder tree with post-processors and wrong extensions in play: every file whole, under its own name."""
    machine = install(DOWNLOADS_PER_SOURCE=16)
    templated(
        machine,
        directory=["{filename[0]}", "{tags[1]}"],
        filename="{id}.{extension}",
        postprocessors=[{"name": "metadata", "mode": "custom", "format": "{id} {filename}\n", "extension": "txt"}],
    )
    png = picture(1, 8, 8)
    posts = [
        Post(
            id=number,
            tags=("demo", f"group{number % 7}"),
            # Every third is a PNG under the name of a JPEG: its extension changes on the way.
            extension="jpg" if number % 3 == 0 else "bin",
            body=(png if number % 3 == 0 else b"") + f"picture {number}".encode(),
        )
        for number in range(1, 5001)
    ]
    with FaultySite(posts) as site:
        done = machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a", "--quiet", timeout=110)
        assert done.returncode == 0, done.stdout + done.stderr
        disk = machine.on_disk()
        pictures = {path: body for path, body in disk.items() if not path.endswith(".txt")}
        assert pictures == {
            f"a/{post.md5[0]}/group{post.id % 7}/{post.id}.{'png' if post.id % 3 == 0 else 'bin'}": post.body
            for post in posts
        }
        assert {path: body for path, body in disk.items() if path.endswith(".txt")} == {
            f"{path}.txt": f"{Path(path).stem} {posts[int(Path(path).stem) - 1].md5}\n".encode() for path in pictures
        }
        assert {row["path"]: row["sha256"] for row in machine.rows("files")} == {
            path: hashlib.sha256(body).hexdigest() for path, body in pictures.items()
        }
        assert site.max_active_files <= 16
        assert site.max_connections <= 17


def test_5000_files_of_posts_with_one_dict_for_all_their_files(install: Callable[..., Installation]) -> None:
    """misskey's extractor gives out one dict for all ten files of a note, and writes the next file into it at once:
    each file still has its own number, id, name, extension and bytes, in its name and for post-processors."""
    machine = install(DOWNLOADS_PER_SOURCE=16)
    metadata = {"name": "metadata", "mode": "custom", "format": "{num} {file[id]} {filename}\n", "extension": "txt"}
    hurry = {"name": "python", "event": "init", "expression": "std.sys.setswitchinterval(1e-6)"}  # threads meet often
    options = {
        "directory": ["{id}"],
        "filename": "{num}-{file[id]}-{filename}.{extension}",
        "postprocessors": [hurry, metadata],
    }
    machine.configure({"extractor": {"misskey": FAST | options}})
    png = picture(1, 8, 8)
    posts = [
        Post(
            id=number,
            folder=f"note{number // 10:03}",
            name=f"name{number * 7}",
            # Every third is a PNG under the name of a JPEG: its extension changes on the way.
            extension="jpg" if number % 3 == 0 else "bin",
            body=(png if number % 3 == 0 else b"") + f"picture {number}".encode(),
        )
        for number in range(5000)
    ]
    with FaultySite(posts) as site:
        done = machine.sync(f"misskey:{site.root}/@demo/notes", "--to", "a", "--quiet", timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    disk = machine.on_disk()
    expected: dict[str, bytes] = {}
    for post in posts:
        stem = f"{post.id % 10 + 1}-{post.id}-{post.name}"
        path = f"a/{post.folder}/{stem}.{'png' if post.id % 3 == 0 else 'bin'}"
        expected[path] = post.content()
        expected[f"{path}.txt"] = f"{post.id % 10 + 1} {post.id} {post.name}\n".encode()
    assert disk == expected
    assert {row["path"]: row["sha256"] for row in machine.rows("files")} == {
        path: hashlib.sha256(body).hexdigest() for path, body in expected.items() if not path.endswith(".txt")
    }


def test_never_more_connections_than_lanes_and_one(install: Callable[..., Installation]) -> None:
    """The site's own counter: three lanes and the listing."""
    machine = install(DOWNLOADS_PER_SOURCE=3)
    with FaultySite([Post(id=number) for number in range(1, 61)]) as site:
        site.file_latency = 0.03
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo").returncode == 0
        assert site.max_active_files == 3
        assert site.max_connections <= 4


def test_settles_at_what_the_site_bears(install: Callable[..., Installation]) -> None:
    """A site that answers 429 above three at once: the run settles there, completes, and wastes few requests."""
    machine = install(DOWNLOADS_PER_SOURCE=8)
    with FaultySite([Post(id=number) for number in range(1, 301)]) as site:
        site.most_files = 3
        site.file_latency = 0.05
        done = machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--attempts", "1", timeout=100)
        assert done.returncode == 0, done.stdout
        answers = [request.status for request in site.requests("^/data/")]
        assert answers.count(200) == 300
        assert answers.count(429) < 0.05 * len(answers)


def test_retry_after_is_honoured(install: Callable[..., Installation]) -> None:
    """After 429 with Retry-After: 2, nothing is asked for two seconds; then everything is fetched."""
    machine = install()
    with FaultySite([Post(id=number) for number in range(1, 11)]) as site:
        site.rule("^/data/", status(429, {"Retry-After": "2"}), times=1)
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--attempts", "1").returncode == 0
        (refused,) = [request for request in site.requests("^/data/") if request.status == 429]
        later = [request.at for request in site.requests("^/data/") if request.at > refused.at + 0.5]
        assert min(later) >= refused.at + 2
        assert len(machine.on_disk()) == 10


def test_retry_after_of_a_listing_is_honoured(install: Callable[..., Installation]) -> None:
    """gallery-dl would wait a minute after 429; the site said one second."""
    machine = install()
    with FaultySite([Post(id=1)]) as site:
        site.rule(r"/posts\.json", status(429, {"Retry-After": "1"}), times=1)
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--attempts", "1", timeout=30).returncode == 0
        first, second, _ = site.requests(r"/posts\.json")  # the last one asks for what is behind the first page
        assert 1 <= second.at - first.at < 10


def test_sleep_paces_all_lanes_together(install: Callable[..., Installation]) -> None:
    """`sleep: 0.1` gives at most ten starts a second, however many lanes there are."""
    machine = install(DOWNLOADS_PER_SOURCE=8)
    templated(machine, sleep=0.1)
    with FaultySite([Post(id=number) for number in range(1, 31)]) as site:
        site.file_latency = 0.3
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo").returncode == 0
        starts = [request.at for request in site.requests("^/data/")]
        assert len(starts) == 30
        assert starts[-1] - starts[0] >= 2.8
        assert site.max_active_files > 1


def test_rate_limits_all_lanes_together(install: Callable[..., Installation]) -> None:
    """`rate: 200k` is the sum over the lanes: 600 kB take about three seconds."""
    machine = install(DOWNLOADS_PER_SOURCE=4)
    templated(machine, rate="200k")
    with FaultySite([Post(id=number, body=bytes(100_000), extension="bin") for number in range(1, 7)]) as site:
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo").returncode == 0
        requests = site.requests("^/data/")
        run = machine.runs()[0]
        assert len(requests) == 6
        seconds = _seconds(run["ended_at"]) - _seconds(run["started_at"])
        assert 2.0 <= seconds < 20


def test_lanes_of_one_site(install: Callable[..., Installation]) -> None:
    """`lanes` in the gallery-dl configuration overrides the setting for its site."""
    machine = install(DOWNLOADS_PER_SOURCE=8)
    templated(machine, lanes=1)
    with FaultySite([Post(id=number) for number in range(1, 13)]) as site:
        site.file_latency = 0.05
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo").returncode == 0
        assert site.max_active_files == 1


def test_too_long_a_wait_is_continued_later(install: Callable[..., Installation]) -> None:
    """Past RATE_LIMIT_MAX_WAIT the run goes back into the journal until the time that the site named, then completes."""
    machine = install(RATE_LIMIT_MAX_WAIT=1)
    with FaultySite([Post(id=number) for number in range(1, 11)]) as site:
        site.rule(site.posts[4].path, status(429, {"Retry-After": "3"}), times=1)
        done = machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--attempts", "1")
        assert done.returncode == 0, done.stdout
        assert "the site asks to wait" in done.stdout
        (run,) = machine.runs()
        assert (run["state"], run["attempt"]) == ("synchronized", 1)
        assert len(machine.on_disk()) == 10
        times = [request.at for request in site.requests(r"/posts\.json")]
        assert max(later - earlier for earlier, later in pairwise(times)) >= 2


def test_child_galleries_in_16_lanes(install: Callable[..., Installation]) -> None:
    """A list of galleries, each a gallery of its own: all files of all of them, and lanes that go on across them."""
    machine = install(DOWNLOADS_PER_SOURCE=16)
    posts = [Post(id=number, tags=(f"artist{number % 20}", "all")) for number in range(1, 201)]
    with FaultySite(posts) as site:
        site.file_latency = 0.05
        site.artists = [f"artist{number}" for number in range(20)]
        instance = {"root": site.root, "pattern": re.escape(site.root.removeprefix("http://"))}
        machine.configure(
            {"extractor": {"Danbooru": {"artsite": instance}, "artsite": FAST | {"directory": ["{search_tags}"]}}}
        )
        done = machine.sync(f"{site.root}/artists?search=x", "--to", "a", timeout=100)
        assert done.returncode == 0, done.stdout
        disk = machine.on_disk()
        assert len(disk) == 200
        assert sorted(disk.values()) == sorted(post.content() for post in posts)
        assert all(re.fullmatch(r"a/artist\d+/.*", path) for path in disk)
        assert site.max_active_files > 10  # each child has ten files: more at once means that two children overlapped


def test_abort_stops_where_the_serial_run_stops(install: Callable[..., Installation]) -> None:
    """`skip: abort:3`: new files before, known ones behind; the listing is left after three known ones in a row."""
    machine = install(DOWNLOADS_PER_SOURCE=16)
    with FaultySite([Post(id=number) for number in range(1, 21)]) as site:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        machine.sync(url, "--to", "a")
        site.add(*(Post(id=number) for number in range(21, 26)))
        templated(machine, skip="abort:3")
        done = machine.sync(url, "--to", "a", "--json")
        assert done.returncode == 3
        events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
        assert events.count("file-downloaded") == 5
        assert events.count("file-skipped") == 3
        assert machine.runs()[0]["counts"]["listed"] == 8


def test_an_archive_of_the_operator(install: Callable[..., Installation]) -> None:
    """`archive`: what it holds and is not here is not fetched; what is fetched is entered."""
    machine = install(DOWNLOADS_PER_SOURCE=4)
    archive = machine.home / "archive.sqlite3"
    templated(machine, archive=str(archive))
    with FaultySite([Post(id=number) for number in range(1, 9)]) as site:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        assert machine.sync(url, "--to", "a").returncode == 0
        assert machine.sync(url, "--to", "b", "--source-id", "2").returncode == 0
        assert {path.split("/")[0] for path in machine.on_disk()} == {"a"}
        assert len(site.requests("^/data/")) == 8


def _seconds(moment: str) -> float:
    from datetime import datetime

    return datetime.fromisoformat(moment).timestamp()
