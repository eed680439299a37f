"""Opening the catalog, and what a transaction is on each of the three engines."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from ..domain.errors import CatalogError, SettingsError
from . import migrations, schema

P = ParamSpec("P")
R = TypeVar("R")

LOCK_WAIT = 30.0
"""Seconds that a transaction waits for another one before it gives up."""

ATTEMPTS = 8
"""Times that a transaction is begun when others get in its way."""

_DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgres": "postgresql+psycopg",
    "mysql": "mysql+pymysql",
    "mariadb": "mariadb+pymysql",
}
_EXTRAS = {"psycopg": "postgresql", "pymysql": "mysql"}
_CONFLICTS = {1205, 1213, "40001", "40P01", "55P03"}
"""Lock wait timeout and deadlock (MariaDB), serialization failure, deadlock, lock not available (PostgreSQL)."""


class Catalog:
    """An open catalog. `identity` tells its runs from those of any other catalog."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.identity = ""
        self.turn = threading.Lock() if self.is_sqlite else contextlib.nullcontext()
        """Held by the one transaction of this process that writes. SQLite lets only one write at a time, and has
        the others look again after a while, when it may have been free for long."""

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @property
    def address(self) -> str:
        """Where it is, without the password, and without options: a driver may take the password there."""
        return self.engine.url.set(query={}).render_as_string(hide_password=True)

    def close(self) -> None:
        self.engine.dispose()


def open_catalog(url: str, *, upgrade: bool = False) -> Catalog:
    """Connect and make sure that the schema is ours. A new database and SQLite are brought up to date;
    a server's existing one only with `upgrade`, since other workers may be using it.

    Raises `SettingsError` for a URL of no known form, `CatalogError` when the database does not answer, or
    has another schema.
    """
    catalog = Catalog(_engine(url))
    try:
        with catalog.engine.connect() as db:
            found = migrations.current(db)
        if found not in (None, *migrations.known()):
            raise _newer(catalog, found)
        if found != migrations.newest():
            if found is not None and not catalog.is_sqlite and not upgrade:
                raise CatalogError(
                    f"the catalog at {catalog.address} has the older schema {found}; run: http-downloader db upgrade"
                )
            migrations.upgrade(catalog.engine)
        catalog.identity = _identity(catalog)
    except (SQLAlchemyError, TypeError, ValueError) as error:  # the latter two from drivers, about options
        catalog.close()
        raise _translated(catalog, error) from error
    except CatalogError:
        catalog.close()
        raise
    return catalog


def look_into_catalog(url: str) -> Catalog | None:
    """Open a catalog to read only: it is neither made nor brought up to date. None when there is none yet.

    Raises as `open_catalog` does, and `CatalogError` for an older schema.
    """
    catalog = Catalog(_engine(url, read_only=True))
    if catalog.is_sqlite and not Path(str(make_url(url).database)).exists():
        return None
    try:
        with catalog.engine.connect() as db:
            found = migrations.current(db)
        if found is None:
            catalog.close()
            return None
        if found not in migrations.known():
            catalog.close()
            raise _newer(catalog, found)
        if found != migrations.newest():
            catalog.close()
            raise CatalogError(
                f"the catalog at {catalog.address} has schema {found}, and this program works with {migrations.newest()};"
                " run: http-downloader db upgrade"
            )
        catalog.identity = _identity(catalog)
    except (SQLAlchemyError, TypeError, ValueError) as error:
        catalog.close()
        raise _translated(catalog, error) from error
    return catalog


def transaction(function: Callable[Concatenate[Connection, P], R]) -> Callable[Concatenate[Catalog, P], R]:
    """Make `function(db, …)` one transaction, called as `function(catalog, …)`.

    A deadlock, or a row that another worker has made meanwhile, is resolved by running the whole function again.
    Other database errors become a `CatalogError`.
    """

    @functools.wraps(function)
    def run(catalog: Catalog, /, *args: P.args, **kwargs: P.kwargs) -> R:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with catalog.turn, catalog.engine.begin() as db:
                    return function(db, *args, **kwargs)
            except DBAPIError as error:
                if attempt == ATTEMPTS or not (isinstance(error, IntegrityError) or _is_conflict(error)):
                    raise _translated(catalog, error) from error
                time.sleep(random.uniform(0.01, 0.05) * attempt)  # noqa: S311
            except SQLAlchemyError as error:
                raise _translated(catalog, error) from error
        raise AssertionError("unreachable")

    return run


