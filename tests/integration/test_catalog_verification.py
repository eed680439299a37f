"""What verification and repair ask the catalog, on each engine; and that nothing of the catalog is asked on one only."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import http_downloader.catalog
from http_downloader.catalog import content, files, journal, overview, removals, schema, verification
from http_downloader.catalog.engine import Catalog, open_catalog, probe
from http_downloader.catalog.journal import Claim
from http_downloader.catalog.removals import Removed
from http_downloader.catalog.verification import Aside, RecordedFile
from http_downloader.domain.errors import SourceBusyError
from http_downloader.domain.files import FileFact, FileState
from http_downloader.domain.orders import Order
from http_downloader.domain.runs import Ending, RunState
from http_downloader.domain.verification import aside_id
from tests import hot_calls
from tests.databases import ENGINES, database

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LEASE = timedelta(seconds=60)
SYNCHRONIZED = Ending(state=RunState.SYNCHRONIZED, listing_proves=True)


@pytest.fixture(scope="module", params=ENGINES)
def opened(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Catalog]:
    with database(request.param, tmp_path_factory.mktemp("catalog")) as url:
        catalog = open_catalog(url)
        yield catalog
        catalog.close()


@pytest.fixture
def catalog(opened: Catalog) -> Catalog:
    """An empty catalog, on each engine in turn."""
    with opened.engine.begin() as db:
        for table in reversed(schema.metadata.sorted_tables):
            if table is not schema.catalog:
                db.execute(sa.delete(table))
    return opened


def started(catalog: Catalog, source_id: int = 1) -> Claim:
    order = Order(source_id=source_id, url=f"https://example.org/{source_id}", content_path=f"folder{source_id}")
    run = journal.submit(catalog, order, site="site", now=NOW).run
    claim = journal.claim(catalog, owner="w1", lease=LEASE, site_concurrency=99, run=run)
    assert claim is not None
    return claim


def record(catalog: Catalog, claim: Claim, name: str, state: FileState = FileState.PRESENT, **more: Any) -> None:
    path = f"{claim.content_path}/{name}" if state is FileState.PRESENT else None
    fact = FileFact(remote_id=name, path=path, state=state, size=7, sha256="ab", downloaded=True, **more)
    files.record(catalog, claim, [fact], {}, NOW)


def finish(catalog: Catalog, claim: Claim) -> None:
    journal.finish(catalog, claim, now=NOW, ending=SYNCHRONIZED, counts={}, gaps=[], log="", events=[])


def mirrored(catalog: Catalog, *names: str, source_id: int = 1) -> list[RecordedFile]:
    """Files of a source that nobody is at, as they are verified."""
    claim = started(catalog, source_id)
    for name in names:
        record(catalog, claim, name)
    finish(catalog, claim)
    return verification.page(catalog, source_id, 0, 99)


def copy_of(file: RecordedFile, place: str = ".trash/aside") -> Aside:
    return Aside(remote_id=aside_id(file.remote_id, "cd"), trash_path=place, size=9, sha256="cd")


def test_what_should_be_here(catalog: Catalog) -> None:
    """Present and missing files in place, trashed ones in the trash; nothing else."""
    claim = started(catalog)
    for name in ("here", "trashed", "removed"):
        record(catalog, claim, name)
    record(catalog, claim, "failed", FileState.FAILED)
    gone = [Removed(remote_id="trashed", trash_path=".trash/t", kept=True)]
    gone += [Removed(remote_id="removed", trash_path=None, kept=False)]
    removals.removed(catalog, claim, gone, [], NOW)
    assert verification.running(catalog) == {1}
    finish(catalog, claim)
    mirrored(catalog, "other", source_id=2)
    places = [file.place for file in verification.page(catalog, 1, 0, 9)]
    assert places == ["folder1/here", ".trash/t"]
    everything = verification.page(catalog, None, 0, 2)
    assert [file.filename for file in everything] == ["here", "trashed"]
    assert [file.filename for file in verification.page(catalog, None, everything[-1].id, 2)] == ["other"]
    assert verification.extent(catalog, 1) == (2, 14)
    assert verification.extent(catalog, None) == (3, 21)
    assert (verification.lacking(catalog, 1), verification.lacking(catalog, 2)) == (1, 0)
    assert verification.running(catalog) == set()
    assert verification.folders(catalog, None) == {"folder1": 1, "folder2": 2}
    assert verification.folders(catalog, 2) == {"folder2": 2}
    assert verification.held(catalog, ["folder1/here", "folder1/HERE", "folder1/trashed"]) == {"folder1/here"}


def test_how_rows_stand(catalog: Catalog) -> None:
    """Rows that say no file is here are not given; how they stand can still be asked."""
    (file,) = mirrored(catalog, "x")
    assert verification.by_ids(catalog, [file.id, file.id + 1]) == {file.id: file}
    claim = started(catalog)
    record(catalog, claim, "x", FileState.FAILED, gone=True)
    assert verification.by_ids(catalog, [file.id]) == {}
    standing = verification.standings(catalog, [file.id])[file.id]
    assert (standing.state, standing.gone, standing.since) == (FileState.FAILED, True, NOW)


def test_a_copy_is_set_aside_and_put_back(catalog: Catalog) -> None:
    """Where it goes is noted once: a repair that was cut off has noted it already."""
    (file,) = mirrored(catalog, "x")
    assert verification.set_aside(catalog, file, copy_of(file), NOW) == ".trash/aside"
    assert verification.set_aside(catalog, file, copy_of(file, ".trash/later"), NOW) == ".trash/aside"
    ((aside,),) = verification.copies_aside(catalog, 1).values()
    assert aside.trash_path == ".trash/aside"
    verification.put_back(catalog, file.id, aside.id)
    assert verification.copies_aside(catalog, 1) == {}
    assert verification.page(catalog, 1, 0, 9) == [file]


def test_a_copy_of_what_is_gone_is_a_file_of_its_own(catalog: Catalog) -> None:
    (file,) = mirrored(catalog, "x")
    verification.set_aside(catalog, file, copy_of(file), NOW)
    ((aside,),) = verification.copies_aside(catalog, 1).values()
    verification.keep_copy(catalog, aside.id, "folder1/x~1")
    assert [one.place for one in verification.page(catalog, 1, 0, 9)] == ["folder1/x", "folder1/x~1"]
    assert not removals.is_free(catalog, "folder1/x~1", file.id)
    assert removals.is_free(catalog, "folder1/x", file.id)


def test_nothing_is_repaired_beside_a_run(catalog: Catalog) -> None:
    (file,) = mirrored(catalog, "x")
    started(catalog)
    for call in (
        lambda: verification.need_idle(catalog, 1),
        lambda: verification.set_aside(catalog, file, copy_of(file), NOW),
    ):
        with pytest.raises(SourceBusyError):
            call()
    assert verification.copies_aside(catalog, 1) == {}


def test_what_a_removal_has_left_behind(catalog: Catalog) -> None:
    claim = started(catalog)
    for name in ("kept", "left", "gone"):
        record(catalog, claim, name)
        trash_path = None if name == "gone" else f".trash/{name}"
        one = Removed(remote_id=name, trash_path=trash_path, kept=name == "kept")
        removals.removed(catalog, claim, [one], [], NOW)
    (left,) = removals.left_behind(catalog, 1)
    assert left.trash_path == ".trash/left"
    assert [row.id for row in removals.expired(catalog, NOW, 9)] == [left.id]
    removals.emptied(catalog, [left.id], NOW)
    assert removals.left_behind(catalog, 1) == removals.expired(catalog, NOW, 9) == []


def test_a_source_is_found_by_its_id_or_its_url(catalog: Catalog) -> None:
    mirrored(catalog, source_id=1)
    mirrored(catalog, source_id=2)
    for found in (journal.find_source(catalog, "", 2), journal.find_source(catalog, "https://example.org/2", None)):
        assert found is not None
        assert found["id"] == 2
    assert journal.find_source(catalog, "https://example.org/3", None) is None


def test_the_root_is_marked_once(catalog: Catalog) -> None:
    assert not content.is_marked(catalog)
    content.mark(catalog, NOW)
    assert content.is_marked(catalog)


def test_who_is_at_work_is_known(catalog: Catalog) -> None:
    assert content.running_workers(catalog) == []
    started(catalog)
    assert content.running_workers(catalog) == ["w1"]
    assert overview.load(catalog).running == 1


def test_a_restored_catalog_gets_another_name(catalog: Catalog) -> None:
    before = started(catalog).run_id
    content.rename(catalog, "restored")
    (run,) = journal.list_runs(catalog, source_id=1, limit=9)
    assert run["run_id"] != before
    assert run["run_id"].startswith("restored-")
    content.rename(catalog, catalog.identity)


def test_a_probe_leaves_nothing(catalog: Catalog) -> None:
    probe(catalog)
    with catalog.engine.connect().execution_options(reads_only=True) as db:
        assert db.execute(sa.select(schema.sites)).all() == []


def catalog_functions() -> list[str]:
    """Every transaction and query, as tests call it: `journal.submit`."""
    found = []
    for module in pkgutil.iter_modules(http_downloader.catalog.__path__):
        if not module.ispkg:
            members = inspect.getmembers(import_module(f"http_downloader.catalog.{module.name}"), inspect.isfunction)
            found += [
                f"{module.name}.{name}"
                for name, member in members
                if hasattr(member, "__wrapped__") and member.__module__.endswith(f".{module.name}") and name[0] != "_"
            ]
    return found


def test_every_function_of_the_catalog_is_tested_on_each_engine() -> None:
    """By a file that takes each of `ENGINES`."""
    texts = [file.read_text() for file in Path(__file__).parent.glob("*.py")]
    texts = [text for text in texts if "ENGINES" in text]
    texts.append(inspect.getsource(hot_calls))
    tests = "\n".join(texts)
    named = catalog_functions()
    assert "journal.submit" in named
    missing = [name for name in named if f"{name}(" not in tests and f"{name.removeprefix('engine.')}(" not in tests]
    assert missing == []
