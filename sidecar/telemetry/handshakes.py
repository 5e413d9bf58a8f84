"""TLS handshakes that failed, on one side of the sidecar: counted by reason, and logged.

The log has the first ones of each window only (repeats.py); the counters have all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import structlog

from sidecar.tls.faults import REASONS, Fault, fault_of

log = structlog.get_logger()

Side = Literal["listen", "upstream", "sentinel", "admin"]
"""Who the peer is: a client, the server, a Sentinel, whoever calls the admin port. The settings of
each have that name."""


class Handshakes:
    """Of one `side`."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._failures = dict.fromkeys(REASONS, 0)

    @property
    def failures(self) -> Mapping[str, int]:
        """How many have failed, by reason; reasons that did not occur are left out."""
        return {reason: count for reason, count in self._failures.items() if count}

    def failed(self, peer: str, error: OSError, identity: str = "") -> Fault:
        """Count and log a failed handshake with `peer`, an address; `identity` is whose certificate
        it has presented, if it is known. Returns what the error means."""
        fault = fault_of(error)
        self._failures[fault.reason] += 1
        # Whoever only looks whether the port is open, as load balancers do, hangs up.
        write = log.debug if fault.reason == "closed" else log.warning
        more = {"certificate": identity} if identity else {}
        write(
            "TLS handshake failed",
            side=self._side,
            peer=peer,
            reason=fault.reason,
            error=fault.words,
            **more,
        )
        return fault
