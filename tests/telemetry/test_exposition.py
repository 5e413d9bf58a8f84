"""/metrics against prometheus_client, which is slower and knows the formats by heart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import Enum
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from sidecar.core.stats import bucket_bounds
from sidecar.telemetry.exposition import Exposition, wants_openmetrics
from sidecar.telemetry.snapshots import DataPlane, Exemplar, Latency, Snapshot
from tests.harness.structs import filled
from tests.telemetry.oracle import registry

BOUNDS = bucket_bounds()
LABELS = st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8)
INTEGERS = st.integers(0, 1 << 60)
NUMBERS = INTEGERS | st.floats(0, 1e300)
COUNTS = st.lists(st.integers(0, 1 << 40), min_size=len(BOUNDS) + 1, max_size=len(BOUNDS) + 1)
SIMPLE = {int: INTEGERS, float: NUMBERS, bool: st.booleans(), str: LABELS, type(None): st.none()}


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Anything that a field of this type can be."""
    if kind in SIMPLE:
        return SIMPLE[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return st.sampled_from(kind)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {
            field.name: FIXED[field.name] if field.name in FIXED else values(field.type)
            for field in msgspec.structs.fields(kind)
        }
        return st.builds(kind, **fields)
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return values(arguments[0])
    if origin is Literal:
        return st.sampled_from(arguments)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if origin in (Union, UnionType):
        return st.one_of(*map(values, arguments))
    if issubclass(origin, Sequence):
        return st.lists(values(arguments[0]), max_size=2)
    assert issubclass(origin, Mapping), kind
    return st.dictionaries(*map(values, arguments), max_size=2)


# The parts of a histogram fit together; exemplars have a test of their own.
FIXED: Mapping[str, st.SearchStrategy[Any]] = {
    "bounds": st.just(BOUNDS),
    "counts": COUNTS,
    "exemplars": st.just({}),
}
SNAPSHOTS = values(Snapshot)


@settings(deadline=None)  # the other side is slow
@given(SNAPSHOTS)
def test_the_same_as_prometheus_client(snapshot: Snapshot) -> None:
    ours = Exposition(lambda: snapshot, process=False)
    for _ in range(2):  # what is kept of the first is used by the second
        text = ours.render().decode()
        theirs = generate_latest(registry(lambda: snapshot)).decode()
        assert list(parse_text(text)) == list(parse_text(theirs))
        text = ours.render(openmetrics=True).decode()
        theirs = generate_openmetrics(registry(lambda: snapshot)).decode()
        assert list(parse_openmetrics(text)) == list(parse_openmetrics(theirs))


def test_exemplars() -> None:
    counts = [0] * len(BOUNDS) + [1]
    counts[3] = 2
    exemplar = Exemplar("4bf92f3577b34da6", "00f0", 3.5e-06, 1795411762.25)
    latency = {"string": Latency(counts=counts, seconds=9.5)}
    plane = filled(
        DataPlane,
        commands={"latency": latency, "bounds": BOUNDS},
        tracing={"exemplars": {"string": {3: exemplar}}},
    )
    ours = Exposition(lambda: Snapshot(data_plane=plane), process=False)
    assert b"trace_id" not in ours.render()
    families = parse_openmetrics(ours.render(openmetrics=True).decode())
    (marked,) = [s for family in families for s in family.samples if s.exemplar]
    assert marked.exemplar.labels == {"trace_id": "4bf92f3577b34da6", "span_id": "00f0"}
    assert (marked.exemplar.value, marked.value) == (3.5e-06, 2.0)
    assert math.isclose(float(marked.exemplar.timestamp), 1795411762.25)


@settings(deadline=None)
@given(SNAPSHOTS, SNAPSHOTS)
def test_each_worker_by_itself(one: Snapshot, other: Snapshot) -> None:
    """The lines of each, with one more label, below one heading."""
    ours = Exposition(Snapshot, process=False)
    text = ours.render_each({"1": one, "2": other}).decode()
    found = {"1": [], "2": []}
    for family in parse_text(text):
        for sample in family.samples:
            labels = dict(sample.labels)
            found[labels.pop("worker")].append((sample.name, labels, sample.value))
    for name, snapshot in (("1", one), ("2", other)):
        alone = parse_text(Exposition(lambda s=snapshot: s, process=False).render().decode())
        wanted = [(s.name, dict(s.labels), s.value) for family in alone for s in family.samples]
        assert found[name] == wanted


def test_the_process_is_there() -> None:
    ours = Exposition(Snapshot)
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
