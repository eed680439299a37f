"""What speaks for and against a listing: failures, gaps, answers of the site, warnings of the extractor."""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests
from gallery_dl import exception

from ..domain.files import plain
from ..domain.listing import Failure, Gap
from ..domain.reasons import Kind, Reason
from .network import ForbiddenAddress

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}
_STORAGE = {errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.ENOTDIR, errno.ESTALE}

GONE = {404, 410}
REFUSALS = {429, 503}
"""Answers that mean: not so much, not now."""


class Evidence:
    """Collects while the crawl goes on. Each lane's transfer is told apart from the listing by its thread."""

    def __init__(self) -> None:
        self.failure: Failure | None = None
        self.retry_after: float | None = None
        """Seconds that the site asked the listing to wait, until somebody has waited."""
        self.loggers: set[str] = set()
        """Names under which extractors of this run log."""
        self._gaps: dict[Gap, None] = {}
        self._unanswered: dict[tuple[str, str], int] = {}
        self._here = _Here()

    @contextmanager
    def transfer(self) -> Iterator[None]:
        """What happens in this thread meanwhile concerns a file, not the listing."""
        self._here.transferring = True
        try:
            yield
        finally:
            self._here.transferring = False

    def begin_transfer(self, refused: Callable[[float | None], None]) -> None:
        """Forget the transfer before. `refused` is called with the seconds of Retry-After when the site says
        429 or 503; None when it does not say how long."""
        self._here.status, self._here.words, self._here.forbidden = 0, "", None
        self._here.retry_after, self._here.refused = None, refused

    @property
    def transferring(self) -> bool:
        return self._here.transferring

    @property
    def transfer_status(self) -> int:
        return self._here.status

    @property
    def transfer_retry_after(self) -> float | None:
        return self._here.retry_after

    @property
    def transfer_words(self) -> str:
        return self._here.words

    @property
    def validator(self) -> str | None:
        """What tells this version of the transferred file from a later one, in the site's words."""
        return self._here.validator

    @property
    def forbidden(self) -> bool:
        return self._here.forbidden is not None

    def gap(self, reason: Reason, detail: str = "") -> None:
        self._gaps[Gap(reason=reason, detail=plain(detail[:500]))] = None

    def fail(self, failure: Failure) -> None:
        """The first failure speaks for the run, unless a later one makes another try worth while."""
        if self.failure is None or (
            self.failure.reason.kind is Kind.PERMANENT and failure.reason.kind is Kind.TRANSIENT
        ):
            self.failure = failure

    def refuse(self, error: ForbiddenAddress) -> None:
        self._here.forbidden = error

    def observe(self, method: str, url: str, status: int, headers: Mapping[str, str]) -> None:
        """An answer of the site. One that failed is forgotten when the same request succeeds later."""
        if self.transferring:
            self._here.status = status
            self._here.validator = validator_of(headers)
            if status in REFUSALS:
                self._here.retry_after = seconds_of(headers.get("Retry-After"))
                self._here.refused(self._here.retry_after)
            return
        self.retry_after = seconds_of(headers.get("Retry-After")) if status in REFUSALS else None
        if method == "HEAD" and status in GONE:
            return  # a question that was answered: nobody reads a listing this way
        if status >= 400:
            self._unanswered[method, url] = status
        else:
            self._unanswered.pop((method, url), None)

    def record(self, record: logging.LogRecord, text: str) -> None:
        """A log record of gallery-dl: a warning of an extractor says that it may not have seen everything."""
        if record.levelno < logging.WARNING:
            return
        if self.transferring:
            self._here.words = text
        elif record.name in self.loggers and self.failure is None:  # else it repeats the failure
            self.gap(Reason.EXTRACTOR_WARNING, text)

    def gaps(self) -> tuple[Gap, ...]:
        # The answer that made the listing fail was not passed over.
        unanswered = self._unanswered if self.failure is None else {}
        for (method, url), status in unanswered.items():
            self.gap(Reason.ERROR_IGNORED, f"{method} {url} answered {status}")
        return tuple(self._gaps)


class _Here(threading.local):
    """The transfer of the current thread."""

    transferring = False
    status = 0
    words = ""
    forbidden: ForbiddenAddress | None = None
    retry_after: float | None = None
    validator: str | None = None
    refused: Callable[[float | None], None]


def validator_of(headers: Mapping[str, str]) -> str | None:
    """ETag, else Last-Modified. Source: RFC 9110, section 8.8."""
    return next((f"{name}: {headers[name]}"[:500] for name in ("ETag", "Last-Modified") if headers.get(name)), None)


def seconds_of(retry_after: str | None) -> float | None:
    """The header Retry-After, which may be seconds or a date, in seconds from now."""
    if not retry_after:
        return None
    try:
        return max(float(retry_after), 0.0) if not retry_after.isalpha() else None
    except ValueError:
        pass
    try:
        return max((parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return None


def classify(error: BaseException) -> Failure:
    """Why a listing broke off: the error as one of our reasons, with gallery-dl's words as detail."""
    return Failure(reason=_reason(error), detail=f"{_words(error)}"[:500])


def _words(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, exception.GalleryDLException):
        return text
    if isinstance(error, OSError) and error.strerror and not isinstance(error, requests.RequestException):
        # The reason's own sentence first: a bare errno tells a person neither what is wrong nor where to look.
        return f"{_reason(error).sentence}: {error.strerror}"
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
