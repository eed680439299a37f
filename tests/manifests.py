"""What deploy/ holds for Compose and Kubernetes, parsed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text())
    return found


def manifest(kind: str, name: str = "http-downloader") -> dict[str, Any]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
    (found,) = [one for one in documents if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return dict(found)


def containers() -> list[dict[str, Any]]:
    pod = manifest("Deployment")["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]
