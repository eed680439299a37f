"""The composition root: builds the parts from the settings, and runs them together."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import tempfile
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import structlog

from . import __version__
from .amqp.address import Tls
from .amqp.connection import Broker
from .amqp.consumer import Consumer
from .amqp.relay import Relay
from .amqp.topology import Topology
from .amqp.wire import EventFormat, order_message
from .catalog import content, journal
from .catalog.calls import CatalogCalls
from .catalog.engine import look_into_catalog, open_catalog, utcnow
from .catalog.journal import Claim
from .domain.errors import BrokerError, CatalogError, ContentError, SettingsError, WebError
from .domain.events import Event, EventType
from .domain.orders import Order, check_content_path, check_url, default_content_path, make_order
from .domain.removals import RemoteDeletes
from .domain.runs import Ending
from .domain.sizes import parse_size
from .gallery.pool import GalleryPool
from .settings import Settings
from .sync.heartbeat import Heartbeat
from .sync.identity import Identity, new_name
from .sync.intake import Intake
from .sync.recorder import Outlet
from .sync.rehearsal import Rehearsal, Rehearsed
from .sync.removal import Remover
from .sync.retention import keep_journal_small
from .sync.runner import Runner, RunnerSettings
from .sync.scripts import HookScript, HookScripts
from .sync.tally import Tally
from .sync.updates import Observer, Update
from .sync.worker import Worker, WorkerSettings
from .web.address import listen

T = TypeVar("T")

log = structlog.get_logger(__name__)

BROKER_PATIENCE = 20.0
"""Seconds that a command which ends afterwards waits for the broker."""
EMPTY_TRASH_EVERY = 3600.0
LAST_WORDS = 5.0
"""Seconds for the order in hand, and for the events that are left, when we are told to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """All parts of one process, built and connected. `broker` and `relay` are None in embedded mode."""

    settings: Settings
    calls: CatalogCalls
    name: str
    """Of this worker."""
    pool: GalleryPool
    intake: Intake
    runner: Runner
    tally: Tally
    worker: Worker
    remover: Remover
    broker: Broker | None
    relay: Relay | None


@contextlib.asynccontextmanager
async def build(
    settings: Settings, observer: Observer | None = None, *, consume: bool = False, name: str | None = None
) -> AsyncIterator[App]:
    """Build everything; on leaving, end what was started. `consume`: take orders from the broker, too; `name`: of this
    worker.

    Raises `SettingsError`, `CatalogError`, `ContentError`.
    """
    scripts = HookScripts(hook_scripts(settings), settings.hook_timeout)
    broker = make_broker(settings, consume=consume)
    _make_folder("CONFIG_PATH", settings.config_path, 0o700)
    _make_folder("RUNTIME_PATH", settings.runtime_path, 0o700)
    calls = CatalogCalls(open_catalog(settings.catalog_url, durable=settings.durable))
    if not content.is_marked(calls.catalog):  # else it is a disk that is not mounted: its place is left as it is
        _make_folder("CONTENT_ROOT", settings.content_root, 0o777)
    identity = Identity(settings.runtime_path / "workers", name or new_name())
    tally = Tally()
    pool = GalleryPool(settings.template, stall_timeout=settings.run_stall_timeout, processes=settings.sync_concurrency)
    try:
        relay = None
        if broker is not None:
            relay = Relay(broker, calls, _event_format(settings), identity.name, tally.saw_confirmed)
        outlet = _outlet(settings, relay)
        remover = _remover(settings, calls, outlet)
        runner = Runner(
            calls,
            pool,
            _runner_settings(settings),
            outlet=outlet,
            remover=remover,
            scripts=scripts,
            observer=tally.saw if observer is None else _both(tally.saw, observer),
        )
        worker = Worker(
            calls,
            runner,
            WorkerSettings(
                owner=identity.name,
                workers_folder=settings.runtime_path / "workers",
                slots=settings.sync_concurrency,
                site_concurrency=settings.site_concurrency,
                shutdown_grace=settings.shutdown_grace,
            ),
        )
        yield App(
            settings=settings,
            calls=calls,
            name=identity.name,
            pool=pool,
            runner=runner,
            tally=tally,
            intake=Intake(calls, pool, worker.wake),
            worker=worker,
            remover=remover,
            broker=broker,
            relay=relay,
        )
    finally:
        await scripts.close()
        await pool.close()
        released = False
        with contextlib.suppress(CatalogError):
            # Its unfinished runs and untold events need not wait for the end of its leases.
            await calls(journal.release, [identity.name])
            released = True
        await asyncio.to_thread(calls.close)
        identity.close(forget=released)


