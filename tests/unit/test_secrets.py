"""What counts as a secret in a text, and that the places where a defect shows itself keep to it."""

from __future__ import annotations

import io
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from http_downloader import cli
from http_downloader.domain.errors import Exit
from http_downloader.domain.orders import default_content_path
from http_downloader.domain.secrets import Redaction, masked, passwords_in, without_login
from http_downloader.gallery.config import secrets_in
from http_downloader.logs import configure_logs, redact

SECRET = "s3cr3t-w0rd"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"GET https://me:{SECRET}@host/a", "GET https://***@host/a"),
        (f"https://me:{SECRET}@more@host/a", "https://***@host/a"),
        (f"/posts.json?login=me&api_key={SECRET}&page=2", "/posts.json?login=me&api_key=***&page=2"),
        (f"'https://host/a?X-Amz-Signature={SECRET}'", "'https://host/a?X-Amz-Signature=***'"),
        (f"https://host/#access_token={SECRET}", "https://host/#access_token=***"),
        (f"Authorization: Bearer {SECRET}", "Authorization: Bearer ***"),
        (f"{{'authorization': 'Basic {SECRET}'}}", "{'authorization': 'Basic ***'}"),
        (f"host=db password={SECRET} user=me", "host=db password=*** user=me"),
    ],
)
def test_secrets_are_known_by_their_place(text: str, left: str) -> None:
    """The login of a URL, parameters that carry secrets, headers."""
    assert masked(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "https://mastodon.example/@somebody/1?page=2",
        "https://host/posts?tags=author&z=1",
        "the cookie file does not exist: /config/cookies/site.txt",
        "attempt 1 of 5: mail me@host",
        "keys=1 monkey=2",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert masked(text) == text
    assert without_login(text) == text


def test_a_known_secret_is_found_in_every_writing() -> None:
    """As it is, percent-encoded, in JSON and in a Python value; the longer one of two first."""
    redaction = Redaction()
    redaction.learn(['p@ss/"ü w', "p@ss"])
    for text in ('p@ss/"ü w', "p%40ss%2F%22%C3%BC%20w", "p%40ss%2F%22%C3%BC+w", 'p@ss/\\"\\u00fc w', "p@ss"):
        assert redaction(f"<{text}>") == "<***>"


def test_short_secrets() -> None:
    """Hidden where they stand alone; of one or two characters never, or no line could be read."""
    redaction = Redaction()
    redaction.learn(["abc1", "1", "on"])
    assert redaction("login abc1: 1 on, 'abc1' xabc1 abc12") == "login ***: 1 on, '***' xabc1 abc12"


def test_a_text_that_is_made_to_take_long() -> None:
    """What a site sends goes through here: it takes no time that grows with the square of its length."""
    for text in ("?" + "token" * 200_000, "://" * 300_000, "a:" * 500_000 + "@", "cookie=" * 100_000):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from http_downloader.domain.secrets import masked; masked(sys.stdin.read())",
            ],
            input=text,
            text=True,
            timeout=20,
            check=False,
        )
        assert done.returncode == 0


def test_passwords_of_urls() -> None:
    """Also when what should have been percent-encoded was not; and those in parameters."""
    assert "s%2Fx" in set(passwords_in("amqp://me:s%2Fx@host"))
    assert "s/x" in set(passwords_in("amqp://me:s%2Fx@host"))
    assert "s/@x" in set(passwords_in("amqp://me:s/@x@host"))
    assert SECRET in set(passwords_in(f"mariadb://me@host/db?password={SECRET}"))
    assert set(passwords_in("https://host:99/a@b")) <= {"99/a"}


def test_secrets_of_a_configuration() -> None:
    """Headers are secret as a whole and in their parts."""
    found = set(secrets_in({"headers": {"Authorization": f"Bearer {SECRET}", "Cookie": "a=first-one; b=other-one"}}))
    assert {SECRET, "first-one", "other-one"} <= found
    assert SECRET in set(secrets_in({"authorization": "Basic bWU6czNjcjN0LXcwcmQ="}))
    assert set(secrets_in({"proxy": {"http": f"http://me:{SECRET}@host"}})) == {SECRET}


def test_the_default_folder_is_not_named_after_a_token() -> None:
    assert default_content_path(f"https://host/posts?tags=cat&token={SECRET}") == "host/posts-tags-cat"


@pytest.mark.parametrize("form", ["console", "json"])
def test_logs_of_others(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library's traceback in our log shows no local variables, and no secret."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    before = logging.root.handlers[:], logging.root.level
    redact.learn([SECRET])
    try:
        configure_logs("DEBUG", form)  # type: ignore[arg-type]
        local = SECRET[::-1]
        try:
            raise RuntimeError(f"the server {SECRET} hung up on {len(local)}")
        except RuntimeError:
            logging.getLogger("uvicorn.error").exception("no good: http://me:an0ther@host/")
    finally:
        logging.root.handlers, logging.root.level = before
        structlog.reset_defaults()
    told = stream.getvalue()
    assert "RuntimeError: the server *** hung up" in told
    assert "http://***@host/" in told
    assert not any(secret in told for secret in (SECRET, SECRET[::-1], "an0ther"))


def test_the_report_of_a_defect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two lines and a file that only this user reads, without secrets; one that cannot be written is no second error."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    redact.learn([SECRET])
    defect = RuntimeError(f"it\nbroke at amqp://me:an0ther@host with {SECRET}")
    assert cli._report(defect) == Exit.INTERNAL
    (report,) = tmp_path.iterdir()
    assert stat.S_IMODE(report.stat().st_mode) == 0o600
    told = capsys.readouterr().err
    assert told.startswith("http-downloader: this should not have happened: RuntimeError: it broke at amqp://***@host")
    assert told.endswith(f"Please report it with the details in {report}\n")
    assert told.count("\n") == 2
    assert "RuntimeError" in report.read_text()
    assert not any(secret in told + report.read_text() for secret in (SECRET, "an0ther"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    assert cli._report(defect) == Exit.INTERNAL
    assert "set TMPDIR to a folder" in capsys.readouterr().err
    assert os.listdir(tmp_path) == [report.name]  # noqa: PTH208
