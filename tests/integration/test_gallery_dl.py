"""What gallery-dl does on its own, and what a mirror must make of it: section by section what cost others dearly."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from email.message import Message as Headers
from pathlib import Path
from typing import Any

import pytest

from http_downloader.demo.site import json_response
from tests.installation import COMMAND, Installation, wait_until
from tests.site import FaultySite, Post, Response, cut, drip, status

FAST = {"sleep-request": 0, "retries": 1}

OWN_EXTRACTOR = '''
    import threading
    from gallery_dl import exception
    from gallery_dl.extractor.common import Extractor, Message

    class OwnExtractor(Extractor):
        category = "own"
        subcategory = "files"
        filename_fmt = "{name}.{extension}"
        archive_fmt = "{album}_{number}"
        pattern = r"(https?://127\\.0\\.0\\.1:\\d+)/own/(\\d+)/(\\w+)"
        busy = False

        def items(self):
            root, count, kind = self.groups
            for number in range(1, int(count) + 1):
                yield from getattr(self, "of_" + kind)(f"{root}/direct/{number}.png", number)

        def of_fallback(self, url, number):
            """The first address of each file is dead."""
            self.work()
            fallback = self.fallback(url)
            metadata = {"name": str(number), "number": number, "extension": "png", "album": 1, "_fallback": fallback}
            yield Message.Directory, "", metadata
            yield Message.Url, url.replace("/direct/", "/dead/"), metadata

        def fallback(self, url):
            self.work()
            yield url

        def work(self):
            """As careless about threads as any extractor."""
            if self.busy:
                raise exception.AbortExtraction("two threads are in the extractor")
            self.busy = True
            threading.Event().wait(0.002)
            self.busy = False

        def of_nameless(self, url, number):
            """The archive id lacks one of its values. Newest first: the last number comes first."""
            number = int(self.groups[1]) + 1 - number
            url = f"{self.groups[0]}/direct/{number}.png"
            metadata = {"name": str(number), "extension": "png", "album": 1}
            yield Message.Directory, "", metadata
            yield Message.Url, url, metadata

        def of_silence(self, url, number):
            """An answer that says no, and nobody looks at it."""
            self.request(url.replace("/direct/", "/dead/"), fatal=None)
            yield from self.of_fallback(url, number)

        def of_links(self, url, number):
            """Beside a file, a link that nothing can read."""
            yield from self.of_fallback(url, number)
            yield Message.Queue, "https://no-such-site.invalid/album", {}
'''


@pytest.fixture
def own(install: Callable[..., Installation]) -> Installation:
    """An installation with an extractor of the operator's, found by gallery-dl's option `module-sources`."""
    machine = install(DOWNLOADS_PER_SOURCE=8)
    folder = machine.home / "extractors"
    folder.mkdir()
    (folder / "own.py").write_text(textwrap.dedent(OWN_EXTRACTOR))
    machine.configure({"extractor": {"module-sources": [str(folder), None], **FAST}})
    return machine


def names_on_disk(machine: Installation) -> list[str]:
    return sorted(Path(path).name for path in machine.on_disk())


# Extractors.


def test_fallbacks_run_extractor_code_in_turn(own: Installation) -> None:
    """A dead address is replaced by the extractor's next one, and it is in one thread at a time, listing included."""
    with FaultySite() as site:
        done = own.sync(f"{site.root}/own/60/fallback", "--to", "a", "--attempts", "1")
        assert done.returncode == 0, done.stdout + done.stderr
        assert names_on_disk(own) == sorted(f"{number}.png" for number in range(1, 61))
        assert len(site.requests("^/dead/")) == 60


def test_remote_ids_that_lack_a_value(own: Installation) -> None:
    """Files with one archive id, because a part of it has no value, stay apart, also when another one comes first."""
    with FaultySite() as site:
        for count in (3, 4):
            url = f"{site.root}/own/{count}/nameless"
            assert own.sync(url, "--to", "a", "--source-id", "1", "--attempts", "1").returncode == 0
            assert names_on_disk(own) == [f"{number}.png" for number in range(1, count + 1)]
        assert len(own.rows("files")) == len(site.requests("^/direct/")) == 4


@pytest.mark.parametrize(("kind", "gap"), [("silence", "error-ignored"), ("links", "child-unsupported")])
def test_a_listing_that_passes_over_something(own: Installation, kind: str, gap: str) -> None:
    """An answer of 404 that the extractor ignores, a link that none reads: files come, and the listing proves nothing."""
    with FaultySite() as site:
        done = own.sync(f"{site.root}/own/2/{kind}", "--to", "a")
        assert done.returncode == 3
        (run,) = own.runs()
        assert (run["state"], run["reason"]) == ("partial", gap)
        assert names_on_disk(own) == ["1.png", "2.png"]


