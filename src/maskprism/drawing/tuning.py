"""What a correction gains by the number of images that it is fitted to, as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maskprism._common.text import signed
from maskprism.drawing.figures import one_axes, share, titled
from maskprism.drawing.palette import FRAME, INSTANCE_COLOURS, MUTED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maskprism.analysis.tuning import Tuning

_WIDTH = 7.4
_BLUE = INSTANCE_COLOURS[4]


def curve_figure(found: Tuning) -> Figure:
    """Return the gain in mean IoU against the number of images that it is fitted to, with intervals."""
    figure, ax = one_axes(_WIDTH, 3.4)
    images, gains = zip(*found.curve(), strict=True)
    means = [gain.mean for gain in gains]
    ax.axhline(0, color=share(MUTED), linewidth=1)
    ax.fill_between(images, [one.low for one in gains], [one.high for one in gains], color=share(_BLUE), alpha=0.15)
    ax.plot(images, means, "o-", color=share(_BLUE), linewidth=2, markersize=5)
    for count, mean in zip(images, means, strict=True):
        ax.annotate(signed(mean), (count, mean), (0, 7), textcoords="offset points", ha="center", fontsize=8.5)
    ax.set_xlim(0, images[-1] * 1.06)
    ax.set_xlabel("images that the correction is fitted to")
    ax.set_ylabel("gain in mean mask IoU")
    ax.grid(axis="y", color=share(FRAME), linewidth=0.7)
    return titled(figure, f"Would more {'labels' if found.teacher is None else 'images'} help?")
