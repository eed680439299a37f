"""Events that are committed with the facts they tell, and not yet confirmed by the broker."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..domain.events import Event, EventType
from ..domain.runs import RunState
from .clock import NOW, in_time
from .engine import query, transaction, update_found
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


def _of_run(run: sa.ColumnElement[int], *columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Between, not equal, in an order that only one index has: else PostgreSQL hopes to meet one soon when it walks
    over all events, and when there is none it has walked for nothing."""
    return sa.select(*columns).where(outbox.c.run_id.between(run, run)).order_by(outbox.c.run_id, outbox.c.id)


_OWN = sa.select(runs.c.id).where(runs.c.owner == sa.bindparam("owner")).order_by(runs.c.id)
_EVENTS = _of_run(sa.bindparam("run", type_=sa.BigInteger), outbox.c.id, outbox.c.ends_run, outbox.c.event).limit(
    sa.bindparam("limit")
)


@query
def waiting(db: Connection, owner: str, limit: int) -> list[tuple[int, Event]]:
    """Events of this worker's runs, with their row ids: the oldest of its oldest run first. The last event of a run is
    held back while any other of that run waits: it must be the last one that the broker confirms.

    Run by run, each read in the order of its rows: to put all in one order, all would have to be read.
    """
    found: list[tuple[int, Event]] = []
    for run in db.execute(_OWN, {"owner": owner}).scalars().all():
        rows = db.execute(_EVENTS, {"run": run, "limit": limit - len(found) + 1}).all()  # one of them may be the last
        others = [row for row in rows if not row.ends_run]
        found += [(row.id, _event(row.event)) for row in others or rows]
        if len(found) >= limit:
            break
    return found[:limit]


@transaction
def confirmed(db: Connection, ids: list[int], owner: str | None = None) -> list[datetime]:
    """Forget the events that the broker has; a run that has ended and has none left needs no owner any more.

    With `owner`, only what is still this worker's: when another one has taken over and has forgotten these rows, SQLite
    may have given their ids to events that nobody has sent. Returns when each of them was told.
    """
    choice = sa.select(outbox.c.id, outbox.c.run_id, outbox.c.created_at).where(outbox.c.id.in_(ids))
    if owner is not None:
        choice = choice.join(runs, runs.c.id == outbox.c.run_id).where(runs.c.owner == owner)
    found = db.execute(choice).all()
    touched = {row.run_id for row in found}
    db.execute(sa.delete(outbox).where(outbox.c.id.in_([row.id for row in found])))
    for run in touched:
        disown_if_drained(db, run)
    return [row.created_at for row in found]


def disown_if_drained(db: Connection, run: int) -> None:
    db.execute(
        sa.update(runs)
        .where(
            runs.c.id == run,
            runs.c.state != RunState.RUNNING,
            _of_run(sa.literal(run, sa.BigInteger), outbox.c.id).limit(1).scalar_subquery().is_(None),
        )
        .values(owner=None, lease_until=None)
    )


def _with_events(dialect: str) -> sa.FromClause:
    """The runs that have events here, found with one step for each of them, not for each event."""
    if dialect in ("mysql", "mariadb"):  # they step by themselves, and not as told below
        return sa.select(outbox.c.run_id.label("run")).distinct().subquery()
    first = sa.select(sa.func.min(outbox.c.run_id).label("run")).cte("with_events", recursive=True)
    following = sa.select(sa.func.min(outbox.c.run_id)).where(outbox.c.run_id > first.c.run).scalar_subquery()
    return first.union_all(sa.select(following).where(first.c.run.is_not(None)))


@transaction
def adopt(db: Connection, owner: str, lease: timedelta) -> int:
    """Take over the events of runs that nobody owns, or whose owner's lease has ended. Returns how many runs."""
    orphaned = sa.and_(runs.c.state != RunState.RUNNING, sa.or_(runs.c.owner.is_(None), runs.c.lease_until < NOW))
    # And MariaDB walks all runs for an UPDATE with a subquery.
    events = _with_events(db.dialect.name)
    found = db.execute(sa.select(runs.c.id).join(events, events.c.run == runs.c.id).where(orphaned)).scalars().all()
    return update_found(db, runs, found, orphaned, {"owner": owner, "lease_until": in_time(lease)})


@query
def depth(db: Connection) -> int:
    return int(db.execute(sa.select(sa.func.count()).select_from(outbox)).scalar_one())


def _event(fields: dict[str, Any]) -> Event:
    return Event(**{**fields, "type": EventType(fields["type"])})
