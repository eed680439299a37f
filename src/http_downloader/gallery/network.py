"""Every connection of a gallery process passes here: which address it may go to, and what the site answered."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import requests
from gallery_dl.exception import GalleryDLException

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")


class ForbiddenAddress(GalleryDLException):  # type: ignore[misc]
    """A connection that was refused before it was made.

    Not an OSError on purpose: urllib3, requests and gallery-dl try again after those, and this one never changes.
    """

    code = 128


def is_allowed(address: str, exceptions: Sequence[Network]) -> bool:
    """Whether an IP address is reachable for everybody, or lies in one of the networks that the operator allows.

    >>> is_allowed("93.184.216.34", ()), is_allowed("::ffff:127.0.0.1", ()), is_allowed("169.254.169.254", ())
    (True, False, False)
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False  # a name here would be resolved after the check: refuse
    if isinstance(ip, ipaddress.IPv6Address):
        # An IPv4 address inside counts as what it is: otherwise ::ffff:127.0.0.1 would be a way around.
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        ip = inner or ip
    if any(ip.version == network.version and ip in network for network in exceptions):
        return True
    if ip.version == 6 and ip not in _GLOBAL_UNICAST:
        return False  # what Python calls global there may be a translation to a private address, or site-local
    return ip.is_global and not ip.is_multicast


def refuse_private_addresses(exceptions: Sequence[Network], refused: Callable[[ForbiddenAddress], None]) -> None:
    """Check every connection of this process from now on: crawl, redirect and download alike, whichever library
    makes it. There is no way back: audit hooks stay for the life of the process."""

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event != "socket.connect":
            return
        connection, address = args
        if connection.family not in (socket.AF_INET, socket.AF_INET6) or is_allowed(str(address[0]), exceptions):
            return
        error = ForbiddenAddress(
            f"connection to {address[0]} port {address[1]} refused: private and local addresses are not allowed"
        )
        refused(error)
        raise error

    sys.addaudithook(audit)


def watch_answers(observe: Callable[[str, str, int, Mapping[str, str]], None]) -> None:
    """Call `observe(method, url, status, headers)` for every answer, also for those that an extractor passes
    over silently."""
    send = requests.Session.send

    def observed(session: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        response = send(session, request, **options)
        observe(str(request.method), str(request.url), response.status_code, response.headers)
        return response

    requests.Session.send = observed  # type: ignore[method-assign, assignment]
