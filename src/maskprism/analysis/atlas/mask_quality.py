"""How good the mask of every instance is, where the table has prototypes and there is ground truth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism.analysis.atlas.points import QUALITIES, Points
from maskprism.analysis.truth.error_budget import budgets
from maskprism.datasets.visit import Failure, OnProgress
from maskprism.errors import MaskprismError
from maskprism.tables.instance_rows import LOSSES

if TYPE_CHECKING:
    from maskprism.analysis.truth.labels import DatasetLabels
    from maskprism.core.prediction import Prediction


class Judged(NamedTuple):
    """Points with "iou" and the losses among their numbers, NaN for what found nothing; and images that failed."""

    points: Points
    failures: list[Failure]


def judged(
    points: Points,
    predictions: Mapping[str, Prediction],
    labels: DatasetLabels,
    images: Path,
    *,
    on_progress: OnProgress = lambda done, total, failure: None,
) -> Judged:
    """Return the error budget of every instance that found a ground-truth instance; see `error_budget.budgets`.

    Parameters
    ----------
    predictions
        By the names of images, such as `StoredPredictions`.
    images
        The folder that names start from.
    """
    of_image = dict(zip(points.image_names, range(len(points.image_names)), strict=True))
    order = np.lexsort((points.instances, points.images))
    starts = np.searchsorted(points.images[order], np.arange(len(points.image_names) + 1))
    found = {name: np.full(len(points), np.nan, dtype=np.float32) for name in ("iou", *LOSSES)}
    failures: list[Failure] = []
    names = [name for name in points.image_names if name in predictions]
    for done, name in enumerate(names):
        on_progress(done, len(names), None)
        try:
            prediction = predictions[name]
            truth = labels.ground_truth(images / name, prediction.image_size)
            if truth is None:
                continue
            place = of_image[name]
            rows = order[starts[place] : starts[place + 1]]
            point_of = dict(zip(points.instances[rows].tolist(), rows.tolist(), strict=True))
            for budget in budgets(prediction, truth, name):
                if (point := point_of.get(budget.instance)) is not None:  # not if its coefficients were not finite
                    for column, values in found.items():
                        values[point] = getattr(budget, column)
        except MaskprismError as error:
            failures.append(Failure(name, str(error)))
    on_progress(len(names), len(names), None)
    numbers = {**points.numbers, **found}
    return Judged(replace(points, numbers={name: numbers[name] for name in QUALITIES if name in numbers}), failures)
