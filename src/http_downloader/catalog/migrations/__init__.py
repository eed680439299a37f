"""Steps that lead from an older catalog to today's. Each stands alone: it never imports `schema`.

From 0004 on each says in `works_with` what becomes of programs that do not know it. None: it *expands* (new tables, columns
that may be empty or have a default, indexes), and who could write before still can. A revision: it *contracts*, and
programs that do not know that revision may not write any more. The catalog has what counts in its own `works_with`, and
every transaction that writes looks there first.

Alembic is imported only when there is something to migrate: it takes a quarter of a command's start.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@functools.cache
def known() -> tuple[str, ...]:
    """All revisions, the oldest first: their ids are numbers, and their files' names begin with them."""
    files = (Path(__file__).parent / "versions").glob("[0-9]*.py")
    return tuple(sorted(file.name.partition("_")[0] for file in files))


def current(db: Connection) -> str | None:
    """The revision of a catalog; None when it has none yet."""
    if not sa.inspect(db).has_table("alembic_version"):
        return None
    return db.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    revision: str
    title: str
    works_with: str | None
    """None: programs that could write before still can. Else the oldest schema whose programs can."""


def steps(after: str | None) -> list[Step]:
    """What leads from a revision to the newest one."""
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory.from_config(config()).walk_revisions()
    found = [
        # One of the first three says nothing: older programs did not look.
        Step(revision=one.revision, title=one.doc, works_with=getattr(one.module, "works_with", one.revision))
        for one in scripts
    ]
    return [step for step in reversed(found) if after is None or step.revision > after]


def works_with(revision: str) -> str | None:
    """The oldest schema whose programs may write to a catalog with this one; None when there is none such."""
    return next(
        (step.works_with for step in reversed(steps(None)) if step.works_with and step.revision <= revision), None
    )


def declared(db: Connection) -> str | None:
    """The oldest schema whose programs may write here. For the first statement of a transaction that writes: as long
    as that lasts, no step that contracts can begin."""
    return db.exec_driver_sql("SELECT works_with FROM catalog").scalar()


def upgrade(engine: Engine, revision: str = "head") -> None:
    from alembic import command

    def move(settings: Config, db: Connection) -> None:
        found = current(db)
        if found is not None and any(step.works_with for step in steps(found)):
            _shut_out_older(db)
        command.upgrade(settings, revision)
        _declare(db)

    _under_lock(engine, move)


def downgrade(engine: Engine, revision: str) -> None:
    from alembic import command

    def move(settings: Config, db: Connection) -> None:
        command.downgrade(settings, revision)
        _declare(db)

    _under_lock(engine, move)


def _declare(db: Connection) -> None:
    if (revision := current(db)) is not None and _can_declare(db):
        _write_down(db, works_with(revision))


def _shut_out_older(db: Connection) -> None:
    """Before a step that contracts: wait for the transactions under way, and let no older program begin another.

    Each of them has read `catalog`, and so keeps that table as it is until it ends. SQLite has one writer, and it is us.
    """
    if not _can_declare(db):
        return  # from before 0004
    if db.dialect.name == "postgresql":
        # Those that come now wait here, and then read what we have written.
        db.execute(sa.text("LOCK TABLE catalog IN ACCESS EXCLUSIVE MODE"))
    elif db.dialect.name in ("mysql", "mariadb"):
        # Each change of the schema is a commit there, so it is said first. Cut off after it, the upgrade is run again.
        before = declared(db)
        _write_down(db, works_with(newest()))
        db.execute(sa.text("COMMIT"))
        db.execute(sa.text(f"SET SESSION lock_wait_timeout = {int(PATIENCE)}"))
        try:
            db.execute(sa.text("LOCK TABLES catalog WRITE"))
        except sa.exc.OperationalError:
            _write_down(db, before)
            db.execute(sa.text("COMMIT"))
            raise
        db.execute(sa.text("UNLOCK TABLES"))


def _can_declare(db: Connection) -> bool:
    return any(column["name"] == "works_with" for column in sa.inspect(db).get_columns("catalog"))


def _write_down(db: Connection, oldest: str | None) -> None:
    db.execute(sa.text("UPDATE catalog SET works_with = :oldest"), {"oldest": oldest})


def _under_lock(engine: Engine, move: Callable[[Config, Connection], object]) -> None:
    """Two workers that start at once must not both migrate: one waits, then finds it done."""
    with engine.connect() as db, _mariadb_lock(db), _going_on(db), db.begin():
        if db.dialect.name == "postgresql":
            db.execute(sa.text(f"SET LOCAL lock_timeout = {int(PATIENCE * 1000)}"))
            db.execute(sa.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        # SQLite: BEGIN IMMEDIATE holds the only write lock there is.
        move(config(db), db)


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
