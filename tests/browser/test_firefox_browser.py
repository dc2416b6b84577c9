"""The pages in Firefox, driven by WebDriver BiDi, which Debian's firefox-esr speaks by itself; skipped without it."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest

import maskprism
from helpers.in_process import command as run
from helpers.pages import start, stop
from maskprism import Decomposition, Edit
from maskprism.analysis.atlas.points import Points
from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.viewer.page import write_page, write_pair
from maskprism.viewer.payload import as_shown

NAMES = ("firefox-esr", "firefox")
NEAR = 1e-3  # logits this close to zero may fall to either side
SEED = 3


class RefusedError(Exception):
    """Firefox did not do what it was asked for, as where the page went away meanwhile."""


class Firefox:
    """One window of one session. Errors of pages are kept in `complaints`."""

    def __init__(self, address: str) -> None:
        client = pytest.importorskip("websockets.sync.client", reason="needs the package websockets")
        self._held = ExitStack()
        self._socket = self._held.enter_context(client.connect(f"{address}/session", max_size=None, open_timeout=30))
        self._number = 0
        self.complaints: list[str] = []
        self.ask("session.new", capabilities={})
        self.ask("session.subscribe", events=["log.entryAdded"])
        self.window = self.ask("browsingContext.getTree")["contexts"][0]["context"]

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        """What a command answers."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=120))
            if message.get("method") == "log.entryAdded" and message["params"]["level"] in ("error", "warn"):
                self.complaints.append(message["params"]["text"])
            if message.get("id") == self._number:
                if message["type"] != "success":
                    raise RefusedError(message)
                result: dict[str, Any] = message["result"]
                return result

    def open(self, address: str) -> None:
        """Go to a page and wait until it is there."""
        self.ask("browsingContext.navigate", context=self.window, url=address, wait="complete")

    def size(self, width: int, height: int) -> None:
        """How large the window is inside."""
        self.ask("browsingContext.setViewport", context=self.window, viewport={"width": width, "height": height})

    def run(self, body: str) -> Any:
        """What an async function of this body gives, as JSON."""
        function = f"async () => JSON.stringify(await (async () => {{ {body} }})() ?? null)"
        found = self.ask(
            "script.callFunction", functionDeclaration=function, target={"context": self.window}, awaitPromise=True
        )
        assert found["type"] == "success", found
        return json.loads(found["result"]["value"])

    def until(self, condition: str) -> None:
        """Wait for something to be true, also of the page that is on its way: a question to the one before is lost."""
        deadline = time.monotonic() + 60
        while True:
            with suppress(RefusedError):
                if self.run(f"return Boolean({condition});"):
                    return
            assert time.monotonic() < deadline, f"never came true: {condition}"
            time.sleep(0.025)

    def close(self) -> None:
        """End the session."""
        self.ask("browser.close")
        self._held.close()


