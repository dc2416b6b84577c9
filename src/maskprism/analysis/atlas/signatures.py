"""What the coefficients of a class are like, and which of them tell it from all other classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, Int32, Int64

LEAST = 5
"""Of a class with fewer instances nothing is said."""
CONFIDENCE = 0.95
_BLOCK = 1 << 15


@dataclass(frozen=True, eq=False)
class Signatures:
    """Of C classes, rows in their order, and K coefficients.

    counts: instances. mean, and low to high, its interval of 95 % confidence by the t distribution.
    effect: by how much the class lies above all other instances, in standard deviations (Hedges' g: the difference of
        means by the pooled standard deviation, corrected for few instances).
    p: of Welch's test of that difference, as false discovery rates over all of them (Benjamini and Hochberg, 1995).
        Instances of one image are not independent, so these are too small where images hold many.
    shares: of each coefficient, the share of its variance between classes (eta squared), 0 to 1.
    NaN where a class, or what is not of it, has fewer than LEAST instances, or a coefficient is constant.
    """

    counts: Int64[np.ndarray, " C"]
    mean: Float64[np.ndarray, "C K"]
    low: Float64[np.ndarray, "C K"]
    high: Float64[np.ndarray, "C K"]
    effect: Float64[np.ndarray, "C K"]
    p: Float64[np.ndarray, "C K"]
    shares: Float64[np.ndarray, " K"]


def signatures(coefficients: Float32[np.ndarray, "N K"], classes: Int32[np.ndarray, " N"], count: int) -> Signatures:
    """The signatures of `count` classes; `classes` has the class of each row."""
    from scipy import stats

    n, sums, squares = _moments(coefficients, classes, count)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, variance = _mean_and_variance(n[:, None], sums, squares)
        others = n.sum() - n
        other_mean, other_variance = _mean_and_variance(
            others[:, None], sums.sum(axis=0) - sums, squares.sum(axis=0) - squares
        )
        half = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)[:, None] * np.sqrt(variance / n[:, None])
        freedom = (n + others - 2)[:, None]
        pooled = np.sqrt(((n - 1)[:, None] * variance + (others - 1)[:, None] * other_variance) / freedom)
        effect = (mean - other_mean) / pooled * (1 - 3 / (4 * freedom - 1))
        test = stats.ttest_ind_from_stats(
            mean, np.sqrt(variance), n[:, None], other_mean, np.sqrt(other_variance), others[:, None], equal_var=False
        )
        within = (squares - sums**2 / np.maximum(n, 1)[:, None]).sum(axis=0)
        total = squares.sum(axis=0) - sums.sum(axis=0) ** 2 / n.sum()
        shares = np.where(total > 0, 1 - within / total, np.nan).clip(0, 1)
    known = ((n >= LEAST) & (others >= LEAST))[:, None] & (pooled > 0)
    some = (n >= LEAST)[:, None]
    return Signatures(
        counts=n,
        mean=np.where(some, mean, np.nan),
        low=np.where(some, mean - half, np.nan),
        high=np.where(some, mean + half, np.nan),
        effect=np.where(known, effect, np.nan),
        p=false_discovery_rates(np.where(known, test.pvalue, np.nan)),
        shares=shares,
    )


def false_discovery_rates(p: Float64[np.ndarray, "..."]) -> Float64[np.ndarray, "..."]:
    """P values corrected for how many they are (Benjamini and Hochberg, 1995); NaN stays, and is not counted."""
    from scipy import stats

    found = np.full_like(p, np.nan)
    known = np.isfinite(p)
    if known.any():
        found[known] = stats.false_discovery_control(p[known])
    return found


def _moments(
    coefficients: Float32[np.ndarray, "N K"], classes: Int32[np.ndarray, " N"], count: int
) -> tuple[Int64[np.ndarray, " C"], Float64[np.ndarray, "C K"], Float64[np.ndarray, "C K"]]:
    """Of each class how many rows, their sums, and the sums of their squares."""
    from scipy import sparse

    sums, squares = np.zeros((2, count, coefficients.shape[1]))
    for start in range(0, len(classes), _BLOCK):
        block = coefficients[start : start + _BLOCK].astype(np.float64)
        rows = classes[start : start + _BLOCK]
        member = sparse.csr_matrix((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(count, len(rows)))
        sums += member @ block
        squares += member @ np.square(block)
    return np.bincount(classes, minlength=count), sums, squares


def _mean_and_variance(
    n: Int64[np.ndarray, "C 1"], sums: Float64[np.ndarray, "C K"], squares: Float64[np.ndarray, "C K"]
) -> tuple[Float64[np.ndarray, "C K"], Float64[np.ndarray, "C K"]]:
    mean = sums / n
    spread = squares / n - mean**2
    spread[spread <= 1e-12 * squares / np.maximum(n, 1)] = 0  # constant, but for rounding
    return mean, spread * n / (n - 1)
