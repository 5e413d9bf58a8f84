"""Pictures of the web page for the documentation: `make docs-screenshots`.

From the real thing: a Sentinel group, a sidecar with a warm start, traffic, a failover; then a
cluster with a shard that does not answer. Writes docs/images/dashboard-*.png.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from .browser import chromium, open_page, why_not
from .cluster import Cluster as Shards
from .load import Load
from .process import free_port, wait_until
from .resp import pack
from .sentinels import Cluster
from .servers import Sidecar
from .wire import Wire

FOLDER = Path(__file__).parents[2] / "docs" / "images"
BEFORE, AFTER = 50.0, 24.0

SHOTS = {
    "dashboard-dark": ("dark", 1280, 1180, 1.0),
    "dashboard-light": ("light", 1280, 1180, 1.0),
    "dashboard-phone": ("dark", 375, 1100, 1.0),
}


def main(folder: Path, before: float, after: float) -> None:
    """Make the scene, wait for it to have a past, take the pictures."""
    admin = free_port()
    with tempfile.TemporaryDirectory() as home, Cluster() as cluster:
        settings: dict[str, str | int | float] = {"warm.snapshot": f"{home}/hot-set"}
        with Wire(cluster.master.port) as wire:
            for number in range(400):
                wire.cmd("SET", f"session:{number:04}", "x" * (number % 900))
        with Sidecar(cluster.url, settings=settings, admin=f"127.0.0.1:{admin}") as sidecar:
            with Load(sidecar.port, 3):
                time.sleep(5)
            sidecar.restart()
            with Load(sidecar.port), chromium() as browser:
                time.sleep(before)
                cluster.failover()
                old = cluster.master.port
                wait_until(lambda: cluster.current_master() != old, "the switch", 20)
                time.sleep(after)
                for name, (scheme, width, height, scale) in SHOTS.items():
                    page = browser.new_page(
                        viewport={"width": width, "height": height},
                        device_scale_factor=scale,
                        color_scheme="dark" if scheme == "dark" else "light",
                    )
                    page.goto(f"http://127.0.0.1:{admin}/")
                    page.wait_for_selector("#live[data-state=live]")
                    page.wait_for_selector("#keys table")
                    page.get_by_role("button", name="1 min", exact=True).click()
                    page.wait_for_timeout(1500)
                    page.screenshot(path=folder / f"{name}.png")
                    page.close()


def cluster_scene(folder: Path) -> None:
    """A cluster whose slots are not spread evenly, and a shard that is frozen: its card."""
    with (
        Shards(shards=3, replicas=1) as cluster,
        Sidecar(cluster.url, admin=f"127.0.0.1:{free_port()}") as sidecar,
        chromium() as browser,
    ):
        for slot in range(300):
            cluster.migrate(slot, 2)
        with Load(sidecar.port, 1), Wire(sidecar.port) as wire:
            time.sleep(5)
            cluster.freeze(1)
            wire.send(pack("SET", cluster.key(1), "v"))
            page = browser.new_page(viewport={"width": 1280, "height": 1600}, color_scheme="dark")
            open_page(page, sidecar)
            page.wait_for_selector("#topology .shard[data-state=bad]")
            page.wait_for_selector("#keys table")
            page.wait_for_timeout(1500)
            page.locator(".columns").screenshot(path=folder / "dashboard-cluster.png")
            cluster.thaw(1)


if __name__ == "__main__":
    if reason := why_not():
        sys.exit(f"no pictures: {reason}")
    where = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    quick = len(sys.argv) > 2
    cluster_scene(where)
    main(where, 12.0 if quick else BEFORE, 6.0 if quick else AFTER)
