"""The manifests of config/kubernetes: valid, consistent, and the sidecar runs with them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.settings.load import load
from tests.harness.certificates import Authority
from tests.harness.manifests import (
    CONFIG,
    Manifest,
    by_kind,
    containers,
    documents,
    invalid,
    matches,
    of_folder,
    pod_of,
    sidecar_of,
)
from tests.harness.process import free_port
from tests.harness.servers import Server, Sidecar

FOLDERS = {name: CONFIG / "kubernetes" / name for name in ("pod", "node")}
ALL = {name: of_folder(folder) for name, folder in FOLDERS.items()}
WORKLOADS = {"pod": "Deployment", "node": "DaemonSet"}
PROMETHEUS = CONFIG / "prometheus/prometheus.yml"


def workload(name: str) -> Manifest:
    found = by_kind(ALL[name], WORKLOADS[name])[0]
    return found


def pod(name: str) -> Manifest:
    return pod_of(workload(name))


@pytest.mark.parametrize(
    "manifest",
    [each for manifests in ALL.values() for each in manifests],
    ids=lambda each: f"{each['kind']}-{each.get('metadata', {}).get('name', '')}",
)
def test_the_schemas_of_kubernetes(manifest: Manifest) -> None:
    """Of the oldest version and of the newest; a field that they do not know is a mistake."""
    assert list(invalid(manifest)) == []


def test_a_mistake_is_noticed() -> None:
    wrong = documents((FOLDERS["pod"] / "deployment.yaml").read_text())[0]
    wrong["spec"]["template"]["spec"]["initContainers"][0]["restartpolicy"] = "Always"
    assert list(invalid(wrong))


@pytest.mark.parametrize("name", FOLDERS)
def test_kustomize_takes_every_file(name: str) -> None:
    listed = yaml.safe_load((FOLDERS[name] / "kustomization.yaml").read_text())["resources"]
    files = {file.name for file in FOLDERS[name].glob("*.yaml")}
    assert {*listed} == files - {"kustomization.yaml"}


@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_named_is_there(name: str) -> None:
    """ConfigMaps and Secrets with the keys that are read, volumes, ports, labels."""
    manifests, template = ALL[name], pod(name)
    assert matches(
        workload(name)["spec"]["selector"]["matchLabels"], template["metadata"]["labels"]
    )
    kept = {
        (kind, each["metadata"]["name"]): {*each.get("data", {}), *each.get("stringData", {})}
        for kind in ("ConfigMap", "Secret")
        for each in by_kind(manifests, kind)
    }
    sources: dict[str, set[str]] = {}
    for volume in template["spec"]["volumes"]:
        for kind, field, key in (
            ("ConfigMap", "configMap", "name"),
            ("Secret", "secret", "secretName"),
        ):
            if field in volume:
                sources[volume["name"]] = kept[kind, volume[field][key]]
    sidecar = sidecar_of(template)
    read = [each["value"] for each in sidecar["env"] if each["value"].startswith("/etc/")]
    read += [argument for argument in sidecar["args"] if argument.startswith("/")]
    mounts = {each["mountPath"]: each["name"] for each in sidecar["volumeMounts"]}
    for path in read:
        folder, _, file = path.rpartition("/")
        assert file in sources[mounts[folder]]
    ports = {port["name"] for port in sidecar["ports"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert sidecar[probe]["httpGet"]["port"] in ports


@pytest.mark.parametrize("name", FOLDERS)
def test_policies_and_monitors_select_the_pods(name: str) -> None:
    template = pod(name)
    labels = template["metadata"]["labels"]
    ports = {p["name"] for c in containers(template) for p in c.get("ports", ())}
    (policy,) = by_kind(ALL[name], "NetworkPolicy")
    assert matches(policy["spec"]["podSelector"]["matchLabels"], labels)
    let_in = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
    assert {*let_in} <= ports
    admin = [
        rule
        for rule in policy["spec"]["ingress"]
        if any(port["port"] == "sidecar-admin" for port in rule["ports"])
    ]
    assert all("from" in rule for rule in admin), "the admin port is not for everybody"
    (monitor,) = by_kind(ALL[name], "PodMonitor")
    assert matches(monitor["spec"]["selector"]["matchLabels"], labels)
    assert {*monitor["spec"]["podTargetLabels"]} <= {*labels}
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint["port"] in ports
    key = endpoint["authorization"]["credentials"]
    secrets = {s["metadata"]["name"]: s["stringData"] for s in by_kind(ALL[name], "Secret")}
    assert key["key"] in secrets[key["name"]]
    assert endpoint["relabelings"] == [{"targetLabel": "job", "replacement": _job()["job_name"]}]


def _job() -> dict[str, Any]:
    (job,) = yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]
    return dict(job)


def _in_kubernetes() -> dict[str, Any]:
    """The part of prometheus.yml that is for Kubernetes, which stands in comments there."""
    text = PROMETHEUS.read_text()
    begin = text.index("    # kubernetes_sd_configs:")
    return dict(yaml.safe_load(re.sub(r"^    # ?", "", text[begin:], flags=re.MULTILINE)))


@pytest.mark.parametrize("name", FOLDERS)
def test_prometheus_finds_the_pods(name: str) -> None:
    """By the job of config/prometheus: one target for each Pod, with the labels of the alerts."""
    job, template = _in_kubernetes(), pod(name)
    assert job["kubernetes_sd_configs"] == [{"role": "pod"}]
    found = []
    for container in containers(template):
        for port in container.get("ports", ()):
            labels = {
                "__meta_kubernetes_pod_container_port_name": port["name"],
                "__meta_kubernetes_namespace": "shop",
                "__meta_kubernetes_pod_name": "application-1",
                **{
                    f"__meta_kubernetes_pod_label_{re.sub('[^a-zA-Z0-9_]', '_', label)}": value
                    for label, value in template["metadata"]["labels"].items()
                },
            }
            if (kept := _relabelled(labels, job["relabel_configs"])) is not None:
                found.append((port["containerPort"], kept))
    (target,) = found
    labels = template["metadata"]["labels"]
    named = {"team": labels["team"], "app": labels["app"]}
    assert target == (6381, {**named, "namespace": "shop", "pod": "application-1"})
    assert {*named} <= {*_job()["static_configs"][0]["labels"]}


def _relabelled(labels: dict[str, str], rules: list[dict[str, Any]]) -> dict[str, str] | None:
    """The target's labels, as Prometheus makes them; None: it is dropped. For the rules in use."""
    made: dict[str, str] = {}
    for rule in rules:
        value = ";".join(labels.get(label, "") for label in rule["source_labels"])
        if rule.get("action") == "keep":
            if not re.fullmatch(rule["regex"], value):
                return None
        elif value:
            assert {*rule} == {"source_labels", "target_label"}
            made[rule["target_label"]] = value
    return made


