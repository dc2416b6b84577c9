"""Draw a sheet as a matplotlib figure: for notebooks, papers, and other formats than PNG.

Examples
--------
>>> import maskprism
>>> from maskprism.datasets.scenes import draw_scene
>>> from maskprism.drawing import figures
>>> image = draw_scene(3).image
>>> figures.overview(image, maskprism.load("sample").predict(image)).savefig("overview.svg")
"""

from __future__ import annotations

import io
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, Literal

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from maskprism._common.files import write_atomically
from maskprism._common.text import printable
from maskprism.drawing import palette, sheets
from maskprism.drawing.photo_boxes import with_photos
from maskprism.drawing.raster import Filled, Shown, Written, lay_out

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axis import Axis
    from matplotlib.backend_bases import RendererBase
    from matplotlib.legend import Legend

    from maskprism.core.decomposition import Order
    from maskprism.core.prediction import Instance, Prediction
    from maskprism.drawing.sheets import Scale, Sheet, View
    from maskprism.io.images import ImageLike

_INCHES_PER_PIXEL = 1 / 150
_POINTS_PER_PIXEL = 72 * _INCHES_PER_PIXEL
_ZORDER = Rectangle.zorder  # the same for all that a sheet holds, so that later marks are above
_MOST_NAMES = 64


def overview(image: ImageLike, prediction: Prediction) -> Figure:
    """Return the image with every instance; see `sheets.overview`."""
    return draw(sheets.overview(image, prediction))


def prototype_grid(instance: Instance, *, order: Order = "index", scale: Scale = "shared") -> Figure:
    """Return all K prototypes with the weights of one instance; see `sheets.prototype_grid`."""
    return draw(sheets.prototype_grid(instance, order=order, scale=scale))


def contribution_grid(instance: Instance, *, order: Order = "effect", view: View = "box") -> Figure:
    """Weight times prototype for every prototype; see `sheets.contribution_grid`."""
    return draw(sheets.contribution_grid(instance, order=order, view=view))


def assembly_strip(image: ImageLike, instance: Instance) -> Figure:
    """Return how the mask comes about; see `sheets.assembly_strip`."""
    return draw(sheets.assembly_strip(image, instance))


def crop_view(image: ImageLike, instance: Instance) -> Figure:
    """Return the logits outside the box; see `sheets.crop_view`."""
    return draw(sheets.crop_view(image, instance))


