"""Outlines of bitmaps: rings that the rules of COCO and Ultralytics fill to the same pixels again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64

    Ring = Int64[np.ndarray, "V 2"]


def border_rings(mask: Bool[np.ndarray, "H W"]) -> list[list[Ring]]:
    """Trace a mask between its pixels and the others; pixel i covers i to i + 1.

    Returns
    -------
    list of list
        Per part its outline, then those of its holes, as x, y. COCO's rule fills them to the mask, pixel for pixel.
    """
    doubled = mask.astype(np.uint8).repeat(2, axis=0).repeat(2, axis=1)
    return [[(ring + 1) // 2 for ring in part] for part in _traced(doubled)]


def pixel_rings(mask: Bool[np.ndarray, "H W"]) -> list[list[Ring]]:
    """Trace a mask along its outermost pixels.

    Returns
    -------
    list of list
        Per part its outline, then those of its holes, as x, y. Ultralytics' rule, which fills polygons together with
        their edges, fills each to the part, pixel for pixel.
    """
    return _traced(mask.astype(np.uint8))


def _traced(mask: np.ndarray) -> list[list[Ring]]:
    contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts: dict[int, list[Ring]] = {}
    for number, contour in enumerate(contours):
        parent = int(hierarchy[0, number, 3])
        parts.setdefault(number if parent < 0 else parent, [])
        ring = contour[:, 0].astype(np.int64)
        if parent < 0:
            parts[number].insert(0, ring)
        else:
            parts[parent].append(ring)
    return list(parts.values())