@pytest.fixture(scope="module")
def firefox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    pytest.importorskip("websockets", reason="needs the package websockets")
    executable = os.environ.get("MASKPRISM_FIREFOX") or next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("needs Firefox (apt-get install firefox-esr); name another one in MASKPRISM_FIREFOX")
    profile = tmp_path_factory.mktemp("profile")
    process = subprocess.Popen(
        [executable, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "HOME": str(profile)},
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", line):
                break
        else:
            pytest.fail("Firefox does not listen")
        session = Firefox(found[1])
        yield session
        session.close()
        process.wait(timeout=30)
    finally:
        process.kill()  # where it did not end by itself


@pytest.fixture(scope="module")
def page(firefox: Firefox, tmp_path_factory: pytest.TempPathFactory) -> Firefox:
    """A page of one scene, opened from its file."""
    image = draw_scene(SEED).image
    path = write_page(
        tmp_path_factory.mktemp("firefox") / "page.html", [(image, maskprism.load("sample").predict(image))]
    )
    firefox.size(1280, 800)
    firefox.open(f"{path.as_uri()}#i=0")
    firefox.until("document.querySelector('.stage') && document.querySelectorAll('.card').length === 32")
    return firefox


MASK = """
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
  const canvas = document.querySelector(".layer.mask");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const hex = document.querySelector(".instances .swatch").style.getPropertyValue("--colour");
  const colour = [1, 3, 5].map(i => parseInt(hex.slice(i, i + 2), 16));
  let text = "";
  for (let i = 0; i < data.length; i += 4)
    text += data[i + 3] && [colour, data[i + 3] === 255 ? [20, 20, 20] : colour].some(
      (one) => one.every((value, c) => Math.abs(data[i + c] - value) < 12)) ? "1" : "0";
  return [canvas.height, canvas.width, text];
"""


def mask_of(page: Firefox) -> np.ndarray:
    height, width, text = page.run(MASK)
    return (np.frombuffer(text.encode(), np.uint8) == ord("1")).reshape(height, width)


def test_masks_are_pythons_before_and_after_an_edit(page: Firefox) -> None:
    shown = as_shown(maskprism.load("sample").predict(draw_scene(SEED).image), 8)
    strongest = int(Decomposition(shown[0]).order()[0])
    for prediction in (shown, Edit(drop=[strongest], instances=[0]).apply(shown)):
        decided = np.abs(prediction[0].logits("canvas")) > NEAR
        assert np.array_equal(mask_of(page)[decided], prediction[0].mask("canvas")[decided])
        page.run("document.querySelector('.tools button').click();")
    page.run("document.querySelector('[aria-label=Undo]').click();")
    page.run("document.querySelector('[aria-label=Undo]').click();")
    assert page.run("return document.querySelectorAll('.card.edited').length;") == 0


def test_little_is_folded_and_one_row_of_controls_is_above_the_cards(page: Firefox) -> None:
    folded = page.run("return document.querySelectorAll('.card.folded').length;")
    assert folded > 0
    assert page.run("return document.querySelector('.more').textContent;").startswith(f"{folded} more contribute")
    middles = page.run(
        "return [...document.querySelectorAll('.tools :is(button, select, input)')].map(one => {"
        " const box = one.getBoundingClientRect(); return box.top + box.height / 2; });"
    )
    assert max(middles) - min(middles) <= 2
    assert page.run("return document.querySelector('.lead').textContent;").startswith("This mask = 32 shared maps")


def test_the_first_screen_is_the_same(page: Firefox) -> None:
    boxes = page.run(
        "return ['.stage', '.equation', '.says', '.waterfall', '.instances', '.legend'].map(part => {"
        " const box = document.querySelector(part).getBoundingClientRect(); return [box.top, box.bottom]; });"
    )
    assert all(0 <= top < bottom <= 801 for top, bottom in boxes)
    page.size(390, 844)
    assert page.run("return document.scrollingElement.scrollWidth;") <= 390
    page.size(1280, 800)
    shot = base64.b64decode(page.ask("browsingContext.captureScreenshot", context=page.window)["data"])
    assert len(shot) > 50_000  # something is drawn
    if folder := os.environ.get("MASKPRISM_SCREENSHOTS"):
        (Path(folder) / "firefox.png").write_bytes(shot)


def test_keys_zoom_and_the_address_restores(page: Firefox) -> None:
    def press(key: str) -> None:
        page.ask(
            "input.performActions",
            context=page.window,
            actions=[
                {
                    "type": "key",
                    "id": "keyboard",
                    "actions": [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}],
                }
            ],
        )

    page.run("document.querySelector('.stage').focus();")
    press("+")
    assert page.run("return document.querySelector('.stage').classList.contains('zoomed');")
    press("0")
    assert not page.run("return document.querySelector('.stage').classList.contains('zoomed');")
    page.run("document.querySelector('.card .slider').focus();")
    press("\ue017")  # Delete
    page.until("location.hash.includes('e0=')")
    page.ask("browsingContext.reload", context=page.window, wait="complete")
    page.until("document.querySelectorAll('.card.dropped').length === 1")


