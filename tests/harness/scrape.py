"""A sidecar's metrics, as a scraper sees them."""

from __future__ import annotations

import urllib.request

from .servers import Sidecar


def scrape(sidecar: Sidecar) -> str:
    """The text of `/metrics`."""
    with urllib.request.urlopen(f"http://{sidecar.admin}/metrics", timeout=5) as answer:
        return str(answer.read().decode())


def metric(sidecar: Sidecar, name: str) -> float:
    """One metric, by its name with labels."""
    for line in scrape(sidecar).splitlines():
        if line.startswith(f"{name} "):
            return float(line.rpartition(" ")[2])
    raise AssertionError(f"no metric {name}")
