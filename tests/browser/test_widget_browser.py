"""The widget in a real notebook: marimo runs it, Chromium shows it, and its state arrives in Python and back."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

import maskprism
from maskprism import Edit, Prediction
from maskprism.datasets.scenes import draw_scene

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

if find_spec("marimo") is None:  # importing it takes long, also where the tests of browsers do not run
    pytest.skip("needs the package marimo", allow_module_level=True)

NOTEBOOK = """
import marimo

app = marimo.App()


@app.cell
def _():
    import json
    from pathlib import Path

    import marimo as mo

    import maskprism

    widget = maskprism.show("photo.png", model="sample")

    def write(change=None):
        prediction = widget.edited_prediction
        state = {
            "selected": widget.selected,
            "edits": widget.edits,
            "coefficients": widget.coefficients.tolist(),
            "all": prediction.coefficients.tolist(),
            "areas": prediction.areas("canvas").tolist(),
        }
        Path("state.json.new").write_text(json.dumps(state))
        Path("state.json.new").rename("state.json")

    widget.observe(write, ["selected", "edits"])
    write()
    return mo, widget


@app.cell
def _(mo, widget):
    mo.ui.anywidget(widget)
    return


@app.cell
def _(mo, widget):
    def choose_and_drop(_):
        widget.selected = 2
        widget.edit(drop=[3])

    edit = mo.ui.button(label="edit in Python", on_click=choose_and_drop)
    reset = mo.ui.button(label="reset in Python", on_click=lambda _: widget.reset())
    mo.hstack([edit, reset])
    return edit, reset


if __name__ == "__main__":
    app.run()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("notebook")
    (folder / "notebook.py").write_text(NOTEBOOK, encoding="utf-8")
    cv2.imwrite(str(folder / "photo.png"), draw_scene(0).image)
    return folder


@pytest.fixture(scope="module")
def prediction(folder: Path) -> Prediction:
    return maskprism.load("sample").predict(folder / "photo.png")


@pytest.fixture
def page(folder: Path, browser: Browser) -> Iterator[Page]:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "marimo",
            "-q",
            "run",
            "notebook.py",
            "--headless",
            "--no-token",
            "--port",
            str(free_port()),
        ],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        context.set_default_timeout(30_000)
        page = context.new_page()
        port = process.args[-1]  # type: ignore[index]
        deadline = time.monotonic() + 30
        while True:
            try:
                page.goto(f"http://127.0.0.1:{port}/")
                break
            except Exception:
                assert process.poll() is None, process.communicate()[0]
                assert time.monotonic() < deadline
                time.sleep(0.2)
        page.locator(".maskprism canvas").first.wait_for()
        yield page
        context.close()
    finally:
        process.terminate()
        process.communicate(timeout=20)


def free_port() -> int:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


def python_has(folder: Path, key: str, expected: Any) -> dict[str, Any]:
    """What the notebook's Python holds, once `key` is as expected."""
    deadline = time.monotonic() + 15
    while True:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text())
        if state[key] == expected:
            return state
        assert time.monotonic() < deadline, f"{key} is {state[key]}, not {expected}"
        time.sleep(0.05)


def test_state_arrives_in_python_and_comes_back(folder: Path, page: Page, prediction: Prediction) -> None:
    state = python_has(folder, "selected", 0)
    np.testing.assert_array_equal(state["all"], prediction.coefficients)

    # Chosen in the page.
    page.locator(".maskprism").get_by_role(
        "radio", name=re.compile(rf"{prediction[1].name}.*{prediction[1].score:.2f}")
    ).first.click()
    state = python_has(folder, "selected", 1)
    np.testing.assert_array_equal(state["coefficients"], prediction.coefficients[1])

    # Edited in the page: the masks in Python are those of that Edit.
    largest = int(np.abs(prediction.coefficients[1]).argmax())
    slider(page, largest).press("Delete")
    expected = Edit(drop=[largest], instances=[1]).apply(prediction)
    state = python_has(folder, "coefficients", expected.coefficients[1].tolist())
    assert state["all"] == expected.coefficients.tolist()
    assert state["areas"] == expected.areas("canvas").tolist() != prediction.areas("canvas").tolist()
    page.get_by_role("button", name=re.compile("^Keep top")).click()
    kept = maskprism.Decomposition(prediction[1]).order()[:5].tolist()
    expected = Edit(keep=kept, instances=[1]).apply(prediction)
    python_has(folder, "all", expected.coefficients.tolist())

    # Chosen and edited in Python: the page follows.
    page.get_by_text("edit in Python").click()
    python_has(folder, "selected", 2)
    page.locator(".maskprism").get_by_text("instance 2,").wait_for()
    slides_to(page, 3, 0)
    expected = Edit(drop=[3], instances=[2]).apply(expected)
    python_has(folder, "all", expected.coefficients.tolist())

    page.get_by_text("reset in Python").click()
    state = python_has(folder, "edits", {})
    assert state["areas"] == prediction.areas("canvas").tolist()
    slides_to(page, 3, float(prediction.coefficients[2, 3]))


def slider(page: Page, prototype: int) -> Locator:
    return page.get_by_role("slider", name=re.compile(rf"^Coefficient of prototype {prototype}\b"))


def slides_to(page: Page, prototype: int, value: float) -> None:
    page.wait_for_function(
        "([slider, value]) => Math.abs(slider.valueAsNumber - value) < 0.02",
        arg=[slider(page, prototype).element_handle(), value],
    )
