"""The promises of docs/reliability.md as one pure function of what was ordered, what the sites have, and what came of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One event as it came out of the broker."""

    type: str
    message_id: str
    run_id: str
    source_id: int
    filename: str | None = None
    orders: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    source_id: int
    path: str
    """Relative to CONTENT_ROOT."""
    state: str
    sha256: str | None
    trash_path: str | None = None


@dataclass(slots=True, kw_only=True)
class Observed:
    """All that can be known from outside when everything has come to rest. Hashes are SHA-256."""

    posted: dict[str, int] = field(default_factory=dict)
    """Good orders: the source of each, by message id."""
    ordered: set[int] = field(default_factory=set)
    """Sources with an order since their gallery changed last."""
    garbage: dict[str, bytes] = field(default_factory=dict)
    """Orders that cannot be understood, by message id."""
    rejected: dict[str, bytes] = field(default_factory=dict)
    """What came to the queue of rejected orders, by message id."""
    journal: dict[str, set[str]] = field(default_factory=dict)
    """The runs that answer an order, by its message id."""
    runs: dict[str, str] = field(default_factory=dict)
    """The state of each run, by its id."""
    listed: dict[int, dict[str, str]] = field(default_factory=dict)
    """What the site lists now: name and hash of each file, by source."""
    ever: dict[int, dict[str, str]] = field(default_factory=dict)
    """The same, for every file that the site has ever listed."""
    folders: dict[int, str] = field(default_factory=dict)
    disk: dict[str, str] = field(default_factory=dict)
    """The hash of each file under CONTENT_ROOT, by its path there; without the marker."""
    foreign: dict[str, str] = field(default_factory=dict)
    """Files that a person has put into the folders, likewise."""
    outside: dict[str, str] = field(default_factory=dict)
    """Files outside of all folders of ours that have changed, and how."""
    rows: list[Row] = field(default_factory=list)
    events: list[Told] = field(default_factory=list)
    """Since the beginning, in the order in which the broker took them."""
    this_round: set[str] = field(default_factory=set)
    """The runs that ended since the last look."""
    processes: list[str] = field(default_factory=list)
    """Of ours that still live although the service has ended."""


@dataclass(frozen=True, slots=True)
class Broken:
    what: str
    """orders, files, rows, events, or other: what was lost, or what is wrong."""
    sentence: str


def broken(seen: Observed) -> list[Broken]:
    """Every promise that was not kept. Empty: all is well."""
    found: list[Broken] = []
    for what, check in CHECKS:
        found += [Broken(what, sentence) for sentence in check(seen)]
    return found


def duplicates(events: Iterable[Told]) -> int:
    """Events that came more than once, each under its one message id."""
    return sum(count - 1 for count in Counter(event.message_id for event in events).values())


# Orders


def _orders_are_answered(seen: Observed) -> Iterator[str]:
    told = {order for event in seen.events if event.type == "source-synchronized" for order in event.orders}
    for message_id in seen.posted:
        runs = seen.journal.get(message_id, set())
        if not runs:
            yield f"order {message_id} is in no journal"
        elif not any(seen.runs.get(run) == "synchronized" for run in runs):
            yield f"order {message_id}: its run ended as {', '.join(seen.runs.get(run, '?') for run in runs)}"
        elif message_id not in told:
            yield f"order {message_id} is answered by no event"


def _garbage_is_rejected(seen: Observed) -> Iterator[str]:
    for message_id, body in seen.garbage.items():
        if message_id not in seen.rejected:
            yield f"bad order {message_id} is in no queue"
        elif seen.rejected[message_id] != body:
            yield f"bad order {message_id} was changed on its way"


# Files


def _files_are_whole(seen: Observed) -> Iterator[str]:
    whole = {
        f"{seen.folders[source]}/{name}": digest
        for source, files in seen.ever.items()
        for name, digest in files.items()
    }
    for path, digest in seen.disk.items():
        if path.startswith((".trash/", ".partial/")) or path in seen.foreign:
            continue
        if path not in whole:
            yield f"nobody knows where {path} comes from"
        elif digest != whole[path]:
            yield f"{path} is not what the site sent"


def _listed_files_are_there(seen: Observed) -> Iterator[str]:
    for source in seen.ordered:
        for name in seen.listed[source]:
            if f"{seen.folders[source]}/{name}" not in seen.disk:
                yield f"{name} of source {source} is not there"


def _nothing_was_destroyed(seen: Observed) -> Iterator[str]:
    kept = set(seen.disk.values())
    arrived = {(event.source_id, event.filename) for event in seen.events if event.type == "file-downloaded"}
    for source, name in arrived:
        if seen.ever[source][str(name)] not in kept:
            yield f"{name} of source {source} is neither in the mirror nor in the trash"
    for path, digest in seen.foreign.items():
        if seen.disk.get(path) != digest:
            yield f"a person's file was touched: {path}"


def _nothing_is_left_over(seen: Observed) -> Iterator[str]:
    for path in seen.disk:
        if path.startswith(".partial/"):
            yield f"a part file is left: {path}"
    yield from (f"outside of our folders: {path} {how}" for path, how in seen.outside.items())
    yield from (f"a process is left: {process}" for process in seen.processes)


# Rows


