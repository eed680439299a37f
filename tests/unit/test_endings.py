"""The rules that decide how a run ends, what its files are called, and what is told: pure functions of values."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from gallery_dl import exception
from hypothesis import example, given
from hypothesis import strategies as st

from http_downloader.amqp.wire import EventFormat
from http_downloader.domain.errors import Exit
from http_downloader.domain.events import (
    MAX_ORDERS_HEADER,
    Event,
    EventType,
    RunContext,
    file_event,
    source_sync_failed,
    source_synchronized,
)
from http_downloader.domain.files import (
    UNAVAILABLE_AFTER_RUNS,
    UNAVAILABLE_RETRY,
    FileState,
    KnownFile,
    Words,
    distinct_name,
    file_key,
    is_unavailable,
    retry_unavailable,
    words_of,
)
from http_downloader.domain.listing import (
    NARROWING_WHEN_FALSE,
    NARROWING_WHEN_SET,
    Failure,
    Gap,
    Listing,
    narrowing_options,
)
from http_downloader.domain.reasons import Kind, Reason
from http_downloader.domain.runs import LONGEST_DELAY, Ending, RunState, conclude, retry_delay
from http_downloader.gallery.evidence import classify
from http_downloader.gallery.names import LONGEST_NAME

FAILURES = [reason for reason in Reason if reason.kind is not Kind.GAP]
GAPS = [reason for reason in Reason if reason.kind is Kind.GAP and reason is not Reason.CANCELLED]

texts = st.text(st.characters(exclude_categories=()), max_size=60)
"""With lone surrogates, NUL and all else that a site may send."""
failures = st.builds(Failure, reason=st.sampled_from(FAILURES), detail=texts)
gaps = st.lists(st.builds(Gap, reason=st.sampled_from(GAPS), detail=texts), max_size=3).map(tuple)
listings = st.builds(Listing, files=st.integers(0, 3), gaps=gaps, failure=st.none() | failures)
many_failures = st.lists(failures, max_size=3)
known = st.integers(0, 3)


# How a run ends.


@given(listings, many_failures, known)
def test_synchronized_means_that_nothing_speaks_against_it(
    listing: Listing, failed: list[Failure], known_files: int
) -> None:
    """Synchronized: if and only if the listing is complete, no file failed, and it is not empty without reason."""
    ending = conclude(listing, failed, known_files=known_files)
    unexplained = listing.files == 0 and known_files > 0
    assert (ending.state is RunState.SYNCHRONIZED) == (listing.complete and not failed and not unexplained)
    assert (ending.exit_code is Exit.OK) == (ending.state is RunState.SYNCHRONIZED)
    assert (ending.reason is None) == (ending.state is RunState.SYNCHRONIZED)


@given(listings, many_failures, known)
def test_only_a_proven_listing_makes_files_missing(listing: Listing, failed: list[Failure], known_files: int) -> None:
    """A listing that broke off, has a gap or is empty proves nothing; a failed transfer says nothing against it."""
    ending = conclude(listing, failed, known_files=known_files)
    if ending.listing_proves:
        assert listing.complete
        assert listing.files > 0 or known_files == 0
    assert ending.listing_proves or not listing.complete or listing.files == 0


@given(listings, many_failures, known)
def test_a_failure_speaks_before_a_gap(listing: Listing, failed: list[Failure], known_files: int) -> None:
    """The listing's failure, then the files', then the first gap; each with a sentence to show."""
    ending = conclude(listing, failed, known_files=known_files)
    if listing.failure is not None:
        assert (ending.state, ending.reason) == (RunState.FAILED, listing.failure.reason)
    elif failed:
        assert ending.state is RunState.FAILED
        assert ending.reason in {failure.reason for failure in failed}
    elif listing.gaps:
        assert (ending.state, ending.reason) == (RunState.PARTIAL, listing.gaps[0].reason)
    assert ending.detail or ending.state is RunState.SYNCHRONIZED
    assert ending.gaps[: len(listing.gaps)] == listing.gaps


@given(listings.filter(lambda listing: listing.failure is None), many_failures.filter(bool), known)
def test_another_try_when_any_file_may_come(listing: Listing, failed: list[Failure], known_files: int) -> None:
    """Files that failed make a transient failure as soon as one of them may come next time."""
    ending = conclude(listing, failed, known_files=known_files)
    transient = any(failure.reason.kind is Kind.TRANSIENT for failure in failed)
    assert ending.transient == transient
    assert ending.exit_code is (Exit.FAILED_TRANSIENT if transient else Exit.FAILED_PERMANENT)


@given(listings, many_failures, known)
def test_who_asked_to_stop_gets_cancelled(listing: Listing, failed: list[Failure], known_files: int) -> None:
    """Asked to stop: cancelled, whatever else happened, and its listing proves nothing."""
    ending = conclude(listing, failed, known_files=known_files, cancelled=True)
    assert (ending.state, ending.reason, ending.listing_proves) == (RunState.CANCELLED, Reason.CANCELLED, False)
    assert ending.exit_code is Exit.CANCELLED


def test_an_empty_listing_is_a_named_gap() -> None:
    """An empty listing while files are known is partial for a reason that is kept with the run."""
    ending = conclude(Listing(), [], known_files=2)
    assert ending == Ending(
        state=RunState.PARTIAL,
        reason=Reason.EMPTY_LISTING,
        detail="2 files are known",
        gaps=(Gap(reason=Reason.EMPTY_LISTING, detail="2 files are known"),),
    )


def test_every_reason_has_a_sentence() -> None:
    """Reasons are shown to people."""
    assert all(reason.sentence and "\n" not in reason.sentence for reason in Reason)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (exception.AuthenticationError(), Reason.LOGIN_REQUIRED),
        (exception.AuthRequired("username & password"), Reason.LOGIN_REQUIRED),
        (exception.NotFoundError("gallery"), Reason.NOT_FOUND),
        (exception.HttpError("no answer"), Reason.UNREACHABLE),
        (exception.FilterError("x"), Reason.BAD_INPUT),
        (exception.NoExtractorError(), Reason.NO_EXTRACTOR),
        (json.JSONDecodeError("Expecting value", "<html>", 0), Reason.UNEXPECTED_ANSWER),
        (OSError(28, "No space left on device"), Reason.DISK_FULL),
        (OSError(30, "Read-only file system"), Reason.STORAGE_ERROR),
        (KeyError("data"), Reason.EXTRACTOR_ERROR),
    ],
)
def test_errors_of_gallery_dl_have_reasons(error: Exception, reason: Reason) -> None:
    """What gallery-dl raises becomes one of our reasons."""
    assert classify(error).reason is reason


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (400, Reason.BAD_INPUT),
        (401, Reason.LOGIN_REQUIRED),
        (403, Reason.LOGIN_REQUIRED),
        (404, Reason.NOT_FOUND),
        (410, Reason.NOT_FOUND),
        (429, Reason.RATE_LIMITED),
        (451, Reason.LOGIN_REQUIRED),
        (500, Reason.SERVER_ERROR),
        (599, Reason.SERVER_ERROR),
    ],
)
def test_answers_have_reasons(status: int, reason: Reason) -> None:
    """A listing that failed with a status is named after it."""
    error = exception.HttpError("answer")
    error.status = status
    assert classify(error).reason is reason


# When it is tried again.

delays = st.timedeltas(timedelta(microseconds=1000), timedelta(days=1))
jitters = st.floats(0, 1, exclude_max=True)


@given(st.integers(1, 99), delays, jitters, jitters)
def test_gaps_grow_from_attempt_to_attempt(attempt: int, first: timedelta, one: float, other: float) -> None:
    """Whatever the jitter, the next gap is longer, until it reaches its limit."""
    earlier, later = retry_delay(attempt, first, lambda: one), retry_delay(attempt + 1, first, lambda: other)
    uncapped = first.total_seconds() * 2**attempt * 1.2 <= LONGEST_DELAY
    assert later > earlier or not uncapped
    assert later > timedelta(0)


@given(st.integers(1, 100), delays, jitters)
def test_no_gap_is_longer_than_an_hour(attempt: int, first: timedelta, jitter: float) -> None:
    """At most an hour, jitter included; and near what doubling gives as long as that is less."""
    delay = retry_delay(attempt, first, lambda: jitter).total_seconds()
    assert delay <= 3600
    doubled = min(first.total_seconds() * 2 ** (attempt - 1), LONGEST_DELAY / 1.2)
    assert 0.79 * doubled < delay < 1.21 * doubled


@given(st.integers(0, 10))
def test_unavailable_in_the_third_run(gone_runs: int) -> None:
    """One more 404 makes a file unavailable if it is the third run in a row at least."""
    file = KnownFile(path=None, state=FileState.FAILED, gone_runs=gone_runs)
    assert is_unavailable(file) == (gone_runs + 1 >= UNAVAILABLE_AFTER_RUNS == 3)
    assert not is_unavailable(None)


@given(st.timedeltas(timedelta(0), timedelta(days=30)))
def test_unavailable_files_are_rarely_tried(since: timedelta) -> None:
    """A week after the last try it is time for another one; a file that was never tried is tried now."""
    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert retry_unavailable(now - since, now) == (since >= UNAVAILABLE_RETRY == timedelta(days=7))
    assert retry_unavailable(None, now)


# What narrows a listing.


def config_of(options: dict[str, Any]) -> Callable[[str], Any]:
    return options.get


@given(st.dictionaries(st.sampled_from(NARROWING_WHEN_SET), st.sampled_from([None, "", 0, [], "1-5", ["a"], 3])))
def test_options_that_narrow_when_set(options: dict[str, Any]) -> None:
    """Ranges, filters, limits and tags narrow if they have a value; each is named."""
    assert set(narrowing_options(config_of(options))) == {name for name, value in options.items() if value}


@given(st.dictionaries(st.sampled_from(NARROWING_WHEN_FALSE), st.sampled_from([None, True, False, "all"])))
def test_options_that_narrow_when_false(options: dict[str, Any]) -> None:
    """`videos` and the like narrow if they are false, not if they are unset."""
    assert set(narrowing_options(config_of(options))) == {name for name, value in options.items() if value is False}


@pytest.mark.parametrize(
    ("include", "narrows"), [(None, False), ("all", False), ("gallery", True), (["gallery"], True), ([], True)]
)
def test_include_narrows(include: object, narrows: bool) -> None:
    """`include` narrows unless it is `all`."""
    assert narrowing_options(config_of({"include": include})) == (["include"] if narrows else [])


def test_what_narrows_by_itself() -> None:
    """The options that the design names are known, and no option narrows nothing."""
    named = {"image-range", "image-filter", "chapter-range", "file-filter", "date-after", "date-before", "max-posts"}
    assert named <= set(NARROWING_WHEN_SET)
    assert "videos" in NARROWING_WHEN_FALSE
    assert narrowing_options(config_of({})) == []


# Names and words.

filenames = st.text(st.characters(exclude_characters="/\x00", exclude_categories=["Cs"]), max_size=300)


@given(filenames, texts)
def test_a_distinct_name_fits_and_is_stable(filename: str, remote_id: str) -> None:
    """At most 255 bytes with gallery-dl's `.part` behind it, one segment, and the same every time."""
    name = distinct_name(filename, remote_id)
    assert name == distinct_name(filename, remote_id)
    assert len(f"{name}.part".encode()) <= 255
    assert name not in ("", ".", "..")
    assert "/" not in name
    assert name != filename


