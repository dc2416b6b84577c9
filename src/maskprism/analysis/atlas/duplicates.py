"""Instances with all but the same coefficients: images that a data set has twice, or things that were found twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, Int32, Int64

    from maskprism.analysis.prototypes.covariance import RunningCovariance

NEAR = 0.02
"""Instances are near duplicates if their distance is below this share of that of two random instances, in root mean
square."""
_NEIGHBOURS, _DIRECTIONS, _BLOCK = 2, 8, 1 << 15


class Pair(NamedTuple):
    """Two near duplicates. distance: as a share of that of two random instances."""

    first: int
    second: int
    distance: float


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Near duplicates.

    groups: of each instance the number of its group, -1 without a duplicate; groups join pairs that share an instance.
    pairs: every instance with its nearest duplicates, nearest first. Equal instances are pairs with the first of them.
    """

    groups: Int32[np.ndarray, " N"]
    pairs: tuple[Pair, ...]

    @property
    def instances(self) -> int:
        """How many instances have a duplicate."""
        return int(np.count_nonzero(self.groups >= 0))


def duplicates(coefficients: Float32[np.ndarray, "N K"], moments: RunningCovariance, *, seed: int = 0) -> Duplicates:
    """Find near duplicates; of each different instance the nearest two are looked at. moments: of the coefficients."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    n = len(coefficients)
    nobody = Duplicates(np.full(n, -1, dtype=np.int32), ())
    typical = float(np.sqrt(2 * np.trace(moments.covariance)))
    if n < 2 or typical == 0:
        return nobody
    firsts, equal = _equal(coefficients, seed)
    # Two instances are no nearer in some directions than in all: the tree has those with most variance.
    places = (coefficients @ _directions(moments).astype(np.float32))[firsts].astype(np.float64)
    tree = cKDTree(places, leafsize=16, balanced_tree=False, compact_nodes=False)
    order = tree.indices  # those that are asked about one after the other are near each other: 3 times as fast
    most = min(_NEIGHBOURS + 1, len(firsts))
    right = tree.query(places[order], k=[*range(1, most + 1)], distance_upper_bound=NEAR * typical, workers=-1)[
        1
    ].reshape(-1)
    left = np.repeat(order, most)
    kept = (right < len(firsts)) & (left != right)
    left, right = left[kept], right[kept]
    ends = np.unique(np.sort(np.stack([left, right], axis=1), axis=1), axis=0)
    ends = firsts[ends]
    distances = np.linalg.norm(coefficients[ends[:, 0]] - coefficients[ends[:, 1]], axis=1)
    near = distances < NEAR * typical
    ends, distances = np.concatenate([equal, ends[near]]), distances[near]
    if not len(ends):
        return nobody
    distances = np.concatenate([np.zeros(len(equal), np.float32), distances]) / typical
    links = coo_matrix((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(n, n))
    components = connected_components(links, directed=False)[1]
    members = np.bincount(components)[components] > 1
    groups = np.full(n, -1, dtype=np.int32)
    groups[members] = np.unique(components[members], return_inverse=True)[1]
    order = np.argsort(distances, kind="stable")
    pairs = zip(ends[order, 0].tolist(), ends[order, 1].tolist(), distances[order].tolist(), strict=True)
    return Duplicates(groups, tuple(Pair(*pair) for pair in pairs))


def _equal(
    coefficients: Float32[np.ndarray, "N K"], seed: int
) -> tuple[Int64[np.ndarray, " D"], Int64[np.ndarray, "E 2"]]:
    """The first of all instances that are equal, and the others, each with the first."""
    factors = np.random.default_rng(seed).integers(0, 1 << 63, coefficients.shape[1], dtype=np.uint64) | np.uint64(1)
    sums = np.empty(len(coefficients), dtype=np.uint64)
    for start in range(0, len(coefficients), _BLOCK):
        block = np.ascontiguousarray(coefficients[start : start + _BLOCK] + np.float32(0))  # -0 is 0
        sums[start : start + _BLOCK] = (block.view(np.uint32) * factors).sum(axis=1)
    firsts, of_sum = np.unique(sums, return_index=True, return_inverse=True)[1:]
    others = np.flatnonzero(firsts[of_sum] != np.arange(len(sums)))
    partners = firsts[of_sum[others]]
    same = (coefficients[others] == coefficients[partners]).all(axis=1)
    distinct = np.sort(np.concatenate([firsts, others[~same]]))
    return distinct, np.stack([partners[same], others[same]], axis=1)


def _directions(moments: RunningCovariance) -> Float64[np.ndarray, "K d"]:
    """The orthonormal directions of most variance."""
    return np.linalg.eigh(moments.covariance)[1][:, ::-1][:, :_DIRECTIONS]
