"""A database of its own for each test, on the three engines, each of them real."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
import sqlalchemy as sa

from http_downloader.catalog import schema
from http_downloader.catalog.clock import milliseconds
from http_downloader.catalog.engine import Catalog

ENGINES = ("sqlite", "postgresql", "mariadb")


@contextlib.contextmanager
def database(kind: str, folder: Path, *, durable: bool = False) -> Iterator[str]:
    """The URL of a new database, dropped afterwards. A server that does not answer is the test's failure.

    Not `durable`: it need not outlive a power cut.
    """
    name = f"test_{uuid.uuid4().hex[:12]}"
    if kind == "sqlite":
        yield f"sqlite:///{folder / name}.sqlite3"
    elif kind == "postgresql":
        port = int(os.environ.get("TEST_POSTGRESQL_PORT", "5432"))
        with _server("PostgreSQL", port, lambda: psycopg.connect(
            host="127.0.0.1", port=port, user="postgres", dbname="postgres", connect_timeout=5, autocommit=True
        )) as server:  # fmt: skip
            server.execute(f"CREATE DATABASE {name}")
            if not durable:
                server.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
            try:
                yield f"postgresql://postgres@127.0.0.1:{port}/{name}"
            finally:
                server.execute(f"DROP DATABASE {name} WITH (FORCE)")
    else:
        port = int(os.environ.get("TEST_MARIADB_PORT", "3306"))
        with _server("MariaDB", port, lambda: pymysql.connect(
            host="127.0.0.1", port=port, user="root", connect_timeout=5
        )) as server:  # fmt: skip
            server.cursor().execute(f"CREATE DATABASE {name}")
            try:
                yield f"mariadb://root@127.0.0.1:{port}/{name}"
            finally:
                server.cursor().execute(f"DROP DATABASE {name}")


@contextlib.contextmanager
def _server(name: str, port: int, connect: Callable[[], Any]) -> Iterator[Any]:
    problem, server = "", None
    try:
        server = connect()
    except (psycopg.OperationalError, pymysql.err.OperationalError) as error:
        problem = str(error).splitlines()[0]
    if server is None:
        pytest.fail(
            f"{name} cannot be used at 127.0.0.1:{port} ({problem}); `make test` finds or starts it", pytrace=False
        )
    try:
        yield server
    finally:
        server.close()


def pass_time(catalog: Catalog, span: timedelta) -> None:
    """What is agreed on by the database's clock is nearer by so much."""
    moments = {schema.runs: ("lease_until", "not_before"), schema.sites: ("resume_at", "served_at")}
    with catalog.engine.begin() as db:
        for table, names in moments.items():
            earlier = {name: sa.type_coerce(table.c[name], sa.BigInteger) - milliseconds(span) for name in names}
            db.execute(sa.update(table).values(earlier))


def end_connections(url: str, only: list[int] | None = None) -> int:
    """End all connections to this database, or those with these numbers. Returns how many."""
    address = sa.make_url(url)
    if address.get_backend_name() == "postgresql":
        with psycopg.connect(
            host="127.0.0.1", port=address.port, user="postgres", dbname="postgres", autocommit=True
        ) as db:
            every = "SELECT pid FROM pg_stat_activity WHERE datname = %s AND pid <> pg_backend_pid()"
            found = only or [pid for (pid,) in db.execute(every, [address.database])]
            for pid in found:
                db.execute("SELECT pg_terminate_backend(%s)", [pid])
        return len(found)
    with contextlib.closing(pymysql.connect(host="127.0.0.1", port=address.port or 3306, user="root")) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT id FROM information_schema.processlist WHERE db = %s", [address.database])
        found = only or [number for (number,) in cursor.fetchall()]
        for number in found:
            with contextlib.suppress(pymysql.err.OperationalError):  # it has just ended by itself
                cursor.execute(f"KILL CONNECTION {number}")
    return len(found)


@contextlib.contextmanager
def locked(url: str, statement: str = "") -> Iterator[None]:
    """Another program holds what every writer needs. SQLite: and carries out a statement, which counts at the end."""
    address = sa.make_url(url)
    match address.get_backend_name():
        case "sqlite":
            with contextlib.closing(sqlite3.connect(str(address.database), isolation_level=None)) as db:
                db.execute("PRAGMA busy_timeout = 10000")
                db.execute("BEGIN IMMEDIATE")
                db.execute(statement)
                yield
                db.execute("COMMIT")
        case "postgresql":
            with psycopg.connect(address.set(drivername="postgresql").render_as_string(hide_password=False)) as db:
                db.execute("LOCK TABLE runs, sites, sources, orders IN ACCESS EXCLUSIVE MODE")
                yield
        case _:
            where = {"host": "127.0.0.1", "port": address.port or 3306, "user": "root", "database": address.database}
            with contextlib.closing(pymysql.connect(**where)) as connection:
                connection.cursor().execute("LOCK TABLES runs WRITE, sites WRITE, sources WRITE, orders WRITE")
                yield
