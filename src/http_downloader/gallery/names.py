"""Which path a remote file gets: decided by its id and by who holds the path, never by the name alone."""

from __future__ import annotations

import os
import re
import stat
import threading
from collections.abc import Callable, Container
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from ..domain.files import FileState, distinct_name
from .landing import Landing, LandingLog
from .messages import RunRequest

LONGEST_NAME = 240
"""Bytes. File systems allow 255; the temporary name is longer than the final one."""

_SURROGATES = re.compile("[\ud800-\udfff]")


class OutsideFolderError(Exception):
    """A name or folder from the site's metadata would leave the source's folder."""


class Standing(Enum):
    FREE = auto()
    """Nothing is there."""
    FOUND = auto()
    """A file is there that the catalog does not know: it was there before us."""
    LANDED = auto()
    """A file is there that a run of this source put there just before it was killed; nobody was told yet."""


@dataclass(frozen=True, slots=True)
class Place:
    path: str
    """Relative to CONTENT_ROOT."""
    standing: Standing


class Names:
    """The paths of one source while a run goes on."""

    def __init__(self, request: RunRequest, held_elsewhere: Callable[[str], bool]) -> None:
        self.root = request.content_root
        self.base = request.content_path
        self._held_elsewhere = held_elsewhere
        self._shared = request.shares_folder
        self._holders = {known.path: remote_id for remote_id, known in request.known.items() if known.path}
        self._known = request.known
        self._log = LandingLog(request.landing_log)
        self._safe_folders: set[str] = set()
        self._made_folders: set[str] = set()
        self._turn = threading.RLock()
        """Lanes ask here, too: what one has taken, the other must see."""
        for landing in self._log.landings.values():
            if self.is_file(landing.path):
                self._holders.setdefault(landing.path, landing.remote_id)

    def check_base(self) -> None:
        """Raises `OutsideFolderError` when the source's folder is, or lies behind, a symlink."""
        self._check_folder(self.base)

    def settle(self, path: str, remote_id: str) -> Place:
        """Take `path` for a remote file, or the next name of its own if another remote file holds it."""
        folder, _, name = path.rpartition("/")
        wanted = name if 0 < len(name.encode()) <= LONGEST_NAME else distinct_name(name, remote_id)
        salt = remote_id
        with self._turn:
            self._check_folder(folder)
            while self._is_held(f"{folder}/{wanted}", remote_id):
                wanted = distinct_name(name, salt)
                salt += "~"
            path = f"{folder}/{wanted}"
            self._holders[path] = remote_id
            return Place(path, self.standing(path))

    def leave_alone(self, path: str) -> None:
        """Another file lies at this path and stays: no remote file may take it in this run."""
        with self._turn:
            self._holders[path] = ""

    def can_adopt(self, path: str, remote_id: str) -> bool:
        """Whether a file lies at `path` that nobody has registered."""
        with self._turn:
            return not self._is_held(path, remote_id) and self.standing(path) is not Standing.FREE

    def standing(self, path: str) -> Standing:
        if not self.is_file(path):
            return Standing.FREE
        return Standing.LANDED if path in self._log.earlier else Standing.FOUND

    def is_file(self, path: str) -> bool:
        """A regular file; a symlink is none of ours."""
        try:
            return stat.S_ISREG(os.lstat(f"{self.root}/{path}").st_mode)
        except OSError:
            return False

    def will_land(self, path: str, remote_id: str, url: str) -> None:
        """Make its folder, and note, before a file gets its final name, that it comes from this run."""
        folder = path.rpartition("/")[0]
        with self._turn:
            self._log.note(Landing(path, remote_id, url))
            if folder not in self._made_folders:
                (self.root / folder).mkdir(parents=True, exist_ok=True)
                self._made_folders.add(folder)

    def left_behind(self, told: Container[str]) -> list[Landing]:
        """Files that have landed, in this process or in one that was killed, and that nobody was told of: neither now
        (`told`: remote ids) nor, as the catalog has no row that says so, before."""
        return [
            landing
            for landing in self._log.landings.values()
            if landing.remote_id not in told
            and landing.path.startswith(self.base + "/")
            and self.is_file(landing.path)
            and not self._is_recorded(landing)
        ]

    def has_newer_versions(self, told: Container[str]) -> bool:
        """Whether a known file was refreshed by a process that was killed, and this listing has not come to it."""
        return any(
            landing.remote_id not in told
            and self._is_recorded(landing)
            and self._known[landing.remote_id].size != os.lstat(f"{self.root}/{landing.path}").st_size
            for landing in self._log.landings.values()
            if self.is_file(landing.path)
        )

    def _is_recorded(self, landing: Landing) -> bool:
        known = self._known.get(landing.remote_id)
        return (
            known is not None and known.path == landing.path and known.state in (FileState.PRESENT, FileState.MISSING)
        )

    def _is_held(self, path: str, remote_id: str) -> bool:
        holder = self._holders.get(path)
        if holder is not None:
            return holder != remote_id
        return self._shared and self._held_elsewhere(path)

    def _check_folder(self, folder: str) -> None:
        """The folder must lie in the source's own, by its words and on the disk: `..` and symlinks lead elsewhere."""
        if folder in self._safe_folders:
            return
        if folder != self.base and not folder.startswith(self.base + "/"):
            raise OutsideFolderError(f"the folder {folder!r} is outside of {self.base!r}")
        if any(segment in ("", ".", "..") for segment in folder.split("/")):
            raise OutsideFolderError(f"the folder {folder!r} has a segment that leads elsewhere")
        real = self.root.resolve() / folder
        if Path(f"{self.root}/{folder}").resolve() != real:
            raise OutsideFolderError(f"the folder {folder!r} leads through a symlink")
        self._safe_folders.add(folder)


def clean(text: str) -> str:
    """Lone surrogates cannot be written to a disk: one of them would end the whole listing."""
    return _SURROGATES.sub("_", text)
