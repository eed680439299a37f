"""Opening the catalog, and what a transaction is on each of the three engines."""

from __future__ import annotations

import contextlib
import functools
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from ..domain.errors import CatalogError, OutgrownError
from . import migrations, schema, trouble, upgrades
from .address import lock_wait, make_engine
from .mounts import network_share

P = ParamSpec("P")
R = TypeVar("R")

AT_ONCE = 1000
"""Rows that one statement names: after a long outage there may be more than an engine takes."""

ATTEMPTS = 8
"""Times that a transaction is begun when others get in its way."""


class Catalog:
    """An open catalog. `identity` tells its runs from those of any other catalog."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.identity = ""
        self.revision = ""
        """The schema that was found. It may be newer than ours, when that only adds to it."""
        self.turn = _Turn(self) if self.is_sqlite else contextlib.nullcontext()
        """Held by the one transaction of this process that writes. SQLite lets only one write at a time, and has
        the others look again after a while, when it may have been free for long."""

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @property
    def address(self) -> str:
        """Where it is, without the password, and without options: a driver may take the password there."""
        return self.engine.url.set(query={}).render_as_string(hide_password=True)

    def doubt(self) -> str | None:
        """What may go wrong although everything works now, in one line."""
        if self.revision not in migrations.known():
            return (
                f"the catalog has the newer schema {self.revision}, and this program, which knows {migrations.newest()},"
                " may still use it; upgrade http-downloader soon"
            )
        folder = Path(str(self.engine.url.database)).parent
        if not self.is_sqlite or (share := network_share(folder)) is None:
            return None
        return (
            f"the catalog lies on a network share ({share}): {folder}; SQLite cannot lock files there, and may be "
            "damaged: keep it on a local disk (RUNTIME_PATH), or use a server (DATABASE_URL)"
        )

    def close(self) -> None:
        self.engine.dispose()


class _Turn:
    """Not for ever: when another program keeps the lock, each of our threads gives up after its time, not one after
    the other."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._patience = lock_wait(catalog.engine.url)
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=self._patience):
            raise CatalogError(f"the catalog at {self._catalog.address} does not work: {trouble.LOCKED}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


def open_catalog(url: str, *, upgrade: bool = False, force: bool = False, durable: bool = True) -> Catalog:
    """Connect and make sure that the schema is ours, or newer and open to us. A new database and SQLite are brought up
    to date; a server's existing one only with `upgrade`, since other workers may be using it. `force`: although workers
    run that cannot go on with the new schema. Not `durable`: a power failure may take the last commits of an SQLite
    database, and never its consistency.

    Raises `SettingsError` for a URL of no known form, `CatalogError` when the database does not answer, or
    has another schema.
    """
    catalog = Catalog(make_engine(url, durable=durable))
    try:
        found = _revision(catalog)
        if found in (None, *migrations.known()) and found != migrations.newest():
            if found is not None and not catalog.is_sqlite and not upgrade:
                raise CatalogError(
                    f"the catalog at {catalog.address} has the older schema {found}; run: http-downloader db upgrade"
                )
            if found is not None and not force:
                upgrades.check_workers(catalog.engine, catalog.address, found)
            _upgrade(url, durable)
            found = migrations.newest()
        _take(catalog, found)
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
    catalog = Catalog(make_engine(url, read_only=True))
    if catalog.is_sqlite and not Path(str(make_url(url).database)).exists():
        return None
    try:
        found = _revision(catalog)
        if found is None:
            catalog.close()
            return None
        if found in migrations.known() and found != migrations.newest():
            raise CatalogError(
                f"the catalog at {catalog.address} has schema {found}, and this program works with {migrations.newest()};"
                " run: http-downloader db upgrade"
            )
        _take(catalog, found)
    except (SQLAlchemyError, TypeError, ValueError) as error:
        catalog.close()
        raise _translated(catalog, error) from error
    except CatalogError:
        catalog.close()
        raise
    return catalog


def transaction(function: Callable[Concatenate[Connection, P], R]) -> Callable[Concatenate[Catalog, P], R]:
    """Make `function(db, …)` one transaction, called as `function(catalog, …)`.

    A deadlock, or a row that another worker has made meanwhile, is resolved by running the whole function again; so
    is a lost connection, once. When it was lost with the answer to COMMIT, nobody knows whether the first pass counts:
    every function must be safe to run twice, and those for which that is not enough ask `is_repeated`.
    Other database errors become a `CatalogError`.
    """

    @functools.wraps(function)
    def run(catalog: Catalog, /, *args: P.args, **kwargs: P.kwargs) -> R:
        repeated = False
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with catalog.turn, catalog.engine.connect() as db:
                    if repeated:
                        db.execution_options(repeated=True)
                    with db.begin():
                        _check_schema(catalog, db)
                        return function(db, *args, **kwargs)
            except DBAPIError as error:
                lost = error.connection_invalidated and not repeated
                if attempt == ATTEMPTS or not (lost or isinstance(error, IntegrityError) or trouble.is_conflict(error)):
                    raise _translated(catalog, error) from error
                repeated = repeated or lost
                time.sleep(random.uniform(0.01, 0.05) * attempt)  # noqa: S311
            except SQLAlchemyError as error:
                raise _translated(catalog, error) from error
        raise AssertionError("unreachable")

    return run


def is_repeated(db: Connection) -> bool:
    """Whether an earlier pass of this transaction ended with its connection, and may have been committed."""
    return bool(db.get_execution_options().get("repeated"))


def query(function: Callable[Concatenate[Connection, P], R]) -> Callable[Concatenate[Catalog, P], R]:
    """Like `transaction`, for functions that only read: they never wait for a writer, nor make one wait."""

    def once(catalog: Catalog, *args: P.args, **kwargs: P.kwargs) -> R:
        with catalog.engine.connect().execution_options(reads_only=True) as db:
            return function(db, *args, **kwargs)

    @functools.wraps(function)
    def run(catalog: Catalog, /, *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            try:
                return once(catalog, *args, **kwargs)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            return once(catalog, *args, **kwargs)
        except SQLAlchemyError as error:
            raise _translated(catalog, error) from error

    return run


def update_found(
    db: Connection, table: sa.Table, found: Sequence[int], condition: sa.ColumnElement[bool], values: Mapping[str, Any]
) -> int:
    """Update those of the rows that were found, without a lock, to meet a condition, and still do. Returns how many.

    An UPDATE that searches by an index locks its way along there, on MariaDB also what it then leaves alone, while a
    worker that ends its run comes from the other side: each waits for the other.
    """
    count = 0
    for start in range(0, len(found), AT_ONCE):
        some = table.c.id.in_(found[start : start + AT_ONCE])
        count += db.execute(sa.update(table).where(some, condition).values(**values)).rowcount
    return count


@transaction
def probe(db: Connection) -> None:
    """Write something, and leave nothing: a catalog that cannot be written answers many questions, and is not well."""
    name = f"probe-{random.getrandbits(64):016x}"
    db.execute(sa.insert(schema.sites).values(name=name))
    db.execute(sa.delete(schema.sites).where(schema.sites.c.name == name))


def utcnow() -> datetime:
    return datetime.now(UTC)


def _take(catalog: Catalog, found: str | None) -> None:
    """Use a catalog with this schema, or raise `CatalogError`."""
    catalog.revision = str(found)
    catalog.identity, oldest = _identity(catalog)
    if found not in migrations.known() and (oldest is None or oldest > migrations.newest()):
        raise _outgrown(catalog, f"schema {found}, which is newer than this program")


def _check_schema(catalog: Catalog, db: Connection) -> None:
    """The first statement of every transaction that writes: an upgrade that shuts us out waits for those that have made
    it, and is seen by all others."""
    oldest = migrations.declared(db)
    if oldest is not None and oldest > migrations.newest():
        raise _outgrown(
            catalog, f"been upgraded, and programs that do not know schema {oldest} may not use it any more"
        )


@query
def _identity(db: Connection) -> tuple[str, str | None]:
    """And the oldest schema whose programs may write here."""
    found = db.execute(sa.select(schema.catalog.c.id, schema.catalog.c.works_with)).one()
    return found.id, found.works_with


def _revision(catalog: Catalog) -> str | None:
    """Without waiting for a writer: looking needs no lock."""
    with catalog.engine.connect().execution_options(reads_only=True) as db:
        return migrations.current(db)


def _upgrade(url: str, durable: bool) -> None:
    engine = make_engine(url, patient=True, durable=durable)
    try:
        migrations.upgrade(engine)
    finally:
        engine.dispose()


def _outgrown(catalog: Catalog, what: str) -> OutgrownError:
    return OutgrownError(f"the catalog at {catalog.address} has {what}; upgrade http-downloader")


def _translated(catalog: Catalog, error: Exception) -> CatalogError:
    return CatalogError(trouble.sentence(catalog.address, error))
