"""The tables. Migrations in `migrations/` lead to exactly this; a test compares the two on every engine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeDecorator, TypeEngine

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Instant(TypeDecorator[datetime]):
    """A moment in UTC, stored as milliseconds since 1970: the three engines agree on nothing else."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> int | None:
        return None if value is None else (value - _EPOCH) // timedelta(milliseconds=1)

    def process_result_value(self, value: int | None, dialect: Any) -> datetime | None:
        return None if value is None else _EPOCH + timedelta(milliseconds=value)


def storable(text: str) -> str:
    """Without NUL and lone surrogates: sites send them, and no two engines take them. They become U+FFFD."""
    return text.replace("\x00", "\ufffd").encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")


class Words(TypeDecorator[str]):
    """Text that is compared byte by byte: by default MariaDB takes `A.jpg` and `a.jpg` for the same, and
    PostgreSQL cannot use an index for a prefix."""

    impl = Text
    cache_ok = True

    def __init__(self, length: int | None = None) -> None:
        super().__init__()
        self.length = length

    def load_dialect_impl(self, dialect: Any) -> TypeEngine[Any]:
        binary = {"charset": "utf8mb4", "collation": "utf8mb4_bin"}
        match dialect.name, self.length:
            case (("mysql" | "mariadb"), None):
                return mysql.MEDIUMTEXT(**binary)
            case (("mysql" | "mariadb"), length):
                return mysql.VARCHAR(length, **binary)
            case _, None:
                return Text()
            case "postgresql", length:
                return String(length, "C")
            case _, length:
                return String(length)

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else storable(value)


def _name(length: int) -> TypeEngine[str]:
    return Words(length)


def _text() -> TypeEngine[str]:
    return Words()


def _id() -> TypeEngine[int]:
    return BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only for INTEGER


catalog = Table(
    "catalog",
    metadata,
    Column("id", _name(12), primary_key=True, doc="random: tells the runs of two catalogs apart"),
    Column("created_at", Instant, nullable=False),
    Column("root_marked_at", Instant, doc="when CONTENT_ROOT got its marker: without it there, it is not mounted"),
    Column("works_with", _name(32), doc="the oldest schema whose programs may write here; none: only this very one"),
)

sites = Table(
    "sites",
    metadata,
    Column("name", _name(255), primary_key=True, doc="a row to lock while the runs of a site are counted"),
    Column("resume_at", Instant, doc="no worker begins a run before: the site has asked one of them to wait"),
    Column("served_at", Instant, doc="when a run of it was claimed last, or it was seen first"),
)

