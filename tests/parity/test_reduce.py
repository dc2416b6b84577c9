"""Ultralytics runs reduced files as it runs any other, and draws the masks that we say it will."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import maskprism
from maskprism.analysis.reduction.trade_off import METHODS, fit_halves, reductions
from maskprism.models.rewrite import write_reduced
from parity.networks import scenes

SIDE = 160


@pytest.fixture(params=["yolov8n-seg", "yolo26n-seg"])
def exported(request, checkpoint, export) -> Path:
    return export(checkpoint(request.param), format="onnx", imgsz=SIDE, simplify=False)


@pytest.mark.parametrize("method", METHODS)
def test_ultralytics_predicts_with_a_reduced_file(exported, method, tmp_path):
    from ultralytics import YOLO

    full = maskprism.load(exported, conf=0.25)
    half = fit_halves(full.predict(scene) for scene in scenes())
    (reduction,) = reductions(half[0] + half[1], method, [12])
    small = tmp_path / "small.onnx"
    where = write_reduced(full, exported, small, reduction.prototype_map, reduction.coefficient_map)
    assert where.coefficients == "folded"
    assert where.prototypes == ("folded" if method == "selection" else "appended")
    reduced, yolo = maskprism.load(small), YOLO(small, task="segment")
    some = 0
    for scene in scenes():
        found = reduced.predict(scene)
        (theirs,) = yolo.predict(scene, imgsz=SIDE, conf=0.25, iou=0.7, verbose=False)
        ours = found[~found.empty]  # Ultralytics leaves out what has an empty mask
        assert len(theirs) == len(ours)
        some += len(ours)
        if not len(ours):
            continue
        np.testing.assert_allclose(theirs.boxes.conf.numpy(), ours.scores, atol=1e-5)
        assert (theirs.masks.data.numpy().astype(bool) != ours.masks("canvas")).mean() < 1e-4
        expected = reduction.apply(full.predict(scene))
        np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-3)
    assert some > 10
