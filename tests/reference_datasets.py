"""Slow and obvious twins for ground truth: one pixel, one edge, one run at a time."""

from __future__ import annotations

import numpy as np


def inside(polygon: np.ndarray, x: float, y: float) -> bool:
    """Even-odd: walk to the right from a point and count the edges on the way."""
    crossings = 0
    for (x1, y1), (x2, y2) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if (y1 <= y) != (y2 <= y) and x < x1 + (y - y1) * (x2 - x1) / (y2 - y1):
            crossings += 1
    return crossings % 2 == 1


def drawn(polygon: np.ndarray, height: int, width: int) -> np.ndarray:
    """The pixels whose centres are inside a polygon."""
    return np.array([[inside(polygon, x + 0.5, y + 0.5) for x in range(width)] for y in range(height)], dtype=bool)


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed RLE: down the columns, how many of the background, of the mask, of the background, ..."""
    counts, last = [0], False
    for value in mask.T.reshape(-1).tolist():
        if value != last:
            counts.append(0)
            last = value
        counts[-1] += 1
    return counts