async def serve(settings: Settings, name: str) -> None:
    """The service: until SIGTERM or SIGINT. `name`: of this worker. Raises what `build` raises, and `WebError`."""
    with _listen(settings) as listener:
        await _serve_with(settings, listener, name)


@contextlib.contextmanager
def _listen(settings: Settings) -> Iterator[socket.socket | None]:
    """None: nobody asked for HTTP; or another program has the port that is only our default."""
    listener = None
    if settings.http_port:
        try:
            listener = listen(settings.http_host, settings.http_port, token=settings.http_token)
        except WebError as error:
            if settings.model_fields_set & {"http_host", "http_port"}:
                raise
            log.warning("nobody can ask over HTTP whether the service is ready", why=str(error))
    with listener or contextlib.nullcontext():
        yield listener


async def _serve_with(settings: Settings, listener: socket.socket | None, name: str) -> None:
    async with build(settings, consume=True, name=name) as app:
        stop = asyncio.Event()
        with _signals(stop.set):
            gallery_dl = await app.pool.start()
            # What stands now stands to the end: thousands of short-lived events are no reason to look it all over.
            gc.freeze()
            gc.set_threshold(20_000, 20, 20)
            http = {} if listener is None else {"http": "{}:{}".format(*listener.getsockname()[:2])}
            log.info("started", version=__version__, gallery_dl=gallery_dl, catalog=app.calls.catalog.address, **http)
            if (doubt := app.calls.catalog.doubt()) is not None:
                log.warning(doubt)
            if cookies_stay(settings.cookies_folder):
                log.warning(
                    "cookies that sites renew are not saved", folder=str(settings.cookies_folder), why="read-only"
                )
            if app.broker is None:
                log.info(
                    "no broker is set (RABBITMQ_HOST or AMQP_URL): embedded mode, orders come from this machine only"
                )
            await _serve(app, stop, listener, gallery_dl)
        log.info("stopped")


async def _serve(app: App, stop: asyncio.Event, listener: socket.socket | None, gallery_dl: str) -> None:
    # Before the relay looks for events that nobody owns: it looks again only after a while.
    await app.worker.release_dead()
    async with asyncio.TaskGroup() as group:
        parts = {
            "leases": group.create_task(app.worker.keep_leases()),
            "trash": group.create_task(_keep_trash_small(app)),
            "upgrades": group.create_task(app.calls.until_outgrown()),
            "heartbeat": group.create_task(_heartbeat(app, app.settings.sync_concurrency).run()),
        }
        if keep := app.settings.journal_retention:
            parts["retention"] = group.create_task(keep_journal_small(app.calls, timedelta(days=keep)))
        consumer = consuming = None
        if app.broker is not None and app.relay is not None:
            parts |= {"broker": group.create_task(app.broker.run()), "relay": group.create_task(app.relay.run())}
            accept, rejected_queue = app.tally.counting(app.intake.accept), app.settings.rejected_orders_queue
            consumer = Consumer(app.broker, accept, rejected_queue, app.tally.saw_rejected)
            consuming = group.create_task(consumer.run())
        background = list(parts.values())
        working = group.create_task(app.worker.run(stop))
        if listener is not None:
            from .probes import answer_probes  # here: no other command pays for what it needs

            told = {**parts, "worker": working} | ({} if consuming is None else {"consumer": consuming})
            background.append(group.create_task(answer_probes(app, stop, told, listener, gallery_dl)))
        await stop.wait()
        log.info("stopping")
        if consumer is not None and consuming is not None:
            await consumer.stop()
            # An order that was journalled and not acked would come again.
            await asyncio.wait({consuming}, timeout=LAST_WORDS)
            consuming.cancel()
        await working
        if app.broker is not None and app.broker.is_connected and not app.broker.is_blocked:
            with contextlib.suppress(CatalogError):
                await _relay_rest(app, stop)
        for task in background:
            task.cancel()


