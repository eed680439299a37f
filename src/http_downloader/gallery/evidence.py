"""What speaks for and against a listing: failures, gaps, answers of the site, warnings of the extractor."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests
from gallery_dl import exception

from ..domain.files import plain
from ..domain.listing import Failure, Gap
from ..domain.reasons import Kind, Reason
from ..domain.secrets import masked
from ..domain.storage import OUT_OF_FILES, storage_failure
from ..domain.transfers import in_words
from .answers import UnacceptableAnswer
from .disk import StorageError
from .incoming import Incoming
from .network import ForbiddenAddress

GONE = {404, 410}
REFUSALS = {429, 503}
"""Answers that mean: not so much, not now."""
LONGEST_WAIT = 30 * 86_400.0
"""Seconds. Whoever asks for more, in Retry-After, does not mean it."""


class Evidence:
    """Collects while the crawl goes on. Each lane's transfer is told apart from the listing by its thread."""

    def __init__(self, redact: Callable[[str], str] = masked) -> None:
        """`redact` takes the secrets out of what is said in the end."""
        self.redact = redact
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
        self._here.complaint = ""

    @contextmanager
    def receiving(self, incoming: Incoming) -> Iterator[None]:
        """The answers in this thread meanwhile are about this file. Its connection is given back in the end."""
        self._here.incoming = incoming
        try:
            yield
        finally:
            self._here.incoming = None
            incoming.close()

    @property
    def incoming(self) -> Incoming | None:
        return self._here.incoming

    def complain(self, sentence: str) -> None:
        """What is wrong with the answer that is being read in this thread: libraries would bury it in their own words."""
        self._here.complaint = sentence

    def begin_request(self) -> None:
        """Whatever is said of the request before in this thread is past."""
        self._here.complaint = ""

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
        """Why the transfer failed, in one sentence; empty when nobody said."""
        return self._here.complaint or in_words(self._here.words)

    @property
    def validator(self) -> str | None:
        """What tells this version of the transferred file from a later one, in the site's words."""
        return self._here.validator

    @property
    def promised_size(self) -> int:
        """How many bytes of the transferred file are to come, as the site says; 0 when it does not."""
        return self._here.promised

    @property
    def forbidden(self) -> bool:
        return self._here.forbidden is not None

    def gap(self, reason: Reason, detail: str = "") -> None:
        self._gaps[Gap(reason=reason, detail=plain(self.redact(detail)[:500]))] = None

    def fail(self, failure: Failure) -> None:
        """The first failure speaks for the run, unless a later one makes another try worth while."""
        if self.failure is None or (
            self.failure.reason.kind is Kind.PERMANENT and failure.reason.kind is Kind.TRANSIENT
        ):
            self.failure = failure

    def explained(self, failure: Failure) -> Failure:
        """A failure of the listing with our own words, if we broke the connection off."""
        if failure.reason is Reason.UNREACHABLE and self._here.complaint:
            return replace(failure, detail=self._here.complaint)
        return failure

    def refuse(self, error: ForbiddenAddress) -> None:
        self._here.forbidden = error

    def observe(self, method: str, url: str, status: int, headers: Mapping[str, str]) -> None:
        """An answer of the site. One that failed is forgotten when the same request succeeds later."""
        if self.transferring:
            self._here.status = status
            self._here.validator = validator_of(headers)
            length = headers.get("Content-Length") or ""
            self._here.promised = int(length) if length.isdecimal() else 0
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
    complaint = ""
    incoming: Incoming | None = None
    forbidden: ForbiddenAddress | None = None
    retry_after: float | None = None
    validator: str | None = None
    promised = 0
    refused: Callable[[float | None], None]


def validator_of(headers: Mapping[str, str]) -> str | None:
    """ETag, else Last-Modified. Source: RFC 9110, section 8.8."""
    return next((f"{name}: {headers[name]}"[:500] for name in ("ETag", "Last-Modified") if headers.get(name)), None)


def seconds_of(retry_after: str | None) -> float | None:
    """The header Retry-After, which may be seconds or a date, in seconds from now."""
    if not retry_after:
        return None
    try:
        return min(max(float(retry_after), 0.0), LONGEST_WAIT) if not retry_after.isalpha() else None
    except ValueError:
        pass
    try:
        wait = (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds()
        return min(max(wait, 0.0), LONGEST_WAIT)
    except (TypeError, ValueError):
        return None


def classify(error: BaseException) -> Failure:
    """Why a listing broke off: the error as one of our reasons, with gallery-dl's words as detail."""
    if isinstance(error, StorageError):
        return error.failure
    if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
        where = str(error.filename) if error.filename is not None else "the disk"
        if (failure := storage_failure(error.errno, where)) is not None:
            return failure
    if (failure := out_of_files(str(error))) is not None:
        return failure
    return Failure(reason=_reason(error), detail=f"{_words(error)}"[:500])


def out_of_files(words: str) -> Failure | None:
    """A connection that could not be made since too many files are open says nothing of the site."""
    return next((storage_failure(code, "") for code, text in OUT_OF_FILES.items() if text in words), None)


def _words(error: BaseException) -> str:
    text = str(error).strip()
    if isinstance(error, exception.GalleryDLException):
        return text
    if isinstance(error, OSError) and error.strerror and not isinstance(error, requests.RequestException):
        # The reason's own sentence first: a bare errno tells a person neither what is wrong nor where to look.
        where = f" ({error.filename})" if error.filename is not None else ""
        return f"{_reason(error).sentence}: {error.strerror}{where}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _reason(error: BaseException) -> Reason:
    match error:
        case ForbiddenAddress():
            return Reason.FORBIDDEN_ADDRESS
        case UnacceptableAnswer():
            return Reason.UNEXPECTED_ANSWER
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
            return Reason.STORAGE_ERROR
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
