"""Catalog functions called from asynchronous code: each is one transaction, in a thread of a small pool."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, ParamSpec, TypeVar

from .engine import Catalog

P = ParamSpec("P")
R = TypeVar("R")


class CatalogCalls:
    """`await calls(journal.renew, owner, until)` is `journal.renew(catalog, owner, until)` off the event loop."""

    def __init__(self, catalog: Catalog, threads: int = 4) -> None:
        self.catalog = catalog
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="catalog")

    async def __call__(self, function: Callable[Concatenate[Catalog, P], R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        call = functools.partial(function, self.catalog, *args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def close(self) -> None:
        """Waits for the transactions under way."""
        self._threads.shutdown()
        self.catalog.close()
