"""Which path a remote file gets: decided by its id and by who holds the path, never by the name alone."""

from __future__ import annotations

import os
import stat
import threading
import time
from collections.abc import Callable, Container
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto

from ..domain.files import FileState, distinct_name
from .disk import Disk
from .folders import OutsideFolderError, UnusableNameError, naming, opened, spelling
from .landing import Landing, LandingLog
from .messages import RunRequest

LONGEST_NAME = 240
"""Bytes. File systems allow 255; the temporary name is longer than the final one."""


LONGEST_PATH = 3700
"""Bytes of a folder with CONTENT_ROOT in front. The kernel takes 4,095 of a whole path, and the trash needs some."""
DEEPEST = 100
"""Folders in each other. Step by step we could make more than most programs can read, or remove."""


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

    def __init__(self, request: RunRequest, disk: Disk, held_elsewhere: Callable[[str], bool]) -> None:
        self.root = request.content_root
        self._disk = disk
        self.base = request.content_path
        self._held_elsewhere = held_elsewhere
        self._shared = request.shares_folder
        self._holders = {known.path: remote_id for remote_id, known in request.known.items() if known.path}
        self._known = request.known
        self._log = LandingLog(request.landing_log, disk)
        self._made_folders: set[str] = set()
        self._folders: dict[str, str] = {self.base: self.base}
        """Those that were looked at, each as the disk spells it."""
        self._begun = time.time()
        self._turn = threading.RLock()
        """Lanes ask here, too: what one has taken, the other must see."""
        for landing in self._log.landings.values():
            if self.is_file(landing.path):
                self._holders.setdefault(landing.path, landing.remote_id)

    def check_base(self) -> None:
        """Raises `UnusableNameError` when the source's folder is, or lies behind, a symlink, or is another's here."""
        spelt = self._look_at(self.base, above="")
        if spelt != self.base:
            raise UnusableNameError(
                f"the folder {self.base!r} is the same as {spelt!r} on this disk, which does not tell them apart"
            )

    def check_folder(self, folder: str) -> str:
        """The folder as the disk spells it. It must lie in the source's own, by its words and on the disk: `..` and
        symlinks lead elsewhere. Raises `UnusableNameError`."""
        with self._turn:
            if folder not in self._folders:
                if not folder.startswith(self.base + "/"):
                    raise OutsideFolderError(f"the folder {folder!r} is outside of {self.base!r}")
                if any(segment in ("", ".", "..") for segment in folder.split("/")):
                    raise OutsideFolderError(f"the folder {folder!r} has a segment that leads elsewhere")
                if folder.count("/") >= DEEPEST or len(f"{self.root}/{folder}".encode()) > LONGEST_PATH:
                    raise UnusableNameError(f"the folder {folder[:80]!r}… is too deep or too long")
                self._folders[folder] = self._look_at(folder, above=self.base)
            return self._folders[folder]

    def settle(self, path: str, remote_id: str) -> Place:
        """Take `path` for a remote file, or the next name of its own if another remote file holds it."""
        folder, _, name = path.rpartition("/")
        fits = 0 < len(name.encode()) <= LONGEST_NAME and name not in (".", "..")
        wanted = name if fits else distinct_name(name, remote_id)
        salt = remote_id
        with self._turn:
            folder = self.check_folder(folder)
            while self._is_held(f"{folder}/{wanted}", remote_id) or self._is_spelt_otherwise(folder, wanted):
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
        folder, _, name = path.rpartition("/")
        with self._turn:
            if self._is_held(path, remote_id) or self.standing(path) is Standing.FREE:
                return False
            return not self._is_spelt_otherwise(folder, name) and self.was_there_before(path)

    def was_there_before(self, path: str) -> bool:
        """Whether a file that was found may be taken for the remote file of that name without a look at the bytes. One
        that has come since this run began, or that lies where other sources put theirs, may be another's: the catalog
        does not know it yet."""
        try:
            return not self._shared and os.lstat(f"{self.root}/{path}").st_ctime < self._begun
        except OSError:
            return False

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
        """Make its folder, and note, before a file gets its final name, that it comes from this run.

        Raises `StorageError`, `UnusableNameError`.
        """
        folder = path.rpartition("/")[0]
        with self._turn:
            self._log.note(Landing(path, remote_id, url))
        self._log.secure()  # not in turn: lanes wait for the disk together
        with self._turn:
            if folder not in self._made_folders:
                self._disk.make_folder(folder)
                self._made_folders.add(folder)

    def move(self, source: str, path: str, *, replace: bool, lasting: bool = False) -> bool:
        """Give a whole file its final name. Never over another file unless told so: False when one of that name has
        come meanwhile. `source` is absolute; it is not taken away before the new name is `lasting`.

        Raises `UnusableNameError`.
        """
        folder, _, name = path.rpartition("/")
        with opened(self.root, folder) as place, naming(path):
            if not replace:
                try:
                    self._disk.lease.check()
                    os.link(source, name, dst_dir_fd=place)
                except FileExistsError:
                    return False
                except OSError:
                    # No hard links on this file system: look, then rename.
                    if _is_there(name, place):
                        return False
                else:
                    if lasting:
                        self._disk.secure_folder(place)
                    os.unlink(source)
                    return True
            self._disk.lease.check()
            os.replace(source, name, dst_dir_fd=place)
            return True

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

    def _is_spelt_otherwise(self, folder: str, name: str) -> bool:
        """Whether the file that is found under this name has another one: it is another remote file's, or a stranger."""
        return spelling(f"{self.root}/{folder}", name) != name

    def _look_at(self, folder: str, *, above: str) -> str:
        """The folder as the disk spells it, as far as it is there; that of `above` is known."""
        spelt = above
        for segment in folder[len(above) :].strip("/").split("/"):
            here = f"{self.root}/{spelt}".rstrip("/")
            spelt = f"{spelt}/{spelling(here, segment)}".strip("/")
            with naming(folder), suppress(FileNotFoundError, NotADirectoryError):
                mode = os.lstat(f"{self.root}/{spelt}").st_mode
                if not stat.S_ISDIR(mode):
                    what = "a symlink" if stat.S_ISLNK(mode) else f"{spelt!r}, which is no folder"
                    raise OutsideFolderError(f"the folder {folder!r} leads through {what}")
        return spelt


def _is_there(name: str, folder: int) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True
