"""The commands and their options. What they do is in the modules beside."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from pathlib import Path
from typing import Annotated

import typer

from .. import __version__, faults  # noqa: F401 - every command refuses a FAULT_AT that says nothing
from ..app import post_order, serve
from ..catalog import content, files, journal, upgrades
from ..catalog.engine import Catalog, open_catalog, utcnow
from ..domain.errors import SettingsError
from ..domain.files import FileState
from ..domain.orders import HIGHEST_PRIORITY, MAX_SOURCE_ID, check_remote_deletes, make_order
from ..logs import configure_logs, name_process, redact, tell
from ..settings import Settings, load_settings, suspicious_names, take_secrets_from_environment
from ..sync.identity import new_name
from ..sync.trash import RootMarker
from . import demo as demo_command
from . import doctor as doctor_command
from . import rehearse, restore, show, synchronize, verify
from . import removals as removals_command
from . import status as status_command

commands = typer.Typer(
    name="http-downloader",
    help="Keeps local folders in step with remote galleries.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
sources = typer.Typer(help="The sources, and how their last run ended.", invoke_without_command=True)
files_group = typer.Typer(
    help="The files of the catalog, and what is to become of single ones.", invoke_without_command=True
)
removals_group = typer.Typer(help="Removals that wait for a person.", invoke_without_command=True)
trash = typer.Typer(help="Files that were gone at the remote, and the way back.", invoke_without_command=True)
db = typer.Typer(help="The catalog's schema, and which folder it speaks of.", no_args_is_help=True)
for name, group in (
    ("sources", sources),
    ("files", files_group),
    ("removals", removals_group),
    ("trash", trash),
    ("db", db),
):
    commands.add_typer(group, name=name)

OnlyOfSource = Annotated[
    int | None, typer.Option("--source-id", min=1, max=MAX_SOURCE_ID, metavar="N", help="Of this source only.")
]
Json = Annotated[bool, typer.Option("--json", help="Print NDJSON: one JSON object a line.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@commands.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


def _settings(*, of_service: bool = False) -> Settings:
    """`of_service`: what is wrong with them is a line of its log already."""
    settings = load_settings()
    redact.learn(settings.secrets)
    take_secrets_from_environment()
    if of_service:
        configure_logs(settings.log_level, settings.log_format, service=True)
    for sentence in suspicious_names():
        tell(f"warning: {sentence}", logging.WARNING)
    return settings


def _catalog(settings: Settings) -> Catalog:
    return open_catalog(settings.catalog_url, durable=settings.durable)


@commands.command("sync")
def sync_command(
    url: Annotated[str, typer.Argument(help="The gallery, as in a browser; or category:URL for self-hosted sites.")],
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="PATH", help="Folder below CONTENT_ROOT. Default: named after the URL."),
    ] = None,
    source_id: Annotated[
        int | None,
        typer.Option(
            max=MAX_SOURCE_ID, metavar="N", help="Id of the source. Default: the URL's own, or a new local one."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print events as NDJSON, and nothing else.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print what gallery-dl logs, too.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would be downloaded and removed; change nothing.")
    ] = False,
    attempts: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Tries when the failure may pass. Default: SYNC_ATTEMPTS.")
    ] = None,
) -> None:
    """Synchronize one gallery now, and show how it goes.

    Exit codes: 0 synchronized, 2 wrong use, 3 partial, 4 failed (may pass), 5 failed (somebody has to act),
    6 something needed is not there, 130 cancelled.
    """
    settings = _settings()
    if attempts is not None:
        settings = settings.model_copy(update={"sync_attempts": attempts})
    configure_logs(settings.log_level if verbose else "CRITICAL", settings.log_format)
    mode = synchronize.Mode.choose(as_json=as_json, quiet=quiet, verbose=verbose)
    if dry_run:
        raise typer.Exit(rehearse.run(settings, url, to=to, source_id=source_id, mode=mode, verbose=verbose))
    raise typer.Exit(synchronize.run(settings, url, to=to, source_id=source_id, mode=mode))


@commands.command("serve")
def serve_command() -> None:
    """Run as a service: take orders from the broker, synchronize, send events. Ends on SIGTERM or Ctrl-C."""
    name_process(name := new_name())
    asyncio.run(serve(_settings(of_service=True), name))


@commands.command("order")
def order_command(
    url: Annotated[str, typer.Argument(help="The gallery's URL.")],
    source_id: Annotated[int, typer.Option(max=MAX_SOURCE_ID, metavar="N", help="Id of the source.")],
    to: Annotated[str, typer.Option("--to", metavar="PATH", help="Folder below CONTENT_ROOT.")],
    priority: Annotated[
        int | None,
        typer.Option(min=0, max=HIGHEST_PRIORITY, metavar="N", help="0 to 9; the highest is served first. Default: 0."),
    ] = None,
) -> None:
    """Post an order to the broker, for a service to carry out. Prints its message id."""
    settings = _settings()
    configure_logs("ERROR", settings.log_format)
    print(asyncio.run(post_order(settings, make_order(source_id, url, to, priority=priority))))


@commands.command("status")
def status(
    once: Annotated[bool, typer.Option("--once", help="Print it once, also on a terminal.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show how all workers do that share the catalog, what waits, and what needs somebody. Live, until Ctrl-C."""
    status_command.run(_settings(), once=once, as_json=as_json)


