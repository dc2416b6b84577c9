"""The three decodes that mask AP is measured under: one model has three numbers, and tools name just one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import cv2
import numpy as np

from maskprism.analysis.truth.overlaps import Overlaps, Region, box_overlap, mask_overlaps
from maskprism.core.masks import pixels_between

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float32, UInt8

    from maskprism.core.geometry import Letterbox, Size
    from maskprism.core.prediction import Prediction
    from maskprism.datasets import GroundTruth

ApProtocolName = Literal["validation", "predict", "native"]


class ApProtocol(NamedTuple):
    """Where masks are thresholded and compared, and which command of Ultralytics does it so."""

    size: Size
    tool: str
    meaning: str


AP_PROTOCOLS: dict[ApProtocolName, ApProtocol] = {
    "validation": ApProtocol(
        "grid",
        "val",
        "threshold and crop on the prototype grid; ground-truth masks resized to it, the smallest one in front",
    ),
    "predict": ApProtocol("canvas", "predict", "logits enlarged to the model input, then threshold and crop"),
    "native": ApProtocol("image", "val save_json", "logits enlarged to the image itself"),
}


def true_regions(truth: GroundTruth, letterbox: Letterbox, size: Size) -> list[Region]:
    """Return the ground-truth masks in the frame named `size`; a box without a mask is its own mask."""
    size_hw = letterbox.size_hw(size)
    boxes = letterbox.from_canvas(letterbox.to_canvas(truth.boxes), size)
    return [
        _box_region(box, size_hw) if alone else Region.of_patch(patch, 0.5, size_hw)
        for patch, box, alone in zip(truth.patches(size, letterbox), boxes, truth.box_only, strict=True)
    ]


def validation_regions(truth: GroundTruth, letterbox: Letterbox) -> list[Region]:
    """Return the ground-truth masks on the prototype grid as Ultralytics validates against them.

    Outlines lose their fractions and are filled on the canvas, which is then resized to the grid; a
    pixel of several instances belongs to the smallest of them. Crowds hide nothing and are not hidden.
    """
    masks = [_resized(truth, region, i, letterbox) for i, region in enumerate(true_regions(truth, letterbox, "canvas"))]
    owner = np.full(letterbox.grid_hw, -1)
    real = np.flatnonzero(~excused(truth))
    for i in sorted(real, key=lambda i: -np.count_nonzero(masks[i])):
        owner[masks[i]] = i
    return [Region.of(owner == i if i in real else mask) for i, mask in enumerate(masks)]


def excused(truth: GroundTruth) -> Bool[np.ndarray, " M"]:
    """Ground-truth instances that no detection has to find: crowds, and boxes without a mask."""
    return truth.crowd | truth.box_only


def overlaps_under(
    prediction: Prediction,
    truth: GroundTruth,
    decode: ApProtocolName,
    *,
    least: float = 0.5,
    same_class: bool = True,
    areas: Float[np.ndarray, " N"] | None = None,
) -> Overlaps:
    """Return the masks of a prediction under one decode against those of the ground truth; see `mask_overlaps`."""
    size, letterbox = AP_PROTOCOLS[decode].size, prediction.letterbox
    true = validation_regions(truth, letterbox) if decode == "validation" else true_regions(truth, letterbox, size)
    return mask_overlaps(
        prediction, true, truth.classes, size, crowd=excused(truth), least=least, same_class=same_class, areas=areas
    )


def overlaps_of_boxes(prediction: Prediction, truth: GroundTruth) -> Overlaps:
    """Return the boxes of a prediction against those of the ground truth, in image pixels."""
    boxes = prediction.boxes
    return Overlaps(
        scores=prediction.scores,
        classes=prediction.classes,
        true_classes=truth.classes,
        iou=box_overlap(boxes, truth.boxes, truth.crowd),
        areas=np.prod(boxes[:, 2:] - boxes[:, :2], axis=1),
        true_areas=truth.areas,
        crowd=truth.crowd,
    )


def _resized(truth: GroundTruth, region: Region, index: int, letterbox: Letterbox) -> Bool[np.ndarray, "h w"]:
    """One ground-truth mask from the canvas to the grid."""
    canvas: UInt8[np.ndarray, "H W"] = np.zeros(letterbox.canvas_hw, dtype=np.uint8)
    polygons = truth.polygons(index, "canvas", letterbox)
    for polygon in polygons:
        cv2.fillPoly(canvas, [polygon.astype(np.int32)], 1)
    if not polygons:
        canvas[region.rows, region.columns] = region.inside
    height, width = letterbox.grid_hw
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_LINEAR) > 0


def _box_region(box: Float32[np.ndarray, " 4"], size_hw: tuple[int, int]) -> Region:
    rows, columns = pixels_between(box[1], box[3], size_hw[0]), pixels_between(box[0], box[2], size_hw[1])
    return Region(rows, columns, np.ones((rows.stop - rows.start, columns.stop - columns.start), dtype=bool))
