"""The broker's address, as an operator writes it."""

from __future__ import annotations

from urllib.parse import urlsplit

import pika


def parse_address(url: str, heartbeat: int) -> pika.URLParameters:
    """Raises ValueError with a sentence that shows nothing of the URL, as a part of it may be the password."""
    problem = "it is not of the form amqp://user:password@host:port/vhost"
    try:
        parts = urlsplit(url)
        if parts.scheme not in {"amqp", "amqps"}:
            problem = "it has to begin with amqp:// or amqps://"
        elif "@" in parts.path + parts.query or parts.fragment or parts.path.count("/") > 1:
            problem = "special characters of user, password and vhost have to be percent-encoded (/ is %2F)"
        elif parts.hostname and (parts.username is None) == (parts.password is None):
            parameters = pika.URLParameters(url)
            if parameters.heartbeat is None:
                parameters.heartbeat = heartbeat
            return parameters
    except (ValueError, TypeError, SyntaxError, OSError):
        pass  # their texts quote the URL
    raise ValueError(f"the broker's URL cannot be used: {problem}")
