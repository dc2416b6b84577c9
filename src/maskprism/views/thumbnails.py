"""Small pictures of masks against the truth, for tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskprism.views.budget import MISSING, TOO_MUCH

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, UInt8

_MARGIN = 0.2
_TINT = 0.6


def mask_against_truth(
    photograph: UInt8[np.ndarray, "H W 3"],
    found: Bool[np.ndarray, "H W"],
    true: Bool[np.ndarray, "H W"],
    box: Float32[np.ndarray, " 4"],
    side: int = 232,
) -> UInt8[np.ndarray, "side side 3"]:
    """A square cut of a BGR photograph around both masks and a box (xyxy), what is wrong tinted, the truth outlined."""
    window = _square(found | true, box)
    zoom = side / (window[2] - window[0])
    size = (side, side)
    smooth = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    picture = cv2.resize(_cut(photograph, window), size, interpolation=smooth).astype(np.float32)
    mask, truth = (
        cv2.resize(_cut(one.astype(np.uint8), window), size, interpolation=cv2.INTER_NEAREST) > 0
        for one in (found, true)
    )
    for wrong, colour in ((truth & ~mask, MISSING), (mask & ~truth, TOO_MUCH)):
        picture[wrong] += _TINT * (np.array(colour[::-1], dtype=np.float32) - picture[wrong])
    drawn = picture.clip(0, 255).astype(np.uint8)
    outlines = cv2.findContours(truth.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
    cv2.drawContours(drawn, outlines, -1, (0, 0, 0), 3, cv2.LINE_AA)
    cv2.drawContours(drawn, outlines, -1, (255, 255, 255), 1, cv2.LINE_AA)
    return drawn


def _square(masks: Bool[np.ndarray, "H W"], box: Float32[np.ndarray, " 4"]) -> tuple[int, int, int, int]:
    """Top, left, bottom, right of a square around everything; it may leave the photograph."""
    rows, columns = np.flatnonzero(masks.any(axis=1)), np.flatnonzero(masks.any(axis=0))
    x1, y1, x2, y2 = (float(edge) for edge in box)
    if len(rows):
        x1, y1 = min(x1, columns[0]), min(y1, rows[0])
        x2, y2 = max(x2, columns[-1] + 1), max(y2, rows[-1] + 1)
    side = max(round(max(x2 - x1, y2 - y1) * (1 + 2 * _MARGIN)), 8)
    top, left = round((y1 + y2 - side) / 2), round((x1 + x2 - side) / 2)
    return top, left, top + side, left + side


def _cut(image: UInt8[np.ndarray, "..."], window: tuple[int, int, int, int]) -> UInt8[np.ndarray, "..."]:
    """The window of an image, grey where it leaves it."""
    top, left, bottom, right = window
    height, width = image.shape[:2]
    inside = image[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    padding = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    fill = (127, 127, 127) if image.ndim == 3 else 0
    return np.asarray(cv2.copyMakeBorder(inside, *padding, cv2.BORDER_CONSTANT, value=fill))
