"""A secret in every place that can hold one, an error in every place that can have one; then all that was written is
searched for them: output, logs, events, catalog, hook scripts, environment and command lines of other processes."""

from __future__ import annotations

import base64
import http.client
import json
import stat
import textwrap
from collections.abc import Callable
from contextlib import closing
from urllib.parse import quote

import pytest

from tests.installation import Installation, Service, free_port, wait_until
from tests.queues import PORT, Queues
from tests.site import FaultySite, redirect, set_cookie, status

NAMES = (
    "broker", "token", "database", "password", "api-key", "header", "basic", "cookie", "jar", "renewed", "netrc", "proxy",
    "environment-proxy", "login-of-file", "login-of-order", "ordered", "signed", "redirected", "linked",
)  # fmt: skip
CANARIES = {name: f"canary-{name}-x9%/ü" if name == "password" else f"canary-{name}-x9" for name in NAMES}
SHORT = "Q7~k"
"""A password that is shorter than anything that is hidden in the middle of words."""
DATA = {"ordered", "signed"}
"""Parameters of URLs: the catalog needs them to ask again, and the URL of a file is told in its event."""

LEAKY_EXTRACTOR = r"""
    import pathlib
    from gallery_dl import config, exception
    from gallery_dl.extractor.common import Extractor, Message

    class LeakyExtractor(Extractor):
        category = "own"
        subcategory = "files"
        filename_fmt = "{name}.{extension}"
        archive_fmt = "{name}"
        pattern = r"(https?://127\.0\.0\.1:\d+)/own/(\w+)"

        def all_i_know(self):
            cookies = {cookie.name: cookie.value for cookie in self.cookies}
            netrc = pathlib.Path("~/.netrc").expanduser().read_text()
            return f"{config._config} {dict(self.session.headers)} {cookies} {netrc} {self.url}"

        def items(self):
            root, kind = self.groups
            self.log.warning("here you are: %s", self.all_i_know())
            self.log.debug("short: %s and pin=%s", "Q7~k", "Q7~k")
            self.request(root + "/direct/renew.png")
            yield from getattr(self, kind)(root)

        def files(self, root):
            login = root.replace("://", "://me:canary-login-of-file-x9@")
            yield from self.file(login + "/direct/1.png", "1")
            yield from self.file(root + "/direct/2.png?sig=canary-signed-x9", "2")

        def file(self, url, name):
            metadata = {"name": name, "extension": "png"}
            yield Message.Directory, "", metadata
            yield Message.Url, url, metadata

        def dead(self, root):
            yield from self.file(root + "/dead/3.png?sig=canary-signed-x9", "3")
            self.request(root + "/dead/page?token=canary-redirected-x9", fatal=None)
            yield Message.Queue, "https://me:canary-linked-x9@nobody.invalid/?token=canary-linked-x9", {}

        def redirected(self, root):
            self.request(root + "/moved")

        def fails(self, root):
            yield from ()
            raise RuntimeError(self.all_i_know())

        def refuses(self, root):
            yield from ()
            raise exception.AuthenticationError(self.all_i_know())
"""
HOOK = """
    import json, os
    from dataclasses import asdict

    def on_file_downloaded(file):
        with open("hook-saw", "a") as saw:
            saw.write(json.dumps([dict(os.environ), asdict(file)]))
        raise RuntimeError("cannot reach http://me:canary-linked-x9@host/?token=canary-linked-x9")
"""
LOOK_AROUND = "(env; cat /proc/$PPID/environ /proc/[0-9]*/cmdline) >>exec-saw 2>&1; true"


