"""The page that runs models in the browser: a model and an image are dropped, and the masks are Python's."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnx
import pytest

import maskprism
from helpers.contrast import low_contrast
from helpers.pages import pixels, settle, start, stop, until
from maskprism.datasets.scenes import draw_scene
from maskprism.models import SAMPLE_MODEL

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Playwright, Route

ROOT = Path(__file__).parents[2]
PACKAGED = ROOT / "src/maskprism/viewer/static/drop"

_FAILING_GPU = """
import * as ort from "./ort.wasm.min.mjs";
const packed = await fetch(new URL("./ort-wasm-simd-threaded.wasm.gz", import.meta.url));
const binary = new Response(packed.body.pipeThrough(new DecompressionStream("gzip")));
ort.env.wasm.wasmBinary = await binary.arrayBuffer();
export const { Tensor, env } = ort;
export const InferenceSession = {
  create: async (bytes, options) => {
    const gpu = options.executionProviders[0] === "webgpu";
    if (gpu && "FAILS" === "open") throw new Error("no such operator");
    const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
    if (gpu) Object.defineProperty(session, "run", { value: async () => { throw new Error("the device is lost"); } });
    return session;
  },
};
"""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The page, served by the installed command."""
    process, address = start("--drop")
    yield address
    stop(process)


FORGET = """async () => {
  localStorage.clear();
  for (const { name } of await indexedDB.databases()) {
    await new Promise((done, failed) => {
      const asked = indexedDB.deleteDatabase(name);
      [asked.onsuccess, asked.onerror] = [done, failed];
    });
  }
}"""


