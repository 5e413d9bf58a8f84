"""The web page of a sidecar before a real cluster, in a real Chromium: its shards, and what is
wrong with one of them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from redis.crc import key_slot

from tests.harness.admin import api, metric
from tests.harness.browser import chromium, open_page, wait_for_text, watch, why_not
from tests.harness.cluster import Cluster
from tests.harness.load import Load
from tests.harness.process import free_port, wait_until
from tests.harness.resp import pack
from tests.harness.servers import Sidecar
from tests.harness.wire import Wire

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"NO BROWSER: {why_not()}")

SLOW = 20_000  # ms: two cores may be busy with other things
BUSY = 1.5  # s: what a busy machine may add
SHARDS = 3


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(shards=SHARDS) as cluster:
        yield cluster


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page whose console must stay empty."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(SLOW)
    wrong = watch(page)
    yield page
    page.close()
    assert wrong == []


@pytest.fixture
def sidecar(cluster: Cluster) -> Iterator[Sidecar]:
    with Sidecar(cluster.url, admin=f"127.0.0.1:{free_port()}") as sidecar:
        yield sidecar


def shard(page: Page, number: int) -> str:
    """The words of one shard."""
    return page.locator(f"[data-shard='{number}']").inner_text()


def shown(cluster: Cluster, sidecar: Sidecar, number: int) -> int:
    """The sidecar's number for a shard."""
    primary = cluster.shard(number).primary
    where = f"{primary.host}:{primary.port}"
    found = [each for each in api(sidecar, "/api/topology")["shards"] if each["primary"] == where]
    return int(found[0]["number"])


