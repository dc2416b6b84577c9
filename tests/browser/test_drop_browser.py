"""The page that runs networks in the browser: a network and an image are dropped, and the masks are Python's."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnx
import pytest

import maskprism
from contrast import low_contrast
from maskprism.models import SAMPLE_MODEL
from maskprism.scenes import draw_scene
from pages import pixels, settle, start, stop

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

VIEWER = Path(__file__).parents[2] / "viewer"
RUNTIME = Path(os.environ.get("ONNXRUNTIME_WEB") or VIEWER / "node_modules" / "onnxruntime-web")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page as `make static` writes it, served by the installed command."""
    node = shutil.which("node")
    if node is None or not (RUNTIME / "dist").is_dir() or not (VIEWER / "node_modules" / "esbuild").is_dir():
        pytest.skip("needs Node with esbuild and onnxruntime-web (make viewer), or its folder in ONNXRUNTIME_WEB")
    folder = tmp_path_factory.mktemp("static")
    subprocess.run([node, "static.js", folder], cwd=VIEWER, check=True, capture_output=True)
    process, address = start("--static", folder)
    yield address
    stop(process)


@pytest.fixture
def page(browser: Browser, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page in a browser that may ask its own server alone."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1280, "height": 900}, **getattr(request, "param", {}))
    page = context.new_page()
    page.on("request", lambda r: r.url.startswith((address, "blob:", "data:")) or complaints.append(r.url))
    page.on("request", lambda r: r.method == "GET" or complaints.append(f"{r.method} {r.url}"))
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
    page.goto(address)
    yield page
    context.close()
    assert complaints == []


def test_a_dropped_network_draws_what_python_draws(page: Page, tmp_path: Path) -> None:
    scene = draw_scene(3, (320, 320)).image  # the canvas of the network: nothing is resized
    cv2.imwrite(str(tmp_path / "scene.png"), scene)
    expected = maskprism.load("sample").predict(scene)
    assert page.evaluate("crossOriginIsolated")  # several threads
    page.locator("#files").set_input_files(SAMPLE_MODEL)
    page.get_by_text("is there. Now drop an image.").wait_for()
    page.locator("#files").set_input_files(tmp_path / "scene.png")
    page.locator(".stage").wait_for(timeout=60_000)
    chips = page.locator(".instances button")
    assert chips.count() == len(expected)
    for number, instance in enumerate(expected):
        assert chips.nth(number).locator(".name").inner_text() == instance.name
        assert float(chips.nth(number).locator(".score").inner_text()) == pytest.approx(instance.score, abs=0.011)
    chips.nth(0).click()
    pairs = page.locator(".card").evaluate_all(
        "all => all.map(one => [Number(one.dataset.k), one.querySelector('.slider').valueAsNumber])"
    )
    found = np.array([value for _, value in sorted(pairs)])
    assert found == pytest.approx(expected[0].coefficients, abs=2e-3)
    area = int(re.sub(r"\D", "", page.locator(".measures dd").nth(1).inner_text()))
    assert area == pytest.approx(expected[0].mask("canvas").sum(), rel=0.01)
    page.locator('.card[data-k="0"] .drop').click()  # it is the viewer
    assert page.locator('.card[data-k="0"].dropped').count() == 1
    assert "Nothing was uploaded." in page.locator("footer").inner_text()


def test_masks_of_a_resized_image_are_those_of_python(page: Page, tmp_path: Path) -> None:
    """Also of one that asks for another gamma: networks are given the values of the file."""
    scene = cv2.imencode(".png", draw_scene(5, (500, 700)).image)[1].tobytes()
    chunk = b"gAMA" + struct.pack(">I", 100_000)
    after_header = 33
    gamma = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "scene.png").write_bytes(scene[:after_header] + gamma + scene[after_header:])
    expected = maskprism.load("sample").predict(tmp_path / "scene.png")
    page.locator("#files").set_input_files([SAMPLE_MODEL, tmp_path / "scene.png"])
    page.get_by_text("Drop another image or network.").wait_for(timeout=60_000)
    chips = page.locator(".instances button")
    assert chips.count() == len(expected) > 0
    for number, instance in enumerate(expected):
        chips.nth(number).click()
        settle(page)
        mask, found = instance.mask("canvas"), pixels(page.locator(".layer.mask"))[..., 3] > 0
        assert (mask & found).sum() / (mask | found).sum() > 0.99


