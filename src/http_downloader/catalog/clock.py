"""The database's clock: workers of several machines have no other in common. What is agreed on by it is never compared
with a clock of their own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from .schema import Instant


class _Clock(FunctionElement[int]):
    """Milliseconds since 1970 at the beginning of the statement, whatever the time zone of the session is."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(_Clock, "sqlite")
def _on_sqlite(_clock: _Clock, _compiler: Any, **_: Any) -> str:
    return "CAST(ROUND((julianday('now') - 2440587.5) * 86400000) AS INTEGER)"


@compiles(_Clock, "postgresql")
def _on_postgresql(_clock: _Clock, _compiler: Any, **_: Any) -> str:
    # Not that of the transaction, nor clock_timestamp(), which changes from row to row: no index serves it.
    return "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS BIGINT)"


@compiles(_Clock, "mysql")
@compiles(_Clock, "mariadb")
def _on_mariadb(_clock: _Clock, _compiler: Any, **_: Any) -> str:
    # Not UNIX_TIMESTAMP(NOW(3)): that is an hour out when summer time ends.
    return "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(3)) DIV 1000)"


NOW: sa.ColumnElement[int] = _Clock()


def in_time(span: timedelta) -> sa.ColumnElement[Any]:
    """The moment that is so far from now, to be stored as an `Instant`."""
    return sa.type_coerce(NOW + milliseconds(span), Instant)


def milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)
