"""Pictures of the basis: prototypes beside the canonical ones, the spectrum, and what is redundant."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from matplotlib.patches import Rectangle

from maskprism._common.text import counted
from maskprism.analysis.prototypes.basis import REDUNDANT
from maskprism.drawing import palette, raster
from maskprism.drawing.figures import colour_map, name_ticks, new_figure, one_axes, share, titled
from maskprism.drawing.sheets import IMAGE_SIDE, MOST_PANELS, Panel, Sheet, in_shape
from maskprism.errors import InputError
from maskprism.io.images import read_image

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, UInt8
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from maskprism.analysis.prototypes.basis import CanonicalBasis, Usage
    from maskprism.analysis.prototypes.covariance import RunningCovariance
    from maskprism.core.prediction import Prediction
    from maskprism.drawing.photo_boxes import Box
    from maskprism.drawing.sheets import Scale
    from maskprism.io.images import ImageLike

_COMPONENTS = 15
_PERCENTILE = 99.5


def raw_and_canonical(
    image: ImageLike, prediction: Prediction, usage: Usage, basis: CanonicalBasis, *, scale: Scale = "shared"
) -> tuple[UInt8[np.ndarray, "H W 3"], list[Box]]:
    """Return all prototypes of one image, and the first canonical ones beside them (RGB); and where images are shown.

    Every panel is a prototype times the root mean square of its coefficients: its typical
    contribution, in logits. On the shared scale what matters little is pale; `scale` "each"
    stretches every panel to its own range.
    """
    raw, canonical = sheets(image, prediction, usage, basis, scale=scale)
    (left, photos), (right, others) = raster.draw_with_photos(raw), raster.draw_with_photos(canonical)
    height = max(len(left), len(right))
    pages = [np.pad(page, ((0, height - len(page)), (0, 0), (0, 0)), constant_values=255) for page in (left, right)]
    shift = left.shape[1]
    return np.concatenate(pages, axis=1), [*photos, *((x1 + shift, y1, x2 + shift, y2) for x1, y1, x2, y2 in others)]


def sheets(
    image: ImageLike, prediction: Prediction, usage: Usage, basis: CanonicalBasis, *, scale: Scale = "shared"
) -> tuple[Sheet, Sheet]:
    """Return the two sheets of `raw_and_canonical`; for `raster.draw` and `figures.draw`."""
    content = prediction.letterbox.content_cells
    weights = np.sqrt(np.diag(usage.coefficients.gram))
    raw = prediction.prototypes[:, *content] * weights[:, None, None].astype(np.float32)
    turned = basis.apply(prediction).prototypes[:, *content]
    turned = turned * np.sqrt(basis.energies)[:, None, None].astype(np.float32)
    shown = min(_COMPONENTS, len(basis))
    limits = _limits(np.concatenate([raw, turned]), scale)
    contributions = usage.rms_contributions(basis.region)
    drawn = np.argsort(-contributions, kind="stable")[:MOST_PANELS]
    rest = f"{len(basis) - shown} more components: {_percent(basis.shares[shown:].sum())} together"
    left = Sheet(
        title="Prototypes, as the model has them",
        subtitle="prototype × rms of its coefficients, largest first; titles: index, rms contribution in logits"
        + (f"; {len(raw) - len(drawn)} smaller ones are not drawn" if len(drawn) < len(raw) else ""),
        panels=tuple(
            Panel(f"{k}   {contributions[k]:.2f}", values=raw[k], limit=limits[k], map="prototype") for k in drawn
        ),
        columns=min(8, len(raw)),
        scale=(limits[0], "prototype", "typical contribution to a logit, the same scale on both sides")
        if scale == "shared"
        else None,
        size_wh=(1600, 900),
    )
    right = Sheet(
        title="The same prototypes in the canonical basis",
        subtitle=f"titles: index, share of the mean square logit; {rest}",
        panels=(
            Panel("the image", picture=_small(image)),
            *(
                Panel(
                    f"{j}   {_percent(basis.shares[j])}", values=turned[j], limit=limits[len(raw) + j], map="prototype"
                )
                for j in range(shown)
            ),
        ),
        columns=min(4, shown + 1),
        size_wh=(800, 900),
    )
    return in_shape(left, prediction.letterbox), in_shape(right, prediction.letterbox)


def spectrum(usage: Usage, basis: CanonicalBasis, *, model: str = "") -> Figure:
    """Share of the mean square logit by component, running total, and the prototypes' own shares for comparison."""
    figure, ax = one_axes(10.5, 5.2)
    own = np.sort(usage.rms_contributions(basis.region) ** 2)[::-1]
    numbers = np.arange(len(basis))
    ax.bar(numbers, basis.shares, color=share(palette.INSTANCE_COLOURS[4]), label="canonical component: share")
    ax.plot(
        numbers,
        np.cumsum(basis.shares),
        "o-",
        color=share(palette.INSTANCE_COLOURS[5]),
        markersize=4,
        label="canonical components: running total",
    )
    ax.plot(
        numbers,
        np.cumsum(own) / own.sum(),
        color=share(palette.MUTED),
        linestyle="--",
        label="raw prototypes: running total of their squares, largest first",
    )
    levels = {basis.components_for(level): level for level in (0.9, 0.95, 0.99)}  # the highest of equal counts
    for row, (count, level) in enumerate(sorted(levels.items(), reverse=True)):
        ax.annotate(
            f"{count} for {_percent(level)}",
            xy=(count - 1, np.cumsum(basis.shares)[count - 1]),
            xytext=(count - 1, 1.05 + 0.07 * row),  # above all curves, each on a line of its own
            fontsize=9,
            arrowprops={"arrowstyle": "-", "color": share(palette.MUTED)},
        )
    ax.set_xlabel("component, largest first")
    ax.set_ylabel("share of the mean square logit")
    ax.set_ylim(0, 1.05 + 0.07 * len(levels))
    ax.set_yticks(np.linspace(0, 1, 6))
    ax.legend(loc="center right")
    where = "inside boxes" if basis.region == "boxes" else "on whole images"
    ax.set_title(
        f"{usage.instances} instances in {usage.images} images, {where}; "
        f"effective rank {basis.effective_rank:.1f} of {len(basis)}"
    )
    return titled(figure, f"What the coefficients really use{f': {model}' if model else ''}")


