"""Which site a URL belongs to, answered by a small resident process: matching a URL needs every extractor loaded."""

from __future__ import annotations

import re
from multiprocessing.connection import Connection
from typing import Any

from gallery_dl import extractor
from gallery_dl.extractor.common import BaseExtractor

from ..domain.errors import OrderFault
from ..domain.orders import FORBIDDEN_PREFIXES
from ..domain.secrets import masked
from .messages import Question, Site, Unresolved
from .network import refuse_every_connection

_AUTHORITY_END = re.compile(r"https?://[^/?#]+", re.IGNORECASE)


def answer_questions(connection: Connection) -> None:
    """Until the pipe closes, which raises EOFError."""
    refuse_every_connection()  # a URL is looked at, and nobody is asked about it
    while True:
        question: Question = connection.recv()
        try:
            connection.send(resolve(question.url))
        except Exception as error:  # an extractor whose constructor does not expect this URL
            connection.send(
                Unresolved(
                    fault=OrderFault.NO_EXTRACTOR,
                    sentence=masked(f"gallery-dl cannot read the URL {question.url}: {error}"),
                )
            )


def resolve(url: str) -> Site | Unresolved:
    found = extractor.find(url)
    if found is None or found.category in FORBIDDEN_PREFIXES:
        return Unresolved(fault=OrderFault.NO_EXTRACTOR, sentence=masked(f"gallery-dl knows no site for the URL {url}"))
    authority = _AUTHORITY_END.search(url)
    if authority is None or found.match.end() < authority.end():
        # `generic:http://host:99/a` matches up to the port, and would silently crawl http://host.
        return Unresolved(
            fault=OrderFault.TRUNCATED_URL,
            sentence=masked(
                f"gallery-dl would read only {found.match[0]!r} of the URL {url} and crawl another address"
            ),
        )
    return Site(name=_site(found, authority[0]), category=found.category)


def _site(found: Any, authority: str) -> str:
    """gallery-dl's category; host and port where many hosts share one category."""
    host = authority.partition("://")[2].lower()
    if found.category in ("directlink", "generic"):
        return host[:255]
    if isinstance(found, BaseExtractor) and found.category == found.root.partition("://")[2]:
        return host[:255]  # an instance that no configuration names
    return str(found.category)[:255]
