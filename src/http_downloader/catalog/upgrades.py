"""What an upgrade of the catalog would do, and which workers would not survive it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import SQLAlchemyError

from ..domain.errors import CatalogError
from ..domain.runs import RunState
from . import migrations, trouble
from .address import make_engine
from .clock import NOW, in_time
from .schema import runs, workers

ALIVE = timedelta(seconds=60)
"""A worker that was seen within this time is taken for alive. Who is overlooked is shut out all the same, only less
politely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`found`: the schema that there is; None when there is no catalog yet."""

    address: str
    found: str | None
    steps: list[migrations.Step]
    shut_out: list[str]


def plan(url: str) -> Plan:
    """What `db upgrade` would do. Changes nothing. Raises `SettingsError`, `CatalogError`."""
    engine = make_engine(url, read_only=True)
    address = engine.url.set(query={}).render_as_string(hide_password=True)
    try:
        if engine.dialect.name == "sqlite" and not Path(str(engine.url.database)).exists():
            return Plan(address=address, found=None, steps=migrations.steps(None), shut_out=[])
        with engine.connect().execution_options(reads_only=True) as db:
            found = migrations.current(db)
            return Plan(address=address, found=found, steps=migrations.steps(found), shut_out=_shut_out(db, found))
    except (SQLAlchemyError, TypeError, ValueError) as error:  # the latter two from drivers, about options
        raise CatalogError(trouble.sentence(address, error)) from error
    finally:
        engine.dispose()


def check_workers(engine: Engine, address: str, found: str) -> None:
    """Raise `CatalogError` when workers run that the upgrade from this schema would shut out."""
    with engine.connect().execution_options(reads_only=True) as db:
        names = _shut_out(db, found)
    if names:
        raise CatalogError(
            f"the catalog at {address} cannot be upgraded from schema {found} while workers of an older program run:"
            f" {', '.join(names)}; upgrade and restart them first, or run: http-downloader db upgrade --force (they stop,"
            " and others take up their runs)"
        )


def _shut_out(db: Connection, found: str | None) -> list[str]:
    """The names of workers that run now, and could not go on after the upgrade from this schema."""
    oldest = max((step.works_with for step in migrations.steps(found) if step.works_with), default=None)
    if found is None or oldest is None:
        return []
    return sorted(name for name, known in running(db).items() if known is None or known < oldest)


def running(db: Connection) -> dict[str, str | None]:
    """Workers that are alive by name, each with the newest schema that it knows, where it has said so."""
    held = sa.select(runs.c.owner).where(runs.c.state == RunState.RUNNING, runs.c.lease_until > NOW)
    found: dict[str, str | None] = dict.fromkeys(db.execute(held.distinct()).scalars())
    if sa.inspect(db).has_table("workers"):
        seen = sa.select(workers.c.name, workers.c.schema).where(workers.c.seen_at > in_time(-ALIVE))
        found |= {row.name: row.schema for row in db.execute(seen)}
    return found
