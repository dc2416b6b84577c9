"""Small pictures of masks: of all in an image, and of one against the ground truth."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskprism.drawing.mask_style import (
    INNER_LINE,
    OUTER_LINE,
    PaintedMask,
    instance_colours,
    paint_errors,
    paint_masks,
)

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, UInt8

    from maskprism.core.prediction import Prediction

_MARGIN = 0.2


def masks_on_image(
    picture: UInt8[np.ndarray, "H W 3"], prediction: Prediction, side: int
) -> UInt8[np.ndarray, "h w 3"]:
    """Return a BGR image with no side over `side`, every mask in its instance's colour; confident ones on top."""
    colours = instance_colours(picture, prediction)
    small = shrunk(picture, side)
    # Masks are decoded at the size of the small picture: to them, it is the image.
    letterbox = replace(prediction.letterbox, image_hw=small.shape[:2])
    patches = replace(prediction, letterbox=letterbox).crops("image")
    masks = [PaintedMask(*patch, colour) for patch, colour in zip(patches, colours, strict=True)]
    return np.ascontiguousarray(paint_masks(small[..., ::-1], masks[::-1])[..., ::-1])


def shrunk(picture: UInt8[np.ndarray, "H W 3"], side: int) -> UInt8[np.ndarray, "h w 3"]:
    """Return a copy with no side over `side`."""
    height, width = picture.shape[:2]
    zoom = min(1.0, side / max(height, width))
    size_wh = max(round(width * zoom), 1), max(round(height * zoom), 1)
    return cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA) if zoom < 1 else picture.copy()


def mask_against_truth(
    image: UInt8[np.ndarray, "H W 3"],
    found: Bool[np.ndarray, "H W"],
    true: Bool[np.ndarray, "H W"],
    box: Float32[np.ndarray, " 4"],
    side: int = 232,
    around: Bool[np.ndarray, "H W"] | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """The part of a BGR image around both masks and a box (xyxy): errors solid or striped, the ground truth outlined.

    It is as square as the image allows; its longer side is `side`. With `around`, a mask, that is in the picture, too.
    """
    rows, columns = _around(found | true if around is None else found | true | around, box)
    zoom = side / max(rows.stop - rows.start, columns.stop - columns.start)
    size = (max(round((columns.stop - columns.start) * zoom), 1), max(round((rows.stop - rows.start) * zoom), 1))
    smooth = cv2.INTER_AREA if zoom < 1 else cv2.INTER_CUBIC
    picture = cv2.resize(image[rows, columns], size, interpolation=smooth)
    mask, truth = (
        cv2.resize(one[rows, columns].astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        for one in (found, true)
    )
    painted = np.ascontiguousarray(paint_errors(picture[..., ::-1], mask, truth, agreed=False)[..., ::-1])
    outlines = cv2.findContours(truth.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
    cv2.drawContours(painted, outlines, -1, INNER_LINE, 3, cv2.LINE_AA)
    cv2.drawContours(painted, outlines, -1, OUTER_LINE, 1, cv2.LINE_AA)
    return painted


def _around(masks: Bool[np.ndarray, "H W"], box: Float32[np.ndarray, " 4"]) -> tuple[slice, slice]:
    """Rows and columns around everything, moved into the image."""
    first, last = np.floor(box[[1, 0]]), np.ceil(box[[3, 2]])
    spans = []
    for axis, length in enumerate(masks.shape):
        touched = np.flatnonzero(masks.any(axis=1 - axis))
        if len(touched):
            first[axis], last[axis] = min(first[axis], touched[0]), max(last[axis], touched[-1] + 1)
        spans.append((first[axis], last[axis], length))
    side = max(max(stop - start for start, stop, _ in spans) * (1 + 2 * _MARGIN), 8)
    starts = [int(np.clip((start + stop - side) / 2, 0, max(length - side, 0))) for start, stop, length in spans]
    rows, columns = (slice(at, min(at + round(side), length)) for at, (_, _, length) in zip(starts, spans, strict=True))
    return rows, columns
