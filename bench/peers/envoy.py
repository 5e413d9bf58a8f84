"""Envoy's redis_proxy filter with one worker and one static cluster of one endpoint."""

from __future__ import annotations

import json
from typing import Any

from bench.load.shape import Address, Load
from bench.peers.stage import BACKLOG, Lane, Stage
from tests.harness.certificates import Certificates
from tests.harness.programs import find


def flush(load: Load) -> dict[str, Any]:
    """Envoy's upstream buffering for a load: what measured best for it (see bench/README.md).

    Unbuffered, its default, is best or equal for unpipelined clients and for large values. A
    timeout under a millisecond rounds to zero in Envoy's timers, so what arrived in one loop
    iteration goes out in one write, without any added wait: best for pipelines. A timeout of 1 ms
    and more makes a client wait whenever the buffer does not fill up.
    """
    if load.pipeline == 1 or load.value > 4096:
        return {}
    return {"max_buffer_size_before_flush": 65536, "buffer_flush_timeout": "0.0001s"}


def _tls(kind: str, certificates: Certificates) -> dict[str, Any]:
    """The TLS transport socket of a listener (`Downstream`) or of the cluster (`Upstream`)."""
    base = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3."
    if kind == "Upstream":
        common: dict[str, Any] = {
            "validation_context": {"trusted_ca": {"filename": str(certificates.ca)}}
        }
    else:
        pair = {
            "certificate_chain": {"filename": str(certificates.server.cert)},
            "private_key": {"filename": str(certificates.server.key)},
        }
        common = {"tls_certificates": [pair]}
    common["tls_params"] = {"tls_maximum_protocol_version": "TLSv1_3"}  # upstream default: 1.2
    config = {"@type": f"{base}{kind}TlsContext", "common_tls_context": common}
    return {"transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": config}}


def _bootstrap(stage: Stage, load: Load, address: Address) -> dict[str, Any]:
    def tcp(port: int) -> dict[str, Any]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    redis = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.redis_proxy.v3.RedisProxy",
        "stat_prefix": "bench",
        "settings": {"op_timeout": "10s", **flush(load)},
        "prefix_routes": {"catch_all_route": {"cluster": "server"}},
    }
    chain = {"filters": [{"name": "envoy.filters.network.redis_proxy", "typed_config": redis}]}
    endpoint = {"endpoint": {"address": tcp(stage.upstream_port(load))}}
    cluster = {
        "name": "server",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "server",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
    }
    if load.tls and stage.certificates:
        chain |= _tls("Downstream", stage.certificates)
        cluster |= _tls("Upstream", stage.certificates)
    where = {"pipe": {"path": address.path}} if address.path else tcp(address.port)
    listener = {
        "name": "redis",
        "address": where,
        "filter_chains": [chain],
        "tcp_backlog_size": BACKLOG,
    }
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def start_envoy(stage: Stage, load: Load) -> Lane:
    """Envoy as it serves this load best."""
    binary, address = find("envoy"), stage.listen("envoy", load)
    config = stage.write("envoy", json.dumps(_bootstrap(stage, load, address), indent=1), "json")
    argv = [binary, "-c", str(config), "--concurrency", "1", "--disable-hot-restart"]
    return stage.start("envoy", [*argv, "-l", "error"], address)
