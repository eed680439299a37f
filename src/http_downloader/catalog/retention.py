"""The journal does not grow for ever: runs that ended long ago are forgotten, with their orders."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..domain.runs import RunState
from .engine import transaction
from .schema import files, orders, outbox, runs


@transaction
def forget_runs(db: Connection, before: datetime, after: int, limit: int) -> tuple[int | None, int]:
    """Look at the next `limit` runs, those with ids greater than `after`, and forget what ended before then.

    What stays: the newest run of each source (so no id is given twice), a run whose plan holds files for a person, and
    one that has events to tell. Returns where to go on, None when the rest is younger; and how many were forgotten.
    """
    choice = sa.select(runs.c.id, runs.c.source_id, runs.c.state, runs.c.created_at, runs.c.ended_at)
    page = db.execute(choice.where(runs.c.id > after).order_by(runs.c.id).limit(limit)).all()
    old = [row for row in page if row.created_at < before]
    ended = [row for row in old if RunState(row.state).ended and row.ended_at and row.ended_at < before]
    kept = _kept(db, [row.id for row in ended], {row.source_id for row in ended})
    done = [row.id for row in ended if row.id not in kept]
    if done:  # a run that gets events right now refuses: then all of this is done again
        db.execute(sa.delete(orders).where(orders.c.run_id.in_(done)))
        db.execute(sa.delete(runs).where(runs.c.id.in_(done)))
    return (old[-1].id if len(old) == limit else None), len(done)


def _kept(db: Connection, ids: list[int], source_ids: set[int]) -> set[int]:
    """The newest runs of these sources, and those of these runs that still hold something."""
    newest = sa.select(sa.func.max(runs.c.id)).where(runs.c.source_id.in_(source_ids)).group_by(runs.c.source_id)
    telling = sa.select(outbox.c.run_id).where(outbox.c.run_id.in_(ids)).distinct()
    holding = sa.select(files.c.hold_run).where(files.c.hold_run.in_(ids)).distinct()
    return {run for choice in (newest, telling, holding) for run in db.execute(choice).scalars()}
