"""Kinds within a class: groups of instances whose masks are put together in different ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maskprism._common.extras import require
from maskprism._common.parallel import one_thread_in_libraries
from maskprism.analysis.atlas.rank_correlation import sample
from maskprism.analysis.intervals import MIN_IMAGES

if TYPE_CHECKING:
    from jaxtyping import Float32, Int32, Int64

MOST = 6
LEAST = 4 * MIN_IMAGES
"""A class in fewer images is one kind: half of them are looked at for kinds, and each kind needs some of the others."""
SUBSTANTIAL = 0.25
"""Clusters whose mean silhouette is below this are none: "no substantial structure" (Kaufman and Rousseeuw, 1990)."""
VALLEY = 0.5
"""Two kinds have less than this share of the smaller one's density halfway between their centres."""
STEPS = 0.98
"""The gap between two kinds is wider than this share of the steps within them."""
SURE = 0.01
"""Probability of at least one wrong claim of kinds over all classes."""
_TRIED, _FITTED = 500, 5_000


@dataclass(frozen=True, eq=False)
class Cluster:
    """One of the clusters of a class.

    Attributes
    ----------
    example
        The instance nearest to its centre.
    centre
        Mean coefficients.
    """

    of_class: int
    number: int
    instances: int
    example: int
    centre: Float32[np.ndarray, " K"]


@dataclass(frozen=True, eq=False)
class Clusters:
    """The clusters of all classes.

    Attributes
    ----------
    numbers
        Of each instance the number of its cluster, from 0 within its class, largest cluster first.
    found
        The clusters of classes that have more than one, class by class.
    silhouettes
        Silhouettes of those classes, by number, the mean silhouette over a sample (Rousseeuw, 1987), 0 to 1.
    """

    numbers: Int32[np.ndarray, " N"]
    found: tuple[Cluster, ...]
    silhouettes: dict[int, float]


def clusters(
    coefficients: Float32[np.ndarray, "N K"],
    classes: Int32[np.ndarray, " N"],
    count: int,
    images: Int32[np.ndarray, " N"],
    *,
    seed: int = 0,
) -> Clusters:
    """Split every class into 2 to MOST kinds, if there are gaps between them, or leave it whole.

    Notes
    -----
    k-means finds 2 to 6 clusters in anything, in a normal distribution and in sizes that go evenly from small to large,
    too. So clusters are kinds only if there is a gap between every two of them, in two respects:

    - Clusters are found in one half of the images, one instance of each, and tested in the other half: on the line
      between two centres, fewer than VALLEY of as many instances lie halfway as around the less crowded centre
      (binomial test; any distribution with one mode, and much that is bent, has more).
    - The two instances nearest to each other across the gap are further apart than STEPS of all steps from one instance
      to a near one within the two: a continuum that bends, such as a ring, has no such gap.

    The number of clusters is tried in the order of their silhouettes. A class stays whole in case of doubt.
    """
    numbers = np.zeros(len(classes), dtype=np.int32)
    found: list[Cluster] = []
    silhouettes: dict[int, float] = {}
    order = np.argsort(classes, kind="stable")
    stops = np.cumsum(np.bincount(classes, minlength=count))
    members = {at: rows for at, rows in enumerate(np.split(order, stops[:-1])) if len(rows) >= LEAST}
    single = {at: _one_of_each_image(rows, images, seed) for at, rows in members.items()}
    tested = {at: rows for at, rows in single.items() if len(rows) >= LEAST}
    for of_class, chosen in tested.items():
        rows = members[of_class]
        own = coefficients[rows]
        with one_thread_in_libraries():  # the parts are so small that threads take three times as long
            split = _split(coefficients[chosen], own, SURE / len(tested) / (MOST - 1), seed)
        if split is None:
            continue
        centres, silhouettes[of_class] = split
        nearest, distances = _nearest(own, centres)
        sizes = np.bincount(nearest, minlength=len(centres))
        for number, centre in enumerate(np.argsort(-sizes, kind="stable")):
            held = np.flatnonzero(nearest == centre)
            numbers[rows[held]] = number
            example = int(rows[held[np.argmin(distances[held])]])
            found.append(Cluster(of_class, number, len(held), example, own[held].mean(axis=0)))
    return Clusters(numbers, tuple(found), silhouettes)


