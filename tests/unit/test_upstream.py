"""What gallery/ overrides in gallery-dl, or relies on, still exists there: a new release that differs fails here first."""

from __future__ import annotations

import ast
import gzip
import inspect
import io
import logging
import socket
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from gallery_dl import config, downloader, exception, formatter, job, output, path, postprocessor, util, version
from gallery_dl.downloader.http import HttpDownloader
from gallery_dl.extractor import common, find
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from urllib3 import HTTPResponse

from http_downloader.gallery.job import MirrorJob

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def configuration() -> Iterator[None]:
    """gallery-dl's configuration is global: each test gets an empty one."""
    before = dict(config._config)
    config._config.clear()
    yield
    config._config.clear()
    config._config.update(before)


def test_the_installed_version_is_in_the_tested_range() -> None:
    """gallery-dl is the one that pyproject.toml allows."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (needed,) = [
        requirement for requirement in map(Requirement, project["dependencies"]) if requirement.name == "gallery-dl"
    ]
    assert needed.specifier != SpecifierSet()
    assert needed.specifier.contains(version.__version__.partition("-")[0])


def parameters(function: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(function).parameters)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("__init__", ["self", "url", "parent"]),
        ("dispatch", ["self", "messages"]),
        ("handle_url", ["self", "url", "kwdict"]),
        ("handle_directory", ["self", "kwdict"]),
        ("handle_queue", ["self", "url", "kwdict"]),
        ("handle_skip", ["self"]),
        ("initialize", ["self", "kwdict"]),
        ("download", ["self", "url"]),
        ("get_downloader", ["self", "scheme"]),
        ("_write_unsupported", ["self", "url"]),
        ("run", ["self"]),
    ],
)
def test_signatures_of_the_job(name: str, expected: list[str]) -> None:
    """Every method that is overridden or called takes what it took."""
    assert parameters(getattr(job.DownloadJob, name)) == expected


def test_every_override_has_an_original() -> None:
    """MirrorJob adds private methods, and one for its transfers; whatever else it defines overrides something."""
    ours = {name for name, value in vars(MirrorJob).items() if inspect.isfunction(value)}
    overridden = {name for name in ours if hasattr(job.DownloadJob, name)}
    assert {name for name in ours - overridden if not name.startswith("_")} == {"downloader_of"}
    assert overridden == {
        "__init__",
        "_init",
        "dispatch",
        "_write_unsupported",
        "initialize",
        "update_kwdict",
        "handle_directory",
        "handle_queue",
        "handle_finalize",
        "handle_url",
    }


def a_job() -> job.DownloadJob:
    extractor = find("https://example.org/one.png")
    assert extractor is not None
    made = job.DownloadJob(extractor)
    extractor.initialize()
    return made


def test_attributes_of_the_job() -> None:
    """A job has the attributes that are read and set; hooks stay unset until there is a post-processor."""
    config.set((), "archive", ":memory:")
    config.set((), "skip", "abort:3")
    made = a_job()
    assert (made.pathfmt, made.archive, made.hooks) == (None, None, ())
    for name in ("extractor", "out", "sleep", "fallback", "status", "visited", "metadata_http", "_skipcnt"):
        assert hasattr(made, name), name
    made.initialize({"filename": "one", "extension": "png", "category": "directlink"})
    for name in ("_skipexc", "_skipmax", "_archive_write_file", "_archive_write_skip", "_archive_write_after"):
        assert hasattr(made, name), name
    assert made.sleep is None
    assert made.sleep_skip is None
    assert made._skipexc is not None
    assert (parameters(made.archive.check), parameters(made.archive.add)) == (["kwdict"], ["kwdict"])
    made.archive.close()


def test_post_processors_register_hooks_by_event() -> None:
    """`job.hooks` is a mapping of event names to callbacks that take the path object."""
    config.set((), "postprocessors", [{"name": "metadata", "event": "after"}])
    made = a_job()
    made.initialize({"filename": "one", "extension": "png", "category": "directlink"})
    (callback,) = made.hooks["after"]
    assert parameters(callback) == ["pathfmt"]
    assert "python" in postprocessor.modules


def test_handle_url_still_does_what_is_replaced() -> None:
    """The steps that MirrorJob.handle_url takes in place of upstream's are the ones that upstream takes."""
    source = textwrap.dedent(inspect.getsource(job.DownloadJob.handle_url))
    called = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    assert called == {
        "hooks", "pathfmt", "archive", "set_filename", "check", "fix_extension", "handle_skip", "extension",
        "metadata_http", "build_path", "exists", "_archive_write_skip", "add", "pop", "sleep", "extractor", "download",
        "get", "fallback", "remove_file", "temppath", "log", "info", "StopDownload", "status", "error", "filename",
        "DOWNLOAD", "finalize", "out", "success", "path", "_skipcnt", "_archive_write_file", "_archive_write_after",
    }  # fmt: skip
    events = {node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)}
    assert events >= {"prepare", "prepare-after", "file", "after", "error", "_file_recheck", "_fallback"}


