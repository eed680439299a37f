"""The operator's hook scripts: called in one process of their own, after the fact is committed.

A script that raises, or takes longer than HOOK_TIMEOUT, is reported with the run and never breaks the mirror.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ..domain.errors import SettingsError
from ..domain.events import EventType, HookValue

LONGEST_REPLY = 1024 * 1024


class HookScript:
    """One setting `path/to/script.py[:function]`. Raises `SettingsError` when there is no such file."""

    def __init__(self, setting: str, text: str, default_function: str) -> None:
        self._setting = setting
        path, _, function = text.rpartition(":") if ".py:" in text else (text, "", "")
        self.path = Path(path).expanduser()
        self.function = function or default_function
        if not self.path.is_file():
            raise SettingsError(f"{setting} names no file: {self.path}; it must be path/to/script.py[:function]")

    def __str__(self) -> str:
        return f"{self.path.name}:{self.function}"

    def check(self) -> None:
        """Read the script without running it. Raises `SettingsError` when it is no Python or lacks the function."""
        try:
            tree = ast.parse(self.path.read_bytes())
        except OSError as error:
            raise SettingsError(f"{self._setting}: {self.path} cannot be read: {error.strerror}") from None
        except (SyntaxError, ValueError) as error:
            where = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
            raise SettingsError(f"{self._setting}: {self.path}{where} is no Python: {_first_words(error)}") from None
        names = {name for node in tree.body for name in _names(node)}
        if self.function not in names and "*" not in names:
            raise SettingsError(
                f"{self._setting}: {self.path} has no function {self.function}; write it, or name another one:"
                f" {self._setting}={self.path}:function"
            )


def _names(node: ast.stmt) -> Iterator[str]:
    """What a statement of a module defines; `*` when only running it would tell."""
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in names)
        case ast.Assign() | ast.AnnAssign():
            yield from (part.id for part in ast.walk(node) if isinstance(part, ast.Name))
        case ast.Expr():
            pass
        case _:
            yield "*"


def _first_words(error: SyntaxError | ValueError) -> str:
    return error.msg if isinstance(error, SyntaxError) else str(error)


class HookScripts:
    """`scripts`: for each event the script to call. One call at a time, in the order of the events."""

    def __init__(self, scripts: dict[EventType, HookScript], timeout: float) -> None:
        self._scripts = scripts
        self._timeout = timeout
        self._host: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()

    def wants(self, event: EventType) -> bool:
        return event in self._scripts

    async def call(self, event: EventType, value: HookValue) -> str | None:
        """Call the script for an event. Returns a sentence when it failed, else None."""
        script = self._scripts[event]
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout):
                    reply = await self._exchange(script, value)
            except TimeoutError:
                await self._end_host()
                return f"hook {script} took longer than {self._timeout:g} s and was ended"
            except (OSError, ValueError, EOFError) as error:
                await self._end_host()
                return f"hook {script} could not be called: {error or 'its process died'}"
        return f"hook {script} failed: {reply}" if reply else None

    async def close(self) -> None:
        await self._end_host()

    async def _exchange(self, script: HookScript, value: HookValue) -> str | None:
        host = self._host
        if host is None or host.returncode is not None:
            host = self._host = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "http_downloader.sync.script_host",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                limit=LONGEST_REPLY,
                start_new_session=True,  # Ctrl-C in the terminal is for the service
            )
        assert host.stdin is not None
        assert host.stdout is not None
        call = {"path": str(script.path), "function": script.function, "value": asdict(value)}
        host.stdin.write(json.dumps(call).encode() + b"\n")
        await host.stdin.drain()
        line = await host.stdout.readline()
        if not line:
            raise EOFError
        error = json.loads(line)["error"]
        return None if error is None else str(error)

    async def _end_host(self) -> None:
        host, self._host = self._host, None
        if host is None:
            return
        if host.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                host.kill()
        # communicate() also closes the pipes
        await host.communicate()
