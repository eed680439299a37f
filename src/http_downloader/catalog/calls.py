"""Catalog functions called from asynchronous code: each is one transaction, in a thread of a small pool."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

import structlog

from ..domain.errors import CatalogError, OutgrownError
from .engine import Catalog, probe

log = structlog.get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class CatalogCalls:
    """`await calls(journal.renew, owner, until)` is `journal.renew(catalog, owner, until)` off the event loop.

    Every caller tries again in its own way when the catalog does not work; what is wrong is said here, once for all of
    them, and once that it is well again.
    """

    def __init__(self, catalog: Catalog, threads: int = 4) -> None:
        self.catalog = catalog
        self.trouble: str | None = None
        """What is wrong now, in one line."""
        self.count, self.seconds = 0, 0.0
        """Calls so far, and how long they took in all, waiting for a thread included."""
        self._probing = False
        self._outgrown = asyncio.Event()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="catalog")

    async def __call__(self, function: Callable[Concatenate[Catalog, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        begun = time.monotonic()
        try:
            result = await self._in_thread(functools.partial(function, self.catalog, *args, **kwargs))
        except OutgrownError as error:
            self.trouble = str(error)
            self._outgrown.set()
            raise
        except CatalogError as error:
            self._say(str(error))
            raise
        finally:
            self.count += 1
            self.seconds += time.monotonic() - begun
        if self.trouble is not None and not self._probing:
            await self._look_again()
        return result

    async def until_outgrown(self) -> None:
        """Until an upgrade has shut this program out: then raises `OutgrownError`."""
        await self._outgrown.wait()
        raise OutgrownError(self.trouble)

    def close(self) -> None:
        """Waits for the transactions under way."""
        self._threads.shutdown()
        self.catalog.close()

    async def _in_thread(self, call: Callable[[], R]) -> R:
        bound = contextvars.copy_context().run  # what is logged there names the run
        return await asyncio.get_running_loop().run_in_executor(self._threads, bound, call)

    def _say(self, trouble: str) -> None:
        if self.trouble is None:
            log.error("the catalog does not work", why=trouble)
        self.trouble = trouble

    async def _look_again(self) -> None:
        """One call that went well proves little: a catalog on a full disk can be read, and one that is locked, too."""
        self._probing = True
        try:
            await self._in_thread(functools.partial(probe, self.catalog))
        except CatalogError:
            return
        finally:
            self._probing = False
        self.trouble = None
        log.info("the catalog works again")
