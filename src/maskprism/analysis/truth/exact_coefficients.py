"""Coefficients that draw a ground-truth instance exactly, to the last pixel, where the prototypes of the image can."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskprism.analysis.truth.best_coefficients import Cells, Fit, fit, window_of

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int64

    from maskprism.analysis.truth.overlaps import Region
    from maskprism.core.geometry import Letterbox

MOST_MISTAKEN = 0.03
"""The share of pixels that a fit to them may get wrong before the search is given up."""
_PENALTIES = (1e-6, 1e-9)  # small, since exact masks need steep logits where an outline passes close to pixels
_ROUNDS = 10
_STEPS = 12
_SAMPLE = 400


def exact_weights(
    prototypes: Float32[np.ndarray, "K h w"],
    letterbox: Letterbox,
    truth: Region,
    start: Fit,
    draw: Callable[[Float32[np.ndarray, " K"]], Region],
    kept: Float32[np.ndarray, "h w"],
) -> Fit | None:
    """Weights whose mask is `truth` wherever it is drawn, or None if none are found.

    A logit on the canvas is a weighted sum, too: of prototypes, interpolated. So the weights that draw the ground truth
    are those that separate the pixels in it from the others by a plane. A few pixels along the outline settle nearly
    all; they are separated by logistic regression with next to no penalty, the pixels that the mask then gets
    wrong join them, and so on until none is wrong. If some of the few are indistinguishable, no weights can be exact; a
    fit that gets more than MOST_MISTAKEN of them wrong is taken for the sign of that. None is no proof, then:
    prototypes that differ by less than a hundredth may hide exact weights.

    Parameters
    ----------
    start
        The best weights on grid cells, where the search begins.
    draw
        The mask of weights under the rule in use, which has the last word; always in the same window of the canvas. It
        must resize logits: resized probabilities are no weighted sums.
    kept
        1 for the cells of the grid that a crop before resizing leaves, or else all, and 0 for the others.
    """
    mask = draw(start.weights)
    inside = window_of(truth, mask.rows, mask.columns)
    if not inside.any():
        return None
    chosen = _sample(_outline(inside))
    found = start
    for _ in range(_ROUNDS):
        wrong = np.flatnonzero(mask.inside != inside)
        if not len(wrong):
            return found._replace(exact=True)
        chosen = np.union1d(chosen, _sample(wrong))
        y, x = np.divmod(chosen, inside.shape[1])
        features = interpolated(prototypes, letterbox, y + mask.rows.start, x + mask.columns.start, kept)
        covered = inside.ravel()[chosen]
        pixels = Cells(features, covered.astype(np.float32), np.ones(len(chosen), dtype=np.float32))
        for penalty in _PENALTIES:
            found = fit(pixels, found.weights, penalty=penalty, tolerance=penalty, max_steps=_STEPS)
            mistaken = float(np.mean((features @ found.weights > 0) != covered))
            if mistaken > MOST_MISTAKEN:
                return None
            if not mistaken:
                break
        mask = draw(found.weights)
    return None


def interpolated(
    prototypes: Float32[np.ndarray, "K h w"],
    letterbox: Letterbox,
    y: Int64[np.ndarray, " M"],
    x: Int64[np.ndarray, " M"],
    kept: Float32[np.ndarray, "h w"],
) -> Float32[np.ndarray, "M K"]:
    """Return the prototypes at pixels of the canvas, as `Letterbox.resample` has them.

    Cells count as much as is `kept`.
    """
    grid_h, grid_w = letterbox.grid_hw
    top, down = _between(y, letterbox.canvas_hw[0], grid_h)
    left, right = _between(x, letterbox.canvas_hw[1], grid_w)
    flat, found = prototypes.reshape(len(prototypes), -1), np.zeros((len(prototypes), len(y)), dtype=np.float32)
    for row, share_y in ((top, 1 - down), (np.minimum(top + 1, grid_h - 1), down)):
        for column, share_x in ((left, 1 - right), (np.minimum(left + 1, grid_w - 1), right)):
            cell = row * grid_w + column
            found += flat[:, cell] * (share_y * share_x * kept.ravel()[cell])
    return np.ascontiguousarray(found.T)


def _between(
    pixels: Int64[np.ndarray, " M"], length: int, cells: int
) -> tuple[Int64[np.ndarray, " M"], Float32[np.ndarray, " M"]]:
    """Return the cell whose centre comes before each pixel's, and how far that is on the way to the next."""
    at = np.clip((pixels + 0.5) * (cells / length) - 0.5, 0, cells - 1)
    before = at.astype(np.int64)
    return before, (at - before).astype(np.float32)


def _outline(inside: Bool[np.ndarray, "H W"]) -> Int64[np.ndarray, " M"]:
    """Pixels next to one that is on the other side of the outline."""
    mask, around = inside.astype(np.uint8), np.ones((3, 3), dtype=np.uint8)
    return np.flatnonzero(cv2.dilate(mask, around) != cv2.erode(mask, around))


def _sample(pixels: Int64[np.ndarray, " M"]) -> Int64[np.ndarray, " L"]:
    """At most _SAMPLE of them, evenly spread."""
    return pixels[:: max(-(-len(pixels) // _SAMPLE), 1)]
