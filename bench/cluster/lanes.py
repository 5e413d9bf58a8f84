"""What is measured in front of a cluster of three shards: proxies, and clients that know clusters.

`fill` writes the keys straight to their shards. Every proxy has one thread on the data path; Envoy
buffers as it does best for the load (bench/peers/envoy.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping

from bench.load.shape import Address, Load
from bench.peers.envoy import flush
from bench.peers.sidecar import DEFAULTS
from bench.peers.stage import BACKLOG, Lane, Stage
from tests.harness.cluster import Cluster
from tests.harness.programs import find
from tests.harness.servers import Sidecar

SHARDS = 3


def start_cluster(kind: str) -> Cluster:
    """Three shards without replicas and without persistence."""
    return Cluster(kind, shards=SHARDS, settings={"maxclients": 10_000, "io-threads": 1})


def fill(cluster: Cluster, load: Load) -> None:
    """Every key of a load once, as the load generator writes it."""
    requests: dict[int, list[tuple[str, str, str]]] = {}
    for number in range(load.keys):
        key = f"key:{number:012d}"
        value = key.ljust(load.value, "x")
        requests.setdefault(cluster.owner(key), []).append(("SET", key, value))
    for shard, writes in requests.items():
        with cluster.wire(cluster.shard(shard).primary) as wire:
            wire.pipeline(writes)


def start_sidecar(
    stage: Stage, load: Load, upstream: str, more: Mapping[str, str] | None = None
) -> Lane:
    """One in front of this upstream, forwarding: its near cache is off."""
    address = stage.listen("sidecar", load)
    settings = {"cache.mode": "off", **(more or {}), **stage.sidecar_settings}
    sidecar = Sidecar(upstream, port=address.port, settings=settings, defaults=DEFAULTS)
    return Lane(address, stage.fleet.add(sidecar))


def start_envoy(stage: Stage, load: Load, cluster: Cluster) -> Lane:
    """Envoy in its cluster mode: it learns the slots, and follows redirections."""
    binary, address = find("envoy"), stage.listen("envoy", load)
    config = stage.write("envoy", json.dumps(_bootstrap(load, address, cluster), indent=1), "json")
    argv = [binary, "-c", str(config), "--concurrency", "1", "--disable-hot-restart"]
    return stage.start("envoy", [*argv, "-l", "error"], address)


def _bootstrap(load: Load, address: Address, cluster: Cluster) -> dict[str, object]:
    def tcp(port: int) -> dict[str, object]:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    base = "type.googleapis.com/envoy.extensions"
    settings = {"op_timeout": "10s", "enable_redirection": True, **flush(load)}
    redis = {
        "@type": f"{base}.filters.network.redis_proxy.v3.RedisProxy",
        "stat_prefix": "bench",
        "settings": settings,
        "prefix_routes": {"catch_all_route": {"cluster": "shards"}},
    }
    seeds = [{"endpoint": {"address": tcp(shard.primary.port)}} for shard in cluster.shards]
    slots = {
        "@type": f"{base}.clusters.redis.v3.RedisClusterConfig",
        "cluster_refresh_rate": "5s",
        "cluster_refresh_timeout": "4s",
    }
    shards = {
        "name": "shards",
        "connect_timeout": "5s",
        "lb_policy": "CLUSTER_PROVIDED",
        "cluster_type": {"name": "envoy.clusters.redis", "typed_config": slots},
        "load_assignment": {"cluster_name": "shards", "endpoints": [{"lb_endpoints": seeds}]},
    }
    chain = {"filters": [{"name": "envoy.filters.network.redis_proxy", "typed_config": redis}]}
    listener = {
        "name": "redis",
        "address": tcp(address.port),
        "filter_chains": [chain],
        "tcp_backlog_size": BACKLOG,
    }
    return {"static_resources": {"listeners": [listener], "clusters": [shards]}}


def python_client(cluster: Cluster, proxy: Lane | None, load: Load, seconds: float) -> list[str]:
    """The command line of redis-py with this load, straight to the cluster or to a proxy."""
    process = proxy.process if proxy else None
    task = {
        "port": proxy.address.port if proxy else cluster.shard(0).primary.port,
        "cluster": proxy is None,
        "pids": {"proxy": process.pid} if process else {},
        "pipeline": load.pipeline,
        "get": load.get,
        "keys": load.keys,
        "seconds": seconds,
    }
    return [sys.executable, "-m", "bench.cluster.application", json.dumps(task)]
