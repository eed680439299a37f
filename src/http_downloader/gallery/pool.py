"""The parent's side: starts gallery processes, reads what they report, ends them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import structlog

from ..domain.errors import GalleryError, OrderFault, OrderRejected, SettingsError
from ..domain.listing import Failure
from ..domain.reasons import Reason
from ..domain.removals import Served
from ..domain.secrets import masked
from ..domain.storage import OUT_OF_FILES, storage_failure
from .forkserver import NUMBER
from .memory import Memory, memory_below
from .messages import (
    Answer,
    AsksAddresses,
    AsksServed,
    Ended,
    FromRun,
    Question,
    Renewed,
    ResolveRequest,
    Rest,
    RunRequest,
    Site,
    Stop,
    Unresolved,
    Waiting,
)

log = structlog.get_logger(__name__)

START_TIMEOUT = 60.0
RESOLVE_TIMEOUT = 10.0
"""Seconds for one URL: an extractor's pattern that runs away must not block the intake."""
STOP_PATIENCE = 5.0
"""Seconds that a process may take to finish its current file after it was told to stop."""


class NoProcessError(GalleryError):
    """The system starts none now. `failure`: what that means for a run."""

    def __init__(self, error: OSError) -> None:
        known = storage_failure(error.errno, "") if error.errno in OUT_OF_FILES else None
        words = f"no gallery process can be started: {error.strerror}"
        self.failure = known or Failure(reason=Reason.CRASHED, detail=words)
        super().__init__(self.failure.detail)


class GalleryProcess:
    """One running gallery process. Read `batches()` to its end, then `ended` tells how it went."""

    def __init__(self, pool: GalleryPool, connection: Connection, pid: int, stall_timeout: float) -> None:
        self._pool = pool
        self._connection = connection
        self._stall_timeout = stall_timeout
        self._allowance = stall_timeout
        self.pid = pid
        self.ended = _broken_off(Reason.CRASHED, Reason.CRASHED.sentence)
        self._reading: asyncio.Future[Any] | None = None
        self._patience: asyncio.Task[None] | None = None

    async def batches(self) -> AsyncIterator[list[FromRun]]:
        """Batches of messages until the process has ended. Ends it when it reports nothing for too long."""
        while True:
            self._reading = self._pool.in_thread(self._receive)
            try:
                # Shielded here and below: the thread goes on reading when whoever waits for it is cancelled.
                batch = await asyncio.shield(self._reading)
            except (EOFError, OSError):
                status = await self._end()
                self.ended = _broken_off(Reason.CRASHED, _how_it_died(status))
                return
            if batch is None:
                detail = f"the gallery process reported nothing for {self._allowance:.0f} s and was ended"
                self.ended = _broken_off(Reason.STALLED, detail)
                return
            if isinstance(last := batch[-1], Ended):
                self.ended = last
                if batch[:-1]:
                    yield batch[:-1]
                return
            yield batch

    def _receive(self) -> list[FromRun] | None:
        if not self._connection.poll(self._allowance):
            return None
        batch: list[FromRun] = self._connection.recv()
        # An announced wait moves the deadline; any other sign of life sets it back.
        announced = max((message.seconds for message in batch if isinstance(message, Waiting)), default=0.0)
        self._allowance = self._stall_timeout + announced
        return batch

    async def answer(self, held: bool) -> None:
        await self._tell(Answer(held))

    async def renew(self, until: float) -> None:
        """Let it live until then, of `gallery.lease.now()`."""
        await self._tell(Renewed(until))

    async def rest(self, seconds: float) -> None:
        """Have it ask its site nothing for so long."""
        await self._tell(Rest(seconds))

    async def stop(self) -> None:
        """Ask it to finish its current file; `batches()` then ends. When that takes too long, it is ended by force."""
        if self._patience is None:
            self._patience = asyncio.create_task(self._end_later())
            await self._tell(Stop())

    async def is_served(self, url: str) -> Served:
        """After a complete listing: whether the site still serves a URL."""
        answer = await self._ask(AsksServed(url), Served.UNKNOWN)
        assert isinstance(answer, Served)
        return answer

    async def addresses(self) -> dict[str, str] | None:
        """After a complete listing: the URL of each listed file by its remote id; None when that is not to be had."""
        answer = await self._ask(AsksAddresses(), None)
        assert answer is None or isinstance(answer, dict)
        return answer

    async def _ask(self, question: AsksServed | AsksAddresses, otherwise: Any) -> Any:
        def ask() -> Any:
            self._connection.send(question)
            return self._connection.recv() if self._connection.poll(self._stall_timeout) else otherwise

        self._reading = self._pool.in_thread(ask)
        try:
            return await asyncio.shield(self._reading)
        except (EOFError, OSError):
            return otherwise

    async def close(self) -> None:
        """End it if it still runs, with everything that it started, and give back what it used."""
        if self._patience is not None:
            self._patience.cancel()
        await self._end()
        # The pipe is closed only when no thread reads it any more: its number may be given to another one at once.
        if self._reading is not None:
            await asyncio.wait({self._reading})
            self._reading.exception()  # it has ended, as we wanted
        self._connection.close()

    async def kill(self) -> None:
        """End it at once. `batches()` then ends."""
        await self._end()

    async def _tell(self, command: Answer | Renewed | Rest | Stop) -> None:
        with contextlib.suppress(OSError):
            await self._pool.in_thread(self._connection.send, command)

    async def _end_later(self) -> None:
        await asyncio.sleep(STOP_PATIENCE)
        await self._end()

    async def _end(self) -> int:
        """Kill and reap it. Returns its wait status; 0 when that was done before."""
        if self.pid == 0:
            return 0
        pid, self.pid = self.pid, 0
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # it leads a group of its own
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)  # unless it was too young to have one
        return int(await self._pool.in_thread(self._pool.reap, pid))


