"""SOLOv2: packed outputs are recognised, and read as a twin reads them by the definitions of the paper."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import maskprism
from maskprism.errors import ModelError
from maskprism.models import Model
from maskprism.models.families.rows import Thresholds
from maskprism.models.families.solov2 import GRIDS, STRIDES, matrix_nms
from maskprism.models.runtimes import FunctionRuntime, NetworkInput
from maskprism.viewer.page import write_page

HEIGHT, WIDTH, K, CLASSES = 32, 64, 5, 3
CELLS = sum(side**2 for side in GRIDS)
Outputs = tuple[np.ndarray, np.ndarray, np.ndarray]


def outputs_of(image: np.ndarray, seed: int = 0, candidates: int = 30) -> Outputs:
    """Scores, kernels and mask features, the last two following the image; several kernels give nearly one mask."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(0, 2, (K, 3)).astype(np.float32)
    cells = image.reshape(3, HEIGHT // 4, 4, WIDTH // 4, 4).mean(axis=(2, 4))
    features = np.einsum("kc,chw->khw", mixing, cells) + rng.normal(0, 1, (K, HEIGHT // 4, WIDTH // 4))
    kernels = rng.normal(0, 1, (CELLS, K))
    scores = np.full((CELLS, CLASSES), 0.01)
    kinds = rng.normal(0, 1, (6, K))
    for cell in rng.choice(CELLS, candidates, replace=False):
        kernels[cell] = kinds[rng.integers(6)] + rng.normal(0, 0.3, K)
        scores[cell, rng.integers(CLASSES)] = rng.uniform(0.1, 0.95)
    return scores.astype(np.float32), kernels.astype(np.float32), features[None].astype(np.float32)


def tiny(order: tuple[int, ...] = (0, 1, 2), change: Any = None, **options: Any) -> Model:
    """A model of the family in plain numpy."""

    def function(batch: np.ndarray) -> list[np.ndarray]:
        outputs = outputs_of(batch[0])
        if change is not None:
            outputs = change(*outputs)
        return [outputs[index] for index in order]

    runtime = FunctionRuntime(function, NetworkInput(1, HEIGHT, WIDTH), {"names": {0: "cat", 1: "dog", 2: "fish"}})
    return maskprism.load(runtime, **options)


def picture() -> np.ndarray:
    """As large as the input, so that nothing is resized."""
    return cv2.resize(np.random.default_rng(1).integers(0, 256, (4, 8, 3), dtype=np.uint8), (WIDTH, HEIGHT))


def read_slowly(outputs: Outputs, conf: float, candidate_conf: float) -> list[tuple[float, int, int]]:
    """(score, class, cell) by the definitions, one cell after the other."""
    scores, kernels, features = outputs
    level_of = [level for level, side in enumerate(GRIDS) for _ in range(side**2)]
    found = []
    for cell, class_id in zip(*np.nonzero(scores > candidate_conf), strict=True):
        logits = sum(float(c) * p.astype(float) for c, p in zip(kernels[cell], features[0], strict=True))
        probable = 1 / (1 + np.exp(-logits))
        mask = probable > 0.5
        if mask.sum() > STRIDES[level_of[cell]]:
            found.append((float(scores[cell, class_id]) * probable[mask].mean(), int(class_id), int(cell), mask))
    found.sort(key=lambda one: -one[0])
    lowered = []
    for j, (score, class_id, cell, mask) in enumerate(found):
        factors = [1.0]
        for i in range(j):
            if found[i][1] == class_id:
                others = [iou(found[h][3], found[i][3]) for h in range(i) if found[h][1] == class_id]
                factors.append(math.exp(-2 * iou(found[i][3], mask) ** 2) / math.exp(-2 * max(others, default=0) ** 2))
        if score * min(factors) > conf:
            lowered.append((score * min(factors), class_id, cell))
    return sorted(lowered, key=lambda one: -one[0])


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("conf", [0.05, 0.25, 0.5])
def test_it_is_found_and_read_as_the_twin_reads_it(order: tuple[int, ...], conf: float) -> None:
    model = tiny(order, conf=conf)
    assert (model.spec.layout, model.spec.prototypes, model.spec.grid_hw) == ("solov2", K, (HEIGHT // 4, WIDTH // 4))
    assert (model.spec.rule.name, model.spec.rule.squash, model.spec.rule.crops) == ("solov2", True, False)
    prediction = model.predict(picture())
    mean, std = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])
    tensor = ((picture()[:, :, ::-1] - mean) / std).transpose(2, 0, 1).astype(np.float32)
    outputs = outputs_of(tensor)
    # What their own tools look at, above 0.1, makes no difference for what is kept above a higher threshold.
    expected = read_slowly(outputs, conf, min(conf, 0.1))
    assert len(expected) > 3
    np.testing.assert_allclose(prediction.scores, [score for score, _, _ in expected], atol=1e-4)
    assert prediction.classes.tolist() == [class_id for _, class_id, _ in expected]
    np.testing.assert_array_equal(prediction.coefficients, outputs[1][[cell for _, _, cell in expected]])
    ends = np.cumsum(np.square(GRIDS))
    assert prediction.levels.tolist() == [int((cell >= ends).sum()) for _, _, cell in expected]
    assert not prediction.has_boxes


def test_masks_are_enlarged_probabilities() -> None:
    prediction = tiny().predict(picture())
    logits = np.einsum("nk,khw->nhw", prediction.coefficients, prediction.prototypes)
    for mask, grid in zip(prediction.masks("canvas"), 1 / (1 + np.exp(-logits)), strict=True):
        large = cv2.resize(grid, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR)
        assert (mask == (large > 0.5))[abs(large - 0.5) > 1e-5].all()


def test_classes_thresholds_and_a_page(tmp_path: Path) -> None:
    whole = tiny().predict(picture())
    only = tiny(classes=["dog"]).predict(picture())
    assert set(only.classes.tolist()) == {1}
    np.testing.assert_allclose(only.scores, whole.scores[whole.classes == 1], atol=1e-6)
    assert len(tiny(max_det=2).predict(picture())) == 2
    assert len(tiny(conf=0.99).predict(picture())) == 0
    assert tiny().keep == Thresholds(conf=0.25, max_det=100)
    write_page(tmp_path / "page.html", [(picture(), whole)])
    assert (tmp_path / "page.html").exists()


def test_kernels_that_are_no_numbers_are_left_out() -> None:
    def spoil(scores: np.ndarray, kernels: np.ndarray, features: np.ndarray) -> Outputs:
        kernels[int(scores.max(axis=1).argmax()), 2] = np.nan
        return scores, kernels, features

    with pytest.warns(maskprism.errors.ModelWarning, match="1 detection left out: NaN or infinity"):
        assert len(tiny(change=spoil).predict(picture())) > 0


def test_matrix_nms_lowers_by_better_masks_of_the_class() -> None:
    masks = np.array([[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 0], [0, 0, 0, 1]], dtype=bool)
    factors = matrix_nms(masks, np.array([0, 0, 1, 0]))
    np.testing.assert_allclose(factors, [1, math.exp(-2 * 0.75**2), 1, math.exp(-2 * 0.25**2)], rtol=1e-5)
    assert matrix_nms(masks[:0], np.zeros(0, dtype=np.int64)).shape == (0,)


def test_what_is_refused() -> None:
    def as_many(scores: np.ndarray, kernels: np.ndarray, features: np.ndarray) -> Outputs:
        return np.concatenate([scores, scores[:, :2]], axis=1), kernels, features

    with pytest.raises(ModelError, match="looks like a SOLOv2 with as many classes as kernel parameters, 5; name its"):
        tiny(change=as_many, names=list("abcde"))
    with pytest.raises(ModelError, match=r"not those of layout 'solov2'; expected scores \(3872, classes\), kernels"):
        maskprism.load("sample", layout="solov2")