def redundancy(usage: Usage, *, threshold: float = REDUNDANT, model: str = "") -> Figure:
    """Correlations of prototypes (below the diagonal) and of coefficients (above it); redundant pairs are framed."""
    figure, ax = one_axes(9.2, 8.2)
    k = len(usage)
    lower = np.tril(np.ones((k, k), dtype=bool), -1)
    used = usage.coefficients.correlation if usage.instances else np.full((k, k), np.nan)
    _heat_map(ax, np.where(lower, usage.image.correlation, used))
    for pair in usage.redundant_pairs(threshold):
        for row, column, value in (
            (pair.second, pair.first, pair.prototypes),
            (pair.first, pair.second, pair.coefficients),
        ):
            if abs(value) >= threshold:
                frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.8)
                ax.add_patch(frame)
    count = len(usage.redundant_pairs(threshold))
    ax.set_title(
        f"below the diagonal: prototypes over {usage.images} images; above: coefficients of {usage.instances} instances"
    )
    title = f"Redundancy{f' in {model}' if model else ''}: {counted(count, 'pair')} with |r| ≥ {threshold:g} (framed)"
    return titled(figure, title)


def coefficient_spectrum(coefficients: RunningCovariance, *, title: str = "") -> Figure:
    """Spectrum and correlation of coefficients alone, where the prototypes are not known."""
    figure = new_figure(13, 5.8)
    left, right = figure.subplots(1, 2, width_ratios=(1.15, 1))
    energies = coefficients.singular_values() ** 2
    left.plot(
        np.cumsum(energies) / (energies.sum() or 1),
        "o-",
        markersize=4,
        color=share(palette.INSTANCE_COLOURS[4]),
        label=f"effective rank {coefficients.effective_rank():.1f} of {len(energies)}",
    )
    left.set_ylim(0, 1.03)
    left.set_xlabel("principal component, largest first")
    left.set_ylabel("running share of the variance")
    left.legend(loc="lower right")
    _heat_map(right, coefficients.correlation)
    right.set_title("correlation")
    return titled(figure, title or f"Coefficients of {round(coefficients.weight)} instances")


def _heat_map(ax: Axes, matrix: Float64[np.ndarray, "K K"]) -> None:
    k = len(matrix)
    shown = matrix.copy()
    np.fill_diagonal(shown, np.nan)
    ax.set_facecolor("0.85")
    picture = ax.imshow(np.ma.masked_invalid(shown), cmap=colour_map("contribution"), vmin=-1, vmax=1)
    names = [str(index) for index in range(k)]
    name_ticks(ax.xaxis, names, rotation=90)
    name_ticks(ax.yaxis, names)
    ax.tick_params(length=0, colors=share(palette.MUTED))
    ax.figure.colorbar(picture, ax=ax, shrink=0.8, panchor=(0, 0.5), label="correlation")


def _limits(values: Float32[np.ndarray, "M h w"], scale: Scale) -> list[float]:
    """Return the end of the colour scale of every panel: a percentile of |value|, not its outliers."""
    if scale not in ("shared", "each"):
        raise InputError(f"scale is {scale!r}; expected 'shared' or 'each'")
    sizes = np.abs(values)
    if scale == "shared":
        return [float(np.percentile(sizes, _PERCENTILE)) or 1.0] * len(values)
    return [float(np.percentile(one, _PERCENTILE)) or 1.0 for one in sizes]


def _small(image: ImageLike) -> UInt8[np.ndarray, "H W 3"]:
    pixels = cv2.cvtColor(read_image(image), cv2.COLOR_BGR2RGB)
    shrink = min(IMAGE_SIDE / max(pixels.shape[:2]), 1)
    return np.asarray(cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA))


def _percent(value: float) -> str:
    if 0 < value < 0.0005:
        return "< 0.1 %"
    return f"{100 * value:.{0 if value >= 0.1 or value == 0 else 1}f} %"
