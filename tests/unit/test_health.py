"""/healthz, answered by the server that the service has."""

from __future__ import annotations

import asyncio
import http.client
import json
from contextlib import closing
from typing import Any

from http_downloader.web.address import listen
from http_downloader.web.application import make_application
from http_downloader.web.readiness import Readiness
from http_downloader.web.server import answer


def get(port: int) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        return response.status, json.loads(response.read())


def test_a_part_that_has_ended() -> None:
    """The platform has to start the service anew: nothing in it can."""
    dead: list[str] = []

    async def no_metrics(_accepted: str) -> tuple[bytes, str]:
        raise AssertionError("nobody has asked for them")

    async def ask_twice() -> list[tuple[int, Any]]:
        listener = listen("127.0.0.1", 0, token="")
        port = listener.getsockname()[1]
        serving = asyncio.create_task(answer(make_application(lambda: dead, Readiness({}), no_metrics, ""), listener))
        answers = [await asyncio.to_thread(get, port)]
        dead.append("relay")
        answers.append(await asyncio.to_thread(get, port))
        serving.cancel()
        await asyncio.wait({serving})
        return answers

    assert asyncio.run(ask_twice()) == [(200, {"status": "ok"}), (503, {"status": "failed", "ended": ["relay"]})]
