"""TIDE: what kinds of errors cost average precision, and how much mending each kind would give back.

Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for Identifying Object Detection Errors",
ECCV 2020. The order of the tests and the mending are those of the authors' own code.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from maskprism.analysis.dataset.average_precision import class_precision_at
from maskprism.analysis.truth.overlaps import claims

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64

    from maskprism.analysis.truth.overlaps import Overlaps

ErrorType = Literal["class", "localisation", "both", "duplicate", "background", "missed"]
ERROR_TYPES: tuple[ErrorType, ...] = get_args(ErrorType)
MEANING: dict[ErrorType, str] = {
    "class": "the mask is right, the class is wrong",
    "localisation": "the class is right, the mask is off",
    "both": "the class is wrong and the mask is off",
    "duplicate": "the instance was found already, with a higher score",
    "background": "there is no such instance",
    "missed": "no detection comes near the instance",
}
FOREGROUND, BACKGROUND = 0.5, 0.1
"""From this IoU on a detection is right; below this one it touches nothing."""


@dataclass(frozen=True, eq=False)
class Errors:
    """The errors of one image.

    matched: the ground-truth instance that a detection found, or -1.
    kinds: index into ERROR_TYPES per detection, or -1 for one that is right, or lies in a crowd.
    target: the ground-truth instance that a class or localisation error means, or -1.
    mends: whether correcting that error would find a ground-truth instance that is found by no other detection.
    missed: ground-truth instances that no detection finds and no mended one would.
    """

    matched: Int64[np.ndarray, " N"]
    kinds: Int64[np.ndarray, " N"]
    target: Int64[np.ndarray, " N"]
    mends: Bool[np.ndarray, " N"]
    missed: Bool[np.ndarray, " G"]

    def of(self, kind: ErrorType) -> Bool[np.ndarray, " N"]:
        """Which detections have this error."""
        return self.kinds == ERROR_TYPES.index(kind)


@dataclass(frozen=True)
class ErrorCost:
    """What the kinds of errors cost.

    ap50: average precision at an IoU of 0.5.
    gain: what ap50 would grow by if all errors of one kind were mended, and no others; they do not add up.
    counts: how many there are, detections or (missed) instances.
    false_positives, false_negatives: the gain if none of these were left.
    """

    ap50: float
    gain: dict[ErrorType, float]
    counts: dict[ErrorType, int]
    false_positives: float
    false_negatives: float


def find_errors(image: Overlaps, *, foreground: float = FOREGROUND, background: float = BACKGROUND) -> Errors:
    """What is wrong with every detection of an image.

    Detections that lie in a crowd of their class are no error, as in AP (the authors' code counts them).
    """
    real = ~image.crowd
    same, iou = image.same_class & real, image.iou * real
    matched = claims(image.iou * same, image.scores, foreground)
    found = np.isin(np.arange(len(real)), matched)
    own, other, any_class = _best(iou * same), _best(iou * ~same), _best(iou)
    nowhere = np.full(len(matched), -1)
    tests: Sequence[tuple[ErrorType, Bool[np.ndarray, " N"], Int64[np.ndarray, " N"]]] = (
        ("localisation", (own[1] >= background) & (own[1] < foreground), own[0]),
        ("class", other[1] >= foreground, other[0]),
        ("duplicate", own[1] >= foreground, nowhere),  # had the object been free, it would be matched
        ("background", any_class[1] <= background, nowhere),
        ("both", np.ones(len(matched), dtype=bool), nowhere),
    )
    excused = (image.iou * (image.same_class & image.crowd) >= foreground).any(axis=1)
    wrong = (matched < 0) & ~excused
    kinds = np.select([~wrong, *(test for _, test, _ in tests)], [-1, *(ERROR_TYPES.index(k) for k, _, _ in tests)], -1)
    target = np.select([~wrong, *(test for _, test, _ in tests)], [nowhere, *(t for _, _, t in tests)], -1)
    mends = np.zeros(len(matched), dtype=bool)
    taken = found.copy()
    for i in np.argsort(-image.scores, kind="stable"):  # of several claims on one instance the best counts
        if target[i] >= 0 and not taken[target[i]]:
            mends[i] = taken[target[i]] = True
    return Errors(matched, kinds, target, mends, missed=real & ~taken)


def error_cost(images: Iterable[Overlaps]) -> ErrorCost:
    """What mending each kind of error would give.

    Mending means, for class and localisation errors, that the detection finds its instance, unless
    another one does already; for duplicates, background and both, that it is gone; and for missed
    instances, that they do not count.
    """
    images = list(images)
    errors = [find_errors(image) for image in images]
    together = list(zip(images, errors, strict=True))
    asked_for = class_precision_at(images, FOREGROUND)
    ap50 = float(np.mean(list(asked_for.values()))) if asked_for else math.nan

    def gain(mended: Iterable[Overlaps]) -> float:
        """A class without ground truth left is worth 0 as long as it is detected, as in the authors' code."""
        mended = list(mended)
        detected = {int(class_id) for image in mended for class_id in image.classes}
        found = dict.fromkeys(detected & set(asked_for), 0.0) | class_precision_at(mended, FOREGROUND)
        return max(float(np.mean(list(found.values()))) - ap50, 0.0) if found else 0.0

    counts = {kind: sum(int(one.of(kind).sum()) for one in errors) for kind in ERROR_TYPES}
    counts["missed"] = sum(int(one.missed.sum()) for one in errors)
    return ErrorCost(
        ap50=ap50,
        gain={kind: gain(mend(image, one, kind) for image, one in together) for kind in ERROR_TYPES},
        counts=counts,
        false_positives=gain(only(image, one.kinds < 0) for image, one in together),
        false_negatives=gain(_without(image, ~image.crowd & ~_found(one)) for image, one in together),
    )


def mend(image: Overlaps, errors: Errors, kind: ErrorType) -> Overlaps:
    """The image with all errors of one kind mended."""
    if kind == "missed":
        return _without(image, errors.missed)
    right = errors.of(kind) & errors.mends
    classes, iou = image.classes.copy(), image.iou.copy()
    classes[right] = image.true_classes[errors.target[right]]
    iou[right] = 0
    iou[right, errors.target[right]] = 1
    return only(replace(image, classes=classes, iou=iou), ~errors.of(kind) | right)


def _best(iou: np.ndarray) -> tuple[Int64[np.ndarray, " N"], np.ndarray]:
    """Per detection the ground-truth instance of the largest IoU, and that IoU; -1 and 0 without any."""
    if not iou.shape[1]:
        return np.full(len(iou), -1), np.zeros(len(iou))
    return iou.argmax(axis=1), iou.max(axis=1)


def _found(errors: Errors) -> Bool[np.ndarray, " G"]:
    return np.isin(np.arange(len(errors.missed)), errors.matched)


def only(image: Overlaps, rows: Bool[np.ndarray, " N"]) -> Overlaps:
    """The image with these detections alone."""
    return replace(
        image,
        scores=image.scores[rows],
        classes=image.classes[rows],
        iou=image.iou[rows],
        areas=None if image.areas is None else image.areas[rows],
    )


def _without(image: Overlaps, columns: Bool[np.ndarray, " G"]) -> Overlaps:
    """Without these ground-truth instances."""
    left = ~columns
    return replace(
        image,
        true_classes=image.true_classes[left],
        iou=image.iou[:, left],
        true_areas=None if image.true_areas is None else image.true_areas[left],
        crowd=image.crowd[left],
    )
