"""Slow and obvious twins for ground truth: one run at a time."""

from __future__ import annotations

import numpy as np


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed RLE: down the columns, how many of the background, of the mask, of the background, ..."""
    counts, last = [0], False
    for value in mask.T.reshape(-1).tolist():
        if value != last:
            counts.append(0)
            last = value
        counts[-1] += 1
    return counts
