"""Events that are committed with the facts they tell, and not yet confirmed by the broker."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..domain.events import Event, EventType
from ..domain.runs import RunState
from .engine import query, transaction
from .schema import outbox, runs


def add(db: Connection, run: int, events: list[Event], now: datetime) -> None:
    """Part of the transaction that records the facts."""
    if events:
        db.execute(
            sa.insert(outbox),
            [
                {"run_id": run, "ends_run": event.ends_run, "event": asdict(event), "created_at": now}
                for event in events
            ],
        )


@query
def waiting(db: Connection, owner: str, limit: int) -> list[tuple[int, Event]]:
    """The oldest events of this worker's runs, with their row ids. The last event of a run is held back while
    any other of that run waits: it must be the last one that the broker confirms."""
    earlier = outbox.alias()
    blocked = sa.select(earlier.c.id).where(earlier.c.run_id == outbox.c.run_id, earlier.c.ends_run.is_(False)).exists()
    choice = (
        sa.select(outbox.c.id, outbox.c.event)
        .join(runs, runs.c.id == outbox.c.run_id)
        .where(runs.c.owner == owner, sa.or_(outbox.c.ends_run.is_(False), ~blocked))
        .order_by(outbox.c.id)
        .limit(limit)
    )
    return [(row.id, _event(row.event)) for row in db.execute(choice)]


@transaction
def confirmed(db: Connection, ids: list[int], owner: str | None = None) -> None:
    """Forget the events that the broker has; a run that has ended and has none left needs no owner any more.

    With `owner`, only what is still this worker's: when another one has taken over and has forgotten these rows, SQLite
    may have given their ids to events that nobody has sent.
    """
    choice = sa.select(outbox.c.id, outbox.c.run_id).where(outbox.c.id.in_(ids))
    if owner is not None:
        choice = choice.join(runs, runs.c.id == outbox.c.run_id).where(runs.c.owner == owner)
    found = db.execute(choice).all()
    touched = {row.run_id for row in found}
    db.execute(sa.delete(outbox).where(outbox.c.id.in_([row.id for row in found])))
    for run in touched:
        disown_if_drained(db, run)


def disown_if_drained(db: Connection, run: int) -> None:
    db.execute(
        sa.update(runs)
        .where(
            runs.c.id == run,
            runs.c.state != RunState.RUNNING,
            ~sa.select(outbox.c.id).where(outbox.c.run_id == run).exists(),
        )
        .values(owner=None, lease_until=None)
    )


@transaction
def adopt(db: Connection, owner: str, now: datetime, lease: timedelta) -> int:
    """Take over the events of runs that nobody owns, or whose owner's lease has ended. Returns how many runs."""
    orphans = db.execute(
        sa.update(runs)
        .where(
            runs.c.state != RunState.RUNNING,
            sa.or_(runs.c.owner.is_(None), runs.c.lease_until < now),
            runs.c.id.in_(sa.select(outbox.c.run_id)),
        )
        .values(owner=owner, lease_until=now + lease)
    )
    return orphans.rowcount


@query
def depth(db: Connection) -> int:
    return int(db.execute(sa.select(sa.func.count()).select_from(outbox)).scalar_one())


def _event(fields: dict[str, Any]) -> Event:
    return Event(**{**fields, "type": EventType(fields["type"])})
