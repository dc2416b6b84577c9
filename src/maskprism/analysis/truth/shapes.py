"""What makes a shape hard to draw: parts that lie apart, the border of the image, and thinness."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from maskprism.analysis.truth.overlaps import Region
    from maskprism.core.geometry import Letterbox

THIN = 5.0
"""Shapes from this thinness on are long or thin: a bar of 5 : 1 has it."""
_SPECK = 0.01
"""Parts of less than this share of a mask do not count as pieces."""


class Shape(NamedTuple):
    """The shape of a mask.

    Attributes
    ----------
    pieces
        Parts that are not connected, 8 neighbours to a pixel; those below 1 % of the mask left out. 0 for no mask.
    touches_border
        Whether it reaches the border of the image.
    thinness
        Its area over the square of its largest width (the diameter of the largest disc inside): 0.8 for a disc, 1 for a
        square, 10 for a bar of 10 : 1. 0 for no mask.
    """

    pieces: int
    touches_border: bool
    thinness: float


def pieces_of(mask: Region) -> int:
    """Return `Shape.pieces` of a mask."""
    if not mask.area:
        return 0
    stats = cv2.connectedComponentsWithStats(mask.inside.astype(np.uint8), connectivity=8)[2]
    return int(np.count_nonzero(stats[1:, cv2.CC_STAT_AREA] >= max(1.0, _SPECK * mask.area)))


def shape_of(mask: Region, letterbox: Letterbox) -> Shape:
    """Return the shape of a mask on the letterboxed input."""
    if not mask.area:
        return Shape(0, False, 0.0)
    rows, columns = np.flatnonzero(mask.inside.any(axis=1)), np.flatnonzero(mask.inside.any(axis=0))
    (top, left), (height, width) = letterbox.offset_yx, letterbox.content_hw
    starts = (mask.rows.start + rows[0] - top, mask.columns.start + columns[0] - left)
    ends = (top + height - mask.rows.start - rows[-1] - 1, left + width - mask.columns.start - columns[-1] - 1)
    doubled = np.pad(mask.inside, 1).astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)  # odd widths become even
    largest_width = float(cv2.distanceTransform(doubled, cv2.DIST_L2, 5).max())
    return Shape(pieces_of(mask), bool(min(*starts, *ends) <= 0), mask.area / largest_width**2)
