"""What nobody may read in a log, an error or a list: passwords, tokens, cookies. Two ways to find them in a text: their
values are known, or they stand where secrets stand (the login of a URL, `token=` in its query, an Authorization header).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote

MASK = "***"

SHORTEST = 3
"""Characters. Shorter values cannot be kept secret: they stand everywhere by chance."""
SHORTEST_ANYWHERE = 6
"""Characters. A shorter value is hidden where it stands by itself, not in the middle of a word or a number."""

_LOGIN = re.compile(r"(?<=://)[^/?#\s\"'<>`]*@")
_SECRET_LOGIN = re.compile(r"(?<=://)(?!(?:user:password|[^/?#:@\s]*:\*\*\*)@)[^/?#\s\"'<>`]*@")
"""Not the one that we show as a pattern, nor one whose password is masked already: whose it is helps."""
_PASSWORDS = (
    re.compile(r"://[^/?#:\s]*:(?P<password>[^/?#\s]*)@"),
    re.compile(r"://[^/?#:\s]*:(?P<password>\S*)@"),  # what should have been percent-encoded, and was not
)

_NAME = (
    r"(?:[\w.-]{0,40}(?:token|secret|passwd|password|passphrase|api[_-]?key|signature|credential|session|jwt)[\w.-]{0,40}"
    r"|sig|key|pass|pwd|auth|auth[_-]?key|authorization|hmac|sid|code)"
)
_PARAMETER = re.compile(rf"(?P<name>[?&;#]{_NAME}=)[^&#;\s\"'<>]+", re.IGNORECASE)
_NAMED = re.compile(
    r"(?P<name>\b(?:(?:proxy-)?authorization|(?:set-)?cookie|password|passwd|pwd)\b[\"']?\s?[:=]\s?[\"']?"
    r"(?:(?:bearer|basic|digest|token)\s)?)[^\s\"',;&]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Without what stands where secrets stand.

    >>> masked("GET http://me:pw@host/a?page=2&api_key=1234 answered 401")
    'GET http://***@host/a?page=2&api_key=*** answered 401'
    """
    if "://" in text:
        text = _SECRET_LOGIN.sub(f"{MASK}@", text)
    if "=" in text:
        text = _PARAMETER.sub(rf"\g<name>{MASK}", text)
    if "=" in text or ":" in text:
        text = _NAMED.sub(rf"\g<name>{MASK}", text)
    return text


def without_login(url: str) -> str:
    """A URL without user name and password: what is recorded of a file, and told of it.

    >>> without_login("http://me:pw@host/a"), without_login("http://host/@me")
    ('http://host/a', 'http://host/@me')
    """
    return _LOGIN.sub("", url, count=1) if "@" in url else url


def without_secret_parameters(text: str) -> str:
    """A URL without the parameters that carry secrets, to make a name of."""
    return _PARAMETER.sub("", text)


def passwords_in(text: str) -> Iterator[str]:
    """The password of a URL, as written and as meant; and what its parameters carry."""
    passwords = (match["password"] for pattern in _PASSWORDS for match in pattern.finditer(text))
    for found in (*passwords, *_parameters(text)):
        yield found
        yield unquote(found)


def _parameters(text: str) -> Iterator[str]:
    for match in _PARAMETER.finditer(text):
        yield match[0].removeprefix(match["name"])


class Redaction:
    """`redaction(text)` is the text without the secrets that this has learned, nor what `masked` finds."""

    def __init__(self) -> None:
        self._long: list[str] = []
        self._short: re.Pattern[str] | None = None
        self._learned: set[str] = set()

    def learn(self, secrets: Iterable[str]) -> None:
        new = {form for secret in secrets if len(secret) >= SHORTEST for form in _forms(secret)}
        if new <= self._learned:
            return
        self._learned |= new
        # The longest first: one may be a part of another.
        ordered = sorted(self._learned, key=len, reverse=True)
        self._long = [secret for secret in ordered if len(secret) >= SHORTEST_ANYWHERE]
        short = "|".join(re.escape(secret) for secret in ordered if len(secret) < SHORTEST_ANYWHERE)
        self._short = re.compile(rf"(?<!\w)(?:{short})(?!\w)") if short else None

    def __call__(self, text: str) -> str:
        for secret in self._long:
            if secret in text:
                text = text.replace(secret, MASK)
        if self._short is not None:
            text = self._short.sub(MASK, text)
        return masked(text)


def _forms(secret: str) -> set[str]:
    """How it may be written: as it is, in a URL, in JSON, in a Python value."""
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        json.dumps(secret)[1:-1],
        repr(secret)[1:-1],
    }
