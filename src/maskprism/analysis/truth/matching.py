"""Which instance is which ground-truth instance: same class, boxes that overlap, the most confident first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.truth.overlaps import box_overlap, claims
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64
    from numpy.typing import ArrayLike

    from maskprism.datasets import GroundTruth
    from maskprism.prediction import Prediction

THRESHOLD = 0.5
"""Boxes that overlap by less than this IoU are not of the same instance."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of instances and ground-truth instances, in the order in which they were found, and who is left over.

    instances, objects: indices into the prediction and the ground truth, pair by pair; no index twice.
    box_iou: of each pair, in image pixels.
    missed: ground-truth instances that nothing found; crowds and boxes without a mask are not counted.
    alone: instances without a partner. excused: those that lie in a crowd of their class, or on a ground-truth
        instance of which the labels give no mask: they count neither for nor against.
    """

    instances: Int64[np.ndarray, " P"]
    objects: Int64[np.ndarray, " P"]
    box_iou: Float64[np.ndarray, " P"]
    missed: Int64[np.ndarray, " A"]
    alone: Int64[np.ndarray, " B"]
    excused: Int64[np.ndarray, " C"]

    @classmethod
    def given(cls, instances: ArrayLike, objects: ArrayLike, box_iou: ArrayLike) -> Matches:
        """Pairs that are known already, with nobody left over."""
        nobody = np.zeros(0, dtype=np.int64)
        return cls(
            instances=np.asarray(instances, dtype=np.int64),
            objects=np.asarray(objects, dtype=np.int64),
            box_iou=np.asarray(box_iou, dtype=np.float64),
            missed=nobody,
            alone=nobody,
            excused=nobody,
        )

    def __len__(self) -> int:
        return len(self.instances)


def match(prediction: Prediction, truth: GroundTruth, *, threshold: float = THRESHOLD) -> Matches:
    """Match greedily: the most confident instance takes the ground-truth instance of its class that its box
    overlaps most.

    threshold: the least box IoU, above 0 and up to 1. Equal scores keep their order. Raises InputError for a
    ground truth of an image of another size.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold is {threshold}; expected an IoU above 0 and up to 1")
    if truth.image_hw != prediction.image_size:
        raise InputError(
            f"the ground truth is about an image of {truth.image_hw[1]} x {truth.image_hw[0]} pixels; "
            f"the prediction is about one of {prediction.image_size[1]} x {prediction.image_size[0]}"
        )
    overlap = box_overlap(prediction.boxes, truth.boxes, truth.crowd)
    overlap[prediction.classes[:, None] != truth.classes[None, :]] = 0
    countable = ~(truth.crowd | truth.box_only)
    found = claims(overlap * countable, prediction.scores, threshold)
    order = np.argsort(-prediction.scores, kind="stable")
    instances, others = order[found[order] >= 0], order[found[order] < 0]
    forgiven = (overlap[others][:, ~countable] >= threshold).any(axis=1)
    return Matches(
        instances=instances,
        objects=found[instances],
        box_iou=overlap[instances, found[instances]],
        missed=np.setdiff1d(np.flatnonzero(countable), found),
        alone=others[~forgiven],
        excused=others[forgiven],
    )
