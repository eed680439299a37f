"""What docs/reliability.md says of the last torture run. `python -m tests.torture.report` prints it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parents[2] / "benchmarks" / "torture.json"


def paragraph(result: dict[str, Any]) -> str:
    """Markdown, from the stored counts."""
    seen, lost = result["seen"], sum(result["lost"].values())
    troubles = "\n".join(f"| {name} | {count:,} |" for name, count in result["troubles"].items())
    return (
        f"`make torture ROUNDS={result['rounds']} SEED={result['seed']}` took {result['seconds'] / 60:.0f} minutes on"
        f" {result['cores']} cores, with {result['workers']} service and {result['engine']}: {result['kills_and_outages']:,} kills and outages, {seen['orders']:,} orders,"
        f" {seen['runs']:,} runs, {seen['files']:,} files and {seen['events']:,} events, of which"
        f" {seen['duplicates']:,} came again under the message id that they had before."
        f" Promises broken: {lost}.\n\n"
        f"| what happened | times |\n| --- | --- |\n{troubles}\n"
    )


if __name__ == "__main__":
    print(paragraph(json.loads(RESULT.read_text())))
