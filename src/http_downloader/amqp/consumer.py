"""Orders in: each delivery is journalled, or put into the queue of rejected orders, and only then acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from .. import faults
from ..domain.errors import DownloaderError, OrderRejected
from ..domain.orders import Order, parse_order
from .connection import Broker
from .deliveries import Delivery
from .wire import rejection, short

log = structlog.get_logger(__name__)

PAUSE = 2.0
"""Seconds before an order is tried again that could be neither journalled nor rejected."""

Accept = Callable[..., Awaitable[object]]
"""`sync.intake.Intake.accept`."""


class Consumer:
    def __init__(self, broker: Broker, accept: Accept, rejected_queue: str) -> None:
        self._broker = broker
        self._accept = accept
        self._rejected_queue = rejected_queue

    async def run(self) -> None:
        """Until consuming is stopped. Orders are taken one by one: one behind a bad one is served at once."""
        while deliveries := await self._broker.next_deliveries(100):
            for delivery in deliveries:
                await self._settle(delivery)

    async def _settle(self, delivery: Delivery) -> None:
        """Try until the order is safe in the journal or among the rejected ones, then acknowledge it."""
        while True:
            try:
                await self._take(delivery)
            except OrderRejected as error:
                log.warning("order rejected", reason=str(error.fault), detail=str(error))
                message = rejection(delivery, error, self._rejected_queue)
                if message.message_id in await self._broker.publish([message]):
                    break
            except DownloaderError as error:
                log.error("order not taken yet", why=str(error))
            else:
                break
            await asyncio.sleep(PAUSE)
        faults.at("consumer.before_ack")
        self._broker.ack(delivery)

    async def _take(self, delivery: Delivery) -> None:
        order: Order = parse_order(delivery.body)
        await self._accept(
            order,
            message_id=short(delivery.message_id),
            correlation_id=short(delivery.correlation_id),
            redelivered=delivery.redelivered,
        )
