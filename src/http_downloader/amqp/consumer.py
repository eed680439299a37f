"""Orders in: each delivery is journalled, or put into the queue of rejected orders, and only then acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from .. import faults
from ..domain.errors import CatalogError, DownloaderError, OrderFault, OrderRejected
from ..domain.orders import Order, parse_order
from .connection import Broker
from .deliveries import Delivery
from .outage import sentence
from .topology import BrokerRefused
from .wire import once_more, priority, rejection, sent_at, short

log = structlog.get_logger(__name__)

PAUSE = 2.0
"""Seconds before an order is tried again that could be neither journalled nor rejected."""

LONG_PAUSE = 60.0
"""Seconds before a rejected order is put into its queue again which the broker refuses for what it is: too large, say."""

MOST_RETURNS = 10
"""A quorum queue that others have made drops what came back more often than its limit says, 20 times by default since
RabbitMQ 4.0: while the catalog is away, or when a service dies again and again, orders do come back."""

Accept = Callable[..., Awaitable[object]]
"""`sync.intake.Intake.accept`."""


class Consumer:
    def __init__(
        self,
        broker: Broker,
        accept: Accept,
        rejected_queue: str,
        rejected: Callable[[OrderFault], None] = lambda _: None,
    ) -> None:
        self._rejected = rejected
        self._broker = broker
        self._accept = accept
        self._rejected_queue = rejected_queue
        self._rejections: set[asyncio.Task[None]] = set()
        self._few_at_once = asyncio.Semaphore(10)
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        """Until stopped. Orders are taken one by one: one behind a bad one is served at once."""
        try:
            while deliveries := await self._broker.next_deliveries(100):
                await self._renew()
                for delivery in deliveries:
                    if self._stopping.is_set():
                        self._broker.requeue(delivery)
                    elif delivery.is_open:
                        await self._settle(delivery)
            if self._rejections:
                await asyncio.wait(self._rejections)
        finally:
            for task in self._rejections:
                task.cancel()

    async def stop(self) -> None:
        """Take no more orders. `run` then ends with those that it has in hand."""
        self._stopping.set()
        await self._broker.stop_consuming()

    async def _settle(self, delivery: Delivery) -> None:
        """Try until the order is safe in the journal, then acknowledge it; or see to it that it is rejected."""
        tried, said = False, ""
        while not self._stopping.is_set():
            try:
                await self._take(delivery, redelivered=delivery.redelivered or tried)
            except OrderRejected as error:
                log.warning("order rejected", reason=str(error.fault), detail=str(error))
                self._rejected(error.fault)
                # Apart: a queue of rejected orders that takes nothing holds up no good order.
                task = asyncio.create_task(self._reject(delivery, error))
                self._rejections.add(task)
                task.add_done_callback(self._rejections.discard)
                return
            except CatalogError:
                tried = True  # and perhaps journalled, if only the answer was lost; what is wrong is said elsewhere
            except DownloaderError as error:
                if said != str(error):
                    said = str(error)
                    log.error("order not taken yet", why=said)
            else:
                faults.at("consumer.before_ack")
                self._broker.ack(delivery)
                return
            await self._renew()
            if not delivery.is_open:
                return
            await self._pause(PAUSE)

    async def _renew(self) -> None:
        """Put what came back so often that it might be dropped behind the others as a new message, and ack the old one.
        All that is here: behind an order that cannot be journalled now, others come back as often as that one."""
        for delivery in self._broker.unsettled():
            if delivery.returns >= MOST_RETURNS and delivery.is_open:
                with contextlib.suppress(BrokerRefused):
                    if await self._broker.publish_apart(once_more(delivery, str(self._broker.orders_queue))):
                        self._broker.ack(delivery)

    async def _reject(self, delivery: Delivery, error: OrderRejected) -> None:
        """Try until it is safe among the rejected orders, then acknowledge it."""
        message = rejection(delivery, error, self._rejected_queue)
        pause = PAUSE
        while delivery.is_open and not self._stopping.is_set():
            try:
                async with self._few_at_once:
                    is_safe = await self._broker.publish_apart(message)
            except BrokerRefused as refusal:
                if pause == PAUSE:
                    log.error("a rejected order stays at the broker for now", why=sentence(refusal))
                is_safe, pause = False, LONG_PAUSE
            if is_safe:
                faults.at("consumer.before_ack")
                self._broker.ack(delivery)
                return
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        """Or until told to stop: what is not acked by then stays at the broker."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _take(self, delivery: Delivery, *, redelivered: bool) -> None:
        order: Order = parse_order(delivery.body)
        await self._accept(
            order,
            message_id=short(delivery.message_id),
            correlation_id=short(delivery.correlation_id),
            sent_at=sent_at(delivery.properties),
            redelivered=redelivered,
            priority=priority(delivery.properties),
        )
