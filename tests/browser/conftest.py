"""A browser for the tests of the page: Debian's Chromium, driven by Playwright; without either, tests are skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers.pages import ABOUT_SPEED, STORING

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Playwright

KEPT_CONTEXTS = 3
# the one without windows of its own shows the same pages in two thirds of the CPU time
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


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
    # pages of one context share a process, which is warm after the first
    flags = ["--no-sandbox", "--process-per-site"]
    chromium = driver.chromium.launch(executable_path=executable, args=flags)
    yield chromium
    chromium.close()


class OfflineContext:
    """A context that can reach files alone, for one test after the other; what a page complains of is kept.

    A page of its own stays open, and with it the process of the pages: the next page opens in half the CPU time.
    """

    def __init__(self, browser: Browser, blank: Path, options: dict[str, Any]) -> None:
        self.complaints: list[str] = []
        self.context = browser.new_context(offline=True, **options)
        self.context.route(lambda url: not url.startswith("file:"), lambda route: route.abort())
        self.context.on(
            "request", lambda r: r.url.startswith(("file:", "data:", "blob:", STORING)) or self.complaints.append(r.url)
        )
        self.context.on(
            "console",
            lambda m: m.type in ("error", "warning") and ABOUT_SPEED not in m.text and self.complaints.append(m.text),
        )
        self.context.on("weberror", lambda e: self.complaints.append(str(e.error)))
        self.context.on("dialog", lambda d: self.complaints.append(d.message))
        self.context.set_default_timeout(10_000)
        self.kept = self.context.new_page()
        self.kept.goto(blank.as_uri())

    def clear(self) -> None:
        """Close what a test opened, and forget what its pages stored."""
        for page in self.context.pages:
            if page is not self.kept:
                page.close()
        self.kept.evaluate("localStorage.clear()")
        self.context.clear_cookies()
        self.context.clear_permissions()
        self.context.set_default_timeout(10_000)


class OfflineContexts:
    """Those that are free, by their options, the one used last at the end; few are kept."""

    def __init__(self, browser: Browser, blank: Path) -> None:
        self._browser, self._blank = browser, blank
        self._free: list[tuple[dict[str, Any], OfflineContext]] = []

    def take(self, options: dict[str, Any]) -> OfflineContext:
        for place, (described, context) in enumerate(self._free):
            if described == options:
                del self._free[place]
                return context
        return OfflineContext(self._browser, self._blank, options)

    def give_back(self, options: dict[str, Any], context: OfflineContext) -> None:
        context.clear()
        self._free.append((options, context))
        self.keep(KEPT_CONTEXTS)

    def keep(self, most: int) -> None:
        while len(self._free) > most:
            self._free.pop(0)[1].context.close()


@pytest.fixture(scope="session")
def offline_contexts(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OfflineContexts]:
    blank = tmp_path_factory.mktemp("blank") / "blank.html"
    blank.write_text("<!doctype html><title>blank</title>", encoding="utf-8")
    contexts = OfflineContexts(browser, blank)
    yield contexts
    contexts.keep(0)


@pytest.fixture
def offline(offline_contexts: OfflineContexts) -> Iterator[Callable[..., BrowserContext]]:
    """Offline contexts; the test fails if a page asked for it, or complained of anything."""
    taken: list[tuple[dict[str, Any], OfflineContext]] = []

    def open_context(**changed: Any) -> BrowserContext:
        options = {"viewport": {"width": 1280, "height": 900}, **changed}
        taken.append((options, offline_contexts.take(options)))
        return taken[-1][1].context

    yield open_context
    complaints = []
    for options, context in taken:
        offline_contexts.give_back(options, context)
        complaints += context.complaints
        context.complaints.clear()
    assert complaints == []
