"""The figures of an atlas."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import MaxNLocator

from maskprism.analysis.atlas.findings import SURE
from maskprism.analysis.atlas.rank_correlation import sample
from maskprism.drawing.figures import colour_map, name_ticks, one_axes, share, titled
from maskprism.drawing.map_payload import QUALITY_TITLES
from maskprism.drawing.palette import FRAME, INK, INSTANCE_COLOURS, MUTED

if TYPE_CHECKING:
    from jaxtyping import Float, Float32, Int64, UInt8
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from maskprism.analysis.atlas.atlas import Atlas

WIDTH = 7.4
MOST_CLASSES = 24
_DOTS, _COLOURED, _CELLS, _BINS, _BLOCK = 12_000, 6, 28, 61, 1 << 15
_NAMED = 16
_SCALE_BELOW: dict[str, Any] = {"location": "bottom", "aspect": 40, "pad": 0.02}
_GREY = (141, 141, 141)
_GROUND = 30
_CLASS_COLOURS = tuple(INSTANCE_COLOURS[index] for index in (0, 1, 2, 5, 6, 4))


def map_figure(atlas: Atlas) -> Figure:
    """Return the map of principal components, the largest classes in colours."""
    figure, ax = _map_axes(atlas)
    rows = sample(len(atlas.points), _DOTS, 0)
    places, classes = atlas.places[rows], atlas.points.classes[rows]
    names = atlas.points.class_names
    for number in [len(names), *range(min(_COLOURED, len(names)))]:
        others = number == len(names)
        own = classes >= _COLOURED if others else classes == number
        if not own.any():
            continue
        label = f"{len(names) - _COLOURED} other classes" if others else names[number]
        colour = _GREY if others else _CLASS_COLOURS[number]
        ax.scatter(
            places[own, 0],
            places[own, 1],
            s=9,
            color=share(colour),
            linewidths=0,
            alpha=0.75,
            label=label,
            rasterized=True,
        )
    handles, labels = ax.get_legend_handles_labels()
    if len(names) > _COLOURED:  # they lie below the others, and are named after them
        handles, labels = [*handles[1:], handles[0]], [*labels[1:], labels[0]]
    ax.legend(handles, labels, markerscale=1.8, loc="center left", bbox_to_anchor=(1, 0.5))
    return titled(figure, f"A map of {len(atlas.points):,} instances")


def map_dots(atlas: Atlas, side: int = 192) -> UInt8[np.ndarray, "H W 3"]:
    """Return the map as dots alone on a dark ground (BGR), for a small picture of it."""
    places = atlas.places[rows := sample(len(atlas.points), _DOTS, 0)]
    low, high = places.min(axis=0), places.max(axis=0)
    at = ((places - low) / np.maximum(high - low, 1e-9) * (side - 9) + 4).astype(int)
    picture = np.full((side, side, 3), _GROUND, dtype=np.uint8)
    for (x, y), number in zip(at.tolist(), atlas.points.classes[rows].tolist(), strict=True):
        colour = _CLASS_COLOURS[number] if number < _COLOURED else _GREY
        picture[side - y - 3 : side - y, x - 1 : x + 2] = colour[::-1]
    return picture


def truth_figure(atlas: Atlas) -> Figure:
    """Return where on the map masks are bad: the mean IoU of what lies in each cell."""
    figure, ax = _map_axes(atlas)
    iou = atlas.points.numbers["iou"]
    known = np.isfinite(iou)
    cells = ax.hexbin(
        atlas.places[known, 0],
        atlas.places[known, 1],
        C=iou[known],
        gridsize=_CELLS,
        reduce_C_function=np.mean,
        cmap="cividis",
        vmin=0,
        vmax=1,
        linewidths=0.2,
    )
    figure.colorbar(cells, ax=ax, shrink=0.8, label="mean mask IoU")
    return titled(figure, "Where on the map are the bad masks?")


def values_figure(atlas: Atlas) -> Figure:
    """Return how the values of each coefficient are spread, one row each."""
    coefficients, labels = atlas.points.coefficients, atlas.points.labels
    rows = sample(len(coefficients), 20_000, 0)
    limit = float(np.percentile(np.abs(coefficients[rows]), 99.7)) or 1.0
    edges = np.linspace(-limit, limit, _BINS + 1)
    counts = value_counts(coefficients, limit)
    figure, ax = one_axes(WIDTH, _height(len(labels)))
    shares = np.sqrt(counts / counts.max(axis=1, keepdims=True))
    shown = shares * np.sign((edges[:-1] + edges[1:]) / 2)
    ax.imshow(
        shown,
        cmap=colour_map("contribution"),
        vmin=-1,
        vmax=1,
        aspect="auto",
        extent=(-limit, limit, len(labels) - 0.5, -0.5),
        interpolation="nearest",
    )
    ax.plot(atlas.moments.mean, range(len(labels)), "|", color=share(INK), markersize=7, label="mean")
    ax.axvline(0, color=share(INK), linewidth=0.6)
    name_ticks(ax.yaxis, labels)
    ax.set_xlabel("value; stronger colour: more instances (root of the share)")
    ax.set_ylabel("coefficient")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    return titled(figure, "Values of each coefficient")


def value_counts(coefficients: Float32[np.ndarray, "N K"], limit: float) -> Int64[np.ndarray, "K bins"]:
    """Return how many values of each coefficient lie in each of even steps from -limit to limit.

    Those beyond in the last.
    """
    k = coefficients.shape[1]
    found = np.zeros(k * _BINS, dtype=np.int64)
    for start in range(0, len(coefficients), _BLOCK):
        block = (coefficients[start : start + _BLOCK] + np.float32(limit)) * np.float32(_BINS / (2 * limit))
        steps = block.clip(0, _BINS - 1).astype(np.int32) + np.arange(0, k * _BINS, _BINS, dtype=np.int32)
        found += np.bincount(steps.reshape(-1), minlength=k * _BINS)
    return found.reshape(k, _BINS)


def spectrum_figure(atlas: Atlas) -> Figure:
    """Return how much of the variance the first principal components have together."""
    values = atlas.moments.singular_values() ** 2
    total = values.sum()
    shares = np.cumsum(values) / total if total > 0 else np.ones_like(values)
    rank = atlas.moments.effective_rank()
    figure, ax = one_axes(WIDTH, 3.1)
    ax.plot(range(1, len(shares) + 1), shares, "o-", color=share(INSTANCE_COLOURS[4]), markersize=4)
    ax.axvline(rank, color=share(MUTED), linewidth=1, linestyle="--")
    ax.annotate(
        f"effective rank {rank:.1f}", (rank, 0.03), (5, 0), textcoords="offset points", fontsize=8.5, color=share(MUTED)
    )
    ax.set_ylim(0, 1.04)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("principal components")
    ax.set_ylabel("share of the variance")
    ax.grid(axis="y", color=share(FRAME), linewidth=0.7)
    return titled(figure, "How many directions are used")


def correlation_figure(atlas: Atlas) -> Figure:
    """Return which coefficients go together."""
    labels = atlas.points.labels
    figure, ax = one_axes(WIDTH, 6.4)
    shown = _heat(ax, atlas.moments.correlation, 1.0)
    _coefficient_ticks(ax, labels)
    name_ticks(ax.yaxis, labels)
    figure.colorbar(shown, ax=ax, label="correlation", ticks=(-1, -0.5, 0, 0.5, 1), **_SCALE_BELOW)
    return titled(figure, "Which coefficients go together")


def signatures_figure(atlas: Atlas) -> Figure:
    """Return the mean coefficients of each class."""
    return _by_class(
        atlas,
        atlas.signatures.mean - atlas.moments.mean,
        "The signature of each class: its mean, less that of all",
        "mean coefficient, less that of all",
    )


def effects_figure(atlas: Atlas) -> Figure:
    """Return which coefficients tell each class from the others."""
    effect = np.where(atlas.signatures.p < SURE, atlas.signatures.effect, np.nan)
    return _by_class(
        atlas,
        effect,
        "Which coefficients tell a class from all others",
        f"standard deviations apart\n(grey: not sure at {SURE:g})",
    )


def dependence_figure(atlas: Atlas) -> Figure:
    """Return which coefficients go with the box, the score, and how good the mask is."""
    found = atlas.dependence
    rho = np.where(found.p < SURE, found.rho, np.nan)
    figure, ax = one_axes(WIDTH, _height(len(found.names)))
    shown = _heat(ax, rho, float(np.nanmax(np.abs(rho), initial=0.1)))
    _coefficient_ticks(ax, atlas.points.labels)
    ax.set_yticks(range(len(found.names)), [QUALITY_TITLES[name] for name in found.names], fontsize=8.5)
    ax.set_xlabel("coefficient")
    figure.colorbar(shown, ax=ax, label=f"rank correlation\n(grey: not sure at {SURE:g})", **_SCALE_BELOW)
    return titled(figure, "What goes with size, place, score and quality")


def _by_class(atlas: Atlas, values: Float[np.ndarray, "C K"], title: str, meaning: str) -> Figure:
    """Return a row for each of the largest classes of which something is known."""
    rows = np.flatnonzero(np.isfinite(atlas.signatures.mean).any(axis=1))[:MOST_CLASSES]
    figure, ax = one_axes(WIDTH, _height(max(len(rows), 1)))
    known = np.abs(values[rows][np.isfinite(values[rows])])
    shown = _heat(ax, values[rows], float(np.percentile(known, 99.5)) if known.size else 1.0)
    _coefficient_ticks(ax, atlas.points.labels)
    names = [f"{atlas.points.class_names[row]} ({atlas.signatures.counts[row]:,})" for row in rows]
    ax.set_yticks(range(len(rows)), names, fontsize=8)
    ax.set_xlabel("coefficient")
    figure.colorbar(shown, ax=ax, label=meaning, **_SCALE_BELOW)
    return titled(figure, title)


def _heat(ax: Axes, values: Float[np.ndarray, "R K"], limit: float) -> mpl.image.AxesImage:
    return ax.imshow(
        np.ma.masked_invalid(values),
        cmap=colour_map("contribution").with_extremes(bad="0.78"),
        vmin=-(limit or 1.0),
        vmax=limit or 1.0,
        aspect="auto",
        interpolation="nearest",
    )


def _coefficient_ticks(ax: Axes, labels: Sequence[str]) -> None:
    """Names of coefficients below, as many as can be read on a narrow screen."""
    step = math.ceil(len(labels) / _NAMED)
    turned = 90 if max(map(len, labels)) > 2 else 0
    ax.xaxis.set_ticks(range(0, len(labels), step), labels[::step], fontsize=7, rotation=turned)


def _map_axes(atlas: Atlas) -> tuple[Figure, Axes]:
    figure, ax = one_axes(WIDTH, 5.0)
    first, second = atlas.components.shares
    ax.set_xlabel(f"first principal component ({first:.0%} of the variance)")
    ax.set_ylabel(f"second ({second:.0%})")
    return figure, ax


def _height(rows: int) -> float:
    return 2.0 + 0.17 * max(rows, 6)


def strongest(values: Float[np.ndarray, " K"], labels: Sequence[str], most: int = 3) -> str:
    """List the largest of some values with their coefficients."""
    order = [int(k) for k in np.argsort(-np.abs(np.nan_to_num(values)))[:most] if np.isfinite(values[k])]
    return ", ".join(f"{labels[k]} {values[k]:+.1f}".replace("-", "−") for k in order)
