"""A soak as a picture: memory, descriptors, tasks, rate, CPU and errors over time; PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt

from bench.report import pictures
from bench.soak.samples import Rest, Sample, medians

MIB = 1 << 20


def draw(
    folder: Path,
    title: str,
    samples: Sequence[Sample],
    rests: tuple[Rest, Rest],
    marks: Sequence[tuple[float, float, str]],
    note: str,
) -> None:
    """One picture of a run. `marks`: faults, from when to when (s)."""
    at = [sample.at for sample in samples]
    steps = [(b.at, b, a) for a, b in pairwise(samples)]
    colour = pictures.COLOURS["sidecar"]
    with pictures.style():
        fig, axes = plt.subplots(6, 1, figsize=(11, 14), sharex=True)
        memory, descriptors, tasks, rate, cpu, errors = axes
        memory.plot(at, [s.rss / MIB for s in samples], color=pictures.PALE, lw=0.7)
        points = medians(samples, *(rest.at for rest in rests))
        memory.plot([p[0] for p in points], [p[1] / MIB for p in points], "o-", color=colour, ms=3)
        memory.set_ylabel("resident memory, MiB")
        descriptors.plot(at, [s.descriptors for s in samples], color=colour, lw=0.9)
        descriptors.set_ylabel("descriptors")
        tasks.plot(at, [s.tasks for s in samples], color=colour, lw=0.9)
        tasks.set_ylabel("tasks")
        per_second = [(b.commands - a.commands) / (b.at - a.at) for _, b, a in steps]
        rate.plot([t for t, _, _ in steps], per_second, color=colour, lw=0.9)
        rate.set_ylabel("commands / s")
        used = [100 * (b.cpu - a.cpu) / (b.at - a.at) for _, b, a in steps]
        cpu.plot([t for t, _, _ in steps], used, color=colour, lw=0.9)
        cpu.set_ylabel("CPU, %")
        each = [b.errors - a.errors for _, b, a in steps]
        errors.bar([t for t, _, _ in steps], each, color=colour, width=1.0)
        errors.set_ylabel("errors")
        errors.set_xlabel("seconds")
        for axis in axes:
            for begin, end, _ in marks:
                axis.axvspan(begin, max(end, begin + 0.2), color="#edae49", alpha=0.25, lw=0)
            for rest in rests:
                axis.axvline(rest.at, color="#333", lw=0.8, ls=":")
        memory.set_title(f"{title} (yellow: a fault; dotted: at rest)")
        pictures.save(fig, folder, "soak", note)
