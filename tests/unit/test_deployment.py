"""What is in deploy/: every setting there is one, grace times fit each other, and nothing runs with more rights than it needs."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from http_downloader import __version__
from http_downloader.settings import Settings, load_settings
from tests.installation import COMMAND
from tests.manifests import DEPLOY, compose, containers, manifest

UNIT = DEPLOY / "http-downloader@.service"
SETTINGS = {name.upper() for name in Settings.model_fields}
USER = "10001"


def unit() -> list[tuple[str, str]]:
    lines = [line for line in UNIT.read_text().splitlines() if "=" in line and not line.startswith("#")]
    return [(name, value) for name, _, value in (line.partition("=") for line in lines)]


# Compose


def test_compose_names_settings_that_load() -> None:
    """Every variable of the program is a setting; with the defaults of the file they are accepted."""
    service = compose()["services"]["http-downloader"]
    assert set(service["environment"]) <= SETTINGS
    text = yaml.safe_dump(service["environment"])
    given = yaml.safe_load(re.sub(r"\$\{\w+:-?(\w*)[^}]*\}", lambda match: match[1] or "x", text))
    settings = load_settings(env_file=None, **{name.lower(): value for name, value in given.items()})
    assert settings.broker_url is not None
    assert settings.catalog_url.startswith("postgresql")
    asked = set(re.findall(r"\$\{(\w+)", (DEPLOY / "docker-compose.yml").read_text()))
    assert asked == set(re.findall(r"^#?(\w+)=", (DEPLOY / "compose.env.example").read_text(), re.MULTILINE))


def test_compose_starts_two_workers_on_an_upgraded_catalog() -> None:
    """They share content and configuration, and not RUNTIME_PATH; what was begun may be finished."""
    found = compose()
    service = found["services"]["http-downloader"]
    assert service["deploy"]["replicas"] == 2
    assert "container_name" not in service
    assert "ports" not in service
    assert service["volumes"] == ["content:/content", "config:/config", "/runtime"]
    assert service["depends_on"]["upgrade"]["condition"] == "service_completed_successfully"
    upgrade = found["services"]["upgrade"]
    assert upgrade["command"] == ["db", "upgrade"]
    assert upgrade["environment"] == service["environment"]
    assert float(service["stop_grace_period"].removesuffix("s")) >= least_grace(service["environment"])
    for one in (service, upgrade):
        assert (one["read_only"], one["cap_drop"], one["tmpfs"]) == (True, ["ALL"], ["/tmp"])
    named = {one.partition(":")[0] for each in found["services"].values() for one in each["volumes"] if one[0] != "/"}
    assert named == set(found["volumes"])


def least_grace(settings: dict[str, str]) -> float:
    """Seconds after SIGTERM that the service may take: the grace of its runs, their end, and its last words."""
    from http_downloader.app import LAST_WORDS
    from http_downloader.sync.worker import STOPPING_TIME

    default = Settings.model_fields["shutdown_grace"].default
    return float(settings.get("SHUTDOWN_GRACE", default)) + STOPPING_TIME + 2 * LAST_WORDS


def test_the_image_runs_as_nobody_else() -> None:
    """Its user is the one of the Kubernetes manifest, and its folders belong to it."""
    text = (DEPLOY / "Dockerfile").read_text()
    assert f"\nUSER {USER}:{USER}\n" in text
    assert f"--owner={USER} --group={USER} /content /config /runtime" in text


# Kubernetes


def test_kubernetes_names_settings_that_load() -> None:
    """ConfigMap and Secret hold settings, and the pods take both."""
    given = manifest("ConfigMap")["data"]
    head = (DEPLOY / "kubernetes.yaml").read_text().partition("apiVersion")[0]
    secret = set(re.findall(r"--from-literal=(\w+)=", head))
    assert secret == {"RABBITMQ_PASS", "HTTP_TOKEN", "DATABASE_URL"}
    assert set(given) | secret <= SETTINGS
    settings = load_settings(env_file=None, **{name.lower(): value for name, value in given.items()})
    assert (settings.http_host, settings.http_port) == ("0.0.0.0", 8080)
    for container in containers():
        names = [next(iter(source.values()))["name"] for source in container["envFrom"]]
        assert names == ["http-downloader"] * 2


def test_kubernetes_pods_have_few_rights() -> None:
    """Not root, a root file system that can only be read, no capabilities, no token; this version of the program."""
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert {str(pod["securityContext"][key]) for key in ("runAsUser", "runAsGroup", "fsGroup")} == {USER}
    assert pod["automountServiceAccountToken"] is False
    for container in containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["image"] == f"http-downloader:{__version__}"
        assert container["resources"]["limits"]["memory"]


def test_kubernetes_workers_are_upgraded_one_by_one_and_may_finish() -> None:
    """The catalog first; each worker has folders of its own and shared ones; probes ask where the service answers."""
    deployment = manifest("Deployment")["spec"]
    pod = deployment["template"]["spec"]
    settings = manifest("ConfigMap")["data"]
    assert deployment["replicas"] >= 2
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}
    upgrade, worker = containers()
    assert (upgrade["args"], worker["args"]) == (["db", "upgrade"], ["serve"])
    assert pod["terminationGracePeriodSeconds"] >= least_grace(settings)
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in worker["volumeMounts"]}
    assert set(mounts) == {"/tmp", *(settings[name] for name in ("CONTENT_ROOT", "CONFIG_PATH", "RUNTIME_PATH"))}
    for path in ("/runtime", "/tmp"):
        assert "emptyDir" in mounts[path]
    for path in ("/content", "/config"):
        claim = manifest("PersistentVolumeClaim", mounts[path]["persistentVolumeClaim"]["claimName"])
        assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    (port,) = worker["ports"]
    assert str(port["containerPort"]) == settings["HTTP_PORT"]
    probes = {kind: worker[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {port["name"]}
    assert {kind: probe["path"] for kind, probe in probes.items()} == {
        "startup": "/healthz",
        "liveness": "/healthz",
        "readiness": "/readyz",
    }
    labels = deployment["template"]["metadata"]["labels"]
    assert deployment["selector"]["matchLabels"] == labels
    assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("Service")["spec"]["selector"] == labels


# systemd


def test_the_systemd_unit_is_correct(tmp_path: Path) -> None:
    """systemd itself finds nothing wrong with it, and little that it could still be kept from."""
    if shutil.which("systemd-analyze") is None:
        pytest.fail("systemd-analyze is not here; get it with: apt-get install systemd", pytrace=False)
    file = tmp_path / UNIT.name
    file.write_text(UNIT.read_text().replace("/opt/http-downloader/bin/http-downloader", str(COMMAND)))
    verified = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
    assert (verified.returncode, verified.stderr) == (0, "")
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=30", str(file)], capture_output=True, text=True
    )
    assert judged.returncode == 0, judged.stdout


def test_the_systemd_unit_fits_the_program() -> None:
    """Its settings exist, it may write where the program does, and may finish what it has begun."""
    lines = unit()
    given = dict(value.partition("=")[::2] for name, value in lines if name == "Environment")
    assert set(given) == {"CONTENT_ROOT", "CONFIG_PATH", "RUNTIME_PATH"}
    writable = [value for name, value in lines if name == "ReadWritePaths"]
    assert writable == [given["CONTENT_ROOT"], f"-{given['CONFIG_PATH']}/cookies"]
    one = dict(lines)
    assert given["RUNTIME_PATH"] == one["WorkingDirectory"] == f"/var/lib/{one['StateDirectory']}"
    assert "%i" in one["StateDirectory"]
    assert float(one["TimeoutStopSec"]) >= least_grace({})
    assert (one["ExecStartPre"], one["ExecStart"]) == (
        "/opt/http-downloader/bin/http-downloader db upgrade",
        "/opt/http-downloader/bin/http-downloader serve",
    )


# Alerts


def test_each_alert_has_its_remedy() -> None:
    """docs/operations.md says of every rule in deploy/alerts.yml what to do, and of no other."""
    rules = re.findall(r"^ +- alert: (\w+)$", (DEPLOY / "alerts.yml").read_text(), re.MULTILINE)
    pages = (DEPLOY.parent / "docs/operations.md").read_text().partition("## Alerts")[2]
    assert re.findall(r"^\| (\w+) \| .+ \| .+ \|$", pages, re.MULTILINE)[1:] == rules
