"""A tuning as text, and as one HTML file that explains itself."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from maskprism._common.text import counted, rounded, signed
from maskprism.analysis.intervals import MIN_IMAGES, too_few
from maskprism.analysis.tuning.evidence import CANDIDATES, CONF, PIXELS
from maskprism.analysis.tuning.fitting import FULL_EFFORT, SHARPNESS
from maskprism.analysis.verdicts import Check, Verdict, VerdictOutcome
from maskprism.reports.html import Illustration, Section, cell, definitions, file_name, findings, page, row, table
from maskprism.reports.html import figures as figure_grid
from maskprism.viewer.markup import data_url

if TYPE_CHECKING:
    from maskprism.analysis.dataset.coco_ap import AveragePrecision
    from maskprism.analysis.intervals import Interval
    from maskprism.analysis.truth.gains import Change
    from maskprism.analysis.tuning import Tuning
    from maskprism.analysis.tuning.decode_rule import DecodeSetting
    from maskprism.analysis.tuning.tuning import TunedInstance
    from maskprism.core.masks import MaskRule
    from maskprism.models import Model

METHOD = {
    "correction": (
        "The coefficients c of an instance become c + A c + b, the same A and b for all instances, or for all of a "
        "level of the pyramid. The prototypes, and with them the masks that are possible, stay unchanged."
    ),
    "what it is fitted to": (
        f"Instances with a score above {CONF} that lie on a ground-truth instance of their class (box IoU of .5 or "
        f"more), in the image, in its mirror image, and, where that helps, in up to {FULL_EFFORT.views} views that are "
        "turned, scaled, mirrored and recoloured by chance; of each ground-truth instance up to "
        f"{CANDIDATES} candidates, those that NMS drops among them; at up to {PIXELS} pixels of the box each, most of "
        "them along the edge. "
        "What is surer and overlaps more counts for more."
    ),
    "how": (
        f"The mean soft IoU of logits times {SHARPNESS:g} is made as large as a ridge on A and b allows, by L-BFGS."
    ),
    "gain": (
        "Measured on folds of images: every image with what was fitted without its fold, under the mask rule, at the "
        "size of the model input. The ridge of a fold, and whether augmented views count, is chosen on the other "
        "folds alone. Intervals are by bootstrap over images, in pairs, 95 %; those of the gains of AP and "
        f"AP75 hold for both together. A group in fewer than {MIN_IMAGES} images has none."
    ),
    "mask rule": (
        "Crop margins (parts of the box, on every side) and logit thresholds are tried on all masks. What draws the "
        "best uncorrected masks of the other folds is measured on the corrected masks of a fold."
    ),
    "mask AP": "COCO's, of all detections above a score of .001, every class of a box; boxes and scores are the same.",
    "settings": (
        "A stronger ridge corrects less. Gains within the folds are estimated at the pixels looked at, of mirrored "
        "images and of what NMS drops, too, and weighted like the evidence; they choose, and do not measure."
    ),
    "the file": "Holds the correction that is fitted to all images, with the setting that gains most over all folds.",
}


_HOW = "maskprism tune writes the model with this correction; it costs the same, and boxes, scores and classes stay."
_WITH = {True: "with", False: "without"}
_MOST_TIMES = 10
"""More images are recommended where at most this many times as many would show the gain."""


def title_of(found: Tuning) -> str:
    """Return the model and the data set, or the teacher."""
    if found.teacher is not None:
        return f"{found.spec.name} against the teacher {found.teacher.spec.name}"
    path = found.dataset.path.resolve()
    name = path.parent.name if path.suffix.lower() in (".yaml", ".yml") else path.stem
    return f"{found.spec.name} on {name}" + (f" ({found.dataset.split})" if found.dataset.split else "")


def warnings_of(found: Tuning) -> list[str]:
    """Return what a reader must know before the numbers."""
    said = []
    if too_few(len(set(found.gains.image.tolist()))):
        said.append(
            f"Only {counted(found.images, 'image')}: with fewer than {MIN_IMAGES} in which something is found, what is "
            f"measured may be chance, and no interval is given. {'Label' if found.teacher is None else 'Give'} more."
        )
    said += [f"{notice[0].upper()}{notice[1:]}." for notice in found.dataset.notices]
    if found.failures:
        said.append(
            f"{counted(len(found.failures), 'image')} of {found.total} could not be used (the first: "
            f"{found.failures[0].name}: {found.failures[0].message})."
        )
    return said


def verdict_of(found: Tuning) -> Verdict:
    """Return whether the correction helps: its gain, with its interval, lies above 0."""
    gain = found.change.gain
    why = {
        "pass": "the correction draws better masks",
        "fail": "the correction draws worse masks, so no model was written without --force",
        "cannot tell": "the gain may be chance, so no model was written without --force",
    }
    check = Check.of("gain in mean mask IoU", gain, "above", 0)
    outcome: VerdictOutcome = "pass" if found.helps else "fail" if gain.high < 0 else "cannot tell"
    return Verdict(outcome, why[outcome], [check])


def sentences(found: Tuning) -> list[str]:
    """Return what the numbers say, the most important first."""
    change = found.change
    verdict = (
        "There are too few images to tell whether it helps"
        if math.isnan(change.gain.low)
        else "It helps"
        if found.helps
        else "It does harm"
        if change.gain.high < 0
        else "The interval touches zero: it may be chance"
    )
    said = [
        f"On images that took no part, the mean mask IoU of {counted(change.instances, 'instance')}"
        f"{'' if found.teacher is None else f' with the masks of the teacher {found.teacher.spec.name}'} goes from "
        f"{change.before:.4f} to {change.after:.4f}: {gained(change.gain)}. {verdict}."
    ]
    before, after = found.precision
    said.append(
        f"Mask AP goes from {before.ap:.4f} to {after.ap:.4f}: {gained(found.ap_gain)}. AP75 goes from "
        f"{before.ap75:.4f} to {after.ap75:.4f}: {gained(found.ap75_gain)}."
    )
    said.append(_decode_sentence(found))
    if found.helps and found.rise is not None:
        fewer, rise = found.rise
        more, most = "labels" if found.teacher is None else "images", found.curve()[-1][0]
        said.append(
            f"With {most} images it gains more than with {fewer}, by {gained(rise)}: more {more} would help."
            if rise.low > 0
            else f"These images cannot tell whether more {more} would help: with {most} images in place of {fewer} the "
            f"gain changes by {gained(rise)}."
        )
    return said


def next_steps(found: Tuning) -> list[str]:
    """Return what it means that no gain is shown, and what to do next; nothing where the correction helps."""
    if found.helps:
        return []
    gain, own = found.change.gain, found.teacher is None
    more = "labelled images" if own else "images"
    if gain.high < 0:
        steps = [f"Keep {found.spec.name}: with this correction it draws worse masks."]
    else:
        steps = [
            f"Keep {found.spec.name}: better masks are not shown. That is no sign of a fault.",
            _images_needed(found, more),
        ]
    if own:
        steps.append(
            "Use images that the model was not trained on, such as the val split: its coefficients are fitted to its "
            "training images already."
        )
    return [*steps, "What else costs mask AP, ranked, is in the report of maskprism diagnose."]


def _images_needed(found: Tuning, more: str) -> str:
    """Return how many images would show the gain, if it stayed the same: intervals narrow with their square root."""
    gain = found.change.gain
    if math.isnan(gain.low):
        return f"Give {MIN_IMAGES} {more} at the very least; 60 or more are worth trying."
    times = ((gain.mean - gain.low) / gain.mean) ** 2 if gain.mean > 0 else math.inf
    if times > _MOST_TIMES:
        return f"More {more} alone will hardly change that: the gain is small against its interval."
    needed = math.ceil(found.images * times / 10) * 10
    return f"If the gain stays at {signed(gain.mean)}, about {needed} {more} would show it; these are {found.images}."


def _decode_sentence(found: Tuning) -> str:
    choice, change = found.decode_rule, found.decode_rule.change
    stock = f"Under its own mask rule (crop margin {_setting(choice.rule)})"
    if choice.setting.of_rule(choice.rule) == choice.rule:
        return f"{stock} masks are best: no other crop margin or logit threshold that was tried draws better ones."
    told = (
        f"{stock} the mean mask IoU of these images is {change.before:.4f}; with crop margin "
        f"{_setting(choice.setting)} it is {change.after:.4f}: {gained(change.gain)}"
    )
    return f"{told}. The rule should be changed." if choice.helps else f"{told}. It may be chance, so the rule stays."


def _setting(setting: MaskRule | DecodeSetting) -> str:
    return f"{setting.crop_margin:.0%} of the box, logit threshold {setting.logit_threshold:g}"


def recipe(found: Tuning) -> list[str]:
    """Return the lines that draw masks under the chosen rule, in maskprism and in Ultralytics' terms.

    None where it stays.
    """
    choice = found.decode_rule
    if not choice.helps:
        return []
    margin, logit = choice.setting
    return [
        "from dataclasses import replace",
        "rule = replace(maskprism.RULES[" + repr(choice.rule.name) + "], "
        f"crop_margin={margin:g}, logit_threshold={logit:g})",
        "model = maskprism.load(MODEL, rule=rule)",
        "# elsewhere: in the place of ops.crop_mask(masks, boxes) and masks > 0 of Ultralytics' process_mask",
        "sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)",
        f"wider = boxes + {margin:g} * sides * torch.tensor([-1, -1, 1, 1])",
        f"masks = ops.crop_mask(resized_logits > {logit:g}, wider)",
    ]


def gained(gain: Interval) -> str:
    """Return a gain with the ends of its interval, where it has any."""
    return signed(gain.mean) if math.isnan(gain.low) else str(gain)


class MaskPair(NamedTuple):
    """An instance before and after the correction: WebP pictures of its mask against the ground truth."""

    row: TunedInstance
    class_name: str
    image: str
    before: bytes
    after: bytes


def report_page(
    found: Tuning, written: Sequence[str], figures: Mapping[str, Illustration], pairs: Sequence[MaskPair]
) -> str:
    """Return the whole page.

    Parameters
    ----------
    written
        What became of the correction, in sentences.
    pairs
        Masks before and after.
    """
    before, after = found.precision
    gain = found.change.gain
    truth = "ground truth" if found.teacher is None else "mask of the teacher"
    return page(
        "tune",
        title=title_of(found),
        subtitle=(
            f"{counted(found.images, 'image')}, {counted(found.change.instances, 'instance')} found with a score above "
            f"{found.conf:g}; all numbers are of images that took no part in what they are measured with"
        ),
        verdict=verdict_of(found),
        warnings=warnings_of(found),
        tiles=[
            ("gain in mean mask IoU", signed(gain.mean)),
            ("gain in mean mask IoU, 95 % interval", _ends(gain)),
            ("mean mask IoU", f"{found.change.before:.4f} → {found.change.after:.4f}"),
            ("mask AP", f"{before.ap:.4f} → {after.ap:.4f}"),
            ("gain in AP, 95 % interval", _ends(found.ap_gain)),
            ("mask AP75", f"{before.ap75:.4f} → {after.ap75:.4f}"),
            ("gain in AP75, 95 % interval", _ends(found.ap75_gain)),
            ("images", str(found.images)),
        ],
        sections=[
            findings(
                f"<li><p>{html.escape(text)}</p></li>" for text in [*sentences(found), *next_steps(found), *written]
            ),
            *([_recipe_section(found)] if found.decode_rule.helps else []),
            *([Section("masks", "Masks before and after", _pairs(pairs, truth))] if pairs else []),
            Section("figures", "Figures", figure_grid(figures)),
            Section("numbers", "Tables", _numbers(found)),
            Section(
                "method",
                "Method",
                definitions(
                    (METHOD if found.teacher is None else {"ground truth": _taught(found.teacher)} | METHOD).items()
                ),
            ),
        ],
    )


def _pairs(pairs: Sequence[MaskPair], truth: str) -> str:
    def picture(data: bytes, when: str, iou: float, pair: MaskPair) -> str:
        alt = html.escape(f"{pair.class_name} in {pair.image} {when} tuning")
        return (
            f'<figure><img src="{data_url("image/webp", data)}" alt="{alt}" loading="lazy">'
            f"<figcaption>{when} {rounded(iou)}</figcaption></figure>"
        )

    items = "".join(
        f'<li><div class="pair">{picture(pair.before, "before", pair.row.before, pair)}'
        f"{picture(pair.after, 'after', pair.row.after, pair)}</div>"
        f"<span>{html.escape(pair.class_name)} {signed(pair.row.after - pair.row.before)}</span>"
        f"{file_name(pair.image)}</li>"
        for pair in pairs
    )
    return (
        '<p class="quiet">The instances that gain most, then those that lose most, with what was fitted without their '
        f'image: <span class="swatch missing"></span> {truth} that the mask leaves out, <span class="swatch extra">'
        f"</span> mask beyond the {truth}; numbers are mask IoU on the model input.</p>"
        f'<ul class="strip pairs">{items}</ul>'
    )


def _recipe_section(found: Tuning) -> Section:
    lines = html.escape("\n".join(recipe(found)))
    return Section("rule", "The mask rule that was chosen", f'<pre tabindex="0"><code>{lines}</code></pre>')


def _ends(gain: Interval) -> str:
    return "too few images" if math.isnan(gain.low) else f"{signed(gain.low)} to {signed(gain.high)}"


def section(found: Tuning, figures: Mapping[str, Illustration]) -> Section:
    """Return what tuning would gain, as a section of another report."""
    said = "".join(f"<p>{html.escape(text)}</p>" for text in [*warnings_of(found), *sentences(found), _HOW])
    return Section("tuning", "What tuning would gain", said + figure_grid(figures))


def _taught(teacher: Model) -> str:
    return (
        f"There are no labels: what {teacher.spec.name} finds with a score above {teacher.keep.conf:g} stands in for "
        "it, box by box and mask by mask, on the canvas that both models see. Sizes of objects are pixels of that "
        "canvas."
    )


def _numbers(found: Tuning) -> str:
    headings = ["", "instances", "before", "after", "gain", "from", "to"]
    precision = ["", "AP", "AP50", "AP75", "recall", "AP small", "AP medium", "AP large"]
    curve = [
        cell(str(images), "text") + "".join(cell(signed(value)) for value in gain) for images, gain in found.curve()
    ]
    return (
        "<h3>Mean mask IoU</h3>"
        + table(headings, [_changed(one) for one in (found.change, *found.gains.by_size())], text=1)
        + "<h3>Mask AP</h3>"
        + table(
            precision, [_precision(*pair) for pair in zip(("before", "after"), found.precision, strict=True)], text=1
        )
        + table(
            ["", "gain", "from", "to"],
            [
                cell(name, "text") + "".join(cell(signed(value)) for value in one)
                for name, one in (("AP", found.ap_gain), ("AP75", found.ap75_gain))
            ],
            text=1,
        )
        + "<h3>By the number of images</h3>"
        + table(["images", "gain", "from", "to"], curve, text=1)
        + "<h3>Classes</h3>"
        + table(headings, [_changed(one) for one in found.gains.by_class()], text=1, sortable=True, tall=True)
        + _settings(found)
    )


def _settings(found: Tuning) -> str:
    """Return what each ridge gains within the folds, and which were chosen."""
    gains = found.fitted.chosen
    views = sorted({one.views for one in gains})
    tried = [
        cell(f"{ridge:g}", "text") + "".join(cell(signed(gains[one])) for one in gains if one.ridge == ridge)
        for ridge in dict.fromkeys(one.ridge for one in gains)
    ]
    own, *folds = (
        f"{one.ridge:g} {_WITH[one.views]}"
        for one in (found.fitted.setting, *(fold.setting for fold in found.fitted.folds))
    )
    return (
        "<h3>Settings that were tried</h3>"
        + table(["ridge", *(f"gain {_WITH[one]} augmented views" for one in views)], tried, text=1)
        + f"<p>Chosen: ridge {own} augmented views; for the folds, one after the other, {', '.join(folds)}.</p>"
    )


def _changed(one: Change) -> str:
    values = [f"{one.before:.4f}", f"{one.after:.4f}", *(signed(value) for value in one.gain)]
    return cell(one.group, "text") + cell(str(one.instances)) + "".join(cell(value) for value in values)


def _precision(name: str, one: AveragePrecision) -> str:
    return row(name, (one.ap, one.ap50, one.ap75, one.recall, *one.by_size.values()))
