"""`from_arrays`: any model's arrays become a prediction, bit for bit; what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import maskprism
from helpers.strategies import seeds
from maskprism import Decomposition, Letterbox, Prediction, from_arrays
from maskprism.core.masks import NO_CROP, ULTRALYTICS, YOLOV5
from maskprism.core.preprocessing import YOLACT, YOLO
from maskprism.datasets.scenes import draw_scene
from maskprism.errors import ImageError, InputError


def again(prediction: Prediction, image: object, **changes: object) -> Prediction:
    """A prediction from its own arrays, boxes in pixels of the image."""
    fields = {
        "boxes": prediction.boxes,
        "scores": prediction.scores,
        "classes": prediction.classes,
        "names": prediction.names,
        "objectness": prediction.objectness,
        "rule": prediction.rule,
        "preprocessing": prediction.preprocessing,
        "canvas_hw": prediction.letterbox.canvas_hw,
    }
    return from_arrays(image, prediction.coefficients, prediction.prototypes, **(fields | changes))


def assert_same_masks(one: Prediction, other: Prediction) -> None:
    assert one.letterbox == other.letterbox
    assert np.array_equal(one.logits("image"), other.logits("image"))
    assert np.array_equal(one.masks("image"), other.masks("image"))
    (top, left), (height, width) = one.letterbox.offset_yx, one.letterbox.content_hw
    shown = (slice(None), slice(top, top + height), slice(left, left + width))  # boxes are clipped to the image
    assert np.array_equal(one.masks("canvas")[shown], other.masks("canvas")[shown])


def test_the_bundled_networks_own_arrays_give_its_masks():
    image = draw_scene(3).image[:200]
    prediction = maskprism.load("sample").predict(image)
    assert len(prediction) > 1
    found = again(prediction, image)
    assert_same_masks(prediction, found)
    np.testing.assert_allclose(found.boxes, prediction.boxes, atol=1e-4)
    assert [one.name for one in found] == [one.name for one in prediction]


@pytest.mark.parametrize("name", ["yolov8n-seg.onnx", "yolov5n-seg.onnx"])
def test_a_real_networks_own_arrays_give_its_masks(real_data, name):
    path = real_data / "images" / "zidane.jpg"
    prediction = maskprism.load(real_data / "models" / name).predict(path)
    found = again(prediction, path)
    assert_same_masks(prediction, found)
    assert found.source == str(path)


@given(st.sampled_from(["letterbox", "corner", "stretch"]), st.integers(2, 40), st.integers(2, 40), seeds)
def test_boxes_are_where_they_were_said_to_be(resize, height, width, seed):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, [[width, height]], (3, 2, 2)), axis=1).reshape(3, 4) + 1
    rule = maskprism.Preprocessing("any", resize=resize)
    found = from_arrays((height + 1, width + 1), np.ones((3, 2)), np.ones((2, 8, 8)), boxes=corners, preprocessing=rule)
    assert found.letterbox == rule.letterbox((height + 1, width + 1), (32, 32)).with_grid((8, 8))
    np.testing.assert_allclose(found.boxes, corners, rtol=1e-4, atol=1e-4)


def test_masks_alone_need_no_box():
    prototypes = np.zeros((2, 5, 10), dtype=np.float32)
    prototypes[0, 1:3, 2:6] = 1
    prototypes[0, 0, 0] = prototypes[1] = -1
    found = from_arrays((20, 40), [[1, 0], [0, 1]], prototypes - [[[0.01]], [[0]]])
    assert (found.rule, found.has_boxes, found.canvas_boxes) == (NO_CROP, False, None)
    assert found.letterbox == Letterbox((20, 40), (20, 40), (20, 40), (0, 0), (5, 10))
    rows, columns = np.nonzero(found.masks("image")[0])
    tight = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(found.boxes, [tight, [0, 0, 40, 20]], atol=1e-4)  # the other one is empty
    assert not found[1].mask().any()
    assert found[[1, 0]].boxes.tolist() == found.boxes[::-1].tolist()


def test_a_stretched_image_is_put_back():
    """A mask on the left half of the grid is the left half of the image, whatever its shape."""
    half = np.full((1, 138, 138), -1.0)
    half[:, :, :69] = 1
    for rule in ("yolact", "ultralytics-8.2", "retina", "yolov5"):
        found = from_arrays(
            (30, 300), [[1.0]], half, boxes=[[0, 0, 300, 30]], objectness=[1], rule=rule, preprocessing=YOLACT,
            canvas_hw=(550, 550),
        )  # fmt: skip
        assert np.flatnonzero(found.masks("image")[0].all(axis=0)).tolist() == list(range(150))


def test_k_may_be_256():
    rng = np.random.default_rng(0)
    found = from_arrays((64, 64), rng.normal(size=(3, 256)), rng.normal(size=(256, 16, 16)))
    parts = Decomposition(found[1])
    np.testing.assert_allclose(parts.terms.sum(axis=0), found[1].logits(), atol=1e-3)
    assert len(parts.order()) == 256


class Tensor:
    """What a tensor of PyTorch looks like that takes part in a gradient: numpy cannot read it directly."""

    def __init__(self, values: np.ndarray, *, attached: bool = True) -> None:
        self.values, self.attached = values, attached

    def detach(self) -> Tensor:
        return Tensor(self.values, attached=False)

    def cpu(self) -> Tensor:
        return self

    def float(self) -> Tensor:
        return Tensor(self.values.astype(np.float32), attached=self.attached)

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        if self.attached:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad")
        return self.values


def test_arrays_of_every_kind_are_read():
    maps = np.arange(12).reshape(1, 3, 4)
    arrays = from_arrays((6, 8), np.array([[2]], dtype=np.float16), maps.astype(np.int16), scores=[1])
    for found in (
        from_arrays((6, 8), [[2]], maps.tolist(), scores=(1,)),
        from_arrays((6, 8), Tensor(np.array([[2]])), Tensor(maps)),
    ):
        assert found.prototypes.dtype == found.coefficients.dtype == found.scores.dtype == np.float32
        assert np.array_equal(found.logits("image"), arrays.logits("image"))


def test_nothing_is_shared_with_what_was_given():
    maps, weights = np.ones((1, 4, 4), dtype=np.float32), np.ones((1, 1), dtype=np.float32)
    found = from_arrays((8, 8), weights, maps)
    maps[:], weights[:] = 0, 0
    assert found.logits().all()


def test_an_image_of_every_kind_tells_its_size(tmp_path):
    pixels = np.zeros((12, 20, 3), dtype=np.uint8)
    path = tmp_path / "dark.png"
    cv2.imwrite(str(path), pixels)
    for image in (path, str(path), pixels, Image.fromarray(pixels), (12, 20), [12, 20], np.array(pixels)):
        found = from_arrays(image, np.zeros((0, 2)), np.ones((2, 3, 5)))
        assert (found.image_size, len(found)) == ((12, 20), 0)
        assert found.source == (str(path) if isinstance(image, str | Path) else None)
    assert from_arrays((12, 20), [], np.ones((2, 3, 5)), source="frame 7").source == "frame 7"
    with pytest.raises(ImageError, match="there is no such file"):
        from_arrays(tmp_path / "missing.png", [[1]], np.ones((1, 3, 5)))


def test_names_are_a_list_or_a_mapping():
    for names in (["cat", "dog"], ("cat", "dog"), {1: "dog"}):
        assert from_arrays((8, 8), [[1]], np.ones((1, 4, 4)), classes=[1.0], names=names)[0].name == "dog"
    assert from_arrays((8, 8), [[1]], np.ones((1, 4, 4)))[0].name == "class0"


def test_rules_and_frames_are_those_that_were_given():
    letterbox = Letterbox.fit((10, 20), (64, 64))
    found = from_arrays((10, 20), [[1]], np.ones((1, 16, 16)), letterbox=letterbox, boxes=[[0, 0, 9, 9]])
    assert (found.rule, found.letterbox, found.preprocessing) == (ULTRALYTICS, letterbox, YOLO)
    assert from_arrays((10, 20), [[1]], np.ones((1, 8, 16)), preprocessing="yolo").letterbox.canvas_hw == (32, 64)
    weighted = from_arrays((8, 8), [[2]], np.ones((1, 4, 4)), boxes=[[0, 0, 8, 8]], objectness=[0.5], rule=YOLOV5)
    assert weighted.weights.tolist() == [[1]]


MAPS = np.ones((4, 6, 8))
ROWS = np.ones((2, 4))
BOXES = [[0, 0, 9, 9], [1, 1, 5, 5]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prototypes": MAPS[0]}, r"prototypes has shape \(6, 8\); expected \(K, h, w\)"),
        ({"prototypes": MAPS[None]}, r"shape \(1, 4, 6, 8\); expected \(K, h, w\), of one image: index its batch away"),
        ({"prototypes": np.ones((0, 6, 8))}, r"prototypes have shape \(0, 6, 8\); expected at least one"),
        ({"prototypes": MAPS * np.nan}, "prototypes hold 192 values that are not finite"),
        ({"prototypes": MAPS * 1e300}, "prototypes hold 192 values that are not finite in float32"),
        ({"prototypes": "maps.npy"}, "prototypes holds <U8; expected numbers"),
        ({"prototypes": MAPS.astype(complex)}, "prototypes holds complex128; expected numbers"),
        ({"prototypes": [[1], [1, 2]]}, "prototypes cannot be read as an array"),
        ({"prototypes": MAPS.transpose(1, 2, 0)}, r"expected \(N, 6\) for .*: np.moveaxis\(prototypes, -1, 0\)"),
        ({"coefficients": ROWS[0]}, r"coefficients has shape \(4,\); expected \(N, K\)"),
        ({"coefficients": ROWS[:, :3]}, r"coefficients have shape \(2, 3\); expected \(N, 4\)"),
        ({"coefficients": ROWS * np.inf}, "coefficients hold 8 values that are not finite"),
        ({"boxes": BOXES[:1]}, r"boxes has shape \(1, 4\); expected \(2, 4\) for 2 instances"),
        ({"boxes": [[9, 9, 0, 0], [1, 1, 5, 5]]}, r"boxes\[0\] is \[9.0, 9.0, 0.0, 0.0\]; expected x1, y1, x2, y2"),
        ({"boxes": np.array(BOXES) / 9}, r"boxes reach to 1 only; expected pixels of the image, \(12, 16\)"),
        ({"boxes": [[0, 0, 9, np.nan]] * 2}, "boxes hold 2 values that are not finite"),
        ({"scores": [0.5]}, r"scores has shape \(1,\); expected \(2,\)"),
        ({"scores": [0.5, 50]}, "scores go from 0.5 to 50; expected 0 to 1"),
        ({"scores": [-0.5, 0]}, "scores go from -0.5 to 0; expected 0 to 1"),
        ({"objectness": [2, 0]}, "objectness go from 0 to 2; expected 0 to 1"),
        ({"classes": [0.5, 1]}, r"classes are \[0.5, 1.0\]; expected whole numbers"),
        ({"classes": ["cat", "dog"]}, "classes holds <U3; expected numbers"),
        ({"rule": "ultralytics"}, r"'ultralytics' crops masks to their boxes, .* has none; use .*'no-crop'"),
        ({"rule": "ultralitics"}, "there is no mask rule 'ultralitics'"),
        ({"preprocessing": "yolo9"}, "there is no preprocessing 'yolo9'"),
        ({"image": (12, 17.5)}, r"image is \(12, 17.5\); expected \(height, width\) in pixels"),
        ({"image": (0, 16)}, r"image is \(0, 16\)"),
        ({"image": [[[0, 0, 0]] * 16] * 12}, r"image has shape \(12, 16, 3\); expected \(height, width\) in pixels"),
        ({"image": ((1, 2), 3)}, "image cannot be read as an array"),
        ({"names": "cat"}, "names is 'cat'; expected a list of names"),
        ({"names": {0: 1}}, r"names is \{0: 1\}; expected a list of names"),
        ({"image": (20, 16)}, "prototypes of 6 x 8 do not have the shape of the image, 20 x 16, so it was padded"),
        ({"image": (16, 16)}, r"do not have the shape of the image, 16 x 16, so .* say how with preprocessing="),
        ({"canvas_hw": (24, 32)}, "canvas_hw is given without preprocessing="),
        ({"canvas_hw": (24, 0), "preprocessing": "yolo"}, r"canvas_hw is \(24, 0\)"),
        ({"letterbox": Letterbox.fit((9, 9), (24, 32))}, r"letterbox is of an image of \(9, 9\); .* \(12, 16\)"),
        (
            {"letterbox": Letterbox.fit((12, 16), (24, 32)), "canvas_hw": (24, 32)},
            "letterbox and canvas_hw are given; the letterbox has a canvas already",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(change, message):
    fields = {"image": (12, 16), "coefficients": ROWS, "prototypes": MAPS} | change
    with pytest.raises(InputError, match=message):
        from_arrays(**fields)


@pytest.mark.parametrize("box", [[5, 0, 2, 9], [5, 0, 9, -1]])
def test_the_box_that_is_inside_out_is_named(box):
    with pytest.raises(InputError, match=r"boxes\[1\] is \[5\.0, .*expected x1, y1, x2, y2 with x1 <= x2"):
        from_arrays((40, 40), np.ones((2, 3)), np.zeros((3, 10, 10)), boxes=[[0, 0, 5, 5], box])


def test_the_first_of_several_wrong_boxes_is_named():
    boxes = [[0, 0, 5, 5], [5, 0, 2, 9], [7, 0, 2, 9]]
    with pytest.raises(InputError, match=r"boxes\[1\] is \[5\.0"):
        from_arrays((40, 40), np.ones((3, 3)), np.zeros((3, 10, 10)), boxes=boxes)


def test_nothing_found_may_be_given_as_empty_lists():
    found = from_arrays((40, 40), [], np.zeros((3, 10, 10)), boxes=[], scores=[], classes=[])
    assert len(found) == 0
    assert found.canvas_boxes.shape == (0, 4)


@pytest.mark.parametrize("image_hw", [(100, 101), (100, 100), (100, 99)])
def test_a_grid_may_be_a_cell_off_the_shape_of_the_image(image_hw):
    assert from_arrays(image_hw, [[1]], np.ones((1, 100, 100))).image_size == image_hw
    with pytest.raises(InputError, match="do not have the shape"):
        from_arrays((100, 102), [[1]], np.ones((1, 100, 100)))


def test_an_image_may_be_a_pixel():
    assert from_arrays((1, 1), [[1]], np.ones((1, 1, 1))).masks().tolist() == [[[True]]]
