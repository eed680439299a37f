"""Whether CONTENT_ROOT has its marker: from then on a folder without it is not the one that the catalog speaks of."""

from __future__ import annotations

from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from .engine import query, transaction
from .schema import catalog


@query
def is_marked(db: Connection) -> bool:
    return db.execute(sa.select(catalog.c.id).where(catalog.c.root_marked_at.is_not(None))).first() is not None


@transaction
def mark(db: Connection, now: datetime) -> None:
    db.execute(sa.update(catalog).values(root_marked_at=now))
