"""Rules about disks: sizes in settings, when there is too little space, and what an error of the system means for a run."""

from __future__ import annotations

import errno

import pytest

from http_downloader.domain.errors import SettingsError
from http_downloader.domain.reasons import Kind, Reason
from http_downloader.domain.sizes import parse_size, size_in_words
from http_downloader.domain.storage import shortage, storage_failure
from http_downloader.settings import load_settings

MB = 1 << 20
PLACE = "CONTENT_ROOT (/srv)"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("500M", 500 * MB),
        ("500 MB", 500 * MB),
        ("1.5GiB", 1536 * MB),
        (" 2g ", 2048 * MB),
        ("10k", 10240),
        ("1T", 1 << 40),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1", "5%", "1e9", "10 X", "M", "1,5G", "nan"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="500M"):
        parse_size(text)


def test_a_wrong_size_is_named() -> None:
    with pytest.raises(SettingsError, match="MIN_FREE_SPACE has the wrong value 'much': a size like 500M"):
        load_settings(None, min_free_space="much")
    with pytest.raises(SettingsError, match="DURABILITY has the wrong value 'some': full or fast is allowed"):
        load_settings(None, durability="some")


@pytest.mark.parametrize("size", [0, 1023, 1024, 500 * MB, 1536 * MB, 3 << 40, 5 << 50])
def test_words_can_be_read_again(size: int) -> None:
    assert size_in_words(size).split()[1] in ("bytes", "kB", "MB", "GB", "TB")
    if size >= 1024:
        assert parse_size(size_in_words(size)) == pytest.approx(size, rel=0.001)


@pytest.mark.parametrize(
    ("free", "wanted", "kept", "short"),
    [
        (100, 0, 100, False),
        (99, 0, 100, True),
        (150, 50, 100, False),
        (150, 51, 100, True),
        (0, 10, 0, False),
        (None, 10, 100, False),
    ],
)
def test_when_there_is_too_little_space(free: int | None, wanted: int, kept: int, short: bool) -> None:
    """What stays free counts, after the file that is to come; a file system that does not say is not asked."""
    failure = shortage(free, wanted, kept, PLACE)
    assert (failure is not None) is short
    if failure is not None:
        assert failure.reason is Reason.DISK_FULL
        assert PLACE in failure.detail
        assert "MIN_FREE_SPACE" in failure.detail


@pytest.mark.parametrize(
    ("code", "reason", "remedy"),
    [
        (errno.ENOSPC, Reason.DISK_FULL, "make space"),
        (errno.EDQUOT, Reason.DISK_FULL, "raise the quota"),
        (errno.EROFS, Reason.STORAGE_ERROR, "mount it writable"),
        (errno.EIO, Reason.STORAGE_ERROR, "look at its disk"),
        (errno.ESTALE, Reason.STORAGE_ERROR, "look at its disk"),
        (errno.ENOTCONN, Reason.STORAGE_ERROR, "mount"),
        (errno.EACCES, Reason.STORAGE_ERROR, "give the user"),
        (errno.EMFILE, Reason.STORAGE_ERROR, "ulimit -n"),
        (errno.ENFILE, Reason.STORAGE_ERROR, "fs.file-max"),
    ],
)
def test_errors_that_the_next_file_would_meet(code: int, reason: Reason, remedy: str) -> None:
    """The thing and the remedy in one line; tried again later."""
    failure = storage_failure(code, PLACE)
    assert failure is not None
    assert failure.reason is reason
    assert failure.reason.kind is Kind.TRANSIENT
    assert remedy in failure.detail
    assert PLACE in failure.detail or code in (errno.EMFILE, errno.ENFILE)
    assert "\n" not in failure.detail


@pytest.mark.parametrize("code", [None, errno.ENAMETOOLONG, errno.EINVAL, errno.EFBIG, errno.ENOENT, errno.ECONNRESET])
def test_errors_of_one_file(code: int | None) -> None:
    assert storage_failure(code, PLACE) is None
