"""The trash on the disk: nothing is overwritten, nothing outside is touched, and a move that was cut off is finished."""

from __future__ import annotations

import errno
import hashlib
import os
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from http_downloader.domain.errors import ContentError
from http_downloader.domain.removals import OnDisk
from http_downloader.sync.trash import RootMarker, Trash

DAY = date(2026, 3, 1)
BODY = b"a picture"
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "content" / "g"
    folder.mkdir(parents=True)
    (folder / "a.jpg").write_bytes(BODY)
    return tmp_path / "content"


def inspect(root: Path, path: str = "g/a.jpg", size: int | None = len(BODY), sha256: str | None = SHA) -> OnDisk:
    return Trash(root).inspect(path, size=size, sha256=sha256)


def test_there_and_back(root: Path) -> None:
    trash = Trash(root)
    place = trash.place_for("g/a.jpg", "id", DAY)
    assert place == ".trash/2026-03-01/g/a.jpg"
    before = (root / "g/a.jpg").stat()
    assert trash.move("g/a.jpg", place)
    assert not (root / "g/a.jpg").exists()
    assert (root / place).read_bytes() == BODY
    assert trash.move(place, "g/a.jpg")
    after = (root / "g/a.jpg").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_name_that_is_taken_in_the_trash(root: Path) -> None:
    """The second file of that name on that day lies beside the first."""
    trash = Trash(root)
    first = trash.place_for("g/a.jpg", "one", DAY)
    assert trash.move("g/a.jpg", first)
    second = trash.place_for("g/a.jpg", "two", DAY)
    assert second != first
    assert second.startswith(".trash/2026-03-01/g/a~")
    assert second.endswith(".jpg")


def test_nothing_is_overwritten(root: Path) -> None:
    (root / "g/b.jpg").write_bytes(b"another")
    assert not Trash(root).move("g/a.jpg", "g/b.jpg")
    assert (root / "g/b.jpg").read_bytes() == b"another"
    assert (root / "g/a.jpg").read_bytes() == BODY


def test_a_file_that_is_not_there(root: Path) -> None:
    assert not Trash(root).move("g/none.jpg", ".trash/2026-03-01/g/none.jpg")
    assert inspect(root, "g/none.jpg") is OnDisk.ABSENT
    assert inspect(root, "none/a.jpg") is OnDisk.ABSENT


def test_a_move_that_was_cut_off_between_its_two_halves(root: Path) -> None:
    """The file has both names: the old one goes."""
    (root / "g/b.jpg").hardlink_to(root / "g/a.jpg")
    assert Trash(root).move("g/a.jpg", "g/b.jpg")
    assert not (root / "g/a.jpg").exists()
    assert (root / "g/b.jpg").read_bytes() == BODY


@pytest.mark.parametrize("taken", [False, True])
def test_a_file_system_without_hard_links(root: Path, monkeypatch: pytest.MonkeyPatch, taken: bool) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    if taken:
        (root / "g/b.jpg").write_bytes(b"another")
    assert Trash(root).move("g/a.jpg", "g/b.jpg") is not taken
    assert (root / "g/b.jpg").read_bytes() == (b"another" if taken else BODY)
    assert (root / "g/a.jpg").exists() is taken


def test_a_disk_that_does_not_let_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(ContentError, match=r"g/a\.jpg cannot be moved"):
        Trash(root).move("g/a.jpg", "g/b.jpg")


def test_is_it_the_file_that_the_catalog_describes(root: Path) -> None:
    assert inspect(root) is OnDisk.OURS
    assert inspect(root, size=None) is OnDisk.OURS
    assert inspect(root, size=1) is OnDisk.CHANGED
    assert inspect(root, sha256=None) is OnDisk.CHANGED  # cannot be proven
    (root / "g/a.jpg").write_bytes(BODY[::-1])
    assert inspect(root) is OnDisk.CHANGED
    (root / "g/folder").mkdir()
    assert inspect(root, "g/folder") is OnDisk.CHANGED


def test_symlinks_lead_nowhere(root: Path, tmp_path: Path) -> None:
    """Neither as a file nor as a folder of its path, on neither side of a move."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "a.jpg").write_bytes(BODY)
    (root / "link").symlink_to(outside)
    (root / "g/link.jpg").symlink_to(outside / "a.jpg")
    assert inspect(root, "link/a.jpg") is OnDisk.SYMLINK
    assert inspect(root, "g/link.jpg") is OnDisk.SYMLINK
    trash = Trash(root)
    for source, target in (("link/a.jpg", "g/b.jpg"), ("g/a.jpg", "link/b.jpg")):
        with pytest.raises(ContentError):
            trash.move(source, target)
    (root / ".trash").symlink_to(outside)
    with pytest.raises(ContentError):
        trash.delete(".trash/a.jpg")
    assert [file.name for file in outside.iterdir()] == ["a.jpg"]
    assert (outside / "a.jpg").read_bytes() == BODY


@pytest.mark.parametrize("path", ["../a.jpg", "g/../../a.jpg", "/etc/passwd", "g//a.jpg", "./a.jpg"])
def test_paths_that_lead_elsewhere(root: Path, path: str) -> None:
    for source, target in ((path, "g/b.jpg"), ("g/a.jpg", path)):
        with pytest.raises(ContentError, match="leads elsewhere"):
            Trash(root).move(source, target)


def test_deleting_takes_the_empty_folders_along(root: Path) -> None:
    trash = Trash(root)
    (root / "g/b.jpg").write_bytes(BODY)
    for name in ("a", "b"):
        assert trash.move(f"g/{name}.jpg", f".trash/2026-03-01/g/{name}.jpg")
    trash.delete(".trash/2026-03-01/g/a.jpg")
    assert (root / ".trash/2026-03-01/g/b.jpg").exists()
    trash.delete(".trash/2026-03-01/g/b.jpg")
    assert not (root / ".trash").exists()
    assert root.is_dir()
    trash.delete(".trash/2026-03-01/g/b.jpg")  # once more: nothing happens


def test_only_the_trash_is_deleted_from(root: Path) -> None:
    with pytest.raises(ContentError, match="does not lie in the trash"):
        Trash(root).delete("g/a.jpg")
    with pytest.raises(ContentError):
        Trash(root).delete(".trash/../g/a.jpg")
    assert (root / "g/a.jpg").exists()


def test_the_marker(root: Path) -> None:
    marker = RootMarker(root, "abc")
    assert not marker.is_there()
    marker.write()
    assert marker.is_there()
    assert not RootMarker(root, "other").is_there()
    assert str(marker.path) in marker.missing
