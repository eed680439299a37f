"""`demo`: the main job, offline, in under a minute."""

from __future__ import annotations

import json
import random
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from ..catalog import files
from ..catalog.engine import open_catalog
from ..demo.site import GallerySite, Post
from ..domain.errors import ContentError, Exit
from ..settings import Settings, load_settings
from .synchronize import Mode
from .synchronize import run as synchronize_now

SOURCE_ID = 1
FIRST_POSTS = 24
GAINED, LOST = 6, 2
"""What the gallery gains and loses between two visits."""

_NOUNS = ("harbour", "orchard", "lighthouse", "meadow", "glacier", "canyon", "lagoon", "terrace", "dune", "forest")
_LIGHTS = ("dawn", "noon", "dusk", "rain", "fog", "snow", "storm", "moonlight")


@dataclass(slots=True)
class _Visits:
    """How the demo's gallery looks; remembered between two calls, so that the second starts where the first left off."""

    file: Path
    newest: int = 0
    gone: frozenset[int] = frozenset()
    port: int = 0
    """At another port it is another gallery: what that one does not have proves nothing about this one."""

    def load(self) -> None:
        if self.file.exists():
            try:
                stored = json.loads(self.file.read_text())
                self.newest, self.gone, self.port = stored["newest"], frozenset(stored["gone"]), stored.get("port", 0)
            except (OSError, ValueError, LookupError, TypeError) as error:
                raise ContentError(f"{self.file} is damaged; begin anew with: http-downloader demo --reset") from error

    def change(self) -> tuple[list[int], list[int]]:
        """The gallery moves on. Returns the ids of new and of removed posts."""
        old = [number for number in range(1, self.newest + 1) if number not in self.gone]
        lost = sorted(random.Random(self.newest).sample(old, LOST)) if old else []  # noqa: S311
        gained = list(range(self.newest + 1, self.newest + 1 + (GAINED if old else FIRST_POSTS)))
        self.newest, self.gone = gained[-1], self.gone | set(lost)
        return gained, lost

    def open(self) -> GallerySite:
        """The gallery, served where it was the last time if that port is free."""
        posts = [_post(number) for number in range(1, self.newest + 1) if number not in self.gone]
        site = GallerySite(posts, port=self.port)
        try:
            site.start()
        except OSError:
            site = GallerySite(posts)
            site.start()
        self.port = site.port
        self.file.write_text(json.dumps({"newest": self.newest, "gone": sorted(self.gone), "port": self.port}))
        return site


def run(folder: Path | None, *, reset: bool) -> int:
    """Show the main job twice; with `reset`, from the beginning. Returns the exit code."""
    home = (folder or load_settings().runtime_path / "demo").expanduser().absolute()
    if reset and (home / "visits.json").exists():
        shutil.rmtree(home)
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ContentError(
            f"the demo's folder cannot be made: {home}: {error.strerror}; name another --folder"
        ) from error
    console = Console(highlight=False)
    visits = _Visits(home / "visits.json")
    visits.load()
    first_time = visits.newest == 0
    code: int = Exit.OK
    for _ in range(2 if first_time else 1):
        gained, lost = visits.change()
        _announce(console, gained, lost)
        with visits.open() as site:
            settings = _settings(home, site.root)
            mode = Mode.choose(as_json=False, quiet=False, verbose=False)
            code = synchronize_now(settings, f"{site.root}/posts?tags=demo", to="demo", source_id=SOURCE_ID, mode=mode)
        if code != Exit.OK:
            return code
    _closing(console, home, settings)
    return code


def _announce(console: Console, gained: list[int], lost: list[int]) -> None:
    if lost:
        console.print(
            f"\n[bold]The gallery gains {len(gained)} pictures and loses {len(lost)}.[/] Synchronizing again:"
        )
    else:
        console.print(f"[bold]A small gallery on this machine has {len(gained)} pictures.[/] Synchronizing:")


def _closing(console: Console, home: Path, settings: Settings) -> None:
    catalog = open_catalog(settings.catalog_url)
    try:
        states = files.count_by_state(catalog, SOURCE_ID)
    finally:
        catalog.close()
    counted = ", ".join(f"{count} {state}" for state, count in sorted(states.items(), reverse=True))
    console.print(
        f"\nThe catalog now holds {counted}. What is gone at the remote goes to the trash at the second listing without it."
    )
    console.print(f"Pictures: {escape(str(settings.content_root / 'demo'))}", soft_wrap=True)
    console.print("Once more: [bold]http-downloader demo[/]   A gallery of yours: [bold]http-downloader sync URL[/]")


def _settings(home: Path, root: str) -> Settings:
    """Everything of the demo lies in one folder: neither a broker nor a catalog of yours is touched."""
    config = home / "config"
    config.mkdir(exist_ok=True)
    # The port is another one each time: under a name of its own the gallery stays the same site.
    instance = {"root": root, "pattern": root.partition("://")[2].replace(".", r"\.")}
    options = {"sleep-request": 0, "archive-format": "{id}", "filename": "{id:>03} {title}.{extension}"}
    template = {"extractor": {"Danbooru": {"demo": instance}, "demo": options}}
    with tempfile.NamedTemporaryFile("w", dir=config, delete=False) as file:
        json.dump(template, file)
    Path(file.name).replace(config / "gallery-dl.conf.json")
    return load_settings(
        env_file=None,
        content_root=home / "content",
        config_path=config,
        runtime_path=home / "runtime",
        database_url="",
        amqp_url="",
        rabbitmq_host="",
        allow_private_addresses="127.0.0.1",
        remote_deletes="trash",
        removal_min_age=0,
        hook_file_downloaded="",
        hook_file_skipped="",
        hook_source_synchronized="",
    )


def _post(number: int) -> Post:
    words = random.Random(number)  # noqa: S311
    noun, light = words.choice(_NOUNS), words.choice(_LIGHTS)
    return Post(
        id=number,
        title=f"{noun} at {light}",
        tags=("demo", noun, light),
        created_at=datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=7 * number),
    )
