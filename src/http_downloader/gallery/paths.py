"""gallery-dl's path object, with a guard: whatever a site writes into its metadata, no path leaves the source's folder."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import Logger
from typing import Any

from gallery_dl import exception, path
from gallery_dl.extractor.common import Extractor

from ..domain.characters import clean_name
from ..domain.files import fitting_folder
from .folders import OutsideFolderError, UnusableNameError, is_about_a_name

_UPWARD = (".", "..")

OF_ONE_FILE = (UnusableNameError, exception.FormatError, ValueError, TypeError, LookupError, AttributeError)
"""What metadata of an unexpected kind leads to in a format. It is the failure of one file."""


class MirrorPath(path.PathFormat):  # type: ignore[misc]
    """`check` raises `UnusableNameError` for an absolute folder that is not to be written to."""

    realdirectory: str
    directory: str
    basedirectory: str

    def __init__(self, extractor: Extractor, check: Callable[[str], None]) -> None:
        super().__init__(extractor)
        self._check = check
        self.refused: str | None = None
        """Why the files that are listed now have no folder."""
        # Upstream's are attributes, which would hide our methods.
        self._remove, self._restrict = self.__dict__.pop("clean_path"), self.__dict__.pop("clean_segment")

    def clean_path(self, text: str) -> str:
        return clean_name(self._remove(text))

    def clean_segment(self, text: str) -> str:
        """A slash stays in a segment only where `path-restrict` lets it: then the operator makes folders of metadata."""
        text = self._restrict(text)
        if "/" in text:
            if any(part in ("", *_UPWARD) for part in text.split("/")):
                raise OutsideFolderError(f"the name {text!r} leads elsewhere")
            if self.realdirectory:  # a symlink may lie on the way, and post-processors would follow it
                self._check(f"{self.realdirectory}{self.clean_path(text).rpartition('/')[0]}/")
        return text

    def set_directory(self, kwdict: dict[str, Any]) -> None:
        """Never raises: what is wrong with this folder is told with each of its files. Until the next one, hooks
        that write beside them find the source's own folder."""
        self.refused = None
        self.realdirectory = ""  # the last one is no part of this one
        try:
            super().set_directory(kwdict)
            self._check(self.realdirectory)
        except OF_ONE_FILE as error:
            self.refused = sentence(error)
            self.directory = self.realdirectory = self.basedirectory

    def build_directory(self, kwdict: dict[str, Any], segments: list[str] | None = None) -> list[str]:
        built = [text for segment in super().build_directory(kwdict, segments) if (text := self.clean_path(segment))]
        upward = sum(text in _UPWARD for text in built)
        if upward and upward > self._written_upward(segments):
            raise OutsideFolderError(f"the folder {'/'.join(built)!r} has a segment that leads elsewhere")
        return ["/".join(map(fitting_folder, text.split("/"))) for text in built]

    def _written_upward(self, segments: list[str] | None) -> int:
        """How many `..` the operator has written: a post-processor may have a folder beside those of the files."""
        if segments is not None:
            return sum(text in _UPWARD for text in segments)
        return sum(_is_upward(build) for build in self.directory_formatters)


def _is_upward(build: Callable[[dict[str, Any]], Any]) -> bool:
    try:
        return build({}) in _UPWARD
    except Exception:  # a format that needs its values is no fixed text
        return False


def sentence(error: BaseException) -> str:
    """What is wrong with one file, in one line."""
    if isinstance(error, exception.FormatError) and isinstance(error.__context__, UnusableNameError):
        error = error.__context__  # gallery-dl wraps all that a format raises
    if isinstance(error, UnusableNameError | exception.GalleryDLException):
        return str(error)
    return f"{type(error).__name__}: {error}"


def bearing_odd_metadata(callback: Callable[[Any], object], log: Logger) -> Callable[[Any], None]:
    """A post-processor that meets metadata of an unexpected kind is left out with a warning, as is a command that
    fails: the file that it was called for is whole all the same, and the listing goes on."""

    def call(pathfmt: Any) -> None:
        try:
            callback(pathfmt)
        except OF_ONE_FILE as error:
            log.warning("%s: %s", pathfmt.filename or pathfmt.directory, sentence(error))
        except OSError as error:
            # No such file: of a path with slashes in it. Of a command it would be the operator's error, for every file.
            missing = error.errno == errno.ENOENT and str(error.filename).startswith(pathfmt.basedirectory)
            if not missing and not is_about_a_name(error):
                raise
            log.warning("%s: %s", pathfmt.filename or pathfmt.directory, error)

    return call


@contextmanager
def in_place_of_upstream(check: Callable[[str], None]) -> Iterator[None]:
    """While a job makes its path object, it makes one of ours: post-processors look at it at once."""
    upstream = path.PathFormat
    path.PathFormat = lambda extractor: MirrorPath(extractor, check)
    try:
        yield
    finally:
        path.PathFormat = upstream
