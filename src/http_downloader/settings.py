"""Every setting, read once, from the environment and `.env`. The environment wins."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote

import platformdirs
from pydantic import AfterValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, DotEnvSettingsSource, EnvSettingsSource, SettingsConfigDict
from pydantic_settings.sources import PydanticBaseSettingsSource

from .domain.errors import SettingsError
from .domain.removals import Policy, Probe, RemoteDeletes
from .domain.secrets import passwords_in
from .domain.sizes import parse_size
from .domain.transfers import Limits

APP = "http-downloader"

OUR_PREFIXES = ("AMQP_", "RABBITMQ_", "SYNC_", "HOOK_", "REMOVAL_", "REMOTE_", "HTTP_DOWNLOADER_")
"""A name that begins like this and is no setting is most likely a slip."""


def _plain_name(value: str) -> str:
    if len(value.encode()) > 255:
        raise ValueError("at most 255 bytes are allowed")
    return value


DAY = 86_400.0

QueueName = Annotated[str, AfterValidator(_plain_name)]


class Settings(BaseSettings):
    """Field names are the settings' names in lower case; descriptions go into the README's table."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", case_sensitive=False, env_ignore_empty=False)

    rabbitmq_host: str = Field(
        "",
        description="RabbitMQ's host, or the hosts of a cluster with commas between them, each with a port of its own if"
        " need be: `a,b:5673,[::1]:5674`; none here and no AMQP_URL: no broker, embedded mode",
    )
    rabbitmq_port: int = Field(5672, ge=1, le=65535, description="its port; 5671 with RABBITMQ_TLS, unless set")
    rabbitmq_user: str = Field("guest", description="user")
    rabbitmq_pass: str = Field("guest", description="password", repr=False)
    rabbitmq_vhost: str = Field("/", description="virtual host")
    rabbitmq_tls: bool = Field(False, description="true: encrypted; the broker's certificate and name are checked")
    amqp_url: str = Field(
        "",
        description="the whole address in place of RABBITMQ_*: amqp://… or, with TLS, amqps://…; those of a cluster with"
        " commas between them",
        repr=False,
    )
    amqp_tls_ca: str = Field(
        "", description="PEM file with the authorities that the broker's certificate may be of; empty: the system's"
    )
    amqp_tls_cert: str = Field("", description="PEM file with our own certificate, for a broker that asks for one")
    amqp_tls_key: str = Field("", description="PEM file with its private key; empty: it is in AMQP_TLS_CERT, too")
    amqp_tls_key_password: str = Field("", description="password of that key, where it is encrypted", repr=False)
    amqp_exchange: QueueName = Field(
        "",
        description="empty: the default exchange; else a durable direct exchange, every queue bound under its own name",
    )
    amqp_q_sync_http_src_orders: QueueName = Field("GL_SYNC_HTTP_SOURCE_ORDERS", min_length=1, description="orders in")
    amqp_q_file_downloaded: QueueName = Field("GL_FILE_DOWNLOADED", description="file downloaded; empty: not sent")
    amqp_q_file_download_skipped: QueueName = Field(
        "GL_FILE_DOWNLOAD_SKIPPED", description="file was there already; empty: not sent"
    )
    amqp_q_source_synchronized: QueueName = Field(
        "GL_SOURCE_SYNCHRONIZED", description="source synchronized; empty: not sent"
    )
    amqp_q_source_sync_failed: QueueName = Field("", description="failed and partial runs; empty: not sent")
    amqp_q_file_removed: QueueName = Field("", description="file removed; empty: not sent")
    amqp_q_rejected_orders: QueueName = Field(
        "", description="orders that cannot be run; empty: the orders queue's name with `.rejected`"
    )
    amqp_queues_durable: bool = Field(
        True, description="how queues are declared that do not exist yet; existing ones are used as they are"
    )
    amqp_queue_type: Literal["classic", "quorum"] = Field(
        "classic",
        description="the same; classic: as the broker makes queues by default; quorum: replicated over the nodes of a"
        " cluster",
    )
    amqp_event_content_type: str = Field(
        "application/json", description="content type of events; empty: the property is left out"
    )

    database_url: str = Field(
        "", description="sqlite:///path, postgresql://… or mariadb://…; empty: SQLite in RUNTIME_PATH", repr=False
    )
    content_root: Path = Field(
        default_factory=lambda: Path(platformdirs.user_pictures_dir()) / APP,
        description="where galleries are mirrored to",
    )
    config_path: Path = Field(
        default_factory=lambda: platformdirs.user_config_path(APP),
        description="gallery-dl.conf.json (optional) and cookies/<category>.txt",
    )
    runtime_path: Path = Field(
        default_factory=lambda: platformdirs.user_data_path(APP),
        description="database, gallery-dl's cache, state of running syncs",
    )

    sync_concurrency: int = Field(4, ge=1, le=256, description="runs at once in this process")
    downloads_per_source: int = Field(
        4, ge=1, le=64, description="files that one run downloads at once; `lanes` in gallery-dl.conf.json per site"
    )
    site_concurrency: int = Field(1, ge=1, le=256, description="runs at once for one site, over all workers")
    sync_attempts: int = Field(5, ge=1, le=100, description="tries of a run whose failure is transient")
    sync_retry_delay: float = Field(
        30.0,
        gt=0,
        le=DAY,
        description="seconds before the second try; doubles each time, at most an hour, with jitter",
    )
    rate_limit_max_wait: float = Field(
        900.0,
        ge=0,
        le=DAY,
        description="seconds; a run that the site asks to wait longer is continued later, without a slot",
    )
    max_file_size: str = Field(
        "0", description="the largest file that is taken (500M, 2G): a larger one fails, and is named; 0: any size"
    )
    min_speed: str = Field(
        "1K",
        description="what a site must send in a second (1K, 100K), or the connection is given up and the request made"
        " anew; 0: as slowly as it likes",
    )
    min_speed_window: float = Field(
        60.0, gt=0, le=DAY, description="seconds of waiting for a site over which MIN_SPEED is measured"
    )
    refresh_changed: bool = Field(
        False, description="true: known files that changed at the site are fetched again; costs a request per file"
    )
    remote_deletes: Literal["", "keep", "trash", "delete"] = Field(
        "",
        description="what is done about files that are proven gone at the remote: keep, trash or delete; empty: trash,"
        " but keep when a broker is set and AMQP_Q_FILE_REMOVED is not",
    )
    removal_confirmations: int = Field(
        2, ge=2, le=100, description="complete listings in a row that must lack a file before it is removed"
    )
    removal_min_age: float = Field(
        3600.0, ge=0, le=30 * DAY, description="seconds between two listings that count as two"
    )
    removal_max_count: int = Field(
        100, ge=0, le=1_000_000, description="more files than these at once are held until a person approves"
    )
    removal_max_share: float = Field(
        20.0, ge=0, le=100, description="percent of a source's files; a larger part is held, too"
    )
    removal_probe: Literal["hold", "ignore"] = Field(
        "hold", description="hold: a file that the site still serves at its recorded URL stays; ignore: not asked"
    )
    trash_retention: float = Field(
        30.0, ge=0, le=36_500, description="days that files stay in the trash; 0: until somebody empties it"
    )
    journal_retention: float = Field(
        365.0, ge=0, le=36_500, description="days that ended runs and their orders are kept; 0: for ever"
    )
    durability: Literal["full", "fast"] = Field(
        "full",
        description="full: a file is safe on the disk before the catalog has it, whatever fails; fast: what a power"
        " failure takes in its last seconds is lost",
    )
    min_free_space: str = Field(
        "500M",
        description="what CONTENT_ROOT keeps free (500M, 2G): no run is begun with less, and one that comes so far stops;"
        " 0: until the disk is full",
    )
    run_stall_timeout: float = Field(
        600.0, gt=0, le=DAY, description="seconds after which a gallery process that reports nothing is ended"
    )
    shutdown_grace: float = Field(
        30.0, ge=0, le=DAY, description="seconds that running syncs may take to finish after SIGTERM"
    )
    allow_private_addresses: str = Field(
        "false", description="true: sources on loopback and private networks are allowed; or the networks that are"
    )

    hook_file_downloaded: str = Field("", description="path/to/script.py[:function], called for every new file")
    hook_file_skipped: str = Field("", description="the same for every file that was there already")
    hook_source_synchronized: str = Field("", description="the same for every synchronized source")
    hook_timeout: float = Field(60.0, gt=0, le=DAY, description="seconds that one call of a hook script may take")

    http_host: str = Field(
        "127.0.0.1", min_length=1, description="where `serve` answers over HTTP: /healthz, /readyz, /metrics"
    )
    http_port: int = Field(8080, ge=0, le=65535, description="its port; 0: none")
    http_token: str = Field(
        "", description="what clients have to show (Authorization: Bearer …); needed beyond loopback", repr=False
    )

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="what is logged at least")
    log_format: Literal["console", "json"] = Field("console", description="console or json")

    @field_validator("rabbitmq_host", mode="after")
    @classmethod
    def _hosts(cls, value: str) -> str:
        """In the form that they have in a URL."""
        return ",".join(_in_url(part.strip()) for part in value.split(",")) if value.strip() else ""

    @field_validator("amqp_queue_type", mode="after")
    @classmethod
    def _quorum_is_durable(cls, value: str, info: ValidationInfo) -> str:
        if value == "quorum" and info.data.get("amqp_queues_durable") is False:
            raise ValueError("a quorum queue is always durable; AMQP_QUEUES_DURABLE=true is allowed with it")
        return value

    @field_validator("amqp_q_sync_http_src_orders", mode="after")
    @classmethod
    def _room_for_suffix(cls, value: str) -> str:
        if len(f"{value}.rejected".encode()) > 255:
            raise ValueError("at most 246 bytes are allowed, so that `.rejected` fits behind it")
        return value

    @field_validator(
        "amqp_q_file_downloaded",
        "amqp_q_file_download_skipped",
        "amqp_q_source_synchronized",
        "amqp_q_source_sync_failed",
        "amqp_q_file_removed",
        "amqp_q_rejected_orders",
        mode="after",
    )
    @classmethod
    def _leads_out(cls, value: str, info: ValidationInfo) -> str:
        if value and value == info.data.get("amqp_q_sync_http_src_orders"):
            raise ValueError("it is the orders queue, and all that is sent there would come back as an order")
        return value

    @field_validator("content_root", "config_path", "runtime_path", mode="before")
    @classmethod
    def _some_folder(cls, value: Any) -> Any:
        if value == "":
            raise ValueError("a folder is allowed; leave the setting out for its default")
        return value

    @field_validator("runtime_path", mode="before")
    @classmethod
    def _fits_into_url(cls, value: Any) -> Any:
        if "?" in str(value):
            raise ValueError("a folder without a question mark is allowed: in the catalog's URL it would end the path")
        return value

    @field_validator("content_root", "config_path", "runtime_path", mode="after")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        """Relative paths are relative to the `.env`, which lies in the working folder."""
        if "\x00" in str(path):
            raise ValueError("a path cannot contain NUL")
        try:
            return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - keeps symlinks
        except RuntimeError:
            raise ValueError("there is no such user, or it has no home; a whole path is allowed") from None
        except FileNotFoundError:
            raise ValueError("the working folder is gone; a whole path is allowed") from None

    @field_validator("allow_private_addresses", mode="after")
    @classmethod
    def _networks(cls, value: str) -> str:
        _parse_networks(value)
        return value

    @field_validator("min_free_space", "max_file_size", "min_speed", mode="after")
    @classmethod
    def _is_size(cls, value: str) -> str:
        parse_size(value)
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        assert isinstance(env_settings, EnvSettingsSource)
        assert isinstance(dotenv_settings, DotEnvSettingsSource)
        return init_settings, env_settings, dotenv_settings

    @property
    def broker_url(self) -> str | None:
        """One, or several with commas between them; None: no broker, embedded mode."""
        if self.amqp_url:
            return self.amqp_url
        if not self.rabbitmq_host:
            return None
        user, password = quote(self.rabbitmq_user, safe=""), quote(self.rabbitmq_pass, safe="")
        scheme, port = "amqp", self.rabbitmq_port
        if self.rabbitmq_tls:
            scheme, port = "amqps", port if "rabbitmq_port" in self.model_fields_set else 5671
        return ",".join(
            f"{scheme}://{user}:{password}@{host}/{quote(self.rabbitmq_vhost, safe='')}"
            for host in (host if _has_port(host) else f"{host}:{port}" for host in self.rabbitmq_host.split(","))
        )

    @property
    def secrets(self) -> set[str]:
        """The values that must not be repeated anywhere. RabbitMQ's own default is none."""
        found = {self.rabbitmq_pass, self.amqp_tls_key_password, self.http_token}
        found |= {*passwords_in(self.amqp_url), *passwords_in(self.database_url)}
        return found - {"", "guest"}

    @property
    def allowed_networks(self) -> tuple[IPv4Network | IPv6Network, ...] | None:
        """Private networks that sources may be on; None: any."""
        return _parse_networks(self.allow_private_addresses)

    @property
    def durable(self) -> bool:
        return self.durability == "full"

    @property
    def limits(self) -> Limits:
        """What is taken from a site while it sends."""
        return Limits(
            file_size=parse_size(self.max_file_size), speed=parse_size(self.min_speed), window=self.min_speed_window
        )

    @property
    def catalog_url(self) -> str:
        return self.database_url or f"sqlite:///{self.runtime_path / 'catalog.sqlite3'}"

    @property
    def template(self) -> Path:
        return self.config_path / "gallery-dl.conf.json"

    @property
    def cookies_folder(self) -> Path:
        return self.config_path / "cookies"

    @property
    def removal_policy(self) -> Policy:
        """Nobody loses files untold: with a broker, only a platform that listens has them removed."""
        untold = self.broker_url is not None and not self.amqp_q_file_removed
        return Policy(
            action=RemoteDeletes(self.remote_deletes or ("keep" if untold else "trash")),
            confirmations=self.removal_confirmations,
            min_age=timedelta(seconds=self.removal_min_age),
            max_count=self.removal_max_count,
            max_share=self.removal_max_share / 100,
            probe=Probe(self.removal_probe),
        )

    @property
    def rejected_orders_queue(self) -> str:
        return self.amqp_q_rejected_orders or f"{self.amqp_q_sync_http_src_orders}.rejected"


