"""The Helm chart, rendered by Helm: valid, and the same as the manifests of config/kubernetes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.manifests import (
    CHART,
    CONFIG,
    HAVE_HELM,
    WITHOUT_HELM,
    Manifest,
    by_kind,
    invalid,
    of_folder,
    pod_of,
    rendered,
    sidecar_of,
)

pytestmark = pytest.mark.skipif(not HAVE_HELM, reason=WITHOUT_HELM)

RELEASE = "redis-sidecar-node"
ALL_ON = {"podMonitor": {"enabled": True}}
NODE = of_folder(CONFIG / "kubernetes/node")


def plain(manifest: Manifest) -> Manifest:
    """Without what only a chart has: Helm's labels, and how the image is pulled."""
    found = yaml.safe_load(yaml.safe_dump(manifest))
    found["metadata"].pop("labels", None)
    if "template" in found.get("spec", {}):
        spec = found["spec"]["template"]["spec"]
        for container in (*spec.get("initContainers", ()), *spec["containers"]):
            container.pop("imagePullPolicy", None)
    if found["kind"] == "ConfigMap":
        found["data"] = {
            key: "\n".join(line.rstrip() for line in text.strip().splitlines())
            for key, text in found["data"].items()
        }
    return dict(found)


@pytest.mark.parametrize("kind", ["DaemonSet", "ConfigMap", "NetworkPolicy", "PodMonitor"])
def test_it_is_what_the_manifests_are(kind: str) -> None:
    """With the defaults, a release of that name is the same as `kubectl apply -k`."""
    (ours,) = by_kind(rendered(RELEASE, ALL_ON), kind)
    (theirs,) = by_kind(NODE, kind)
    assert plain(ours) == plain(theirs)


@pytest.mark.parametrize(
    "values",
    [
        {},
        ALL_ON,
        {"tlsSecretName": "", "node": {"nodeSelector": {"disk": "ssd"}}},
        {"image": {"repository": "registry.internal/redis-sidecar", "tag": "1.2.3"}},
        {"node": {"enabled": False}},
        {"networkPolicy": {"redisPorts": [7000]}},
    ],
    ids=str,
)
def test_the_schemas_of_kubernetes(values: dict[str, Any]) -> None:
    manifests = rendered("other", values)
    assert [fault for each in manifests for fault in invalid(each)] == []
    image = values.get("image")
    for daemon in by_kind(manifests, "DaemonSet"):
        container = sidecar_of(pod_of(daemon))
        if image:
            assert container["image"] == "registry.internal/redis-sidecar:1.2.3"
        if values.get("tlsSecretName") == "":
            assert "tls" not in {each["name"] for each in container["volumeMounts"]}
    kinds = {each["kind"] for each in manifests}
    if values.get("node", {}).get("enabled", True):
        assert kinds >= {"DaemonSet", "ConfigMap", "NetworkPolicy"}
    else:
        assert kinds == {"ConfigMap"}


def test_helm_finds_nothing_wrong() -> None:
    from helm_python import lint

    said = lint(str(CHART), strict=True)
    assert said["errors"] == []
    assert [m for m in said["messages"] if "icon" not in m["error"]] == []


def test_a_sidecar_in_the_pods_of_an_application(tmp_path: Path) -> None:
    """An application's chart that has this one among its dependencies, as the chart's README has
    it, gets the sidecar of config/kubernetes/pod."""
    chart = tmp_path / "shop"
    shutil.copytree(CHART, chart / "charts/redis-sidecar")
    (chart / "Chart.yaml").write_text(
        "apiVersion: v2\nname: shop\nversion: 1.0.0\n"
        "dependencies:\n  - {name: redis-sidecar, version: 0.1.0, repository: ''}\n"
    )
    values = {"secretName": "redis-sidecar", "tlsSecretName": "redis-sidecar-tls"}
    (chart / "values.yaml").write_text(
        yaml.safe_dump({"redis-sidecar": {**values, "node": {"enabled": False}}})
    )
    readme = (CHART / "README.md").read_text()
    spec = readme.split("```yaml\n")[1].split("```")[0].replace("nindent 4", "nindent 8")
    (chart / "templates").mkdir()
    (chart / "templates/deployment.yaml").write_text(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop}\nspec:\n"
        "  selector: {matchLabels: {app: shop}}\n  template:\n"
        "    metadata: {labels: {app: shop}}\n"
        + "".join(f"    {line}\n" for line in spec.splitlines())
        + "      containers: [{name: shop, image: 'shop:1'}]\n"
    )
    (deployment,) = by_kind(rendered("redis-sidecar", chart=chart), "Deployment")
    assert list(invalid(deployment)) == []
    (theirs,) = by_kind(of_folder(CONFIG / "kubernetes/pod"), "Deployment")
    ours = pod_of(plain(deployment))["spec"]
    assert ours["initContainers"] == pod_of(theirs)["spec"]["initContainers"]
    assert ours["volumes"] == pod_of(theirs)["spec"]["volumes"]
