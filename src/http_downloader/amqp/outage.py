"""Why there is no connection, in a sentence for people, and when they are told; how long to wait before the next attempt."""

from __future__ import annotations

import asyncio
import os
import random
import re
import ssl
from collections.abc import Iterator, Sequence

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
    ssl.SSLCertVerificationError,
)
"""What time alone does not heal."""
REFUSED_CODES = {403, 405, 406}
"""The same, where the broker closes a channel or a connection that was up: no permission, locked, not as it demands."""

REMEDIES = {
    403: "permit it: rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'",
    406: "change what it names there: a limit of the broker, or the queue",
    405: "end the client that has it for itself, or set another name",
}

EXPIRED = 10
OTHER_NAME = {62, 64}
"""Codes of OpenSSL for a certificate that is not accepted."""
_ALERT = re.compile(r"ALERT_(\w+)]")
"""What the other side says of our part of a TLS handshake; where pika wraps it, only in the text."""

STEADY = 5.0
"""Seconds that a connection has to stand before it is believed in, when the last one stood in vain: without the
permission to write, say, each one comes up well, and breaks down with its first message."""


SILENCE = 10.0
"""Seconds without a confirm for what was sent, after which that is a problem."""
SLOW = 3.0
"""The same for what is asked of queues when a connection is new. A quorum queue answers nothing without its nodes."""
NO_MAJORITY = "is one of them without most of its nodes? See: rabbitmqctl list_queues name type state"


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

    def __init__(self, places: Sequence[str]) -> None:
        """places: host and port of each address that is tried."""
        self._several = len(places) > 1
        self._problems: dict[str, str] = dict.fromkeys(places, "not connected yet")
        self._told: dict[str, int] = {}  # how much was logged of each: that it is not there, that a person has to act
        self._up_since: float | None = None
        self._stood_in_vain = self._fell_soon = False
        self._proof: asyncio.TimerHandle | None = None

    @property
    def problem(self) -> str | None:
        """None when all is well; of several addresses, what is wrong with each."""
        places: dict[str, list[str]] = {}
        for place, words in self._problems.items():
            places.setdefault(words, []).append(place)
        if not self._several:
            return next(iter(places), None)
        return " | ".join(f"{', '.join(those)}: {words}" for words, those in places.items()) or None

    def connected(self, place: str) -> None:
        loop = asyncio.get_running_loop()
        self._up_since = loop.time()
        if self._stood_in_vain:
            self._proof = loop.call_later(STEADY, self._is_over, place)
        else:
            self._is_over(place)

    def disconnected(self, place: str, reason: BaseException) -> None:
        """Also when it could not be connected at all. For each address one line when an outage begins, and at most a
        second one when it turns out to be a refusal."""
        self._problems[place] = words = sentence(reason)
        grade = 2 if is_refusal(reason) else 1
        if self._up_since is not None:
            stood = asyncio.get_running_loop().time() - self._up_since
            self._stood_in_vain = grade == 2 or (stood < STEADY and self._fell_soon)  # once is an accident
            self._fell_soon = stood < STEADY
            self._up_since = None
        self.close()
        if grade > self._told.get(place, 0):
            self._told[place] = grade
            log.warning("no connection to the broker, trying again", broker=place, problem=words)

    def slow(self, place: str) -> None:
        self._problems[place] = f"the broker says nothing of our queues; {NO_MAJORITY}"

    def close(self) -> None:
        """Nothing more is told."""
        if self._proof is not None:
            self._proof.cancel()

    def _is_over(self, place: str) -> None:
        self._problems, self._told, self._stood_in_vain = {}, {}, False
        log.info("connected to the broker", broker=place)


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
        case ssl.SSLCertVerificationError():
            return f"the broker's certificate is not accepted: {problem.verify_message.rstrip('.')}"
        case ssl.SSLError() | exceptions.IncompatibleProtocolError() if (
            alert := _ALERT.search(str(problem))
        ) is not None:
            return f"the broker wants another certificate of us: {alert[1].lower().replace('_', ' ')}"
        case ssl.SSLError():
            return f"what listens there does not speak TLS as we do: {(problem.reason or 'it hung up').lower().replace('_', ' ')}"
        case exceptions.IncompatibleProtocolError() | exceptions.ConnectionOpenAborted():
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
        case ssl.SSLCertVerificationError(verify_code=code) if code in OTHER_NAME:
            return "set AMQP_URL or RABBITMQ_HOST to a name that it has"
        case ssl.SSLCertVerificationError(verify_code=code) if code == EXPIRED:
            return "renew it at the broker"
        case ssl.SSLCertVerificationError():
            return "set AMQP_TLS_CA to the certificate of the authority that it is of"
        case ssl.SSLError() | exceptions.IncompatibleProtocolError() if _ALERT.search(str(problem)) is not None:
            return "set AMQP_TLS_CERT and AMQP_TLS_KEY to a certificate that it accepts"
        case ssl.SSLError():
            return "is it the broker's port for TLS (5671)? Without TLS set RABBITMQ_TLS=false, or amqp:// in AMQP_URL"
        case exceptions.IncompatibleProtocolError():
            return "is it RabbitMQ, and is it well? If it is its port for TLS, set RABBITMQ_TLS=true, or amqps:// in AMQP_URL"
        case OSError():
            return "is RabbitMQ up? Else set RABBITMQ_HOST and RABBITMQ_PORT, or AMQP_URL"
        case exceptions.ConnectionOpenAborted():
            return "is it RabbitMQ, and is it well? Else set RABBITMQ_HOST and RABBITMQ_PORT, or AMQP_URL"
    return ""
