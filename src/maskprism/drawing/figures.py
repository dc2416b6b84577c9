"""Draw a sheet as a matplotlib figure: for notebooks, papers, and other formats than PNG.

>>> from maskprism.drawing import figures                        # doctest: +SKIP
>>> figures.prototype_grid(prediction[0]).savefig("grid.svg")    # doctest: +SKIP
"""

from __future__ import annotations

import io
import math
import os
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from maskprism._common.files import write_atomically
from maskprism._common.text import printable
from maskprism.drawing import palette, sheets
from maskprism.drawing.raster import best_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.backend_bases import RendererBase
    from matplotlib.transforms import Bbox

    from maskprism.core.decomposition import Order
    from maskprism.core.prediction import Instance, Prediction
    from maskprism.drawing.sheets import Panel, Scale, Sheet, View
    from maskprism.io.images import ImageLike

_INCHES_PER_PIXEL = 1 / 150
_LETTERS_PER_INCH = 13
_MOST_NAMES = 64


def overview(image: ImageLike, prediction: Prediction) -> Figure:
    """The image with every instance; see `sheets.overview`."""
    return draw(sheets.overview(image, prediction))


def prototype_grid(instance: Instance, *, order: Order = "index", scale: Scale = "shared") -> Figure:
    """All K prototypes with the weights of one instance; see `sheets.prototype_grid`."""
    return draw(sheets.prototype_grid(instance, order=order, scale=scale))


def contribution_grid(instance: Instance, *, order: Order = "effect", view: View = "box") -> Figure:
    """Weight times prototype for every prototype; see `sheets.contribution_grid`."""
    return draw(sheets.contribution_grid(instance, order=order, view=view))


def assembly_strip(image: ImageLike, instance: Instance) -> Figure:
    """How the mask comes about; see `sheets.assembly_strip`."""
    return draw(sheets.assembly_strip(image, instance))


def crop_view(image: ImageLike, instance: Instance) -> Figure:
    """What the crop to the box cuts away; see `sheets.crop_view`."""
    return draw(sheets.crop_view(image, instance))


class LiteralFigure(Figure):
    """A figure whose texts are drawn as they are: a "$" in the name of a class or an image begins no formula."""

    def draw(self, renderer: RendererBase) -> None:
        """Draw, without formulas."""
        with self._literal():
            super().draw(renderer)

    def get_tightbbox(self, *arguments: Any, **options: Any) -> Bbox:
        """The box of all that is drawn."""
        with self._literal():
            return super().get_tightbbox(*arguments, **options)

    @contextmanager
    def _literal(self) -> Iterator[None]:
        """Formulas are off in the texts that there are, and in the labels of ticks that come while drawing.

        Control and format characters are escapes: a font cannot draw them, and some would turn other text around.
        """
        for text in self.findobj(Text):
            text.set_parse_math(False)
            if text.get_text() != (escaped := printable(text.get_text())):
                text.set_text(escaped)
        with mpl.rc_context({"text.parse_math": False}):
            yield


def new_figure(width_in: float, height_in: float, *, layout: Literal["constrained"] | None = "constrained") -> Figure:
    """An empty figure that belongs to its caller: a notebook shows it once, and loops do not pile figures up."""
    figure = plt.figure(FigureClass=LiteralFigure, figsize=(width_in, height_in), layout=layout, facecolor="white")
    plt.close(figure)
    return figure


def name_ticks(axis: Axis, names: Sequence[str], *, rotation: float = 0) -> None:
    """A tick for each of the places 0, 1, ... on an axis; of many names only as many as can be read."""
    step = math.ceil(len(names) / _MOST_NAMES) or 1
    axis.set_ticks(range(0, len(names), step), names[::step], fontsize=7, rotation=rotation)


