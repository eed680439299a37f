"""The gallery of the demo and of the tests, asked by real clients."""

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from http_downloader.demo.pictures import picture
from http_downloader.demo.site import GallerySite
from tests.site import (
    FaultySite,
    Post,
    cut,
    direct_picture,
    drip,
    empty_listing,
    hang,
    hang_up,
    login_page,
    raw,
    redirect,
    set_cookie,
    status,
)


@pytest.fixture
def site() -> Iterator[FaultySite]:
    """A site with three posts."""
    with FaultySite([Post(id=n, body=b"body of %d" % n) for n in (1, 2, 3)]) as site:
        yield site


@pytest.fixture
def client() -> Iterator[requests.Session]:
    """A client that asks nobody but the site."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


def crawl(url: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Mirror `url` flat into `folder` with the real gallery-dl."""
    command = [sys.executable, "-m", "gallery_dl", "--config-ignore", "-D", str(folder)]
    settings = ("sleep-request=0", "retries=1", "cache.file=null", "filename={filename}.{extension}")
    for setting in settings:
        command += ["-o", setting]
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        [*command, *options, url], capture_output=True, text=True, timeout=60, check=False, env=environment
    )


def ids(response: requests.Response) -> list[int]:
    """The ids that a listing names."""
    return [post["id"] for post in response.json()]


# Pictures


def test_picture_is_a_png_and_follows_from_its_seed() -> None:
    """The same seed gives the same bytes, another seed others, and the size is the one asked for."""
    assert picture(1) == picture(1) != picture(2)
    assert picture(5, 64, 48).startswith(b"\x89PNG\r\n\x1a\n")
    assert picture(5, 64, 48)[16:24] == (64).to_bytes(4, "big") + (48).to_bytes(4, "big")


# Real gallery-dl


def test_gallery_dl_mirrors_every_page(tmp_path: Path) -> None:
    """450 posts on three pages arrive byte for byte, and each is asked for once."""
    posts = [Post(id=n, body=b"picture %d" % n) for n in range(1, 451)]
    with FaultySite(posts) as site:
        result = crawl(f"Danbooru:{site.root}/posts?tags=demo", tmp_path)

        assert (result.returncode, result.stderr) == (0, "")
        assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
            f"{post.md5}.png": post.content() for post in posts
        }
        assert len(site.requests(r"/posts\.json")) == 3
        assert len(site.requests("^/data/")) == 450
        assert site.max_active == site.max_active_files == site.max_active_listings == 1


def test_gallery_dl_is_shown_other_kinds_of_sources(site: FaultySite, tmp_path: Path) -> None:
    """A moebooru source, a single post and a direct link work as well as a search."""
    moebooru = crawl(f"moebooru:{site.root}/post?tags=demo", tmp_path / "moebooru")
    single = crawl(f"Danbooru:{site.root}/posts/2", tmp_path / "single")
    direct = crawl(f"{site.root}/direct/one.png", tmp_path / "direct")

    assert (moebooru.returncode, single.returncode, direct.returncode) == (0, 0, 0)
    assert len(list((tmp_path / "moebooru").iterdir())) == 3
    assert [file.read_bytes() for file in (tmp_path / "single").iterdir()] == [b"body of 2"]
    assert (tmp_path / "direct" / "one.png").read_bytes() == direct_picture("/direct/one.png")


def test_gallery_dl_finds_all_posts_from_the_oldest_on(tmp_path: Path) -> None:
    """order:id pages forwards; hidden posts are listed without an address and left out."""
    posts = [Post(id=n, body=b"%d" % n, hidden=n == 7) for n in range(1, 451)]
    with FaultySite(posts) as site:
        result = crawl(f"Danbooru:{site.root}/posts?tags=demo+order:id", tmp_path, "--simulate", "-v")

        assert result.returncode == 0
        names = [line.strip("# ").rpartition("/")[2] for line in result.stdout.splitlines()]
        assert names == [f"{post.md5}.png" for post in posts if not post.hidden]


# The well-behaved part


def test_listing_pages_newest_first(site: FaultySite, client: requests.Session) -> None:
    """Pages go by number or by a border, and hold no more than was asked for."""
    listing = f"{site.root}/posts.json?tags=demo&limit=2"
    assert ids(client.get(listing)) == [3, 2]
    assert ids(client.get(f"{listing}&page=2")) == [1]
    assert ids(client.get(f"{listing}&page=b3")) == [2, 1]
    assert ids(client.get(f"{listing}&page=a1")) == [3, 2]
    assert ids(client.get(f"{listing}&page=b1")) == []


