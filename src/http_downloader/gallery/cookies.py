"""Cookies: a private copy for each run, and what the site changed merged back after a good one, for all workers that
share the file, on other machines too.

Files are in the Netscape format: seven fields separated by tabs, `#HttpOnly_` in front of a line is part of it.
"""

from __future__ import annotations

import contextlib
import errno
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


class ReadOnlyError(Exception):
    """The argument is the file: it lies where we may read and not write, as a mounted secret does."""


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
    """Bring what a run changed into the file that all runs share. Returns how many cookies changed there.

    Only changed and new cookies are brought: another run may have changed others meanwhile. Where somebody else has
    changed the same one, the newer stays. The file is replaced as a whole, under a lock, so that nobody ever reads half
    of it. Raises `ReadOnlyError` when this file is not for us to change, else OSError or `UnreadableCookiesError`.
    """
    changed = {key: line for key, line in after.items() if before.get(key) != line}
    if not changed:
        return 0
    file = file.resolve()  # a symlink is kept, and what it points to renewed
    try:
        # flock() holds between machines, too, on NFS and SMB: Linux makes a lock of the server's of it.
        with (file.parent / f".{file.name}.lock").open("w") as lock:
            with contextlib.suppress(PermissionError):  # it is another worker's, who has done so
                os.fchmod(lock.fileno(), stat.S_IMODE(file.parent.stat().st_mode) & 0o666)
            fcntl.flock(lock, fcntl.LOCK_EX)
            _sweep(file)
            there = read_cookies(file)
            newer = {
                key: line
                for key, line in changed.items()
                if there.get(key) in (None, before.get(key)) or _expires(line) > _expires(there[key])
            }
            if newer:
                _replace(file, {**there, **newer})
            return len(newer)
    except OSError as error:
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise ReadOnlyError(file) from None
        raise


def _replace(file: Path, cookies: dict[Key, str]) -> None:
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write("# Netscape HTTP Cookie File\n\n")
            out.writelines(f"{line}\n" for line in cookies.values())
            out.flush()
            _make_alike(out.fileno(), file.stat())  # before it has the name: who may read the file can read it always
            os.fsync(out.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _expires(line: str) -> float:
    """Seconds since 1970. What a site renews it lets last from then on: the later one is the newer one. One without a
    time of its own proves nothing."""
    expires = line.split("\t")[4]
    return float(expires) if expires.isdecimal() else 0


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
