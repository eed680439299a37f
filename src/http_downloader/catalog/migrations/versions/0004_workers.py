"""The workers that share the catalog, what a site has asked them to wait, and which older programs may still write."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def name(length: int) -> TypeEngine[str]:
    mariadb = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return (
        sa.String(length).with_variant(mariadb, "mysql", "mariadb").with_variant(sa.String(length, "C"), "postgresql")
    )


def upgrade() -> None:
    op.create_table(
        "workers",
        sa.Column("name", name(120), nullable=False),
        sa.Column("host", name(255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("version", name(40), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.add_column("sites", sa.Column("resume_at", sa.BigInteger()))
    op.add_column("catalog", sa.Column("works_with", name(32)))


def downgrade() -> None:
    op.drop_column("catalog", "works_with")
    op.drop_column("sites", "resume_at")
    op.drop_table("workers")