def test_posts_come_and_go_while_the_site_runs(site: FaultySite, client: requests.Session) -> None:
    """A removed post is gone with its file, an added one is there, one with a known id replaces it."""
    gone = site.file_url(site.posts[0])
    site.remove(3)
    site.add(Post(id=4), Post(id=1, body=b"drawn anew"))
    assert ids(client.get(f"{site.root}/posts.json")) == [4, 2, 1]
    assert client.get(gone).status_code == 404
    assert client.get(site.file_url(site.posts[-1])).content == b"drawn anew"


def test_albums_hold_files_of_the_same_name(client: requests.Session) -> None:
    """Two tags name two files whose addresses differ in the folder only."""
    a = Post(id=1, tags=("albumA",), folder="albumA", name="1", body=b"a")
    b = Post(id=2, tags=("albumB",), folder="albumB", name="1", body=b"b")
    with FaultySite([a, b]) as site:
        assert ids(client.get(f"{site.root}/posts.json?tags=albumA")) == [1]
        assert client.get(f"{site.root}/data/albumA/1.png").content == b"a"
        assert client.get(f"{site.root}/data/albumB/1.png").content == b"b"


def test_file_comes_with_its_date_and_in_parts(site: FaultySite, client: requests.Session) -> None:
    """Last-Modified is the post's date, and a Range is honoured or refused."""
    url = site.file_url(site.posts[0])
    whole, rest = client.get(url), client.get(url, headers={"Range": "bytes=5-"})
    assert whole.headers["Last-Modified"] == "Thu, 01 Jan 2026 00:00:00 GMT"
    assert (rest.status_code, rest.content, rest.headers["Content-Range"]) == (206, b"of 3", "bytes 5-8/9")
    assert client.get(url, headers={"Range": "bytes=9-"}).status_code == 416
    assert client.head(url).headers["Content-Length"] == "9"


def test_pages_for_people_show_pictures(site: FaultySite, client: requests.Session) -> None:
    """The front page shows every post, and a plain page as many direct links as its name says."""
    assert client.get(site.root).text.count("<img ") == 3
    page = client.get(f"{site.root}/plain/4.html").text
    assert page.count("<img ") == 4
    assert f'"{site.root}/direct/plain/4.png"' in page
    assert client.get(f"{site.root}/nowhere").status_code == 404


def test_closing_leaves_nothing_behind(client: requests.Session) -> None:
    """After the with block no thread runs and nobody listens, though a client kept its connection."""
    before = set(threading.enumerate())
    with GallerySite([Post(id=1)]) as site:
        client.get(site.root)
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before
    with pytest.raises(requests.ConnectionError):
        client.get(site.root)


def test_site_comes_back_at_the_same_address(site: FaultySite, client: requests.Session) -> None:
    """A stopped site refuses connections, and a started one has its posts and its port again."""
    root = site.root
    client.get(root)
    site.stop()
    with pytest.raises(requests.ConnectionError):
        client.get(root)
    site.start()
    assert (site.root, ids(client.get(f"{root}/posts.json"))) == (root, [3, 2, 1])


# What goes wrong


