"""The rules, routes and runbooks in config/ and docs/runbooks: whole, consistent, and behaving."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar.core.stats import bucket_bounds
from sidecar.policy.routing import FAMILIES
from sidecar.telemetry.metrics import METRICS
from tests.harness.alerting import CONFIG, MISSING, WITHOUT

ROOT = CONFIG.parent
RULES = sorted((CONFIG / "prometheus/rules").glob("*.yml"))
RULE_TESTS = sorted((CONFIG / "prometheus/tests").glob("*.test.yml"))
ALERTMANAGER = CONFIG / "alertmanager/alertmanager.yml"
SECTIONS = ("Symptom", "Why", "What to look at", "What to do", "How to confirm")
SEVERITIES = {"critical", "warning", "info"}

needs_tools = pytest.mark.skipif(bool(MISSING), reason=WITHOUT)


def rules() -> list[dict[str, Any]]:
    """Every rule of every file."""
    return [
        rule
        for file in RULES
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]


ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"] for rule in rules() if "record" in rule}
NAMES = sorted({rule["alert"] for rule in ALERTS})


def run(*argv: str) -> str:
    """The output of a tool that must succeed."""
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_says_what_who_and_where_to_read(alert: dict[str, Any]) -> None:
    name, notes = alert["alert"], alert["annotations"]
    assert re.fullmatch(r"Sidecar([A-Z][a-z]+)+", name)
    assert alert["labels"]["severity"] in SEVERITIES
    assert notes["summary"]
    assert notes["description"]
    assert notes["runbook_url"].endswith(f"/{name}")
    assert "team" not in alert["labels"], "the team is the target's"


@pytest.mark.parametrize("name", NAMES)
def test_every_alert_has_a_runbook(name: str) -> None:
    page = (ROOT / f"docs/runbooks/{name}.md").read_text()
    assert page.startswith(f"# {name}\n")
    assert tuple(re.findall(r"^## (.+)$", page, re.MULTILINE)) == SECTIONS
    for part in re.split(r"^## .+$", page, flags=re.MULTILINE)[1:]:
        assert part.strip()


def test_every_runbook_has_an_alert() -> None:
    pages = {page.stem for page in (ROOT / "docs/runbooks").glob("*.md")}
    assert pages - {"README"} == set(NAMES)
    index = (ROOT / "docs/runbooks/README.md").read_text()
    assert [name for name in NAMES if f"({name}.md)" not in index] == []


def test_every_alert_is_tested() -> None:
    tests = "".join(file.read_text() for file in RULE_TESTS)
    assert [name for name in NAMES if name not in tests] == []


def known_metrics() -> set[str]:
    names = {metric.name for metric in METRICS} | {"sidecar_spans_dropped_total"}  # of tracing
    for metric in METRICS:
        if metric.type == "histogram":
            names |= {f"{metric.name}_{part}" for part in ("bucket", "count", "sum")}
    return names | RECORDED


def named_in(text: str) -> set[str]:
    return set(re.findall(r"\b(?:sidecar_[a-z_0-9]+|sidecar:[a-z_0-9:]+)", text))


@pytest.mark.parametrize("file", [*RULES, *RULE_TESTS], ids=lambda file: file.name)
def test_every_metric_named_in_a_rule_exists(file: Path) -> None:
    assert named_in(file.read_text()) <= known_metrics()


TARGET = {"instance", "team", "job"}


def test_series_of_the_tests_are_such_as_are_exported() -> None:
    """With exactly the labels of the metric, and families that there are."""
    labels = {metric.name: {*filter(None, metric.label.split(","))} for metric in METRICS}
    for metric in METRICS:
        if metric.type == "histogram":
            for part in ("bucket", "count", "sum"):
                also = {"le"} if part == "bucket" else set()
                labels[f"{metric.name}_{part}"] = labels[metric.name] | also
    for file in RULE_TESTS:
        for text in re.findall(r"- series: '(.+)'", file.read_text()):
            name, _, rest = text.partition("{")
            given = dict(re.findall(r'(\w+)="([^"]*)"', rest))
            if name in labels:
                assert set(given) - TARGET == labels[name] - TARGET, text
            assert given.get("family", "string") in FAMILIES, text


def test_every_metric_named_in_a_runbook_exists() -> None:
    for page in (ROOT / "docs/runbooks").glob("*.md"):
        assert named_in(page.read_text()) <= known_metrics(), page.name


def test_bounds_named_in_rules_are_bounds_of_the_histogram() -> None:
    text = "".join(file.read_text() for file in RULES)
    named = set(re.findall(r'le="([0-9.]+)"', text))
    assert named
    assert named <= {repr(float(bound)) for bound in bucket_bounds()}


def test_secrets_are_in_files() -> None:
    text = ALERTMANAGER.read_text()
    assert not re.search(r"(routing_key|service_key|slack_api_url|api_url|password|token):", text)
    assert "hooks.slack.com" not in text


@needs_tools
@pytest.mark.parametrize("file", RULE_TESTS, ids=lambda file: file.name)
def test_rules_behave(file: Path) -> None:
    run("promtool", "test", "rules", str(file))


@needs_tools
def test_configurations_are_valid() -> None:
    run("promtool", "check", "config", str(CONFIG / "prometheus/prometheus.yml"))
    run("amtool", "check-config", str(ALERTMANAGER))


ROUTES = [
    ("platform-page", {"severity": "critical"}),
    ("platform-page", {"severity": "critical", "team": "platform"}),
    ("platform", {"severity": "warning", "team": "platform"}),
    ("information", {"severity": "info", "team": "platform"}),
    ("payments-page", {"severity": "critical", "team": "payments"}),
    ("payments", {"severity": "warning", "team": "payments"}),
    ("information", {"severity": "info", "team": "payments"}),
    ("platform-page", {"severity": "critical", "team": "unheard of"}),
    ("platform", {}),
]


@needs_tools
@pytest.mark.parametrize(("receiver", "labels"), ROUTES)
def test_routes(receiver: str, labels: dict[str, str]) -> None:
    words = [f"{name}={value}" for name, value in labels.items()]
    argv = ["amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}"]
    run(*argv, f"--verify.receivers={receiver}", "alertname=SidecarDown", *words)


def test_a_page_reaches_pagerduty_and_slack() -> None:
    receivers = yaml.safe_load(ALERTMANAGER.read_text())["receivers"]
    paging = [receiver for receiver in receivers if receiver["name"].endswith("-page")]
    assert len(paging) == 2
    for receiver in paging:
        assert receiver["slack_configs"]
        assert receiver["pagerduty_configs"]
    assert not [r for r in receivers if r not in paging and "pagerduty_configs" in r]
