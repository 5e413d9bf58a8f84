"""Latency buckets, and what is counted on the way."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.core.stats import bucket_bounds, bucket_of
from tests.native.shell import Shell, named, request

MICROSECONDS = [round(bound * 1e6, 6) for bound in bucket_bounds()]


def test_bounds_rise() -> None:
    assert MICROSECONDS[0] == 1
    assert all(a < b for a, b in itertools.pairwise(MICROSECONDS))
    assert MICROSECONDS[-1] == 2**23


def test_bounds_grow_by_half_at_most() -> None:
    assert all(b <= 2 * a for a, b in itertools.pairwise(MICROSECONDS))


@given(st.one_of(st.integers(0, 2**32 - 1), st.integers(0, 2**24), st.integers(0, 4000)))
@example(0)
@example(1)
@example(2)
@example(2**32 - 1)
def test_every_latency_lies_within_its_bucket(us: int) -> None:
    bucket = bucket_of(us)
    assert 0 <= bucket <= len(MICROSECONDS)
    if bucket < len(MICROSECONDS):
        assert us <= MICROSECONDS[bucket]
    if bucket > 0:
        assert us > MICROSECONDS[bucket - 1]


@given(st.integers(0, 2**32 - 2))
def test_a_longer_latency_is_in_no_earlier_bucket(us: int) -> None:
    assert bucket_of(us) <= bucket_of(us + 1)


@pytest.mark.parametrize("bound", range(len(MICROSECONDS)))
def test_a_bound_belongs_to_its_bucket(bound: int) -> None:
    us = int(MICROSECONDS[bound])
    assert bucket_of(us) == bound or MICROSECONDS[bound] != us
    assert bucket_of(us + 1) > bound or MICROSECONDS[bound] != us


def test_what_a_request_counts() -> None:
    shell = Shell()
    client = shell.connect()
    client.due = [(named("GET", "k"), False), (named("SET", "k", "v"), False)]
    shell.core.set_now(1000)
    shell.send(client, request("GET", "k") + request("SET", "k", "v"))
    shell.flush(shell.shared)
    shell.core.set_now(1250)
    shell.arrive(shell.shared)
    counters = shell.core.counters()
    assert counters["calls"] == {"get": 1, "set": 1}
    assert counters["latency"]["string"][bucket_of(250)] == 2
    assert counters["sum_us"] == 500
    assert counters["client_bytes_in"] == len(request("GET", "k") + request("SET", "k", "v"))
    assert counters["errors"] == {}


def test_the_clock_may_wrap() -> None:
    shell = Shell()
    client = shell.connect()
    client.due = [(named("GET", "k"), False)]
    shell.core.set_now(2**32 - 100)
    shell.send(client, request("GET", "k"))
    shell.flush(shell.shared)
    shell.core.set_now(200)
    shell.arrive(shell.shared)
    assert shell.core.counters()["latency"]["string"][bucket_of(300)] == 1


def test_error_replies_are_counted() -> None:
    shell = Shell()
    client = shell.connect()
    client.due = [(b"-ERR no\r\n", False)]
    shell.send(client, request("GET", "k"))
    shell.core.link_output(shell.shared, 1 << 20)
    shell.core.link_receive(shell.shared, b"-ERR no\r\n")
    assert shell.core.counters()["errors"] == {"string": 1}
