"""A file that is listed again while its copy lies in the trash: brought back, not downloaded."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..domain.listing import Failure
from ..domain.reasons import Reason
from .folders import UnusableNameError
from .lanes import Lane
from .names import Standing
from .transfer import Transfer

if TYPE_CHECKING:
    from .job import MirrorJob


class Restore(Transfer):
    """Falls back to the download when the copy is not what was thrown away, or is gone."""

    def __init__(self, job: MirrorJob, remote_id: str, url: str, kwdict: dict[str, Any]) -> None:
        super().__init__(job, remote_id, url, kwdict)
        self._trashed = self.run.request.trashed[remote_id]
        if self.pathfmt.extension:
            self.pathfmt.build_path()

    def rehearse(self) -> None:
        try:
            place = self.run.names.settle(self._trashed.path, self.remote_id)
        except UnusableNameError as error:
            self._fail(Failure(reason=Reason.FILES_FAILED, detail=str(error)))
            return
        if place.standing is not Standing.FREE or self._measure() is None:
            super().rehearse()
            return
        self._point(place.path)
        self.run.hooks.on_file_restored(self.remote_id, self.pathfmt.realpath, self.url)

    def _perform(self, lane: Lane) -> None:
        if self._was_cut_off():
            return
        measured = self._measure()
        if measured is None or not self._bring_back(measured):
            super()._perform(lane)

    def _was_cut_off(self) -> bool:
        """Whether an earlier process brought it back, and was killed before it said so."""
        if self.run.names.standing(self._trashed.path) is not Standing.LANDED:
            return False
        self._point(self.run.names.settle(self._trashed.path, self.remote_id).path)
        with suppress(OSError):
            if Path(self._source).samefile(self.pathfmt.realpath):  # killed in mid-move: it has two names
                Path(self._source).unlink()
        self._landed()
        return True

    def _measure(self) -> tuple[int, str] | None:
        """Size and SHA-256 of the copy, when it is the file that was removed."""
        try:
            with open(self._source, "rb") as file:  # noqa: PTH123 - beside gallery-dl's own paths
                found = hashlib.file_digest(file, "sha256").hexdigest()
                size = os.fstat(file.fileno()).st_size
        except OSError:
            return None
        return (size, found) if found == self._trashed.sha256 else None

    def _bring_back(self, measured: tuple[int, str]) -> bool:
        names = self.run.names
        place = names.settle(self._trashed.path, self.remote_id)
        self._point(place.path)
        if place.standing is not Standing.FREE:  # another file has taken the name meanwhile
            return False
        names.will_land(place.path, self.remote_id, self.url)
        if not names.move(self._source, place.path, replace=False, lasting=True):
            return False
        self.run.disk.secure_name(self._source)
        self.job.log.info("restored from the trash: %s", self.pathfmt.filename)
        self.run.hooks.on_file_downloaded(
            self.remote_id, self.pathfmt.realpath, self.url, self.kwdict, measured, self._validator
        )
        return True

    @property
    def _source(self) -> str:
        return f"{self.run.request.content_root}/{self._trashed.trash_path}"
