"""The metrics about what policies and limits have refused.

A part of the table in metrics.py, in the same form.
"""

from __future__ import annotations

from sidecar.telemetry.metric_types import of_data_plane

_restrictions = of_data_plane(lambda p: p.restrictions)

RESTRICTIONS = (
    _restrictions.counter(
        "sidecar_refused_total",
        "Commands and clients refused, by identity (other: none of identities.file) and reason: "
        "by policy (command, key), limit (rate, request, reply, blocked, subscribed, connections), "
        "or overload.",
        lambda r: r.refused,
        "identity,reason",
    ),
    _restrictions.counter(
        "sidecar_delayed_commands_total",
        "Commands that had to wait because their identity, or address, sent too many a second.",
        lambda r: r.delayed,
        "identity",
    ),
    _restrictions.gauge(
        "sidecar_limited_clients",
        "Clients whose next command waits for a limit.",
        lambda r: r.waiting,
    ),
)
