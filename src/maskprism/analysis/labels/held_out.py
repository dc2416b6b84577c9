"""Has the model learned the labels that it judges? It agrees with labels that it was trained on, wrong ones too."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism.analysis.intervals import Interval, bootstrap, too_few
from maskprism.analysis.truth.matching import FOUND_IOU
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float64

    from maskprism.analysis.labels.study import MeasuredImage
    from maskprism.datasets import Dataset

SAMPLE = 100
"""Images of the other split that are compared with."""


class SplitComparison(NamedTuple):
    """How much better the labels of one split agree with a model than those of another.

    Attributes
    ----------
    judged, other
        Names of the splits.
    mask_iou
        Difference of the mean mask IoU with the best detection, judged minus other, with its interval over images.
    recall
        Difference of the share of labels that a detection overlaps by FOUND_IOU.
    """

    judged: str
    other: str
    mask_iou: Interval
    recall: Interval

    @property
    def remembered(self) -> bool | None:
        """Whether labels of `judged` surely agree better; None with too few images."""
        if np.isnan(self.mask_iou.low):
            return None
        return self.mask_iou.low > 0 or self.recall.low > 0


def compare_splits(
    judged: str, images: Sequence[MeasuredImage], other: str, others: Sequence[MeasuredImage]
) -> SplitComparison:
    """Compare how labels of two splits agree with one model.

    Parameters
    ----------
    judged, other
        Names of the splits.
    images, others
        Measured images of them; those without a label that can be judged do not count.
    """
    first, second = _by_image(images), _by_image(others)
    enough = not (too_few(len(first)) or too_few(len(second)))
    every, is_first = np.concatenate([first, second]), np.arange(len(first) + len(second)) < len(first)

    def difference(column: int) -> Interval:
        def statistic(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, " R"]:
            means = [(weights @ (every[:, column] * side)) / (weights @ (every[:, 2] * side)) for side in sides]
            return np.asarray(means[0] - means[1])

        sides = (is_first, ~is_first)
        return bootstrap(statistic, len(every), comparisons=2) if enough else Interval(np.nan, np.nan, np.nan)

    return SplitComparison(judged, other, difference(0), difference(1))


def _by_image(images: Sequence[MeasuredImage]) -> Float64[np.ndarray, "I 3"]:
    """Of each image the sum of IoUs, the number of labels found, and the number of labels."""
    ious = [[label.features["mask_iou"] for label in image.labels if not label.unjudged] for image in images]
    return np.array(
        [(sum(one), sum(iou >= FOUND_IOU for iou in one), len(one)) for one in ious if one], dtype=np.float64
    ).reshape(-1, 3)


def judged_by_folds(dataset: Dataset, folds: Sequence[Dataset]) -> list[list[int]]:
    """Return which images of a data set each fold's model judges.

    Parameters
    ----------
    dataset
        The images to judge.
    folds
        For each model the images that it was not trained on.

    Returns
    -------
    list
        For each fold positions in `dataset`.

    Raises
    ------
    InputError
        If an image is in two folds, or a fold has none of the images.
    """
    fold_of: dict[object, int] = {}
    for number, fold in enumerate(folds):
        for path in map(_resolved, fold.images.paths):
            if fold_of.setdefault(path, number) != number:
                raise InputError(
                    f"{path}: is held out by {folds[fold_of[path]].path} and {fold.path}; folds must not share images"
                )
    positions: list[list[int]] = [[] for _ in folds]
    for position, path in enumerate(map(_resolved, dataset.images.paths)):
        if path in fold_of:
            positions[fold_of[path]].append(position)
    for fold, own in zip(folds, positions, strict=True):
        if not own:
            raise InputError(
                f"{fold.path}: none of its {len(fold)} held-out images is one of the {len(dataset)} of {dataset.path} "
                f"(split {dataset.split}); give a data.yaml whose val split is part of these images, or another --split"
            )
    return positions


def shared_images(dataset: Dataset, other: Dataset) -> list[int]:
    """Return which images of a data set are in another one: the same file, or a file of the same bytes.

    Parameters
    ----------
    dataset, other
        Two splits. Images behind URIs are not compared.

    Returns
    -------
    list
        Their positions in `dataset`. Images that were resized or encoded anew are not recognised.
    """
    by_size: defaultdict[int, list[Path]] = defaultdict(list)
    for path in other.images.files:
        if path.is_file():
            by_size[path.stat().st_size].append(path)
    return [
        position
        for position, path in enumerate(dataset.images.paths)
        if isinstance(path, Path)
        and path.is_file()
        and any(path.samefile(twin) or filecmp.cmp(path, twin, shallow=False) for twin in by_size[path.stat().st_size])
    ]


def _resolved(path: object) -> object:
    return path.resolve() if isinstance(path, Path) else path
