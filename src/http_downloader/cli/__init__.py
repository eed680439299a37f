"""The command line. Every error of ours is one line on standard error, with its exit code."""

from __future__ import annotations

import errno
import io
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import NoReturn

from ..domain.characters import visible
from ..domain.errors import DownloaderError, Exit

LONGEST = 1000
"""Characters of an error."""

_DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG)


def main() -> NoReturn:
    """Run the command line and exit."""
    _make_streams_usable()
    try:
        from .commands import commands  # inside: Ctrl-C may come before all is loaded

        commands()  # exits by itself, also after a wrong use
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has seen enough
        sys.exit(Exit.OK)
    except BaseException as error:
        sys.exit(_report(error))
    sys.exit(Exit.OK)


def _report(error: BaseException) -> int:
    from ..logs import redact, tell

    leaf = _leaf(error)
    if isinstance(leaf, SystemExit):
        return int(leaf.code or 0)
    if isinstance(leaf, KeyboardInterrupt):
        return Exit.CANCELLED
    if isinstance(leaf, DownloaderError):
        lines = _fitting(redact(leaf.told)).splitlines()
        tell("http-downloader: " + "\n".join(map(visible, lines)))
        return leaf.exit_code
    if isinstance(leaf, OSError) and leaf.errno in _DISK_TROUBLE and leaf.filename is None:
        _give_up_output()
        tell(
            f"http-downloader: writing has failed: {leaf.strerror}; look at the disk of RUNTIME_PATH, and at what takes"
            " the output of this command"
        )
        return Exit.UNAVAILABLE
    words = visible(" ".join(redact(f"{type(leaf).__name__}: {leaf}").split()))
    tell(f"http-downloader: this should not have happened: {_fitting(words)}")
    tell(_keep_details(redact("".join(traceback.format_exception(error)))))
    return Exit.INTERNAL


def _make_streams_usable() -> None:
    """One that is closed is None, and one that knows fewer characters than we print ends a command in its middle."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115 - as long as the process lives
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fitting(words: str) -> str:
    """The beginning, and the end, where it says what to do: a wrong value may be very long."""
    return words if len(words) <= LONGEST else f"{words[: LONGEST // 2]} … {words[-LONGEST // 2 :]}"


def _give_up_output() -> None:
    """The interpreter flushes it once more at its end, and would complain in its own words."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _keep_details(details: str) -> str:
    """Into a file that only this user reads. Returns what to do with it."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="http-downloader-", suffix=".log", delete=False) as log:
            log.write(details)
    except OSError as error:
        return f"The details could not be written ({error.strerror}): set TMPDIR to a folder, try again, and report it"
    return f"Please report it with the details in {Path(log.name)}"


def _leaf(error: BaseException) -> BaseException:
    """The error that tells most: tasks that run together wrap theirs into groups."""
    while isinstance(error, BaseExceptionGroup):
        ours = error.subgroup(DownloaderError)
        error = (ours or error).exceptions[0]
    return error
