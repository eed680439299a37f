"""What the catalog is asked all the time takes as long in a large catalog as in a small one: no statement walks over a
large table, and none reads more rows than it is about. `make bench` asks the same with 5,000,000 files."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from benchmarks.filler import fill
from http_downloader.catalog.engine import open_catalog
from tests.databases import ENGINES, database
from tests.hot_calls import CALLS, World, shape, too_much, trust_indexes, world_of

FILES = 60_000
"""Enough that the engines choose as they do with millions."""


@pytest.fixture(scope="module", params=ENGINES)
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with database(request.param, tmp_path_factory.mktemp("plans")) as url:
        catalog = open_catalog(url)
        fill(catalog, shape(FILES))
        trust_indexes(catalog.engine)
        yield world_of(catalog)
        catalog.close()


def test_nothing_grows_with_the_catalog(world: World) -> None:
    """One test for all calls: the catalog takes seconds to fill."""
    found = [problem for name in CALLS if (problem := too_much(world, name)) is not None]
    assert not found, "\n\n".join(found)
