"""The process in which hook scripts run: one JSON line in for each call, one out with its error.

Started as `python -m http_downloader.sync.script_host`. Ends when its standard input closes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import sys
from pathlib import Path
from types import ModuleType

from ..domain.events import HookValue

_loaded: dict[str, tuple[float, ModuleType]] = {}


def main() -> None:
    # What scripts print must not mix with the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        call = json.loads(line)
        error = _call(call["path"], call["function"], HookValue(**call["value"]))
        replies.write(json.dumps({"error": error}) + "\n")
        replies.flush()


def _call(path: str, function: str, value: HookValue) -> str | None:
    """The error of a script as one line, None when there was none."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            getattr(_load(path), function)(value)
    except SystemExit as error:
        return f"it called exit({error.code})"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"[:1000]
    return None


def _load(path: str) -> ModuleType:
    """The script as a module; loaded again when the file has changed."""
    changed = Path(path).stat().st_mtime
    if path in _loaded and _loaded[path][0] == changed:
        return _loaded[path][1]
    spec = importlib.util.spec_from_file_location(f"hook_{len(_loaded)}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    _loaded[path] = changed, module
    return module


if __name__ == "__main__":
    main()
