"""Charts of the coefficients of many instances, as matplotlib figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.collections import PolyCollection

from maskprism.analysis.prototypes.covariance import RunningCovariance
from maskprism.drawing.figures import colour_map, name_ticks, new_figure, one_axes, share, titled
from maskprism.drawing.palette import MUTED, NEGATIVE, POSITIVE
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, Int64
    from matplotlib.figure import Figure


def histograms(
    coefficients: Float32[np.ndarray, "N K"], labels: Sequence[str] | None = None, *, title: str | None = None
) -> Figure:
    """One histogram per coefficient, all on the same axes: negative values blue, positive ones red.

    Raises
    ------
    InputError
        Without a single row.
    """
    rows, k = _checked(coefficients, 1)
    columns = min(8, k)
    limit = float(np.percentile(np.abs(coefficients), 99.8)) or 1.0
    edges = np.linspace(-limit, limit, 41)
    counts = [np.histogram(np.clip(column, -limit, limit), edges)[0] for column in coefficients.T]
    lines = math.ceil(k / columns)
    figure = new_figure(1.9 * columns + 0.6, 1.45 * lines + 1.1)
    axes = np.atleast_1d(figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)).reshape(-1)
    # of all at once: limits found for one after the other take longer than all else, for they are shared
    axes[0].set(xlim=(-1.1 * limit, 1.1 * limit), ylim=(0, 1.05 * max(int(one.max()) for one in counts)))
    colours = [share(NEGATIVE if centre < 0 else POSITIVE) for centre in (edges[:-1] + edges[1:]) / 2]
    for index, ax in enumerate(axes):
        if index >= k:
            ax.set_visible(False)
            continue
        ax.add_collection(_bars(edges, counts[index], colours), autolim=False)
        ax.axvline(0, color="black", linewidth=0.6)
        column = coefficients[:, index]
        label = labels[index] if labels else str(index)
        ax.set_title(f"{label}   {column.mean():+.2f} ± {column.std():.2f}".replace("-", "−"), fontsize=8)
        ax.tick_params(labelsize=7)
    figure.supxlabel("coefficient", fontsize=9, color=share(MUTED))
    figure.supylabel("instances", fontsize=9, color=share(MUTED))
    return titled(figure, title or f"Mask coefficients of {rows} instances: mean ± standard deviation")


def _bars(
    edges: Float64[np.ndarray, " B+1"], counts: Int64[np.ndarray, " B"], colours: Sequence[tuple[float, float, float]]
) -> PolyCollection:
    """Return the bars of a histogram as one artist: a patch for each takes matplotlib ten times as long."""
    low, high, none = edges[:-1], edges[1:], np.zeros_like(edges[1:])
    corners = np.array([(low, none), (high, none), (high, counts), (low, counts)])
    return PolyCollection([*corners.transpose(2, 0, 1)], facecolors=colours, edgecolors="none")


def correlation(
    coefficients: Float32[np.ndarray, "N K"], labels: Sequence[str] | None = None, *, title: str | None = None
) -> Figure:
    """Heat map of the correlation between coefficients, -1 to 1; constant ones are left grey.

    Raises
    ------
    InputError
        With fewer than two rows.
    """
    rows, k = _checked(coefficients, 2)
    matrix = RunningCovariance.of(coefficients).correlation
    figure, ax = one_axes(9.2, 8.2)
    ax.set_facecolor("0.85")
    shown = ax.imshow(np.ma.masked_invalid(matrix), cmap=colour_map("contribution"), vmin=-1, vmax=1)
    names = list(labels) if labels else [str(index) for index in range(k)]
    name_ticks(ax.xaxis, names, rotation=90)
    name_ticks(ax.yaxis, names)
    figure.colorbar(shown, ax=ax, shrink=0.8, panchor=(0, 0.5), label="correlation")
    return titled(figure, title or f"Correlation of mask coefficients over {rows} instances")


def _checked(coefficients: Float32[np.ndarray, "N K"], least: int) -> tuple[int, int]:
    if coefficients.ndim != 2 or len(coefficients) < least or not coefficients.shape[1]:
        raise InputError(
            f"coefficients have shape {coefficients.shape}; expected (N, K) with at least {least} "
            f"row{'s' if least > 1 else ''}: extract more instances first"
        )
    return coefficients.shape
