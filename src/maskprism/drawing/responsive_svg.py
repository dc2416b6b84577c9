"""A figure for a page that is read on screens of any width, light and dark: two SVGs in place of one picture.

The narrow one has the same letters in less room: titles, names of rows and values are broken into lines, legends have
two columns. Colours of ink, lines and frames follow the reader's scheme; those of data stay.
"""

from __future__ import annotations

import io
import re
import textwrap
from typing import TYPE_CHECKING, NamedTuple

import matplotlib as mpl

from maskprism.drawing import palette
from maskprism.drawing.figures import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NARROW_IN = 4.1
"""The width of the narrow figure in inches: letters of 9 points are then 9 points on a screen of 390 pixels."""
_TITLE_LETTERS = 42
_NAME_LETTERS = 17
_TEXT_LETTERS = 28
_LINE_IN = 0.15
_AROUND_IN = 1.4
_STYLE = (
    "<style>svg{--ink:#222;--muted:#696969;--frame:#dedede;fill:var(--ink)}"
    "@media (prefers-color-scheme:dark){svg{--ink:#e9e7e3;--muted:#a8a5a0;--frame:#3d4148}}</style>"
)
_DARK_MAPS = (
    f"<defs>{palette.DARK_FILTER}</defs><style>@media (prefers-color-scheme:dark){{image{{filter:url(#dark)}}}}</style>"
)
"""Zero is dark on a dark page: the same hues on a scale that does not glare. Dots, also images, keep their colours."""
_ROLES = {"ink": palette.INK, "muted": palette.MUTED, "frame": palette.FRAME}


class Adaptive(NamedTuple):
    """A figure as SVG, for much room and for little."""

    wide: bytes
    narrow: bytes


def adaptive(figure: Figure) -> Adaptive:
    """Return a figure in both widths; the same bytes every time. The figure is the narrow one afterwards."""
    wide = _svg(figure)
    _make_narrow(figure)
    return Adaptive(wide, _svg(figure))


def _make_narrow(figure: Figure) -> None:
    """Break titles, names and values into lines and make room for them."""
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(figure.get_suptitle(), _TITLE_LETTERS)
    for text in figure.texts:  # the title among them
        text.set_text("\n".join(lines) if text.get_text() == figure.get_suptitle() else text.get_text())
    tallest = height + _LINE_IN * max(len(lines) - 1, 0)
    for ax in figure.axes:
        for text in ax.texts:
            text.set_text(_broken(text.get_text(), _TEXT_LETTERS))
        for axis in (ax.xaxis, ax.yaxis):
            labels = [label.get_text() for label in axis.get_ticklabels()]
            if any(len(label) > _NAME_LETTERS for label in labels):
                labels = [_broken(label, _NAME_LETTERS) for label in labels]
                axis.set_ticks(axis.get_ticklocs(), labels)
            if axis is ax.yaxis:
                most = max((label.count("\n") + 1 for label in labels), default=1)
                tallest = max(tallest, _AROUND_IN + _LINE_IN * most * len(labels))
        legend = ax.get_legend()
        if legend is not None and len(legend.get_texts()) > 2:
            names = [text.get_text() for text in legend.get_texts()]
            title = legend.get_title().get_text() or None
            ax.legend(
                [handle for handle in legend.legend_handles if handle is not None],
                names,
                title=title,
                ncols=2,
                loc="lower left",
                bbox_to_anchor=(0, 1),
            )
    figure.set_size_inches(min(NARROW_IN, width), tallest)


def _broken(text: str, letters: int) -> str:
    return "\n".join(part for line in text.split("\n") for part in textwrap.wrap(line, letters) or [""])


def _svg(figure: Figure) -> bytes:
    data = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "maskprism", "svg.fonttype": "path"}):
        save(figure, data, dpi=150, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = data.getvalue().decode()
    for role, (red, green, blue) in _ROLES.items():
        text = text.replace(f"#{red:02x}{green:02x}{blue:02x}", f"var(--{role})")
    style = _STYLE + (_DARK_MAPS if any(ax.images for ax in figure.axes) else "")
    return re.sub(r"(<svg[^>]*>)", rf"\1{style}", text, count=1).encode()