_HOST = re.compile(r"(?:[^\s:/?#@\[\]]+|\[(?P<ip>[^\]]*)\])(?P<port>:\d{1,5})?")


def _has_port(host: str) -> bool:
    match = _HOST.fullmatch(host)
    return match is not None and match["port"] is not None


def _in_url(host: str) -> str:
    """A host with or without a port; an IPv6 address is put into brackets."""
    with contextlib.suppress(ValueError):
        return f"[{IPv6Address(host)}]"
    match = _HOST.fullmatch(host)
    with contextlib.suppress(ValueError):
        if match is not None and 1 <= int((match["port"] or ":1")[1:]) <= 65535:
            _ = match["ip"] is None or IPv6Address(match["ip"])
            return host
    raise ValueError(
        "names or addresses with commas between them are allowed, each with a port if need be: a,b:5673,[::1]:5674"
    )


def _parse_networks(value: str) -> tuple[IPv4Network | IPv6Network, ...] | None:
    match value.strip().lower():
        case "true" | "1" | "yes" | "on":
            return None
        case "false" | "0" | "no" | "off" | "":
            return ()
    try:
        return tuple(ip_network(part.strip()) for part in value.split(","))
    except ValueError:
        raise ValueError("true, false or networks like 192.168.1.0/24,::1 are allowed") from None


