"""The sidecar of this tree, forwarding: near cache off, admin port off, few logs."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from bench.load.shape import Load
from bench.peers.stage import BACKLOG, MAX_CLIENTS, Lane, Stage
from tests.harness.fleet import Fleet
from tests.harness.process import free_port
from tests.harness.servers import Settings, Sidecar

DEFAULTS: Settings = {
    "listen.max_clients": MAX_CLIENTS,
    "listen.backlog": BACKLOG,
    "log.level": "warning",
}


def start_sidecar(
    stage: Stage, load: Load, admin: str = "", more: Mapping[str, str] | None = None
) -> Lane:
    """One in front of the stage's server; `more` are settings."""
    address = stage.listen("sidecar", load)
    scheme = "rediss" if load.tls else "redis"
    settings: dict[str, str | int | float] = {"cache.mode": "off"}
    tls = None
    if load.tls and stage.certificates:
        pem, tls = stage.certificates.server, stage.certificates.client_context()
        settings |= {
            "listen.tls.cert_file": str(pem.cert),
            "listen.tls.key_file": str(pem.key),
            "upstream.tls.ca_file": str(stage.certificates.ca),
        }
    sidecar = Sidecar(
        f"{scheme}://127.0.0.1:{stage.upstream_port(load)}",
        port=address.port or None,
        listen=f"unix://{address.path}" if address.path else None,
        settings={**settings, **(more or {}), **stage.sidecar_settings},
        defaults=DEFAULTS,
        admin=admin,
        tls=tls,
        cpus=stage.proxy_cpus,
    )
    return Lane(address, stage.fleet.add(sidecar))


def start_cache(fleet: Fleet, upstream: int, settings: Mapping[str, str]) -> Sidecar:
    """One with a near cache (or without) and an admin port, in front of a port of this host."""
    sidecar = Sidecar(
        f"redis://127.0.0.1:{upstream}",
        settings=settings,
        defaults=DEFAULTS,
        admin=f"127.0.0.1:{free_port()}",
    )
    return fleet.add(sidecar)


def start_unobserved(stage: Stage, load: Load) -> Lane:
    """The sidecar without what of telemetry can be turned off: hot keys and traces."""
    return start_sidecar(stage, load, more={"hotkeys.enabled": "false", "tracing.recent": "0"})


def start_observed(stage: Stage, load: Load) -> Lane:
    """The sidecar with everything: sampled traces that a collector takes, the audit stream, and
    its metrics scraped each second."""
    admin, collector = f"127.0.0.1:{free_port()}", free_port()
    settings = {
        "tracing.endpoint": f"http://127.0.0.1:{collector}/v1/traces",
        "audit.file": str(stage.fleet.folder / f"audit-{collector}.log"),
    }
    lane = start_sidecar(stage, load, admin, settings)
    argv = [sys.executable, "-m", "bench.peers.onlooker", "--port", str(collector)]
    stage.fleet.start("onlooker", [*argv, "--scrape", f"http://{admin}/metrics"])
    return lane