def test_the_path_object() -> None:
    """It builds paths from metadata, with functions that can be replaced on the instance."""
    config.set((), "base-directory", "/base/")
    config.set((), "directory", [])
    extractor = a_job().extractor
    pathfmt = path.PathFormat(extractor)
    pathfmt.clean_path = lambda text: text.replace("x", "-")
    pathfmt.exists = lambda: True
    pathfmt.set_directory({"filename": "ax", "extension": "png"})
    pathfmt.set_filename({"filename": "ax", "extension": "png"})
    assert (pathfmt.temppath, pathfmt.part, pathfmt.delete) == ("", False, False)
    pathfmt.build_path()
    assert pathfmt.realpath == pathfmt.path == pathfmt.temppath
    assert pathfmt.realpath.startswith("/base/")
    assert pathfmt.filename == pathfmt.realpath.removeprefix("/base/")
    assert "x" not in pathfmt.filename
    pathfmt.part_enable("/parts/")
    assert (pathfmt.temppath, pathfmt.part) == (f"/parts/{pathfmt.filename}.part", True)
    assert parameters(pathfmt.set_mtime) == ["path"]
    assert parameters(pathfmt.set_extension) == ["extension", "real"]


def test_the_downloader_asks_the_replaced_functions() -> None:
    """HttpDownloader calls exists() and part_enable() on the path object: our replacements on the instance count."""
    source = inspect.getsource(HttpDownloader)
    for call in ("pathfmt.exists()", "pathfmt.part_enable(", "pathfmt.build_path()", "pathfmt.part_size()"):
        assert call in source, call
    assert "pathfmt.open(" in source


def test_the_downloader_reports_to_the_jobs_display() -> None:
    """HttpDownloader takes `out` of its job, and tells it where a file begins and how far it is."""
    config.set((), "progress", 0.0)
    made = a_job()
    made.out = output.NullOutput()
    http = made.get_downloader("https")
    assert isinstance(http, HttpDownloader)
    assert http.out is made.out
    assert made.get_downloader("http") is http
    assert http.receive == http._receive_rate  # with progress: 0.0 every chunk is reported
    source = inspect.getsource(HttpDownloader)
    assert "self.out.start(pathfmt.path)" in source
    assert "self.out.progress(" in source
    assert parameters(output.NullOutput().progress) == ["bytes_total", "bytes_downloaded", "bytes_per_second"]
    assert parameters(output.NullOutput().start) == ["path"]
    assert downloader.find("http") is HttpDownloader


def test_requests_pass_through_one_function(monkeypatch: pytest.MonkeyPatch) -> None:
    """`requests.Session.send` sees what extractors and the downloader ask for."""
    seen = []

    def send(_session: requests.Session, request: requests.PreparedRequest, **_: object) -> requests.Response:
        seen.append((request.method, request.url))
        response = requests.Response()
        response.status_code = 200
        return response

    monkeypatch.setattr(requests.Session, "send", send)
    made = a_job()
    made.extractor.request("https://example.org/page", fatal=None)
    assert made.get_downloader("https").session is made.extractor.session
    made.extractor.session.request("GET", "https://example.org/file")
    assert seen == [("GET", "https://example.org/page"), ("GET", "https://example.org/file")]
    assert "self.session.request(" in inspect.getsource(HttpDownloader)


def test_an_options_lookup() -> None:
    """Extractor.config: the most special section wins, except over a key at the root."""
    extractor = a_job().extractor
    config.set(("extractor",), "skip", "general")
    config.set(("extractor", "directlink"), "skip", "special")
    assert extractor.config("skip") == "special"
    assert extractor.config("no-such-option") is None
    assert extractor.config("no-such-option", 3) == 3
    config.set((), "skip", "ours")
    assert extractor.config("skip") == "ours"


def test_the_configuration_is_one_global_object() -> None:
    """`config._config` is read by everyone, so it must be filled in place, never replaced."""
    from gallery_dl.downloader import common as downloader_common

    assert downloader_common._config is config._config
    assert inspect.signature(HttpDownloader.config_opts).parameters["conf"].default is config._config
    assert parameters(config.load) == ["files", "strict", "loads", "conf"]
    config._config["extractor"] = {"skip": "filled in place"}
    assert config.get(("extractor",), "skip") == "filled in place"


