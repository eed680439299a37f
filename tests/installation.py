"""One user's machine: folders, settings, and the installed command run as that user would."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

COMMAND = Path(sys.executable).with_name("http-downloader")
POLITENESS_OFF = {"extractor": {"sleep-request": 0, "Danbooru": {"sleep-request": 0}}}


class Installation:
    """`settings` are environment variables on top of those that a test needs: loopback allowed, short pauses."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.home = home
        self.content, self.config, self.runtime = home / "content", home / "config", home / "runtime"
        self.config.mkdir(parents=True, exist_ok=True)
        clean = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(
                ("AMQP_", "RABBITMQ_", "HOOK_", "SYNC_", "COVERAGE", "PYTEST", "MAKE", "MFLAGS", "ARGS")
            )
        }
        self.env = clean | {
            "HOME": str(home),
            "CONTENT_ROOT": str(self.content),
            "CONFIG_PATH": str(self.config),
            "RUNTIME_PATH": str(self.runtime),
            "ALLOW_PRIVATE_ADDRESSES": "true",
            "SYNC_RETRY_DELAY": "0.2",
            "HTTP_PORT": "0",  # many services run here at once
            "NO_COLOR": "1",
        }
        self.configure(POLITENESS_OFF)
        self.set(**settings)

    def set(self, **settings: object) -> None:
        for name, value in settings.items():
            self.env[name] = str(value).lower() if isinstance(value, bool) else str(value)

    def configure(self, template: dict[str, Any]) -> None:
        """Write gallery-dl.conf.json."""
        (self.config / "gallery-dl.conf.json").write_text(json.dumps(template))

    def run(self, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(COMMAND), *arguments], env=self.env, cwd=self.home, capture_output=True, text=True, timeout=timeout
        )

    def sync(self, url: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return self.run("sync", url, *arguments, timeout=timeout)

    def rows(self, *arguments: str) -> list[dict[str, Any]]:
        """The NDJSON that a command prints."""
        done = self.run(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def files(self, source_id: int) -> list[dict[str, Any]]:
        return self.rows("files", "--source-id", str(source_id))

    def runs(self) -> list[dict[str, Any]]:
        """The newest first."""
        return self.rows("runs", "--limit", "1000")

    def on_disk(self) -> dict[str, bytes]:
        """Every file under CONTENT_ROOT but the marker, by its path there."""
        return {
            str(file.relative_to(self.content)): file.read_bytes()
            for file in sorted(self.content.rglob("*"))
            if file.is_file() and ".http-downloader" not in file.parts
        }

    def everything_we_wrote(self) -> bytes:
        """All of our own output and state, for tests that look for what must not be there."""
        parts = [file.read_bytes() for file in self.runtime.rglob("*") if file.is_file()]
        return b"\n".join(parts)


class Service:
    """`http-downloader serve` of an installation, with its log in a file. `command`: what is run in its place."""

    def __init__(self, installation: Installation, command: Sequence[str] = (str(COMMAND),)) -> None:
        self.installation = installation
        self._command = command
        self.log_file = installation.home / f"serve-{time.monotonic_ns()}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._command, "serve"],
                env=self.installation.env,
                cwd=self.installation.home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self._has_started() or self.process.poll() is not None, what="the service's start")
        return self

    def _has_started(self) -> bool:
        return " started " in self.log or '"event": "started"' in self.log

    @property
    def log(self) -> str:
        return self.log_file.read_text(errors="replace")

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def has_ended(self) -> bool:
        """Without having been told to."""
        return self.process is not None and self.process.poll() is not None

    def stop(self, timeout: float = 60) -> int:
        """SIGTERM, and the exit code."""
        return self._end(signal.SIGTERM, timeout)

    def kill(self) -> None:
        """SIGKILL, as the kernel does when memory is short."""
        self._end(signal.SIGKILL, 10)

    def _end(self, number: signal.Signals, timeout: float) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        code = self.process.wait(timeout)
        self.process = None
        return code

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None:
            self.stop()


def wait_until(condition: Callable[[], object], timeout: float = 30, what: str = "a condition") -> None:
    until = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < until, f"waited {timeout} s in vain for {what}"
        time.sleep(0.02)


def free_port() -> int:
    """One at which nobody listens now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def gallery_processes(service_pid: int) -> list[int]:
    """The processes that the service's fork server has forked (the resident resolver among them)."""
    return [grandchild for child in children(service_pid) for grandchild in children(child)]


def children(pid: int) -> list[int]:
    """The processes that this one has started and that are there."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found
