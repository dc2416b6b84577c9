"""What a correction is fitted to: instances that found a ground-truth instance, at some pixels of their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.truth.best_coefficients import window_of
from maskprism.analysis.truth.exact_coefficients import interpolated
from maskprism.analysis.truth.matching import THRESHOLD, match
from maskprism.analysis.truth.overlaps import Region, box_overlap
from maskprism.masks import crop_window
from maskprism.models.layouts import non_maximum_suppression

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int64

    from maskprism.datasets import GroundTruth
    from maskprism.prediction import Prediction

CONF = 0.05
"""Candidates above this score are evidence."""
PIXELS = 128
"""Pixels of the canvas looked at per instance."""
CANDIDATES = 6
"""Candidates per ground-truth instance, at most: the one that NMS keeps, and some of those that fall to it."""
MOST = 12_000
"""Instances kept, at most: of many images, fewer candidates each."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """N instances with M pixels each, in the order of their images.

    image: number of the image. own: what NMS keeps in the image as it is: gain is measured on these alone.
    weights: the score, shared by the candidates of one ground-truth instance: sure ones count for more.
    coefficients, levels: of each instance; factors: the objectness that a rule multiplies them by, else 1.
    prototypes: at the pixels, as the canvas has them. inside: whether each pixel is ground truth.
    pixels: how many pixels of the box each stands for; 0 fills up. outside: ground truth that the box leaves out.
    """

    image: Int64[np.ndarray, " N"]
    own: Bool[np.ndarray, " N"]
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
        """The instances of some images that follow each other."""
        start, end = np.searchsorted(self.image, [first, stop])
        return slice(int(start), int(end))


def evidence_of(
    prediction: Prediction,
    truth: GroundTruth,
    rng: np.random.Generator,
    *,
    iou: float = 0.7,
    most: int = MOST,
    own: bool = True,
) -> Evidence:
    """The evidence in one image.

    prediction: all candidates, before NMS; those that NMS at `iou` keeps are matched. Others count that overlap the
    same ground-truth instance of their class most, by half or more. most: instances, at most. own: see `Evidence`.
    """
    kept = non_maximum_suppression(prediction.extents, prediction.scores, prediction.classes, iou)
    matches = match(prediction[kept], truth)
    overlap = box_overlap(prediction.boxes, truth.boxes, truth.crowd)
    overlap[prediction.classes[:, None] != truth.classes[None, :]] = 0
    nearest = overlap.argmax(axis=1) if len(truth) else np.zeros(len(prediction), dtype=np.int64)
    first: list[tuple[int, int, float]] = []
    others: list[tuple[int, int, float]] = []
    for found, target in zip(kept[matches.instances].tolist(), matches.objects.tolist(), strict=True):
        near = np.flatnonzero((nearest == target) & (overlap[:, target] >= THRESHOLD))
        near = rng.permutation(near[near != found])[: CANDIDATES - 1]
        share = 1 / (1 + len(near))
        first.append((found, target, share))
        others += [(index, target, share) for index in near.tolist()]
    room = max(most - len(first), 0)
    chosen = first[:most] + [others[index] for index in sorted(rng.permutation(len(others))[:room].tolist())]
    return _sampled(prediction, truth, chosen, len(first) if own else 0, rng)


def _sampled(
    prediction: Prediction,
    truth: GroundTruth,
    chosen: Sequence[tuple[int, int, float]],
    own: int,
    rng: np.random.Generator,
) -> Evidence:
    """The evidence of (instance, ground-truth instance, weight); the first `own` of them are own."""
    n, k = len(chosen), len(prediction.prototypes)
    which = np.array([index for index, _, _ in chosen], dtype=np.int64)
    prototypes = np.zeros((n, PIXELS, k), dtype=np.float32)
    inside, pixels = (np.zeros((n, PIXELS), dtype=np.float32) for _ in range(2))
    outside = np.zeros(n, dtype=np.float32)
    letterbox, rule = prediction.letterbox, prediction.rule
    everywhere = np.ones(letterbox.grid_hw, dtype=np.float32)
    wanted = {target for _, target, _ in chosen}
    masks = {i: Region(*patch) for i, patch in enumerate(truth.patches("canvas", letterbox)) if i in wanted}
    for row, (index, target, _) in enumerate(chosen):
        box = None if prediction.canvas_boxes is None else prediction.canvas_boxes[index]
        rows, columns = crop_window(box, letterbox, rule, "after", "canvas")
        within = window_of(masks[target], rows, columns)
        outside[row] = masks[target].area - np.count_nonzero(within)
        if not within.size:
            continue
        places = np.sort(rng.permutation(within.size)[:PIXELS])
        y, x = np.divmod(places, within.shape[1])
        count = len(places)
        prototypes[row, :count] = interpolated(
            prediction.prototypes, letterbox, y + rows.start, x + columns.start, everywhere
        )
        inside[row, :count] = within.ravel()[places]
        pixels[row, :count] = within.size / count
    factors = prediction.objectness if rule.objectness else None
    return Evidence(
        image=np.zeros(n, dtype=np.int64),
        own=np.arange(n) < own,
        weights=np.array([share for _, _, share in chosen], dtype=np.float32) * prediction.scores[which],
        coefficients=prediction.coefficients[which],
        factors=np.ones(n, dtype=np.float32) if factors is None else factors[which],
        levels=np.zeros(n, dtype=np.int64) if prediction.levels is None else prediction.levels[which],
        prototypes=prototypes,
        inside=inside,
        pixels=pixels,
        outside=outside,
    )
