"""Figures of the operating system about this process, or about several: `process_…` metrics.

prometheus_client reads them from /proc. Of several processes the figures are added; the limit of
open files is the lowest, and the start is this process's own. What a process had used that has
ended stays in the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from prometheus_client import ProcessCollector
from prometheus_client.registry import CollectorRegistry

_USED = "process_cpu_seconds"
_LOWEST = "process_max_fds"
_START = "process_start_time_seconds"


class ProcessFigure(NamedTuple):
    """One metric. `name` has no `_total`; `values` are by process, "" for all together."""

    name: str
    type: str
    help: str
    values: Mapping[str, float]


class Processes:
    """This process, and `others` by name with their process ids."""

    def __init__(self, others: Callable[[], Mapping[str, int]] | None = None) -> None:
        self._others = others
        self._own = _collector("self")
        self._collectors: dict[int, ProcessCollector] = {}
        self._used: dict[int, float] = {}
        self._used_before = 0.0

    def together(self) -> Sequence[ProcessFigure]:
        """The figures of all."""
        figures = self._figures()
        return [figure._replace(values={"": _sum(figure, self._used_before)}) for figure in figures]

    def each(self) -> Sequence[ProcessFigure]:
        """The figures of each other process by itself."""
        return [
            figure._replace(values={name: v for name, v in figure.values.items() if name})
            for figure in self._figures()
        ]

    def _figures(self) -> Sequence[ProcessFigure]:
        others = self._others() if self._others is not None else {}
        found: dict[str, ProcessFigure] = {}
        self._read(found, "", self._own)
        for pid in self._collectors.keys() - others.values():
            del self._collectors[pid]
            self._used_before += self._used.pop(pid, 0.0)
        for name, pid in others.items():
            self._read(found, name, self._collectors.setdefault(pid, _collector(str(pid))))
            if _USED in found and name in found[_USED].values:
                self._used[pid] = found[_USED].values[name]
        return list(found.values())

    @staticmethod
    def _read(found: dict[str, ProcessFigure], name: str, collector: ProcessCollector) -> None:
        for family in collector.collect():
            values = found[family.name].values if family.name in found else {}
            value = family.samples[0].value
            found[family.name] = ProcessFigure(
                family.name, family.type, family.documentation, {**values, name: value}
            )


def _collector(pid: str) -> ProcessCollector:
    # With a registry of its own: it is read only here.
    return ProcessCollector(pid=lambda: pid, registry=CollectorRegistry())


def _sum(figure: ProcessFigure, used_before: float) -> float:
    if figure.name == _START:
        return figure.values.get("", min(figure.values.values()))
    if figure.name == _LOWEST:
        return min(figure.values.values())
    total = sum(figure.values.values())
    return total + used_before if figure.name == _USED else total