class GalleryPool:
    """The fork server and its children. `template`: gallery-dl.conf.json, which need not exist."""

    def __init__(self, template: Path, *, stall_timeout: float, processes: int) -> None:
        self._template = template
        self._stall_timeout = stall_timeout
        self._lock = threading.Lock()
        self._server: _ForkServer | None = None
        self._resolver: tuple[Connection, int] | None = None
        self._resolver_turn = asyncio.Lock()
        # A thread for each process to be read, and some for starting, asking and ending.
        self._threads = ThreadPoolExecutor(processes + 6, thread_name_prefix="gallery")

    def in_thread(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    async def start(self) -> str:
        """Start the fork server now, and return gallery-dl's version. Raises `SettingsError`, `GalleryError`."""
        return str(await self.in_thread(lambda: self._current_server().version))

    async def memory(self) -> Memory | None:
        """Of the fork server and all gallery processes; None where the system does not say."""
        server = self._server
        return None if server is None else await asyncio.to_thread(memory_below, server.pid)

    async def run(self, request: RunRequest) -> GalleryProcess:
        """Start a process for a run. Raises `SettingsError` for a broken template, `GalleryError`."""
        connection, pid = await self.in_thread(self._spawn, request)
        return GalleryProcess(self, connection, pid, self._stall_timeout)

    async def resolve(self, url: str) -> Site:
        """The site of a URL. Raises `OrderRejected` when gallery-dl knows none, or would read another URL."""
        async with self._resolver_turn:
            answer = await self.in_thread(self._ask, url)
        if isinstance(answer, Unresolved):
            raise OrderRejected(answer.fault, answer.sentence)
        assert isinstance(answer, Site)
        return answer

    async def close(self) -> None:
        await self.in_thread(self._close)
        self._threads.shutdown(wait=False)

    def reap(self, pid: int) -> int:
        """The wait status of a process that was killed; 0 when the fork server is gone as well."""
        with self._lock:
            return self._server.wait(pid) if self._server is not None else 0

    def _close(self) -> None:
        with self._lock:
            if self._server is not None:
                self._server.close()
            self._server = None
            self._drop_resolver()

    def _spawn(self, request: RunRequest | ResolveRequest) -> tuple[Connection, int]:
        try:
            return self._start(request)
        except OSError as error:
            raise NoProcessError(error) from error

    def _start(self, request: RunRequest | ResolveRequest) -> tuple[Connection, int]:
        server = self._current_server()
        ours, theirs = socket.socketpair()
        try:
            with self._lock:
                pid = server.fork(theirs)
        finally:
            theirs.close()
        connection = Connection(ours.detach())
        with contextlib.suppress(OSError):  # it died at once: whoever reads from it will see
            connection.send(request)
        return connection, pid

    def _current_server(self) -> _ForkServer:
        """The running fork server, or a new one when the template has changed since it was loaded."""
        try:
            return self._server_of_now()
        except OSError as error:
            raise NoProcessError(error) from error

    def _server_of_now(self) -> _ForkServer:
        with self._lock:
            digest = _digest(self._template)
            if self._server is not None and (self._server.digest != digest or not self._server.alive):
                if self._server.digest != digest:
                    log.info("the gallery-dl configuration has changed and is loaded again", file=str(self._template))
                self._server.close()
                self._server = None
                self._drop_resolver()
            if self._server is None:
                self._server = _ForkServer(self._template, digest)
            return self._server

    def _ask(self, url: str) -> Site | Unresolved:
        for _ in range(2):  # the resolver may have ended with an earlier fork server
            self._current_server()
            if self._resolver is None:
                self._resolver = self._spawn(ResolveRequest())
            connection, pid = self._resolver
            try:
                connection.send(Question(url))
                if connection.poll(RESOLVE_TIMEOUT):
                    answer: Site | Unresolved = connection.recv()
                    return answer
                os.kill(pid, signal.SIGKILL)
                self._drop_resolver()
                return Unresolved(
                    fault=OrderFault.NO_EXTRACTOR,
                    sentence=masked(f"gallery-dl did not make out the URL {url} in time"),
                )
            except (EOFError, OSError):
                self._drop_resolver()
        raise GalleryError("the process that looks up URLs died twice; see the log")

    def _drop_resolver(self) -> None:
        if self._resolver is not None:
            self._resolver[0].close()  # it exits when its pipe closes
            self._resolver = None


class _ForkServer:
    """The process of `forkserver.py`. Calls must take turns."""

    def __init__(self, template: Path, digest: str) -> None:
        self.digest = digest
        self._control, theirs = socket.socketpair()
        command = [sys.executable, "-m", "http_downloader.gallery.forkserver", str(theirs.fileno())]
        if digest:
            command.append(str(template))
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        self.pid = self._process.pid
        self._control.settimeout(START_TIMEOUT)
        self.version = self._hello(template)

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def fork(self, theirs: socket.socket) -> int:
        try:
            socket.send_fds(self._control, [b"F"], [theirs.fileno()])
            return self._number()
        except OSError as error:
            raise GalleryError(f"the fork server does not answer: {error}") from error

    def wait(self, pid: int) -> int:
        try:
            self._control.sendall(b"W" + NUMBER.pack(pid))
            return self._number()
        except OSError:
            return 0

    def close(self) -> None:
        self._control.close()
        self._process.wait()

    def _number(self) -> int:
        data = self._control.recv(NUMBER.size, socket.MSG_WAITALL)
        if len(data) < NUMBER.size:
            raise ConnectionResetError("it has ended")
        return int(NUMBER.unpack(data)[0])

    def _hello(self, template: Path) -> str:
        line = b""
        with contextlib.suppress(OSError):
            while not line.endswith(b"\n") and (data := self._control.recv(4096)):
                line += data
        if not line.endswith(b"\n"):
            self._process.kill()
            self.close()
            raise GalleryError("gallery-dl could not be loaded; try: python -m gallery_dl --version")
        hello = json.loads(line)
        if "error" in hello:
            self.close()
            raise SettingsError(f"gallery-dl cannot be started with {template}: {hello['error']}")
        return str(hello["version"])


def _digest(file: Path) -> str:
    """Of the content; empty when there is no file."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as error:
        if error.errno in OUT_OF_FILES:
            raise  # nothing is wrong with this one
        raise SettingsError(f"{file} cannot be read: {error.strerror}") from error


def _broken_off(reason: Reason, detail: str) -> Ended:
    return Ended(failure=Failure(reason=reason, detail=detail))


def _how_it_died(status: int) -> str:
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return f"the gallery process was killed by {name}"
    return f"the gallery process ended in mid-run with exit status {os.waitstatus_to_exitcode(status)}"