def test_status_with_headers_fires_as_often_as_told(site: FaultySite, client: requests.Session) -> None:
    """A rule with times=2 answers twice, and then the site behaves."""
    rule = site.rule(r"/posts\.json", status(429, {"Retry-After": "7"}), times=2)
    answers = [client.get(f"{site.root}/posts.json") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert rule.fired == 2


def test_rule_can_mean_one_page(client: requests.Session) -> None:
    """page=2 is the second page, whether it is named by number or by a border."""
    with FaultySite([Post(id=n) for n in range(1, 8)]) as site:
        site.rule(r"/posts\.json", status(500), page=2)
        for page, expected in (("1", 200), ("2", 500), ("b5", 500), ("b2", 200), ("a3", 500)):
            answer = client.get(f"{site.root}/posts.json?tags=demo&limit=3&page={page}")
            assert (page, answer.status_code) == (page, expected)
        site.clear_rules()
        assert client.get(f"{site.root}/posts.json?limit=3&page=2").status_code == 200


def test_redirect_leads_elsewhere(site: FaultySite, client: requests.Session) -> None:
    """The client is sent to another address."""
    site.rule("^/old", redirect(f"{site.root}/direct/new.png", 301))
    assert client.get(f"{site.root}/old").content == direct_picture("/direct/new.png")


def test_listing_can_be_something_else(site: FaultySite, client: requests.Session) -> None:
    """In place of a listing there may be a login page, a listing of nothing, or any bytes."""
    for action in (login_page(), empty_listing(), raw(b"\xff\xfe", "image/png")):
        site.rule(r"/posts\.json", action, times=1)
    page, empty, garbage = (client.get(f"{site.root}/posts.json") for _ in range(3))
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert (empty.status_code, empty.json()) == (200, [])
    assert (garbage.content, garbage.headers["Content-Type"]) == (b"\xff\xfe", "image/png")


def test_hang_up_gives_no_answer(site: FaultySite) -> None:
    """The client reads the end of the connection, and the log shows a request without status."""
    site.rule("^/data/", hang_up())
    connection = http.client.HTTPConnection("127.0.0.1", site.port)
    connection.request("GET", "/data/x.png")
    with pytest.raises(http.client.RemoteDisconnected):
        connection.getresponse()
    connection.close()
    assert [(record.path, record.status) for record in site.log] == [("/data/x.png", None)]


@pytest.mark.parametrize("promise", [True, False])
def test_cut_ends_in_the_middle(site: FaultySite, promise: bool) -> None:
    """A cut body is an error only if its length was promised."""
    site.rule("^/data/", cut(after=4, promise=promise))
    connection = http.client.HTTPConnection("127.0.0.1", site.port)
    connection.request("GET", site.posts[0].path)
    response = connection.getresponse()
    if promise:
        with pytest.raises(http.client.IncompleteRead) as caught:
            response.read()
        assert caught.value.partial == b"body"
    else:
        assert response.read() == b"body"
    connection.close()


def test_hang_answers_late(site: FaultySite, client: requests.Session) -> None:
    """The usual answer comes after the pause."""
    site.rule("^/data/", hang(0.2))
    began = time.monotonic()
    assert client.get(site.file_url(site.posts[0])).content == b"body of 3"
    assert time.monotonic() - began >= 0.2


def test_stopping_ends_a_hanging_answer(site: FaultySite) -> None:
    """stop() does not wait for a hanging answer, and its client reads the end of the connection."""
    site.rule("^/data/", hang(60))
    with socket.create_connection(("127.0.0.1", site.port), timeout=10) as peer:
        peer.sendall(b"GET /data/x.png HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + 5
        while site.active == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        began = time.monotonic()
        site.stop()
        assert time.monotonic() - began < 2
        assert peer.recv(100) == b""


def test_drip_takes_its_time(site: FaultySite, client: requests.Session) -> None:
    """Nine bytes by two, with 50 ms between, take 200 ms and arrive whole."""
    site.rule("^/data/", drip(2, 0.05))
    began = time.monotonic()
    assert client.get(site.file_url(site.posts[0])).content == b"body of 3"
    assert 0.2 <= time.monotonic() - began < 2


def test_cookie_is_set_and_required(site: FaultySite, client: requests.Session) -> None:
    """Listings answer 401 until the client has the cookie that another page set."""
    site.require_cookie = ("session", "abc")
    site.rule("^/$", set_cookie("session", "abc"))
    assert client.get(f"{site.root}/posts.json").status_code == 401
    assert client.get(f"{site.root}/").status_code == 200
    assert client.get(f"{site.root}/posts.json").status_code == 200


# What was seen


def test_log_tells_the_requests(site: FaultySite, client: requests.Session) -> None:
    """A record has path, query, headers and status, and requests() finds it."""
    client.get(f"{site.root}/posts.json?tags=demo", headers={"X-Mark": "1"})
    client.get(f"{site.root}/nowhere")
    (record,) = site.requests(r"/posts\.json")
    assert (record.method, record.path, record.status) == ("GET", "/posts.json?tags=demo", 200)
    assert record.headers["X-Mark"] == "1"
    assert [entry.status for entry in site.log] == [200, 404]
    assert site.log[0].at <= site.log[1].at
    site.clear_log()
    assert site.log == []


def test_parallel_requests_are_counted(site: FaultySite) -> None:
    """Four slow files at once are four requests on four connections, and none is left afterwards."""
    site.file_latency = 0.3

    def get(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", site.port)
        connection.request("GET", f"/direct/{number}.png")
        assert connection.getresponse().read() == direct_picture(f"/direct/{number}.png")
        connection.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(get, range(4)))
    assert (site.max_active, site.max_active_files, site.max_active_listings) == (4, 4, 0)
    assert site.max_connections == 4
    assert site.active == 0


def test_listing_latency_delays_listings_only(site: FaultySite, client: requests.Session) -> None:
    """A latency belongs to its kind of request."""
    site.listing_latency = 0.5
    began = time.monotonic()
    assert json.loads(client.get(f"{site.root}/posts.json").content)
    assert time.monotonic() - began >= 0.5
    began = time.monotonic()
    client.get(site.file_url(site.posts[0]))
    assert time.monotonic() - began < 0.5
