"""Cookies: a private copy for each run, and what the site changed merged back after a good one.

Files are in the Netscape format: seven fields separated by tabs, `#HttpOnly_` in front of a line is part of it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import tempfile
from pathlib import Path

from ..domain.secrets import SHORTEST_ANYWHERE

_SET_COOKIE = re.compile(r"(?:^|,)\s*[^=;,\s]+=\"?([^;,\s\"]*)")

Key = tuple[str, str, str]
"""Domain, path and name: what makes two lines the same cookie."""


class UnreadableCookiesError(Exception):
    """The sentence names the file and what is wrong, never a value."""


def read_cookies(file: Path) -> dict[Key, str]:
    """The lines of a cookie file by what they are about. Raises `UnreadableCookiesError`."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UnreadableCookiesError(f"the cookie file does not exist: {file}") from None
    except UnicodeDecodeError:
        raise UnreadableCookiesError(f"the cookie file is not UTF-8 text: {file}") from None
    except OSError as error:
        raise UnreadableCookiesError(f"the cookie file cannot be read: {file}: {error.strerror}") from None
    cookies: dict[Key, str] = {}
    for number, line in enumerate(text.split("\n"), 1):  # splitlines() would break at more than line feeds
        bare = line.strip(" ").removeprefix("#HttpOnly_")
        if not bare or bare[0] in "#$":
            continue
        fields = bare.split("\t")
        if len(fields) != 7:
            raise UnreadableCookiesError(
                f"the cookie file is not in Netscape format: {file}, line {number} has {len(fields)} fields in place of 7"
            )
        cookies[fields[0], fields[2], fields[5]] = line
    return cookies


def copy_private(file: Path, folder: Path) -> Path:
    """A copy that only this run reads and writes, mode 0600. Raises `UnreadableCookiesError`."""
    read_cookies(file)
    folder.mkdir(0o700, parents=True, exist_ok=True)
    copy = folder / f"{len(list(folder.iterdir()))}-{file.name}"
    with os.fdopen(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        out.write(file.read_bytes())
    return copy


def secrets_of(file: Path) -> list[str]:
    """The secret part of every line: `1` and `dark` are choices, and nobody's session."""
    return [value for value in values(file) if len(value) >= SHORTEST_ANYWHERE]


def values(file: Path) -> list[str]:
    return [line.split("\t")[6] for line in read_cookies(file).values()]


def values_set_by(header: str) -> list[str]:
    """The same of an answer's Set-Cookie header; several are joined with commas.

    >>> values_set_by("session=s3cr3t; Path=/, theme=dark; Expires=Mon, 01 Jan 2035 00:00:00 GMT")
    ['s3cr3t']
    """
    return [value for value in _SET_COOKIE.findall(header) if len(value) >= SHORTEST_ANYWHERE]


def name_of(line: str) -> tuple[str, str]:
    """Domain and name of a cookie."""
    fields = line.split("\t")
    return fields[0].strip(" ").removeprefix("#HttpOnly_"), fields[5]


def has_expired(line: str, now: float) -> bool:
    """`now` in seconds since 1970. A cookie without a time of its own lasts as long as the site lets it."""
    expires = line.split("\t")[4]
    return expires.isdecimal() and 0 < int(expires) < now


def merge_back(before: dict[Key, str], after: dict[Key, str], file: Path) -> int:
    """Bring what a run changed into the file that all runs share. Returns how many cookies changed.

    Only changed and new cookies are brought: another run may have changed others meanwhile. The file is replaced
    as a whole, under a lock, so that nobody ever reads half of it.
    """
    changed = {key: line for key, line in after.items() if before.get(key) != line}
    if not changed:
        return 0
    file = file.resolve()  # a symlink is kept, and what it points to renewed
    with (file.parent / f".{file.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _sweep(file)
        merged = {**read_cookies(file), **changed}
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as out:
                out.write("# Netscape HTTP Cookie File\n\n")
                out.writelines(f"{line}\n" for line in merged.values())
                out.flush()
                os.fsync(out.fileno())
                model = file.stat()
                Path(name).replace(file)
                _make_alike(out.fileno(), model)  # last: until then only we read it
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    return len(changed)


def _sweep(file: Path) -> None:
    """Remove what one that was killed in between has left: as secret as the file itself."""
    ours = re.compile(rf"\.{re.escape(file.name)}\.[a-z0-9_]{{8}}")  # as mkstemp names them
    for left in file.parent.iterdir():
        if ours.fullmatch(left.name):
            left.unlink(missing_ok=True)


def _make_alike(handle: int, model: os.stat_result) -> None:
    """Readable for whom the operator's file was readable."""
    with contextlib.suppress(OSError):  # only root gives files away
        os.fchown(handle, model.st_uid, model.st_gid)
    os.fchmod(handle, stat.S_IMODE(model.st_mode))
