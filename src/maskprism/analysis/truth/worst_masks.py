"""The instances of an error budget that went wrong most, with their images and every mask of theirs again."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from maskprism.analysis.truth.counterfactual_masks import counterfactuals_of
from maskprism.analysis.truth.matching import Matches
from maskprism.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import UInt8

    from maskprism.analysis.truth.counterfactual_masks import Counterfactuals
    from maskprism.analysis.truth.error_budget import ErrorBudget, InstanceBudget
    from maskprism.datasets import Dataset
    from maskprism.models import Model


class WorstCase(NamedTuple):
    """One instance of an error budget: its row, its image (BGR), and its masks on the canvas."""

    row: InstanceBudget
    image: UInt8[np.ndarray, "H W 3"]
    masks: Counterfactuals


def worst_cases(
    dataset: Dataset, model: Model, budget: ErrorBudget, *, count: int = 12, by: str = "iou"
) -> list[WorstCase]:
    """Return the worst instances of a budget, the worst first; see `ErrorBudget.worst` for `by`.

    Parameters
    ----------
    dataset, model
        Those that the budget was measured with; its images are read and predicted again.

    Raises
    ------
    InputError
        Where an image of the budget is not in the data set.
    """
    wanted = budget.worst(count, by)
    samples = {sample.name: sample for sample in dataset}
    found: dict[tuple[str, int, int], WorstCase] = {}
    for name in dict.fromkeys(row.image for row in wanted):
        if name not in samples:
            raise InputError(f"{dataset.path}: has no image {name!r}; use the data set of the budget")
        image, truth = samples[name].read()
        rows = {(row.instance, row.object): row for row in wanted if row.image == name}
        matches = Matches.given(*zip(*((*pair, row.box_iou) for pair, row in rows.items()), strict=True))
        for pair, masks in counterfactuals_of(model.predict(image), truth, matches):
            row = rows[pair.instance, pair.truth]
            found[name, pair.instance, pair.truth] = WorstCase(row, image, masks)
    return [found[row.image, row.instance, row.object] for row in wanted]
