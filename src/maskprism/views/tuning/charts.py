"""What a correction gains, as figures: by the number of images, and by size and class of objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskprism.text import brief
from maskprism.views.figures import share
from maskprism.views.palette import FRAME, INK, INSTANCE_COLOURS, MUTED
from maskprism.views.truth.budget import plain_axes, titled

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from maskprism.analysis.tuning import Tuning

_WIDTH = 7.4
_CLASSES = 12
_BLUE = INSTANCE_COLOURS[4]


def curve_figure(found: Tuning) -> Figure:
    """The gain in mean IoU against the number of images that it is fitted to, with intervals."""
    figure, ax = plain_axes(_WIDTH, 3.4)
    images, gains = zip(*found.curve(), strict=True)
    means = [gain.mean for gain in gains]
    ax.axhline(0, color=share(MUTED), linewidth=1)
    ax.fill_between(images, [one.low for one in gains], [one.high for one in gains], color=share(_BLUE), alpha=0.15)
    ax.plot(images, means, "o-", color=share(_BLUE), linewidth=2, markersize=5)
    for count, mean in zip(images, means, strict=True):
        text = f"{mean:+.4f}".replace("-", "−")
        ax.annotate(text, (count, mean), (0, 7), textcoords="offset points", ha="center", fontsize=8.5)
    ax.set_xlim(0, images[-1] * 1.06)
    ax.set_xlabel("images that the correction is fitted to")
    ax.set_ylabel("gain in mean mask IoU")
    ax.grid(axis="y", color=share(FRAME), linewidth=0.7)
    return titled(figure, f"Would more {'labels' if found.teacher is None else 'images'} help?")


def groups_figure(found: Tuning) -> Figure:
    """The gain in mean IoU of all instances, of each size, and of the classes with most instances, with intervals."""
    groups = [found.change, *found.by_size(), *found.by_class()[:_CLASSES]]
    figure, ax = plain_axes(_WIDTH, 1.1 + 0.27 * len(groups))
    ax.axvline(0, color=share(MUTED), linewidth=1)
    for row, one in enumerate(groups):
        known = one.gain.low == one.gain.low
        colour = _BLUE if row else INK
        if known:
            ax.plot([one.gain.low, one.gain.high], [row, row], color=share(colour), linewidth=2, alpha=0.5)
        ax.plot([one.gain.mean], [row], "o", color=share(colour), markersize=5)
    ax.set_yticks(range(len(groups)), [f"{brief(one.group)} ({one.instances})" for one in groups])
    _separate(ax, 0.5)
    _separate(ax, 0.5 + len(found.by_size()))
    ax.invert_yaxis()
    ax.set_xlabel("gain in mean mask IoU, with its 95 % interval")
    return titled(figure, "Where it gains")


def _separate(ax: Axes, row: float) -> None:
    ax.axhline(row, color=share(FRAME), linewidth=1)
