"""The rows of the table: each prepares what it needs, measures both sides in turn, and yields its lines."""

from __future__ import annotations

import contextlib
import functools
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks import filler
from benchmarks.figures import BenchmarkError, Goal, Judged, Line, Side, interleaved, percentile
from benchmarks.memory import MEGABYTE, PeakWatch, private
from benchmarks.publishing import publish_confirmed
from benchmarks.sides import CommandLine, Ours, our_service, our_workers
from benchmarks.site import Sites, SiteSettings
from http_downloader.catalog.engine import open_catalog
from tests import hot_calls
from tests.databases import database

PICTURE = 20_000
TINY = 200
"""Bytes of a file that is there only to be known."""
GALLERY_DL = "gallery-dl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How much of everything. `rows`: of other sources in the big catalog."""

    repetitions: int = 3
    known: int = 10_000
    hooked: int = 20
    lanes_files: int = 1_000
    new_files: int = 2_000
    big: int = 1 << 30
    orders: int = 200
    calls: int = 10
    paced: int = 1_000
    slow_sites: int = 50
    slow_files: int = 20
    rows: int = 5_000_000
    engines: tuple[str, ...] = ("sqlite", "postgresql", "mariadb")
    """Of the big catalog."""
    shared_orders: int = 80
    with_cold_start: bool = True
    """Measure the `sync` command beside the service: in a small gallery its start is most of the time."""


QUICK = Sizes(
    known=2_000,
    hooked=10,
    lanes_files=100,
    new_files=500,
    big=1 << 27,
    orders=60,
    calls=4,
    paced=100,
    slow_sites=12,
    slow_files=2,
    rows=30_000,
    engines=("sqlite",),
    with_cold_start=False,
)
"""As many repetitions as in full size, so that one figure that something else on the machine has spoilt is not the
median; and so much of everything that what each run costs besides its files is the smaller part."""

Row = Callable[[Path, Sizes], Iterator[Line]]
"""Gets an empty folder, which is removed afterwards."""


def resync(home: Path, sizes: Sizes) -> Iterator[Line]:
    """Nothing has changed: with a latency for each page of the listing, then without one."""
    with Sites(SiteSettings(files=sizes.known, size=TINY)) as sites, our_service(home / "ours") as ours:
        gallery = _Known(ours, sites, CommandLine(home / "bare"), sizes.known)
        sites.set(listing_latency=0.05)
        both = interleaved(sizes.repetitions, {"ours": gallery.ours, "bare": gallery.bare})
        yield Line(
            row="resync",
            what=f"re-synchronize {sizes.known:,} unchanged files, 50 ms per page",
            unit="s",
            ours=both["ours"],
            other=both["bare"],
            against=GALLERY_DL,
            goal=Goal(limit=1.2, judged=Judged.RATIO),
        )
        sites.set(listing_latency=0)
        yield from _resync_without_latency(gallery, sizes)


def _resync_without_latency(gallery: _Known, sizes: Sizes) -> Iterator[Line]:
    sides = {"ours": gallery.ours, "bare": gallery.bare, "publishing": gallery.publishing}
    figures = interleaved(sizes.repetitions, sides)
    slower = max("bare", "publishing", key=lambda side: statistics.median(figures[side]))
    yield Line(
        row="resync",
        what="the same without latency",
        unit="s",
        ours=figures["ours"],
        other=figures[slower],
        against=f"{GALLERY_DL}, the slower one" if slower == "bare" else "bare publishing, the slower one",
        goal=Goal(limit=1.3, judged=Judged.RATIO),
    )
    for name, side in ((GALLERY_DL, "bare"), ("bare publishing", "publishing")):
        if side != slower:
            yield Line(
                row="resync",
                what=f"– beside it: {name}",
                unit="s",
                ours=figures["ours"],
                other=figures[side],
                against=name,
                goal=None,
            )
    hooks = [gallery.hook_per_file(sizes.hooked) for _ in range(sizes.repetitions)]
    yield Line(
        row="resync",
        what=f"– per known file (exec hook: from {sizes.hooked} files)",
        unit="ms",
        ours=[1000 * seconds / sizes.known for seconds in figures["ours"]],
        other=[1000 * seconds for seconds in hooks],
        against="exec hook per file",
        goal=Goal(limit=500, judged=Judged.SPEEDUP, at_least=True),
    )


