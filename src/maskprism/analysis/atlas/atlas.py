"""All questions to the instances of a table, asked at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from maskprism._common.extras import require
from maskprism.analysis.atlas.class_signatures import Signatures, signatures
from maskprism.analysis.atlas.clustering import MOST, Clusters, clusters
from maskprism.analysis.atlas.near_duplicates import Duplicates, duplicates
from maskprism.analysis.atlas.outlier_search import outliers
from maskprism.analysis.atlas.points import Points
from maskprism.analysis.atlas.projection import Components, neighbour_map
from maskprism.analysis.atlas.rank_correlation import RankCorrelations, dependence, sample
from maskprism.analysis.prototypes.covariance import RunningCovariance
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float32, Int32, Int64

_BLOCK, _EACH = 1 << 15, 60


@dataclass(frozen=True, eq=False)
class Atlas:
    """What is known of the instances of a table; arrays of N are in the order of `points`.

    Attributes
    ----------
    moments
        Moments of the coefficients.
    components, places
        The map of principal components, (N, 2).
    neighbours
        The map of UMAP, if it was asked for.
    outliers
        How far each instance is from the middle of its class. The others: see their modules.
    """

    points: Points
    moments: RunningCovariance
    components: Components
    places: Float32[np.ndarray, "N 2"]
    neighbours: Float32[np.ndarray, "N 2"] | None
    signatures: Signatures
    dependence: RankCorrelations
    clusters: Clusters
    outliers: Float32[np.ndarray, " N"]
    duplicates: Duplicates

    @property
    def has_truth(self) -> bool:
        """Whether the table knows how good masks are."""
        return "iou" in self.points.numbers

    @property
    def kinds(self) -> Int32[np.ndarray, " N"]:
        """The kind of each instance among those of all classes: its class times clusters.MOST, and its cluster."""
        return self.points.classes * np.int32(MOST) + self.clusters.numbers

    def notable(self, count: int, *, seed: int = 0) -> Int64[np.ndarray, " T"]:
        """Up to `count` points to be shown: examples of kinds, outliers, near duplicates, and then some of all."""
        far = np.argsort(-np.nan_to_num(self.outliers), kind="stable")[:_EACH]
        twice = [point for group in self.duplicates.groups[:_EACH] for point in (group.first, group.second)]
        first = [*(cluster.example for cluster in self.clusters.found), *far.tolist(), *twice]
        chosen = list(dict.fromkeys([*first, *sample(len(self.points), count, seed).tolist()]))[:count]
        return np.array(chosen, dtype=np.int64)


def make_atlas(
    points: Points, *, umap: bool = False, seed: int = 0, on_step: Callable[[str], None] = lambda step: None
) -> Atlas:
    """Ask everything.

    Parameters
    ----------
    umap
        Make that map, too.
    seed
        Of whatever is drawn at random.
    on_step
        Called before each step.

    Raises
    ------
    MissingExtraError
        Without the packages that it needs (extras atlas and umap).
    InputError
        For a negative seed.
    """
    if not 0 <= seed < 1 << 32:
        raise InputError(f"seed is {seed}; expected 0 to {(1 << 32) - 1}")
    require("sklearn", "the atlas")
    if umap:
        require("umap", "this map")
    coefficients, classes, count = points.coefficients, points.classes, len(points.class_names)
    on_step("principal components")
    moments = moments_of(coefficients)
    components = Components.of(moments)
    on_step("classes")
    of_classes = signatures(coefficients, classes, count, points.images)
    on_step("sizes and positions")
    depends = dependence(coefficients, points.numbers, points.images, seed=seed)
    on_step("clusters")
    kinds = clusters(coefficients, classes, count, points.images, seed=seed)
    on_step("outliers")
    odd = outliers(coefficients, classes, count, seed=seed)
    on_step("near duplicates")
    twice = duplicates(coefficients, moments, points.images, seed=seed)
    if umap:
        on_step("map of neighbours")
    return Atlas(
        points=points,
        moments=moments,
        components=components,
        places=components.places(coefficients),
        neighbours=neighbour_map(coefficients, seed=seed) if umap else None,
        signatures=of_classes,
        dependence=depends,
        clusters=kinds,
        outliers=odd,
        duplicates=twice,
    )


def moments_of(coefficients: Float32[np.ndarray, "N K"]) -> RunningCovariance:
    """Their mean and covariance."""
    found = RunningCovariance(coefficients.shape[1])
    for start in range(0, len(coefficients), _BLOCK):
        found.update(coefficients[start : start + _BLOCK])
    return found
