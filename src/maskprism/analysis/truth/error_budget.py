"""What every part of the model costs a mask: resolution, box, prototypes, coefficients.

Per matched instance the four losses add up to 1 - IoU exactly, since each is the difference of two IoUs of the same
chain of masks, the `counterfactual_masks.Counterfactuals`. They are measured at canvas size, under the rule of the
prediction.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from maskprism._common.files import write_atomically
from maskprism._common.spreadsheet import guarded
from maskprism.analysis.intervals import CLAIMS, Interval, claimed_interval, mean_intervals
from maskprism.analysis.truth.best_coefficients import window_of
from maskprism.analysis.truth.boundary import boundary_agreement, boundary_width
from maskprism.analysis.truth.counterfactual_masks import counterfactuals_of
from maskprism.analysis.truth.overlaps import SIZES, Region
from maskprism.analysis.truth.score_ranking import Ranking, ranking, spearman_interval
from maskprism.analysis.truth.shapes import pieces_of
from maskprism.core.masks import pixels_between
from maskprism.errors import InputError, TableError

if TYPE_CHECKING:
    import os

    import pyarrow as pa
    from jaxtyping import Bool, Int64

    from maskprism.analysis.truth.counterfactual_masks import Counterfactuals, Pair
    from maskprism.analysis.truth.matching import Matches
    from maskprism.core.prediction import Prediction
    from maskprism.datasets import GroundTruth

Part = Literal["resolution", "box", "prototypes", "coefficients"]
PARTS: tuple[Part, ...] = ("resolution", "box", "prototypes", "coefficients")
DUAL_PARTS = ("dual_box", "dual_coefficients", "dual_prototypes", "dual_resolution")
BESIDE = ("true_box_iou", "uncropped_iou", "threshold_iou", "boundary_iou", "interior_iou", "leak")
"""Columns in addition to the budget."""
THRESHOLDS = tuple(step / 20 for step in range(1, 20))
"""Probabilities at which one threshold for all masks is tried; 0.5 is the rule's own."""
RING = 0.25
"""Width of the ring around a box in which a leak is looked for, as a share of the box's sides."""


@dataclass(frozen=True)
class InstanceBudget:
    """The error budget of one matched instance; all numbers are IoUs or differences of IoUs, 0 to 1.

    Attributes
    ----------
    image, instance, object
        Which one, and the number of its ground-truth instance.
    box_iou
        Box iou of both boxes.
    area
        Pixels of the ground-truth instance in the image.
    size
        "small", "medium" or "large" by it, as in COCO.
    iou
        IoU of its mask with the ground truth, on the canvas.
    resolution, box, prototypes, coefficients
        The losses, which add up to 1 - iou. A loss may be negative where what should do harm happens to help: a crop
        that cuts a rounded edge right, or prototypes that draw finer than averages of cells.
    dual_box, dual_coefficients, dual_prototypes, dual_resolution
        The losses in another order, the box put right first; they add up to 1 - iou, too. Parts that differ much
        between both orders cost by acting together.
    true_box_iou, uncropped_iou
        With the ground-truth box for the crop, and without a crop.
    threshold, threshold_iou
        The one threshold on the resized logits (probabilities, where the rule squashes) that would be best for this
        instance, and what it would give.
    boundary_iou, interior_iou
        Along the outlines, and away from that of the ground truth (nan for thin objects).
    leak
        The share of a ring around the box in which the logits, uncropped, say mask and the ground truth does not.
    drawn_pieces
        Parts of its mask that are not connected; see `shapes.Shape`.
    shift_x, shift_y
        How far the box of the ground truth lies right of and below the predicted one, centre to centre, over its width
        and height.
    moved_iou
        With its mask moved by as much.
    threshold_curve
        The IoU at each of THRESHOLDS; no column of tables.
    """

    image: str
    instance: int
    object: int
    class_id: int
    class_name: str
    score: float
    box_iou: float
    area: int
    size: str
    iou: float
    resolution: float
    box: float
    prototypes: float
    coefficients: float
    dual_box: float
    dual_coefficients: float
    dual_prototypes: float
    dual_resolution: float
    true_box_iou: float
    uncropped_iou: float
    threshold: float
    threshold_iou: float
    boundary_iou: float
    interior_iou: float
    leak: float
    drawn_pieces: int
    shift_x: float
    shift_y: float
    moved_iou: float
    threshold_curve: tuple[float, ...]