class _Known:
    """A gallery whose files both programs have: they share the folder, in which neither finds anything to do."""

    SOURCE, FOLDER = 1, "known"

    def __init__(self, ours: Ours, sites: Sites, bare: CommandLine, files: int) -> None:
        self._ours, self._sites, self._bare, self._files = ours, sites, bare, files
        self._url = sites.url("known")
        ours.synchronize(self._url, self.SOURCE, self.FOLDER)
        ours.expect("downloaded", files)
        sites.reset()

    def ours(self, _repetition: int) -> float:
        took = self._ours.synchronize(self._url, self.SOURCE, self.FOLDER)
        self._ours.expect("skipped", self._files)
        self._expect_no_download()
        return took

    def bare(self, _repetition: int) -> float:
        took = self._bare.run(self._url, self._ours.folder(self.FOLDER))
        self._expect_no_download()
        return took

    def publishing(self, _repetition: int) -> float:
        took = publish_confirmed(self._ours.queues.names["skipped"], self._files + 1)
        self._ours.expect("skipped", self._files + 1)
        return took

    def hook_per_file(self, files: int) -> float:
        """Seconds that the exec hook adds for each known file; gallery-dl's own start is not counted in."""
        self._sites.set(files=files)
        try:
            folder = self._ours.folder(self.FOLDER)
            without = self._bare.run(self._url, folder)
            queue = self._ours.queues.names["skipped"]
            with_hook = self._bare.run(self._url, folder, hook_queue=queue)
            self._ours.expect("skipped", files)
        finally:
            self._sites.set(files=self._files)
        return (with_hook - without) / files

    def _expect_no_download(self) -> None:
        if found := self._sites.counters().files:
            raise BenchmarkError(f"{found} files were downloaded that should have been known")


def lanes(home: Path, sizes: Sizes) -> Iterator[Line]:
    """New files from a site that takes 50 ms for each answer."""
    settings = SiteSettings(files=sizes.lanes_files, size=PICTURE, listing_latency=0.05, file_latency=0.05)
    with (
        Sites(settings) as sites,
        our_service(home / "8", DOWNLOADS_PER_SOURCE=8) as eight,
        our_service(home / "16", DOWNLOADS_PER_SOURCE=16) as sixteen,
    ):
        new = {8: _New(eight, sites, CommandLine(home / "bare"), settings), 16: _New(sixteen, sites, None, settings)}
        sides: dict[str, Side] = {"8": new[8].by_order, "16": new[16].by_order, "bare": new[8].bare}
        if sizes.with_cold_start:
            sides |= {"8, cold": new[8].by_command, "16, cold": new[16].by_command}
        figures = interleaved(sizes.repetitions, sides)
    for count, limit in ((8, 7), (16, 13)):
        yield Line(
            row="lanes",
            what=f"{sizes.lanes_files:,} new files of 20 kB at 50 ms latency, {count} lanes",
            unit="s",
            ours=figures[str(count)],
            other=figures["bare"],
            against=GALLERY_DL,
            goal=Goal(limit=limit, judged=Judged.SPEEDUP, at_least=True),
            settings={"DOWNLOADS_PER_SOURCE": count},
        )
        if f"{count}, cold" in figures:
            yield _cold("lanes", figures[f"{count}, cold"], figures["bare"], Judged.SPEEDUP)