def test_an_image_may_be_dropped_while_the_network_is_opened(page: Page, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "scene.png"), draw_scene(5, (200, 360)).image)
    page.locator("#files").set_input_files(SAMPLE_MODEL)
    page.locator("#files").set_input_files(tmp_path / "scene.png")
    page.locator("h1.source", has_text="scene.png").wait_for(timeout=60_000)


def test_both_can_be_dropped_at_once_and_others_after_them(page: Page, tmp_path: Path) -> None:
    for seed, name in ((5, "wide.png"), (8, "tall.png")):
        shape = (200, 360) if name == "wide.png" else (360, 200)
        cv2.imwrite(str(tmp_path / name), draw_scene(seed, shape).image)
    page.locator("#files").set_input_files([SAMPLE_MODEL, tmp_path / "wide.png"])
    page.locator("h1", has_text="wide.png").wait_for(timeout=60_000)
    page.get_by_text("Drop another image or network.").wait_for()
    page.locator("#files").set_input_files(tmp_path / "tall.png")
    page.locator("h1.source", has_text="tall.png").wait_for(timeout=60_000)
    assert page.locator(".maskprism").count() == 1


def without_prototypes(network: onnx.ModelProto) -> None:
    (prototypes,) = [one for one in network.graph.output if len(one.type.tensor_type.shape.dim) == 4]
    network.graph.output.remove(prototypes)


def of_boxes(network: onnx.ModelProto) -> None:
    for one in network.metadata_props:
        one.value = "detect" if one.key == "task" else one.value


def of_grey_images(network: onnx.ModelProto) -> None:
    network.CopyFrom(identity([1, 1, 64, 64]))


def of_giants(network: onnx.ModelProto) -> None:
    network.CopyFrom(identity([1, 3, 9000, 9000]))


def identity(shape: list[int]) -> onnx.ModelProto:
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in "xy")
    graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "identity", [x], [y])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_prototypes, "holds prototypes .* expected a segmentation model$"),
        (of_boxes, "this is a detect model; masks come from a segmentation model$"),
        (of_grey_images, r"takes float32 \(1, 1, 64, 64\); expected a network that takes one image"),
        (of_giants, "takes images of 9000 x 9000; expected at most 4096 a side$"),
        (lambda network: network.ClearField("graph"), "onnxruntime-web cannot open network.onnx: No graph was found"),
    ],
)
def test_networks_without_masks_are_refused_when_they_are_opened(
    page: Page, tmp_path: Path, change: Callable[[onnx.ModelProto], None], words: str
) -> None:
    network = onnx.load(SAMPLE_MODEL)
    change(network)
    (tmp_path / "network.onnx").write_bytes(network.SerializeToString())
    page.locator("#files").set_input_files(tmp_path / "network.onnx")
    page.locator("#says.failed").wait_for(timeout=60_000)
    assert re.search(words, page.locator("#says").inner_text())


@pytest.mark.parametrize("page", [{"color_scheme": "light"}, {"color_scheme": "dark"}], indirect=True)
def test_what_is_neither_is_refused_in_words(page: Page, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("words")
    page.locator("#files").set_input_files(tmp_path / "notes.txt")
    page.get_by_text("notes.txt is neither an ONNX file nor an image.").wait_for()
    (tmp_path / "broken.onnx").write_bytes(b"\x3a\xff\xff\xff\x07no network")
    page.locator("#files").set_input_files(tmp_path / "broken.onnx")
    page.get_by_text("this is no ONNX file").wait_for()
    picture = cv2.imencode(".jpg", draw_scene(3, (64, 64)).image)[1].tobytes()
    (tmp_path / "picture.onnx").write_bytes(picture)
    page.locator("#files").set_input_files(tmp_path / "picture.onnx")
    page.get_by_text("this is no ONNX file: it has a field of an unknown kind").wait_for()
    (tmp_path / "broken.jpg").write_bytes(picture[:20])
    page.locator("#files").set_input_files([SAMPLE_MODEL, tmp_path / "broken.jpg"])
    page.get_by_text("broken.jpg cannot be read as an image").wait_for(timeout=60_000)
    assert low_contrast(page, "body > header") == []
