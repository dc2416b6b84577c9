"""A diagnosis as one HTML file that explains itself, offline, without a server or other files."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import numpy as np

from maskprism._common.text import counted
from maskprism.analysis.dataset.ap_protocols import AP_PROTOCOLS
from maskprism.analysis.dataset.diagnosis import Diagnosis
from maskprism.analysis.dataset.findings import FOR_SURE, RULES, Finding
from maskprism.analysis.intervals import LEVEL, MIN_IMAGES, Interval, too_few
from maskprism.analysis.truth.error_budget import BESIDE, PARTS, InstanceBudget
from maskprism.analysis.truth.matching import ERROR_TYPES, MATCHING_RULE, MEANING
from maskprism.analysis.verdicts import Check, Verdict
from maskprism.drawing.diagnosis import DETECTION_TITLE, STEP_TITLES
from maskprism.reports.embedded_viewers import Embedded
from maskprism.reports.error_cards import ErrorCards
from maskprism.reports.html import Illustration, Section, definitions, file_name, page
from maskprism.reports.html import cell as _cell
from maskprism.reports.html import figures as figure_grid
from maskprism.reports.html import findings as findings_section
from maskprism.reports.html import number as _number
from maskprism.reports.html import row as _row
from maskprism.reports.html import table as _table
from maskprism.viewer.markup import data_url

if TYPE_CHECKING:
    from maskprism.analysis.dataset.coco_ap import AveragePrecision
    from maskprism.analysis.dataset.findings import FigureName

MASK_COST = 0.05
"""The tolerance of the verdict: the AP that masks may cost, averaged over both orders."""
_LISTED = 50
_CARDS: dict[str, tuple[str, str, str]] = {
    "missed": ("missed", "See the missed instances", "?show=missed"),
    "errors": ("errors", "See what went wrong", "?show=false-positives"),
    "score": ("false-positives", "See the false positives", "?show=false-positives"),
}
"""Per rule the section with its cards, and the filter of the server's gallery; of other rules, the worst masks."""
_SORTED = {"box": "box", "size": "size"}
"""By what rules about one column sort the worst masks; others by IoU, and that about a part by this part."""
_COLUMNS = {"iou": "IoU", "size": "area"}
"""What the gallery sorts by, as headings of the table of the worst masks; parts have one name."""
_SERVER = "http://127.0.0.1:8000/"
"""Where `maskprism serve` listens by default."""
_LISTED_WHERE = "they are listed under Tables in report.html"
METHOD = {
    "mask AP": (
        "COCO's: mean over classes and over the IoU thresholds .50 to .95, at most 100 detections of a class in an "
        "image. Classes without a ground-truth instance do not count."
    ),
    "decodes": (
        "The same coefficients and prototypes, made into masks in three places. "
        + ". ".join(f"{decode.tool}: {decode.meaning}" for decode in AP_PROTOCOLS.values())
        + "."
    ),
    "error budget": (
        "Per ground-truth instance that a detection of its class found (box IoU of .5 or more, best score first), at "
        "the size of the model input: what rounding its mask to the prototype grid costs (resolution), what the crop "
        "to the predicted box costs beyond that (box), what the best possible coefficients still cannot draw "
        "(prototypes), and the rest down to the mask that was predicted (coefficients). The four add up to 1 - IoU."
    ),
    "additional measurements": (
        "IoU of the same masks cropped by the ground-truth box, without a crop, and at the best threshold of each; "
        "IoU of the bands along the outlines (2 % of the diagonal wide) and of what lies further inside; and the share "
        "of a ring around the box, a quarter of its sides wide, that only the crop keeps out of the mask."
    ),
    "if parts were perfect": (
        "The masks of matched detections are replaced by those of the stages of the error budget; scores, classes and "
        "all other detections stay."
    ),
    "masks or detection": (
        "AP with perfect masks: every instance that a box finds has its ground-truth mask. AP with perfect detection: "
        "every ground-truth instance is detected once, with its class and box, nothing else is detected, and the best "
        "masks come first; its mask is the one that was drawn for it, cropped by the ground-truth box. A missed "
        "instance counts as drawn as well as the found instance most like it, of its class and nearest in area. What "
        "masks and what detection cost is the mean over both orders of making them perfect (Shapley value); both add "
        "up to 1 - AP."
    ),
    "intervals": (
        f"{LEVEL:.0%}, by bootstrap over images, since instances of one image are not independent. AP is computed anew "
        "for each resample; a resample has fewer different images, which raises AP a little, and that shift is taken "
        f"out. {FOR_SURE}"
    ),
    "kinds of errors": (
        "TIDE in mask mode (Bolya et al., ECCV 2020): what AP50 would gain if all errors of one kind were fixed. The "
        "gains do not add up."
    ),
}


