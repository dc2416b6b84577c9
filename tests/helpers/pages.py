"""What tests of pages in a browser share: the server as a user starts it, and what a page shows."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Locator, Page, Route

ABOUT_SPEED = "GPU stall due to ReadPixels"
"""What Chromium complains of where WebGL has no GPU and a canvas is read."""
STORING = "http://storing-"
"""How the addresses of `storing` begin."""
_NUMBERS = count()
_PIXELS = """canvas => {
  const { width, height } = canvas;
  const copy = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  copy.drawImage(canvas, 0, 0);
  const { data } = copy.getImageData(0, 0, width, height);
  let text = "";
  for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
  return { width, height, data: btoa(text) };
}"""


def start(*arguments: object) -> tuple[subprocess.Popen[str], str]:
    """`maskprism serve` with these arguments, and its address; with the bundled model unless one is named."""
    named = {"--model", "--static", "--drop"}.intersection(map(str, arguments))
    arguments = arguments if named else (*arguments, "--model", "sample")
    process = subprocess.Popen(
        [sys.executable, "-m", "maskprism", "serve", *map(str, arguments), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://[^ ]+/", line)
    assert found, line + process.communicate(timeout=20)[1]
    return process, found[0]


def stop(process: subprocess.Popen[str]) -> None:
    """End it; it has complained of nothing."""
    process.terminate()
    assert process.communicate(timeout=20)[1] == ""


def storing(context: BrowserContext, file: Path) -> str:
    """Return an address of this file under which what its page stores is there after a reload.

    Of a page with a `file:` address Chromium 156 loses that in some of a hundred reloads, where a script reads the
    storage while the page loads.
    """
    origin = f"{STORING}{next(_NUMBERS)}.test"

    def answer(route: Route) -> None:
        route.fulfill(path=file.parent / route.request.url.removeprefix(f"{origin}/"))

    context.route(f"{origin}/**", answer)
    return f"{origin}/{file.name}"


def settle(page: Page) -> None:
    """Wait until what was changed is drawn."""
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")


def transitions_end(element: Locator) -> None:
    """Wait until an element has the colours that it was given."""
    settle(element.page)
    element.evaluate(
        "one => Promise.allSettled(one.getAnimations({ subtree: true }).map(({ finished }) => finished)).then(() => 0)"
    )


def until(page: Page, condition: Callable[[], object]) -> None:
    """Wait for something; the page forbids eval, which Playwright's own way needs."""
    for _ in range(1200):
        if condition():
            return
        page.wait_for_timeout(25)
    pytest.fail("never came true")


def pixels(canvas: Locator) -> np.ndarray:
    """What a canvas shows, RGBA."""
    found = canvas.evaluate(_PIXELS)
    return np.frombuffer(base64.b64decode(found["data"]), np.uint8).reshape(found["height"], found["width"], 4)


def coefficients(page: Page) -> np.ndarray:
    """The values of all sliders, by prototype."""
    pairs = page.locator(".card").evaluate_all(
        "cards => cards.map(card => [Number(card.dataset.k), card.querySelector('.slider').valueAsNumber])"
    )
    return np.array([value for _, value in sorted(pairs)], np.float32)


def slider(page: Page, k: int) -> Locator:
    """The slider of a prototype; where it is folded away, all are shown first."""
    if page.locator(f'.card.folded[data-k="{k}"]').count():
        page.locator(".more").click()
    return page.get_by_label(f"Coefficient of prototype {k}", exact=True)