@pytest.fixture(scope="module")
def context(browser: Browser, address: str) -> Iterator[BrowserContext]:
    """A context whose first page stays open, so that the next pages find the runtime compiled."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.new_page().goto(f"{address}no-such-page")
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, address: str, request: pytest.FixtureRequest) -> Iterator[Page]:
    """The page in a browser that may ask its own server alone; what it keeps is forgotten after the test."""
    complaints: list[str] = []
    page = context.new_page()
    page.emulate_media(**getattr(request, "param", {}))
    page.on("request", lambda r: r.url.startswith((address, "blob:", "data:")) or complaints.append(r.url))
    page.on("request", lambda r: r.method in ("GET", "HEAD") or complaints.append(f"{r.method} {r.url}"))
    page.on("pageerror", lambda e: complaints.append(str(e)))
    page.on("console", lambda m: m.type in ("error", "warning") and complaints.append(m.text))
    page.goto(address)
    yield page
    for other in context.pages[1:]:
        other.close()
    context.pages[0].evaluate(FORGET)
    assert complaints == []


def test_a_dropped_network_draws_what_python_draws(page: Page, tmp_path: Path) -> None:
    scene = draw_scene(3, (320, 320)).image  # the canvas of the model: nothing is resized
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
    settle(page)  # until the mask is measured
    area = int(re.sub(r"\D", "", page.locator(".measures dd").nth(1).inner_text()))
    assert area == pytest.approx(expected[0].mask("canvas").sum(), rel=0.01)
    page.locator('.card[data-k="0"] .drop').click()  # it is the viewer
    assert page.locator('.card[data-k="0"].dropped').count() == 1
    assert "Nothing was uploaded." in page.locator("footer").inner_text()


def test_masks_of_a_resized_image_are_those_of_python(page: Page, tmp_path: Path) -> None:
    """Also of one that asks for another gamma: models are given the values of the file."""
    scene = cv2.imencode(".png", draw_scene(5, (500, 700)).image)[1].tobytes()
    chunk = b"gAMA" + struct.pack(">I", 100_000)
    after_header = 33
    gamma = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "scene.png").write_bytes(scene[:after_header] + gamma + scene[after_header:])
    expected = maskprism.load("sample").predict(tmp_path / "scene.png")
    page.locator("#files").set_input_files([SAMPLE_MODEL, tmp_path / "scene.png"])
    page.get_by_text("Drop another image or model.").wait_for(timeout=60_000)
    chips = page.locator(".instances button")
    assert chips.count() == len(expected) > 0
    for number, instance in enumerate(expected):
        chips.nth(number).click()
        settle(page)
        rgb = pixels(page.locator(".layer.mask"))[..., :3]
        mask, found = instance.mask("canvas"), rgb.any(axis=2) & ~(rgb == 255).all(axis=2)  # the outer line is white
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
    page.get_by_text("Drop another image or model.").wait_for()
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
        (of_grey_images, r"takes float32 \(1, 1, 64, 64\); expected a model that takes one image"),
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
    (tmp_path / "broken.onnx").write_bytes(b"\x3a\xff\xff\xff\x07no model")
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


def endless() -> onnx.ModelProto:
    """The bundled model after a loop that never ends."""
    network = onnx.load(SAMPLE_MODEL)
    graph = network.graph
    make = onnx.helper
    (given,) = [one for one in graph.input if one.name not in {one.name for one in graph.initializer}]
    for node in graph.node:
        node.input[:] = ["looped" if name == given.name else name for name in node.input]
    image = onnx.TensorProto.FLOAT
    values = [make.make_tensor_value_info(name, image, None) for name in ("before", "after")]
    flags = [make.make_tensor_value_info(name, onnx.TensorProto.BOOL, []) for name in ("on", "still")]
    number = make.make_tensor_value_info("number", onnx.TensorProto.INT64, [])
    body = make.make_graph(
        [make.make_node("Identity", ["on"], ["still"]), make.make_node("Abs", ["before"], ["after"])],
        "body",
        [number, flags[0], values[0]],
        [flags[1], values[1]],
    )
    graph.initializer.append(make.make_tensor("yes", onnx.TensorProto.BOOL, [], [True]))
    graph.node.insert(0, make.make_node("Loop", ["", "yes", given.name], ["looped"], body=body))
    return network


def test_an_endless_model_leaves_the_page_awake_and_can_be_stopped(page: Page, tmp_path: Path) -> None:
    onnx.save(endless(), tmp_path / "endless.onnx")
    cv2.imwrite(str(tmp_path / "scene.png"), draw_scene(3, (320, 320)).image)
    page.locator("#files").set_input_files([tmp_path / "endless.onnx", tmp_path / "scene.png"])
    page.get_by_text("endless.onnx is looking at scene.png").wait_for(timeout=60_000)
    for _ in range(5):  # the page answers while the model runs
        page.wait_for_timeout(100)
        assert page.evaluate("1 + 1") == 2
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("endless.onnx was stopped. Drop another model.").wait_for()
    assert page.get_by_role("button", name="Stop").is_hidden()
    page.locator("#files").set_input_files(SAMPLE_MODEL)  # the image is still there
    page.locator(".stage").wait_for(timeout=60_000)


def augmented(change: Callable[[list[onnx.NodeProto], str, str], None]) -> onnx.ModelProto:
    """The bundled model, with nodes appended that change one of its outputs."""
    network = onnx.load(SAMPLE_MODEL)
    prototypes, rows = sorted(network.graph.output, key=lambda one: -len(one.type.tensor_type.shape.dim))
    change(network.graph, prototypes.name, rows.name)
    return network


def renamed(graph: onnx.GraphProto, name: str, inner: str) -> None:
    for node in graph.node:
        node.output[:] = [inner if one == name else one for one in node.output]
        node.input[:] = [inner if one == name else one for one in node.input]


def with_nan_prototypes(graph: onnx.GraphProto, prototypes: str, rows: str) -> None:
    renamed(graph, prototypes, "inner")
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(np.nan), "factor"))
    graph.node.append(onnx.helper.make_node("Mul", ["inner", "factor"], [prototypes]))


def by_row(graph: onnx.GraphProto, rows: str, factors: np.ndarray) -> None:
    renamed(graph, rows, "inner")
    graph.initializer.append(onnx.numpy_helper.from_array(factors.astype(np.float32), "factor"))
    graph.node.append(onnx.helper.make_node("Mul", ["inner", "factor"], [rows]))


def shape_of(graph: onnx.GraphProto, name: str) -> list[int]:
    (value,) = [one for one in graph.output if one.name == name]
    return [dim.dim_value for dim in value.type.tensor_type.shape.dim]


def with_huge_boxes(graph: onnx.GraphProto, prototypes: str, rows: str) -> None:
    _, channels, count = shape_of(graph, rows)
    factors = np.ones((1, channels, count))
    factors[:, 2:4] = 1e36
    by_row(graph, rows, factors)


def with_some_infinite_boxes(graph: onnx.GraphProto, prototypes: str, rows: str) -> None:
    _, channels, count = shape_of(graph, rows)
    factors = np.ones((1, channels, count))
    factors[:, 0, : count // 2] = np.inf
    by_row(graph, rows, factors)


def with_infinite_boxes(graph: onnx.GraphProto, prototypes: str, rows: str) -> None:
    _, channels, count = shape_of(graph, rows)
    factors = np.ones((1, channels, count))
    factors[:, 2] = np.inf
    by_row(graph, rows, factors)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (with_nan_prototypes, r"prototypes 0, 1, 2, 3, 4, 5, 6, 7 and 24 more contain NaN or infinity; export again"),
        (with_infinite_boxes, r"all \d+ detections contain NaN or infinity; export again"),
    ],
)
def test_numbers_that_are_not_finite_are_refused(
    page: Page, tmp_path: Path, change: Callable[[onnx.GraphProto, str, str], None], words: str
) -> None:
    onnx.save(augmented(change), tmp_path / "broken.onnx")
    cv2.imwrite(str(tmp_path / "scene.png"), draw_scene(3, (320, 320)).image)
    page.locator("#files").set_input_files([tmp_path / "broken.onnx", tmp_path / "scene.png"])
    page.locator("#says.failed").wait_for(timeout=60_000)
    assert re.search(words, page.locator("#says").inner_text())


@pytest.mark.parametrize("change", [with_huge_boxes, with_some_infinite_boxes])
def test_huge_and_infinite_boxes_raise_no_error_when_an_instance_is_chosen(
    page: Page, tmp_path: Path, change: Callable[[onnx.GraphProto, str, str], None]
) -> None:
    onnx.save(augmented(change), tmp_path / "odd.onnx")
    cv2.imwrite(str(tmp_path / "scene.png"), draw_scene(3, (320, 320)).image)
    page.locator("#files").set_input_files([tmp_path / "odd.onnx", tmp_path / "scene.png"])
    page.locator("#says", has_text="Drop another image or model.").wait_for(timeout=60_000)
    assert ("Left out: " in page.locator("#says").inner_text()) == (change is not with_huge_boxes)
    chips = page.locator(".instances button")
    assert chips.count() > 0
    for number in range(chips.count()):
        chips.nth(number).click()
        settle(page)


def test_messages_of_the_runtime_hold_no_path_of_the_machine_that_built_it(page: Page, tmp_path: Path) -> None:
    network = onnx.load(SAMPLE_MODEL)
    network.opset_import[0].version = 999
    (tmp_path / "newer.onnx").write_bytes(network.SerializeToString())
    page.locator("#files").set_input_files(tmp_path / "newer.onnx")
    page.locator("#says.failed").wait_for(timeout=60_000)
    words = page.locator("#says").inner_text()
    assert "onnxruntime-web cannot open newer.onnx" in words
    assert not re.search(r"[/\\]\w+[/\\]|\.cc\b|::", words), words


def test_the_sample_is_there_and_stays_over_a_reload(page: Page) -> None:
    """The bundled model on a drawn scene; both are kept in the browser until they are forgotten."""
    page.get_by_role("button", name="Try the sample").click()
    page.locator("h1.source", has_text="sample.webp").wait_for(timeout=60_000)
    page.locator(".stage").wait_for()
    expected = maskprism.load("sample").predict(PACKAGED / "sample.webp")
    assert page.locator(".instances button").count() == pytest.approx(len(expected), abs=1)
    forget = page.get_by_role("button", name="Forget these files")
    forget.wait_for()
    page.reload()
    page.locator("h1.source", has_text="sample.webp").wait_for(timeout=60_000)
    forget.click()
    forget.wait_for(state="hidden")
    page.reload()
    page.get_by_text("Drop an ONNX file and an image here.").wait_for()
    page.wait_for_timeout(500)
    assert page.locator(".stage").count() == 0


def test_what_was_kept_does_not_take_the_place_of_a_model_that_is_dropped(page: Page, tmp_path: Path) -> None:
    """What is kept is read, and the dropped model is opened, for a while."""
    page.get_by_role("button", name="Try the sample").click()
    page.get_by_role("button", name="Forget these files").wait_for(timeout=60_000)
    page.add_init_script(
        """const get = IDBObjectStore.prototype.get;
        IDBObjectStore.prototype.get = function (key) {
          const asked = get.call(this, key);
          const again = () => window.read || (get.call(this, key).onsuccess = again);
          asked.addEventListener("success", again);
          return asked;
        };"""
    )
    page.reload()
    routes: list[Route] = []
    page.route("**/*.wasm.gz", lambda route: routes.append(route))
    (tmp_path / "other.onnx").write_bytes(SAMPLE_MODEL.read_bytes())
    page.locator("#files").set_input_files(tmp_path / "other.onnx")
    page.get_by_text("Opening other.onnx").wait_for()
    page.evaluate("window.read = true")
    page.get_by_role("button", name="Forget these files").wait_for()
    page.unroute("**/*.wasm.gz")
    page.get_by_text("other.onnx is there. Now drop an image.").wait_for(timeout=60_000)
    settle(page)
    assert page.locator(".stop").is_hidden()  # no other model is opened


KEPT = """() => new Promise((done) => {
  const asked = indexedDB.open("maskprism-drop", 1);
  asked.onsuccess = () => {
    const counted = asked.result.transaction("files").objectStore("files").count();
    counted.onsuccess = () => (asked.result.close(), done(counted.result));
  };
})"""
"""How many files the browser keeps."""


def test_files_that_are_still_being_kept_are_forgotten_too(page: Page, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "scene.png"), draw_scene(5, (200, 360)).image)
    page.get_by_role("button", name="Try the sample").click()
    forget = page.get_by_role("button", name="Forget these files")
    forget.wait_for(timeout=60_000)
    page.evaluate(
        """() => {
          const read = File.prototype.arrayBuffer;
          File.prototype.arrayBuffer = async function () {
            if (this.name === "scene.png") await new Promise((go) => (window.go = go));
            return read.call(this);
          };
        }"""
    )
    page.locator("#files").set_input_files(tmp_path / "scene.png")
    page.wait_for_function("() => window.go")
    page.get_by_text("Drop another image or model.").wait_for(timeout=60_000)
    forget.click()
    settle(page)
    page.evaluate("window.go()")
    forget.wait_for(state="hidden")
    assert page.evaluate(KEPT) == 0


def test_edits_stay_over_a_reload_until_another_image_comes(page: Page, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "scene.png"), draw_scene(5, (200, 360)).image)
    page.get_by_role("button", name="Try the sample").click()
    page.get_by_role("button", name="Ablate strongest").click(timeout=60_000)
    page.locator(".card.dropped").wait_for()
    page.get_by_role("button", name="Forget these files").wait_for()
    page.reload()
    page.locator(".card.dropped").wait_for(timeout=60_000)
    page.locator("#files").set_input_files(tmp_path / "scene.png")
    page.locator("h1.source", has_text="scene.png").wait_for(timeout=60_000)
    page.get_by_text("Drop another image or model.").wait_for()
    assert page.locator(".card.dropped").count() == 0
    assert page.evaluate("location.hash") == ""


def test_edits_are_not_made_on_the_image_of_another_tab(page: Page, tmp_path: Path) -> None:
    """The browser keeps one image for both."""
    cv2.imwrite(str(tmp_path / "scene.png"), draw_scene(5, (200, 360)).image)
    page.get_by_role("button", name="Try the sample").click()
    page.locator(".instances button").first.click(timeout=60_000)
    page.get_by_role("button", name="Ablate strongest").click()
    page.wait_for_function("() => location.hash.includes('e0=')")
    page.get_by_role("button", name="Forget these files").wait_for()
    other = page.context.new_page()
    other.goto(page.url.partition("#")[0])
    other.locator("h1.source", has_text="sample.webp").wait_for(timeout=60_000)
    other.evaluate("document.querySelector('.forget').hidden = true")  # it is shown again once the image is kept
    other.locator("#files").set_input_files(tmp_path / "scene.png")
    other.get_by_role("button", name="Forget these files").wait_for(timeout=60_000)
    page.reload()
    page.locator("h1.source", has_text="scene.png").wait_for(timeout=60_000)
    page.locator(".instances button").first.click()
    settle(page)
    assert page.locator(".card.dropped").count() == 0


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_can_be_saved_while_an_image_is_shown(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.get_by_role("button", name="Try the sample").click()
    page.locator(".stage").wait_for(timeout=60_000)
    assert page.get_by_role("link", name="one file").is_visible()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= width


def test_the_theme_is_switched_and_stays(page: Page) -> None:
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Switch colours").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.reload()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


@pytest.fixture
def filmed(address: str, driver: Playwright, executable: str) -> Iterator[Page]:
    """The page in a Chromium whose camera films a test pattern."""
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    chromium = driver.chromium.launch(executable_path=executable, args=flags)
    page = chromium.new_page()
    page.goto(address)
    yield page
    chromium.close()


def test_the_camera_runs_through_the_model(filmed: Page) -> None:
    """Frames per second are shown, masks have their style, the equaliser moves, the picture opens in the viewer."""
    filmed.get_by_role("button", name="Live camera").click()
    filmed.get_by_text(re.compile(r"\d\.\d frames per second, WASM")).wait_for(timeout=60_000)
    picture = pixels(filmed.locator("#live-picture"))
    assert (picture[..., 3] == 255).all()
    assert np.mean(np.ptp(picture[..., :3], axis=2) == 0) > 0.5  # masks are in colour on a dimmed grey picture
    equaliser = pixels(filmed.locator("#live-equaliser"))
    assert equaliser.shape[1] == 16 * 40
    assert len(np.unique(equaliser.reshape(-1, 4), axis=0)) > 50
    filmed.get_by_role("button", name="Take this picture apart").click()
    filmed.locator("h1.source", has_text="camera.png").wait_for(timeout=60_000)
    assert filmed.locator("#live").is_hidden()
    until(filmed, lambda: filmed.evaluate(KEPT) == 2)  # the bundled model, too
    filmed.reload()
    filmed.locator("h1.source", has_text="camera.png").wait_for(timeout=60_000)


CAMERAS = """
const films = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
window.tracks = [];
navigator.mediaDevices.getUserMedia = async (asked) => {
  if (window.asking) await new Promise((allow) => (window.allow = allow));
  const stream = await films(asked);
  window.tracks.push(...stream.getTracks());
  return stream;
};
window.isOff = () => window.tracks.length === 1 && window.tracks.every((track) => track.readyState === "ended");
"""


def test_a_camera_that_is_ended_before_it_films_is_off(filmed: Page) -> None:
    """Also where its button was pressed twice while the model was opened."""
    filmed.add_init_script(CAMERAS)
    filmed.reload()
    filmed.evaluate("window.asking = true")
    camera = filmed.locator(".camera")
    camera.click()
    camera.click()
    filmed.wait_for_function("() => window.allow", timeout=60_000)
    filmed.get_by_role("button", name="Take this picture apart").click()
    filmed.evaluate("window.allow()")
    filmed.wait_for_function("() => window.isOff()")
    filmed.get_by_role("button", name="Live camera").wait_for()


def test_the_camera_waits_for_an_image_and_makes_room_for_one(filmed: Page, tmp_path: Path) -> None:
    for seed in (3, 5):
        cv2.imwrite(str(tmp_path / f"scene{seed}.png"), draw_scene(seed, (200, 360)).image)
    filmed.add_init_script(CAMERAS)
    filmed.reload()
    filmed.locator("#files").set_input_files(SAMPLE_MODEL)
    filmed.get_by_text("is there. Now drop an image.").wait_for(timeout=60_000)
    filmed.locator("#files").set_input_files(tmp_path / "scene3.png")
    filmed.get_by_role("button", name="Live camera").click()  # the model looks at the image
    filmed.locator("h1.source", has_text="scene3.png").wait_for(state="attached", timeout=60_000)
    filmed.get_by_text("frames per second").wait_for(timeout=60_000)
    filmed.locator("#files").set_input_files(tmp_path / "scene5.png")
    filmed.locator("h1.source", has_text="scene5.png").wait_for(timeout=60_000)
    filmed.wait_for_function("() => window.isOff()")


def _answer(text: str, route: Route) -> None:
    """Answer with a script in place of the server's, under the headers of its worker."""
    worker = route.fetch(url=route.request.url.rpartition("/")[0] + "/worker.js", method="GET")
    route.fulfill(response=worker, body=text)


