"""Every connection of a gallery process passes here: which address it may go to, and what the site answered."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable
from typing import Any

import requests
from gallery_dl.exception import GalleryDLException


class ForbiddenAddress(GalleryDLException):  # type: ignore[misc]
    """A connection that was refused before it was made.

    Not an OSError on purpose: urllib3, requests and gallery-dl try again after those, and this one never changes.
    """

    code = 128


def is_public(address: str) -> bool:
    """Whether an IP address is reachable for everybody, also when one family is written in the other.

    >>> is_public("93.184.216.34"), is_public("::ffff:127.0.0.1"), is_public("169.254.169.254")
    (True, False, False)
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False  # a name here would be resolved after the check: refuse
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner is None and ip in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast


def refuse_private_addresses(refused: Callable[[ForbiddenAddress], None]) -> None:
    """Check every connection of this process from now on: crawl, redirect and download alike, whichever library
    makes it. There is no way back: audit hooks stay for the life of the process."""

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event != "socket.connect":
            return
        connection, address = args
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or is_public(str(address[0])):
            return
        error = ForbiddenAddress(
            f"connection to {address[0]} port {address[1]} refused: private and local addresses are not allowed"
        )
        refused(error)
        raise error

    sys.addaudithook(audit)


def watch_answers(observe: Callable[[str, str, int], None]) -> None:
    """Call `observe(method, url, status)` for every answer, also for those that an extractor passes over silently."""
    send = requests.Session.send

    def observed(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        response = send(session, request, **options)
        observe(str(request.method), str(request.url), response.status_code)
        return response

    requests.Session.send = observed  # type: ignore[method-assign, assignment]
