"""The page of suspicious labels: one HTML file to look at them and decide, offline, without a server or other files."""

from __future__ import annotations

import hashlib
import html
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskprism import __version__
from maskprism._common.text import counted, readable
from maskprism.analysis.intervals import claimed_interval
from maskprism.analysis.labels.study import NEEDLESS
from maskprism.analysis.labels.suspicion import MIN_CALIBRATED, SUSPICIOUS
from maskprism.analysis.truth.matching import FOUND_IOU
from maskprism.analysis.verdicts import Check, Verdict
from maskprism.core.geometry import box_iou
from maskprism.datasets.coco import RunLengths, bitmap_of
from maskprism.datasets.decisions import DECISIONS_FORMAT, LabelAction
from maskprism.drawing.label_crops import label_crop
from maskprism.errors import MaskprismError
from maskprism.reports.html import Section, cell, definitions, page, table
from maskprism.viewer.markup import data_url, script_json
from maskprism.viewer.payload import encode_webp

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64, UInt8

    from maskprism.analysis.labels.study import JudgedLabel, LabelReport
    from maskprism.datasets import Dataset, GroundTruth
    from maskprism.drawing.label_crops import LabelCrop, OutlineName

CROP_SIDE = 400
"""Crops are shrunk to at most this number of pixels a side."""
_OUTLINES: dict[OutlineName, str] = {
    "label": "label",
    "prediction": "best prediction",
    "suggestion": "suggested mask (dashed)",
}
_WARNING = "warning: "
_MOST_TWINS = 50
VERDICT_SUSPICION = 0.9
"""Only labels from this suspicion on count for the verdict: of those from SUSPICIOUS on most are right."""
MAX_SUSPICIOUS = 0.02
"""The tolerance of the verdict: the share of labels that may be that suspicious."""
_METHOD = {
    "suspicion": (
        "From 0 to 1, learned from corrupted copies of these labels, on images that were not learned from. Where that "
        "is not surely better than 1 - mask IoU with the best detection, that is the suspicion."
    ),
    "suggestion": (
        "The detection of its class that overlaps it most, unless that is the object of another label; where there is "
        "none, the mask that the prototypes draw best for the label. For a hole it is the label without holes, for "
        "merged objects the label without other labels that lie in it. For a wrong class it is the class of the "
        "detection, for a spurious label or a duplicate to delete it, for a missing label to add the detection."
    ),
    "decisions": (
        "They are kept in this browser. Export them, and have them written into a copy of the data set: "
        "maskprism labels DATA --apply decisions.json --write FOLDER"
    ),
}


class Remedy(NamedTuple):
    """What the page suggests for a label, as `LabelDecision` has it; `words` is the text of its button."""

    action: LabelAction
    words: str
    category: int | str | None = None
    mask: Mapping[str, Any] | None = None

    def fields(self) -> dict[str, Any]:
        """Return what a decision holds beside the label."""
        given = {"action": self.action, "category": self.category, "mask": self.mask}
        return {name: value for name, value in given.items() if value is not None}


class TwinImages(NamedTuple):
    """Two images of different splits that are the same, and how that is known."""

    name: str
    other: str
    how: str


class LabelCard(NamedTuple):
    """One label on the page; the crop is None where its image cannot be read any more."""

    row: JudgedLabel
    remedy: Remedy | None
    crop: LabelCrop | None


def remedy_of(row: JudgedLabel, dataset: Dataset) -> Remedy | None:
    """Return what to do with a label; None where nothing can be suggested.

    Parameters
    ----------
    row
        The label.
    dataset
        Whose categories are suggested: those of the file, by the class ids of the model.
    """
    categories = {class_id: category for category, class_id in reversed(list(dataset.class_ids.items()))}
    if row.label_id is None:
        category = categories.get(row.class_id)
        return None if category is None else Remedy("add", "add this label", category, row.suggestion)
    if row.kind in NEEDLESS:
        return Remedy("delete", "delete the label")
    if row.kind == "wrong class":
        category = None if row.suggested_class is None else categories.get(row.suggested_class)
        if row.suggested_class is None or category is None:
            return None
        return Remedy("reclassify", f"change the class to {dataset.names[row.suggested_class]}", category)
    return Remedy("replace", "replace the mask", mask=row.suggestion) if row.suggestion is not None else None


