"""What is told to the world. The body of an event is exactly the documented one; all else travels beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from .files import file_key


class EventType(StrEnum):
    FILE_DOWNLOADED = "file-downloaded"
    FILE_SKIPPED = "file-skipped"
    FILE_REMOVED = "file-removed"
    SOURCE_SYNCHRONIZED = "source-synchronized"
    SOURCE_SYNC_FAILED = "source-sync-failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. `run_id` is unique over all catalogs; `correlation_id` is the order's, where there was one.

    `body` is what a consumer reads; `headers` are flat and hold no None.
    """

    type: EventType
    run_id: str
    source_id: int
    body: Mapping[str, Any]
    subject: str = ""
    """What the event is about within its run: the remote id of a file, empty for the run itself."""
    headers: Mapping[str, Any] = field(default_factory=dict)
    correlation_id: str | None = None

    @property
    def message_id(self) -> str:
        """The same for the same fact, however often it is told: a consumer drops duplicates by it."""
        return file_key(f"{self.run_id}/{self.type}/{self.subject}")

    @property
    def ends_run(self) -> bool:
        """True for the one event that must be the last of its run."""
        return self.type in (EventType.SOURCE_SYNCHRONIZED, EventType.SOURCE_SYNC_FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What all events of one run share."""

    run_id: str
    source_id: int
    correlation_id: str | None = None
    headers: Mapping[str, Any] = field(init=False, repr=False, compare=False)
    """Of events that have no more to say. One object for all of them: a run may have very many."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "headers", {"run_id": self.run_id})


def file_event(
    kind: EventType,
    run: RunContext,
    *,
    remote_id: str,
    filename: str,
    url: str | None = None,
    size: int | None = None,
    sha256: str | None = None,
) -> Event:
    """`filename` is relative to the source's content_path."""
    facts = {"url": url, "size": size, "sha256": sha256}
    more = {key: value for key, value in facts.items() if value is not None}
    return Event(
        type=kind,
        run_id=run.run_id,
        source_id=run.source_id,
        body={"source_id": run.source_id, "filename": filename},
        subject=remote_id,
        headers={**run.headers, **more} if more else run.headers,
        correlation_id=run.correlation_id,
    )


def file_removed(
    run: RunContext,
    *,
    remote_id: str,
    filename: str,
    removal: str,
    url: str | None = None,
    size: int | None = None,
    sha256: str | None = None,
) -> Event:
    """`removal`: `trash` when it can be restored, `delete` when nothing of it is left here."""
    event = file_event(
        EventType.FILE_REMOVED, run, remote_id=remote_id, filename=filename, url=url, size=size, sha256=sha256
    )
    return replace(event, body={**event.body, "removal": removal})


MAX_ORDERS_HEADER = 60_000
"""Bytes of message ids in the `orders` header. AMQP puts all headers into one frame, 128 KiB by default."""


def source_synchronized(run: RunContext, *, orders: list[str], counts: Mapping[str, int]) -> Event:
    """`orders`: the message ids of all orders that the run answers; cut to what fits, `orders_total` tells."""
    fitting, room = [], MAX_ORDERS_HEADER
    for order in orders:
        room -= len(order.encode()) + 5
        if room < 0:
            break
        fitting.append(order)
    return Event(
        type=EventType.SOURCE_SYNCHRONIZED,
        run_id=run.run_id,
        source_id=run.source_id,
        body={"source_id": run.source_id},
        headers={"run_id": run.run_id, "orders": fitting, "orders_total": len(orders), **counts},
        correlation_id=run.correlation_id,
    )


def source_sync_failed(run: RunContext, *, state: str, reason: str, detail: str) -> Event:
    return Event(
        type=EventType.SOURCE_SYNC_FAILED,
        run_id=run.run_id,
        source_id=run.source_id,
        body={"source_id": run.source_id, "state": state, "reason": reason, "detail": detail},
        headers={"run_id": run.run_id},
        correlation_id=run.correlation_id,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HookValue:
    """What an operator's hook script is called with. Public: fields are only ever added.

    `message_id` is the event's: a call that is repeated after a crash has the same one. For a file event `filename` is relative to the source's folder, `path` absolute, `size` in bytes; for
    `source-synchronized` they are None, and `counts` tells what the run did.
    """

    event: str
    message_id: str
    source_id: int
    run_id: str
    filename: str | None = None
    path: str | None = None
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