def new_files(home: Path, sizes: Sizes) -> Iterator[Line]:
    """New files from a site that answers at once: what our catalog, hashes and events cost."""
    settings = SiteSettings(files=sizes.new_files, size=PICTURE)
    with Sites(settings) as sites, our_service(home / "ours") as ours:
        new = _New(ours, sites, CommandLine(home / "bare"), settings)
        sides: dict[str, Side] = {"ours": new.by_order, "bare": new.bare}
        if sizes.with_cold_start:
            sides["cold"] = new.by_command
        figures = interleaved(sizes.repetitions, sides)
    yield Line(
        row="new-files",
        what=f"{sizes.new_files:,} new files of 20 kB, no latency",
        unit="s",
        ours=figures["ours"],
        other=figures["bare"],
        against=GALLERY_DL,
        goal=Goal(limit=1.2, judged=Judged.RATIO),
    )
    if "cold" in figures:
        yield _cold("new-files", figures["cold"], figures["bare"])


def _cold(row: str, ours: list[float], bare: list[float], judged: Judged = Judged.RATIO) -> Line:
    what = "– as a command: http-downloader sync, start included"
    return Line(row=row, what=what, unit="s", ours=ours, other=bare, against=GALLERY_DL, goal=None, judged=judged)


def big_file(home: Path, sizes: Sizes) -> Iterator[Line]:
    """One file, as large as they come: how fast it comes in, and what it takes in memory."""
    settings = SiteSettings(files=1, size=sizes.big)
    our_peaks: list[float] = []
    bare_peaks: list[float] = []
    with Sites(settings) as sites, our_service(home / "ours") as ours:
        new = _New(ours, sites, CommandLine(home / "bare"), settings)
        sides: dict[str, Side] = {
            "ours": lambda repetition: new.by_order(repetition, our_peaks),
            "bare": lambda repetition: new.bare(repetition, bare_peaks),
        }
        if sizes.with_cold_start:
            sides["cold"] = new.by_command
        figures = interleaved(sizes.repetitions, sides)
    yield Line(
        row="big-file",
        what=f"one file of {sizes.big / (1 << 30):g} GiB",
        unit="s",
        ours=figures["ours"],
        other=figures["bare"],
        against=GALLERY_DL,
        goal=Goal(limit=1.25, judged=Judged.RATIO),
    )
    if "cold" in figures:
        yield _cold("big-file", figures["cold"], figures["bare"])
    yield Line(
        row="big-file",
        what="– peak memory, the service and all its processes (PSS)",
        unit="MB",
        ours=our_peaks,
        other=bare_peaks,
        against=GALLERY_DL,
        goal=Goal(limit=150, judged=Judged.OURS),
    )


class _New:
    """A gallery that is new each time: each measurement asks for another tag, into another folder."""

    def __init__(self, ours: Ours, sites: Sites, bare: CommandLine | None, settings: SiteSettings) -> None:
        self._ours, self._sites, self._bare, self._settings = ours, sites, bare, settings

    def by_order(self, repetition: int, peaks: list[float] | None = None) -> float:
        name = f"order{repetition}"
        with PeakWatch.maybe(self._ours.service.pid, peaks):
            took = self._ours.synchronize(self._sites.url(name), 1 + repetition, name)
        self._check_ours(self._ours.folder(name))
        return took

    def by_command(self, repetition: int) -> float:
        name = f"command{repetition}"
        took = self._ours.sync(self._sites.url(name), name)
        self._check_ours(self._ours.idle.content / name)
        return took

    def bare(self, repetition: int, peaks: list[float] | None = None) -> float:
        assert self._bare is not None
        name = f"bare{repetition}"
        folder = self._ours.folder(name)
        took = self._bare.run(self._sites.url(name), folder, peaks=peaks)
        self._check_folder(folder)
        return took

    def _check_ours(self, folder: Path) -> None:
        self._ours.expect("downloaded", self._settings.files)
        self._check_folder(folder)

    def _check_folder(self, folder: Path) -> None:
        """Each file there and whole; then make room."""
        sizes = [file.stat().st_size for file in folder.iterdir()]
        if sizes != [self._settings.size] * self._settings.files:
            raise BenchmarkError(f"{len(sizes)} files with {sum(sizes)} bytes are not what the site has")
        shutil.rmtree(folder)


