"""What is told to Prometheus. docs/metrics.md says what each metric means; a test compares the two.

Imported by `serve` only, and only when it answers over HTTP.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from . import __version__
from .amqp.connection import Broker
from .catalog.calls import CatalogCalls
from .catalog.overview import Load
from .domain.errors import OrderFault
from .domain.reasons import Kind, Reason
from .domain.removals import RemoteDeletes
from .domain.runs import RunState
from .gallery.memory import Memory
from .sync.tally import LATENCIES, Tally, Underway
from .web.glance import Glance

PREFIX = "http_downloader_"

ENDINGS = [
    (str(RunState.SYNCHRONIZED), ""),
    *((str(RunState.PARTIAL if reason.kind is Kind.GAP else RunState.FAILED), str(reason)) for reason in Reason),
]
"""Told from the start: the first one that failed would not show as an increase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Bytes of the disk of CONTENT_ROOT."""

    free: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What had to be looked at; None: it could not be seen in time."""

    load: Load | None
    ready: Mapping[str, str | None] | None
    """For each part of the service what is wrong with it."""
    space: Space | None
    memory: Memory | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What this process is, and where its numbers are found."""

    worker: str
    gallery_dl: str
    slots: int
    tally: Tally
    performed: Callable[[], list[int]]
    """The runs that go on here."""
    calls: CatalogCalls
    broker: Broker | None


class Metrics:
    """`glances`: how each field of `Seen` is looked at."""

    def __init__(self, facts: Facts, glances: Mapping[str, Glance[object]]) -> None:
        self._facts = facts
        self._glances = glances
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    async def exposition(self, accepted: str) -> tuple[bytes, str]:
        """All metrics, and their content type. `accepted`: the header Accept of who asks."""
        values = await asyncio.gather(*(glance.value() for glance in self._glances.values()))
        seen = Seen(**dict(zip(self._glances, values, strict=True)))  # type: ignore[arg-type]
        registry = CollectorRegistry()
        registry.register(_Families([*_families(self._facts, seen), *self._process.collect()]))
        encode, content_type = choose_encoder(accepted)
        return encode(registry), content_type


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _families(facts: Facts, seen: Seen) -> Iterator[Metric]:
    yield from _about(facts)
    yield from _orders(facts.tally)
    yield from _runs(facts.tally)
    yield from _files(facts.tally)
    yield from _sites(facts.tally)
    yield from _events(facts.tally, facts.broker)
    yield from _work(facts, facts.tally.underway(facts.performed()), seen.memory)
    yield _summary("transaction_seconds", "Transactions of the catalog.", facts.calls.count, facts.calls.seconds)
    yield from _catalog(seen.load)
    ready = {} if seen.ready is None else {(part,): float(why is None) for part, why in seen.ready.items()}
    yield _gauge("part_ready", "1: this part is as a run needs it.", ready, ("part",))
    space = _fields(seen.space)
    yield _gauge("content_root_free_bytes", "Free space of CONTENT_ROOT.", space.get("free"))
    yield _gauge("content_root_size_bytes", "Size of the disk of CONTENT_ROOT.", space.get("size"))


def _about(facts: Facts) -> Iterator[Metric]:
    versions = (__version__, facts.gallery_dl, platform.python_version())
    yield _gauge("build_info", "Versions.", {versions: 1.0}, ("version", "gallery_dl", "python"))
    engine = facts.calls.catalog.engine.dialect.name
    yield _gauge("worker_info", "The name of this worker.", {(facts.worker, engine): 1.0}, ("worker", "catalog"))


def _orders(tally: Tally) -> Iterator[Metric]:
    yield _counter("orders_accepted", "Orders that were journalled.", tally.accepted)
    yield _counter("orders_joined", "Those among them that joined a queued run.", tally.joined)
    rejected = {(str(fault),): tally.rejected[fault] for fault in OrderFault}
    yield _counter("orders_rejected", "Orders that cannot be run.", rejected, ("fault",))


def _runs(tally: Tally) -> Iterator[Metric]:
    yield _counter("attempts_started", "Attempts of runs.", tally.attempts)
    ended = {ending: tally.ended[ending] for ending in dict.fromkeys((*ENDINGS, *tally.ended))}
    yield _counter("runs_ended", "Runs that came to their end.", ended, ("state", "reason"))


def _files(tally: Tally) -> Iterator[Metric]:
    yield _counter("files_downloaded", "Files that came in.", tally.downloaded)
    yield _counter("downloaded_bytes", "Their bytes.", tally.bytes)
    yield _counter("files_skipped", "Listed files that were there.", tally.skipped)
    yield _counter("files_failed", "Transfers that failed, of each attempt.", tally.failed)
    removed = {(str(action),): tally.removed[action] for action in (RemoteDeletes.TRASH, RemoteDeletes.DELETE)}
    yield _counter("files_removed", "Files that were gone at the remote, and went.", removed, ("action",))


def _sites(tally: Tally) -> Iterator[Metric]:
    times = {(site,): count for site, count in tally.waits.items()}
    yield _counter("site_waits", "Times that a site asked to wait.", times, ("site",))
    seconds = {(site,): count for site, count in tally.waited.items()}
    yield _counter("site_wait_seconds", "Seconds that a site asked to wait.", seconds, ("site",))


def _events(tally: Tally, broker: Broker | None) -> Iterator[Metric]:
    total, buckets = 0, []
    for bound, count in zip((*LATENCIES, "+Inf"), tally.latencies.counts, strict=True):
        total += count
        buckets.append((str(bound), float(total)))
    name, words = f"{PREFIX}event_latency_seconds", "From the commit of an event to the broker's confirmation."
    yield HistogramMetricFamily(name, words, buckets=buckets, sum_value=tally.latencies.seconds)
    connected = None if broker is None else broker.is_connected
    yield _gauge("broker_connected", "1: there is a connection to the broker.", connected)
    blocked = None if broker is None else broker.is_blocked
    yield _gauge("broker_blocked", "1: the broker takes no messages for now.", blocked)


def _work(facts: Facts, underway: list[Underway], memory: Memory | None) -> Iterator[Metric]:
    taken = _fields(memory)
    yield _gauge("slots", "Runs that may go on at once here.", facts.slots)
    yield _gauge("slots_used", "Runs that go on here.", len(facts.performed()))
    yield _gauge("lanes_busy", "Downloads under way here.", sum(run.lanes for run in underway))
    yield _gauge("gallery_processes", "Gallery processes, their server included.", taken.get("processes"))
    yield _gauge("gallery_private_bytes", "Memory that they share with nobody.", taken.get("private"))
    yield _gauge("gallery_resident_bytes", "Memory that they share, too, once for each.", taken.get("resident"))


def _catalog(load: Load | None) -> Iterator[Metric]:
    """The same at every worker that shares the catalog: hence the name."""
    known = _fields(load)
    runs = {} if load is None else {("waiting",): load.waiting, ("delayed",): load.delayed}
    yield _gauge("catalog_runs_queued", "Runs in the journal that nobody performs.", runs, ("kind",))
    yield _gauge("catalog_runs_running", "Runs that some worker performs.", known.get("running"))
    yield _gauge(
        "catalog_oldest_run_seconds", "How long the first queued run could have begun.", known.get("waiting_age")
    )
    yield _gauge("catalog_outbox_events", "Events that the broker has not confirmed.", known.get("events"))
    yield _gauge("catalog_oldest_event_seconds", "Age of the first one.", known.get("events_age"))
    yield _gauge("catalog_files_held", "Files whose removal waits for a person.", known.get("held"))


Values = Mapping[Any, float] | float | None
"""By the values of the labels, a tuple; or the one value; or none: it is not known."""


def _fields(seen: Load | Memory | Space | None) -> dict[str, float]:
    return {} if seen is None else asdict(seen)


def _counter(name: str, words: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    return _with_samples(CounterMetricFamily(PREFIX + name, words, labels=labels), values)


def _gauge(name: str, words: str, values: Values, labels: tuple[str, ...] = ()) -> Metric:
    """Without a value it is only announced."""
    return _with_samples(GaugeMetricFamily(PREFIX + name, words, labels=labels), values)


def _with_samples(family: CounterMetricFamily | GaugeMetricFamily, values: Values) -> Metric:
    if isinstance(values, Mapping):
        for labels, value in values.items():
            family.add_metric(labels, value)
    elif values is not None:
        family.add_metric((), float(values))
    return family


def _summary(name: str, words: str, count: int, total: float) -> Metric:
    return SummaryMetricFamily(PREFIX + name, words, count_value=count, sum_value=total)
