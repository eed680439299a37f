"""A known file whose content may have changed at the site: asked for cheaply, fetched again only if it has."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any

import requests

from ..domain.files import KnownFile
from .evidence import validator_of
from .lanes import Lane
from .names import Standing
from .transfer import Transfer

if TYPE_CHECKING:
    from .job import MirrorJob

TIMEOUT = 30.0


class Refresh(Transfer):
    """Ends in the file's recorded place, over its older version; when anything fails, that one stays."""

    def __init__(self, job: MirrorJob, remote_id: str, url: str, kwdict: dict[str, Any], known: KnownFile) -> None:
        super().__init__(job, remote_id, url, kwdict)
        self._known = known
        self._told_size = listed_size(kwdict)
        self.pathfmt.exists = lambda: False  # it is there, and that is why we are here
        if self.pathfmt.extension:
            self.pathfmt.build_path()

    @staticmethod
    def may_be_needed(known: KnownFile, kwdict: dict[str, Any]) -> bool:
        """False when the listing itself says that the file has the size that we have."""
        return listed_size(kwdict) is None or listed_size(kwdict) != known.size

    def was_cut_off(self) -> bool:
        """Whether an earlier process put the new version in place, and was killed before it said so."""
        if self._known.announced or self.run.names.standing(str(self._known.path)) is not Standing.LANDED:
            return False
        if not self._was_edited_here():
            return False  # the catalog has that version: only the log was not cleared any more
        self._point(str(self._known.path))
        self._landed()
        return True

    def _perform(self, lane: Lane) -> None:
        if self._has_changed() and self._fetch(lane) and self.pathfmt.temppath:
            self.run.gate.went_well()
            self._replace()
        else:
            self.run.hooks.on_file_skipped(self.remote_id, self._filename)

    @property
    def _filename(self) -> str:
        return str(self._known.path).removeprefix(f"{self.run.request.content_path}/")

    def _has_changed(self) -> bool:
        try:
            size_here = os.stat(f"{self.run.request.content_root}/{self._known.path}").st_size
        except OSError:
            return False  # it has vanished this very moment: the next run sees
        if size_here != self._known.size:
            return False  # somebody here has edited it: theirs is kept
        return self._has_changed_there() and not self._was_edited_here()

    def _was_edited_here(self) -> bool:
        with open(f"{self.run.request.content_root}/{self._known.path}", "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() != self._known.sha256

    def _has_changed_there(self) -> bool:
        if self._told_size is not None:
            return True
        name, _, value = (self._known.validator or "").partition(": ")
        headers = dict(self.kwdict.get("_http_headers") or {})
        if value:
            headers["If-None-Match" if name == "ETag" else "If-Modified-Since"] = value
        with self.run.evidence.transfer(), self.run.gate.enter(0.0) as begun_at:
            self.run.evidence.begin_transfer(lambda after: self.run.gate.was_refused(begun_at, after))
            try:
                answer = self.job.extractor.session.head(
                    self.url, headers=headers, timeout=TIMEOUT, allow_redirects=True
                )
            except requests.RequestException:
                return False
        if answer.status_code != 200:
            return False  # 304, or it does not tell
        if value and (now := validator_of(answer.headers)) is not None and now.startswith(name):
            return now != self._known.validator
        size = answer.headers.get("Content-Length", "")
        return size.isdecimal() and int(size) != self._known.size

    def _replace(self) -> None:
        self.call("file")
        self._point(str(self._known.path))
        self.pathfmt.set_mtime(self.pathfmt.temppath)
        self.run.disk.secure_file(self.pathfmt.temppath)
        self.run.names.will_land(str(self._known.path), self.remote_id, self.url)
        self.run.names.move(self.pathfmt.temppath, str(self._known.path), replace=True)
        self._came_in = True
        self._landed()


def listed_size(kwdict: dict[str, Any]) -> int | None:
    """The size of a file in bytes, where the listing tells it."""
    sizes = (kwdict.get(key) for key in ("file_size", "filesize"))
    return next((size for size in sizes if isinstance(size, int) and size > 0), None)
