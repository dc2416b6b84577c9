"""Detections of an image against its ground truth: the IoU of every detection with every ground-truth instance.

Masks are compared while images stream by, and forgotten. What stays of an image is one
small matrix, so that any number of decodes and counterfactuals of a run fit in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskprism.core.decoding import each_crop
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float64, Int64

    from maskprism.core.geometry import Size
    from maskprism.core.masks import Patch
    from maskprism.core.prediction import Prediction

SIZES: dict[str, tuple[float, float]] = {"small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}
"""COCO's sizes of objects, in pixels of the image."""


@dataclass(frozen=True, eq=False)
class Overlaps:
    """One image: N detections, G ground-truth instances, and the IoU of each with each.

    Attributes
    ----------
    scores
        Any order.
    classes, true_classes
        Ids of the same set of classes.
    iou
        0 to 1; against a crowd, the share of the detection that lies in it (as COCO has it).
    areas, true_areas
        Pixels of the image, for AP by size.
    crowd
        Ground-truth instances that stand for many; what matches them counts neither for nor against.
    """

    scores: Float[np.ndarray, " N"]
    classes: Int64[np.ndarray, " N"]
    true_classes: Int64[np.ndarray, " G"]
    iou: Float64[np.ndarray, "N G"]
    areas: Float[np.ndarray, " N"] | None = None
    true_areas: Float[np.ndarray, " G"] | None = None
    crowd: Bool[np.ndarray, " G"] = field(default_factory=lambda: np.zeros(0, dtype=bool))

    def __post_init__(self) -> None:
        n, g = len(self.scores), len(self.true_classes)
        if not len(self.crowd):
            object.__setattr__(self, "crowd", np.zeros(g, dtype=bool))
        expected: dict[str, tuple[Any, tuple[int, ...]]] = {
            "classes": (self.classes, (n,)),
            "iou": (self.iou, (n, g)),
            "areas": (self.areas, (n,)),
            "true_areas": (self.true_areas, (g,)),
            "crowd": (self.crowd, (g,)),
        }
        for name, (array, shape) in expected.items():
            if array is not None and np.shape(array) != shape:
                raise InputError(
                    f"{name} has shape {np.shape(array)}; expected {shape} for {n} detections and "
                    f"{g} ground-truth instances"
                )

    @cached_property
    def same_class(self) -> Bool[np.ndarray, "N G"]:
        """Which detections name the class of which ground-truth instances."""
        return self.classes[:, None] == self.true_classes[None, :]

    def with_iou(self, iou: Float64[np.ndarray, "N G"]) -> Overlaps:
        """Return the same detections with other masks."""
        return replace(self, iou=iou)


class Region(NamedTuple):
    """A mask as the window that holds it: `mask[rows, columns] = inside`, and nothing elsewhere."""

    rows: slice
    columns: slice
    inside: Bool[np.ndarray, "rows columns"]

    @classmethod
    def of(cls, mask: Bool[np.ndarray, "H W"]) -> Region:
        """Return the smallest window around a mask; an empty one for an empty mask."""
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            return cls(slice(0, 0), slice(0, 0), np.zeros((0, 0), dtype=bool))
        rows_of, columns_of = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        return cls(rows_of, columns_of, mask[rows_of, columns_of])

    @classmethod
    def of_patch(cls, patch: Patch, threshold: float, size_hw: tuple[int, int]) -> Region:
        """Return where a patch of an image of that size is above the threshold."""
        rows, columns = (
            slice(*span.indices(length)[:2]) for span, length in zip((patch.rows, patch.columns), size_hw, strict=True)
        )
        return cls(rows, columns, patch.values > threshold)

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.inside))

    def shared_with(self, other: Region) -> int:
        """Pixels of both masks."""
        top, bottom = max(self.rows.start, other.rows.start), min(self.rows.stop, other.rows.stop)
        left, right = max(self.columns.start, other.columns.start), min(self.columns.stop, other.columns.stop)
        if top >= bottom or left >= right:
            return 0
        mine, its = (
            one.inside[
                top - one.rows.start : bottom - one.rows.start, left - one.columns.start : right - one.columns.start
            ]
            for one in (self, other)
        )
        return int(np.count_nonzero(mine & its))

    def iou_with(self, other: Region) -> float:
        """Intersection over union of both masks; 0 for two empty ones."""
        shared = self.shared_with(other)
        either = self.area + other.area - shared
        return shared / either if either else 0.0


def mask_iou(
    found: Iterable[Region], true: Sequence[Region], crowd: Bool[np.ndarray, " G"] | None = None
) -> Float64[np.ndarray, "N G"]:
    """IoU of every predicted mask with every ground-truth mask; 0 for two empty masks.

    Against a crowd it is the share of the found mask that lies in it.
    """
    true_areas = np.array([region.area for region in true], dtype=np.float64)
    crowd = np.zeros(len(true), dtype=bool) if crowd is None else crowd
    rows = []
    for region in found:
        shared = np.array([region.shared_with(other) for other in true], dtype=np.float64)
        whole = region.area + np.where(crowd, 0, true_areas - shared)
        rows.append(np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0))
    return np.array(rows, dtype=np.float64).reshape(len(rows), len(true))


