"""docs/reliability.md names tests that exist, and figures that were measured."""

from __future__ import annotations

import ast
import json
import re
from functools import cache
from pathlib import Path

import pytest

from tests.fleet import report as fleet_report
from tests.torture import report

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`( \(long\))?")


def tables() -> dict[str, list[list[str]]]:
    """The rows of each table, by the first cell of its head: `promise`, `fault`."""
    found: dict[str, list[list[str]]] = {}
    rows: list[list[str]] = []
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            rows = []
        elif not rows:
            rows.append(cells)
        elif set(line) - set("|- "):
            found.setdefault(rows[0][0], []).append(cells)
    return found


ROWS = [row for heading in ("promise", "fault") for row in tables()[heading]]


@cache
def named_in(file: str) -> dict[str, bool]:
    """The tests of a module, and whether each of them is long."""
    tree = ast.parse((ROOT / file).read_text())
    whole = any(
        isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node) and "mark.long" in ast.unparse(node)
        for node in tree.body
    )
    return {
        node.name: whole or "pytest.mark.long" in map(ast.unparse, node.decorator_list)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][:60])
def test_row_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == 3, row
    named = NAMED.findall(row[2])
    assert named or "`make torture`" in row[2], f"no test shows: {row[0]}"
    for file, name, long in named:
        assert name, f"{file} is no test"
        assert name in named_in(file), f"{file} has no test {name}"
        assert named_in(file)[name] == bool(long), f"{name} is{'' if long else ' not'} marked as long in the page"


def test_enough_is_shown() -> None:
    assert len(tables()["promise"]) >= 5
    assert len(tables()["fault"]) >= 40


def test_torture_figures_are_those_that_were_stored() -> None:
    assert report.paragraph(json.loads(report.RESULT.read_text())) in PAGE, "python -m tests.torture.report prints it"


def test_fleet_figures_are_those_that_were_stored() -> None:
    result = json.loads(fleet_report.RESULT.read_text())
    assert fleet_report.paragraph(result) in PAGE, "python -m tests.fleet.report prints it"
    assert set(result["engines"]) == {"postgresql", "mariadb"}
