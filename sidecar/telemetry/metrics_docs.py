"""docs/metrics.md, from the table of metrics: `python -m sidecar.telemetry.metrics_docs`."""

from __future__ import annotations

from sidecar.telemetry.metric_types import Declared
from sidecar.telemetry.metrics import METRICS

_HEAD = """\
# Metrics

<!-- Written by `make docs` from sidecar/telemetry/metrics.py. -->

The admin address serves these at `/metrics`, as Prometheus text, or as OpenMetrics if the
`Accept` header prefers it. The metrics of the process are there too:
`process_resident_memory_bytes`, `process_cpu_seconds_total`, `process_open_fds` and so on.
[Operations](operations.md) says what to watch and what it means.

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
