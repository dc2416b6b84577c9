"""Where two masks differ: along their outlines, or within.

Boundary IoU: Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation", CVPR 2021.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from maskprism.analysis.truth.best_coefficients import window_of

if TYPE_CHECKING:
    from jaxtyping import Bool

    from maskprism.analysis.truth.overlaps import Region

WIDTH_SHARE = 0.02
"""Width of the bands along outlines, as a share of the image's diagonal (as in the paper)."""


class BoundaryAgreement(NamedTuple):
    """The IoU of two masks along their outlines and away from them.

    Attributes
    ----------
    boundary
        IoU of the bands inside both outlines, 0 to 1.
    interior
        IoU away from the ground-truth outline; nan for an object so thin that nothing of it is away from its outline.
    """

    boundary: float
    interior: float


def boundary_width(height: float, width: float) -> int:
    """Width of the bands in pixels, for an image of this size in the same frame."""
    return max(round(WIDTH_SHARE * math.hypot(height, width)), 1)


def boundary_agreement(mask: Region, truth: Region, width: int) -> BoundaryAgreement:
    """Boundary IoU and interior IoU of a mask with the ground truth, in the same frame.

    The band of a mask are its pixels within `width` pixels of one outside it, diagonal steps counting as one; beyond
    the frame is outside. Boundary IoU is that of both bands; for objects thinner than twice the width it is mask IoU.
    Interior IoU leaves out all pixels within `width` of the ground-truth outline, on either side.
    """
    rows = slice(min(mask.rows.start, truth.rows.start), max(mask.rows.stop, truth.rows.stop))
    columns = slice(min(mask.columns.start, truth.columns.start), max(mask.columns.stop, truth.columns.stop))
    if rows.stop <= rows.start or columns.stop <= columns.start:
        return BoundaryAgreement(0.0, math.nan)
    found, true = (window_of(one, rows, columns) for one in (mask, truth))
    core, true_core = _core(found, width), _core(true, width)
    boundary = _iou(found & ~core, true & ~true_core)
    away = true_core | _core(~true, width, beyond=1)
    interior = _iou(found & away, true & away) if true_core.any() else math.nan
    return BoundaryAgreement(boundary, interior)


def _core(mask: Bool[np.ndarray, "H W"], width: int, beyond: int = 0) -> Bool[np.ndarray, "H W"]:
    """Return what is more than `width` pixels from anything outside the mask.

    `beyond` says what lies beyond the frame.
    """
    square = np.ones((2 * width + 1, 2 * width + 1), dtype=np.uint8)
    eroded = cv2.erode(mask.astype(np.uint8), square, borderType=cv2.BORDER_CONSTANT, borderValue=(beyond,))
    return eroded > 0


def _iou(first: Bool[np.ndarray, "H W"], second: Bool[np.ndarray, "H W"]) -> float:
    either = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / either if either else 0.0