_WORST = """<p class="quiet">Of the instances that were found: <span class="swatch missing"></span> ground truth that
the mask leaves out, <span class="swatch extra"></span> mask beyond the ground truth; the white line is the outline of
the ground truth. "True box" and "threshold" are the IoU with that box for the crop, and with the best
threshold. Press a heading to sort.</p>
"""
BESIDE_WORDS = ("ground-truth box", "no crop", "best threshold", "boundary IoU", "interior IoU", "leak")
"""Headings for the columns of BESIDE."""


def report_page(
    found: Diagnosis,
    findings: Sequence[Finding],
    figures: Mapping[FigureName, Illustration],
    worst: Sequence[tuple[InstanceBudget, bytes | None]],
    cards: ErrorCards,
    embedded: Embedded,
    more: Sequence[Section] = (),
) -> str:
    """Return the whole page.

    Parameters
    ----------
    worst
        Instances with small pictures of them (WebP), where there are any.
    cards
        What was missed, is a false positive, or has the wrong class.
    more
        Further sections.
    embedded
        Scenes in which these instances are opened.
    """
    return page(
        "diagnose",
        title=f"{found.spec.name} on {title_of(found)}",
        subtitle=_subtitle(found),
        verdict=verdict_of(found),
        warnings=warnings_of(found),
        tiles=_tiles(found),
        sections=[
            *([] if too_few(found.images) else [_findings(findings, figures, found)]),
            *more,
            Section("figures", "Figures", figure_grid(figures)),
            cards.section(found, embedded),
            Section("worst", "Worst masks", _worst(worst, embedded)),
            Section("classes-table", "Classes", _classes_table(found)),
            Section("numbers", "Tables", _numbers(found)),
            Section("method", "Method", _method()),
        ],
        scenes=embedded.elements,
    )


def _findings(findings: Sequence[Finding], figures: Mapping[FigureName, Illustration], found: Diagnosis) -> Section:
    items = [_finding(one, figures, found) for one in findings]
    return findings_section(items or ["<li>No rule finds anything that is surely wrong.</li>"])


def title_of(found: Diagnosis) -> str:
    """Return the data set by the name of its folder and split."""
    path = found.dataset.path.resolve()
    name = path.parent.name if path.suffix.lower() in (".yaml", ".yml") else path.stem
    return name + (f" ({found.dataset.split})" if found.dataset.split else "")


def warnings_of(found: Diagnosis) -> list[str]:
    """Return what a reader must know before the numbers."""
    said = []
    if found.interrupted:
        said.append(f"Interrupted: this is about {found.images} of {found.total} images.")
    if too_few(found.images):
        said.append(
            f"Only {counted(found.images, 'image')}: with fewer than {MIN_IMAGES} the numbers may be chance, so there "
            "are no intervals, no findings and no advice. Take more images."
        )
    said += [f"{notice[0].upper()}{notice[1:]}." for notice in found.dataset.notices]
    if found.unknown_classes:
        said.append(
            f"The model does not know {len(found.unknown_classes)} of the data set's classes, and their instances are "
            f"left out: {_some(found.unknown_classes)}."
        )
    if found.failures:
        said.append(f"{counted(len(found.failures), 'image')} could not be examined; {_LISTED_WHERE}.")
    if found.remarks:
        said.append(f"{counted(len(found.remarks), 'remark')} about labels; {_LISTED_WHERE}.")
    if not found.objects:
        said.append(
            "Nothing in these images is labelled with a mask, crowds aside: the report says nothing about the masks of "
            "the model."
        )
    elif not len(found.budget):
        said.append(f"No detection with a score above {found.conf:g} lies on a ground-truth instance of its class.")
    return said


