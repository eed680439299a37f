"""What a gallery process is asked after a complete listing, before a file that it did not show may be removed."""

from __future__ import annotations

import queue
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

import requests

from ..domain.removals import Served
from .evidence import GONE
from .lanes import RateLimitedError
from .messages import AsksAddresses, AsksServed

if TYPE_CHECKING:
    from .job import Run

TIMEOUT = 30.0


def answer_questions(
    connection: Connection, questions: queue.SimpleQueue[AsksServed | AsksAddresses], run: Run
) -> None:
    """Until the parent has no more of them and ends this process."""
    while True:
        match questions.get():
            case AsksServed(url):
                connection.send(_ask(run, url))
            case AsksAddresses():
                connection.send(run.seen)


def _ask(run: Run, url: str) -> Served:
    """One request, with the login and the pauses of the run. Only 404 and 410 say that a file is gone."""
    if run.extractor is None or not url.startswith(("http://", "https://")):
        return Served.UNKNOWN
    try:
        with run.evidence.transfer(), run.gate.enter(run.pause_between_requests()) as begun_at:
            run.evidence.begin_transfer(lambda after: run.gate.was_refused(begun_at, after))
            # GET: a site may answer HEAD from elsewhere, or not at all. One byte is enough to know.
            answer = _get(run.extractor, url)
            status = answer.status_code
            answer.close()
    except (requests.RequestException, RateLimitedError, OSError):
        return Served.UNKNOWN
    if status in GONE:
        return Served.GONE
    return Served.SERVED if status < 300 or status == 416 else Served.UNKNOWN


def _get(extractor: Any, url: str) -> requests.Response:
    headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
    answer: requests.Response = extractor.session.get(url, headers=headers, timeout=TIMEOUT, stream=True)
    return answer
