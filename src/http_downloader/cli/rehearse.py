"""`sync --dry-run`: what a run would do, in words or as NDJSON."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from rich.console import Console

from ..app import rehearse
from ..catalog.journal import Claim
from ..domain.characters import json_line
from ..domain.removals import Hold, RemoteDeletes, Verdict
from ..domain.runs import RunState
from ..domain.secrets import masked
from ..gallery.messages import Listed, Outcome
from ..settings import Settings
from ..sync.rehearsal import Rehearsed
from .literal import literal
from .progress import PlainDisplay
from .synchronize import Mode

MOST_NAMES = 10
"""Names of one kind that are shown, unless all are asked for."""

_FATES = {
    Outcome.NEW: "new",
    Outcome.KEPT: "known",
    Outcome.RESTORED: "would come back from the trash",
    Outcome.ADOPTED: "here already, would be registered",
    Outcome.PASSED: "left alone",
    Outcome.FAILED: "would fail",
}


def run(settings: Settings, url: str, *, to: str | None, source_id: int | None, mode: Mode, verbose: bool) -> int:
    """Show it, and return the exit code."""
    display = PlainDisplay(settings.content_root, Console(stderr=True, highlight=False))
    observer = display.saw if mode in (Mode.PLAIN, Mode.LIVE) else lambda _claim, _update: None
    claim, rehearsed = asyncio.run(rehearse(settings, url, to=to, source_id=source_id, observer=observer))
    if mode is Mode.JSON:
        for line in _lines(claim, rehearsed):
            print(json_line(line))
    elif mode is not Mode.QUIET or rehearsed.ending.state is not RunState.SYNCHRONIZED:
        _print(Console(highlight=False), settings, claim, rehearsed, all_names=verbose)
    return rehearsed.ending.exit_code


def _fates(claim: Claim, rehearsed: Rehearsed, action: RemoteDeletes) -> Iterator[tuple[str, str, Listed | None]]:
    """For each file what would become of it, its name, and the message of a listed one."""
    for listed in rehearsed.listed:
        yield _FATES[listed.outcome], listed.filename or listed.url or listed.remote_id, listed
    decisions = rehearsed.plan.decisions if rehearsed.plan is not None else {}
    for remote_id, decision in decisions.items():
        name = rehearsed.paths.get(remote_id, remote_id).removeprefix(f"{claim.content_path}/")
        match decision.verdict:
            case Verdict.REMOVE:
                yield ("would be deleted" if action is RemoteDeletes.DELETE else "would be moved to trash"), name, None
            case Verdict.HELD if decision.hold is not None:
                yield f"gone at the remote, held: {decision.hold.sentence}", name, None
            case Verdict.MISSING:
                yield "gone at the remote, would wait for another listing", name, None
            case Verdict.KEPT:
                yield "gone at the remote, kept", name, None


def _print(console: Console, settings: Settings, claim: Claim, rehearsed: Rehearsed, *, all_names: bool) -> None:
    action = claim.source_deletes or settings.removal_policy.action
    by_fate: dict[str, list[str]] = {"new": [], "known": []}
    for fate, name, _ in _fates(claim, rehearsed, action):
        by_fate.setdefault(fate, []).append(name)
    console.print(f"[bold]{literal(masked(claim.url))}[/] → {literal(claim.content_path)}", soft_wrap=True)
    console.print("Nothing is changed. A run now would find:")
    for fate, names in by_fate.items():
        console.print(f"  [bold]{len(names)}[/] {fate}", soft_wrap=True)
        if fate == "known":
            continue
        shown = names if all_names else names[:MOST_NAMES]
        for name in shown:
            console.print(f"      {literal(name)}", soft_wrap=True)
        if len(shown) < len(names):
            console.print(f"      … and {len(names) - len(shown)} more; -v shows all")
    ending = rehearsed.ending
    if not ending.listing_proves:
        why = f": {ending.detail}" if ending.detail else ""
        console.print(f"The listing proves nothing about files that it does not show{literal(why)}", soft_wrap=True)
    if ending.state is not RunState.SYNCHRONIZED:
        console.print(f"It would end as {ending.state}.")


def _lines(claim: Claim, rehearsed: Rehearsed) -> Iterator[dict[str, object]]:
    """An object for each file, and a last one about the whole."""
    counts = dict.fromkeys(
        ("new", "known", "restored", "adopted", "passed", "failed", "missing", "kept", "remove", "held"), 0
    )
    for listed in rehearsed.listed:
        verdict = "known" if listed.outcome is Outcome.KEPT else str(listed.outcome)
        counts[verdict] += 1
        yield {"filename": listed.filename, "remote_id": listed.remote_id, "verdict": verdict, "reason": None}
    decisions = rehearsed.plan.decisions if rehearsed.plan is not None else {}
    for remote_id, decision in decisions.items():
        if decision.verdict not in counts or remote_id not in rehearsed.paths:
            continue
        if decision.verdict in (Verdict.NEW, Verdict.PRESENT):
            continue
        counts[decision.verdict] += 1
        filename = rehearsed.paths[remote_id].removeprefix(f"{claim.content_path}/")
        reason = decision.hold if isinstance(decision.hold, Hold) else None
        yield {"filename": filename, "remote_id": remote_id, "verdict": str(decision.verdict), "reason": reason}
    ending = rehearsed.ending
    yield {
        "url": masked(claim.url),
        "source_id": claim.source_id or None,
        "content_path": claim.content_path,
        "state": str(ending.state),
        "reason": None if ending.reason is None else str(ending.reason),
        "detail": ending.detail or None,
        "listing_proves": ending.listing_proves,
        "gaps": [{"reason": str(gap.reason), "detail": gap.detail} for gap in ending.gaps],
        **counts,
    }
