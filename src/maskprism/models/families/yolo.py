"""Layouts: how the output tensors of YOLO-seg networks are read.

A layout is found from the shapes of the outputs and the metadata; whatever stays ambiguous is
refused with the options named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, cast

import cv2
import numpy as np

from maskprism._common.choices import Family
from maskprism.core.masks import NO_CROP, YOLOV5, MaskRule
from maskprism.core.masks import YOLACT as YOLACT_RULE
from maskprism.core.preprocessing import IMAGENET, YOLACT, YOLO, Preprocessing
from maskprism.errors import InputError, ModelError
from maskprism.models.families.rows import RawInstances, Thresholds, finite_columns
from maskprism.models.metadata import refuse_other_tasks

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from maskprism.models.metadata import Metadata

    Floats = Float32[np.ndarray, "..."]


class FamilyTraits(NamedTuple):
    """What a family of networks is, beside how its rows are read: all of it data.

    rows: how detections are packed, as text. rule: how masks are drawn; None for that of the version that wrote the
    file. preprocessing: what becomes of images before. keep: which detections its own tools keep. side, multiple: of
    the canvas in pixels, where the network takes any, and what its sides are multiples of.
    """

    rows: str
    rule: MaskRule | None = None
    preprocessing: Preprocessing = YOLO
    keep: Thresholds = Thresholds()
    side: int = 640
    multiple: int = 32


FAMILIES: dict[Family, FamilyTraits] = {
    "yolov5": FamilyTraits(
        "rows of cx, cy, w, h, objectness, classes, coefficients (YOLOv5, YOLOv7), then NMS", rule=YOLOV5
    ),
    "yolov8": FamilyTraits("columns of cx, cy, w, h, classes, coefficients (YOLOv8, 9, 11, 12, 26), then NMS"),
    "end2end": FamilyTraits("finished rows of x1, y1, x2, y2, score, class, coefficients (YOLO26, exports with NMS)"),
    "yolact": FamilyTraits(
        "outputs of their own for boxes against priors, classes with the background first, coefficients (YOLACT)",
        rule=YOLACT_RULE,
        preprocessing=YOLACT,
        keep=Thresholds(conf=0.15, iou=0.5, max_det=100),
        side=550,
        multiple=1,
    ),
    "query": FamilyTraits(
        "finished masks of queries, taken apart inside the file (Mask2Former, RF-DETR, SAM; ONNX only)",
        rule=NO_CROP,
        preprocessing=IMAGENET,
        keep=Thresholds(conf=0.5, max_det=100),
    ),
}

_STRIDE_SETS = ((8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64))
_CLASS_OFFSET = np.float32(7680)
_MAX_CANDIDATES = 30_000
_NORMALISED_LIMIT = 2.0


@dataclass(frozen=True)
class Layout:
    """Where things are in the outputs.

    rows_output, prototypes_output: index of the tensor. channels_last: a detection is a row
    rather than a column. prototypes_last: prototypes are (h, w, K) rather than (K, h, w).
    """

    family: Family
    rows_output: int
    prototypes_output: int
    channels_last: bool
    prototypes_last: bool
    classes: int | None
    prototypes: int

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of how this network is read, one sentence each."""
        return ()

    def grid_hw(self, shapes: Sequence[tuple[int, ...]]) -> tuple[int, int]:
        """(height, width) of the prototypes in outputs of these shapes."""
        shape = shapes[self.prototypes_output]
        return (shape[1], shape[2]) if self.prototypes_last else (shape[2], shape[3])

    def count(self, shapes: Sequence[tuple[int, ...]]) -> int:
        """How many candidates, or finished rows, outputs of these shapes hold."""
        return shapes[self.rows_output][1 if self.channels_last else 2]

    def read_prototypes(self, outputs: Sequence[Floats], index: int) -> Float32[np.ndarray, "K h w"]:
        """The prototypes of image `index` of the batch."""
        found = outputs[self.prototypes_output][index]
        return np.ascontiguousarray(np.moveaxis(found, -1, 0) if self.prototypes_last else found)

    @property
    def score_limits(self) -> tuple[float, float]:
        """What raw scores lie between."""
        return 0, 1

    def raw_scores(self, outputs: Sequence[Floats], index: int) -> Floats | None:
        """What image `index` of the batch has as scores, objectness included; None where they are made here."""
        table = outputs[self.rows_output][index]
        columns = table.T if self.channels_last else table
        return columns[4:5] if self.family == "end2end" else columns[4 : len(columns) - self.prototypes]

    def read_rows(
        self, outputs: Sequence[Floats], index: int, canvas_hw: tuple[int, int], keep: Thresholds
    ) -> RawInstances:
        """The detections of image `index` of the batch that pass `keep`, best first.

        Rows with NaN or infinity are left out and counted.
        """
        found = outputs[self.rows_output][index]
        columns = found.T if self.channels_last else found
        if self.family == "end2end":
            return self._read_finished(columns, canvas_hw, keep)
        return self._read_candidates(columns, canvas_hw, keep)

    def _read_finished(self, columns: Floats, canvas_hw: tuple[int, int], keep: Thresholds) -> RawInstances:
        sound = finite_columns(columns)
        wanted = ~(columns[4] <= keep.conf)  # NaN is not known to be below
        if keep.classes is not None:
            wanted &= np.isin(columns[5], keep.classes) | ~np.isfinite(columns[5])
        chosen = wanted & sound
        best = np.argsort(-columns[4, chosen], kind="stable")[: keep.max_det]
        rows = columns[:, chosen].T[best]
        boxes = rows[:, :4] * _scale(canvas_hw) if _are_normalised(columns[:4]) else rows[:, :4].copy()
        return RawInstances(
            boxes,
            rows[:, 4].copy(),
            rows[:, 5].astype(np.int64),
            rows[:, 6:].copy(),
            None,
            n_not_finite=int(np.count_nonzero(wanted & ~sound)),
        )

    def _read_candidates(self, columns: Floats, canvas_hw: tuple[int, int], keep: Thresholds) -> RawInstances:
        first_class = 5 if self.family == "yolov5" else 4
        first_coefficient = columns.shape[0] - self.prototypes
        best_scores = columns[4] if self.family == "yolov5" else columns[first_class:first_coefficient].max(axis=0)
        chosen = np.flatnonzero(~(best_scores <= keep.conf))  # NaN is not known to be below
        scale = _scale(canvas_hw) if _are_normalised(columns[:4]) else np.float32(1)
        with np.errstate(over="ignore", invalid="ignore"):  # such boxes are left out
            boxes = _corners(columns[:4, chosen].T) * scale
        sound = finite_columns(columns[:, chosen]) & np.isfinite(boxes).all(axis=1)
        n_not_finite = len(chosen) - int(np.count_nonzero(sound))
        chosen, boxes = chosen[sound], boxes[sound]
        rows = columns[:, chosen].T
        by_class = rows[:, first_class:first_coefficient]
        objectness = None
        if self.family == "yolov5":
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
        """Where each level of the pyramid ends among `count` candidates, the finest first; None where nothing fits.

        Finished rows are sorted by score, and heads that leave candidates out do not say which.
        """
        per_cell = {"yolov8": 1, "yolov5": 3}.get(self.family, 0)
        for strides in _STRIDE_SETS:
            ends = np.cumsum([per_cell * (canvas_hw[0] // one) * (canvas_hw[1] // one) for one in strides]).tolist()
            if ends[-1] == count:
                return tuple(ends)
        return None


def non_maximum_suppression(
    boxes_xyxy: Float32[np.ndarray, "N 4"],
    scores: Float32[np.ndarray, " N"],
    classes: Int64[np.ndarray, " N"],
    iou: float,
) -> Int64[np.ndarray, " M"]:
    """Indices of the boxes that no better box of the same class overlaps by more than `iou`, best first."""
    order = np.argsort(-scores, kind="stable")[:_MAX_CANDIDATES]
    # One shift per class keeps classes apart; in float32, because that is what YOLO predictors do.
    shifted = (boxes_xyxy + (classes[:, None] * _CLASS_OFFSET).astype(np.float32))[order].astype(np.float64)
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


def detect_layout(
    shapes: Sequence[tuple[int, ...]],
    canvas_hw: tuple[int, int],
    metadata: Metadata,
    label: str,
    forced: Family | None = None,
    *,
    images_last: bool,
) -> Layout:
    """The layout of outputs of these shapes for a canvas of (height, width).

    `images_last`: the network takes images as (H, W, 3), and so likely gives its prototypes.

    Raises ModelError where the outputs hold no prototypes, or where several layouts fit and
    neither the metadata nor `forced` decides.
    """
    if forced is not None and forced not in FAMILIES:
        raise InputError(f"there is no layout {forced!r}; expected one of {', '.join(FAMILIES)}")
    refuse_other_tasks(metadata.task, label)
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
            layout for candidate in candidates for layout in _force(shapes, *candidate, forced)
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
            f"one of: {'; '.join(f'{name}: {family.rows}' for name, family in FAMILIES.items())}"
        )
    if len(families) == 1:
        raise ModelError(
            f"{label}: several outputs or axes could be the prototypes among shapes {described}; export with the "
            "class names in the metadata, another input size, or with only two outputs"
        )
    raise ModelError(
        f"{label}: outputs of shape {described} can be read in several ways: "
        f"{'; '.join(f'{name}: {FAMILIES[name].rows}' for name in sorted(families))}. Say which with layout="
    )


def _find_prototypes(
    shapes: Sequence[tuple[int, ...]], canvas_hw: tuple[int, int], label: str
) -> list[tuple[int, bool, int]]:
    """Every (output index, whether prototypes are on the last axis, their number) that fits the canvas."""
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
    return {sum((canvas_hw[0] // stride) * (canvas_hw[1] // stride) for stride in strides) for strides in _STRIDE_SETS}


def _readings(
    index: int,
    shape: tuple[int, ...],
    prototypes_output: int,
    prototypes_last: bool,
    k: int,
    canvas_hw: tuple[int, int],
) -> list[Layout]:
    """Every way to read one tensor of 3 axes (batch first) as detections."""
    anchors = _anchor_counts(canvas_hw)
    found = []
    for channels_last in (False, True):
        channels, count = (shape[2], shape[1]) if channels_last else (shape[1], shape[2])

        def layout(family: Family, classes: int | None, last: bool = channels_last) -> Layout:
            return Layout(family, index, prototypes_output, last, prototypes_last, classes, k)

        if count in anchors and channels - 4 - k > 0:
            found.append(layout("yolov8", channels - 4 - k))
        if count in {3 * anchor for anchor in anchors} and channels - 5 - k > 0:
            found.append(layout("yolov5", channels - 5 - k))
        if channels_last and channels == 6 + k:
            found.append(layout("end2end", None))
    if found:
        return found
    # No known number of anchors (heads that leave some out): the longer side is theirs.
    channels_last = shape[1] > shape[2]
    channels = min(shape[1:])
    for family, classes in (("yolov8", channels - 4 - k), ("yolov5", channels - 5 - k)):
        if classes > 0:
            found.append(
                Layout(cast(Family, family), index, prototypes_output, channels_last, prototypes_last, classes, k)
            )
    return found


def _force(
    shapes: Sequence[tuple[int, ...]],
    prototypes_output: int,
    prototypes_last: bool,
    k: int,
    family: Family,
) -> list[Layout]:
    """The forced family on the one tensor of 3 axes, with the longer side (or known count) as detections."""
    overhead = {"yolov8": 4, "yolov5": 5}.get(family)
    if overhead is None:  # finished rows are recognised by their number of columns, wherever they are
        return []
    found = []
    for index, shape in enumerate(shapes):
        if len(shape) != 3:
            continue
        channels_last = shape[1] > shape[2]
        classes = min(shape[1:]) - overhead - k
        if classes > 0:
            found.append(Layout(family, index, prototypes_output, channels_last, prototypes_last, classes, k))
    return found


def _decide_by_metadata(found: list[Layout], metadata: Metadata) -> list[Layout]:
    if metadata.names:
        found = [layout for layout in found if layout.classes in (None, len(metadata.names))] or found
    # A file that names its classes and has finished rows says so.
    if metadata.end2end is not None or metadata.names:
        finished = metadata.end2end or bool(metadata.nms)
        found = [layout for layout in found if (layout.family == "end2end") == finished] or found
    if metadata.version:  # Ultralytics writes it, and never rows with objectness
        found = [layout for layout in found if layout.family != "yolov5"] or found
    return found


def _corners(boxes_cxcywh: Floats) -> Floats:
    centre, half = boxes_cxcywh[:, :2], boxes_cxcywh[:, 2:4] / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _scale(canvas_hw: tuple[int, int]) -> Floats:
    height, width = canvas_hw
    return np.array([width, height, width, height], dtype=np.float32)


def _are_normalised(coordinates: Floats) -> bool:
    """Whether all boxes of an image lie within the first pixels of the canvas: then they are in 0..1."""
    return float(coordinates[np.isfinite(coordinates)].max(initial=0)) <= _NORMALISED_LIMIT