workers = Table(
    "workers",
    metadata,
    Column("name", _name(120), primary_key=True, doc="as in runs.owner"),
    Column("host", _name(255), nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", _name(40), nullable=False),
    Column("schema", _name(32), doc="the newest that it knows"),
    Column("slots", Integer, nullable=False),
    Column("started_at", Instant, nullable=False),
    Column("seen_at", Instant, nullable=False, doc="by the database's clock"),
    Column("report", JSON, nullable=False, doc="what it is at, for people and metrics; see catalog/workers"),
)

sources = Table(
    "sources",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("url", _text(), nullable=False),
    Column("url_key", _name(40), nullable=False),
    Column("content_path", _name(700), nullable=False),
    Column("site", _name(255), nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("synchronized_at", Instant),
    Column("remote_deletes", _name(8), doc="keep, trash or delete; none: as the instance is set"),
    Column(
        "placed_at", Instant, doc="when the newest order was sent that set URL and folder; none: none told its time"
    ),
    Index(None, "url_key"),
    Index(None, "content_path"),
)

runs = Table(
    "runs",
    metadata,
    Column("id", _id(), primary_key=True),
    Column("source_id", BigInteger, ForeignKey("sources.id"), nullable=False),
    Column("url", _text(), nullable=False),
    Column("content_path", _text(), nullable=False),
    Column("site", _name(255), nullable=False),
    Column("state", _name(16), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("attempt", Integer, nullable=False, doc="attempts begun"),
    Column("not_before", Instant, nullable=False),
    Column("owner", _name(120), doc="the worker that runs it, or still has events of it to relay"),
    Column("lease_until", Instant),
    Column("fence", Integer, nullable=False, doc="grows with every claim; a writer with an older one is refused"),
    Column("correlation_id", _name(255)),
    Column("created_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Column("reason", _name(40)),
    Column("detail", _text()),
    Column("counts", JSON, nullable=False),
    Column("gaps", JSON, nullable=False, doc="why the listing was not complete: [[reason, detail], …]"),
    Column("log", _text(), nullable=False, doc="the tail of what gallery-dl and the hooks said"),
    Column("remote_deletes", _name(8), doc="the most that its orders allow; none: as its source is set"),
    Column("removals", _text(), doc="one line: what became of files that are gone at the remote"),
    # What a claim walks along: from site to site, and in each from the highest priority down, the oldest first.
    Index(None, "state", "site", "priority", "id", "not_before"),
    Index(None, "source_id", "state"),
    Index(None, "source_id", "id"),
    Index(None, "owner"),
)

orders = Table(
    "orders",
    metadata,
    Column("id", _id(), primary_key=True),
    Column("run_id", BigInteger, ForeignKey("runs.id"), nullable=False),
    Column("source_id", BigInteger, nullable=False),
    Column("message_id", _name(255)),
    Column("received_at", Instant, nullable=False),
    Index(None, "run_id"),
    Index(None, "message_id"),
)

files = Table(
    "files",
    metadata,
    Column("id", _id(), primary_key=True),
    Column("source_id", BigInteger, ForeignKey("sources.id"), nullable=False),
    Column("remote_key", _name(40), nullable=False, doc="file_key(remote_id)"),
    Column("remote_id", _text(), nullable=False),
    Column("path_key", _name(40), doc="file_key(path): no two files hold one path"),
    Column("path", _text(), doc="relative to CONTENT_ROOT"),
    Column("url", _text()),
    Column("size", BigInteger),
    Column("sha256", _name(64)),
    Column("validator", _text(), doc="the site's ETag or Last-Modified"),
    Column("state", _name(16), nullable=False),
    Column("first_seen_at", Instant, nullable=False),
    Column("downloaded_at", Instant, doc="none for a file that was adopted"),
    Column("downloaded_run", BigInteger),
    Column("missing_since", Instant, doc="the first complete listing in a row without it"),
    Column("gone_runs", Integer, nullable=False, doc="runs in a row in which it answered 404 or 410"),
    Column("gone_run", BigInteger, doc="the last of them"),
    Column("tried_at", Instant, doc="last transfer that failed"),
    Column("page_url", _text()),
    Column("title", _text()),
    Column("date", _name(40)),
    Column("tags", JSON, nullable=False),
    Column("missing_last", Instant, doc="the last one that counted"),
    Column("missing_times", Integer, doc="how many counted"),
    Column("missing_run", BigInteger, doc="the run of the first one"),
    Column("missing_beside", Integer, doc="ids that were new in that run: as many as were lost look like a rename"),
    Column("fingerprint", _name(64), doc="how those listings were made: another way proves nothing together with it"),
    Column("hold", _name(24), doc="why it stays although it is gone at the remote"),
    Column("hold_run", BigInteger, doc="the run whose plan holds it"),
    Column("pinned", Boolean, nullable=False, server_default=false(), doc="stays whatever the remote says"),
    Column("trash_path", _text(), doc="relative to CONTENT_ROOT; in state missing: where it is about to go"),
    Column("removed_at", Instant),
    UniqueConstraint("source_id", "remote_key"),
    UniqueConstraint("path_key"),
    Index(None, "source_id", "state"),
    Index(None, "source_id", "id"),
    Index(None, "state", "id"),
    Index(None, "hold_run"),
    Index(None, "state", "removed_at"),
)

outbox = Table(
    "outbox",
    metadata,
    Column("id", _id(), primary_key=True),
    Column("run_id", BigInteger, ForeignKey("runs.id"), nullable=False),
    Column("ends_run", Boolean, nullable=False, doc="goes out when nothing else of its run is left"),
    Column("event", JSON, nullable=False),
    Column("created_at", Instant, nullable=False),
    Index(None, "run_id", "id"),
)