SITES = 4


def orders(home: Path, sizes: Sizes) -> Iterator[Line]:
    """Many small sources, nothing new in any: what an order costs besides its files."""
    settings = [SiteSettings(files=10, size=TINY)] * SITES
    with Sites(*settings) as sites, our_service(home / "ours", SYNC_CONCURRENCY=SITES) as ours:
        bare = CommandLine(home / "bare")

        def order_all(_repetition: int) -> float:
            began = time.perf_counter()
            for number in range(sizes.orders):
                ours.order(sites.url(f"tag{number}", number % SITES), 1 + number, f"small/{number}")
            ours.wait_synchronized(sizes.orders)
            return sizes.orders / (time.perf_counter() - began)

        def call(_repetition: int) -> float:
            calls = [
                bare.run(sites.url(f"tag{number}", number % SITES), ours.folder(f"small/{number}"))
                for number in range(sizes.calls)
            ]
            return sizes.calls / sum(calls)

        order_all(0)  # from here on every file is known
        ours.expect("downloaded", sizes.orders * 10)
        figures = interleaved(sizes.repetitions, {"ours": order_all, "bare": call})
        ours.expect("skipped", sizes.orders * 10 * sizes.repetitions)
    runs = {"SYNC_CONCURRENCY": SITES}
    yield Line(
        row="orders",
        what=f"{sizes.orders} orders, each with 10 known files, 4 runs at once on 4 sites",
        unit="orders/s",
        ours=figures["ours"],
        goal=Goal(limit=25, judged=Judged.OURS, at_least=True),
        settings=dict(runs),
    )
    yield Line(
        row="orders",
        what="– against one call after the other",
        unit="orders/s",
        ours=figures["ours"],
        other=figures["bare"],
        against=GALLERY_DL,
        goal=Goal(limit=10, judged=Judged.RATIO, at_least=True),
        settings=dict(runs),
    )


SHARED_SITES = 16
SLOTS = 2
SHARED_FILES = 4
SLOW = 0.75


def workers(home: Path, sizes: Sizes) -> Iterator[Line]:
    """One, two and four services on one broker and one PostgreSQL: sites that take their time, more of them than slots."""
    settings = [SiteSettings(files=SHARED_FILES, size=PICTURE, listing_latency=SLOW, file_latency=SLOW)] * SHARED_SITES
    with contextlib.ExitStack() as started:
        sites = started.enter_context(Sites(*settings))
        sides: dict[str, Side] = {}
        for count in (1, 2, 4):
            place = home / str(count)
            url = started.enter_context(database("postgresql", place, durable=True))
            runs = {"SYNC_CONCURRENCY": SLOTS, "DATABASE_URL": url}
            ours = started.enter_context(our_workers(place, count, **runs))
            sides[str(count)] = functools.partial(_order_new, ours, sites, sizes.shared_orders)
        figures = interleaved(sizes.repetitions, sides)
    what = f"{sizes.shared_orders} orders, each with {SHARED_FILES} new files, {SHARED_SITES} sites with {1000 * SLOW:.0f} ms latency"
    facts: dict[str, object] = {"SYNC_CONCURRENCY": SLOTS, "DATABASE_URL": "postgresql://…"}
    yield Line(
        row="workers",
        what=f"{what}: 1 worker",
        unit="orders/s",
        ours=figures["1"],
        goal=None,
        judged=Judged.OURS,
        settings=dict(facts),
    )
    for count, limit in (("2", 1.8), ("4", 3.4)):
        yield Line(
            row="workers",
            what=f"– {count} workers",
            unit="orders/s",
            ours=figures[count],
            other=figures["1"],
            against="1 worker",
            goal=Goal(limit=limit, judged=Judged.RATIO, at_least=True),
            settings=dict(facts),
        )


