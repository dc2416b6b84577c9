"""First and second moments of many samples, one batch after the other: all that spectra and correlations need."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from maskprism.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Float64

_CONSTANT = 1e-12


class RunningCovariance:
    """The covariance of K quantities, accumulated in float64; memory is K x K, however many samples come.

    Attributes
    ----------
    weight
        The sum of the weights of all samples.
    sums
        `[K]`.
    products
        `[K, K]`.
    """

    def __init__(self, quantities: int) -> None:
        self.weight = 0.0
        self.sums: Float64[np.ndarray, " K"] = np.zeros(quantities)
        self.products: Float64[np.ndarray, "K K"] = np.zeros((quantities, quantities))

    @classmethod
    def of(cls, samples: Float[np.ndarray, "M K"]) -> RunningCovariance:
        """Return the moments of one batch, each row a sample."""
        if np.ndim(samples) != 2:
            raise InputError(f"samples have shape {np.shape(samples)}; expected (M, K), one row per sample")
        found = cls(samples.shape[1])
        found.update(samples)
        return found

    def __len__(self) -> int:
        return len(self.sums)

    def update(self, samples: Float[np.ndarray, "M K"], weights: Float[np.ndarray, " M"] | None = None) -> None:
        """Add samples, each counted once or as often as its weight says.

        Raises
        ------
        InputError
            And adds none, if they hold NaN or infinity: one would make all moments NaN.
        """
        exact = np.asarray(samples, dtype=np.float64)
        if not np.isfinite(exact).all():
            raise InputError("the samples hold NaN or infinity; expected finite numbers")
        weighted = exact if weights is None else exact * np.asarray(weights, dtype=np.float64)[:, None]
        self.weight += float(len(exact) if weights is None else np.sum(weights))
        self.sums += weighted.sum(axis=0)
        self.products += weighted.T @ exact

    def merge(self, other: RunningCovariance) -> None:
        """Add all samples of another accumulator of the same quantities."""
        self.weight += other.weight
        self.sums += other.sums
        self.products += other.products

    @property
    def mean(self) -> Float64[np.ndarray, " K"]:
        """Mean of every quantity."""
        return self.sums / self._some()

    @property
    def gram(self) -> Float64[np.ndarray, "K K"]:
        """Mean of the products of every two quantities, not centred."""
        return self.products / self._some()

    @property
    def covariance(self) -> Float64[np.ndarray, "K K"]:
        """Covariance of every two quantities; rows and columns of constant ones are exactly 0."""
        found = self.gram - np.outer(self.mean, self.mean)
        constant = np.diag(found) <= _CONSTANT * np.diag(self.gram)
        found[constant] = found[:, constant] = 0
        return found

    @property
    def correlation(self) -> Float64[np.ndarray, "K K"]:
        """Pearson correlation, -1 to 1; NaN for constant quantities."""
        covariance = self.covariance
        spread = np.sqrt(np.diag(covariance))
        product = np.outer(spread, spread)
        found = np.full_like(covariance, np.nan)
        np.divide(covariance, product, out=found, where=product > 0)
        return np.clip(found, -1, 1)

    def singular_values(self) -> Float64[np.ndarray, " K"]:
        """Return those of the matrix of samples less their mean, divided by the root of their number; largest first."""
        return np.sqrt(np.clip(np.linalg.eigvalsh(self.covariance)[::-1], 0, None))

    def effective_rank(self) -> float:
        """In how many dimensions the quantities vary about their means; see `effective_rank`."""
        return effective_rank(self.singular_values())

    def explained(self, targets: Sequence[int], by: Sequence[int]) -> Float64[np.ndarray, " T"]:
        """Share of the variance of every target that a linear fit on the quantities `by` explains (R^2), 0 to 1.

        NaN for a target that is constant; constant regressors explain nothing.
        """
        covariance = self.covariance
        variance = np.diag(covariance)[list(targets)]
        spread = np.sqrt(np.diag(covariance)[list(by)])
        scaled = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
        inner = covariance[np.ix_(by, by)] * np.outer(scaled, scaled)
        outer = covariance[np.ix_(by, targets)] * scaled[:, None]
        gained = (outer * (np.linalg.pinv(inner, rcond=1e-10, hermitian=True) @ outer)).sum(axis=0)
        found = np.full(len(variance), np.nan)
        np.divide(gained, variance, out=found, where=variance > 0)
        return np.clip(found, 0, 1)

    def _some(self) -> float:
        if self.weight <= 0:
            raise InputError("there are no samples yet; add at least one")
        return self.weight


def effective_rank(singular_values: Float[np.ndarray, " K"]) -> float:
    """Return how many dimensions a matrix fills, 1 to K, by the entropy of its singular values.

    Notes
    -----
    Roy and Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO 2007: the exponential of the
    entropy of the singular values, divided by their sum. 0 for a matrix of zeros. It is the only definition in this
    package; others (of squared singular values, such as the participation ratio) give two to three times less.
    """
    values = np.asarray(singular_values, dtype=np.float64)
    if values.ndim != 1 or np.any(values < 0) or not np.all(np.isfinite(values)):
        raise InputError("singular values must be a vector of finite numbers of at least 0")
    values = values[values > 0]
    shares = values / values.sum()
    return float(np.exp(-np.sum(shares * np.log(shares)))) if len(values) else 0.0
