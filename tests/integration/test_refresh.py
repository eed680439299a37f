"""REFRESH_CHANGED: what changed at the site under the same id is fetched again, and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tests.installation import Installation
from tests.site import FaultySite, Post, status

LATER = datetime(2026, 6, 1, tzinfo=UTC)


def mirrored(install: Callable[..., Installation], site: FaultySite, **settings: object) -> tuple[Installation, str]:
    machine = install(**settings)
    url = f"Danbooru:{site.root}/posts?tags=demo"
    assert machine.sync(url, "--to", "a").returncode == 0
    site.clear_log()
    return machine, url


def test_a_changed_file_is_fetched_again(install: Callable[..., Installation]) -> None:
    """The one file with a later Last-Modified is downloaded over its older version; the others cost a HEAD each."""
    with FaultySite([Post(id=number) for number in range(1, 5)]) as site:
        machine, url = mirrored(install, site, REFRESH_CHANGED=True)
        changed = Post(id=2, body=b"quite another picture", created_at=LATER)
        site.add(changed)
        done = machine.sync(url, "--to", "a", "--json")
        assert done.returncode == 0
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert [event["event"] for event in events].count("file-downloaded") == 1
        assert [event["event"] for event in events].count("file-skipped") == 3
        asked = [request.method for request in site.requests("^/data/")]
        assert (asked.count("HEAD"), asked.count("GET")) == (4, 1)
        assert sorted(machine.on_disk().values()) == sorted(post.content() for post in site.posts)
        row = next(row for row in machine.rows("files") if "_2_" in row["filename"])
        assert row["sha256"] == hashlib.sha256(b"quite another picture").hexdigest()
        site.clear_log()
        assert machine.sync(url, "--to", "a").returncode == 0
        assert {request.method for request in site.requests("^/data/")} == {"HEAD"}


def test_off_by_default(install: Callable[..., Installation]) -> None:
    """Known files cost no request at all."""
    with FaultySite([Post(id=1)]) as site:
        machine, url = mirrored(install, site)
        site.add(Post(id=1, body=b"other", created_at=LATER))
        assert machine.sync(url, "--to", "a").returncode == 0
        assert not site.requests("^/data/")


@pytest.mark.parametrize("answer", [404, 500])
def test_the_older_version_stays_when_the_new_one_fails(install: Callable[..., Installation], answer: int) -> None:
    """A site that does not deliver the new version does not cost us the one that we have."""
    with FaultySite([Post(id=1)]) as site:
        machine, url = mirrored(install, site, REFRESH_CHANGED=True)
        before = machine.on_disk()
        machine.configure({"extractor": {"Danbooru": {"sleep-request": 0, "retries": 0}}})
        site.add(Post(id=1, body=b"other", created_at=LATER))
        site.rule("^/data/", status(answer))
        assert machine.sync(url, "--to", "a").returncode == 0
        assert machine.on_disk() == before
        assert machine.rows("files")[0]["state"] == "present"


def test_a_file_that_was_edited_here_is_kept(install: Callable[..., Installation]) -> None:
    """Theirs has changed, and ours too: ours stays."""
    with FaultySite([Post(id=1)]) as site:
        machine, url = mirrored(install, site, REFRESH_CHANGED=True)
        (path,) = machine.on_disk()
        (machine.content / path).write_bytes(b"edited here")
        site.add(Post(id=1, body=b"other", created_at=LATER))
        assert machine.sync(url, "--to", "a").returncode == 0
        assert machine.on_disk() == {path: b"edited here"}
