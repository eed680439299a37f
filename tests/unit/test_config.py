"""The gallery-dl configuration of a run: the operator's template, and over it what must be ours."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from gallery_dl import config as gallery_config
from gallery_dl import extractor, job

from http_downloader.gallery.config import PIECE, PLACEHOLDER, build_config, cookie_files, secrets_in
from http_downloader.gallery.messages import RunRequest

OLD_HOOK = {"name": "exec", "event": "after", "command": PLACEHOLDER}


@pytest.fixture
def request_(tmp_path: Path) -> RunRequest:
    return RunRequest(
        run_id="cafe-1",
        source_id=1,
        url="https://example.org/",
        content_root=tmp_path / "content",
        content_path="portraits/a",
        run_folder=tmp_path / "run",
        landing_log=tmp_path / "landing",
        lock_file=tmp_path / "lock",
        cookies_folder=tmp_path / "cookies",
        cache_file=tmp_path / "cache.sqlite3",
        known={},
    )


@pytest.fixture
def effective() -> Any:
    """Put a configuration into force in gallery-dl, and take it out again."""
    before = dict(gallery_config._config)

    def put(config: dict[str, Any]) -> Any:
        gallery_config._config.clear()
        gallery_config._config.update(copy.deepcopy(config))
        return gallery_config

    yield put
    gallery_config._config.clear()
    gallery_config._config.update(before)


def template_with(*hooks: object) -> dict[str, Any]:
    """The same post-processors at every place where gallery-dl looks for them."""
    mine = {"name": "metadata", "mode": "json"}
    return {
        "postprocessors": [mine, *copy.deepcopy(hooks)],
        "extractor": {
            "postprocessors": [*copy.deepcopy(hooks), mine],
            "danbooru": {
                "postprocessors": [*copy.deepcopy(hooks)],
                "tag": {"postprocessors": [mine, *copy.deepcopy(hooks), "named"]},
            },
        },
        "postprocessor": {"named": mine, **{f"old{n}": copy.deepcopy(hook) for n, hook in enumerate(hooks)}},
    }


def test_the_template_is_left_as_it_is(request_: RunRequest) -> None:
    """It is loaded once and serves every run: nothing of one run may stay in it."""
    template = template_with(OLD_HOOK)
    before = copy.deepcopy(template)
    config, _ = build_config(template, request_)
    config["extractor"]["danbooru"]["cookies"] = {"session": "x"}
    assert template == before


@pytest.mark.parametrize(
    "hook",
    [
        OLD_HOOK,
        {"name": "exec", "command": [PLACEHOLDER]},
        {"name": "exec", "commands": [["true"], [PLACEHOLDER, "{}"]]},
        {"name": "exec", "command": f"{PLACEHOLDER} {{}}"},
        {"type": "exec", "command": PLACEHOLDER},
    ],
)
def test_placeholders_are_dropped_wherever_they_stand(hook: dict[str, Any], request_: RunRequest) -> None:
    """At the root, for all sites, for one, for one of its subcategories, and by name: the old command is nowhere."""
    config, dropped = build_config(template_with(hook), request_)
    assert dropped == 5
    assert PLACEHOLDER not in repr(config)
    mine = {"name": "metadata", "mode": "json"}
    assert config["postprocessors"] == [mine]
    assert config["extractor"]["postprocessors"] == [mine]
    assert config["extractor"]["danbooru"]["postprocessors"] == []
    assert config["extractor"]["danbooru"]["tag"]["postprocessors"] == [mine, "named"]
    assert config["postprocessor"]["named"] == mine


@pytest.mark.parametrize("section", [(), ("extractor",), ("extractor", "danbooru"), ("extractor", "danbooru", "tag")])
def test_a_placeholder_without_a_list_is_dropped(
    section: tuple[str, ...], request_: RunRequest, effective: Any
) -> None:
    """gallery-dl takes one post-processor in place of a list of them: that one is not executed either."""
    template: dict[str, Any] = {}
    inner = template
    for name in section:
        inner = inner.setdefault(name, {})
    inner["postprocessors"] = dict(OLD_HOOK)
    config, dropped = build_config(template, request_)
    assert dropped == 1
    put = effective(config)
    assert put.accumulate(("extractor", "danbooru", "tag"), "postprocessors") == []


def test_other_post_processors_are_kept(request_: RunRequest) -> None:
    """A command of the operator, one that merely resembles the placeholder, and every other kind."""
    kept = [
        {"name": "exec", "command": ["notify", "{}"]},
        {"name": "exec", "command": "Automatically replaced"},
        {"name": "exec", "event": "after", "commands": [["a"], ["b"]]},
        {"name": "metadata", "content-format": PLACEHOLDER},
        {"name": "zip"},
        "named",
    ]
    config, dropped = build_config(template_with(*kept), request_)
    assert dropped == 0
    assert config["postprocessors"] == template_with(*kept)["postprocessors"]
    assert config["extractor"]["danbooru"] == template_with(*kept)["extractor"]["danbooru"]
    assert config["postprocessor"] == template_with(*kept)["postprocessor"]


def test_a_dropped_name_can_still_be_used(request_: RunRequest, effective: Any, tmp_path: Path) -> None:
    """A template that refers to a named placeholder runs on: gallery-dl knows the name, and it does nothing."""
    template = {"extractor": {"postprocessors": ["old", {"type": "old"}]}, "postprocessor": {"old": OLD_HOOK}}
    config, dropped = build_config(template, request_)
    assert dropped == 1
    effective(config)
    found = extractor.find("https://example.org/a.jpg")
    download = job.DownloadJob(found)
    found.initialize()
    download.initialize()
    assert dict(download.hooks) == {}


@pytest.mark.parametrize(
    "section",
    [{}, {"extractor": {}}, {"extractor": {"directlink": {}}}, {"extractor": {"directlink": {"directlink": {}}}}],
)
def test_our_keys_win(section: dict[str, Any], request_: RunRequest, effective: Any) -> None:
    """Whatever the template says at any level: folders, part files and prompts are ours."""
    theirs = {
        "base-directory": "/elsewhere",
        "part-directory": "/tmp",
        "part": False,
        "input": True,
        "parent-directory": True,
    }
    template = copy.deepcopy(section)
    innermost = template
    while innermost:
        innermost = next(iter(innermost.values()))
    innermost |= theirs
    template |= {"cache": {"file": "~/cache"}, "output": {"mode": "terminal"}}
    put = effective(build_config(template, request_)[0])
    path = ("extractor", "directlink", "directlink")
    assert put.interpolate(path, "base-directory") == f"{request_.content_root}/portraits/a/"
    assert put.interpolate(path, "part-directory") == f"{request_.content_root}/.partial/cafe-1/"
    assert put.interpolate(path, "part") is True
    assert put.interpolate(path, "input") is False
    assert put.interpolate(path, "parent-directory") is False
    assert put.get(("cache",), "file") == str(request_.cache_file)
    assert put.get(("output",), "mode") == "null"


def test_files_lie_flat_unless_the_template_says_otherwise(request_: RunRequest, effective: Any) -> None:
    """An operator's `directory` counts, for all sites or for one; else there are no folders below the source's."""
    path = ("extractor", "danbooru", "tag")
    for template, expected in (
        ({}, []),
        ({"extractor": {"directory": ["a"]}}, ["a"]),
        ({"extractor": {"danbooru": {"directory": ["b"]}}}, ["b"]),
        ({"directory": ["c"]}, ["c"]),
    ):
        assert effective(build_config(template, request_)[0]).interpolate(path, "directory") == expected


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ({}, PIECE),
        ({"downloader": {"retries": 2}}, PIECE),
        ({"downloader": {"chunk-size": 1000}}, 1000),
        ({"downloader": {"http": {"chunk-size": 1000}}}, 1000),
        ({"extractor": {"directlink": {"http": {"chunk-size": 1000}}}}, 1000),
    ],
)
def test_large_pieces_unless_the_template_says_otherwise(
    template: dict[str, Any], expected: int, request_: RunRequest, effective: Any
) -> None:
    """A download reads more at once than gallery-dl would; wherever the template names a size, that one counts."""
    config, _ = build_config(template, request_)
    effective(config)
    found = extractor.find("https://example.org/one.png")
    made = job.DownloadJob(found)
    found.initialize()
    assert made.get_downloader("https").chunk_size == expected


def test_cookie_files_of_a_category() -> None:
    """Those of the root, of all sites, of the category and its subcategories, widest first; of no other category."""
    template = {
        "cookies": "root.txt",
        "extractor": {
            "cookies": "all.txt",
            "danbooru": {"cookies": "one.txt", "tag": {"cookies": "tag.txt"}, "pool": {"cookies": {"a": "b"}}},
            "gelbooru": {"cookies": "other.txt"},
        },
    }
    found = list(cookie_files(template, "danbooru"))
    assert [name for _, name in found] == ["root.txt", "all.txt", "one.txt", "tag.txt"]
    for section, name in found:
        assert section["cookies"] == name
    assert list(cookie_files({"extractor": {"danbooru": {"cookies": ["firefox"]}}}, "danbooru")) == []
    assert list(cookie_files({}, "danbooru")) == []


@pytest.mark.parametrize(
    "config",
    [
        {"extractor": {"danbooru": {"username": "u", "password": "s3cr3t"}}},
        {"extractor": {"x": {"api-key": "s3cr3t"}}},
        {"extractor": {"x": {"api_key": "s3cr3t"}}},
        {"extractor": {"x": {"access-token": "s3cr3t"}}},
        {"extractor": {"x": {"access-token-secret": "s3cr3t"}}},
        {"extractor": {"x": {"refresh-token": "s3cr3t"}}},
        {"extractor": {"x": {"client-secret": "s3cr3t"}}},
        {"extractor": {"x": {"cookies": {"session": "s3cr3t"}}}},
        {"extractor": {"x": {"headers": {"Authorization": "s3cr3t"}}}},
        {"extractor": {"x": {"headers": {"Cookie": "s3cr3t"}}}},
        {"extractor": {"x": {"password": ["a", {"b": "s3cr3t"}]}}},
        {"extractor": {"x": {"proxy": "http://user:s3cr3t@proxy:3128"}}},
        {"downloader": {"http": {"proxy": {"https": "http://user:s3cr3t@proxy:3128"}}}},
        {"extractor": {"x": {"password": 31337000}}},
    ],
)
def test_secrets_are_found(config: dict[str, Any]) -> None:
    """Passwords, tokens, keys, cookies and what is sent as a header or to a proxy, wherever they stand."""
    assert any(secret in ("s3cr3t", "31337000") for secret in secrets_in(config))


def test_what_is_no_secret_is_not_hidden() -> None:
    """A log line without names, folders, browsers and switches tells nothing."""
    config = {
        "extractor": {
            "base-directory": "/srv/pictures",
            "username": "somebody",
            "cookies": "/etc/cookies.txt",
            "cookies-update": True,
            "cookies-select": "random",
            "danbooru": {"cookies": ["firefox", "profile"], "tags": "a b", "filename": "{id}.{extension}"},
            "proxy": "http://proxy:3128",
        }
    }
    assert list(secrets_in(config)) == []
