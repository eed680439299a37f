"""No connection to a private or local address unless it is allowed: in the crawl, in a redirect, in a download."""

from __future__ import annotations

import ipaddress
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from http_downloader.gallery.network import ForbiddenAddress, check_behind_proxy, is_allowed, proxies_in
from tests.installation import Installation
from tests.site import FaultySite, Post, redirect

ONLY_THIS_HOST = {"ALLOW_PRIVATE_ADDRESSES": "127.0.0.1", "SYNC_ATTEMPTS": 4, "SYNC_RETRY_DELAY": 0.05}


class Bystander:
    """Listens on another loopback address; the kernel completes connections to it by itself."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.2", 0))
        self._socket.setblocking(False)
        self.port = self._socket.getsockname()[1]

    def was_called(self) -> bool:
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def bystander() -> Iterator[Bystander]:
    bystander = Bystander()
    yield bystander
    bystander.close()


def sync(machine: Installation, site: FaultySite) -> tuple[int, list[dict[str, Any]], str]:
    done = machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a", "--source-id", "1", "--json")
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_bystander_notices_a_call(bystander: Bystander) -> None:
    """What the tests below rely on: a connection that is made is seen."""
    assert not bystander.was_called()
    socket.create_connection(("127.0.0.2", bystander.port)).close()
    assert bystander.was_called()


def test_a_local_source_is_refused(install: Callable[..., Installation]) -> None:
    """Without ALLOW_PRIVATE_ADDRESSES a source on loopback fails with one clear line: no retry, no connection."""
    machine = install(ALLOW_PRIVATE_ADDRESSES=False, SYNC_ATTEMPTS=4, SYNC_RETRY_DELAY=0.05)
    with FaultySite([Post(id=1)]) as site:
        done = machine.sync(f"Danbooru:{site.root}/posts?tags=demo", "--to", "a", "--quiet")
        assert done.returncode == 5
        sentence = f"connection to 127.0.0.1 port {site.port} refused: private and local addresses are not allowed"
        assert (done.stdout, done.stderr) == ("", f"failed: {sentence}\n")
        assert (site.log, site.max_connections) == ([], 0)
    (run,) = machine.runs()
    assert (run["state"], run["reason"], run["detail"]) == ("failed", "forbidden-address", sentence)
    assert (run["attempt"], run["gaps"]) == (1, [])
    assert machine.on_disk() == {}


def test_a_local_direct_link_is_refused(install: Callable[..., Installation]) -> None:
    """A direct link makes no listing request: its download is refused all the same."""
    machine = install(ALLOW_PRIVATE_ADDRESSES=False, SYNC_ATTEMPTS=4, SYNC_RETRY_DELAY=0.05)
    with FaultySite() as site:
        done = machine.sync(f"{site.root}/direct/one.png", "--to", "a", "--json")
        assert done.returncode == 5
        (event,) = [json.loads(line) for line in done.stdout.splitlines()]
        assert (event["state"], event["reason"]) == ("failed", "forbidden-address")
        assert (site.log, site.max_connections) == ([], 0)
    assert machine.on_disk() == {}


@pytest.mark.parametrize("host", ["127.0.0.2", "[::ffff:127.0.0.2]", "2130706434"])
def test_a_file_that_leads_to_a_local_address(
    install: Callable[..., Installation], bystander: Bystander, host: str
) -> None:
    """A redirect of a file is refused, however the address is written: no connection, no retry; the others arrive."""
    machine = install(**ONLY_THIS_HOST)
    with FaultySite([Post(id=1), Post(id=2), Post(id=3)]) as site:
        site.rule(Post(id=2).path, redirect(f"http://{host}:{bystander.port}/secret.png"))
        code, events, errors = sync(machine, site)
        assert code == 5
        assert not bystander.was_called()
        assert len(site.requests(Post(id=2).path)) == 1
        assert sorted(machine.on_disk().values()) == sorted(Post(id=number).content() for number in (1, 3))
        kinds = [event["event"] for event in events]
        assert kinds == ["file-downloaded", "file-downloaded", "source-sync-failed"]
        assert (events[2]["state"], events[2]["reason"]) == ("failed", "forbidden-address")
        assert f"port {bystander.port} refused: private and local addresses are not allowed" in events[2]["detail"]
        assert "next try" not in errors


def test_a_listing_that_leads_to_a_local_address(install: Callable[..., Installation], bystander: Bystander) -> None:
    """A redirect of the listing is refused: no connection, no retry, and nothing becomes missing."""
    machine = install(**ONLY_THIS_HOST)
    with FaultySite([Post(id=1), Post(id=2)]) as site:
        assert sync(machine, site)[0] == 0
        site.clear_log()
        site.rule("/posts.json", redirect(f"http://127.0.0.2:{bystander.port}/posts.json"))
        code, events, _ = sync(machine, site)
        assert code == 5
        assert not bystander.was_called()
        assert len(site.log) == 1
        (event,) = events
        assert (event["state"], event["reason"]) == ("failed", "forbidden-address")
        assert event["detail"] == (
            f"connection to 127.0.0.2 port {bystander.port} refused: private and local addresses are not allowed"
        )
        assert {row["state"] for row in machine.files(1)} == {"present"}


def test_a_network_that_is_allowed(install: Callable[..., Installation]) -> None:
    """An allowed network is a network: its addresses may be redirected to."""
    machine = install(**ONLY_THIS_HOST | {"ALLOW_PRIVATE_ADDRESSES": "10.0.0.0/8,127.0.0.0/8"})
    with FaultySite([Post(id=1)]) as site:
        site.rule(Post(id=1).path, redirect(f"http://localhost:{site.port}/direct/moved.png"))
        assert sync(machine, site)[0] == 0
        assert len(machine.on_disk()) == 1


def test_a_name_that_leads_to_a_local_address(install: Callable[..., Installation]) -> None:
    """A name of the site's own choosing is looked up first, and its address is what counts: no connection."""
    machine = install(ALLOW_PRIVATE_ADDRESSES=False, SYNC_ATTEMPTS=4, SYNC_RETRY_DELAY=0.05)
    with FaultySite([Post(id=1)]) as site:
        done = machine.sync(f"Danbooru:http://localhost:{site.port}/posts?tags=demo", "--to", "a", "--quiet")
        assert done.returncode == 5
        assert f"port {site.port} refused: private and local addresses are not allowed" in done.stderr
        assert (site.log, site.max_connections) == ([], 0)