@pytest.mark.parametrize("name", FOLDERS)
def test_containers_may_do_nothing_that_they_need_not(name: str) -> None:
    for container in containers(pod(name)):
        if not container["image"].startswith("redis-sidecar:"):
            continue
        may = container["securityContext"]
        assert may["readOnlyRootFilesystem"] is True
        assert may["allowPrivilegeEscalation"] is False
        assert may["capabilities"]["drop"] == ["ALL"]
        assert "limits" in container["resources"]
        if container["name"] != "folder":
            assert may["runAsNonRoot"] is True
            assert "add" not in may["capabilities"]


def test_a_native_sidecar_begins_first_and_ends_last() -> None:
    template = pod("pod")
    first = template["spec"]["initContainers"][0]
    assert (first["name"], first["restartPolicy"]) == ("redis-sidecar", "Always")
    assert first["startupProbe"]["httpGet"]["path"] == "/readyz"
    assert "preStop" in template["spec"]["containers"][0]["lifecycle"]


@pytest.mark.parametrize("name", FOLDERS)
def test_there_is_time_to_end(name: str, tmp_path: Path) -> None:
    template = pod(name)
    waits = [
        container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        for container in template["spec"]["containers"]
    ]
    file, env = _mounted(name, tmp_path)
    drain = load(file, environ=env).drain.timeout
    assert template["spec"]["terminationGracePeriodSeconds"] > max(waits) + drain


