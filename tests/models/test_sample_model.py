"""The bundled model: reads like a YOLOv8-seg export, and finds drawn objects it has never seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import maskprism
from maskprism.datasets.scenes import NAMES, draw_scene

PATH = Path(maskprism.__file__).parent / "data" / "sample.onnx"
UNSEEN = range(500_500, 500_524)
"""Seeds of neither training nor the judgement in docs/model_card.md."""
LEAST_RECALL = 0.87
LEAST_MEAN_IOU = 0.77


@pytest.fixture(scope="module")
def model():
    return maskprism.load(PATH, threads=2)


@pytest.fixture(scope="module")
def answers(model):
    scenes = [draw_scene(seed) for seed in UNSEEN]
    return [(scene, model.predict(scene.image)) for scene in scenes]


def test_the_file_is_small():
    assert PATH.stat().st_size <= 4 * 2**20


def test_it_reads_like_a_yolov8_export(model):
    assert model.spec.layout == "yolov8"
    assert model.spec.input_hw == (320, 320)
    assert model.spec.grid_hw == (80, 80)
    assert model.spec.stride == 4
    assert model.spec.prototypes == 32
    assert dict(model.spec.names) == NAMES
    assert model.spec.version is None


def test_prototypes_end_in_silu_and_coefficients_have_both_signs(answers):
    for _, prediction in answers:
        assert prediction.prototypes.min() >= -0.2785
        assert prediction.prototypes.max() > 1
    coefficients = np.concatenate([prediction.coefficients for _, prediction in answers])
    assert 0.2 < (coefficients > 0).mean() < 0.8


def test_it_finds_unseen_objects(answers):
    """Every labelled instance against the best mask of its class."""
    best = np.concatenate([_best_ious(scene, prediction) for scene, prediction in answers])
    assert (best > 0.5).mean() >= LEAST_RECALL
    assert best.mean() >= LEAST_MEAN_IOU


def test_it_invents_little(answers):
    sure = wrong = 0
    for scene, prediction in answers:
        shown = prediction[prediction.scores > 0.5]
        ious = _ious(scene, shown) * (scene.classes[:, None] == shown.classes[None, :])
        sure += len(shown)
        wrong += int((ious.max(axis=0) < 0.5).sum())
    assert wrong / sure <= 0.1


def _best_ious(scene, prediction):
    if not len(prediction):
        return np.zeros(len(scene))
    ious = _ious(scene, prediction) * (scene.classes[:, None] == prediction.classes[None, :])
    return ious.max(axis=1)


def _ious(scene, prediction):
    true = scene.masks.reshape(len(scene), -1).astype(np.float32)
    found = prediction.masks("image").reshape(len(prediction), -1).astype(np.float32)
    inner = true @ found.T
    return inner / (true.sum(axis=1)[:, None] + found.sum(axis=1)[None, :] - inner)
