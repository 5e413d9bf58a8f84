"""Kubernetes manifests, as tests look at them: of files, and of the Helm chart as Helm renders it.

The schemas are those of `kubernetes-validate`, which has Kubernetes' own. Helm is its official
engine, as a library (`helm-python-sdk`), where there is a wheel of it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

CONFIG = Path(__file__).parents[2] / "config"
CHART = CONFIG / "helm/redis-sidecar"
OLDEST = "1.30.0"
"""The oldest Kubernetes that the manifests are for."""

HAVE_HELM = importlib.util.find_spec("helm_python") is not None
WITHOUT_HELM = "the chart is NOT rendered: no helm-python-sdk for this system"

# Kinds that Kubernetes itself has no schema of.
CUSTOM = {"PodMonitor", "Kustomization"}

Manifest = dict[str, Any]


def documents(text: str) -> list[Manifest]:
    """The documents in YAML; empty ones are left out."""
    return [each for each in yaml.safe_load_all(text) if each]


def of_folder(folder: Path) -> list[Manifest]:
    """All manifests of a folder."""
    return [each for file in sorted(folder.glob("*.yaml")) for each in documents(file.read_text())]


def rendered(
    release: str, values: Mapping[str, Any] | None = None, chart: Path = CHART
) -> list[Manifest]:
    """The chart as `helm install RELEASE` would send it."""
    from helm_python import Chart

    found = Chart.load(str(chart)).render(dict(values or {}), name=release)
    texts = [text for name, text in sorted(found.items()) if name.endswith((".yaml", ".yml"))]
    return [each for text in texts for each in documents(text)]


def invalid(manifest: Manifest) -> Iterator[str]:
    """What Kubernetes' own schema says against a manifest, of the oldest version and the newest;
    unknown fields are faults."""
    import kubernetes_validate as schemas

    if manifest["kind"] in CUSTOM:
        return
    for version in (OLDEST, schemas.latest_version()):
        try:
            schemas.validate(manifest, version, strict=True)
        except schemas.ValidationError as error:
            yield f"{version}: {manifest['kind']}: {error.message}"


def by_kind(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """Those of one kind."""
    return [each for each in manifests if each["kind"] == kind]


def pod_of(manifest: Manifest) -> Manifest:
    """The Pod template of a Deployment or DaemonSet."""
    template: Manifest = manifest["spec"]["template"]
    return template


def containers(pod: Manifest) -> list[Manifest]:
    """All containers of a Pod template, init containers first."""
    spec = pod["spec"]
    return [*spec.get("initContainers", ()), *spec["containers"]]


def sidecar_of(pod: Manifest) -> Manifest:
    """The container that is the sidecar."""
    (found,) = [each for each in containers(pod) if each["name"] == "redis-sidecar"]
    return found


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether matchLabels select these labels."""
    return bool(selector) and selector.items() <= labels.items()
