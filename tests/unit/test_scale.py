"""What docs/scale.md works out is what was measured, multiplied."""

import json

import pytest

from benchmarks import model
from benchmarks.scale import RESULTS

FIGURES = json.loads(RESULTS.read_text())


def test_the_page_shows_what_was_measured() -> None:
    page = model.PAGE.read_text()
    assert model.with_figures(page, FIGURES) == page
    assert set(FIGURES["engines"]) == {"sqlite", "postgresql", "mariadb"}


def test_loads_are_those_of_a_day() -> None:
    target = model.Target(sources=86_400, files=864_000_000, new=0.5, workers=10)
    assert (target.runs, target.listed, target.downloaded) == (1, 10_000, 50)


def test_the_scarcest_comes_first() -> None:
    found = model.needs(FIGURES, "postgresql", model.Target())
    assert [need.times for need in found] == sorted((need.times for need in found), reverse=True)
    half = model.needs(FIGURES, "postgresql", model.Target(files=5_000_000_000))
    by_name = {need.what: need.times for need in half}
    assert by_name[found[0].what] == pytest.approx(found[0].times / 2)


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="markers"):
        model.with_figures("nothing", FIGURES)
