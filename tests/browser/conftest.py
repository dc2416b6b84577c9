"""A browser for the tests of the page: Debian's Chromium, driven by Playwright; without either, tests are skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from helpers.pages import ABOUT_SPEED

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "browser" in item.path.parts:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def driver() -> Iterator[Playwright]:
    """Playwright, which runs once in a process."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    with playwright.sync_playwright() as started:
        yield started


@pytest.fixture(scope="session")
def executable() -> str:
    """The program of Chromium."""
    path = os.environ.get("MASKPRISM_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("needs Chromium (apt-get install chromium); name another one in MASKPRISM_CHROMIUM")
    return path


@pytest.fixture(scope="session")
def browser(driver: Playwright, executable: str) -> Iterator[Browser]:
    chromium = driver.chromium.launch(executable_path=executable, args=["--no-sandbox"])
    yield chromium
    chromium.close()


@pytest.fixture
def offline(browser: Browser) -> Iterator[Callable[..., BrowserContext]]:
    """Offline contexts; the test fails if a page asked for it, or complained of anything."""
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    def open_context(**options: Any) -> BrowserContext:
        context = browser.new_context(offline=True, **{"viewport": {"width": 1280, "height": 900}, **options})
        context.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
        context.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or complaints.append(r.url))
        context.on(
            "console",
            lambda m: m.type in ("error", "warning") and ABOUT_SPEED not in m.text and complaints.append(m.text),
        )
        context.on("weberror", lambda e: complaints.append(str(e.error)))
        context.on("dialog", lambda d: complaints.append(d.message))
        context.set_default_timeout(10_000)
        contexts.append(context)
        return context

    yield open_context
    for context in contexts:
        context.close()
    assert complaints == []