@sources.callback()
def sources_command(context: typer.Context, as_json: Json = False) -> None:
    """List the sources and how their last run ended."""
    if context.invoked_subcommand is None:
        catalog = _catalog(_settings())
        show.sources(lambda after: journal.list_sources(catalog, after=after), as_json=as_json)


@sources.command("edit")
def sources_edit(
    source_id: Annotated[int, typer.Argument(min=1, max=MAX_SOURCE_ID, help="Its id.")],
    remote_deletes: Annotated[
        str, typer.Option(metavar="keep|trash|delete|default", help="What is done about files that are gone there.")
    ],
) -> None:
    """Change what is done about files that are gone at the remote of one source."""
    action = None if remote_deletes == "default" else check_remote_deletes(remote_deletes)
    if not journal.set_remote_deletes(_catalog(_settings()), source_id, action):
        raise SettingsError(f"there is no source {source_id}; http-downloader sources lists them")


@commands.command("runs")
def runs_command(
    source_id: OnlyOfSource = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="The newest N.")] = 20,
    log: Annotated[str | None, typer.Option(metavar="RUN", help="Print the log of one run.")] = None,
    as_json: Json = False,
) -> None:
    """List runs with their state, reason and counts, the newest first."""
    catalog = _catalog(_settings())
    if log is not None:
        show.run_log(catalog, log)
    else:
        show.runs(journal.list_runs(catalog, source_id=source_id, limit=limit), as_json=as_json)


@files_group.callback()
def files_command(
    context: typer.Context,
    source_id: OnlyOfSource = None,
    state: Annotated[FileState | None, typer.Option(help="In this state only.")] = None,
    as_json: Json = False,
) -> None:
    """List the files of the catalog."""
    if context.invoked_subcommand is not None:
        return
    catalog = _catalog(_settings())

    def page(after: int) -> list[dict[str, object]]:
        return files.list_files(catalog, source_id=source_id, state=state, after=after, limit=1000)

    show.files(page, as_json=as_json)


OfSource = Annotated[
    int, typer.Option("--source-id", min=1, max=MAX_SOURCE_ID, metavar="N", help="Id of their source.")
]
Names = Annotated[list[str], typer.Argument(help="By filename, path or remote id.")]


@files_group.command("pin")
def files_pin(names: Names, source_id: OfSource) -> None:
    """Keep files here, whatever becomes of them at the remote."""
    removals_command.pin(_catalog(_settings()), source_id, names, pinned=True)


@files_group.command("unpin")
def files_unpin(names: Names, source_id: OfSource) -> None:
    """Undo `pin`."""
    removals_command.pin(_catalog(_settings()), source_id, names, pinned=False)


@files_group.command("forget")
def files_forget(names: Names, source_id: OfSource) -> None:
    """Do not download files again that were deleted here on purpose."""
    settings = _settings()
    removals_command.forget(settings, _catalog(settings), source_id, names)


@files_group.command("want")
def files_want(names: Names, source_id: OfSource) -> None:
    """Undo `forget`: the next run downloads them."""
    removals_command.want(_catalog(_settings()), source_id, names)


Run = Annotated[str, typer.Argument(help="Its id, as the list shows it.")]


@removals_group.callback()
def removals_list(context: typer.Context, as_json: Json = False) -> None:
    """List the plans that wait for a person, with their reasons."""
    if context.invoked_subcommand is None:
        removals_command.list_plans(_catalog(_settings()), as_json=as_json)


@removals_group.command("show")
def removals_show(run: Run, as_json: Json = False) -> None:
    """List the files that one plan holds."""
    removals_command.show_plan(_catalog(_settings()), run, as_json=as_json)


@removals_group.command("approve")
def removals_approve(run: Run) -> None:
    """Remove what a plan holds: to the trash, or as REMOTE_DELETES says."""
    settings = _settings()
    configure_logs("ERROR", settings.log_format)
    removals_command.approve_plan(settings, _catalog(settings), run)


@removals_group.command("reject")
def removals_reject(run: Run) -> None:
    """Keep what a plan holds: the files are pinned."""
    removals_command.reject_plan(_catalog(_settings()), run)


