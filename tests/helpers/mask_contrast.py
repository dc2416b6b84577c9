"""How well the edges of painted masks are in sight, by WCAG's contrast."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from maskprism import Prediction
from maskprism.drawing.mask_style import PaintedMask, instance_colours, paint_masks

INSTANCES = 200
CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
Pictured = tuple[np.ndarray, Prediction]


def luminance(picture: np.ndarray) -> np.ndarray:
    """By WCAG."""
    shares = picture / 255
    return np.where(shares <= 0.04045, shares / 12.92, ((shares + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]


def share_in_sight(images: Iterator[Pictured], *, whole: bool) -> float:
    """Of the pixels around 200 masks, how many have a line beside them with a contrast of at least 3:1 against them.

    By WCAG, of the colours that are drawn.
    """
    seen = pixels = count = 0
    for image, prediction in images:
        rgb = np.ascontiguousarray(image[..., ::-1])
        height, width = rgb.shape[:2]
        for instance, colour in zip(prediction, instance_colours(image, prediction), strict=True):
            mask = instance.mask("image")
            if not mask.any() or count == INSTANCES:
                continue
            count += 1
            picture = paint_masks(
                rgb, [PaintedMask(slice(0, height), slice(0, width), mask, colour)], whole=whole
            ).astype(float)
            outer, beyond = (cv2.dilate(mask.astype(np.uint8), CROSS, iterations=n) for n in (1, 2))
            light, near = luminance(picture), np.ones((5, 5), np.uint8)
            lightest = cv2.dilate(np.where(outer, light, 0), near)
            darkest = cv2.erode(np.where(outer, light, 1), near)
            here = light[beyond > outer]
            with_lightest = (lightest[beyond > outer] + 0.05) / (here + 0.05)
            with_darkest = (here + 0.05) / (darkest[beyond > outer] + 0.05)
            seen += int((np.maximum(with_lightest, with_darkest) >= 3).sum())
            pixels += len(here)
        if count == INSTANCES:
            break
    assert count == INSTANCES
    return seen / pixels
