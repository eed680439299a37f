"""The command line. Every error of ours is one line on standard error, with its exit code."""

from __future__ import annotations

import sys
import tempfile
import traceback
from pathlib import Path
from typing import NoReturn

from ..domain.errors import DownloaderError, Exit


def main() -> NoReturn:
    """Run the command line and exit."""
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
    leaf = _leaf(error)
    if isinstance(leaf, SystemExit):
        return int(leaf.code or 0)
    if isinstance(leaf, KeyboardInterrupt):
        return Exit.CANCELLED
    if isinstance(leaf, DownloaderError):
        print(f"http-downloader: {leaf}", file=sys.stderr)
        return leaf.exit_code
    with tempfile.NamedTemporaryFile("w", prefix="http-downloader-", suffix=".log", delete=False) as log:
        traceback.print_exception(error, file=log)
    print(
        f"http-downloader: this should not have happened: {type(leaf).__name__}: {leaf}\n"
        f"Please report it with the details in {Path(log.name)}",
        file=sys.stderr,
    )
    return Exit.INTERNAL


def _leaf(error: BaseException) -> BaseException:
    """The error that tells most: tasks that run together wrap theirs into groups."""
    while isinstance(error, BaseExceptionGroup):
        ours = error.subgroup(DownloaderError)
        error = (ours or error).exceptions[0]
    return error
