"""`make fleet SEED=1`: four workers on one broker and one catalog; two are killed, one is stopped for two minutes.

Once with PostgreSQL and once with MariaDB. Stores its counts in benchmarks/fleet.json. Exit code 1 when anything was lost,
run twice at a time, or asked too much of a site; what lies on the disk then stays for a look.
"""

from __future__ import annotations

import argparse
import json
import os
import re
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
from tests.torture.promises import Broken, duplicates, summary

from .fleet import Fleet
from .judge import Facts, stays, takeovers, violations
from .plan import FULL, SMALL, Plan, draw
from .report import RESULT


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fleet", description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, action="append", help="what the catalog is; may come again")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--small", action="store_true", help="half a minute, without a pause; stores nothing")
    parser.add_argument("--output", type=Path, help="where to store the counts")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends what it has started
    plan = draw(options.seed, SMALL if options.small else FULL)
    results = {engine: _play(plan, engine) for engine in options.engine or ("postgresql", "mariadb")}
    output = options.output or (None if options.small else RESULT)
    if output is not None:
        earlier = json.loads(output.read_text()) if output.is_file() else {}
        known = earlier["engines"] if earlier.get("seed") == options.seed else {}
        stored = {"seed": options.seed, "cores": os.cpu_count(), "engines": known | results}
        output.write_text(json.dumps(stored, indent=2) + "\n")
    return int(any(result["violations"] for result in results.values()))


def _play(plan: Plan, engine: str) -> dict[str, Any]:
    home = Path(tempfile.mkdtemp(prefix="fleet-"))
    began = time.monotonic()
    with database(engine, home) as url, private_node() as node, Fleet(home, node, url, plan) as fleet:
        facts = fleet.play()
        result = _result(facts, fleet, time.monotonic() - began)
    found = violations(facts)
    result["violations"] = len(found)
    print(f"{engine}: {summary({name: value for name, value in result.items() if isinstance(value, int)})}")
    _show(found, plan, home)
    return result


def _show(found: list[Broken], plan: Plan, home: Path) -> None:
    if not found:
        shutil.rmtree(home, ignore_errors=True)
        return
    print(*plan.hits, sep="\n")
    for what, count in Counter(problem.what for problem in found).items():
        print(f"BROKEN {count} × {what}", file=sys.stderr)
        for problem in [problem for problem in found if problem.what == what][:12]:
            print(f"    {problem.sentence}", file=sys.stderr)
    print(f"what lies on the disk stays for a look: {home}", file=sys.stderr)


def _result(facts: Facts, fleet: Fleet, seconds: float) -> dict[str, Any]:
    return {
        "seconds": round(seconds),
        "workers": fleet.plan.size.workers,
        "sites": fleet.plan.size.sites,
        "sources": len(fleet.plan.size.sources),
        "files": fleet.world.files,
        "orders": len(facts.seen.posted),
        "runs": len(facts.seen.runs),
        "requests": len(facts.visits),
        "requests of unknown processes": sum(visit.process is None for visit in facts.visits),
        "gallery processes": len({stay.process for stay in stays(facts.visits)}),
        "events": len(facts.seen.events),
        "duplicates": duplicates(facts.seen.events),
        "struck": dict(Counter(one.what for one in facts.struck)),
        "runs that were struck": sum(len(one.sources) for one in facts.struck),
        "takeovers in seconds": sorted(round(seconds) for seconds in takeovers(facts)),
        "runs given up for lost leases": len(re.findall("run given up|lease lost", fleet.world.log)),
    }


if __name__ == "__main__":
    sys.exit(main())
