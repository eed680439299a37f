"""A catalog full of other sources' rows, made by the database itself, straight in the real schema."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from http_downloader.catalog.engine import Catalog

FIRST_SOURCE = 5_000_000
"""Far from the ids that benchmarks and tests use themselves."""
PART = 500_000
"""Rows of one statement: an undo log that fits."""
SITES = 50
LEASE = 30 * 86_400_000
"""Milliseconds for which nobody takes over the running runs."""
OWNER = "host-7-other"
"""The worker that performs the running runs, and has all events in the outbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How many rows of what. A tenth of the files is in one source when `uneven`."""

    files: int
    per_source: int = 10_000
    uneven: bool = False
    runs: int = 0
    """Ended runs of each source, each with its order; fifty times as many of the first source."""
    queued: int = 0
    """Queued runs, nine in ten of them of one site."""
    running: int = 0
    events: int = 0
    """In the outbox, of the running runs."""

    @property
    def first(self) -> int:
        """Files of the first source."""
        return self.files // 10 if self.uneven else self.per_source

    @property
    def sources(self) -> int:
        return 1 + -(-max(0, self.files - self.first) // self.per_source)


def fill(catalog: Catalog, shape: Shape) -> None:
    """Add the rows, and have a server look at them, as it does by itself after a while."""
    words = _WORDS[catalog.engine.dialect.name]
    now = int(time.time() * 1000)
    with _quickly(catalog) as run:
        for table, count, columns in _tables(words, shape, now):
            names = ", ".join(columns)
            for start in range(0, count, PART):
                series = words.series(start, min(count, start + PART))
                run(f"INSERT INTO {table} ({names}) SELECT {', '.join(columns.values())} FROM {series}")
        for statement in words.settle:
            run(statement)


@contextlib.contextmanager
def _quickly(catalog: Catalog) -> Iterator[Callable[[str], Any]]:
    """Statements one by one. Nothing here has to survive a crash."""
    connection = catalog.engine.raw_connection()
    if catalog.engine.dialect.name == "postgresql":
        connection.driver_connection.autocommit = True  # type: ignore[union-attr]  # VACUUM is no part of a transaction
    cursor = connection.cursor()

    def run(statement: str) -> None:
        cursor.execute(statement)
        connection.commit()

    try:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "cache_size=-500000") if catalog.is_sqlite else ():
            run(f"PRAGMA {pragma}")
        yield run
    finally:
        connection.invalidate()  # the next one is set up as usual
        connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Words:
    """What the engines say each in its own way."""

    series: Callable[[int, int], str]
    """A table with the one column `n`."""
    hex: Callable[[str], str]
    """A number below 16^8 as eight digits."""
    div: str
    settle: tuple[str, ...]

    def text(self, *parts: str) -> str:
        return f"CONCAT({', '.join(parts)})" if self.div == "DIV" else " || ".join(parts)


_TABLES = ("sites", "sources", "files", "runs", "orders", "outbox")
_WORDS = {
    "sqlite": _Words(
        series=lambda start, end: (
            f"(WITH RECURSIVE s(n) AS (SELECT {start} UNION ALL SELECT n + 1 FROM s WHERE n < {end - 1}) SELECT n FROM s)"
        ),
        hex=lambda number: f"printf('%08x', {number})",
        div="/",
        settle=(),  # nobody looks at it in a real installation either
    ),
    "postgresql": _Words(
        series=lambda start, end: f"generate_series({start}::bigint, {end - 1}) AS s(n)",
        hex=lambda number: f"lpad(to_hex({number}), 8, '0')",
        div="/",
        settle=(
            "SELECT setval('runs_id_seq', GREATEST(1, (SELECT max(id) FROM runs)))",
            *(f"VACUUM ANALYZE {table}" for table in _TABLES),
        ),
    ),
    "mariadb": _Words(
        series=lambda start, end: f"(SELECT seq AS n FROM seq_{start}_to_{end - 1}) AS s",
        hex=lambda number: f"lower(lpad(hex({number}), 8, '0'))",
        div="DIV",
        settle=tuple(f"ANALYZE TABLE {table}" for table in _TABLES),
    ),
}


def _tables(words: _Words, shape: Shape, now: int) -> Iterator[tuple[str, int, dict[str, str]]]:
    """Each table, how many rows, and what is in their columns as a function of `n`."""
    text, number = words.text, _text_of
    site = text("'site'", number(f"n % {SITES}", words))
    folder = text("'other/'", number("n", words))
    url = text("'Danbooru:https://example.invalid/posts?tags=other'", number("n", words))
    yield "sites", SITES, {"name": text("'site'", number("n", words))}
    yield (
        "sources",
        shape.sources,
        {
            "id": f"{FIRST_SOURCE} + n",
            "url": url,
            "url_key": _key("n", shape.sources, words),
            "content_path": folder,
            "site": site,
            "created_at": str(now),
            "synchronized_at": str(now),
        },
    )
    yield "files", shape.files, _files(words, shape, now)
    history = shape.runs * (shape.sources + 50)
    ended, busy = f"n < {history}", f"n >= {history + shape.running} AND n % 10 > 0"
    source = (
        f"CASE WHEN {ended} THEN CASE WHEN n < {shape.runs * 50} THEN 0 ELSE n % {shape.sources} END "
        f"ELSE (n - {history}) % {shape.sources} END"
    )
    running = f"n < {history + shape.running}"
    yield (
        "runs",
        history + shape.running + shape.queued,
        {
            "id": "n + 1",
            "source_id": f"{FIRST_SOURCE} + {source}",
            "url": url,
            "content_path": folder,
            "site": f"CASE WHEN {busy} THEN 'site0' ELSE {site} END",
            "state": f"CASE WHEN {ended} THEN 'synchronized' WHEN {running} THEN 'running' ELSE 'queued' END",
            "priority": "0",
            "attempt": f"CASE WHEN {running} THEN 1 ELSE 0 END",
            "not_before": str(now),
            "owner": f"CASE WHEN {running} AND NOT ({ended}) THEN '{OWNER}' END",
            "lease_until": f"CASE WHEN {running} AND NOT ({ended}) THEN {now + LEASE} END",
            "fence": "1",
            "created_at": f"{now} + n",
            "ended_at": f"CASE WHEN {ended} THEN {now} + n END",
            "counts": "'{\"listed\": 10000}'",
            "gaps": "'[]'",
            "log": "''",
        },
    )
    yield (
        "orders",
        history + shape.running + shape.queued,
        {
            "run_id": "n + 1",
            "source_id": f"{FIRST_SOURCE} + {source}",
            "message_id": text("'00000000-0000-4000-8000-0000'", words.hex("n")),
            "received_at": str(now),
        },
    )
    body = '{"type": "file-downloaded", "run_id": "r", "source_id": 1, "body": {}, "subject": "s", "headers": {}}'
    first = history + 1
    yield (
        "outbox",
        shape.events,
        {
            "run_id": f"{first} + n % {max(1, shape.running)}",
            "ends_run": "n < 0",
            "event": f"'{body}'",
            "created_at": str(now),
        },
    )


def _files(words: _Words, shape: Shape, now: int) -> dict[str, str]:
    """Of a hundred files 90 are present, 5 were removed, 2 are in the trash, 2 are missing, 1 has failed."""
    text, number = words.text, _text_of
    source = f"CASE WHEN n < {shape.first} THEN 0 ELSE 1 + (n - {shape.first}) {words.div} {shape.per_source} END"
    place = text("'other/'", number(source, words), "'/example.org_'", words.hex("n"), "'.jpg'")
    key = _key("n", shape.files, words)
    kind = "n % 100"
    gone = f"{kind} < 7"
    return {
        "source_id": f"{FIRST_SOURCE} + {source}",
        "remote_key": key,
        "remote_id": text("'example.orgt_other_'", number("n", words)),
        "path_key": f"CASE WHEN NOT ({gone}) THEN {key} END",
        "path": place,
        "url": text("'https://example.invalid/data/0123456789abcdef01234567'", words.hex("n"), "'.jpg'"),
        "size": "20000",
        "sha256": text("'0123456789abcdef0123456789abcdef0123456789abcdef01234567'", words.hex("n")),
        "state": f"CASE WHEN {kind} < 5 THEN 'removed' WHEN {gone} THEN 'trashed' WHEN {kind} < 9 THEN 'missing' "
        f"WHEN {kind} < 10 THEN 'failed' ELSE 'present' END",
        "first_seen_at": str(now),
        "downloaded_at": str(now),
        "removed_at": f"CASE WHEN {gone} THEN {now} END",
        "trash_path": f"CASE WHEN {kind} IN (5, 6) THEN {text(chr(39) + '.trash/2026-01-01/' + chr(39), place)} END",
        "hold": "CASE WHEN n % 10000 = 7 AND n < 500000 THEN 'too-many' END",
        "hold_run": "CASE WHEN n % 10000 = 7 AND n < 500000 THEN 1 END",
        "gone_runs": "0",
        "tags": '\'["landscape", "outdoors", "sky", "cloud", "tree", "water"]\'',
    }


def _key(number: str, count: int, words: _Words) -> str:
    """Like a hash: keys ascend, so that indexes are written from end to end, and are spread evenly, so that real ones
    fall anywhere between them."""
    return words.text(words.hex(f"({number}) * {16**8 // count}"), "'0123456789abcdef0123456789abcdef'")


def _text_of(number: str, words: _Words) -> str:
    return f"CAST({number} AS {'CHAR' if words.div == 'DIV' else 'TEXT'})"
