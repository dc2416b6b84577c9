"""How alike the prototypes of two models are: matched one to one, and as the spaces that they span.

Everything follows from the moments of all prototypes together over pixels, so images are added
one by one and memory stays that of one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from maskprism._common.extras import require
from maskprism.analysis.prototypes.covariance import RunningCovariance

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, Int64

    from maskprism.core.geometry import Letterbox
    from maskprism.core.prediction import Prediction

SHARED_BELOW = 0.5
"""Two models share a basis if the median prototype differs from its namesake by less than this share of its own
spread: then coefficients of one mean the same to the other."""
_RANK_TOLERANCE = 1e-10
_EQUAL = 1e-14


def paired_pixels(a: Prediction, b: Prediction) -> Float32[np.ndarray, "M K+K'"]:
    """Return the prototypes of both models, those of A first, at the M pixels of one image.

    Pixels are the cells of A's grid that show the image, not the padding. B's prototypes are
    sampled there where its canvas is another one.
    """
    rows, columns = a.letterbox.content_cells
    theirs = on_grid(b.prototypes, b.letterbox, a.letterbox)
    both = np.concatenate([a.prototypes[:, rows, columns], theirs[:, rows, columns]])
    return both.reshape(len(both), -1).T


@dataclass(frozen=True, eq=False)
class PrototypeSimilarity:
    """How the K prototypes of model A and the K' of model B compare over the pixels of many images.

    Attributes
    ----------
    moments
        Moments of all of them together, those of A first; filled with `paired_pixels`.
    """

    count_a: int
    moments: RunningCovariance

    @cached_property
    def correlation(self) -> Float64[np.ndarray, "K K'"]:
        """Of every prototype of A with every one of B, -1 to 1; NaN where one of the two is constant."""
        return self.moments.correlation[self._a, self._b]

    @cached_property
    def pairs(self) -> Int64[np.ndarray, "M 2"]:
        """Prototypes of A and B matched one to one for the largest sum of |correlation|; see `match_prototypes`."""
        return match_prototypes(self.correlation)

    @cached_property
    def cka(self) -> float:
        """Linear centred kernel alignment of the two sets, 0 to 1; NaN where one of them is constant.

        Kornblith, Norouzi, Lee and Hinton, "Similarity of Neural Network Representations Revisited",
        ICML 2019. It does not change when one set is turned or scaled as a whole.
        """
        covariance = self.moments.covariance
        norms = (float(np.linalg.norm(covariance[one, two])) for one, two in self._blocks)
        within_a, within_b, between = norms
        if within_a == 0 or within_b == 0:
            return float("nan")
        return min(between**2 / (within_a * within_b), 1.0)

    @cached_property
    def angles_deg(self) -> Float64[np.ndarray, " M"]:
        """Principal angles between the spaces that the two sets span, in degrees, smallest first.

        0: a direction that both can draw; 90: one that only one of them can. The spaces are those of
        all weighted sums, as masks are; no mean is taken off. As many as the smaller rank.
        Björck and Golub, "Numerical Methods for Computing Angles Between Linear Subspaces", 1973.
        """
        (a, b, between) = (self.moments.gram[one, two] for one, two in self._blocks)
        cosines = np.linalg.svd(_whitening(a) @ between @ _whitening(b).T, compute_uv=False)
        return np.degrees(np.arccos(np.clip(cosines, 0, 1)))

    @cached_property
    def errors(self) -> Float64[np.ndarray, " M"]:
        """For each k that both have: root mean square of B's prototype k minus A's, over the spread of A's."""
        gram, n = self.moments.gram, min(self.count_a, self.count_b)
        a, b = np.arange(n), self.count_a + np.arange(n)
        square = gram[a, a] + gram[b, b] - 2 * gram[a, b]
        square[square < _EQUAL * gram[a, a]] = 0  # what rounding leaves of a difference of equal sums
        spread = np.sqrt(np.diag(self.moments.covariance)[a])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(square > 0, np.sqrt(square) / spread, 0.0)

    @property
    def shared(self) -> bool:
        """Whether prototype k of A and of B are the same thing, up to small errors; see SHARED_BELOW."""
        return self.count_a == self.count_b and bool(np.median(self.errors) < SHARED_BELOW)

    @cached_property
    def translation(self) -> Translation:
        """Each model's prototypes by those of the other, by least squares over all pixels."""
        (a, b, between) = (self.moments.gram[one, two] for one, two in self._blocks)
        return Translation(b_to_a=between.T @ _pseudo_inverse(a), a_to_b=between @ _pseudo_inverse(b))

    @cached_property
    def explained(self) -> tuple[float, float]:
        """How much of the variance of A's prototypes those of B can draw, and the other way round; 0 to 1."""
        variance = np.diag(self.moments.covariance)
        a, b = range(self.count_a), range(self.count_a, len(self.moments))
        shares = []
        for own, other in ((a, b), (b, a)):
            weights = variance[list(own)]
            by = np.nan_to_num(self.moments.explained(own, other))
            shares.append(float(np.average(by, weights=weights)) if weights.any() else float("nan"))
        return shares[0], shares[1]

    @property
    def count_b(self) -> int:
        """The number of B's prototypes."""
        return len(self.moments) - self.count_a

    @property
    def _a(self) -> slice:
        return slice(None, self.count_a)

    @property
    def _b(self) -> slice:
        return slice(self.count_a, None)

    @property
    def _blocks(self) -> tuple[tuple[slice, slice], ...]:
        """Where A with A, B with B, and A with B are."""
        return (self._a, self._a), (self._b, self._b), (self._a, self._b)


