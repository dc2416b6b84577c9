"""Has the model learned the labels that it judges? It agrees with labels that it was trained on, wrong ones too."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from maskprism._common.extras import installed
from maskprism._common.parallel import in_order, processors
from maskprism.analysis.intervals import Interval, bootstrap, too_few
from maskprism.analysis.truth.matching import FOUND_IOU
from maskprism.errors import InputError
from maskprism.io.sources import spread

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

    from maskprism.analysis.labels.study import MeasuredImage
    from maskprism.datasets import Dataset

SAMPLE = 100
"""Images of the other split that are compared with."""


COMPARED_IMAGES = 5000
"""Images of each split that are compared as pictures, evenly spread."""
_NEAR_BITS = 8
_NEAR_LEVELS = 12
"""Pictures are nearly the same if so many of 64 bits differ at most, and thumbnails less their mean by so many levels.
"""


class SharedImage(NamedTuple):
    """An image that is in two splits: its positions in both, and how it is known."""

    position: int
    other: int
    how: Literal["the same file", "nearly the same picture"]

    def swapped(self) -> SharedImage:
        """Return the same pair, seen from the other split."""
        return self._replace(position=self.other, other=self.position)


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


def shared_images(dataset: Dataset, other: Dataset) -> list[SharedImage]:
    """Return which images of a data set are in another one, too: as the same file, a copy, or nearly the same picture.

    Parameters
    ----------
    dataset, other
        Two splits. Images behind URIs are not compared; of large splits `COMPARED_IMAGES` are compared as pictures.

    Returns
    -------
    list
        In the order of `dataset`, each image once. Pictures are compared, if ImageHash is installed, by a perceptual
        hash and by their colours: those that were resized, encoded anew or made a little brighter are recognised, those
        that were turned, mirrored or cut are not.
    """
    by_size: defaultdict[int, list[tuple[int, Path]]] = defaultdict(list)
    for place, path in enumerate(other.images.paths):
        if isinstance(path, Path) and path.is_file():
            by_size[path.stat().st_size].append((place, path))
    shared: dict[int, SharedImage] = {}
    for place, path in enumerate(dataset.images.paths):
        if isinstance(path, Path) and path.is_file():
            twins = by_size[path.stat().st_size]
            same = [n for n, other_path in twins if path.samefile(other_path)]
            copies = (n for n, other_path in twins if filecmp.cmp(path, other_path, shallow=False))
            twin = same[0] if same else next(copies, None)
            if twin is not None:
                shared[place] = SharedImage(place, twin, "the same file")
    if pictures_compared():
        for place, twin in _near_pairs(_fingerprints(dataset), _fingerprints(other)):
            shared.setdefault(place, SharedImage(place, twin, "nearly the same picture"))
    return [shared[place] for place in sorted(shared)]


def pictures_compared() -> bool:
    """Return whether ImageHash is installed, with which nearly identical pictures are recognised."""
    return installed("imagehash")


class _Fingerprints(NamedTuple):
    """Of images that can be read: positions, perceptual hashes of 64 bits as +1 and -1, and thumbnails."""

    places: list[int]
    hashes: Float32[np.ndarray, "N 64"]
    thumbnails: Float32[np.ndarray, "N T"]


def _fingerprints(dataset: Dataset) -> _Fingerprints:
    places = spread(len(dataset), COMPARED_IMAGES)
    paths = [dataset.images.paths[place] for place in places]
    with_prints = [
        (place, *pair)
        for place, pair in zip(places, in_order(_fingerprint, iter(paths), processors()), strict=True)
        if pair is not None
    ]
    return _Fingerprints(
        [place for place, *_ in with_prints],
        np.array([bits for _, bits, _ in with_prints], dtype=np.float32).reshape(-1, 64),
        np.array([small for *_, small in with_prints], dtype=np.float32).reshape(len(with_prints), -1),
    )


def _fingerprint(path: object) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the hash and the thumbnail of an image; None where it cannot be read."""
    import imagehash
    from PIL import Image, ImageOps

    if not isinstance(path, Path):
        return None
    try:
        with Image.open(path) as opened:
            opened.draft("RGB", (128, 128))  # a JPEG is decoded at an eighth of its size
            image = ImageOps.exif_transpose(opened).convert("RGB")
            bits = np.where(imagehash.phash(image).hash.ravel(), 1, -1)
            small = np.asarray(image.resize((16, 16), Image.Resampling.BOX), dtype=np.float32)
            return bits, (small - small.mean()).ravel()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # the loop over images says what is wrong
        return None


def _near_pairs(first: _Fingerprints, second: _Fingerprints) -> Iterator[tuple[int, int]]:
    """Yield positions of nearly identical pictures: for each of the first the nearest of the second."""
    for place, bits, thumbnail in zip(*first, strict=True):
        near = np.flatnonzero(second.hashes @ bits >= 64 - 2 * _NEAR_BITS)
        if len(near):
            apart = np.abs(second.thumbnails[near] - thumbnail).mean(axis=1)
            if apart.min() <= _NEAR_LEVELS:
                yield place, second.places[near[apart.argmin()]]


def _resolved(path: object) -> object:
    return path.resolve() if isinstance(path, Path) else path
