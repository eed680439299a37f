"""Memory of a process and all that it started, as the kernel counts it."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import Self

MEGABYTE = 1_000_000


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    found = [pid]
    for member in found:  # grows while it is walked
        try:
            for task in Path(f"/proc/{member}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue  # it has just ended
    return found


def proportional(pid: int) -> int:
    """Bytes of a family in memory; a page that several processes share counts once (PSS)."""
    return sum(_rollup(member, ("Pss:",)) for member in family(pid))


def private(pid: int) -> int:
    """Bytes of a family that belong to one process only: what would be free without it."""
    return sum(_rollup(member, ("Private_Clean:", "Private_Dirty:")) for member in family(pid))


def _rollup(pid: int, names: tuple[str, ...]) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(names))


class PeakWatch:
    """Looks ten times a second while it is entered, and then appends the most that it saw to `peaks`, in MB."""

    def __init__(self, pid: int, peaks: list[float]) -> None:
        self._pid = pid
        self._peaks = peaks
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @classmethod
    def maybe(cls, pid: int, peaks: list[float] | None) -> contextlib.AbstractContextManager[object]:
        """Without a list, one that does not look: looking costs a little."""
        return contextlib.nullcontext() if peaks is None else cls(pid, peaks)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        peak = 0
        while not self._over.wait(0.1):
            peak = max(peak, proportional(self._pid))
        self._peaks.append(peak / MEGABYTE)
