"""TLS to the broker: its certificate and name are checked, and what is wrong is one line that names the setting."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from http_downloader.app import check_broker, make_broker
from http_downloader.domain.errors import BrokerError, SettingsError
from http_downloader.settings import load_settings
from tests.broker_node import BrokerNode, private_node
from tests.installation import Installation, Service, wait_until
from tests.integration.test_service_broker import order, posts
from tests.queues import NodeQueues
from tests.site import FaultySite

PASSWORD = "s3cr3t-0f-the-key"


@dataclass
class Authority:
    """An authority, and the files of it and of what it has issued."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self._ca = trustme.CA()
        self._ca.cert_pem.write_to_path(self.file("ca.pem"))

    def file(self, name: str) -> str:
        return str(self.folder / f"{self.name}{name}")

    def issue(self, owner: str, *, prefix: str = "", until: datetime | None = None) -> None:
        certificate = self._ca.issue_cert(owner, not_before=datetime(2020, 1, 1, tzinfo=UTC), not_after=until)
        Path(self.file(f"{prefix}cert.pem")).write_bytes(certificate.cert_chain_pems[0].bytes())
        certificate.private_key_pem.write_to_path(self.file(f"{prefix}key.pem"))

    def encrypt_key(self, prefix: str) -> str:
        """Another file with the same key."""
        key = load_pem_private_key(Path(self.file(f"{prefix}key.pem")).read_bytes(), None)
        encryption = BestAvailableEncryption(PASSWORD.encode())
        encrypted = Path(self.file(f"{prefix}encrypted.pem"))
        encrypted.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return str(encrypted)


@pytest.fixture(scope="module")
def authority() -> Iterator[Authority]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # the node may be somebody else
        authority = Authority(Path(folder), "")
        authority.issue("127.0.0.1")
        authority.issue("worker", prefix="client-")
        yield authority


@pytest.fixture(scope="module")
def tls_node(authority: Authority) -> Iterator[BrokerNode]:
    """It asks for a certificate of its clients."""
    with private_node(authority.folder) as node:
        yield node


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """That nobody trusts."""
    stranger = Authority(tmp_path, "stranger-")
    stranger.issue("worker", prefix="client-")
    return stranger


def trusting(authority: Authority, node: BrokerNode) -> dict[str, object]:
    return {
        "RABBITMQ_HOST": "127.0.0.1",
        "RABBITMQ_PORT": node.tls_port,
        "RABBITMQ_TLS": True,
        "AMQP_TLS_CA": authority.file("ca.pem"),
        "AMQP_TLS_CERT": authority.file("client-cert.pem"),
        "AMQP_TLS_KEY": authority.file("client-key.pem"),
    }


def doctor(machine: Installation) -> str:
    """What it says of the broker."""
    done = machine.run("doctor")
    (line,) = [line for line in done.stdout.splitlines() if "broker" in line]
    assert done.returncode == (0 if line.startswith("✓") else 6)
    assert "Traceback" not in done.stderr
    return line


def test_orders_and_events_over_tls(
    install: Callable[..., Installation], tls_node: BrokerNode, authority: Authority
) -> None:
    """The whole way, with a certificate of ours whose key is encrypted; nobody shows its password, or needs a terminal."""
    with NodeQueues(tls_node) as queues, FaultySite(posts(3)) as site:
        machine = install(
            **queues.settings
            | trusting(authority, tls_node)
            | {"AMQP_TLS_KEY": authority.encrypt_key("client-"), "AMQP_TLS_KEY_PASSWORD": PASSWORD},
            LOG_LEVEL="DEBUG",
        )
        with Service(machine) as service:
            url = f"Danbooru:{site.root}/posts?tags=demo"
            assert machine.run("order", url, "--source-id", "1", "--to", "a").returncode == 0
            queues.wait_for("synchronized", 1)
            assert queues.count("downloaded") == 3
            listed = tls_node.ctl("list_connections", "ssl", "--quiet", "--no-table-headers").split()
            assert sorted(listed) == ["false", "true"]  # the test's own connection, and the service's
            assert PASSWORD not in service.log
        machine.set(AMQP_URL=f"amqps://guest:guest@127.0.0.1:{tls_node.tls_port}/%2F", RABBITMQ_TLS=False)
        assert doctor(machine).startswith("✓ broker")