def verdict_of(found: Diagnosis) -> Verdict:
    """Return whether the masks are good enough: what they cost of AP, with its interval, against `MASK_COST`."""
    cost = found.intervals.masks
    check = Check.of("AP that masks cost", cost, "at most", MASK_COST)
    if too_few(found.images) or check.low is None:
        return Verdict("cannot tell", f"fewer than {MIN_IMAGES} images are too few for a verdict")
    why = {
        "pass": "masks cost little: what is missing to an AP of 1 is detection",
        "fail": "masks cost more than the tolerance, besides what detection costs",
        "cannot tell": "the interval of what masks cost holds the tolerance: take more images",
    }
    return Verdict(check.outcome, why[check.outcome], [check])


def size_of(found: Diagnosis) -> str:
    """Return how many images and ground-truth instances a diagnosis is about."""
    return f"{counted(found.images, 'image')}, {counted(len(found.objects), 'ground-truth instance')}"


def _subtitle(found: Diagnosis) -> str:
    return f"{size_of(found)}; {outcome_of(found)}"


def outcome_of(found: Diagnosis) -> str:
    """Return how many true positives, missed instances and false positives there are."""
    return (
        f"{len(found.budget)} found, {found.missed} missed, {counted(found.false_positives, 'false positive')} "
        f"(detections with a score above {found.conf:g})"
    )


def _tiles(found: Diagnosis) -> list[tuple[str, str]]:
    sure = found.intervals
    mean = found.budget.mean() if len(found.budget) else None
    return [
        ("mask mAP50-95 @input size", _number(found.precision["predict"].ap)),
        *_ends("mask mAP50-95 @input size, 95 % interval", sure.precision["predict"]),
        ("mask mAP50 @input size", _number(found.precision["predict"].ap50)),
        ("mask mAP50-95 @proto grid (Ultralytics val)", _number(found.precision["validation"].ap)),
        ("box mAP50-95", _number(found.precision["boxes"].ap)),
        ("mAP that masks cost", _number(sure.masks.mean)),
        ("mAP that detection costs", _number(sure.detection.mean)),
        ("mean mask IoU of TPs", _number(mean.iou if mean else float("nan"))),
    ]


def _ends(name: str, interval: Interval) -> list[tuple[str, str]]:
    """Return the ends of an interval as a tile; none, where there are too few images."""
    return [] if np.isnan(interval.low) else [(name, f"{_number(interval.low)} to {_number(interval.high)}")]


def _between(interval: Interval | None) -> str:
    """Return the ends of an interval in a cell of a table."""
    if interval is None or np.isnan(interval.low):
        return "too few images"
    return f"{_number(interval.low)} to {_number(interval.high)}"


def _finding(finding: Finding, figures: Mapping[FigureName, Illustration], found: Diagnosis) -> str:
    links = [f'<a href="#figure-{finding.figure}">See the figure</a>'] if finding.figure in figures else []
    if finding.rule in _CARDS:
        anchor, words, query = _CARDS[finding.rule]
        links.append(f'<a href="#{anchor}">{words}</a>')
    else:
        sort = found.budget.leading().part if finding.rule == "part" else _SORTED.get(finding.rule, "iou")
        column, order = _COLUMNS.get(sort, sort), "descending" if sort in PARTS else "ascending"
        query = f"?sort={sort}"
        words = f"See the worst masks, sorted by {column}"
        links.append(f'<a href="#worst" data-sort="{column}" data-order="{order}">{words}</a>')
    links.append(f'<a class="in-gallery" data-gallery="{query}" hidden>Show them in the gallery</a>')
    return (
        f'<li id="rule-{finding.rule}"><p>{html.escape(finding.says)}</p>'
        f'<p class="advice">{html.escape(finding.advice)} {" ".join(links)}</p></li>'
    )


