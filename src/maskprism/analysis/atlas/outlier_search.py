"""Instances unlike the rest of their class: robust Mahalanobis distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from maskprism._common.extras import require
from maskprism._common.parallel import one_thread_in_libraries
from maskprism.analysis.atlas.rank_correlation import sample

if TYPE_CHECKING:
    from jaxtyping import Float32, Int32

LEAST = 20
"""Of a class with fewer instances the middle is that of all instances."""
_FITTED, _MIDDLE, _BLOCK = 5_000, 5_000, 1 << 16


def outliers(
    coefficients: Float32[np.ndarray, "N K"], classes: Int32[np.ndarray, " N"], count: int, *, seed: int = 0
) -> Float32[np.ndarray, " N"]:
    """Return how far each instance is from the middle of its class.

    NaN for all where too few, or equal ones, tell nothing.

    Distances are in robust standard deviations, by the minimum covariance determinant (Rousseeuw and Van Driessen,
    1999), fitted to a sample of 5,000. One covariance serves all classes: that of instances around the median of their
    class. There is no threshold: coefficients have heavy tails, so that half of them lie beyond what one in a thousand
    of a normal distribution would. Their order says which are most unlike their class.
    """
    require("sklearn", "the atlas")
    from sklearn.covariance import MinCovDet

    k = coefficients.shape[1]
    chosen = sample(len(coefficients), _FITTED, seed)
    middles = _middles(coefficients, classes, count, seed)
    around = coefficients[chosen] - middles[classes[chosen]]
    varying = around.std(axis=0) > 1e-6 * max(float(np.abs(around).max(initial=0)), 1e-12)  # constant ones tell nothing
    if len(chosen) < 2 * k + 2 or not varying.any():
        return np.full(len(coefficients), np.nan, dtype=np.float32)
    with one_thread_in_libraries():  # of many small products
        fit = MinCovDet(random_state=seed).fit(around[:, varying])
    values, vectors = np.linalg.eigh(fit.covariance_)
    kept = values > max(1e-9 * values.max(), 1e-30)
    if not kept.any():  # more than half of all are equal
        return np.full(len(coefficients), np.nan, dtype=np.float32)
    whitening = np.zeros((k, int(kept.sum())))
    whitening[varying] = vectors[:, kept] / np.sqrt(values[kept])
    whitening = whitening.astype(np.float32)
    middles[:, varying] += fit.location_.astype(np.float32)
    distances = np.empty(len(coefficients), dtype=np.float32)
    for start in range(0, len(coefficients), _BLOCK):
        block = slice(start, start + _BLOCK)
        distances[block] = np.linalg.norm((coefficients[block] - middles[classes[block]]) @ whitening, axis=1)
    return distances


def _middles(
    coefficients: Float32[np.ndarray, "N K"], classes: Int32[np.ndarray, " N"], count: int, seed: int
) -> Float32[np.ndarray, "C K"]:
    """Return the median of each class, or of all where a class is small; of large ones that of a sample."""
    everywhere = np.median(coefficients[sample(len(coefficients), _MIDDLE, seed)], axis=0)
    found = np.tile(everywhere, (count, 1))
    order = np.argsort(classes, kind="stable")
    stops = np.cumsum(np.bincount(classes, minlength=count))
    for number, rows in enumerate(np.split(order, stops[:-1])):
        if len(rows) >= LEAST:
            found[number] = np.median(coefficients[rows[sample(len(rows), _MIDDLE, seed)]], axis=0)
    return found.astype(np.float32)
