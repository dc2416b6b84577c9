"""The pairs of masks that differ most between two networks, side by side."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from maskprism.analysis.networks.summary import versus
from maskprism.errors import MaskprismError
from maskprism.views import raster
from maskprism.views.palette import INSTANCE_COLOURS, MUTED, NEGATIVE, POSITIVE
from maskprism.views.sheets import Panel, Sheet

if TYPE_CHECKING:
    from jaxtyping import Float32, UInt8

    from maskprism.analysis.networks.comparison import Case, Comparison

    Picture = UInt8[np.ndarray, "H W 3"]

_MARGIN = 0.15


def worst_pairs(comparison: Comparison) -> Sheet:
    """The pairs with the lowest mask IoU: both masks, what B gains and loses, and the change of the logits.

    Raises MaskprismError where no pair differs.
    """
    if not comparison.worst:
        raise MaskprismError("no pair of masks differs, so there is none to show")
    return Sheet(
        title="The pairs of masks that differ most",
        subtitle=versus(comparison),
        panels=tuple(panel for case in comparison.worst for panel in _panels(case)),
        columns=4,
        notes=(
            "Change of the logit, B minus A: red where B speaks more for the mask. Each has the scale of its boxes: "
            "logits elsewhere were never trained.",
        ),
        size_wh=(1680, 400 * len(comparison.worst)),
    )


def _panels(case: Case) -> list[Panel]:
    """Four panels of one pair, cut to a square around both boxes."""
    boxes = np.stack([case.a.box, case.b.box])
    around = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    window = _square(around, case.a.prediction.image_size)
    pixels = raster.greyed(case.image[window])
    mask_a, mask_b = (one.mask("image")[window] for one in (case.a, case.b))
    change = case.b.logits("image") - case.a.logits("image")
    left, top, right, bottom = (round(float(edge)) for edge in around)
    limit = float(np.percentile(np.abs(change[top : bottom + 1, left : right + 1]), 99.5))
    both = raster.covered(pixels, mask_a & mask_b, MUTED)
    moved = raster.covered(raster.covered(both, mask_b & ~mask_a, POSITIVE, 0.85), mask_a & ~mask_b, NEGATIVE, 0.85)
    corner = np.array([window[1].start, window[0].start] * 2)
    box_a, box_b = ((box[0], box[1], box[2], box[3]) for box in (boxes - corner).tolist())
    title_a = f"A: {case.a.name} {case.a.score:.2f} in {PurePosixPath(case.name).name}"
    title_b = f"B: {case.b.score:.2f}, IoU {case.mask_iou:.3f}"
    return [
        Panel(title_a, picture=raster.covered(pixels, mask_a, INSTANCE_COLOURS[0]), box=box_a),
        Panel(title_b, picture=raster.covered(pixels, mask_b, INSTANCE_COLOURS[0]), box=box_b),
        Panel("B adds red, loses blue", picture=moved),
        Panel(f"change of the logit, ±{limit:.2g}", values=change[window], limit=limit or 1.0, box=box_b),
    ]


def _square(around: Float32[np.ndarray, " 4"], image_hw: tuple[int, int]) -> tuple[slice, slice]:
    """The (rows, columns) of the image around a box, as square as it allows."""
    side = max(float(max(around[2] - around[0], around[3] - around[1])) * (1 + 2 * _MARGIN), 16.0)
    spans = []
    for axis, length in zip((1, 0), image_hw, strict=True):
        start = int(np.clip((around[axis] + around[axis + 2] - side) / 2, 0, max(length - side, 0)))
        spans.append(slice(start, min(start + round(side), length)))
    return spans[0], spans[1]
