"""The web page in a real Chromium, on a real sidecar with real traffic.

Each test ends with the page's console empty: no error, no breach of the content security policy.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.harness.admin import api
from tests.harness.browser import chromium, open_page, url, wait_for_text, watch, why_not
from tests.harness.load import Load
from tests.harness.process import free_port, wait_until
from tests.harness.sentinels import Cluster
from tests.harness.servers import Server, Sidecar
from tests.harness.several import pids, several
from tests.harness.wire import Wire, pack

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

pytestmark = pytest.mark.skipif(bool(why_not()), reason=f"NO BROWSER: {why_not()}")

HOSTILE = (
    '<img src=x onerror="document.title=\'owned\'"><script>document.title="owned"</script>'
    "\"'><svg/onload=alert(1)>"
)
TOKEN = "token-of-the-dashboard"
BUSY = 1.5  # s: what a busy machine may add
SLOW = 15_000  # ms: two cores may be busy with other things


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


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
def sidecar(plain_server: Server) -> Iterator[Sidecar]:
    with Sidecar(plain_server.url, admin=f"127.0.0.1:{free_port()}") as sidecar:
        yield sidecar


def number(page: Page, selector: str) -> float:
    """What a tile shows; 0 for none."""
    shown = page.locator(selector).inner_text()
    scale = {"k": 1e3, "M": 1e6}.get(shown[-1:], 1)
    found = re.search(r"[0-9.]+", shown)
    return float(found[0]) * scale if found else 0.0


def test_content_and_live_updates(sidecar: Sidecar, page: Page) -> None:
    open_page(page, sidecar)
    wait_for_text(page, "#health", "ok")
    assert number(page, "#n-commands") == 0
    with Load(sidecar.port, 2):
        wait_until(lambda: number(page, "#n-commands") > 50, "traffic is shown", 15)
        wait_for_text(page, "#keys", "session:0000")
        wait_until(lambda: number(page, "#n-hits") > 10, "the cache's hits are shown", 15)
        assert number(page, "#n-clients") == 2
        wait_for_text(page, "#links", "valkey 9")
    wait_until(lambda: number(page, "#n-commands") == 0, "the end of the traffic is shown", 15)
    wait_until(lambda: number(page, "#n-clients") == 0, "clients that went are shown", 15)
    assert "commands/s" in (page.locator("#c-throughput canvas").get_attribute("aria-label") or "")
    for empty in ("#traces", "#audit", "#certificates", "#warm"):
        assert page.locator(empty).inner_text() != ""


def test_a_page_that_opens_late_shows_the_past(sidecar: Sidecar, page: Page) -> None:
    with Load(sidecar.port, 1), Wire(sidecar.port) as wire:
        wait_until(lambda: wire.cmd("GET", "x") and _points(sidecar) > 2, "a past", 15)
    open_page(page, sidecar)
    wait_until(lambda: _painted(page, "#c-throughput canvas") > 20, "a line is drawn", 10)


def _points(sidecar: Sidecar) -> int:
    points: list[dict[str, float]] = api(sidecar, "/api/stats?count=900")["points"]
    return sum(point["commands"] > 0 for point in points)


def _painted(page: Page, selector: str) -> int:
    """Pixels of the first line's colour on a canvas."""
    count: int = page.eval_on_selector(
        selector,
        """canvas => {
          const copy = document.createElement('canvas');
          [copy.width, copy.height] = [canvas.width, canvas.height];
          const c = copy.getContext('2d', {willReadFrequently: true});
          c.drawImage(canvas, 0, 0);
          const probe = document.createElement('canvas').getContext('2d');
          probe.fillStyle = getComputedStyle(document.documentElement).getPropertyValue('--c1');
          probe.fillRect(0, 0, 1, 1);
          const [r, g, b] = probe.getImageData(0, 0, 1, 1).data;
          const data = c.getImageData(0, 0, canvas.width, canvas.height).data;
          let n = 0;
          for (let i = 0; i < data.length; i += 4) {
            const far = [r, g, b].reduce((sum, v, j) => sum + Math.abs(data[i + j] - v), 0);
            if (far < 60 && data[i + 3] > 150) n++;
          }
          return n;
        }""",
    )
    return count


def test_hostile_keys_are_text(sidecar: Sidecar, page: Page) -> None:
    """Keys are bytes of clients: on the page they are what they look like, and nothing more."""
    open_page(page, sidecar)
    with Wire(sidecar.port) as wire:
        wait_until(
            lambda: wire.cmd("SET", HOSTILE, "v") and HOSTILE[:12] in page.inner_text("#keys"),
            "the key is shown",
            15,
        )
    shown = page.locator("#keys td.key").first.inner_text()
    assert shown.startswith("<img src=x onerror=")
    assert "</script>" in shown
    assert page.locator("#keys img, #keys script, #keys svg").count() == 0
    assert "owned" not in page.title()


