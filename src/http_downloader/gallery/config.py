"""The gallery-dl configuration of one run: the operator's template, and over it what must be ours."""

from __future__ import annotations

import base64
import contextlib
import copy
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from ..domain.secrets import passwords_in
from .messages import RunRequest

PLACEHOLDER = "Automatically replaced at runtime for every source"
"""The command that templates of the predecessor carry where its own hooks were put in. Never to be executed."""

PARTIAL_FOLDER = ".partial"
"""Under CONTENT_ROOT, so that moving a file into place never crosses devices."""

PIECE = 128 * 1024
"""Bytes that a download reads, hashes and writes at once. With gallery-dl's 32 kB a large file waits mostly for Python
and the kernel to pass the pieces on; with more than this, more would be lost when a connection breaks."""

Config = dict[str, Any]

_OF_FILES = ("postprocessors", "postprocessor", "archive")
_OF_ONE_RUN = ("base-directory", "part-directory", "cache", "output", "progress")

_SECRET_WORDS = ("password", "passwd", "passphrase", "token", "secret", "api-key", "api_key", "apikey", "credential")
_SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie")


def build_config(template: Config, request: RunRequest) -> tuple[Config, int]:
    """The configuration for a run, and how many placeholder post-processors were dropped. `template` stays as is."""
    config = copy.deepcopy(template)
    dropped = _drop_placeholders(config)
    extractor = config.setdefault("extractor", {})
    # Flat, unless the template says otherwise; a deeper section of it wins over this one.
    extractor.setdefault("directory", [])
    # danbooru sites leave hidden posts out of a page, and gallery-dl takes a short page for the last one. Only an
    # empty page is the last one.
    extractor.setdefault("threshold", 1)
    config.setdefault("downloader", {}).setdefault("chunk-size", PIECE)
    # A key at the root wins over every section: what must be ours stands there.
    config.update(
        {
            "base-directory": f"{request.content_root / request.content_path}/",
            "part": True,
            # Each lane has a folder of its own below it; the template's would be made wherever it points to.
            "part-directory": f"{request.content_root / PARTIAL_FOLDER / request.run_id}/",
            "input": False,
            "parent-directory": False,
            "progress": 0.0,
        }
    )
    if request.rehearsal:
        _drop_all_postprocessors(config)
        config["archive"] = None
    config["cache"] = {"file": str(request.cache_file)}
    config["output"] = {"mode": "null"}
    return config, dropped


def fingerprint(config: Config, *how: str) -> str:
    """What a listing was made with: the configuration without what belongs to one run, without what is done with files
    when they are there, and without its secrets."""
    lasting = {key: value for key, value in config.items() if key not in _OF_ONE_RUN}
    text = json.dumps([_lasting(lasting), *how], sort_keys=True, default=str)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def _lasting(value: object) -> object:
    if isinstance(value, dict):
        return {
            str(key): "***" if _names_secret(str(key).lower(), inner) else _lasting(inner)
            for key, inner in value.items()
            if key not in _OF_FILES
        }
    return [_lasting(inner) for inner in value] if isinstance(value, list) else value


def _drop_all_postprocessors(section: Config) -> None:
    """gallery-dl adds up those of all sections: an empty list at the root would change nothing."""
    section.pop("postprocessors", None)
    for inner in section.values():
        if isinstance(inner, dict):
            _drop_all_postprocessors(inner)


def cookie_files(config: Config, *categories: str) -> Iterator[tuple[Config, str]]:
    """The sections that apply to these categories and name a cookie file, each with that name. Widest first."""
    extractor = config.get("extractor", {})
    candidates = [config, extractor]
    for section in map(extractor.get, categories):
        if isinstance(section, dict):
            candidates += [section, *(value for value in section.values() if isinstance(value, dict))]
    for candidate in candidates:
        if isinstance(candidate.get("cookies"), str):
            yield candidate, candidate["cookies"]


def secrets_in(value: object, *, secret: bool = False) -> Iterator[str]:
    """Every password, token and cookie in a configuration, so that no log line repeats one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from secrets_in(inner, secret=secret or _names_secret(str(key).lower(), inner))
    elif isinstance(value, list):
        for inner in value:
            yield from secrets_in(inner, secret=secret)
    elif secret and isinstance(value, str | int | float) and not isinstance(value, bool):
        yield str(value)
        yield from _parts_of_header(str(value))
    elif isinstance(value, str):
        yield from passwords_in(value)  # a proxy's


def _parts_of_header(value: str) -> Iterator[str]:
    """`Bearer x`, `Basic eDp5`, `a=x; b=y`: a log may repeat a part of them."""
    scheme, _, rest = value.partition(" ")
    if rest and scheme.lower() in ("bearer", "token", "basic"):
        yield rest.strip()
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            yield base64.b64decode(rest, validate=True).decode().partition(":")[2]
    if "=" in value:
        yield from (pair.partition("=")[2].strip() for pair in value.split(";"))


def _names_secret(key: str, value: object) -> bool:
    if key == "cookies":
        return isinstance(value, dict)  # else it is a file's name, or a browser's
    return key in _SECRET_HEADERS or any(word in key for word in _SECRET_WORDS)


def _drop_placeholders(value: object) -> int:
    dropped = 0
    if isinstance(value, dict):
        for key, inner in list(value.items()):
            if key in ("postprocessors", "postprocessor") and isinstance(inner, list):
                kept = [item for item in inner if not _is_placeholder(item)]
                dropped += len(inner) - len(kept)
                value[key] = kept
            elif key == "postprocessors" and _is_placeholder(inner):  # one needs no list around it
                value[key] = []
                dropped += 1
            elif key == "postprocessor" and isinstance(inner, dict):
                # Named ones: an empty pipeline keeps the name known, and does nothing.
                for name in [name for name, item in inner.items() if _is_placeholder(item)]:
                    inner[name] = {"name": "python", "event": [], "expression": "None"}
                    dropped += 1
        dropped += sum(_drop_placeholders(inner) for inner in value.values())
    elif isinstance(value, list):
        dropped += sum(_drop_placeholders(inner) for inner in value)
    return dropped


def _is_placeholder(item: object) -> bool:
    return isinstance(item, dict) and any(PLACEHOLDER in text for text in _commands(item))


def _commands(item: Config) -> Iterator[str]:
    stack = [item.get("command"), item.get("commands")]
    while stack:
        value = stack.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            stack.extend(value)