def _order_new(ours: Ours, sites: Sites, count: int, repetition: int) -> float:
    """Orders per second, from the first order to the last `source synchronized`; each source is a new one."""
    began = time.perf_counter()
    for number in range(count):
        name = f"{repetition}-{number}"
        ours.order(sites.url(name, number % SHARED_SITES), 1 + repetition * count + number, name)
    ours.wait_synchronized(count)
    took = time.perf_counter() - began
    ours.expect("downloaded", count * SHARED_FILES)
    found = sum(len(list(ours.folder(f"{repetition}-{number}").iterdir())) for number in range(count))
    if found != count * SHARED_FILES:
        raise BenchmarkError(f"{found} files came in, not {count * SHARED_FILES}")
    return count / took


def durability(home: Path, sizes: Sizes) -> Iterator[Line]:
    """What it costs that every file has reached the disk before the catalog has it: small files, no latency."""
    settings = SiteSettings(files=sizes.new_files, size=PICTURE)
    with (
        Sites(settings) as sites,
        our_service(home / "full", DURABILITY="full") as full,
        our_service(home / "fast", DURABILITY="fast") as fast,
    ):
        sides = {"full": _New(full, sites, None, settings).by_order, "fast": _New(fast, sites, None, settings).by_order}
        figures = interleaved(sizes.repetitions, sides)
    yield Line(
        row="durability",
        what=f"{sizes.new_files:,} new files of 20 kB, no latency: DURABILITY=full against fast",
        unit="s",
        ours=figures["full"],
        other=figures["fast"],
        against="ours with DURABILITY=fast",
        goal=None,
        settings={"DURABILITY": "full"},
    )


def latency(home: Path, sizes: Sizes) -> Iterator[Line]:
    """How long after a file is in place the world hears of it, when files come one by one."""
    halves: list[float] = []
    tails: list[float] = []
    settings = SiteSettings(files=sizes.paced, size=PICTURE, pace=50)
    with Sites(settings) as sites, our_service(home / "ours") as ours:
        arrived = ours.arrivals("downloaded")
        for repetition in range(sizes.repetitions):
            arrived.clear()
            name = f"paced{repetition}"
            ours.synchronize(sites.url(name), 1 + repetition, name)
            if len(arrived) != sizes.paced:
                raise BenchmarkError(f"{len(arrived)} of {sizes.paced} files were announced before their source")
            # The last change of a file's inode is its move into place (or its mtime, set right after that).
            waits = [(at - (ours.folder(name) / body["filename"]).stat().st_ctime_ns) / 1e6 for at, body in arrived]
            halves.append(percentile(waits, 50))
            tails.append(percentile(waits, 99))
    what = "file in place → its event, at 50 files per second"
    yield Line(row="latency", what=f"{what}: p50", unit="ms", ours=halves, goal=Goal(limit=50, judged=Judged.OURS))
    yield Line(row="latency", what="– p99", unit="ms", ours=tails, goal=Goal(limit=150, judged=Judged.OURS))


def slow_sites(home: Path, sizes: Sizes) -> Iterator[Line]:
    """Many runs at once that mostly wait: what each of them holds in memory that nobody shares."""
    count = sizes.slow_sites
    settings = SiteSettings(files=sizes.slow_files, size=PICTURE, listing_latency=1, file_latency=1)
    figures = []
    with Sites(*[settings] * count) as sites, our_service(home / "ours", SYNC_CONCURRENCY=count) as ours:
        ours.synchronize(sites.url("first"), 1_000_000, "first")  # what is loaded only once is there now
        ours.expect("downloaded", sizes.slow_files)
        for repetition in range(sizes.repetitions):
            idle = private(ours.service.pid)
            sites.reset()
            for site in range(count):
                ours.order(sites.url(f"slow{repetition}", site), 1 + site + count * repetition, f"{repetition}/{site}")
            most = _most_private(ours, sites, count)
            figures.append((most - idle) / count / MEGABYTE)
            ours.wait_synchronized(count)
            ours.expect("downloaded", count * sizes.slow_files)
            placed = sum(1 for file in ours.folder(str(repetition)).rglob("*.jpg") if file.stat().st_size == PICTURE)
            if placed != count * sizes.slow_files:
                raise BenchmarkError(f"{placed} of {count * sizes.slow_files} files are in place")
    yield Line(
        row="slow-sites",
        what=f"{count} slow sites at once: additional private memory per run; no file lost",
        unit="MB",
        ours=figures,
        goal=Goal(limit=15, judged=Judged.OURS),
        settings={"SYNC_CONCURRENCY": count},
    )


