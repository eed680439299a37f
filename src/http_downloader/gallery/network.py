"""Every connection of a gallery process passes here: which address it may go to."""

from __future__ import annotations

import ipaddress
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any
from urllib.parse import urlsplit

from gallery_dl.exception import GalleryDLException
from requests.utils import select_proxy

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
_INWARD = tuple(map(ipaddress.IPv4Network, ("192.0.0.0/24", "168.63.129.16/32")))
"""What Python takes for global, and is not: protocol assignments, where one cloud has its metadata (older Pythons know
only parts of these), and the address where another one answers its own machines. Sources: RFC 6890; Azure's and Oracle's
documentation."""

_INTERNET = (socket.AF_INET, socket.AF_INET6)
_EVENTS = ("socket.connect", "socket.sendto")
_NOT_ALLOWED = "private and local addresses are not allowed"
_PROXY_PORTS = {"http": 80, "https": 443}


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
    return ip.is_global and not ip.is_multicast and not any(ip.version == 4 and ip in network for network in _INWARD)


def refuse_private_addresses(
    exceptions: Sequence[Network], proxies: Set[tuple[str, int]], refused: Callable[[ForbiddenAddress], None]
) -> None:
    """Check every connection of this process from now on: crawl, redirect and download alike, whichever library
    makes it. `proxies`: addresses and ports of the operator's own, which may be anywhere. There is no way back: audit
    hooks stay for the life of the process."""

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event not in _EVENTS:
            return
        connection, address = args
        if connection.family not in _INTERNET or is_allowed(str(address[0]), exceptions):
            return
        if event == "socket.connect" and tuple(address[:2]) in proxies:
            return
        error = ForbiddenAddress(f"connection to {address[0]} port {address[1]} refused: {_NOT_ALLOWED}")
        refused(error)
        raise error

    sys.addaudithook(audit)


def refuse_every_connection() -> None:
    """For a process that has nothing to ask of anybody."""

    def audit(event: str, args: tuple[Any, ...]) -> None:
        if event in _EVENTS and args[0].family in _INTERNET:
            raise ForbiddenAddress("this process makes no connections")

    sys.addaudithook(audit)


def check_behind_proxy(url: str, proxies: Mapping[str, str], exceptions: Sequence[Network]) -> None:
    """What a proxy connects to is not seen here. An address in the URL itself is: raises `ForbiddenAddress`."""
    host = urlsplit(url).hostname or ""
    if not host or select_proxy(url, proxies) is None:
        return
    address = _address_in(host)
    if address is not None and not is_allowed(address, exceptions):
        raise ForbiddenAddress(f"request for {host} through a proxy refused: {_NOT_ALLOWED}")


def _address_in(host: str) -> str | None:
    """The address that a host is by itself, in any spelling that a resolver takes; None for a name."""
    host = host.rstrip(".")
    if host == "localhost" or host.endswith(".localhost"):
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host)) if host[:1].isdigit() else None
    except OSError:
        return None


def proxies_in(config: Mapping[str, Any], environment: Mapping[str, str]) -> frozenset[tuple[str, int]]:
    """Addresses and ports of the proxies that the operator has set, in the gallery-dl configuration or the environment
    (as `urllib.request.getproxies` gives it). Names are looked up: once, since it is the operator's own machine."""
    urls = {url for scheme, url in environment.items() if scheme != "no"} | set(_proxy_urls(config))
    found: set[tuple[str, int]] = set()
    for url in urls:
        try:
            parts = urlsplit(url if "://" in url else f"http://{url}")
            host, port = parts.hostname, parts.port or _PROXY_PORTS.get(parts.scheme.lower(), 1080)
            if host:
                found |= {(str(info[4][0]), port) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
        except (OSError, ValueError):  # it will fail where it is used, with the reason
            continue
    return frozenset(found)


def _proxy_urls(section: Mapping[str, Any]) -> Iterator[str]:
    for key, value in section.items():
        if key == "proxy":
            yield from (url for url in (value.values() if isinstance(value, dict) else [value]) if isinstance(url, str))
        elif isinstance(value, dict):
            yield from _proxy_urls(value)
