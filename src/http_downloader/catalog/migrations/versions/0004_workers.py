"""The workers that share the catalog, what a site has asked them to wait, and which older programs may still write.

And indexes for what is read in the order of row ids, page by page, from a large catalog.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0004"
down_revision = "0003"
works_with = None  # it only adds
branch_labels = None
depends_on = None

INDEXES = {
    "ix_runs_source_id_id": ("runs", ["source_id", "id"]),
    "ix_files_source_id_id": ("files", ["source_id", "id"]),
    "ix_files_state_id": ("files", ["state", "id"]),
    "ix_outbox_run_id_id": ("outbox", ["run_id", "id"]),
}

CLAIMS = "ix_runs_state_site_priority_id_not_before"
"""Serves what the two that it replaces have served, too."""


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
        sa.Column("schema", name(32)),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("seen_at", sa.BigInteger(), nullable=False),
        sa.Column("report", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_workers")),
    )
    op.add_column("sites", sa.Column("resume_at", sa.BigInteger()))
    op.add_column("sites", sa.Column("served_at", sa.BigInteger()))
    op.create_index(op.f(CLAIMS), "runs", ["state", "site", "priority", "id", "not_before"])
    op.drop_index(op.f("ix_runs_site_state"), "runs")
    op.drop_index(op.f("ix_runs_state_not_before"), "runs")
    op.add_column("catalog", sa.Column("works_with", name(32)))
    for index, (table, columns) in INDEXES.items():
        op.create_index(index, table, columns)
    op.drop_index("ix_outbox_run_id", "outbox")


def downgrade() -> None:
    op.create_index("ix_outbox_run_id", "outbox", ["run_id"])
    for index, (table, _) in reversed(INDEXES.items()):
        op.drop_index(index, table)
    op.drop_column("catalog", "works_with")
    op.create_index(op.f("ix_runs_state_not_before"), "runs", ["state", "not_before"])
    op.create_index(op.f("ix_runs_site_state"), "runs", ["site", "state"])
    op.drop_index(op.f(CLAIMS), "runs")
    op.drop_column("sites", "served_at")
    op.drop_column("sites", "resume_at")
    op.drop_table("workers")
