"""From DATABASE_URL to an engine: which driver, how long to wait for what, and how a transaction begins."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from ..domain.errors import CatalogError, SettingsError
from . import schema

# A connection that cannot even be rolled back is logged with a traceback; our one line says what is needed.
logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)

LOCK_WAIT = 30.0
"""Seconds that a transaction waits for another one before it gives up. SQLite: `?timeout=` in the URL wins."""

LONGEST_WAIT = 3600
"""Seconds that may be asked for."""

CONNECT_WAIT = 10
"""Seconds that a server has to accept a connection."""

SILENCE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
"""PostgreSQL: a connection behind which nobody is any more is noticed within a minute, not after two hours."""

ANSWER_WAIT = 120
"""MariaDB: seconds for an answer. Its driver cannot be told to look whether the server is still there."""

_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_EXTRAS = {"psycopg": "postgresql", "pymysql": "mysql"}


def make_engine(text: str, *, read_only: bool = False, patient: bool = False, durable: bool = True) -> Engine:
    """`patient`: for migrations, where one statement may take very long. Not `durable`: SQLite's last commits may be
    lost when the power fails.

    Raises `SettingsError` for a URL of no known form, `CatalogError` when the folder of an SQLite file cannot be made.
    """
    try:
        url = make_url(text)
        url = url.set(drivername=_DRIVERS[url.get_backend_name()])
    except (ArgumentError, KeyError, ValueError) as error:
        raise SettingsError(
            "DATABASE_URL must be sqlite:///path, postgresql://… or mariadb://… (mysql://…), with nothing else in front"
        ) from error
    try:
        match url.get_backend_name():
            case "sqlite":
                return _sqlite(url, read_only, durable)
            case "postgresql":
                return _postgresql(url)
            case _:
                return _mariadb(url, patient)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        driver = url.get_driver_name()
        raise SettingsError(
            f"DATABASE_URL needs the driver {driver}; install http-downloader[{_EXTRAS.get(driver, driver)}]"
        ) from error


def lock_wait(url: URL) -> float:
    """Seconds that a transaction waits for SQLite's write lock. Raises `SettingsError`."""
    text = str(url.query.get("timeout", LOCK_WAIT))
    try:
        if 0 <= (seconds := float(text)) <= LONGEST_WAIT:
            return seconds
    except ValueError:
        pass
    raise SettingsError(
        f"DATABASE_URL has the timeout {text!r}; a number of seconds up to {LONGEST_WAIT} is allowed (SQLite)"
    )


def _sqlite(url: URL, read_only: bool, durable: bool) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise SettingsError("DATABASE_URL names an SQLite database in memory; a catalog needs a file")
    path = Path(str(url.database))
    if not read_only:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatalogError(f"the folder of the catalog cannot be made: {path.parent}: {error.strerror}") from error
        # It holds URLs that a person ordered with tokens in them. SQLite's other files have the mode of this one.
        # Never one that is there: closing it would drop the locks that SQLite holds on it in this process, and the next
        # program that closes the catalog would delete the log that we go on writing to.
        with contextlib.suppress(OSError):  # told when it is opened
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY | os.O_CLOEXEC, 0o600))
    connect_args = {"timeout": lock_wait(url), "check_same_thread": False}
    engine = sa.create_engine(url, connect_args=connect_args, json_serializer=_json)

    @sa.event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> None:
        if read_only:  # here, so that the engine's address stays the one that people know
            arguments[0] = f"file:{quote(str(path.absolute()))}?mode=ro"
            options["uri"] = True

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours: the driver's own would be a deferred one
        synchronous = "synchronous=FULL" if durable else "synchronous=NORMAL"
        for pragma in () if read_only else ("journal_mode=WAL", synchronous, "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(db: Connection) -> None:
        # A deferred transaction that reads and then writes fails at once when another has written meanwhile,
        # whatever the timeout; one that takes the write lock first waits its turn.
        db.exec_driver_sql("BEGIN" if db.get_execution_options().get("reads_only") else "BEGIN IMMEDIATE")

    return engine


def _postgresql(url: URL) -> Engine:
    engine = _server(url, {"connect_timeout": CONNECT_WAIT, **SILENCE})
    if "lock_timeout" not in str(url.query.get("options", "")):

        @sa.event.listens_for(engine, "connect")
        def configure(connection: Any, _record: object) -> None:
            # Not as an option of the connection: poolers such as PgBouncer refuse those.
            connection.execute(f"SET lock_timeout = {int(LOCK_WAIT * 1000)}")
            connection.commit()

    return engine


def _mariadb(url: URL, patient: bool) -> Engine:
    url = url.update_query_dict({"charset": "utf8mb4"})
    wait = int(LOCK_WAIT)
    options: dict[str, Any] = {
        "connect_timeout": CONNECT_WAIT,
        # The latter for a table that somebody alters: by default that is waited for a whole day.
        "init_command": f"SET SESSION innodb_lock_wait_timeout = {wait}, lock_wait_timeout = {wait}",
    }
    if not patient:
        options |= {"read_timeout": ANSWER_WAIT, "write_timeout": ANSWER_WAIT}
    return _server(url, options, isolation_level="READ COMMITTED")


def _server(url: URL, connect_args: Mapping[str, Any], **options: Any) -> Engine:
    """What the URL itself says of the connection wins."""
    return sa.create_engine(
        url,
        connect_args={name: value for name, value in connect_args.items() if name not in url.query},
        pool_pre_ping=True,
        pool_recycle=1800,
        json_serializer=_json,
        **options,
    )


def _json(value: object) -> str:
    return schema.storable(json.dumps(value, ensure_ascii=False))