def label_cards(rows: Sequence[JudgedLabel], dataset: Dataset) -> list[LabelCard]:
    """Cut the labels out of their images.

    Parameters
    ----------
    rows
        The labels, in the order of the page.
    dataset
        The images with their labels, with the class ids of the model.
    """
    by_image: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        by_image.setdefault(row.image, []).append(number)
    cards = {number: LabelCard(row, remedy_of(row, dataset), None) for number, row in enumerate(rows)}
    for own in by_image.values():
        for number in _second_of_pairs([rows[number] for number in own]):
            cards[own[number]] = cards[own[number]]._replace(remedy=None)
    for sample in dataset:
        if sample.name not in by_image:
            continue
        try:
            image, truth = sample.read()
            patches = list(truth.patches("image"))
        except MaskprismError:  # it was there when its labels were judged
            continue
        for number in by_image[sample.name]:
            label = np.zeros(truth.image_hw, dtype=bool)
            if (place := _place(rows[number].label_id, truth)) is not None:
                label[patches[place].rows, patches[place].columns] = patches[place].values
            cards[number] = cards[number]._replace(crop=_crop(image, label, cards[number]))
    return [cards[number] for number in range(len(rows))]


def _second_of_pairs(rows: Sequence[JudgedLabel]) -> Iterator[int]:
    """Find labels of an image for which an earlier one makes up: to accept both would lose or double an object.

    Of labels that are duplicates of each other one is deleted; of the parts of a split object one gets the whole mask.
    """
    for number, row in enumerate(rows):
        for other in rows[:number]:
            both = row.kind == other.kind
            overlap = box_iou(*(np.array([one.box], dtype=np.float32) for one in (row, other))).item()
            if (both and row.kind == "duplicate" and overlap > FOUND_IOU) or (
                both and row.kind == "split" and row.instance == other.instance >= 0
            ):
                yield number
                break


def _place(label_id: int | str | None, truth: GroundTruth) -> int | None:
    """Return which instance of the ground truth a label is; one that was left out is the one that it repeats."""
    label_id = dict(truth.repeats).get(label_id, label_id) if label_id is not None else None
    return truth.label_ids.index(label_id) if label_id in truth.label_ids else None


def _crop(image: UInt8[np.ndarray, "H W 3"], label: Bool[np.ndarray, "H W"], card: LabelCard) -> LabelCrop:
    row, image_hw = card.row, (image.shape[0], image.shape[1])
    masks: dict[OutlineName, Bool[np.ndarray, "H W"]] = {"label": label} if label.any() else {}
    suggested = row.suggestion if row.suggested_by == "prediction" else None
    predicted = suggested if row.prediction is None else row.prediction
    if predicted is not None:
        masks["prediction"] = _bitmap(predicted, image_hw)
    if card.remedy is not None and card.remedy.mask is not None:
        masks["suggestion"] = _bitmap(card.remedy.mask, image_hw)
    return label_crop(image, row.box, masks, side=CROP_SIDE)


def _bitmap(rle: Mapping[str, Any], image_hw: tuple[int, int]) -> Bool[np.ndarray, "H W"]:
    height, width = rle["size"]
    return bitmap_of(RunLengths((height, width), rle["counts"]), image_hw)


def verdict_of(report: LabelReport) -> Verdict:
    """Return whether the labels are good enough: the share of suspicious ones, with its interval over images."""
    if not report.suspicion.calibrated:
        return Verdict(
            "cannot tell", f"fewer than {MIN_CALIBRATED} images are too few to calibrate suspicions, and for a verdict"
        )
    if report.suspicion.score != "learned":
        return Verdict("cannot tell", "suspicions are 1 - mask IoU, and a low one may be a mistake of the model")
    judged = [row for row in report.rows if row.label_id is not None and not np.isnan(row.suspicion)]
    suspicious = np.array([float(row.suspicion >= VERDICT_SUSPICION) for row in judged])
    share = claimed_interval(suspicious, [row.image for row in judged])
    what = f"share of labels with a suspicion of {VERDICT_SUSPICION} or more"
    check = Check.of(what, share, "at most", MAX_SUSPICIOUS)
    why = {
        "pass": "few labels are very suspicious",
        "fail": "more labels are very suspicious than the tolerance allows: look at them",
        "cannot tell": "the interval of the share of very suspicious labels holds the tolerance",
    }
    return Verdict(check.outcome, why[check.outcome], [check])


