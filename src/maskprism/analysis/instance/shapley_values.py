"""Shapley values: how much of a logit, or of a mask's quality, is due to each prototype.

The game: prototypes join one after the other, and each is paid what it changes; a Shapley value is the mean
pay over all orders (Shapley, "A value for n-person games", 1953).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from maskprism.analysis.instance.prototype_roles import image_means
from maskprism.analysis.instance.subset_masks import SubsetMasks
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int64

    from maskprism.analysis.instance.subset_masks import Metric
    from maskprism.core.geometry import Size
    from maskprism.core.prediction import Instance

Baseline = Literal["zero", "mean"]


@dataclass(frozen=True, eq=False)
class LogitShares:
    """The logits of an instance on the prototype grid, shared out exactly: baseline + values.sum(axis=0).

    Attributes
    ----------
    values
        Shapley values at every cell.
    baseline
        The logit that is there without any prototype.
    """

    values: Float32[np.ndarray, "K h w"]
    baseline: float


def shapley_logits(instance: Instance, *, baseline: Baseline = "zero") -> LogitShares:
    """Return the exact Shapley values of the logits: a sum pays every member its own term, in whatever order they join.

    `baseline` "zero": an absent prototype is one with coefficient 0, so that values are the terms. "mean": an absent
    prototype is a flat one, its mean over the image; the constant level, which acts as a bias, is in the baseline and
    the values say what its pattern does.

    Raises
    ------
    InputError
        For another baseline.
    """
    means = baseline_means(instance, baseline)
    patterns = instance.prototypes - means[:, None, None]
    return LogitShares(instance.weights[:, None, None] * patterns, float(instance.weights @ means))


def baseline_means(instance: Instance, baseline: Baseline) -> Float32[np.ndarray, " K"]:
    """Return what stands for each absent prototype: 0, or its mean over the image.

    Raises
    ------
    InputError
        For another.
    """
    if baseline not in ("zero", "mean"):
        raise InputError(f"baseline is {baseline!r}; expected 'zero' or 'mean'")
    return image_means(instance) if baseline == "mean" else np.zeros(len(instance.weights), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class ShapleyValues:
    """What each prototype adds to the score of the mask, on average over orders.

    Attributes
    ----------
    values
        They sum to full - none exactly, however few permutations were drawn.
    standard_errors
        Standard errors of the sampling.
    full, none
        The scores of all prototypes and of none. See `SubsetMasks` for metric and target.
    """

    values: Float64[np.ndarray, " K"]
    standard_errors: Float64[np.ndarray, " K"]
    full: float
    none: float
    metric: Metric
    permutations: int
    seed: int

    def order(self) -> Int64[np.ndarray, " K"]:
        """Prototype indices, largest value first. Ties keep index order."""
        return np.argsort(-self.values, kind="stable")


def shapley(
    instance: Instance,
    *,
    permutations: int = 256,
    seed: int = 0,
    target: Bool[np.ndarray, "H W"] | None = None,
    metric: Metric = "iou",
    size: Size | None = None,
    subsets: SubsetMasks | None = None,
) -> ShapleyValues:
    """Shapley values of the IoU (or Dice) of the thresholded, cropped mask with a target, by sampled permutations.

    Every permutation is followed by its reverse (antithetic sampling, Mitchell et al., "Sampling permutations for
    Shapley value estimation", JMLR 2022: on masks it usually lowers the error); standard errors are those of the mean
    over such pairs. The target is the full mask unless one is given.

    Raises
    ------
    InputError
        For a number of permutations that is not even, or below 4.

    Examples
    --------
    >>> import maskprism
    >>> from maskprism.datasets.scenes import draw_scene
    >>> prediction = maskprism.load("sample").predict(draw_scene(3).image)
    >>> found = shapley(prediction[0], permutations=4)
    >>> bool(abs(found.values.sum() - (found.full - found.none)) < 1e-6)
    True
    """
    if permutations < 4 or permutations % 2:
        raise InputError(f"permutations is {permutations}; expected an even number of at least 4, pairs of an order "
                         "and its reverse")  # fmt: skip
    game = subsets or SubsetMasks(instance, target=target, metric=metric, size=size)
    rng = np.random.default_rng(seed)
    pairs = np.empty((permutations // 2, len(game)))
    for pair in pairs:
        order = rng.permutation(len(game))
        pair[order] = np.diff(game.growing(order))
        pair[order[::-1]] += np.diff(game.growing(order[::-1]))
    pairs /= 2
    return ShapleyValues(
        values=pairs.mean(axis=0),
        standard_errors=pairs.std(axis=0, ddof=1) / np.sqrt(len(pairs)),
        full=game.full,
        none=game.none,
        metric=game.metric,
        permutations=permutations,
        seed=seed,
    )
