"""What sites have asked of one worker, and all of them have to keep to."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .clock import NOW, in_time
from .engine import query, transaction
from .schema import runs, sites

_resume_at = sa.type_coerce(sites.c.resume_at, sa.BigInteger)


@transaction
def hold_off(db: Connection, site: str, wait: timedelta) -> None:
    """No worker begins a run of this site before; a longer wait that it has asked for stays."""
    until = in_time(wait)
    sooner = sa.or_(sites.c.resume_at.is_(None), sites.c.resume_at < until)
    db.execute(sa.update(sites).where(sites.c.name == site, sooner).values(resume_at=until))


@query
def waits(db: Connection, names: Collection[str]) -> dict[str, timedelta]:
    """How long these sites still want to be left alone; only those that do."""
    asked = sa.select(sites.c.name, _resume_at - NOW).where(sites.c.name.in_(names), sites.c.resume_at > NOW)
    return {name: timedelta(milliseconds=left) for name, left in db.execute(asked)}


@query
def wait_of(db: Connection, run: int) -> timedelta:
    """The same of the site of a queued run."""
    choice = sa.select(_resume_at - NOW).join(runs, runs.c.site == sites.c.name).where(runs.c.id == run)
    return timedelta(milliseconds=max(db.execute(choice).scalar() or 0, 0))
