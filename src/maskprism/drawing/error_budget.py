"""The error budget as pictures: what each part costs on the whole, by group, and on single instances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from matplotlib.patches import Rectangle

from maskprism._common.text import brief
from maskprism.analysis.truth.best_coefficients import window_of
from maskprism.analysis.truth.error_budget import PARTS, Part
from maskprism.analysis.truth.overlaps import Region
from maskprism.drawing import palette
from maskprism.drawing.figures import one_axes, share, titled
from maskprism.drawing.mask_style import paint_errors
from maskprism.drawing.palette import INSTANCE_COLOURS, LEGEND, PART_COLOURS
from maskprism.drawing.sheets import Panel, Sheet
from maskprism.errors import InputError
from maskprism.io.images import read_image

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from maskprism.analysis.truth.counterfactual_masks import Counterfactuals
    from maskprism.analysis.truth.error_budget import ErrorBudget, InstanceBudget, Mean
    from maskprism.analysis.truth.worst_masks import WorstCase
    from maskprism.io.images import ImageLike

    Picture = UInt8[np.ndarray, "H W 3"]

PART_WORDS: dict[Part, str] = {
    "resolution": "the grid is too coarse",
    "box": "the box cuts wrongly",
    "prototypes": "no coefficients of these prototypes draw it",
    "coefficients": "others would draw it better",
}
_PANEL_SIDE = 480
_MARGIN = 0.12


def waterfall(budget: ErrorBudget, *, title: str | None = None) -> Figure:
    """From a perfect mask down to the mean IoU, part by part, with intervals.

    Thin bars show the losses in the other order.

    Raises
    ------
    InputError
        Without a single instance.
    """
    mean = budget.mean()
    figure, ax = one_axes(7.6, 4.2)
    duals = {part: float(budget.columns[f"dual_{part}"].mean()) for part in PARTS}
    ink = share(palette.INK)
    ax.barh(0, 1, color=share(palette.FRAME), height=0.66)
    ax.text(0.01, 0, "1", va="center", fontsize=9, fontweight="bold", color=ink)
    level = 1.0
    for row, part in enumerate(PARTS, start=1):
        loss = getattr(mean, part)
        ax.barh(row - 0.24, -loss, left=level, color=share(PART_COLOURS[part]), height=0.4)
        ax.barh(row + 0.02, -duals[part], left=level, color=share(palette.MUTED), height=0.08)
        ax.plot([level, level], [row - 1.24 if row > 1 else row - 0.67, row + 0.06], color=share(palette.MUTED), lw=0.7)
        level -= loss
        interval = mean.intervals[part].negated()
        ends = "" if math.isnan(interval.low) else f" ({_signed(interval.low)} to {_signed(interval.high)})"
        ax.text(  # below the bar, where neither bars nor names of rows can be, however little room there is
            0.01,
            row + 0.09,
            f"{_signed(-loss)}{ends}; other order {_signed(-duals[part])}",
            va="top",
            fontsize=9,
            color=ink,
        )
    last = len(PARTS) + 1
    ax.plot([level, level], [last - 1.24, last - 0.04], color=share(palette.MUTED), lw=0.7)
    ax.barh(last - 0.24, level, color=share(INSTANCE_COLOURS[4]), height=0.4)
    ax.text(0.01, last + 0.09, mean.intervals["iou"].plain(), va="top", fontsize=9, fontweight="bold", color=ink)
    parts = [f"{part}\n{PART_WORDS[part]}" for part in PARTS]
    ax.set_yticks(range(last + 1), ["ground truth", *parts, "mean mask IoU"])
    ax.set_xlim(0, 1)
    ax.set_ylim(last + 0.5, -0.5)
    ax.set_xlabel("IoU with the ground truth, on the canvas")
    return titled(figure, title or f"Where the masks of {mean.instances} instances lose")


def groups(budget: ErrorBudget, *, most: int = 16, title: str | None = None) -> Figure:
    """Return the losses by size and by class, as stacked bars; gains are drawn to the left of zero.

    Parameters
    ----------
    most
        Classes shown, those with the most instances.

    Raises
    ------
    InputError
        Without a single instance.
    """
    budget.mean()
    sizes, classes = budget.means("size"), budget.means("class_name")
    shown = sorted(classes[:most], key=lambda mean: mean.iou)
    figure, ax = one_axes(7.6, 1.5 + 0.27 * (len(sizes) + len(shown) + 1))
    places = [*range(len(sizes)), *range(len(sizes) + 1, len(sizes) + 1 + len(shown))]
    ends = [_stack(ax, place, mean) for place, mean in zip(places, [*sizes, *shown], strict=True)]
    for place, mean, end in zip(places, [*sizes, *shown], ends, strict=True):
        ax.annotate(f"IoU {mean.iou:.2f}", (end, place), (5, 0), textcoords="offset points", va="center", fontsize=8.5)
    ax.set_yticks(places, [f"{brief(mean.group)}  ({mean.instances})" for mean in [*sizes, *shown]])
    lowest = min((min(getattr(mean, part), 0.0) for mean in [*sizes, *shown] for part in PARTS), default=0.0)
    ax.set_xlim(1.2 * lowest, 1.15 * max(ends))
    ax.set_ylim(places[-1] + 0.6, -0.6)
    ax.axvline(0, color=share(palette.MUTED), linewidth=0.7)
    ax.axhline(len(sizes), color=share(palette.FRAME), linewidth=1)
    ax.set_xlabel("mean loss of IoU")
    handles = [Rectangle((0, 0), 1, 1, color=share(PART_COLOURS[part])) for part in PARTS]
    ax.legend(handles, PARTS, ncols=4, loc="lower center", bbox_to_anchor=(0.4, 1.0))
    left_out = f"; {len(classes) - len(shown)} more classes" if len(classes) > len(shown) else ""
    return titled(figure, title or f"Losses by size and class (number of instances{left_out})")


def instance_strip(image: ImageLike, masks: Counterfactuals) -> Sheet:
    """One instance, stage by stage: the ground truth, what the grid leaves of it, the crop, the best mask, its own."""
    canvas = _on_canvas(read_image(image), masks)
    rows, columns = _window([masks.truth, masks.real, masks.best], masks.instance.letterbox.canvas_hw)
    instance = masks.instance
    chain: list[tuple[str, Region]] = [
        ("ground truth", masks.truth),
        ("on the grid", masks.on_grid),
        ("cropped to the box", masks.in_box),
        ("best coefficients", masks.best),
        ("its own mask", masks.real),
    ]
    panels, before = [], None
    for name, mask in chain:
        iou = mask.iou_with(masks.truth)
        number = f"{iou:.2f}" if before is None else f"{iou:.2f}  ({_signed(iou - before)})"
        panels.append(
            Panel(
                f"{name}  {number}",
                picture=_compared(canvas, mask, masks.truth, rows, columns),
                box=None if name in ("ground truth", "on the grid") else _box_in(masks, rows, columns),
                joint="" if before is None else "→",
            )
        )
        before = iou
    return Sheet(
        title=f"Error budget of {instance.name} {instance.score:.2f}: IoU {masks.real.iou_with(masks.truth):.2f}",
        subtitle=f"IoU with the ground truth after each stage, and what the stage costs; {LEGEND}",
        panels=tuple(panels),
        columns=len(panels),
        size_wh=(2400, 640),
    )


def worst_sheet(cases: Sequence[WorstCase], *, of: int, by: str = "iou", columns: int = 6) -> Sheet:
    """The worst instances of a budget, each with its mask against the ground truth, its IoU and its largest loss.

    Parameters
    ----------
    of
        How many instances the budget has.
    by
        What the cases were chosen by.

    Raises
    ------
    InputError
        Without a case.
    """
    if not cases:
        raise InputError("the budget has no instance to show")
    return Sheet(
        title=f"The {len(cases)} worst of {of} instances, by {by.replace('_', ' ').replace('iou', 'IoU')}",
        subtitle=f"IoU, class and score, and the part that costs most; {LEGEND}",
        panels=tuple(_worst_panel(*case) for case in cases),
        columns=min(columns, len(cases)),
        size_wh=(2400, 1700),
    )


def _worst_panel(row: InstanceBudget, image: Picture, masks: Counterfactuals) -> Panel:
    rows, columns = _window([masks.truth, masks.real], masks.instance.letterbox.canvas_hw, square=True)
    part = max(PARTS, key=lambda part: getattr(row, part))
    return Panel(
        f"{row.iou:.2f}  {brief(row.class_name)} {row.score:.2f}: {part}",
        picture=_compared(_on_canvas(image, masks), masks.real, masks.truth, rows, columns),
        box=_box_in(masks, rows, columns),
    )


def _on_canvas(image: Picture, masks: Counterfactuals) -> Picture:
    """Return the image as it lies on the canvas, in RGB."""
    letterbox = masks.instance.letterbox
    canvas = np.full((*letterbox.canvas_hw, 3), masks.instance.prediction.preprocessing.padding_bgr, dtype=np.uint8)
    (top, left), (height, width) = letterbox.offset_yx, letterbox.content_hw
    shrinks = width < image.shape[1]
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    canvas[top : top + height, left : left + width] = small
    return cv2.cvtColor(canvas, cv2.COLOR_BGR2RGB)


def _window(masks: Sequence[Region], canvas_hw: tuple[int, int], *, square: bool = False) -> tuple[slice, slice]:
    """Rows and columns of the canvas around masks, with a margin; at least one pixel."""
    spans = []
    shown = [mask for mask in masks if mask.inside.size] or [Region(slice(0, 1), slice(0, 1), np.zeros((1, 1), bool))]
    for axis in (0, 1):
        sides = [(mask.rows, mask.columns)[axis] for mask in shown]
        spans.append((min(side.start for side in sides), max(side.stop for side in sides)))
    longest = max(stop - start for start, stop in spans)
    found = []
    for (start, stop), length in zip(spans, canvas_hw, strict=True):
        room = max(longest if square else stop - start, 8) * (1 + 2 * _MARGIN)
        low = round(min(max((start + stop - room) / 2, 0), max(length - room, 0)))
        found.append(slice(low, min(round(low + room), length)))
    return found[0], found[1]


def _compared(canvas: Picture, mask: Region, truth: Region, rows: slice, columns: slice) -> Picture:
    """Return a window of the canvas, enlarged, with a mask and the ground truth.

    Canvas pixels stay visible as squares.
    """
    zoom = max(1, math.ceil(_PANEL_SIDE / max(rows.stop - rows.start, columns.stop - columns.start)))
    size = (zoom * (columns.stop - columns.start), zoom * (rows.stop - rows.start))
    picture = cv2.resize(canvas[rows, columns], size, interpolation=cv2.INTER_LINEAR)
    found, true = (_enlarged(window_of(one, rows, columns), zoom) for one in (mask, truth))
    return paint_errors(picture, found, true)


def _enlarged(mask: Bool[np.ndarray, "H W"], zoom: int) -> Bool[np.ndarray, "H W"]:
    return mask.repeat(zoom, axis=0).repeat(zoom, axis=1)


def _box_in(masks: Counterfactuals, rows: slice, columns: slice) -> tuple[float, float, float, float]:
    """Return the predicted box in the pixels of an enlarged window."""
    zoom = max(1, math.ceil(_PANEL_SIDE / max(rows.stop - rows.start, columns.stop - columns.start)))
    x1, y1, x2, y2 = (float(v) for v in masks.instance.canvas_box)
    left, top = columns.start, rows.start
    return ((x1 - left) * zoom, (y1 - top) * zoom, (x2 - left) * zoom, (y2 - top) * zoom)


def _stack(ax: Axes, place: float, mean: Mean) -> float:
    """One stacked bar; gives where its losses end."""
    losses, gains = 0.0, 0.0
    for part in PARTS:
        value = getattr(mean, part)
        left = losses if value >= 0 else gains
        ax.barh(place, value, left=left, color=share(PART_COLOURS[part]), height=0.7)
        losses, gains = losses + max(value, 0.0), gains + min(value, 0.0)
    return losses


def _signed(value: float) -> str:
    """Three digits with a sign: losses are below zero."""
    return f"{value + 0.0:+.3f}".replace("-", "−")