def _most_private(ours: Ours, sites: Sites, count: int) -> int:
    """The most private memory of the service's processes from the moment when all runs are at their files."""
    until = time.monotonic() + 120
    while not all(sites.counters(site).files for site in range(count)):
        if time.monotonic() > until:
            raise BenchmarkError(f"not all of {count} runs were at work at once")
        time.sleep(0.2)
    most = 0
    for _ in range(5):
        most = max(most, private(ours.service.pid))
        time.sleep(0.3)
    return most


ENGINE_NAMES = {"sqlite": "SQLite", "postgresql": "PostgreSQL", "mariadb": "MariaDB"}


def big_catalog(home: Path, sizes: Sizes) -> Iterator[Line]:
    """The same source in an empty and in a huge catalog: work must grow with the source, and not with the catalog."""
    for engine in sizes.engines:
        with (
            Sites(SiteSettings(files=sizes.known, size=TINY)) as sites,
            database(engine, home) as empty,
            database(engine, home) as full,
        ):
            _fill(full, sizes)
            figures = _side_by_side({"empty": empty, "full": full}, home / engine, sites, sizes)
            _check_plans(full, sizes)
        yield Line(
            row="big-catalog",
            what=f"{ENGINE_NAMES[engine]}: re-synchronize {sizes.known:,} files beside {sizes.rows:,} files of other sources",
            unit="s",
            ours=figures["full"],
            other=figures["empty"],
            against="ours in an empty catalog",
            goal=Goal(limit=1.2, judged=Judged.RATIO),
            settings={"DATABASE_URL": f"{engine}://…"},
        )


def _fill(url: str, sizes: Sizes) -> None:
    catalog = open_catalog(url)
    # None of the runs is queued: the service would begin them.
    filler.fill(catalog, replace(hot_calls.shape(sizes.rows), queued=0))
    catalog.close()


def _side_by_side(urls: dict[str, str], home: Path, sites: Sites, sizes: Sizes) -> dict[str, list[float]]:
    with contextlib.ExitStack() as services:
        sides: dict[str, Side] = {}
        for name, url in urls.items():
            ours = services.enter_context(our_service(home / name, DATABASE_URL=url))
            known = _Known(ours, sites, CommandLine(home / f"bare-{name}"), sizes.known)
            known.ours(0)  # what the fill has left to do is done before anything is measured
            sides[name] = known.ours
        return interleaved(sizes.repetitions, sides)


def _check_plans(url: str, sizes: Sizes) -> None:
    """What `make test` checks in a smaller catalog. In quick sizes planners may rightly choose otherwise."""
    catalog = open_catalog(url)
    try:
        world = hot_calls.world_of(catalog)
        problems = [problem for name in hot_calls.CALLS if (problem := hot_calls.too_much(world, name))]
        if problems and sizes.rows >= 1_000_000:
            raise BenchmarkError("\n".join(problems))
    finally:
        catalog.close()


ROWS: dict[str, Row] = {
    "resync": resync,
    "lanes": lanes,
    "new-files": new_files,
    "big-file": big_file,
    "durability": durability,
    "orders": orders,
    "workers": workers,
    "latency": latency,
    "slow-sites": slow_sites,
    "big-catalog": big_catalog,
}

NOT_QUICK = frozenset({"workers"})
"""Rows that say nothing in small: what they measure is mostly waiting."""