def test_looking_at_a_url_connects_to_nobody(install: Callable[..., Installation], bystander: Bystander) -> None:
    """The process that looks up URLs makes no connection at all, not even where everything is allowed."""
    machine = install()
    extractors = machine.home / "extractors"
    extractors.mkdir()
    (extractors / "curious.py").write_text(
        f"""
import socket
from gallery_dl.extractor.common import Extractor

class CuriousExtractor(Extractor):
    category = "curious"
    pattern = r"https?://curious\\.example/"

    def __init__(self, match):
        Extractor.__init__(self, match)
        socket.create_connection(("127.0.0.2", {bystander.port}))
"""
    )
    machine.configure({"extractor": {"module-sources": [str(extractors), None]}})
    done = machine.sync("http://curious.example/", "--to", "a", "--quiet")
    assert done.returncode == 2, done.stderr
    assert "this process makes no connections" in done.stderr
    assert not bystander.was_called()


# Behind a proxy.


@pytest.mark.parametrize("set_in", ["configuration", "environment"])
def test_a_proxy_of_the_operator_may_be_anywhere(
    install: Callable[..., Installation], bystander: Bystander, set_in: str
) -> None:
    """A proxy on a private address is used, exactly that one. What it connects to is its own affair, but a private
    address that stands in a URL is refused here: the proxy is not even asked."""
    machine = install(ALLOW_PRIVATE_ADDRESSES=False, SYNC_ATTEMPTS=4, SYNC_RETRY_DELAY=0.05)
    gallery = "http://gallery.example"
    with FaultySite() as site:  # it answers like a proxy: a request names its host in its first line
        if set_in == "configuration":
            machine.configure({"extractor": {"sleep-request": 0, "proxy": site.root, "Danbooru": {"sleep-request": 0}}})
        else:
            machine.set(HTTP_PROXY=site.root, http_proxy=site.root, NO_PROXY="", no_proxy="")
        inside = f"http://127.0.0.2:{bystander.port}/secret.png"
        posts = [Post(id=number, told={"file_url": f"{gallery}{Post(id=number).path}"}) for number in (1, 3)]
        site.add(*posts, Post(id=2, told={"file_url": inside}))
        done = machine.sync(f"Danbooru:{gallery}/posts?tags=demo", "--to", "a", "--json")
        assert done.returncode == 5, done.stderr
        last = json.loads(done.stdout.splitlines()[-1])
        assert last["reason"] == "forbidden-address"
        assert "request for 127.0.0.2 through a proxy refused: private and local addresses are" in last["detail"]
        assert sorted(machine.on_disk().values()) == sorted(post.content() for post in posts)
        assert site.requests("secret") == []
    assert not bystander.was_called()


