"""What becomes of files that are gone at the remote: one rule without I/O, and the values that it is made of.

A file goes only on a proof, and a proof is more than one listing without it. Whatever is in doubt stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from urllib.parse import urlsplit

from .files import FileState

SMALL_SOURCE = 5
"""A source with fewer files in place has too few for a share of them to mean anything."""

MASS_RENAME = 5
"""So many files lost at once, and about as many new ones beside them, are taken for the same files renamed."""


class RemoteDeletes(StrEnum):
    """What is done with a file that is proven gone, from the careful to the bold."""

    KEEP = "keep"
    TRASH = "trash"
    DELETE = "delete"

    def at_most(self, other: RemoteDeletes) -> RemoteDeletes:
        """The more careful of the two."""
        return min(self, other, key=list(RemoteDeletes).index)


class Probe(StrEnum):
    HOLD = "hold"
    """A file that is still served at its recorded URL stays."""
    IGNORE = "ignore"
    """Not asked: for sites that never delete what they serve."""


class Hold(StrEnum):
    """Why a file stays although it is missing often enough. `may_be_approved`: a person may decide otherwise."""

    sentence: str
    may_be_approved: bool

    def __new__(cls, name: str, may_be_approved: bool = False, sentence: str = "") -> Hold:
        member = str.__new__(cls, name)
        member._value_ = name
        member.may_be_approved = may_be_approved
        member.sentence = sentence
        return member

    # About the whole plan.
    RENAMED = "renamed", True, "as many new files as lost ones: renamed at the site?"
    SMALL_SOURCE = "small-source", True, f"the source has fewer than {SMALL_SOURCE} files"
    TOO_MANY = "too-many", True, "more files than REMOVAL_MAX_COUNT"
    TOO_LARGE_A_SHARE = "too-large-a-share", True, "a larger part of the source than REMOVAL_MAX_SHARE"
    # About one file.
    IDS_NOT_STABLE = "ids-not-stable", True, "ids not stable: it may be listed under another one"
    STILL_LISTED = "still-listed", True, "its URL is listed under another id"
    STILL_SERVED = "still-served", True, "still served at its URL"
    NOT_ASKED = "not-asked", True, "the site does not say whether it still serves it"
    PINNED = "pinned", False, "pinned"
    CHANGED_LOCALLY = "changed-locally", False, "changed here since it was downloaded"
    SHARED = "shared", False, "another source has it, too"
    SYMLINK = "symlink", False, "it lies behind a symbolic link"
    NOT_CHECKED = "not-checked", False, "not looked at yet"


class Verdict(StrEnum):
    """Every file that is known or listed gets exactly one."""

    PRESENT = "present"
    NEW = "new"
    REAPPEARED = "reappeared"
    """Was missing or removed, and is listed again."""
    ABSENT = "absent"
    """Not listed, and nothing of it is in its place here: nothing to decide."""
    UNSEEN = "unseen"
    """Not in this listing, which is not complete and says nothing."""
    MISSING = "missing"
    """Not in this complete listing; waits for the next one."""
    KEPT = "kept"
    """The same, and it stays for good: the policy says so."""
    HELD = "held"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """`max_count`: files at once; `max_share`: part of a source's files in place, from 0 to 1. More is held."""

    action: RemoteDeletes
    confirmations: int = 2
    min_age: timedelta = timedelta(hours=1)
    max_count: int = 100
    max_share: float = 0.2
    probe: Probe = Probe.HOLD


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A file of the source, as the catalog has it. `size` in bytes."""

    remote_id: str
    state: FileState
    url: str | None = None
    size: int | None = None
    sha256: str | None = None
    pinned: bool = False

    @property
    def in_place(self) -> bool:
        return self.state in (FileState.PRESENT, FileState.MISSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A file of the listing, as far as that is known: of a file that was kept nothing but that it is there."""

    url: str | None = None
    sha256: str | None = None
    is_new: bool = False
    """Its id came with this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FullListing:
    """Everything that a run saw, by remote id.

    `complete`: nothing speaks against it. `fingerprint`: how it was made; listings made in two ways cannot confirm
    each other. `positional`: its ids count files, or do not tell them apart; then every `Seen` should have its URL.
    """

    complete: bool
    files: Mapping[str, Seen]
    fingerprint: str
    positional: bool
    at: datetime
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A row of complete listings without a file. `times`: those that counted, the `last` of them, and the first:
    its time `since`, its run `since_run`, and how many ids were new `beside` in it."""

    times: int
    since: datetime
    last: datetime
    since_run: int
    fingerprint: str
    beside: int


