"""Lay out a sheet, and draw it as an array of pixels: without matplotlib, fast enough for every image of a data set."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from maskprism._common.files import write_atomically
from maskprism._common.text import printable, single_line
from maskprism.drawing import palette
from maskprism.drawing.photo_boxes import with_photos

if TYPE_CHECKING:
    from typing import TypeAlias

    from jaxtyping import UInt8

    from maskprism.drawing.photo_boxes import Box
    from maskprism.drawing.sheets import Panel, Sheet

    Picture = UInt8[np.ndarray, "H W 3"]
    Contours = dict[tuple[int, int, int], list[np.ndarray]]
    Mark: TypeAlias = "Shown | Filled | Written"

_MARGIN = 20
_GAP = 10
_JOINT = 56
_BAND = 34
_FAR = 1e6  # pixels: lines that go further leave every picture, and OpenCV takes no more than an int32 holds
_TITLE_SIZE, _TEXT_SIZE, _BAND_SIZE = 26, 17, 18


class Shown(NamedTuple):
    """A picture at x, y with its frame; contours and boxes are in its own pixels."""

    x: int
    y: int
    picture: Picture
    contours: Sequence[np.ndarray]
    box: Box | None
    photos: Sequence[Box] = ()


class Filled(NamedTuple):
    """A rectangle of one colour."""

    x: int
    y: int
    width: int
    height: int
    colour: palette.RGB


class Written(NamedTuple):
    """A line of text; anchors are those of Pillow."""

    x: int
    y: int
    text: str
    colour: palette.RGB
    letters: ImageFont.FreeTypeFont
    anchor: str = "la"


def draw(sheet: Sheet) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the sheet as an array, HWC uint8 in RGB."""
    return draw_with_photos(sheet)[0]


def draw_with_photos(sheet: Sheet) -> tuple[UInt8[np.ndarray, "H W 3"], list[Box]]:
    """Draw the sheet as an array, and say where images are shown."""
    width, height, marks = lay_out(sheet)
    photos = [
        (shown.x + x1, shown.y + y1, shown.x + x2, shown.y + y2)
        for shown in marks
        if isinstance(shown, Shown)
        for x1, y1, x2, y2 in shown.photos
    ]
    page = np.full((height, width, 3), 255, dtype=np.uint8)
    for mark in marks:
        match mark:
            case Shown(x, y, picture, contours, box, _):
                area = page[y : y + picture.shape[0], x : x + picture.shape[1]]
                area[:] = picture
                cv2.drawContours(area, contours, -1, palette.INK, 1, cv2.LINE_AA)
                if box is not None:
                    cv2.rectangle(area, box[:2], (box[2] - 1, box[3] - 1), (255, 255, 255), 3)
                    cv2.rectangle(area, box[:2], (box[2] - 1, box[3] - 1), palette.INK, 1)
                area[[0, -1]] = area[:, [0, -1]] = palette.FRAME
            case Filled(x, y, width, height, colour):
                page[max(y, 0) : y + height, x : x + width] = colour
            case Written():
                write(page, mark[:2], *mark[2:])
    return page, photos


