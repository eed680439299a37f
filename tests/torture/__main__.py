"""`make torture ROUNDS=200 SEED=1`: rounds of a random workload under kills and outages, each with a look at every promise.

Stores its counts in benchmarks/torture.json, which docs/reliability.md tells of. Exit code 1 as soon as a promise is broken; what lies on
the disk then stays for a look.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.broker_node import private_node
from tests.databases import ENGINES, database

from .plan import draw
from .promises import Broken, broken, duplicates, summary
from .report import RESULT
from .world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="make torture", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--engine", choices=ENGINES, default="sqlite", help="what the catalog is")
    parser.add_argument("--workers", type=int, default=1, help="services that share one catalog and one mirror")
    parser.add_argument("--output", type=Path, default=RESULT, help="where to store the counts")
    options = parser.parse_args()
    try:
        node = private_node()
    except FileNotFoundError as missing:
        print(missing, file=sys.stderr)
        return 1
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what it has started
    home = Path(tempfile.mkdtemp(prefix="torture-"))
    began = time.monotonic()
    with database(options.engine, home) as url, node, World(home, node, url, options.workers) as world:
        found, rounds = _play(world, options.seed, options.rounds)
        result = _result(world, found, options, rounds, time.monotonic() - began)
    if found:
        print(f"what lies on the disk stays for a look: {home}", file=sys.stderr)
    else:
        shutil.rmtree(home, ignore_errors=True)
    options.output.write_text(json.dumps(result, indent=2) + "\n")
    print(summary({"rounds": rounds, "kills and outages": result["kills_and_outages"], **result["seen"]}))
    return 1 if found else 0


def _play(world: World, seed: int, rounds: int) -> tuple[list[Broken], int]:
    for number in range(rounds):
        before = world.troubles.copy()
        began = time.monotonic()
        plan = draw(seed, number)
        try:
            world.play(plan)
            found = broken(world.seen)
        except AssertionError as error:
            found = [Broken("other", str(error))]
        happened = world.troubles - before
        print(f"round {number + 1} of {rounds}, {time.monotonic() - began:.1f} s: {summary(happened) or 'quiet'}")
        if found:
            print(plan)
            for problem in found[:50]:
                print(f"LOST {problem.what}: {problem.sentence}", file=sys.stderr)
            return found, number + 1
        sys.stdout.flush()
    return [], rounds


def _result(
    world: World, found: list[Broken], options: argparse.Namespace, rounds: int, seconds: float
) -> dict[str, Any]:
    lost = Counter(problem.what for problem in found)
    return {
        "seed": options.seed,
        "engine": options.engine,
        "workers": options.workers,
        "rounds": rounds,
        "seconds": round(seconds),
        "cores": os.cpu_count(),
        "kills_and_outages": world.troubles.total(),
        "troubles": dict(sorted(world.troubles.items())),
        "seen": {
            "orders": len(world.seen.posted),
            "bad orders": len(world.seen.garbage),
            "runs": len(world.seen.runs),
            "files": world.files,
            "events": len(world.seen.events),
            "duplicates": duplicates(world.seen.events),
        },
        "lost": {what: lost[what] for what in ("orders", "files", "rows", "events", "other")},
    }


if __name__ == "__main__":
    sys.exit(main())
