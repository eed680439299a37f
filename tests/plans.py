"""What a call costs a database: which tables its statements walk from end to end, and how many rows they read."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

OPERATIONS_PER_ROW = 10
"""Of SQLite's virtual machine, about: it counts no rows."""


@dataclass
class Cost:
    """`walked`: tables, or indexes of them, that a plan reads from one end to the other; not those that are read in the
    order of the answer, up to a LIMIT.

    `read`: rows of tables and indexes, SQLite's in steps of `OPERATIONS_PER_ROW`.
    """

    walked: set[str] = field(default_factory=set)
    read: int = 0
    statements: list[str] = field(default_factory=list)
    """With their plans, for the message of a test that fails."""


@contextlib.contextmanager
def watched(engine: sa.Engine) -> Iterator[Cost]:
    """The cost of everything that is asked meanwhile. One thread only."""
    cost = Cost()
    explain, rows_read = _EXPLAIN[engine.dialect.name], _ROWS_READ[engine.dialect.name]
    is_sqlite = engine.dialect.name == "sqlite"
    before = 0

    def begin(_db: Any, cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        nonlocal before
        first = parameters[0] if many else parameters
        plan = explain(cursor.connection, statement, first) if _has_plan(statement) else []
        if "LIMIT" not in statement:
            cost.walked |= {_table(name) for name, walked in plan if walked}
        cost.statements.append(f"{statement} {first}\n    {plan}")
        if is_sqlite:  # it reads while its rows are fetched
            cursor.connection.set_progress_handler(count_operations, OPERATIONS_PER_ROW)
        before = rows_read(cursor.connection)

    def end(_db: Any, cursor: Any, *_: Any) -> None:
        cost.read += rows_read(cursor.connection) - before

    def count_operations() -> int:
        cost.read += 1
        return 0

    sa.event.listen(engine, "before_cursor_execute", begin)
    sa.event.listen(engine, "after_cursor_execute", end)
    try:
        yield cost
    finally:
        sa.event.remove(engine, "before_cursor_execute", begin)
        sa.event.remove(engine, "after_cursor_execute", end)
        engine.dispose()  # and the count with the connections


def _has_plan(statement: str) -> bool:
    return statement.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH"))


def _table(name: str) -> str:
    """Aliases are numbered."""
    return re.sub(r"_\d+$", "", name)


def _asked(connection: Any, statement: str, parameters: Any = None) -> list[Any]:
    cursor = connection.cursor()
    try:
        cursor.execute(statement, parameters) if parameters is not None else cursor.execute(statement)
        return list(cursor.fetchall())
    finally:
        cursor.close()


Plan = list[tuple[str, bool]]
"""Each table that is read, and whether that is from one end to the other."""


def _explain_sqlite(connection: Any, statement: str, parameters: Any) -> Plan:
    connection.set_progress_handler(None, 1)
    plan = _asked(connection, f"EXPLAIN QUERY PLAN {statement}", parameters)
    found = [re.match(r"(SCAN|SEARCH) (\w+)", row[3]) for row in plan]
    return [(one[2], one[1] == "SCAN") for one in found if one]


def _explain_postgresql(connection: Any, statement: str, parameters: Any) -> Plan:
    def nodes(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield node
        for child in node.get("Plans", ()):
            yield from nodes(child)

    (plan,) = _asked(connection, f"EXPLAIN (FORMAT JSON) {statement}", parameters)[0][0]
    return [
        (node["Relation Name"], node["Node Type"] == "Seq Scan" or _is_whole_index(node))
        for node in nodes(plan["Plan"])
        if "Relation Name" in node and node["Node Type"] != "ModifyTable"
    ]


def _is_whole_index(node: dict[str, Any]) -> bool:
    return node["Node Type"] in ("Index Scan", "Index Only Scan") and "Index Cond" not in node


def _explain_mariadb(connection: Any, statement: str, parameters: Any) -> Plan:
    rows = _asked(connection, f"EXPLAIN {statement}", parameters)
    return [(row[2], row[3] in ("ALL", "index")) for row in rows if row[2] is not None and row[8] is not None]


def _read_postgresql(connection: Any) -> int:
    counted = "SELECT COALESCE(sum(seq_tup_read + COALESCE(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_user_tables"
    return int(_asked(connection, counted)[0][0])


def _read_mariadb(connection: Any) -> int:
    return sum(int(row[1]) for row in _asked(connection, "SHOW SESSION STATUS LIKE 'Handler_read%'"))


_EXPLAIN = {"sqlite": _explain_sqlite, "postgresql": _explain_postgresql, "mariadb": _explain_mariadb}
_ROWS_READ = {"sqlite": lambda _connection: 0, "postgresql": _read_postgresql, "mariadb": _read_mariadb}
