"""Orders and queued runs: the queue that workers claim from. Every writer of a run shows its fencing token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from ..domain.errors import CatalogError, LeaseLost
from ..domain.events import Event
from ..domain.files import file_key
from ..domain.listing import Gap
from ..domain.orders import FIRST_LOCAL_SOURCE_ID, LAST_LOCAL_SOURCE_ID, Order
from ..domain.reasons import Reason
from ..domain.removals import RemoteDeletes
from ..domain.runs import Ending, RunState
from . import outbox, workers
from .clock import NOW, in_time, milliseconds
from .engine import is_repeated, query, transaction, update_found
from .schema import Instant, catalog, orders, runs, sites, sources

CANDIDATES = 10
"""Sites that one claim looks at, and runs of each: more only matters when that many others claim in the same moment."""

LOG_LENGTH = 20_000
"""Characters of a run's log that are kept: the tail tells how it ended."""

_IDENTITY = sa.select(catalog.c.id).order_by(catalog.c.created_at).limit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A run that this worker owns until its lease ends. `fence` goes into every write for it."""

    run: int
    run_id: str
    """Unique over all catalogs: what events and people see."""
    source_id: int
    url: str
    content_path: str
    site: str
    owner: str
    fence: int
    attempt: int
    """From 1."""
    correlation_id: str | None
    counts: dict[str, int]
    log: str = field(repr=False, default="")
    removals: str = ""
    """What its earlier attempts said of removals."""
    source_deletes: RemoteDeletes | None = None
    """What is done about files that are gone at the remote, where the source says so itself."""
    order_deletes: RemoteDeletes | None = None
    """The most that its orders allow."""

    @property
    def names(self) -> dict[str, Any]:
        """For every line that is logged of it."""
        return {"run_id": self.run_id, "source_id": self.source_id, "site": self.site}


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    run: int
    joined: bool
    """The source had a queued run already: the order is answered by that one."""
    outdated: bool = False
    """A newer order has said where the source is: this one is answered there, and moves nothing."""


@transaction
def submit(
    db: Connection,
    order: Order,
    *,
    site: str,
    now: datetime,
    message_id: str | None = None,
    correlation_id: str | None = None,
    sent_at: datetime | None = None,
    redelivered: bool = False,
    priority: int = 0,
) -> Submitted:
    """Journal an order: it joins the queued run of its source, or makes one. The latest URL and folder count: the
    latest by `sent_at`, the time that the sender gave it; without that, by arrival. `priority`: where it names none."""
    if (redelivered or is_repeated(db)) and message_id is not None:
        # The ack of the first delivery was lost with its connection, or our own answer: it is journalled already.
        known = db.execute(
            sa.select(orders.c.run_id, orders.c.message_id).where(
                orders.c.message_id == message_id, orders.c.source_id == order.source_id
            )
        )
        for row in known:
            if row.message_id == message_id:  # to MariaDB one with a blank at its end is the same
                return Submitted(run=row.run_id, joined=True)
    order_place = {"url": order.url, "content_path": order.content_path, "site": site}
    held = _hold_source(db, order.source_id, order_place, now)
    outdated = _is_outdated(db, held, order.source_id, message_id, sent_at)
    place = {key: held[key] for key in order_place} if outdated else order_place
    if not outdated:
        _place_source(db, order.source_id, place, sent_at and min(sent_at, now))
    if order.priority is not None:
        priority = order.priority
    queued = db.execute(
        sa.select(runs.c.id, runs.c.remote_deletes, runs.c.priority)
        .where(runs.c.source_id == order.source_id, runs.c.state == RunState.QUEUED)
        .order_by(runs.c.id.desc())
        .limit(1)
    ).first()
    joined = queued is not None
    if queued is not None:
        run = queued.id
        # The most careful of all orders that the run answers.
        earlier = queued.remote_deletes and RemoteDeletes(queued.remote_deletes)
        allowed = earlier.at_most(order.remote_deletes or earlier) if earlier else order.remote_deletes
        priority = max(priority, queued.priority)
        db.execute(sa.update(runs).where(runs.c.id == run).values(**place, remote_deletes=allowed, priority=priority))
    else:
        made = db.execute(
            sa.insert(runs).values(
                source_id=order.source_id,
                state=RunState.QUEUED,
                priority=priority,
                attempt=0,
                not_before=in_time(timedelta()),
                fence=0,
                correlation_id=correlation_id or message_id,
                created_at=now,
                counts={},
                gaps=[],
                log="",
                remote_deletes=order.remote_deletes,
                **place,
            )
        )
        run = made.inserted_primary_key[0]  # type: ignore[index]
    db.execute(sa.insert(orders).values(run_id=run, source_id=order.source_id, message_id=message_id, received_at=now))
    assert run is not None
    return Submitted(run=run, joined=joined, outdated=outdated)


def _hold_source(db: Connection, source_id: int, place: dict[str, str], now: datetime) -> Mapping[str, Any]:
    """Hold the source's row, made if there is none: two orders for one source take turns. Returns it."""
    _ensure(db, sites, sites.c.name, place["site"], {"served_at": in_time(timedelta())})
    _ensure(db, sources, sources.c.id, source_id, {**place, "url_key": file_key(place["url"]), "created_at": now})
    held = db.execute(sa.select(sources).where(sources.c.id == source_id).with_for_update())
    return dict(held.mappings().one())