@dataclass(frozen=True, eq=False)
class Translation:
    """How coefficients of one model are expressed in the prototypes of another.

    Attributes
    ----------
    b_to_a
        The prototypes of B as weighted sums of those of A.
    a_to_b
        Those of A of those of B.
    """

    b_to_a: Float64[np.ndarray, "K' K"]
    a_to_b: Float64[np.ndarray, "K K'"]


def match_prototypes(correlation: Float64[np.ndarray, "K K'"]) -> Int64[np.ndarray, "M 2"]:
    """Pairs (k of A, k of B), one to one, with the largest sum of |correlation|, sorted by k of A.

    Prototypes whose correlations are NaN (constant ones) stay unmatched. Raises
    MissingExtraError where prototypes compete for a match and SciPy, which solves that
    (Hungarian method), is not installed; two versions of one model do not need it.
    """
    strength = np.abs(np.nan_to_num(correlation))
    alive = ~np.isnan(correlation)
    rows, columns = np.flatnonzero(alive.any(axis=1)), np.flatnonzero(alive.any(axis=0))
    strength = strength[np.ix_(rows, columns)]
    turned = strength.shape[0] > strength.shape[1]
    found = _assign(strength.T if turned else strength)
    pairs = found[:, ::-1] if turned else found
    pairs = np.stack([rows[pairs[:, 0]], columns[pairs[:, 1]]], axis=1)
    return pairs[np.argsort(pairs[:, 0])]


def _assign(strength: Float64[np.ndarray, "R C"]) -> Int64[np.ndarray, "R 2"]:
    """Return the best column for each of at most as many rows, no column twice."""
    best = strength.argmax(axis=1) if strength.size else np.zeros(0, dtype=np.int64)
    if len(set(best.tolist())) == len(best):  # every row has its best match: nothing can be better
        return np.stack([np.arange(len(best)), best], axis=1)
    optimize = require("scipy.optimize", "matching the prototypes of different models", extra="compare")
    return np.stack(optimize.linear_sum_assignment(strength, maximize=True), axis=1)


def on_grid(
    prototypes: Float32[np.ndarray, "K h w"], own: Letterbox, target: Letterbox
) -> Float32[np.ndarray, "K H W"]:
    """Prototypes at the cell centres of another letterbox of the same image, bilinearly.

    On the same canvas and grid nothing is resampled. Beyond the own grid its edge is repeated.
    """
    if replace(own, image_hw=target.image_hw) == target:
        return prototypes
    sampled = prototypes
    for axis in (0, 1):
        at = np.clip(_cells_of(own, target, axis), 0, own.grid_hw[axis] - 1)
        first = np.floor(at).astype(np.int64)
        share = np.expand_dims((at - first).astype(np.float32), 1 - axis)
        after = np.minimum(first + 1, own.grid_hw[axis] - 1)
        low, high = np.take(sampled, first, axis=1 + axis), np.take(sampled, after, axis=1 + axis)
        sampled = low + share * (high - low)
    return sampled


def _cells_of(own: Letterbox, target: Letterbox, axis: int) -> Float64[np.ndarray, " H"]:
    """Return where the cell centres of the target lie among the cells of the own grid, on one axis."""
    canvas = (np.arange(target.grid_hw[axis]) + 0.5) * target.canvas_hw[axis] / target.grid_hw[axis]
    share = (canvas - target.offset_yx[axis]) / target.content_hw[axis]
    own_canvas = share * own.content_hw[axis] + own.offset_yx[axis]
    return own_canvas * own.grid_hw[axis] / own.canvas_hw[axis] - 0.5


def _eigen(gram: Float64[np.ndarray, "K K"]) -> tuple[Float64[np.ndarray, " R"], Float64[np.ndarray, "K R"]]:
    """Eigenvalues that are more than rounding, and their vectors."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > _RANK_TOLERANCE * max(values.max(initial=0), np.finfo(float).tiny)
    return values[kept], vectors[:, kept]


def _whitening(gram: Float64[np.ndarray, "K K"]) -> Float64[np.ndarray, "R K"]:
    values, vectors = _eigen(gram)
    return (vectors / np.sqrt(values)).T


def _pseudo_inverse(gram: Float64[np.ndarray, "K K"]) -> Float64[np.ndarray, "K K"]:
    values, vectors = _eigen(gram)
    return (vectors / values) @ vectors.T
