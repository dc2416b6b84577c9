"""What does each part of the model cost a mask, measured against its ground truth?

| name | answers |
|---|---|
| `match`, `match_masks` | which are TP, FP and FN? the rule of every tool |
| `budgets`, `ErrorBudget` | what do the grid, the box, the prototypes and the coefficients cost? |
| `worst_cases` | which instances went wrong most, and what do their masks look like? |
| `counterfactuals_of` | what would the mask be if a part of the model were perfect? |
| `best_weights`, `exact_weights` | what is the best that these prototypes can draw? |
| `boundary_agreement` | do two masks differ along the outline or within? |
| `ranking` | does the score know how good the mask is? |
| `Gains`, `interval` | what does a change of a model gain, and may it be chance? |
| `mask_overlaps`, `Region` | how much does everything found overlap everything that is there? |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskprism._common.lazy import lazy_submodules
from maskprism.analysis.intervals import interval
from maskprism.analysis.truth.best_coefficients import best_weights
from maskprism.analysis.truth.boundary import boundary_agreement
from maskprism.analysis.truth.counterfactual_masks import Counterfactuals, counterfactuals_of
from maskprism.analysis.truth.error_budget import ErrorBudget, InstanceBudget, budgets
from maskprism.analysis.truth.exact_coefficients import exact_weights
from maskprism.analysis.truth.gains import Gains
from maskprism.analysis.truth.matching import Matches, match, match_masks
from maskprism.analysis.truth.overlaps import Overlaps, Region, mask_overlaps
from maskprism.analysis.truth.score_ranking import Ranking, ranking
from maskprism.analysis.truth.worst_masks import WorstCase, worst_cases

__all__ = [
    "Counterfactuals",
    "ErrorBudget",
    "Gains",
    "InstanceBudget",
    "Matches",
    "Overlaps",
    "Ranking",
    "Region",
    "WorstCase",
    "best_weights",
    "boundary_agreement",
    "budgets",
    "counterfactuals_of",
    "exact_weights",
    "interval",
    "mask_overlaps",
    "match",
    "match_masks",
    "ranking",
    "worst_cases",
]

if not TYPE_CHECKING:  # type checkers shall know the names that are here
    __getattr__, __dir__ = lazy_submodules(__name__)
