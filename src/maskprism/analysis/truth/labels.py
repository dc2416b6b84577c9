"""Ground truth for the images of a view, from a data set that lists them; and which instance found what."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.truth.error_budget import PARTS, Part, budgets
from maskprism.analysis.truth.matching import Matches
from maskprism.analysis.truth.overlaps import Region, mask_overlaps
from maskprism.datasets.truth import GroundTruth
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool

    from maskprism.datasets import Sample
    from maskprism.datasets.coco import Crowds
    from maskprism.prediction import Prediction

SPLITS = ("val", "test", "train")


@dataclass(frozen=True, eq=False)
class Truth:
    """The labelled instances of one image: class ids, and masks of the image's size."""

    classes: Sequence[int]
    masks: Sequence[Bool[np.ndarray, "H W"]]


@dataclass(frozen=True, eq=False)
class Match:
    """Per instance the mask of its labelled instance or None, and their IoU (0 for None); what is left over.

    missed: the classes of the labelled instances that nothing found; missed_masks: their masks.
    """

    masks: list[Bool[np.ndarray, "H W"] | None]
    ious: list[float]
    missed: list[int]
    missed_masks: list[Bool[np.ndarray, "H W"]]

    @property
    def missed_instances(self) -> list[tuple[int, Bool[np.ndarray, "H W"]]]:
        """Class and mask of each labelled instance that nothing found."""
        return list(zip(self.missed, self.missed_masks, strict=True))


def match_masks(prediction: Prediction, truth: Truth) -> Match:
    """Which labelled instance each predicted one found: the most confident one chooses first, among those of its class.

    It takes the one that its mask overlaps most (in IoU, at the image's size), if it overlaps any.
    """
    iou = mask_overlaps(
        prediction, [Region.of(mask) for mask in truth.masks], np.asarray(truth.classes, dtype=np.int64), "image"
    ).iou
    iou[prediction.classes[:, None] != np.asarray(truth.classes, dtype=np.int64)] = 0
    masks: list[Bool[np.ndarray, "H W"] | None] = [None] * len(prediction)
    ious = [0.0] * len(prediction)
    left = set(range(len(truth.masks)))
    for index in np.argsort(-prediction.scores, kind="stable"):
        best = max(sorted(left), key=lambda candidate: iou[index, candidate], default=None)
        if best is not None and iou[index, best] > 0:
            masks[index], ious[index] = truth.masks[best], float(iou[index, best])
            left.remove(best)
    missed = sorted(left)
    return Match(masks, ious, [truth.classes[one] for one in missed], [truth.masks[one] for one in missed])


def losses(prediction: Prediction, match: Match) -> list[dict[Part, float] | None]:
    """Per instance what its mask loses in each part, None for one that found nothing; see `error_budget.budgets`."""
    found = [index for index, mask in enumerate(match.masks) if mask is not None]
    masks = [mask for mask in match.masks if mask is not None]
    truth = GroundTruth(
        classes=prediction.classes[found].astype(np.int64),
        segments=tuple(masks),
        boxes=np.array([_box_of(mask) for mask in masks], dtype=np.float32).reshape(-1, 4),
        crowd=np.zeros(len(masks), dtype=bool),
        image_hw=prediction.image_size,
        names=prediction.names,
    )
    pairs = Matches.given(found, range(len(found)), np.zeros(len(found)))
    rows: list[dict[Part, float] | None] = [None] * len(prediction)
    for row in budgets(prediction, truth, matches=pairs):
        rows[row.instance] = {part: getattr(row, part) for part in PARTS}
    return rows


def _box_of(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int, int, int]:
    """x1, y1, x2, y2 around the pixels of a mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class DatasetLabels:
    """The labels of a data set by the place of the image on disk; see `open_labels`."""

    def __init__(
        self,
        samples: Mapping[str, Sample],
        names: Mapping[int, str],
        notices: Sequence[str] = (),
        by_index: bool = False,
    ) -> None:
        self._samples = samples
        self.names, self.notices, self.by_index = names, tuple(notices), by_index
        """Class names, what a reader must know of labels, and whether classes were matched by their numbers."""

    def __len__(self) -> int:
        return len(self._samples)

    def ground_truth(self, path: Path, size_hw: tuple[int, int]) -> GroundTruth | None:
        """What is labelled in an image of (height, width); None if the data set does not list it. Raises LabelError."""
        sample = self._samples.get(os.path.realpath(path))
        return None if sample is None else sample.truth(size_hw)

    def __call__(self, path: Path, size_hw: tuple[int, int]) -> Truth | None:
        """The labelled masks of an image; None if the data set does not list it. Raises LabelError."""
        truth = self.ground_truth(path, size_hw)
        if truth is None:
            return None
        counted = np.flatnonzero(~truth.crowd & ~truth.box_only)  # a crowd is nobody's mask, and a box is none
        masks = truth.masks("image")
        return Truth([int(truth.classes[index]) for index in counted], [masks[index] for index in counted])


def open_labels(
    data: str | os.PathLike[str],
    images: str | os.PathLike[str] | Collection[Path],
    names: Mapping[int, str],
    split: str | None = None,
    *,
    crowds: Crowds = "left-out",
) -> DatasetLabels:
    """The labels that a data set has for images; of all its splits unless one is given.

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
    return DatasetLabels(inside, datasets[0].names, tuple(notices), datasets[0].by_index)
