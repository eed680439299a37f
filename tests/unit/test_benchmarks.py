"""The benchmark's own site, asked by real clients, and what it makes of its figures."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from benchmarks import report, run
from benchmarks.figures import Goal, Judged, Line, interleaved, number, percentile, plain_table
from benchmarks.site import Sites, SiteSettings, chunks, page_of


@pytest.fixture
def client() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def line(**fields: object) -> Line:
    goal = Goal(limit=1.2, judged=Judged.RATIO)
    given = {"row": "resync", "what": "a | row", "unit": "s", "ours": [2.0, 1.0, 9.0], "other": [1.0, 4.0, 2.0]}
    return Line(**{"goal": goal, "against": "gallery-dl", **given, **fields})


def test_pages_by_number_and_by_id() -> None:
    assert list(page_of(5, 2, "")) == [5, 4]
    assert list(page_of(5, 2, "2")) == [3, 2]
    assert list(page_of(5, 2, "b4")) == [3, 2]
    assert list(page_of(5, 2, "a1")) == [3, 2]
    assert list(page_of(5, 2, "b2")) == [1]
    assert list(page_of(5, 2, "a5")) == list(page_of(5, 2, "b1")) == list(page_of(5, 2, "9")) == []


def test_files_have_their_size_and_bytes_of_their_own() -> None:
    for size in (0, 2, 11, 500, 600_000):
        assert sum(len(chunk) for chunk in chunks(1, size)) == size
    assert b"".join(chunks(1, 500)) == b"".join(chunks(1, 500)) != b"".join(chunks(2, 500))


def test_gallery_dl_mirrors_the_whole_site(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    command = [sys.executable, "-m", "gallery_dl", "--config-ignore", "-D", str(tmp_path), "-q"]
    settings = ["-o", "sleep-request=0", "-o", "cache.file=null", "-o", "filename={id}.{extension}"]
    with Sites(SiteSettings(), SiteSettings(files=401, size=50)) as sites:
        done = subprocess.run(
            [*command, *settings, sites.url("cat", 1)], env=environment, capture_output=True, timeout=60, check=False
        )
        counters = sites.counters(1)
    assert done.returncode == 0, done.stderr
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        f"{post}.jpg": b"".join(chunks(post, 50)) for post in range(1, 402)
    }
    assert (counters.files, counters.listings, counters.requests) == (401, 3, 404)
    assert counters.max_active == counters.max_connections == 1


def test_a_large_file_is_whole(client: requests.Session) -> None:
    with Sites(SiteSettings(files=1, size=3_000_000)) as sites:
        answer = client.get(f"{sites.roots[0]}/data/1.jpg")
        assert answer.content == b"".join(chunks(1, 3_000_000))
        assert client.head(f"{sites.roots[0]}/data/1.jpg").headers["Content-Length"] == "3000000"
        assert client.get(f"{sites.roots[0]}/data/2.jpg").status_code == 404


def test_more_requests_than_allowed_are_answered_with_429(client: requests.Session) -> None:
    with Sites(SiteSettings(files=9, size=10, file_latency=0.3, limit=2, retry_after=7)) as sites:
        with ThreadPoolExecutor(5) as threads:
            answers = list(threads.map(lambda post: client.get(f"{sites.roots[0]}/data/{post}.jpg"), range(1, 6)))
        counters = sites.counters()
        sites.reset()
        assert sites.counters().requests == 0
    assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429]
    assert {answer.headers.get("Retry-After") for answer in answers if answer.status_code == 429} == {"7"}
    assert (counters.refused, counters.requests, counters.files) == (3, 5, 2)
    assert 3 <= counters.max_connections <= 5
    assert counters.active == 0


def test_latency_and_pace_can_be_changed_while_it_serves(client: requests.Session) -> None:
    with Sites(SiteSettings(files=9, size=10)) as sites:

        def seconds(files: int) -> float:
            began = time.monotonic()
            for post in range(1, 1 + files):
                assert client.get(f"{sites.roots[0]}/data/{post}.jpg").status_code == 200
            return time.monotonic() - began

        sites.set(file_latency=0.2)
        assert seconds(1) >= 0.2
        sites.set(file_latency=0, pace=20)
        assert seconds(5) >= 0.2


def test_the_verdict_is_about_medians() -> None:
    assert line().value == 1.0
    assert line().ok
    assert not line(other=[1.0]).ok
    assert not line(other=[1.0]).collapsed
    assert line(other=[0.5]).collapsed
    faster = Goal(limit=7, judged=Judged.SPEEDUP, at_least=True)
    assert line(ours=[1.0], other=[7.0], goal=faster).ok
    assert line(ours=[1.0], other=[3.0], goal=faster).collapsed
    alone = line(ours=[30.0], other=[], against="", goal=Goal(limit=25, judged=Judged.OURS, at_least=True))
    assert alone.ok
    assert line(goal=None).ok


def test_figures_are_taken_in_turn_and_read_well() -> None:
    seen = []
    measured = interleaved(2, {"a": lambda n: seen.append(f"a{n}") or 1.0, "b": lambda n: seen.append(f"b{n}") or 2.0})
    assert seen == ["a0", "b0", "a1", "b1"]
    assert measured == {"a": [1.0, 1.0], "b": [2.0, 2.0]}
    assert [number(value) for value in (0, 0.01234, 0.9996, 12.34, 1234.5)] == ["0", "0.0123", "1", "12.3", "1,234"]
    assert (percentile([3, 1, 2], 50), percentile([3, 1, 2], 99), percentile([1], 1)) == (2, 3, 1)


def test_the_report_shows_every_figure() -> None:
    fields = json.loads(json.dumps(line().as_dict()))
    assert Line.from_dict(fields) == line()
    row = {"date": "2026-01-02", "load_before": 0.5, "sizes": "full", "lines": [fields]}
    text = report.figures({"machine": {"cores": 2, "python": "3.11.7"}, "rows": {"resync": row}})
    assert "cores 2, python 3.11.7" in text
    assert r"| a \| row | 2 s | 2 s (gallery-dl) | 1 × | ≤ 1.2 × | yes |" in text
    assert r"| a \| row | 2, 1, 9 | 1, 4, 2 | s |" in text
    assert "| resync | 2026-01-02 | full | 0.5 |" in text
    assert "≤ 1.2 ×" in plain_table([line()])


def test_the_page_says_so_when_there_are_no_results() -> None:
    page = report.PAGE.read_text()
    assert report.with_figures(page, "new figures").count("new figures") == 1
    assert report.NOTHING in report.with_figures(page, report.figures(None))
    with pytest.raises(ValueError, match="markers"):
        report.with_figures("no markers here", "figures")


def test_rows_are_chosen_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(["--only", "resync,nothing"])
    assert ended.value.code == 2
    assert "no row 'nothing'" in capsys.readouterr().err


@pytest.mark.parametrize(("others", "measured", "code"), [([0.5, 1.0], 2, 0), ([0.5, 0.5], 2, 1), ([1.0], 1, 0)])
def test_a_quick_row_collapses_when_it_does_so_twice(
    others: list[float], measured: int, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = iter(others)
    monkeypatch.setitem(run.ROWS, "resync", lambda _home, _sizes: iter([line(ours=[2.0], other=[next(figures)])]))
    assert run.main(["--quick", "--only", "resync"]) == code
    assert len(others) - len(list(figures)) == measured
    assert ("collapsed: resync" in capsys.readouterr().out) == bool(code)


def test_in_full_size_a_missed_goal_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.ROWS, "resync", lambda _home, _sizes: iter([line(ours=[2.0], other=[1.5])]))
    assert run.main(["--only", "resync", "--output", str(tmp_path / "results.json")]) == 1
    assert run.main(["--quick", "--only", "resync"]) == 0
