"""The paths that are answered."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from .readiness import Readiness

Exposition = Callable[[str], Awaitable[tuple[bytes, str]]]
"""Metrics and their content type, for what a client accepts."""


def make_application(
    dead_parts: Callable[[], list[str]], readiness: Readiness, metrics: Exposition, token: str
) -> FastAPI:
    """`token`: what a client has to show to be told more than yes or no; empty: everybody may know."""
    application = FastAPI(title="http_downloader", openapi_url=None)

    @application.get("/healthz")
    async def healthz() -> JSONResponse:
        """The process lives, its event loop turns, and each of its parts is at work; else nothing but a new start
        helps."""
        if dead := dead_parts():
            return JSONResponse({"status": "failed", "ended": dead}, status_code=503)
        return JSONResponse({"status": "ok"})

    @application.get("/readyz")
    async def readyz(request: Request) -> JSONResponse:
        """Everything is there that a run needs; else 503, and what is not."""
        problems = await readiness.problems()
        told = is_known(request, token)
        ready = not any(problems.values())
        checks = {
            part: "ok" if problem is None else problem if told else "not ok" for part, problem in problems.items()
        }
        return JSONResponse(
            {"status": "ok" if ready else "not ready", "checks": checks},
            status_code=200 if ready else 503,
            headers={"Cache-Control": "no-store"},
        )

    @application.get("/metrics")
    async def tell_metrics(request: Request) -> Response:
        """For Prometheus."""
        if not is_known(request, token):
            return Response(
                "set the bearer token HTTP_TOKEN for this target (Prometheus: `authorization`)\n",
                status_code=401,
                headers={"WWW-Authenticate": "Bearer"},
                media_type="text/plain",
            )
        body, content_type = await metrics(request.headers.get("Accept", ""))
        return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})

    return application


def is_known(request: Request, token: str) -> bool:
    """Whether a request shows the token. Compared in a time that tells nothing of it."""
    shown = request.headers.get("Authorization", "").encode("latin-1", errors="replace")
    return not token or hmac.compare_digest(shown, f"Bearer {token}".encode())
