"""What has got its final name, and may not be in the catalog yet: a line for each file, written just before its rename.

After a crash in the next instant the file is announced as downloaded, not taken for one that was always there. The log
belongs to the source, not to the run: another run of the source may be the next to see the file.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple


class Landing(NamedTuple):
    path: str
    """Relative to CONTENT_ROOT."""
    remote_id: str
    url: str


class LandingLog:
    """`landings`, by path: those that an earlier process has left behind, and then this one's. The service removes the
    file once all of them are told. Calls must take turns."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._handle: int | None = None
        self.landings = _read(file)
        self.earlier = frozenset(self.landings)

    def note(self, landing: Landing) -> None:
        if self._handle is None:
            self._file.parent.mkdir(0o700, exist_ok=True)  # in the marker's folder: never one of our own making
            self._handle = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(self._handle, (json.dumps(landing) + "\n").encode())
        self.landings[landing.path] = landing


def _read(file: Path) -> dict[str, Landing]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    found = {}
    for line in lines:
        try:
            landing = Landing(*json.loads(line))
        except (ValueError, TypeError):
            continue  # the last line of a process that was killed while it wrote
        found[landing.path] = landing
    return found
