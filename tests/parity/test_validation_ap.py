"""Mask AP under the "validation" decode against what Ultralytics' own `val` prints, on real weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

import maskprism
from maskprism.analysis.dataset.ap_protocols import overlaps_of_boxes, overlaps_under
from maskprism.analysis.dataset.coco_ap import average_precision
from maskprism.datasets import open_dataset
from maskprism.models.runtimes import FunctionRuntime


@pytest.fixture(scope="module")
def data(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of coco128-seg: Ultralytics writes a cache beside the labels."""
    source = real_data / "datasets" / "coco128-seg"
    if not source.is_dir():
        pytest.skip(f"no coco128-seg in {real_data}")
    folder = tmp_path_factory.mktemp("data") / "coco128-seg"
    shutil.copytree(source, folder)
    described = yaml.safe_load((source / "coco128-seg.yaml").read_text(encoding="utf-8"))
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(described | {"path": str(folder)}), encoding="utf-8")
    return path


@pytest.mark.timeout(900)  # a minute on a quiet machine
def test_average_precision_of_validation(real_data: Path, data: Path, tmp_path: Path) -> None:
    """An export, so that both see the same canvas up to rounding of the letterbox; `val` pads a .pt in its own way.

    With their own matching and curves it comes closer still: what is left then is neither decode nor truth.
    """
    from ultralytics import YOLO

    path = real_data / "models" / "yolov8n-seg.onnx"
    theirs = YOLO(str(path), task="segment").val(
        data=str(data), imgsz=640, batch=1, device="cpu", workers=0, plots=False, verbose=False, project=str(tmp_path)
    )
    model = maskprism.load(path, conf=0.001, multi_label=True)
    masks, boxes = [], []
    for sample in open_dataset(data).for_model(model.spec.names):
        image, truth = sample.read()
        prediction = model.predict(image)
        masks.append(overlaps_under(prediction, truth, "validation"))
        boxes.append(overlaps_of_boxes(prediction, truth))
    for overlaps, metric in ((masks, theirs.seg), (boxes, theirs.box)):
        found = average_precision(overlaps)
        assert found.ap50 == pytest.approx(metric.map50, abs=0.012)
        assert found.ap == pytest.approx(metric.map, abs=0.008)
        ap50, ap = by_their_curves(overlaps)
        assert ap50 == pytest.approx(metric.map50, abs=0.006)
        assert ap == pytest.approx(metric.map, abs=0.004)


def by_their_curves(images: list) -> tuple[float, float]:
    """mAP50 and mAP50-95 by the functions of Ultralytics, of our overlaps."""
    import torch
    from ultralytics.engine.validator import BaseValidator
    from ultralytics.utils.metrics import ap_per_class

    class Thresholds:
        iouv = torch.linspace(0.5, 0.95, 10)

    right, scores, classes, true_classes = [], [], [], []
    for image in images:
        order = np.argsort(-image.scores, kind="stable")
        found = np.zeros((len(order), 10), dtype=bool)
        if len(order) and len(image.true_classes):
            found = BaseValidator.match_predictions(
                Thresholds(),
                torch.tensor(image.classes[order]),
                torch.tensor(image.true_classes),
                torch.tensor(image.iou[order].T),
            ).numpy()
        right.append(found)
        scores.append(image.scores[order])
        classes.append(image.classes[order])
        true_classes.append(image.true_classes)
    ap = ap_per_class(*(np.concatenate(part) for part in (right, scores, classes, true_classes)))[5]
    return float(ap[:, 0].mean()), float(ap.mean())


def test_detections_of_many_labels(real_data: Path, images: list[Path]) -> None:
    """The same raw outputs, suppressed by Ultralytics as it does when it validates."""
    import torch
    from ultralytics.utils.nms import non_max_suppression

    model = maskprism.load(real_data / "models" / "yolov8n-seg.onnx", conf=0.001, multi_label=True)
    outputs = []
    runtime = model.runtime
    recording = FunctionRuntime(lambda tensor: outputs.append(runtime(tensor)) or outputs[-1], runtime.input)
    model = replace(model, runtime=recording)
    for image in images[:8]:
        ours = model.predict(image)
        (theirs,) = non_max_suppression(
            torch.from_numpy(outputs[-1][model.layout.rows_output]),
            conf_thres=0.001,
            iou_thres=0.7,
            multi_label=True,
            max_det=300,
            nc=80,
        )
        theirs = theirs.numpy()
        assert len(ours) == len(theirs)
        np.testing.assert_allclose(ours.scores, theirs[:, 4], atol=1e-6)
        # Equal scores may come in another order.
        key = np.lexsort((ours.canvas_boxes[:, 0], ours.classes, -ours.scores))
        other = np.lexsort((theirs[:, 0], theirs[:, 5], -theirs[:, 4]))
        np.testing.assert_array_equal(ours.classes[key], theirs[other, 5])
        np.testing.assert_allclose(ours.canvas_boxes[key], theirs[other, :4], atol=1e-3)
        np.testing.assert_allclose(ours.coefficients[key], theirs[other, 6:], atol=1e-5)
