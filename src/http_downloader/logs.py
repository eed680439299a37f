"""Logs of our own and of others, in one form, on standard error."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

from .domain.characters import json_line, visible
from .domain.secrets import Redaction

redact = Redaction()
"""Of this process: it learns the secrets among the settings, and goes over every line that is logged."""

_is_read_by_machines = False
_process: dict[str, str] = {}


def name_process(worker: str) -> None:
    """What every line of this process says of it, where machines read them."""
    _process["worker"] = worker


def _name_process(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    return {**event, **_process}


def _without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
        elif not isinstance(value, int | float | None):
            event[key] = redact(str(value))
    return event


def tell(sentence: str, level: int = logging.ERROR) -> None:
    """To whoever has started the command: a line on standard error; of a service that logs JSON, a line of its log."""
    if _is_read_by_machines:
        structlog.get_logger().log(level, sentence)
    else:
        print(sentence, file=sys.stderr)


def configure_logs(level: str, form: Literal["console", "json"], *, service: bool = False) -> None:
    """`service`: nobody looks on, so that with JSON every line is that, whatever happens."""
    global _is_read_by_machines
    as_json = form == "json"
    _is_read_by_machines = as_json and service
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _make_visible,
        *([_name_process] if as_json else []),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(serializer=json_line, default=str)
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), pad_event_to=28)
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, _without_secrets, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Else the console shows the local variables of every frame, whatever is in them.
                structlog.processors.format_exc_info,
                _without_secrets,
                renderer,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    if _is_read_by_machines:
        _take_in_what_is_printed()


def _take_in_what_is_printed() -> None:
    """What the interpreter itself would print, in lines that are no JSON: warnings, and errors that nobody can catch."""
    logging.captureWarnings(True)
    log = structlog.get_logger("python")

    def uncaught(error: BaseException | None, where: object) -> None:
        log.error("an error that nobody has caught", where=str(where), exc_info=error)

    threading.excepthook = lambda told: uncaught(told.exc_value, told.thread)
    sys.unraisablehook = lambda told: uncaught(told.exc_value, told.object)


def _make_visible(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Sites and senders write the URLs, names and sentences that we repeat: no terminal obeys them."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = visible(value)
    return event