def query(function: Callable[Concatenate[Connection, P], R]) -> Callable[Concatenate[Catalog, P], R]:
    """Like `transaction`, for functions that only read: they never wait for a writer, nor make one wait."""

    @functools.wraps(function)
    def run(catalog: Catalog, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with catalog.engine.connect().execution_options(reads_only=True) as db:
                return function(db, *args, **kwargs)
        except SQLAlchemyError as error:
            raise _translated(catalog, error) from error

    return run


def utcnow() -> datetime:
    return datetime.now(UTC)


@query
def _identity(db: Connection) -> str:
    return str(db.execute(sa.select(schema.catalog.c.id)).scalar_one())


def _engine(text: str, *, read_only: bool = False) -> Engine:
    try:
        url = make_url(text)
        url = url.set(drivername=_DRIVERS[url.get_backend_name()])
    except (ArgumentError, KeyError, ValueError) as error:
        raise SettingsError(
            "DATABASE_URL must be sqlite:///path, postgresql://… or mariadb://… (mysql://…), with nothing else in front"
        ) from error
    try:
        return _sqlite(url, read_only) if url.get_backend_name() == "sqlite" else _server(url)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        driver = url.get_driver_name()
        raise SettingsError(
            f"DATABASE_URL needs the driver {driver}; install http-downloader[{_EXTRAS.get(driver, driver)}]"
        ) from error


def _sqlite(url: URL, read_only: bool) -> Engine:
    if url.database in (None, "", ":memory:"):
        raise SettingsError("DATABASE_URL names an SQLite database in memory; a catalog needs a file")
    path = Path(str(url.database))
    if not read_only:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CatalogError(f"the folder of the catalog cannot be made: {path.parent}: {error.strerror}") from error
    connect_args = {"timeout": LOCK_WAIT, "check_same_thread": False}
    engine = sa.create_engine(url, connect_args=connect_args, json_serializer=_json)

    @sa.event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, arguments: list[Any], options: dict[str, Any]) -> None:
        if read_only:  # here, so that the engine's address stays the one that people know
            arguments[0] = f"file:{quote(str(path.absolute()))}?mode=ro"
            options["uri"] = True

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours: the driver's own would be a deferred one
        for pragma in () if read_only else ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def begin(db: Connection) -> None:
        # A deferred transaction that reads and then writes fails at once when another has written meanwhile,
        # whatever the timeout; one that takes the write lock first waits its turn.
        db.exec_driver_sql("BEGIN" if db.get_execution_options().get("reads_only") else "BEGIN IMMEDIATE")

    return engine


def _server(url: URL) -> Engine:
    options: dict[str, Any] = {"pool_pre_ping": True, "pool_recycle": 1800, "json_serializer": _json}
    if url.get_backend_name() in ("mysql", "mariadb"):
        url = url.update_query_dict({"charset": "utf8mb4"})
        options["isolation_level"] = "READ COMMITTED"
    return sa.create_engine(url, **options)


def _newer(catalog: Catalog, found: str | None) -> CatalogError:
    return CatalogError(
        f"the catalog at {catalog.address} has schema {found}, which is newer than this program; upgrade http-downloader"
    )


def _json(value: object) -> str:
    return schema.storable(json.dumps(value, ensure_ascii=False))


def _is_conflict(error: DBAPIError) -> bool:
    original = error.orig
    code = getattr(original, "sqlstate", None) or (original.args[0] if original and original.args else None)
    return code in _CONFLICTS


def _translated(catalog: Catalog, error: Exception) -> CatalogError:
    words = str(error.orig if isinstance(error, DBAPIError) else error).strip().splitlines()
    return CatalogError(
        f"the catalog at {catalog.address} does not work: {words[0] if words else type(error).__name__}"
    )
