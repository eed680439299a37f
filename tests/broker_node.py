"""A RabbitMQ node of one's own, for tests that stop, kill or starve the broker: the shared one is for everybody."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from types import TracebackType

# Debian's scripts on the PATH change to the user rabbitmq; these run as whoever runs the tests, root or not.
SCRIPTS = os.pathsep.join(["/usr/lib/rabbitmq/bin", os.environ.get("PATH", os.defpath)])
SECONDS_TO_START = 60
SECONDS_TO_STOP = 30


class BrokerNode:
    """Starts on enter and is gone, with all its files, on exit. It keeps its data over stop(), kill() and start().

    Only the Erlang port mapper, which all nodes of a machine share, stays when none was running before.
    """

    def __init__(self) -> None:
        self.port = _free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="broker-node-"))
        for name in ("rabbitmq.conf", "env.conf", "enabled_plugins"):
            (self._folder / name).touch()
        self._environment = (
            os.environ
            | {
                "HOME": str(self._folder),  # for the Erlang cookie
                "RABBITMQ_NODENAME": f"test-{uuid.uuid4().hex[:12]}@localhost",
                "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
                "RABBITMQ_NODE_PORT": str(self.port),
                "RABBITMQ_DIST_PORT": str(_free_port()),
                "RABBITMQ_MNESIA_BASE": str(self._folder / "data"),
                "RABBITMQ_LOG_BASE": str(self._folder / "log"),
                "RABBITMQ_PID_FILE": str(self._folder / "pid"),
                "RABBITMQ_CONFIG_FILE": str(self._folder / "rabbitmq.conf"),
                "RABBITMQ_CONF_ENV_FILE": str(self._folder / "env.conf"),
                "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._folder / "enabled_plugins"),
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
                "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node: our child is what we signal
            }
        )

    @staticmethod
    def is_installed() -> bool:
        return shutil.which("rabbitmq-server", path=SCRIPTS) is not None

    def start(self) -> None:
        """Returns when the node takes connections."""
        assert self._process is None, "the node runs already"
        with (self._folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [_script("rabbitmq-server")],
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # an interrupted test run ends it here, not the terminal
            )
        deadline = time.monotonic() + SECONDS_TO_START
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError("the node did not start:\n" + (self._folder / "output").read_text()[-4000:])
            time.sleep(0.1)

    def stop(self) -> None:
        """In good order: the node says goodbye to its clients and writes down what it has."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """At once, as when the power fails."""
        self._end(signal.SIGKILL)

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against this node and give its output."""
        return subprocess.run(
            [_script("rabbitmqctl"), *arguments],
            env=self._environment,
            cwd=self._folder,
            check=True,
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_START,
        ).stdout

    def __enter__(self) -> "BrokerNode":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

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


def _script(name: str) -> str:
    path = shutil.which(name, path=SCRIPTS)
    assert path is not None, f"{name} is not installed"
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True