@pytest.fixture
def machine(install: Callable[..., Installation]) -> Installation:
    """With a secret in every file that may hold one."""
    machine = install(LOG_LEVEL="DEBUG", LOG_FORMAT="json", SYNC_ATTEMPTS=1, SITE_CONCURRENCY=4)
    extractors, temporary = machine.home / "extractors", machine.home / "tmp"
    extractors.mkdir()
    temporary.mkdir()
    (extractors / "own.py").write_text(textwrap.dedent(LEAKY_EXTRACTOR))
    (machine.home / "hook.py").write_text(textwrap.dedent(HOOK))
    (machine.home / ".netrc").write_text(f"machine own login me password {CANARIES['netrc']}\n")
    (machine.home / ".netrc").chmod(0o600)  # else nobody reads it
    (machine.config / "cookies").mkdir()
    jar = f"127.0.0.1\tFALSE\t/\tFALSE\t0\tjar\t{CANARIES['jar']}\n"
    (machine.config / "cookies" / "own.txt").write_text(f"# Netscape HTTP Cookie File\n\n{jar}")
    machine.set(
        TMPDIR=temporary,
        HTTP_TOKEN=CANARIES["token"],
        FTP_PROXY=f"http://me:{CANARIES['environment-proxy']}@127.0.0.1:1",
        HOOK_FILE_DOWNLOADED=machine.home / "hook.py",
    )
    basic = base64.b64encode(b"me:" + CANARIES["basic"].encode()).decode()
    own = {
        "username": "me",
        "password": CANARIES["password"],
        "pin-token": SHORT,
        "api-key": CANARIES["api-key"],
        "headers": {"Authorization": f"Bearer {CANARIES['header']}", "Cookie": f"pin={CANARIES['cookie']}"},
        "proxy-authorization": f"Basic {basic}",
        "proxy": {"ftp": f"http://me:{CANARIES['proxy']}@127.0.0.1:1"},
        "sleep-request": 0,
        "retries": 0,
    }
    (machine.home / "look.sh").write_text(LOOK_AROUND)
    look = {"name": "exec", "event": "after", "command": ["sh", "look.sh"]}
    machine.configure({"extractor": {"module-sources": [str(extractors), None], "postprocessors": [look], "own": own}})
    return machine


def faulty_site() -> FaultySite:
    site = FaultySite()
    site.rule("^/direct/renew", set_cookie("renewed", CANARIES["renewed"]))
    site.rule("^/moved", redirect(f"/gone?token={CANARIES['redirected']}&access_token={CANARIES['redirected']}"))
    site.rule("^/gone", status(401))
    return site


def forms(secret: str) -> set[bytes]:
    return {
        text.encode() for text in (secret, quote(secret, safe=""), json.dumps(secret)[1:-1], repr(secret)[1:-1])
    } | {base64.b64encode(f"me:{secret}".encode())}


