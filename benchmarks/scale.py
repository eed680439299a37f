"""`python -m benchmarks.scale`: what one row, message, run and worker cost, for docs/scale.md. Writes scale.json.

`--engines sqlite,postgresql` measures some engines only, `--report` only writes the page from scale.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks import machine
from benchmarks.memory import MEGABYTE, proportional
from benchmarks.model import PAGE, write_page
from benchmarks.publishing import publish_confirmed
from benchmarks.sides import our_service
from http_downloader.catalog import files, journal, outbox
from http_downloader.catalog.engine import Catalog, open_catalog, utcnow
from http_downloader.catalog.journal import Claim
from http_downloader.domain.events import Event, EventType, RunContext, file_event
from http_downloader.domain.files import FileFact, FileState, Words
from http_downloader.domain.orders import Order
from http_downloader.domain.runs import Ending, RunState
from tests.databases import ENGINES, database
from tests.queues import PORT, Queues

RESULTS = Path(__file__).with_name("scale.json")
SYNCHRONIZED = Ending(state=RunState.SYNCHRONIZED, listing_proves=True)
LEASE = timedelta(hours=1)
FILES = 20_000
"""Recorded as runs record them, in sources of `PER_SOURCE`."""
PER_SOURCE = 10_000
BATCH = 100
"""Files of one transaction, about what gathers in a quarter of a second."""
ROUNDS, CALLS = 3, 100
THREADS = 4
"""As many as a worker has for its catalog."""
MESSAGES = 20_000
WORDS = Words(
    page_url="https://example.invalid/posts/1234567",
    title="landscape with clouds",
    date="2026-01-01T00:00:00",
    tags=("landscape", "outdoors", "sky", "cloud", "tree", "water"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--engines", default=",".join(ENGINES), help="of " + ", ".join(ENGINES))
    parser.add_argument("--report", action="store_true", help="only write the page from what was measured")
    options = parser.parse_args(arguments)
    if not options.report:
        found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}
        found["machine"] = machine.facts() | {"load before": os.getloadavg()[0]}
        found["broker"] = _broker()
        for engine in options.engines.split(","):
            print(f"measuring {engine} …", file=sys.stderr, flush=True)
            found.setdefault("engines", {})[engine] = _engine(engine)
        found["worker"] = _worker()
        rounded = json.loads(json.dumps(found), parse_float=lambda text: float(f"{float(text):.3g}"))
        RESULTS.write_text(json.dumps(rounded, indent=1) + "\n")
    write_page(json.loads(RESULTS.read_text()))
    print(f"written: {PAGE.name}")
    return 0


def _engine(kind: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="scale-") as folder, database(kind, Path(folder)) as url:
        catalog = open_catalog(url)
        try:
            if kind == "postgresql":  # the tests' databases need not outlive a power cut; these are as real ones
                _alone(catalog, f"ALTER DATABASE {catalog.engine.url.database} RESET synchronous_commit")
                catalog.engine.dispose()
            return {"version": _version(catalog), **_files(catalog), **_journal(catalog)}
        finally:
            catalog.close()


def _files(catalog: Catalog) -> dict[str, Any]:
    """Facts with their events in, events out, known files read, and what stays on the disk."""
    size, log = _bytes(catalog), _log_bytes(catalog)
    took = 0.0
    for source in range(1, 1 + FILES // PER_SOURCE):
        claim = _claim(catalog, _submit(catalog, source))
        for start in range(0, PER_SOURCE, BATCH):
            facts = [_fact(claim, number) for number in range(start, start + BATCH)]
            events = {fact.remote_id: _event(claim, fact) for fact in facts}
            began = time.perf_counter()
            files.record(catalog, claim, facts, events, utcnow())
            took += time.perf_counter() - began
    logged = _log_bytes(catalog) - log
    began = time.perf_counter()
    while waiting := outbox.waiting(catalog, "w", 1000):
        outbox.confirmed(catalog, [row for row, _ in waiting], "w")
    relayed = time.perf_counter() - began
    began = time.perf_counter()
    known = files.known_files(catalog, claim, utcnow())
    read = time.perf_counter() - began
    assert len(known) == PER_SOURCE
    _settle(catalog)
    return {
        "files_recorded_per_s": FILES / took,
        "events_relayed_per_s": FILES / relayed,
        "known_files_read_per_s": PER_SOURCE / read,
        "bytes_per_file": (_bytes(catalog) - size) / FILES,
        "log_bytes_per_file": logged / FILES if logged else None,
    }


def _journal(catalog: Catalog) -> dict[str, float]:
    """Orders and runs, from one thread and from as many as a worker has. Each thread has sources of its own."""
    found = {}
    for threads in (1, THREADS):
        first = 100_000 * threads
        orders = _rate(threads, lambda number, first=first: _submit(catalog, first + number))
        claims = _rate(threads, lambda _: _claim_and_end(catalog))
        idle = _rate(threads, lambda _: _claim_any(catalog))
        renewals = _rate(threads, lambda number: journal.renew(catalog, f"w{number}", LEASE, []))
        found |= {
            f"orders_per_s_{threads}": orders,
            f"claims_with_end_per_s_{threads}": claims,
            f"idle_claims_per_s_{threads}": idle,
            f"renewals_per_s_{threads}": renewals,
        }
    return found


def _rate(threads: int, call: Callable[[int], object]) -> float:
    """Calls in a second: the median of three rounds. Each call gets a number of its own."""
    rates = []
    with ThreadPoolExecutor(threads) as pool:
        for first in range(0, ROUNDS * CALLS, CALLS):
            began = time.perf_counter()
            list(pool.map(call, range(first, first + CALLS)))
            rates.append(CALLS / (time.perf_counter() - began))
    return statistics.median(rates)


def _submit(catalog: Catalog, source: int) -> int:
    order = Order(source_id=source, url=f"https://example.invalid/{source}", content_path=f"scale/{source}")
    site = f"site{source % 50}"
    return journal.submit(catalog, order, site=site, now=utcnow(), message_id=f"message-{source}").run


def _claim_any(catalog: Catalog, run: int | None = None) -> Claim | None:
    return journal.claim(catalog, owner="w", lease=LEASE, site_concurrency=1000, run=run)


def _claim(catalog: Catalog, run: int) -> Claim:
    claim = _claim_any(catalog, run)
    assert claim is not None
    return claim


def _claim_and_end(catalog: Catalog) -> None:
    claim = _claim_any(catalog)
    if claim is not None:  # else other threads were faster with all of the candidates
        journal.finish(catalog, claim, now=utcnow(), ending=SYNCHRONIZED, counts={}, gaps=[], log="", events=[])


def _fact(claim: Claim, number: int) -> FileFact:
    name = f"example.invalid_{number}_{number:032x}.jpg"
    return FileFact(
        remote_id=f"example.invalidt_other{claim.source_id}_{number}",
        path=f"{claim.content_path}/{name}",
        state=FileState.PRESENT,
        url=f"https://example.invalid/data/{number:032x}.jpg",
        size=1_000_000,
        sha256=f"{number:064x}",
        downloaded=True,
        words=WORDS,
    )


def _event(claim: Claim, fact: FileFact) -> Event:
    context = RunContext(run_id=claim.run_id, source_id=claim.source_id)
    name = str(fact.path).rpartition("/")[2]
    facts = {"url": fact.url, "size": fact.size, "sha256": fact.sha256}
    return file_event(EventType.FILE_DOWNLOADED, context, remote_id=fact.remote_id, filename=name, **facts)


def _version(catalog: Catalog) -> str:
    ask = "SELECT sqlite_version()" if catalog.is_sqlite else "SELECT version()"
    with catalog.engine.connect() as db:
        return str(db.exec_driver_sql(ask).scalar_one()).partition(" (")[0]


def _alone(catalog: Catalog, statement: str) -> None:
    with catalog.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
        db.exec_driver_sql(statement)


def _settle(catalog: Catalog) -> None:
    """What is deleted by now takes no room."""
    if catalog.engine.dialect.name == "postgresql":
        _alone(catalog, "VACUUM FULL outbox")
    elif not catalog.is_sqlite:
        _alone(catalog, "OPTIMIZE TABLE outbox")
        _alone(catalog, "ANALYZE TABLE files")


def _bytes(catalog: Catalog) -> int:
    """Of tables and indexes."""
    ask = {
        "sqlite": "SELECT (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM pragma_page_size())"
        " - (SELECT freelist_count FROM pragma_freelist_count()) * (SELECT page_size FROM pragma_page_size())",
        "postgresql": "SELECT pg_total_relation_size('files')",
        "mariadb": "SELECT data_length + index_length FROM information_schema.tables"
        " WHERE table_schema = DATABASE() AND table_name = 'files'",
    }
    with catalog.engine.connect() as db:
        return int(db.exec_driver_sql(ask[catalog.engine.dialect.name]).scalar_one())


def _log_bytes(catalog: Catalog) -> int:
    """That the server has written to its log so far; 0 where nobody counts them."""
    ask = {
        "postgresql": "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')",
        "mariadb": "SELECT variable_value FROM information_schema.global_status"
        " WHERE variable_name = 'Innodb_os_log_written'",
    }.get(catalog.engine.dialect.name)
    if ask is None:
        return 0
    with catalog.engine.connect() as db:
        return int(db.exec_driver_sql(ask).scalar_one())


def _broker() -> dict[str, float]:
    with Queues() as queues:
        queues.channel.queue_declare(queues.names["skipped"], durable=True)
        published = publish_confirmed(queues.names["skipped"], MESSAGES)
        began = time.perf_counter()
        queues.channel.basic_qos(prefetch_count=100)
        for taken, (method, _, _) in enumerate(queues.channel.consume(queues.names["skipped"]), 1):
            queues.channel.basic_ack(method.delivery_tag)
            if taken == MESSAGES:
                break
        consumed = time.perf_counter() - began
        queues.channel.cancel()
    return {"published_per_s": MESSAGES / published, "consumed_per_s": MESSAGES / consumed}


def _worker() -> dict[str, float]:
    """A service that has nothing to do: its memory, and what it holds open. And what known files take in memory."""
    with (
        tempfile.TemporaryDirectory(prefix="scale-") as folder,
        database("postgresql", Path(folder)) as url,
        our_service(Path(folder), DATABASE_URL=url) as ours,
    ):
        most = 0
        for _ in range(50):
            most = max(most, _connections(url))
            time.sleep(0.1)
        memory = proportional(ours.service.pid) / MEGABYTE
        broker = sum(1 for _ in _broker_connections(ours.service.pid))
    return {
        "database_connections": most,
        "broker_connections": broker,
        "memory_mb": memory,
        "known_file_bytes": _known_file_bytes(),
    }


def _connections(url: str) -> int:
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    ask = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    try:
        with engine.connect() as db:
            return int(db.exec_driver_sql(ask).scalar_one())
    finally:
        engine.dispose()


def _broker_connections(pid: int) -> Iterator[str]:
    """Established connections of a process to the broker's port."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink())
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[3] == "01" and int(fields[2].rpartition(":")[2], 16) == PORT:
                yield line


def _known_file_bytes() -> float:
    with tempfile.TemporaryDirectory(prefix="scale-") as folder, _sqlite(Path(folder)) as catalog:
        claim = _claim(catalog, _submit(catalog, 1))
        for start in range(0, PER_SOURCE, BATCH):
            facts = [_fact(claim, number) for number in range(start, start + BATCH)]
            files.record(catalog, claim, facts, {}, utcnow())
        tracemalloc.start()
        known = files.known_files(catalog, claim, utcnow())
        taken, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return taken / len(known)


@contextmanager
def _sqlite(folder: Path) -> Iterator[Catalog]:
    catalog = open_catalog(f"sqlite:///{folder / 'catalog.sqlite3'}")
    yield catalog
    catalog.close()


if __name__ == "__main__":
    sys.exit(main())
