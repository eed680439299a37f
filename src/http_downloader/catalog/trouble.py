"""What the three engines say when something is wrong, and what a person can do about it."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError

_CONFLICTS = {1020, 1213, "40001", "40P01"}
"""Deadlock and a row that has changed (MariaDB), serialization failure and deadlock (PostgreSQL): over at once."""

LOCKED = "another program holds it locked; wait for that program, or end it"
_FULL = "its disk is full; make room there"
_READ_ONLY = "it can only be read; make its file, its folder and their disk writable for this user"
_DAMAGED = "the file is damaged, or no catalog; move it away and put a backup in its place"
_CROWDED = "the server has too many connections; let it have more (a worker needs 4), or run fewer workers"
_READ_ONLY_SERVER = "the server lets nobody write, or not this user; end its read-only mode"
_NO_ACCESS = "check user, password and database in DATABASE_URL, and what the server allows this user"
_OTHER_SCHEMA = "its tables are not those that this program knows; see: http-downloader db upgrade --check"
_AWAY = "see whether the server runs, and check host and port in DATABASE_URL"

_BY_NAME = {
    "BUSY": LOCKED,
    "LOCKED": LOCKED,
    "FULL": _FULL,
    "READONLY": _READ_ONLY,
    "CANTOPEN": "check the path in DATABASE_URL, that this user may write in that folder, and that it is not mounted read-only",
    "PERM": "check the owner and the mode of the file and its folder",
    "CORRUPT": _DAMAGED,
    "NOTADB": _DAMAGED,
    "IOERR": "its disk cannot be read or written; check that disk and its free space",
}
"""SQLite: by the first part of the error's name."""

_BY_CODE: dict[object, str] = {
    # PostgreSQL
    "55P03": LOCKED,
    "25006": _READ_ONLY_SERVER,
    "53100": _FULL,
    "53200": "the server is out of memory",
    "53300": _CROWDED,
    "28000": _NO_ACCESS,
    "28P01": _NO_ACCESS,
    "3D000": "make the database, or name another one in DATABASE_URL",
    "42501": _NO_ACCESS,
    "42703": _OTHER_SCHEMA,
    "42P01": _OTHER_SCHEMA,
    "57P03": "wait until the server has started again",
    "57P01": _AWAY,
    "XX001": "a file of the server is damaged; see its log",
    "XX002": "an index of the server is damaged; see its log",
    # MariaDB and MySQL
    1205: LOCKED,
    1290: _READ_ONLY_SERVER,
    1792: _READ_ONLY_SERVER,
    1836: _READ_ONLY_SERVER,
    1021: _FULL,
    1114: _FULL,
    3: _FULL,
    1040: _CROWDED,
    1203: _CROWDED,
    1226: _CROWDED,
    1044: _NO_ACCESS,
    1045: _NO_ACCESS,
    1142: _NO_ACCESS,
    1698: _NO_ACCESS,
    1054: _OTHER_SCHEMA,
    1146: _OTHER_SCHEMA,
    1049: "make the database, or name another one in DATABASE_URL",
    1053: _AWAY,
    2002: _AWAY,
    2003: _AWAY,
    2006: _AWAY,
    2013: _AWAY,
}

_BY_WORDS = {
    "starting up": _BY_CODE["57P03"],
    "shutting down": _BY_CODE["57P03"],
    "recovery": _BY_CODE["57P03"],
    "too many": _CROWDED,
    "remaining connection slots": _CROWDED,
    "terminating connection": _AWAY,
}


def is_conflict(error: DBAPIError) -> bool:
    """Whether others were in the way for a moment: the same transaction may well succeed now."""
    return _code(error) in _CONFLICTS


def sentence(address: str, error: Exception) -> str:
    """What is wrong, in one line: the catalog, the driver's own words, and the remedy, where there is one."""
    remedy = remedy_for(error)
    return f"the catalog at {address} does not work: {_words(error)}" + (f"; {remedy}" if remedy else "")


def remedy_for(error: Exception) -> str:
    if not isinstance(error, DBAPIError):
        return ""
    name = getattr(error.orig, "sqlite_errorname", None)
    if name is not None:
        if _words(error).startswith("no such "):
            return _OTHER_SCHEMA
        return _BY_NAME.get(str(name).split("_")[1], "")
    if (remedy := _BY_CODE.get(_code(error))) is not None:
        return remedy
    if type(error.orig).__name__ != "OperationalError" or not (error.connection_invalidated or _code(error) is None):
        return ""
    # psycopg has no code for what happens before it is connected.
    words = _words(error)
    if "FATAL:" not in words:
        return _AWAY
    return next((remedy for part, remedy in _BY_WORDS.items() if part in words), _NO_ACCESS)


def _words(error: Exception) -> str:
    original: BaseException | None = error.orig if isinstance(error, DBAPIError) else error
    arguments = original.args if original is not None else ()
    # PyMySQL: (number, sentence)
    text = arguments[1] if len(arguments) == 2 and isinstance(arguments[0], int) else str(original)
    lines = str(text).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _code(error: DBAPIError) -> object:
    """MariaDB's number, or PostgreSQL's five letters; None when it was the driver that gave up."""
    original = error.orig
    first = original.args[0] if original is not None and original.args else None
    return first if isinstance(first, int) else getattr(original, "sqlstate", None)
