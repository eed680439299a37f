"""`verify`: the mirror against the catalog, a line for each file that is not as recorded, and `--repair`."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager

from ..app import sync
from ..catalog import journal
from ..catalog.engine import Catalog, look_into_catalog, open_catalog
from ..domain.errors import CatalogError, Exit, OrderRejected, SettingsError, SourceBusyError
from ..domain.runs import Ending
from ..domain.verification import Mend
from ..settings import Settings
from ..sync.repair import Repair, Repaired, Result, hopeless
from ..sync.verification import Finding, Verification
from .findings import JsonReport, Report


def run(settings: Settings, *, source_id: int | None, repair: bool, quick: bool, as_json: bool) -> int:
    """Verify, show it, repair if asked to, and return the exit code."""
    _end_as_ctrl_c_does()
    with _opened(settings, write=repair) as catalog:
        if source_id is not None and journal.find_source(catalog, "", source_id) is None:
            raise SettingsError(f"there is no source {source_id}; http-downloader sources lists them")
        report: Report = JsonReport() if as_json else Report()
        to_mend: dict[int, list[Finding]] = {}
        with report.progress() as advance:
            verification = Verification(
                catalog, settings.content_root, source_id=source_id, quick=quick, advance=advance
            )
            report.expect(*verification.extent())
            done = _verify(verification, report, to_mend if repair else None)
        results: Counter[Result] = Counter()
        if done and to_mend:
            done = _repair(settings, catalog, to_mend, report, results)
        report.summary(verification.tally, results, done=done, quick=quick, repair=repair)
    if not done:
        return Exit.CANCELLED
    mended = results[Result.REPAIRED] + results[Result.RENEWED]
    return Exit.PARTIAL if verification.tally.damaged > mended else Exit.OK


@contextmanager
def _opened(settings: Settings, *, write: bool) -> Iterator[Catalog]:
    """Without a repair nothing is written, so the catalog is opened to read only."""
    catalog = look_into_catalog(settings.catalog_url)
    if catalog is None:
        raise CatalogError(
            "there is no catalog to verify against: nothing was mirrored yet, or RUNTIME_PATH or DATABASE_URL names"
            " another place"
        )
    if write:
        catalog.close()
        catalog = open_catalog(settings.catalog_url)
    try:
        yield catalog
    finally:
        catalog.close()


def _end_as_ctrl_c_does() -> None:
    """On SIGTERM, too: what was set aside for a repair is not left there."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def _verify(verification: Verification, report: Report, to_mend: dict[int, list[Finding]] | None) -> bool:
    """False when it was interrupted. `to_mend` takes what a repair can do something about, by source."""
    try:
        with closing(verification.findings()) as findings:
            for finding in findings:
                report.found(finding)
                if to_mend is not None and finding.row is not None:
                    to_mend.setdefault(finding.source_id, []).append(finding)
    except KeyboardInterrupt:
        return False
    return True


# Repair.


def _repair(
    settings: Settings,
    catalog: Catalog,
    to_mend: dict[int, list[Finding]],
    report: Report,
    results: Counter[Result],
) -> bool:
    """Source by source. False when it was interrupted."""
    try:
        for source_id, findings in to_mend.items():
            hope = [finding for finding in findings if finding.mend is not Mend.NOTHING]
            none = [hopeless(finding) for finding in findings if finding.mend is Mend.NOTHING]
            mended = _repair_source(settings, catalog, source_id, hope, report) if hope else []
            for repaired in [*mended, *filter(None, none)]:
                results[repaired.result] += 1
                report.repaired(repaired)
    except KeyboardInterrupt:
        return False
    return True


def _repair_source(
    settings: Settings, catalog: Catalog, source_id: int, findings: list[Finding], report: Report
) -> list[Repaired]:
    """Raises what `sync` raises, after what was set aside is back; `KeyboardInterrupt` as well."""
    source = journal.find_source(catalog, "", source_id)
    assert source is not None
    repair = Repair(catalog, settings.content_root, source_id)
    ending: Ending | None = None
    try:
        for problem in repair.set_aside(findings):
            report.note(problem)
        with report.display(settings) as display:
            ending = asyncio.run(
                sync(
                    settings,
                    source["url"],
                    to=None,
                    source_id=source_id,
                    observer=display.saw,
                    waiting=display.waiting,
                )
            )
        display.summary(ending)
    except* (SourceBusyError, OrderRejected) as errors:  # other sources may fare better
        report.note(str(errors.exceptions[0]))
    finally:
        _end_as_ctrl_c_does()  # the run had the signals for itself
        repaired = repair.finish(findings, ending)
    if ending is not None and ending.exit_code == Exit.CANCELLED:
        for one in repaired:
            report.repaired(one)
        raise KeyboardInterrupt
    return repaired
