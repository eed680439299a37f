"""`python -m benchmarks.report`: put the figures of results.json into docs/performance.md, so that nobody types them.

`--check` changes nothing, and exits with 1 when the page does not show the results.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.figures import HEADINGS, Line, number
from benchmarks.run import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
BEGIN = "<!-- figures: written by python -m benchmarks.report, not by hand -->"
END = "<!-- end of figures -->"
NOTHING = "No results yet: `make bench` writes them."


def main(arguments: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if arguments is None else arguments
    page = PAGE.read_text()
    results = json.loads(RESULTS.read_text()) if RESULTS.is_file() else None
    written = with_figures(page, figures(results))
    if "--check" in arguments:
        if written != page:
            print(f"{PAGE.name} does not show {RESULTS.name}; run: python -m benchmarks.report", file=sys.stderr)
        return int(written != page)
    PAGE.write_text(written)
    return 0


def with_figures(page: str, text: str) -> str:
    """The page with `text` between its two markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page needs the two markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{text}\n\n{END}{after}"


def figures(results: dict[str, Any] | None) -> str:
    """Markdown: what was measured on, the table, and every single figure."""
    if results is None or not results["rows"]:
        return NOTHING
    lines = [Line.from_dict(line) for row in results["rows"].values() for line in row["lines"]]
    cells = [[_escaped(cell) for cell in line.cells()] for line in lines]
    spreads = [[_escaped(line.what), _spread(line.ours), _spread(line.other), line.unit] for line in lines]
    parts = [
        "Measured on " + ", ".join(f"{name} {value}" for name, value in results["machine"].items()) + ".",
        _table(HEADINGS, cells),
        "When, and how every repetition went:",
        _table(
            ("row", "measured", "sizes", "load before", "DURABILITY"),
            [_circumstances(*row) for row in results["rows"].items()],
        ),
        _table(("row", "ours", "other", "unit"), spreads),
    ]
    return "\n\n".join(parts)


def _circumstances(name: str, row: dict[str, Any]) -> list[str]:
    settings = row["lines"][0]["settings"]
    return [name, row["date"], row["sizes"], number(row["load_before"]), settings.get("DURABILITY", "none yet")]


def _spread(values: list[float]) -> str:
    return ", ".join(number(value) for value in values)


def _escaped(cell: str) -> str:
    return cell.replace("|", r"\|")


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *rows))


if __name__ == "__main__":
    sys.exit(main())
