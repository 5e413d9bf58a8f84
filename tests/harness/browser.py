"""A real Chromium, driven by Playwright: Debian's package, or the one Playwright installs.

`chromium()` gives a browser; `watch(page)` collects what must not happen on a page: errors on its
console, exceptions, requests that fail, and breaches of the content security policy. `open_page`
opens a sidecar's page.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from .servers import Sidecar

# --disable-background-networking: a browser under test talks to nobody but the sidecar.
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def binary() -> str | None:
    """Debian's chromium, or one that Playwright has installed; None when there is neither."""
    if found := shutil.which("chromium"):
        return found
    installed = sorted(Path.home().glob(".cache/ms-playwright/chromium-*/chrome-linux*/chrome"))
    return str(installed[-1]) if installed else None


def why_not() -> str:
    """Why no browser can be had; empty when one can."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed (pip install playwright)"
    if binary() is None:
        return "there is no Chromium (apt-get install chromium, or playwright install chromium)"
    return ""


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary(), args=FLAGS)
        yield browser
        browser.close()


def watch(page: Page) -> list[str]:
    """What has gone wrong on the page so far; the list grows."""
    wrong: list[str] = []
    bad = ("error", "warning", "assert")
    page.on("console", lambda said: wrong.append(said.text) if said.type in bad else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.add_init_script(
        "document.addEventListener('securitypolicyviolation', (event) =>"
        " console.error('CSP: ' + event.violatedDirective + ' ' + event.blockedURI))"
    )
    return wrong


def url(sidecar: Sidecar) -> str:
    """Where a sidecar's page is."""
    return f"http://{sidecar.admin}/"


def open_page(page: Page, sidecar: Sidecar) -> None:
    """Open it, and wait until it is live."""
    page.goto(url(sidecar))
    page.wait_for_selector("#live[data-state=live]")


def wait_for_text(page: Page, selector: str, words: str) -> None:
    """Wait until one of these elements has these words."""
    page.locator(selector).filter(has_text=words).first.wait_for()
