"""What is remembered of a file that is gone at the remote, until it is removed here, and after."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def name(length: int) -> TypeEngine[str]:
    mariadb = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return (
        sa.String(length).with_variant(mariadb, "mysql", "mariadb").with_variant(sa.String(length, "C"), "postgresql")
    )


def text() -> TypeEngine[str]:
    return sa.Text().with_variant(mysql.MEDIUMTEXT(charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")


def columns() -> dict[str, list[sa.Column[object]]]:
    return {
        "catalog": [sa.Column("root_marked_at", sa.BigInteger())],
        "sources": [sa.Column("remote_deletes", name(8))],
        "runs": [sa.Column("remote_deletes", name(8)), sa.Column("removals", text())],
        "files": [
            sa.Column("missing_last", sa.BigInteger()),
            sa.Column("missing_times", sa.Integer()),
            sa.Column("missing_run", sa.BigInteger()),
            sa.Column("missing_beside", sa.Integer()),
            sa.Column("fingerprint", name(64)),
            sa.Column("hold", name(24)),
            sa.Column("hold_run", sa.BigInteger()),
            sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false()),
            sa.Column("trash_path", text()),
            sa.Column("removed_at", sa.BigInteger()),
        ],
    }


def upgrade() -> None:
    for table, added in columns().items():
        for column in added:
            op.add_column(table, column)
    op.create_index("ix_files_hold_run", "files", ["hold_run"])
    op.create_index("ix_files_state_removed_at", "files", ["state", "removed_at"])


def downgrade() -> None:
    op.drop_index("ix_files_state_removed_at", "files")
    op.drop_index("ix_files_hold_run", "files")
    for table, added in columns().items():
        for column in reversed(added):
            op.drop_column(table, column.name)
