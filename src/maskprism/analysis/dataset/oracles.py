"""What masks cost and what detection costs: mask AP if the one, the other or both were perfect, over both orders.

| | masks as drawn | masks perfect |
|---|---|---|
| detection unchanged | AP | every instance that a box finds has its ground-truth mask |
| detection perfect | every ground-truth instance is detected once, see `with_perfect_detection` | 1 |

Which of the two costs more depends on which is made perfect first. So each cost is the mean over both orders, its
Shapley value, and both add up to 1 - AP.

References
----------
Shapley, "A Value for n-Person Games", Contributions to the Theory of Games 2, 1953.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float, Float64, Int64

    from maskprism.analysis.truth.overlaps import Overlaps


def costs(
    now: Float[np.ndarray, " R"], perfect_masks: Float[np.ndarray, " R"], perfect_detection: Float[np.ndarray, " R"]
) -> tuple[Float[np.ndarray, " R"], Float[np.ndarray, " R"]]:
    """Return what masks and what detection cost, from AP as measured and with one of them perfect.

    Parameters
    ----------
    now, perfect_masks, perfect_detection
        AP, 0 to 1; with both perfect it is 1.

    Returns
    -------
    tuple of arrays
        The costs of masks and of detection, each the mean of its gain when it is made perfect first and second. They
        add up to 1 - `now`, and differ by `perfect_masks` - `perfect_detection`.
    """
    masks = ((perfect_masks - now) + (1 - perfect_detection)) / 2
    detection = ((perfect_detection - now) + (1 - perfect_masks)) / 2
    return masks, detection


def with_perfect_detection(images: Sequence[Overlaps], drawn: Sequence[Float[np.ndarray, " G"]]) -> list[Overlaps]:
    """Return the images with perfect detection and the masks that the model draws.

    Every ground-truth instance is detected once, with its class, and nothing else is detected. Its mask is the one that
    was drawn for it, cropped by the ground-truth box. The score is the IoU of that mask: at every IoU threshold the
    masks that are right come first.

    Parameters
    ----------
    images
        What is there; detections are not looked at.
    drawn
        Per image and ground-truth instance the IoU of the mask that was drawn for it, cropped by the ground-truth box;
        NaN for one that was missed.

    Notes
    -----
    The mask of a missed instance is unknown. It counts as drawn as well as that of the found instance that is most
    like it: of its class, or of any where none of the class was found, and of those the nearest in area (ratio). Where
    nothing was found at all, missed instances have the IoU 0.
    """
    real = [~image.crowd for image in images]
    classes = _joined(image.true_classes[own] for image, own in zip(images, real, strict=True)).astype(np.int64)
    areas = _joined(
        np.ones(own.sum()) if image.true_areas is None else image.true_areas[own]
        for image, own in zip(images, real, strict=True)
    )
    ious = _imputed(_joined(one[own] for one, own in zip(drawn, real, strict=True)), classes, areas)
    ends = np.cumsum([own.sum() for own in real])
    return [_detected(image, part) for image, part in zip(images, np.split(ious, ends[:-1]), strict=True)]


def _detected(image: Overlaps, ious: Float64[np.ndarray, " D"]) -> Overlaps:
    objects = np.flatnonzero(~image.crowd)
    iou = np.zeros((len(objects), len(image.true_classes)))
    iou[np.arange(len(objects)), objects] = ious
    return replace(
        image,
        scores=ious,
        classes=image.true_classes[objects],
        iou=iou,
        areas=None if image.true_areas is None else image.true_areas[objects],
    )


def _imputed(
    ious: Float64[np.ndarray, " N"], classes: Int64[np.ndarray, " N"], areas: Float64[np.ndarray, " N"]
) -> Float64[np.ndarray, " N"]:
    """Return the IoUs, those that are NaN taken from the most alike instance that has one."""
    found = np.flatnonzero(~np.isnan(ious))
    if not len(found):
        return np.zeros(len(ious))
    filled = ious.copy()
    size = np.log(np.maximum(areas, 1.0))
    for class_id in np.unique(classes[np.isnan(ious)]):
        like = found[classes[found] == class_id]
        like = like if len(like) else found
        like = like[np.argsort(size[like], kind="stable")]
        missed = np.flatnonzero(np.isnan(ious) & (classes == class_id))
        after = np.clip(np.searchsorted(size[like], size[missed]), 1, max(len(like) - 1, 1))
        before, after = like[after - 1], like[np.minimum(after, len(like) - 1)]
        nearer = np.abs(size[before] - size[missed]) <= np.abs(size[after] - size[missed])
        filled[missed] = ious[np.where(nearer, before, after)]
    return filled


def _joined(parts: Iterable[np.ndarray]) -> Float64[np.ndarray, " N"]:
    return np.concatenate([np.zeros(0), *parts])
