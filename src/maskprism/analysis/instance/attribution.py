"""All that says which prototypes the mask of one instance needs, computed together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from maskprism.analysis.instance.coefficient_sensitivity import Sensitivity, sensitivity
from maskprism.analysis.instance.shapley_values import ShapleyValues, shapley
from maskprism.analysis.instance.subset_masks import SubsetMasks
from maskprism.analysis.instance.sufficient_sets import (
    PATHS,
    Faithfulness,
    Path,
    SmallestSet,
    Sufficiency,
    faithfulness,
    knock_out,
    smallest_set,
    sufficiency,
)

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Bool, Float64

    from maskprism.analysis.instance.subset_masks import Metric
    from maskprism.core.geometry import Size
    from maskprism.core.prediction import Instance


@dataclass(frozen=True, eq=False)
class Attribution:
    """Knock-outs, sufficient sets, insertion and deletion, Shapley values and sensitivities of one instance.

    Attributes
    ----------
    against
        What the scores are against, "the full mask" or "the ground truth".
    """

    knock_out: Float64[np.ndarray, " K"]
    paths: Mapping[Path, Sufficiency]
    smallest: SmallestSet
    faithfulness: Faithfulness
    shapley: ShapleyValues
    sensitivity: Sensitivity
    against: str


def explain(
    instance: Instance,
    *,
    target: Bool[np.ndarray, "H W"] | None = None,
    permutations: int = 256,
    seed: int = 0,
    metric: Metric = "iou",
    size: Size | None = None,
) -> Attribution:
    """Find out which prototypes the mask of an instance needs, in all ways that there are.

    Parameters
    ----------
    instance
        One of a prediction: `prediction[0]`.
    target
        A mask that scores are against, such as the ground truth. Default: the full mask.
    permutations
        How many random orders the Shapley values are averaged over.
    seed
        Of these orders, and of the random sets of prototypes.
    metric
        What the Shapley values sum to: "iou" or "dice".
    size
        The frame in which masks are measured: "grid", "canvas" (letterboxed input) or "image". Default: that of the
        mask post-processing rule.

    Returns
    -------
    Attribution
        `maskprism.roles` and `maskprism.pixel_query` answer further questions about the instance.

    Raises
    ------
    InputError
        For a target of another size, or an argument out of range.

    Examples
    --------
    >>> import maskprism
    >>> from maskprism.datasets.scenes import draw_scene
    >>> prediction = maskprism.load("sample").predict(draw_scene(3).image)
    >>> attribution = maskprism.explain(prediction[0])
    >>> attribution.knock_out.shape  # the IoU with the mask that is left without each prototype
    (32,)
    >>> len(attribution.smallest.members) < 32  # so few prototypes draw nearly the same mask
    True
    """
    game = SubsetMasks(instance, target=target, size=size)
    shared = game if metric == "iou" else SubsetMasks(instance, target=target, metric=metric, size=size)
    return Attribution(
        knock_out=knock_out(instance, subsets=game),
        paths={by: sufficiency(instance, by, subsets=game) for by in PATHS},
        smallest=smallest_set(instance, subsets=game),
        faithfulness=faithfulness(instance, seed=seed, subsets=game),
        shapley=shapley(instance, permutations=permutations, seed=seed, subsets=shared),
        sensitivity=sensitivity(instance, target=target, window=game.window),
        against="the full mask" if target is None else "the ground truth",
    )