def labels_page(
    report: LabelReport,
    dataset: Dataset,
    cards: Sequence[LabelCard],
    notes: Sequence[str],
    splits: Mapping[str, str] | None = None,
    twins: Sequence[TwinImages] = (),
) -> str:
    """Return the whole page.

    Parameters
    ----------
    report
        The judged labels.
    dataset
        The images with their labels, with the class ids of the model.
    cards
        The labels that are shown, the most suspicious first.
    notes
        Sentences about how labels were judged; those that begin with "warning: " come first.
    splits
        The split of each image by its name. Default: the data set has none.
    twins
        Images that are in two splits.
    """
    splits = splits or {}
    suspicious = [row for row in report.rows if row.suspicion >= SUSPICIOUS]
    head = {
        "format": DECISIONS_FORMAT,
        "command": "labels",
        "maskprism": __version__,
        "data": readable(dataset.path.name),
        "split": dataset.split,
    }
    described = [{"label": _label_fields(card.row), "remedy": card.remedy and card.remedy.fields()} for card in cards]
    digest = hashlib.sha256(script_json([str(dataset.path.resolve()), head, described]).encode()).hexdigest()
    data = script_json({"key": f"maskprism-labels-{digest[:24]}", "head": head, "cards": described})
    warnings, others = ([note for note in notes if note.startswith(_WARNING) == first] for first in (True, False))
    shown = "" if len(cards) == len(suspicious) else f" The page shows the first {len(cards)}."
    missing = sum(row.label_id is None for row in suspicious)
    return page(
        "labels",
        title=f"Suspicious labels of {dataset.path.resolve().parent.name}"
        + (f" ({dataset.split})" if dataset.split else ""),
        subtitle=f"{counted(len(suspicious) - missing, 'label')} and {counted(missing, 'detection')} without a label "
        f"with a suspicion of {SUSPICIOUS} or more, the most suspicious first.{shown}",
        verdict=verdict_of(report),
        warnings=[_sentence(note.removeprefix(_WARNING)) for note in warnings],
        tiles=[
            ("images", str(report.n_images)),
            ("labels", str(report.n_labels)),
            ("suspicious labels", str(len(suspicious) - missing)),
            ("detections without a label", str(missing)),
        ],
        sections=[
            Section("labels", "Labels", _tools(cards, splits) + _grid(cards, splits)),
            *([Section("twins", "Images in two splits", _twins(twins))] if twins else []),
            Section(
                "method",
                "How labels were judged",
                "".join(f"<p>{html.escape(_sentence(note))}</p>" for note in others) + definitions(_METHOD.items()),
            ),
        ],
        scenes=f'<script type="application/json" id="maskprism-labels">{data}</script>',
        application="labels",
    )


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."


def _label_fields(row: JudgedLabel) -> dict[str, Any]:
    """Return what tells a label from others."""
    box = [round(float(side), 2) for side in row.box]
    return {"image": row.image, "label_id": row.label_id, "box": box, "kind": row.kind}


def _twins(twins: Sequence[TwinImages]) -> str:
    rows = (
        "".join(cell(text, "text") for text in (readable(twin.name), readable(twin.other), twin.how)) for twin in twins
    )
    more = f"<p>And {len(twins) - _MOST_TWINS} more.</p>" if len(twins) > _MOST_TWINS else ""
    return table(("image", "in another split", "how"), islice(rows, _MOST_TWINS), text=3) + more


def _tools(cards: Sequence[LabelCard], splits: Mapping[str, str]) -> str:
    kinds = Counter(card.row.kind for card in cards)
    classes = Counter(card.row.class_name for card in cards)
    ids = {card.row.class_name: card.row.class_id for card in cards}
    selects = _select("kind", "Kind", "all kinds", kinds) + _select("class", "Class", "all classes", classes, ids)
    of_splits = Counter(splits.get(card.row.image, "") for card in cards)
    if len(set(splits.values())) > 1:
        selects += _select("split", "Split", "all splits", of_splits)
    selects += (
        '<label>Decision <select name="state"><option value="">all</option><option value="open">not yet decided'
        '</option><option value="decided">decided</option></select></label>'
    )
    legend = "".join(
        f'<label><input type="checkbox" value="{name}" checked>'
        f'<svg viewBox="0 0 34 10" aria-hidden="true"><path class="casing" d="M0 5H34"/>'
        f'<path class="{name}" d="M0 5H34"/></svg> {words}</label>'
        for name, words in _OUTLINES.items()
    )
    return (
        f'<div class="label-tools">{selects}'
        f'<fieldset class="legend" aria-label="Outlines">{legend}</fieldset>'
        '<p id="count" class="quiet" role="status"></p>'
        '<button type="button" id="export">Export decisions.json</button></div>'
        '<p class="quiet">Keys: <kbd>A</kbd> accept the suggestion, <kbd>K</kbd> keep the label, <kbd>D</kbd> delete '
        "it, <kbd>S</kbd> skip, <kbd>B</kbd> back. The same decision again takes it back.</p>"
        '<p id="not-saved" class="warning" hidden>This browser keeps nothing for this page: export the decisions '
        "before you close it.</p>"
    )


