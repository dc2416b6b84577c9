"""Why does this mask look like this? What each prototype does for the mask of one instance.

| name | answers |
|---|---|
| `roles` | does a prototype build the mask, carve the background away, sharpen the edge, or work against it? |
| `pixel_query` | which prototypes decide a pixel, and what would flip it? |
| `region_blame`, `truth_blame` | which act in a region, and which cause false positives and negatives? |
| `knock_out`, `sufficiency`, `faithfulness` | what does each add, how many of an order suffice, does it hold? |
| `smallest_set` | how few prototypes suffice, as far as it can be proven? |
| `shapley` | how much of a logit or of the mask's quality is due to each? |
| `sensitivity` | what would a small change of a coefficient do? |
| `explain`, `Attribution` | all of it at once |
| `Questions`, `asked_about` | the questions about an instance, and which instance? |

`mask_window` holds the prototypes where the mask is decided, `subset_masks` the masks that some of them draw.
"""

from __future__ import annotations

from maskprism.analysis.instance.attribution import Attribution, explain
from maskprism.analysis.instance.coefficient_sensitivity import Sensitivity, sensitivity
from maskprism.analysis.instance.mask_window import MaskWindow
from maskprism.analysis.instance.prototype_roles import Roles, roles
from maskprism.analysis.instance.questions import Questions, asked_about
from maskprism.analysis.instance.regions import Blame, PixelQuery, pixel_query, region_blame, truth_blame
from maskprism.analysis.instance.shapley_values import LogitShares, ShapleyValues, shapley, shapley_logits
from maskprism.analysis.instance.subset_masks import SubsetMasks
from maskprism.analysis.instance.sufficient_sets import (
    Faithfulness,
    SmallestSet,
    Sufficiency,
    faithfulness,
    knock_out,
    smallest_set,
    sufficiency,
)

__all__ = [
    "Attribution",
    "Blame",
    "Faithfulness",
    "LogitShares",
    "MaskWindow",
    "PixelQuery",
    "Questions",
    "Roles",
    "Sensitivity",
    "ShapleyValues",
    "SmallestSet",
    "SubsetMasks",
    "Sufficiency",
    "asked_about",
    "explain",
    "faithfulness",
    "knock_out",
    "pixel_query",
    "region_blame",
    "roles",
    "sensitivity",
    "shapley",
    "shapley_logits",
    "smallest_set",
    "sufficiency",
    "truth_blame",
]
