"""The Grafana dashboards: what the script prints, whole, typed, and answered by a real Prometheus.

Three ways: through the SDK and back, against the types of @grafana/schema, and every expression on
a Prometheus that scrapes a real sidecar of a real cluster.
"""

from __future__ import annotations

import json
import re
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from config.grafana import generate
from sidecar.telemetry.metrics import METRICS
from tests.harness import npm
from tests.harness.admin import get_json
from tests.harness.alerting import CONFIG, MISSING, WITHOUT, Prometheus
from tests.harness.certificates import Authority
from tests.harness.process import free_port, wait_until
from tests.harness.sentinels import Cluster
from tests.harness.servers import Server, Sidecar
from tests.harness.wire import ClosedError, DeadlineError, Wire

register_default_plugins()

FILES = sorted((CONFIG / "grafana/dashboards").glob("*.json"))
PROCESS = {"process_cpu_seconds_total", "process_resident_memory_bytes"}
# Nothing to show while all is well.
OF_LOGINS = "sidecar_logins_total"  # where the sidecar judges them
# Something is refused, and something waits.
IDENTITIES = """
[identities.default]
policy = "some"
limits = { commands = 500, burst = 1 }
[policies.some]
deny = ["KEYS"]
"""
EMPTY_WHEN_WELL = "sum by (instance) (1 - sidecar_upstream_up"
# Shown for clusters only, as tests/compat/test_cluster.py sees.
OF_CLUSTERS = "sidecar_cluster_"