def _one_of_each_image(
    rows: Int64[np.ndarray, " M"], images: Int32[np.ndarray, " N"], seed: int
) -> Int64[np.ndarray, " I"]:
    """One row of each image, all drawn at random: instances of one image are not independent."""
    drawn = np.random.default_rng(seed).permutation(rows)
    return drawn[np.sort(np.unique(images[drawn], return_index=True)[1])]


def _split(
    independent: Float32[np.ndarray, "I K"], own: Float32[np.ndarray, "M K"], sure: float, seed: int
) -> tuple[Float32[np.ndarray, "k K"], float] | None:
    """Return the centres of the kinds of a class, and their silhouette; None for a class that is one."""
    require("sklearn", "the atlas")
    from sklearn.cluster import KMeans

    half = min(len(independent) // 2, _TRIED)
    few, others = independent[:half], independent[half : half + 10 * _TRIED]
    for silhouette, centres in _candidates(few, seed):
        nearest = _nearest(others, centres)[0]
        if all(
            _valley(others[(nearest == a) | (nearest == b)], centres[[a, b]], sure) and _apart(few, centres, a, b)
            for a in range(len(centres))
            for b in range(a)
        ):
            fit = KMeans(len(centres), init=centres, n_init=1).fit(own[sample(len(own), _FITTED, seed)])
            return fit.cluster_centers_.astype(np.float32), silhouette
    return None


def _candidates(few: Float32[np.ndarray, "m K"], seed: int) -> Iterator[tuple[float, Float32[np.ndarray, "k K"]]]:
    """Clusters by k-means, 2 to MOST of them, with their silhouettes, the best first."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score
    from sklearn.metrics.pairwise import euclidean_distances

    found, apart = [], euclidean_distances(few)
    np.fill_diagonal(apart, 0)
    for k in range(2, MOST + 1) if len(np.unique(few, axis=0)) > MOST else ():
        fit = KMeans(k, n_init=3, random_state=seed).fit(few)
        silhouette = float(silhouette_score(apart, fit.labels_, metric="precomputed"))
        if silhouette >= SUBSTANTIAL:
            found.append((silhouette, fit.cluster_centers_))
    yield from sorted(found, key=lambda one: -one[0])


def _valley(others: Float32[np.ndarray, "m K"], ends: Float32[np.ndarray, "2 K"], sure: float) -> bool:
    """Return whether few of some instances lie halfway between two centres, those on the line between them counted."""
    from scipy import stats

    line = ends[1] - ends[0]
    at = (others - ends[0]) @ line / max(float(line @ line), 1e-30)
    first, halfway, second = (int(np.count_nonzero(np.abs(at - middle) < 1 / 6)) for middle in (0, 0.5, 1))
    side = min(first, second)
    return bool(stats.binom.cdf(halfway, halfway + side, VALLEY / (1 + VALLEY)) < sure)


def _apart(few: Float32[np.ndarray, "m K"], centres: Float32[np.ndarray, "k K"], first: int, second: int) -> bool:
    """Return whether two clusters do not touch: the gap between them is wider than nearly all steps within them.

    Steps are the edges of the minimum spanning trees.
    """
    from scipy.sparse.csgraph import minimum_spanning_tree
    from sklearn.metrics.pairwise import euclidean_distances

    nearest = _nearest(few, centres)[0]
    left, right = few[nearest == first], few[nearest == second]
    if min(len(left), len(right)) < 2:
        return False
    steps = np.concatenate([minimum_spanning_tree(euclidean_distances(own)).data for own in (left, right)])
    return bool(euclidean_distances(left, right).min() > np.quantile(steps, STEPS, method="higher"))


def _nearest(
    own: Float32[np.ndarray, "M K"], centres: Float32[np.ndarray, "k K"]
) -> tuple[Int32[np.ndarray, " M"], Float32[np.ndarray, " M"]]:
    """Of each row the nearest centre, and how far it is from that."""
    halves = np.square(centres).sum(axis=1) / 2
    nearest = np.argmax(own @ centres.T - halves, axis=1).astype(np.int32)
    return nearest, np.linalg.norm(own - centres[nearest], axis=1)
