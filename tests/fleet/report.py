"""What docs/reliability.md says of the last fleet. `python -m tests.fleet.report` prints it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parents[2] / "benchmarks" / "fleet.json"
COUNTED = (
    "seconds",
    "orders",
    "runs",
    "files",
    "requests",
    "events",
    "duplicates",
    "runs that were struck",
    "runs given up for lost leases",
    "violations",
)


def paragraph(result: dict[str, Any]) -> str:
    """Markdown, from the stored counts."""
    engines = result["engines"]
    one = next(iter(engines.values()))
    rows = "\n".join(
        f"| {name} | {' | '.join(f'{engine[name]:,}' for engine in engines.values())} |" for name in COUNTED
    )
    return (
        f"`make fleet SEED={result['seed']}` on {result['cores']} cores: {one['workers']} workers, {one['sources']} sources"
        f" on {one['sites']} sites.\n\n"
        f"| | {' | '.join(engines)} |\n| --- |{' --- |' * len(engines)}\n{rows}\n"
    )


if __name__ == "__main__":
    print(paragraph(json.loads(RESULT.read_text())))