class PlainAxes(Axes):
    """Axes in the one style of all charts: frames on the left and below only, in quiet colours, titles flush left."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.spines[["top", "right"]].set_visible(False)
        self.spines[["left", "bottom"]].set_color(share(palette.FRAME))
        self.tick_params(length=0, labelsize=9, colors=share(palette.INK))
        for axis in (self.xaxis, self.yaxis):
            axis.label.set_color(share(palette.MUTED))
            axis.label.set_fontsize(9)

    def set_title(self, label: str, *arguments: Any, **options: Any) -> Text:
        """Set the title, flush left."""
        style: dict[str, Any] = {"loc": "left", "fontsize": 9, "color": share(palette.MUTED)}
        return super().set_title(label, *arguments, **style | options)

    def get_title(self, loc: Literal["left", "center", "right"] = "left") -> str:
        """Return the title."""
        return super().get_title(loc)

    def legend(self, *arguments: Any, **options: Any) -> Legend:
        """Add a legend without a frame."""
        return super().legend(*arguments, **{"fontsize": 8.5, "title_fontsize": 8.5, "frameon": False} | options)


class LiteralFigure(Figure):
    """A figure of plain axes whose texts are drawn literally: a "$" in the name of a class begins no formula."""

    def add_subplot(self, *arguments: Any, **options: Any) -> Axes:
        """Add axes in the style of all charts."""
        return super().add_subplot(*arguments, **{"axes_class": PlainAxes} | options)

    def add_axes(self, *arguments: Any, **options: Any) -> Axes:
        """Add axes in the style of all charts."""
        return super().add_axes(*arguments, **{"axes_class": PlainAxes} | options)

    def draw(self, renderer: RendererBase) -> None:
        """Draw, without formulas.

        matplotlib draws a figure twice to save it, first with the methods of the renderer replaced by ones that do
        nothing, so that the layout is known: there, laying out alone is enough and takes a third of the time.
        """
        engine, draws = self.get_layout_engine(), hasattr(renderer.draw_path, "__self__")
        with self._literal():
            if draws or engine is None:
                super().draw(renderer)
            elif self.axes:
                engine.execute(self)

    def get_tightbbox(self, *arguments: Any, **options: Any) -> Bbox:
        """Return the box of all that is drawn."""
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
    """Return an empty figure that belongs to its caller: a notebook shows it once, and loops do not pile figures up."""
    figure = plt.figure(FigureClass=LiteralFigure, figsize=(width_in, height_in), layout=layout, facecolor="white")
    plt.close(figure)
    return figure


def name_ticks(axis: Axis, names: Sequence[str], *, rotation: float = 0) -> None:
    """A tick for each of the places 0, 1, ... on an axis; of many names only as many as can be read."""
    step = math.ceil(len(names) / _MOST_NAMES) or 1
    axis.set_ticks(range(0, len(names), step), names[::step], fontsize=7, rotation=rotation)


def draw(sheet: Sheet) -> Figure:
    """Draw the sheet as a matplotlib figure of its own, not the current one of pyplot: text and lines as vectors."""
    width, height, marks = lay_out(sheet)
    figure = new_figure(width * _INCHES_PER_PIXEL, height * _INCHES_PER_PIXEL, layout=None)
    ax = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0), autoscale_on=False)
    ax.set_axis_off()
    for mark in marks:
        match mark:
            case Shown():
                _show(ax, mark)
            case Filled(x, y, width, height, colour):
                ax.add_patch(Rectangle((x, y), width, height, fc=share(colour), ec="none", antialiased=False))
            case Written(x, y, text, colour, letters, anchor):
                ascent, descent = letters.getmetrics()
                ax.text(
                    x,
                    y + {"a": ascent, "m": (ascent - descent) / 2}[anchor[1]],
                    text,
                    color=share(colour),
                    family="DejaVu Sans",
                    weight="bold" if letters.getname()[1] == "Bold" else "normal",
                    size=letters.size * _POINTS_PER_PIXEL,
                    ha={"l": "left", "m": "center", "r": "right"}[anchor[0]],
                    zorder=_ZORDER,
                )
    return figure


def _show(ax: Axes, shown: Shown) -> None:
    """A picture with its contours, its box and its frame, cut off at its edges."""
    x, y, (height, width) = shown.x, shown.y, shown.picture.shape[:2]
    ax.imshow(shown.picture, extent=(x, x + width, y + height, y), aspect="auto", zorder=_ZORDER)
    outlines = [np.add(np.concatenate([line[:, 0], line[:1, 0]]), (x + 0.5, y + 0.5)) for line in shown.contours]
    lines: list[Artist] = [LineCollection(outlines, colors="black", linewidths=_POINTS_PER_PIXEL)]
    for (x1, y1, x2, y2), colour, pixels in (
        *([(shown.box, "white", 3), (shown.box, "black", 1)] if shown.box else []),
        ((0, 0, width, height), share(palette.FRAME), 1),
    ):
        corner, size = (x + x1 + 0.5, y + y1 + 0.5), (x2 - x1 - 1, y2 - y1 - 1)
        lines.append(Rectangle(corner, *size, fill=False, edgecolor=colour, linewidth=pixels * _POINTS_PER_PIXEL))
    for artist in lines:
        artist.set_zorder(_ZORDER)
        ax.add_artist(artist).set_clip_path(Rectangle((x, y), width, height, transform=ax.transData))


def save(figure: Figure, path: str | os.PathLike[str] | IO[bytes], *, dpi: int, **settings: Any) -> None:
    """Write a figure; letters that the font lacks, as in some names of images, are boxes and no warnings.

    A PNG says where images are shown; see `with_photos`.
    """
    data = io.BytesIO()
    if isinstance(path, str | os.PathLike):
        settings.setdefault("format", os.fspath(path).rpartition(".")[2].lower())
    if settings.get("format") == "png":
        settings.setdefault("pil_kwargs", {"compress_level": 3})  # half the time of the usual 6, a sixth more bytes
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(data, dpi=dpi, **settings)
    drawn = data.getvalue()
    if settings.get("format") == "png":
        drawn = with_photos(drawn, _photos(figure, dpi))
    if isinstance(path, str | os.PathLike):
        write_atomically(path, drawn)
    else:
        path.write(drawn)


def _photos(figure: Figure, dpi: int) -> Iterator[tuple[int, int, int, int]]:
    """Yield where a figure that is drawn shows pictures in colours of their own, in pixels from the top left."""
    per_point = dpi / figure.dpi
    for ax in figure.axes:
        for image in ax.images:
            values = image.get_array()
            if values is None or values.ndim != 3:
                continue
            if (box := Bbox.intersection(image.get_window_extent(), ax.bbox)) is None:
                continue
            from_top = (box.x0, figure.bbox.height - box.y1, box.x1, figure.bbox.height - box.y0)
            x1, y1, x2, y2 = (round(side * per_point) for side in from_top)
            yield x1, y1, x2, y2


def png_bytes(figure: Figure, *, dpi: int = 150) -> bytes:
    """Return a figure as the bytes of a PNG that are the same every time."""
    data = io.BytesIO()
    save(figure, data, format="png", dpi=dpi, metadata={"Software": None})
    return data.getvalue()


def colour_map(name: palette.MapName) -> ListedColormap:
    """Return the diverging map of that name for matplotlib."""
    return ListedColormap(palette.lookup_table(name) / 255.0, name=f"maskprism-{name}")


def share(colour: palette.RGB) -> tuple[float, float, float]:
    """Return a colour as matplotlib has it: shares of 0 to 1."""
    red, green, blue = (channel / 255 for channel in colour)
    return red, green, blue


def one_axes(width_in: float, height_in: float) -> tuple[Figure, Axes]:
    """Return a figure that the caller owns, and its axes."""
    figure = new_figure(width_in, height_in)
    return figure, figure.subplots()


def titled(figure: Figure, title: str) -> Figure:
    """Return the figure with a title above, flush left."""
    figure.suptitle(title, x=0.01, ha="left", fontsize=11.5, fontweight="bold", color=share(palette.INK))
    return figure
