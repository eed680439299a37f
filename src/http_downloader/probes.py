"""What `serve` answers over HTTP: whether it is alive, whether it is ready, and its metrics. Imported by nobody else."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .catalog import outbox, overview
from .domain.sizes import parse_size
from .domain.storage import shortage
from .gallery.disk import free_space
from .metrics import Facts, Metrics, Space
from .settings import Settings
from .web.application import make_application
from .web.glance import Glance
from .web.readiness import Check, Readiness
from .web.server import answer

if TYPE_CHECKING:
    from .app import App


async def answer_probes(
    app: App, stop: asyncio.Event, parts: Mapping[str, asyncio.Task[None]], listener: socket.socket, gallery_dl: str
) -> None:
    """Until cancelled. `parts`: the tasks of the service, of which none ends before it is told to stop."""
    readiness = Readiness(_checks(app, stop))

    def dead() -> list[str]:
        return [] if stop.is_set() else [part for part, task in parts.items() if task.done()]

    metrics = _metrics(app, readiness, gallery_dl)
    await answer(make_application(dead, readiness, metrics.exposition, app.settings.http_token), listener)


def _checks(app: App, stop: asyncio.Event) -> dict[str, Check]:
    async def service() -> str | None:
        return "it is stopping" if stop.is_set() else None

    async def broker() -> str | None:
        return app.broker.last_problem if app.broker is not None else None

    async def catalog() -> str | None:
        await app.calls(outbox.depth)
        return app.calls.trouble  # one that can be read may still take no writes

    async def content_root() -> str | None:
        problem = await app.remover.look_at_root()
        return problem or await asyncio.to_thread(_folder_problem, app.settings)

    async def gallery() -> str | None:
        await app.pool.start()  # it runs: nothing happens; it has died, or is out of date: what the next run would do
        return None

    checks: dict[str, Check] = {
        "service": service,
        "catalog": catalog,
        "content_root": content_root,
        "gallery": gallery,
    }
    if app.broker is not None:
        checks["broker"] = broker
    return checks


def _metrics(app: App, readiness: Readiness, gallery_dl: str) -> Metrics:
    facts = Facts(
        worker=app.name,
        gallery_dl=gallery_dl,
        slots=app.settings.sync_concurrency,
        tally=app.tally,
        performed=app.runner.performed,
        calls=app.calls,
        broker=app.broker,
    )
    glances: dict[str, Glance[object]] = {
        "load": Glance(lambda: app.calls(overview.load)),
        "ready": Glance(readiness.problems),
        "space": Glance(lambda: asyncio.to_thread(_space, app.settings)),
        "memory": Glance(app.pool.memory),
    }
    return Metrics(facts, glances)


def _space(settings: Settings) -> Space:
    disk = os.statvfs(settings.content_root)
    return Space(free=disk.f_bavail * disk.f_frsize, size=disk.f_blocks * disk.f_frsize)


def _folder_problem(settings: Settings) -> str | None:
    """Why nothing can be downloaded into CONTENT_ROOT."""
    root = settings.content_root
    if not os.access(root, os.W_OK | os.X_OK):
        return f"CONTENT_ROOT is not there, or cannot be written: {root}"
    free = free_space(root)
    if free == 0:
        return f"no space is left in CONTENT_ROOT: {root}"
    short = shortage(free, 0, parse_size(settings.min_free_space), f"CONTENT_ROOT ({root})")
    return None if short is None else short.detail
