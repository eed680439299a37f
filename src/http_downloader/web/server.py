"""Listening, and answering until told to stop, beside everything else on the service's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

LAST_ANSWERS = 2
"""Seconds for the answers that are under way at the end."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the service's: it ends this server last."""
        yield


async def answer(application: FastAPI, listener: socket.socket) -> None:
    """Until cancelled."""
    config = uvicorn.Config(
        application,
        log_config=None,  # ours stays
        access_log=False,
        lifespan="off",
        ws="none",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=LAST_ANSWERS,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await serving
