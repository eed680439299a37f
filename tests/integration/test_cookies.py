"""Cookies reach the site and nothing else; what the site changes comes back after a good run only."""

from __future__ import annotations

import stat
from collections.abc import Callable

from tests.installation import POLITENESS_OFF, Installation, Service
from tests.mounts import disk, make_writable, needs_mounts
from tests.queues import Queues
from tests.site import FaultySite, Post, set_cookie, status

SECRET = "s3cr3t-value-that-nobody-else-sees"
RENEWED = "r3n3wed-value-that-nobody-else-sees"


def write_cookies(machine: Installation, site: FaultySite, value: str = SECRET) -> None:
    folder = machine.config / "cookies"
    folder.mkdir(exist_ok=True)
    file = folder / f"{site.root.removeprefix('http://')}.txt"
    file.write_text(f"# Netscape HTTP Cookie File\n\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\t{value}\n")
    file.chmod(0o600)


def cookie_file(machine: Installation) -> str:
    (file,) = (machine.config / "cookies").glob("*.txt")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    return file.read_text()


def test_a_cookie_reaches_the_site_and_nothing_else(install: Callable[..., Installation], queues: Queues) -> None:
    """The site's log shows the value; no log line, error, row, event or file of ours does, even at LOG_LEVEL=DEBUG."""
    machine = install(**queues.settings, LOG_LEVEL="DEBUG")
    with FaultySite([Post(id=1), Post(id=2)]) as site, Service(machine) as service:
        site.require_cookie = ("session", SECRET)
        site.rule(site.posts[0].path, status(500), times=2)
        write_cookies(machine, site)
        order = {"source_id": 1, "url": f"Danbooru:{site.root}/posts?tags=demo", "content_path": "a"}
        queues.post(order)
        queues.wait_for("synchronized", 1)
        queues.post(order | {"url": f"Danbooru:{site.root}/posts?tags=none"})
        queues.wait_for("failed", 1)
        assert all(SECRET in request.headers["Cookie"] for request in site.requests("/posts.json"))
        ours = [service.log.encode(), machine.everything_we_wrote()]
        for name in ("downloaded", "skipped", "synchronized", "failed"):
            ours += [message.body + repr(message.properties).encode() for message in queues.take(name)]
        assert not any(SECRET.encode() in text for text in ours)
        assert SECRET in cookie_file(machine)


def test_changed_cookies_come_back_after_a_good_run(install: Callable[..., Installation]) -> None:
    """The site renews a cookie during a complete run: the operator's file has the new value, still only for its owner."""
    machine = install()
    with FaultySite([Post(id=1)]) as site:
        write_cookies(machine, site)
        site.rule(r"/posts\.json", set_cookie("session", RENEWED))
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo").returncode == 0
        assert RENEWED in cookie_file(machine)
        assert SECRET not in cookie_file(machine)


def test_renewed_cookies_reach_the_other_worker(install: Callable[..., Installation]) -> None:
    """Two services share CONFIG_PATH, and take turns. The site renews the session in each run: the next run of the other
    one begins with it, and the last one is in the file."""
    with Queues() as one, Queues() as two, FaultySite([Post(id=1)]) as site:
        first, second = install(**one.settings), install(**two.settings)
        second.set(CONFIG_PATH=first.config)
        write_cookies(first, site, "session-number-0")
        with Service(first), Service(second):
            for number in range(4):
                site.clear_rules()
                site.clear_log()
                site.rule(r"/posts\.json", set_cookie("session", f"session-number-{number + 1}"), times=1)
                queues = one if number % 2 == 0 else two
                queues.post({"source_id": 1, "url": f"Danbooru:{site.root}/posts?tags=demo", "content_path": "a"})
                queues.wait_for("synchronized", 1 + number // 2)
                assert site.requests("/posts.json")[0].headers["Cookie"] == f"session=session-number-{number}"
        assert "session-number-4" in cookie_file(first)


@needs_mounts
def test_cookies_that_cannot_be_written(install: Callable[..., Installation], queues: Queues) -> None:
    """CONFIG_PATH is a mounted secret: runs succeed with what is there, and it is said once that renewed cookies are not
    saved."""
    machine = install(**queues.settings)
    with FaultySite([Post(id=1)]) as site, disk(machine.config, "1m"):
        machine.configure(POLITENESS_OFF)
        write_cookies(machine, site)
        make_writable(machine.config, writable=False)
        site.rule(r"/posts\.json", set_cookie("session", RENEWED))
        with Service(machine) as service:
            for source_id in (1, 2):
                url = f"Danbooru:{site.root}/posts?tags=demo"
                queues.post({"source_id": source_id, "url": url, "content_path": f"folder{source_id}"})
                queues.wait_for("synchronized", source_id)
        assert service.log.count("cookies that sites renew are not saved") == 1
        assert "could not be saved" not in service.log
        assert "read-only: what sites renew is not saved" in machine.run("doctor").stdout
        assert SECRET in cookie_file(machine)


def test_a_bad_run_does_not_overwrite_cookies(install: Callable[..., Installation]) -> None:
    """A site that throws us out hands out a worthless session: the good one stays in the file."""
    machine = install(SYNC_ATTEMPTS=1)
    with FaultySite([Post(id=1)]) as site:
        write_cookies(machine, site)
        site.rule(r"/posts\.json", set_cookie("session", RENEWED), times=1)
        site.rule(site.posts[0].path, status(200))
        site.require_cookie = ("session", SECRET)
        site.add(*(Post(id=number) for number in range(2, 250)))  # a second page, without the good cookie: 401
        done = machine.sync(f"Danbooru:{site.root}/posts?tags=demo")
        assert done.returncode == 5, done.stdout
        assert SECRET in cookie_file(machine)


def test_no_copy_of_a_cookie_is_left_behind(install: Callable[..., Installation]) -> None:
    """The private copy of a run goes with it."""
    machine = install()
    with FaultySite([Post(id=1)]) as site:
        write_cookies(machine, site)
        assert machine.sync(f"Danbooru:{site.root}/posts?tags=demo").returncode == 0
        assert SECRET.encode() not in machine.everything_we_wrote()
