"""The rules of names, one by one; what they are together is in test_fuzz and in integration/test_hostile_names."""

from __future__ import annotations

import errno
import json
import logging
import os
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import structlog
from gallery_dl import config, exception
from gallery_dl.extractor import find
from hypothesis import given
from hypothesis import strategies as st

from http_downloader.cli.literal import literal
from http_downloader.domain.characters import clean_name, json_line, visible
from http_downloader.domain.errors import OrderFault, OrderRejected
from http_downloader.domain.files import distinct_name, fitting_folder
from http_downloader.domain.listing import Failure, Gap
from http_downloader.domain.reasons import Reason
from http_downloader.gallery import folders
from http_downloader.gallery.disk import Disk
from http_downloader.gallery.folders import OutsideFolderError, UnusableNameError, naming, opened, spelling
from http_downloader.gallery.messages import RunRequest
from http_downloader.gallery.names import Names, Standing
from http_downloader.gallery.paths import MirrorPath, bearing_odd_metadata
from http_downloader.logs import configure_logs

EVIL = "\x1b[2J\x9b31m\u202eevil\x07\ud800"


@given(st.text(st.characters()))
def test_visible_text_is_one_line_that_can_be_written(text: str) -> None:
    """Whatever a site says, what is shown of it can be encoded, is one line, and has no control characters."""
    for shown in (visible(text), clean_name(text)):
        shown.encode()
        assert len(shown.splitlines()) <= 1
        assert not any(unicodedata.category(character) == "Cc" for character in shown)
    assert visible(visible(text)) == visible(text)


@given(st.text(st.characters()))
def test_json_lines_lose_nothing(text: str) -> None:
    """In JSON the same characters are escaped: a machine reads what was meant, a terminal shows an escape."""
    line = json_line({"name": text})
    assert json.loads(line) == {"name": text}
    assert "\x1b" not in line
    assert "\x9b" not in line
    line.encode()


def test_what_is_not_harmful_is_shown_as_it_is() -> None:
    """Other scripts, and emoji that are joined of several, are no attack."""
    text = "münchen 図 \U0001f468\u200d\U0001f469\u200d\U0001f467 ё مرحبا"
    assert visible(text) == clean_name(text) == text
    assert json.dumps(text, ensure_ascii=False) == json_line(text)


def test_failures_gaps_and_rejections_can_be_shown() -> None:
    """They repeat the words of a site or a sender: into logs, events, headers, tables."""
    assert visible(str(OrderRejected(OrderFault.NO_EXTRACTOR, EVIL))) == str(OrderRejected(OrderFault.NO_EXTRACTOR, EVIL))  # fmt: skip
    for detail in (Failure(reason=Reason.FILES_FAILED, detail=f"a\n{EVIL}").detail, Gap(reason=Reason.NARROWED, detail=EVIL).detail):  # fmt: skip
        assert "evil" in detail
        assert visible(detail) == detail


