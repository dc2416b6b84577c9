"""Which instance of one model is which of another, on the same image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.comparison.class_map import classes_in_a
from maskprism.analysis.truth.overlaps import claims
from maskprism.core.geometry import box_iou

if TYPE_CHECKING:
    from jaxtyping import Int64

    from maskprism.core.prediction import Prediction

PAIR_IOU = 0.5
"""Boxes of a pair of instances overlap at least this much."""
_NAMES: Mapping[int, int] = {}


def pair_instances(
    a: Prediction, b: Prediction, *, min_iou: float = PAIR_IOU, moved: Mapping[int, int] | None = _NAMES
) -> Int64[np.ndarray, "M 2"]:
    """Pairs (instance of A, instance of B), one to one, of boxes that overlap and of one class.

    Greedy: the instances of A, most confident first, each take the free one with the largest box IoU.

    Parameters
    ----------
    a, b
        Predictions of the same image.
    min_iou
        Box IoU of a pair, at least.
    moved
        B's class by A's class where it is not the one of that name; None pairs any class with any.
    """
    boxes_a, boxes_b = (one.letterbox.to_image(one.extents) for one in (a, b))  # also those in the padding
    overlap = box_iou(boxes_a, boxes_b)
    for row in np.flatnonzero((boxes_a[:, 2:] <= boxes_a[:, :2]).any(axis=1)):  # without area, and still the same box
        overlap[row, (boxes_b == boxes_a[row]).all(axis=1)] = 1
    if moved is not None:
        overlap = np.where(a.classes[:, None] == classes_in_a(b, a, moved)[None], overlap, 0)
    partners = claims(overlap, a.scores, min_iou)
    paired = np.flatnonzero(partners >= 0)
    return np.stack([paired, partners[paired]], axis=1)