def test_nothing_was_complained_of(page: Firefox) -> None:
    assert page.complaints == []


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with scenes, a report of them, their table, and the atlas of it."""
    folder = tmp_path_factory.mktemp("results")
    data = write_dataset(folder / "scenes", 4, seed=21, validation_share=1.0)
    for line in (
        ("diagnose", data, "--model", "sample", "--out", folder / "diagnosis", "--worst", 3),
        ("extract", folder / "scenes", "--model", "sample", "--out", folder / "t.parquet", "--prototypes", "fp16"),
        ("atlas", folder / "t.parquet", "--out", folder / "atlas"),
    ):
        done = run(*line)
        assert done.returncode == 0, done.stderr
    return folder


def map_or_reason(firefox: Firefox) -> bool:
    """Whether the map is there; without WebGL, as in a Firefox with neither a GPU nor Mesa, it says why it is not."""
    firefox.until("document.querySelector('[data-ready], .notice')")
    said = firefox.run("return document.querySelector('.notice')?.textContent ?? '';")
    assert said == "" or "this browser has no WebGL" in said
    return said == ""


def test_the_gallery_its_instances_and_the_comparison(firefox: Firefox, results: Path) -> None:
    process, address = start(results / "scenes", "--data", results / "scenes" / "data.yaml")
    try:
        firefox.size(1280, 800)
        firefox.open(address)
        firefox.until("document.querySelectorAll('.tile img.loaded').length === 4")
        firefox.until("document.querySelector('#progress').classList.contains('done')")
        firefox.run("document.querySelector('[name=view][value=instances]').click();")
        firefox.until("location.search.includes('view=instances') && document.querySelector('.tile img.loaded')")
        keys = firefox.run(
            "return (await (await fetch('/api/images?view=instances')).json()).images.slice(0, 2)"
            ".map(one => `${one.name}#${one.instance}`);"
        )
        firefox.open(f"{address}?{urlencode([('compare', key) for key in keys])}")
        firefox.until("document.querySelectorAll('#comparison .stage').length === 2")
        firefox.open(f"{address}map")
        map_or_reason(firefox)
    finally:
        stop(process)


def test_a_worst_mask_opens_in_the_report(firefox: Firefox, results: Path) -> None:
    firefox.open((results / "diagnosis" / "report.html").as_uri())
    firefox.run("document.querySelector('#worst .open').click();")
    firefox.until("document.querySelector('dialog.viewer .stage') && location.hash.startsWith('#view=')")
    firefox.run("history.back();")  # Back closes the dialog and stays on the report
    firefox.until("!document.querySelector('dialog') && !location.hash")
    assert firefox.run("return document.querySelector('.verdict .outcome').textContent;") == "CANNOT TELL"
    firefox.run("document.querySelector('#errors .strip .open').click();")
    firefox.until("document.querySelector('dialog.viewer .stage')")
    firefox.run("document.querySelector('dialog.viewer .close').click();")
    firefox.until("!document.querySelector('dialog')")
    before = firefox.run("return getComputedStyle(document.body).backgroundColor;")
    firefox.run("document.querySelector('#theme').click();")
    assert firefox.run("return getComputedStyle(document.body).backgroundColor;") != before


RELOADS = 5


def test_the_sample_runs_in_the_browser_and_stays_over_reloads(firefox: Firefox) -> None:
    """Firefox can lose what a file in its database holds once the database is written anew."""
    process, address = start("--drop")
    try:
        firefox.open(address)
        firefox.run("document.querySelector('.sample').click();")
        for _ in range(RELOADS + 1):
            firefox.until("document.querySelector('.instances button, #says.failed')")
            assert firefox.run("return document.querySelector('#says').className;") == ""
            assert firefox.run("return document.querySelectorAll('.instances button').length;") > 3
            firefox.until("!document.querySelector('.forget').hidden")  # the files are kept
            firefox.open(address)
    finally:
        stop(process)


def test_one_server_has_results_and_gallery(firefox: Firefox, results: Path) -> None:
    process, address = start(results, "--images", results / "scenes")
    try:
        firefox.open(f"{address}diagnosis/report.html")
        assert firefox.run("return document.querySelectorAll('.site a').length;") >= 4
        firefox.run("document.querySelector('#errors .in-gallery').click();")
        firefox.until(
            "location.search === '?show=missed' && document.querySelector('#gallery .site')"
            " && document.readyState === 'complete'"  # a server that stops answers scripts with 503
        )
    finally:
        stop(process)


def test_the_map_selects_what_is_shown(firefox: Firefox, results: Path) -> None:
    firefox.open((results / "atlas" / "map.html").as_uri())
    if not map_or_reason(firefox):
        pytest.skip("this Firefox has no WebGL; its sentence was seen")
    count = len(Points.read(results / "t.parquet"))
    firefox.run(
        "[...document.querySelectorAll('.controls button')].find(b => b.textContent.startsWith('Select')).click();"
    )
    firefox.until(f"document.querySelector('.selection h2')?.textContent === '{count} selected'")
    assert firefox.run("return document.querySelectorAll('.selection .picture').length;") > 0


def test_none_of_them_complained(firefox: Firefox) -> None:
    assert [text for text in firefox.complaints if "WebGL" not in text] == []  # of drivers without a GPU


def test_two_models_are_linked(firefox: Firefox, tmp_path: Path) -> None:
    image = draw_scene(SEED).image
    found = maskprism.load("sample").predict(image)
    path = write_pair(tmp_path / "pair.html", image, {"a": found, "b": found})
    firefox.open(path.as_uri())
    firefox.until("document.querySelectorAll('.differences li').length === 32")
    firefox.run(
        "const slider = document.querySelector('.side .slider');"
        " slider.dispatchEvent(new KeyboardEvent('keydown', { key: 'Delete', bubbles: true }));"
    )
    dropped = "return [...document.querySelectorAll('.side')].map(one => one.querySelectorAll('.card.dropped').length);"
    assert firefox.run(dropped) == [1, 1]
    assert firefox.complaints == []
