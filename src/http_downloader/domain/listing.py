"""What a run saw at the remote, and whether it is complete: the only thing that may ever prove a file gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .characters import visible
from .reasons import Reason

NARROWING_WHEN_SET = (
    *(f"{what}-{how}" for what in ("file", "image", "post", "child", "chapter") for how in ("range", "filter")),
    "date-after",
    "date-before",
    "whitelist-tags",
    "tags-whitelist",
    "blacklist-tags",
    "tags-blacklist",
    "max-posts",
    "max-items",
)
NARROWING_WHEN_FALSE = ("videos", "children", "download")
"""Options of gallery-dl that leave files out of a listing. Source: gallery-dl's docs/configuration.rst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """One reason why a listing is not complete; `detail` says where, in one line that may be shown."""

    reason: Reason
    detail: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", visible(self.detail))  # it repeats what the site said


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What made a listing, a transfer or the gallery process fail; `detail`: one line that may be shown."""

    reason: Reason
    detail: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "detail", visible(self.detail))


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """`files`: how many files were listed. `failure`: why reading it broke off, if it did."""

    files: int = 0
    gaps: tuple[Gap, ...] = ()
    failure: Failure | None = None

    @property
    def complete(self) -> bool:
        return self.failure is None and not self.gaps


def narrowing_options(config: Callable[[str], Any]) -> list[str]:
    """The names of the options in force that leave files out. `config(name)` gives a value, None if unset."""
    narrowing = [name for name in NARROWING_WHEN_SET if config(name)]
    narrowing += [name for name in NARROWING_WHEN_FALSE if config(name) is False]
    if config("include") not in (None, "all"):
        narrowing.append("include")
    if config("threshold") not in (None, 0, 1):
        # danbooru sites leave hidden posts out of their pages: a short page need not be the last one.
        narrowing.append("threshold")
    return narrowing
