"""The bundle as other hosts use it: anywidget's `render` around a model, and `mount`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import maskprism
from helpers.pages import settle
from maskprism import Prediction
from maskprism.datasets.scenes import draw_scene
from maskprism.viewer.payload import ViewerScene, viewer_scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

HOST = """<!doctype html><meta charset="utf-8"><link rel="stylesheet" href="/viewer.css"><div id="host"></div>"""

# What anywidget gives the front end: values by key, and listeners.
MODEL = """({ header, buffer }) => {
  const bytes = Uint8Array.from(atob(buffer), (c) => c.charCodeAt(0));
  const values = { header, buffer: new DataView(bytes.buffer), selected: 1, edits: {} };
  const listeners = {};
  window.saves = 0;
  window.model = {
    get: (key) => values[key],
    set: (key, value) => { values[key] = value; },
    save_changes: () => { window.saves += 1; },
    on: (event, act) => { (listeners[event] ??= new Set()).add(act); },
    off: (event, act) => { listeners[event]?.delete(act); },
    fromPython: (key, value) => { values[key] = value; for (const act of listeners[`change:${key}`] ?? []) act(); },
    listening: () => Object.values(listeners).reduce((sum, acts) => sum + acts.size, 0),
  };
  window.opening = import("/viewer.js").then(async ({ default: widget }) => {
    window.leave = await widget.render({ model: window.model, el: document.querySelector("#host") });
  });
}"""  # no promise is returned: Chromium may collect one that waits for an import


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    return maskprism.load("sample").predict(draw_scene(3).image)


@pytest.fixture(scope="module")
def scene(prediction: Prediction) -> ViewerScene:
    return viewer_scene(draw_scene(3).image, prediction, bits=32)


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page of a server that has the bundle."""
    context = browser.new_context(viewport={"width": 1000, "height": 800})
    context.set_default_timeout(10_000)
    static = files("maskprism.viewer") / "static"
    for name, kind in {"viewer.js": "text/javascript", "viewer.css": "text/css"}.items():
        answer = partial(answered, body=(static / name).read_text(encoding="utf-8"), content_type=kind)
        context.route(f"http://host.test/{name}", answer)
    context.route("http://host.test/", partial(answered, body=HOST, content_type="text/html"))
    complaints: list[str] = []
    context.on("weberror", lambda error: complaints.append(str(error.error)))
    page = context.new_page()
    page.goto("http://host.test/")
    yield page
    context.close()
    assert complaints == []


def answered(route: Route, **answer: str) -> None:
    route.fulfill(**answer)


def render(page: Page, scene: ViewerScene) -> None:
    page.evaluate(MODEL, {"header": scene.header, "buffer": base64.b64encode(scene.buffer).decode()})
    page.wait_for_function("() => window.leave !== undefined")
    page.locator(".stage").wait_for()
    settle(page)


def get(page: Page, key: str) -> Any:
    settle(page)
    return page.evaluate("key => window.model.get(key)", key)


def shown(page: Page) -> np.ndarray:
    pairs = page.locator(".card").evaluate_all(
        "cards => cards.map(card => [Number(card.dataset.k), card.querySelector('.slider').valueAsNumber])"
    )
    return np.array([value for _, value in sorted(pairs)], np.float32)


def test_edits_and_choice_arrive_in_the_model(page: Page, scene: ViewerScene, prediction: Prediction) -> None:
    render(page, scene)
    assert np.array_equal(shown(page), prediction[1].coefficients)  # the instance that the model has selected
    page.get_by_label("Coefficient of prototype 3", exact=True).press("Delete")
    expected = prediction[1].coefficients.copy()
    expected[3] = 0
    edits = get(page, "edits")
    assert list(edits) == ["1"]
    assert np.array_equal(np.float32(edits["1"]), expected)
    assert page.evaluate("window.saves") >= 1
    page.locator(".instances button").first.click()
    assert get(page, "selected") == 0
    page.locator(".instances button").nth(1).click()
    page.get_by_role("button", name="Reset", exact=True).click()
    assert get(page, "edits") == {}


