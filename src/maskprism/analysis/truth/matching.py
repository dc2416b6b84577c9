"""The one rule for TP, FP and FN, and what kind of error a detection is.

Every tool counts by `match`: diagnosis, server, page, widget, tables and comparisons. The thresholds stand here and
nowhere else. The kinds of errors are those of TIDE: Bolya, Foley, Hays and Hoffman, "TIDE: A General Toolbox for
Identifying Object Detection Errors", ECCV 2020; the order of the tests is that of the authors' own code.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from maskprism.analysis.truth.overlaps import Overlaps, Region, box_overlap, claims, regions
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64, Int64
    from numpy.typing import ArrayLike

    from maskprism.core.prediction import Prediction
    from maskprism.datasets import GroundTruth

FOUND_IOU = 0.5
"""Boxes from this IoU on are of the same instance; a mask from this IoU on is right."""
NEAR_IOU = 0.1
"""An overlap up to this IoU is none; one from here to FOUND_IOU is a localisation error."""

Outcome = Literal["true positive", "false positive", "excused"]
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
MATCHING_RULE = (
    f"A detection is a true positive if its box overlaps a labelled instance of its class by an IoU of {FOUND_IOU:g} "
    "or more; the most confident detection chooses first, and takes the instance that it overlaps most. Every other "
    "detection is a false positive, and every labelled instance left over is missed. A true positive whose mask has "
    f"an IoU below {FOUND_IOU:g}, and a false positive whose box overlaps an instance of its class by {NEAR_IOU:g} to "
    f"{FOUND_IOU:g}, is a localisation error. Crowds, labels without a mask, and classes that only the labels or only "
    "the model know count neither for nor against."
)
"""The text of the rule, for tooltips, reports and help."""


@dataclass(frozen=True, eq=False)
class Errors:
    """The errors of one image.

    Attributes
    ----------
    matched
        The ground-truth instance that a detection found, or -1.
    kinds
        Index into ERROR_TYPES per detection, or -1 for one that is right, or lies in a crowd.
    target
        The ground-truth instance that a class or localisation error means, or -1.
    fixable
        Whether correcting that error would find a ground-truth instance that is found by no other detection.
    missed
        Ground-truth instances that no detection finds and no corrected one would.
    """

    matched: Int64[np.ndarray, " N"]
    kinds: Int64[np.ndarray, " N"]
    target: Int64[np.ndarray, " N"]
    fixable: Bool[np.ndarray, " N"]
    missed: Bool[np.ndarray, " G"]

    def of(self, kind: ErrorType) -> Bool[np.ndarray, " N"]:
        """Return which detections have this error."""
        return self.kinds == ERROR_TYPES.index(kind)


def find_errors(image: Overlaps, *, foreground: float = FOUND_IOU, background: float = NEAR_IOU) -> Errors:
    """Return what is wrong with every detection of an image.

    Detections that lie in a crowd of their class are no error, as in AP (the authors' code counts them).
    """
    real = ~image.crowd
    same, iou = image.same_class & real, image.iou * real
    matched = claims(image.iou * same, image.scores, foreground)
    found = np.isin(np.arange(len(real)), matched)
    own, other, any_class = _best(iou * same), _best(iou * ~same), _best(iou)
    nowhere = np.full(len(matched), -1)
    tests: tuple[tuple[ErrorType, Bool[np.ndarray, " N"], Int64[np.ndarray, " N"]], ...] = (
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
    fixable = np.zeros(len(matched), dtype=bool)
    taken = found.copy()
    for i in np.argsort(-image.scores, kind="stable"):  # of several claims on one instance the best counts
        if target[i] >= 0 and not taken[target[i]]:
            fixable[i] = taken[target[i]] = True
    return Errors(matched, kinds, target, fixable, missed=real & ~taken)


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of instances and ground-truth instances, in the order in which they were found, and what is left over.

    Attributes
    ----------
    instances, objects
        Indices into the prediction and the ground truth, pair by pair; no index twice. These are the true positives.
    box_iou
        Of each pair, in image pixels.
    mask_iou
        Of each pair on the canvas, as in the error budget; NaN where masks were not compared.
    missed
        Ground-truth instances that nothing found; crowds and boxes without a mask are not counted.
    false_positives
        Instances that found nothing.
    excused
        Those that lie in a crowd of their class, or on a ground-truth instance of which the labels give no mask, or
        whose class does not count: they count neither for nor against.
    errors
        Per instance of the prediction, what is wrong with it: one of ERROR_TYPES, or None.
    targets
        Per instance the ground-truth instance that it found, or that a class or localisation error means, or -1.
    """

    instances: Int64[np.ndarray, " P"]
    objects: Int64[np.ndarray, " P"]
    box_iou: Float64[np.ndarray, " P"]
    mask_iou: Float64[np.ndarray, " P"]
    missed: Int64[np.ndarray, " A"]
    false_positives: Int64[np.ndarray, " B"]
    excused: Int64[np.ndarray, " C"]
    errors: tuple[ErrorType | None, ...]
    targets: Int64[np.ndarray, " N"]

    @classmethod
    def given(cls, instances: ArrayLike, objects: ArrayLike, box_iou: ArrayLike, *, count: int = 0) -> Matches:
        """Pairs that are known already, with nothing left over; `count` instances, or as many as the pairs name."""
        nothing = np.zeros(0, dtype=np.int64)
        pairs = np.asarray(instances, dtype=np.int64), np.asarray(objects, dtype=np.int64)
        targets = np.full(max(pairs[0].max(initial=-1) + 1, count), -1)
        targets[pairs[0]] = pairs[1]
        return cls(
            instances=pairs[0],
            objects=pairs[1],
            box_iou=np.asarray(box_iou, dtype=np.float64),
            mask_iou=np.full(len(pairs[0]), np.nan),
            missed=nothing,
            false_positives=nothing,
            excused=nothing,
            errors=(None,) * len(targets),
            targets=targets,
        )

    def __len__(self) -> int:
        return len(self.instances)

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Per instance of the prediction what it counts as."""
        named: list[Outcome] = ["excused"] * len(self.errors)
        for index in self.instances:
            named[index] = "true positive"
        for index in self.false_positives:
            named[index] = "false positive"
        return tuple(named)

    def mask_iou_of(self, instance: int) -> float | None:
        """IoU of the mask of an instance with that of the ground-truth instance that it found, or None."""
        pairs = np.flatnonzero(self.instances == instance)
        return float(self.mask_iou[pairs[0]]) if len(pairs) else None

    def with_mask_iou(self, mask_iou: Float64[np.ndarray, " P"]) -> Matches:
        """Return the same matches with the IoU of the masks of every pair: low ones are localisation errors."""
        errors = list(self.errors)
        for instance, iou in zip(self.instances.tolist(), mask_iou.tolist(), strict=True):
            errors[instance] = "localisation" if iou < FOUND_IOU else None
        return replace(self, mask_iou=mask_iou, errors=tuple(errors))


def match(
    prediction: Prediction,
    truth: GroundTruth,
    *,
    classes: Collection[int] | None = None,
    threshold: float = FOUND_IOU,
) -> Matches:
    """Match greedily by boxes: the most confident instance takes the ground-truth instance that it overlaps most.

    Parameters
    ----------
    prediction, truth
        Of the same image. Equal scores keep their order.
    classes
        The classes that count: those that the data set labels and the model knows. Default: all.
    threshold
        The least box IoU, above 0 and up to 1.

    Returns
    -------
    Matches
        Without the IoU of masks, which takes longer; see `match_masks`.

    Raises
    ------
    InputError
        A ground truth of an image of another size.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"threshold is {threshold}; expected an IoU above 0 and up to 1")
    if truth.image_hw != prediction.image_size:
        raise InputError(
            f"the ground truth is about an image of {truth.image_hw[1]} x {truth.image_hw[0]} pixels; "
            f"the prediction is about one of {prediction.image_size[1]} x {prediction.image_size[0]}"
        )
    overlap = box_overlap(prediction.boxes, truth.boxes, truth.crowd)
    counted, known = (_among(ids, classes) for ids in (truth.classes, prediction.classes))
    overlap[:, ~counted] = 0
    excusing = truth.crowd | truth.box_only
    found = find_errors(
        Overlaps(prediction.scores, prediction.classes, truth.classes, overlap, crowd=excusing),
        foreground=threshold,
        background=min(NEAR_IOU, threshold),
    )
    order = np.argsort(-prediction.scores, kind="stable")
    instances, others = order[found.matched[order] >= 0], order[found.matched[order] < 0]
    wrong = (found.kinds >= 0) & known
    errors = tuple(ERROR_TYPES[kind] if is_wrong else None for kind, is_wrong in zip(found.kinds, wrong, strict=True))
    return Matches(
        instances=instances,
        objects=found.matched[instances],
        box_iou=overlap[instances, found.matched[instances]],
        mask_iou=np.full(len(instances), np.nan),
        missed=np.setdiff1d(np.flatnonzero(counted & ~excusing), found.matched),
        false_positives=others[wrong[others]],
        excused=others[~wrong[others]],
        errors=errors,
        targets=np.where(known, np.maximum(found.matched, found.target), -1),
    )


def match_masks(prediction: Prediction, truth: GroundTruth, *, classes: Collection[int] | None = None) -> Matches:
    """Match as `match` does, and compare the masks of every pair on the canvas."""
    matches = match(prediction, truth, classes=classes)
    true = [Region(*patch) for patch in truth.patches("canvas", prediction.letterbox)] if len(matches) else []
    masks = regions(prediction[matches.instances], "canvas")
    pairs = zip(masks, matches.objects.tolist(), strict=True)
    return matches.with_mask_iou(np.array([mask.iou_with(true[index]) for mask, index in pairs], dtype=np.float64))


def _among(ids: Int64[np.ndarray, " N"], classes: Collection[int] | None) -> Bool[np.ndarray, " N"]:
    return np.ones(len(ids), dtype=bool) if classes is None else np.isin(ids, list(classes))


def _best(iou: np.ndarray) -> tuple[Int64[np.ndarray, " N"], np.ndarray]:
    """Per detection the ground-truth instance of the largest IoU, and that IoU; -1 and 0 without any."""
    if not iou.shape[1]:
        return np.full(len(iou), -1), np.zeros(len(iou))
    return iou.argmax(axis=1), iou.max(axis=1)
