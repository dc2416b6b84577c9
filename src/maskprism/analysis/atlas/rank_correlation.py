"""Which coefficients go with the size, place and shape of a box, with the score, and with how good a mask is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.atlas.class_signatures import false_discovery_rates
from maskprism.analysis.atlas.groups import sums

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, Int32

SAMPLE = 100_000
_LEAST = 10


@dataclass(frozen=True, eq=False)
class RankCorrelations:
    """Of Q qualities of an instance, in the order of `names`, and K coefficients.

    Attributes
    ----------
    rho
        Spearman's rank correlation, -1 to 1; NaN for constant columns, and where fewer than 10 instances are known.
    p
        Of rho, with images as the unit, as false discovery rates over all of them; NaN also with a single image.
    instances
        How many were looked at: all, or a sample of SAMPLE.
    """

    names: tuple[str, ...]
    rho: Float64[np.ndarray, "Q K"]
    p: Float64[np.ndarray, "Q K"]
    instances: int


def dependence(
    coefficients: Float32[np.ndarray, "N K"],
    numbers: Mapping[str, Float32[np.ndarray, " N"]],
    images: Int32[np.ndarray, " N"],
    *,
    seed: int = 0,
) -> RankCorrelations:
    """Return the rank correlation of every quality with every coefficient; `images` has the image of each row.

    Instances of one image are not independent: the standard error of a correlation is that of a sum over images of its
    influence function, each divided by 1 minus the share that the image has of the variance (CR3; see `groups`).
    """
    from scipy import stats

    rows = sample(len(coefficients), SAMPLE, seed)
    chosen = coefficients[rows]
    ranks = _standard(stats.rankdata(chosen, axis=0))
    rho = np.full((len(numbers), chosen.shape[1]), np.nan)
    p = np.full_like(rho, np.nan)
    for row, values in enumerate(numbers.values()):
        known = np.isfinite(quality := values[rows])
        if int(known.sum()) < _LEAST:
            continue
        own = _standard(stats.rankdata(quality[known])[:, None])
        theirs = ranks if known.all() else _standard(stats.rankdata(chosen[known], axis=0))
        rho[row] = (own.T @ theirs)[0].clip(-1, 1)
        names, of_image = np.unique(images[rows][known], return_inverse=True)
        squares = (np.square(own) + np.square(theirs)) / 2
        shares = sums(squares, of_image, len(names))
        with np.errstate(divide="ignore", invalid="ignore"):
            influence = (sums(own * theirs, of_image, len(names)) - rho[row] * shares) / (1 - shares)
            t = rho[row] / np.sqrt(np.square(influence).sum(axis=0))
            p[row] = 2 * stats.t.sf(np.abs(t), len(names) - 1)
    return RankCorrelations(tuple(numbers), rho, false_discovery_rates(p), len(rows))


def sample(count: int, most: int, seed: int) -> np.ndarray:
    """Return the positions of all of `count`, or of `most` of them drawn without repetition, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def _standard(values: Float64[np.ndarray, "N K"]) -> Float64[np.ndarray, "N K"]:
    """Columns of mean 0 and length 1; NaN for constant ones."""
    values = values.astype(np.float64)  # newer SciPy ranks float32 in float32
    values -= values.mean(axis=0)
    length = np.linalg.norm(values, axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(length > 0, values / length, np.nan)
