"""Instances whose coefficients are most like those of another one: exact, in blocks, over tables of any size.

Two measures. *cosine* compares directions: which prototypes a mask is made of, whatever its strength. *mask* is the
root mean square difference of two logit images: logits are linear in the weights, so for weights a and b over the same
prototypes P it is sqrt((a - b)' G (a - b)) with G the mean of P_i P_j over the cells of the image, the Gram matrix.

G is that of the image of the instance that is searched for. So within that image the distance is exact, and for an
instance of another image it says by how much the logits would differ if its weights were applied to the prototypes of
the image that is searched for. `GramSpread` says how much that depends on the image. For a vector of weights, which
belongs to no image, G is the mean over all images.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskprism._common.text import counted, readable
from maskprism.errors import InputError, TableError
from maskprism.io.uris import shown
from maskprism.tables.instance_rows import InstanceRows
from maskprism.tables.stored_predictions import StoredPredictions
from maskprism.tables.table import matrix_of

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from maskprism.io.uris import UriPath

Metric = Literal["cosine", "mask"]
MOST = 100_000
"""A search gives at most this number of instances, which are held in memory."""
_LARGEST = int(np.iinfo(np.int32).max)
_BLOCK = 1 << 16
_SPARE = 64
_PAIRS = 1000


class Neighbours(NamedTuple):
    """The nearest of some vectors, nearest first: their positions, and how far they are."""

    positions: Int64[np.ndarray, " n"]
    distances: Float32[np.ndarray, " n"]


class Space:
    """A measure of how far weight vectors are from each other; see the module.

    Parameters
    ----------
    gram
        The mean Gram matrix, (K, K), for "mask".

    Raises
    ------
    InputError
        For one that is missing, or no Gram matrix.
    """

    def __init__(self, metric: Metric, gram: Float32[np.ndarray, "K K"] | None = None) -> None:
        if metric not in get_args(Metric):
            raise InputError(f"metric is {metric!r}; expected one of {', '.join(map(repr, get_args(Metric)))}")
        if (metric == "mask") != (gram is not None):
            raise InputError("the metric 'mask' needs the Gram matrix of prototypes, and 'cosine' has no use for one")
        self.metric = metric
        self._root = None if gram is None else _root(gram)

    def embedded(self, weights: Float32[np.ndarray, "N K"]) -> Float32[np.ndarray, "N K"]:
        """Return the vectors where the measure is Euclidean: of unit length for "cosine", whitened for "mask"."""
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
        """Return the `count` nearest of many vectors; of equal ones the first. Exact, a block at a time."""
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
        """Return the `count` nearest vectors, nearest first."""
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
    """Return the positions of the smallest values, smallest first; of equal ones the first."""
    kept = np.arange(len(values))
    if len(values) > count:
        kept = np.flatnonzero(values <= np.partition(values, count - 1)[count - 1])
    return kept[np.argsort(values[kept], kind="stable")][:count]


def _root(gram: Float32[np.ndarray, "K K"]) -> Float32[np.ndarray, "K K"]:
    """Return a matrix R with R R' = gram."""
    matrix = np.asarray(gram, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
        raise InputError(f"a Gram matrix is square and finite; this one has shape {matrix.shape}")
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    if values.min() < -1e-4 * max(values.max(), 1e-12):
        raise InputError("a Gram matrix has no negative eigenvalues, and this one has")
    return (vectors * np.sqrt(values.clip(0))).astype(np.float32)


@dataclass(frozen=True)
class GramSpread:
    """How far the prototypes of other images agree with those that distances are measured with.

    Each number is the ratio of a distance with another image's own Gram matrix to that with the one that was used, over
    differences of random pairs of instances: 1 for prototypes that are the same everywhere.

    Attributes
    ----------
    low, median, high
        The 10th, 50th and 90th percentile.
    images
        Images of how many.
    """

    low: float
    median: float
    high: float
    images: int


class Found(NamedTuple):
    """What a search over a table gave.

    Attributes
    ----------
    rows
        Instances, nearest first, with the columns of `instance_rows.InstanceRows` and a column `distance`. spread: how
        well the prototypes of images agree, for the metric "mask".
    note
        About instances that were left out.
    """

    rows: pa.Table
    spread: GramSpread | None
    note: str


def search(
    table: str | os.PathLike[str] | UriPath,
    like: tuple[str, int] | Float32[np.ndarray, " K"],
    *,
    metric: Metric = "cosine",
    count: int = 20,
) -> Found:
    """Return the instances of a table that are most like another one of it, or like a vector of weights.

    It is exact, and goes over the table once or twice: 2 to 4 s for a million instances. Memory is bounded for the
    metric "cosine", however large the table is.

    Parameters
    ----------
    table
        a path or URI; any table with coefficients, and for the metric "mask" one with prototypes stored, of which a
        summary is enough.
    like
        (image, instance) as in the table, which is then left out itself; or K weights, such as an edited vector.
    metric
        "cosine" or "mask"; see the module.
    count
        how many, up to `MOST`.

    Raises
    ------
    TableError
        there is no such table, it is damaged, or stores no prototypes and the metric is "mask".
    InputError
        no such instance, a vector of another length, or a count out of range.
    """
    if not 1 <= count <= MOST:
        raise InputError(f"count is {count}; expected 1 to {MOST}")
    if metric not in get_args(Metric):
        raise InputError(f"metric is {metric!r}; expected one of {', '.join(map(repr, get_args(Metric)))}")
    itself = like if isinstance(like, tuple) else None
    grams = _grams(table) if metric == "mask" else {}
    query = _weights_of(InstanceRows.read(table), itself) if itself else np.asarray(like, dtype=np.float32)
    if not np.isfinite(query).all():
        raise InputError("the vector holds NaN or infinity; expected finite weights")
    gram = None if not grams else _gram_for(grams, itself, str(table))
    space = Space(metric, gram)
    nearest: list[pa.Table] = []
    sample: list[Float32[np.ndarray, " K"]] = []
    instances = InstanceRows.read(table)
    for rows in instances:
        weights = matrix_of(rows["weights"])
        if query.shape != weights.shape[1:]:
            raise InputError(f"the vector has shape {query.shape}; expected {weights.shape[1]} finite weights")
        if itself is not None:
            others = ~np.asarray(_is(rows, itself))
            rows, weights = rows.filter(pa.array(others)), weights[others]
        sample += list(weights[: 2 * _PAIRS - len(sample)])
        found = space.nearest(query, weights, count)
        chosen = rows.take(pa.array(found.positions)).append_column("distance", pa.array(found.distances))
        nearest = _nearest([*nearest, chosen], count)
    if not nearest:
        raise TableError(f"{instances.label}: holds no instance with coefficients")
    spread = None if gram is None else spread_of(np.stack([*grams.values()]), gram, np.array(sample, dtype=np.float32))
    return Found(nearest[0], spread, instances.note)


def _nearest(tables: Sequence[pa.Table], count: int) -> list[pa.Table]:
    """Return the nearest rows of some tables as one."""
    rows = pa.concat_tables(tables)
    return [rows.take(_smallest(rows["distance"].to_numpy(), count))]


def _grams(table: str | os.PathLike[str] | UriPath) -> dict[str, Float32[np.ndarray, "K K"]]:
    """Return the Gram matrices of all images of a table.

    Raises
    ------
    TableError
        For one that stores no prototypes.
    """
    grams = dict(StoredPredictions.open(table).grams())
    if not grams:
        raise TableError(f"{shown(table)}: holds no instance with prototypes")
    return grams


def _gram_for(
    grams: Mapping[str, Float32[np.ndarray, "K K"]], itself: tuple[str, int] | None, label: str
) -> Float32[np.ndarray, "K K"]:
    """That of the image of the query; for a vector, which has no image, the mean of all."""
    if itself is None:
        return np.mean([*grams.values()], axis=0)
    if itself[0] not in grams:
        raise TableError(f"{label}: the prototypes of {itself[0]!r} are missing; extract the table again")
    return grams[itself[0]]


def spread_of(
    grams: Float32[np.ndarray, "I K K"], reference: Float32[np.ndarray, "K K"], weights: Float32[np.ndarray, "N K"]
) -> GramSpread:
    """Return how far the Gram matrices of images agree with a reference; over pairs drawn with a fixed seed."""
    if len(weights) < 2:
        return GramSpread(1.0, 1.0, 1.0, len(grams))
    pairs = np.random.default_rng(0).integers(0, len(weights), (2, _PAIRS))
    differences = weights[pairs[0]] - weights[pairs[1]]
    here = np.einsum("pi,ij,pj->p", differences, reference, differences, optimize=True)
    there = np.stack([np.einsum("pi,ij,pj->p", differences, gram, differences, optimize=True) for gram in grams])
    ratios = np.sqrt(there[:, here > 0].clip(0) / here[here > 0])
    if not ratios.size:
        return GramSpread(1.0, 1.0, 1.0, len(grams))
    low, median, high = np.percentile(ratios, (10, 50, 90)).tolist()
    return GramSpread(low, median, high, len(grams))


def _is(rows: pa.Table, which: tuple[str, int]) -> pa.ChunkedArray:
    """Return which rows are that instance of that image."""
    name, instance = which
    return pc.and_(pc.equal(rows["image"], pa.scalar(name, pa.string())), pc.equal(rows["instance"], instance))


def _weights_of(rows: InstanceRows, which: tuple[str, int]) -> Float32[np.ndarray, " K"]:
    """Return the weights of an instance.

    Raises
    ------
    InputError
        Where there is none.
    TableError
        Where images have no names.
    """
    name, instance = which
    known = 0
    if 0 <= instance <= _LARGEST:
        for some in rows:
            if "image" not in some.column_names:
                raise TableError(f"{rows.label}: has no column 'image', by which an instance could be named")
            chosen = some.filter(_is(some, which))
            if len(chosen):
                return matrix_of(chosen["weights"])[0]
            known += pc.sum(pc.equal(some["image"], pa.scalar(name, pa.string()))).as_py() or 0
    left_out = f"; {rows.note}" if rows.note else ""
    has = f"that image has {counted(known, 'instance')} there" if known else "no instance of that image is there"
    raise InputError(f"{rows.label}: there is no instance {instance} of {readable(name)!r}; {has}{left_out}")
