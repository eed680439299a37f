"""With LOG_FORMAT=json every line of a service is one JSON object that says who wrote it, and of which run it tells."""

from __future__ import annotations

import json
import textwrap
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.installation import Installation, Service, free_port
from tests.queues import Queues
from tests.site import FaultySite, Post, hang, status

HOOK = """
    def on_file_downloaded(file):
        raise RuntimeError('of "%s"\\n\\x1b[31m {not json' % file.source_id)
"""


def lines(log: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.splitlines()]
    for line in found:
        assert {"event", "level", "timestamp", "worker"} <= line.keys(), line
        assert datetime.fromisoformat(line["timestamp"]).utcoffset() is not None
    assert len({line["worker"] for line in found}) == 1
    return found


def test_lines_of_two_runs(install: Callable[..., Installation]) -> None:
    """Two runs go on at once, each with warnings of gallery-dl and a hook script that fails in words that are no
    JSON: each line of a run has its id, its source and its site, and so have those of threads and of other libraries.
    """
    with Queues() as queues, FaultySite([Post(id=1)]) as one, FaultySite([Post(id=1)]) as two:
        machine = install(
            LOG_FORMAT="json", LOG_LEVEL="DEBUG", SYNC_ATTEMPTS=1, SYNC_MISSPELT=1, HTTP_PORT=free_port(), **queues.settings
        )  # fmt: skip
        (machine.home / "hook.py").write_text(textwrap.dedent(HOOK))
        machine.set(HOOK_FILE_DOWNLOADED=machine.home / "hook.py")
        for site in (one, two):
            site.add(Post(id=2))
            site.rule(Post(id=2).path, status(500))
            site.rule("/data/", hang(0.5))  # meanwhile the other one runs, too
        with Service(machine) as service:
            queues.post(b"\x1b[2Jno json\n")
            for number, site in ((11, one), (12, two)):
                queues.post(
                    {"source_id": number, "url": f"Danbooru:{site.root}/posts?tags=demo", "content_path": f"a/{number}"}
                )
            queues.wait_for("failed", 2)
            queues.wait_for("rejected", 1)
        found = lines(service.log)
    assert any("SYNC_MISSPELT" in line["event"] for line in found)
    assert any(line["event"] == "order rejected" for line in found)
    by_run = defaultdict(list)
    for line in found:
        if "run_id" in line:
            by_run[line["run_id"], line["source_id"], line["site"]].append(line)
    sites = {11: one.root.removeprefix("http://"), 12: two.root.removeprefix("http://")}
    assert {(source, site) for _, source, site in by_run} == set(sites.items())
    assert len(by_run) == 2
    for (_, source, _), told in by_run.items():
        events = [line["event"] for line in told]
        assert events[0] == "run started"
        assert events[-1] == "run ended"
        (problem,) = (event for event in events if event.startswith("hook "))
        assert f'of "{source}"' in problem
        assert "\x1b" not in problem
        assert any(line.get("logger", "").startswith("download") for line in told), events
    # Nothing that belongs to a run is without its name.
    assert not [
        line for line in found if "run_id" not in line and line["event"].startswith(("run ", "hook ", "attempt "))
    ]


def test_the_end_of_a_service_that_cannot_start(install: Callable[..., Installation]) -> None:
    """What people would be told in words is a line like any other."""
    machine = install(LOG_FORMAT="json", HTTP_HOST="0.0.0.0", HTTP_PORT=free_port(), SYNC_MISSPELT=1)
    done = machine.run("serve")
    assert done.returncode == 2
    assert done.stdout == ""
    first, last = lines(done.stderr)
    assert "SYNC_MISSPELT" in first["event"]
    assert (last["level"], "set HTTP_TOKEN" in last["event"]) == ("error", True)
