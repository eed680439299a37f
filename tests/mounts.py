"""Disks of a test's own: small, read-only, gone. As root they are mounted as they are; else in a namespace of the user's."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NEEDS = (
    "this test mounts a disk of its own: run it as root, or where a user may have a mount namespace"
    " (unshare -Urm must work: kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0)"
)
_INSIDE = "DISKS_OF_A_NAMESPACE"


@contextmanager
def disk(place: Path, size: str) -> Iterator[Path]:
    """An empty file system in memory, of so many bytes (`16m`), at `place`."""
    place.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    try:
        yield place
    finally:
        unmount(place)


def bind(source: Path, place: Path) -> None:
    """Let the same files be at another place, too: what is unmounted there can come back."""
    place.mkdir(parents=True, exist_ok=True)
    _mount("--bind", str(source), str(place))


def unmount(place: Path) -> None:
    """Even when somebody is at work there."""
    subprocess.run(["umount", "-l", str(place)], check=True, capture_output=True)


@contextmanager
def unmounted_at_last(place: Path) -> Iterator[None]:
    """Whatever a test that fails leaves mounted there would be in the way of the next one."""
    try:
        yield
    finally:
        while place.is_mount():
            unmount(place)


def resize(place: Path, size: str) -> None:
    _mount("-o", f"remount,size={size}", str(place))


def make_writable(place: Path, *, writable: bool) -> None:
    _mount("-o", f"remount,{'rw' if writable else 'ro'}", str(place))


def needs_mounts(test: Callable[..., None]) -> Callable[..., None]:
    """Run the test here, or, where mounting is not allowed, in a namespace where it is. It is never skipped."""

    @functools.wraps(test)
    def run(**fixtures: Any) -> None:
        if os.environ.get(_INSIDE) or _may_mount():
            test(**fixtures)
        else:
            name = os.environ["PYTEST_CURRENT_TEST"].partition(" ")[0]
            clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
            command = ["unshare", "-Urm", sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name]
            done = subprocess.run(command, env=clean | {_INSIDE: "1"}, capture_output=True, text=True)
            assert done.returncode == 0, f"{NEEDS}\n{done.stdout[-3000:]}{done.stderr[-500:]}"

    return run


@functools.cache
def _may_mount() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            with disk(Path(folder), "1m"):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)
