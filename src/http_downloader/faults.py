"""Failpoints: named places in the flow where a test can kill the process, or make it meet an error, a delay, a full disk.

`FAULT_AT=recorder.before_commit:3` kills this process with SIGKILL at the third pass of that point. The general form is
`point[:pass][=what]`, several of them with commas between: `what` is `kill` (the default), `delay` (`delay/2.5`: seconds),
`error`, or a disk that gives out: `full`, `broken`, `read-only`, `too-many-files`. Passes are counted in each process by
itself, from 1; `*` in place of the number is every pass. Meant for tests; no setting, and in no file of settings.

Without the variable, `at` is a function that does nothing.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping

from .domain.errors import SettingsError

VARIABLE = "FAULT_AT"

POINTS = (
    "intake.before_journal",
    "intake.after_journal",
    "consumer.before_ack",
    "worker.after_claim",
    "runner.before_crawl",
    "runner.before_end",
    "runner.after_end",
    "recorder.before_commit",
    "recorder.after_commit",
    "relay.before_publish",
    "relay.before_forget",
    "removal.after_intent",
    "removal.after_move",
    "child.start",
    "child.listed",
    "child.before_end",
    "lane.write",
    "lane.before_rename",
    "lane.after_rename",
    "verify.read",
    "repair.after_intent",
    "repair.after_move",
)
"""Every point there is, and who passes it: the service, or (`child`, `lane`) a gallery process."""

_DISK = {
    "full": errno.ENOSPC,
    "broken": errno.EIO,
    "read-only": errno.EROFS,
    "too-many-files": errno.EMFILE,
}


class InjectedError(Exception):
    """What `error` raises: a defect that nobody foresaw."""


def parse(text: str) -> dict[str, dict[int, str]]:
    """What happens at which pass of which point; pass 0 stands for every one. Raises `SettingsError`."""
    plan: dict[str, dict[int, str]] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        place, _, what = part.partition("=")
        point, _, number = place.partition(":")
        action, _, seconds = (what or "kill").partition("/")
        if point not in POINTS:
            raise SettingsError(f"{VARIABLE} names the point {point!r}; there are: {', '.join(sorted(POINTS))}")
        if number not in ("", "*") and not (number.isascii() and number.isdigit() and int(number) > 0):
            raise SettingsError(f"{VARIABLE} has the pass {number!r}; a number from 1 or * is allowed")
        if action not in ("kill", "error", "delay", *_DISK):
            raise SettingsError(
                f"{VARIABLE} wants {action!r}; allowed are kill, error, delay/SECONDS, {', '.join(_DISK)}"
            )
        try:
            float(seconds or 1)
        except ValueError:
            raise SettingsError(f"{VARIABLE} has the delay {seconds!r}; a number of seconds is allowed") from None
        plan.setdefault(point, {})[0 if number == "*" else int(number or 1)] = what or "kill"
    return plan


def _armed(plan: dict[str, dict[int, str]]) -> Callable[[str], None]:
    passes: Counter[str] = Counter()

    def at(point: str) -> None:
        assert point in POINTS, point
        passes[point] += 1
        what = plan.get(point, {})
        if (action := what.get(passes[point]) or what.get(0)) is not None:
            _happen(point, action)

    return at


def _happen(point: str, action: str) -> None:
    name, _, seconds = action.partition("/")
    match name:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "delay":
            time.sleep(float(seconds or 1))
        case "error":
            raise InjectedError(f"an error was asked for at {point}")
        case _:
            raise OSError(_DISK[name], os.strerror(_DISK[name]), point)


def _nothing(point: str) -> None:
    pass


def arm(environment: Mapping[str, str]) -> Callable[[str], None]:
    """The function that the flow calls at its points: it does nothing, unless the environment asks for more."""
    text = environment.get(VARIABLE, "")
    return _armed(parse(text)) if text else _nothing


at = arm(os.environ)