@pytest.mark.parametrize("form", ["console", "json"])
def test_log_lines_can_be_shown(form: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """Our own and those of libraries, in both forms."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    try:
        configure_logs("INFO", form)
        structlog.get_logger("test").warning(f"event {EVIL}", url=f"https://example.org/{EVIL}")
        logging.getLogger("other").warning("foreign %s", EVIL)
        shown = capsys.readouterr().err
    finally:
        root.handlers[:], root.level = before[0], before[1]
        structlog.reset_defaults()
    assert shown.count("evil") == 3
    assert not any(sequence in shown for sequence in ("\x1b[2J", "\x9b", "\u202e", "\x07"))


def test_foreign_text_is_no_markup() -> None:
    """Neither rich's tags nor control characters."""
    assert literal(f"[red]{EVIL}") == "\\[red]\ufffd[2J\ufffd31m\ufffdevil\ufffd\ufffd"


@given(st.text(st.characters(exclude_characters="/"), min_size=1, max_size=600))
def test_a_long_folder_is_cut_between_characters(name: str) -> None:
    """At most 255 bytes, decodable, the same in every run; a short one stays."""
    name = clean_name(name)
    cut = fitting_folder(name)
    assert len(cut.encode()) <= 255
    assert fitting_folder(cut) == cut
    assert cut == name or cut.partition("~")[0] in name or "~" in name
    if len(name.encode()) <= 255:
        assert cut == name


def test_long_folders_that_begin_alike_stay_two() -> None:
    """What was cut off is in the mark at the end."""
    assert fitting_folder("ä" * 200 + "x") != fitting_folder("ä" * 200 + "y")


# On a disk


def request(root: Path) -> RunRequest:
    return RunRequest(run_id="r", source_id=1, url="u", content_root=root, content_path="a", run_folder=root / "run", landing_log=root / "run" / "landing", lock_file=root / "lock", cookies_folder=root, cache_file=root, known={})  # fmt: skip


def of(request: RunRequest) -> Names:
    return Names(request, Disk(request), lambda _: False)


def moved(names: Names, source: str, path: str, *, replace: bool) -> bool:
    """As a lane does it: noted, its folder made, then moved."""
    names.will_land(path, "id", "https://a.example/1")
    return names.move(source, path, replace=replace)


@pytest.fixture
def names(tmp_path: Path) -> Names:
    (tmp_path / "run").mkdir()
    (tmp_path / "a").mkdir()
    (tmp_path / "new").write_text("new")
    return of(request(tmp_path))


def test_moving_makes_folders_and_never_replaces(names: Names, tmp_path: Path) -> None:
    """The folder comes with the first file; another file of that name stays; only a file of this run is replaced."""
    source = str(tmp_path / "new")
    assert moved(names, source, "a/b/c/file", replace=False)
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").write_text("newer")
    assert not moved(names, source, "a/b/c/file", replace=False)
    assert (tmp_path / "a/b/c/file").read_text() == "new"
    assert moved(names, source, "a/b/c/file", replace=True)
    assert (tmp_path / "a/b/c/file").read_text() == "newer"


def test_moving_without_hard_links(names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where the file system has none."""

    def no_links(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no hard links")

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "a" / "taken").write_text("old")
    assert not moved(names, str(tmp_path / "new"), "a/taken", replace=False)
    assert moved(names, str(tmp_path / "new"), "a/free", replace=False)
    assert ((tmp_path / "a/taken").read_text(), (tmp_path / "a/free").read_text()) == ("old", "new")


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_no_symlink_is_followed_on_the_way(names: Names, tmp_path: Path, target: str) -> None:
    """Also one that came after the folder was checked."""
    (tmp_path / "elsewhere").mkdir()
    names.check_folder("a/b")
    (tmp_path / "a" / "b").symlink_to(tmp_path / target)
    with pytest.raises(OutsideFolderError, match="leads through 'b'"):
        moved(names, str(tmp_path / "new"), "a/b/c/file", replace=False)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert (tmp_path / "new").exists()


@pytest.mark.parametrize("path", ["a/" + "x" * 256, "a/" + "x" * 256 + "/y", "a/b\x00c"])
def test_a_name_that_the_disk_does_not_take(names: Names, tmp_path: Path, path: str) -> None:
    """One sentence that names it, and the file is where it was."""
    with pytest.raises(UnusableNameError, match="cannot be written here"):
        moved(names, str(tmp_path / "new"), path, replace=False)
    assert (tmp_path / "new").exists()


def test_a_disk_that_cannot_be_written_is_no_matter_of_names(tmp_path: Path) -> None:
    """Full, read-only or gone: that concerns the run, not one file."""
    with pytest.raises(OSError, match="full") as caught, naming("a"):
        raise OSError(errno.ENOSPC, "full")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(FileNotFoundError), opened(tmp_path / "gone", "a", make=True):
        pass


@pytest.mark.parametrize("folder", ["b", "ab", "a/..", "a/../b", "a/./b", "a//b", "a/", "/a", "", "."])
def test_folders_that_are_not_the_sources(names: Names, folder: str) -> None:
    """By their words they are elsewhere."""
    with pytest.raises(OutsideFolderError):
        names.check_folder(folder)


@pytest.mark.parametrize("folder", ["a/" + "x/" * 100 + "x", "a/" + "/".join(["x" * 250] * 15)])
def test_folders_that_nobody_could_read_again(names: Names, folder: str) -> None:
    """Too many in each other, or too long together."""
    with pytest.raises(UnusableNameError, match="too deep or too long"):
        names.check_folder(folder)


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 241, "ä" * 121])
def test_names_that_get_another_one(names: Names, name: str) -> None:
    """The names of the folder itself and of the one above, none at all, and what is too long."""
    place = names.settle(f"a/{name}", "id")
    assert place.path == f"a/{distinct_name(name, 'id')}"
    assert place.standing is Standing.FREE


# A disk that takes `A` and `a` for the same cannot be had everywhere: one is put together from its answers.


@pytest.fixture
def folding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on names are found whatever their case and Unicode form, and listed as they were made."""
    lstat = os.lstat

    def fold(text: str) -> str:
        return unicodedata.normalize("NFD", text).casefold()

    def found(path: str) -> os.stat_result:
        for other in tmp_path.rglob("*"):
            if fold(str(other)) == fold(os.fspath(path)):
                return lstat(other)
        return lstat(path)

    monkeypatch.setattr(folders.os, "lstat", found)


@pytest.mark.parametrize(
    ("there", "wanted"), [("A.jpg", "a.jpg"), ("\u00e9.jpg", "e\u0301.jpg"), ("e\u0301", "\u00c9")]
)
def test_a_disk_that_folds_names(names: Names, tmp_path: Path, folding: None, there: str, wanted: str) -> None:
    """A file that is found under this name has another one: it is not taken for ours, and the newcomer gets its own."""
    (tmp_path / "a" / there).write_text("another file")
    names._begun += 60  # it was there before
    assert spelling(str(tmp_path / "a"), wanted) == there
    assert [names.can_adopt(f"a/{name}", "id") for name in (wanted, there)] == [False, True]
    place = names.settle(f"a/{wanted}", "id")
    assert place.path == f"a/{distinct_name(wanted, 'id')}"
    assert place.standing is Standing.FREE
    assert names.settle(f"a/{there}", "other").standing is Standing.FOUND


def test_folders_on_a_disk_that_folds_names(names: Names, tmp_path: Path, folding: None) -> None:
    """Files go where they would go anyhow, and the catalog has one path for them; two sources never share by chance."""
    (tmp_path / "a" / "Artist").mkdir()
    (tmp_path / "a" / "Artist" / "1.jpg").write_text("1")
    assert names.check_folder("a/artist") == "a/Artist"
    assert names.settle("a/artist/1.jpg", "id").path == "a/Artist/1.jpg"
    other = of(request(tmp_path))
    other.base = "A"
    with pytest.raises(UnusableNameError, match="the same as 'a'"):
        other.check_base()


def test_what_came_in_mid_run_is_not_taken_by_its_name(tmp_path: Path) -> None:
    """A file that was there before a run is taken for the remote file of that name. One that came since may be another
    source's, as may any in a folder of several: those are compared byte by byte."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "before").write_text("1")
    time.sleep(0.02)  # a tick of the disk's clock
    alone = of(request(tmp_path))
    shared = of(replace(request(tmp_path), shares_folder=True))
    time.sleep(0.02)
    (tmp_path / "a" / "since").write_text("1")
    assert [alone.can_adopt(f"a/{name}", "id") for name in ("before", "since", "never")] == [True, False, False]
    assert [shared.can_adopt(f"a/{name}", "id") for name in ("before", "since", "never")] == [False, False, False]


# gallery-dl's path object


@pytest.fixture
def path_of(tmp_path: Path) -> Iterator[Callable[..., MirrorPath]]:
    before = dict(config._config)

    def make(check: Callable[[str], None] = lambda _: None, **options: Any) -> MirrorPath:
        config._config.clear()
        config._config.update({"base-directory": f"{tmp_path}/a/", **options})
        extractor = find("https://example.org/one.png")
        assert extractor is not None
        return MirrorPath(extractor, check)

    yield make
    config._config.clear()
    config._config.update(before)


def test_a_refused_folder_is_told_with_each_file(path_of: Callable[..., MirrorPath]) -> None:
    """Until the next folder, hooks find the source's own one."""
    path = path_of(directory=["{title}"])
    path.set_directory({"title": ".."})
    assert path.refused == "the folder '..' has a segment that leads elsewhere"
    assert path.realdirectory == path.basedirectory
    path.set_directory({"title": "fine"})
    assert path.refused is None
    assert path.realdirectory == f"{path.basedirectory}fine/"


def test_a_folder_that_the_disk_refuses(path_of: Callable[..., MirrorPath]) -> None:
    """What the check of the disk says is kept for the files, too."""

    def check(folder: str) -> None:
        raise UnusableNameError(f"not {folder}")

    path = path_of(check, directory=["{title}"])
    path.set_directory({"title": "x"})
    assert path.refused == f"not {path.basedirectory}x/"


@pytest.mark.parametrize(("written", "title", "allowed"), [("..", "x", True), ("..", "..", False), ("{title}", "..", False)])  # fmt: skip
def test_only_the_operators_own_dots_lead_up(
    path_of: Callable[..., MirrorPath], written: str, title: str, allowed: bool
) -> None:
    """A post-processor may have a folder beside the files; no word of the site leads there."""
    path = path_of(directory=[written, "{title}"])
    if allowed:
        assert path.build_directory({"title": title}) == ["..", title]
    else:
        with pytest.raises(OutsideFolderError):
            path.build_directory({"title": title})


def test_a_name_with_slashes(path_of: Callable[..., MirrorPath]) -> None:
    """Where `path-restrict` lets them pass they make folders, downwards only."""
    path = path_of(filename="{title}", **{"path-restrict": ""})
    assert path.build_filename({"title": "a/b"}) == "a/b"
    for title in ("/a", "a/../b", "../a", "a//b", "a/", "a/."):
        with pytest.raises(exception.FilenameFormatError, match="leads elsewhere"):
            path.build_filename({"title": title})


def test_post_processors_bear_odd_metadata_but_no_full_disk(
    path_of: Callable[..., MirrorPath], caplog: pytest.LogCaptureFixture
) -> None:
    """A value or a name that it cannot work with is a warning; a disk that is full, and a command that is not there, end
    the run as before."""
    path = path_of()

    def raising(error: Exception) -> Callable[[Any], None]:
        def hook(_: Any) -> None:
            raise error

        return bearing_odd_metadata(hook, logging.getLogger("postprocessor"))

    log_level = logging.WARNING
    with caplog.at_level(log_level):
        raising(ValueError("odd"))(path)
        raising(NotADirectoryError(errno.ENOTDIR, "no folder"))(path)
        raising(FileNotFoundError(errno.ENOENT, "none", f"{path.basedirectory}a/b"))(path)
    assert [record.levelno for record in caplog.records] == [log_level] * 3
    for error in (OSError(errno.ENOSPC, "full"), FileNotFoundError(errno.ENOENT, "none", "ffmpeg"), exception.StopExtraction()):  # fmt: skip
        with pytest.raises(type(error)):
            raising(error)(path)
