"""Why a run did not end as *synchronized*, or why its listing proves nothing: one name and one sentence each."""

from __future__ import annotations

from enum import Enum, StrEnum


class Kind(Enum):
    """What a reason means for the next try."""

    TRANSIENT = "try again with backoff"
    PERMANENT = "try again at the next order only"
    GAP = "no failure, but the listing is not complete"


class Reason(StrEnum):
    """The name is stored and published; `sentence` is for people; `kind` decides about the next try."""

    sentence: str
    kind: Kind

    def __new__(cls, name: str, kind: Kind = Kind.TRANSIENT, sentence: str = "") -> Reason:
        member = str.__new__(cls, name)
        member._value_ = name
        member.kind = kind
        member.sentence = sentence
        return member

    # The listing could not be read this time.
    UNREACHABLE = "unreachable", Kind.TRANSIENT, "the site could not be reached"
    SERVER_ERROR = "server-error", Kind.TRANSIENT, "the site answered with a server error"
    RATE_LIMITED = "rate-limited", Kind.TRANSIENT, "the site asks for fewer requests"
    CHALLENGED = "challenged", Kind.TRANSIENT, "the site asks for a proof that a person is browsing"
    UNEXPECTED_ANSWER = (
        "unexpected-answer",
        Kind.TRANSIENT,
        "the site answered with something that is no listing (a login or maintenance page?)",
    )
    EXTRACTOR_ERROR = (
        "extractor-error",
        Kind.TRANSIENT,
        "gallery-dl could not read the site's pages (a newer gallery-dl may)",
    )
    # The gallery process did not come to its end.
    CRASHED = "crashed", Kind.TRANSIENT, "the gallery process died"
    STALLED = "stalled", Kind.TRANSIENT, "the gallery process reported nothing for too long"
    BUSY = "busy", Kind.TRANSIENT, "an earlier gallery process of this source still runs"
    # The files could not be written, or not fetched.
    DISK_FULL = "disk-full", Kind.TRANSIENT, "the disk is full, or has less left than MIN_FREE_SPACE"
    STORAGE_ERROR = "storage-error", Kind.TRANSIENT, "the content folder cannot be written"
    ROOT_NOT_MOUNTED = (
        "root-not-mounted",
        Kind.TRANSIENT,
        "CONTENT_ROOT is not the folder that the catalog speaks of (is its disk mounted?)",
    )
    FILES_FAILED = "files-failed", Kind.TRANSIENT, "some files could not be downloaded"
    # Trying again changes nothing until somebody acts.
    LOGIN_REQUIRED = "login-required", Kind.PERMANENT, "the site refuses access; check cookies or login"
    NOT_FOUND = "not-found", Kind.PERMANENT, "the site knows no such gallery"
    BAD_INPUT = "bad-input", Kind.PERMANENT, "gallery-dl cannot work with this URL or configuration"
    NO_EXTRACTOR = "no-extractor", Kind.PERMANENT, "gallery-dl knows no site for this URL"
    COOKIES_UNREADABLE = "cookies-unreadable", Kind.PERMANENT, "the cookie file that was asked for cannot be read"
    FORBIDDEN_ADDRESS = (
        "forbidden-address",
        Kind.PERMANENT,
        "a connection to a private or local address was refused (ALLOW_PRIVATE_ADDRESSES=true allows it)",
    )
    TOO_LARGE = (
        "too-large",
        Kind.PERMANENT,
        "a file is larger than MAX_FILE_SIZE (gallery-dl's option filesize-max leaves such files out)",
    )
    # Ended without failure, but not everything was seen.
    STOPPED_EARLY = "stopped-early", Kind.GAP, "the crawl was stopped before the listing ended"
    NARROWED = "narrowed", Kind.GAP, "an option narrows the listing"
    EMPTY_LISTING = "empty-listing", Kind.GAP, "the listing is empty although files of this source are known"
    EXTRACTOR_WARNING = "extractor-warning", Kind.GAP, "gallery-dl warned that it may not see everything"
    ERROR_IGNORED = "error-ignored", Kind.GAP, "a listing request failed and was passed over"
    COOKIES_EXPIRED = (
        "cookies-expired",
        Kind.GAP,
        "all cookies for this site have expired: it may show less to visitors",
    )
    CHILD_FAILED = "child-failed", Kind.GAP, "a linked gallery could not be read"
    CHILD_UNSUPPORTED = "child-unsupported", Kind.GAP, "a linked gallery is of a site that gallery-dl does not know"
    # Asked to stop.
    CANCELLED = "cancelled", Kind.GAP, "the run was asked to stop"

    @property
    def of_the_machine(self) -> bool:
        """Nothing is wrong with the source: a worker with another disk may well do what this one cannot."""
        return self in (Reason.DISK_FULL, Reason.STORAGE_ERROR, Reason.ROOT_NOT_MOUNTED)
