"""Maps of the places of an image, and the half-planes in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

PLACES = 32
"""Side of the map of positions: every image is averaged down to n by n cells."""
_ANGLES = 36


class HalfPlane(NamedTuple):
    """The half-plane that separates high from low values best.

    A place (x, y) of the image, both 0 to 1, is on its high side where x cos(angle) + y sin(angle) > offset; the angle
    is in degrees, 0 to the right, 90 downwards.

    Attributes
    ----------
    explained
        Share of the variance between the two sides.
    """

    angle: float
    offset: float
    explained: float


def place_means(values: Float32[np.ndarray, "K h w"]) -> Float64[np.ndarray, "K P P"]:
    """Grid images averaged over `PLACES` x `PLACES` equal parts of the image, area by area."""
    resized = [cv2.resize(one, (PLACES, PLACES), interpolation=cv2.INTER_AREA) for one in values]
    return np.array(resized, dtype=np.float64)


def ramp_variance(maps: Float64[np.ndarray, "K P P"]) -> Float64[np.ndarray, " K"]:
    """Variance of the best linear ramp a x + b y + c through every map."""
    side = maps.shape[1]
    centres = (np.arange(side) + 0.5) / side - 0.5
    spread = float((centres**2).mean())
    along_x, along_y = (maps @ centres).mean(axis=1) / side, (centres @ maps).mean(axis=1) / side
    return (along_x**2 + along_y**2) / spread


def best_half_plane(values: Float64[np.ndarray, "P P"], variance: float) -> HalfPlane:
    """Return the half-plane with the largest variance between its two sides, of 36 directions and all offsets.

    `variance` is what `explained` is a share of. NaN throughout where it is 0.
    """
    if not variance > 0:
        return HalfPlane(np.nan, np.nan, np.nan)
    side = len(values)
    centres = (np.arange(side) + 0.5) / side
    angles = np.arange(_ANGLES) * (2 * np.pi / _ANGLES)
    along = np.cos(angles)[:, None, None] * centres + np.sin(angles)[:, None, None] * centres[:, None]
    along = along.reshape(_ANGLES, -1)
    order = np.argsort(along, axis=1, kind="stable")
    sorted_along = np.take_along_axis(along, order, axis=1)
    low_sums = np.cumsum((values - values.mean()).reshape(-1)[order], axis=1)[:, :-1]
    cells = values.size
    low = np.arange(1, cells)
    # A cut lies between two different projections; the high side must be the one with the larger mean.
    possible = (np.diff(sorted_along, axis=1) > 1e-9) & (low_sums <= 0)
    between = np.where(possible, low_sums**2 / (low * (cells - low)), -1.0)
    best, cut = np.unravel_index(int(np.argmax(between)), between.shape)
    offset = sorted_along[best, cut : cut + 2].mean()
    return HalfPlane(
        float(np.degrees(angles[best])), float(offset), float(np.clip(between[best, cut] / variance, 0, 1))
    )
