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
_DIRECTIONS, _BLOCK = 8, 1 << 15


class Group(NamedTuple):
    """Instances that near duplicates join: each has another one of the group nearer than NEAR.

    Attributes
    ----------
    first, second
        Two of them, of different images if there are any.
    distance
        Distance of these two, as a share of that of two random instances; it may be above NEAR where others lie between
        them.
    instances, images
        How many.
    """

    first: int
    second: int
    distance: float
    instances: int
    images: int


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Near duplicates.

    Attributes
    ----------
    numbers
        Of each instance the number of its group in `groups`, -1 without a duplicate.
    groups
        Those of most images first, and of these the largest.
    """

    numbers: Int32[np.ndarray, " N"]
    groups: tuple[Group, ...]

    @property
    def instances(self) -> int:
        """How many instances have a near duplicate."""
        return int(np.count_nonzero(self.numbers >= 0))


def duplicates(
    coefficients: Float32[np.ndarray, "N K"],
    moments: RunningCovariance,
    images: Int32[np.ndarray, " N"],
    *,
    seed: int = 0,
) -> Duplicates:
    """Find all groups of near duplicates.

    The groups are the connected components of all pairs nearer than NEAR. The pairs are not listed: a static camera
    has 5 billion of them in 100,000 frames. Instances within half of NEAR of one of them, a leader, are pairs of each
    other, so that only instances of neighbouring leaders are compared.

    Parameters
    ----------
    moments
        Moments of the coefficients.
    images
        Of each instance.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    n = len(coefficients)
    typical = float(np.sqrt(2 * np.trace(moments.covariance)))
    if n < 2 or typical == 0:
        return Duplicates(np.full(n, -1, dtype=np.int32), ())
    firsts, equal = _equal(coefficients, seed)
    distinct = coefficients[firsts]
    links = np.concatenate([equal, firsts[_links(distinct, _directions(moments), NEAR * typical)]])
    graph = coo_matrix((np.ones(len(links)), (links[:, 0], links[:, 1])), shape=(n, n))
    components = connected_components(graph, directed=False)[1]
    several = np.flatnonzero(np.bincount(components)[components] > 1)
    order = several[np.argsort(components[several], kind="stable")]
    found = []
    for members in np.split(order, np.flatnonzero(np.diff(components[order])) + 1) if len(order) else []:
        first, others = int(members[0]), members[images[members] != images[members[0]]]
        second = int(others[0]) if len(others) else int(members[1])
        apart = float(np.linalg.norm(coefficients[first] - coefficients[second])) / typical
        found.append((members, Group(first, second, apart, len(members), len(np.unique(images[members])))))
    found.sort(key=lambda one: (-one[1].images, -one[1].instances, one[1].first))
    numbers = np.full(n, -1, dtype=np.int32)
    for number, (members, _) in enumerate(found):
        numbers[members] = number
    return Duplicates(numbers, tuple(group for _, group in found))


def _links(
    distinct: Float32[np.ndarray, "D K"], directions: Float64[np.ndarray, "K d"], near: float
) -> Int64[np.ndarray, "L 2"]:
    """Pairs nearer than `near` that connect the same instances as all such pairs do."""
    from scipy.spatial import cKDTree

    # Two instances are no nearer in some directions than in all: trees have those with most variance.
    places = (distinct @ directions.astype(np.float32)).astype(np.float64)
    tree = cKDTree(places, leafsize=16, balanced_tree=False, compact_nodes=False)
    order = tree.indices  # those that are asked about one after the other are near each other: 3 times as fast
    reach = near * (1 + 1e-6)  # places are rounded
    isolated = np.isinf(tree.query(places[order], k=[2], distance_upper_bound=reach, workers=-1)[0][:, 0])
    some = np.sort(order[~isolated])
    if not len(some):
        return np.zeros((0, 2), dtype=np.int64)
    exact, places = distinct[some].astype(np.float64), places[some]
    tree = cKDTree(places)
    leader = np.full(len(some), -1)
    for row in range(len(some)):
        if leader[row] < 0:
            ball = np.array(tree.query_ball_point(places[row], reach / 2))
            ball = ball[leader[ball] < 0]
            leader[ball[np.linalg.norm(exact[ball] - exact[row], axis=1) < near / 2]] = row
    leaders, of_leader = np.unique(leader, return_inverse=True)
    parts = np.split(np.argsort(of_leader, kind="stable"), np.cumsum(np.bincount(of_leader))[:-1])
    links = [np.stack([np.arange(len(some)), leader], axis=1)]
    joined = np.arange(len(leaders))
    tree = cKDTree(places[leaders])
    for number, row in enumerate(leaders):
        for other in tree.query_ball_point(places[row], 2 * reach):
            if other < number and joined[other] != joined[number]:
                link = _between(exact, parts[number], parts[other], near)
                if link is not None:
                    links.append(np.array([link]))
                    joined[joined == joined[other]] = joined[number]
    return some[np.concatenate(links)]


def _between(
    exact: Float64[np.ndarray, "N K"], left: Int64[np.ndarray, " L"], right: Int64[np.ndarray, " R"], near: float
) -> tuple[int, int] | None:
    """Return a pair nearer than `near`, one of each side; None where there is none."""
    from scipy.spatial import cKDTree

    few, many = sorted((left, right), key=len)
    distances, found = cKDTree(exact[many]).query(exact[few], distance_upper_bound=near)
    best = int(np.argmin(distances))
    return (int(few[best]), int(many[found[best]])) if np.isfinite(distances[best]) else None


def _equal(
    coefficients: Float32[np.ndarray, "N K"], seed: int
) -> tuple[Int64[np.ndarray, " D"], Int64[np.ndarray, "E 2"]]:
    """Return the first of all instances that are equal, and the others, each with the first."""
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
    """Return the orthonormal directions of most variance."""
    return np.linalg.eigh(moments.covariance)[1][:, ::-1][:, :_DIRECTIONS]