def leaks(text: bytes, *, but: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    """The secrets that are in there."""
    found = [name for name, value in CANARIES.items() if name not in but and any(form in text for form in forms(value))]
    return found + ["short"] * (SHORT.encode() in text)


@pytest.mark.timeout(300)
def test_no_secret_is_told_to_anybody(machine: Installation, queues: Queues) -> None:
    """The service at LOG_LEVEL=DEBUG, then the commands, with an extractor that says all that it knows."""
    port = free_port()
    machine.set(**queues.settings, HTTP_PORT=port)
    told: dict[str, bytes] = {}
    with faulty_site() as site, Service(machine) as service:
        secret_url = f"?token={CANARIES['ordered']}"
        kinds = ("files", "dead", "redirected", "fails", "refuses")
        for number, kind in enumerate(kinds, 1):
            url = f"{site.root}/own/{kind}{secret_url}"
            queues.post({"source_id": number, "url": url, "content_path": f"a{number}"})
        host = site.root.removeprefix("http://")
        queues.post(
            {"source_id": 8, "url": f"http://me:{CANARIES['login-of-order']}@{host}/own/files", "content_path": "b"}
        )
        queues.post({"source_id": 9, "url": f"generic:{site.root}:1/{secret_url}", "content_path": "b"})
        queues.wait_for("failed", 4)
        queues.wait_for("rejected", 2)
        queues.wait_for("downloaded", 2)
        queues.wait_for("failed", 5)  # the first one ends with warnings: it is partial
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
            connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {CANARIES['token']}"})
            told["readyz"] = connection.getresponse().read()
        told["failures"] = b"".join(message.body for message in queues.take("failed"))
        rejected = queues.take("rejected")
        told["rejections"] = json.dumps([message.headers for message in rejected]).encode()
        downloaded = queues.take("downloaded")
        told["signed"] = b"".join(message.body for message in downloaded)
        events = json.dumps([message.headers for message in downloaded], ensure_ascii=False).encode()
        wait_until(lambda: (machine.home / "exec-saw").exists(), what="the post-processor")
        told["doctor"] = output(machine, "doctor")
        service.stop()
        told["log"] = service.log.encode()
        machine.set(LOG_FORMAT="console", RABBITMQ_HOST="", HTTP_PORT=0)
        for kind in ("dead", "fails"):
            told[f"sync {kind}"] = output(machine, "sync", f"{site.root}/own/{kind}{secret_url}", "-v")
        told["dry run"] = output(machine, "sync", f"{site.root}/own/files{secret_url}", "--dry-run", "--json")
    for command in ("sources", "runs"):
        told[command] = output(machine, command, "--json")
    assert {name: found for name, text in told.items() if (found := leaks(text))} == {}
    assert "***" in told["log"].decode()
    assert b"here you are" in told["log"], "the extractor's words did not come through at all"
    # The URLs of files are data: they may be signed, and never have a login.
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in machine.runtime.glob("*.sqlite3*")}
    assert modes == dict.fromkeys(modes, 0o600)
    assert "catalog.sqlite3" in modes
    assert stat.S_IMODE(machine.runtime.stat().st_mode) == 0o700
    saw = (machine.home / "hook-saw").read_bytes()
    catalog = machine.everything_we_wrote() + b"".join(file.read_bytes() for file in (machine.home / "tmp").iterdir())
    data = {"events": events, "hook": saw, "files": output(machine, "files", "--json"), "on disk": catalog}
    assert {name: found for name, text in data.items() if (found := leaks(text, but=DATA | set_in_environment()))} == {}
    assert all(CANARIES["signed"].encode() in text for text in data.values())
    assert leaks((machine.home / "exec-saw").read_bytes(), but=DATA | set_in_environment()) == []


def set_in_environment() -> set[str]:
    """What belongs to the operator's own environment goes on to the operator's own programs."""
    return {"environment-proxy"}


def output(machine: Installation, *arguments: str) -> bytes:
    done = machine.run(*arguments)
    assert "Traceback" not in done.stderr
    return (done.stdout + done.stderr).encode()


def test_refused_passwords(install: Callable[..., Installation]) -> None:
    """A broker and databases that refuse the password, or that nobody reaches: told without it."""
    secret = "canary-p@ss/w:rd"
    machine = install(
        LOG_LEVEL="DEBUG",
        RABBITMQ_HOST="127.0.0.1",
        RABBITMQ_PORT=PORT,
        RABBITMQ_PASS=secret,
        DATABASE_URL=f"postgresql://nobody:{quote(secret, safe='')}@127.0.0.1:5432/nothing",
    )
    told = output(machine, "doctor")
    assert b"the broker refuses this user and password" in told
    assert b"the catalog at postgresql+psycopg://nobody:***@127.0.0.1:5432/nothing does not work" in told
    machine.set(DATABASE_URL=f"mariadb://nobody:{quote(secret, safe='')}@127.0.0.1/nothing")
    told += output(machine, "sources")
    for wrong in (f"mariadb://nobody:{secret}@127.0.0.1:x/nothing", f"oracle://nobody:{secret}@127.0.0.1/nothing"):
        machine.set(DATABASE_URL=wrong)
        told += output(machine, "sources")
    machine.set(AMQP_URL=f"amqp://guest:{secret}@127.0.0.1:{PORT}/%2F", DATABASE_URL="")
    told += output(machine, "serve")
    assert not any(form in told for form in forms(secret) | {b"p@ss", b"w:rd", b"p%40ss"})
