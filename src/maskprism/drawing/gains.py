"""What a change of a model gains against the ground truth, as a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from maskprism._common.text import brief
from maskprism.drawing.figures import one_axes, share, titled
from maskprism.drawing.palette import FRAME, INK, INSTANCE_COLOURS, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from maskprism.analysis.truth.gains import Gains

_WIDTH = 7.4
_CLASSES = 12
_BLUE = INSTANCE_COLOURS[4]


def groups_figure(gains: Gains) -> Figure:
    """The gain in mean IoU of all instances, of each size, and of the classes with most instances, with intervals."""
    sizes = gains.by_size()
    groups = [gains.change, *sizes, *gains.by_class()[:_CLASSES]]
    figure, ax = one_axes(_WIDTH, 1.1 + 0.27 * len(groups))
    ax.axvline(0, color=share(MUTED), linewidth=1)
    for row, one in enumerate(groups):
        colour = _BLUE if row else INK
        if not math.isnan(one.gain.low):
            ax.plot([one.gain.low, one.gain.high], [row, row], color=share(colour), linewidth=2, alpha=0.5)
        ax.plot([one.gain.mean], [row], "o", color=share(colour), markersize=5)
    ax.set_yticks(range(len(groups)), [f"{brief(one.group)} ({one.instances})" for one in groups])
    _separate(ax, 0.5)
    _separate(ax, 0.5 + len(sizes))
    ax.invert_yaxis()
    ax.set_xlabel("gain in mean mask IoU, with its 95 % interval")
    return titled(figure, "Where it gains")


def _separate(ax: Axes, row: float) -> None:
    ax.axhline(row, color=share(FRAME), linewidth=1)
