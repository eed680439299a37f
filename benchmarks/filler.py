"""A catalog full of other sources' files, written straight into the real schema."""

from __future__ import annotations

import hashlib
import itertools
import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from http_downloader.catalog import schema
from tests.installation import Installation

FILES_PER_SOURCE = 10_000
FIRST_SOURCE = 5_000_000
"""Far from the ids that the rows use themselves."""
KEY_DIGITS = 40


def fill(home: Path, rows: int) -> None:
    """Make the catalog of an installation at `home`, with so many files of sources that are never synchronized."""
    installation = Installation(home)
    made = installation.run("db", "show")
    assert made.returncode == 0, made.stderr
    now = int(time.time() * 1000)
    with closing(sqlite3.connect(installation.runtime / "catalog.sqlite3", isolation_level=None)) as db:
        # Nothing here has to survive a crash: without this it takes ten times as long.
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-500000"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("BEGIN")
        _insert(db, schema.sites, iter([{"name": "example.org"}]))
        _insert(db, schema.sources, _sources(rows, now))
        _insert(db, schema.files, _files(rows, now))
        db.execute("COMMIT")


def _sources(rows: int, now: int) -> Iterator[dict[str, Any]]:
    for number in range(-(-rows // FILES_PER_SOURCE)):
        path = f"other/{number}"
        yield {
            "id": FIRST_SOURCE + number,
            "url": f"Danbooru:https://example.org/posts?tags=other{number}",
            "url_key": hashlib.sha256(path.encode()).hexdigest()[:KEY_DIGITS],
            "content_path": path,
            "site": "example.org",
            "created_at": now,
        }


def _files(rows: int, now: int) -> Iterator[dict[str, Any]]:
    """Keys ascend, so that indexes are written from end to end, and are spread evenly, so that real ones, which are
    hashes, fall anywhere between them."""
    step = 16**KEY_DIGITS // rows
    tags = json.dumps(["landscape", "outdoors", "sky", "cloud", "tree", "water"])
    for number in range(rows):
        source, post = divmod(number, FILES_PER_SOURCE)
        name = f"example.org_{post}_{number:032x}.jpg"
        yield {
            "source_id": FIRST_SOURCE + source,
            "remote_key": f"{number * step:0{KEY_DIGITS}x}",
            "remote_id": f"example.orgt_other{source}_{post}",
            "path_key": f"{number * step:0{KEY_DIGITS}x}",
            "path": f"other/{source}/{name}",
            "url": f"https://example.org/data/{number:032x}.jpg",
            "size": 20_000,
            "sha256": f"{number:064x}",
            "state": "present",
            "first_seen_at": now,
            "downloaded_at": now,
            "tags": tags,
        }


def _insert(db: sqlite3.Connection, table: sa.Table, rows: Iterator[dict[str, Any]]) -> None:
    """Columns that the rows do not name, now or in a later schema, get nothing, or zero where nothing is not allowed."""
    first = next(rows)
    left = {
        column.name: _empty(column) for column in table.columns if column.name not in first and not column.primary_key
    }
    names = [*first, *left]
    places = ", ".join("?" * len(names))
    rest = tuple(left.values())
    values = ((*row.values(), *rest) for row in itertools.chain([first], rows))
    db.executemany(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({places})", values)


def _empty(column: sa.Column[Any]) -> object:
    if column.nullable:
        return None
    return 0 if isinstance(column.type, (sa.Integer, sa.Boolean)) else "[]" if isinstance(column.type, sa.JSON) else ""
