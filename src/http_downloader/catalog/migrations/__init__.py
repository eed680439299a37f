"""Steps that lead from an older catalog to today's. Each stands alone: it never imports `schema`.

Alembic is imported only when there is something to migrate: it takes a quarter of a command's start.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from ...domain.errors import CatalogError

if TYPE_CHECKING:
    from alembic.config import Config

_LOCK = 5_837_201_944
"""Any number, as long as all workers use the same."""

PATIENCE = 60.0
"""Seconds that a worker waits for another one's migration."""


def config(db: Connection | None = None) -> Config:
    from alembic.config import Config

    settings = Config()
    settings.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    settings.set_main_option("path_separator", "os")
    settings.attributes["connection"] = db
    return settings


def newest() -> str:
    return known()[-1]


def known() -> list[str]:
    """All revisions, the oldest first: their ids are numbers, and their files' names begin with them."""
    return sorted(file.name.partition("_")[0] for file in (Path(__file__).parent / "versions").glob("[0-9]*.py"))


def current(db: Connection) -> str | None:
    """The revision of a catalog; None when it has none yet."""
    if not sa.inspect(db).has_table("alembic_version"):
        return None
    return db.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def upgrade(engine: Engine, revision: str = "head") -> None:
    from alembic import command

    _under_lock(engine, command.upgrade, revision)


def downgrade(engine: Engine, revision: str) -> None:
    from alembic import command

    _under_lock(engine, command.downgrade, revision)


def _under_lock(engine: Engine, move: Callable[[Config, str], object], revision: str) -> None:
    """Two workers that start at once must not both migrate: one waits, then finds it done."""
    with engine.connect() as db, _mariadb_lock(db), _going_on(db), db.begin():
        if db.dialect.name == "postgresql":
            db.execute(sa.text(f"SET LOCAL lock_timeout = {int(PATIENCE * 1000)}"))
            db.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        # SQLite: BEGIN IMMEDIATE holds the only write lock there is.
        move(config(db), revision)


@contextmanager
def _mariadb_lock(db: Connection) -> Iterator[None]:
    """Held until after the commit: before it nobody else sees which revision was reached."""
    if db.dialect.name not in ("mysql", "mariadb"):
        yield
        return
    lock = {"lock": f"http-downloader-{_LOCK}", "patience": PATIENCE}
    with db.begin():
        if db.execute(sa.text("SELECT GET_LOCK(:lock, :patience)"), lock).scalar() != 1:
            raise CatalogError("another worker has been migrating the catalog for too long; try again later")
    try:
        yield
    finally:
        with db.begin():
            db.execute(sa.text("SELECT RELEASE_LOCK(:lock)"), {"lock": lock["lock"]})


_CHANGES = (
    (re.compile(r"^\s*(CREATE TABLE|CREATE (?:UNIQUE )?INDEX) (?!IF NOT EXISTS)"), r"\1 IF NOT EXISTS "),
    (re.compile(r"^\s*(ALTER TABLE \S+ ADD COLUMN) (?!IF NOT EXISTS)"), r"\1 IF NOT EXISTS "),
    (re.compile(r"^\s*(DROP TABLE|DROP INDEX) (?!IF EXISTS)"), r"\1 IF EXISTS "),
    (re.compile(r"^\s*(ALTER TABLE \S+ DROP COLUMN) (?!IF EXISTS)"), r"\1 IF EXISTS "),
)


@contextmanager
def _going_on(db: Connection) -> Iterator[None]:
    """MariaDB commits each change of the schema by itself: a migration that was cut off has left some behind, and the
    next try goes over them. MySQL does not know these words."""
    if not getattr(db.dialect, "is_mariadb", False):
        yield
        return

    def skip_what_is_there(
        _db: object, _cursor: object, statement: str, parameters: object, *_: object
    ) -> tuple[str, object]:
        for pattern, words in _CHANGES:
            statement = pattern.sub(words, statement)
        return statement, parameters

    sa.event.listen(db, "before_cursor_execute", skip_what_is_there, retval=True)
    try:
        yield
    finally:
        sa.event.remove(db, "before_cursor_execute", skip_what_is_there)
