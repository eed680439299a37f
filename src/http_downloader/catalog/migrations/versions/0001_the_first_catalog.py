"""The first catalog."""

from __future__ import annotations

import secrets
import time

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def name(length: int) -> TypeEngine[str]:
    mariadb = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return (
        sa.String(length).with_variant(mariadb, "mysql", "mariadb").with_variant(sa.String(length, "C"), "postgresql")
    )


def text() -> TypeEngine[str]:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def row_id() -> TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    catalog = op.create_table(
        "catalog",
        sa.Column("id", name(12), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_catalog")),
    )
    # Here, where one worker is at work at a time: two identities would give every run two names.
    if op.get_bind().execute(sa.select(catalog.c.id)).first() is None:  # else an earlier try was cut off after it
        op.bulk_insert(catalog, [{"id": secrets.token_hex(4), "created_at": time.time_ns() // 1_000_000}])
    op.create_table(
        "sites", sa.Column("name", name(255), nullable=False), sa.PrimaryKeyConstraint("name", name=op.f("pk_sites"))
    )
    op.create_table(
        "sources",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("url", text(), nullable=False),
        sa.Column("url_key", name(40), nullable=False),
        sa.Column("content_path", name(700), nullable=False),
        sa.Column("site", name(255), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("synchronized_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sources")),
    )
    op.create_index("ix_sources_url_key", "sources", ["url_key"])
    op.create_index("ix_sources_content_path", "sources", ["content_path"])

    op.create_table(
        "files",
        sa.Column("id", row_id(), nullable=False),
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("remote_key", name(40), nullable=False),
        sa.Column("remote_id", text(), nullable=False),
        sa.Column("path_key", name(40), nullable=True),
        sa.Column("path", text(), nullable=True),
        sa.Column("url", text(), nullable=True),
        sa.Column("size", sa.BigInteger(), nullable=True),
        sa.Column("sha256", name(64), nullable=True),
        sa.Column("validator", text(), nullable=True),
        sa.Column("state", name(16), nullable=False),
        sa.Column("first_seen_at", sa.BigInteger(), nullable=False),
        sa.Column("downloaded_at", sa.BigInteger(), nullable=True),
        sa.Column("downloaded_run", sa.BigInteger(), nullable=True),
        sa.Column("missing_since", sa.BigInteger(), nullable=True),
        sa.Column("gone_runs", sa.Integer(), nullable=False),
        sa.Column("gone_run", sa.BigInteger(), nullable=True),
        sa.Column("tried_at", sa.BigInteger(), nullable=True),
        sa.Column("page_url", text(), nullable=True),
        sa.Column("title", text(), nullable=True),
        sa.Column("date", name(40), nullable=True),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_files_source_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
        sa.UniqueConstraint("path_key", name=op.f("uq_files_path_key")),
        sa.UniqueConstraint("source_id", "remote_key", name=op.f("uq_files_source_id_remote_key")),
    )
    op.create_index("ix_files_source_id_state", "files", ["source_id", "state"])

    op.create_table(
        "runs",
        sa.Column("id", row_id(), nullable=False),
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("url", text(), nullable=False),
        sa.Column("content_path", text(), nullable=False),
        sa.Column("site", name(255), nullable=False),
        sa.Column("state", name(16), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.BigInteger(), nullable=False),
        sa.Column("owner", name(120), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("fence", sa.Integer(), nullable=False),
        sa.Column("correlation_id", name(255), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("reason", name(40), nullable=True),
        sa.Column("detail", text(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("gaps", sa.JSON(), nullable=False),
        sa.Column("log", text(), nullable=False),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], name=op.f("fk_runs_source_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index("ix_runs_owner", "runs", ["owner"])
    op.create_index("ix_runs_site_state", "runs", ["site", "state"])
    op.create_index("ix_runs_source_id_state", "runs", ["source_id", "state"])
    op.create_index("ix_runs_state_not_before", "runs", ["state", "not_before"])

    op.create_table(
        "orders",
        sa.Column("id", row_id(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("source_id", sa.BigInteger(), nullable=False),
        sa.Column("message_id", name(255), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_orders_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_orders")),
    )
    op.create_index("ix_orders_message_id", "orders", ["message_id"])
    op.create_index("ix_orders_run_id", "orders", ["run_id"])

    op.create_table(
        "outbox",
        sa.Column("id", row_id(), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("ends_run", sa.Boolean(), nullable=False),
        sa.Column("event", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["run_id"], ["runs.id"], name=op.f("fk_outbox_run_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    op.create_index("ix_outbox_run_id", "outbox", ["run_id"])


def downgrade() -> None:
    for table in ("outbox", "orders", "runs", "files", "sources", "sites", "catalog"):
        op.drop_table(table)
