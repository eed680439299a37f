"""The workers that share the catalog: each says every few seconds that it is there, and what it is at."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from . import migrations
from .clock import in_time
from .engine import query, transaction
from .schema import workers

FORGOTTEN = timedelta(hours=1)
"""After which one that was killed, and whose place no other has taken on its machine, is not shown any more."""

_NOW = in_time(timedelta())
_THIS = workers.c.name == sa.bindparam("worker")
_SEEN = (
    sa.update(workers).where(_THIS).values(report=sa.bindparam("at_work", type_=workers.c.report.type), seen_at=_NOW)
)


@transaction
def beat(db: Connection, name: str, report: dict[str, Any], *, host: str, pid: int, version: str, slots: int) -> None:
    """Say that a worker is there. `name`: as in the runs that it owns; `report`: see `sync/heartbeat.py`."""
    if db.execute(_SEEN, {"worker": name, "at_work": report}).rowcount:
        return
    facts = {
        "host": host,
        "pid": pid,
        "version": version,
        "schema": migrations.newest(),
        "slots": slots,
        "report": report,
    }
    db.execute(sa.insert(workers).values(name=name, started_at=_NOW, seen_at=_NOW, **facts))
    db.execute(sa.delete(workers).where(workers.c.seen_at < in_time(-FORGOTTEN)))


def leave(db: Connection, names: list[str]) -> None:
    """Part of the transaction that takes back what these workers owned."""
    db.execute(sa.delete(workers).where(workers.c.name.in_(names)))


@query
def list_workers(db: Connection) -> list[dict[str, Any]]:
    """Those that were seen in the last hour, and their report; `age`: seconds since then, `up`: since their start."""
    choice = sa.select(workers, _NOW.label("now")).order_by(workers.c.host, workers.c.started_at)
    return [
        {
            **row,
            "age": max((row["now"] - row["seen_at"]).total_seconds(), 0.0),
            "up": max((row["seen_at"] - row["started_at"]).total_seconds(), 0.0),
        }
        for row in db.execute(choice).mappings()
    ]
