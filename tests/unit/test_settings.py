"""Settings: read once from the environment and `.env`; a wrong one is one line that names it."""

from __future__ import annotations

import os
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from http_downloader.amqp.address import Tls, parse_addresses, place
from http_downloader.app import make_broker
from http_downloader.domain.errors import Exit, SettingsError
from http_downloader.settings import Settings, load_settings, suspicious_names

SECRET = "s3cr3t-w0rd"


@pytest.fixture(autouse=True)
def fresh_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No setting in the environment, no `.env` in the working folder: nothing of the developer's own."""
    for name in os.environ:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def complaint(**environment: str) -> str:
    """The one line about settings that are wrong."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SettingsError) as caught:
            load_settings()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert caught.value.exit_code is Exit.USAGE
    return sentence


def loaded(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


# Values


def test_a_fresh_machine_needs_no_setting(fresh_machine: Path) -> None:
    """Nothing set: no broker, SQLite and all folders below the home."""
    settings = load_settings()
    assert settings.broker_url is None
    assert settings.catalog_url == f"sqlite:///{settings.runtime_path}/catalog.sqlite3"
    for folder in (settings.content_root, settings.config_path, settings.runtime_path):
        assert folder.is_relative_to(fresh_machine)
    assert settings.allowed_networks == ()
    assert settings.rejected_orders_queue == "GL_SYNC_HTTP_SOURCE_ORDERS.rejected"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("RABBITMQ_PORT", "high", "a whole number is allowed"),
        ("RABBITMQ_PORT", "", "a whole number is allowed"),
        ("RABBITMQ_PORT", "4.5", "a whole number is allowed"),
        ("RABBITMQ_PORT", "0", "greater than or equal to 1"),
        ("RABBITMQ_PORT", "65536", "less than or equal to 65535"),
        ("RABBITMQ_HOST", "broker:amqp", "each with a port if need be"),
        ("RABBITMQ_HOST", "broker:0", "each with a port if need be"),
        ("RABBITMQ_HOST", "a,,b", "each with a port if need be"),
        ("RABBITMQ_HOST", "[::1", "each with a port if need be"),
        ("RABBITMQ_HOST", "amqp://broker", "each with a port if need be"),
        ("RABBITMQ_TLS", "tls", "true or false is allowed"),
        ("AMQP_QUEUE_TYPE", "stream", "classic or quorum is allowed"),
        ("AMQP_QUEUES_DURABLE", "maybe", "true or false is allowed"),
        ("AMQP_QUEUES_DURABLE", "", "true or false is allowed"),
        ("AMQP_Q_SYNC_HTTP_SRC_ORDERS", "", "at least 1 character"),
        ("AMQP_Q_FILE_DOWNLOADED", "ü" * 128, "at most 255 bytes"),
        ("AMQP_EXCHANGE", "x" * 256, "at most 255 bytes"),
        ("AMQP_Q_SYNC_HTTP_SRC_ORDERS", "x" * 247, "at most 246 bytes"),
        ("SYNC_CONCURRENCY", "0", "greater than or equal to 1"),
        ("SITE_CONCURRENCY", "257", "less than or equal to 256"),
        ("SYNC_ATTEMPTS", "-1", "greater than or equal to 1"),
        ("SYNC_RETRY_DELAY", "soon", "a number is allowed"),
        ("SYNC_RETRY_DELAY", "0", "greater than 0"),
        ("RUN_STALL_TIMEOUT", "inf", "than "),
        ("RUN_STALL_TIMEOUT", "nan", "than "),
        ("RUN_STALL_TIMEOUT", "1e18", "less than or equal to"),
        ("SHUTDOWN_GRACE", "-1", "greater than or equal to 0"),
        ("SHUTDOWN_GRACE", "inf", "less than or equal to 86400"),
        ("HOOK_TIMEOUT", "0", "greater than 0"),
        ("HOOK_TIMEOUT", "1e400", "less than or equal to 86400"),
        ("ALLOW_PRIVATE_ADDRESSES", "perhaps", "networks like 192.168.1.0/24"),
        ("ALLOW_PRIVATE_ADDRESSES", "192.168.1.1/24", "networks like 192.168.1.0/24"),
        ("LOG_LEVEL", "CHATTY", "DEBUG, INFO, WARNING or ERROR is allowed"),
        ("LOG_FORMAT", "xml", "console or json is allowed"),
        ("CONTENT_ROOT", "", "a folder"),
        ("RUNTIME_PATH", "", "a folder"),
        ("CONFIG_PATH", "", "a folder"),
        ("RUNTIME_PATH", "/srv/what?", "without a question mark"),
    ],
)
def test_a_wrong_value_is_one_line(name: str, value: str, allowed: str) -> None:
    """It names the setting, shows the value, and says what is allowed."""
    sentence = complaint(**{name: value})
    assert sentence.startswith(f"{name} has the wrong value {value!r}: ")
    assert allowed in sentence


def test_several_wrong_values_are_counted() -> None:
    """The first is explained, the others are counted."""
    assert complaint(RABBITMQ_PORT="x", SYNC_ATTEMPTS="y").endswith(" (and 1 more)")


@pytest.mark.parametrize(
    "field", [name for name, field in Settings.model_fields.items() if field.annotation in (int, float)]
)
def test_every_number_has_limits(field: str) -> None:
    """No setting takes infinity or a senseless value for a number: what is accepted can be waited for, or counted."""
    for value in ("inf", "nan", "1e300", "-1"):
        assert complaint(**{field.upper(): value}).startswith(f"{field.upper()} has the wrong value")


@pytest.mark.parametrize(
    "name",
    ["AMQP_Q_REJECTED_ORDERS", "AMQP_Q_FILE_DOWNLOADED", "AMQP_Q_FILE_DOWNLOAD_SKIPPED", "AMQP_Q_SOURCE_SYNCHRONIZED",
     "AMQP_Q_SOURCE_SYNC_FAILED"],
)  # fmt: skip
def test_nothing_is_sent_to_the_orders_queue(name: str) -> None:
    """What goes out there would come back in as an order, be rejected, and so on for ever."""
    sentence = complaint(AMQP_Q_SYNC_HTTP_SRC_ORDERS="orders", **{name: "orders"})
    assert sentence.startswith(f"{name} has the wrong value 'orders': ")
    assert "orders queue" in sentence


def test_names_are_taken_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of settings and levels may be written in small letters."""
    settings = loaded(monkeypatch, sync_attempts="7", LOG_LEVEL="debug")
    assert (settings.sync_attempts, settings.log_level) == (7, "DEBUG")


