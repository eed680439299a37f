"""The hooks of a run: called inside the gallery process for every listed file, and reported to the service.

Python code where the predecessor started a process per file.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ..domain.files import Words, plain, words_of
from ..domain.listing import Failure
from ..domain.secrets import masked, without_login
from .disk import Disk
from .messages import FromRun, Listed, Outcome

Report = Callable[[FromRun], None]


class Hooks:
    """`base` is the source's folder on disk, with `/` at its end; filenames in reports are relative to it."""

    def __init__(self, report: Report, base: str, disk: Disk, redact: Callable[[str], str] = masked) -> None:
        self._report = report
        self._disk = disk
        self._base = base
        self._redact = redact
        self.told: set[str] = set()
        """Remote ids of files that are here since this run began, and were reported."""

    def on_file_downloaded(
        self,
        remote_id: str,
        path: str | None,
        url: str,
        metadata: dict[str, Any],
        measured: tuple[int, str] | None = None,
        validator: str | None = None,
    ) -> None:
        """`path`: where the file lies after all post-processors, absolute; None if one of them took it away.
        `measured`: its size and SHA-256, when they are known without reading it."""
        outcome = Outcome.DOWNLOADED if path else Outcome.ABSORBED
        self._tell(remote_id, outcome, path, url, words_of(metadata), measured, validator)

    def on_file_adopted(self, remote_id: str, path: str, url: str, metadata: dict[str, Any]) -> None:
        """It lay in the folder before the catalog knew it."""
        self._tell(remote_id, Outcome.ADOPTED, path, url, words_of(metadata))

    def on_file_left(self, remote_id: str, path: str, url: str, *, listed: bool) -> None:
        """It came in, and whoever fetched it was cut off before this was said. `listed`: this listing has shown it."""
        self._tell(remote_id, Outcome.DOWNLOADED if listed else Outcome.LEFT, path, url, Words())

    def on_file_skipped(self, remote_id: str, filename: str) -> None:
        """Known and in place. Called for every unchanged file of a source: it must cost next to nothing."""
        self._report(Listed(remote_id=remote_id, outcome=Outcome.KEPT, filename=filename))

    def on_file_new(self, remote_id: str, path: str, url: str) -> None:
        """In a rehearsal: it would come in, at this path if its name is known before."""
        filename = path.removeprefix(self._base) or None
        self._report(Listed(remote_id=remote_id, outcome=Outcome.NEW, filename=filename, url=_recorded(url)))

    def on_file_restored(self, remote_id: str, path: str, url: str) -> None:
        """In a rehearsal: it would come back from the trash to this path, which is absolute."""
        filename = path.removeprefix(self._base)
        self._report(Listed(remote_id=remote_id, outcome=Outcome.RESTORED, filename=filename, url=_recorded(url)))

    def on_file_passed(self, remote_id: str) -> None:
        self._report(Listed(remote_id=remote_id, outcome=Outcome.PASSED))

    def on_file_failed(
        self, remote_id: str, url: str, metadata: dict[str, Any], failure: Failure, *, gone: bool = False
    ) -> None:
        self._report(
            Listed(
                remote_id=remote_id,
                outcome=Outcome.FAILED,
                url=_recorded(url),
                words=words_of(metadata),
                failure=replace(failure, detail=plain(self._redact(failure.detail))),
                gone=gone,
            )
        )

    def _tell(
        self,
        remote_id: str,
        outcome: Outcome,
        path: str | None,
        url: str,
        words: Words,
        measured: tuple[int, str] | None = None,
        validator: str | None = None,
    ) -> None:
        size = sha256 = None
        if path is not None:
            # Nobody hears of it before it has reached the disk. The bytes of one that we wrote alone have already.
            size, sha256 = measured or _measure(path)
            if measured is None:
                self._disk.secure_file(path)
            self._disk.secure_name(path)
        self.told.add(remote_id)
        self._report(
            Listed(
                remote_id=remote_id,
                outcome=outcome,
                filename=path and path.removeprefix(self._base),
                url=_recorded(url),
                size=size,
                sha256=sha256,
                validator=validator,
                words=words,
            )
        )


def _recorded(url: str) -> str:
    """A signed URL is kept as it is: another one may not be had. A login in it is the operator's, and nobody else's."""
    return plain(without_login(url))


def _measure(path: str) -> tuple[int, str]:
    with open(path, "rb") as file:  # noqa: PTH123 - as a string from gallery-dl
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return os.fstat(file.fileno()).st_size, digest