def lay_out(sheet: Sheet) -> tuple[int, int, list[Mark]]:
    """Lay the sheet out: the width and height of the page in pixels, and the marks on it, in drawing order."""
    columns = sheet.columns or _best_columns(sheet)
    rows = math.ceil(len(sheet.panels) / columns)
    joint = _JOINT if any(panel.joint for panel in sheet.panels) else _GAP
    band = _BAND if any(panel.title for panel in sheet.panels) else 0
    aspect = sheet.panels[0].aspect
    cell_w = (sheet.size_wh[0] - joint * (columns - 1)) // columns
    cell_h = min((sheet.size_wh[1] - _GAP * (rows - 1)) // rows - band, max(math.ceil(cell_w * aspect), 40))
    titles = (
        max(font(_BAND_SIZE, bold=panel.sign != 0).getlength(single_line(panel.title)) for panel in sheet.panels) + 20
    )
    cell_w = max(min(cell_w, math.ceil(cell_h / aspect)), min(cell_w, math.ceil(titles)))  # narrow panels need room too
    width = max(columns * cell_w + joint * (columns - 1), 760) + 2 * _MARGIN
    header = 84 if sheet.subtitle else 52
    room = width - 2 * _MARGIN
    notes = [line for note in sheet.notes for line in wrapped(note, font(_TEXT_SIZE), room)]
    footer = (26 * len(notes) + 8 if notes else 0) + (48 if sheet.scale else 0)
    height = header + rows * (cell_h + band) + _GAP * (rows - 1) + footer + _MARGIN
    marks: list[Mark] = []
    left = (width - (columns * cell_w + joint * (columns - 1))) // 2

    contours: Contours = {}
    for i, panel in enumerate(sheet.panels):
        x, y = left + (i % columns) * (cell_w + joint), header + (i // columns) * (cell_h + band + _GAP)
        if band:
            _draw_band(marks, panel, x, y, cell_w)
        _draw_panel(marks, panel, (x, y + band, cell_w, cell_h), contours)
        if panel.joint:
            middle = y + band + cell_h // 2
            marks.append(Written(x - joint // 2, middle, panel.joint, palette.INK, font(40, bold=True), "mm"))
        _draw_labels(marks, panel, x, y + band, cell_w, cell_h)
    _write_header(marks, sheet, room)
    bottom = height - _MARGIN - footer + 14
    if sheet.scale:
        _draw_scale(marks, sheet.scale, _MARGIN, bottom)
        bottom += 44
    for line in notes:
        marks.append(Written(_MARGIN, bottom, line, palette.MUTED, font(_TEXT_SIZE)))
        bottom += 26
    return width, height, marks


def _write_header(marks: list[Mark], sheet: Sheet, room: int) -> None:
    title, text = font(_TITLE_SIZE, bold=True), font(_TEXT_SIZE)
    marks.append(Written(_MARGIN, 14, fit(sheet.title, title, room), palette.INK, title))
    marks.append(Written(_MARGIN, 52, fit(sheet.subtitle, text, room), palette.MUTED, text))


def encode_png(picture: UInt8[np.ndarray, "H W 3"], photos: Iterable[Box] = ()) -> bytes:
    """Return an RGB picture as PNG, packed quickly: smooth colour maps pack well even without row filters.

    Parameters
    ----------
    photos
        Where images are shown; see `with_photos`.
    """
    settings = [cv2.IMWRITE_PNG_COMPRESSION, 1]
    if hasattr(cv2, "IMWRITE_PNG_FILTER"):
        settings += [cv2.IMWRITE_PNG_FILTER, cv2.IMWRITE_PNG_FILTER_NONE]
    _, data = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), settings)
    return with_photos(data.tobytes(), photos)


def save(sheet: Sheet, path: str | os.PathLike[str]) -> Path:
    """Draw the sheet into a PNG file; parent folders are made.

    Raises
    ------
    MaskprismError
        If that fails.
    """
    return write_atomically(path, encode_png(*draw_with_photos(sheet)))


def _best_columns(sheet: Sheet) -> int:
    """Return the number of columns that lets the panels of a sheet be largest."""
    count = len(sheet.panels)
    aspect = sheet.panels[0].aspect
    width, height = sheet.size_wh

    def scale(columns: int) -> float:
        rows = math.ceil(count / columns)
        cell_w = (width - _GAP * (columns - 1)) / columns
        cell_h = (height - _GAP * (rows - 1)) / rows - _BAND
        return min(cell_w, cell_h / aspect)

    # Titles need room, so narrow panels are not packed tighter than sixteen to a row.
    return max(range(1, min(count, 16) + 1), key=scale)


@lru_cache(maxsize=16)
def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and knows signs and most alphabets."""
    spec = find_spec("matplotlib")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    folder = Path(next(iter(spec.submodule_search_locations))) / "mpl-data" / "fonts" / "ttf"
    return ImageFont.truetype(str(folder / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf")), size)


def fit(text: str, letters: ImageFont.FreeTypeFont, room: int) -> str:
    """Return the text, shortened with an ellipsis to `room` pixels; control and format characters are escapes."""
    text = single_line(text)
    while len(text) > 4 and letters.getlength(text) > room:
        text = text[:-2].rstrip() + "…"
    return text


def wrapped(text: str, letters: ImageFont.FreeTypeFont, room: int) -> list[str]:
    """Return the text in lines of at most `room` pixels, broken between words; a longer word is shortened."""
    lines = [""]
    for word in printable(text).split():
        longer = f"{lines[-1]} {word}".lstrip()
        if lines[-1] and letters.getlength(longer) > room:
            lines.append(word)
        else:
            lines[-1] = longer
    return [fit(line, letters, room) for line in lines]


def _draw_band(marks: list[Mark], panel: Panel, x: int, y: int, width: int) -> None:
    """The strip above a panel: its title on the tint of its sign, and a bar as long as its weight is large."""
    tint = {1: palette.POSITIVE_TINT, -1: palette.NEGATIVE_TINT, 0: (244, 244, 244)}[panel.sign]
    marks.append(Filled(x, y, width, _BAND - 5, tint))
    if panel.bar is not None:
        middle, length = width // 2, round(abs(panel.bar) * (width // 2 - 2))
        start = middle if panel.bar > 0 else middle - length
        marks.append(Filled(x, y + _BAND - 9, width, 7, palette.PAPER))
        colour = palette.POSITIVE if panel.bar > 0 else palette.NEGATIVE
        marks.append(Filled(x + start, y + _BAND - 8, max(length, 1), 5, colour))
        marks.append(Filled(x + middle, y + _BAND - 9, 1, 7, palette.MUTED))
    if panel.title:
        ink = {1: palette.POSITIVE, -1: palette.NEGATIVE, 0: palette.INK}[panel.sign]
        letters = font(_BAND_SIZE, bold=panel.sign != 0)
        marks.append(Written(x + 8, y + 14, fit(panel.title, letters, width - 12), ink, letters, "lm"))


def _draw_panel(marks: list[Mark], panel: Panel, cell: tuple[int, int, int, int], contours: Contours) -> None:
    """A panel in the middle of its cell: x, y, width, height. Contours that panels share are found once."""
    x, y, cell_w, cell_h = cell
    height, width = panel.size_hw
    zoom = min(cell_w / (width * panel.pixel_aspect), cell_h / height)
    across = zoom * panel.pixel_aspect
    size = (max(round(width * across), 1), max(round(height * zoom), 1))
    photos: Sequence[Box] = ()
    if panel.values is not None:
        picture = palette.paint(panel.values, panel.limit, panel.map, size)
    else:
        whole = (0, 0, width, height)
        photos = [_scaled(photo, across, zoom) for photo in ((whole,) if panel.photos is None else panel.photos)]
        assert panel.picture is not None
        smooth = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
        picture = panel.picture if zoom == 1 else cv2.resize(panel.picture, size, interpolation=smooth)
    box = None
    if panel.box is not None:
        box = _scaled(panel.box, across, zoom)
    outline: list[np.ndarray] = []
    if panel.outline is not None:
        key = (id(panel.outline), *size)
        if key not in contours:
            contours[key] = list(_contours(panel.outline, size, box))
        outline = contours[key]
    x, y = x + (cell_w - picture.shape[1]) // 2, y + (cell_h - picture.shape[0]) // 2
    marks.append(Shown(x, y, picture, outline, None if panel.fills else box, photos))


def _scaled(box: Sequence[float], across: float, zoom: float) -> Box:
    sides = np.multiply(box, (across, zoom, across, zoom))
    x1, y1, x2, y2 = (round(side) for side in np.clip(sides, -_FAR, _FAR).tolist())
    return x1, y1, x2, y2


def _contours(logits: np.ndarray, size: tuple[int, int], box: tuple[int, int, int, int] | None) -> Iterator[np.ndarray]:
    """Yield the zero lines of the logits inside the box, in picture pixels."""
    above = (cv2.resize(np.ascontiguousarray(logits), size, interpolation=cv2.INTER_LINEAR) > 0).astype(np.uint8)
    if box is not None:
        x1, y1, x2, y2 = (max(side, 0) for side in box)
        inside = np.zeros_like(above)
        inside[y1:y2, x1:x2] = above[y1:y2, x1:x2]
        above = inside
    yield from cv2.findContours(above, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]


def _draw_labels(marks: list[Mark], panel: Panel, x: int, y: int, cell_w: int, cell_h: int) -> None:
    """Chips at box corners, moved down where they would cover one another."""
    height, width = panel.size_hw
    zoom = min(cell_w / width, cell_h / height)
    left, top = x + (cell_w - round(width * zoom)) // 2, y + (cell_h - round(height * zoom)) // 2
    letters = font(max(14, round(max(cell_w, cell_h) / 64)))
    line = round(letters.size) + 8
    taken: list[tuple[int, int, int, int]] = []
    for label in panel.labels:
        length = round(letters.getlength(single_line(label.text))) + 10
        lx = round(min(max(left + label.xy[0] * zoom, left), max(left + width * zoom - length, left)))
        ly = round(max(top + label.xy[1] * zoom - line, top))
        while any(lx < t[2] and t[0] < lx + length and ly < t[3] and t[1] < ly + line for t in taken):
            ly += line
        ly = min(ly, round(top + height * zoom) - line)
        taken.append((lx, ly, lx + length, ly + line))
        marks.append(Filled(lx, ly, length, line, label.colour))
        ink = palette.PAPER if palette.is_dark(label.colour) else palette.INK
        marks.append(Written(lx + 5, ly + line // 2, label.text, ink, letters, "lm"))


def _draw_scale(marks: list[Mark], scale: tuple[float, palette.MapName, str], x: int, y: int) -> None:
    limit, name, label = scale
    colours = palette.lookup_table(name)[np.linspace(0, 255, 320).astype(int)]
    marks.append(Shown(x, y, np.repeat(colours[None], 16, axis=0), (), None))
    letters = font(_TEXT_SIZE)
    marks.append(Written(x, y + 18, f"{-limit:.2f}".replace("-", "−"), palette.MUTED, letters))
    marks.append(Written(x + 160, y + 18, "0", palette.MUTED, letters, "ma"))
    marks.append(Written(x + 320, y + 18, f"{limit:+.2f}", palette.MUTED, letters, "ra"))
    marks.append(Written(x + 336, y + 8, label, palette.INK, letters, "lm"))


def write(
    page: Picture,
    xy: tuple[int, int],
    text: str,
    colour: palette.RGB,
    letters: ImageFont.FreeTypeFont,
    anchor: str = "la",
) -> None:
    """Blend a line of text into the page; what leaves the page is cut off.

    Anchors are those of Pillow.

    Control and format characters are escapes: a font cannot draw them, and some would turn other text around.
    """
    text = single_line(text)
    left, top, right, bottom = (math.floor(v) for v in letters.getbbox(text, anchor=anchor))
    width, height = right - left + 1, bottom - top + 1
    if not text or width <= 0 or height <= 0:
        return
    ink = Image.new("L", (width, height))
    ImageDraw.Draw(ink).text((-left, -top), text, 255, letters, anchor=anchor)
    x, y = xy[0] + left, xy[1] + top
    cut_x, cut_y = max(-x, 0), max(-y, 0)
    region = page[y + cut_y : y + height, x + cut_x : x + width]
    if not region.size:
        return
    share = np.asarray(ink, dtype=np.float32)[cut_y:, cut_x:][: region.shape[0], : region.shape[1], None] / 255
    region[:] = (region + share * (np.array(colour, dtype=np.float32) - region) + 0.5).astype(np.uint8)
