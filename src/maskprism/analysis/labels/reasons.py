"""Why a label is suspicious, in one sentence of measured values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from maskprism._common.text import counted
from maskprism.analysis.truth.matching import NEAR_IOU

if TYPE_CHECKING:
    from maskprism.analysis.labels.study import MeasuredLabel

_UNJUDGED = {"crowd": "a crowd", "no mask": "a box without a mask"}


def reason_of(label: MeasuredLabel, kind: str, name_of: Callable[[int], str]) -> str:
    """Say why a label is suspicious.

    Parameters
    ----------
    label
        What is measured of it.
    kind
        What is probably wrong; "" for a label that is not suspicious.
    name_of
        Returns the name of a class id.

    Returns
    -------
    str
        One sentence; "" for a label that is not suspicious.
    """
    if label.mistake:
        return f"It cannot be read: {label.mistake}."
    if label.unjudged:
        return f"It is {_UNJUDGED[label.unjudged]}, which is not judged."
    if not kind:
        return ""
    values = label.features
    if kind == "duplicate" and label.twin is not None:
        twin_id, twin_class = label.twin
        return f"Label {twin_id} ({name_of(twin_class)}) overlaps it by an IoU of {values['label_iou']:.2f}."
    overlap = overlap_clause(values["mask_iou"])
    if kind == "wrong class":
        return f"The model calls it {name_of(label.other_class)} with a score of {values['score']:.2f}; {overlap}."
    clauses = [overlap, *_shape_clause(kind, values)]
    clauses.append(f"the best mask that the prototypes can draw has an IoU of {values['span_iou']:.2f} with it")
    sentence = "; ".join(clauses)
    return f"{sentence[0].upper()}{sentence[1:]}."


def overlap_clause(mask_iou: float) -> str:
    """Say how the best detection overlaps a label.

    Parameters
    ----------
    mask_iou
        Of their masks, 0 to 1.
    """
    if mask_iou <= NEAR_IOU:
        return "no detection overlaps it"
    return f"the best detection overlaps it by an IoU of {mask_iou:.2f}"


def _shape_clause(kind: str, values: Mapping[str, float]) -> list[str]:
    """Return what the size or shape of a label has to do with a kind of mistake, if anything."""
    if kind == "coarse":
        return [f"its outline has {counted(round(values['corners']), 'corner')}"]
    if kind == "filled box":
        return [f"it fills {values['fill']:.0%} of its box"]
    if kind == "hole" and values["hole_share"] > 0:
        return [f"the area of its holes is {values['hole_share']:.0%} of its own"]
    if kind == "merged" and values["detections_inside"] > 1:
        return [f"{values['detections_inside']:.0f} detections lie in it"]
    if values["mask_iou"] <= NEAR_IOU:
        return []
    if kind == "shifted":
        return [f"their centres are {values['centre_distance']:.0%} of its size apart"]
    return [f"it has {np.exp(values['log_area_ratio']):.2f} times the area of that detection"]
