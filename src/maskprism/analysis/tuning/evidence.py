"""What a correction is fitted to: instances that found a ground-truth instance, at some pixels of their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.truth.best_coefficients import window_of
from maskprism.analysis.truth.exact_coefficients import interpolated
from maskprism.analysis.truth.matching import FOUND_IOU, match
from maskprism.analysis.truth.overlaps import Region, box_overlap
from maskprism.analysis.tuning.fitting import SHARPNESS
from maskprism.models.families.yolo import non_maximum_suppression

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int64

    from maskprism.core.prediction import Prediction
    from maskprism.datasets import GroundTruth

CONF = 0.05
"""Candidates above this score are evidence."""
PIXELS = 128
"""Pixels of the canvas looked at per instance."""
CANDIDATES = 6
"""Candidates per ground-truth instance, at most: the one that NMS keeps, and some of those that fall to it."""
MOST = 20_000
"""Instances kept, at most: of many images, fewer candidates each."""
_ANYWHERE = 0.1
"""How often pixels are looked at where nothing can change, to those on an edge."""
_LEAST_IOU = 1e-3
"""What an empty mask counts as: where all are empty, there is something to learn, too."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """N instances with M pixels each, in the order of their images.

    Attributes
    ----------
    image
        Number of the image.
    augmented
        Whether its view is augmented: scale and colours differ from those of the image.
    weights
        The score times the mask's IoU: what is sure and drawn well tells most about what is always wrong.
    coefficients, levels
        Of each instance.
    factors
        The objectness that a rule multiplies them by, else 1.
    prototypes
        At the pixels, as the canvas has them.
    inside
        Whether each pixel is ground truth. They are drawn by chance, most of them where the mask has an edge that a
        correction can move.
    pixels
        How many pixels of the box each stands for; 0 fills up.
    outside
        Ground truth that the box leaves out.
    """

    image: Int64[np.ndarray, " N"]
    augmented: Bool[np.ndarray, " N"]
    weights: Float32[np.ndarray, " N"]
    coefficients: Float32[np.ndarray, "N K"]
    factors: Float32[np.ndarray, " N"]
    levels: Int64[np.ndarray, " N"]
    prototypes: Float32[np.ndarray, "N M K"]
    inside: Float32[np.ndarray, "N M"]
    pixels: Float32[np.ndarray, "N M"]
    outside: Float32[np.ndarray, " N"]

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """One after the other, the images numbered anew in that order."""
        columns = {
            field.name: np.concatenate([getattr(part, field.name) for part in parts])
            for field in fields(cls)
            if field.name != "image"
        }
        return cls(image=np.repeat(np.arange(len(parts)), [len(part) for part in parts]), **columns)

    def of_images(self, first: int, stop: int) -> slice:
        """Return the instances of some images that follow each other."""
        start, end = np.searchsorted(self.image, [first, stop])
        return slice(int(start), int(end))


def evidence_of(
    prediction: Prediction,
    truth: GroundTruth,
    rng: np.random.Generator,
    *,
    iou: float = 0.7,
    most: int = MOST,
    augmented: bool = False,
) -> Evidence:
    """Return the evidence in one image.

    Parameters
    ----------
    prediction
        All candidates, before NMS; those that NMS at `iou` keeps are matched. Others count that overlap the same
        ground-truth instance of their class most, by half or more.
    most
        Instances, at most.
    augmented
        See `Evidence`.
    """
    kept = non_maximum_suppression(prediction.extents, prediction.scores, prediction.classes, iou)
    matches = match(prediction[kept], truth)
    overlap = box_overlap(prediction.boxes, truth.boxes, truth.crowd)
    overlap[prediction.classes[:, None] != truth.classes[None, :]] = 0
    nearest = overlap.argmax(axis=1) if len(truth) else np.zeros(len(prediction), dtype=np.int64)
    first = list(zip(kept[matches.instances].tolist(), matches.objects.tolist(), strict=True))
    others: list[tuple[int, int]] = []
    for found, target in first:
        near = np.flatnonzero((nearest == target) & (overlap[:, target] >= FOUND_IOU))
        near = rng.permutation(near[near != found])[: CANDIDATES - 1]
        others += [(index, target) for index in near.tolist()]
    room = max(most - len(first), 0)
    chosen = first[:most] + [others[index] for index in sorted(rng.permutation(len(others))[:room].tolist())]
    return _sampled(prediction, truth, chosen, augmented, rng)


def _sampled(
    prediction: Prediction,
    truth: GroundTruth,
    chosen: Sequence[tuple[int, int]],
    augmented: bool,
    rng: np.random.Generator,
) -> Evidence:
    """Return the evidence of (instance, ground-truth instance)."""
    n, k = len(chosen), len(prediction.prototypes)
    which = np.array([index for index, _ in chosen], dtype=np.int64)
    prototypes = np.zeros((n, PIXELS, k), dtype=np.float32)
    inside, pixels = (np.zeros((n, PIXELS), dtype=np.float32) for _ in range(2))
    outside, weights = np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.float32)
    letterbox = prediction.letterbox
    everywhere = np.ones(letterbox.grid_hw, dtype=np.float32)
    wanted = {target for _, target in chosen}
    masks = {i: Region(*patch) for i, patch in enumerate(truth.patches("canvas", letterbox)) if i in wanted}
    seen = prediction[which].patches("canvas", crop="after", squash=False)
    for row, (patch, (index, target)) in enumerate(zip(seen, chosen, strict=True)):
        mask = Region.of_patch(patch, 0.0, letterbox.canvas_hw)
        within = window_of(masks[target], mask.rows, mask.columns)
        outside[row] = masks[target].area - np.count_nonzero(within)
        weights[row] = prediction.scores[index] * max(mask.iou_with(masks[target]), _LEAST_IOU)
        if not within.size:
            continue
        places, stand_for = _drawn(patch.values.ravel(), rng)
        y, x = np.divmod(places, within.shape[1])
        count = len(places)
        prototypes[row, :count] = interpolated(
            prediction.prototypes, letterbox, y + mask.rows.start, x + mask.columns.start, everywhere
        )
        inside[row, :count] = within.ravel()[places]
        pixels[row, :count] = stand_for
    factors = prediction.objectness if prediction.rule.objectness else None
    return Evidence(
        image=np.zeros(n, dtype=np.int64),
        augmented=np.full(n, augmented),
        weights=weights,
        coefficients=prediction.coefficients[which],
        factors=np.ones(n, dtype=np.float32) if factors is None else factors[which],
        levels=np.zeros(n, dtype=np.int64) if prediction.levels is None else prediction.levels[which],
        prototypes=prototypes,
        inside=inside,
        pixels=pixels,
        outside=outside,
    )


def _drawn(
    logits: Float32[np.ndarray, " P"], rng: np.random.Generator
) -> tuple[Int64[np.ndarray, " M"], Float64[np.ndarray, " M"]]:
    """Pixels of a box, and how many each stands for: all of a small one, of others as they move the soft IoU."""
    if len(logits) <= PIXELS:
        return np.arange(len(logits)), np.ones(len(logits))
    chance = np.cosh(np.clip(SHARPNESS / 2 * logits.astype(np.float64), -30, 30)) ** -2 + _ANYWHERE
    chance /= chance.sum()
    steps = (np.arange(PIXELS) + rng.random(PIXELS)) / PIXELS
    places = np.minimum(np.searchsorted(np.cumsum(chance), steps), len(logits) - 1)
    return places, 1 / (PIXELS * chance[places])
