"""Slow and obvious twins of tuning: one instance, one coefficient and one pixel at a time."""

from __future__ import annotations

import numpy as np


def corrected(coefficients: list[float], map: np.ndarray, offset: np.ndarray) -> list[float]:
    """c + A c + b, by hand."""
    k = len(coefficients)
    return [
        coefficients[i] + float(offset[i]) + sum(float(map[i, j]) * coefficients[j] for j in range(k)) for i in range(k)
    ]
