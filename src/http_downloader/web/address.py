"""The address at which the service can be asked."""

from __future__ import annotations

import http.client
import json
import os
import socket
from ipaddress import ip_address

from ..domain.errors import SettingsError, WebError

PATIENCE = 10.0
"""Seconds that a service may take to say whether it is ready."""


def listen(host: str, port: int, *, token: str) -> socket.socket:
    """A socket that takes connections as soon as somebody serves it.

    Raises `SettingsError` for an address beyond loopback without a token, `WebError` when it cannot be had.
    """
    family, address = _resolve(host, port)
    if not token and not ip_address(address[0].partition("%")[0]).is_loopback:
        raise SettingsError(
            f"HTTP_HOST is {host}, which others can reach; set HTTP_TOKEN, or HTTP_HOST=127.0.0.1, or HTTP_PORT=0"
        )
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        words = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise WebError(
            f"cannot listen at HTTP_HOST {host}, HTTP_PORT {port}: {words}; set another HTTP_PORT, or 0 for none"
        ) from error
    return listener


def _resolve(host: str, port: int) -> tuple[int, tuple[str, int]]:
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        words = error.strerror if isinstance(error, OSError) else "it is no name"
        raise WebError(f"HTTP_HOST {host} is no address of this machine: {words}; set HTTP_HOST=127.0.0.1") from error
    return family, address  # type: ignore[return-value]


def ask(host: str, port: int, *, token: str) -> dict[str, str] | None:
    """What a service that runs there says of each of its parts; None when nobody listens there.

    Raises `WebError` when somebody else does.
    """
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    try:
        connection.request("GET", "/readyz", headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = json.loads(connection.getresponse().read(100_000))
        return {str(part): str(words) for part, words in answer["checks"].items()}
    except ConnectionRefusedError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, http.client.HTTPException) as error:
        raise WebError(
            f"what listens at HTTP_HOST {host}, HTTP_PORT {port} is no service of ours; set another HTTP_PORT, or 0 for none"
        ) from error
    finally:
        connection.close()
