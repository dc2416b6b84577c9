"""Ground truth for the photographs of a gallery, from a data set that lists them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maskprism.errors import InputError
from maskprism.views.server.records import Truth

if TYPE_CHECKING:
    from maskprism.datasets import Sample

SPLITS = ("val", "test", "train")


class DatasetLabels:
    """The labels of a data set by the place of the photograph on disk; see `open_labels`."""

    def __init__(self, samples: Mapping[str, Sample]) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __call__(self, path: Path, size_hw: tuple[int, int]) -> Truth | None:
        """The labelled masks of a photograph; None if the data set does not list it. Raises LabelError."""
        sample = self._samples.get(os.path.realpath(path))
        if sample is None:
            return None
        truth = sample.truth(size_hw)
        counted = np.flatnonzero(~truth.crowd & ~truth.box_only)  # a crowd is nobody's mask, and a box is none
        masks = truth.masks("image")
        return Truth([int(truth.classes[index]) for index in counted], [masks[index] for index in counted])


def open_labels(
    data: str | os.PathLike[str], folder: str | os.PathLike[str], names: Mapping[int, str], split: str | None = None
) -> DatasetLabels:
    """The labels that a data set has for the photographs of a folder; of all its splits unless one is given.

    names: those of the model; classes of the data set are matched to it by name.
    Raises InputError for a description that cannot be read, or that lists none of the photographs.
    """
    from maskprism.datasets import open_dataset

    datasets = [open_dataset(data, split)]
    if split is None and datasets[0].split is not None:
        for other in SPLITS:
            if other != datasets[0].split:
                try:
                    datasets.append(open_dataset(data, other))
                except InputError:  # a split that the data set does not have, or whose photographs are elsewhere
                    continue
    root = os.path.realpath(folder)
    samples: dict[str, Sample] = {}
    for dataset in datasets:
        for sample in dataset.for_model(names):
            if isinstance(sample.image.image, Path):
                samples.setdefault(os.path.realpath(sample.image.image), sample)
    inside = {path: sample for path, sample in samples.items() if Path(path).is_relative_to(root)}
    if not inside:
        raise InputError(
            f"{data}: lists {len(samples)} photographs, and none of them is in {folder}; expected a data set of "
            "the photographs that are shown"
        )
    return DatasetLabels(inside)
