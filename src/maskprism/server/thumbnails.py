"""Small pictures for the gallery, with and without masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskprism.drawing.crops import crop
from maskprism.drawing.mask_style import PaintedMask, instance_colours, paint_masks

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8

    from maskprism.core.prediction import Prediction

THUMBNAIL_SIDE = 400
CROP_SIDE = 300
_JPEG_QUALITY = 82


def painted_thumbnail(picture: UInt8[np.ndarray, "H W 3"], prediction: Prediction) -> bytes:
    """Return the same with every mask in its instance's colour; confident ones on top."""
    colours = instance_colours(picture, prediction)
    small = _small(picture)
    # Masks are decoded at the size of the thumbnail: to them, the thumbnail is the image.
    letterbox = replace(prediction.letterbox, image_hw=small.shape[:2])
    patches = replace(prediction, letterbox=letterbox).crops("image")
    masks = [PaintedMask(*patch, colour) for patch, colour in zip(patches, colours, strict=True)]
    return _jpeg(np.ascontiguousarray(paint_masks(small[..., ::-1], masks[::-1])[..., ::-1]))


def crops(
    picture: UInt8[np.ndarray, "H W 3"],
    prediction: Prediction,
    truth: Sequence[Bool[np.ndarray, "H W"] | None] | None = None,
) -> tuple[bytes, ...]:
    """Return a JPEG of every instance with no side over CROP_SIDE.

    Its mask in its colour, its label as a white line.
    """
    labelled = truth or [None] * len(prediction)
    return tuple(
        _jpeg(crop(picture, instance, mask, side=CROP_SIDE, colour=colour))
        for instance, mask, colour in zip(prediction, labelled, instance_colours(picture, prediction), strict=True)
    )


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
