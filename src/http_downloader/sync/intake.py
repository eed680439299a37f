"""Orders come in: validated, journalled in one transaction, and only then acknowledged by whoever brought them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import structlog

from .. import faults
from ..catalog import journal
from ..catalog.calls import CatalogCalls
from ..catalog.engine import utcnow
from ..catalog.journal import Submitted
from ..domain.orders import Order
from ..gallery.pool import GalleryPool

log = structlog.get_logger(__name__)


class Intake:
    def __init__(self, calls: CatalogCalls, pool: GalleryPool, wake: Callable[[], None]) -> None:
        self._calls = calls
        self._pool = pool
        self._wake = wake

    async def accept(
        self,
        order: Order,
        *,
        message_id: str | None = None,
        correlation_id: str | None = None,
        sent_at: datetime | None = None,
        redelivered: bool = False,
        priority: int = 0,
    ) -> Submitted:
        """Journal a valid order; `priority`: of its message, where it names none itself. Raises `OrderRejected` when gallery-dl does not know its URL, `CatalogError`."""
        site = await self._pool.resolve(order.url)
        faults.at("intake.before_journal")
        submitted = await self._calls(
            journal.submit,
            order,
            site=site.name,
            now=utcnow(),
            message_id=message_id,
            correlation_id=correlation_id,
            sent_at=sent_at,
            redelivered=redelivered,
            priority=priority,
        )
        faults.at("intake.after_journal")
        if submitted.outdated:
            log.warning(
                "a newer order has said where this source is: this one does not move it",
                source_id=order.source_id,
                url=order.url,
                content_path=order.content_path,
                message_id=message_id,
            )
        self._wake()
        return submitted