def test_the_model_arrives_in_the_viewer(page: Page, scene: ViewerScene, prediction: Prediction) -> None:
    render(page, scene)
    values = np.arange(len(prediction.prototypes), dtype=np.float32) / 7
    page.evaluate("values => window.model.fromPython('edits', { 0: values })", values.tolist())
    page.evaluate("window.model.fromPython('selected', 0)")
    assert np.array_equal(shown(page), values)
    page.evaluate("window.model.fromPython('edits', {})")
    assert np.array_equal(shown(page), prediction[0].coefficients)
    fewer = viewer_scene(draw_scene(3).image, prediction[:2], bits=32)
    page.evaluate(
        "([header, text]) => { model.set('buffer', Uint8Array.from(atob(text), c => c.charCodeAt(0)));"
        " model.fromPython('header', header); }",
        [json.loads(json.dumps(fewer.header)), base64.b64encode(fewer.buffer).decode()],
    )
    page.get_by_text("2 instances, 32 prototypes").wait_for()
    assert page.locator(".maskprism").count() == 1


def test_it_goes_with_the_notebook_around_it(page: Page, scene: ViewerScene) -> None:
    page.evaluate("document.body.dataset.jpThemeLight = 'false'")
    render(page, scene)
    viewer = page.locator(".maskprism")
    assert viewer.get_attribute("data-theme") == "dark"
    for attribute, value, theme in (
        ("data-jp-theme-light", "true", "light"),
        ("data-theme", "dark", "dark"),
        ("data-vscode-theme-kind", "vscode-light", "light"),
    ):
        page.evaluate(
            "([name, value]) => { delete document.body.dataset.jpThemeLight; delete document.body.dataset.theme;"
            " document.body.setAttribute(name, value); }",
            [attribute, value],
        )
        settle(page)
        assert viewer.get_attribute("data-theme") == theme


def test_its_keys_are_not_those_of_the_notebook(page: Page, scene: ViewerScene) -> None:
    render(page, scene)
    page.evaluate("window.keys = []; addEventListener('keydown', (event) => window.keys.push(event.key))")
    page.get_by_label("Coefficient of prototype 3", exact=True).press("Delete")
    page.locator(".stage").focus()
    for key in ("b", "d", "ArrowDown", "Control+z", "Control+s"):
        page.keyboard.press(key)
    assert page.evaluate("window.keys") == ["Control", "Control", "s"]


def test_leaving_leaves_nothing_behind(page: Page, scene: ViewerScene) -> None:
    render(page, scene)
    page.evaluate("window.leave()")
    assert page.evaluate("window.model.listening()") == 0
    assert page.locator("#host > *").count() == 0


MOUNT = """(text) => {
  window.opening = import("/viewer.js").then(async ({ mount, unpack }) => {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;
    window.unpacked = (await unpack(bytes)).header.source;
    const open = (fail) => async () => { if (fail) throw new Error("it is gone"); return bytes; };
    const scenes = [{ title: "one", open: open(false) }, { title: "two", detail: "2", open: open(true) }];
    window.handle = mount(document.querySelector("#host"), scenes, { note: "small print" });
    await window.handle.ready;
    window.mounted = true;
  });
}"""


def test_mount_shows_a_gallery_and_says_what_cannot_be_shown(page: Page, scene: ViewerScene) -> None:
    page.evaluate(MOUNT, base64.b64encode(scene.pack()).decode())
    page.wait_for_function("() => window.mounted")
    assert page.evaluate("window.unpacked") == scene.header["source"]
    assert page.get_by_text("small print").is_visible()
    page.locator(".tile").nth(1).click()
    page.get_by_text("This image cannot be shown: it is gone").wait_for()
    assert page.locator(".title .quiet").inner_text() == ""  # nothing of the one before
    assert page.locator("footer").inner_text() == "small print"
    page.locator(".tile").nth(0).click()
    page.locator(".stage").wait_for()
    page.evaluate("window.handle.destroy()")
    assert page.locator("#host > *").count() == 0