def box_overlap(
    boxes: Float[np.ndarray, "N 4"], true_boxes: Float[np.ndarray, "G 4"], crowd: Bool[np.ndarray, " G"] | None = None
) -> Float64[np.ndarray, "N G"]:
    """IoU of every predicted box with every ground-truth box (xyxy); against a crowd the share of the former in it."""
    a, b = np.asarray(boxes, dtype=np.float64), np.asarray(true_boxes, dtype=np.float64)
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    shared = np.prod(np.clip(sides, 0, None), axis=2)
    area_a, area_b = (np.prod(one[:, 2:] - one[:, :2], axis=1) for one in (a, b))
    whole = area_a[:, None] + np.where(np.zeros(len(b), dtype=bool) if crowd is None else crowd, 0, area_b - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=whole > 0)


def claims(
    overlap: Float64[np.ndarray, "N G"], scores: Float[np.ndarray, " N"], least: float
) -> Int64[np.ndarray, " N"]:
    """Return the column that each row takes, or -1: the highest score first, each the free one that it overlaps most.

    An overlap below `least` is none. Equal scores keep their order, equal overlaps go to the first column.
    """
    free = overlap.copy()
    taken = np.full(len(free), -1, dtype=np.int64)
    candidates = np.flatnonzero((free >= least).any(axis=1))
    for row in candidates[np.argsort(-scores[candidates], kind="stable")]:
        column = free[row].argmax()
        if free[row, column] >= least:
            taken[row] = column
            free[:, column] = -np.inf
    return taken


def regions(prediction: Prediction, size: Size) -> Iterator[Region]:
    """Yield the masks of a prediction under its rule, in the frame named `size`, one after the other."""
    return (Region(*patch) for patch in each_crop(prediction, size))


def mask_overlaps(
    prediction: Prediction,
    true: Sequence[Region],
    true_classes: Int64[np.ndarray, " G"],
    size: Size,
    *,
    crowd: Bool[np.ndarray, " G"] | None = None,
    least: float = 0.0,
    same_class: bool = False,
    areas: Float[np.ndarray, " N"] | None = None,
) -> Overlaps:
    """Return the masks of a prediction, under its rule at the frame named `size`, against those of the ground truth.

    Only masks that may count are decoded: an IoU that cannot reach `least` is given as 0, and with `same_class` that of
    a detection whose class no ground-truth instance has.

    Parameters
    ----------
    areas
        `mask_areas`, if known.
    """
    crowd = np.zeros(len(true), dtype=bool) if crowd is None else crowd
    true_areas = np.array([region.area for region in true], dtype=np.float64)
    wanted = _reach(prediction, true, true_areas, crowd, size) >= least
    if same_class:
        wanted &= prediction.classes[:, None] == true_classes[None, :]
    chosen = np.flatnonzero(wanted.any(axis=1))
    iou = np.zeros((len(prediction), len(true)))
    iou[chosen] = mask_iou(regions(prediction[chosen], size), true, crowd)
    return Overlaps(
        scores=prediction.scores,
        classes=prediction.classes,
        true_classes=true_classes,
        iou=iou,
        areas=mask_areas(prediction) if areas is None else areas,
        true_areas=true_areas * _image_pixels(prediction, size),
        crowd=crowd,
    )


def mask_areas(prediction: Prediction) -> Float[np.ndarray, " N"]:
    """Areas of all masks in image pixels, counted on the grid: they tell small objects from large ones."""
    return prediction.areas("grid") * _image_pixels(prediction, "grid")


def _image_pixels(prediction: Prediction, size: Size) -> float:
    """Pixels of the image per pixel of the frame."""
    if size == "image":
        return 1.0
    letterbox = prediction.letterbox
    frame_h, frame_w = letterbox.size_hw(size)
    per_canvas = 1 / (letterbox.gain_yx[0] * letterbox.gain_yx[1])
    return per_canvas * (letterbox.canvas_hw[0] / frame_h) * (letterbox.canvas_hw[1] / frame_w)


def _reach(
    prediction: Prediction,
    true: Sequence[Region],
    true_areas: Float64[np.ndarray, " G"],
    crowd: Bool[np.ndarray, " G"],
    size: Size,
) -> Float64[np.ndarray, "N G"]:
    """Return the largest IoU that a mask inside its box can have: the box's share of the ground-truth mask, at most."""
    if prediction.rule.crop_at(size) != "after":  # masks may leave their boxes
        return np.ones((len(prediction), len(true)))
    boxes = prediction.letterbox.from_canvas(prediction.rule.crop_boxes(prediction.extents), size).astype(np.float64)
    windows = np.array([(t.columns.start, t.rows.start, t.columns.stop, t.rows.stop) for t in true]).reshape(-1, 4)
    first = np.maximum(np.floor(boxes[:, None, :2]) - 1, windows[None, :, :2])
    last = np.minimum(np.ceil(boxes[:, None, 2:]) + 1, windows[None, :, 2:])
    shared = np.prod(np.clip(last - first, 0, None), axis=2)
    reach = np.divide(shared, true_areas, out=np.zeros_like(shared), where=true_areas > 0)
    return np.where(crowd, shared > 0, np.minimum(reach, 1))
