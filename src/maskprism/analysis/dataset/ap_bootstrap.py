"""Bootstrap intervals over images of the average precisions of a diagnosis, and of what costs AP."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
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
    gains = _ErrorGains(canvas, errors)
    class_images = _images_with(scored["predict"], canvas)
    columns = [column for column, count in enumerate(class_images.values()) if not too_few(count)]
    whole = (*scored, "perfect_masks", "perfect_detection", "masks", "detection", "difference", "small_behind")
    classes = [int(scored["predict"].classes[column]) for column in columns]
    names = (*whole, *ERROR_TYPES, *classes)

    def values(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, "R S"]:
        by_class = scored["predict"].by_class(weights)
        now = {name: mean_known(by_class) if name == "predict" else one(weights) for name, one in scored.items()}
        better = [one(weights) for one in oracles]
        lost = costs(now["predict"], *better)
        small, large = (one(weights) for one in sizes)
        of_whole = np.stack([*now.values(), *better, *lost, lost[0] - lost[1], SIZE_RATIO * large - small], axis=1)
        return np.concatenate([of_whole, gains(weights), by_class[:, columns]], axis=1)

    n_groups = min(len(canvas), MOST_GROUPS)
    known = dict(zip(names, values(np.ones((1, n_groups)))[0].tolist(), strict=True))
    differences = _differences(known)
    pairs = [(names.index(larger), names.index(smaller)) for larger, smaller in differences]

    def statistics(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, "R S"]:
        every = values(weights)
        return np.concatenate([every, *(every[:, [a]] - every[:, [b]] for a, b in pairs)], axis=1)

    claims = {"difference", "small_behind"}  # of the other intervals nothing is claimed
    comparisons = [
        *(CLAIMS if name in claims else 1 for name in (*whole, *ERROR_TYPES)),
        *(len(classes) for _ in classes),
        *differences.values(),
    ]
    every = intervals_of(statistics, len(canvas), comparisons)
    found = dict(zip(names, every, strict=False))
    between = dict(zip(differences, every[len(names) :], strict=True))
    decodes = [one for (larger, _), one in between.items() if larger in AP_PROTOCOLS]
    return ApIntervals(
        precision={name: found[name] for name in scored},
        perfect_masks=found["perfect_masks"],
        perfect_detection=found["perfect_detection"],
        masks=found["masks"],
        detection=found["detection"],
        difference=found["difference"],
        small_behind=found["small_behind"],
        decodes=decodes[0] if decodes else Interval(math.nan, math.nan, math.nan),
        errors={kind: found[kind] for kind in ERROR_TYPES},
        ahead={kind: one for kind in ERROR_TYPES for (_, behind), one in between.items() if behind == kind},
        by_class={class_id: found[class_id] for class_id in classes},
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


def _differences(known: Mapping[Hashable, float]) -> dict[tuple[Hashable, Hashable], int]:
    """Return which differences are looked at, each with the number of comparisons that its interval allows for.

    The largest minus the smallest AP of the decodes, chosen among all pairs; and by how much the kind of error that
    costs most is ahead of each other kind. Neither where a value is not known.
    """
    found: dict[tuple[Hashable, Hashable], int] = {}
    if not np.isnan([known[name] for name in AP_PROTOCOLS]).any():
        largest, smallest = max(AP_PROTOCOLS, key=known.__getitem__), min(AP_PROTOCOLS, key=known.__getitem__)
        found[largest, smallest] = CLAIMS * (len(AP_PROTOCOLS) * (len(AP_PROTOCOLS) - 1) // 2)
    if not np.isnan([known[kind] for kind in ERROR_TYPES]).any():
        first = max(ERROR_TYPES, key=known.__getitem__)
        found |= {(first, kind): CLAIMS for kind in ERROR_TYPES if kind != first}  # a claim needs all of them
    return found


class _ErrorGains:
    """What fixing each kind of error adds to AP50."""

    def __init__(self, canvas: Sequence[Overlaps], errors: Sequence[Errors]) -> None:
        self._base = ResampledAP(canvas, thresholds=(FOUND_IOU,))
        self._fixed = [
            ResampledAP(
                [fix_errors(image, own, kind) for image, own in zip(canvas, errors, strict=True)],
                thresholds=(FOUND_IOU,),
            )
            for kind in ERROR_TYPES
        ]

    def __call__(self, weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, "R kinds"]:
        now = self._base.by_class(weights)
        ap50 = mean_known(now)
        return np.stack([_gain(one, self._base, weights, now, ap50) for one in self._fixed], axis=1)


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
