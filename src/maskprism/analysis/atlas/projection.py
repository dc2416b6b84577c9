"""Where instances lie on a map: coefficients in two dimensions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maskprism._common.extras import require
from maskprism.analysis.atlas.rank_correlation import sample

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

    from maskprism.analysis.prototypes.covariance import RunningCovariance

_FITTED, _NEIGHBOURS = 50_000, 15


@dataclass(frozen=True, eq=False)
class Components:
    """The two principal components: directions (K, 2), and the share of the variance that each explains."""

    directions: Float64[np.ndarray, "K 2"]
    shares: tuple[float, float]
    mean: Float64[np.ndarray, " K"]

    @classmethod
    def of(cls, moments: RunningCovariance) -> Components:
        """Return those of coefficients with these moments; the largest weight of each is positive."""
        values, vectors = np.linalg.eigh(moments.covariance)
        vectors = np.pad(vectors[:, ::-1], ((0, 0), (0, 1)))[:, :2]  # of one coefficient there is one
        values = np.pad(values[::-1].clip(0), (0, 1))
        largest = vectors[np.abs(vectors).argmax(axis=0), [0, 1]]
        first, second = (values[:2] / max(values.sum(), 1e-30)).tolist()
        return cls(vectors * np.where(largest < 0, -1, 1), (first, second), moments.mean)

    def places(self, coefficients: Float32[np.ndarray, "N K"]) -> Float32[np.ndarray, "N 2"]:
        """Return where instances lie."""
        directions = self.directions.astype(np.float32)
        return coefficients @ directions - (self.mean @ self.directions).astype(np.float32)


def neighbour_map(coefficients: Float32[np.ndarray, "N K"], *, seed: int = 0) -> Float32[np.ndarray, "N 2"]:
    """UMAP (McInnes, Healy and Melville, 2018): neighbours stay neighbours; distances between groups mean little.

    Fitted to 50,000 instances drawn with the seed; the others are placed among them. It takes about a minute for them.

    Raises
    ------
    MissingExtraError
        Without umap-learn.
    InputError
        For too few instances.
    """
    import warnings

    with warnings.catch_warnings():  # that a seed takes one thread
        warnings.simplefilter("ignore")
        umap = require("umap", "this map")
        rows = sample(len(coefficients), _FITTED, seed)
        if len(rows) < 4:
            return np.zeros((len(coefficients), 2), dtype=np.float32)
        fit = umap.UMAP(
            n_neighbors=min(_NEIGHBOURS, len(rows) - 1),
            random_state=seed,
            init="random" if len(rows) < 10 else "spectral",
        )
        found = np.empty((len(coefficients), 2), dtype=np.float32)
        found[rows] = fit.fit_transform(coefficients[rows])
        if len(rows) < len(coefficients):
            others = np.setdiff1d(np.arange(len(coefficients)), rows, assume_unique=True)
            found[others] = fit.transform(coefficients[others])
    return found
