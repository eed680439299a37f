"""What a run saw at the remote, and whether it is complete: the only thing that may ever prove a file gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .reasons import Reason

NARROWING_OPTIONS: Mapping[str, tuple[object, ...]] = {
    **{f"{what}-{how}": () for what in ("file", "image", "post", "child", "chapter") for how in ("range", "filter")},
    "date-after": (),
    "date-before": (),
    "whitelist-tags": (),
    "tags-whitelist": (),
    "blacklist-tags": (),
    "tags-blacklist": (),
    "max-posts": (),
    "max-items": (),
    "limit": (),
    "include": ("all",),
    "videos": (True, None),
    "children": (True,),
    "download": (True,),
}
"""Options of gallery-dl that leave files out of a listing, each with the values that leave out nothing.
An option that is not set, or is empty, narrows nothing. Source: gallery-dl's docs/configuration.rst."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """One reason why a listing is not complete; `detail` says where."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What made a listing, a transfer or the gallery process fail."""

    reason: Reason
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """`files`: how many files were listed. `failure`: why reading it broke off, if it did."""

    files: int = 0
    gaps: tuple[Gap, ...] = ()
    failure: Failure | None = None
    seen: frozenset[str] = field(default=frozenset(), repr=False)

    @property
    def complete(self) -> bool:
        return self.failure is None and not self.gaps


def narrowing_options(config: Callable[[str], Any]) -> list[str]:
    """The names of the options in force that leave files out. `config(name)` gives a value, None if unset."""
    narrowing = []
    for name, harmless in NARROWING_OPTIONS.items():
        value = config(name)
        # `videos: false` narrows, `date-after: ""` does not: only for switches is False a setting.
        unset = value is None or value == "" or value == [] or (value == 0 and value is not False)
        if unset or (value is False and True not in harmless):
            continue
        if not any(value is allowed or value == allowed for allowed in harmless):
            narrowing.append(name)
    return narrowing
