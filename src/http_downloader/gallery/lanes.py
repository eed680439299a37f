"""The parallel downloads of a run: threads that only transfer, and the gate that keeps them polite.

The extractor's thread walks the listing and hands over finished transfers; nothing here formats a name or reads the
listing.
"""

from __future__ import annotations

import errno
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..domain.politeness import full_pace, refused, succeeded
from .disk import Disk
from .hooks import Report
from .messages import Busy, Progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .transfer import Transfer

AHEAD = 2
"""Transfers that wait for each lane: more, and signed URLs run out before their turn."""

TELL_EVERY = 0.5
"""Seconds between two words on how many lanes are at work."""

MKDIR_ATTEMPTS = 20
"""Runs share the folder in which their part folders lie, and each removes it at its end when it is empty."""


class RateLimitedError(Exception):
    """The site asks to wait longer than RATE_LIMIT_MAX_WAIT: the run is to be continued later."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the site asks to wait {seconds:.0f} s")
        self.seconds = seconds


class Gate:
    """Lets so many transfers in at a time as the site bears. Shared by all lanes of a run."""

    def __init__(
        self,
        lanes: int,
        max_wait: float,
        halt: threading.Event,
        waiting: Callable[[float], None],
        rests_until: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """`rests_until`: when the site may be asked again, as others were told; of the monotonic clock."""
        self._pace = full_pace(lanes)
        self._max_wait = max_wait
        self._halt = halt
        self._waiting = waiting
        self._rests_until = rests_until
        self._active = 0
        self._changed = threading.Condition()
        self._next_start = 0.0

    @contextmanager
    def enter(self, interval: float) -> Iterator[float]:
        """Wait for a turn. `interval`: seconds between two starts, over all lanes. Gives the time of the start.

        Raises `RateLimitedError` when the wait would be too long.
        """
        with self._changed:
            while not self._halt.is_set():
                next_start = self._next_start if interval else 0.0
                pause = max(self._pace.resume_at, self._rests_until(), next_start) - time.monotonic()
                if pause > self._max_wait:
                    raise RateLimitedError(pause)
                if pause <= 0 and self._active < self._pace.lanes:
                    break
                self._changed.wait(min(pause, 1.0) if pause > 0 else 1.0)
            self._active += 1
            begun_at = time.monotonic()
            self._next_start = begun_at + interval
        try:
            yield begun_at
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def was_refused(self, begun_at: float, retry_after: float | None) -> None:
        with self._changed:
            self._pace = refused(self._pace, time.monotonic(), begun_at=begun_at, retry_after=retry_after)
            pause = self._pace.resume_at - time.monotonic()
        if pause >= 1:
            self._waiting(pause)

    def went_well(self) -> None:
        with self._changed:
            self._pace = succeeded(self._pace, time.monotonic())
            self._changed.notify_all()


class RateLimit:
    """gallery-dl's option `rate` (bytes per second), over all lanes together."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, count: int, rate: float) -> None:
        """Wait until `count` more bytes fit."""
        with self._lock:
            now = time.monotonic()
            self._free_at = max(self._free_at, now) + count / rate
            pause = self._free_at - now - count / rate
        if pause > 0:
            time.sleep(pause)


class Lane:
    """One of the parallel downloads: its part folder, and its progress."""

    def __init__(self, number: int, disk: Disk, partial: str, base: str, report: Report) -> None:
        self.number = number
        self._disk = disk
        self._part_folder = f"{partial}/{number}"
        self.folder = disk.root / self._part_folder
        self._base = base
        self._report = report
        self._path = ""
        self._next = 0.0

    def open(self) -> None:
        """Make its folder. Only now: most runs find nothing new, and need none. Raises `StorageError`."""
        for _ in range(100):
            try:
                self._disk.make_folder(self._part_folder, lasting=False)
            except FileNotFoundError:
                continue  # a run that has ended just now took the empty folder above away
            return
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.folder))

    def sweep(self) -> None:
        """What an earlier transfer left behind must never be taken for the beginning of this one."""
        try:
            for leftover in self.folder.iterdir():
                leftover.unlink(missing_ok=True)
        except FileNotFoundError:
            self._disk.check_there()
            self.open()

    # What gallery-dl's downloaders tell their terminal output.

    def start(self, path: str) -> None:
        self._path = path.removeprefix(self._base)
        self._next = time.monotonic() + 0.2

    def skip(self, path: str) -> None:
        pass

    def success(self, path: str) -> None:
        pass

    def progress(self, total: int | None, done: int, _speed: int) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + 0.2
            self._report(Progress(self._path, done, total))


class Lanes:
    """`failed` is called in a lane's thread with what no transfer handles: a disk that cannot be written, say."""

    def __init__(
        self, lanes: list[Lane], halt: threading.Event, failed: Callable[[BaseException], None], report: Report
    ) -> None:
        self._lanes = lanes
        self._halt = halt
        self._failed = failed
        self._report = report
        self._busy = self._told = 0
        self._tell_next = 0.0
        self._queue: queue.Queue[Transfer | None] = queue.Queue(AHEAD * len(lanes))
        self._threads: list[threading.Thread] = []
        self._idle = threading.Condition()

    def hand_over(self, transfer: Transfer) -> None:
        """Waits while enough transfers are ahead. A lane's thread is started when it is needed first."""
        if len(self._threads) < len(self._lanes):
            lane = self._lanes[len(self._threads)]
            lane.open()
            thread = threading.Thread(target=self._work, args=(lane,), name=f"lane-{lane.number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        with self._idle:
            transfer.job.pending += 1
        self._queue.put(transfer)

    def drain(self, job: Any) -> None:
        """Wait until every transfer of a job is done."""
        with self._idle:
            self._idle.wait_for(lambda: job.pending == 0)

    def close(self) -> None:
        """Wait until all transfers are done, and end the lanes."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self, lane: Lane) -> None:
        opened = False
        while (transfer := self._queue.get()) is not None:
            try:
                self._count(+1)
                if not self._halt.is_set():
                    if not opened:
                        lane.open()
                        opened = True
                    transfer.perform(lane)
            except BaseException as error:
                self._failed(error)
            finally:
                self._count(-1)
                with self._idle:
                    transfer.job.pending -= 1
                    self._idle.notify_all()

    def _count(self, change: int) -> None:
        """Told when there are more than was told, when all are idle, and else now and then."""
        with self._idle:
            self._busy += change
            now = time.monotonic()
            idle = not (self._busy or self._queue.qsize())
            if idle or self._busy > self._told or now >= self._tell_next:
                self._told, self._tell_next = self._busy, now + TELL_EVERY
                self._report(Busy(self._busy))
