"""Whether CONTENT_ROOT has its marker: from then on a folder without it is not the one that the catalog speaks of. And the
catalog's identity, after which the marker is named."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from . import upgrades
from .engine import query, transaction
from .schema import catalog


@query
def is_marked(db: Connection) -> bool:
    return db.execute(sa.select(catalog.c.id).where(catalog.c.root_marked_at.is_not(None))).first() is not None


@transaction
def mark(db: Connection, now: datetime) -> None:
    db.execute(sa.update(catalog).values(root_marked_at=now))


@query
def running_workers(db: Connection) -> list[str]:
    return sorted(upgrades.running(db))


@transaction
def rename(db: Connection, identity: str) -> None:
    """Give the catalog another identity: what it runs from now on was never told of under these names."""
    db.execute(sa.update(catalog).values(id=identity))
