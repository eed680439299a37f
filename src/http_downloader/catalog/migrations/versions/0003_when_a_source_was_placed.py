"""When the order was sent that last said where a source is, so that an older one does not move it back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sources", sa.Column("placed_at", sa.BigInteger()))


def downgrade() -> None:
    op.drop_column("sources", "placed_at")
