"""TIDE: what kinds of errors cost average precision, and how much fixing each kind would give back.

Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors",
ECCV 2020. The fixing is that of the authors' own code; the kinds themselves are defined in `truth.matching`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.dataset.coco_ap import class_precision_at
from maskprism.analysis.truth.matching import ERROR_TYPES, FOUND_IOU, Errors, ErrorType, find_errors

if TYPE_CHECKING:
    from jaxtyping import Bool

    from maskprism.analysis.truth.overlaps import Overlaps


@dataclass(frozen=True)
class ErrorCost:
    """What the kinds of errors cost.

    Attributes
    ----------
    ap50
        Average precision at an IoU of 0.5.
    gain
        What ap50 would grow by if all errors of one kind were fixed, and no others; they do not add up.
    counts
        How many there are, detections or (missed) instances.
    false_positives, false_negatives
        The gain if none of these were left.
    """

    ap50: float
    gain: dict[ErrorType, float]
    counts: dict[ErrorType, int]
    false_positives: float
    false_negatives: float


def error_cost(images: Iterable[Overlaps]) -> ErrorCost:
    """Return what fixing each kind of error would give.

    Fixing means, for class and localisation errors, that the detection finds its instance, unless
    another one does already; for duplicates, background and both, that it is gone; and for missed
    instances, that they do not count.
    """
    images = list(images)
    errors = [find_errors(image) for image in images]
    together = list(zip(images, errors, strict=True))
    asked_for = class_precision_at(images, FOUND_IOU)
    ap50 = float(np.mean(list(asked_for.values()))) if asked_for else math.nan

    def gain(fixed: Iterable[Overlaps]) -> float:
        """Return a class without ground truth left is worth 0 while it is detected, as in the authors' code."""
        fixed = list(fixed)
        detected = {int(class_id) for image in fixed for class_id in image.classes}
        found = dict.fromkeys(detected & set(asked_for), 0.0) | class_precision_at(fixed, FOUND_IOU)
        return max(float(np.mean(list(found.values()))) - ap50, 0.0) if found else 0.0

    counts = {kind: sum(int(one.of(kind).sum()) for one in errors) for kind in ERROR_TYPES}
    counts["missed"] = sum(int(one.missed.sum()) for one in errors)
    return ErrorCost(
        ap50=ap50,
        gain={kind: gain(fix_errors(image, one, kind) for image, one in together) for kind in ERROR_TYPES},
        counts=counts,
        false_positives=gain(only(image, one.kinds < 0) for image, one in together),
        false_negatives=gain(without(image, ~image.crowd & ~_found(one)) for image, one in together),
    )


def fix_errors(image: Overlaps, errors: Errors, kind: ErrorType) -> Overlaps:
    """Return the image with all errors of one kind fixed."""
    if kind == "missed":
        return without(image, errors.missed)
    right = errors.of(kind) & errors.fixable
    classes, iou = image.classes.copy(), image.iou.copy()
    classes[right] = image.true_classes[errors.target[right]]
    iou[right] = 0
    iou[right, errors.target[right]] = 1
    return only(replace(image, classes=classes, iou=iou), ~errors.of(kind) | right)


def _found(errors: Errors) -> Bool[np.ndarray, " G"]:
    return np.isin(np.arange(len(errors.missed)), errors.matched)


def only(image: Overlaps, rows: Bool[np.ndarray, " N"]) -> Overlaps:
    """Return the image with these detections alone."""
    return replace(
        image,
        scores=image.scores[rows],
        classes=image.classes[rows],
        iou=image.iou[rows],
        areas=None if image.areas is None else image.areas[rows],
    )


def without(image: Overlaps, columns: Bool[np.ndarray, " G"]) -> Overlaps:
    """Return the image without these ground-truth instances."""
    left = ~columns
    return replace(
        image,
        true_classes=image.true_classes[left],
        iou=image.iou[:, left],
        true_areas=None if image.true_areas is None else image.true_areas[left],
        crowd=image.crowd[left],
    )
