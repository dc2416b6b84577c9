"""Does a prototype follow the picture, or stay where it is? Shift, flip and pad the image and see.

A prototype that sees things gives the transformed response to the transformed image; one that
knows positions gives the response that it gave before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import cv2
import numpy as np

from maskprism.datasets.visit import predicted
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, UInt8

    from maskprism.core.prediction import Prediction
    from maskprism.datasets.visit import Predictor

    Canvas = UInt8[np.ndarray, "H W 3"]
    Maps = Float32[np.ndarray, "K h w"]

Change = Literal["shift", "flip", "pad"]
CHANGES: tuple[Change, ...] = ("shift", "flip", "pad")
_SHIFTED, _FLIPPED, _PADDED = range(3)
_SHIFT = 0.25
_PAD = 0.75
MARGIN = 0.1
"""A prototype follows (or stays) if one mean correlation is larger than the other by more than this."""


class Movement(NamedTuple):
    """Correlations of the response to a changed image, per change of `CHANGES` and prototype.

    NaN where a response is constant.

    Attributes
    ----------
    follows
        With the response to the original, changed in the same way: 1 is perfectly equivariant.
    stays
        With the response to the original as it was at the same cells: 1 is perfectly positional.
    """

    follows: Float64[np.ndarray, "3 K"]
    stays: Float64[np.ndarray, "3 K"]


@dataclass(frozen=True, eq=False)
class MovementTest:
    """The movements of several images.

    Attributes
    ----------
    samples
        Follows and stays of every image.
    """

    samples: Float64[np.ndarray, "images 2 3 K"]

    @classmethod
    def of(cls, movements: list[Movement]) -> MovementTest:
        """Gather the movements of images.

        Raises
        ------
        InputError
            For none.
        """
        if not movements:
            raise InputError("no image could be moved; expected at least one")
        return cls(np.array([[one.follows, one.stays] for one in movements]))

    @property
    def images(self) -> int:
        """How many images were moved."""
        return len(self.samples)

    @property
    def follows(self) -> Float64[np.ndarray, "3 K"]:
        """Mean correlation with the moved response, per change."""
        return _mean(self.samples[:, 0])

    @property
    def stays(self) -> Float64[np.ndarray, "3 K"]:
        """Mean correlation with the unmoved response, per change."""
        return _mean(self.samples[:, 1])

    @property
    def standard_errors(self) -> Float64[np.ndarray, "2 3 K"]:
        """Of the two means over images; NaN with a single one."""
        counts = np.isfinite(self.samples).sum(axis=0)
        centred = self.samples - _mean(self.samples)
        squares = np.nansum(centred**2, axis=0)
        found = np.full(squares.shape, np.nan)
        np.divide(squares, counts * (counts - 1), out=found, where=counts > 1)
        return np.sqrt(found)

    def verdict(self, k: int) -> Literal["follows", "stays", "unclear"]:
        """Return which correlation of prototype k is larger by more than `MARGIN`, on average over shift and pad."""
        lead = float(_mean((self.follows - self.stays)[[_SHIFTED, _PADDED], k]))
        return "follows" if lead > MARGIN else "stays" if lead < -MARGIN else "unclear"

    def handedness(self, k: int) -> float:
        """Return how much less prototype k follows a mirrored image than a shifted one; NaN where undefined."""
        return float(self.follows[_SHIFTED, k] - self.follows[_FLIPPED, k])


def move(model: Predictor[Prediction], image: Canvas, prediction: Prediction | None = None) -> Movement:
    """Shift, flip and pad one image on the canvas, and compare the responses of all prototypes.

    `prediction` is what the model said about the image, if that is known already.

    shift: a quarter of the canvas to the right and downwards, in whole grid cells. flip: left to
    right. pad: shrunk to three quarters in the middle of the canvas. The padding's colour fills the rest.
    Only cells that show the image before and after are compared.
    """
    if prediction is None:
        prediction = predicted(model, image)
    letterbox, before = prediction.letterbox, prediction.prototypes
    prepare = prediction.preprocessing
    canvas = prepare.canvas(image, letterbox)
    shown = np.zeros(letterbox.grid_hw, dtype=bool)
    shown[letterbox.content_cells] = True
    follows, stays = [], []
    for change in CHANGES:
        moved = changed_canvas(canvas, change, letterbox.grid_hw, prepare.padding_bgr)
        after = predicted(model, moved).prototypes
        compared = shown & changed_maps(shown[None].astype(np.float32), change)[0].astype(bool)
        follows.append(correlations(after, changed_maps(before, change), compared))
        stays.append(correlations(after, before, compared))
    return Movement(np.array(follows), np.array(stays))


def changed_canvas(
    canvas: Canvas, change: Change, grid_hw: tuple[int, int], padding_bgr: tuple[int, int, int]
) -> Canvas:
    """Return the canvas after one of `CHANGES`; the padding's colour fills what comes free."""
    if change == "flip":
        return np.ascontiguousarray(canvas[:, ::-1])
    (top, left), (height, width) = _window(change, grid_hw)
    rows, columns = (
        slice(start * side // cells, (start + size) * side // cells)
        for start, size, side, cells in zip((top, left), (height, width), canvas.shape, grid_hw, strict=False)
    )
    found = np.full_like(canvas, padding_bgr)
    target = found[rows, columns]
    if change == "shift":
        target[:] = canvas[: target.shape[0], : target.shape[1]]
    else:
        target[:] = cv2.resize(canvas, target.shape[1::-1], interpolation=cv2.INTER_AREA)
    return found


def changed_maps(maps: Maps, change: Change) -> Maps:
    """Return what `changed_canvas` does, done to grid images; 0 fills what comes free."""
    if change == "flip":
        return maps[..., ::-1]
    (top, left), (height, width) = _window(change, maps.shape[1:])
    found = np.zeros_like(maps)
    target = found[:, top : top + height, left : left + width]
    if change == "shift":
        target[:] = maps[:, :height, :width]
    else:
        target[:] = [cv2.resize(one, (width, height), interpolation=cv2.INTER_AREA) for one in maps]
    return found


def correlations(a: Maps, b: Maps, where: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, " K"]:
    """Pearson correlation of every two grid images over some cells; NaN where one of them is constant."""
    first, second = (maps[:, where].astype(np.float64) for maps in (a, b))
    if first.shape[1] < 2:
        return np.full(len(a), np.nan)
    first -= first.mean(axis=1, keepdims=True)
    second -= second.mean(axis=1, keepdims=True)
    spread = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    found = np.full(len(a), np.nan)
    np.divide((first * second).sum(axis=1), spread, out=found, where=spread > 1e-12)
    return found


def _window(change: Change, grid_hw: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(top, left) and (height, width) of where the canvas goes, in grid cells."""
    height, width = grid_hw
    if change == "shift":
        top, left = max(round(height * _SHIFT), 1), max(round(width * _SHIFT), 1)
        return (top, left), (height - top, width - left)
    small_h, small_w = max(round(height * _PAD), 1), max(round(width * _PAD), 1)
    return ((height - small_h) // 2, (width - small_w) // 2), (small_h, small_w)


def _mean(values: Float64[np.ndarray, "M ..."]) -> Float64[np.ndarray, "..."]:
    """Mean of the finite values over the first axis; NaN without any."""
    known = np.isfinite(values)
    found = np.full(values.shape[1:], np.nan)
    np.divide(np.where(known, values, 0).sum(axis=0), known.sum(axis=0), out=found, where=known.any(axis=0))
    return found