def test_a_formatter_with_a_default() -> None:
    """formatter.parse(text, default): what stands for a missing key is the default, whatever is asked of it."""

    class Default:
        def __getattr__(self, name: str) -> Default:
            return self

        def __format__(self, spec: str) -> str:
            return "none"

        def __str__(self) -> str:
            return "none"

    template = "{id}_{missing}_{missing[deep]}_{missing:>04}"
    assert formatter.parse(template, Default()).format_map({"id": 7}) == "7_none_none_none"
    assert common.Extractor.archive_fmt == ""


def test_exceptions_keep_their_places() -> None:
    """The order of classify() follows this tree."""
    tree = {
        exception.ChallengeError: exception.HttpError,
        exception.AuthRequired: exception.AuthorizationError,
        exception.NoExtractorError: exception.InputError,
        exception.FormatError: exception.InputError,
        exception.FilterError: exception.InputError,
        exception.AbortExtraction: exception.ControlException,
        exception.StopExtraction: exception.ControlException,
        exception.TerminateExtraction: exception.ControlException,
        exception.RestartExtraction: exception.ControlException,
        exception.StopDownload: exception.ControlException,
        exception.ControlException: exception.GalleryDLException,
    }
    assert all(issubclass(child, parent) for child, parent in tree.items())
    assert exception.HttpError("x").status == 0
    assert not issubclass(exception.GalleryDLException, OSError)


def test_extractors_log_under_their_category() -> None:
    """The logger's name tells an extractor's warning from those of everything else."""
    made = a_job()
    assert made.extractor.category == "directlink"
    records: list[logging.LogRecord] = []
    logger = logging.getLogger("directlink")
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign]
    logger.addHandler(handler)
    try:
        made.extractor.log.warning("look")
        made.log.warning("not this one")
    finally:
        logger.removeHandler(handler)
    assert [(record.name, record.getMessage()) for record in records] == [("directlink", "look")]


def test_instances_of_self_hosted_sites() -> None:
    """An unnamed instance is called by host and port, and its options are those of its base category."""
    extractor = find("Danbooru:http://127.0.0.1:99/posts?tags=x")
    assert (extractor.category, extractor.basecategory) == ("127.0.0.1:99", "Danbooru")
    assert extractor.match.end() == len(extractor.url)
    job.DownloadJob(extractor)
    config.set(("extractor", "Danbooru"), "threshold", 3)
    assert extractor.config("threshold") == 3
    assert util.expand_path("/a/b") == "/a/b"


def test_what_is_looked_at_while_an_answer_is_read() -> None:
    """Names of requests, urllib3 and the standard library that gallery/answers.py and incoming.py rely on."""
    assert isinstance(requests.Response.content, property)
    source = inspect.getsource(requests.Response.content.fget)
    assert "self._content is False" in source
    assert "self.iter_content(" in source
    assert "self._content_consumed" in inspect.getsource(requests.Response.close)
    assert inspect.isfunction(socket.SocketIO.readinto)
    assert {"gzip", "deflate"} <= set(HTTPResponse.CONTENT_DECODERS)
    packed = HTTPResponse(io.BytesIO(gzip.compress(b"x" * 99)), {"content-encoding": "gzip"}, preload_content=False)
    assert packed.read(10) == b"x" * 10
    decoder: Any = packed._decoder
    while packed.read(10):
        pass
    assert decoder._obj.eof is True
    twice = gzip.compress(gzip.compress(b"x"))[:-9]
    cut = HTTPResponse(io.BytesIO(twice), {"content-encoding": "gzip, gzip"}, preload_content=False)
    cut.read(10)
    both: Any = cut._decoder
    assert [each._obj.eof for each in both._decoders].count(False) >= 1


def test_the_downloader_takes_our_refusals() -> None:
    """What is raised while it asks is a warning and the end of that file; what is raised in write() comes through."""
    source = inspect.getsource(HttpDownloader._download_impl)
    assert "except Exception as exc:\n                self.log.warning(exc)\n                return False" in source
    assert "except (RequestException, SSLError) as exc:" in source
    assert "_adjust_extension(" in source


def test_a_job_makes_its_path_object_where_we_put_ours() -> None:
    """By the name that is replaced meanwhile, before its post-processors; what is overridden in it is called by itself."""
    source = textwrap.dedent(inspect.getsource(job.DownloadJob.initialize))
    assert "path.PathFormat(extr)" in source
    assert source.index("path.PathFormat(extr)") < source.index("config_accumulate")
    assert parameters(path.PathFormat.set_directory) == ["self", "kwdict"]
    assert parameters(path.PathFormat.build_directory) == ["self", "kwdict", "segments"]
    for called in ("self.build_directory(kwdict)", "self.clean_path("):
        assert called in inspect.getsource(path.PathFormat.set_directory), called
    assert "self.clean_path(self.clean_segment(" in inspect.getsource(path.PathFormat.build_filename)
