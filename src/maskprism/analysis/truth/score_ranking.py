"""Does the score know how good a mask is? Rank correlation, and calibration."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism.analysis.intervals import CLAIMS, Interval, bootstrap

if TYPE_CHECKING:
    from jaxtyping import Float64, Int64


class Bin(NamedTuple):
    """Instances with scores from `low` to `high`: how many, their mean score, and their mean mask IoU."""

    low: float
    high: float
    instances: int
    score: float
    iou: float


class Ranking(NamedTuple):
    """Whether scores rank masks by their quality, and whether they equal it.

    Attributes
    ----------
    spearman
        Rank correlation of score and mask IoU, -1 to 1; nan for fewer than two distinct scores or IoUs.
    bins
        The calibration curve, scores from low to high.
    calibration_error
        Mean distance of score and IoU over the bins, weighted by their counts (ECE with IoU in the place of accuracy).
    """

    spearman: float
    bins: tuple[Bin, ...]
    calibration_error: float


def ranking(scores: Float64[np.ndarray, " N"], ious: Float64[np.ndarray, " N"], *, bins: int = 10) -> Ranking:
    """Return how mask IoU goes with the score, over matched instances.

    The bins are tenths of 0..1 (or as many as asked for); empty ones are left out. Guo et al., "On Calibration of
    Modern Neural Networks", ICML 2017.
    """
    edges = np.linspace(0, 1, bins + 1)
    which = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, bins - 1)
    found = tuple(
        Bin(
            float(edges[index]),
            float(edges[index + 1]),
            int(np.count_nonzero(which == index)),
            float(scores[which == index].mean()),
            float(ious[which == index].mean()),
        )
        for index in np.unique(which).tolist()
    )
    total = sum(one.instances for one in found)
    error = sum(one.instances * abs(one.score - one.iou) for one in found) / total if total else math.nan
    return Ranking(spearman(scores, ious), found, error)


def spearman(first: Float64[np.ndarray, " N"], second: Float64[np.ndarray, " N"]) -> float:
    """Correlation of ranks, ties sharing their mean rank; nan where there is nothing to rank."""
    return _weighted_spearman(_numbered(first), _numbered(second), np.ones(len(first)))


def spearman_interval(
    first: Float64[np.ndarray, " N"], second: Float64[np.ndarray, " N"], image: Int64[np.ndarray, " N"]
) -> Interval:
    """Return the correlation of ranks with its bootstrap interval over images, which holds for `CLAIMS` together.

    Parameters
    ----------
    first, second
        Two values per instance.
    image
        The image of each instance, numbered from 0.
    """
    columns = [_numbered(values) for values in (first, second)]

    def correlation(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, " R"]:
        return np.array([_weighted_spearman(columns[0], columns[1], row[image]) for row in weights])

    return bootstrap(correlation, int(image.max()) + 1 if len(image) else 0, comparisons=CLAIMS)


def _weighted_spearman(
    first: Int64[np.ndarray, " N"], second: Int64[np.ndarray, " N"], weights: Float64[np.ndarray, " N"]
) -> float:
    """Correlation of the ranks that instances have if each counts so often; values are numbered in their order."""
    total = float(weights.sum())
    centred = []
    for values in (first, second):
        counts = np.bincount(values, weights)
        centred.append((np.cumsum(counts) - (counts - 1) / 2)[values] - (total + 1) / 2)
    a, b = centred
    spread = math.sqrt(float((weights * a) @ a) * float((weights * b) @ b))
    return float((weights * a) @ b) / spread if spread else math.nan


def _numbered(values: Float64[np.ndarray, " N"]) -> Int64[np.ndarray, " N"]:
    """Return every value as its number among the different values, in their order."""
    return np.unique(values, return_inverse=True)[1]
