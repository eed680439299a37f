"""Lines that others write: the logs of libraries, and what the interpreter would print by itself."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

PROGRAM = """
    import logging, threading, warnings
    import structlog
    from http_downloader.logs import configure_logs, name_process, redact, tell

    redact.learn({"pa55word-x"})
    name_process("w1")
    configure_logs("INFO", "json", service=True)
    log = structlog.get_logger()
    with structlog.contextvars.bound_contextvars(run_id="r-1"):
        log.info("a\\x1b[2J\\nb\\ud800", url="\\u202egpj", value=object())
        try:
            raise ValueError("pa55word-x\\nsecond line")
        except ValueError:
            logging.getLogger("library").exception("it went %s", "wrong")
            log.exception("so did this")
    warnings.warn("mind\\nthis")
    class Angry:
        def __del__(self):
            raise RuntimeError("at the end")
    del (angry := Angry()), angry
    thread = threading.Thread(target=lambda: 1 / 0, name="t1")
    thread.start()
    thread.join()
    tell("the last\\nword")
"""


def test_every_line_is_an_object() -> None:
    """Whoever writes: with level, time and worker, the name of its logger or its run, and no secret."""
    program = textwrap.dedent(PROGRAM).replace("del (angry := Angry()), angry", "Angry()")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = [json.loads(line) for line in done.stderr.splitlines()]
    assert all({"event", "level", "timestamp", "worker"} <= line.keys() for line in found)
    assert "pa55word" not in done.stderr
    assert [line["level"] for line in found] == ["info", "error", "error", "warning", "error", "error", "error"]
    ours, library, so, warned, end, thread, last = found
    assert ours["run_id"] == library["run_id"] == so["run_id"] == "r-1"
    assert (library["logger"], library["event"]) == ("library", "it went wrong")
    assert all("ValueError" in line["exception"] and "second line" in line["exception"] for line in (library, so))
    assert "mind this" in warned["event"]
    assert "at the end" in end["exception"]
    assert "ZeroDivisionError" in thread["exception"]
    assert last["event"] == "the last word"
