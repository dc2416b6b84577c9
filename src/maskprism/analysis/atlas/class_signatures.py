"""What the coefficients of a class are like, and which of them tell it from all other classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.atlas.groups import LEAST, differences

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, Int32, Int64


@dataclass(frozen=True, eq=False)
class Signatures:
    """Of C classes, rows in their order, and K coefficients.

    NaN where a class, or what is not of it, has fewer than LEAST instances, or a coefficient is constant; p and error
    also where it is in too few images.

    Attributes
    ----------
    counts
        instances.
    images
        In how many images they are.
    mean
        Mean of the coefficients.
    effect
        By how much the class lies above all other instances, in standard deviations (Hedges' g: the difference
        of means by the pooled standard deviation, corrected for few instances).
    error
        Its standard error over images.
    p
        Of that difference, with images as the unit (see `groups.differences`), as false discovery rates over all of
        them (Benjamini and Hochberg, 1995).
    shares
        Of each coefficient, the share of its variance between classes (eta squared), 0 to 1.
    """

    counts: Int64[np.ndarray, " C"]
    images: Int64[np.ndarray, " C"]
    mean: Float64[np.ndarray, "C K"]
    effect: Float64[np.ndarray, "C K"]
    error: Float64[np.ndarray, "C K"]
    p: Float64[np.ndarray, "C K"]
    shares: Float64[np.ndarray, " K"]


def signatures(
    coefficients: Float32[np.ndarray, "N K"],
    classes: Int32[np.ndarray, " N"],
    count: int,
    images: Int32[np.ndarray, " N"],
) -> Signatures:
    """Return the signatures of `count` classes; `classes` and `images` have the class and the image of each row."""
    found = differences(coefficients, classes, count, images)
    others = found.counts.sum() - found.counts
    total = _total(found.counts, found.mean, found.within)
    with np.errstate(divide="ignore", invalid="ignore"):
        unit = (1 - 3 / (4 * (found.counts.sum() - 2) - 1)) / found.pooled
        shares = np.where(total > 0, 1 - np.nansum(found.within, axis=0) / total, np.nan).clip(0, 1)
        known = ((found.counts >= LEAST) & (others >= LEAST))[:, None] & (found.pooled > 0)
        return Signatures(
            counts=found.counts,
            images=found.images,
            mean=np.where((found.counts >= LEAST)[:, None], found.mean, np.nan),
            effect=np.where(known, found.difference * unit, np.nan),
            error=np.where(np.isfinite(found.p), found.standard_error * unit, np.nan),
            p=false_discovery_rates(found.p),
            shares=shares,
        )


def _total(
    counts: Int64[np.ndarray, " C"], mean: Float64[np.ndarray, "C K"], within: Float64[np.ndarray, "C K"]
) -> Float64[np.ndarray, " K"]:
    """Return the sum of squares around the mean of all; 0 for constant coefficients."""
    some = counts > 0
    means, sizes = mean[some], counts[some, None]
    middle = (sizes * means).sum(axis=0) / sizes.sum()
    total = (sizes * np.square(means - middle)).sum(axis=0) + within[some].sum(axis=0)
    return np.where(total > 1e-12 * (sizes * np.square(means)).sum(axis=0), total, 0)


def false_discovery_rates(p: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """P values corrected for how many they are (Benjamini and Hochberg, 1995); NaN stays, and is not counted."""
    from scipy import stats

    found = np.full_like(p, np.nan)
    known = np.isfinite(p)
    if known.any():
        found[known] = stats.false_discovery_control(p[known])
    return found
