"""YOLACT and YOLACT++: boxes against priors, a background class, Fast NMS.

From Bolya et al., "YOLACT: Real-time Instance Segmentation" (ICCV 2019), sections 3 and 4, and "YOLACT++" (TPAMI
2020); boxes are encoded as in Liu et al., "SSD" (ECCV 2016), with variances of 0.1 and 0.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from maskprism.core.geometry import box_iou, same_shape
from maskprism.core.masks import YOLACT as YOLACT_RULE
from maskprism.core.preprocessing import YOLACT
from maskprism.errors import ModelError
from maskprism.models.families.family import Family, Layout, Probe
from maskprism.models.families.rows import RawInstances, Thresholds, canvas_scale

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from maskprism.models.families import FamilyName

    Floats = Float32[np.ndarray, "..."]

PER_CLASS = 200
"""The number of candidates of a class, the best ones, that Fast NMS looks at."""
VARIANCES = (0.1, 0.2)
_LEVELS, _FIRST_STRIDE = 5, 8
_TOLERANCE = 0.02
"""By how much softmax in half precision, or in 8 bits, misses a sum of one."""

Priors = Literal["base", "plus"]


class PriorShapes(NamedTuple):
    """What priors lie on each cell of a level, for a canvas of 550 pixels.

    Attributes
    ----------
    scales
        Sides in pixels on the finest level, doubled from level to level.
    ratios
        Ratios of width to height.
    square
        All are squares, of the width that a ratio gives (which YOLACT has as a matter of history).
    """

    scales: tuple[float, ...]
    ratios: tuple[float, ...]
    square: bool


PRIORS: dict[Priors, PriorShapes] = {
    "base": PriorShapes((24.0,), (1.0, 0.5, 2.0), square=True),
    "plus": PriorShapes(tuple(24 * 2 ** (step / 3) for step in range(3)), (1.0, 0.5, 2.0), square=False),
}
_SIDE = 550


def level_sizes(canvas_hw: tuple[int, int]) -> list[tuple[int, int]]:
    """(height, width) of the five levels of the pyramid: every stride rounds up (69, 35, 18, 9, 5 for 550)."""
    height, width = (-(-side // _FIRST_STRIDE) for side in canvas_hw)
    sizes = [(height, width)]
    for _ in range(_LEVELS - 1):
        height, width = -(-height // 2), -(-width // 2)
        sizes.append((height, width))
    return sizes


@lru_cache(maxsize=8)
def made_priors(kind: Priors, canvas_hw: tuple[int, int]) -> Float32[np.ndarray, "P 4"]:
    """Return the priors of the configurations for COCO: cx, cy, w, h as shares of the canvas, the finest level first.

    Cells go row by row, and on each cell scales before ratios. Other canvases than 550 have scales in proportion,
    which "base" cuts to whole pixels.
    """
    shapes, levels = PRIORS[kind], []
    side = max(canvas_hw)
    for level, (height, width) in enumerate(level_sizes(canvas_hw)):
        scaled = [scale * 2**level / _SIDE * side for scale in shapes.scales]
        scales = [math.floor(scale + 1e-9) if kind == "base" else scale for scale in scaled]
        roots = [math.sqrt(ratio) for ratio in shapes.ratios]
        sides = [
            (scale * root / side, scale * root / side if shapes.square else scale / root / side)
            for scale in scales
            for root in roots
        ]
        cells = np.empty((height, width, len(sides), 4), dtype=np.float64)
        cells[..., 0] = ((np.arange(width) + 0.5) / width)[None, :, None]
        cells[..., 1] = ((np.arange(height) + 0.5) / height)[:, None, None]
        cells[..., 2:] = sides
        levels.append(cells.reshape(-1, 4))
    found = np.concatenate(levels).astype(np.float32)
    found.setflags(write=False)
    return found


def decoded_boxes(offsets: Float32[np.ndarray, "N 4"], priors: Float32[np.ndarray, "N 4"]) -> Floats:
    """x1, y1, x2, y2 as shares of the canvas: centres move by shares of the prior, sides grow exponentially."""
    centres = priors[:, :2] + offsets[:, :2] * np.float32(VARIANCES[0]) * priors[:, 2:]
    with np.errstate(over="ignore"):  # such a box is not finite, and left out
        halves = priors[:, 2:] * np.exp(offsets[:, 2:] * np.float32(VARIANCES[1])) / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)


def fast_nms(
    boxes: Float32[np.ndarray, "N 4"], scores: Float32[np.ndarray, " N"], iou: float, most: int = PER_CLASS
) -> Int64[np.ndarray, " M"]:
    """Of one class, the boxes that no better one overlaps by more than `iou`, best first.

    Only the `most` best are looked at. A box that is dropped drops others all the same, which is what makes it fast,
    and drops a few more than the usual suppression (section 4.2 of the paper).
    """
    order = np.argsort(-scores, kind="stable")[:most]
    overlaps = np.triu(box_iou(boxes[order], boxes[order]), k=1)
    return order[overlaps.max(axis=0, initial=0) <= iou]


@dataclass(frozen=True)
class YolactLayout(Layout):
    """Where things are in the outputs of a YOLACT: a table each for boxes, scores and coefficients.

    rows_output: the table of coefficients.

    Attributes
    ----------
    boxes_output, scores_output
        Index of the others; scores have the background first.
    priors_output
        Index of the priors; None where they are made.
    made
        Which are made; None also where boxes are corners already.
    """

    boxes_output: int
    scores_output: int
    priors_output: int | None
    made: Priors | None

    @property
    def notes(self) -> tuple[str, ...]:
        """Where the priors come from."""
        if self.priors_output is not None:
            return ("priors: from the file",)
        if self.made is None:
            return ("priors: none, boxes are finished corners",)
        named = {"base": "YOLACT", "plus": "YOLACT++"}[self.made]
        return (f"priors: made as those of {named} for COCO; a model with other scales must be exported with its own",)

    def read_rows(
        self, outputs: Sequence[Floats], index: int, canvas_hw: tuple[int, int], keep: Thresholds
    ) -> RawInstances:
        """Return the detections of image `index` of the batch that pass `keep`, best first.

        A candidate counts for every class above the threshold, as in YOLACT's own evaluation. Rows with NaN or
        infinity are left out and counted.
        """
        scores = outputs[self.scores_output][index][:, 1:]
        found = np.flatnonzero(~(scores.max(axis=1, initial=0) <= keep.conf))  # NaN is not known to be below
        located, coefficients = (outputs[one][index][found] for one in (self.boxes_output, self.rows_output))
        boxes = located if self.corners else decoded_boxes(located, self._priors(outputs, index, canvas_hw)[found])
        scale = canvas_scale(canvas_hw)
        with np.errstate(over="ignore"):  # such boxes are left out
            numbers = np.concatenate([scores[found], located, boxes * scale, coefficients], axis=1)
        sound = np.isfinite(numbers).all(axis=1)
        n_not_finite = len(found) - int(np.count_nonzero(sound))
        found, boxes, coefficients = found[sound], boxes[sound], coefficients[sound]
        scores = scores[found]
        kept = []
        for class_id in np.flatnonzero((scores > keep.conf).any(axis=0)):
            if keep.classes is None or class_id in keep.classes:
                members = np.flatnonzero(scores[:, class_id] > keep.conf)
                members = members[fast_nms(boxes[members], scores[members, class_id], keep.iou)]
                kept.append(np.stack([members, np.full_like(members, class_id)], axis=1))
        rows, classes = np.concatenate([np.zeros((0, 2), dtype=np.int64), *kept]).T
        best = np.argsort(-scores[rows, classes], kind="stable")[: keep.max_det]
        rows, classes = rows[best], classes[best]
        ends = self.level_ends(len(outputs[self.rows_output][index]), canvas_hw)
        return RawInstances(
            boxes[rows] * scale,
            scores[rows, classes],
            classes,
            coefficients[rows],
            None,
            None if ends is None else np.searchsorted(ends, found[rows], side="right"),
            n_not_finite,
        )

    def raw_scores(self, outputs: Sequence[Floats], index: int) -> Floats | None:
        """Return the scores of image `index` of the batch, the background included."""
        return outputs[self.scores_output][index]

    @property
    def corners(self) -> bool:
        """Whether boxes are finished: x1, y1, x2, y2 as shares of the canvas."""
        return self.priors_output is None and self.made is None

    def level_ends(self, count: int, canvas_hw: tuple[int, int]) -> tuple[int, ...] | None:
        """Return where each level of the pyramid ends among `count` candidates, the finest first.

        None where nothing fits.
        """
        cells = np.cumsum([height * width for height, width in level_sizes(canvas_hw)])
        return None if count % cells[-1] else tuple((cells * (count // cells[-1])).tolist())

    def _priors(self, outputs: Sequence[Floats], index: int, canvas_hw: tuple[int, int]) -> Floats:
        if self.made is not None:
            return made_priors(self.made, canvas_hw)
        assert self.priors_output is not None
        priors = outputs[self.priors_output]
        return priors if priors.ndim == 2 else priors[index % len(priors)]


def detect(probe: Probe, forced: FamilyName | None) -> tuple[Layout, Probe] | None:
    """Find the layout of the raw outputs of a YOLACT; None for any other model.

    Names of outputs decide where shapes and values do not.

    Raises
    ------
    ModelError
        If scores are no probabilities, there are no priors and none can be made, or boxes and priors
        look alike.
    """
    outputs, canvas_hw, label = probe.outputs, probe.canvas_hw, probe.label
    tables = {index: one.shape for index, one in enumerate(outputs) if one.ndim == 3 and one.size}
    maps = {index: one.shape for index, one in enumerate(outputs) if one.ndim == 4 and one.size}
    found = [
        (prototypes, axis, count)
        for prototypes, shape in maps.items()
        for axis in ((3, 1) if probe.images_last else (1, 3))
        if same_shape((shape[1], shape[2]) if axis == 3 else (shape[2], shape[3]), canvas_hw)
        for count in dict.fromkeys(size for _, size, _ in tables.values())
        if _is_group([width for _, size, width in tables.values() if size == count], count, shape[axis])
    ]
    if not found:
        return None
    prototypes, axis, count = found[0]
    k = maps[prototypes][axis]
    group = [index for index, shape in tables.items() if shape[1] == count]
    called = {role: _called(probe.names, words, range(len(outputs))) for role, words in _WORDS.items()}
    scores = _scores(outputs, group, k, called, label)
    rest = [index for index in group if index != scores]
    coefficients = _only([index for index in rest if tables[index][2] == k], called["coefficients"], label)
    located = [index for index in rest if index != coefficients]
    apart = [index for index, one in enumerate(outputs) if one.shape == (count, 4)]
    boxes, priors = _boxes_and_priors(outputs, located, apart, called["priors"], label)
    corners = priors is None and boxes in called["corners"]
    layout = YolactLayout(
        family="yolact",
        rows_output=coefficients,
        prototypes_output=prototypes,
        channels_last=True,
        prototypes_last=axis == 3,
        classes=tables[scores][2] - 1,
        prototypes=k,
        boxes_output=boxes,
        scores_output=scores,
        priors_output=priors,
        made=None if corners or priors is not None else _made(count, canvas_hw, label),
    )
    return layout, probe


_WORDS = {
    "boxes": ("loc", "bbox", "box_pred"),
    "corners": ("boxes",),
    "scores": ("conf", "cls", "score"),
    "coefficients": ("mask", "coef"),
    "priors": ("prior", "anchor"),
}
"""How the parts are called in exports, by the beginning of an output's name."""


