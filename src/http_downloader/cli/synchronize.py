"""`sync`: one run with a progress display, plain lines or NDJSON."""

from __future__ import annotations

import asyncio
import sys
from enum import Enum, auto

from ..app import sync
from ..catalog.journal import Claim
from ..domain.characters import json_line
from ..domain.events import Event
from ..domain.runs import Ending
from ..settings import Settings
from ..sync.updates import Finished, Update
from .progress import LiveDisplay, PlainDisplay, QuietDisplay


class Mode(Enum):
    LIVE = auto()
    PLAIN = auto()
    JSON = auto()
    QUIET = auto()

    @classmethod
    def choose(cls, *, as_json: bool, quiet: bool, verbose: bool) -> Mode:
        if as_json:
            return cls.JSON
        if quiet:
            return cls.QUIET
        return cls.LIVE if sys.stdout.isatty() and not verbose else cls.PLAIN


def run(settings: Settings, url: str, *, to: str | None, source_id: int | None, mode: Mode) -> int:
    """Synchronize, show it, and return the exit code."""
    display = _display(mode, settings)
    with display:
        ending: Ending = asyncio.run(
            sync(settings, url, to=to, source_id=source_id, observer=display.saw, waiting=display.waiting)
        )
    display.summary(ending)
    return ending.exit_code


def _display(mode: Mode, settings: Settings) -> JsonDisplay | LiveDisplay | PlainDisplay | QuietDisplay:
    match mode:
        case Mode.JSON:
            return JsonDisplay()
        case Mode.QUIET:
            return QuietDisplay(settings.content_root)
        case Mode.PLAIN:
            return PlainDisplay(settings.content_root)
        case Mode.LIVE:
            return LiveDisplay(settings.content_root)


class JsonDisplay:
    """Events as NDJSON on standard output: the type, the body, and what travels in headers at the broker."""

    def __enter__(self) -> JsonDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def waiting(self, why: str) -> None:
        pass

    def saw(self, _claim: Claim, update: Update) -> None:
        if isinstance(update, Event):
            line = {"event": str(update.type), **update.body, **update.headers, "message_id": update.message_id}
            print(json_line(line), flush=True)
        elif isinstance(update, Finished) and update.again is not None:
            print(f"http-downloader: {update.ending.detail}; next try at {update.again:%H:%M:%S}Z", file=sys.stderr)

    def summary(self, ending: Ending) -> None:
        pass
