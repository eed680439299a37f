"""Sites that know which process asks them: the kernel tells whose the other end of a connection is."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.site import Action, FaultyExchange, FaultySite

SOURCE = re.compile(r"tags=s(\d+)|/data/s(\d+)/")


@dataclass(frozen=True, slots=True)
class Process:
    """One that can be told from all others, also from a later one with its number."""

    pid: int
    born: int
    """In clock ticks since the machine's start."""
    worker: str
    """The folder of the service that it belongs to."""

    @property
    def lives(self) -> bool:
        return _born(self.pid) == self.born


@dataclass(slots=True, kw_only=True)
class Visit:
    """One request, by the monotonic clock."""

    at: float
    until: float
    """When the answer's last byte was about to be sent; `at`, when the process was no more by then."""
    site: str
    source: int
    process: Process | None
    """None: it has ended between its request and our look."""


class _Exchange(FaultyExchange):
    def setup(self) -> None:
        super().setup()
        self.process = _process_at(self.client_address[1], self.server.server_address[1])


class WatchedSite(FaultySite):
    """Remembers each request of a source as a visit."""

    exchange = _Exchange

    def __init__(self) -> None:
        super().__init__()
        self.visits: list[Visit] = []
        self._open: dict[FaultyExchange, Visit] = {}

    def receive(self, exchange: FaultyExchange) -> Action | None:
        assert isinstance(exchange, _Exchange)
        if found := SOURCE.search(exchange.path):
            now, source = time.monotonic(), int(found[1] or found[2])
            visit = Visit(at=now, until=now, site=self.root, source=source, process=exchange.process)
            self._open[exchange] = visit
            self.visits.append(visit)
        return super().receive(exchange)

    def leave(self, exchange: FaultyExchange) -> None:
        visit = self._open.pop(exchange, None)
        if visit is not None and visit.process is not None and visit.process.lives:
            visit.until = time.monotonic()
        super().leave(exchange)


def _process_at(port: int, server: int) -> Process | None:
    """Who holds the client's end of a connection on loopback."""
    ends = re.compile(rf"0100007F:{port:04X} 0100007F:{server:04X} 01(?: +\S+){{5}} +(\d+) ")
    if (found := ends.search(Path("/proc/net/tcp").read_text())) is None:
        return None
    wanted = f"socket:[{found[1]}]"
    for pid in sorted((int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdigit()), reverse=True):
        if any(target == wanted for target in _open_files(pid)):
            born, worker = _born(pid), _worker(pid)
            return Process(pid, born, worker) if born else None
    return None


def _open_files(pid: int) -> Iterator[str]:
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            yield str(link.readlink())
    except OSError:
        return


def _born(pid: int) -> int:
    """0 for one that has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] in "ZX" else int(fields[19])


def _worker(pid: int) -> str:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    paths = [Path(entry.decode().partition("=")[2]) for entry in environment if entry.startswith(b"RUNTIME_PATH=")]
    return paths[0].parent.name if paths else ""