def _worst(worst: Sequence[tuple[InstanceBudget, bytes | None]], embedded: Embedded) -> str:
    """Return the table with what a reader must know of it."""
    rest = any(row.image not in embedded.names for row, _ in worst)
    said = "<p>Press a picture to take its mask apart in the viewer.</p>" if embedded.names else ""
    if rest:
        other = "The other names" if embedded.names else "Names of images"
        said += (
            f'<p class="quiet">{other} lead to the server, once it runs over the folder that they start from: '
            "<code>maskprism serve FOLDER --data DATA --model MODEL</code></p>"
        )
    return _WORST + said + _worst_table(worst, embedded)


def _worst_table(worst: Sequence[tuple[InstanceBudget, bytes | None]], embedded: Embedded) -> str:
    if not worst:
        return "<p>There is none to show.</p>"
    rows = []
    for row, picture in worst:
        alt = html.escape(f"{row.class_name} in {row.image}")
        image = f'<img src="{data_url("image/webp", picture)}" alt="{alt}" loading="lazy">' if picture else ""
        address = html.escape(embedded.address(row.image, row.instance))
        query = html.escape(urlencode({"image": row.image, "i": row.instance}))
        name = file_name(row.image)
        if address and image:
            image = f'<a class="open" href="{address}" data-gallery="?{query}" title="Open in the viewer">{image}</a>'
        elif not address:
            name = f'<a href="{_SERVER}?{query}" data-gallery="?{query}">{name}</a>'
        most = max(PARTS, key=lambda part: getattr(row, part))
        rows.append(
            f'<td class="picture">{image}</td>{_cell(row.class_name, "text")}'
            f'<td class="text name">{name}</td>'
            f"{_cell(f'{row.score:.2f}')}{_cell(str(row.area))}"
            f"{_cell(_number(row.iou))}"
            + "".join(_cell(_number(getattr(row, part)), "most" if part == most else "") for part in PARTS)
            + _cell(_number(row.true_box_iou))
            + _cell(_number(row.threshold_iou))
        )
    headings = ["class", "image", "score", "area", "IoU", *PARTS, "true box", "threshold"]
    return _table(["", *headings], rows, sortable=True, text=3, tall=True)


def _classes_table(found: Diagnosis) -> str:
    means = {mean.group: mean for mean in found.budget.means("class_name")} if len(found.budget) else {}
    sure = found.intervals
    rows = []
    for class_id, precision in found.precision["predict"].by_class.items():
        name = found.dataset.names.get(class_id, f"class{class_id}")
        mean = means.get(name)
        parts = [_number(getattr(mean, part) if mean else float("nan")) for part in PARTS]
        counts = [
            str(count) for count in (sure.class_images[class_id], precision.objects, mean.instances if mean else 0)
        ]
        rows.append(
            _cell(name, "text")
            + "".join(_cell(str(count)) for count in counts)
            + _cell(_number(precision.ap))
            + _cell(_between(sure.by_class.get(class_id)))
            + _cell(_number(precision.ap50))
            + _cell(_number(mean.iou if mean else float("nan")))
            + _cell(_between(mean.intervals["iou"] if mean else None))
            + "".join(map(_cell, parts))
        )
    headings = [
        "class",
        "images",
        "instances",
        "found",
        "AP",
        "its interval",
        "AP50",
        "mean IoU",
        "its interval",
        *PARTS,
    ]
    return (
        f'<p class="quiet">A class in fewer than {MIN_IMAGES} images has no interval: its numbers may be chance. '
        "The intervals of AP hold for all classes together.</p>"
        + _table(headings, rows, sortable=True, text=1, tall=True)
    )


