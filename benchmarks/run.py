"""`python -m benchmarks.run`: measure the rows, print the table, write the results.

Exit codes: 0 all goals are met (--quick: no row has collapsed twice), 1 one is not, 2 wrong use.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.figures import BenchmarkError, Line, plain_table
from benchmarks.rows import NOT_QUICK, QUICK, ROWS, Sizes
from http_downloader.settings import Settings

RESULTS = Path(__file__).with_name("results.json")


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    sizes = _sizes(options)
    lines: list[Line] = []
    failures: list[str] = []
    measured: dict[str, dict[str, Any]] = {}
    facts = machine.facts()
    for name in options.only or [name for name in ROWS if not (options.quick and name in NOT_QUICK)]:
        load = os.getloadavg()[0]
        began = time.monotonic()
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        try:
            found = _measure(name, sizes)
            if options.quick and any(line.collapsed for line in found):
                # What is really so bad is so twice; a machine that was busy with something else is not.
                print(f"{plain_table(found)}\nmeasuring {name} once more …", file=sys.stderr, flush=True)
                found = _measure(name, sizes)
        except (BenchmarkError, AssertionError) as error:
            failures.append(f"{name}: {error}")
            print(failures[-1], file=sys.stderr, flush=True)
            continue
        print(f"{plain_table(found)}\n({time.monotonic() - began:.0f} s)", file=sys.stderr, flush=True)
        lines += found
        measured[name] = _as_dict(found, load, quick=options.quick)
    print(plain_table(lines))
    for failure in failures:
        print(f"not measured: {failure}")
    output = options.output or (None if options.quick else RESULTS)
    if output is not None:
        output.write_text(json.dumps(_merged(output, facts, measured), indent=1, ensure_ascii=False) + "\n")
        print(f"written: {output.name}")
    bad = [line for line in lines if (line.collapsed if options.quick else not line.ok)]
    for line in bad:
        print(f"{'collapsed' if options.quick else 'goal missed'}: {line.row}, {line.what.removeprefix('– ')}")
    return 1 if bad or failures else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measure the rows of the table.")
    parser.add_argument("--only", metavar="ROW,…", type=_rows, help=f"of {', '.join(ROWS)}")
    parser.add_argument(
        "--quick", action="store_true", help="small sizes; fails only when a row is half as good as its goal"
    )
    parser.add_argument("--repetitions", type=int, metavar="N", help="of each measurement")
    parser.add_argument("--output", type=Path, metavar="FILE", help="default: results.json; with --quick none")
    return parser.parse_args(arguments)


def _rows(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in ROWS]:
        raise argparse.ArgumentTypeError(f"no row {unknown[0]!r}; there are {', '.join(ROWS)}")
    return names


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = QUICK if options.quick else Sizes()
    if options.repetitions:
        sizes = dataclasses.replace(sizes, repetitions=options.repetitions)
    if rows := os.environ.get("BENCH_ROWS"):
        sizes = dataclasses.replace(sizes, rows=int(rows))
    return sizes


def _measure(name: str, sizes: Sizes) -> list[Line]:
    home = Path(tempfile.mkdtemp(prefix=f"bench-{name}-", dir=os.environ.get("BENCH_FOLDER")))
    try:
        return list(ROWS[name](home, sizes))
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _as_dict(lines: list[Line], load: float, *, quick: bool) -> dict[str, Any]:
    fields = Settings.model_fields
    durability = {"DURABILITY": fields["durability"].get_default()} if "durability" in fields else {}
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "load_before": round(load, 1),
        "sizes": "quick" if quick else "full",
        "lines": [{**line.as_dict(), "settings": durability | line.settings} for line in lines],
    }


def _merged(file: Path, facts: dict[str, object], measured: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Rows that were not measured now stay, when they were measured on the same machine with the same versions."""
    earlier = json.loads(file.read_text()) if file.is_file() else {}
    rows = (earlier.get("rows", {}) if earlier.get("machine") == facts else {}) | measured
    return {"machine": facts, "rows": {name: rows[name] for name in ROWS if name in rows}}


if __name__ == "__main__":
    sys.exit(main())
