"""Why there is no connection, in a sentence for people, and how long to wait before the next attempt."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

from pika import exceptions

from .topology import BrokerRefused

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds between two attempts to connect."""

REFUSALS = (
    BrokerRefused,
    exceptions.AuthenticationError,
    exceptions.ProbableAuthenticationError,
    exceptions.ProbableAccessDeniedError,
)
"""What time alone does not heal."""


class SessionEnded(Exception):
    """A session ended for a reason that pika has no exception for; the sentence is the message."""


def pauses() -> Iterator[float]:
    """Seconds to wait before each further attempt; with jitter, so that many of us do not come back at once."""
    ceiling = 2 * SHORTEST_PAUSE
    while True:
        yield random.uniform(SHORTEST_PAUSE, ceiling)  # noqa: S311 - no secret
        ceiling = min(2 * ceiling, LONGEST_PAUSE)


def root_of(problem: BaseException) -> BaseException:
    """The cause inside the wrappers that pika puts around a failed attempt to connect."""
    inner = getattr(problem, "exceptions", None) or [getattr(problem, "exception", None)]
    candidates = [*inner[-1:], *problem.args[:1]]
    for candidate in candidates:
        if isinstance(candidate, BaseException):
            return root_of(candidate)
    return problem


def sentence(problem: BaseException) -> str:
    match problem:
        case exceptions.AuthenticationError() | exceptions.ProbableAuthenticationError():
            return "the broker refuses this user and password"
        case exceptions.ProbableAccessDeniedError():
            return "there is no such vhost, or this user may not use it"
        case exceptions.ConnectionClosed() | exceptions.ChannelClosed():
            return f"the broker says {problem.reply_text}"
        case exceptions.StreamLostError():
            return "the connection was cut"
        case exceptions.ConnectionOpenAborted():
            return "what listens there does not answer as a broker"
        case OSError(errno=int(number), strerror=None):
            return os.strerror(number)
        case OSError(strerror=str(words)):
            return words
    return str(problem) or type(problem).__name__
