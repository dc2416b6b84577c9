"""Which instance is which true object: same class, boxes that overlap, the most confident first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.overlaps import box_overlap
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64

    from maskprism.datasets import GroundTruth
    from maskprism.prediction import Prediction

THRESHOLD = 0.5
"""Boxes that overlap by less than this IoU are not of the same object."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of instances and true objects, in the order in which they were found, and who is left over.

    instances, objects: indices into the prediction and the ground truth, pair by pair; no index twice.
    box_iou: of each pair, in photograph pixels.
    missed: objects that no instance found; crowds and boxes without a mask are not counted.
    alone: instances without an object. excused: instances without one that lie in a crowd of their class, or on
        an object of which the labels give no mask: they count neither for nor against.
    """

    instances: Int64[np.ndarray, " P"]
    objects: Int64[np.ndarray, " P"]
    box_iou: Float64[np.ndarray, " P"]
    missed: Int64[np.ndarray, " A"]
    alone: Int64[np.ndarray, " B"]
    excused: Int64[np.ndarray, " C"]

    def __len__(self) -> int:
        return len(self.instances)


def match(prediction: Prediction, truth: GroundTruth, *, threshold: float = THRESHOLD) -> Matches:
    """Match greedily: the most confident instance takes the object of its class that its box overlaps most.

    threshold: the least box IoU, above 0 and up to 1. Equal scores keep their order. Raises InputError for a
    ground truth of a photograph of another size.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold is {threshold}; expected an IoU above 0 and up to 1")
    if truth.image_hw != prediction.image_size:
        raise InputError(
            f"the ground truth is about a photograph of {truth.image_hw[1]} x {truth.image_hw[0]} pixels; "
            f"the prediction is about one of {prediction.image_size[1]} x {prediction.image_size[0]}"
        )
    overlap = box_overlap(prediction.boxes, truth.boxes, truth.crowd)
    overlap[prediction.classes[:, None] != truth.classes[None, :]] = 0
    overlap[overlap < threshold] = 0
    instances, objects, shared, alone, excused = [], [], [], [], []
    free = overlap * ~(truth.crowd | truth.box_only)
    for index in np.argsort(-prediction.scores, kind="stable").tolist():
        found = int(free[index].argmax()) if len(truth) else -1
        if found >= 0 and free[index, found] > 0:
            instances.append(index)
            objects.append(found)
            shared.append(free[index, found])
            free[:, found] = 0
        elif (overlap[index] * (truth.crowd | truth.box_only)).any():
            excused.append(index)
        else:
            alone.append(index)
    whole = np.flatnonzero(~(truth.crowd | truth.box_only))
    return Matches(
        instances=np.array(instances, dtype=np.int64),
        objects=np.array(objects, dtype=np.int64),
        box_iou=np.array(shared, dtype=np.float64),
        missed=np.setdiff1d(whole, objects).astype(np.int64),
        alone=np.array(alone, dtype=np.int64),
        excused=np.array(excused, dtype=np.int64),
    )