class Served(StrEnum):
    """What the site says to a request for the file itself."""

    GONE = "gone"
    """404 or 410."""
    SERVED = "served"
    UNKNOWN = "unknown"


class OnDisk(StrEnum):
    OURS = "ours"
    """A file with the recorded bytes."""
    CHANGED = "changed"
    ABSENT = "absent"
    SYMLINK = "symlink"
    """A symbolic link, or behind one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was found out about a file right before its removal. `shared`: another source holds its path."""

    served: Served
    on_disk: OnDisk
    shared: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """`missing`: the file's history after this listing."""

    verdict: Verdict
    hold: Hold | None = None
    missing: Missing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is to be done about each file, by remote id. `held_as_a_whole`: why a person has to look at all of it."""

    decisions: Mapping[str, Decision]
    held_as_a_whole: Hold | None = None

    @property
    def to_remove(self) -> list[str]:
        return [remote_id for remote_id, decision in self.decisions.items() if decision.verdict is Verdict.REMOVE]

    @property
    def held(self) -> list[str]:
        return [remote_id for remote_id, decision in self.decisions.items() if decision.verdict is Verdict.HELD]

    @property
    def to_check(self) -> list[str]:
        """What nothing holds but that the site and the disk were not asked: decide again with these checks."""
        return [remote_id for remote_id, decision in self.decisions.items() if decision.hold is Hold.NOT_CHECKED]

    def summary(self, action: RemoteDeletes) -> str:
        """One line for people; empty when no file is missing."""
        count = Counter(decision.verdict for decision in self.decisions.values())
        once = all(
            decision.missing is None or decision.missing.times == 1
            for decision in self.decisions.values()
            if decision.verdict is Verdict.MISSING
        )
        holds = Counter(decision.hold for decision in self.decisions.values() if decision.hold is not None)
        parts = [
            (count[Verdict.REMOVE], "deleted" if action is RemoteDeletes.DELETE else "moved to trash"),
            (count[Verdict.MISSING], f"waiting for {'a second' if once else 'another'} listing"),
            *((number, f"held: {hold.sentence}") for hold, number in sorted(holds.items())),
            (count[Verdict.KEPT], "kept"),
        ]
        return "; ".join(f"{number} {words}" for number, words in parts if number)


def decide(
    known: Iterable[Known],
    listing: FullListing,
    policy: Policy,
    history: Mapping[str, Missing],
    checks: Mapping[str, Check] | None = None,
) -> Plan:
    """Decide about every file that is known or listed.

    `history`: of the files that earlier listings did not show. Nothing is removed without a check: the plan names the
    files `to_check`; look at them, and decide again.
    """
    files = {file.remote_id: file for file in known}
    decisions = {remote_id: _NEW for remote_id in listing.files if remote_id not in files}
    lost: dict[str, Missing] = {}
    new = sum(seen.is_new for seen in listing.files.values())
    for remote_id, file in files.items():
        if remote_id in listing.files:
            decisions[remote_id] = _REAPPEARED if file.state in _WAS_GONE else _PRESENT
        elif not file.in_place:
            decisions[remote_id] = _ABSENT
        elif not listing.complete:
            decisions[remote_id] = Decision(verdict=Verdict.UNSEEN, missing=history.get(remote_id))
        else:
            lost[remote_id] = _count(history.get(remote_id), listing, policy, new)
    if not lost:
        return Plan(decisions=decisions)
    confirmed = {
        remote_id: files[remote_id] for remote_id, series in lost.items() if series.times >= policy.confirmations
    }
    whole = _hold_of_plan(confirmed, lost, files.values(), policy)
    holds = dict(_holds_of_files(confirmed, listing, files))
    for remote_id, series in lost.items():
        if policy.action is RemoteDeletes.KEEP:
            decisions[remote_id] = Decision(verdict=Verdict.KEPT, missing=series)
        elif remote_id not in confirmed:
            decisions[remote_id] = Decision(verdict=Verdict.MISSING, missing=series)
        else:
            check = checks.get(remote_id) if checks else None
            hold = holds.get(remote_id) or whole or _hold_of_check(check, policy)
            verdict = Verdict.REMOVE if hold is None else Verdict.HELD
            decisions[remote_id] = Decision(verdict=verdict, hold=hold, missing=series)
    return Plan(decisions=decisions, held_as_a_whole=whole if policy.action is not RemoteDeletes.KEEP else None)


def _count(before: Missing | None, listing: FullListing, policy: Policy, new: int) -> Missing:
    if before is None:
        return Missing(
            times=1,
            since=listing.at,
            last=listing.at,
            since_run=listing.run,
            fingerprint=listing.fingerprint,
            beside=new,
        )
    if before.fingerprint != listing.fingerprint:
        # The count begins anew. What came beside the loss is remembered: it is still the same loss.
        return replace(before, times=1, since=listing.at, last=listing.at, fingerprint=listing.fingerprint)
    if before.times >= policy.confirmations or listing.at - before.last < policy.min_age:
        return before
    return replace(before, times=before.times + 1, last=listing.at)


def _hold_of_plan(
    confirmed: Mapping[str, Known], lost: Mapping[str, Missing], files: Iterable[Known], policy: Policy
) -> Hold | None:
    """Why a person should look at everything that would go now, whatever else holds some of it."""
    if not confirmed:
        return None
    in_place = sum(file.in_place for file in files)
    if any(_looks_renamed(run, lost) for run in {lost[remote_id].since_run for remote_id in confirmed}):
        return Hold.RENAMED
    if in_place < SMALL_SOURCE:
        return Hold.SMALL_SOURCE
    if len(confirmed) > policy.max_count:
        return Hold.TOO_MANY
    if len(confirmed) > policy.max_share * in_place:
        return Hold.TOO_LARGE_A_SHARE
    return None


def _looks_renamed(run: int, lost: Mapping[str, Missing]) -> bool:
    """New ids for old files come in the listing that lacks the old ones, and there are as many of them. Many more
    than that are no rename but a gallery that grows while it loses a few."""
    together = [series for series in lost.values() if series.since_run == run]
    beside = max(series.beside for series in together)
    return len(together) >= MASS_RENAME and len(together) <= beside <= 2 * len(together)


def _holds_of_files(
    confirmed: Mapping[str, Known], listing: FullListing, files: Mapping[str, Known]
) -> Iterator[tuple[str, Hold]]:
    """What can be said of single files from the listing alone."""
    if not confirmed:
        return
    addresses = {
        _address(seen.url or (files[remote_id].url if remote_id in files else None))
        for remote_id, seen in listing.files.items()
    } - {None}
    unsure = listing.positional and _has_shifted(listing, files)
    for remote_id, file in confirmed.items():
        if file.pinned:
            yield remote_id, Hold.PINNED
        elif listing.positional and (unsure or file.url is None or _address(file.url) in addresses):
            yield remote_id, Hold.IDS_NOT_STABLE
        elif _address(file.url) in addresses:
            yield remote_id, Hold.STILL_LISTED


def _has_shifted(listing: FullListing, files: Mapping[str, Known]) -> bool:
    """Whether an id stands for another file than it did, or that cannot be said."""
    for remote_id, seen in listing.files.items():
        before = files.get(remote_id)
        if before is not None and before.url is not None and _address(seen.url) != _address(before.url):
            return True
    return False


def _address(url: str | None) -> str | None:
    """A URL without what changes from run to run: signatures and expiry dates stand in the query."""
    if url is None or ("?" not in url and "#" not in url):
        return url
    try:
        return urlsplit(url)._replace(query="", fragment="").geturl()
    except ValueError:
        return url


def _hold_of_check(check: Check | None, policy: Policy) -> Hold | None:
    if check is None:
        return Hold.NOT_CHECKED
    if check.on_disk is OnDisk.ABSENT:
        return None  # somebody here has deleted it: there is nothing to lose
    if check.on_disk is OnDisk.SYMLINK:
        return Hold.SYMLINK
    if check.shared:
        return Hold.SHARED
    if check.on_disk is OnDisk.CHANGED:
        return Hold.CHANGED_LOCALLY
    if policy.probe is Probe.HOLD and check.served is not Served.GONE:
        return Hold.STILL_SERVED if check.served is Served.SERVED else Hold.NOT_ASKED
    return None


_WAS_GONE = (FileState.MISSING, FileState.TRASHED, FileState.REMOVED)
_PRESENT, _NEW = Decision(verdict=Verdict.PRESENT), Decision(verdict=Verdict.NEW)
_REAPPEARED, _ABSENT = Decision(verdict=Verdict.REAPPEARED), Decision(verdict=Verdict.ABSENT)