def _is_group(widths: list[int], count: int, k: int) -> bool:
    """Whether tables of these widths are boxes, coefficients and scores, in any order, with or without priors."""
    left = sorted(widths)
    for width in (4, k):
        if width not in left:
            return False
        left.remove(width)
    return count > k > 0 and len(left) in (1, 2) and max(left) > 1


def _called(names: Sequence[str], words: tuple[str, ...], among: Sequence[int]) -> list[int]:
    return [i for i in among if i < len(names) and names[i].lower().lstrip("/").startswith(words)]


def _only(candidates: list[int], called: list[int], label: str) -> int:
    """Return the one candidate, or the one that is called so."""
    named = [index for index in candidates if index in called]
    if len(candidates) == 1 or len(named) == 1:
        return (named if len(named) == 1 else candidates)[0]
    raise ModelError(
        f"{label}: looks like a YOLACT, and outputs {', '.join(map(str, candidates))} could each be its scores, "
        "coefficients, boxes or priors; name the outputs loc, conf, mask, priors and proto when exporting"
    )


def _scores(outputs: Sequence[Floats], group: list[int], k: int, called: dict[str, list[int]], label: str) -> int:
    """Return the table whose rows are probabilities that sum to one."""
    sums = [index for index in group if _are_probabilities(outputs[index])]
    if sums:
        return _only(sums, called["scores"], label)
    left = [index for index in group if index in called["scores"]] or [
        index for index in group if outputs[index].shape[2] not in (4, k)
    ]
    suspect = outputs[(left or group)[0]]
    raise ModelError(
        f"{label}: looks like a YOLACT whose scores go from {suspect.min():.3g} to {suspect.max():.3g}; expected "
        "probabilities that sum to 1 over the background and the classes. Export it in evaluation mode, with softmax "
        "over the last axis of conf. If it is a YOLO head in pieces, hand its arrays to maskprism.from_arrays"
    )


