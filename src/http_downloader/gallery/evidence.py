"""What speaks for and against a listing: failures, gaps, answers of the site, warnings of the extractor."""

from __future__ import annotations

import errno
import logging

import requests
from gallery_dl import exception

from ..domain.files import plain
from ..domain.listing import Failure, Gap
from ..domain.reasons import Kind, Reason
from .network import ForbiddenAddress

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_STORAGE = {errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOTDIR, errno.ESTALE}

GONE = {404, 410}


class Evidence:
    """Collects while the crawl goes on; `transferring` tells whether a file or the listing is being read."""

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self.transferring = False
        self.transfer_status = 0
        self.transfer_words = ""
        self.forbidden: ForbiddenAddress | None = None
        self.last_status = 0
        self.loggers: set[str] = set()
        """Names under which extractors of this run log."""
        self._gaps: dict[Gap, None] = {}
        self._unanswered: dict[tuple[str, str], int] = {}

    def gap(self, reason: Reason, detail: str = "") -> None:
        self._gaps[Gap(reason=reason, detail=plain(detail[:500]))] = None

    def fail(self, failure: Failure) -> None:
        """The first failure speaks for the run, unless a later one makes another try worth while."""
        if self.failure is None or (
            self.failure.reason.kind is Kind.PERMANENT and failure.reason.kind is Kind.TRANSIENT
        ):
            self.failure = failure

    def observe(self, method: str, url: str, status: int) -> None:
        """An answer of the site. One that failed is forgotten when the same request succeeds later."""
        self.last_status = status
        if self.transferring:
            self.transfer_status = status
        elif status >= 400:
            self._unanswered[method, url] = status
        else:
            self._unanswered.pop((method, url), None)

    def record(self, record: logging.LogRecord, text: str) -> None:
        """A log record of gallery-dl: a warning of an extractor says that it may not have seen everything."""
        if record.levelno < logging.WARNING:
            return
        if self.transferring:
            self.transfer_words = text
        elif record.name in self.loggers and self.failure is None:  # else it repeats the failure
            self.gap(Reason.EXTRACTOR_WARNING, text)

    def gaps(self) -> tuple[Gap, ...]:
        # The answer that made the listing fail was not passed over.
        unanswered = self._unanswered if self.failure is None else {}
        for (method, url), status in unanswered.items():
            self.gap(Reason.ERROR_IGNORED, f"{method} {url} answered {status}")
        return tuple(self._gaps)


def classify(error: BaseException) -> Failure:
    """Why a listing broke off: the error as one of our reasons, with gallery-dl's words as detail."""
    return Failure(reason=_reason(error), detail=f"{_words(error)}"[:500])


def _words(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, exception.GalleryDLException):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _reason(error: BaseException) -> Reason:
    match error:
        case ForbiddenAddress():
            return Reason.FORBIDDEN_ADDRESS
        case exception.ChallengeError():
            return Reason.CHALLENGED
        case exception.HttpError():
            return _reason_of_status(error.status)
        case exception.AuthenticationError() | exception.AuthorizationError():
            return Reason.LOGIN_REQUIRED
        case exception.NotFoundError():
            return Reason.NOT_FOUND
        case exception.NoExtractorError():
            return Reason.NO_EXTRACTOR
        case exception.InputError():
            return Reason.BAD_INPUT
        case exception.GalleryDLException():
            return Reason.EXTRACTOR_ERROR
        case _ if type(error).__name__ == "JSONDecodeError":  # json's and requests' have no common class
            return Reason.UNEXPECTED_ANSWER
        case requests.RequestException():
            return Reason.UNREACHABLE
        case OSError():
            return Reason.DISK_FULL if error.errno in _DISK_FULL else Reason.STORAGE_ERROR
        case _:
            return Reason.EXTRACTOR_ERROR


def _reason_of_status(status: int) -> Reason:
    if status == 0:
        return Reason.UNREACHABLE
    if status in (401, 403, 407, 451):
        return Reason.LOGIN_REQUIRED
    if status in GONE:
        return Reason.NOT_FOUND
    if status == 429:
        return Reason.RATE_LIMITED
    return Reason.SERVER_ERROR if status >= 500 else Reason.BAD_INPUT


def storage_failure(error: OSError) -> Failure | None:
    """A disk that cannot be written stops the whole run; any other error of a transfer concerns its file only."""
    if isinstance(error, requests.RequestException) or error.errno not in _DISK_FULL | _STORAGE:
        return None
    return classify(error)