def test_a_page_with_many_hidden_posts(install: Callable[..., Installation], monkeypatch: pytest.MonkeyPatch) -> None:
    """danbooru leaves hidden posts out of its pages: a page with 150 of 200 is not the last one."""
    machine = install()
    answer = FaultySite.answer

    def without_hidden(self: FaultySite, target: str, headers: Headers) -> Response:
        response = answer(self, target, headers)
        if not target.startswith("/posts.json"):
            return response
        return json_response([post for post in json.loads(response.body) if not 701 <= post["id"] <= 750])

    monkeypatch.setattr(FaultySite, "answer", without_hidden)
    with FaultySite([Post(id=number, body=b"%d" % number, extension="bin") for number in range(1, 1026)]) as site:
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a").returncode == 0
        assert len(machine.on_disk()) == 975


# Files.


def danbooru(machine: Installation, **options: Any) -> None:
    machine.configure({"extractor": {"Danbooru": FAST | options}})


def test_what_a_failed_transfer_left_is_not_the_beginning_of_another(install: Callable[..., Installation]) -> None:
    """Two files of one name in one lane: the first breaks off for good, and the second is its own, not its rest."""
    machine = install(DOWNLOADS_PER_SOURCE=1)
    danbooru(machine, directory=["{id}"], filename="{title}.{extension}")
    posts = [Post(id=number, title="same", extension="bin", body=bytes([number]) * 9000) for number in (1, 2)]
    with FaultySite(posts) as site:
        site.rule(posts[1].path, cut())
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a", "--attempts", "1").returncode == 4
        assert list(machine.on_disk().values()) == [posts[0].body]


def test_416_does_not_make_a_part_a_whole(install: Callable[..., Installation]) -> None:
    """A body cut in its middle, whose rest the site then refuses: it is fetched from its beginning, once."""
    machine = install()
    danbooru(machine)
    with FaultySite([Post(id=1)]) as site:
        site.rule("^/data/", cut(), times=1)
        site.rule("^/data/", status(416), times=1)
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a", "--attempts", "1").returncode == 0
        assert list(machine.on_disk().values()) == [Post(id=1).content()]
        site.add(Post(id=2))
        for _ in range(2):
            site.rule(Post(id=2).path, cut(), times=1)
            site.rule(Post(id=2).path, status(416), times=1)
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a", "--attempts", "1").returncode == 4
        assert list(machine.on_disk().values()) == [Post(id=1).content()]


@pytest.mark.parametrize("equal", [True, False])
def test_a_file_that_came_meanwhile(install: Callable[..., Installation], equal: bool) -> None:
    """While a file is on its way, somebody puts one under its name: it stays; ours gets another name unless both
    are equal byte by byte."""
    machine = install()
    danbooru(machine, filename="{id}.{extension}")
    with FaultySite([Post(id=1, extension="bin", body=b"theirs" * 300)]) as site:
        site.rule("^/data/", drip(600, 0.3))
        command = [str(COMMAND), "sync", f"Danbooru:{site.root}/posts?tags=demo", "--to", "a", "--quiet"]
        process = subprocess.Popen(command, env=machine.env)
        wait_until(lambda: site.requests("^/data/"), what="the download")
        (machine.content / "a").mkdir(exist_ok=True)
        mine = b"theirs" * 300 if equal else b"mine"
        (machine.content / "a" / "1.bin").write_bytes(mine)
        assert process.wait(30) == 0
        disk = machine.on_disk()
        assert disk.pop("a/1.bin") == mine
        assert list(disk.values()) == ([] if equal else [b"theirs" * 300])
        (row,) = machine.rows("files")
        assert row["path"] == "a/1.bin" if equal else row["path"] in disk


def test_a_file_that_a_post_processor_takes_away(install: Callable[..., Installation]) -> None:
    """`zip` packs each file and deletes it: it counts as downloaded, is not in place, and is not asked for again."""
    machine = install()
    danbooru(machine, postprocessors=[{"name": "zip", "keep-files": False}])
    with FaultySite([Post(id=1), Post(id=2)]) as site:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        for _ in range(2):
            assert machine.sync(url, "--to", "a").returncode == 0
            assert [Path(path).suffix for path in machine.on_disk()] == [".zip"]
        assert len(site.requests("^/data/")) == 2


