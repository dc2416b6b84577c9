"""Decisions about labels: what `labels.html` exports, and what a corrected data set is written from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from maskprism.datasets.coco import RunLengths
from maskprism.errors import InputError
from maskprism.io.untrusted import decode_json, read_regular, shortened

DECISIONS_FORMAT: Literal[1] = 1
MOST_BYTES = 64 << 20
"""Larger files of decisions were not exported by a page."""
LabelAction = Literal["replace", "reclassify", "add", "delete", "keep"]
"""Another mask, another class, a new label, no label any more, or no change."""
Text = Annotated[str, Meta(max_length=4096)]
_NEEDS: dict[LabelAction, tuple[str, ...]] = {
    "replace": ("label_id", "mask"),
    "reclassify": ("label_id", "category"),
    "add": ("category", "mask"),
    "delete": ("label_id",),
    "keep": (),
}


class LabelDecision(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """What to change in one label.

    Attributes
    ----------
    image
        The image, as the data set names it.
    label_id
        The annotation id, or the line of the label file from 0; None for a detection without a label.
    box
        x1, y1, x2, y2 of the label in image pixels: it tells whether the label is still the one that was decided on.
    category
        For "reclassify" and "add": the category id of the COCO json, or the class number of the label files.
    mask
        For "replace" and "add": COCO RLE of the image's size.
    kind
        What was probably wrong.
    """

    image: Text
    label_id: int | Text | None
    box: tuple[float, float, float, float]
    action: LabelAction
    category: int | Text | None = None
    mask: RunLengths | None = None
    kind: Text = ""


class LabelDecisions(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    Attributes
    ----------
    data, split
        The data set, as it was named to the command, and the split.
    maskprism
        The version that wrote the page.
    """

    format: Literal[1]
    command: Literal["labels"]
    maskprism: Text
    data: Text
    split: Text | None
    decisions: list[LabelDecision]


def read_decisions(file: Path) -> LabelDecisions:
    """Read the decisions that a page exported, which may be anybody's file.

    Raises
    ------
    InputError
        If it cannot be read, is too large, is of another format, lacks what an action needs, or decides twice on a
        label.
    """
    data = read_regular(file, InputError, limit=MOST_BYTES)
    expected = f"decisions exported by the page of `maskprism labels`, format {DECISIONS_FORMAT}"
    found = decode_json(data, LabelDecisions, str(file), InputError, expected, strict=True)
    decided: set[tuple[str, int | str]] = set()
    for number, decision in enumerate(found.decisions):
        label = f"{file}, decision {number} ({shortened(decision.image)})"
        for name in _NEEDS[decision.action]:
            if getattr(decision, name) is None:
                raise InputError(f"{label}: has no {name}, which the action {decision.action!r} needs; export it again")
        if decision.label_id is not None:
            key = decision.image, decision.label_id
            if key in decided:
                raise InputError(
                    f"{label}: decides again on label {shortened(decision.label_id)}; expected one decision for each"
                )
            decided.add(key)
        elif decision.action not in ("add", "keep"):
            raise InputError(f"{label}: has no label_id, which the action {decision.action!r} needs; export it again")
    return found
