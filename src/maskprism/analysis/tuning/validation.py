"""What a correction gains on images that took no part in it: folds over images, settings chosen within them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism._common.parallel import in_order, one_thread_per_call, processors
from maskprism.analysis.intervals import MIN_IMAGES
from maskprism.analysis.tuning.fitting import FULL_EFFORT, Setting, fit, sampled_ious
from maskprism.errors import InputError

if TYPE_CHECKING:
    from maskprism.analysis.tuning.evidence import Evidence
    from maskprism.models.correction import Correction

FOLDS = 5
FEWEST_IMAGES = 3
_CURVE = (0.125, 0.25, 0.5)


class Fold(NamedTuple):
    """What was fitted without the images `first` to `stop`, and to how many images; along the learning curve, too."""

    first: int
    stop: int
    setting: Setting
    correction: Correction
    curve: Mapping[int, Correction]


@dataclass(frozen=True, eq=False)
class CrossFit:
    """The folds, and the correction and setting for all images together.

    Attributes
    ----------
    chosen
        Gain in mean IoU of each setting that was tried, weighted like the evidence and estimated from its pixels.
    """

    folds: Sequence[Fold]
    correction: Correction
    setting: Setting
    chosen: Mapping[Setting, float]


def cross_fit(
    evidence: Evidence,
    images: int,
    settings: Sequence[Sequence[Setting]],
    *,
    folds: int = FOLDS,
    steps: int = FULL_EFFORT.steps,
    workers: int | None = None,
    on_fit: Callable[[], None] = lambda: None,
) -> CrossFit:
    """Fit one correction without each fold, and one to all.

    A fold's setting is the one that gains most on the other folds, each with what was fitted without it and without
    that fold: nothing about a fold decides anything that is measured on it. All of their evidence is looked at that is
    not augmented: mirror images and what NMS drops make the choice surer. Folds are of images that follow each other,
    so give images in an order that chance has made.

    Parameters
    ----------
    settings
        Paths of settings, each fit begins where the one before ended.
    steps
        The most iterations of a fit.

    Raises
    ------
    InputError
        For fewer than FEWEST_IMAGES images with an unaltered instance, or fewer folds than 3.
    """
    check_folds(folds)
    useful = len(np.unique(evidence.image[~evidence.augmented]))
    if useful < FEWEST_IMAGES:
        raise InputError(
            f"{useful} of {images} images have an instance that found a ground-truth instance; tuning needs "
            f"{FEWEST_IMAGES} at the very least, and {MIN_IMAGES} before its gain can be reported"
        )
    ranges = [(int(part[0]), int(part[-1]) + 1) for part in np.array_split(np.arange(images), min(folds, images))]
    spans = [evidence.of_images(*one) for one in ranges]
    with one_thread_per_call():

        def run(jobs: Sequence[_Job]) -> list[list[Correction]]:
            done = []
            for found in in_order(partial(_fitted, evidence, steps), iter(jobs), workers or processors()):
                done.append(found)
                on_fit()
            return done

        def job(left_out: Collection[int], path: Sequence[Setting]) -> _Job:
            kept = [number for number in range(len(spans)) if number not in left_out]
            return _Job([spans[i] for i in kept], path, sum(ranges[i][1] - ranges[i][0] for i in kept))

        pairs = list(itertools.combinations(range(len(spans)), 2))
        inner = run([job(pair, path) for pair in pairs for path in settings])
        gains: dict[tuple[int, int], dict[Setting, tuple[float, float]]] = {}
        for (pair, path), found in zip(itertools.product(pairs, settings), inner, strict=True):
            for measured, other in (pair, pair[::-1]):
                own = {one: _gain(evidence, spans[measured], fitted) for one, fitted in zip(path, found, strict=True)}
                gains.setdefault((measured, other), {}).update(own)
        best = [_means(found for (_, other), found in gains.items() if other == fold) for fold in range(len(spans))]
        over_all = _means(gains.values())
        chosen = [max(one, key=one.__getitem__) for one in (*best, over_all)]
        sizes = curve_sizes(images - max(stop - first for first, stop in ranges))
        jobs = [job([fold], [setting]) for fold, setting in enumerate(chosen[:-1])] + [job([], [chosen[-1]])]
        jobs += [
            _Job(_some_images(evidence, ranges[fold], images, size), [chosen[fold]], size)
            for fold in range(len(spans))
            for size in sizes
        ]
        fitted = [found[0] for found in run(jobs)]
    rest = iter(fitted[len(spans) + 1 :])
    return CrossFit(
        folds=[
            Fold(*ranges[fold], chosen[fold], fitted[fold], {size: next(rest) for size in sizes})
            for fold in range(len(spans))
        ],
        correction=fitted[len(spans)],
        setting=chosen[-1],
        chosen=over_all,
    )


def check_folds(folds: int) -> None:
    """Raise InputError for fewer folds than a setting can be chosen within."""
    if folds < 3:
        raise InputError(f"folds is {folds}; expected at least 3")


def fits(images: int, paths: int = 1, *, folds: int = FOLDS) -> int:
    """Return how many jobs `cross_fit` has, each told by `on_fit`."""
    folds = min(folds, images)
    held_out = -(-images // folds)
    return folds * (folds - 1) // 2 * paths + folds + 1 + folds * len(curve_sizes(images - held_out))


def curve_sizes(images: int) -> list[int]:
    """Numbers of images along the learning curve, below the number that a fold is fitted to."""
    return sorted({size for part in _CURVE if (size := round(part * images)) >= FEWEST_IMAGES})


class _Job(NamedTuple):
    """Fits to parts of the evidence, one setting after the other.

    Attributes
    ----------
    images
        How many they are of.
    """

    parts: Sequence[slice]
    settings: Sequence[Setting]
    images: int


def _fitted(evidence: Evidence, steps: int, job: _Job) -> list[Correction]:
    return fit(evidence, *job, steps=steps)


def _some_images(evidence: Evidence, fold: tuple[int, int], images: int, count: int) -> list[slice]:
    """Return the evidence of `count` images, from the first one behind a fold on, and round to the beginning."""
    start = fold[1] % images
    after = min(count, images - start if start else fold[0])
    return [evidence.of_images(start, start + after), evidence.of_images(0, count - after)]


def _gain(evidence: Evidence, part: slice, correction: Correction) -> tuple[float, float]:
    """Return the gain in IoU of the unaltered instances of a part, from sampled pixels, summed by weight.

    And their weight.
    """
    weights = evidence.weights[part] * ~evidence.augmented[part]
    change = sampled_ious(evidence, part, correction) - sampled_ious(evidence, part, None)
    return float(np.dot(change, weights)), float(weights.sum())


def _means(found: Iterable[Mapping[Setting, tuple[float, float]]]) -> dict[Setting, float]:
    """Return the mean gain of each setting over several folds."""
    sums: dict[Setting, list[tuple[float, float]]] = {}
    for one in found:
        for setting, gain in one.items():
            sums.setdefault(setting, []).append(gain)
    return {
        setting: sum(total for total, _ in gains) / max(sum(weight for _, weight in gains), 1e-9)
        for setting, gains in sums.items()
    }