def test_a_proxy_does_not_open_its_machine(install: Callable[..., Installation], bystander: Bystander) -> None:
    """Without the proxy in between, another port of its address stays refused."""
    machine = install(ALLOW_PRIVATE_ADDRESSES=False, SYNC_ATTEMPTS=1)
    machine.set(HTTP_PROXY="http://127.0.0.2:9", http_proxy="http://127.0.0.2:9", NO_PROXY="127.0.0.2")
    done = machine.sync(f"http://127.0.0.2:{bystander.port}/one.png", "--to", "a", "--quiet")
    assert done.returncode == 5
    assert f"connection to 127.0.0.2 port {bystander.port} refused" in done.stderr
    assert not bystander.was_called()


def test_proxies_of_the_configuration() -> None:
    """Every `proxy` counts, wherever it stands, as a text or by scheme; what cannot be looked up is left out."""
    config = {
        "extractor": {
            "proxy": "http://user:secret@192.168.1.1:3128",
            "pixiv": {"proxy": {"http": "10.0.0.1", "https://example.org": "socks5h://[fd00::1]"}},
        },
        "downloader": {"http": {"proxy": None}, "proxy": "https://10.0.0.2"},
        "proxy": "http://no-such-name.invalid:1",
    }
    environment = {"http": "http://10.0.0.3:8080", "no": "10.0.0.4", "all": "http://10.0.0.5:none"}
    assert proxies_in(config, environment) == {
        ("192.168.1.1", 3128),
        ("10.0.0.1", 80),
        ("fd00::1", 1080),
        ("10.0.0.2", 443),
        ("10.0.0.3", 8080),
    }


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "2130706433", "0x7f000001", "[::1]", "[::ffff:10.0.0.1]", "localhost", "a.localhost."],
)
def test_addresses_in_a_url_behind_a_proxy(host: str) -> None:
    """A private address is refused in every spelling that a proxy may understand, unless it is allowed."""
    url, proxies = f"http://{host}/x", {"http": "http://10.0.0.1:3128"}
    with pytest.raises(ForbiddenAddress, match="through a proxy refused"):
        check_behind_proxy(url, proxies, ())
    check_behind_proxy(url, {}, ())  # the connection itself will be looked at
    anything = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
    check_behind_proxy(url, proxies, anything)


@pytest.mark.parametrize("host", ["example.org", "93.184.216.34", "[2606:4700:4700::1111]", "1.example"])
def test_other_hosts_behind_a_proxy(host: str) -> None:
    check_behind_proxy(f"http://{host}/x", {"http": "http://10.0.0.1:3128"}, ())


