"""Loaded by every Python process that is started with this folder in PYTHONPATH: writes down what reaches the disk, and in
which order, as one line each in the file that WATCHED names."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

_out = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _note(*words: str) -> None:
    os.write(_out, (json.dumps(words) + "\n").encode())


def _of(descriptor: Any) -> str:
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    return str(Path(f"/proc/self/fd/{number}").readlink())


def _place(path: Any, folder: int | None) -> str:
    return os.fspath(path) if folder is None else f"{_of(folder)}/{os.fspath(path)}"


def _watch_sync(name: str) -> None:
    real = getattr(os, name)

    def sync(descriptor: Any) -> None:
        real(descriptor)
        _note("sync", _of(descriptor))  # what counts is that it has come back

    setattr(os, name, sync)


def _watch_move(name: str) -> None:
    real = getattr(os, name)

    def move(
        source: Any, target: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None, **more: Any
    ) -> None:
        folders = {"src_dir_fd": src_dir_fd, "dst_dir_fd": dst_dir_fd}
        real(source, target, **{name: folder for name, folder in folders.items() if folder is not None}, **more)
        _note(name, _place(source, src_dir_fd), _place(target, dst_dir_fd))

    setattr(os, name, move)


def _watch_unlink() -> None:
    real = os.unlink

    def unlink(path: Any, *, dir_fd: int | None = None) -> None:
        real(path, dir_fd=dir_fd)
        _note("unlink", _place(path, dir_fd))

    os.unlink = unlink


def _watch_mkdir() -> None:
    real = os.mkdir

    def mkdir(path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        real(path, mode, dir_fd=dir_fd)
        _note("mkdir", _place(path, dir_fd))

    os.mkdir = mkdir


def _watch_sqlite() -> None:
    real: Callable[..., sqlite3.Connection] = sqlite3.connect

    def connect(*arguments: Any, **more: Any) -> sqlite3.Connection:
        connection = real(*arguments, **more)
        connection.set_trace_callback(_sql)
        return connection

    sqlite3.connect = sqlite3.dbapi2.connect = connect  # type: ignore[attr-defined]


def _sql(statement: str) -> None:
    if statement.startswith(("INSERT INTO files", "UPDATE files", "PRAGMA synchronous=")):
        _note("sql", statement)


for _name in ("fsync", "fdatasync"):
    _watch_sync(_name)
for _name in ("link", "rename", "replace"):
    _watch_move(_name)
_watch_unlink()
_watch_mkdir()
_watch_sqlite()
