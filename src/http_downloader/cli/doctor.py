"""`doctor`: is everything there that a sync needs, and what to do when it is not."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.filesize import decimal
from rich.markup import escape

from ..app import check_broker, cookies_stay, hook_scripts
from ..catalog import content, outbox
from ..catalog.engine import open_catalog
from ..domain.errors import ContentError, DownloaderError, Exit, SettingsError, WebError
from ..gallery.pool import GalleryPool
from ..logs import redact
from ..settings import Settings
from ..sync.trash import RootMarker
from ..web import address


class _Doubt(Exception):
    """What works now, and may not for long."""


def run(settings: Settings, *, quiet: bool) -> int:
    """Check one thing after the other, print a line for each. Returns the exit code."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("content root", lambda: _folder("CONTENT_ROOT", settings.content_root)),
        ("runtime path", lambda: _folder("RUNTIME_PATH", settings.runtime_path)),
        ("catalog", lambda: _catalog(settings)),
        ("gallery-dl", lambda: asyncio.run(_gallery(settings))),
        ("cookies", lambda: _cookies(settings)),
        ("hook scripts", lambda: _scripts(settings)),
        ("broker", lambda: _broker(settings)),
        ("service", lambda: _service(settings)),
    ]
    console = Console(highlight=False)
    problems = 0
    for name, check in checks:
        try:
            words = check()
        except _Doubt as doubt:
            console.print(f"[bold yellow]![/] {name:13} {escape(str(doubt))}", soft_wrap=True)
        except DownloaderError as error:
            problems += 1
            console.print(f"[bold red]✗[/] {name:13} {escape(redact(error.told))}", soft_wrap=True)
        else:
            if not quiet:
                console.print(f"[bold green]✓[/] {name:13} {escape(words)}", soft_wrap=True)
    return Exit.UNAVAILABLE if problems else Exit.OK


def _folder(name: str, folder: Path) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ContentError(f"{name} cannot be made: {folder}: {error.strerror}; make it, or set {name}") from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ContentError(f"{name} cannot be written: {folder}; change its permissions, or set {name}")
    return f"{folder} ({decimal(shutil.disk_usage(folder).free)} free)"


def _catalog(settings: Settings) -> str:
    catalog = open_catalog(settings.catalog_url)
    try:
        marker = RootMarker(settings.content_root, catalog.identity)
        if content.is_marked(catalog) and not marker.is_there():
            raise ContentError(marker.missing)
        if (doubt := catalog.doubt()) is not None:
            raise _Doubt(doubt)
        waiting = outbox.depth(catalog)
        return catalog.address + (f", {waiting} events wait for the broker" if waiting else "")
    finally:
        catalog.close()


async def _gallery(settings: Settings) -> str:
    pool = GalleryPool(settings.template, stall_timeout=60, processes=1)
    try:
        version = await pool.start()
    finally:
        await pool.close()
    template = f"with {settings.template}" if settings.template.exists() else "without a configuration of its own"
    return f"{version} {template}"


def _cookies(settings: Settings) -> str:
    folder = settings.cookies_folder
    files = sorted(folder.glob("*.txt")) if folder.is_dir() else []
    for file in files:
        _read_cookies(file)
    stay = ", read-only: what sites renew is not saved" if cookies_stay(folder) else ""
    return f"{len(files)} file(s) in {folder}{stay}"


def _read_cookies(file: Path) -> None:
    from ..gallery.cookies import UnreadableCookiesError, read_cookies

    try:
        read_cookies(file)
    except UnreadableCookiesError as error:
        raise ContentError(f"{error}; export it again, or remove it") from None


def _scripts(settings: Settings) -> str:
    scripts = hook_scripts(settings)
    problems = []
    for script in scripts.values():
        try:
            script.check()
        except SettingsError as error:
            problems.append(str(error))
    if problems:
        raise SettingsError("; ".join(problems))
    return ", ".join(map(str, scripts.values())) or "none set"


def _broker(settings: Settings) -> str:
    if settings.broker_url is None:
        return "none set: embedded mode"
    asyncio.run(check_broker(settings))
    where = "AMQP_URL" if settings.amqp_url else settings.rabbitmq_host
    return f"{where} answers; queues and exchange are there"


def _service(settings: Settings) -> str:
    """What a service that runs here says of itself; or whether one could be asked."""
    host, port, token = settings.http_host, settings.http_port, settings.http_token
    if not port:
        return "HTTP_PORT is 0: it cannot be asked"
    answers = address.ask(host, port, token=token)
    if answers is None:
        address.listen(host, port, token=token).close()
        return f"none runs here; it will answer at {host}:{port}"
    problems = [f"{part}: {words}" for part, words in answers.items() if words != "ok"]
    if problems:
        raise WebError(f"the service at {host}:{port} is not ready; {'; '.join(problems)}")
    return f"it answers at {host}:{port}, and is ready"
