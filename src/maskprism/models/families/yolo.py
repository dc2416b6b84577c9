"""YOLO-seg: one table of detections, and prototypes. Families differ in what the columns of the table are.

The layout is found from the shapes of the outputs and the metadata; whatever stays ambiguous is refused with the
options named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskprism.core.masks import YOLOV5 as YOLOV5_RULE
from maskprism.errors import ModelError
from maskprism.models.families.family import Family, Layout, Probe
from maskprism.models.families.rows import RawInstances, Thresholds, canvas_scale, corners, finite_columns
from maskprism.models.families.unsupported import coefficients_apart, refusal

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from maskprism.models.families import FamilyName
    from maskprism.models.metadata import Metadata

    Floats = Float32[np.ndarray, "..."]

STRIDE_SETS = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64))
CLASS_OFFSET = np.float32(7680)
MAX_CANDIDATES = 30_000
NORMALISED_LIMIT = 2.0


@dataclass(frozen=True)
class YoloFamily(Family):
    """A family whose detections are one table.

    Parameters
    ----------
    columns
        How many columns come before the classes, or before the coefficients where the table has no classes.
    per_cell
        Candidates per cell of a level of the pyramid; 0 for finished rows, which are sorted by score.
    """

    columns: int = 4
    per_cell: int = 1


@dataclass(frozen=True)
class YoloLayout(Layout):
    """Where things are in the outputs of a YOLO-seg."""

    @property
    def traits(self) -> YoloFamily:
        """Of its family."""
        return next(family for family in FAMILIES if family.name == self.family)

    def raw_scores(self, outputs: Sequence[Floats], index: int) -> Floats | None:
        """Return the scores of image `index` of the batch, objectness included."""
        table = outputs[self.rows_output][index]
        columns = table.T if self.channels_last else table
        return columns[4 : len(columns) - self.prototypes] if self.traits.per_cell else columns[4:5]

    def read_rows(
        self, outputs: Sequence[Floats], index: int, canvas_hw: tuple[int, int], keep: Thresholds
    ) -> RawInstances:
        """Return the detections of image `index` of the batch that pass `keep`, best first.

        Rows with NaN or infinity are left out and counted.
        """
        table = outputs[self.rows_output][index]
        columns = table.T if self.channels_last else table
        read = self._read_candidates if self.traits.per_cell else self._read_finished
        return read(columns, canvas_hw, keep)

    def _read_finished(self, columns: Floats, canvas_hw: tuple[int, int], keep: Thresholds) -> RawInstances:
        sound = finite_columns(columns)
        wanted = ~(columns[4] <= keep.conf)  # NaN is not known to be below
        if keep.classes is not None:
            wanted &= np.isin(columns[5], keep.classes) | ~np.isfinite(columns[5])
        chosen = wanted & sound
        best = np.argsort(-columns[4, chosen], kind="stable")[: keep.max_det]
        rows = columns[:, chosen].T[best]
        boxes = rows[:, :4] * canvas_scale(canvas_hw) if _are_normalised(columns[:4]) else rows[:, :4].copy()
        return RawInstances(
            boxes,
            rows[:, 4].copy(),
            rows[:, 5].astype(np.int64),
            rows[:, 6:].copy(),
            None,
            n_not_finite=int(np.count_nonzero(wanted & ~sound)),
        )

    def _read_candidates(self, columns: Floats, canvas_hw: tuple[int, int], keep: Thresholds) -> RawInstances:
        first_class, first_coefficient = self.traits.columns, columns.shape[0] - self.prototypes
        with_objectness = self.traits.objectness
        best_scores = columns[4] if with_objectness else columns[first_class:first_coefficient].max(axis=0)
        chosen = np.flatnonzero(~(best_scores <= keep.conf))  # NaN is not known to be below
        scale = canvas_scale(canvas_hw) if _are_normalised(columns[:4]) else np.float32(1)
        with np.errstate(over="ignore", invalid="ignore"):  # such boxes are left out
            boxes = corners(columns[:4, chosen].T) * scale
        sound = finite_columns(columns[:, chosen]) & np.isfinite(boxes).all(axis=1)
        n_not_finite = len(chosen) - int(np.count_nonzero(sound))
        chosen, boxes = chosen[sound], boxes[sound]
        rows = columns[:, chosen].T
        by_class = rows[:, first_class:first_coefficient]
        objectness = None
        if with_objectness:
            objectness = rows[:, 4].copy()
            by_class = by_class * objectness[:, None]
        if keep.multi_label:
            candidates, classes = np.nonzero(by_class > keep.conf)
        else:
            candidates, classes = np.arange(len(rows)), by_class.argmax(axis=1)
        rows, scores = rows[candidates], by_class[candidates, classes]
        objectness = None if objectness is None else objectness[candidates]
        wanted = scores > keep.conf
        if keep.classes is not None:
            wanted &= np.isin(classes, keep.classes)
        rows, classes, scores, boxes = rows[wanted], classes[wanted], scores[wanted], boxes[candidates][wanted]
        ends = self.level_ends(columns.shape[1], canvas_hw)
        apart = np.zeros_like(classes) if keep.agnostic else classes
        best = non_maximum_suppression(boxes, scores, apart, keep.iou)[: keep.max_det]
        return RawInstances(
            boxes[best],
            scores[best],
            classes[best].astype(np.int64),
            rows[best, first_coefficient:],
            None if objectness is None else objectness[wanted][best],
            None if ends is None else np.searchsorted(ends, chosen[candidates][wanted][best], side="right"),
            n_not_finite,
        )

    def level_ends(self, count: int, canvas_hw: tuple[int, int]) -> tuple[int, ...] | None:
        """Return where each level of the pyramid ends among `count` candidates, the finest first.

        None where nothing fits.

        Finished rows are sorted by score, and heads that leave candidates out do not say which.
        """
        for strides in STRIDE_SETS:
            cells = [(canvas_hw[0] // stride) * (canvas_hw[1] // stride) for stride in strides]
            ends = np.cumsum([self.traits.per_cell * n_cells for n_cells in cells]).tolist()
            if ends[-1] == count:
                return tuple(ends)
        return None


def non_maximum_suppression(
    boxes_xyxy: Float32[np.ndarray, "N 4"],
    scores: Float32[np.ndarray, " N"],
    classes: Int64[np.ndarray, " N"],
    iou: float,
) -> Int64[np.ndarray, " M"]:
    """Return indices of the boxes that no better box of the same class overlaps by more than `iou`, best first."""
    order = np.argsort(-scores, kind="stable")[:MAX_CANDIDATES]
    # One shift per class keeps classes apart; in float32, because that is what YOLO predictors do.
    shifted = (boxes_xyxy + (classes[:, None] * CLASS_OFFSET).astype(np.float32))[order].astype(np.float64)
    shifted[:, 2:] -= shifted[:, :2]
    kept = np.ones(len(order), dtype=bool)
    # Boxes without area overlap nothing; OpenCV would say that two of them are the same.
    sized = np.flatnonzero((shifted[:, 2:] > 0).all(axis=1))
    if len(sized):
        # OpenCV takes 1 - (1 - IoU) in float32; without the margin it would drop some boxes at exactly the threshold.
        found = cv2.dnn.NMSBoxes(shifted[sized].tolist(), scores[order[sized]].astype(float).tolist(), 0.0, iou + 1e-7)
        kept[sized] = False
        kept[sized[np.asarray(found, dtype=np.int64).reshape(-1)]] = True
    return order[kept]


def detect(probe: Probe, forced: FamilyName | None) -> tuple[Layout, Probe]:
    """Find the layout of a YOLO-seg.

    This is asked last, so whatever is none is refused here.

    Raises
    ------
    ModelError
        As `detect_layout`, with the reason for outputs that are known.
    """
    if forced is None and (reason := coefficients_apart(probe.outputs, probe.canvas_hw)) is not None:
        raise ModelError(f"{probe.label}: {reason}")
    try:
        layout = detect_layout(
            probe.shapes, probe.canvas_hw, probe.metadata, probe.label, forced, images_last=probe.images_last
        )
    except ModelError:
        reason = refusal(probe.shapes, probe.names, probe.canvas_hw)
        if reason is None:
            raise
        raise ModelError(f"{probe.label}: {reason}") from None
    return layout, probe


def detect_layout(
    shapes: Sequence[tuple[int, ...]],
    canvas_hw: tuple[int, int],
    metadata: Metadata,
    label: str,
    forced: FamilyName | None = None,
    *,
    images_last: bool,
) -> YoloLayout:
    """Return the layout of outputs of these shapes for a canvas of (height, width).

    `images_last`: the model takes images as (H, W, 3), and so likely gives its prototypes.

    Raises
    ------
    ModelError
        Where the outputs hold no prototypes, or where several layouts fit and neither the metadata nor `forced`
        decides.
    """
    candidates = _find_prototypes(shapes, canvas_hw, label)
    found = [
        layout
        for candidate in candidates
        for index, shape in enumerate(shapes)
        if len(shape) == 3
        for layout in _readings(index, shape, *candidate, canvas_hw)
    ]
    if forced:
        found = [layout for layout in found if layout.family == forced] or [
            layout
            for candidate in candidates
            for index, shape in enumerate(shapes)
            if len(shape) == 3
            for layout in _along_longer_side(index, shape, *candidate)
            if layout.family == forced
        ]
    found = _decide_by_metadata(found, metadata)
    found = [layout for layout in found if layout.prototypes_last == images_last] or found
    if len(found) == 1:
        return found[0]
    families = {layout.family for layout in found}
    described = ", ".join(str(tuple(shape)) for shape in shapes)
    if not found:
        counts = " or ".join(str(k) for _, _, k in candidates)
        raise ModelError(
            f"{label}: outputs of shape {described} hold {counts} prototypes and no detections that fit them; expected "
            f"one of: {'; '.join(f'{family.name}: {family.outputs}' for family in FAMILIES)}"
        )
    if len(families) == 1:
        raise ModelError(
            f"{label}: several outputs or axes could be the prototypes among shapes {described}; export with the "
            "class names in the metadata, another input size, or with only two outputs"
        )
    raise ModelError(
        f"{label}: outputs of shape {described} can be read in several ways: "
        f"{'; '.join(sorted(f'{one.name}: {one.outputs}' for one in FAMILIES if one.name in families))}. "
        "Say which with layout="
    )


def _find_prototypes(
    shapes: Sequence[tuple[int, ...]], canvas_hw: tuple[int, int], label: str
) -> list[tuple[int, bool, int]]:
    """Return every (output index, whether prototypes are on the last axis, their number) that fits the canvas."""
    found = []
    for index, shape in enumerate(shapes):
        if len(shape) != 4:
            continue
        for axis in (1, 3):
            h, w = (shape[2], shape[3]) if axis == 1 else (shape[1], shape[2])
            if 0 < h <= canvas_hw[0] and canvas_hw[0] * w == canvas_hw[1] * h and canvas_hw[0] % h == 0:
                found.append((index, axis == 3, shape[axis]))
    if not found:
        described = ", ".join(str(tuple(shape)) for shape in shapes)
        kind = "classification" if all(len(shape) == 2 for shape in shapes) else "detection"
        raise ModelError(
            f"{label}: no output holds prototypes (4 axes, two of them the input size over a stride); outputs of "
            f"shape {described} look like a {kind} model. Masks come from a segmentation model"
        )
    return found


def _anchor_counts(canvas_hw: tuple[int, int]) -> set[int]:
    return {sum((canvas_hw[0] // stride) * (canvas_hw[1] // stride) for stride in strides) for strides in STRIDE_SETS}


def _readings(
    index: int,
    shape: tuple[int, ...],
    prototypes_output: int,
    prototypes_last: bool,
    k: int,
    canvas_hw: tuple[int, int],
) -> list[YoloLayout]:
    """Return every way to read one tensor of 3 axes (batch first) as detections."""
    anchors, fitting = _anchor_counts(canvas_hw), []
    for channels_last in (False, True):
        channels, count = (shape[2], shape[1]) if channels_last else (shape[1], shape[2])
        for family in FAMILIES:
            classes = channels - family.columns - k
            if family.per_cell:
                fits = classes > 0 and count in {family.per_cell * anchor for anchor in anchors}
            else:  # finished rows are recognised by their number of columns
                fits = classes == 0 and channels_last
            if fits:
                fitting.append(
                    YoloLayout(
                        family.name, index, prototypes_output, channels_last, prototypes_last, classes or None, k
                    )
                )
    # No known number of anchors: heads that leave some out.
    return fitting or _along_longer_side(index, shape, prototypes_output, prototypes_last, k)


def _along_longer_side(
    index: int, shape: tuple[int, ...], prototypes_output: int, prototypes_last: bool, k: int
) -> list[YoloLayout]:
    """Return the ways to read a tensor whose longer side is that of the candidates, whatever their number."""
    classes = {family.name: min(shape[1:]) - family.columns - k for family in FAMILIES if family.per_cell}
    return [
        YoloLayout(name, index, prototypes_output, shape[1] > shape[2], prototypes_last, n_classes, k)
        for name, n_classes in classes.items()
        if n_classes > 0
    ]


def _decide_by_metadata(found: list[YoloLayout], metadata: Metadata) -> list[YoloLayout]:
    if metadata.names:
        found = [layout for layout in found if layout.classes in (None, len(metadata.names))] or found
    # A file that names its classes and has finished rows says so.
    if metadata.end2end is not None or metadata.names:
        finished = metadata.end2end or bool(metadata.nms)
        found = [layout for layout in found if (not layout.traits.per_cell) == finished] or found
    if metadata.version:  # Ultralytics writes it, and never rows with objectness
        found = [layout for layout in found if not layout.traits.objectness] or found
    return found


def _are_normalised(coordinates: Floats) -> bool:
    """Return whether all boxes of an image lie within the first pixels of the canvas: then they are in 0..1."""
    return float(coordinates[np.isfinite(coordinates)].max(initial=0)) <= NORMALISED_LIMIT


FAMILIES = (
    YoloFamily(
        "yolov5",
        "rows of cx, cy, w, h, objectness, classes, coefficients (YOLOv5, YOLOv7), then NMS",
        detect,
        rule=YOLOV5_RULE,
        objectness=True,
        columns=5,
        per_cell=3,
    ),
    YoloFamily("yolov8", "columns of cx, cy, w, h, classes, coefficients (YOLOv8, 9, 11, 12, 26), then NMS", detect),
    YoloFamily(
        "end2end",
        "finished rows of x1, y1, x2, y2, score, class, coefficients (YOLO26, exports with NMS)",
        detect,
        columns=6,
        per_cell=0,
    ),
)
