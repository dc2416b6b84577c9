"""Instances whose coefficients are most like those of another one: exact, in blocks, over tables of any size.

Two measures. *cosine* compares directions: which prototypes a mask is made of, whatever its strength. *mask* is the
root mean square difference of two logit images: logits are linear in the weights, so for weights a and b over the same
prototypes P it is sqrt((a - b)' G (a - b)) with G the mean of P_i P_j over the cells of the image, the Gram matrix.

Weights of two images mean the same only as far as their prototypes do. With the mean Gram matrix of many images,
*mask* is exact on average over them, not for each; `GramSpread` says by how much it may be off.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskprism.columns import instance_schema
from maskprism.errors import InputError, TableError
from maskprism.stored_predictions import StoredPredictions
from maskprism.table import INSTANCES, TablePaths, matrix_of, read_batches, read_settings

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from maskprism.locations import UriPath

Metric = Literal["cosine", "mask"]
_BLOCK = 1 << 16
_SPARE = 64
_PAIRS = 1000


class Neighbours(NamedTuple):
    """The nearest of some vectors, nearest first: their positions, and how far they are."""

    positions: Int64[np.ndarray, " n"]
    distances: Float32[np.ndarray, " n"]


class Space:
    """A measure of how far weight vectors are from each other; see the module.

    gram: the mean Gram matrix, (K, K), for "mask". Raises InputError for one that is missing, or no Gram matrix.
    """

    def __init__(self, metric: Metric, gram: Float32[np.ndarray, "K K"] | None = None) -> None:
        if metric not in get_args(Metric):
            raise InputError(f"metric is {metric!r}; expected one of {', '.join(map(repr, get_args(Metric)))}")
        if (metric == "mask") != (gram is not None):
            raise InputError("the metric 'mask' needs the Gram matrix of prototypes, and 'cosine' has no use for one")
        self.metric = metric
        self._root = None if gram is None else _root(gram)

    def embedded(self, weights: Float32[np.ndarray, "N K"]) -> Float32[np.ndarray, "N K"]:
        """The vectors where the measure is Euclidean: of unit length for "cosine", whitened for "mask"."""
        found = np.asarray(weights, dtype=np.float32)
        if self._root is not None:
            return found @ self._root
        length = np.linalg.norm(found, axis=1, keepdims=True)
        return np.divide(found, length, out=np.zeros_like(found), where=length > 0)

    def distances(
        self, query: Float32[np.ndarray, " K"], weights: Float32[np.ndarray, "N K"]
    ) -> Float32[np.ndarray, " N"]:
        """From one vector to many: 1 - cosine (0 to 2), or the root mean square difference of logits."""
        own, others = self.embedded(query[None])[0], self.embedded(weights)
        if self.metric == "cosine":
            return np.float32(1) - others @ own
        return np.sqrt(np.square(others - own).sum(axis=1))

    def nearest(self, query: Float32[np.ndarray, " K"], weights: Float32[np.ndarray, "N K"], count: int) -> Neighbours:
        """The `count` nearest of many vectors; of equal ones the first. Exact, a block at a time."""
        blocks = [self.distances(query, weights[start : start + _BLOCK]) for start in range(0, len(weights), _BLOCK)]
        distances = np.concatenate([np.zeros(0, np.float32), *blocks])
        positions = _smallest(distances, count)
        return Neighbours(positions, distances[positions])


class Index:
    """Many weight vectors in memory, made ready once for many queries: exact, some 20 ms per million and query.

    Positions of neighbours are rows of `weights`, (N, K), which may be `CoefficientTable.coefficients`.
    """

    def __init__(self, space: Space, weights: Float32[np.ndarray, "N K"]) -> None:
        self._space, self._weights = space, weights
        self._vectors = np.ascontiguousarray(space.embedded(weights))
        self._halves = np.square(self._vectors).sum(axis=1) / 2 if space.metric == "mask" else None

    def nearest(self, query: Float32[np.ndarray, " K"], count: int) -> Neighbours:
        """The `count` nearest vectors, nearest first."""
        likeness = self._vectors @ self._space.embedded(np.asarray(query, dtype=np.float32)[None])[0]
        if self._halves is not None:
            likeness -= self._halves
        # Products of large vectors round; what is nearly as near is measured again.
        most = min(count + _SPARE, len(likeness))
        ranks = np.argpartition(likeness, -most) if 0 < most < len(likeness) else np.arange(len(likeness))
        chosen = np.sort(ranks[len(ranks) - most :])
        found = self._space.nearest(query, self._weights[chosen], count)
        return Neighbours(chosen[found.positions], found.distances)


def _smallest(values: Float32[np.ndarray, " N"], count: int) -> Int64[np.ndarray, " n"]:
    """The positions of the smallest values, smallest first; of equal ones the first."""
    kept = np.arange(len(values))
    if len(values) > count:
        kept = np.flatnonzero(values <= np.partition(values, count - 1)[count - 1])
    return kept[np.argsort(values[kept], kind="stable")][:count]


def _root(gram: Float32[np.ndarray, "K K"]) -> Float32[np.ndarray, "K K"]:
    """A matrix R with R R' = gram."""
    matrix = np.asarray(gram, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise InputError(f"a Gram matrix is square and finite; this one has shape {matrix.shape}")
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    if values.min() < -1e-4 * max(values.max(), 1e-12):
        raise InputError("a Gram matrix has no negative eigenvalues, and this one has")
    return (vectors * np.sqrt(values.clip(0))).astype(np.float32)


@dataclass(frozen=True)
class GramSpread:
    """How far images agree about the length of a difference of weights.

    Each number is the ratio of a distance with an image's own Gram matrix to that with the mean of all, over
    differences of random pairs of instances: 1 for prototypes that are the same everywhere. low, median, high: the
    10th, 50th and 90th percentile. images: of how many.
    """

    low: float
    median: float
    high: float
    images: int


class Found(NamedTuple):
    """What a search over a table gave: rows of instances, nearest first, with a column `distance`; and how well the
    Gram matrices of images agree, for the metric "mask".
    """

    rows: pa.Table
    spread: GramSpread | None


def search(
    table: str | os.PathLike[str] | UriPath,
    like: tuple[str, int] | Float32[np.ndarray, " K"],
    *,
    metric: Metric = "cosine",
    count: int = 20,
) -> Found:
    """The instances of a table that are most like another one of it, or like a vector of weights.

    Memory is bounded however large the table is; an index is not needed below some ten million instances.

    Parameters
    ----------
    table
        a path or URI; for the metric "mask" with prototypes stored, of which a summary is enough.
    like
        (image, instance) as in the table, which is then left out itself; or K weights, such as an edited vector.
    metric
        "cosine" or "mask"; see the module.
    count
        how many.

    Raises
    ------
    TableError
        there is no such table, it is damaged, or stores no prototypes and the metric is "mask".
    InputError
        no such instance, a vector of another length, or a count below 1.
    """
    if count < 1:
        raise InputError(f"count is {count}; expected at least 1")
    paths = TablePaths.of(table)
    settings = read_settings(paths)
    if settings is None:
        raise TableError(f"{paths.table}: there is no such table")
    k = int(settings["prototypes"])
    itself = like if isinstance(like, tuple) else None
    query = _weights_of(paths, settings, itself) if itself else np.asarray(like, dtype=np.float32)
    if query.shape != (k,) or not np.isfinite(query).all():
        raise InputError(f"the vector has shape {query.shape}; expected {k} finite weights")
    grams = None
    if metric == "mask":
        grams = _grams(table, k)
    space = Space(metric, None if grams is None else grams.mean(axis=0))
    distance = pa.field("distance", pa.float32())
    rows = instance_schema(settings).append(distance).empty_table()
    sample: list[Float32[np.ndarray, " K"]] = []
    for batch in _batches(paths, settings):
        if itself is not None:
            batch = batch.filter(pc.invert(_is(batch, itself)))
        weights = weights_of_rows(batch, settings)
        sample += list(weights[: 2 * _PAIRS - len(sample)])
        nearest = space.nearest(query, weights, count)
        found = batch.take(pa.array(nearest.positions)).append_column(distance, pa.array(nearest.distances))
        rows = pa.concat_tables([rows, found])
        rows = rows.take(pa.array(_smallest(rows["distance"].to_numpy(), count)))
    return Found(rows, None if grams is None else spread_of(grams, np.array(sample, dtype=np.float32).reshape(-1, k)))


def gram_of(table: str | os.PathLike[str] | UriPath, k: int) -> Float32[np.ndarray, "K K"]:
    """The mean Gram matrix of the images of a table. Raises TableError for one without stored prototypes."""
    return _grams(table, k).mean(axis=0)


def _grams(table: str | os.PathLike[str] | UriPath, k: int) -> Float32[np.ndarray, "I K K"]:
    return np.stack([matrix for _, matrix in StoredPredictions.open(table).grams()] or [np.zeros((k, k), np.float32)])


def spread_of(grams: Float32[np.ndarray, "I K K"], weights: Float32[np.ndarray, "N K"]) -> GramSpread:
    """How far the Gram matrices of images agree about the differences of weights; of pairs drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    if len(weights) < 2:
        return GramSpread(1.0, 1.0, 1.0, len(grams))
    pairs = rng.integers(0, len(weights), (2, _PAIRS))
    differences = weights[pairs[0]] - weights[pairs[1]]
    mean = np.einsum("pi,ij,pj->p", differences, grams.mean(axis=0), differences, optimize=True)
    own = np.stack([np.einsum("pi,ij,pj->p", differences, one, differences, optimize=True) for one in grams])
    ratios = np.sqrt(own[:, mean > 0].clip(0) / mean[mean > 0])
    if not ratios.size:
        return GramSpread(1.0, 1.0, 1.0, len(grams))
    low, median, high = np.percentile(ratios, (10, 50, 90)).tolist()
    return GramSpread(low, median, high, len(grams))


def _batches(paths: TablePaths, settings: dict[str, Any]) -> Iterable[pa.Table]:
    schema = instance_schema(settings)
    files = [paths.part(INSTANCES, stem) for stem in paths.stems()] if paths.is_folder else [paths.instances]
    for file in files:
        yield from read_batches(file, schema)


def weights_of_rows(rows: pa.Table, settings: dict[str, Any]) -> Float32[np.ndarray, "N K"]:
    """What multiplies the prototypes: coefficients, times objectness if the rule of the table says so."""
    found = matrix_of(rows["coefficients"])
    if settings.get("rule", {}).get("objectness") and settings["objectness"]:
        return found * rows["objectness"].to_numpy()[:, None]
    return found


def _is(rows: pa.Table, which: tuple[str, int]) -> pa.ChunkedArray:
    """Which rows are that instance of that image."""
    name, instance = which
    of_image = pc.equal(rows["image"], pa.scalar(name, pa.string()))
    return pc.and_(of_image, pc.equal(rows["instance"], pa.scalar(instance, pa.int64())))


def _weights_of(paths: TablePaths, settings: dict[str, Any], which: tuple[str, int]) -> Float32[np.ndarray, " K"]:
    name, instance = which
    known = 0
    for batch in _batches(paths, settings):
        chosen = batch.filter(_is(batch, which))
        if len(chosen):
            return weights_of_rows(chosen, settings)[0]
        known += pc.sum(pc.equal(batch["image"], pa.scalar(name, pa.string()))).as_py() or 0
    has = f"that image has {known} instances there" if known else "no instance of that image is there"
    raise InputError(f"{paths.table}: there is no instance {instance} of {name!r}; {has}")
