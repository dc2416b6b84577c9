"""Bootstrap intervals over images of the average precisions of a diagnosis, and of what costs AP."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.dataset.ap_protocols import AP_PROTOCOLS
from maskprism.analysis.dataset.oracles import costs
from maskprism.analysis.dataset.resampled_ap import MOST_GROUPS, ResampledAP, mean_known
from maskprism.analysis.dataset.tide import fix_errors
from maskprism.analysis.intervals import CLAIMS, Interval, bootstraps, too_few
from maskprism.analysis.truth.matching import ERROR_TYPES, FOUND_IOU, Errors, ErrorType

if TYPE_CHECKING:
    from jaxtyping import Float, Float64

    from maskprism.analysis.truth.overlaps import Overlaps

    Statistics = Callable[[Float64[np.ndarray, "R I"]], Float64[np.ndarray, "R S"]]


@dataclass(frozen=True)
class ApIntervals:
    """Intervals of average precisions over the same resampled images.

    With too few images their ends are NaN.

    Attributes
    ----------
    precision
        AP under each decode, and of the boxes ("boxes").
    perfect_masks, perfect_detection
        AP if these were perfect (see `oracles`).
    masks, detection
        What they cost, over both orders.
    difference
        Masks - detection.
    decodes
        The largest AP of the three decodes minus the smallest.
    small_behind
        `SIZE_RATIO` times AP of large objects minus AP of small ones.
    errors
        The AP50 that fixing each kind of error would add.
    ahead
        By how much the kind that adds most exceeds each other kind.
    by_class
        AP of each class that is in enough images, under the decode of `predict`; they hold together.
    class_images
        In how many images each class has an instance.
    """

    precision: Mapping[str, Interval]
    perfect_masks: Interval
    perfect_detection: Interval
    masks: Interval
    detection: Interval
    difference: Interval
    decodes: Interval
    small_behind: Interval
    errors: Mapping[ErrorType, Interval]
    ahead: Mapping[ErrorType, Interval]
    by_class: Mapping[int, Interval]
    class_images: Mapping[int, int]


SIZE_RATIO = 0.5
"""Small objects whose AP is below this share of that of large ones are reported."""


def ap_intervals(
    overlaps: Mapping[str, Sequence[Overlaps]],
    perfect_masks: Sequence[Overlaps],
    perfect_detection: Sequence[Overlaps],
    errors: Sequence[Errors],
) -> ApIntervals:
    """Return the intervals of a data set.

    Parameters
    ----------
    overlaps
        Per decode, and "boxes", the detections of each image against its ground truth.
    perfect_masks, perfect_detection
        Likewise under "predict", if these were perfect.
    errors
        The errors of each image under "predict".
    """
    canvas = overlaps["predict"]
    scored = {name: ResampledAP(images) for name, images in overlaps.items()}
    oracles = [ResampledAP(images) for images in (perfect_masks, perfect_detection)]
    sizes = [ResampledAP(canvas, size=size) for size in ("small", "large")]

    def of_whole(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, "R S"]:
        now = {name: one(weights) for name, one in scored.items()}
        better = [one(weights) for one in oracles]
        lost = costs(now["predict"], *better)
        small, large = (one(weights) for one in sizes)
        return np.stack([*now.values(), *better, *lost, lost[0] - lost[1], SIZE_RATIO * large - small], axis=1)

    names = (*scored, "perfect_masks", "perfect_detection", "masks", "detection", "difference", "small_behind")
    claims = {"difference", "small_behind"}  # of the other intervals nothing is claimed
    comparisons = [CLAIMS if name in claims else 1 for name in names]
    whole = dict(zip(names, intervals_of(of_whole, len(canvas), comparisons), strict=True))
    gains, ahead = _of_errors(canvas, errors)
    class_images = _images_with(scored["predict"], canvas)
    return ApIntervals(
        precision={name: whole[name] for name in scored},
        perfect_masks=whole["perfect_masks"],
        perfect_detection=whole["perfect_detection"],
        masks=whole["masks"],
        detection=whole["detection"],
        difference=whole["difference"],
        small_behind=whole["small_behind"],
        decodes=_spread([scored[name] for name in AP_PROTOCOLS], len(canvas)),
        errors=gains,
        ahead=ahead,
        by_class=_of_classes(scored["predict"], class_images, len(canvas)),
        class_images=class_images,
    )


def intervals_of(statistics: Statistics, n_images: int, comparisons: int | Sequence[int] = 1) -> list[Interval]:
    """Return intervals of statistics of `ResampledAP`; without ends (NaN) where there are too few images.

    Parameters
    ----------
    statistics, comparisons
        See `intervals.bootstraps`; the columns of the weights are the groups of `ResampledAP`.
    n_images
        How many images there are.
    """
    n_groups = min(n_images, MOST_GROUPS)
    if too_few(n_images):
        return [Interval(float(value), math.nan, math.nan) for value in statistics(np.ones((1, n_groups)))[0]]
    return bootstraps(statistics, n_groups, comparisons=comparisons, centred=True)


def _spread(decodes: Sequence[ResampledAP], n_images: int) -> Interval:
    """Return the largest minus the smallest AP, both chosen among all images."""
    now = [float(one(np.ones((1, one.n_groups)))[0]) for one in decodes]
    if np.isnan(now).any():
        return Interval(math.nan, math.nan, math.nan)
    largest, smallest = decodes[int(np.argmax(now))], decodes[int(np.argmin(now))]
    pairs = len(decodes) * (len(decodes) - 1) // 2
    (found,) = intervals_of(lambda weights: (largest(weights) - smallest(weights))[:, None], n_images, CLAIMS * pairs)
    return found


def _of_errors(
    canvas: Sequence[Overlaps], errors: Sequence[Errors]
) -> tuple[dict[ErrorType, Interval], dict[ErrorType, Interval]]:
    """Return what fixing each kind of error adds, and by how much the first is ahead of the others."""
    base = ResampledAP(canvas, thresholds=(FOUND_IOU,))
    fixed = {
        kind: ResampledAP(
            [fix_errors(image, own, kind) for image, own in zip(canvas, errors, strict=True)], thresholds=(FOUND_IOU,)
        )
        for kind in ERROR_TYPES
    }

    def gains(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, "R kinds"]:
        now = base.by_class(weights)
        ap50 = mean_known(now)
        return np.stack([_gain(one, base, weights, now, ap50) for one in fixed.values()], axis=1)

    found = dict(zip(ERROR_TYPES, intervals_of(gains, len(canvas)), strict=True))
    values = [found[kind].mean for kind in ERROR_TYPES]
    if np.isnan(values).any():
        return found, {}
    first = int(np.argmax(values))
    others = [kind for kind in range(len(ERROR_TYPES)) if kind != first]

    def ahead(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, "R others"]:
        every = gains(weights)
        return every[:, [first]] - every[:, others]

    behind = intervals_of(ahead, len(canvas), comparisons=CLAIMS)  # a claim needs all of them
    return found, {ERROR_TYPES[kind]: one for kind, one in zip(others, behind, strict=True)}


def _gain(
    fixed: ResampledAP,
    base: ResampledAP,
    weights: Float64[np.ndarray, "R I"],
    now: Float[np.ndarray, "R classes"],
    ap50: Float[np.ndarray, " R"],
) -> Float[np.ndarray, " R"]:
    """As in `tide.error_cost`, a class without ground truth left is worth 0 while it is detected."""
    found = np.full(now.shape, np.nan)
    detected = np.zeros(now.shape, dtype=bool)
    columns = np.searchsorted(base.classes, fixed.classes)
    found[:, columns] = fixed.by_class(weights)
    detected[:, columns] = weights @ fixed.detected > 0
    found[np.isnan(found) & detected & ~np.isnan(now)] = 0.0
    return np.maximum(mean_known(found) - ap50, 0.0)


def _images_with(scored: ResampledAP, canvas: Sequence[Overlaps]) -> dict[int, int]:
    """In how many images each class has an object."""
    return {
        int(class_id): sum(bool((image.true_classes[~image.crowd] == class_id).any()) for image in canvas)
        for class_id in scored.classes
    }


def _of_classes(scored: ResampledAP, class_images: Mapping[int, int], n_images: int) -> dict[int, Interval]:
    """AP of the classes that are in enough images."""
    enough = [column for column, count in enumerate(class_images.values()) if not too_few(count)]
    if not enough:
        return {}
    found = intervals_of(lambda weights: scored.by_class(weights)[:, enough], n_images, comparisons=len(enough))
    return {int(scored.classes[column]): one for column, one in zip(enough, found, strict=True)}
