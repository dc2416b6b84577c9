"""Pairs of masks of two models, side by side: those that differ most, and those that gain or lose most."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskprism._common.text import rounded
from maskprism.analysis.comparison.summary import versus
from maskprism.drawing.mask_style import PaintedMask, instance_colours, paint_errors, paint_masks
from maskprism.drawing.palette import LEGEND, NEGATIVE, POSITIVE
from maskprism.drawing.sheets import Panel, Sheet
from maskprism.errors import MaskprismError

if TYPE_CHECKING:
    from jaxtyping import Float32, UInt8

    from maskprism.analysis.comparison.report import Case, Comparison, TruthCase

    Picture = UInt8[np.ndarray, "H W 3"]

_MARGIN = 0.15


def worst_pairs(comparison: Comparison) -> Sheet:
    """Return the pairs with the lowest mask IoU: both masks, what B gains and loses, and the change of the logits.

    Raises
    ------
    MaskprismError
        Where no pair differs.
    """
    if not comparison.worst:
        raise MaskprismError("no pair of masks differs, so there is none to show")
    return Sheet(
        title="The pairs of masks that differ most",
        subtitle=versus(comparison),
        panels=tuple(panel for case in comparison.worst for panel in _panels(case)),
        columns=4,
        notes=(
            "Change of the logit, B minus A: red where it is higher in B. Each has the scale of its boxes: "
            "logits elsewhere are not trained.",
        ),
        size_wh=(1680, 400 * len(comparison.worst)),
    )


def changed_pairs(comparison: Comparison) -> Sheet:
    """Return the pairs whose IoU with the ground truth rises most from A to B, then those whose falls most.

    Errors solid or striped.

    Raises
    ------
    MaskprismError
        Where none changes.
    """
    cases = [*comparison.gained, *comparison.lost]
    if not cases:
        raise MaskprismError("no pair of masks changes against the ground truth, so there is none to show")
    return Sheet(
        title="The pairs that gain most, then those that lose most, against the ground truth",
        subtitle=versus(comparison),
        panels=tuple(panel for case in cases for panel in _against_truth(case)),
        columns=4,
        notes=(f"{LEGEND}.",),
        size_wh=(1680, 430 * -(-len(cases) // 2)),
    )


def _against_truth(case: TruthCase) -> list[Panel]:
    """Both masks of one pair against the ground truth."""
    boxes = np.stack([case.a.box, case.b.box])
    around = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    window = _square(around, case.a.prediction.image_size)
    pixels, true = cv2.cvtColor(case.image[window], cv2.COLOR_BGR2RGB), case.true[window]
    change = f"{case.after - case.before:+.3f}".replace("-", "−")
    titles = (
        f"A: IoU {rounded(case.before)}, {case.a.name} in {PurePosixPath(case.name).name}",
        f"B: IoU {rounded(case.after)}, {change}",
    )
    panels = []
    for title, one in zip(titles, (case.a, case.b), strict=True):
        panels.append(Panel(title, picture=paint_errors(pixels, one.mask("image")[window], true)))
    return panels


def _panels(case: Case) -> list[Panel]:
    """Four panels of one pair, cut to a square around both boxes."""
    boxes = np.stack([case.a.box, case.b.box])
    around = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    window = _square(around, case.a.prediction.image_size)
    pixels = cv2.cvtColor(case.image[window], cv2.COLOR_BGR2RGB)
    rows, columns = (slice(0, length) for length in pixels.shape[:2])
    colour = instance_colours(case.image, case.a.prediction)[case.a.index]
    mask_a, mask_b = (one.mask("image")[window] for one in (case.a, case.b))
    change = case.b.logits("image") - case.a.logits("image")
    left, top, right, bottom = (round(float(edge)) for edge in around)
    limit = float(np.percentile(np.abs(change[top : bottom + 1, left : right + 1]), 99.5))
    moved = paint_masks(pixels, [PaintedMask(rows, columns, mask_a & mask_b, colour)])
    moved[mask_b & ~mask_a], moved[mask_a & ~mask_b] = POSITIVE, NEGATIVE
    shown_a, shown_b = (paint_masks(pixels, [PaintedMask(rows, columns, mask, colour)]) for mask in (mask_a, mask_b))
    corner = np.array([window[1].start, window[0].start] * 2)
    box_a, box_b = ((box[0], box[1], box[2], box[3]) for box in (boxes - corner).tolist())
    title_a = f"A: {case.a.name} {case.a.score:.2f} in {PurePosixPath(case.name).name}"
    title_b = f"B: {case.b.score:.2f}, IoU {rounded(case.mask_iou)}"
    return [
        Panel(title_a, picture=shown_a, box=box_a),
        Panel(title_b, picture=shown_b, box=box_b),
        Panel("B adds red, loses blue", picture=moved),
        Panel(f"change of the logit, ±{limit:.2g}", values=change[window], limit=limit or 1.0, box=box_b),
    ]


def _square(around: Float32[np.ndarray, " 4"], image_hw: tuple[int, int]) -> tuple[slice, slice]:
    """Return the (rows, columns) of the image around a box, as square as it allows."""
    side = max(float(max(around[2] - around[0], around[3] - around[1])) * (1 + 2 * _MARGIN), 16.0)
    spans = []
    for axis, length in zip((1, 0), image_hw, strict=True):
        start = int(np.clip((around[axis] + around[axis + 2] - side) / 2, 0, max(length - side, 0)))
        spans.append(slice(start, min(start + round(side), length)))
    return spans[0], spans[1]
