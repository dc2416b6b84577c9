"""A diagnosis in plain language: what its numbers say, and what to try, by rules that anyone can look up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from maskprism.analysis.dataset.ap_protocols import AP_PROTOCOLS
from maskprism.analysis.truth.error_budget import PARTS, Mean, Part
from maskprism.analysis.truth.matching import MEANING, ErrorType

if TYPE_CHECKING:
    from maskprism.analysis.dataset.diagnosis import Diagnosis

RuleName = Literal["limit", "part", "errors", "missed", "decodes", "size", "class", "box", "threshold", "score"]
FigureName = Literal["perfect", "budget", "errors", "decodes", "sizes", "classes", "score"]

LEADING_SHARE = 0.4
"""A part of the network with this share of the loss, or more, leads it."""
WORTH_MENDING = 0.01
"""Gains of AP50 below this one are not spoken of."""
MISSED_SHARE = 0.4
"""More instances missed than this are spoken of."""
DECODE_GAP = 0.005
"""Decodes whose AP differ by less than this agree."""
SIZE_RATIO, SIZE_COUNT = 0.5, 20
"""Small objects, if there are so many, whose AP is below this share of that of large ones are spoken of."""
CLASS_GAP, CLASS_COUNT = 0.1, 10
"""A class, if it has so many matched instances, whose mean IoU is this much below the mean is spoken of."""
BOX_GAIN = 0.02
"""Ground-truth boxes for the crop that give less IoU than this are not spoken of."""
THRESHOLD_GAIN = 0.03
"""A threshold of its own for each mask that gives less IoU than this is not spoken of."""
RANK_CORRELATION, RANK_COUNT = 0.3, 30
"""Below this rank correlation, over so many instances, scores are said not to rank masks."""

RULES: dict[RuleName, str] = {
    "limit": "always: what ground-truth masks would add to AP against what is missing to 1 after that",
    "part": "always: the part with the largest share of all losses (parts that gain are left out); it leads if that is "
    f"{LEADING_SHARE:.0%} or more",
    "errors": f"the kind of error that costs most AP50, if mending it gives {WORTH_MENDING} or more",
    "missed": f"more than {MISSED_SHARE:.0%} of the instances are found by no detection above the score shown",
    "decodes": f"AP under the three decodes differs by {DECODE_GAP} or more",
    "size": f"AP of at least {SIZE_COUNT} small objects is below {SIZE_RATIO:.0%} of that of large ones",
    "class": f"the mean IoU of a class of {CLASS_COUNT} or more matched instances is {CLASS_GAP} or more below the "
    "mean",
    "box": f"ground-truth boxes for the crop would raise the mean IoU by {BOX_GAIN} or more",
    "threshold": f"the best threshold for each mask would raise the mean IoU by {THRESHOLD_GAIN} or more",
    "score": f"the rank correlation of score and IoU over {RANK_COUNT} or more instances is below {RANK_CORRELATION}",
}

PART_ADVICE: dict[Part, tuple[str, str]] = {
    "coefficients": (
        "the prototypes could draw better masks than the head predicts",
        "mend a part of it without training (maskprism tune), train longer, give the mask loss more weight, or look "
        "for labels that disagree with each other; with an int8 or fp16 export, compare it with the original first "
        "(maskprism compare)",
    ),
    "prototypes": (
        "even the best coefficients cannot draw these shapes from the prototypes that there are",
        "train the prototype branch further, at a larger input size or with undiminished training masks "
        "(mask_ratio=1), or give the network more or wider prototypes (a larger model)",
    ),
    "resolution": (
        "the prototype grid is too coarse for these outlines, whatever is learned",
        "use a larger input size (--imgsz), or a network whose prototypes have a smaller stride",
    ),
    "box": (
        "the crop to the predicted box cuts off or lets in what a ground-truth box would not",
        "improve the boxes (more training, a larger weight of the box loss), or widen the crop a little",
    ),
}
ERROR_ADVICE: dict[ErrorType, str] = {
    "class": "look at the classes that are mistaken for each other; unite them, or give the network more of both",
    "localisation": "look at the error budget of these detections, which says what part of the network to work on",
    "both": "look at images of this kind; they may be unlike those that the network was trained on",
    "duplicate": "lower the IoU of the suppression (--iou), or check for objects that are labelled in parts",
    "background": "look for objects that are there and not labelled; else train with more empty images",
    "missed": "lower the score threshold, use a larger input size, or train with more objects like these",
}


class Finding(NamedTuple):
    """What one rule has to say: what the numbers are, what to try, and the figure that shows it."""

    rule: RuleName
    says: str
    advice: str
    figure: FigureName


def findings_of(diagnosis: Diagnosis) -> list[Finding]:
    """What the rules find, in their order."""
    return [finding for rule in _RULES for finding in rule(diagnosis)]


def leading(mean: Mean) -> tuple[Part, float]:
    """The part with the largest mean loss, and its share of all losses."""
    return _largest({part: float(getattr(mean, part)) for part in PARTS})


def _largest(losses: Mapping[Part, float]) -> tuple[Part, float]:
    """The largest loss and its share in the sum; parts that gain are left out, or shares would exceed the whole."""
    part = max(PARTS, key=lambda part: losses[part])
    whole = sum(max(loss, 0.0) for loss in losses.values())
    return part, losses[part] / whole if whole > 0 else 0.0


def _limit(found: Diagnosis) -> Iterator[Finding]:
    now, perfect = found.perfect["as it is"].ap, found.perfect["resolution"].ap
    if np.isnan(now):
        return
    masks, detection = perfect - now, 1 - perfect
    says = (
        f"Mask AP is {now:.3f} as predict draws masks. With the ground-truth mask of every instance that a box finds "
        f"it would be {perfect:.3f}: masks cost {masks:.3f}, detection costs {detection:.3f}."
    )
    if masks >= detection:
        yield Finding("limit", says, "Work on the masks first; the error budget says on which part.", "perfect")
    else:
        yield Finding(
            "limit", says, "Work on detection first: better masks alone will not take AP beyond that.", "perfect"
        )


def _part(found: Diagnosis) -> Iterator[Finding]:
    if not len(found.budget):
        return
    mean = found.budget.mean()
    part, share = leading(mean)
    reason, advice = PART_ADVICE[part]
    lost = f"The masks of the {mean.instances} instances found reach an IoU of {mean.iou:.3f} on average."
    if share >= LEADING_SHARE:
        says = f"{lost} {share:.0%} of what they lose is lost in the {part}: {reason}."
    else:
        says = f"{lost} No part of the network leads the loss; the largest share, {share:.0%}, is the {part}: {reason}."
    yield Finding("part", says, f"Consider: {advice}.", "budget")


def _errors(found: Diagnosis) -> Iterator[Finding]:
    gains = found.errors.gain
    kind = max(gains, key=lambda kind: gains[kind])
    if gains[kind] < WORTH_MENDING:
        return
    says = (
        f"Of the kinds of errors, {kind} costs most ({MEANING[kind]}): mending it would add {gains[kind]:.3f} to AP50."
    )
    if kind == "localisation" and found.localisation_count:
        part, share = _largest(found.localisation)
        says += f" {share:.0%} of what those {found.localisation_count} masks lose is lost in the {part}."
    yield Finding("errors", says, f"Consider: {ERROR_ADVICE[kind]}.", "errors")


def _missed(found: Diagnosis) -> Iterator[Finding]:
    if not found.objects or found.missed <= MISSED_SHARE * len(found.objects):
        return
    yield Finding(
        "missed",
        f"{found.missed} of {len(found.objects)} ground-truth instances ({found.missed / len(found.objects):.0%}) "
        f"are found by no detection of their class with a score above {found.conf:g}.",
        f"Consider: {ERROR_ADVICE['missed']}.",
        "errors",
    )


def _decodes(found: Diagnosis) -> Iterator[Finding]:
    values = {name: found.precision[name].ap for name in AP_PROTOCOLS}
    if not max(values.values()) - min(values.values()) >= DECODE_GAP:
        return
    numbers = ", ".join(f"{value:.3f} by {AP_PROTOCOLS[name].tool}" for name, value in values.items())
    yield Finding(
        "decodes",
        f"One network, three numbers: mask AP is {numbers}.",
        "Compare models under one decode only, and say which.",
        "decodes",
    )


def _size(found: Diagnosis) -> Iterator[Finding]:
    ap = found.precision["predict"].by_size
    count = sum(one.area < 32**2 for one in found.objects)
    if count >= SIZE_COUNT and ap["small"] < SIZE_RATIO * ap["large"]:
        yield Finding(
            "size",
            f"Small objects fall behind: AP is {ap['small']:.3f} for the {count} objects below 32 x 32 pixels, "
            f"{ap['large']:.3f} for large ones.",
            "Consider: a larger input size (--imgsz), or predicting on tiles of the image.",
            "sizes",
        )


def _class(found: Diagnosis) -> Iterator[Finding]:
    if not len(found.budget):
        return
    whole = found.budget.mean()
    means = [mean for mean in found.budget.means("class_name") if mean.instances >= CLASS_COUNT]
    worst = min(means, key=lambda mean: mean.iou, default=whole)
    if worst.iou <= whole.iou - CLASS_GAP:
        part, share = leading(worst)
        yield Finding(
            "class",
            f"Masks of {worst.group} are the worst: an IoU of {worst.iou:.3f} over {worst.instances} instances, "
            f"{share:.0%} of the loss in the {part}.",
            f"Look at its worst instances; consider: {PART_ADVICE[part][1]}.",
            "classes",
        )


def _box(found: Diagnosis) -> Iterator[Finding]:
    gain = _mean_gain(found, "true_box_iou")
    if gain >= BOX_GAIN:
        yield Finding(
            "box",
            f"Cropped by ground-truth boxes, the same masks would reach {gain:.3f} more IoU.",
            f"Consider: {PART_ADVICE['box'][1]}.",
            "budget",
        )


def _threshold(found: Diagnosis) -> Iterator[Finding]:
    gain, own = _mean_gain(found, "threshold_iou"), found.spec.rule.threshold
    if gain >= THRESHOLD_GAIN:
        thresholds = found.budget.columns["threshold"]
        common, reached = found.budget.common_threshold()
        large, small = (float(share) for share in (np.mean(thresholds > own), np.mean(thresholds < own)))
        yield Finding(
            "threshold",
            f"With the best threshold for each, masks would reach {gain:.3f} more IoU: {large:.0%} of them are too "
            f"large, {small:.0%} too small. One threshold for all, at a probability of {common:.2f}, would give "
            f"{reached - found.budget.mean().iou:.3f} of it.",
            "If one threshold gives most of it, set it, or a bias in the head; else only training helps.",
            "budget",
        )


def _score(found: Diagnosis) -> Iterator[Finding]:
    rows = found.budget
    correlation = rows.ranking().spearman if len(rows) >= RANK_COUNT else 1.0
    if correlation < RANK_CORRELATION:
        yield Finding(
            "score",
            f"Scores do not rank masks: the rank correlation of score and IoU is {correlation:.2f} over {len(rows)} "
            "instances.",
            "Consider: rescoring by predicted mask quality where good masks must come first; the score tells whether "
            "there is an object, not how well it is drawn.",
            "score",
        )


def _mean_gain(found: Diagnosis, column: str) -> float:
    rows = found.budget.columns
    return float((rows[column] - rows["iou"]).mean()) if len(found.budget) else 0.0


_RULES: Sequence[Callable[[Diagnosis], Iterator[Finding]]] = (
    _limit,
    _part,
    _errors,
    _missed,
    _decodes,
    _size,
    _class,
    _box,
    _threshold,
    _score,
)