def test_empty_means_none_where_that_is_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty content type leaves the property out, an empty queue name sends nothing: empty is not `unset`."""
    settings = loaded(monkeypatch, AMQP_EVENT_CONTENT_TYPE="", AMQP_Q_FILE_DOWNLOADED="")
    assert settings.amqp_event_content_type == ""
    assert settings.amqp_q_file_downloaded == ""


@pytest.mark.parametrize(
    ("value", "networks"),
    [
        ("true", None),
        ("YES", None),
        ("1", None),
        ("false", ()),
        ("", ()),
        ("10.0.0.0/8, ::1", (ip_network("10.0.0.0/8"), ip_network("::1"))),
    ],
)
def test_private_networks(value: str, networks: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """All, none, or those that are named."""
    assert loaded(monkeypatch, ALLOW_PRIVATE_ADDRESSES=value).allowed_networks == networks


# Secrets


@pytest.mark.parametrize(
    "environment",
    [
        {"RABBITMQ_PASS": SECRET, "RABBITMQ_PORT": "x"},
        {"AMQP_URL": f"amqp://user:{SECRET}@broker/", "RABBITMQ_PORT": "x"},
        {"DATABASE_URL": f"postgresql://user:{SECRET}@host/db", "RABBITMQ_PORT": "x"},
    ],
)
def test_an_error_never_shows_a_secret(environment: dict[str, str]) -> None:
    """Not even those of settings that are right, beside one that is wrong."""
    assert SECRET not in complaint(**environment)


@pytest.mark.parametrize("name", ["rabbitmq_pass", "amqp_url", "database_url"])
def test_a_wrong_secret_is_not_shown(name: str) -> None:
    """Where the value itself is the secret, the line names the setting only."""
    with pytest.raises(SettingsError, match=rf"^{name.upper()} has the wrong value \*\*\*: ") as caught:
        load_settings(**{name: [SECRET]})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@broker/",
        f"amqp://user:{SECRET}@broker:port/",
        f"amqp://user:{SECRET}@broker:99999/",
        f"amqp://user:{SECRET}/x@broker/",
        f"amqp://user:{SECRET}#@broker/",
        f"amqp://user:{SECRET}@[::1/",
        f"amqp://user:x@broker/?heartbeat={SECRET}",
        SECRET,
    ],
)
def test_a_wrong_broker_address_is_not_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Part of it may be the password, also where it is not where a password should be."""
    with pytest.raises(SettingsError, match=r"^AMQP_URL ") as caught:
        make_broker(loaded(monkeypatch, AMQP_URL=url), consume=False)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["amqp://u:p@broker", "amqps://u:p%2F@broker:5671/%2F?heartbeat=30", "amqp://broker/vhost", "amqp://[::1]:5672/"],
)
def test_amqp_url_wins(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole address counts, whatever RABBITMQ_* say."""
    assert loaded(monkeypatch, AMQP_URL=url, RABBITMQ_HOST="other").broker_url == url


def test_settings_can_be_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback or a debugger that shows the settings shows no password."""
    settings = loaded(
        monkeypatch,
        RABBITMQ_PASS=SECRET,
        AMQP_URL=f"amqp://user:{SECRET}@broker/",
        DATABASE_URL=f"postgresql://user:{SECRET}@host/db",
    )
    assert SECRET not in repr(settings)
    assert SECRET not in str(settings)


# The broker's address


@pytest.mark.parametrize("word", ["p@ss/w:rd", "100%", "a?b#c", "ä ö+ü", "[::1]", "%2F", "a&b=c"])
def test_special_characters_reach_the_broker(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """User, password and virtual host may hold anything: it is quoted in the address."""
    settings = loaded(monkeypatch, RABBITMQ_HOST="broker", RABBITMQ_USER=word, RABBITMQ_PASS=word, RABBITMQ_VHOST=word)
    assert settings.broker_url is not None
    address = urlsplit(settings.broker_url)
    assert (address.hostname, address.port) == ("broker", 5672)
    assert unquote(address.username or "") == unquote(address.password or "") == unquote(address.path[1:]) == word


@pytest.mark.parametrize(
    ("environment", "addresses"),
    [
        ({"RABBITMQ_HOST": "a, b:5673,::1,[::2]:5674"}, ["a:5672", "b:5673", "[::1]:5672", "[::2]:5674"]),
        ({"RABBITMQ_HOST": "a,b:5673", "RABBITMQ_TLS": "true"}, ["a:5671", "b:5673"]),
        ({"RABBITMQ_HOST": "a", "RABBITMQ_TLS": "true", "RABBITMQ_PORT": "5672"}, ["a:5672"]),
        ({"RABBITMQ_HOST": "a,b", "RABBITMQ_PASS": "c,amqp://d", "RABBITMQ_VHOST": "e,f"}, ["a:5672", "b:5672"]),
        ({"AMQP_URL": "amqp://u:p,q@a , amqps://u:p@b/%2F,AMQP://c:1/v"}, ["a:5672", "b:5671", "c:1"]),
    ],
)
def test_several_addresses(environment: dict[str, str], addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Commas stand between them, and are left alone where they belong to an address."""
    url = loaded(monkeypatch, **environment).broker_url
    assert url is not None
    assert [place(address) for address in parse_addresses(url, 60, Tls())] == addresses


def test_every_address_is_written_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands between commas and is no address is not taken for a part of the one before."""
    for url in ("amqp://a:5672,b:5672", "amqp://a/%2F,b/%2F", "amqp://a,"):
        with pytest.raises(SettingsError, match=r"^AMQP_URL is wrong: .*(amqp://…,amqp://…|of the form)"):
            make_broker(loaded(monkeypatch, AMQP_URL=url), consume=False)


def test_passwords_of_all_addresses_are_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """And that of the private key."""
    url = "amqp://me:first-one@a,amqp://me:other-one@b/%2F"
    settings = loaded(monkeypatch, AMQP_URL=url, AMQP_TLS_KEY_PASSWORD=SECRET)
    assert {"first-one", "other-one", SECRET} <= settings.secrets
    assert SECRET not in repr(settings)


def test_quorum_queues_are_durable() -> None:
    """There are no others, and nobody gets something else than was asked for."""
    sentence = complaint(AMQP_QUEUE_TYPE="quorum", AMQP_QUEUES_DURABLE="false")
    assert sentence.startswith("AMQP_QUEUE_TYPE has the wrong value 'quorum': ")
    assert sentence.endswith("AMQP_QUEUES_DURABLE=true is allowed with it")


@pytest.mark.parametrize("host", ["::1", "[::1]", "2001:db8::7"])
def test_an_ipv6_host(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An IPv6 address may be given as it is or in brackets."""
    settings = loaded(monkeypatch, RABBITMQ_HOST=host, RABBITMQ_PORT="5673")
    assert settings.broker_url == f"amqp://guest:guest@[{host.strip('[]')}]:5673/%2F"


# Files and folders


def test_env_file_is_read_and_the_environment_wins(fresh_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`.env` in the working folder counts, and a variable of the same name counts more."""
    (fresh_machine / ".env").write_text("SYNC_ATTEMPTS=2\nSITE_CONCURRENCY=3 # two words\nexport LOG_FORMAT=json\n")
    settings = loaded(monkeypatch, SYNC_ATTEMPTS="9")
    assert (settings.sync_attempts, settings.site_concurrency, settings.log_format) == (9, 3, "json")


def test_a_wrong_value_in_the_env_file_is_named(fresh_machine: Path) -> None:
    """The same line as for the environment."""
    (fresh_machine / ".env").write_text("SYNC_ATTEMPTS=many\n")
    assert complaint() == "SYNC_ATTEMPTS has the wrong value 'many': a whole number is allowed"


def test_an_env_file_that_is_no_text(fresh_machine: Path) -> None:
    """One line, not a traceback."""
    (fresh_machine / ".env").write_bytes(b"SYNC_ATTEMPTS=\xff\n")
    assert complaint() == ".env is not UTF-8 text"


@pytest.mark.parametrize("name", ["CONTENT_ROOT", "CONFIG_PATH", "RUNTIME_PATH"])
def test_relative_folders(name: str, fresh_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative to the working folder, where the `.env` lies; `~` is the home; a symlink stays as it was written."""
    (fresh_machine / "real").mkdir()
    (fresh_machine / "link").symlink_to("real")
    for value, expected in (
        ("a/../b", fresh_machine / "b"),
        ("~/x", fresh_machine / "x"),
        ("link/y", fresh_machine / "link/y"),
        ("/srv/z", Path("/srv/z")),
    ):
        assert getattr(loaded(monkeypatch, **{name: value}), name.lower()) == expected


# Names that are no settings


def test_misspelt_names_are_told(fresh_machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the environment and in `.env`, with the nearest name; comments, settings and strangers are left alone."""
    (fresh_machine / ".env").write_text(
        "AMQP_Q_FILE_DOWNLOADD=x\n# AMQP_COMMENT=1\n  # AMQP_COMMENT=2\nexport  HOOK_TIMOUT=3\nrabbitmq_port=1\nno equals\n\n"
    )
    monkeypatch.setenv("RABBITMQ_HOSTS", "x")
    monkeypatch.setenv("SYNC_CONCURRENCY", "2")
    monkeypatch.setenv("SHELL", "/bin/sh")
    assert suspicious_names() == [
        "AMQP_Q_FILE_DOWNLOADD is no setting of ours; did you mean AMQP_Q_FILE_DOWNLOADED?",
        "HOOK_TIMOUT is no setting of ours; did you mean HOOK_TIMEOUT?",
        "RABBITMQ_HOSTS is no setting of ours; did you mean RABBITMQ_HOST?",
    ]


def test_nothing_suspicious(monkeypatch: pytest.MonkeyPatch) -> None:
    """All settings under their own names: no warning."""
    for name in Settings.model_fields:
        monkeypatch.setenv(name.upper(), "")
    assert suspicious_names() == []