@given(filenames, texts, texts)
def test_a_distinct_name_differs_for_each_file(filename: str, one: str, other: str) -> None:
    """Two remote files that want the same name get two."""
    assert (distinct_name(filename, one) == distinct_name(filename, other)) == (one == other)


@given(filenames, st.from_regex(r"\.[A-Za-z0-9]{1,10}", fullmatch=True), texts)
def test_a_distinct_name_keeps_the_extension(stem: str, extension: str, remote_id: str) -> None:
    """A picture stays a picture, however long its name is."""
    assert distinct_name(f"x{stem}{extension}", remote_id).endswith(extension)


def test_a_long_ending_is_no_extension() -> None:
    """A title with a dot early in it is cut like any other."""
    name = distinct_name("Vol. " + "a" * 300, "id")
    assert len(name.encode()) <= 249 <= 255 - len(".part")
    assert name.startswith("Vol. aaa")
    assert len(distinct_name("é" * 300 + ".jpeg", "id").encode()) > LONGEST_NAME - 10  # cut no more than needed


@given(texts, texts)
def test_file_keys(one: str, other: str) -> None:
    """A key of fixed width, equal only for equal texts."""
    assert len(file_key(one)) == 40
    assert (file_key(one) == file_key(other)) == (one == other)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.datetimes(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
WORDS = ("post_url", "page_url", "pageurl", "webpage_url", "title", "date", "tags")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(WORDS, texts | values | st.lists(texts, max_size=600))))
@example({"title": "a\x00b\ud800c", "tags": ["\x00", "\udfff"], "page_url": "http://site/\x00"})
def test_words_of_hostile_metadata(metadata: dict[str, Any]) -> None:
    """Anything may stand in metadata: what comes out can be stored by every database, and is short."""
    words = words_of(metadata)
    found = [words.page_url, words.title, words.date, *words.tags]
    assert all(isinstance(text, str | None) for text in found)
    for text in filter(None, found):
        assert "\x00" not in text
        assert len(text.encode()) <= 4 * 2000
    assert len(words.tags) <= 500