def _heartbeat(app: App, slots: int) -> Heartbeat:
    async def report() -> dict[str, Any]:
        memory = await app.pool.memory()
        broker = app.broker
        return {
            "runs": [run.report() for run in app.tally.underway(app.runner.performed())],
            "broker": None if broker is None else broker.last_problem or "ok",
            "memory": None if memory is None else memory.private,
            "trouble": app.calls.trouble,
        }

    return Heartbeat(app.calls, app.name, slots, report)


async def _keep_trash_small(app: App) -> None:
    """Until cancelled."""
    while True:
        try:
            if count := await app.remover.empty_expired():
                log.info("the trash was emptied of old files", files=count)
        except CatalogError:
            pass  # said by the catalog itself
        except ContentError as error:
            log.warning("the trash could not be emptied", why=str(error))
        await asyncio.sleep(EMPTY_TRASH_EVERY)


async def _relay_rest(app: App, stop: asyncio.Event) -> None:
    """Until the outbox is empty. Once told to stop, only for a moment: the next start relays what is left there."""
    if app.relay is None:
        return
    draining, stopping = asyncio.create_task(app.relay.drain()), asyncio.create_task(stop.wait())
    await asyncio.wait({draining, stopping}, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait({draining}, timeout=LAST_WORDS)
    for task in (draining, stopping):
        task.cancel()
    await asyncio.wait({draining, stopping})
    if not draining.cancelled():
        draining.result()


async def sync(
    settings: Settings,
    url: str,
    *,
    to: str | None,
    source_id: int | None,
    observer: Observer,
    waiting: Callable[[str], None],
) -> Ending:
    """One run now, in this process: the same journal, the same claim, the same events as in the service.

    Raises `OrderRejected` for a URL or folder that is not allowed, and what `build` raises.
    """
    check_url(url)
    folder = check_content_path(to) if to is not None else None
    async with build(settings, observer) as app, asyncio.TaskGroup() as group:
        background = [
            group.create_task(app.worker.keep_leases()),
            group.create_task(_heartbeat(app, slots=1).run(after=1.0)),
        ]
        try:
            if app.broker is not None and app.relay is not None:
                background += [group.create_task(app.broker.run()), group.create_task(app.relay.run())]
                await _connect(app.broker)
            stop = asyncio.Event()
            with _signals(stop.set, second=lambda: group.create_task(app.worker.kill_all())):
                # First, so that the order joins the run of a command that was cut off, with what that has landed.
                await app.worker.release_dead()
                order = await _local_order(app, url, folder, source_id)
                submitted = await app.intake.accept(order)
                ending = await app.worker.run_now(submitted.run, stop=stop, waiting=waiting)
                with contextlib.suppress(ContentError):  # the run has said what is wrong with the folder
                    await app.remover.empty_expired()
                await _relay_rest(app, stop)
            return ending
        finally:
            for task in background:
                task.cancel()


async def rehearse(
    settings: Settings, url: str, *, to: str | None, source_id: int | None, observer: Observer
) -> tuple[Claim, Rehearsed]:
    """What `sync` would do now. Changes neither the catalog nor CONTENT_ROOT, tells nobody, and needs neither.

    Raises `OrderRejected`, `SettingsError`, `CatalogError`, `GalleryError`.
    """
    check_url(url)
    folder = check_content_path(to) if to is not None else None
    catalog = look_into_catalog(settings.catalog_url)
    calls = None if catalog is None else CatalogCalls(catalog)
    pool = GalleryPool(settings.template, stall_timeout=settings.run_stall_timeout, processes=1)
    # As Ctrl-C does: copies of cookies must not be left in the temporary folder.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
    try:
        with tempfile.TemporaryDirectory(prefix="http-downloader-") as run_folder:
            site = (await pool.resolve(url)).name
            claim = await _imagined_claim(calls, url, folder, source_id, site)
            remover = None if calls is None else _remover(settings, calls, None)
            rehearsal = Rehearsal(calls, remover, pool, _runner_settings(settings), observer)
            return claim, await rehearsal.perform(claim, Path(run_folder))
    finally:
        await pool.close()
        if calls is not None:
            await asyncio.to_thread(calls.close)


async def _imagined_claim(
    calls: CatalogCalls | None, url: str, folder: str | None, source_id: int | None, site: str
) -> Claim:
    """A run that is in no journal, of a source that may not be in the catalog."""
    found = None if calls is None else await calls(journal.find_source, url, source_id)
    known_folder = found["content_path"] if found is not None else default_content_path(url)
    return Claim(
        run=0,
        run_id=f"rehearsal-{uuid.uuid4().hex[:8]}",
        source_id=found["id"] if found is not None else source_id or 0,
        url=url,
        content_path=folder or known_folder,
        site=site,
        owner="",
        fence=0,
        attempt=1,
        correlation_id=None,
        counts={},
        source_deletes=RemoteDeletes(found["remote_deletes"]) if found and found["remote_deletes"] else None,
    )


async def approve(settings: Settings, run: int, run_id: str) -> tuple[list[Event], list[str]]:
    """Remove what the plan of a run holds. Returns the events, and a line for each file that stays.

    Raises `SourceBusyError`, `ContentError`, `BrokerError` (before anything is removed), and what `build` raises.
    """
    async with build(settings) as app, asyncio.TaskGroup() as group:
        background = []
        try:
            if app.broker is not None and app.relay is not None and settings.amqp_q_file_removed:
                background = [group.create_task(app.broker.run()), group.create_task(app.relay.run())]
                await _connect(app.broker)
            done = await app.remover.approve(run, run_id)
            if background and app.relay is not None:
                await app.relay.adopt()
                await _relay_rest(app, asyncio.Event())
            return done
        finally:
            for task in background:
                task.cancel()


async def post_order(settings: Settings, order: Order) -> str:
    """Post an order to the broker's orders queue. Returns its message id. Raises `BrokerError`, `SettingsError`."""
    broker = make_broker(settings, consume=False)
    if broker is None:
        raise SettingsError("no broker is set; set RABBITMQ_HOST or AMQP_URL, or run: http-downloader sync URL")
    message_id = str(uuid.uuid4())
    body = {"source_id": order.source_id, "url": order.url, "content_path": order.content_path}
    body |= {} if order.priority is None else {"priority": order.priority}
    running = asyncio.create_task(broker.run())
    try:
        await _connect(broker)
        queue = settings.amqp_q_sync_http_src_orders
        message = order_message(body, queue=queue, message_id=message_id)
        if message_id not in await _within(BROKER_PATIENCE, broker, broker.publish([message])):
            raise BrokerError(f"the broker did not take the order: queue {queue!r} is not there or refuses messages")
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    return message_id


async def check_broker(settings: Settings) -> None:
    """For the doctor: connect, declare what is missing, and publish. Raises `BrokerError` when that does not work."""
    broker = make_broker(settings, consume=False)
    assert broker is not None
    running = asyncio.create_task(broker.run())
    try:
        await _connect(broker, patience=5.0)
        await _within(5.0, broker, broker.takes_messages())
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def _connect(broker: Broker, patience: float = BROKER_PATIENCE) -> None:
    await _within(patience, broker, broker.connected())


async def _within(patience: float, broker: Broker, wanted: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(patience):
            return await wanted
    except TimeoutError:
        raise BrokerError(f"the broker cannot be used: {broker.last_problem or 'it does not answer'}") from None


async def _local_order(app: App, url: str, folder: str | None, source_id: int | None) -> Order:
    """The order for a URL that a person gave: the same URL again is the same source, in the same folder."""
    if source_id is None:
        site = (await app.pool.resolve(url)).name
        place = folder or default_content_path(url)
        source_id = await app.calls(journal.local_source_id, url, content_path=place, site=site, now=utcnow())
    if folder is None:
        folder = await app.calls(journal.folder_of, source_id) or default_content_path(url)
    return make_order(source_id, url, folder)


def make_broker(settings: Settings, *, consume: bool) -> Broker | None:
    url = settings.broker_url
    if url is None:
        return None
    orders, rejected = settings.amqp_q_sync_http_src_orders, settings.rejected_orders_queue
    queues = dict.fromkeys([orders, rejected, *_event_format(settings).queues.values()])
    topology = Topology(
        exchange=settings.amqp_exchange,
        queues=tuple(queues),
        durable=settings.amqp_queues_durable,
        quorum=settings.amqp_queue_type == "quorum",
    )
    tls = Tls(
        ca=settings.amqp_tls_ca,
        certificate=settings.amqp_tls_cert,
        key=settings.amqp_tls_key,
        key_password=settings.amqp_tls_key_password,
    )
    try:
        return Broker(url, topology, orders_queue=orders if consume else None, tls=tls)
    except ValueError as error:
        raise SettingsError(f"{'AMQP_URL' if settings.amqp_url else 'RABBITMQ_HOST'} is wrong: {error}") from None


def _event_format(settings: Settings) -> EventFormat:
    queues = {
        EventType.FILE_DOWNLOADED: settings.amqp_q_file_downloaded,
        EventType.FILE_SKIPPED: settings.amqp_q_file_download_skipped,
        EventType.SOURCE_SYNCHRONIZED: settings.amqp_q_source_synchronized,
        EventType.SOURCE_SYNC_FAILED: settings.amqp_q_source_sync_failed,
        EventType.FILE_REMOVED: settings.amqp_q_file_removed,
    }
    return EventFormat(
        queues={event: queue for event, queue in queues.items() if queue},
        content_type=settings.amqp_event_content_type,
    )


def _outlet(settings: Settings, relay: Relay | None) -> Outlet | None:
    if relay is None:
        return None
    return Outlet(types=frozenset(_event_format(settings).queues), publish=relay.publish, wake=relay.wake)


def _remover(settings: Settings, calls: CatalogCalls, outlet: Outlet | None) -> Remover:
    retention = timedelta(days=settings.trash_retention) if settings.trash_retention else None
    return Remover(calls, settings.content_root, settings.removal_policy, retention, outlet, durable=settings.durable)


def _runner_settings(settings: Settings) -> RunnerSettings:
    return RunnerSettings(
        content_root=settings.content_root,
        runtime_path=settings.runtime_path,
        cookies_folder=settings.cookies_folder,
        allowed_networks=settings.allowed_networks,
        refresh_changed=settings.refresh_changed,
        lanes=settings.downloads_per_source,
        rate_limit_max_wait=settings.rate_limit_max_wait,
        limits=settings.limits,
        attempts=settings.sync_attempts,
        retry_delay=timedelta(seconds=settings.sync_retry_delay),
        log_level=logging.DEBUG if settings.log_level == "DEBUG" else logging.INFO,
        durable=settings.durable,
        min_free_space=parse_size(settings.min_free_space),
    )


def cookies_stay(folder: Path) -> bool:
    """Whether there are cookie files that cannot be replaced, as in a mounted secret."""
    return any(folder.glob("*.txt")) and not os.access(folder, os.W_OK)


def hook_scripts(settings: Settings) -> dict[EventType, HookScript]:
    """Raises `SettingsError` for a setting that names no file."""
    configured = {
        EventType.FILE_DOWNLOADED: ("HOOK_FILE_DOWNLOADED", settings.hook_file_downloaded, "on_file_downloaded"),
        EventType.FILE_SKIPPED: ("HOOK_FILE_SKIPPED", settings.hook_file_skipped, "on_file_skipped"),
        EventType.SOURCE_SYNCHRONIZED: (
            "HOOK_SOURCE_SYNCHRONIZED",
            settings.hook_source_synchronized,
            "on_source_synchronized",
        ),
    }
    return {event: HookScript(name, text, function) for event, (name, text, function) in configured.items() if text}


def _make_folder(name: str, folder: Path, mode: int) -> None:
    try:
        folder.mkdir(mode, parents=True, exist_ok=True)
    except OSError as error:
        raise ContentError(
            f"{name} cannot be used: {folder}: {error.strerror}; make that folder, or set {name} to another one"
        ) from error


@contextlib.contextmanager
def _signals(first: Callable[[], object], second: Callable[[], object] | None = None) -> Iterator[None]:
    """SIGTERM and SIGINT call `first`; the next one calls `second`."""
    loop = asyncio.get_running_loop()
    calls = iter([first, second or first])

    def handle() -> None:
        next(calls, second or first)()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, handle)
    try:
        yield
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


def _both(first: Observer, second: Observer) -> Observer:
    def tell(claim: Claim, update: Update) -> None:
        first(claim, update)
        second(claim, update)

    return tell
