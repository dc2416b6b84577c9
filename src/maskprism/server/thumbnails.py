"""Small pictures for the gallery, with and without masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskprism.drawing.crops import crop
from maskprism.drawing.mask_style import instance_colours
from maskprism.drawing.mask_thumbnails import masks_on_image, shrunk

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8

    from maskprism.core.prediction import Prediction

THUMBNAIL_SIDE = 400
CROP_SIDE = 300
_JPEG_QUALITY = 82


def painted_thumbnail(picture: UInt8[np.ndarray, "H W 3"], prediction: Prediction) -> bytes:
    """Return the same with every mask in its instance's colour; confident ones on top."""
    return _jpeg(masks_on_image(picture, prediction, THUMBNAIL_SIDE))


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
    return _jpeg(shrunk(picture, THUMBNAIL_SIDE))


def _jpeg(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
