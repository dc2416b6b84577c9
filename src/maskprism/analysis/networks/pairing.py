"""Which instance of one network is which of another, on the same image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.truth.overlaps import claims
from maskprism.geometry import box_iou

if TYPE_CHECKING:
    from jaxtyping import Int64

    from maskprism.prediction import Prediction

PAIR_IOU = 0.5
"""Boxes of a pair of instances overlap at least this much."""


def pair_instances(
    a: Prediction, b: Prediction, *, min_iou: float = PAIR_IOU, classes: bool = True
) -> Int64[np.ndarray, "M 2"]:
    """Pairs (instance of A, instance of B), one to one, of boxes that overlap and of one class.

    Greedy: the instances of A, most confident first, each take the free one with the largest box
    IoU. Without `classes` any class goes with any.
    """
    boxes_a, boxes_b = (one.letterbox.to_image(one.extents) for one in (a, b))  # also those in the padding
    overlap = box_iou(boxes_a, boxes_b)
    for row in np.flatnonzero((boxes_a[:, 2:] <= boxes_a[:, :2]).any(axis=1)):  # without area, and still the same box
        overlap[row, (boxes_b == boxes_a[row]).all(axis=1)] = 1
    if classes:
        overlap *= a.classes[:, None] == _classes_of(b, a)[None]
    partners = claims(overlap, a.scores, min_iou)
    paired = np.flatnonzero(partners >= 0)
    return np.stack([paired, partners[paired]], axis=1)


def _classes_of(b: Prediction, a: Prediction) -> Int64[np.ndarray, " N"]:
    """The classes of B as A numbers them: by name, or unchanged if the networks share no name."""
    ids = {name: class_id for class_id, name in a.names.items()}
    if not set(ids) & set(b.names.values()):
        return b.classes
    return np.array([ids.get(b.name_of(class_id), -1) for class_id in b.classes], dtype=np.int64)
