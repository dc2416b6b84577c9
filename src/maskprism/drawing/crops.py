"""One instance cut out of its image: its mask in a colour, its ground truth as a line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskprism.drawing.mask_style import OUTER_LINE, PaintedMask, paint_masks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, UInt8

    from maskprism.core.prediction import Instance
    from maskprism.drawing.palette import RGB

_AROUND, _LEAST_PX, _LARGEST_ZOOM = 1.3, 24, 6.0
_FRAME_GREY = 56


def crop(
    picture: UInt8[np.ndarray, "H W 3"],
    instance: Instance,
    truth: Bool[np.ndarray, "H W"] | None = None,
    *,
    side: int,
    colour: RGB,
) -> UInt8[np.ndarray, "h w 3"]:
    """Return the box of an instance and some pixels around it, BGR, with no side over `side`.

    Parameters
    ----------
    picture
        The image, BGR.
    truth
        Its ground truth, a white line.
    colour
        Of the mask: `mask_style.instance_colours`, or the same for all.
    """
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = instance.box.astype(float)
    reach = np.maximum([(x2 - x1) * _AROUND, (y2 - y1) * _AROUND], _LEAST_PX) / 2
    middle = np.array([(x1 + x2) / 2, (y1 + y2) / 2])
    left, top = np.clip(np.floor(middle - reach), 0, [width - 1, height - 1]).astype(int)
    right, bottom = np.clip(np.ceil(middle + reach), [left + 1, top + 1], [width, height]).astype(int)
    window = (slice(top, bottom), slice(left, right))
    zoom = min(side / max(bottom - top, right - left), _LARGEST_ZOOM)
    size_wh = max(round((right - left) * zoom), 1), max(round((bottom - top) * zoom), 1)
    way = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    shown = cv2.resize(picture[window], size_wh, interpolation=way)[..., ::-1]
    inside, labelled = (
        None if mask is None else cv2.resize(mask[window].astype(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST)
        for mask in (instance.mask("image"), truth)
    )
    assert inside is not None
    painted = paint_masks(shown, [PaintedMask(slice(0, size_wh[1]), slice(0, size_wh[0]), inside > 0, colour)])
    if labelled is not None:
        contours, _ = cv2.findContours(labelled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(painted, contours, -1, OUTER_LINE, 1)
    return np.ascontiguousarray(painted[..., ::-1])


def framed(picture: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    """Return a small picture in the middle of a dark grey square of `side` pixels, as images are around masks."""
    height, width = picture.shape[:2]
    square = np.full((side, side, 3), _FRAME_GREY, dtype=np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = picture
    return square


def contact_sheet(
    cells: Sequence[UInt8[np.ndarray, "side side 3"]], side: int, across: int, down: int
) -> UInt8[np.ndarray, "H W 3"]:
    """Squares of `side` pixels in rows of `across`, on a white sheet with room for `down` rows."""
    sheet = np.full((down * side, across * side, 3), 255, dtype=np.uint8)
    for at, cell in enumerate(cells):
        top, left = at // across * side, at % across * side
        sheet[top : top + side, left : left + side] = cell
    return sheet