def test_words_of_a_post() -> None:
    """Page, title, date and tags are taken as extractors commonly call them."""
    date = datetime(2026, 1, 2, 3, 4, 5)
    metadata = {"post_url": 7, "page_url": "https://site/1", "title": "A", "date": date, "tags": "red, blue sky"}
    assert words_of(metadata) == Words(
        page_url="https://site/1", title="A", date="2026-01-02T03:04:05", tags=("red", "blue sky")
    )
    assert words_of({"tags": "red  blue"}).tags == ("red", "blue")
    assert words_of({"tags": ["a", 1, None, "b"]}).tags == ("a", "b")
    assert words_of({}) == Words()


# Events.

RUN = RunContext(run_id="abc-1", source_id=725, correlation_id="ticket")
kinds = st.sampled_from(EventType)


facts = st.tuples(st.sampled_from(["abc-1", "abc-11"]), kinds, st.sampled_from(["", "1", "11", "é"]) | texts)


@given(facts, facts)
@example(("abc-1", EventType.FILE_SKIPPED, "a\ud800"), ("abc-1", EventType.FILE_SKIPPED, "a?"))
@example(("abc-1", EventType.FILE_SKIPPED, "post_1"), ("abc-1", EventType.FILE_SKIPPED, "post_2"))
@example(("abc-1", EventType.FILE_SKIPPED, "1"), ("abc-1", EventType.FILE_DOWNLOADED, "1"))
@example(("abc-1", EventType.FILE_SKIPPED, "1"), ("abc-2", EventType.FILE_SKIPPED, "1"))
def test_message_ids(one: tuple[str, EventType, str], other: tuple[str, EventType, str]) -> None:
    """The same fact has the same id; another run, event or file has another."""
    ids = [
        Event(type=kind, run_id=run, source_id=1, body={}, subject=subject).message_id
        for run, kind, subject in (one, other, one)
    ]
    assert ids[0] == ids[2]
    assert (ids[0] == ids[1]) == (one == other)


