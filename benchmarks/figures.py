"""What a row yields: figures of every repetition, the goal, and the verdict; as text and as JSON."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

HEADINGS = ("row", "ours", "other", "judged", "goal", "ok?")


class BenchmarkError(Exception):
    """A row could not be measured, or something that it counts on was not so."""


class Judged(StrEnum):
    """The value that a goal is about."""

    RATIO = "ours / other"
    SPEEDUP = "other / ours"
    OURS = "ours"


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    limit: float
    judged: Judged
    at_least: bool = False
    """Else: at most."""

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def has_collapsed(self, value: float) -> bool:
        """Less than half as good as the goal."""
        return value < self.limit / 2 if self.at_least else value > self.limit * 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of the table. `other` is empty where a figure stands alone."""

    row: str
    what: str
    unit: str
    ours: list[float]
    goal: Goal | None
    other: list[float] = field(default_factory=list)
    against: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    judged: Judged = Judged.RATIO
    """What is shown of a line without a goal."""

    @property
    def value(self) -> float:
        """What the goal judges: medians, and their ratio."""
        ours = statistics.median(self.ours)
        match self.goal.judged if self.goal else self.judged:
            case Judged.RATIO:
                return ours / statistics.median(self.other)
            case Judged.SPEEDUP:
                return statistics.median(self.other) / ours
            case Judged.OURS:
                return ours

    @property
    def ok(self) -> bool:
        return self.goal is None or self.goal.is_met(self.value)

    @property
    def collapsed(self) -> bool:
        return self.goal is not None and self.goal.has_collapsed(self.value)

    def as_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "value": self.value, "ok": self.ok}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Line:
        known = {name: fields[name] for name in cls.__dataclass_fields__}
        goal = known["goal"]
        known["judged"] = Judged(known["judged"])
        known["goal"] = goal and Goal(**{**goal, "judged": Judged(goal["judged"])})
        return cls(**known)

    def cells(self) -> tuple[str, ...]:
        """One for each of `HEADINGS`."""
        ratio = self.goal is None or self.goal.judged is not Judged.OURS
        sign = " ×" if ratio and self.other else f" {self.unit}"
        verdict = "" if self.goal is None else "yes" if self.ok else "no"
        return (
            self.what,
            _with_unit(self.ours, self.unit),
            f"{_with_unit(self.other, self.unit)} ({self.against})" if self.other else "",
            f"{number(self.value)}{sign}",
            "" if self.goal is None else f"{'≥' if self.goal.at_least else '≤'} {number(self.goal.limit)}{sign}",
            verdict,
        )


def _with_unit(values: list[float], unit: str) -> str:
    return f"{number(statistics.median(values))} {unit}"


def number(value: float) -> str:
    """Three digits that count, without exponents.

    >>> number(1234.5), number(12.34), number(1.2), number(0.01234)
    ('1,234', '12.3', '1.2', '0.0123')
    """
    digits = max(0, 2 - math.floor(math.log10(abs(value)))) if value else 0
    text = f"{value:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if digits else text


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that so many percent of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


Side = Callable[[int], float]
"""Measures once; gets the number of the repetition."""


def interleaved(repetitions: int, sides: Mapping[str, Side]) -> dict[str, list[float]]:
    """Measure A B A B: what else the machine does meanwhile then hits all sides alike."""
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for repetition in range(repetitions):
        for name, measure in sides.items():
            figures[name].append(measure(repetition))
    return figures


def plain_table(lines: list[Line]) -> str:
    """For a terminal."""
    rows = [HEADINGS, *(line.cells() for line in lines)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
