"""A diagnosis in plain language: what its numbers say, and what to change, by rules that anyone can look up.

Findings are ranked by the mask AP that fixing them would gain at most, after two of another kind: the first says what
masks and what detection cost, and findings about the labels come before those about the model, whose numbers all
depend on the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from maskprism.analysis.dataset.ap_bootstrap import SIZE_RATIO
from maskprism.analysis.dataset.ap_protocols import AP_PROTOCOLS
from maskprism.analysis.dataset.edits import Edits
from maskprism.analysis.intervals import (
    CLAIMS,
    LEVEL,
    MIN_IMAGES,
    Interval,
    bootstraps,
    by_image,
    claimed_interval,
    mean_intervals,
    too_few,
)
from maskprism.analysis.truth.error_budget import PARTS, ErrorBudget, Part
from maskprism.analysis.truth.matching import MEANING
from maskprism.analysis.truth.overlaps import SIZES
from maskprism.analysis.truth.shapes import THIN

if TYPE_CHECKING:
    from jaxtyping import Bool, Float64

    from maskprism.analysis.dataset.diagnosis import Diagnosis
    from maskprism.analysis.dataset.expected_gains import BetterMasks

RuleName = Literal[
    "limit",
    "part",
    "errors",
    "missed",
    "decodes",
    "size",
    "class",
    "box",
    "threshold",
    "score",
    "thin",
    "border",
    "fragments",
    "shift",
    "merged",
]
FigureName = Literal["perfect", "budget", "errors", "decodes", "sizes", "classes", "score"]

_ALONE: dict[Part, BetterMasks] = {
    "coefficients": "coefficients alone",
    "prototypes": "prototypes alone",
    "box": "box alone",
    "resolution": "resolution alone",
}
WORTH_FIXING = 0.01
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
SHAPE_GAP = 0.05
"""Masks of a kind of shape whose mean IoU is this much below that of the others are reported."""
SHIFT = 0.03
"""Labels that lie this part of their width or height beside the masks are reported."""
MERGED_SHARE = 0.02
"""More labels that hold several objects than this are reported."""

RULES: dict[RuleName, str] = {
    "limit": "always: what masks and what detection cost, averaged over both orders; which costs more only if the "
    "interval of the difference excludes 0",
    "part": "always: mean mask IoU; the part with the largest loss only if it loses more than each other part for sure",
    "errors": f"the kind of error that costs most AP50, if fixing it gives {WORTH_FIXING} or more, and more than "
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
    "thin": f"the mean IoU of objects with a thinness of {THIN:g} or more (a bar of {THIN:g} : 1 has {THIN:g}) is "
    f"{SHAPE_GAP} or more below that of the others, and lower for sure",
    "border": f"the same for objects that reach the border of the image, by {SHAPE_GAP} or more",
    "fragments": f"the same for masks in more pieces than their label, by {SHAPE_GAP} or more",
    "shift": f"labels lie beside the masks, by {SHIFT:.0%} of their width or height or more on average, and to one "
    "side for sure",
    "merged": f"more than {MERGED_SHARE:.0%} of the labels, for sure, hold two or more detections side by side that "
    "fill them together",
}
FOR_SURE = (
    f"For sure means: by a {LEVEL:.0%} bootstrap interval over images, made wider for the number of things compared "
    f"and for the {CLAIMS} rules, so that all that is claimed holds together. Whatever rests on fewer than "
    f"{MIN_IMAGES} images is not said."
)

PART_REASONS: dict[Part, str] = {
    "coefficients": "the prototypes could draw better masks than the head predicts",
    "prototypes": "even the best coefficients cannot draw these shapes from the prototypes that there are",
    "resolution": "the prototype grid is too coarse for these outlines, whatever is learned",
    "box": "the crop to the predicted box cuts off or lets in what a ground-truth box would not",
}
LABEL_RULES: tuple[RuleName, ...] = ("shift", "merged")
"""Findings about the labels, which come before those about the model."""


class Finding(NamedTuple):
    """What one rule has to say.

    Attributes
    ----------
    says
        What the numbers are.
    advice
        What to change.
    figure
        The figure that shows it.
    gain
        Mask AP that would be gained at most; None where nothing is to fix.
    """

    rule: RuleName
    says: str
    advice: str
    figure: FigureName
    gain: Interval | None = None


class _Draft(NamedTuple):
    """A finding before it is ranked, with its advice in sentences."""

    rule: RuleName
    says: str
    advice: Sequence[str]
    figure: FigureName
    gain: Interval | None = None


def findings_of(diagnosis: Diagnosis) -> list[Finding]:
    """Return what the rules find, the largest gain first; nothing where there are too few images.

    What masks and detection cost comes first of all, then findings about the labels, and last those without a gain. No
    sentence of advice stands twice.
    """
    if too_few(diagnosis.images):
        return []
    drafts = [draft for rule in _RULES for draft in rule(diagnosis) if draft.gain is None or draft.gain.high > 0]
    drafts.sort(key=_rank)
    said: dict[str, int] = {}
    found = []
    for number, draft in enumerate(drafts, 1):
        new = [sentence for sentence in draft.advice if sentence not in said]
        before = sorted({said[sentence] for sentence in draft.advice if sentence in said})
        said |= dict.fromkeys(new, number)
        if before:
            new.append(f"The change of number {before[0]} helps here{', too' if new else ''}.")
        says = draft.says
        if draft.gain is not None:
            says += f" Fixing it would add at most {draft.gain.plain()} to mask AP."
        found.append(Finding(draft.rule, says, " ".join(new), draft.figure, draft.gain))
    return found


def _rank(draft: _Draft) -> tuple[int, float]:
    if draft.gain is None:
        return (0 if draft.rule == "limit" else 3), 0.0
    return (1 if draft.rule in LABEL_RULES else 2), -draft.gain.mean


def _limit(found: Diagnosis) -> Iterator[_Draft]:
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
    yield _Draft("limit", says, [advice], "perfect")


def _part(found: Diagnosis) -> Iterator[_Draft]:
    if not len(found.budget) or too_few((mean := found.budget.mean()).images):
        return
    lead = found.budget.leading()
    says = (
        f"The masks of the {mean.instances} instances found reach an IoU of {mean.intervals['iou'].plain()} on average."
    )
    if not lead.certain:
        losses = ", ".join(f"{part} {mean.intervals[part].plain()}" for part in PARTS)
        says += f" No part of the model is known to lose more than the others: {losses}."
        yield _Draft("part", says, ["These images cannot tell which part to work on first."], "budget")
        return
    says += (
        f" Most is lost in the {lead.part}, {mean.intervals[lead.part].plain()}, which is {lead.share:.0%} of all "
        f"losses: {PART_REASONS[lead.part]}."
    )
    yield _Draft("part", says, Edits(found.spec).part(lead.part), "budget", found.gains.of_masks(_ALONE[lead.part]))


def _errors(found: Diagnosis) -> Iterator[_Draft]:
    gains, sure = found.errors.gain, found.intervals
    kind = max(gains, key=lambda kind: gains[kind])
    ahead = sure.ahead.values()
    if gains[kind] < WORTH_FIXING or not ahead or not all(one.low > 0 for one in (sure.errors[kind], *ahead)):
        return
    says = (
        f"Of the kinds of errors, {kind} costs most ({MEANING[kind]}): fixing it would add "
        f"{sure.errors[kind].plain()} to AP50."
    )
    advice = Edits(found.spec).error(kind)
    if kind == "localisation" and len(found.localisation) and (lead := found.localisation.leading()).certain:
        advice = Edits(found.spec).part(lead.part)
        says += (
            f" Most of what those {len(found.localisation)} masks lose, {lead.share:.0%}, is lost in the {lead.part}."
        )
    yield _Draft("errors", says, advice, "errors", found.gains.of_errors(kind))


def _missed(found: Diagnosis) -> Iterator[_Draft]:
    missed = np.array([float(one.instance < 0) for one in found.objects])
    share = claimed_interval(missed, [one.image for one in found.objects], comparisons=CLAIMS)
    if share.low > MISSED_SHARE:
        yield _Draft(
            "missed",
            f"{found.missed} of {len(found.objects)} ground-truth instances ({share.mean:.0%}, {share.low:.0%} to "
            f"{share.high:.0%}) are found by no detection of their class with a score above {found.conf:g}.",
            Edits(found.spec).error("missed"),
            "errors",
            found.gains.of_detection(),
        )


def _decodes(found: Diagnosis) -> Iterator[_Draft]:
    values = {name: found.precision[name].ap for name in AP_PROTOCOLS}
    gap = found.intervals.decodes
    if max(values.values()) - min(values.values()) >= DECODE_GAP and gap.low > 0:
        numbers = ", ".join(f"{value:.3f} by {AP_PROTOCOLS[name].tool}" for name, value in values.items())
        native = found.gains.of_decode("native") if values["native"] == max(values.values()) else None
        better = native is not None and native.mean >= DECODE_GAP
        yield _Draft(
            "decodes",
            f"One model, three numbers: mask AP is {numbers}; the largest exceeds the smallest by {gap.plain()}.",
            ["Compare models under one decode only, and say which.", *(Edits(found.spec).decode() if better else [])],
            "decodes",
            native if better else None,
        )


def _size(found: Diagnosis) -> Iterator[_Draft]:
    ap = found.precision["predict"].by_size
    small = [one.image for one in found.objects if one.area < SIZES["small"][1]]
    large = [one.image for one in found.objects if one.area >= SIZES["large"][0]]
    if any(too_few(_images(images)) for images in (small, large)) or not found.intervals.small_behind.low > 0:
        return
    yield _Draft(
        "size",
        f"Small objects fall behind: AP is {ap['small']:.3f} for the {len(small)} objects below 32 x 32 pixels, "
        f"{ap['large']:.3f} for the {len(large)} large ones.",
        [*Edits(found.spec).larger_input(), "Predicting on tiles of the image makes small objects larger, too."],
        "sizes",
        found.gains.of_small(),
    )


def _class(found: Diagnosis) -> Iterator[_Draft]:
    behind = classes_behind(found.budget)
    if not behind:
        return
    name, gap = min(behind.items(), key=lambda item: item[1].mean)
    mean = next(mean for mean in found.budget.means("class_name") if mean.group == name)
    lead = ErrorBudget([row for row in found.budget.rows if row.class_name == name]).leading()
    where = f", most of it in the {lead.part} ({lead.share:.0%})" if lead.certain else ""
    class_id = next(row.class_id for row in found.budget.rows if row.class_name == name)
    yield _Draft(
        "class",
        f"Masks of {name} are worse than those of other classes: an IoU of {mean.iou:.3f} over {mean.instances} "
        f"instances in {mean.images} images, {gap.negated().plain()} below the others{where}.",
        [
            "Look at the labels of this class first: maskprism labels.",
            *(Edits(found.spec).part(lead.part) if lead.certain else ()),
        ],
        "classes",
        found.gains.of_class(class_id),
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


def _box(found: Diagnosis) -> Iterator[_Draft]:
    gain = _gain(found, "true_box_iou")
    if gain.mean >= BOX_GAIN and gain.low > 0:
        yield _Draft(
            "box",
            f"Cropped by ground-truth boxes, the same masks would reach {gain.plain()} more IoU.",
            Edits(found.spec).part("box"),
            "budget",
            found.gains.of_masks("true boxes"),
        )


def _threshold(found: Diagnosis) -> Iterator[_Draft]:
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
        advice = ["maskprism tune finds that threshold and writes it into the model; the rest needs training."]
    else:
        says += " No one threshold for all is known to be better than the present one."
        advice = Edits(found.spec).part("coefficients")
    yield _Draft("threshold", says, advice, "budget", found.gains.of_masks("threshold"))


def _score(found: Diagnosis) -> Iterator[_Draft]:
    rows = found.budget
    if not len(rows) or too_few(_images(rows.columns["image"])):
        return
    correlation = rows.rank_correlation()
    if correlation.high < RANK_CORRELATION:
        yield _Draft(
            "score",
            f"Scores do not rank masks: the rank correlation of score and IoU is {correlation.plain(2)} over "
            f"{len(rows)} instances.",
            [
                "The score tells whether there is an object, not how well it is drawn, and no argument changes that. "
                "Where good masks must come first, rank them by another number, such as the mean probability inside."
            ],
            "score",
            found.gains.of_scores(),
        )


def _thin(found: Diagnosis) -> Iterator[_Draft]:
    yield from _shape(
        found,
        "thin",
        [one.thinness >= THIN for one in found.objects],
        f"Masks of long thin objects (area of {THIN:g} or more squares of their width)",
        Edits(found.spec).thin,
    )


def _border(found: Diagnosis) -> Iterator[_Draft]:
    yield from _shape(
        found,
        "border",
        [one.touches_border for one in found.objects],
        "Masks of objects that reach the border of the image",
        Edits(found.spec).border,
    )


def _fragments(found: Diagnosis) -> Iterator[_Draft]:
    drawn = {(row.image, row.object): row.drawn_pieces for row in found.budget.rows}
    yield from _shape(
        found,
        "fragments",
        [drawn.get((one.image, one.object), 0) > max(one.pieces, 1) for one in found.objects],
        "Masks in more pieces than their label has",
        Edits(found.spec).pieces,
    )


def _shape(
    found: Diagnosis, rule: RuleName, chosen: Sequence[bool], what: str, advice: Callable[[], Sequence[str]]
) -> Iterator[_Draft]:
    """Compare the masks of a kind of objects with all others."""
    of_kind = {(one.image, one.object) for one, own in zip(found.objects, chosen, strict=True) if own}
    rows = np.array([(row.image, row.object) in of_kind for row in found.budget.rows], dtype=bool)
    gap = _behind(found.budget, rows)
    if not (gap.mean <= -SHAPE_GAP and gap.high < 0):
        return
    objects: dict[str, set[int]] = {}
    for image, number in of_kind:
        objects.setdefault(image, set()).add(number)
    mean, images = found.budget.columns["iou"][rows].mean(), len(set(found.budget.columns["image"][rows]))
    yield _Draft(
        rule,
        f"{what} are worse: an IoU of {mean:.3f} over {np.count_nonzero(rows)} instances in {images} images, "
        f"{gap.negated().plain()} below the others.",
        advice(),
        "budget",
        found.gains.of_objects(objects),
    )


def _behind(budget: ErrorBudget, chosen: Bool[np.ndarray, " N"]) -> Interval:
    """Return the mean IoU of some rows minus that of all others; without ends where they are in too few images."""
    nothing = Interval(np.nan, np.nan, np.nan)
    if not chosen.any() or chosen.all() or too_few(len(np.unique(budget.image_numbers[chosen]))):
        return nothing
    iou, own = budget.columns["iou"], chosen.astype(np.float64)
    values = np.stack([own * iou, own, (1 - own) * iou, 1 - own], axis=1)
    sums = by_image(values, budget.image_numbers)[0]

    def gap(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, "R 1"]:
        total, count, rest, others = (weights @ sums).T
        with np.errstate(invalid="ignore", divide="ignore"):
            return (total / count - rest / others)[:, None]

    return bootstraps(gap, len(sums), comparisons=CLAIMS)[0]


def _shift(found: Diagnosis) -> Iterator[_Draft]:
    rows = found.budget
    if not len(rows) or too_few(_images(rows.columns["image"])):
        return
    sides = np.stack([rows.columns["shift_x"], rows.columns["shift_y"]], axis=1)
    right, down = mean_intervals(sides, rows.image_numbers, comparisons=2 * CLAIMS)
    parts = [
        f"{abs(one.mean):.0%} ({min(abs(one.low), abs(one.high)):.0%} to {max(abs(one.low), abs(one.high)):.0%}) of "
        f"their {side} {way[one.mean < 0]}"
        for one, side, way in ((right, "width", ("to the right", "to the left")), (down, "height", ("down", "up")))
        if one.excludes() and abs(one.mean) >= SHIFT
    ]
    if parts:
        yield _Draft(
            "shift",
            f"Labels and masks are shifted against each other: labels lie {' and '.join(parts)} of the masks, on "
            f"average over {len(rows)} instances.",
            [
                "Move the labels back before anything else: look at how they were made (a crop or resize of the images "
                "after labelling, an orientation in EXIF, half a pixel of rounding).",
                "If the labels are right, the model sees its input shifted: compare the export with its .pt (maskprism "
                "compare).",
            ],
            "errors",
            found.gains.of_masks("moved"),
        )


def _merged(found: Diagnosis) -> Iterator[_Draft]:
    held = np.array([float(one.held > 1) for one in found.objects])
    share = claimed_interval(held, [one.image for one in found.objects], comparisons=CLAIMS)
    if share.low > MERGED_SHARE:
        yield _Draft(
            "merged",
            f"Labels hold several objects: {held.sum():.0f} of {len(held)} ({share.mean:.0%}, {share.low:.0%} to "
            f"{share.high:.0%}) are filled by two or more detections of their class side by side.",
            [
                "Split these labels, one for each object, before anything else: maskprism labels shows them. Where a "
                "label is meant to hold several objects, none of the masks can be right."
            ],
            "errors",
            found.gains.of_merged(),
        )


def _gain(found: Diagnosis, column: str) -> Interval:
    """Return the mean gain of IoU that a column of the budget gives; without ends where there are too few images."""
    rows = found.budget.columns
    return claimed_interval(rows[column] - rows["iou"], found.budget.image_numbers, comparisons=CLAIMS)


def _images(names: Iterable[str]) -> int:
    return len(set(names))


_RULES: Sequence[Callable[[Diagnosis], Iterator[_Draft]]] = (
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
    _thin,
    _border,
    _fragments,
    _shift,
    _merged,
)
