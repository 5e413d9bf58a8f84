"""`/metrics`: the table of metrics and a snapshot, as Prometheus text or as OpenMetrics.

prometheus_client needs about 6 µs for a line, mostly to escape and format names and labels that are
the same each time. For the 800 lines of a busy sidecar that blocks the event loop for 5 ms. Here
everything in a line except its number is made once and kept; docs/admin.md says what the rest
costs. tests/telemetry/test_exposition.py checks that both give the same result.

The formats differ: OpenMetrics names a counter without `_total` in its heading, ends with `# EOF`,
and has exemplars.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import cast

from sidecar.telemetry.metric_types import Declared, Histogram, LabelValues, Value
from sidecar.telemetry.metrics import METRICS
from sidecar.telemetry.processes import Processes, ProcessFigure
from sidecar.telemetry.snapshots import Exemplar, Latency, Snapshot

TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text"
OPENMETRICS_TYPE = f"{OPENMETRICS}; version=1.0.0; charset=utf-8"
# Labels come from tables of this program or are bounded by settings. If one is not, this bounds
# the memory.
MOST_PREFIXES = 20_000


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header prefers OpenMetrics to text."""
    quality = {OPENMETRICS: 0.0, "text/plain": 0.0}
    for part in accept.split(","):
        kind, *parameters = (word.strip() for word in part.split(";"))
        if kind in quality:
            weight = next((p[2:] for p in parameters if p.startswith("q=")), "1")
            try:
                quality[kind] = max(quality[kind], float(weight))
            except ValueError:
                continue
    return quality[OPENMETRICS] > 0 and quality[OPENMETRICS] >= quality["text/plain"]


class Exposition:
    """Renders one sidecar's metrics, and those of its processes.

    `processes` are the workers' by name, beside this one.
    """

    def __init__(
        self,
        snapshot: Callable[[], Snapshot],
        process: bool = True,
        processes: Callable[[], Mapping[str, int]] | None = None,
    ) -> None:
        self._snapshot = snapshot
        self._processes = Processes(processes) if process else None
        self._prefixes: dict[tuple[str, LabelValues], str] = {}
        self._bucket_prefixes: dict[tuple[str, str, Sequence[float]], list[str]] = {}

    def render(self, openmetrics: bool = False) -> bytes:
        """All metrics as of now."""
        snapshot = self._snapshot()
        lines: list[str] = []
        for declared in METRICS:
            value = declared.read(snapshot)
            if value is not None:
                lines.append(_heading(declared.name, declared.type, declared.help, openmetrics))
                self._samples(lines, declared, value, openmetrics)
        for figure in self._processes.together() if self._processes is not None else ():
            lines += _process(figure, openmetrics)
        return _finished(lines, openmetrics)

    def render_each(self, snapshots: Mapping[str, Snapshot], openmetrics: bool = False) -> bytes:
        """The metrics of each worker by itself, as of now, with its name as the label `worker`."""
        lines: list[str] = []
        for declared in METRICS:
            found = {name: declared.read(snapshot) for name, snapshot in snapshots.items()}
            values = {name: value for name, value in found.items() if value is not None}
            if values:
                lines.append(_heading(declared.name, declared.type, declared.help, openmetrics))
            for name, value in values.items():
                of_one: list[str] = []
                self._samples(of_one, declared, value, openmetrics)
                lines += [_of_worker(line, name) for line in of_one]
        for figure in self._processes.each() if self._processes is not None else ():
            lines += _process(figure, openmetrics)
        return _finished(lines, openmetrics)

    def _samples(
        self, lines: list[str], declared: Declared, value: Value, openmetrics: bool
    ) -> None:
        if isinstance(value, Histogram):
            bounds = tuple(value.bounds)
            for label, latency in value.series.items():
                exemplars = value.exemplars.get(label, {}) if openmetrics else {}
                self._histogram(lines, declared, label, bounds, latency, exemplars)
        elif isinstance(value, Mapping):
            for values, number in cast(Mapping[LabelValues, float], value).items():
                lines.append(self._prefix(declared.name, declared.label, values) + _line(number))
        else:
            lines.append(f"{declared.name} {_line(value)}")

    def _histogram(
        self,
        lines: list[str],
        declared: Declared,
        label: str,
        bounds: tuple[float, ...],
        latency: Latency,
        exemplars: Mapping[int, Exemplar],
    ) -> None:
        seen, counts = 0, latency.counts
        for index, prefix in enumerate(self._buckets(declared, label, bounds)):
            seen += counts[index] if index < len(counts) else 0
            if index in exemplars:
                lines.append(f"{prefix}{seen}.0 {_mark(exemplars[index])}\n")
            else:
                lines.append(f"{prefix}{seen}.0\n")
        count, total = f"{declared.name}_count", f"{declared.name}_sum"
        lines.append(self._prefix(count, declared.label, label) + f"{seen}.0\n")
        lines.append(self._prefix(total, declared.label, label) + _line(latency.seconds))

    def _buckets(self, declared: Declared, label: str, bounds: tuple[float, ...]) -> list[str]:
        key = (declared.name, label, bounds)
        if key not in self._bucket_prefixes:
            if len(self._bucket_prefixes) >= MOST_PREFIXES:
                self._bucket_prefixes.clear()
            pair = f'{declared.label}="{_escaped(label)}"'
            self._bucket_prefixes[key] = [
                f'{declared.name}_bucket{{{pair},le="{limit}"}} '
                for limit in (*map(_number, bounds), "+Inf")
            ]
        return self._bucket_prefixes[key]

    def _prefix(self, name: str, label: str, value: LabelValues) -> str:
        key = (name, value)
        found = self._prefixes.get(key)
        if found is None:
            if len(self._prefixes) >= MOST_PREFIXES:
                self._prefixes.clear()
            values = value if isinstance(value, tuple) else (value,)
            pairs = zip(label.split(","), values, strict=True)
            text = ",".join(f'{label}="{_escaped(str(value))}"' for label, value in pairs)
            found = self._prefixes[key] = f"{name}{{{text}}} "
        return found