def test_a_restart_is_seen(browser: Browser, sidecar: Sidecar) -> None:
    """It says that it has no connection, comes back by itself, and has nothing twice."""
    page = browser.new_page()
    page.set_default_timeout(SLOW)
    wrong = watch(page)
    with Load(sidecar.port, 1):
        open_page(page, sidecar)
        wait_until(lambda: number(page, "#n-commands") > 50, "traffic is shown", 15)
        first = page.get_attribute("html", "data-instance")
        sidecar.stop()
        page.wait_for_selector("#live[data-state=ended], #live[data-state=lost]")
        wait_for_text(page, "#notice", "reconnecting")
        wait_for_text(page, "#health", "unknown")
        sidecar.start()
        wait_for_text(page, "#notice", "restarted")
        page.wait_for_selector("#live[data-state=live]")
        assert page.get_attribute("html", "data-instance") != first
        wait_until(lambda: number(page, "#n-commands") > 50, "traffic is shown again", 15)
        # A counter that went back to zero is no rate below zero, nor a tall one.
        assert number(page, "#n-commands") < 100_000
    page.close()
    # The browser itself reports the requests that failed meanwhile.
    assert [line for line in wrong if "Failed to load resource" not in line] == []


def test_a_crash_is_seen(browser: Browser, sidecar: Sidecar) -> None:
    """No farewell: the connection just breaks."""
    page = browser.new_page()
    page.set_default_timeout(SLOW)
    open_page(page, sidecar)
    sidecar.kill()
    page.wait_for_selector("#live[data-state=lost]")
    wait_for_text(page, "#notice", "No connection to the sidecar")
    grey = "getComputedStyle(document.getElementById('main')).filter"
    assert page.evaluate(grey) == "grayscale(1)", "what is old does not look new"
    sidecar.start()
    page.wait_for_selector("#live[data-state=live]")
    assert page.evaluate(grey) == "none"
    wait_for_text(page, "#notice", "restarted")
    page.close()


def test_a_lost_connection_is_no_restart(sidecar: Sidecar, page: Page) -> None:
    """What is sent again after it replaces itself."""
    open_page(page, sidecar)
    sidecar.pause()
    page.wait_for_selector("#live[data-state=lost]")
    sidecar.resume()
    page.wait_for_selector("#live[data-state=live]")
    page.wait_for_selector("#notice", state="hidden")


def test_a_server_that_is_down(sidecar: Sidecar, plain_server: Server, page: Page) -> None:
    open_page(page, sidecar)
    wait_for_text(page, "#health", "ok")
    plain_server.pause()
    try:
        wait_for_text(page, "#reasons", "the server does not answer INFO")
    finally:
        plain_server.resume()
    wait_for_text(page, "#health", "ok")


def test_a_frozen_server_is_told_at_once(
    sidecar: Sidecar, plain_server: Server, page: Page
) -> None:
    """In words, since when, and by which sidecar; also for clients that are not on its own link."""
    open_page(page, sidecar)
    assert str(sidecar.port) in page.locator("#name").inner_text()
    with Wire(sidecar.port) as wire:
        wire.cmd("HELLO", 3)
        wire.cmd("SELECT", 1)
        assert wire.cmd("SET", "k", "v") == b"+OK\r\n"
        wait_for_text(page, "#health", "ok")
        plain_server.pause()
        try:
            wire.send(pack("SET", "k", "w"))
            began = time.monotonic()
            page.wait_for_selector(".number[data-state=warn] #n-oldest")
            page.wait_for_selector("#health[data-state=degraded]")
            assert time.monotonic() - began < 1.0 + BUSY
            page.wait_for_selector("#health[data-state=down]")
            assert time.monotonic() - began < 3.0 + BUSY
            page.wait_for_selector(".number[data-state=bad] #n-oldest")
            reason = page.locator("#reasons li").first.inner_text()
            found = (
                r"the server has not answered for \d+(\.\d)? s; 1 command waits \(since .* UTC\)"
            )
            assert re.fullmatch(found, reason)
            wait_for_text(page, "#topology", "not connected")
        finally:
            plain_server.resume()
    wait_for_text(page, "#health", "ok")


def test_workers_are_shown(plain_server: Server, page: Page) -> None:
    """How many there are, and which one is down; where there is a single process, nothing."""
    with several(plain_server.url) as sidecar:
        open_page(page, sidecar)
        wait_for_text(page, "#workers", "2 of 2 serve clients")
        first = pids(sidecar)[1]
        os.kill(first, signal.SIGSTOP)
        try:
            wait_for_text(page, "#workers .node[data-state=bad]", "does not answer")
            wait_for_text(page, "#workers", "1 of 2 serve clients")
            wait_for_text(page, "#reasons", "worker 1 does not answer")
        finally:
            os.kill(first, signal.SIGCONT)
        wait_for_text(page, "#workers", "2 of 2 serve clients")
        page.goto("about:blank")


