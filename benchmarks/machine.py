"""What the figures were measured on: enough to compare by, nothing that names a machine."""

from __future__ import annotations

import os
import platform
import sqlite3
from importlib.metadata import version
from pathlib import Path

import pika

from tests.queues import PORT


def facts() -> dict[str, object]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "gallery-dl": version("gallery-dl"),
        "http-downloader": version("http-downloader"),
        "rabbitmq": _rabbitmq(),
        "sqlite": sqlite3.sqlite_version,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return " ".join(line.partition(":")[2].split())
    return platform.machine()


def _rabbitmq() -> str:
    connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", PORT))
    try:
        return str(connection._impl.server_properties["version"])
    finally:
        connection.close()
