"""What mask AP would gain if what a finding is about were fixed: how findings are ranked.

Every gain is an upper end: nothing that a user changes makes a part perfect. All are of mask AP under the decode of
"predict", with an interval by bootstrap over the same images, so that they can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Literal

import numpy as np

from maskprism.analysis.dataset.ap_bootstrap import intervals_of
from maskprism.analysis.dataset.resampled_ap import ResampledAP, mean_known
from maskprism.analysis.dataset.tide import fix_errors, only, without
from maskprism.analysis.intervals import Interval
from maskprism.analysis.truth.matching import FOUND_IOU, ErrorType, find_errors
from maskprism.analysis.truth.merged_labels import held_detections
from maskprism.analysis.truth.overlaps import SIZES, claims

if TYPE_CHECKING:
    from jaxtyping import Float64

    from maskprism.analysis.dataset.diagnosis import ExaminedImage
    from maskprism.analysis.truth.overlaps import Overlaps

BetterMasks = Literal[
    "coefficients alone", "prototypes alone", "box alone", "resolution alone", "true boxes", "moved", "threshold"
]
"""Masks that are better, as `ExaminedImage.after` has them."""
Chosen = dict[str, set[int]]
"""Numbers of ground-truth instances by the name of their image."""


class _Remembered:
    """AP of resamples that come again: every interval is over the same ones."""

    def __init__(self, scored: ResampledAP) -> None:
        self._scored = scored
        self._known: dict[bytes, Float64[np.ndarray, " R"]] = {}

    def __call__(self, weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, " R"]:
        key = sha256(weights.tobytes()).digest()
        if key not in self._known:
            self._known[key] = self._scored(weights)
        return self._known[key]


@dataclass(frozen=True, eq=False)
class ExpectedGains:
    """Gains of AP, each computed when it is asked for.

    Parameters
    ----------
    examined
        The images.
    detected
        Their overlaps if detection were perfect; see `oracles.with_perfect_detection`.
    conf
        Score from which detections are shown.
    """

    examined: Sequence[ExaminedImage]
    detected: Sequence[Overlaps]
    conf: float
    _before: _Remembered = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_before", _Remembered(ResampledAP(self.now)))

    def of_masks(self, better: BetterMasks) -> Interval:
        """Return what these masks would gain in place of those that are drawn."""
        return self._gain([one.after(better) for one in self.examined])

    def of_detection(self) -> Interval:
        """Return what perfect detection would gain, with unchanged masks."""
        return self._gain(self.detected)

    def of_errors(self, kind: ErrorType) -> Interval:
        """Return what fixing one kind of error would gain."""
        return self._gain([fix_errors(image, find_errors(image), kind) for image in self.now])

    def of_scores(self) -> Interval:
        """Return what would be gained if right detections came before wrong ones, the best masks first."""

        def ranked(image: Overlaps) -> Overlaps:
            right = claims(image.iou * (image.same_class & ~image.crowd), image.scores, FOUND_IOU) >= 0
            best = (image.iou * image.same_class).max(axis=1, initial=0.0)
            return replace(image, scores=np.where(right, 1 + best, image.scores))

        return self._gain([ranked(image) for image in self.now])

    def of_small(self) -> Interval:
        """Return by how much AP would be higher if small objects did not count."""
        return self._gain(
            [
                image
                if image.true_areas is None
                else replace(image, crowd=image.crowd | (image.true_areas < SIZES["small"][1]))
                for image in self.now
            ]
        )

    def of_objects(self, chosen: Chosen) -> Interval:
        """Return what ground-truth masks for these ground-truth instances would gain, where a detection found them."""

        def better(one: ExaminedImage) -> Overlaps:
            image = one.overlaps["predict"]
            iou, columns = image.iou.copy(), sorted(chosen.get(one.name, ()))
            for instance, row in one.steps["resolution"].items():
                iou[instance, columns] = np.maximum(iou[instance, columns], row[columns])
            return image.with_iou(iou)

        return self._gain([better(one) for one in self.examined])

    def of_merged(self) -> Interval:
        """Return what is gained without labels of several objects, and without the detections of their parts."""
        better = []
        for image in self.now:
            held = held_detections(image, self.conf)
            parts, labels = (np.logical_or.reduce(held, axis=axis) for axis in (1, 0))
            better.append(without(only(image, ~parts), labels))
        return self._gain(better)

    def of_decode(self, name: str) -> Interval:
        """Return how much higher AP is under another decode."""
        return self._gain([one.overlaps[name] for one in self.examined])

    def of_class(self, class_id: int) -> Interval:
        """Return what would be gained if the AP of a class were the mean of the others."""
        scored = ResampledAP(self.now)
        column = scored.classes.tolist().index(class_id)

        def gain(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, "R 1"]:
            every = scored.by_class(weights)
            others = mean_known(np.delete(every, column, axis=1))
            return ((others - every[:, column]) / (~np.isnan(every)).sum(axis=1))[:, None]

        (found,) = intervals_of(gain, len(self.now))
        return found

    @property
    def now(self) -> list[Overlaps]:
        """The current overlaps."""
        return [one.overlaps["predict"] for one in self.examined]

    def _gain(self, better: Sequence[Overlaps]) -> Interval:
        after = ResampledAP(better)

        def gain(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, "R 1"]:
            return (after(weights) - self._before(weights))[:, None]

        (found,) = intervals_of(gain, len(self.now))
        return found