@pytest.mark.parametrize("fails", ["open", "run"])
def test_what_the_gpu_cannot_do_the_processor_does(page: Page, fails: str) -> None:
    """An adapter that opens no model, and one that fails while the model runs; its files are not in the package."""
    adapter = "Object.defineProperty(navigator, 'gpu', { value: { requestAdapter: async () => ({ info: {} }) } });"
    worker = adapter + (PACKAGED / "worker.js").read_text(encoding="utf-8")
    answers = {
        "worker.js": worker,
        "ort.webgpu.min.mjs": _FAILING_GPU.replace("FAILS", fails),
        "ort-wasm-simd-threaded.asyncify.wasm": "",
    }
    for name, text in answers.items():
        page.route(f"**/{name}", partial(_answer, text))
    with page.expect_request("**/ort.webgpu.min.mjs"):
        page.get_by_role("button", name="Try the sample").click()
    page.locator(".instances button").nth(5).wait_for(timeout=60_000)
    assert "in this browser (WASM)" in page.locator("footer").inner_text()


def test_the_page_saved_as_one_file_needs_no_server(
    page: Page, offline: Callable[..., BrowserContext], tmp_path: Path
) -> None:
    with page.expect_download() as saved:
        page.get_by_role("link", name="one file").click()
    assert saved.value.suggested_filename == "maskprism-offline.html"
    saved.value.save_as(tmp_path / "page.html")
    whole = offline().new_page()
    whole.goto((tmp_path / "page.html").as_uri())
    assert whole.get_by_role("link").count() == 0
    whole.get_by_role("button", name="Try the sample").click()
    whole.locator(".instances button").nth(3).wait_for(timeout=60_000)


def test_the_server_has_the_files_of_the_page_alone(page: Page, address: str) -> None:
    for name in ("..%2f..%2fpage.py", "drop.css.map", "worker-offline.js", "none"):
        assert page.request.get(address + name).status == 404


def test_a_folder_for_any_web_server_holds_the_page_and_what_webgpu_needs(tmp_path: Path) -> None:
    if not (ROOT / "viewer/node_modules/onnxruntime-web/dist").is_dir():
        pytest.skip("needs onnxruntime-web (make viewer)")
    subprocess.run([sys.executable, ROOT / "utils/make_static.py", tmp_path / "out"], check=True, capture_output=True)
    there = {path.name for path in (tmp_path / "out").iterdir()}
    script = (tmp_path / "out/worker.js").read_text(encoding="utf-8")
    assert set(re.findall(r'"([\w.-]+\.(?:mjs|wasm|gz))"', script)) <= there
    assert set(re.findall(r'(?:src|href)="([\w.-]+)"', (tmp_path / "out/index.html").read_text())) <= there


def test_the_tables_are_those_of_python() -> None:
    command = [sys.executable, ROOT / "utils" / "make_drop_tables.py", "--check"]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
