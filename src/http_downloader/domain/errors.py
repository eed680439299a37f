"""Every error that a person can meet: a class, one sentence, an exit code, and what to do about it.

DownloaderError
 ├── SettingsError        a setting, option or file of the operator is wrong
 ├── OrderRejected        an order that cannot be run, as it stands
 ├── CatalogError         the database does not answer, or is not the one we know
 │    └── OutgrownError   it has been upgraded, and this program is too old for it
 ├── BrokerError          RabbitMQ refuses what we ask of it
 ├── GalleryError         gallery-dl could not be started
 ├── ContentError         the content folder cannot be used
 ├── WebError             nobody can reach us over HTTP
 ├── SourceBusyError      a run of the source is under way
 └── LeaseLost            another worker took over this run; nothing more may be written for it
"""

from __future__ import annotations

from enum import IntEnum, StrEnum

from .characters import visible


class Exit(IntEnum):
    """Exit codes of every command; listed in the README."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    PARTIAL = 3
    FAILED_TRANSIENT = 4
    FAILED_PERMANENT = 5
    UNAVAILABLE = 6
    CANCELLED = 130


class DownloaderError(Exception):
    """`str(error)` is one line for a person: what happened, to what, and, behind a semicolon, what to do."""

    exit_code = Exit.INTERNAL
    remedy = ""
    """What to do, in case that the sentence itself does not say it."""

    @property
    def told(self) -> str:
        """How it is told to a person at a terminal."""
        sentence = str(self)
        return sentence if ";" in sentence or not self.remedy else f"{sentence}; {self.remedy}"


class SettingsError(DownloaderError):
    exit_code = Exit.USAGE


class CatalogError(DownloaderError):
    exit_code = Exit.UNAVAILABLE
    remedy = "look at that database, or set DATABASE_URL to another one"


class OutgrownError(CatalogError):
    """Trying again does not help: this process has to end."""


class BrokerError(DownloaderError):
    exit_code = Exit.UNAVAILABLE
    remedy = "look at the broker, and at RABBITMQ_HOST, RABBITMQ_USER and RABBITMQ_PASS, or AMQP_URL"


class GalleryError(DownloaderError):
    exit_code = Exit.UNAVAILABLE
    remedy = "try: python -m gallery_dl --version"


class ContentError(DownloaderError):
    exit_code = Exit.UNAVAILABLE
    remedy = "look at that folder and its disk"


class WebError(DownloaderError):
    exit_code = Exit.UNAVAILABLE
    remedy = "look at HTTP_HOST and HTTP_PORT"


class SourceBusyError(DownloaderError):
    exit_code = Exit.FAILED_TRANSIENT
    remedy = "try again when that run has ended"


class LeaseLost(DownloaderError):
    exit_code = Exit.UNAVAILABLE
    remedy = "another worker goes on with it"


class OrderFault(StrEnum):
    """Why an order is rejected; the name travels in the header `reason`."""

    TOO_LARGE = "too-large"
    NOT_UTF8 = "not-utf8"
    NOT_JSON = "not-json"
    NOT_AN_OBJECT = "not-an-object"
    DUPLICATE_KEY = "duplicate-key"
    MISSING_KEY = "missing-key"
    BAD_SOURCE_ID = "bad-source-id"
    BAD_URL = "bad-url"
    FORBIDDEN_SCHEME = "forbidden-scheme"
    NO_EXTRACTOR = "no-extractor"
    TRUNCATED_URL = "truncated-url"
    BAD_CONTENT_PATH = "bad-content-path"
    BAD_REMOTE_DELETES = "bad-remote-deletes"
    BAD_PRIORITY = "bad-priority"


class OrderRejected(DownloaderError):
    """The order is wrong in itself: running it later would not help."""

    exit_code = Exit.USAGE

    def __init__(self, fault: OrderFault, sentence: str) -> None:
        super().__init__(visible(sentence))  # it repeats what the sender wrote
        self.fault = fault
