"""Ultralytics and maskprism on the same image, as docs/interchange.md shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maskprism

ultralytics = pytest.importorskip("ultralytics")


def test_a_callback_keeps_the_prediction_beside_each_result(real_data: Path) -> None:
    yolo = ultralytics.YOLO(str(real_data / "models" / "yolov8n-seg.pt"))
    model = maskprism.load(yolo)

    def keep(predictor: Any) -> None:
        for result in predictor.results:
            result.prediction = model.predict(result.orig_img)

    yolo.add_callback("on_predict_postprocess_end", keep)
    for name in ("bus.jpg", "zidane.jpg"):
        result = yolo.predict(str(real_data / "images" / name), verbose=False)[0]
        prediction = result.prediction
        np.testing.assert_allclose(result.boxes.xyxy.numpy(), prediction.boxes, atol=1e-3)
        np.testing.assert_array_equal(result.masks.data.numpy() > 0, prediction.masks())
        assert prediction.coefficients.shape == (len(result), 32)
