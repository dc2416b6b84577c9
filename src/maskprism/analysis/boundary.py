"""Where two masks differ: along their outlines, or within.

Boundary IoU: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from maskprism.analysis.best_coefficients import window_of

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8

    from maskprism.analysis.overlaps import Region

WIDTH_SHARE = 0.02
"""Width of the bands along outlines, as a share of the photograph's diagonal (as in the paper)."""


class BoundaryAgreement(NamedTuple):
    """boundary: IoU of the bands inside both outlines. interior: IoU of what is left within; nan if nothing is."""

    boundary: float
    interior: float


def boundary_width(height: float, width: float) -> int:
    """Width of the bands in pixels, for a photograph of this size in the same frame."""
    return max(round(WIDTH_SHARE * math.hypot(height, width)), 1)


def boundary_agreement(first: Region, second: Region, width: int) -> BoundaryAgreement:
    """Boundary IoU and interior IoU of two masks of one frame.

    The band of a mask are its pixels within `width` pixels of one outside it, diagonal steps counting as one; beyond
    the frame is outside. An object thinner than twice the width is all band, and its boundary IoU is its mask IoU.
    """
    rows = slice(min(first.rows.start, second.rows.start), max(first.rows.stop, second.rows.stop))
    columns = slice(min(first.columns.start, second.columns.start), max(first.columns.stop, second.columns.stop))
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return BoundaryAgreement(0.0, math.nan)
    masks = [window_of(one, rows, columns) for one in (first, second)]
    cores = [_core(mask.astype(np.uint8), width) for mask in masks]
    boundary = _iou(masks[0] & ~cores[0], masks[1] & ~cores[1])
    return BoundaryAgreement(0.0 if math.isnan(boundary) else boundary, _iou(*cores))


def _core(mask: UInt8[np.ndarray, "H W"], width: int) -> Bool[np.ndarray, "H W"]:
    """What is more than `width` pixels from the outline."""
    square = np.ones((2 * width + 1, 2 * width + 1), dtype=np.uint8)
    return cv2.erode(mask, square, borderType=cv2.BORDER_CONSTANT, borderValue=(0,)) > 0


def _iou(first: Bool[np.ndarray, "H W"], second: Bool[np.ndarray, "H W"]) -> float:
    either = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / either if either else math.nan
