"""Why there is no connection, in a sentence for people, and when they are told; how long to wait before the next attempt."""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import Iterator

import structlog
from pika import exceptions

from .topology import BrokerRefused

log = structlog.get_logger(__name__)

SHORTEST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
"""Seconds between two attempts to connect."""

REFUSALS = (
    BrokerRefused,
    exceptions.AuthenticationError,
    exceptions.ProbableAuthenticationError,
    exceptions.ProbableAccessDeniedError,
)
"""What time alone does not heal."""
REFUSED_CODES = {403, 405, 406}
"""The same, where the broker closes a channel or a connection that was up: no permission, locked, not as it demands."""

REMEDIES = {
    403: "permit it: rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'",
    406: "change what it names there: a limit of the broker, or the queue",
    405: "end the client that has it for itself, or set another name",
}

STEADY = 5.0
"""Seconds that a connection has to stand before it is believed in, when the last one stood in vain: without the
permission to write, say, each one comes up well, and breaks down with its first message."""


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


class Outage:
    """What people are told: once that there is no connection, and why; once that there is one again."""

    def __init__(self, place: str) -> None:
        self.problem: str | None = "not connected yet"
        self._place = place
        self._told = 0  # how much of this outage was logged: nothing, its begin, that a person has to act
        self._up_since: float | None = None
        self._stood_in_vain = self._fell_soon = False
        self._proof: asyncio.TimerHandle | None = None

    def connected(self) -> None:
        loop = asyncio.get_running_loop()
        self._up_since = loop.time()
        if self._stood_in_vain:
            self._proof = loop.call_later(STEADY, self._is_over)
        else:
            self._is_over()

    def disconnected(self, reason: BaseException) -> None:
        """Also when it could not be connected at all. One line when an outage begins, and at most a second one when
        it turns out to be a refusal."""
        self.problem = sentence(reason)
        grade = 2 if is_refusal(reason) else 1
        if self._up_since is not None:
            stood = asyncio.get_running_loop().time() - self._up_since
            self._stood_in_vain = grade == 2 or (stood < STEADY and self._fell_soon)  # once is an accident
            self._fell_soon = stood < STEADY
            self._up_since = None
        self.close()
        if grade > self._told:
            self._told = grade
            log.warning("no connection to the broker, trying again", broker=self._place, problem=self.problem)

    def close(self) -> None:
        """Nothing more is told."""
        if self._proof is not None:
            self._proof.cancel()

    def _is_over(self) -> None:
        self.problem, self._told, self._stood_in_vain = None, 0, False
        log.info("connected to the broker", broker=self._place)


def is_refusal(problem: BaseException) -> bool:
    closed = isinstance(problem, exceptions.ConnectionClosed | exceptions.ChannelClosed)
    return isinstance(problem, REFUSALS) or (closed and problem.reply_code in REFUSED_CODES)  # type: ignore[attr-defined]


def sentence(problem: BaseException) -> str:
    """What is wrong, and what to do about it where that is known."""
    remedy = _remedy(problem)
    return _words(problem) + (f"; {remedy}" if remedy else "")


def alarm(reason: str) -> str:
    """Why the broker takes no messages at present, which it says in a few words."""
    return f"{reason or 'an alarm'}; see rabbitmqctl status, and free memory or disk space there"


def _words(problem: BaseException) -> str:
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


def _remedy(problem: BaseException) -> str:
    match problem:
        case exceptions.AuthenticationError() | exceptions.ProbableAuthenticationError():
            return "set RABBITMQ_USER and RABBITMQ_PASS, or AMQP_URL, to a user that the broker has"
        case exceptions.ProbableAccessDeniedError():
            return "set RABBITMQ_VHOST, or make it with rabbitmqctl add_vhost, and permit it with set_permissions"
        case BrokerRefused(code=int(code)) | exceptions.ChannelClosed(reply_code=int(code)):
            return REMEDIES.get(code, "")
        case ssl.SSLError():
            return "set AMQP_URL to what the broker's certificate says"
        case OSError():
            return "is RabbitMQ up? Else set RABBITMQ_HOST and RABBITMQ_PORT, or AMQP_URL"
        case exceptions.ConnectionOpenAborted():
            return "is it RabbitMQ, and is it well? Else set RABBITMQ_HOST and RABBITMQ_PORT, or AMQP_URL"
    return ""