Everything = Annotated[bool, typer.Option("--all", help="All files in the trash, or of one source with --source-id.")]
InTrash = Annotated[list[str] | None, typer.Argument(help="By filename, path or remote id.", show_default=False)]


@trash.callback()
def trash_list(
    context: typer.Context,
    source_id: OnlyOfSource = None,
    as_json: Json = False,
) -> None:
    """List what is in the trash."""
    if context.invoked_subcommand is None:
        removals_command.list_trash(_catalog(_settings()), source_id=source_id, as_json=as_json)


@trash.command("restore")
def trash_restore(
    names: InTrash = None,
    source_id: OnlyOfSource = None,
    everything: Everything = False,
) -> None:
    """Bring files back to where they were. They are pinned: the remote does not have them."""
    settings = _settings()
    configure_logs("ERROR", settings.log_format)
    removals_command.restore(settings, _catalog(settings), names or [], source_id, everything)


@trash.command("empty")
def trash_empty(
    names: InTrash = None,
    source_id: OnlyOfSource = None,
    everything: Everything = False,
) -> None:
    """Delete files in the trash for good."""
    settings = _settings()
    configure_logs("ERROR", settings.log_format)
    removals_command.empty(settings, _catalog(settings), names or [], source_id, everything)


@commands.command("verify")
def verify_command(
    source_id: Annotated[int | None, typer.Option(metavar="N", help="Of this source only.")] = None,
    repair: Annotated[
        bool, typer.Option("--repair", help="Fetch again what is missing or damaged; damaged copies go to the trash.")
    ] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Existence and size only: reads no content.")] = False,
    as_json: Json = False,
) -> None:
    """Check that every file is here as the catalog says: read it all, and tell what is missing, changed or unknown.

    Exit codes: 0 all is as recorded (or was repaired), 3 something is missing, damaged or unreadable, 6 catalog or
    content folder cannot be used, 130 cancelled. Files that the catalog does not know are only reported.
    """
    settings = _settings()
    configure_logs("CRITICAL", settings.log_format)
    raise typer.Exit(verify.run(settings, source_id=source_id, repair=repair, quick=quick, as_json=as_json))


@commands.command("doctor")
def doctor(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print problems only.")] = False,
) -> None:
    """Check settings, folders, catalog, gallery-dl, hook scripts and broker, and say what to do. Exit code 6 on a problem."""
    settings = _settings()
    configure_logs("CRITICAL", settings.log_format)
    raise typer.Exit(doctor_command.run(settings, quiet=quiet))


@commands.command("demo")
def demo(
    folder: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Where the demo lives. Default: in RUNTIME_PATH.")
    ] = None,
    reset: Annotated[bool, typer.Option("--reset", help="Begin anew: removes the demo's folder first.")] = False,
) -> None:
    """Mirror a small gallery that this program itself serves on loopback: new, known and missing files."""
    configure_logs("CRITICAL", "console")
    take_secrets_from_environment()
    raise typer.Exit(demo_command.run(folder, reset=reset))


@db.command("upgrade")
def db_upgrade(
    check: Annotated[bool, typer.Option("--check", help="Only tell what would be done; change nothing.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Although workers run that cannot go on with the new schema: they stop.")
    ] = False,
) -> None:
    """Bring the catalog's schema up to date. `--check` ends with code 6 when there is something to do."""
    url = _settings().catalog_url
    if check:
        raise typer.Exit(show.upgrade(upgrades.plan(url)))
    catalog = open_catalog(url, upgrade=True, force=force)
    print(f"{catalog.address} has schema {catalog.revision}")


@db.command("mark-root")
def db_mark_root() -> None:
    """Take the present CONTENT_ROOT for the folder that the catalog speaks of, after its files have moved there."""
    settings = _settings()
    catalog = _catalog(settings)
    marker = RootMarker(settings.content_root, catalog.identity)
    marker.write()
    content.mark(catalog, utcnow())
    print(f"{settings.content_root} is marked")


@db.command("restored")
def db_restored() -> None:
    """Say that the catalog was restored from a backup: what runs from now on is told under names that are new."""
    settings = _settings()
    print(f"the catalog goes on as {restore.begin_anew(settings, _catalog(settings))}")


@db.command("show")
def db_show(as_json: Json = False) -> None:
    """Where the catalog is, and which schema it has."""
    catalog = _catalog(_settings())
    facts = {"address": catalog.address, "schema": catalog.revision, "identity": catalog.identity}
    print(json.dumps(facts) if as_json else "\n".join(f"{key:9} {value}" for key, value in facts.items()))


# NO_COLOR and a narrow terminal are rich's and typer's business; a dumb one gets no escape codes from us either.
if os.environ.get("TERM") == "dumb":
    os.environ.setdefault("NO_COLOR", "1")
