"""The service where deploy/ puts it: in a file system that can only be read, but for its own folders."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Callable

from tests.installation import COMMAND, Installation, Service, free_port
from tests.manifests import containers, manifest
from tests.queues import Queues
from tests.site import FaultySite, Post, set_cookie

READ_ONLY = """
set -e
for folder in "$CONTENT_ROOT" "$RUNTIME_PATH" "$TMPDIR"; do mount --bind "$folder" "$folder"; done
mount -o remount,bind,ro /
! touch "$HOME/file" "$CONFIG_PATH/file" 2>/dev/null
exec "$0" "$@"
"""


def test_only_content_runtime_and_tmp_are_written(install: Callable[..., Installation], queues: Queues) -> None:
    """With the settings of the Kubernetes manifest and HOME and CONFIG_PATH read-only the probes are answered, without
    the token, and a source is mirrored, with cookies that the site renews in vain."""
    port = free_port()
    settings = {name: value for name, value in manifest("ConfigMap")["data"].items() if not name.endswith("_PATH")}
    machine = install(**settings | {"CONTENT_ROOT": "", "HTTP_PORT": port, "HTTP_TOKEN": "t0ken"} | queues.settings)
    for name, folder in (("CONTENT_ROOT", machine.content), ("RUNTIME_PATH", machine.runtime), ("TMPDIR", "tmp")):
        machine.set(**{name: machine.home / folder})
        (machine.home / folder).mkdir()
    machine.set(RABBITMQ_USER="guest")
    namespace = ["unshare", "-m"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    command = [*namespace, "bash", "-c", READ_ONLY, str(COMMAND)]
    with FaultySite([Post(id=number) for number in (1, 2, 3)]) as site:
        cookies = machine.config / "cookies"
        cookies.mkdir()
        cookies.joinpath(f"{site.root.removeprefix('http://')}.txt").write_text(
            "# Netscape HTTP Cookie File\n\n127.0.0.1\tFALSE\t/\tFALSE\t0\tsession\tof-yesterday\n"
        )
        site.rule(r"/posts\.json", set_cookie("session", "of-today"))
        with Service(machine, command) as service:
            queues.post({"source_id": 1, "url": f"Danbooru:{site.root}/posts?tags=demo", "content_path": "a"})
            queues.wait_for("synchronized", 1)
            worker = containers()[-1]
            for kind in ("startup", "liveness", "readiness"):
                path = worker[f"{kind}Probe"]["httpGet"]["path"]
                with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
                    assert answer.status == 200
            assert service.stop() == 0
        assert "Traceback" not in service.log
        assert "cookies that sites renew are not saved" in service.log
    assert len(machine.on_disk()) == 3
