"""A RabbitMQ node of one's own, for tests that stop, kill or starve the broker: the shared one is for everybody."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

# Debian's scripts on the PATH change to the user rabbitmq; these run as whoever runs the tests, root or not.
SCRIPTS = os.pathsep.join(["/usr/lib/rabbitmq/bin", os.environ.get("PATH", os.defpath)])
SERVICES = Path(__file__).parents[1] / "scripts" / "services.sh"
SECONDS_TO_START = 60
SECONDS_TO_STOP = 30
MISSING = (
    "these tests stop and kill a RabbitMQ of their own, and can start none: "
    "install rabbitmq-server (it need not be running), or start a Docker engine"
)


def private_node(tls: Path | None = None) -> BrokerNode:
    """From the installed package; where only Docker can be had, as `make test` has its broker, in a container.

    tls: a folder with ca.pem, cert.pem and key.pem, which others may read; the node then listens at `tls_port`, too, and
    asks its clients for certificates.
    """
    if shutil.which("rabbitmq-server", path=SCRIPTS) is not None:
        return InstalledNode(tls=tls)
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        return ContainerNode(tls)
    raise FileNotFoundError(MISSING)


class BrokerNode:
    """Starts on enter and is gone, with all its files, on exit. It keeps its data over stop(), kill() and start()."""

    def __init__(self) -> None:
        self.port = _free_port()
        self.tls_port = _free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"

    def start(self) -> None:
        """Returns when the node takes connections. Does nothing when it runs."""
        raise NotImplementedError

    def stop(self) -> None:
        """In good order: the node says goodbye to its clients and writes down what it has."""
        raise NotImplementedError

    def kill(self) -> None:
        """At once, as when the power fails."""
        raise NotImplementedError

    def pause(self) -> None:
        """It hangs: connections stand, and nothing is answered until resume()."""
        raise NotImplementedError

    def resume(self) -> None:
        raise NotImplementedError

    def ctl(self, *arguments: str) -> str:
        """Run rabbitmqctl against this node and give its output."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()


class InstalledNode(BrokerNode):
    """Only the Erlang port mapper, which all nodes of a machine share, stays when none was running before."""

    def __init__(self, *, tls: Path | None = None, name: str = "", cluster: Sequence[str] = ()) -> None:
        """name, cluster: its own name, and those of all nodes that it forms a cluster with."""
        super().__init__()
        self._process: subprocess.Popen[bytes] | None = None
        self._folder = Path(tempfile.mkdtemp(prefix="broker-node-"))
        for file in ("env.conf", "enabled_plugins"):
            (self._folder / file).touch()
        configuration = [] if tls is None else _tls_configuration(f"127.0.0.1:{self.tls_port}", tls)
        if cluster:
            configuration.append("cluster_formation.peer_discovery_backend = classic_config")
            configuration += [
                f"cluster_formation.classic_config.nodes.{n} = {peer}" for n, peer in enumerate(cluster, 1)
            ]
            cookie = self._folder / ".erlang.cookie"
            cookie.write_text("-".join(sorted(cluster)))
            cookie.chmod(0o400)
        (self._folder / "rabbitmq.conf").write_text("\n".join(configuration))
        self._environment = os.environ | {
            "HOME": str(self._folder),  # for the Erlang cookie
            "RABBITMQ_NODENAME": name or node_name(),
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

    def start(self) -> None:
        if self._process is not None:
            return
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
        while not _answers(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError("the node did not start:\n" + (self._folder / "output").read_text()[-4000:])
            time.sleep(0.1)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def ctl(self, *arguments: str) -> str:
        return _output([_script("rabbitmqctl"), *arguments], env=self._environment, cwd=self._folder)

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


class ContainerNode(BrokerNode):
    """The image is the one that scripts/services.sh starts."""

    def __init__(self, tls: Path | None = None) -> None:
        super().__init__()
        self._tls = tls
        self._name = f"http-downloader-test-node-{uuid.uuid4().hex[:8]}"
        self._made = False

    def start(self) -> None:
        if self._made:
            _output(["docker", "start", self._name])
        else:
            image = re.search(r"^RABBITMQ_IMAGE=(\S+)", SERVICES.read_text(), re.MULTILINE)
            assert image is not None, f"{SERVICES} names no image"
            place = ["--publish", f"127.0.0.1:{self.port}:5672", "--hostname", "node"]  # its data go by the host name
            if self._tls is not None:
                (self._tls / "tls.conf").write_text("\n".join(_tls_configuration("5671", self._tls)))
                place += ["--publish", f"127.0.0.1:{self.tls_port}:5671", "--volume", f"{self._tls}:{self._tls}:ro"]
                place += ["--volume", f"{self._tls}/tls.conf:/etc/rabbitmq/conf.d/tls.conf:ro"]
            _output(["docker", "run", "--quiet", "--detach", "--name", self._name, *place, image[1]])
            self._made = True
        deadline = time.monotonic() + SECONDS_TO_START
        while not _answers(self.port):
            if time.monotonic() > deadline:
                raise RuntimeError("the node did not start:\n" + _output(["docker", "logs", "--tail=50", self._name]))
            time.sleep(0.1)

    def stop(self) -> None:
        _output(["docker", "stop", "-t", str(SECONDS_TO_STOP), self._name])

    def kill(self) -> None:
        _output(["docker", "kill", self._name])

    def pause(self) -> None:
        _output(["docker", "pause", self._name])

    def resume(self) -> None:
        _output(["docker", "unpause", self._name])

    def ctl(self, *arguments: str) -> str:
        return _output(["docker", "exec", self._name, "rabbitmqctl", *arguments])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _output(["docker", "rm", "--force", "--volumes", self._name])


@contextlib.contextmanager
def cluster(size: int) -> Iterator[list[InstalledNode]]:
    """Nodes of one cluster, on this machine, all up."""
    names = [node_name() for _ in range(size)]
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(size) as threads:
        nodes = [InstalledNode(name=name, cluster=names) for name in names]
        for node in nodes:
            stack.push(node.__exit__)
        list(threads.map(InstalledNode.start, nodes))  # each waits for the others
        yield nodes


def node_name() -> str:
    return f"test-{uuid.uuid4().hex[:12]}@localhost"


def _tls_configuration(listener: str, folder: Path) -> list[str]:
    return [
        f"listeners.ssl.default = {listener}",
        f"ssl_options.cacertfile = {folder}/ca.pem",
        f"ssl_options.certfile = {folder}/cert.pem",
        f"ssl_options.keyfile = {folder}/key.pem",
        "ssl_options.verify = verify_peer",
        "ssl_options.fail_if_no_peer_cert = true",
    ]


def _output(command: list[str], env: dict[str, str] | None = None, cwd: Path | None = None) -> str:
    done = subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _script(name: str) -> str:
    path = shutil.which(name, path=SCRIPTS)
    assert path is not None, f"{name} is not installed"
    return path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    """Whether a broker greets there: a container's port is open before anything listens behind it."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(1) == b"\x01"  # a method frame: connection.start
    except OSError:
        return False
