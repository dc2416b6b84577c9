"""Instances unlike the rest of their class: robust Mahalanobis distances."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from maskprism._common.extras import require
from maskprism.analysis.atlas.dependence import sample

if TYPE_CHECKING:
    from jaxtyping import Float32, Int32

LEAST = 20
"""Of a class with fewer instances the middle is that of all instances."""
BEYOND = 0.999
"""Of normally distributed instances this share has a smaller distance than an outlier."""
_FITTED, _MIDDLE, _BLOCK = 5_000, 5_000, 1 << 16


@dataclass(frozen=True, eq=False)
class Outliers:
    """How far each instance is from the middle of its class.

    distances: in robust standard deviations of what is usual around the middle of a class; NaN for all where there are
        too few instances to tell.
    threshold: the distance that BEYOND of normally distributed instances stay below. Coefficients have heavier tails:
        the order of distances says more than how many are beyond.
    """

    distances: Float32[np.ndarray, " N"]
    threshold: float

    @property
    def beyond(self) -> int:
        """How many instances are further away."""
        return int(np.count_nonzero(self.distances > self.threshold))


def outliers(
    coefficients: Float32[np.ndarray, "N K"], classes: Int32[np.ndarray, " N"], count: int, *, seed: int = 0
) -> Outliers:
    """Distances by the minimum covariance determinant (Rousseeuw and Van Driessen, 1999), fitted to a sample of 5,000.

    One covariance serves all classes: that of instances around the median of their class.
    """
    require("sklearn", "the atlas")
    from scipy import stats
    from sklearn.covariance import MinCovDet

    k = coefficients.shape[1]
    threshold = float(np.sqrt(stats.chi2.ppf(BEYOND, k)))
    chosen = sample(len(coefficients), _FITTED, seed)
    if len(chosen) < 2 * k + 2:
        return Outliers(np.full(len(coefficients), np.nan, dtype=np.float32), threshold)
    middles = _middles(coefficients, classes, count, seed)
    around = coefficients[chosen] - middles[classes[chosen]]
    varying = around.std(axis=0) > 1e-6 * max(float(np.abs(around).max()), 1e-12)  # constant ones make no outliers
    with threadpool_limits(1):  # of many small products
        fit = MinCovDet(random_state=seed).fit(around[:, varying])
    values, vectors = np.linalg.eigh(fit.covariance_)
    kept = values > 1e-9 * values.max()
    whitening = np.zeros((k, int(kept.sum())))
    whitening[varying] = vectors[:, kept] / np.sqrt(values[kept])
    whitening = whitening.astype(np.float32)
    middles[:, varying] += fit.location_.astype(np.float32)
    distances = np.empty(len(coefficients), dtype=np.float32)
    for start in range(0, len(coefficients), _BLOCK):
        block = slice(start, start + _BLOCK)
        distances[block] = np.linalg.norm((coefficients[block] - middles[classes[block]]) @ whitening, axis=1)
    return Outliers(distances, threshold)


def _middles(
    coefficients: Float32[np.ndarray, "N K"], classes: Int32[np.ndarray, " N"], count: int, seed: int
) -> Float32[np.ndarray, "C K"]:
    """The median of each class, or of all where a class is small; of large ones that of a sample."""
    everywhere = np.median(coefficients[sample(len(coefficients), _MIDDLE, seed)], axis=0)
    found = np.tile(everywhere, (count, 1))
    order = np.argsort(classes, kind="stable")
    stops = np.cumsum(np.bincount(classes, minlength=count))
    for number, rows in enumerate(np.split(order, stops[:-1])):
        if len(rows) >= LEAST:
            found[number] = np.median(coefficients[rows[sample(len(rows), _MIDDLE, seed)]], axis=0)
    return found.astype(np.float32)
