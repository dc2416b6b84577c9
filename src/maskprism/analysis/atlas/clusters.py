"""Kinds within a class: groups of instances whose masks are put together in different ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from threadpoolctl import threadpool_limits

from maskprism._common.extras import require
from maskprism.analysis.atlas.dependence import sample

if TYPE_CHECKING:
    from jaxtyping import Float32, Int32

LEAST = 40
"""A class with fewer instances is one cluster."""
MOST = 6
CLEAR = 0.05
"""Clusters whose mean silhouette is not so much above that of one normal distribution, split in the same way, are none:
the class is one."""
_TRIED, _FITTED, _PATIENCE = 400, 5_000, 2


@dataclass(frozen=True, eq=False)
class Cluster:
    """One of the clusters of a class. example: the instance nearest to its centre. centre: mean coefficients."""

    of_class: int
    number: int
    instances: int
    example: int
    centre: Float32[np.ndarray, " K"]


@dataclass(frozen=True, eq=False)
class Clusters:
    """The clusters of all classes.

    numbers: of each instance the number of its cluster, from 0 within its class, largest cluster first.
    found: the clusters of classes that have more than one, class by class.
    silhouettes: of those classes, by number, the mean silhouette over a sample (Rousseeuw, 1987), 0 to 1.
    """

    numbers: Int32[np.ndarray, " N"]
    found: tuple[Cluster, ...]
    silhouettes: dict[int, float]


def clusters(
    coefficients: Float32[np.ndarray, "N K"], classes: Int32[np.ndarray, " N"], count: int, *, seed: int = 0
) -> Clusters:
    """Split every class by k-means into 2 to MOST clusters, by what has the best silhouette, or leave it whole.

    More clusters are tried until two numbers in a row are no better.
    Clusters are looked for among a sample of 5,000 instances of a class, and all of them then belong to the nearest.
    """
    numbers = np.zeros(len(classes), dtype=np.int32)
    found: list[Cluster] = []
    silhouettes: dict[int, float] = {}
    order = np.argsort(classes, kind="stable")
    stops = np.cumsum(np.bincount(classes, minlength=count))
    for of_class, rows in enumerate(np.split(order, stops[:-1])):
        if len(rows) < LEAST:
            continue
        own = coefficients[rows]
        with threadpool_limits(1):  # the parts are so small that threads take three times as long
            split = _split(own, seed)
        if split is None:
            continue
        centres, silhouettes[of_class] = split
        nearest, distances = _nearest(own, centres)
        sizes = np.bincount(nearest, minlength=len(centres))
        for number, centre in enumerate(np.argsort(-sizes, kind="stable")):
            members = np.flatnonzero(nearest == centre)
            numbers[rows[members]] = number
            example = int(rows[members[np.argmin(distances[members])]])
            found.append(Cluster(of_class, number, len(members), example, own[members].mean(axis=0)))
    return Clusters(numbers, tuple(found), silhouettes)


def _split(own: Float32[np.ndarray, "M K"], seed: int) -> tuple[Float32[np.ndarray, "k K"], float] | None:
    """The centres of the best split of a class, and its silhouette; None for a class that is one."""
    require("sklearn", "the atlas")
    from sklearn.cluster import KMeans
    from sklearn.metrics.pairwise import euclidean_distances

    few = own[sample(len(own), _TRIED, seed)]
    if len(np.unique(few, axis=0)) <= MOST:
        return None
    apart = euclidean_distances(few)
    scores, centres = {}, {}
    for k in range(2, MOST + 1):
        scores[k], centres[k] = _silhouette(few, apart, k, seed)
        best = max(scores, key=lambda k: scores[k])
        if k - best == _PATIENCE:
            break
    without = _without_clusters(few, seed)
    if scores[best] < CLEAR + _silhouette(without, euclidean_distances(without), best, seed)[0]:
        return None
    fit = KMeans(best, init=centres[best], n_init=1).fit(own[sample(len(own), _FITTED, seed)])
    return fit.cluster_centers_.astype(np.float32), scores[best]


def _silhouette(
    few: Float32[np.ndarray, "m K"], apart: Float32[np.ndarray, "m m"], k: int, seed: int
) -> tuple[float, Float32[np.ndarray, "k K"]]:
    """The mean silhouette of k clusters, -1 where one has a single instance (an outlier), and their centres."""
    from sklearn.cluster import KMeans
    from sklearn.metrics import silhouette_score

    fit = KMeans(k, n_init=1, random_state=seed).fit(few)
    alone = np.bincount(fit.labels_, minlength=k).min() < 2
    return -1.0 if alone else float(silhouette_score(apart, fit.labels_, metric="precomputed")), fit.cluster_centers_


def _without_clusters(few: Float32[np.ndarray, "m K"], seed: int) -> Float32[np.ndarray, "m K"]:
    """As many instances of a normal distribution with the same mean and covariance."""
    rng = np.random.default_rng(seed)
    drawn = rng.multivariate_normal(few.mean(axis=0), np.cov(few, rowvar=False).reshape(few.shape[1], -1), len(few))
    return drawn.astype(np.float32)


def _nearest(
    own: Float32[np.ndarray, "M K"], centres: Float32[np.ndarray, "k K"]
) -> tuple[Int32[np.ndarray, " M"], Float32[np.ndarray, " M"]]:
    """Of each row the nearest centre, and how far it is from that."""
    halves = np.square(centres).sum(axis=1) / 2
    nearest = np.argmax(own @ centres.T - halves, axis=1).astype(np.int32)
    return nearest, np.linalg.norm(own - centres[nearest], axis=1)
