"""How much waits and goes on, over all workers. Every query here stays cheap in a catalog of any size."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..domain.removals import Hold
from ..domain.runs import RunState
from . import journal, workers
from .clock import in_time
from .engine import Catalog, query
from .schema import files, outbox, runs, sites, sources

MOST = 100_000
"""Rows that are counted: beyond that, more is as bad."""
FEW = 5
"""Sites, delayed runs and failures that are named."""
RECENT = timedelta(days=1)
LATEST = 5_000
"""Runs among which failures are looked for."""

_NOW = in_time(timedelta())
_QUEUED = runs.c.state == RunState.QUEUED
_RUNNING = runs.c.state == RunState.RUNNING
_HELD = sa.and_(files.c.hold_run > 0, files.c.hold != Hold.PINNED)  # for the index; what is pinned waits for nobody


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`…_age` in seconds, of the oldest one; 0 when there is none. Counts end at `MOST`."""

    waiting: int
    """Queued runs that wait for a worker, or for a free slot of their site."""
    waiting_age: float
    """Since one could have begun, its site and source permitting."""
    delayed: int
    """Queued runs whose time has not come: the next attempt of one that failed, say."""
    running: int
    events: int
    events_age: float
    held: int
    """Files whose removal waits for a person."""


@query
def load(db: Connection) -> Load:
    now = db.execute(sa.select(_NOW)).scalar_one()
    oldest = db.execute(sa.select(sa.func.min(runs.c.not_before)).where(_QUEUED)).scalar()
    event = db.execute(sa.select(outbox.c.created_at).order_by(outbox.c.id).limit(1)).scalar()
    return Load(
        waiting=_count(db, sa.select(runs.c.id).where(_QUEUED, runs.c.not_before <= now)),
        waiting_age=_age(oldest, now),
        delayed=_count(db, sa.select(runs.c.id).where(_QUEUED, runs.c.not_before > now)),
        running=_count(db, sa.select(runs.c.id).where(_RUNNING)),
        events=_count(db, sa.select(outbox.c.id)),
        events_age=_age(event, now),
        held=_count(db, sa.select(files.c.id).where(_HELD)),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What `http-downloader status` shows. The rows are mappings, named as in the tables."""

    now: datetime
    """By the database's clock, as all moments here are that others do not give."""
    load: Load
    workers: list[dict[str, Any]]
    running: list[dict[str, Any]]
    """The runs that are owned by a worker, with their site and folder."""
    by_site: list[dict[str, Any]]
    """The sites with most queued runs, and how many."""
    delayed: list[dict[str, Any]]
    """The queued runs whose time comes next, and why they wait."""
    waiting_sites: list[dict[str, Any]]
    """Sites that have asked to wait, and until when."""
    failing: list[dict[str, Any]]
    """Sources whose newest run has failed or was partial within the last day, the latest first; of the newest runs."""


def look(catalog: Catalog) -> Overview:
    """Each part is read by itself: together they are no one moment."""
    return Overview(load=load(catalog), workers=workers.list_workers(catalog), **_details(catalog))


@query
def _details(db: Connection) -> dict[str, Any]:
    now = db.execute(sa.select(_NOW)).scalar_one()
    queued = sa.select(runs.c.site).where(_QUEUED).limit(MOST).subquery()
    count = sa.func.count().label("runs")
    by_site = sa.select(queued.c.site, count).group_by(queued.c.site).order_by(count.desc(), queued.c.site).limit(FEW)
    some = (runs.c.id, runs.c.source_id, runs.c.site, runs.c.state, runs.c.attempt, runs.c.reason, runs.c.detail)
    running = sa.select(*some, runs.c.owner, runs.c.started_at, runs.c.lease_until, runs.c.content_path, runs.c.counts)
    delayed = sa.select(*some, runs.c.not_before).where(_QUEUED, runs.c.not_before > now).order_by(runs.c.not_before)
    waiting = sa.select(sites.c.name, sites.c.resume_at).where(sites.c.resume_at > now).order_by(sites.c.resume_at)
    identity = journal.run_name(db, 0).removesuffix("0")

    def rows(choice: sa.Select[Any]) -> list[dict[str, Any]]:
        found = [dict(row) for row in db.execute(choice).mappings()]
        return [{**row, "run_id": f"{identity}{row['id']}"} if "id" in row else row for row in found]

    return {
        "now": now,
        "running": rows(running.where(_RUNNING).order_by(runs.c.id).limit(MOST)),
        "by_site": rows(by_site),
        "delayed": rows(delayed.limit(FEW)),
        "waiting_sites": rows(waiting.limit(FEW)),
        "failing": rows(_failing(some, now)),
    }


def _failing(columns: tuple[sa.Column[Any], ...], now: datetime) -> sa.Select[Any]:
    later = runs.alias()
    newer = sa.select(later.c.id).where(later.c.source_id == runs.c.source_id, later.c.id > runs.c.id).exists()
    bad = runs.c.state.in_((RunState.FAILED, RunState.PARTIAL))
    newest = sa.select(sa.func.max(runs.c.id)).scalar_subquery()
    recent = sa.and_(runs.c.id > newest - LATEST, runs.c.ended_at > now - RECENT)
    return (
        sa.select(*columns, runs.c.ended_at, sources.c.content_path)
        .join(sources, sources.c.id == runs.c.source_id)
        .where(bad, recent, ~newer)
        .order_by(runs.c.ended_at.desc(), runs.c.id.desc())
        .limit(FEW)
    )


def _count(db: Connection, choice: sa.Select[Any]) -> int:
    return int(db.execute(sa.select(sa.func.count()).select_from(choice.limit(MOST).subquery())).scalar_one())


def _age(moment: datetime | None, now: datetime) -> float:
    return 0.0 if moment is None else max((now - moment).total_seconds(), 0.0)