def _are_probabilities(table: Floats) -> bool:
    if not np.isfinite(table).all():
        return False
    sums = table.sum(axis=2)
    return bool(table.min() >= -_TOLERANCE and abs(sums - 1).max() <= _TOLERANCE)


def _boxes_and_priors(
    outputs: Sequence[Floats], located: list[int], apart: list[int], called: list[int], label: str
) -> tuple[int, int | None]:
    """Return which of the tables of four columns are the boxes, and which the priors, if there are any.

    Parameters
    ----------
    located
        The tables that lie beside scores and coefficients.
    apart
        Those without a batch.
    """
    if len(located) == 1 and not apart:
        return located[0], None
    if len(located) == 1:
        boxes, priors = located[0], _only(apart, called, label)
    else:
        lying = [index for index in located if _are_priors(outputs[index])]
        priors = _only(lying if len(lying) == 1 else located, called, label)
        boxes = next(index for index in located if index != priors)
    if not _are_priors(outputs[priors]):
        low, high = outputs[priors].min(), outputs[priors].max()
        raise ModelError(
            f"{label}: looks like a YOLACT whose priors go from {low:.3g} to {high:.3g}; expected cx, cy, w, h as "
            "shares of the canvas, with centres on it"
        )
    return boxes, priors


def _are_priors(table: Floats) -> bool:
    """Return whether boxes have their centre on the canvas, and sides above zero, all of them."""
    same = table.ndim == 2 or (table == table[:1]).all()  # for every image of the batch
    return bool((table > 0).all() and (table[..., :2] < 1).all() and same)


def _made(count: int, canvas_hw: tuple[int, int], label: str) -> Priors:
    fitting = [kind for kind in PRIORS if len(made_priors(kind, canvas_hw)) == count]
    if fitting:
        return fitting[0]
    known = " or ".join(f"{len(made_priors(kind, canvas_hw)):,}" for kind in PRIORS)
    raise ModelError(
        f"{label}: looks like a YOLACT without its priors, and {count:,} boxes are not those of its configurations for "
        f"COCO, {known} on a canvas of {canvas_hw[0]} x {canvas_hw[1]}; export the priors, (P, 4), as an output too"
    )


FAMILY = Family(
    "yolact",
    "boxes (B, P, 4), scores (B, P, 1 + classes) with the background first, coefficients (B, P, K), prototypes "
    "(B, h, w, K), and priors (P, 4) (YOLACT)",
    detect,
    rule=YOLACT_RULE,
    preprocessing=YOLACT,
    keep=Thresholds(conf=0.15, iou=0.5, max_det=100),
    side=_SIDE,
    multiple=1,
)