@pytest.mark.one_worker("it is about a sidecar that has no others")
def test_a_single_process_shows_no_workers(sidecar: Sidecar, page: Page) -> None:
    open_page(page, sidecar)
    wait_for_text(page, "#health", "ok")
    assert page.locator("#workers-card").is_hidden()


def test_equal_failures_are_one_line(sidecar: Sidecar, page: Page) -> None:
    open_page(page, sidecar)
    with Wire(sidecar.port) as wire:
        assert wire.cmd("SET", "text", "v") == b"+OK\r\n"
        for _ in range(5):
            assert wire.cmd("INCR", "text")[:1] == b"-"
        wait_for_text(page, "#traces summary", "5 times")
    assert page.locator("#traces summary", has_text="INCR").count() == 1


def test_nothing_asked_is_no_ratio(sidecar: Sidecar, page: Page) -> None:
    open_page(page, sidecar)
    wait_until(lambda: _seconds(sidecar) > 2, "seconds pass")
    assert not re.search(r"\d", page.locator("#n-hits").inner_text())
    assert api(sidecar, "/api/health/redis")["cache"]["hit_ratio"] is None


def _seconds(sidecar: Sidecar) -> int:
    return len(api(sidecar, "/api/stats?count=900")["points"])


def test_a_failover_is_seen(page: Page) -> None:
    with Cluster() as cluster:
        admin = f"127.0.0.1:{free_port()}"
        settings = {"admin.failover": "true"}
        with Sidecar(cluster.url, settings=settings, admin=admin) as sidecar:
            open_page(page, sidecar)
            old = f"127.0.0.1:{cluster.master.port}"
            wait_for_text(page, "#topology .node", old)
            wait_for_text(page, "#topology", "3 of 3 connected")
            assert page.locator("#topology .below").count() == 2
            wait_for_text(page, "#timeline", "No interruption")
            with Load(sidecar.port, 1) as load:
                asked = page.request.post(f"{url(sidecar)}api/failover", data={})
                assert asked.status == 200
                wait_for_text(page, "#timeline .history li", "switched")
                assert load.errors == []
            entry = page.locator("#timeline .history li").first.inner_text()
            new = f"127.0.0.1:{cluster.current_master()}"
            assert old in entry
            assert new in entry
            assert new != old
            first = page.locator("#topology .node").first
            assert new in first.inner_text()
            assert page.locator("#timeline .track i.switch").count() == 1
            page.goto("about:blank")


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_no_horizontal_scroll(browser: Browser, sidecar: Sidecar, width: int, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 740},
        color_scheme="dark" if scheme == "dark" else "light",
        has_touch=width < 500,
    )
    page = context.new_page()
    page.set_default_timeout(SLOW)
    wrong = watch(page)
    open_page(page, sidecar)
    with Wire(sidecar.port) as wire:
        wait_until(
            lambda: wire.cmd("SET", "k" * 400, "v") and "kkkk" in page.inner_text("#keys"),
            "a long key is shown",
            15,
        )
    wide = page.evaluate("document.documentElement.scrollWidth")
    assert wide <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", background)[:3])) > 380
    assert light == (scheme == "light")
    context.close()
    assert wrong == []


def test_by_keyboard(sidecar: Sidecar, page: Page) -> None:
    """Tab reaches everything; the colours and the window change by it, and are remembered."""
    open_page(page, sidecar)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to content"
    for _ in range(3):
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.dataset.window") == "900"
    page.keyboard.press("Enter")
    assert page.get_attribute("[data-window='900']", "aria-pressed") == "true"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    chosen = page.get_attribute("html", "data-theme")
    assert chosen in ("dark", "light")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "CANVAS"
    page.keyboard.press("ArrowLeft")
    label = "#c-throughput canvas", "aria-label"
    wait_until(lambda: re.search(r"\d", page.get_attribute(*label) or ""), "a point is drawn")
    page.keyboard.press("ArrowLeft")
    assert re.search(r"\d\d:\d\d", page.inner_text("#c-throughput .chart-head > .dim"))
    page.reload()
    page.wait_for_selector("#live[data-state=live]")
    assert page.get_attribute("html", "data-theme") == chosen
    assert page.get_attribute("[data-window='900']", "aria-pressed") == "true"


def test_a_token_is_asked_for(browser: Browser, plain_server: Server) -> None:
    admin = f"127.0.0.1:{free_port()}"
    with Sidecar(plain_server.url, admin=admin, env={"SIDECAR_ADMIN__TOKEN": TOKEN}) as sidecar:
        page = browser.new_page()
        page.set_default_timeout(SLOW)
        page.goto(url(sidecar))
        page.wait_for_selector("dialog[open]")
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        wait_for_text(page, "#ask-error", "Wrong token")
        page.keyboard.type(TOKEN)
        page.keyboard.press("Enter")
        page.wait_for_selector("#live[data-state=live]")
        wait_for_text(page, "#health", "ok")
        assert page.locator("dialog[open]").count() == 0
        page.close()
