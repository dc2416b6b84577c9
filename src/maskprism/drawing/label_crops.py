"""A label cut out of its image, with outlines to be drawn over it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import cv2
import numpy as np

from maskprism.datasets.bitmap_outlines import border_rings
from maskprism.drawing.crops import contact_sheet, framed
from maskprism.drawing.palette import RGB

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64, UInt8

OutlineName = Literal["label", "prediction", "suggestion"]
OUTLINE_COLOURS: dict[OutlineName, RGB] = {
    "label": (255, 122, 31),
    "prediction": (86, 180, 233),
    "suggestion": (240, 228, 66),
}
"""Those of the style of the page, too; each line has a black border."""
_MARGIN, _LEAST_MARGIN_PX = 0.3, 12
_BEND = 0.5
"""In pixels of the shrunk crop: outlines may move by this much."""


class LabelCrop(NamedTuple):
    """A part of an image, BGR, and rings in its pixels."""

    picture: UInt8[np.ndarray, "h w 3"]
    outlines: Mapping[OutlineName, Sequence[Int64[np.ndarray, "V 2"]]]


def label_crop(
    image: UInt8[np.ndarray, "H W 3"],
    box: Sequence[float],
    masks: Mapping[OutlineName, Bool[np.ndarray, "H W"]],
    *,
    side: int,
) -> LabelCrop:
    """Cut out what surrounds a label and other masks of it.

    Parameters
    ----------
    image
        HWC uint8 in BGR.
    box
        x1, y1, x2, y2 of the label.
    masks
        What is outlined; all of it is in the crop.
    side
        The crop is shrunk to at most this number of pixels a side.

    Returns
    -------
    LabelCrop
        A square where the image has room for one.
    """
    height, width = image.shape[:2]
    corners = [box, *(_bounds(mask) for mask in masks.values() if mask.any())]
    low, high = np.min(corners, axis=0)[:2], np.max(corners, axis=0)[2:]
    reach = max(float((high - low).max()) / 2 * (1 + 2 * _MARGIN), float((high - low).max()) / 2 + _LEAST_MARGIN_PX)
    ends = [_within(middle, reach, length) for middle, length in zip((low + high) / 2, (width, height), strict=True)]
    columns, rows = (slice(*end) for end in ends)
    picture = image[rows, columns]
    zoom = min(1.0, side / max(picture.shape[:2]))
    size_wh = max(round(picture.shape[1] * zoom), 1), max(round(picture.shape[0] * zoom), 1)
    if zoom < 1:
        picture = cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA)
    outlines: dict[OutlineName, Sequence[np.ndarray]] = {}
    for name, mask in masks.items():
        part = mask[rows, columns]
        if zoom < 1:
            part = cv2.resize(part.astype(np.uint8), size_wh, interpolation=cv2.INTER_AREA) > 0
        rings = [ring for rings in border_rings(part) for ring in rings]
        outlines[name] = [_straightened(ring) for ring in rings] if zoom < 1 else rings
    return LabelCrop(picture, outlines)


def crop_sheet(crops: Sequence[LabelCrop], *, side: int, across: int) -> UInt8[np.ndarray, "H W 3"]:
    """Draw crops with their outlines side by side, BGR.

    Parameters
    ----------
    crops
        At least one.
    side
        Of each square, in pixels.
    across
        How many squares a row has.
    """
    cells = []
    for crop in crops:
        height, width = crop.picture.shape[:2]
        zoom = side / max(height, width)
        size_wh = max(round(width * zoom), 1), max(round(height * zoom), 1)
        picture = cv2.resize(crop.picture, size_wh, interpolation=cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR)
        rings = [
            (np.round(ring * zoom).astype(np.int32), OUTLINE_COLOURS[name][::-1])
            for name, outlines in crop.outlines.items()
            for ring in outlines
        ]
        for ring, _ in rings:
            cv2.polylines(picture, [ring], True, (0, 0, 0), 4, cv2.LINE_AA)
        for ring, colour in rings:
            cv2.polylines(picture, [ring], True, colour, 2, cv2.LINE_AA)
        cells.append(framed(picture, side))
    across = min(across, len(cells))
    return contact_sheet(cells, side, across, -(-len(cells) // across))


def _bounds(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int, int, int]:
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return x, y, x + width, y + height


def _within(middle: float, reach: float, length: int) -> tuple[int, int]:
    """Return the ends of a window of twice `reach` around `middle`, moved into the image as far as it fits."""
    size = min(round(2 * reach), length)
    start = int(np.clip(round(middle - size / 2), 0, length - size))
    return start, start + max(size, 1)


def _straightened(ring: Int64[np.ndarray, "V 2"]) -> Int64[np.ndarray, "V 2"]:
    return cv2.approxPolyDP(ring[:, None].astype(np.int32), _BEND, True)[:, 0].astype(np.int64)