def load_settings(env_file: Path | None = Path(".env"), **overrides: Any) -> Settings:
    """Raises `SettingsError`: one line that names the setting, its value and what is allowed."""
    try:
        return Settings(_env_file=env_file, **overrides)  # type: ignore[call-arg]
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper()
        value = "***" if any(word in name for word in ("PASS", "TOKEN", "URL")) else repr(first["input"])
        more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
        raise SettingsError(f"{name} has the wrong value {value}: {_allowed(first)}{more}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{env_file} is not UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"{env_file} cannot be read: {error.strerror}") from None


def take_secrets_from_environment() -> None:
    """No process that we start inherits a password of ours: neither gallery-dl's post-processors nor hook scripts."""
    secret = {name.upper() for name, field in Settings.model_fields.items() if not field.repr}
    for name in [name for name in os.environ if name.upper() in secret]:
        del os.environ[name]


def suspicious_names(env_file: Path = Path(".env")) -> list[str]:
    """A sentence for each variable that looks like a setting of ours and is none."""
    names = set(os.environ)
    if env_file.is_file():
        lines = env_file.read_text(errors="replace").splitlines()
        names |= {
            line.partition("=")[0].strip().removeprefix("export ").strip()
            for line in lines
            if "=" in line and line[0] != "#"
        }
    known = {name.upper() for name in Settings.model_fields}
    sentences = []
    for name in sorted(names):
        if not name.upper().startswith(OUR_PREFIXES) or name.upper() in known:
            continue
        near = difflib.get_close_matches(name.upper(), known, n=1)
        sentences.append(f"{name} is no setting of ours" + (f"; did you mean {near[0]}?" if near else ""))
    return sentences


def _allowed(error: Any) -> str:
    match error["type"]:
        case "bool_parsing" | "bool_type":
            return "true or false is allowed"
        case "int_parsing" | "int_from_float" | "int_type":
            return "a whole number is allowed"
        case "float_parsing" | "float_type":
            return "a number is allowed"
        case "literal_error":
            return f"{error['ctx']['expected'].replace(chr(39), '')} is allowed"
        case _:
            words = str(error["msg"]).removeprefix("Value error, ")
            return words[0].lower() + words[1:]