COLUMNS = tuple(field for field in fields(InstanceBudget) if field.name != "threshold_curve")
"""The fields that are single values: the columns of tables."""


class Mean(NamedTuple):
    """Means over the instances of one group.

    Attributes
    ----------
    images
        The number of images that they are in.
    intervals
        Intervals of `iou` and of each part, by bootstrap over images; their ends are NaN where there are too few
        images.
    """

    group: str
    instances: int
    images: int
    iou: float
    resolution: float
    box: float
    prototypes: float
    coefficients: float
    intervals: Mapping[str, Interval]

    def as_dict(self) -> dict[str, Any]:
        """Return the means as plain values."""
        return self._asdict() | {"intervals": {name: one._asdict() for name, one in self.intervals.items()}}


class Leading(NamedTuple):
    """The part with the largest mean loss, and its share of all losses; parts that gain are left out.

    Attributes
    ----------
    certain
        Whether it loses more than each other part, by intervals over images that hold for `intervals.CLAIMS`.
    """

    part: Part
    share: float
    certain: bool


@dataclass(frozen=True)
class ErrorBudget:
    """The budgets of many instances, with the questions that one asks of them."""

    rows: Sequence[InstanceBudget]

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def columns(self) -> dict[str, np.ndarray[Any, Any]]:
        """One array per field of `InstanceBudget` that is a single value."""
        kinds = {"str": object, "int": np.int64, "float": np.float64}
        return {
            field.name: np.array([getattr(row, field.name) for row in self.rows], dtype=kinds[str(field.type)])
            for field in COLUMNS
        }

    @cached_property
    def image_numbers(self) -> Int64[np.ndarray, " N"]:
        """The image of each row, numbered from 0 in the order of their names."""
        return np.unique(self.columns["image"].astype(str), return_inverse=True)[1]

    def mean(self) -> Mean:
        """Over all instances.

        Raises
        ------
        InputError
            If there are none.
        """
        if not self.rows:
            raise InputError(
                "there is no matched instance: nothing that was found lies on a ground-truth instance of its class"
            )
        return self._mean

    def means(self, by: Literal["class_name", "size"]) -> list[Mean]:
        """Over each class, most instances first, or each size of object, small first; empty groups are left out."""
        if by not in ("class_name", "size"):
            raise InputError(f"by is {by!r}; expected 'class_name' or 'size'")
        if by == "size":
            return sorted(self._by_size, key=lambda mean: list(SIZES).index(mean.group))
        return sorted(self._by_class, key=lambda mean: (-mean.instances, mean.group))

    @cached_property
    def _mean(self) -> Mean:
        return self._mean_of("all", np.ones(len(self), dtype=bool))

    @cached_property
    def _by_size(self) -> list[Mean]:
        return self._means_of(self.columns["size"])

    @cached_property
    def _by_class(self) -> list[Mean]:
        return self._means_of(self.columns["class_name"])

    def _means_of(self, labels: np.ndarray[Any, Any]) -> list[Mean]:
        return [self._mean_of(str(group), labels == group) for group in dict.fromkeys(labels.tolist())]

    def _mean_of(self, group: str, chosen: Bool[np.ndarray, " N"]) -> Mean:
        names = ("iou", *PARTS)
        values = np.stack([self.columns[name][chosen] for name in names], axis=1)
        numbers, image = np.unique(self.image_numbers[chosen], return_inverse=True)
        intervals = dict(zip(names, mean_intervals(values, image), strict=True))
        means = {name: one.mean for name, one in intervals.items()}
        return Mean(group=group, instances=len(values), images=len(numbers), **means, intervals=intervals)

    def leading(self) -> Leading:
        """Return the part that loses most, and whether that is sure.

        Raises
        ------
        InputError
            If there are no instances.
        """
        mean = self.mean()
        losses = {part: float(getattr(mean, part)) for part in PARTS}
        part = max(PARTS, key=lambda one: losses[one])
        whole = sum(max(loss, 0.0) for loss in losses.values())
        share = losses[part] / whole if whole > 0 else 0.0
        others = [one for one in PARTS if one != part]
        ahead = np.stack([self.columns[part] - self.columns[one] for one in others], axis=1)
        found = mean_intervals(ahead, self.image_numbers, comparisons=CLAIMS)
        return Leading(part, share, certain=all(one.low > 0 for one in found))

    def means_beside(self) -> dict[str, dict[str, float]]:
        """Means of the columns that are no part of the sum (DUAL_PARTS, BESIDE), over "all" and each size of object.

        nan (the interior of thin objects) is left out, and nan where nothing is left.
        """
        found: dict[str, dict[str, float]] = {}
        for group in ("all", *SIZES):
            chosen = self.columns["size"] == group if group != "all" else np.ones(len(self), dtype=bool)
            if chosen.any():
                columns = {name: self.columns[name][chosen] for name in (*DUAL_PARTS, *BESIDE)}
                known = {name: values[~np.isnan(values)] for name, values in columns.items()}
                found[group] = {
                    name: float(values.mean()) if len(values) else math.nan for name, values in known.items()
                }
        return found

    def worst(self, count: int = 20, by: str = "iou") -> list[InstanceBudget]:
        """Return the instances with the lowest IoU, or the largest loss, leak, or whatever column `by` names."""
        if count < 0:
            raise InputError(f"count is {count}; expected 0 or more")
        if by not in self.columns or self.columns[by].dtype == object:
            numbers = [name for name, values in self.columns.items() if values.dtype != object]
            raise InputError(f"by is {by!r}; expected one of {', '.join(numbers)}")
        values = self.columns[by].astype(np.float64)
        rising = by.endswith("iou") or by in ("score", "area")
        order = np.argsort(values if rising else -values, kind="stable")  # nan comes last
        return [self.rows[index] for index in order[:count]]

    def common_threshold(self) -> tuple[float, float]:
        """Return the one probability among THRESHOLDS at which all masks together are best, and their mean IoU there.

        Raises
        ------
        InputError
            If there are no instances.
        """
        self.mean()
        curve = np.mean([row.threshold_curve for row in self.rows], axis=0)
        best = min(range(len(THRESHOLDS)), key=lambda step: (-curve[step], abs(THRESHOLDS[step] - 0.5)))
        return THRESHOLDS[best], float(curve[best])

    def common_threshold_gain(self) -> Interval:
        """Return what the common threshold gains over each mask's own, in mean IoU.

        The interval is corrected for the number of thresholds tried and of `CLAIMS`; it has no ends (NaN) with too few
        images.

        Raises
        ------
        InputError
            If there are no instances.
        """
        best = THRESHOLDS.index(self.common_threshold()[0])
        gain = np.array([row.threshold_curve[best] for row in self.rows]) - self.columns["iou"]
        return claimed_interval(gain, self.image_numbers, comparisons=CLAIMS * len(THRESHOLDS))

    def ranking(self, *, bins: int = 10) -> Ranking:
        """Return whether the score tells how good a mask is; see `score_ranking.ranking`."""
        return ranking(self.columns["score"], self.columns["iou"], bins=bins)

    def rank_correlation(self) -> Interval:
        """Return the rank correlation of score and mask IoU with its interval over images, one of `CLAIMS`."""
        return spearman_interval(self.columns["score"], self.columns["iou"], self.image_numbers)

    def table(self) -> pa.Table:
        """One row per instance, one column per field of `InstanceBudget` that is a single value."""
        import pyarrow as pa

        kinds = {"str": pa.string(), "int": pa.int64(), "float": pa.float64()}
        schema = pa.schema([(field.name, kinds[str(field.type)]) for field in COLUMNS])
        return pa.table({name: values.tolist() for name, values in self.columns.items()}, schema=schema)

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write the table as CSV or Parquet, by the suffix.

        Raises
        ------
        TableError
            Where that fails.
        """
        import pyarrow.csv
        import pyarrow.parquet

        file = Path(path)
        if file.suffix.lower() not in (".csv", ".parquet"):
            raise TableError(f"{file}: expected a table ending in .csv or .parquet")
        if file.suffix.lower() == ".csv":
            write = partial(pyarrow.csv.write_csv, guarded(self.table()))
        else:
            write = partial(pyarrow.parquet.write_table, self.table())
        return write_atomically(file, write, failure=TableError)


def budgets(
    prediction: Prediction, truth: GroundTruth, image: str = "", matches: Matches | None = None
) -> Iterator[InstanceBudget]:
    """Yield the budget of every matched instance of an image, the most confident first.

    Parameters
    ----------
    image
        The name in the rows; default: the prediction's source.
    """
    name = image or prediction.source or ""
    for pair, masks in counterfactuals_of(prediction, truth, matches):
        yield budget_of(pair, masks, truth, name)


def budget_of(pair: Pair, masks: Counterfactuals, truth: GroundTruth, image: str = "") -> InstanceBudget:
    """Return the budget of one instance, from its counterfactual masks."""
    instance, letterbox = masks.instance, masks.instance.letterbox
    area = int(truth.areas[pair.truth])
    falling = (masks.on_grid, masks.in_box, masks.best, masks.real)
    rising = (masks.real, masks.true_box, masks.true_box_best, masks.true_box_on_grid)
    chain = [1.0, *(mask.iou_with(masks.truth) for mask in falling)]
    dual = [*(mask.iou_with(masks.truth) for mask in rising), 1.0]
    losses = dict(zip(PARTS, -np.diff(chain), strict=True))
    dual_losses = dict(zip(DUAL_PARTS, np.diff(dual), strict=True))
    cuts = thresholds(masks)
    shift, moved = _moved(pair, masks, truth)
    along = boundary_agreement(masks.real, masks.truth, boundary_width(*letterbox.content_hw))
    return InstanceBudget(
        image=image,
        instance=pair.instance,
        object=pair.truth,
        class_id=instance.class_id,
        class_name=instance.name,
        score=instance.score,
        box_iou=pair.box_iou,
        area=area,
        size=next(name for name, (_, end) in SIZES.items() if area < end),
        iou=chain[-1],
        **{part: float(loss) + 0.0 for part, loss in (losses | dual_losses).items()},  # zero has no sign
        true_box_iou=dual[1],
        uncropped_iou=masks.uncropped.iou_with(masks.truth),
        threshold=cuts.best,
        threshold_iou=cuts.iou,
        boundary_iou=along.boundary,
        interior_iou=along.interior,
        leak=leak(masks),
        drawn_pieces=pieces_of(masks.real),
        shift_x=shift[0],
        shift_y=shift[1],
        moved_iou=moved,
        threshold_curve=cuts.curve,
    )


def _moved(pair: Pair, masks: Counterfactuals, truth: GroundTruth) -> tuple[tuple[float, float], float]:
    """Return how far the ground truth lies from the mask, in sides of its box, and the IoU if it did not."""
    own, true = masks.instance.canvas_box, masks.instance.letterbox.to_canvas(truth.boxes[[pair.truth]])[0]
    right, down = ((true[:2] + true[2:]) / 2 - (own[:2] + own[2:]) / 2).tolist()
    width, height = (max(float(side), 1.0) for side in true[2:] - true[:2])
    rows, columns = (
        slice(span.start + round(step), span.stop + round(step))
        for span, step in ((masks.real.rows, down), (masks.real.columns, right))
    )
    return (right / width, down / height), Region(rows, columns, masks.real.inside).iou_with(masks.truth)


class ThresholdStudy(NamedTuple):
    """The threshold that is best for one mask, the IoU that it gives, and the IoU at each of THRESHOLDS."""

    best: float
    iou: float
    curve: tuple[float, ...]


def thresholds(masks: Counterfactuals) -> ThresholdStudy:
    """Return what other thresholds on the values that the own mask is cut out of would give.

    The best one is exact: every value inside the crop is tried. Pixels that the crop removed stay removed. Equal IoUs
    give the threshold closest to the rule's; no pixel at all gives the rule's own and 0.
    """
    rule = masks.instance.rule
    own, values = rule.threshold, masks.values.values.ravel()
    if not len(values):
        return ThresholdStudy(own, 0.0, (0.0,) * len(THRESHOLDS))
    inside = window_of(masks.truth, masks.real.rows, masks.real.columns).ravel()
    order = np.argsort(values)[::-1]
    falling = values[order]
    shared = np.cumsum(inside[order])
    iou = shared / (masks.truth.area + np.arange(1, len(values) + 1) - shared)
    tried = np.array(THRESHOLDS) if rule.squash else np.log(THRESHOLDS) - np.log1p(-np.array(THRESHOLDS))
    curve = np.append(iou, 0.0)[np.searchsorted(-falling, -tried) - 1]  # -1, the last, where no value is above
    steps = np.append(falling[1:] < falling[:-1], True)  # equal values are in or out together
    iou[~steps] = -1
    below = np.append(falling[1:], falling[-1] - 1)
    best = np.flatnonzero(iou == iou.max())
    # A threshold between a value and the next lower one gives the same mask: the rule's own, if it lies there.
    between = np.clip(own, below[best], np.nextafter(falling[best], below[best]))
    closest = int(np.abs(between - own).argmin())
    return ThresholdStudy(float(between[closest]), float(iou[best[closest]]), tuple(curve.tolist()))


def leak(masks: Counterfactuals) -> float:
    """Return the share of the ring around the box where the uncropped mask is and the ground truth is not.

    The ring is RING of the box's sides wide, on every side, and lies on the image; 0 for an empty one.
    """
    letterbox = masks.instance.letterbox
    x1, y1, x2, y2 = (float(v) for v in masks.instance.canvas_box)
    dx, dy = RING * (x2 - x1), RING * (y2 - y1)
    top, left = letterbox.offset_yx
    height, width = letterbox.content_hw
    rows = _clip(pixels_between(y1 - dy, y2 + dy, letterbox.canvas_hw[0]), top, top + height)
    columns = _clip(pixels_between(x1 - dx, x2 + dx, letterbox.canvas_hw[1]), left, left + width)
    ring = np.ones((rows.stop - rows.start, columns.stop - columns.start), dtype=bool)
    inner_rows = _clip(pixels_between(y1, y2, letterbox.canvas_hw[0]), rows.start, rows.stop)
    inner_columns = _clip(pixels_between(x1, x2, letterbox.canvas_hw[1]), columns.start, columns.stop)
    ring[
        inner_rows.start - rows.start : inner_rows.stop - rows.start,
        inner_columns.start - columns.start : inner_columns.stop - columns.start,
    ] = False
    wrong = window_of(masks.uncropped, rows, columns) & ~window_of(masks.truth, rows, columns) & ring
    return int(np.count_nonzero(wrong)) / max(int(np.count_nonzero(ring)), 1)


def _clip(span: slice, low: int, high: int) -> slice:
    start = min(max(span.start, low), high)
    return slice(start, min(max(span.stop, start), high))
