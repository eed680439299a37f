"""Plays a plan with real services, and gathers the facts."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.broker_node import BrokerNode
from tests.torture.plan import Change
from tests.torture.world import World

from .judge import Facts, Struck
from .plan import Blow, Hit, Plan
from .visits import WatchedSite

PATIENCE = 30.0
"""Seconds that a hit waits for its worker to have a run."""
SMALL_FILE = 300


class Fleet:
    def __init__(self, home: Path, node: BrokerNode, catalog: str, plan: Plan) -> None:
        """`catalog`: the URL of an empty database."""
        self.plan, size = plan, plan.size
        self._sites = [WatchedSite() for _ in range(size.sites)]
        self.world = World(
            home,
            node,
            catalog,
            size.workers,
            self._sites,
            size.sources_per_site,
            SYNC_CONCURRENCY=size.slots,
            SITE_CONCURRENCY=size.site_concurrency,
            DOWNLOADS_PER_SOURCE=size.lanes,
        )
        self._struck: list[Struck] = []
        self._due: list[tuple[float, Callable[[], None]]] = []
        """What is still to happen, and when: in seconds since `_began`."""
        self._began = 0.0

    def __enter__(self) -> Self:
        self.world.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.world.__exit__(kind, error, trace)

    def play(self) -> Facts:
        """From the start of all workers to the end of all runs, and what was seen meanwhile."""
        size = self.plan.size
        for site in self._sites:
            site.listing_latency = site.file_latency = size.latency
        for source in size.sources:
            count = size.long_files if size.is_long(source) else size.files
            self.world.change(Change(source=source, added=(SMALL_FILE,) * count, removed=0))
        self.world.start_all()
        self._let_it_happen()
        self.world.drain()
        for number in list(self.world.running):
            self.world.stop(number)
        self.world.look()
        return Facts(
            seen=self.world.seen,
            visits=[visit for site in self._sites for visit in site.visits],
            most_at_once={site.root: site.max_active for site in self._sites},
            site_concurrency=size.site_concurrency,
            lanes=size.lanes,
            struck=self._struck,
            expected_strikes=len(self.plan.hits),
        )

    def _let_it_happen(self) -> None:
        orders, self._began = list(self.plan.orders), time.monotonic()
        self._due = [(hit.at, partial(self._hit, hit)) for hit in self.plan.hits]
        while orders or self._due:
            now = time.monotonic() - self._began
            ready = [source for at, source in orders if at <= now]
            del orders[: len(ready)]
            if ready:
                self.world.post(ready)
            for entry in [entry for entry in self._due if entry[0] <= now]:
                self._due.remove(entry)
                entry[1]()
            time.sleep(0.05)

    def _hit(self, hit: Hit) -> None:
        """Now, or later: it is to come in the middle of something, and a pause in what takes longer than a lease."""
        now = time.monotonic() - self._began
        sources = self._sources_of(hit.worker)
        wanted = [source for source in sources if self.plan.size.is_long(source) or hit.blow is Blow.KILL]
        if not wanted and now < hit.at + PATIENCE:
            self._due.append((now, partial(self._hit, hit)))
            return
        struck = Struck(what=str(hit.blow), worker=f"machine{hit.worker}", at=time.monotonic(), sources=sources)
        self._struck.append(struck)
        if hit.blow is Blow.KILL:
            self.world.kill(hit.worker)
            back = partial(self.world.start, hit.worker, "")
        else:
            pid = self.world.running[hit.worker].pid
            os.kill(pid, signal.SIGSTOP)
            back = partial(os.kill, pid, signal.SIGCONT)
            struck.until = struck.at + (hit.back_after or math.inf)
        if hit.back_after is not None:
            self._due.append((now + hit.back_after, back))

    def _sources_of(self, number: int) -> list[int]:
        """The sources that a worker has runs of. Workers are named by host and process."""
        pid = self.world.running[number].pid
        with self.world.reading() as db:
            found = db(f"SELECT source_id FROM runs WHERE state = 'running' AND owner LIKE '%-{pid}-%'")
        return [source for (source,) in found]
