"""Ground truth for the images of a view, from a data set that lists them."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from maskprism.analysis.truth.matching import Matches, match_masks
from maskprism.errors import InputError

if TYPE_CHECKING:
    from maskprism.core.prediction import Prediction
    from maskprism.datasets import GroundTruth, Sample
    from maskprism.datasets.coco import Crowds

SPLITS = ("val", "test", "train")


class DatasetLabels:
    """The labels of a data set by the place of the image on disk; see `open_labels`."""

    def __init__(
        self,
        samples: Mapping[str, Sample],
        names: Mapping[int, str],
        notices: Sequence[str] = (),
        by_index: bool = False,
        classes: Collection[int] | None = None,
    ) -> None:
        self._samples = samples
        self.classes = classes
        """The classes that count: those that the data set labels and the model knows; all if None."""
        self.names, self.notices, self.by_index = names, tuple(notices), by_index
        """Class names, what a reader must know of labels, and whether classes were matched by their numbers."""

    def __len__(self) -> int:
        return len(self._samples)

    def ground_truth(self, path: Path, size_hw: tuple[int, int]) -> GroundTruth | None:
        """Return what is labelled in an image of (height, width); None if the data set does not list it.

        Raises
        ------
        LabelError
        """
        sample = self._samples.get(os.path.realpath(path))
        return None if sample is None else sample.truth(size_hw)

    def match(self, prediction: Prediction, path: Path) -> tuple[GroundTruth, Matches] | None:
        """Return what is labelled in an image and who found it; None if the data set does not list it.

        Raises
        ------
        LabelError
        """
        truth = self.ground_truth(path, prediction.image_size)
        return None if truth is None else (truth, match_masks(prediction, truth, classes=self.classes))


def open_labels(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | Collection[Path],
    names: Mapping[int, str],
    split: str | None = None,
    kept: Collection[int] | None = None,
    *,
    crowds: Crowds = "left-out",
) -> DatasetLabels:
    """Return the labels that a data set has for images; of all its splits unless one is given.

    Parameters
    ----------
    data
        A data.yaml of Ultralytics, or a COCO json. It may list images that are not shown, and not list some that are.
    images
        A folder that holds the images, or the files.
    names
        Class names of the model; see `Dataset.for_model`.
    split
        Split of a data.yaml.
    kept
        The classes that the model keeps, `Model.keep.classes`; others do not count. Default: all.
    crowds
        What becomes of masks that a COCO json marks as crowds.

    Returns
    -------
    DatasetLabels
        The labels by the path of the image. Where no path of the data set is that of an image, images with the same
        file name are taken for each other.

    Raises
    ------
    InputError
        For a description that cannot be read, or that lists none of the images.
    """
    from maskprism.datasets import open_dataset
    from maskprism.datasets.lookup import find_images

    folder, files = (Path(images), []) if isinstance(images, str | os.PathLike) else (None, list(images))
    further = [folder] if folder else list(dict.fromkeys(path.parent for path in files))
    datasets = [open_dataset(data, split, crowds=crowds, further=further)]
    if split is None and datasets[0].split is not None:
        for other in SPLITS:
            if other != datasets[0].split:
                try:
                    datasets.append(open_dataset(data, other, further=further))
                except InputError:  # a split that the data set does not have, or whose images are elsewhere
                    continue
    samples: dict[str, Sample] = {}
    datasets = [dataset.for_model(names) for dataset in datasets]
    for dataset in datasets:
        for sample in dataset:
            if isinstance(sample.image.image, Path):
                samples.setdefault(os.path.realpath(sample.image.image), sample)
    root = None if folder is None else os.path.realpath(folder)
    wanted = {os.path.realpath(path) for path in files}
    where = f"in {folder}" if folder else "among those that are shown"

    def is_shown(path: str) -> bool:
        return path in wanted if root is None else Path(path).is_relative_to(root)

    inside = {path: sample for path, sample in samples.items() if is_shown(path)}
    notices = dict.fromkeys(notice for dataset in datasets for notice in dataset.notices)
    if not inside:
        named = {os.path.realpath(path): samples[name] for name, path in find_images(samples, (), further).items()}
        inside = {path: sample for path, sample in named.items() if is_shown(path)}
        notices[
            f"the {len(inside)} images with labels are found by their file names: {data} lists others, elsewhere"
        ] = None
    if not inside:
        raise InputError(
            f"{data}: lists {len(samples)} images, and none of them is {where}; expected a data set of the images that "
            "are shown"
        )
    labelled = {class_id for dataset in datasets for class_id in dataset.class_ids.values()}
    known = frozenset(i for i in labelled if (i in names or not names) and (kept is None or i in kept))
    return DatasetLabels(inside, datasets[0].names, tuple(notices), datasets[0].by_index, known)
