"""docs/metrics.md, from the table of metrics: `python -m sidecar.telemetry.metrics_docs`."""

from __future__ import annotations

from sidecar.telemetry.metric_types import Declared
from sidecar.telemetry.metrics import METRICS

_HEAD = """\
# Metrics

<!-- Written by `make docs` from sidecar/telemetry/metrics.py. -->

At `/metrics` of the admin address, as Prometheus text, or as OpenMetrics to who asks for it.
Beside these there are those of the process: `process_resident_memory_bytes`,
`process_cpu_seconds_total`, `process_open_fds` and so on. What to watch, and what it means, is in
[operations](operations.md).

| Metric | Type | Labels | Meaning |
|---|---|---|---|
"""


def page() -> str:
    """The whole page."""
    return _HEAD + "".join(_row(metric) for metric in METRICS)


def _row(metric: Declared) -> str:
    label = ", ".join(f"`{name}`" for name in metric.label.split(",") if name)
    kind = "gauge" if metric.type == "info" else metric.type
    return f"| `{metric.name}` | {kind} | {label} | {metric.help} |\n"


if __name__ == "__main__":
    print(page(), end="")
