"""From what one row, message and run cost to what very many need: the arithmetic of docs/scale.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import number

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
BEGIN = "<!-- {name}: written by python -m benchmarks.scale, not by hand -->"
END = "<!-- end of {name} -->"
DAY = 86_400
NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mariadb": "MariaDB"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What is wanted. `new`: of a hundred files of a source, those that are new in a day."""

    workers: int = 1_000
    sources: int = 1_000_000
    files: int = 10_000_000_000
    runs_per_day: float = 1.0
    new: float = 0.1
    poll: float = 2.0
    """Seconds between two looks of a worker that has a free slot."""
    renewal: float = 15.0

    @property
    def runs(self) -> float:
        """In a second, as are all of the following."""
        return self.sources * self.runs_per_day / DAY

    @property
    def listed(self) -> float:
        return self.files * self.runs_per_day / DAY

    @property
    def downloaded(self) -> float:
        return self.files * self.new / 100 / DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    what: str
    load: float
    unit: str
    one: float
    """What one of them carries, as measured."""
    of: str

    @property
    def times(self) -> float:
        """How many of them are needed, all of their time."""
        return self.load / self.one


def needs(figures: Mapping[str, Any], engine: str, target: Target) -> list[Need]:
    """Everything that is needed of one catalog and one broker, the scarcest first."""
    rows, broker = figures["engines"][engine], figures["broker"]
    one = "a connection"
    found = [
        Need(
            what="skips and downloads published",
            load=target.listed,
            unit="messages/s",
            one=broker["published_per_s"],
            of="one publisher",
        ),
        Need(
            what="known files read, one for each listed file",
            load=target.listed,
            unit="rows/s",
            one=rows["known_files_read_per_s"],
            of=one,
        ),
        Need(
            what="new files recorded",
            load=target.downloaded,
            unit="files/s",
            one=rows["files_recorded_per_s"],
            of=one,
        ),
        Need(
            what="events of new files relayed",
            load=target.downloaded,
            unit="events/s",
            one=rows["events_relayed_per_s"],
            of=one,
        ),
        Need(
            what="looks of idle workers for a run",
            load=target.workers / target.poll,
            unit="claims/s",
            one=rows["idle_claims_per_s_4"],
            of="the measured server",
        ),
        Need(
            what="runs claimed and ended",
            load=target.runs,
            unit="runs/s",
            one=rows["claims_with_end_per_s_4"],
            of="the measured server",
        ),
        Need(
            what="leases renewed",
            load=target.workers / target.renewal,
            unit="renewals/s",
            one=rows["renewals_per_s_4"],
            of="the measured server",
        ),
        Need(
            what="orders journalled",
            load=target.runs,
            unit="orders/s",
            one=rows["orders_per_s_4"],
            of="the measured server",
        ),
    ]
    return sorted(found, key=lambda need: -need.times)


def measured(figures: Mapping[str, Any]) -> str:
    """Markdown: what was measured, on what."""
    engines = figures["engines"]
    rows = [
        ("files recorded with their events, batches of 100", "files/s", "files_recorded_per_s"),
        ("events taken from the outbox, broker left out", "events/s", "events_relayed_per_s"),
        ("known files read before a run", "rows/s", "known_files_read_per_s"),
        ("orders journalled, 1 thread", "orders/s", "orders_per_s_1"),
        ("orders journalled, 4 threads", "orders/s", "orders_per_s_4"),
        ("runs claimed and ended, 1 thread", "runs/s", "claims_with_end_per_s_1"),
        ("runs claimed and ended, 4 threads", "runs/s", "claims_with_end_per_s_4"),
        ("claims that find nothing, 4 threads", "claims/s", "idle_claims_per_s_4"),
        ("leases renewed, 4 threads", "renewals/s", "renewals_per_s_4"),
        ("on the disk for each file, indexes included", "bytes", "bytes_per_file"),
        ("written to the server's log for each file", "bytes", "log_bytes_per_file"),
    ]
    worker, broker = figures["worker"], figures["broker"]
    return "\n\n".join(
        [
            "Measured on " + ", ".join(f"{name} {value}" for name, value in figures["machine"].items()) + ".",
            _table(
                ("", "unit", *(f"{NAMES[name]} {_short(engines[name]['version'])}" for name in engines)),
                [(what, unit, *(_number(engines[name][key]) for name in engines)) for what, unit, key in rows],
            ),
            _table(
                ("", "unit", "measured"),
                [
                    (
                        "published, persistent, all confirmed; one connection",
                        "messages/s",
                        number(broker["published_per_s"]),
                    ),
                    ("consumed and acknowledged one by one", "messages/s", number(broker["consumed_per_s"])),
                    ("an idle worker with all its processes (PSS)", "MB", number(worker["memory_mb"])),
                    (
                        "a known file, in each of the two processes that hold it",
                        "bytes",
                        number(worker["known_file_bytes"]),
                    ),
                    ("connections of an idle worker to the catalog", "", number(worker["database_connections"])),
                    ("connections of a worker to the broker", "", number(worker["broker_connections"])),
                ],
            ),
        ]
    )


def worked_out(figures: Mapping[str, Any], target: Target | None = None) -> str:
    """Markdown: how many of what is measured the target needs."""
    target = target or Target()
    parts = []
    for engine in ("postgresql", "mariadb"):
        if engine not in figures["engines"]:
            continue
        rows = [
            (
                need.what,
                f"{number(need.load)} {need.unit}",
                f"{number(need.one)} ({need.of})",
                f"{number(need.times)} ×",
            )
            for need in needs(figures, engine, target)
        ]
        per_file = figures["engines"][engine]
        size = target.files * per_file["bytes_per_file"] / 1e12
        log = target.downloaded * (per_file["log_bytes_per_file"] or 0) / 1e6
        parts += [
            f"**{NAMES[engine]}**: {number(size)} TB of files and indexes; {number(log)} MB/s of log.",
            _table(("load", "is", "one carries", "needs"), rows),
        ]
    return "\n\n".join(parts)


def write_page(figures: Mapping[str, Any]) -> None:
    PAGE.write_text(with_figures(PAGE.read_text(), figures))


def with_figures(page: str, figures: Mapping[str, Any]) -> str:
    for name, text in (("figures", measured(figures)), ("worked out", worked_out(figures))):
        before, begin, rest = page.partition(BEGIN.format(name=name))
        _, end, after = rest.partition(END.format(name=name))
        if not (begin and end):
            raise ValueError(f"the page needs the markers of {name!r}")
        page = f"{before}{begin}\n\n{text}\n\n{end}{after}"
    return page


def _number(value: float | None) -> str:
    return "" if value is None else number(value)


def _short(version: str) -> str:
    """`PostgreSQL 15.20` → `15.20`, `10.11.19-MariaDB-0+deb12u1` → `10.11.19`"""
    return version.split(" ")[-1].partition("-")[0]


def _table(headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, ("---",) * len(headings), *rows))
