"""A catalog from a backup beside content that has gone on: nothing is fetched twice, nothing is lost, nothing goes untold."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from tests.databases import database
from tests.installation import Installation
from tests.queues import Queues
from tests.site import FaultySite, Post


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.long)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with database(request.param, tmp_path) as url:
        yield url


def copy(url: str, place: str) -> None:
    """Everything that is committed in one database, into another that is there and empty: a backup, or its way back."""
    source, target = sa.make_url(url), sa.make_url(place)
    if source.get_backend_name() == "sqlite":
        Path(str(target.database)).unlink(missing_ok=True)
        with (
            contextlib.closing(sqlite3.connect(str(source.database))) as here,
            contextlib.closing(sqlite3.connect(str(target.database))) as there,
        ):
            here.backup(there)
        return
    with psycopg.connect(
        host="127.0.0.1", port=source.port, user="postgres", dbname="postgres", autocommit=True
    ) as server:
        server.execute(f"DROP DATABASE {target.database} WITH (FORCE)")
        server.execute(f"CREATE DATABASE {target.database} TEMPLATE {source.database}")


def test_an_older_catalog_with_newer_content(
    install: Callable[..., Installation], queues: Queues, url: str, tmp_path: Path
) -> None:
    """What came in after the backup is adopted and announced as skipped. What was removed after it is found gone: it is
    not fetched again, nor called present. All under message ids that no consumer has seen."""
    settings = {"REMOTE_DELETES": "trash", "REMOVAL_MIN_AGE": 0, "REMOVAL_MAX_SHARE": 100}
    machine = install(**queues.settings, **settings, DATABASE_URL=url)
    with (
        database(sa.make_url(url).get_backend_name(), tmp_path) as backup,
        FaultySite([Post(id=number) for number in range(1, 7)]) as site,
    ):
        gallery = f"Danbooru:{site.root}/posts?tags=demo"

        def sync() -> None:
            done = machine.sync(gallery, "--source-id", "1", "--to", "a")
            assert done.returncode == 0, done.stdout + done.stderr

        sync()
        copy(url, backup)
        before = machine.on_disk()
        site.add(Post(id=7))
        sync()
        site.remove(1)
        sync()
        sync()
        after = machine.on_disk()
        assert len(after) == len(before) + 1
        assert any(path.startswith(".trash/") for path in after)
        told = {message.properties.message_id for name in queues.names for message in queues.take(name)}
        requests = len(site.requests("/data/"))

        copy(backup, url)
        done = machine.run("db", "restored")
        assert done.returncode == 0, done.stderr
        sync()
        assert len(site.requests("/data/")) == requests
        assert machine.on_disk() == after
        skipped = queues.take("skipped")
        assert len(skipped) == 6
        assert queues.count("downloaded") == 0
        new = {message.properties.message_id for message in [*skipped, *queues.take("synchronized")]}
        assert len(new) == 7
        assert new.isdisjoint(told)
        states = {file["remote_id"]: file["state"] for file in machine.files(1)}
        assert sorted(states.values()) == ["missing", *["present"] * 6]
        sync()
        assert machine.run("verify").returncode == 0
