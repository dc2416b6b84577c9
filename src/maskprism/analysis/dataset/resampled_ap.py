"""Average precision of resampled images: detections are matched once, and an image counts once per draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism.analysis.dataset.coco_ap import MAX_PER_CLASS
from maskprism.analysis.truth.overlaps import SIZES

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Float32, Int64

    from maskprism.analysis.truth.overlaps import Overlaps

IOU_THRESHOLDS = tuple(step / 100 for step in range(50, 100, 5))
MOST_GROUPS = 200
"""More images than this are resampled in this number of random groups of images, to bound time and memory."""
_EVERYTHING = (0.0, 1e10)
_CHUNK = 2**16
"""Resamples times detections that are computed together: so few that they stay in the cache of a processor."""
_ROUNDED_UP = np.linspace(0, 1, 101) > np.arange(101) / 100
"""Recalls that COCO's evaluation rounds up, so that a recall of exactly so much does not reach them."""


class ResampledAP:
    """COCO's average precision of images that are counted as often as a resample draws them.

    Parameters
    ----------
    images
        The detections of each image against its ground truth.
    thresholds
        IoU thresholds that AP is the mean over.
    size
        "small", "medium" or "large": AP of objects of that size. Default: all.

    Notes
    -----
    The matching of COCO's evaluation depends on one image alone, so it is done once. A resample then changes only how
    much each detection and each object counts. With every image counted once, this is `average_precision`.
    """

    def __init__(
        self,
        images: Sequence[Overlaps],
        *,
        thresholds: Sequence[float] = IOU_THRESHOLDS,
        size: str | None = None,
    ) -> None:
        limits = _EVERYTHING if size is None else SIZES[size]
        matched = [_match_image(image, limits, np.array(thresholds)) for image in images]
        self.classes = np.unique(np.concatenate([one.true_classes for one in images] or [np.zeros(0, dtype=np.int64)]))
        self.n_groups = min(len(images), MOST_GROUPS)
        shuffled = np.random.default_rng(0).permutation(len(images)) if len(images) > MOST_GROUPS else None
        groups = (np.arange(len(images)) if shuffled is None else shuffled) % max(self.n_groups, 1)
        self.objects = np.zeros((self.n_groups, len(self.classes)), dtype=np.float32)
        """Objects to find, by group of images and class."""
        self.detected = np.zeros_like(self.objects)
        """Detections, by group of images and class."""
        for image, one, group in zip(images, matched, groups, strict=True):
            _count(self.objects[group], self.classes, image.true_classes[one.objects])
            _count(self.detected[group], self.classes, image.classes[_among(self.classes, image.classes)])
        self._matched = _ranked(matched, groups, self.classes, len(thresholds))

    def __call__(self, weights: Float[np.ndarray, "R groups"]) -> Float[np.ndarray, " R"]:
        """Return the mean AP over the classes that have an object in each resample; NaN without any."""
        return mean_known(self.by_class(weights))

    def by_class(self, weights: Float[np.ndarray, "R groups"]) -> Float[np.ndarray, "R classes"]:
        """Return the AP of each of `classes` in each resample; NaN for a class without an object there."""
        counts = weights.astype(np.float32)
        objects = counts @ self.objects
        total = np.zeros(objects.shape)
        for ranked in self._matched:
            right, wrong = ranked.cumulated(self.n_groups)
            rows = max(1, _CHUNK // max(right.shape[1], 1))
            for start in range(0, len(counts), rows):
                part = slice(start, start + rows)
                total[part] += _areas(counts[part], objects[part], right, wrong, ranked)
        return np.where(objects > 0, total / max(len(self._matched), 1), np.nan)


def mean_known(values: Float[np.ndarray, "R C"]) -> Float[np.ndarray, " R"]:
    """Return the means over columns without those that are NaN; NaN for rows without any number."""
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.divide(total, count, out=np.full(len(values), np.nan), where=count > 0)


class _Matched(NamedTuple):
    """Detections of one image that count, and its ground truth.

    Attributes
    ----------
    classes, scores
        Of each detection.
    right, counted
        Whether it is right, and whether it counts, per threshold.
    objects
        Which ground-truth instances are to be found.
    """

    classes: Int64[np.ndarray, " D"]
    scores: Float[np.ndarray, " D"]
    right: Bool[np.ndarray, "D T"]
    counted: Bool[np.ndarray, "D T"]
    objects: Bool[np.ndarray, " G"]


class _Ranked(NamedTuple):
    """All detections at one threshold, class by class, best first.

    Only precision at those that are right matters.

    Attributes
    ----------
    right_group
        Group of images of each right detection.
    wrong_group, wrong_before
        Group of each wrong one, and the first right one of its class behind it.
    starts
        Where the right ones of each class begin.
    columns
        Which class.
    """

    right_group: Int64[np.ndarray, " P"]
    wrong_group: Int64[np.ndarray, " F"]
    wrong_before: Int64[np.ndarray, " F"]
    starts: Int64[np.ndarray, " C"]
    columns: Int64[np.ndarray, " C"]

    def cumulated(self, n_groups: int) -> tuple[Float32[np.ndarray, "groups P"], Float32[np.ndarray, "groups P"]]:
        """Right and wrong detections of each group up to each right one, within its class."""
        right, wrong = (np.zeros((n_groups, len(self.right_group)), dtype=np.float32) for _ in range(2))
        right[self.right_group, np.arange(len(self.right_group))] = 1
        np.add.at(wrong, (self.wrong_group, self.wrong_before), 1)
        if not len(self.starts):
            return right, wrong
        for start, stop in zip(self.starts, [*self.starts[1:], len(self.right_group)], strict=True):
            for counts in (right, wrong):
                np.cumsum(counts[:, start:stop], axis=1, out=counts[:, start:stop])
        return right, wrong


def _areas(
    weights: Float32[np.ndarray, "R groups"],
    objects: Float32[np.ndarray, "R classes"],
    right: Float32[np.ndarray, "groups P"],
    wrong: Float32[np.ndarray, "groups P"],
    ranked: _Ranked,
) -> Float32[np.ndarray, "R classes"]:
    """Return the mean over 101 recalls of the best precision at that recall or beyond, per class."""
    areas = np.zeros(objects.shape, dtype=np.float32)
    if not right.shape[1]:
        return areas
    lengths = np.diff([*ranked.starts, right.shape[1]])
    which = np.repeat(np.arange(len(lengths)), lengths)
    true, false = weights @ right, weights @ wrong
    precision = np.divide(true, true + false, out=np.zeros_like(true), where=true > 0)
    # The best precision at each right detection or a later one of its class: classes are 2 apart.
    ahead = 2.0 * (len(lengths) - which).astype(np.float32)
    best = np.maximum.accumulate((precision + ahead)[:, ::-1], axis=1)[:, ::-1] - ahead
    whole = np.maximum(objects[:, ranked.columns[which]], 1)
    recall = 100 * true / whole
    percent = np.floor(recall)
    reached = percent + 1 - ((recall == percent) & _ROUNDED_UP[percent.astype(np.intp)])  # of the 101 recalls
    reached = np.where(true > 0, reached, 0)
    steps = np.diff(reached, axis=1, prepend=0)
    steps[:, ranked.starts] = reached[:, ranked.starts]
    areas[:, ranked.columns] = np.add.reduceat(steps * best, ranked.starts, axis=1) / 101
    return areas


def _match_image(image: Overlaps, limits: tuple[float, float], thresholds: Float[np.ndarray, " T"]) -> _Matched:
    """COCO's matching in one image: best detection first, each takes the free object that it overlaps most."""
    low, high = limits
    left_out = image.crowd.copy()
    if image.true_areas is not None:
        left_out |= (image.true_areas < low) | (image.true_areas > high)
    order = np.argsort(-image.scores, kind="stable")
    classes = image.classes[order]
    kept = np.zeros(len(order), dtype=bool)
    for class_id in np.unique(classes):
        kept[np.flatnonzero(classes == class_id)[:MAX_PER_CLASS]] = True
    order = order[kept]
    iou = np.where(image.same_class[order], image.iou[order], -1.0)
    right = np.zeros((len(order), len(thresholds)), dtype=bool)
    counted = np.ones_like(right)
    if image.areas is not None:
        outside = (image.areas[order] < low) | (image.areas[order] > high)
        counted[outside] = False
    free = np.ones((len(thresholds), iou.shape[1]), dtype=bool)
    least = np.minimum(thresholds, 1 - 1e-10)[:, None]
    for row in np.flatnonzero((iou >= least.min()).any(axis=1)) if iou.shape[1] else ():
        near = (iou[row] >= least) & (free | image.crowd)
        # An object to find goes before one that is left out; of equal overlaps the last one, as COCO has it.
        value = np.where(near, iou[row] + np.where(left_out, 0, 2), -1.0)
        taken = iou.shape[1] - 1 - value[:, ::-1].argmax(axis=1)
        hit = near.any(axis=1)
        right[row] = hit & ~left_out[taken]
        counted[row] = np.where(hit, ~left_out[taken], counted[row])
        free[hit, taken[hit]] = False
    return _Matched(image.classes[order], image.scores[order], right, counted, ~left_out)


def _ranked(
    matched: Sequence[_Matched], groups: Int64[np.ndarray, " I"], classes: Int64[np.ndarray, " C"], n_thresholds: int
) -> list[_Ranked]:
    """Return the detections of all images at each threshold."""
    if not matched:
        none = np.zeros(0, dtype=np.int64)
        return [_Ranked(none, none, none, none, none)] * n_thresholds
    of_class, scores = (np.concatenate([getattr(one, name) for one in matched]) for name in ("classes", "scores"))
    right, counted = (np.concatenate([getattr(one, name) for one in matched]) for name in ("right", "counted"))
    order = np.lexsort((-scores, of_class))
    order = order[_among(classes, of_class[order])]
    group = np.repeat(groups, [len(one.classes) for one in matched])[order]
    column = np.searchsorted(classes, of_class[order])
    return [
        _at(of_step[kept], group[kept], column[kept])
        for of_step, kept in zip(right[order].T, counted[order].T, strict=True)
    ]


def _at(right: Bool[np.ndarray, " N"], group: Int64[np.ndarray, " N"], column: Int64[np.ndarray, " N"]) -> _Ranked:
    """Return the detections that count at one threshold, given class by class, best first."""
    places = np.flatnonzero(right)
    wrong = np.flatnonzero(~right)
    before = np.searchsorted(places, wrong)
    useful = before < len(places)
    useful[useful] = column[places[before[useful]]] == column[wrong[useful]]
    columns, starts = np.unique(column[places], return_index=True)
    return _Ranked(group[places], group[wrong[useful]], before[useful], starts, columns)


def _among(classes: Int64[np.ndarray, " C"], found: Int64[np.ndarray, " N"]) -> Bool[np.ndarray, " N"]:
    """Return which of `found` are among the sorted `classes`; faster than `np.isin` for a few."""
    if not len(classes):
        return np.zeros(len(found), dtype=bool)
    return classes[np.minimum(np.searchsorted(classes, found), len(classes) - 1)] == found


def _count(row: Float32[np.ndarray, " C"], classes: Int64[np.ndarray, " C"], found: Int64[np.ndarray, " N"]) -> None:
    np.add.at(row, np.searchsorted(classes, found), 1)
