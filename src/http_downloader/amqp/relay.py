"""Events out: from the outbox to the broker, and an outbox row forgotten only when its event is safe there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import structlog

from .. import faults
from ..catalog import outbox
from ..catalog.calls import CatalogCalls
from ..domain.errors import CatalogError
from ..domain.events import Event
from .connection import Broker
from .frames import Outgoing
from .wire import EventFormat

log = structlog.get_logger(__name__)

BATCH = 1000
ADOPT_EVERY = 15.0
"""Seconds between two looks for events that a dead worker has left behind."""
ADOPTION_LEASE = timedelta(seconds=60)
PAUSE = 2.0
"""Seconds after the broker did not take something (a queue is gone, say): it is tried again, not in a loop."""


class Relay:
    """`owner`: the worker whose runs' events are relayed; only the holder of a run's lease tells of it. `confirmed`
    hears when each event that is safe now was committed."""

    def __init__(
        self,
        broker: Broker,
        calls: CatalogCalls,
        format_: EventFormat,
        owner: str,
        confirmed: Callable[[Sequence[datetime]], None] = lambda _: None,
    ) -> None:
        self._confirmed = confirmed
        self._broker = broker
        self._calls = calls
        self._format = format_
        self._owner = owner
        self._wake = asyncio.Event()
        self._turn = asyncio.Lock()
        self._safe: list[int] = []
        """Rows whose events the broker has, and that are still in the outbox."""

    def wake(self) -> None:
        self._wake.set()

    async def publish(self, events: Sequence[Event]) -> None:
        """Publish events that need no outbox. Returns when all are confirmed, however long the broker is away."""
        left = self._format.messages(events)
        while left:
            safe = await self._broker.publish(left)
            left = [message for message in left if message.message_id not in safe]
            if left:
                await asyncio.sleep(PAUSE)

    async def run(self) -> None:
        """Until cancelled."""
        loop = asyncio.get_running_loop()
        next_adoption = loop.time()
        while True:
            self._wake.clear()
            try:
                if loop.time() >= next_adoption:
                    next_adoption = loop.time() + ADOPT_EVERY
                    await self.adopt()
                while await self._relay_batch():
                    pass
            except CatalogError:
                pass  # said by the catalog itself; what is there is relayed when it works again
            try:
                async with asyncio.timeout(PAUSE):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def adopt(self) -> None:
        """Take over the events of ended runs that no worker is about to relay."""
        await self._calls(outbox.adopt, self._owner, ADOPTION_LEASE)

    async def drain(self) -> None:
        """Relay what is in the outbox now, and return when it is empty; for commands that end afterwards."""
        while True:
            if await self._relay_batch():
                continue
            # Only now: between a look and a batch of ours, run() may have sent what was seen.
            if not await self._calls(outbox.waiting, self._owner, 1):
                return
            await asyncio.sleep(PAUSE)

    async def _relay_batch(self) -> bool:
        """True when more may wait that nobody wakes us for."""
        async with self._turn:  # run() and drain() would send the same rows twice
            return await self._relay_waiting()

    async def _relay_waiting(self) -> bool:
        await self._forget()
        waiting = await self._calls(outbox.waiting, self._owner, BATCH)
        if not waiting:
            return False
        with_queue = [(row, event) for row, event in waiting if event.type in self._format.queues]
        done = [row for row, event in waiting if event.type not in self._format.queues]  # configured away since
        messages: dict[str, tuple[list[int], Outgoing]] = {}
        outgoing = self._format.messages([event for _, event in with_queue])
        for (row, _), message in zip(with_queue, outgoing, strict=True):
            messages.setdefault(message.message_id, ([], message))[0].append(row)
        faults.at("relay.before_publish")
        safe = await self._broker.publish([message for _, message in messages.values()])
        faults.at("relay.before_forget")
        done += [row for message_id in safe for row in messages[message_id][0]]
        self._safe += done
        await self._forget()
        # Who adds an event wakes us. Only the last event of a run may have waited here for others of that run.
        held_back = len(waiting) == BATCH or any(not event.ends_run for _, event in waiting)
        return bool(done) and held_back

    async def _forget(self) -> None:
        """Before anything is sent again: while the catalog cannot be written, the same events would go out for ever."""
        if self._safe:
            self._confirmed(await self._calls(outbox.confirmed, self._safe, self._owner))
            self._safe = []
