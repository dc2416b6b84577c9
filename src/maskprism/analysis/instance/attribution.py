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

    against: what the scores are against, "the full mask" or "the ground truth".
    """

    knock_out: Float64[np.ndarray, " K"]
    paths: Mapping[Path, Sufficiency]
    smallest: SmallestSet
    faithfulness: Faithfulness
    shapley: ShapleyValues
    sensitivity: Sensitivity
    against: str

    @classmethod
    def of(
        cls,
        instance: Instance,
        *,
        target: Bool[np.ndarray, "H W"] | None = None,
        permutations: int = 256,
        seed: int = 0,
        metric: Metric = "iou",
        size: Size | None = None,
    ) -> Attribution:
        """Computed against the full mask, or a target such as ground truth; Shapley values in the metric given."""
        game = SubsetMasks(instance, target=target, size=size)
        shared = game if metric == "iou" else SubsetMasks(instance, target=target, metric=metric, size=size)
        return cls(
            knock_out=knock_out(instance, subsets=game),
            paths={by: sufficiency(instance, by, subsets=game) for by in PATHS},
            smallest=smallest_set(instance, subsets=game),
            faithfulness=faithfulness(instance, seed=seed, subsets=game),
            shapley=shapley(instance, permutations=permutations, seed=seed, subsets=shared),
            sensitivity=sensitivity(instance, target=target, window=game.window),
            against="the full mask" if target is None else "the ground truth",
        )
