"""What `/metrics` tells of a service that has really worked, and that docs/metrics.md and the alert rules say the same."""

from __future__ import annotations

import http.client
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.databases import database, locked
from tests.installation import Installation, Service, free_port, wait_until
from tests.queues import Queues
from tests.site import FaultySite, Post, hang, status

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/metrics.md").read_text()
ALERTS = (ROOT / "deploy/alerts.yml").read_text()
SECRET = "t0ken-of-metrics"

Samples = dict[str, dict[tuple[str, ...], float]]
"""For each sample's name its values, by the values of its labels in the order of their names."""


def get(port: int, token: str = "", path: str = "/metrics") -> tuple[int, str]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def samples(port: int, token: str = "") -> Samples:
    found: Samples = {}
    for family in text_string_to_metric_families(get(port, token)[1]):
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            found.setdefault(sample.name, {})[labels] = sample.value
    return found


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Type and labels by name."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", DOCUMENT, re.MULTILINE)
    assert len(rows) == len({name for name, *_ in rows}) > 30
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


def told(text: str) -> dict[str, tuple[str, frozenset[str]]]:
    """The same, of what a service tells."""
    found = {}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
        found[name] = (family.type, labels)
    return found


def test_the_document_says_what_is_told(install: Callable[..., Installation]) -> None:
    """After a real run that met everything there is a number for, each metric of the document is told with its type
    and labels, no other one is, and the numbers are those of what has happened."""
    port = free_port()
    posts = [Post(id=number) for number in range(1, 6)]
    with Queues(removed=True) as queues, FaultySite(posts) as site:
        machine = install(HTTP_PORT=port, HTTP_TOKEN=SECRET, SYNC_ATTEMPTS=1, REMOVAL_MIN_AGE=0, **queues.settings)
        order = {"source_id": 1, "url": f"Danbooru:{site.root}/posts?tags=demo", "content_path": "a"}
        site.rule(r"/posts\.json", status(429, {"Retry-After": "1"}), times=1)
        with Service(machine) as service:
            queues.post(order, message_id="m1")
            queues.wait_for("synchronized", 1)
            site.remove(1)
            for count in (2, 3):  # the second listing without the file takes it away
                queues.post(order, message_id=f"m{count}")
                queues.wait_for("synchronized", count)
            site.add(Post(id=6))
            site.rule(r"/data/", status(500))
            queues.post(order, message_id="m4")
            queues.wait_for("failed", 1)
            queues.publish(b"{")
            queues.wait_for("rejected", 1)
            wait_until(
                lambda: samples(port, SECRET)["http_downloader_catalog_outbox_events"] == {(): 0}, what="the outbox"
            )
            text, seen = get(port, SECRET)[1], samples(port, SECRET)
            assert get(port)[0] == get(port, "wrong")[0] == 401
            assert SECRET not in text
            assert SECRET not in service.log
            size = sum(file["size"] for file in machine.files(1) if file["size"])
    assert told(text) == documented()
    expected = {
        "orders_accepted_total": {(): 4},
        "orders_joined_total": {(): 0},
        "files_downloaded_total": {(): 5},
        "downloaded_bytes_total": {(): size},
        "files_skipped_total": {(): 12},
        "files_failed_total": {(): 1},
        "files_removed_total": {("delete",): 0, ("trash",): 1},
        "attempts_started_total": {(): 4},
        "broker_connected": {(): 1},
        "broker_blocked": {(): 0},
        "slots": {(): 4},
        "slots_used": {(): 0},
        "catalog_runs_queued": {("delayed",): 0, ("waiting",): 0},
        "catalog_runs_running": {(): 0},
        "part_ready": {(part,): 1 for part in ("broker", "catalog", "content_root", "gallery", "service")},
    }
    assert {name: seen[f"http_downloader_{name}"] for name in expected} == expected
    ended = seen["http_downloader_runs_ended_total"]
    assert {labels: count for labels, count in ended.items() if count} == {
        ("", "synchronized"): 3,
        ("files-failed", "failed"): 1,
    }
    rejected = seen["http_downloader_orders_rejected_total"]
    assert {labels: count for labels, count in rejected.items() if count} == {("not-json",): 1}
    # Each file and each run was told through the outbox; skips were not.
    assert seen["http_downloader_event_latency_seconds_count"] == {(): 5 + 1 + 4}
    (waited,) = seen["http_downloader_site_wait_seconds_total"].values()
    assert waited >= 1


def test_a_catalog_that_is_away(install: Callable[..., Installation], tmp_path: Path) -> None:
    """A scrape is answered with all that does not need it."""
    port = free_port()
    with database("postgresql", tmp_path) as url, Service(install(HTTP_PORT=port, DATABASE_URL=url)):
        wait_until(lambda: samples(port).get("http_downloader_catalog_runs_queued"), what="the catalog to be looked at")
        with locked(url):
            wait_until(lambda: "http_downloader_catalog_runs_queued" not in samples(port), what="it to be missed")
            assert samples(port)["http_downloader_slots"] == {(): 4}
            assert get(port, path="/healthz")[0] == 200
        wait_until(lambda: samples(port).get("http_downloader_catalog_runs_queued"), what="it to be back")


def test_a_run_under_way(install: Callable[..., Installation]) -> None:
    """Slots and lanes that are busy are told, and what the gallery processes take of the memory."""
    port = free_port()
    with Queues() as queues, FaultySite([Post(id=number) for number in (1, 2, 3)]) as site:
        site.rule(r"/data/", hang(60))
        with Service(install(HTTP_PORT=port, SHUTDOWN_GRACE=0, **queues.settings)):
            queues.post({"source_id": 1, "url": f"Danbooru:{site.root}/posts?tags=demo", "content_path": "a"})
            wait_until(lambda: samples(port)["http_downloader_lanes_busy"] == {(): 3}, what="the lanes")
            assert samples(port)["http_downloader_slots_used"] == {(): 1}
            # Server, resolver, run; what was seen of them is good for some seconds.
            wait_until(lambda: samples(port)["http_downloader_gallery_processes"][()] >= 3, what="the processes")
            seen = samples(port)
    private, resident = (seen[f"http_downloader_gallery_{kind}_bytes"][()] for kind in ("private", "resident"))
    assert 5e6 < private < resident


def test_alert_rules() -> None:
    """Each rule is in the document and the other way round; each uses metrics that there are, and their labels."""
    rules = re.findall(r"^ +- alert: (\w+)$", ALERTS, re.MULTILINE)
    assert rules == re.findall(r"^\| `([A-Z]\w+)` \|", DOCUMENT, re.MULTILINE)
    metrics = documented()
    used = set(re.findall(r"http_downloader_\w+", ALERTS))
    assert len(used) >= 9
    assert used <= set(metrics)
    labels = {label for _, names in metrics.values() for label in names} | {"job", "instance"}
    named = set(re.findall(r"\$labels\.(\w+)", ALERTS)) | {
        label for group in re.findall(r"by \(([\w, ]+)\)", ALERTS) for label in group.split(", ")
    }
    assert named <= labels
