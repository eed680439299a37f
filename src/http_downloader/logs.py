"""Logs of our own and of others, in one form, on standard error."""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import structlog

from .domain.characters import json_line, visible
from .domain.secrets import Redaction

redact = Redaction()
"""Of this process: it learns the secrets among the settings, and goes over every line that is logged."""


def _without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = redact(value)
        elif not isinstance(value, int | float | None):
            event[key] = redact(str(value))
    return event


def configure_logs(level: str, form: Literal["console", "json"]) -> None:
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _make_visible,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(serializer=json_line, default=str)
        if form == "json"
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
            foreign_pre_chain=shared,
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


def _make_visible(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Sites and senders write the URLs, names and sentences that we repeat: no terminal obeys them."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = visible(value)
    return event
