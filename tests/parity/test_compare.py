"""PyTorch against ONNX of one model on real weights: the letterbox is measured apart from the rest."""

from __future__ import annotations

import numpy as np
import pytest

import maskprism
from maskprism.analysis.comparison.paired_run import compare
from maskprism.analysis.comparison.report import Tolerance
from parity.networks import scenes


def test_checkpoint_and_export_of_coco_weights(real_data, images):
    models = [real_data / "models" / name for name in ("yolov8n-seg.pt", "yolov8n-seg.onnx")]
    found = compare(*models, images[:16])
    assert (found.forced, found.same_canvas) == ("A", True)
    assert found.count("matched") > 50
    assert found.unmatched_share == 0
    assert found.ious.min() > 0.999
    assert np.abs(found.score_drifts).max() < 1e-3
    assert found.similarity.errors.max() < 1e-3
    assert found.violations(Tolerance()) == []
    # By itself the checkpoint sees rectangles, and then masks are others.
    assert found.own_iou < 0.99
    assert found.letterbox_share > 0.999


@pytest.mark.parametrize("dynamic", [True, False])
def test_export_of_a_random_network(checkpoint, export, dynamic):
    from ultralytics import YOLO

    path = checkpoint("yolo11n-seg", 3)
    exported = export(path, format="onnx", imgsz=160, dynamic=dynamic, simplify=False)
    pictures = scenes()
    found = compare(maskprism.load(path, imgsz=160), maskprism.load(exported, imgsz=160), pictures)
    assert found.forced == (None if dynamic else "A")
    assert len(found.matched) > 20
    assert found.unmatched_share < 0.01  # a score beside the threshold
    assert found.mean_iou > 0.999
    assert (found.letterbox_share is None) == dynamic
    # A change of a single prototype is found out.
    damaged = YOLO(path)
    last = damaged.model.model[-1].proto.cv3
    last.conv.weight.data[7] *= 1.3
    found = compare(maskprism.load(path, imgsz=160), maskprism.load(damaged, imgsz=160), pictures)
    assert found.responsible == "prototypes"
    assert found.drift.worst()[0] == 7