def _rows_and_files_agree(seen: Observed) -> Iterator[str]:
    holders = Counter(row.path for row in seen.rows if row.state in ("present", "missing"))
    for path, count in holders.items():
        if count > 1:
            yield f"{path} has {count} rows"
    for row in seen.rows:
        if row.state in ("present", "missing"):
            if row.path not in seen.disk:
                yield f"the row of {row.path} says {row.state}, and there is no such file"
            elif seen.disk[row.path] != row.sha256:
                yield f"the row of {row.path} has another hash than the file"
        elif row.state == "trashed" and row.trash_path not in seen.disk:
            yield f"the row of {row.path} says trashed, and there is no such file in the trash"
    for path in seen.disk:
        if not path.startswith((".trash/", ".partial/")) and path not in seen.foreign and path not in holders:
            yield f"{path} has no row"


# Events


def _downloads_are_told(seen: Observed) -> Iterator[str]:
    """Each file that is here was announced as downloaded, under one message id each time that it came in."""
    ids: dict[tuple[int, str], set[str]] = {}
    for event in seen.events:
        if event.type == "file-downloaded":
            ids.setdefault((event.source_id, str(event.filename)), set()).add(event.message_id)
    for source, files in seen.ever.items():
        for name in files:
            if f"{seen.folders[source]}/{name}" in seen.disk and (source, name) not in ids:
                yield f"{name} of source {source} was never announced as downloaded"
    for (source, name), found in ids.items():
        if len(found) > 1:
            yield f"{name} of source {source} was announced as downloaded under {len(found)} message ids"


def _told_files_are_there(seen: Observed) -> Iterator[str]:
    removed = {(event.source_id, event.filename) for event in seen.events if event.type == "file-removed"}
    for event in seen.events:
        if event.type in ("file-downloaded", "file-skipped") and event.run_id in seen.this_round:
            path = f"{seen.folders[event.source_id]}/{event.filename}"
            if path not in seen.disk and (event.source_id, event.filename) not in removed:
                yield f"{event.type} was told of {path}, which is not there"


def _removals_are_told(seen: Observed) -> Iterator[str]:
    told = {(event.source_id, event.filename) for event in seen.events if event.type == "file-removed"}
    for row in seen.rows:
        if row.state in ("trashed", "removed"):
            name = row.path.removeprefix(seen.folders[row.source_id] + "/")
            if (row.source_id, name) not in told:
                yield f"{name} of source {row.source_id} was removed, and nobody was told"
            if name in seen.listed[row.source_id]:
                yield f"{name} of source {row.source_id} was removed, and the site has it"


def _ends_are_true(seen: Observed) -> Iterator[str]:
    """`source synchronized` for synchronized runs only, and not before all file events of its run."""
    first_end: dict[str, int] = {}
    first: dict[str, tuple[int, Told]] = {}
    for position, event in enumerate(seen.events):
        first.setdefault(event.message_id, (position, event))
        if event.type == "source-synchronized":
            first_end.setdefault(event.run_id, position)
    for run_id in first_end:
        if seen.runs.get(run_id) != "synchronized":
            yield f"source synchronized was told of run {run_id}, which is {seen.runs.get(run_id, 'unknown')}"
    for position, event in first.values():
        if position > first_end.get(event.run_id, position):
            yield f"{event.type} of {event.filename} came after the end of its run {event.run_id}"
    for run_id, state in seen.runs.items():
        if state == "synchronized" and run_id not in first_end:
            yield f"nobody was told that run {run_id} is synchronized"


def _every_listed_file_is_told(seen: Observed) -> Iterator[str]:
    """A synchronized run tells of each file of its listing, as downloaded or as skipped and never as both."""
    told: dict[str, dict[str, set[str]]] = {}
    source_of: dict[str, int] = {}
    for event in seen.events:
        if event.run_id not in seen.this_round:
            continue
        source_of[event.run_id] = event.source_id
        if event.filename is not None and event.type in ("file-downloaded", "file-skipped"):
            told.setdefault(event.run_id, {}).setdefault(event.filename, set()).add(event.type)
    for run_id, source in source_of.items():
        if seen.runs.get(run_id) != "synchronized":
            continue
        names = told.get(run_id, {})
        for name in seen.listed[source].keys() - names.keys():
            yield f"run {run_id} did not tell of {name}"
        for name, types in names.items():
            if len(types) > 1:
                yield f"run {run_id} told of {name} as {' and '.join(sorted(types))}"


def _ids_are_of_one_fact(seen: Observed) -> Iterator[str]:
    facts: dict[str, Told] = {}
    for event in seen.events:
        known = facts.setdefault(event.message_id, event)
        if (known.type, known.run_id, known.filename) != (event.type, event.run_id, event.filename):
            yield f"message id {event.message_id} stands for two facts: {known} and {event}"


CHECKS = (
    ("orders", _orders_are_answered),
    ("orders", _garbage_is_rejected),
    ("files", _files_are_whole),
    ("files", _listed_files_are_there),
    ("files", _nothing_was_destroyed),
    ("other", _nothing_is_left_over),
    ("rows", _rows_and_files_agree),
    ("events", _downloads_are_told),
    ("events", _told_files_are_there),
    ("events", _removals_are_told),
    ("events", _ends_are_true),
    ("events", _every_listed_file_is_told),
    ("events", _ids_are_of_one_fact),
)


def summary(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())
