"""Which of our queues take no messages, and that people are told once of it, and once that they do again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

log = structlog.get_logger(__name__)

DELETED = "it was deleted, and has been declared again"
FULL = (
    "it is full (x-max-length with reject-publish), or has no node that leads it; "
    "consume from it, or see: rabbitmqctl list_queues name messages arguments state"
)


STEADY = 5.0
"""Seconds without a refusal after which a queue is well: one that is full takes some whenever its consumer takes some."""


class Acceptance:
    """Outlives the connections: a queue that refused messages on one may take them on the next."""

    def __init__(self) -> None:
        self.compared = False
        """Whether it was said which queues are not of the type that is set."""
        self._refusing: dict[str, str] = {}
        self._proofs: dict[str, asyncio.TimerHandle] = {}

    @property
    def problem(self) -> str | None:
        """Of one of the queues, and how many more there are."""
        for queue, why in self._refusing.items():
            others = f" (and {len(self._refusing) - 1} more)" if len(self._refusing) > 1 else ""
            return f"queue {queue!r} takes no messages{others}: {why}"
        return None

    def differ(self, queues: Mapping[str, str]) -> None:
        """Once, since nothing is wrong with them: they are only less safe than somebody may believe."""
        self.compared = True
        for queue, words in queues.items():
            log.warning(
                "a queue is used as it is, and is not as AMQP_QUEUE_TYPE=quorum makes them", queue=queue, why=words
            )

    def returned(self, queue: str, *, was_missing: bool) -> None:
        """The broker gave a message back, and the queue was declared again."""
        self._disprove(queue)
        if was_missing or queue not in self._refusing:  # another worker may have been faster in making it
            self._refusing[queue] = DELETED
            log.warning("a queue took no message, declaring it again", queue=queue)

    def refused(self, queue: str) -> None:
        """The broker has answered with a nack."""
        self._disprove(queue)
        if self._refusing.get(queue) != FULL:
            self._refusing[queue] = FULL
            log.warning("a queue takes no messages", queue=queue, problem=FULL)

    def took(self, queue: str) -> None:
        if queue in self._refusing and queue not in self._proofs:
            self._proofs[queue] = asyncio.get_running_loop().call_later(STEADY, self._is_well, queue)

    def _is_well(self, queue: str) -> None:
        del self._refusing[queue], self._proofs[queue]
        log.info("a queue takes messages again", queue=queue)

    def _disprove(self, queue: str) -> None:
        if (proof := self._proofs.pop(queue, None)) is not None:
            proof.cancel()
