"""A diagnosis in plain language: what its numbers say, and what to try, by rules that anyone can look up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from maskprism.analysis.dataset.ap_bootstrap import SIZE_RATIO
from maskprism.analysis.dataset.ap_protocols import AP_PROTOCOLS
from maskprism.analysis.intervals import (
    CLAIMS,
    LEVEL,
    MIN_IMAGES,
    Interval,
    bootstraps,
    by_image,
    claimed_interval,
    too_few,
)
from maskprism.analysis.truth.error_budget import PARTS, ErrorBudget, Part
from maskprism.analysis.truth.matching import MEANING, ErrorType
from maskprism.analysis.truth.overlaps import SIZES

if TYPE_CHECKING:
    from jaxtyping import Float64

    from maskprism.analysis.dataset.diagnosis import Diagnosis

RuleName = Literal["limit", "part", "errors", "missed", "decodes", "size", "class", "box", "threshold", "score"]
FigureName = Literal["perfect", "budget", "errors", "decodes", "sizes", "classes", "score"]

WORTH_MENDING = 0.01
"""Gains of AP50 below this one are not reported."""
MISSED_SHARE = 0.4
"""More instances missed than this are reported."""
DECODE_GAP = 0.005
"""Decodes whose AP differ by less than this agree."""
CLASS_GAP = 0.1
"""A class whose mean IoU is this much below that of the other classes is reported."""
BOX_GAIN = 0.02
"""Ground-truth boxes for the crop that give less IoU than this are not reported."""
THRESHOLD_GAIN = 0.03
"""A threshold of its own for each mask that gives less IoU than this is not reported."""
RANK_CORRELATION = 0.3
"""Below this rank correlation, the report says that scores do not rank masks."""

RULES: dict[RuleName, str] = {
    "limit": "always: what masks and what detection cost, averaged over both orders; which costs more only if the "
    "interval of the difference excludes 0",
    "part": "always: mean mask IoU; the part with the largest loss only if it loses more than each other part for sure",
    "errors": f"the kind of error that costs most AP50, if fixing it gives {WORTH_MENDING} or more, and more than "
    "fixing each other kind for sure",
    "missed": f"more than {MISSED_SHARE:.0%} of the instances, for sure, are found by no detection above the score "
    "shown",
    "decodes": f"AP under the three decodes differs by {DECODE_GAP} or more, and for sure",
    "size": f"AP of small objects is below {SIZE_RATIO:.0%} of that of large ones for sure",
    "class": f"the mean IoU of a class is {CLASS_GAP} or more below that of the others, and lower for sure, corrected "
    "for the number of classes",
    "box": f"ground-truth boxes for the crop would raise the mean IoU by {BOX_GAIN} or more, and for sure",
    "threshold": f"the best threshold for each mask would raise the mean IoU by {THRESHOLD_GAIN} or more, and for sure",
    "score": f"the rank correlation of score and IoU is below {RANK_CORRELATION} for sure",
}
FOR_SURE = (
    f"For sure means: by a {LEVEL:.0%} bootstrap interval over images, made wider for the number of things compared "
    f"and for the {CLAIMS} rules, so that all that is claimed holds together. Whatever rests on fewer than "
    f"{MIN_IMAGES} images is not said."
)

PART_ADVICE: dict[Part, tuple[str, str]] = {
    "coefficients": (
        "the prototypes could draw better masks than the head predicts",
        "correct a part of it without training (maskprism tune), train longer, give the mask loss more weight, or look "
        "for labels that disagree with each other; with an int8 or fp16 export, compare it with the original first "
        "(maskprism compare)",
    ),
    "prototypes": (
        "even the best coefficients cannot draw these shapes from the prototypes that there are",
        "train the prototype branch further, at a larger input size or with undiminished training masks "
        "(mask_ratio=1), or give the model more or wider prototypes (a larger model)",
    ),
    "resolution": (
        "the prototype grid is too coarse for these outlines, whatever is learned",
        "use a larger input size (--imgsz), or a model whose prototypes have a smaller stride",
    ),
    "box": (
        "the crop to the predicted box cuts off or lets in what a ground-truth box would not",
        "improve the boxes (more training, a larger weight of the box loss), or widen the crop a little",
    ),
}
ERROR_ADVICE: dict[ErrorType, str] = {
    "class": "look at the classes that are mistaken for each other; unite them, or give the model more of both",
    "localisation": "look at the error budget of these detections, which says what part of the model to work on",
    "both": "look at images of this kind; they may be unlike those that the model was trained on",
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
    """Return what the rules find, in their order; nothing where there are too few images."""
    if too_few(diagnosis.images):
        return []
    return [finding for rule in _RULES for finding in rule(diagnosis)]


def _limit(found: Diagnosis) -> Iterator[Finding]:
    now, sure = found.precision["predict"].ap, found.intervals
    if np.isnan(now) or too_few(_images(one.image for one in found.objects)):
        return
    says = (
        f"Mask AP is {sure.precision['predict'].plain()} as predict draws masks. With the ground-truth mask of every "
        f"instance that a box finds it would be {found.perfect['resolution'].ap:.3f}; with every instance detected, "
        f"and the masks predicted, {found.perfect_detection.ap:.3f}. Averaged over both orders, masks cost "
        f"{sure.masks.plain()} and detection costs {sure.detection.plain()}."
    )
    if not sure.difference.excludes():
        advice = (
            f"About equal: the difference is {sure.difference.plain()}, so these images cannot tell which costs more."
        )
    elif sure.difference.low > 0:
        advice = f"Work on the masks first; they cost more by {sure.difference.plain()}."
    else:
        advice = f"Work on detection first; it costs more by {sure.difference.negated().plain()}."
    yield Finding("limit", says, advice, "perfect")


def _part(found: Diagnosis) -> Iterator[Finding]:
    if not len(found.budget) or too_few((mean := found.budget.mean()).images):
        return
    lead = found.budget.leading()
    says = (
        f"The masks of the {mean.instances} instances found reach an IoU of {mean.intervals['iou'].plain()} on average."
    )
    if not lead.certain:
        losses = ", ".join(f"{part} {mean.intervals[part].plain()}" for part in PARTS)
        says += f" No part of the model is known to lose more than the others: {losses}."
        yield Finding("part", says, "These images cannot tell which part to work on first.", "budget")
        return
    reason, advice = PART_ADVICE[lead.part]
    says += (
        f" Most is lost in the {lead.part}, {mean.intervals[lead.part].plain()}, which is {lead.share:.0%} of all "
        f"losses: {reason}."
    )
    yield Finding("part", says, f"Consider: {advice}.", "budget")


def _errors(found: Diagnosis) -> Iterator[Finding]:
    gains, sure = found.errors.gain, found.intervals
    kind = max(gains, key=lambda kind: gains[kind])
    ahead = sure.ahead.values()
    if gains[kind] < WORTH_MENDING or not ahead or not all(one.low > 0 for one in (sure.errors[kind], *ahead)):
        return
    says = (
        f"Of the kinds of errors, {kind} costs most ({MEANING[kind]}): fixing it would add "
        f"{sure.errors[kind].plain()} to AP50."
    )
    if kind == "localisation" and len(found.localisation) and (lead := found.localisation.leading()).certain:
        says += (
            f" Most of what those {len(found.localisation)} masks lose, {lead.share:.0%}, is lost in the {lead.part}."
        )
    yield Finding("errors", says, f"Consider: {ERROR_ADVICE[kind]}.", "errors")


def _missed(found: Diagnosis) -> Iterator[Finding]:
    missed = np.array([float(one.instance < 0) for one in found.objects])
    share = claimed_interval(missed, [one.image for one in found.objects], comparisons=CLAIMS)
    if share.low > MISSED_SHARE:
        yield Finding(
            "missed",
            f"{found.missed} of {len(found.objects)} ground-truth instances ({share.mean:.0%}, {share.low:.0%} to "
            f"{share.high:.0%}) are found by no detection of their class with a score above {found.conf:g}.",
            f"Consider: {ERROR_ADVICE['missed']}.",
            "errors",
        )


def _decodes(found: Diagnosis) -> Iterator[Finding]:
    values = {name: found.precision[name].ap for name in AP_PROTOCOLS}
    gap = found.intervals.decodes
    if max(values.values()) - min(values.values()) >= DECODE_GAP and gap.low > 0:
        numbers = ", ".join(f"{value:.3f} by {AP_PROTOCOLS[name].tool}" for name, value in values.items())
        yield Finding(
            "decodes",
            f"One model, three numbers: mask AP is {numbers}; the largest exceeds the smallest by {gap.plain()}.",
            "Compare models under one decode only, and say which.",
            "decodes",
        )


def _size(found: Diagnosis) -> Iterator[Finding]:
    ap = found.precision["predict"].by_size
    small = [one.image for one in found.objects if one.area < SIZES["small"][1]]
    large = [one.image for one in found.objects if one.area >= SIZES["large"][0]]
    if any(too_few(_images(images)) for images in (small, large)) or not found.intervals.small_behind.low > 0:
        return
    yield Finding(
        "size",
        f"Small objects fall behind: AP is {ap['small']:.3f} for the {len(small)} objects below 32 x 32 pixels, "
        f"{ap['large']:.3f} for the {len(large)} large ones.",
        "Consider: a larger input size (--imgsz), or predicting on tiles of the image.",
        "sizes",
    )


def _class(found: Diagnosis) -> Iterator[Finding]:
    behind = classes_behind(found.budget)
    if not behind:
        return
    name, gap = min(behind.items(), key=lambda item: item[1].mean)
    mean = next(mean for mean in found.budget.means("class_name") if mean.group == name)
    lead = ErrorBudget([row for row in found.budget.rows if row.class_name == name]).leading()
    where = f", most of it in the {lead.part} ({lead.share:.0%})" if lead.certain else ""
    yield Finding(
        "class",
        f"Masks of {name} are worse than those of other classes: an IoU of {mean.iou:.3f} over {mean.instances} "
        f"instances in {mean.images} images, {gap.negated().plain()} below the others{where}.",
        "Look at its worst instances" + (f"; consider: {PART_ADVICE[lead.part][1]}." if lead.certain else "."),
        "classes",
    )


def classes_behind(budget: ErrorBudget) -> dict[str, Interval]:
    """Return the classes whose masks are surely worse than those of all others, by `CLASS_GAP` or more.

    Parameters
    ----------
    budget
        Of matched instances. Classes in too few images are not compared.

    Returns
    -------
    dict
        By name, the mean IoU of the class minus that of all other instances, with an interval that is corrected for the
        number of classes compared and of `CLAIMS`.
    """
    compared = [mean.group for mean in budget.means("class_name") if not too_few(mean.images)] if len(budget) else []
    names, iou = budget.columns["class_name"], budget.columns["iou"]
    if not compared or len(set(names)) < 2:
        return {}
    image = budget.image_numbers
    own = np.stack([names == name for name in compared], axis=1).astype(np.float64)
    sums, counts = (by_image(values, image)[0] for values in (own * iou[:, None], own))
    total, count = by_image(np.stack([iou, np.ones(len(iou))], axis=1), image)[0].T

    def gaps(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, "R classes"]:
        own_sum, own_count = weights @ sums, weights @ counts
        with np.errstate(invalid="ignore"):
            others = ((weights @ total)[:, None] - own_sum) / ((weights @ count)[:, None] - own_count)
            return own_sum / own_count - others

    found = dict(zip(compared, bootstraps(gaps, len(total), comparisons=CLAIMS * len(compared)), strict=True))
    return {name: gap for name, gap in found.items() if gap.mean <= -CLASS_GAP and gap.high < 0}


def _box(found: Diagnosis) -> Iterator[Finding]:
    gain = _gain(found, "true_box_iou")
    if gain.mean >= BOX_GAIN and gain.low > 0:
        yield Finding(
            "box",
            f"Cropped by ground-truth boxes, the same masks would reach {gain.plain()} more IoU.",
            f"Consider: {PART_ADVICE['box'][1]}.",
            "budget",
        )


def _threshold(found: Diagnosis) -> Iterator[Finding]:
    gain, own = _gain(found, "threshold_iou"), found.spec.rule.threshold
    if not (gain.mean >= THRESHOLD_GAIN and gain.low > 0):
        return
    thresholds = found.budget.columns["threshold"]
    common, _ = found.budget.common_threshold()
    large, small = (float(share) for share in (np.mean(thresholds > own), np.mean(thresholds < own)))
    of_all = found.budget.common_threshold_gain()
    says = (
        f"With the best threshold for each, masks would reach {gain.plain()} more IoU: {large:.0%} of them are too "
        f"large, {small:.0%} too small."
    )
    if of_all.low > 0:
        says += f" One threshold for all, at a probability of {common:.2f}, would give {of_all.plain()} of it."
        advice = "Set that threshold, or a bias in the head; the rest needs training."
    else:
        says += " No one threshold for all is known to be better than the present one."
        advice = "A threshold for all will not help; only training does."
    yield Finding("threshold", says, advice, "budget")


def _score(found: Diagnosis) -> Iterator[Finding]:
    rows = found.budget
    if not len(rows) or too_few(_images(rows.columns["image"])):
        return
    correlation = rows.rank_correlation()
    if correlation.high < RANK_CORRELATION:
        yield Finding(
            "score",
            f"Scores do not rank masks: the rank correlation of score and IoU is {correlation.plain(2)} over "
            f"{len(rows)} instances.",
            "Consider: rescoring by predicted mask quality where good masks must come first; the score tells whether "
            "there is an object, not how well it is drawn.",
            "score",
        )


def _gain(found: Diagnosis, column: str) -> Interval:
    """Return the mean gain of IoU that a column of the budget gives; without ends where there are too few images."""
    rows = found.budget.columns
    return claimed_interval(rows[column] - rows["iou"], found.budget.image_numbers, comparisons=CLAIMS)


def _images(names: Iterable[str]) -> int:
    return len(set(names))


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
