"""Several checkpoints as one curve: mask and box AP with their intervals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from maskprism._common.text import brief
from maskprism.drawing.figures import one_axes, share, titled
from maskprism.drawing.palette import FRAME, INSTANCE_COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from maskprism.analysis.dataset.checkpoints import Checkpoints

_SERIES = {"predict": ("mask AP (predict)", INSTANCE_COLOURS[1]), "boxes": ("box AP", INSTANCE_COLOURS[4])}


def checkpoints_figure(found: Checkpoints) -> Figure:
    """Mask and box AP of every checkpoint with 95 % intervals; over epochs, where all names carry one."""
    figure, ax = one_axes(7.4, 3.6)
    places = np.array([row.epoch if found.with_epochs else at for at, row in enumerate(found.rows)], dtype=np.float64)
    for name, (label, colour) in _SERIES.items():
        values = [row.diagnosis.intervals.precision[name] for row in found.rows]
        means = np.array([one.mean for one in values])
        ends = np.array([[one.mean - one.low, one.high - one.mean] for one in values]).T
        ax.errorbar(
            places, means, np.maximum(np.nan_to_num(ends), 0), fmt="o-", color=share(colour), capsize=3, label=label
        )
    if found.with_epochs:
        ax.set_xlabel("epoch")
        ax.set_xticks(places)
    else:
        ax.set_xticks(places, [brief(row.name) for row in found.rows])
    ax.set_ylim(bottom=0)
    ax.set_ylabel("average precision")
    ax.grid(axis="y", color=share(FRAME), linewidth=0.7)
    ax.legend()
    return titled(figure, "Checkpoints on the same images")
