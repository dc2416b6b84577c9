"""The notebook widget on the Python side; tests/browser drives it from a page."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import maskprism
from helpers.strategies import predictions
from helpers.tiny_models import Tiny, ultralytics_metadata
from maskprism import RULES, Edit, Prediction, PrismWidget
from maskprism.datasets.scenes import draw_scene
from maskprism.errors import InputError
from maskprism.models import Model
from maskprism.models.correction import Correction
from maskprism.viewer.payload import viewer_scene


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return cv2.resize(draw_scene(1).image, (96, 72))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = Tiny(metadata=ultralytics_metadata()).save(tmp_path_factory.mktemp("model") / "tiny.onnx")
    return maskprism.load(path)


@pytest.fixture
def prediction(model: Model, image: np.ndarray) -> Prediction:
    return model.predict(image)


@pytest.fixture
def widget(prediction: Prediction, image: np.ndarray) -> PrismWidget:
    return maskprism.show(image, prediction)


def test_the_widget_holds_what_the_viewer_takes(widget: PrismWidget, prediction: Prediction, image: np.ndarray) -> None:
    scene = viewer_scene(image, prediction, bits=32)
    assert widget.header == scene.header
    assert widget.buffer == scene.buffer
    assert (widget.selected, widget.edits) == (0, {})
    assert widget.get_state(["header", "buffer", "selected", "edits"]).keys() == {
        "header",
        "buffer",
        "selected",
        "edits",
    }
    assert "export" in widget.get_state()["_esm"]
    assert ".maskprism" in widget.get_state()["_css"]


def test_a_corrected_network_shows_its_masks_before_and_after(model: Model, image: np.ndarray) -> None:
    k = model.spec.prototypes
    rng = np.random.default_rng(0)
    tuned = model.with_correction(Correction(rng.normal(0, 0.1, (1, k, k)), rng.normal(0, 0.1, (1, k))))
    widget = maskprism.show(image, model=tuned)
    instances = widget.header["instances"]
    np.testing.assert_array_equal([one["untuned"] for one in instances], model.predict(image).coefficients)
    np.testing.assert_array_equal([one["coefficients"] for one in instances], tuned.predict(image).coefficients)
    np.testing.assert_array_equal(widget.edited_prediction.masks(), tuned.predict(image).masks())
    plain = maskprism.show(image, model=model).header["instances"]
    assert [one["untuned"] for one in plain] == [None] * len(plain)


def test_image_and_prediction_in_every_habit(
    tmp_path: Path, model: Model, image: np.ndarray, prediction: Prediction
) -> None:
    path = tmp_path / "photo ü.png"
    cv2.imwrite(str(path), image)
    for widget in (
        maskprism.show(image, prediction),
        maskprism.show(prediction, image),
        maskprism.show(image, model=model),
        maskprism.show(str(path), model=model),
        maskprism.show(path, prediction),
        maskprism.show(model.predict(path)),
    ):
        np.testing.assert_array_equal(widget.prediction.coefficients, prediction.coefficients)
        assert widget.buffer == viewer_scene(image, prediction, bits=32).buffer
    assert maskprism.show(str(path), model=model).header["source"] == str(path)
    assert len(maskprism.show(draw_scene(1).image, model="sample").prediction) > 0
    with pytest.raises(InputError, match="no model is given"):
        maskprism.show(draw_scene(1).image)


def test_mistakes_are_named(model: Model, image: np.ndarray, prediction: Prediction) -> None:
    for arguments in ((None,), (prediction, prediction), (image, image)):
        with pytest.raises(InputError, match="expected an image, a prediction, or one of each"):
            maskprism.show(*arguments)
    with pytest.raises(InputError, match=r"made from an array, which cannot be read again; give the image too"):
        maskprism.show(prediction)
    with pytest.raises(InputError, match=r"made from 'gone\.png', which cannot be read again"):
        maskprism.show(replace(prediction, source="gone.png"))
    with pytest.raises(InputError, match="model= has nothing to do"):
        maskprism.show(image, prediction, model=model)
    with pytest.raises(InputError, match="give the image that was predicted"):
        maskprism.show(image[:50], prediction)


def test_choosing(widget: PrismWidget, prediction: Prediction) -> None:
    seen: list[int] = []
    widget.observe(lambda change: seen.append(change["new"]), "selected")
    widget.selected = 2
    assert seen == [2]
    assert widget.instance.index == 2
    np.testing.assert_array_equal(widget.coefficients, prediction.coefficients[2])
    for wrong in (3, -1):
        with pytest.raises(InputError, match=rf"selected is {wrong}; the prediction has 3 instances \(0\.\.2\)"):
            widget.selected = wrong
    assert widget.selected == 2


def test_editing_from_python(widget: PrismWidget, prediction: Prediction) -> None:
    seen: list[object] = []
    widget.observe(lambda change: seen.append(change["new"]), "edits")
    widget.edit(drop=[3], scale={0: 2})
    expected = Edit(drop=[3], scale={0: 2}, instances=[0]).apply(prediction)
    np.testing.assert_array_equal(widget.edited_prediction.coefficients, expected.coefficients)
    np.testing.assert_array_equal(widget.coefficients, expected.coefficients[0])
    widget.edit(drop=[4])  # on top of what was edited before
    expected = Edit(drop=[4], instances=[0]).apply(expected)
    np.testing.assert_array_equal(widget.coefficients, expected.coefficients[0])
    np.testing.assert_array_equal(widget.edited_instance.mask(), expected[0].mask())
    np.testing.assert_array_equal(widget.instance.mask(), prediction[0].mask())
    widget.selected = 1
    widget.coefficients = np.arange(8)
    assert set(widget.edits) == {"0", "1"}
    assert len(seen) == 3
    widget.edit(Edit(drop=[0]))  # an Edit says itself which instances it is for
    assert set(widget.edits) == {"0", "1", "2"}
    assert (widget.edited_prediction.coefficients[:, 0] == 0).all()
    widget.reset(1)
    assert set(widget.edits) == {"0", "2"}
    widget.reset()
    assert widget.edited_prediction is prediction


def test_an_edit_that_changes_nothing_is_none(widget: PrismWidget, prediction: Prediction) -> None:
    widget.coefficients = prediction.coefficients[0]
    assert widget.edits == {}
    widget.edit(scale={0: 1})
    assert widget.edits == {}


@pytest.mark.parametrize(
    "edits",
    [
        {"3": [0.0] * 8},
        {"x": [0.0] * 8},
        {"0": [0.0] * 7},
        {"0": [float("nan")] * 8},
        {"-1": [0.0] * 8},
        {"0": [[0.0] * 8]},
        {"0": ["cat"] * 8},
        {"0": [[0.0, 1.0], *[0.0] * 7]},
        {"0": [{"a": 1}] * 8},
        {"0": [10**400] * 8},
        {"9" * 5000: [0.0] * 8},
    ],
)
def test_edits_that_do_not_fit_are_refused(widget: PrismWidget, edits: dict[str, list[float]]) -> None:
    with pytest.raises(InputError, match=r"instance numbers, 0 to 2|not 8 finite numbers"):
        widget.edits = edits
    assert widget.edits == {}


def test_what_the_page_sends_arrives(widget: PrismWidget, prediction: Prediction) -> None:
    """The message of the front end: state with numbers of JavaScript, which are doubles."""
    row = [float(value) for value in prediction.coefficients[1].astype(np.float64)]
    row[5] = 0.25
    widget.set_state({"selected": 1, "edits": {"1": row}})
    assert widget.selected == 1
    np.testing.assert_array_equal(
        widget.edited_prediction.coefficients, Edit(set={5: 0.25}, instances=[1]).apply(prediction).coefficients
    )
    with pytest.raises(InputError):
        widget.set_state({"selected": 9})


def test_without_instances_there_is_nothing_to_choose(model: Model, image: np.ndarray, prediction: Prediction) -> None:
    widget = maskprism.show(image, prediction[[]])
    assert widget.selected == -1
    assert widget.instance is widget.edited_instance is None
    assert len(widget.edited_prediction) == 0
    for act in (lambda: widget.coefficients, lambda: widget.edit(drop=[0])):
        with pytest.raises(InputError, match="no instances, so none is chosen"):
            act()
    with pytest.raises(InputError, match="only -1 fits"):
        widget.selected = 0


def test_coefficients_are_those_before_objectness(image: np.ndarray, prediction: Prediction) -> None:
    objectness = np.array([0.5, 0.0, 1.0], dtype=np.float32)
    scaled = replace(prediction, objectness=objectness, rule=RULES["yolov5"])
    widget = maskprism.show(image, scaled, selected=1)
    np.testing.assert_array_equal(widget.coefficients, prediction.coefficients[1])  # though all its weights are 0
    widget.coefficients = np.ones(8)
    np.testing.assert_array_equal(widget.edited_prediction.weights[1], np.zeros(8))
    np.testing.assert_array_equal(widget.coefficients, np.ones(8))


@given(data=st.data(), prediction=predictions())
@settings(max_examples=30)
def test_edits_there_and_back(data: st.DataObject, prediction: Prediction) -> None:
    """Whatever is edited, `edits` holds it: set on another widget they give the same prediction."""
    image = np.zeros((*prediction.image_size, 3), dtype=np.uint8)
    widget, other = maskprism.show(image, prediction), maskprism.show(image, prediction)
    k = len(prediction.prototypes)
    expected = prediction
    for _ in range(data.draw(st.integers(0, 3))):
        chosen = data.draw(st.integers(0, len(prediction) - 1))
        index = data.draw(st.integers(0, k - 1))
        value = data.draw(st.floats(-9, 9, width=32))
        widget.selected = chosen
        widget.edit(set={index: value})
        expected = Edit(set={index: value}, instances=[chosen]).apply(expected)
    np.testing.assert_array_equal(widget.edited_prediction.coefficients, expected.coefficients)
    other.edits = widget.edits
    np.testing.assert_array_equal(other.edited_prediction.coefficients, expected.coefficients)
    changed = (expected.coefficients != prediction.coefficients).any(axis=1)
    assert set(widget.edits) == {str(index) for index in np.flatnonzero(changed)}


def test_without_the_extra_it_names_the_install_command() -> None:
    code = "import sys; sys.modules['anywidget'] = None; import maskprism; maskprism.show"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stderr.splitlines()[-1] == (
        "maskprism.errors.MissingExtraError: the notebook widget needs the package anywidget, which is not installed; "
        "install it with: pip install 'maskprism[notebook]'"
    )


def test_a_jupyter_kernel_shows_it_and_sends_its_state() -> None:
    """What JupyterLab and VS Code get: a view of a model, whose state follows what Python does."""
    import nbclient
    import nbformat

    cells = (
        "import maskprism\nfrom maskprism.datasets.scenes import draw_scene\n"
        "widget = maskprism.show(draw_scene(0).image, model='sample')\nwidget",
        "widget.selected = 1\nwidget.edit(drop=[3])\nprint(widget.coefficients[3])",
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    view = notebook.cells[0].outputs[0]["data"]["application/vnd.jupyter.widget-view+json"]
    assert notebook.cells[1].outputs[0]["text"] == "0.0\n"
    models = notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
    state = models[view["model_id"]]["state"]
    assert state["_anywidget_id"].endswith("PrismWidget")
    assert state["selected"] == 1
    assert state["edits"]["1"][3] == 0
    assert len(state["header"]["instances"]) > 1