def test_an_embedded_cluster(browser: Browser) -> None:
    """Every shard with its servers and slots, hot keys with their shard; grey when it is over."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(SLOW)
    admin = f"127.0.0.1:{free_port()}"
    with Sidecar("embedded+cluster://?shards=3&replicas=1", admin=admin) as sidecar:
        open_page(page, sidecar)
        with Load(sidecar.port, 1):
            wait_for_text(page, "#keys td.key", "session:0000")
            page.wait_for_selector("#topology .shard[data-state=good] >> nth=2")
        told = api(sidecar, "/api/topology")["shards"]
        assert [each["state"] for each in told] == ["up"] * SHARDS
        for each in told:
            words = shard(page, each["number"])
            assert each["primary"] in words
            assert f"{each['slots']} slots (33.3 %)" in words
            assert "-".join(map(str, each["ranges"][0])) in words
        assert page.locator("#topology .below").count() == SHARDS
        assert page.locator("#topology .slots i").count() == SHARDS
        hot = api(sidecar, "/api/hotkeys")["keys"][0]
        assert hot["slot"] == key_slot(hot["key"].encode())
        owner = next(each["number"] for each in told if _has(each["ranges"], hot["slot"]))
        key = page.locator("#keys td.key").filter(has_text=hot["key"]).first
        assert f"shard {owner}" in key.inner_text()
        wait_for_text(page, "#timeline", "No interruption")
        page.set_viewport_size({"width": 360, "height": 740})
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        sidecar.kill()
        page.wait_for_selector("#live[data-state=lost]")
        grey = "getComputedStyle(document.getElementById('main')).filter"
        assert page.evaluate(grey) == "grayscale(1)"
    page.close()


def _has(ranges: list[list[int]], slot: int) -> bool:
    return any(first <= slot <= last for first, last in ranges)


def test_a_frozen_shard(cluster: Cluster, sidecar: Sidecar, page: Page) -> None:
    """Amber, then red, and only that one; on the timeline for as long as it lasts."""
    open_page(page, sidecar)
    name, number = cluster.key(1), shown(cluster, sidecar, 1)
    with Wire(sidecar.port) as wire:
        for each in range(SHARDS):
            assert wire.cmd("SET", cluster.key(each), "v") == b"+OK\r\n"
        page.wait_for_selector(f"[data-shard='{number}'][data-state=good]")
        cluster.freeze(1)
        try:
            began = time.monotonic()
            wire.send(pack("SET", name, "w"))
            page.wait_for_selector(f"[data-shard='{number}'][data-state=warn]")
            page.wait_for_selector(f"[data-shard='{number}'][data-state=bad]")
            assert time.monotonic() - began < 4.0 + BUSY  # a second between two looks
            assert "silent for" in shard(page, number)
            assert "1 replies due" in shard(page, number)
            assert page.locator("#topology .shard[data-state=good]").count() == SHARDS - 1
            wait_for_text(page, "#reasons", f"shard {number} (")
            wait_for_text(page, "#timeline li", f"shard {number}: no connection to")
            assert metric(sidecar, 'sidecar_cluster_shards{state="overdue"}') == 1
        finally:
            cluster.thaw(1)
        assert wire.read_reply() == b"+OK\r\n"
    page.wait_for_selector(f"[data-shard='{number}'][data-state=good]")
    wait_for_text(page, "#health", "ok")
    assert metric(sidecar, 'sidecar_cluster_shards{state="overdue"}') == 0
    history = api(sidecar, "/api/topology")["history"]
    assert [each["shard"] for each in history] == [number]
    assert 1.5 < history[0]["seconds"] < 10.0 + BUSY


def test_slots_that_move(cluster: Cluster, sidecar: Sidecar, page: Page) -> None:
    """They are counted, as are the redirections that told of it."""
    open_page(page, sidecar)
    wait_for_text(page, "#cluster", "Slots moved")
    name = cluster.key(0)
    slot = key_slot(name.encode())
    number = shown(cluster, sidecar, 2)
    with Wire(sidecar.port) as wire:
        assert wire.cmd("SET", name, "v") == b"+OK\r\n"
        cluster.migrate(slot, 2)
        assert wire.cmd("SET", name, "w") == b"+OK\r\n"
        assert metric(sidecar, 'sidecar_cluster_redirections_total{kind="moved"}') == 1
        moved = "sidecar_cluster_slots_moved_total"
        wait_until(lambda: metric(sidecar, moved) == 1, "the slot is seen to have moved", 10)
        wait_for_text(page, f"[data-shard='{number}']", f" {slot}" if slot else "0,")
        wait_for_text(page, "#cluster dd", "since the start 1 moved")
        cluster.migrate(slot, 0)
        wire.cmd("GET", name)
        wait_until(lambda: metric(sidecar, moved) == 2, "it is seen to be back", 10)


def test_a_lost_shard_and_its_successor(page: Page) -> None:
    """Red while nobody serves it, with those who wait; then its replica, and both on the
    timeline."""
    admin = f"127.0.0.1:{free_port()}"
    with (
        Cluster(shards=SHARDS, replicas=1, node_timeout=2000) as cluster,
        Sidecar(cluster.url, admin=admin) as sidecar,
    ):
        open_page(page, sidecar)
        name, number = cluster.key(1), shown(cluster, sidecar, 1)
        with Wire(sidecar.port) as wire:
            assert wire.cmd("SET", name, "v") == b"+OK\r\n"
            old = cluster.kill(1)
            wire.send(pack("SET", name, "w"))
            page.wait_for_selector(f"[data-shard='{number}'][data-state=bad]")
            wait_for_text(page, f"[data-shard='{number}']", "1 client waits")
            cluster.adopt(1)
            assert wire.read_reply() == b"+OK\r\n"
        new = cluster.shard(1).primary
        wait_for_text(page, f"[data-shard='{number}']", f"{new.host}:{new.port}")
        page.wait_for_selector(f"[data-shard='{number}'][data-state=good]")
        wait_for_text(page, "#topology .below[data-state=bad]", f"{old.host}:{old.port}")
        wait_for_text(page, "#timeline li", f"shard {number}: ")
        wait_for_text(page, "#timeline li", "switched")
        entry = page.locator("#timeline li").first.inner_text()
        assert f"{old.host}:{old.port} → {new.host}:{new.port}" in entry
        assert metric(sidecar, "sidecar_cluster_switches_total") == 1
        page.goto("about:blank")
