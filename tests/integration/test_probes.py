"""Over HTTP the service says whether it is alive and whether it is ready: to platforms that watch it, and to `doctor`."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Callable
from contextlib import closing
from typing import Any

from tests.installation import Installation, Service, free_port, wait_until
from tests.site import FaultySite, Post, hang

SECRET = "s3cr3t-w0rd"


def get(port: int, path: str, token: str = "") -> tuple[int, Any]:
    """Status and decoded answer."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_ready_and_not(install: Callable[..., Installation]) -> None:
    """Ready with all parts in place; not without CONTENT_ROOT or with a broken template, each with its sentence; ready
    again when all is back. `doctor` says the same, and /healthz is well all the while."""
    port = free_port()
    machine = install(HTTP_PORT=port)
    template = machine.config / "gallery-dl.conf.json"
    good = template.read_text()
    with Service(machine):
        parts = {"service", "catalog", "content_root", "gallery"}
        assert get(port, "/readyz") == (200, {"status": "ok", "checks": dict.fromkeys(parts, "ok")})
        assert f"answers at 127.0.0.1:{port}, and is ready" in machine.run("doctor").stdout
        machine.content.rename(machine.home / "elsewhere")
        template.write_text("{")
        wait_until(lambda: get(port, "/readyz")[0] == 503, what="the service to miss something")
        wait_until(lambda: get(port, "/readyz")[1]["checks"]["gallery"] != "ok", what="the template to be looked at")
        status, answer = get(port, "/readyz")
        assert (status, answer["status"]) == (503, "not ready")
        assert answer["checks"]["content_root"] == f"CONTENT_ROOT is not there, or cannot be written: {machine.content}"
        assert str(template) in answer["checks"]["gallery"]
        told = machine.run("doctor")
        assert told.returncode == 6
        assert f"the service at 127.0.0.1:{port} is not ready; " in told.stdout
        assert get(port, "/healthz") == (200, {"status": "ok"})
        machine.content.rmdir()  # the doctor has made it anew
        (machine.home / "elsewhere").rename(machine.content)
        template.write_text(good)
        wait_until(lambda: get(port, "/readyz")[0] == 200, what="the service to be ready again")


def test_a_broker_that_is_away(install: Callable[..., Installation]) -> None:
    """The service is alive and not ready, and says why without the password."""
    port, nobody = free_port(), free_port()
    machine = install(HTTP_PORT=port, AMQP_URL=f"amqp://user:{SECRET}@127.0.0.1:{nobody}/%2F")
    with Service(machine):
        wait_until(lambda: "Connection refused" in get(port, "/readyz")[1]["checks"]["broker"], what="the first try")
        assert get(port, "/healthz")[0] == 200
        assert SECRET not in str(get(port, "/readyz"))


def test_a_stopping_service_is_not_ready(install: Callable[..., Installation]) -> None:
    """From SIGTERM to its end it answers, and takes no new work."""
    port = free_port()
    machine = install(HTTP_PORT=port)
    with FaultySite([Post(id=1)]) as site:
        url = f"Danbooru:{site.root}/posts?tags=demo"
        machine.sync(url)
        site.rule(r"/posts\.json", hang(3), times=1)
        with Service(machine) as service:
            journal_a_run(machine, url)
            wait_until(lambda: site.active, what="the run")
            assert service.process is not None
            service.process.terminate()
            wait_until(lambda: get(port, "/readyz")[1]["checks"]["service"] == "it is stopping", what="the stop")
            assert get(port, "/readyz")[0] == 503
            assert get(port, "/healthz")[0] == 200
            assert service.process.wait(30) == 0
            service.process = None


def journal_a_run(machine: Installation, url: str) -> None:
    """As an order does that came over the broker."""
    from http_downloader.catalog import journal
    from http_downloader.catalog.engine import open_catalog, utcnow
    from http_downloader.domain.orders import make_order

    catalog = open_catalog(f"sqlite:///{machine.runtime}/catalog.sqlite3")
    journal.submit(catalog, make_order(1, url, "a"), site="danbooru", now=utcnow())
    catalog.close()


def test_a_port_that_another_program_has(install: Callable[..., Installation]) -> None:
    """Asked for, it ends the start with one line that names the setting; `doctor` says the same. As our default only,
    it is one warning, and the service runs."""
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        machine = install(HTTP_PORT=port)
        done = machine.run("serve")
        assert done.returncode == 6
        line = f"cannot listen at HTTP_HOST 127.0.0.1, HTTP_PORT {port}: Address already in use; set another HTTP_PORT, or 0 for none"
        assert done.stderr == f"http-downloader: {line}\n"
    del machine.env["HTTP_PORT"]
    with taken(8080), Service(machine) as service:
        assert service.log.count("HTTP_PORT 8080: Address already in use") == 1


def taken(port: int) -> Any:
    try:
        return closing(socket.create_server(("127.0.0.1", port)))
    except OSError:  # by somebody else, which is as good
        return closing(socket.socket())


def test_beyond_loopback_only_with_a_token(install: Callable[..., Installation]) -> None:
    """Without one the start ends. With one, only who shows it learns why the service is not ready."""
    port = free_port()
    machine = install(HTTP_HOST="0.0.0.0", HTTP_PORT=port)
    refused = machine.run("serve")
    assert refused.returncode == 2
    assert refused.stderr.startswith("http-downloader: HTTP_HOST is 0.0.0.0, which others can reach; set HTTP_TOKEN")
    assert "HTTP_HOST is 0.0.0.0" in machine.run("doctor").stdout
    machine.set(HTTP_TOKEN=SECRET)
    with Service(machine) as service:
        (machine.config / "gallery-dl.conf.json").write_text("{")
        wait_until(lambda: get(port, "/readyz", SECRET)[0] == 503, what="the template to be looked at")
        for token in ("", "wrong", f"{SECRET}x"):
            status, answer = get(port, "/readyz", token)
            assert (status, answer["checks"]["gallery"], answer["checks"]["catalog"]) == (503, "not ok", "ok")
        assert "gallery-dl cannot be started with" in get(port, "/readyz", SECRET)[1]["checks"]["gallery"]
        assert "is not ready; gallery: gallery-dl cannot be started" in machine.run("doctor").stdout
        assert SECRET not in service.log