def _numbers(found: Diagnosis) -> str:
    sure = found.intervals

    def precision(name: str, one: AveragePrecision, interval: Interval | None = None) -> str:
        ends = "–" if interval is None else _between(interval)
        rest = (one.ap50, one.ap75, one.recall, *one.by_size.values())
        return _row(name, (one.ap,)) + _cell(ends) + "".join(_cell(_number(value)) for value in rest)

    decodes = [
        precision(f"masks, {decode.tool}", found.precision[name], sure.precision[name])
        for name, decode in AP_PROTOCOLS.items()
    ]
    decodes.append(precision("boxes", found.precision["boxes"], sure.precision["boxes"]))
    known = {"as predicted": sure.precision["predict"], "resolution": sure.perfect_masks}
    perfect = [precision(STEP_TITLES[step], one, known.get(step)) for step, one in found.perfect.items()]
    alone = [precision(STEP_TITLES[step], one) for step, one in found.alone.items()]
    alone.append(precision(DETECTION_TITLE, found.perfect_detection, sure.perfect_detection))
    lost = (("masks", sure.masks), ("detection", sure.detection), ("masks minus detection", sure.difference))
    errors = [
        _cell(kind, "text")
        + _cell(MEANING[kind], "text wrap")
        + _cell(f"{found.errors.gain[kind]:+.4f}")
        + _cell(_between(sure.errors[kind]))
        + _cell(str(found.shown[kind]))
        + _cell(str(found.errors.counts[kind]))
        for kind in ERROR_TYPES
    ]
    headings = ["AP", "its interval", "AP50", "AP75", "recall", "AP small", "AP medium", "AP large"]
    return (
        "<h3>Average precision</h3>"
        + _table(["", *headings], decodes, text=1)
        + "<h3>What masks and detection cost, over both orders</h3>"
        + _table(
            ["", "AP", "its interval"],
            [_row(name, (one.mean,)) + _cell(_between(one)) for name, one in lost],
            text=1,
        )
        + "<h3>Mask AP (predict) if parts were perfect, one after the other</h3>"
        + _table(["perfect up to", *headings], perfect, text=1)
        + "<h3>Mask AP (predict) if one part alone were perfect</h3>"
        + _table(["perfect", *headings], alone, text=1)
        + (_budget_tables(found) if len(found.budget) else "")
        + "<h3>Kinds of errors</h3>"
        + f"<p>Those above {found.conf:g} are counted by boxes: {html.escape(MATCHING_RULE)} The gain and the count of "
        + "all detections are those of TIDE, by the IoU of masks.</p>"
        + _table(["kind", "meaning", "AP50 to gain", "its interval", f"above {found.conf:g}", "all"], errors, text=2)
        + _listing("image", "could not be examined", [f"{one.name}: {one.message}" for one in found.failures])
        + _listing("remark", "about labels", found.remarks)
    )


def _budget_tables(found: Diagnosis) -> str:
    """Return the budget of the instances found in both orders, and additional measurements, over all and by size."""
    means, beside = [found.budget.mean(), *found.budget.means("size")], found.budget.means_beside()
    rows = []
    for one in means:
        rows.append(_row(f"{one.group} ({one.instances})", (one.iou, *(getattr(one, part) for part in PARTS))))
        rows.append(_cell("its interval", "text") + "".join(_cell(_between(end)) for end in one.intervals.values()))
    dual = (beside["all"][f"dual_{part}"] for part in PARTS)
    rows.append(_row("all, the box put right first", (means[0].iou, *dual)))
    common, reached = found.budget.common_threshold()
    others = [_row(group, [values[column] for column in BESIDE]) for group, values in beside.items()]
    return (
        "<h3>Error budget of the instances found</h3>"
        + _table(["", "mean IoU", *PARTS], rows, text=1)
        + "<h3>Additional measurements</h3>"
        + _table(["", *BESIDE_WORDS], others, text=1)
        + f"<p>Of the common thresholds tried, {common:.2f} (probability) gives the largest mean IoU, {reached:.3f} "
        + f"against {means[0].iou:.3f}. The gain is {found.budget.common_threshold_gain().plain()}"
        + ("" if found.budget.common_threshold_gain().excludes() else ": it may be chance")
        + ".</p>"
    )


def _listing(noun: str, rest: str, lines: Sequence[str]) -> str:
    if not lines:
        return ""
    more = [f"... and {len(lines) - _LISTED} more, in summary.json"] if len(lines) > _LISTED else []
    items = "".join(f"<li>{html.escape(line)}</li>" for line in [*lines[:_LISTED], *more])
    return f"<details><summary>{counted(len(lines), noun)} {rest}</summary><ul>{items}</ul></details>"


def _method() -> str:
    return definitions([*METHOD.items(), *((f"finding: {rule}", f"{when}.") for rule, when in RULES.items())])


def _some(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