def _finished(lines: list[str], openmetrics: bool) -> bytes:
    return "".join([*lines, "# EOF\n"] if openmetrics else lines).encode()


def _of_worker(line: str, worker: str) -> str:
    """A line with one more label."""
    brace, space = line.find("{"), line.find(" ")
    if 0 <= brace < space:
        return f'{line[: brace + 1]}worker="{worker}",{line[brace + 1 :]}'
    return f'{line[:space]}{{worker="{worker}"}}{line[space:]}'


def _heading(name: str, type_: str, help_: str, openmetrics: bool) -> str:
    text = help_.replace("\\", r"\\").replace("\n", r"\n")
    type_ = "gauge" if type_ == "info" else type_
    if openmetrics:
        name = name.removesuffix("_total") if type_ == "counter" else name
        text = text.replace('"', r"\"")
    return f"# HELP {name} {text}\n# TYPE {name} {type_}\n"


def _process(figure: ProcessFigure, openmetrics: bool) -> Iterable[str]:
    name = f"{figure.name}_total" if figure.type == "counter" else figure.name
    yield _heading(name, figure.type, figure.help, openmetrics)
    for worker, value in figure.values.items():
        line = f"{name} {_line(value)}"
        yield _of_worker(line, worker) if worker else line


def _mark(exemplar: Exemplar) -> str:
    ids = f'trace_id="{_escaped(exemplar.trace_id)}",span_id="{_escaped(exemplar.span_id)}"'
    return f"# {{{ids}}} {_number(exemplar.seconds)} {_number(exemplar.time)}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _number(value: float) -> str:
    value = float(value)
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _line(value: float) -> str:
    return f"{value}.0\n" if type(value) is int else f"{_number(value)}\n"
