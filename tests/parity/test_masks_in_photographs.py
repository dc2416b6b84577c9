"""The style of masks on photographs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import maskprism
from helpers.mask_contrast import Pictured, share_in_sight
from maskprism.io.images import read_image


def photographs(real: Path) -> Iterator[Pictured]:
    model = maskprism.load(real / "models" / "yolov8n-seg.onnx")
    for path in sorted((real / "datasets" / "coco128-seg").glob("images/*/*.jpg")):
        image = read_image(path)
        yield image, model.predict(image)


def test_the_edges_of_200_masks_in_photographs_are_in_sight(real_data: Path) -> None:
    assert share_in_sight(photographs(real_data), whole=False) >= 0.95
