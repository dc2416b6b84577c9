"""What a model of one channel sees of colour images, against what Ultralytics feeds it."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import cv2
import numpy as np
import pytest
from PIL import Image

from maskprism.core.preprocessing import YOLO


@pytest.mark.parametrize("size_hw", [(200, 300), (480, 640), (97, 51), (640, 640)])
def test_a_grey_network_sees_the_same_numbers(size_hw: tuple[int, int]) -> None:
    """To the bit: the picture loses its colours before it is resized."""
    import ultralytics
    from ultralytics.models.yolo.segment import SegmentationPredictor
    from ultralytics.nn.tasks import SegmentationModel

    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    image = cv2.resize(noise, size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    yolo = ultralytics.YOLO("yolov8n-seg.yaml", verbose=False)
    yolo.model = SegmentationModel("yolov8n-seg.yaml", ch=1, nc=2, verbose=False)
    yolo.model.task, yolo.model.args = "segment", {"task": "segment"}
    seen = []
    preprocess = SegmentationPredictor.preprocess

    def spy(self, images):
        seen.append(preprocess(self, images))
        return seen[-1]

    with mock.patch.object(SegmentationPredictor, "preprocess", spy):
        yolo.predict(image, imgsz=320, verbose=False)
    rule = replace(YOLO, channels="grey")
    letterbox = rule.letterbox(size_hw, (320, 320), rectangle_stride=32)
    ours = rule.tensor([rule.canvas(image, letterbox)], [letterbox])
    np.testing.assert_array_equal(ours, seen[-1].numpy())
    with mock.patch.object(SegmentationPredictor, "preprocess", spy):
        yolo.predict(Image.fromarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)), imgsz=320, verbose=False)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    np.testing.assert_array_equal(rule.tensor([rule.canvas(grey, letterbox)], [letterbox]), seen[-1].numpy())