def _place_source(db: Connection, source_id: int, place: dict[str, str], sent_at: datetime | None) -> None:
    values: dict[str, Any] = {**place, "url_key": file_key(place["url"])}
    if sent_at is not None:
        values["placed_at"] = sent_at
    db.execute(sa.update(sources).where(sources.c.id == source_id).values(**values))


def _is_outdated(
    db: Connection, source: Mapping[str, Any], source_id: int, message_id: str | None, sent_at: datetime | None
) -> bool:
    """Whether a newer order than this one has said where the source is: this one was sent earlier, or it is the very
    message that was journalled before the last ones."""
    if sent_at is not None and source["placed_at"] is not None and sent_at < source["placed_at"]:
        return True
    if message_id is None:
        return False
    known = db.execute(
        sa.select(orders.c.id, orders.c.message_id).where(
            orders.c.message_id == message_id, orders.c.source_id == source_id
        )
    )
    last = max((row.id for row in known if row.message_id == message_id), default=None)
    if last is None:
        return False
    later = (
        sa.select(orders.c.id)
        .join(runs, runs.c.id == orders.c.run_id)
        .where(runs.c.source_id == source_id, orders.c.id > last)
    )
    return db.execute(later.limit(1)).first() is not None


def _ensure(db: Connection, table: sa.Table, key: sa.Column[Any], value: object, rest: dict[str, Any]) -> None:
    if not db.execute(sa.select(key).where(key == value)).first():
        # When another worker is faster, the transaction runs again, and finds its row.
        db.execute(sa.insert(table).values({key.name: value, **rest}))


@transaction
def local_source_id(db: Connection, url: str, *, content_path: str, site: str, now: datetime) -> int:
    """The id of the source with this URL; if there is none, one is made with the next free local id, so that
    nobody who asks in the same moment gets the same."""
    found = db.execute(
        sa.select(sources.c.id).where(sources.c.url_key == file_key(url), sources.c.url == url).order_by(sources.c.id)
    ).scalar()
    if found is not None:
        return int(found)
    ours = sources.c.id.between(FIRST_LOCAL_SOURCE_ID, LAST_LOCAL_SOURCE_ID)
    last = db.execute(sa.select(sa.func.max(sources.c.id)).where(ours)).scalar()
    made = FIRST_LOCAL_SOURCE_ID if last is None else int(last) + 1
    values = {"url": url, "url_key": file_key(url), "content_path": content_path, "site": site, "created_at": now}
    db.execute(sa.insert(sources).values(id=made, **values))  # taken meanwhile: the transaction runs again
    return made


# What every run asks is put together once: that takes longer than to ask it.
_THIS_RUN = runs.c.id == sa.bindparam("run")
_awake = sa.or_(sites.c.resume_at.is_(None), sites.c.resume_at <= NOW)
"""The site has asked nobody to wait, or not for so long."""


