"""A PostgreSQL server of one's own, for tests that stop, kill or fill the database: the shared one is for everybody."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psycopg

SERVICES = Path(__file__).parents[1] / "scripts" / "services.sh"
SECONDS_TO_START = 60
SECONDS_TO_STOP = 30
MISSING = (
    "these tests stop and kill a PostgreSQL server of their own, and can start none: "
    "install postgresql (it need not be running), or start a Docker engine"
)


def private_database() -> DatabaseNode:
    """From the installed package; where only Docker can be had, as `make test` has its server, in a container."""
    if (programs := _programs()) is not None:
        return InstalledDatabase(programs)
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return ContainerDatabase()
    raise FileNotFoundError(MISSING)


class DatabaseNode:
    """Starts on enter and is gone, with all its files, on exit. It keeps its data over stop(), kill() and start()."""

    def __init__(self) -> None:
        self.port = _free_port()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def new_database(self) -> str:
        """The name of an empty one."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.sql(f"CREATE DATABASE {name}")
        return name

    def sql(self, statement: str, database: str = "postgres") -> list[Any]:
        with psycopg.connect(self.url(database), connect_timeout=5, autocommit=True) as db:
            answer = db.execute(statement)
            return answer.fetchall() if answer.description else []

    def start(self) -> None:
        """Returns when the server takes connections. Does nothing when it runs."""
        raise NotImplementedError

    def stop(self) -> None:
        """At once, but in good order: clients are told that it goes."""
        raise NotImplementedError

    def kill(self) -> None:
        """As when the power fails."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        raise NotImplementedError

    def _wait(self, what_it_says: str) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while not self._answers():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start; {what_it_says}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self.sql("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True


class InstalledDatabase(DatabaseNode):
    """As the user postgres when root runs the tests: the server refuses to be root's."""

    def __init__(self, programs: Path) -> None:
        super().__init__()
        self._programs = programs
        self._user = "postgres" if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="database-node-"))
        if self._user is not None:
            entry = pwd.getpwnam(self._user)
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        self._process: subprocess.Popen[bytes] | None = None
        self._data = self._folder / "data"

    def start(self) -> None:
        if self._process is not None:
            return
        if not self._data.exists():
            self._make()
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [self._programs / "postgres", "-D", self._data, "-p", str(self.port), "-k", self._folder],
                user=self._user,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # an interrupted test run ends it here, not the terminal
            )
        self._wait(f"its log is {self._folder / 'output'}")

    def stop(self) -> None:
        self._end(signal.SIGINT)  # "fast": it does not wait for clients

    def kill(self) -> None:
        self._end(signal.SIGQUIT)  # "immediate": no checkpoint, it recovers at the next start; its children end, too

    def __exit__(self, *_: object) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _make(self) -> None:
        command = [self._programs / "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "--no-sync"]
        done = subprocess.run(
            [*command, "-E", "UTF8", "--locale=C"],
            user=self._user,
            cwd=self._folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with (self._data / "postgresql.conf").open("a") as settings:
            settings.write("listen_addresses = '127.0.0.1'\nmax_connections = 40\nshared_buffers = 16MB\n")

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(SECONDS_TO_STOP)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class ContainerDatabase(DatabaseNode):
    """The image is the one that scripts/services.sh starts."""

    def __init__(self) -> None:
        super().__init__()
        self._name = f"http-downloader-test-database-{uuid.uuid4().hex[:8]}"
        self._made = False

    def start(self) -> None:
        if self._made:
            _docker("start", self._name)
        else:
            image = re.search(r"^POSTGRESQL_IMAGE=(\S+)", SERVICES.read_text(), re.MULTILINE)
            assert image is not None, f"{SERVICES} names no image"
            place = ["--publish", f"127.0.0.1:{self.port}:5432", "--env", "POSTGRES_HOST_AUTH_METHOD=trust"]
            _docker("run", "--quiet", "--detach", "--name", self._name, *place, image[1])
            self._made = True
        self._wait(f"see: docker logs {self._name}")

    def stop(self) -> None:
        _docker("stop", "--signal", "INT", "-t", str(SECONDS_TO_STOP), self._name)

    def kill(self) -> None:
        _docker("kill", self._name)

    def __exit__(self, *_: object) -> None:
        _docker("rm", "--force", "--volumes", self._name)


def _docker(*arguments: str) -> None:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"docker {' '.join(arguments)}: {done.stderr.strip()}")


def _programs() -> Path | None:
    """The newest version's; Debian keeps them off the PATH."""
    versions = [folder for folder in Path("/usr/lib/postgresql").glob("*/bin") if (folder / "initdb").exists()]
    if versions:
        return max(versions, key=lambda folder: int(folder.parent.name))
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
