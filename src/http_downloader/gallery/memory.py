"""What the gallery processes take of the machine's memory, as Linux tells it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
_WANTED = {"Rss": "resident", "Private_Clean": "private", "Private_Dirty": "private"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Sums over all of them, in bytes. `resident` counts what they share once for each; `private` is what ending
    them would free."""

    processes: int
    private: int
    resident: int


def memory_below(pid: int) -> Memory | None:
    """Of a process and all that it has started; None where the system does not say."""
    sums = {"private": 0, "resident": 0}
    pids = _family(pid)
    try:
        for member in pids:
            _add(member, sums)
    except OSError:
        return None
    return Memory(processes=len(pids), **sums) if pids else None


def _family(pid: int) -> list[int]:
    found, queue = [], [pid]
    while queue:
        found.append(member := queue.pop())
        try:
            tasks = list((PROC / str(member) / "task").iterdir())
            queue += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            found.remove(member)  # it has ended, or there is no such file here
    return found


def _add(pid: int, sums: dict[str, int]) -> None:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return  # it has just ended
    for line in lines[1:]:
        name, _, rest = line.partition(":")
        if name in _WANTED:
            sums[_WANTED[name]] += int(rest.split()[0]) * 1024
