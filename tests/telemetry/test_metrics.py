"""Metrics: names follow the conventions, values follow the snapshot, gaps are tolerated."""

import re

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.telemetry.metrics import METRICS, registry

FULL: dict[str, object] = {
    "clients_active": 3,
    "clients_total": 10,
    "clients_rejected": 1,
    "clients_closed": {"client": 6, "output_limit": 1},
    "client_bytes_in": 100,
    "client_bytes_out": 200,
    "upstream_bytes_in": 300,
    "upstream_bytes_out": 400,
    "upstream_up": 1,
    "links_shared": 1,
    "links_dedicated": 2,
    "links_idle": 4,
    "reconnects": 5,
    "protocol_errors": 6,
    "errors_local": 7,
    "commands": {"get": 8, "set": 9},
    "replies_error": {"get": 1},
    "latency": {"get": ([1, 2, 0, 4], 1.5)},
    "latency_bounds": [0.0001, 0.001, 0.01],
}


def _labelled(label: str) -> dict[object, int]:
    names = label.split(",")
    return {"one" if len(names) == 1 else tuple(names): 1}


# The rest of the table, one value each.
for _metric in METRICS:
    for _key in _metric.keys.values() or [_metric.key]:
        if _key:
            _one = _labelled(_metric.label) if _metric.label and not _metric.keys else 1
            FULL.setdefault(_key, _one)


def scrape(snapshot: dict[str, object]) -> dict[str, float]:
    text = generate_latest(registry(lambda: snapshot)).decode()
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sample.labels.items())}}}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_key_of_the_snapshot_is_shown() -> None:
    samples = scrape(FULL)
    assert samples["sidecar_client_connections{}"] == 3
    assert samples["sidecar_client_connections_closed_total{reason=output_limit}"] == 1
    assert samples["sidecar_upstream_links{kind=dedicated}"] == 2
    assert samples["sidecar_commands_total{command=set}"] == 9
    assert samples["sidecar_upstream_transmit_bytes_total{}"] == 400
    for declared in METRICS:
        assert any(name.startswith(declared.name) for name in samples), declared.name


def test_histogram_buckets_are_cumulative() -> None:
    samples = scrape(FULL)
    name = "sidecar_command_duration_seconds"
    assert samples[f"{name}_bucket{{family=get,le=0.001}}"] == 3
    assert samples[f"{name}_bucket{{family=get,le=0.01}}"] == 3
    assert samples[f"{name}_bucket{{family=get,le=+Inf}}"] == 7
    assert samples[f"{name}_count{{family=get}}"] == 7
    assert samples[f"{name}_sum{{family=get}}"] == 1.5


@pytest.mark.parametrize("missing", sorted(FULL))
def test_a_missing_key_leaves_out_its_metric_only(missing: str) -> None:
    rest = {key: value for key, value in FULL.items() if key != missing}
    shown = {name for name in scrape(FULL) if name.startswith("sidecar_")}
    assert {name for name in scrape(rest) if name.startswith("sidecar_")} < shown


def test_an_empty_snapshot_still_says_what_runs() -> None:
    samples = scrape({})
    assert any(name.startswith("sidecar_build_info{version=") for name in samples)
    assert "process_resident_memory_bytes{}" in samples


def test_registering_takes_no_snapshot() -> None:
    def fail() -> dict[str, object]:
        raise AssertionError("a snapshot was taken")

    registry(fail)


def test_names_follow_the_conventions() -> None:
    names = [declared.name for declared in METRICS]
    assert len(set(names)) == len(names)
    for declared in METRICS:
        assert re.fullmatch(r"sidecar_[a-z_]+[a-z]", declared.name)
        assert declared.name.endswith("_total") == (declared.type == "counter"), declared.name
        assert declared.help.endswith(".")
