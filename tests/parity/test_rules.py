"""Mask rules against small twins in PyTorch, written from the descriptions of each release."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maskprism.core.geometry import Letterbox
from maskprism.core.masks import RULES, MaskRule
from maskprism.core.prediction import Prediction

K, N = 32, 24
TIE = 1e-5
# (image, canvas, stride of the rectangle): odd sizes, upright and wide, shrunk and enlarged, hardly any padding
FRAMES = [
    ((97, 301), (160, 160), None),
    ((213, 147), (160, 160), 32),
    ((480, 640), (640, 640), None),
    ((427, 640), (640, 640), 32),
    ((375, 501), (320, 320), 32),
    ((1, 77), (160, 160), None),
    ((333, 335), (192, 320), None),
    ((721, 1279), (192, 320), 32),
    ((639, 640), (640, 640), None),
    ((61, 59), (640, 640), 32),
]


def made_up(image_hw, canvas_hw, stride, rule: MaskRule, seed: int = 0) -> Prediction:
    """Smooth random prototypes and random boxes, some of which reach beyond the image."""
    import cv2

    rng = np.random.default_rng([seed, *image_hw, *canvas_hw])
    letterbox = Letterbox.fit(image_hw, canvas_hw, rectangle_stride=stride)
    height, width = letterbox.canvas_hw
    rough = rng.normal(size=(K, *letterbox.grid_hw)).astype(np.float32)
    prototypes = np.stack([cv2.GaussianBlur(p, (0, 0), 1.2) for p in rough])
    centres = rng.uniform((0, 0), (width, height), (N, 2))
    sides = rng.uniform(2, (width * 0.8, height * 0.8), (N, 2))
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], axis=1).astype(np.float32)
    boxes[:4] = np.round(boxes[:4])  # edges on pixels, and some on halves
    boxes[2:4] += 0.5
    return Prediction(
        canvas_boxes=boxes,
        scores=np.linspace(0.9, 0.3, N, dtype=np.float32),
        classes=np.zeros(N, dtype=np.int64),
        coefficients=rng.normal(size=(N, K)).astype(np.float32),
        prototypes=prototypes,
        letterbox=letterbox,
        rule=rule,
        objectness=rng.uniform(0.1, 1, N).astype(np.float32),
    )


def crop(values, boxes, *, padding: int = 0, rounded: bool = False):
    """Zero outside `x1 <= column < x2`, `y1 <= row < y2`."""
    import torch

    boxes = torch.round(boxes) if rounded else boxes
    x1, y1, x2, y2 = (edge[:, None, None] for edge in boxes.unbind(1))
    rows = torch.arange(values.shape[1], dtype=torch.float32)[None, :, None]
    columns = torch.arange(values.shape[2], dtype=torch.float32)[None, None, :]
    inside = (columns >= x1 - padding) & (columns < x2 + padding) & (rows >= y1 - padding) & (rows < y2 + padding)
    return values * inside


def enlarge(values, size_hw):
    import torch.nn.functional as F  # noqa: N812

    return F.interpolate(values[None], size_hw, mode="bilinear", align_corners=False)[0]


def cut_by(kind: str, values, image_hw):
    """Cut the padding off the prototype grid: 8.0 to 8.3 with int(), 8.4 with round(), now on whole pixels."""
    import torch.nn.functional as F  # noqa: N812

    (height, width), (h, w) = values.shape[1:], image_hw
    gain = min(height / h, width / w)
    if kind == "int":
        x, y = (width - w * gain) / 2, (height - h * gain) / 2
        return values[:, int(y) : max(int(height - y), int(y) + 1), int(x) : max(int(width - x), int(x) + 1)]
    zoom = 1
    if kind == "whole":
        gain *= 4
        left_over = (4 * height - max(round(h * gain), 1), 4 * width - max(round(w * gain), 1))
        while zoom < 4 and any(total * zoom % 4 or (total // 2) * zoom % 4 for total in left_over):
            zoom *= 2
        gain /= 4
        if zoom > 1:
            values = F.interpolate(values[None], scale_factor=zoom, mode="bilinear")[0]
        height, width, gain = height * zoom, width * zoom, gain * zoom
    x, y = (width - max(round(w * gain), 1)) / 2, (height - max(round(h * gain), 1)) / 2
    top, left = round(y - 0.1), round(x - 0.1)
    return values[:, top : height - round(y + 0.1), left : width - round(x + 0.1)]


RECIPES = {
    # name: (sigmoid first, crop on the grid on the way to the canvas, rounded box, cut on the way to the image)
    "yolov5": (True, True, False, "int"),
    "ultralytics-8.2": (True, True, False, "int"),
    "ultralytics-8.3": (False, True, False, "int"),
    "ultralytics-8.3.189": (False, True, False, "round"),
    "ultralytics-8.3.215": (False, True, True, "round"),
    "ultralytics-8.4.83": (False, True, False, "round"),
    "ultralytics-8.4.90": (False, False, False, "round"),
    "ultralytics": (False, False, False, "whole"),
    "retina": (False, False, False, "whole"),
}


def twin(prediction: Prediction, size: str):
    """(values that are compared with the threshold, threshold) of every instance, from the words alone."""
    import torch

    squash, early, rounded, cut = RECIPES[prediction.rule.name]
    letterbox = prediction.letterbox
    coefficients = prediction.coefficients
    if prediction.rule.name == "yolov5":
        coefficients = coefficients * prediction.objectness[:, None]
    flat = torch.from_numpy(prediction.prototypes.reshape(K, -1))
    values = (torch.from_numpy(coefficients) @ flat).view(-1, *letterbox.grid_hw)
    values = values.sigmoid() if squash else values
    if size == "image":
        boxes = torch.from_numpy(prediction.boxes)
        return crop(
            enlarge(cut_by(cut, values, letterbox.image_hw), letterbox.image_hw), boxes, rounded=rounded
        ), squash
    boxes = torch.from_numpy(prediction.canvas_boxes)
    if early:
        ratio = [letterbox.grid_hw[1] / letterbox.canvas_hw[1], letterbox.grid_hw[0] / letterbox.canvas_hw[0]] * 2
        return enlarge(crop(values, boxes * torch.tensor(ratio), rounded=rounded), letterbox.canvas_hw), squash
    return crop(enlarge(values, letterbox.canvas_hw), boxes, rounded=rounded), squash


def assert_equal_except_at_ties(masks, values, threshold: float, scale) -> int:
    """Every pixel agrees, unless its value is the threshold to within the last bits of float32."""
    values = values.numpy()
    different = masks != (values > threshold)
    distance = np.abs(values - threshold) / scale
    assert not different.any() or distance[different].max() <= TIE
    return int(np.count_nonzero(different))


@pytest.mark.parametrize("size", ["canvas", "image"])
@pytest.mark.parametrize("name", RECIPES)
def test_presets_of_ultralytics_and_yolov5(name, size):
    ties = pixels = 0
    for frame in FRAMES:
        prediction = made_up(*frame, RULES[name])
        values, squash = twin(prediction, size)
        masks = prediction.masks(size)
        assert masks.any()
        ties += assert_equal_except_at_ties(masks, values, 0.5 if squash else 0.0, 1.0 if squash else 10.0)
        pixels += masks.size
    assert ties <= 1e-6 * pixels


def test_validation_crops_and_thresholds_on_the_grid():
    import torch

    for frame in FRAMES:
        prediction = made_up(*frame, RULES["validation"])
        letterbox = prediction.letterbox
        values = torch.from_numpy(prediction.coefficients) @ torch.from_numpy(prediction.prototypes.reshape(K, -1))
        ratio = [letterbox.grid_hw[1] / letterbox.canvas_hw[1], letterbox.grid_hw[0] / letterbox.canvas_hw[0]] * 2
        boxes = torch.from_numpy(prediction.canvas_boxes) * torch.tensor(ratio)
        expected = crop(values.view(-1, *letterbox.grid_hw), boxes)
        assert_equal_except_at_ties(prediction.masks(), expected, 0.0, 10.0)


def test_yolact_pads_the_crop_by_a_cell_and_stretches():
    import torch

    for image_hw in ((97, 301), (213, 147), (480, 640), (551, 549)):
        rule = RULES["yolact"]
        letterbox = Letterbox.stretch(image_hw, (552, 552))
        prediction = replace(made_up(image_hw, (552, 552), None, rule), letterbox=letterbox)
        values = torch.from_numpy(prediction.coefficients) @ torch.from_numpy(prediction.prototypes.reshape(K, -1))
        values = values.view(-1, *letterbox.grid_hw).sigmoid()
        values = enlarge(crop(values, torch.from_numpy(prediction.canvas_boxes) / 4, padding=1), image_hw)
        assert_equal_except_at_ties(prediction.masks(), values, 0.5, 1.0)


@pytest.mark.parametrize("to_hw", [(97, 301), (480, 640), (35, 22), (1, 9), (160, 161), (721, 1279)])
@pytest.mark.parametrize("from_hw", [(24, 40), (40, 40), (1, 1), (2, 7), (120, 160)])
def test_resampling_is_that_of_pytorch(from_hw, to_hw):
    import torch

    values = np.random.default_rng(1).normal(size=from_hw).astype(np.float32)
    letterbox = Letterbox(to_hw, to_hw, to_hw, (0, 0), from_hw)
    expected = enlarge(torch.from_numpy(values)[None], to_hw)[0].numpy()
    found = letterbox.resample(values, "canvas")
    # PyTorch rounds sample positions to float32, which moves values by up to 2e-5 of their range on a large grid.
    np.testing.assert_allclose(found, expected, atol=3e-5 * float(np.abs(values).max()), rtol=0)


def square(rule: MaskRule, logit: float) -> Prediction:
    """A box of 80 x 80 pixels over prototypes that are one everywhere."""
    return Prediction(
        canvas_boxes=np.array([[40, 40, 120, 120]], dtype=np.float32),
        scores=np.ones(1, dtype=np.float32),
        classes=np.zeros(1, dtype=np.int64),
        coefficients=np.full((1, K), logit / K, dtype=np.float32),
        prototypes=np.ones((K, 40, 40), dtype=np.float32),
        letterbox=Letterbox((160, 160), (160, 160), (160, 160), (0, 0), (40, 40)),
        rule=rule,
        objectness=np.ones(1, dtype=np.float32),
    )


@pytest.mark.parametrize("name", RECIPES)
def test_the_square_of_every_rule(name):
    for logit in (32.0, 0.2):
        prediction = square(RULES[name], logit)
        for size in ("canvas", "image"):
            values, squash = twin(prediction, size)
            assert prediction.areas(size)[0] == int((values > (0.5 if squash else 0.0)).sum())


def test_the_page_tells_what_the_rules_draw():
    """The table of docs/parity.md: area and pixels outside the box, at a logit of 32 and of 0.2."""
    page = (Path(__file__).parents[2] / "docs" / "parity.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|.*\| (\d+) \((\d+)\) \| (\d+) \((\d+)\) \|$", page, flags=re.MULTILINE)
    assert {name for name, *_ in rows} == set(RULES)
    for name, *figures in rows:
        found = []
        for logit in (32.0, 0.2):
            mask = square(RULES[name], logit).masks("canvas")[0]
            found += [np.count_nonzero(mask), np.count_nonzero(mask) - np.count_nonzero(mask[40:120, 40:120])]
        assert found == [int(figure) for figure in figures], name