def test_hooks_at_the_end_see_all_files(install: Callable[..., Installation]) -> None:
    """A hook at the end of a post or of the gallery runs when the lanes have put all its files in place."""
    machine = install(DOWNLOADS_PER_SOURCE=8)
    look = textwrap.dedent("""
        from pathlib import Path
        HOME = Path(__file__).parent

        def look(metadata):
            files = len(list((HOME / "content").rglob("*.bin")))
            with (HOME / "seen").open("a") as seen:
                print(files, file=seen)
    """)
    (machine.home / "look.py").write_text(look)
    posts = [Post(id=number, folder=f"note{number // 5}", extension="bin", body=b"%d" % number) for number in range(10)]
    with FaultySite(posts) as site:
        site.file_latency = 0.05
        for events, seen in ((["finalize"], "10\n"), (["post-after"], "5\n10\n")):
            (machine.home / "seen").unlink(missing_ok=True)
            hook = {"name": "python", "event": events, "function": f"{machine.home}/look.py:look"}
            machine.configure({"extractor": {"misskey": FAST | {"postprocessors": [hook]}}})
            url = f"misskey:{site.root}/@demo/notes?{events[0]}"
            machine.content.mkdir(exist_ok=True)
            assert machine.sync(url, "--to", events[0]).returncode == 0
            assert (machine.home / "seen").read_text() == seen
            for path in machine.on_disk():
                (machine.content / path).unlink()


def test_skip_enumerate(install: Callable[..., Installation]) -> None:
    """`skip: enumerate` does not multiply what is known, nor lose what has one name: we decide by remote id."""
    machine = install(DOWNLOADS_PER_SOURCE=8)
    danbooru(machine, skip="enumerate", filename="same.{extension}")
    # Their extension changes on the way, and with it the name.
    posts = [Post(id=number, extension="jpg", body=Post(id=number).content()) for number in range(1, 21)]
    with FaultySite(posts) as site:
        for _ in range(2):
            assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a").returncode == 0
            assert sorted(machine.on_disk().values()) == sorted(post.content() for post in posts)
        assert len(site.requests("^/data/")) == 20


def test_a_new_file_interrupts_the_count_of_abort(install: Callable[..., Installation]) -> None:
    """`abort:3` with every third file new: never three known ones in a row, so the listing goes to its end."""
    machine = install(DOWNLOADS_PER_SOURCE=8)
    posts = [Post(id=number) for number in range(1, 31)]
    with FaultySite([post for post in posts if post.id % 3]) as site:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        machine.sync(url, "--to", "a")
        danbooru(machine, skip="abort:3")
        site.add(*posts)
        assert machine.sync(url, "--to", "a").returncode == 0
        assert len(machine.on_disk()) == 30


# The process and its surroundings.


def test_the_users_own_configuration_does_not_count(install: Callable[..., Installation]) -> None:
    """What a person has set for gallery-dl's command line narrows no mirror."""
    machine = install()
    folder = machine.home / ".config" / "gallery-dl"
    folder.mkdir(parents=True)
    for file in (folder / "config.json", machine.home / ".gallery-dl.conf"):
        file.write_text('{"extractor": {"image-filter": "False", "filename": "mine.{extension}"}}')
    machine.set(XDG_CONFIG_HOME=machine.home / ".config")
    with FaultySite([Post(id=1), Post(id=2)]) as site:
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a").returncode == 0
        assert len(machine.on_disk()) == 2
        assert not any("mine" in path for path in machine.on_disk())


def test_a_terminals_interrupt_reaches_only_the_command(install: Callable[..., Installation]) -> None:
    """Ctrl-C goes to every process of a terminal's foreground: the file under way is finished all the same."""
    machine = install(DOWNLOADS_PER_SOURCE=1)
    second = Post(id=2, extension="bin", body=bytes(20_000))
    with FaultySite([Post(id=1), second]) as site:
        site.rule(second.path, drip(1000, 0.1))
        sync = [str(COMMAND), "sync", f"Danbooru:{site.root}/posts?tags=demo", "--to", "a", "--quiet"]
        # Who runs the tests may ignore SIGINT, and a terminal's shell does not.
        heeding = (
            "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
        )
        command = [sys.executable, "-c", heeding, *sync]
        process = subprocess.Popen(command, env=machine.env, start_new_session=True)
        wait_until(lambda: site.requests(second.path), what="the download")
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
        assert list(machine.on_disk().values()) == [second.body]
        assert (machine.runs()[0]["state"], machine.runs()[0]["counts"]["downloaded"]) == ("cancelled", 1)
        assert [row["state"] for row in machine.rows("files")] == ["present"]


def test_an_extractor_that_cannot_be_loaded(own: Installation) -> None:
    """A mistake in an extractor of the operator's is named before anything is done."""
    (own.home / "extractors" / "own.py").write_text("import no_such_module\n")
    done = own.sync("https://example.org/one.png", "--to", "a")
    assert done.returncode == 2
    assert "no_such_module" in done.stderr
