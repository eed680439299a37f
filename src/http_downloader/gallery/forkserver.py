"""A small process with gallery-dl loaded, that forks a child for every run: 10 ms in place of 0.3 s.

Started as `python -m http_downloader.gallery.forkserver FD [TEMPLATE]`. On FD, a stream socket, it first sends
one JSON line (gallery-dl's version, or an error), then serves: `F` with a socket attached forks a child that talks on
that socket and answers its pid; `W` + pid waits for that child, which must be ending, and answers its wait status.

multiprocessing's own fork server was weighed: it imports the console script again in every child, cannot be
restarted when the template changes, and does not say when its preload failed.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import logging
import os
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import Any

NUMBER = struct.Struct("!q")


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the service: it decides when its children end
    try:
        hello = {"version": _preload(sys.argv[2] if len(sys.argv) > 2 else None)}
    except Exception as error:
        hello = {"error": str(error)}
    control.sendall(json.dumps(hello).encode() + b"\n")
    if "error" not in hello:
        _serve(control)


def _preload(template: str | None) -> str:
    """Load gallery-dl whole. The template comes before the extractors: instance roots are compiled into patterns."""
    problems: list[str] = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            problems.append(record.getMessage())

    logging.getLogger().addHandler(collect := Collect(logging.ERROR))
    from gallery_dl import config, version

    if template is not None:
        try:
            config.load([template], strict=True)
        except SystemExit:
            raise ValueError(problems[-1] if problems else f"{template} cannot be read") from None
    from gallery_dl import downloader, extractor, postprocessor

    chosen = _choose_extractors(config.get(("extractor",), "modules"), config.get(("extractor",), "module-sources"))
    if sum(1 for _ in extractor.extractors()) < (1 if chosen else 500):
        raise RuntimeError("gallery-dl is installed without its extractors")
    downloader.find("http")
    for name in postprocessor.modules:
        postprocessor.find(name)
    config.remap_categories()
    from . import child  # noqa: F401 - so that children find it loaded

    logging.getLogger().removeHandler(collect)
    # What is loaded now is never freed: keep the collector from touching, and so copying, its pages in every child.
    gc.collect()
    gc.freeze()
    return str(version.__version__)


def _choose_extractors(names: Any, sources: Any) -> bool:
    """gallery-dl's options `modules` and `module-sources`, which only its command line heeds. False: neither is set.

    An extractor of the operator's own that cannot be loaded is an error here, not a warning.
    """
    from gallery_dl import extractor, util

    if names is not None:
        extractor.modules = names.split(",") if isinstance(names, str) else names
    modules: list[Any] = []
    for source in sources or ():
        if source is None:
            modules.append(extractor._modules_internal())
            continue
        folder = util.expand_path(source["from"] if isinstance(source, dict) else source)
        files = (
            source["import"] if isinstance(source, dict) else sorted(file.stem for file in Path(folder).glob("*.py"))
        )
        modules.append(extractor._modules_path(folder, files))
    if modules:
        extractor._module_iter = itertools.chain.from_iterable(modules)
    return names is not None or bool(modules)


def _serve(control: socket.socket) -> None:
    while True:
        request, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        match request:
            case b"F":
                control.sendall(NUMBER.pack(_fork(control, descriptors[0])))
            case b"W":
                pid = NUMBER.unpack(control.recv(NUMBER.size, socket.MSG_WAITALL))[0]
                control.sendall(NUMBER.pack(_wait(pid)))
            case _:
                return  # the service is gone


def _fork(control: socket.socket, descriptor: int) -> int:
    pid = os.fork()
    if pid:
        os.close(descriptor)
        return pid
    try:
        control.close()
        from .child import main as child_main

        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        child_main(socket.socket(fileno=descriptor))
    finally:
        os._exit(70)


def _wait(pid: int) -> int:
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, 0)[1]
    return 0


if __name__ == "__main__":
    main()
