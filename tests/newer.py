"""Newer versions of the program, made from its source: what an upgrade has to get along with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from http_downloader.catalog import migrations
from tests.installation import Installation

SOURCE = Path(__file__).parents[1] / "src" / "http_downloader"
OURS = migrations.newest()
EXPANDED, CONTRACTED = (f"{int(OURS) + more:04}" for more in (1, 2))

_STEP = '''\
"""{title}"""

import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {before!r}
branch_labels = None
depends_on = None
works_with = {works_with!r}


def upgrade() -> None:
    {change}
'''


class NewerProgram:
    """The program as it stands, and after it a release that expands (a new column in place of `sources.placed_at`, which
    stays for older programs), and, where it `contracts`, the next one, which drops the old column."""

    def __init__(self, folder: Path, *, contracts: bool = False) -> None:
        package = folder / "http_downloader"
        shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
        versions = package / "catalog" / "migrations" / "versions"
        add = 'op.add_column("sources", sa.Column("placed", sa.BigInteger()))'
        step = _STEP.format(title="A new column.", revision=EXPANDED, before=OURS, works_with=None, change=add)
        (versions / f"{EXPANDED}_expand.py").write_text(step)
        for module, old, new in (
            ("schema", '"placed_at", Instant', '"placed", Instant, key="placed_at"'),
            ("journal", 'source["placed_at"]', 'source["placed"]'),
        ):
            file = package / "catalog" / f"{module}.py"
            assert old in file.read_text()
            file.write_text(file.read_text().replace(old, new))
        if contracts:
            drop = 'op.drop_column("sources", "placed_at")'
            step = _STEP.format(
                title="An old column goes.", revision=CONTRACTED, before=EXPANDED, works_with=EXPANDED, change=drop
            )
            (versions / f"{CONTRACTED}_contract.py").write_text(step)
        self.command: Sequence[str] = ("env", f"PYTHONPATH={folder}", sys.executable, "-m", "http_downloader")

    def run(self, machine: Installation, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | machine.env
        return subprocess.run(
            [*self.command, *arguments], env=environment, cwd=machine.home, capture_output=True, text=True, timeout=120
        )
