"""Fixtures, and the check that what the tests need is there: a missing service fails the run, it skips nothing."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.installation import Installation
from tests.queues import PORT, Queues


def pytest_sessionstart(session: pytest.Session) -> None:
    if all("unit" in Path(argument).parts for argument in session.config.args):
        return
    try:
        socket.create_connection(("127.0.0.1", PORT), timeout=5).close()
    except OSError:
        pytest.exit(f"RabbitMQ does not answer at 127.0.0.1:{PORT}; `make test` finds or starts it", returncode=1)


@pytest.fixture
def install(tmp_path: Path) -> Callable[..., Installation]:
    """Make an installation in a folder of the test's own: `install(SYNC_ATTEMPTS=1)`."""
    made = 0

    def make(**settings: object) -> Installation:
        nonlocal made
        made += 1
        return Installation(tmp_path / f"machine{made}", **settings)

    return make


@pytest.fixture
def queues() -> Iterator[Queues]:
    with Queues() as queues:
        yield queues
