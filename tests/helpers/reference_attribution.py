"""Slow and obvious twins of the attribution of one instance: whole masks, one subset, one pixel at a time."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np

from helpers import reference
from maskprism import Edit, Instance
from maskprism.core.masks import Patch


def boxes_of(instance: Instance) -> dict[str, list[float]]:
    """The box in each frame."""
    return {
        size: instance.letterbox.from_canvas(instance.canvas_box, size).tolist() for size in ("grid", "canvas", "image")
    }


def terms(instance: Instance, size: str) -> np.ndarray:
    """The terms at a size, cropped on the grid where the rule does that; zero beyond the crop."""
    rule, boxes = instance.rule, boxes_of(instance)
    found = []
    for weight, prototype in zip(instance.weights, instance.prototypes, strict=True):
        term = float(weight) * prototype.astype(float)
        values, left = reference.cropped_softly(term, boxes, instance.letterbox, rule, size, squash=False)
        found.append(np.where(left, values, 0))
    return np.array(found)


def box_and_mask(instance: Instance, size: str) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels count as the box, and the mask."""
    rule, mask = instance.rule, instance.mask(size)
    crop = rule.crop_image if size == "image" else rule.crop
    nothing = np.zeros(instance.letterbox.grid_hw)
    _, left = reference.cropped_softly(nothing, boxes_of(instance), instance.letterbox, rule, size, squash=False)
    if crop == "none":
        left = reference.inside(mask.shape, boxes_of(instance)[size])
    return left, mask


def near(region: np.ndarray, reach: int) -> np.ndarray:
    """Which pixels have one of the region at most `reach` rows and columns away."""
    height, width = region.shape
    found = np.zeros_like(region)
    for y, x in zip(*np.nonzero(region), strict=True):
        for j in range(max(y - reach, 0), min(y + reach + 1, height)):
            for i in range(max(x - reach, 0), min(x + reach + 1, width)):
                found[j, i] = True
    return found


def mean(values: np.ndarray, region: np.ndarray) -> float:
    """The mean over a region; NaN over none."""
    chosen = [float(v) for v in values[region]]
    return sum(chosen) / len(chosen) if chosen else math.nan


def iou(a: np.ndarray, b: np.ndarray) -> float:
    """Shared over joint pixels; 1 for two empty masks."""
    joint = int((a | b).sum())
    return int((a & b).sum()) / joint if joint else 1.0


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Twice the shared pixels over all; 1 for two empty masks."""
    both = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / both if both else 1.0


def subset_mask(instance: Instance, members: Iterable[int], size: str) -> np.ndarray:
    """The mask that these prototypes draw, decoded in full."""
    return Edit(keep=list(members)).apply(instance.alone)[0].mask(size)


def is_close_call(instance: Instance, members: Iterable[int], size: str, tolerance: float = 1e-4) -> bool:
    """Whether rounding could move a pixel of that mask across the threshold."""
    prediction = Edit(keep=list(members)).apply(instance.alone)
    patch: Patch = next(prediction.patches(size))
    apart = np.abs(patch.values - instance.rule.threshold)
    return bool(((apart < tolerance) & (apart > 0)).any())


def shapley(value: Callable[[frozenset[int]], float], k: int) -> list[float]:
    """The definition: the mean of what a player changes, over all orders."""
    totals = [0.0] * k
    orders = list(itertools.permutations(range(k)))
    for order in orders:
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            totals[player] += value(before | {player}) - value(before)
    return [total / len(orders) for total in totals]


def soft_dice(instance: Instance, weights: np.ndarray, target: np.ndarray, size: str) -> float:
    """Soft Dice of the probabilities within the crop, in double precision, for any weights."""
    rule = instance.rule
    logits = np.tensordot(weights, instance.prototypes.astype(float), axes=1)
    values, left = reference.cropped_softly(
        logits, boxes_of(instance), instance.letterbox, rule, size, squash=rule.squash
    )
    soft = np.where(left, values if rule.squash else 1 / (1 + np.exp(-values)), 0)
    both = soft.sum() + target.sum()
    return float(2 * (soft * target).sum() / both) if both else 1.0


def smallest_sufficient(score: Callable[[np.ndarray], float], k: int, threshold: float) -> int | None:
    """The size of the smallest of all subsets that reach a score; None if none does."""
    for count in range(k + 1):
        for members in itertools.combinations(range(k), count):
            if score(np.array(members, dtype=np.int64)) >= threshold:
                return count
    return None
