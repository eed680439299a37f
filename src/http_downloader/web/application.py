"""The paths that are answered."""

from __future__ import annotations

import hmac

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse

from .readiness import Readiness


def make_application(readiness: Readiness, token: str) -> FastAPI:
    """`token`: what a client has to show to be told more than yes or no; empty: everybody may know."""
    application = FastAPI(title="http_downloader", openapi_url=None)

    @application.get("/healthz")
    async def healthz() -> JSONResponse:
        """The process lives, and its event loop turns."""
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

    return application


def is_known(request: Request, token: str) -> bool:
    """Whether a request shows the token. Compared in a time that tells nothing of it."""
    shown = request.headers.get("Authorization", "").encode("latin-1", errors="replace")
    return not token or hmac.compare_digest(shown, f"Bearer {token}".encode())
