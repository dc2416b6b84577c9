"""Means over groups of instances."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, Int32, Int64


class Means(NamedTuple):
    """Of each group the mean of what is known, NaN where nothing is, and of how many instances that is."""

    mean: Float64[np.ndarray, " G"]
    known: Int64[np.ndarray, " G"]


def means(values: Float32[np.ndarray, " N"], groups: Int32[np.ndarray, " N"], count: int) -> Means:
    """The means over `count` groups; `groups` has the group of each value."""
    finite = np.isfinite(values)
    known = np.bincount(groups[finite], minlength=count)
    sums = np.bincount(groups[finite], values[finite], minlength=count)
    found = np.full(count, np.nan)
    np.divide(sums, known, out=found, where=known > 0)
    return Means(found, known)
