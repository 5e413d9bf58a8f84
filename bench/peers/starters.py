"""Every peer by name."""

from __future__ import annotations

from collections.abc import Callable

from bench.load.shape import Load
from bench.peers.envoy import start_envoy
from bench.peers.others import start_haproxy, start_twemproxy
from bench.peers.sidecar import start_observed, start_sidecar, start_unobserved
from bench.peers.stage import Lane, Stage, start_direct

STARTERS: dict[str, Callable[[Stage, Load], Lane]] = {
    "direct": start_direct,
    "sidecar": start_sidecar,
    "envoy": start_envoy,
    "twemproxy": start_twemproxy,
    "haproxy": start_haproxy,
    "unobserved": start_unobserved,
    "observed": start_observed,
}