def test_message_ids_of_every_event_of_a_run_differ() -> None:
    """A file that is told twice in different words has the same id; different files have different ones."""
    told = file_event(EventType.FILE_DOWNLOADED, RUN, remote_id="1", filename="a", size=1)
    again = file_event(EventType.FILE_DOWNLOADED, RUN, remote_id="1", filename="b", size=2)
    other = file_event(EventType.FILE_DOWNLOADED, RUN, remote_id="2", filename="a", size=1)
    assert told.message_id == again.message_id != other.message_id


@given(st.lists(st.text(max_size=255), max_size=50), st.integers(0, 400))
def test_orders_header_is_cut_to_what_fits(orders: list[str], more: int) -> None:
    """The first orders in their sequence, as many as fit into a frame with room to spare; the total tells the rest."""
    orders += [f"{number:0250}" for number in range(more)]
    headers = source_synchronized(RUN, orders=orders, counts={"listed": 3}).headers
    fitting = headers["orders"]
    assert fitting == orders[: len(fitting)]
    assert headers["orders_total"] == len(orders)
    size = sum(len(order.encode()) + 5 for order in fitting)
    assert size <= MAX_ORDERS_HEADER
    if len(fitting) < len(orders):
        assert size + len(orders[len(fitting)].encode()) + 5 > MAX_ORDERS_HEADER
    assert headers["listed"] == 3


@pytest.mark.parametrize(
    ("event", "body"),
    [
        (
            file_event(EventType.FILE_DOWNLOADED, RUN, remote_id="1", filename="6miu5n4ybt3.jpg", url="u", size=3),
            b'{"source_id": 725, "filename": "6miu5n4ybt3.jpg"}',
        ),
        (
            file_event(EventType.FILE_SKIPPED, RUN, remote_id="1", filename='"\u00e9\u732b.jpg'),
            '{"source_id": 725, "filename": "\\"\u00e9\u732b.jpg"}'.encode(),
        ),
        (source_synchronized(RUN, orders=["m"], counts={"downloaded": 1}), b'{"source_id": 725}'),
        (
            source_sync_failed(RUN, state="partial", reason="narrowed", detail="why"),
            b'{"source_id": 725, "state": "partial", "reason": "narrowed", "detail": "why"}',
        ),
    ],
    ids=lambda value: str(value.type) if isinstance(value, Event) else "",
)
def test_bodies_are_exactly_the_documented_ones(event: Event, body: bytes) -> None:
    """Nothing more goes into a body; all else travels in properties and headers."""
    message = EventFormat(queues=dict.fromkeys(EventType, "q"), content_type="application/json").messages([event])[0]
    assert message.body == body
    assert message.message_id == event.message_id
    assert message.properties.correlation_id == "ticket"
    assert message.properties.headers["run_id"] == "abc-1"
    assert None not in message.properties.headers.values()


def test_only_the_last_event_ends_a_run() -> None:
    """The relay holds back the event that must come last, and no other."""
    ends = {kind for kind in EventType if Event(type=kind, run_id="r", source_id=1, body={}).ends_run}
    assert ends == {EventType.SOURCE_SYNCHRONIZED, EventType.SOURCE_SYNC_FAILED}
