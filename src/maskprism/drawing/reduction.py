"""What fewer prototypes cost: the curve of mask IoU, and masks before and after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np

from maskprism.drawing.figures import one_axes, share, titled
from maskprism.drawing.mask_style import dimmed, instance_colours
from maskprism.drawing.palette import FRAME, INK, INSTANCE_COLOURS, MUTED, NEGATIVE, POSITIVE, RGB
from maskprism.drawing.sheets import IMAGE_SIDE, Panel, Sheet, paint_instances

if TYPE_CHECKING:
    from jaxtyping import Bool, UInt8
    from matplotlib.figure import Figure

    from maskprism.analysis.reduction.reduced_file import BeforeAfter
    from maskprism.analysis.reduction.trade_off import Method, TradeOff
    from maskprism.core.prediction import Prediction

    Picture = UInt8[np.ndarray, "H W 3"]

_COLOURS: dict[Method, RGB] = {"projection": INSTANCE_COLOURS[4], "selection": INSTANCE_COLOURS[5]}
_WORDS: dict[Method, str] = {"projection": "mixed anew (projection)", "selection": "some of them kept (selection)"}


def trade_off_figure(trade_off: TradeOff, keep: int | None = None, method: Method = "projection") -> Figure:
    """Mask IoU with the full model against the number of prototypes: mean as a line, 5th percentile dotted.

    Parameters
    ----------
    keep
        A number of prototypes to mark on the curve of `method`.
    """
    figure, ax = one_axes(7.6, 4.4)
    keeps = trade_off.keeps
    for name in trade_off.ious:
        colour = share(_COLOURS[name])
        ax.plot(keeps, trade_off.percentile(name, 50), color=colour, linewidth=1, linestyle="--")
        ax.plot(keeps, trade_off.percentile(name, 5), color=colour, linewidth=1, linestyle=":")
        ax.plot(keeps, trade_off.mean(name), color=colour, linewidth=2.2, label=_WORDS[name])
    if keep is not None:
        value = float(trade_off.of(method, keep).mean())
        ax.plot([keep], [value], "o", color=share(INK), markersize=7, zorder=5)
        ax.annotate(
            f"{keep} kept: mean IoU {value:.3f}",
            (keep, value),
            xytext=(14, -40),
            textcoords="offset points",
            fontsize=10,
            arrowprops={"arrowstyle": "-", "color": share(MUTED)},
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},  # over lines that run through
        )
    count = len(next(iter(trade_off.ious.values()))[0])
    ax.set_xlim(0, keeps[-1] + 1)
    ax.set_ylim(0, 1.01)
    ax.set_xlabel("prototypes kept")
    ax.set_ylabel("mask IoU with the full model")
    ax.plot([], [], color=share(MUTED), linewidth=1, linestyle="--", label="median")
    ax.plot([], [], color=share(MUTED), linewidth=1, linestyle=":", label="5th percentile")
    ax.legend(reverse=True, loc="lower right")
    ax.grid(color=share(FRAME), linewidth=0.7)
    ax.set_axisbelow(True)
    where = "images that the basis was not fitted to" if trade_off.held_out else "the images it was fitted to"
    ax.set_title(f"{count} instances, measured on {where}")
    return titled(figure, "How many prototypes do the masks need?")


def before_after(examples: Sequence[BeforeAfter]) -> Sheet:
    """Per image all masks of the full model, those of the reduced one, and the pixels that changed sides."""
    panels: list[Panel] = []
    for image, before, after, iou in examples:
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        gained, lost = _changed(before, after)
        changed = dimmed(rgb)
        changed[lost], changed[gained] = NEGATIVE, POSITIVE
        shown = [paint_instances(rgb, one, instance_colours(image, one), one.empty)[0] for one in (before, after)]
        titles = (
            f"{len(before.prototypes)} prototypes",
            f"{len(after.prototypes)} prototypes: mean IoU {iou:.3f}",
            "changed",
        )
        panels += [
            Panel(title, picture=_small(picture)) for title, picture in zip(titles, (*shown, changed), strict=True)
        ]
    return Sheet(
        title="Masks before and after",
        subtitle="the image whose masks changed most, and one in the middle" if len(examples) > 1 else "",
        panels=tuple(panels),
        columns=3,
        notes=("Last column: red pixels were gained, blue ones lost.",),
        size_wh=(1800, 620 * len(examples)),
    )


def _changed(before: Prediction, after: Prediction) -> tuple[Bool[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Return where some instance gained a pixel, and where one lost it.

    Instances have a colour each while both sides have as many.
    """
    gained, lost = (np.zeros(before.image_size, dtype=bool) for _ in range(2))
    all_had, all_has = before.masks("image"), after.masks("image")
    if len(before) != len(after):
        all_had, all_has = (np.asarray(stack.any(axis=0))[None] for stack in (all_had, all_has))
    for had, has in zip(all_had, all_has, strict=True):
        gained |= has & ~had
        lost |= had & ~has
    return gained, lost


def _small(picture: Picture) -> Picture:
    shrink = IMAGE_SIDE / max(picture.shape[:2])
    if shrink >= 1:
        return picture
    height, width = picture.shape[:2]
    size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)
