"""Ground truth for the images of a view, from a data set that lists them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from maskprism.analysis.truth.matching import Matches, match_masks
from maskprism.errors import InputError

if TYPE_CHECKING:
    from maskprism.datasets import GroundTruth, Sample
    from maskprism.prediction import Prediction

SPLITS = ("val", "test", "train")


class DatasetLabels:
    """The labels of a data set by the place of the image on disk; see `open_labels`."""

    def __init__(
        self,
        samples: Mapping[str, Sample],
        names: Mapping[int, str],
        notice: str = "",
        classes: Collection[int] | None = None,
    ) -> None:
        self._samples = samples
        self.classes = classes
        """The classes that count: those that the data set labels and the model knows; all if None."""
        self.names, self.notice = names, notice
        """Class names, and what a reader must know of how they became those of the model."""

    def __len__(self) -> int:
        return len(self._samples)

    def ground_truth(self, path: Path, size_hw: tuple[int, int]) -> GroundTruth | None:
        """What is labelled in an image of (height, width); None if the data set does not list it. Raises LabelError."""
        sample = self._samples.get(os.path.realpath(path))
        return None if sample is None else sample.truth(size_hw)

    def match(self, prediction: Prediction, path: Path) -> tuple[GroundTruth, Matches] | None:
        """What is labelled in an image and who found it; None if the data set does not list it. Raises LabelError."""
        truth = self.ground_truth(path, prediction.image_size)
        return None if truth is None else (truth, match_masks(prediction, truth, classes=self.classes))


def open_labels(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | Collection[Path],
    names: Mapping[int, str],
    split: str | None = None,
    kept: Collection[int] | None = None,
) -> DatasetLabels:
    """The labels that a data set has for images; of all its splits unless one is given.

    images: a folder that holds them, or the files. names: those of the model; classes of the data set are matched to it
    by name, or by index where one side has none (told in `notice`; the classes are then called `names`).
    kept: the classes that the model is told to keep, `Model.keep.classes`; others do not count.
    Raises InputError for a description that cannot be read, or that lists none of the images.
    """
    from maskprism.datasets import open_dataset

    datasets = [open_dataset(data, split)]
    if split is None and datasets[0].split is not None:
        for other in SPLITS:
            if other != datasets[0].split:
                try:
                    datasets.append(open_dataset(data, other))
                except InputError:  # a split that the data set does not have, or whose images are elsewhere
                    continue
    samples: dict[str, Sample] = {}
    datasets = [dataset.for_model(names) for dataset in datasets]
    for dataset in datasets:
        for sample in dataset:
            if isinstance(sample.image.image, Path):
                samples.setdefault(os.path.realpath(sample.image.image), sample)
    if isinstance(images, str | os.PathLike):
        root, where = os.path.realpath(images), f"in {images}"
        inside = {path: sample for path, sample in samples.items() if Path(path).is_relative_to(root)}
    else:
        wanted, where = {os.path.realpath(path) for path in images}, "among those that are shown"
        inside = {path: sample for path, sample in samples.items() if path in wanted}
    if not inside:
        raise InputError(
            f"{data}: lists {len(samples)} images, and none of them is {where}; expected a data set of the images that "
            "are shown"
        )
    labelled = {class_id for dataset in datasets for class_id in dataset.class_ids.values()}
    known = frozenset(i for i in labelled if (i in names or not names) and (kept is None or i in kept))
    return DatasetLabels(inside, datasets[0].names, datasets[0].notice, known)