def test_what_is_not_right_is_said(tls_node: BrokerNode, authority: Authority, stranger: Authority) -> None:
    """For each side, each way in which it may not be trusted, and the other kind of port."""
    good = trusting(authority, tls_node)
    no_certificate = {"AMQP_TLS_CERT": "", "AMQP_TLS_KEY": ""}
    another = {"AMQP_TLS_CERT": stranger.file("client-cert.pem"), "AMQP_TLS_KEY": stranger.file("client-key.pem")}
    plain = no_certificate | {"AMQP_TLS_CA": "", "AMQP_URL": f"amqp://127.0.0.1:{tls_node.tls_port}"}
    cases: list[tuple[dict[str, object], str, str]] = [
        ({"AMQP_TLS_CA": ""}, "the broker's certificate is not accepted: ", "set AMQP_TLS_CA"),
        ({"AMQP_TLS_CA": stranger.file("ca.pem")}, "the broker's certificate is not accepted: ", "set AMQP_TLS_CA"),
        ({"RABBITMQ_HOST": "localhost"}, "certificate is not valid for 'localhost'", "a name that it has"),
        (no_certificate, "another certificate of us: certificate required", "set AMQP_TLS_CERT"),
        (another, "another certificate of us: unknown ca", "set AMQP_TLS_CERT"),
        ({"RABBITMQ_PORT": tls_node.port}, "does not speak TLS as we do", "RABBITMQ_TLS=false"),
        (plain, "does not answer as a broker", "RABBITMQ_TLS=true"),
    ]

    async def all_at_once() -> list[object]:
        checks = [
            check_broker(load_settings(None, **{name.lower(): value for name, value in (good | settings).items()}))
            for settings, _, _ in cases
        ]
        return await asyncio.gather(*checks, return_exceptions=True)

    for (_, problem, remedy), error in zip(cases, asyncio.run(all_at_once()), strict=True):
        assert isinstance(error, BrokerError)
        assert problem in str(error)
        assert remedy in str(error)
        assert "\n" not in str(error)


def test_certificates_are_renewed_while_the_service_runs(
    install: Callable[..., Installation],
    tls_node: BrokerNode,
    authority: Authority,
    stranger: Authority,
    tmp_path: Path,
) -> None:
    """The broker's is of an authority that we do not trust yet, and then has expired: both are said, and with each one
    put right the service goes on by itself."""
    ours = tmp_path / "trusted.pem"
    ours.write_bytes(Path(stranger.file("ca.pem")).read_bytes())
    authority.issue("127.0.0.1", until=datetime(2021, 1, 1, tzinfo=UTC))
    tls_node.ctl("eval", "ssl:clear_pem_cache().")
    with NodeQueues(tls_node) as queues, FaultySite(posts(1)) as site:
        machine = install(**queues.settings | trusting(authority, tls_node) | {"AMQP_TLS_CA": ours})
        with Service(machine) as service:
            wait_until(lambda: "the broker's certificate is not accepted: " in service.log, what="the line about it")
            ours.write_bytes(Path(authority.file("ca.pem")).read_bytes())
            assert "certificate has expired; renew it at the broker" in doctor(machine)
            authority.issue("127.0.0.1")
            tls_node.ctl("eval", "ssl:clear_pem_cache().")
            queues.post(order(site))
            queues.wait_for("synchronized", 1)
            assert service.log.count("no connection to the broker") == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"AMQP_TLS_CA": "nowhere.pem"}, "AMQP_TLS_CA cannot be read: nowhere.pem: No such file or directory"),
        ({"AMQP_TLS_CA": "."}, "AMQP_TLS_CA cannot be read: .: Is a directory"),
        ({"AMQP_TLS_CA": "client-key.pem"}, "AMQP_TLS_CA holds no certificate in PEM form: client-key.pem"),
        ({"AMQP_TLS_CERT": "ca.pem"}, "AMQP_TLS_CERT and AMQP_TLS_KEY cannot be used: ca.pem: "),
        ({"AMQP_TLS_CERT": "client-cert.pem", "AMQP_TLS_KEY": "key.pem"}, "cannot be used: client-cert.pem: "),
        ({"AMQP_TLS_CERT": "client-cert.pem", "AMQP_TLS_KEY": "gone.pem"}, "AMQP_TLS_KEY cannot be read: gone.pem"),
        (
            {"AMQP_TLS_CERT": "client-cert.pem", "AMQP_TLS_KEY": "client-encrypted.pem"},
            "where the key is encrypted, set AMQP_TLS_KEY_PASSWORD",
        ),
        ({"AMQP_TLS_KEY": "client-key.pem"}, "AMQP_TLS_KEY is set without AMQP_TLS_CERT"),
        ({"RABBITMQ_TLS": "false", "AMQP_TLS_CA": "ca.pem"}, "this address is without TLS: amqps://… is allowed"),
        ({"AMQP_URL": "amqps://broker/?ssl_options={'ca_certs':'x'}"}, "ssl_options is not taken; set AMQP_TLS_CA"),
    ],
)
def test_files_that_cannot_be_used(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], says: str
) -> None:
    """One line before anything is begun; nothing is asked at the terminal."""
    authority.encrypt_key("client-")
    monkeypatch.chdir(authority.folder)
    given = {name.lower(): value for name, value in ({"RABBITMQ_HOST": "a", "RABBITMQ_TLS": "true"} | settings).items()}
    with pytest.raises(SettingsError) as caught:
        make_broker(load_settings(None, **given), consume=False)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