def draw(sheet: Sheet) -> Figure:
    """The sheet as a matplotlib figure of its own, not the current one of pyplot."""
    columns = sheet.columns or best_columns(sheet)
    rows = math.ceil(len(sheet.panels) / columns)
    panel_w = min(sheet.size_wh[0] * _INCHES_PER_PIXEL, 16) / columns
    panel_h = panel_w * sheet.panels[0].aspect + (0.3 if sheet.panels[0].title else 0)
    width_in = max(panel_w * columns, 5)
    notes = [line for note in sheet.notes for line in textwrap.wrap(note, round(width_in * _LETTERS_PER_INCH))]
    below = 0.25 * len(notes) + (0.6 if sheet.scale else 0)
    figure = new_figure(width_in, panel_h * rows + 0.8 + below)
    axes = np.atleast_1d(figure.subplots(rows, columns)).reshape(-1)
    for ax, panel in zip(axes, sheet.panels, strict=False):
        _draw_panel(ax, panel)
    for ax in axes:
        ax.set_axis_off()
    figure.suptitle(sheet.title + (f"\n{sheet.subtitle}" if sheet.subtitle else ""), fontsize=12)
    if sheet.scale:
        limit, name, label = sheet.scale
        figure.colorbar(
            ScalarMappable(Normalize(-limit, limit), colour_map(name)),
            ax=list(axes),
            location="bottom",
            label=label,
            shrink=0.3,
            aspect=40,
            pad=0.02,
        )
    if notes:
        figure.supxlabel("\n".join(notes), fontsize=9, color=share(palette.MUTED))
    return figure


def save(figure: Figure, path: str | os.PathLike[str] | IO[bytes], *, dpi: int, **settings: Any) -> None:
    """Write a figure; letters that the font lacks, as in some names of images, are boxes and no warnings."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        if isinstance(path, str | os.PathLike):
            write_atomically(path, lambda partial: figure.savefig(partial, dpi=dpi, **settings))
        else:
            figure.savefig(path, dpi=dpi, **settings)


def png_bytes(figure: Figure, *, dpi: int = 150) -> bytes:
    """A figure as the bytes of a PNG that are the same every time."""
    data = io.BytesIO()
    save(figure, data, format="png", dpi=dpi, metadata={"Software": None})
    return data.getvalue()


def _draw_panel(ax: Axes, panel: Panel) -> None:
    height, width = panel.size_hw
    shape = 1 / panel.pixel_aspect
    edges = (0.0, float(width), float(height), 0.0)
    if panel.values is not None:
        ax.imshow(
            panel.values,
            cmap=colour_map(panel.map),
            vmin=-panel.limit,
            vmax=panel.limit,
            extent=edges,
            interpolation="bilinear",
            aspect=shape,
        )
    else:
        assert panel.picture is not None
        ax.imshow(panel.picture, extent=edges)
    if panel.title:
        ink = {1: palette.POSITIVE, -1: palette.NEGATIVE, 0: palette.INK}[panel.sign]
        weight = "bold" if panel.sign else "normal"
        title = f"{panel.joint}  {panel.title}" if panel.joint else panel.title
        ax.set_title(title, fontsize=9, color=share(ink), fontweight=weight)
    clip = Rectangle((0, 0), width, height, transform=ax.transData)
    if panel.box is not None:
        x1, y1, x2, y2 = panel.box
        clip = Rectangle((x1, y1), x2 - x1, y2 - y1, transform=ax.transData)
        if not panel.fills:
            ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="white", linewidth=2.2))
            ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor="black", linewidth=0.8))
    if panel.outline is not None and min(panel.outline.shape) > 1 and panel.outline.min() < 0 < panel.outline.max():
        lines = ax.contour(
            np.arange(width) + 0.5, np.arange(height) + 0.5, panel.outline, levels=[0], colors="black", linewidths=0.8
        )
        lines.set_clip_path(clip)
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    for label in panel.labels:
        dark = palette.is_dark(label.colour)
        ax.text(
            *label.xy,
            label.text,
            fontsize=8,
            color="white" if dark else "black",
            va="bottom",
            bbox={"facecolor": share(label.colour), "edgecolor": "none", "pad": 1.5},
        )


def colour_map(name: palette.MapName) -> ListedColormap:
    """The diverging map of that name for matplotlib."""
    return ListedColormap(palette.lookup_table(name) / 255.0, name=f"maskprism-{name}")


def share(colour: palette.RGB) -> tuple[float, float, float]:
    """A colour as matplotlib has it: shares of 0 to 1."""
    red, green, blue = (channel / 255 for channel in colour)
    return red, green, blue


def plain_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure that the caller owns, and its axes: frames on the left and below only, in quiet colours."""
    figure = new_figure(width, height)
    ax = figure.subplots()
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(share(palette.FRAME))
    ax.tick_params(length=0, labelsize=9, colors=share(palette.INK))
    for axis in (ax.xaxis, ax.yaxis):
        axis.label.set_color(share(palette.MUTED))
        axis.label.set_fontsize(9)
    return figure, ax


def titled(figure: Figure, title: str) -> Figure:
    """The figure with a title above, flush left."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold", color=share(palette.INK))
    return figure
