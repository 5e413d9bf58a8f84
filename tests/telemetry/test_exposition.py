"""/metrics against prometheus_client, which is slower and knows the formats by heart."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from prometheus_client.registry import CollectorRegistry

from sidecar.core.stats import bucket_bounds
from sidecar.telemetry.exposition import EXEMPLARS_KEY, Exposition, wants_openmetrics
from sidecar.telemetry.metrics import BOUNDS_KEY, METRICS, SnapshotCollector

BOUNDS = bucket_bounds()
LABELS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8)
NUMBERS = st.integers(0, 1 << 60) | st.floats(0, 1e300)


def values() -> st.SearchStrategy[dict[str, object]]:
    """Snapshots with any of the metrics in them."""
    histogram = st.tuples(
        st.lists(st.integers(0, 1 << 40), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1),
        st.floats(0, 1e9),
    )
    keys: dict[str, st.SearchStrategy[object]] = {BOUNDS_KEY: st.just(BOUNDS)}
    for declared in METRICS:
        if declared.type == "histogram":
            keys[declared.key] = st.dictionaries(LABELS, histogram, max_size=2)
        elif declared.keys:
            keys |= dict.fromkeys(declared.keys.values(), NUMBERS)
        elif declared.key:
            several = declared.label.count(",") + 1
            of: st.SearchStrategy[object] = LABELS
            if several > 1:
                of = st.tuples(*[LABELS] * several)
            labelled = st.dictionaries(of, NUMBERS, max_size=3)
            keys[declared.key] = labelled if declared.label else NUMBERS
    return st.fixed_dictionaries({}, optional=keys)


def registry(snapshot: Mapping[str, object]) -> CollectorRegistry:
    made = CollectorRegistry(auto_describe=False)
    made.register(SnapshotCollector(lambda: snapshot))
    return made


@given(values())
def test_the_same_as_prometheus_client(snapshot: dict[str, object]) -> None:
    snapshot.setdefault(BOUNDS_KEY, BOUNDS)
    ours = Exposition(lambda: snapshot, process=False)
    for _ in range(2):  # what is kept of the first is used by the second
        text = ours.render().decode()
        theirs = generate_latest(registry(snapshot)).decode()
        assert list(parse_text(text)) == list(parse_text(theirs))
        text = ours.render(openmetrics=True).decode()
        theirs = generate_openmetrics(registry(snapshot)).decode()
        assert list(parse_openmetrics(text)) == list(parse_openmetrics(theirs))


def test_exemplars() -> None:
    counts = [0] * len(BOUNDS) + [1]
    counts[3] = 2
    snapshot = {
        BOUNDS_KEY: BOUNDS,
        "latency": {"string": (counts, 9.5)},
        EXEMPLARS_KEY: {"string": {3: ("4bf92f3577b34da6", "00f0", 3.5e-06, 1795411762.25)}},
    }
    ours = Exposition(lambda: snapshot, process=False)
    assert b"trace_id" not in ours.render()
    families = parse_openmetrics(ours.render(openmetrics=True).decode())
    (marked,) = [s for family in families for s in family.samples if s.exemplar]
    assert marked.exemplar.labels == {"trace_id": "4bf92f3577b34da6", "span_id": "00f0"}
    assert (marked.exemplar.value, marked.value) == (3.5e-06, 2.0)
    assert math.isclose(float(marked.exemplar.timestamp), 1795411762.25)


def test_the_process_is_there() -> None:
    ours = Exposition(dict)
    assert b"process_resident_memory_bytes " in ours.render()
    names = {family.name for family in parse_openmetrics(ours.render(openmetrics=True).decode())}
    assert {"process_cpu_seconds", "process_open_fds", "sidecar_build_info"} <= names


PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        (PROMETHEUS, True),
        ("application/openmetrics-text", True),
        ("application/openmetrics-text;q=0.5,text/plain;q=0.9", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=x", False),
        (";;,,q=1;", False),
    ],
)
def test_which_format(accept: str, wanted: bool) -> None:
    assert wants_openmetrics(accept) == wanted
