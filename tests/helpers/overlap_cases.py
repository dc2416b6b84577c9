"""Detections and ground truth at random: as masks, and as their overlaps alone."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from helpers.strategies import seeds
from maskprism.analysis.truth.overlaps import Overlaps


def some_masks(rng: np.random.Generator, count: int, side: int) -> np.ndarray:
    """Rectangles with holes, some of them empty."""
    masks = np.zeros((count, side, side), dtype=bool)
    for mask in masks:
        (y1, x1), (y2, x2) = np.sort(rng.integers(0, side + 1, (2, 2)), axis=0)
        mask[y1:y2, x1:x2] = rng.random((y2 - y1, x2 - x1)) < rng.choice([0.5, 1.0])
    return masks


def images_of_masks(rng: np.random.Generator, count: int = 12, side: int = 160) -> list[tuple]:
    """(labelled masks, classes, crowd), (found masks, classes, scores) per image; found ones are shifted ones."""
    result = []
    for _ in range(count):
        true, wrong = some_masks(rng, rng.integers(1, 6), side), some_masks(rng, rng.integers(0, 4), side)
        true_classes = rng.integers(0, 3, len(true))
        which = rng.integers(0, len(true), 9)
        copies = [np.roll(true[i], rng.integers(-4, 5), axis=1) for i in which]
        found = np.concatenate([np.array(copies), wrong])
        classes = np.where(rng.random(len(found)) < 0.2, rng.integers(0, 3, len(found)), 0)
        classes[:9] = np.where(classes[:9], classes[:9], true_classes[which])
        scores = rng.integers(0, 20, len(found)) / 40 + 0.5 * (np.arange(len(found)) < 9)  # with ties
        result.append(((true, true_classes, rng.random(len(true)) < 0.2), (found, classes, scores)))
    return result


@st.composite
def overlaps(draw: st.DrawFn, classes: int = 3) -> Overlaps:
    rng = np.random.default_rng(draw(seeds))
    n, g = draw(st.integers(0, 8)), draw(st.integers(0, 5))
    return Overlaps(
        scores=rng.permutation(n) / 8 + 0.001 * rng.random(),  # no ties: their order is not defined
        classes=rng.integers(0, classes, n),
        true_classes=rng.integers(0, classes, g),
        iou=rng.random((n, g)).round(2),
        crowd=rng.random(g) < 0.2,
    )
