"""Small pictures for the gallery, with and without masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskprism.drawing.crops import MASK_OPACITY, crop
from maskprism.drawing.palette import colour_of

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8

    from maskprism.core.prediction import Prediction

THUMBNAIL_SIDE = 400
CROP_SIDE = 300
_JPEG_QUALITY = 82


def painted_thumbnail(picture: UInt8[np.ndarray, "H W 3"], prediction: Prediction) -> bytes:
    """Return the same with every mask in its instance's colour; confident ones on top."""
    small = _small(picture)
    # Masks are decoded at the size of the thumbnail: to them, the thumbnail is the image.
    letterbox = replace(prediction.letterbox, image_hw=small.shape[:2])
    for index, patch in reversed(list(enumerate(replace(prediction, letterbox=letterbox).crops("image")))):
        inside = patch.values
        window = small[patch.rows, patch.columns]
        colour = np.array(colour_of(index)[::-1], dtype=np.float32)
        window[inside] = (window[inside] * (1 - MASK_OPACITY) + colour * MASK_OPACITY).astype(np.uint8)
        contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        for contour in contours:
            rows, columns = contour[:, 0, 1], contour[:, 0, 0]
            window[rows, columns] = colour
    return _jpeg(small)


def crops(
    picture: UInt8[np.ndarray, "H W 3"],
    prediction: Prediction,
    truth: Sequence[Bool[np.ndarray, "H W"] | None] | None = None,
) -> tuple[bytes, ...]:
    """Return a JPEG of every instance with no side over CROP_SIDE.

    Its mask in its colour, its label as a white line.
    """
    found = []
    for instance, mask in zip(prediction, truth or [None] * len(prediction), strict=True):
        found.append(_jpeg(crop(picture, instance, mask, side=CROP_SIDE)))
    return tuple(found)


def plain_thumbnail(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """Return the image as a JPEG with no side over THUMBNAIL_SIDE."""
    return _jpeg(_small(picture))


def _small(picture: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return a copy with no side over THUMBNAIL_SIDE."""
    height, width = picture.shape[:2]
    zoom = min(1.0, THUMBNAIL_SIDE / max(height, width))
    size_wh = max(round(width * zoom), 1), max(round(height * zoom), 1)
    return cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA) if zoom < 1 else picture.copy()


def _jpeg(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
