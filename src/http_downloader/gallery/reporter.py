"""The child's end of the pipe: messages gather for a moment and go out in batches; a slow parent slows us down."""

from __future__ import annotations

import logging
import threading
from multiprocessing.connection import Connection

from ..domain.characters import visible
from ..domain.secrets import Redaction
from .evidence import Evidence, out_of_files
from .messages import Asks, FromRun, Logged

GATHER = 0.02
"""Seconds that a lone message waits for company."""
GATHER_FLOOD = ((32, 0.25), (8, 0.08))
"""When so many came together in the last batch, the next one gathers for so long: a batch is a transaction, and its
commit waits until the disk has all files that were written before."""
LIMIT = 1000
"""Messages that may wait; then whoever reports more has to wait."""
LONGEST = 2000
"""Characters of a log record that are kept."""


class Reporter:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._waiting: list[FromRun] = []
        self._changed = threading.Condition()
        self._closed = False
        self._sender = threading.Thread(target=self._send_all, name="reporter", daemon=True)
        self._sender.start()

    def __call__(self, message: FromRun) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._waiting) < LIMIT)
            self._waiting.append(message)
            if len(self._waiting) in (1, LIMIT) or isinstance(message, Asks):
                self._changed.notify_all()

    def _is_urgent(self) -> bool:
        return self._closed or len(self._waiting) >= LIMIT or any(isinstance(m, Asks) for m in self._waiting[-1:])

    def close(self) -> None:
        """Send what waits, and return when the parent's end of the pipe has it."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._sender.join()

    def _send_all(self) -> None:
        pause = GATHER
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return
                self._changed.wait_for(self._is_urgent, pause)
                batch, self._waiting = self._waiting, []
                pause = next((seconds for many, seconds in GATHER_FLOOD if len(batch) >= many), GATHER)
                self._changed.notify_all()
            self._connection.send(batch)


class LogHandler(logging.Handler):
    """gallery-dl's log records, as messages and as evidence, without the secrets that they may repeat."""

    def __init__(self, reporter: Reporter, evidence: Evidence, redaction: Redaction, level: int) -> None:
        super().__init__(logging.DEBUG)
        self._reporter = reporter
        self._evidence = evidence
        self._level = level
        self._redaction = redaction

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except Exception:  # a broken record of the extractor must not end the listing
            text = str(record.msg)
        # Cut before and after: what is searched for secrets is not the whole page that an extractor may log.
        text = visible(self._redaction(text[: 2 * LONGEST]))
        self._evidence.record(record, text)
        if out_of_files(text) is not None:
            return  # every lane would say so, and then the run's end does
        if record.levelno >= self._level and text:
            self._reporter(Logged(record.levelno, record.name, text[:LONGEST]))