def _running(condition: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    return sa.select(sa.func.count()).where(_other.c.state == RunState.RUNNING, condition).scalar_subquery()


def _first_of(site: sa.ColumnElement[str]) -> sa.Select[Any]:
    """The queued runs of a site whose time has come and whose source is idle, to be ordered by whoever asks."""
    due = (_mine.c.site == site, _mine.c.state == RunState.QUEUED, _mine.c.not_before <= NOW)
    return sa.select(_mine).where(*due, _running(_other.c.source_id == _mine.c.source_id) == 0)


def _highest(site: sa.ColumnElement[str]) -> sa.ScalarSelect[int]:
    chosen = _first_of(site).with_only_columns(_mine.c.priority).order_by(_mine.c.priority.desc())
    return chosen.limit(1).scalar_subquery()


def _next_sites(waiting: sa.FromClause) -> sa.Select[Any]:
    """The sites of which a run may begin, as they are to be served; `waiting`: all that have queued runs."""
    seen = (
        sa.select(
            sites.c.name,
            sa.func.coalesce(sa.type_coerce(sites.c.served_at, sa.BigInteger), 0).label("served_at"),
            _running(_other.c.site == sites.c.name).label("busy"),
            _highest(sites.c.name).label("highest"),
        )
        .join(waiting, waiting.c.site == sites.c.name)
        .where(_awake)
        .subquery()
    )
    return (
        sa.select(seen.c.name)
        .where(seen.c.busy < sa.bindparam("slots"), seen.c.highest.is_not(None))
        .order_by(seen.c.busy, seen.c.highest.desc(), seen.c.served_at, seen.c.name)
        .limit(CANDIDATES)
    )


def _by_steps() -> sa.FromClause:
    """The sites with queued runs: from one to the next by the index, however many runs they have."""
    first = sa.select(sa.func.min(runs.c.site).label("site")).where(runs.c.state == RunState.QUEUED)
    found = first.cte("waiting", recursive=True)
    later = sa.select(_mine.c.site).where(_mine.c.state == RunState.QUEUED, _mine.c.site > found.c.site)
    following = later.order_by(_mine.c.site).limit(1).scalar_subquery()
    return found.union_all(sa.select(following).where(found.c.site.is_not(None)))


def _by_groups() -> sa.FromClause:
    """The same for MariaDB, which steps so by itself, and walks along all runs when it is told how."""
    return sa.select(runs.c.site).where(runs.c.state == RunState.QUEUED).group_by(runs.c.site).subquery("waiting")


_other, _mine = runs.alias("other"), runs.alias("mine")
_NEXT_SITES, _NEXT_SITES_ON_MARIADB = _next_sites(_by_steps()), _next_sites(_by_groups())
_SITE = sa.bindparam("site", type_=runs.c.site.type)
_HAS_SLOT = sa.select(sites.c.name).where(
    sites.c.name == _SITE, _awake, _running(_other.c.site == _SITE) < sa.bindparam("slots")
)
_LOCK = sa.select(sites.c.name).where(sites.c.name == _SITE)
_LOCK_PATIENTLY, _LOCK_IF_FREE = _LOCK.with_for_update(), _LOCK.with_for_update(skip_locked=True)
_OF_SITE = (
    _first_of(_SITE)
    .with_only_columns(_mine.c.id, _mine.c.source_id)
    .where(_mine.c.priority == _highest(_SITE))
    .order_by(_mine.c.id)
    .limit(CANDIDATES)
)
_THIS_ONE = sa.select(runs.c.id, runs.c.source_id, runs.c.site).where(_THIS_RUN, runs.c.state == RunState.QUEUED)
_IS_BUSY = sa.select(_running(_other.c.source_id == sa.bindparam("source")))
_TAKE = (
    sa.update(runs)
    .where(_THIS_RUN, runs.c.state == RunState.QUEUED)
    .values(
        state=RunState.RUNNING,
        owner=sa.bindparam("worker"),
        lease_until=sa.type_coerce(NOW + sa.bindparam("lease", type_=sa.BigInteger), Instant),
        fence=runs.c.fence + 1,
        attempt=runs.c.attempt + 1,
        started_at=sa.func.coalesce(runs.c.started_at, sa.type_coerce(NOW, Instant)),
    )
)
_CLAIMED = (
    sa.select(
        runs,
        sources.c.remote_deletes.label("source_deletes"),
        _IDENTITY.scalar_subquery().label("identity"),
    )
    .join(sources)
    .where(_THIS_RUN)
)
_HELD = sa.select(runs.c.fence, runs.c.owner, runs.c.state).where(_THIS_RUN).with_for_update()


@transaction
def claim(
    db: Connection,
    *,
    owner: str,
    lease: timedelta,
    site_concurrency: int,
    run: int | None = None,
) -> Claim | None:
    """Take the queued run that is next: its time has come, its source is idle, its site has a free slot and has asked
    nobody to wait. Of these one of the site with the fewest runs under way; among such sites, of the one with the highest
    priority, and of the one whose turn was longest ago; within the site the highest priority, and the oldest.

    With `run`, that one and no other, even before its time: a person is waiting for it.
    """
    if is_repeated(db):
        # The first pass may have taken a run that nobody performs now: before it claims again, the worker gives back.
        raise CatalogError(
            "the connection to the catalog was lost while a run was claimed; it is claimed anew in a moment"
        )
    _expire(db)

    def take_from(site: str, lock: sa.Select[Any]) -> Claim | None:
        # Between this lock and the commit nobody else starts a run of the site: what is counted now holds.
        if db.execute(lock, {"site": site}).first() is None:
            passed_by.append(site)
            return None
        if db.execute(_HAS_SLOT, {"site": site, "slots": site_concurrency}).first() is None:
            return None
        candidates = [wanted] if wanted is not None else db.execute(_OF_SITE, {"site": site}).all()
        for candidate in candidates:
            if _take(db, candidate, owner, lease):
                db.execute(sa.update(sites).where(sites.c.name == site).values(served_at=in_time(timedelta())))
                return _claim(db, candidate.id)
        return None

    passed_by: list[str] = []
    wanted = None
    if run is not None:
        wanted = db.execute(_THIS_ONE, {"run": run}).first()
        return None if wanted is None else take_from(wanted.site, _LOCK_PATIENTLY)
    # A site that another worker takes from right now is passed by, unless there is no other.
    next_sites = _NEXT_SITES_ON_MARIADB if db.dialect.name in ("mysql", "mariadb") else _NEXT_SITES
    for site in db.execute(next_sites, {"slots": site_concurrency}).scalars().all():
        if (claimed := take_from(site, _LOCK_IF_FREE)) is not None:
            return claimed
    return take_from(passed_by[0], _LOCK_PATIENTLY) if passed_by else None


def _take(db: Connection, candidate: Any, owner: str, lease: timedelta) -> bool:
    # A source that has moved may have runs of two sites, and an order for it may arrive right now.
    db.execute(sa.select(sources.c.id).where(sources.c.id == candidate.source_id).with_for_update())
    if db.execute(_IS_BUSY, {"source": candidate.source_id}).scalar_one():
        return False
    taken = db.execute(_TAKE, {"run": candidate.id, "worker": owner, "lease": milliseconds(lease)})
    return taken.rowcount == 1


def _claim(db: Connection, run: int) -> Claim:
    row = db.execute(_CLAIMED, {"run": run}).one()
    return Claim(
        run=row.id,
        run_id=f"{row.identity}-{row.id}",
        source_id=row.source_id,
        url=row.url,
        content_path=row.content_path,
        site=row.site,
        owner=row.owner,
        fence=row.fence,
        attempt=row.attempt,
        correlation_id=row.correlation_id,
        counts=row.counts,
        log=row.log,
        removals=row.removals or "",
        source_deletes=row.source_deletes and RemoteDeletes(row.source_deletes),
        order_deletes=row.remote_deletes and RemoteDeletes(row.remote_deletes),
    )


def run_name(db: Connection, run: int) -> str:
    return f"{db.execute(_IDENTITY).scalar()}-{run}"


def run_number(run_id: str) -> int:
    """The row of a run by its name; 0, which no run has, when it is none."""
    number = run_id.rpartition("-")[2]
    return int(number) if number.isascii() and number.isdecimal() and len(number) < 19 else 0


def _expire(db: Connection) -> None:
    """Give back the runs whose worker has not renewed its lease. The attempt was not its fault: it counts again."""
    _update_runs(
        db,
        sa.and_(runs.c.state == RunState.RUNNING, runs.c.lease_until < NOW),
        {"state": RunState.QUEUED, "attempt": runs.c.attempt - 1, "owner": None, "lease_until": None},
    )


def _update_runs(db: Connection, condition: sa.ColumnElement[bool], values: dict[str, Any]) -> None:
    found = db.execute(sa.select(runs.c.id).where(condition)).scalars().all()
    update_found(db, runs, found, condition, values)


@transaction
def release(db: Connection, owners: list[str]) -> int:
    """Give back at once whatever workers own that are known to be dead. Returns the number of runs."""
    workers.leave(db, owners)
    db.execute(sa.update(runs).where(runs.c.owner.in_(owners), runs.c.state != RunState.RUNNING).values(owner=None))
    given_back = db.execute(
        sa.update(runs)
        .where(runs.c.owner.in_(owners))
        .values(state=RunState.QUEUED, attempt=runs.c.attempt - 1, owner=None, lease_until=None)
    )
    return given_back.rowcount


@transaction
def give_back(db: Connection, owner: str, performed: list[int], rest: timedelta) -> int:
    """Put back what a live worker owns and does not perform: it was interrupted, or the answer to its claim was lost.

    They may go on after `rest`. It still owns the events of these runs. Returns the number of runs.
    """
    strays = sa.and_(runs.c.owner == owner, runs.c.state == RunState.RUNNING, runs.c.id.not_in(performed))
    found = list(db.execute(sa.select(runs.c.id).where(strays)).scalars())
    values = {"state": RunState.QUEUED, "attempt": runs.c.attempt - 1, "not_before": in_time(rest)}
    db.execute(sa.update(runs).where(runs.c.id.in_(found), strays).values(**values))
    for run in found:
        outbox.disown_if_drained(db, run)
    return len(found)


@query
def owners(db: Connection) -> list[str]:
    return list(db.execute(sa.select(runs.c.owner).where(runs.c.owner.is_not(None)).distinct()).scalars())


@transaction
def renew(db: Connection, owner: str, lease: timedelta, performed: list[int]) -> dict[int, int]:
    """Keep what this worker is really at: the runs it performs, and those whose events it still has to relay.

    A run that it has lost track of runs out and is taken up again. Returns the fences of the runs that it performs and
    still owns.
    """
    at_work = sa.or_(runs.c.state != RunState.RUNNING, runs.c.id.in_(performed))
    _update_runs(db, sa.and_(runs.c.owner == owner, at_work), {"lease_until": in_time(lease)})
    ours = sa.and_(runs.c.owner == owner, runs.c.state == RunState.RUNNING, runs.c.id.in_(performed))
    return {row.id: row.fence for row in db.execute(sa.select(runs.c.id, runs.c.fence).where(ours))}


@query
def time_left(db: Connection, run: int) -> timedelta:
    """Until a queued run may go on."""
    left = db.execute(sa.select(sa.type_coerce(runs.c.not_before, sa.BigInteger) - NOW).where(_THIS_RUN), {"run": run})
    return timedelta(milliseconds=max(left.scalar() or 0, 0))


def guard(db: Connection, claim: Claim) -> None:
    """Hold the run's row for the rest of this transaction, or raise `LeaseLost`: first line of every write."""
    row = db.execute(_HELD, {"run": claim.run}).first()
    if row is None or (row.fence, row.owner, row.state) != (claim.fence, claim.owner, RunState.RUNNING):
        raise LeaseLost(f"run {claim.run_id} belongs to another worker now; what this one still had is dropped")


def _was_committed(db: Connection, claim: Claim, state: RunState) -> bool:
    """Whether the first pass of a transaction that leaves the run in this state did so, although its answer was lost.

    Nobody else has claimed the run since, and nobody but its worker ends it.
    """
    if not is_repeated(db):
        return False
    row = db.execute(_HELD, {"run": claim.run}).first()
    return row is not None and (row.fence, row.state) == (claim.fence, state)


@transaction
def put_back(
    db: Connection,
    claim: Claim,
    *,
    after: timedelta,
    ending: Ending,
    same_attempt: bool,
    counts: dict[str, int],
    gaps: list[Gap],
    log: str,
    removals: str = "",
) -> None:
    """End an attempt but not the run, which goes on `after` a while. `same_attempt`: it was interrupted or postponed,
    and does not count.

    The next attempt goes to where the source is then: a later order may have moved it, and been served meanwhile.
    """
    if _was_committed(db, claim, RunState.QUEUED):
        return
    guard(db, claim)
    values: dict[str, Any] = {"state": RunState.QUEUED, "not_before": in_time(after), "counts": counts}
    place = sa.select(sources.c.url, sources.c.content_path, sources.c.site).where(sources.c.id == claim.source_id)
    values |= db.execute(place).mappings().one()
    values |= {"gaps": _gaps(gaps), "log": log[-LOG_LENGTH:], "reason": ending.reason, "detail": ending.detail}
    values["removals"] = removals or None
    if same_attempt:
        values["attempt"] = runs.c.attempt - 1
    db.execute(sa.update(runs).where(runs.c.id == claim.run).values(**values))
    outbox.disown_if_drained(db, claim.run)


@transaction
def finish(
    db: Connection,
    claim: Claim,
    *,
    now: datetime,
    ending: Ending,
    counts: dict[str, int],
    gaps: list[Gap],
    log: str,
    events: list[Event],
    removals: str = "",
) -> None:
    """End the run, together with the events that tell of it."""
    if _was_committed(db, claim, ending.state):
        return
    guard(db, claim)
    db.execute(
        sa.update(runs)
        .where(runs.c.id == claim.run)
        .values(
            state=ending.state,
            reason=ending.reason,
            detail=ending.detail,
            ended_at=now,
            counts=counts,
            gaps=_gaps(gaps),
            log=log[-LOG_LENGTH:],
            removals=removals or None,
        )
    )
    if ending.state is RunState.SYNCHRONIZED:
        db.execute(sa.update(sources).where(sources.c.id == claim.source_id).values(synchronized_at=now))
    outbox.add(db, claim.run, events, now)
    outbox.disown_if_drained(db, claim.run)


def _gaps(gaps: list[Gap]) -> list[list[str]]:
    return [[str(gap.reason), gap.detail] for gap in gaps]


@query
def order_ids(db: Connection, run: int) -> list[str]:
    """The message ids of the orders that a run answers, in the order of their arrival."""
    found = db.execute(
        sa.select(orders.c.message_id)
        .where(orders.c.run_id == run, orders.c.message_id.is_not(None))
        .order_by(orders.c.id)
    )
    return list(found.scalars())


@query
def get_run(db: Connection, run: int) -> dict[str, Any] | None:
    row = db.execute(sa.select(runs).where(runs.c.id == run)).mappings().first()
    return None if row is None else {**row, "run_id": run_name(db, run)}


@query
def list_runs(db: Connection, *, source_id: int | None, limit: int) -> list[dict[str, Any]]:
    """The newest runs first."""
    choice = sa.select(runs).order_by(runs.c.id.desc()).limit(limit)
    if source_id is not None:
        choice = choice.where(runs.c.source_id == source_id)
    identity = run_name(db, 0).removesuffix("0")
    return [{**row, "run_id": f"{identity}{row['id']}"} for row in db.execute(choice).mappings()]


@query
def list_sources(db: Connection, *, after: int = 0, limit: int = 1000) -> list[dict[str, Any]]:
    """A page of sources in the order of their ids, those after `after`, each with state and reason of its newest run."""
    newest = sa.select(sa.func.max(_other.c.id)).where(_other.c.source_id == sources.c.id).scalar_subquery()
    choice = (
        sa.select(sources, runs.c.state, runs.c.reason)
        .select_from(sources)
        .outerjoin(runs, runs.c.id == newest)
        .where(sources.c.id > after)
        .order_by(sources.c.id)
        .limit(limit)
    )
    return [dict(row) for row in db.execute(choice).mappings()]


def ending_of(row: dict[str, Any]) -> Ending:
    """How the run of a row from `get_run` ended."""
    reason = None if row["reason"] is None else Reason(row["reason"])
    state = RunState(row["state"])
    return Ending(state=state, reason=None if state is RunState.SYNCHRONIZED else reason, detail=row["detail"] or "")


@transaction
def set_remote_deletes(db: Connection, source_id: int, action: RemoteDeletes | None) -> bool:
    """What is done about files that are gone at this remote; None: as the instance is set. False: no such source."""
    done = db.execute(sa.update(sources).where(sources.c.id == source_id).values(remote_deletes=action))
    return done.rowcount > 0 or db.execute(sa.select(sources.c.id).where(sources.c.id == source_id)).first() is not None


@query
def find_source(db: Connection, url: str, source_id: int | None) -> dict[str, Any] | None:
    """The source with this id or, without one, with this URL."""
    by_url = sa.and_(sources.c.url_key == file_key(url), sources.c.url == url)
    choice = sa.select(sources).where(by_url if source_id is None else sources.c.id == source_id)
    row = db.execute(choice.order_by(sources.c.id)).mappings().first()
    return None if row is None else dict(row)


@query
def folder_of(db: Connection, source_id: int) -> str | None:
    return db.execute(sa.select(sources.c.content_path).where(sources.c.id == source_id)).scalar()