def _select(name: str, title: str, every: str, options: Mapping[str, int], ids: Mapping[str, int] | None = None) -> str:
    inner = "".join(
        f'<option value="{html.escape(option)}" data-id="{ids[option] if ids else ""}">'
        f"{html.escape(option)} ({number})</option>"
        for option, number in sorted(options.items())
    )
    return f'<label>{title} <select name="{name}"><option value="">{every}</option>{inner}</select></label>'


def _grid(cards: Sequence[LabelCard], splits: Mapping[str, str]) -> str:
    inner = "\n".join(_card(number, card, splits.get(card.row.image, "")) for number, card in enumerate(cards))
    none = " hidden" if cards else ""
    return f'<div id="cards">{inner}</div><p id="none"{none}>There is no such label.</p>'


def _card(number: int, card: LabelCard, split: str) -> str:
    row, escape = card.row, html.escape
    label = "no label" if row.label_id is None else f"label {row.label_id}"
    return (
        f'<article class="label-card" tabindex="-1" data-number="{number}" data-kind="{escape(row.kind)}" '
        f'data-class="{escape(row.class_name)}" data-split="{escape(split)}" aria-labelledby="card-{number}">'
        f"{_picture(card)}"
        f'<h3 id="card-{number}">{escape(row.kind)} <span class="quiet">{escape(row.class_name)}, suspicion '
        f"{row.suspicion:.2f}</span></h3>"
        f'<p class="reason">{escape(row.reason)}</p>'
        f'<p class="quiet">{escape(readable(row.image))}, {escape(label)}</p>'
        f'<div class="choices" role="group" aria-label="Decision">{"".join(_buttons(card))}</div></article>'
    )


def _buttons(card: LabelCard) -> Iterator[str]:
    missing = card.row.label_id is None
    if card.remedy is not None:
        yield _button("accept", f"Accept: {card.remedy.words}", "A")
    else:
        yield '<p class="quiet">There is no suggestion: keep or delete the label.</p>'
    yield _button("keep", "No label" if missing else "Keep", "K")
    if not missing:
        yield _button("delete", "Delete", "D")
    yield _button("skip", "Skip", "S", pressed="")


def _button(value: str, words: str, key: str, pressed: str = ' aria-pressed="false"') -> str:
    return f'<button type="button" value="{value}"{pressed}>{html.escape(words)} <kbd>{key}</kbd></button>'


def _picture(card: LabelCard) -> str:
    if card.crop is None:
        return '<p class="quiet">Its image cannot be read any more.</p>'
    height, width = card.crop.picture.shape[:2]
    words = html.escape(
        f"{card.row.class_name} in {readable(card.row.image)}, with outlines of "
        + (", ".join(_OUTLINES[name].removesuffix(" (dashed)") for name in card.crop.outlines) or "nothing")
    )
    paths = [(name, _path(rings)) for name, rings in card.crop.outlines.items()]
    picture = data_url("image/webp", encode_webp(card.crop.picture, CROP_SIDE)[0])
    return (
        f'<svg class="crop" viewBox="0 0 {width} {height}" role="img" aria-label="{words}">'
        f'<image href="{picture}" width="{width}" height="{height}"/>'
        + "".join(f'<path class="casing of-{name}" d="{path}"/>' for name, path in paths)
        + "".join(f'<path class="{name} of-{name}" d="{path}"/>' for name, path in paths)
        + "</svg>"
    )


def _path(rings: Iterable[Int64[np.ndarray, "V 2"]]) -> str:
    return "".join("M" + " ".join(f"{x},{y}" for x, y in ring.tolist()) + "Z" for ring in rings)
