"""Real weights over all images of coco128-seg, against Ultralytics with the same file and settings."""

from __future__ import annotations

import pytest

import maskprism
from parity.comparison import Tally, ask_both


@pytest.mark.timeout(900)  # a minute on a quiet machine
@pytest.mark.parametrize("file", ["yolov8n-seg.pt", "yolov8n-seg.onnx"])
def test_every_image_of_coco128(real_data, images, file):
    from ultralytics import YOLO

    path = real_data / "models" / file
    yolo, model = YOLO(str(path), task="segment"), maskprism.load(path)
    assert model.spec.rectangular == (path.suffix == ".pt")
    canvas, native = Tally(), Tally()
    for image in images:
        prediction = model.predict(image)
        flat, full = ask_both(yolo, str(image)).values()
        canvas.add(prediction, *flat)
        native.add(prediction.with_rule("retina"), *full)
    for tally in (canvas, native):
        tally.check(at_least=600)
        assert tally.worst_iou >= 0.999, tally