# Which addresses those are.

PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",  # a provider's own network (CGNAT)
    "127.0.0.1",
    "169.254.169.254",  # where clouds hand out credentials
    "100.100.100.200",
    "192.0.0.192",
    "168.63.129.16",
    "fd00:ec2::254",
    "fd20:ce::254",
    "::ffff:169.254.169.254",
    "::ffff:168.63.129.16",
    "172.16.0.1",
    "192.0.0.170",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.255.255.250",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",  # 127.0.0.1, IPv4-compatible
    "::ffff:127.0.0.1",
    "::ffff:0:7f00:1",  # 127.0.0.1, IPv4-translated
    "64:ff9b::7f00:1",  # 127.0.0.1 behind NAT64
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::a00:1",  # NAT64 of a local network
    "2002:7f00:1::",  # 127.0.0.1 in 6to4
    "2002:c0a8:101::1",
    "2001:0:4136:e378:8000:63bf:807f:fffe",  # 127.128.0.1 in Teredo
    "fc00::1",
    "fd12:3456::1",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
]
PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
NO_ADDRESSES = ["localhost", "example.org", "", "127.1", "0x7f000001", "2130706433", "127.0.0.1:80", "[::1]", "\x00"]


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address: str) -> None:
    """Loopback, private, link-local, multicast, reserved, and whatever holds one of these inside: refused."""
    assert not is_allowed(address, ())


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    """What everybody can reach is allowed, also behind a translation."""
    assert is_allowed(address, ())


@pytest.mark.parametrize("name", NO_ADDRESSES)
def test_names_are_no_addresses(name: str) -> None:
    """A name would be looked up after the check: refused, even where every address is allowed."""
    assert not is_allowed(name, (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0")))


def test_exceptions() -> None:
    """A network of the operator is allowed, in all spellings of its addresses; its neighbours are not."""
    networks = (ipaddress.ip_network("192.168.1.0/24"), ipaddress.ip_network("fd00::/8"))
    assert all(is_allowed(address, networks) for address in ("192.168.1.7", "::ffff:192.168.1.7", "fd00::1"))
    assert not any(is_allowed(address, networks) for address in ("192.168.2.7", "127.0.0.1", "fe80::1", "::1"))


@given(st.ip_addresses(v=4))
@example(ipaddress.IPv4Address("169.254.169.254"))
@example(ipaddress.IPv4Address("224.0.0.1"))
@example(ipaddress.IPv4Address("192.0.0.9"))
@example(ipaddress.IPv4Address("168.63.129.16"))
def test_no_way_around_by_wrapping(address: ipaddress.IPv4Address) -> None:
    """An IPv4 address inside an IPv6 address is judged as what it is."""
    number = int(address)
    wrapped = [
        ipaddress.IPv6Address((0xFFFF << 32) | number),
        ipaddress.IPv6Address((0x64FF9B << 96) | number),
        ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
        ipaddress.IPv6Address((0x20010000 << 96) | (number ^ 0xFFFFFFFF)),
    ]
    inward = str(address) == "168.63.129.16" or address in ipaddress.ip_network("192.0.0.0/24")
    expected = address.is_global and not address.is_multicast and not inward
    assert is_allowed(str(address), ()) == expected
    assert [is_allowed(str(other), ()) for other in wrapped] == [expected] * len(wrapped)


@given(st.ip_addresses(v=6))
def test_only_global_unicast_of_ipv6(address: ipaddress.IPv6Address) -> None:
    """Outside of 2000::/3 nothing but a translated public IPv4 address is allowed."""
    inside = address in ipaddress.ip_network("2000::/3")
    translated = address.ipv4_mapped is not None or address in ipaddress.ip_network("64:ff9b::/96")
    assert inside or translated or not is_allowed(str(address), ())
    assert is_allowed(str(address), (ipaddress.ip_network("::/0"), ipaddress.ip_network("0.0.0.0/0")))