def panels(page: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for panel in page["panels"]:
        yield from [panel, *panel.get("panels", ())]


def expressions(file: Path) -> list[str]:
    page = json.loads(file.read_text())
    return [t["expr"] for panel in panels(page) for t in panel.get("targets", ())]


def test_the_files_are_what_the_script_prints() -> None:
    printed = generate.dashboards()
    assert {file.name: file.read_text() for file in FILES} == printed


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_through_the_sdk_and_back(file: Path) -> None:
    page = json.loads(file.read_text())
    again = json.loads(json.dumps(Dashboard.from_json(page), cls=JSONEncoder))
    assert again == page


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_panels_have_titles_places_and_metrics_that_exist(file: Path) -> None:
    page = json.loads(file.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in panels(page):
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert panel["title"]
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= generate.WIDTH
        taken |= cells
    known = {metric.name for metric in METRICS} | PROCESS
    known |= {f"{m.name}_{part}" for m in METRICS for part in ("bucket",) if m.type == "histogram"}
    for rules in (CONFIG / "prometheus/rules").glob("*.yml"):
        for group in yaml.safe_load(rules.read_text())["groups"]:
            known |= {rule["record"] for rule in group["rules"] if "record" in rule}
    named = set(re.findall(r"\b(?:sidecar|process)[_:][a-z_0-9:]+", "".join(expressions(file))))
    assert named
    assert named <= known
    for text in expressions(file):
        assert "{S" not in text
        assert 'job="redis-sidecar"' in text or "ALERTS" in text


def test_every_metric_is_on_a_dashboard() -> None:
    text = "".join(file.read_text() for file in FILES)
    # What says nothing a panel beside it does not say.
    aside = {"sidecar_cache_fills_total", "sidecar_hot_key_samples_total", "sidecar_warmup_state",
             "sidecar_master_switch_timestamp_seconds",
             "sidecar_tls_certificate_start_timestamp_seconds"}  # fmt: skip
    absent = {metric.name for metric in METRICS if metric.name not in text}
    assert absent == aside


def test_provisioning_names_what_is_there() -> None:
    folder = CONFIG / "grafana/provisioning"
    sources = yaml.safe_load((folder / "datasources/sidecar.yaml").read_text())["datasources"]
    uids = {source["uid"] for source in sources}
    for source in sources:
        for link in source.get("jsonData", {}).get("exemplarTraceIdDestinations", ()):
            assert link["datasourceUid"] in uids
    (provider,) = yaml.safe_load((folder / "dashboards/sidecar.yaml").read_text())["providers"]
    assert provider["type"] == "file"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_against_the_types_of_grafana(file: Path) -> None:
    folder, problem = npm.install(Path(__file__).parent / "grafana", "grafana-types")
    if problem:
        pytest.skip(f"dashboards NOT checked against @grafana/schema: {problem}")
    page = json.loads(file.read_text())
    for chosen in page["templating"]["list"]:
        for later in [name for name in chosen if name.startswith("auto")]:
            del chosen[later]  # of a later schema
    # A string stands for a member of an enumeration, but TypeScript wants it by its name.
    text = json.dumps(page, indent=1)
    text = text.replace('"mode": "absolute"', '"mode": ThresholdsMode.Absolute')
    source = folder / f"{file.stem}.ts"
    source.write_text(
        'import { ThresholdsMode, type Dashboard } from "@grafana/schema";\n'
        f"export const page: Dashboard = {text};\n"
    )
    argv = ["node_modules/.bin/tsc", "--noEmit", "--strict", "--skipLibCheck", "--module",
            "nodenext", "--moduleResolution", "nodenext", source.name]  # fmt: skip
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def replaced(text: str) -> str:
    for name in ("team", "app", "instance"):
        text = text.replace(f"${name}", ".*")
    return text.replace("$__rate_interval", "20s")


@pytest.mark.skipif(bool(MISSING), reason=WITHOUT)
def test_exemplars_lead_from_a_histogram_to_a_trace(plain_server: Server) -> None:
    """Which is what the dashboards' links are made of. Nobody has to take the spans for that."""
    settings: dict[str, str | int | float] = {
        "tracing.endpoint": f"http://127.0.0.1:{free_port()}/v1/traces",
        "tracing.sample": 1.0,
    }
    admin = f"127.0.0.1:{free_port()}"
    with (
        Sidecar(plain_server.url, settings=settings, admin=admin) as sidecar,
        Prometheus([admin]) as prometheus,
        Wire(sidecar.port) as wire,
    ):
        name = "sidecar_command_duration_seconds_bucket"

        def found() -> list[dict[str, Any]]:
            wire.cmd("GET", "key")
            return prometheus.exemplars(f'{name}{{family="string"}}')

        exemplar = wait_until(found, "an exemplar", 20)[0]
        said = get_json(f"http://{admin}/api/traces?count=200")
        traces = {trace["trace_id"]: trace for trace in said["traces"]}
        trace = traces[exemplar["labels"]["trace_id"]]
        assert trace["command"] == "get"
        assert float(exemplar["value"]) <= trace["duration_ms"] / 1000 + 1e-9


@pytest.mark.skipif(bool(MISSING), reason=WITHOUT)
@pytest.mark.timeout(240)
def test_every_expression_on_a_real_prometheus(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    pem = authority.issue("server")
    context = ssl.create_default_context(cafile=str(authority.cert_file))
    keys = tmp_path / "keys"
    keys.write_text("item:1\nitem:2\n")
    identities = tmp_path / "identities.toml"
    identities.write_text(IDENTITIES)
    settings: dict[str, str | int | float] = {
        "listen.tls.cert_file": str(pem.cert),
        "listen.tls.key_file": str(pem.key),
        "warm.key_file": str(keys),
        "cache.mode": "rules",
        "cache.rules": "*",
        "hotkeys.metrics": 10,
        "workers": 2,  # there are metrics of workers
        "identities.file": str(identities),
    }
    with ExitStack() as parts:
        cluster = parts.enter_context(Cluster(replicas=1))
        admin = f"127.0.0.1:{free_port()}"
        sidecar = parts.enter_context(
            Sidecar(cluster.url, settings=settings, tls=context, admin=admin)
        )
        prometheus = parts.enter_context(
            Prometheus([admin], labels={"team": "payments", "app": "shop"})
        )
        wire = parts.enter_context(Wire(sidecar.port, tls=context))

        def traffic() -> None:
            with suppress(ClosedError, DeadlineError):
                for number in range(20):
                    wire.cmd("SET", f"item:{number}", "v")
                    wire.cmd("GET", f"item:{number}")
                    wire.cmd("GET", f"item:{number}")
                wire.cmd("LPUSH", "item:1", "wrong type")
                wire.cmd("KEYS", "*")
                with Wire(sidecar.port, tls=context) as other:
                    other.cmd("PING")
                with Wire(sidecar.port) as plain:  # a handshake that fails
                    plain.send(b"PING\r\n")
                    plain.read_to_end()

        missing: list[str] = []

        def answered() -> bool:
            traffic()
            missing[:] = [
                text
                for file in FILES
                for text in expressions(file)
                if not text.startswith(EMPTY_WHEN_WELL)
                and OF_CLUSTERS not in text
                and OF_LOGINS not in text
                and not prometheus.query(replaced(text))
            ]
            return not missing

        with suppress(AssertionError):
            wait_until(answered, "all expressions have a result", 60.0)
        assert missing == []