def _mounted(name: str, folder: Path) -> tuple[str, dict[str, str]]:
    """What the sidecar's container has: its configuration file and its environment, with the
    mounted folders below `folder`, and a CA that is one."""
    root = str(folder)
    for each in (*by_kind(ALL[name], "ConfigMap"), *by_kind(ALL[name], "Secret")):
        kind = "config" if each["kind"] == "ConfigMap" else "secret"
        kind = "tls" if each["metadata"]["name"].endswith("-tls") else kind
        place = folder / "etc/redis-sidecar" / kind
        place.mkdir(parents=True, exist_ok=True)
        for key, text in (each.get("data") or each["stringData"]).items():
            (place / key).write_text(text.replace('"/etc/', f'"{root}/etc/'))
    authority = Authority(folder, "authority")
    (folder / "etc/redis-sidecar/tls/ca.crt").write_bytes(authority.cert_file.read_bytes())
    container = sidecar_of(pod(name))
    env = {
        each["name"]: each["value"]
        .replace("/etc/", f"{root}/etc/")
        .replace("/run/", f"{root}/run/")
        for each in container["env"]
    }
    assert container["args"][0] == "-c"
    return root + container["args"][1], env


@pytest.mark.parametrize("name", FOLDERS)
def test_the_settings_are_good(name: str, tmp_path: Path) -> None:
    """`sidecar check` with exactly what the container has."""
    file, env = _mounted(name, tmp_path)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("SIDECAR_")}
    done = subprocess.run(
        [sys.executable, "-m", "sidecar", "check", "-c", file],
        env={**kept, **env},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "@redis.internal:6379" in done.stdout


@pytest.mark.parametrize("name", FOLDERS)
def test_the_probes_are_answered(plain_server: Server, name: str, tmp_path: Path) -> None:
    """By a sidecar with that environment: probes without a token, metrics with it only."""
    _, env = _mounted(name, tmp_path)
    (tmp_path / "run/redis-sidecar").mkdir(parents=True)
    port = free_port()
    token = {"SIDECAR_ADMIN__TOKEN_FILE": env["SIDECAR_ADMIN__TOKEN_FILE"]}
    listen = env["SIDECAR_LISTEN__URLS"] if name == "node" else None
    admin = f"127.0.0.1:{port}"
    with Sidecar(plain_server.url, env=token, admin=admin, listen=listen):
        container = sidecar_of(pod(name))
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert _status(f"http://{admin}{container[probe]['httpGet']['path']}") == 200
        (monitor,) = by_kind(ALL[name], "PodMonitor")
        metrics = f"http://{admin}{monitor['spec']['podMetricsEndpoints'][0]['path']}"
        assert _status(metrics) == 401
        secret = Path(env["SIDECAR_ADMIN__TOKEN_FILE"]).read_text()
        assert _status(metrics, f"Bearer {secret}") == 200


def _status(url: str, authorization: str = "") -> int:
    headers = {"Authorization": authorization} if authorization else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_the_folder_of_the_socket_becomes_that_of_the_daemon(tmp_path: Path) -> None:
    """The init container's command, with another folder."""
    (folder,) = [each for each in containers(pod("node")) if each["name"] == "folder"]
    program, *arguments = folder["command"]
    assert program == "python"
    arguments = [each.replace("/run/redis-sidecar", str(tmp_path)) for each in arguments]
    for _ in range(2):  # also when it is the daemon's already
        subprocess.run([sys.executable, *arguments], check=True)
        assert (tmp_path.stat().st_uid, tmp_path.stat().st_gid) == (65532, 65532)


def test_an_application_reaches_the_socket_of_its_node() -> None:
    """The folder, the group and the path are those of the daemon."""
    template, daemon = pod_of(by_kind(ALL["node"], "Deployment")[0]), pod("node")
    (volume,) = template["spec"]["volumes"]
    theirs = next(v for v in daemon["spec"]["volumes"] if v["name"] == "socket")
    assert volume["hostPath"]["path"] == theirs["hostPath"]["path"]
    assert template["spec"]["securityContext"]["supplementalGroups"] == [65532]
    (application,) = template["spec"]["containers"]
    url = {"name": "SIDECAR_LISTEN__URLS", "value": application["env"][0]["value"]}
    assert url in sidecar_of(daemon)["env"]
    assert application["volumeMounts"][0]["mountPath"] == theirs["hostPath"]["path"]
