"""How pictures look, and how they are saved: PNG and SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tests.harness.distribution import Spread

COLOURS = {
    "direct": "#8a8f98",
    "sidecar": "#d1495b",
    "envoy": "#2e86ab",
    "twemproxy": "#edae49",
    "haproxy": "#66a182",
    "unobserved": "#e8a0aa",
    "observed": "#8c2f3b",
}
PALE = "#8a8f98"
_STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#e6e8eb",
    "axes.axisbelow": True,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "figure.dpi": 130,
    "svg.fonttype": "none",
}


@contextmanager
def style() -> Iterator[None]:
    """All pictures of the benches look alike within this."""
    with plt.rc_context(_STYLE):
        yield


def note(facts: Mapping[str, Any]) -> str:
    """The line below a picture."""
    return f"{facts['cpu']}, {facts['cpus']} CPUs, Linux {facts['kernel']}; {facts['when']}"


def save(fig: Figure, folder: Path, name: str, note: str = "", *, top: float = 1.0) -> None:
    """Write a figure as PNG and SVG, with a note below it; `top`: where its panels end."""
    fig.text(0.01, 0.005, note, fontsize=7, color=PALE)
    fig.tight_layout(rect=(0, 0.025 if note else 0, 1, top))
    for kind in ("png", "svg"):
        fig.savefig(folder / f"{name}.{kind}")
    plt.close(fig)


def whisker(axis: Axes, at: float, value: Spread) -> None:
    """From the smallest to the largest round."""
    ends = [[value.median - value.low], [value.high - value.median]]
    axis.errorbar(at, value.median, yerr=ends, color="#333", lw=0.9, capsize=2)


def band(axis: Axes, at: list[float], values: list[Spread], colour: str, label: str) -> None:
    """A line through medians, and the range of the rounds as a band around it."""
    axis.plot(at, [v.median for v in values], "o-", color=colour, label=label)
    low, high = [v.low for v in values], [v.high for v in values]
    axis.fill_between(at, low, high, color=colour, alpha=0.15, lw=0)
