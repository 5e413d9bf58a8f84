"""Metrics: names follow the conventions, values follow the snapshot, gaps are tolerated."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.telemetry.exposition import Exposition
from sidecar.telemetry.metrics import METRICS
from sidecar.telemetry.snapshots import (
    AdminPort,
    Cache,
    Clients,
    Cluster,
    Commands,
    DataPlane,
    Failover,
    HotKeyCounts,
    Latency,
    Lines,
    Links,
    Process,
    Restrictions,
    SentinelCounts,
    Snapshot,
    Tracing,
    WarmStart,
    Worker,
)
from tests.harness.structs import filled

ONE = {"one": 1}
KEY = {("user", "0", "key"): 0.5}
LATENCY = Latency(counts=[1, 2, 0, 4], seconds=1.5)
FULL = Snapshot(
    process=filled(Process, lines={"log": Lines(written=1, dropped=0)}),
    sentinels=filled(SentinelCounts, replicas=2, tls_failures=ONE),
    data_plane=filled(
        DataPlane,
        clients=filled(
            Clients,
            connected=3,
            closed={"client": 6, "output_limit": 1},
            tls_failures=ONE,
            logins=ONE,
        ),
        links=filled(
            Links, up=True, shared=1, dedicated=2, idle=4, sent_bytes=400, tls_failures=ONE
        ),
        commands=filled(
            Commands,
            calls={"get": 8, "set": 9},
            errors=ONE,
            latency={"get": LATENCY},
            bounds=[0.0001, 0.001, 0.01],
        ),
        cache=filled(Cache, misses=ONE, checks=ONE, proof_age=0.1),
        hot_keys=filled(HotKeyCounts, shares=KEY, rates=KEY),
        warm=filled(WarmStart),
        tracing=filled(Tracing, commands=ONE, spans_dropped=ONE),
        cluster=filled(Cluster, redirections=ONE),
        restrictions=filled(Restrictions, refused={("shop", "rate"): 1}, delayed=ONE),
        failover=filled(Failover, last_switch=1.0, last_interruption=2.0),
        certificates=ONE,
        certificates_begin=ONE,
    ),
    admin=filled(AdminPort, closed=ONE, refused=ONE, tls_failures=ONE),
    workers=[filled(Worker, number=1, restarts=3), filled(Worker, number=2, state="silent")],
)


def gaps(struct: msgspec.Struct) -> Iterator[tuple[str, Any]]:
    """Copies of a struct without one of its optional values, and the path of what is missing."""
    for field in msgspec.structs.fields(struct):
        value = getattr(struct, field.name)
        if "None" in str(field.type) or not field.required:
            absent = None if "None" in str(field.type) else {}
            yield field.name, msgspec.structs.replace(struct, **{field.name: absent})
        if isinstance(value, msgspec.Struct):
            for path, rest in gaps(value):
                copy = msgspec.structs.replace(struct, **{field.name: rest})
                yield f"{field.name}.{path}", copy


GAPS = dict(gaps(FULL))


def scrape(snapshot: Snapshot) -> dict[str, float]:
    text = Exposition(lambda: snapshot).render().decode()
    return {
        f"{sample.name}{{{','.join(f'{k}={v}' for k, v in sample.labels.items())}}}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_everything_in_the_snapshot_is_shown() -> None:
    samples = scrape(FULL)
    assert samples["sidecar_client_connections{}"] == 3
    assert samples["sidecar_client_connections_closed_total{reason=output_limit}"] == 1
    assert samples["sidecar_upstream_links{kind=dedicated}"] == 2
    assert samples["sidecar_commands_total{command=set}"] == 9
    assert samples["sidecar_upstream_transmit_bytes_total{}"] == 400
    assert samples["sidecar_workers{state=silent}"] == 1
    for side in ("listen", "upstream", "sentinel", "admin"):
        assert samples[f"sidecar_tls_handshake_failures_total{{side={side},reason=one}}"] == 1
    assert samples["sidecar_worker_restarts_total{}"] == 3
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


def test_the_gaps_are_all_gaps() -> None:
    assert {"process", "data_plane", "data_plane.cache.proof_age", "sentinels.replicas"} <= {*GAPS}
    assert len(GAPS) > 12


@pytest.mark.parametrize("missing", sorted(GAPS))
def test_what_is_missing_leaves_out_its_metrics_only(missing: str) -> None:
    shown = {name for name in scrape(FULL) if name.startswith("sidecar_")}
    assert {name for name in scrape(GAPS[missing]) if name.startswith("sidecar_")} < shown


def test_an_empty_snapshot_still_says_what_runs() -> None:
    samples = scrape(Snapshot())
    assert any(name.startswith("sidecar_build_info{version=") for name in samples)
    assert "process_resident_memory_bytes{}" in samples


def test_making_it_takes_no_snapshot() -> None:
    def fail() -> Snapshot:
        raise AssertionError("a snapshot was taken")

    Exposition(fail)


def test_names_follow_the_conventions() -> None:
    names = [declared.name for declared in METRICS]
    assert len(set(names)) == len(names)
    for declared in METRICS:
        assert re.fullmatch(r"sidecar_[a-z_]+[a-z]", declared.name)
        assert declared.name.endswith("_total") == (declared.type == "counter"), declared.name
        assert declared.help.endswith(".")
