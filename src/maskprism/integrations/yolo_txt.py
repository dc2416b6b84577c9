"""Label files of Ultralytics: `class x1 y1 x2 y2 ...`, normalised to 0..1, one line per instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from maskprism.core.decoding.outlines import TOLERANCE
from maskprism.integrations.rings import joined_rings, shrunk

if TYPE_CHECKING:
    from maskprism.core.prediction import Prediction


_EDGE = 0.5
"""In pixels: Ultralytics fills polygons together with their edges, which adds so much on each side."""


def yolo_txt(prediction: Prediction, *, tolerance: float = TOLERANCE) -> str:
    """Return the text of a label file; see `Prediction.to_yolo_txt`, which calls this."""
    height, width = prediction.image_size
    lines = []
    for class_id, mask in zip(prediction.classes, prediction.polygons("image", tolerance=tolerance), strict=True):
        if mask.outlines:
            rings = [shrunk(ring, _EDGE) for part in mask.outlines for ring in (part.exterior, *part.holes)]
            values = (joined_rings(rings) / (width, height)).clip(0, 1).reshape(-1)
            lines.append(" ".join([str(int(class_id)), *map(coordinate_text, values.tolist())]) + "\n")
    return "".join(lines)


def coordinate_text(value: float) -> str:
    """Return a coordinate from 0 to 1 as label files have it."""
    return np.format_float_positional(value, precision=6, trim="-")
