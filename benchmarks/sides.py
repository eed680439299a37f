"""The two programs, each run as its users run it: ours as the installed command, gallery-dl as its command line."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import BenchmarkError
from benchmarks.memory import PeakWatch
from tests.installation import COMMAND, POLITENESS_OFF, Installation, Service
from tests.queues import Queues

GALLERY_DL = Path(sys.executable).with_name("gallery-dl")
EXEC_HOOK = Path(__file__).with_name("exec_hook.py")
PATIENCE = 900.0
"""Seconds after which something is taken for hanging."""


def without_proxies(environment: dict[str, str]) -> dict[str, str]:
    """Loopback is never asked through a proxy."""
    return {name: value for name, value in environment.items() if not name.lower().endswith("_proxy")}


def timed(command: list[str], *, env: dict[str, str], cwd: Path, peaks: list[float] | None = None) -> float:
    """Seconds from start to end of a command, whose output nobody reads. Appends its peak memory to `peaks`."""
    null = subprocess.DEVNULL
    with (cwd / "stderr.log").open("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=env, cwd=cwd, stdin=null, stdout=null, stderr=errors)
        try:
            with PeakWatch.maybe(process.pid, peaks):
                code = process.wait(PATIENCE)
            took = time.perf_counter() - began
        finally:
            process.kill()
        if code:
            errors.seek(0)
            raise BenchmarkError(f"{Path(command[0]).name} ended with exit code {code}: {errors.read()[-500:]}")
    return took


class CommandLine:
    """gallery-dl with a configuration that holds nothing but `sleep-request: 0`."""

    def __init__(self, home: Path) -> None:
        self._home = home
        home.mkdir(parents=True)
        self._env = without_proxies(dict(os.environ)) | {"HOME": str(home)}

    def run(self, url: str, folder: Path, *, hook_queue: str = "", peaks: list[float] | None = None) -> float:
        """Seconds for one call, which puts the files where ours puts them: flat into one folder.

        hook_queue: with the exec hook per file, which posts into this queue.
        """
        configuration: dict[str, Any] = {**POLITENESS_OFF, "cache": {"file": None}}
        if hook_queue:
            hook = [sys.executable, str(EXEC_HOOK), hook_queue, "1", "{_filename}"]
            configuration["postprocessors"] = [{"name": "exec", "event": ["after", "skip"], "command": hook}]
        file = self._home / "configuration.json"
        file.write_text(json.dumps(configuration))
        command = [str(GALLERY_DL), "--config-ignore", "--config", str(file), "--directory", str(folder), url]
        return timed(command, env=self._env, cwd=self._home, peaks=peaks)


class Ours:
    """An installation of ours with its running service, and the platform that orders from it.

    Beside it another one without a service, in which `http-downloader sync` is called.
    """

    def __init__(self, installation: Installation, idle: Installation, service: Service, queues: Queues) -> None:
        self.installation = installation
        self.idle = idle
        self.service = service
        self.queues = queues
        self._arrivals: dict[str, list[tuple[int, dict[str, Any]]]] = {"synchronized": [], "failed": []}

    def folder(self, name: str) -> Path:
        return self.installation.content / name

    def order(self, url: str, source_id: int, folder: str) -> None:
        self.queues.post({"source_id": source_id, "url": url, "content_path": folder})

    def synchronize(self, url: str, source_id: int, folder: str) -> float:
        """Seconds from the order to its `source synchronized`."""
        began = time.perf_counter()
        self.order(url, source_id, folder)
        self.wait_synchronized(1)
        return time.perf_counter() - began

    def wait_synchronized(self, count: int) -> None:
        """Take so many `source synchronized`. Raises BenchmarkError at the first run that failed."""
        arrived = self._arrivals["synchronized"]
        until = time.monotonic() + PATIENCE
        while len(arrived) < count:
            self._receive(0.5)
            if failed := self._arrivals["failed"]:
                raise BenchmarkError(f"a run of ours failed: {failed.pop(0)[1]}; see {self.service.log[-2000:]}")
            if time.monotonic() > until:
                raise BenchmarkError(f"{len(arrived)} of {count} sources were synchronized in {PATIENCE:.0f} s")
        del arrived[:count]

    def sync(self, url: str, folder: str) -> float:
        """Seconds for one call of the command, from a cold start to its exit."""
        command = [str(COMMAND), "sync", url, "--to", folder]
        took = timed(command, env=self.idle.env, cwd=self.idle.home)
        self.wait_synchronized(1)
        return took

    def expect(self, queue: str, count: int) -> None:
        """Check that a queue has got so many events, and empty it."""
        found = self.queues.count(queue)
        self.queues.channel.queue_purge(self.queues.names[queue])
        if found != count:
            raise BenchmarkError(f"{found} messages in {queue}, not {count}")

    def arrivals(self, queue: str) -> list[tuple[int, dict[str, Any]]]:
        """From now on the events of `queue` are taken as they come: each with the moment (ns) and its body."""
        if queue not in self._arrivals:
            self._arrivals[queue] = []
            self._consume(queue)
        return self._arrivals[queue]

    def listen(self) -> None:
        for queue in self._arrivals:
            self._consume(queue)

    def _consume(self, queue: str) -> None:
        def take(_channel: Any, _method: Any, _properties: Any, body: bytes) -> None:
            self._arrivals[queue].append((time.time_ns(), json.loads(body)))

        self.queues.channel.basic_consume(self.queues.names[queue], take, auto_ack=True)

    def _receive(self, seconds: float) -> None:
        self.queues.channel.connection.process_data_events(seconds)


@contextlib.contextmanager
def our_service(home: Path, **settings: object) -> Iterator[Ours]:
    """A service with a home and queues of its own, ready for orders; stopped at the end."""
    with Queues() as queues:
        installation = _installation(home, queues, settings)
        with Service(installation) as service:
            _wait_for(queues, service)
            ours = Ours(installation, _installation(home / "idle", queues, settings), service, queues)
            ours.listen()
            yield ours


@contextlib.contextmanager
def our_workers(home: Path, count: int, **settings: object) -> Iterator[Ours]:
    """So many services, each as on a machine of its own: they share broker, catalog, mirror and configuration."""
    with contextlib.ExitStack() as started:
        ours = started.enter_context(our_service(home / "1", **settings))
        shared = {"CONTENT_ROOT": ours.installation.content, "CONFIG_PATH": ours.installation.config}
        for number in range(2, count + 1):
            installation = _installation(home / str(number), ours.queues, {**settings, **shared})
            started.enter_context(Service(installation))
        yield ours


def _installation(home: Path, queues: Queues, settings: dict[str, object]) -> Installation:
    installation = Installation(home, **queues.settings, **settings)
    installation.env = without_proxies(installation.env)
    return installation


def _wait_for(queues: Queues, service: Service) -> None:
    until = time.monotonic() + 60
    while not all(queues.exists(name) for name in queues.names):
        if time.monotonic() > until:
            raise BenchmarkError(f"the service has not declared its queues: {service.log[-2000:]}")
        time.sleep(0.1)
