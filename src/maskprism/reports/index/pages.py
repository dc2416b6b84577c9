"""A page for a result of pictures and tables, in the style of the reports."""

from __future__ import annotations

import csv
import hashlib
import html
import io
import math
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes

from maskprism._common.text import counted, readable
from maskprism.drawing.photo_boxes import photos_of, size_of
from maskprism.errors import MaskprismError
from maskprism.io.images import read_image
from maskprism.io.untrusted import is_file, read_regular
from maskprism.reports.html import Section, cell, findings, page, table
from maskprism.reports.manifest import MOST_BYTES, SUFFIX, PictureFile, ResultManifest, TableFile, thumbnail_url
from maskprism.viewer.markup import data_url, static_text

_MOST_ROWS, _FIRST = 400, 2
_PICTURE_BYTES = 32 << 20
"""Pictures beyond these stay beside the page."""
_READABLE = 0.6
"""Pictures that are smaller than this part of their size have letters of less than 10 pixels."""
_PNG_HEAD, _PNG_TAIL = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"
RERUN = "run the command that wrote it again"
"""What to do about a file that is not there any more."""
_AGAIN = f"{RERUN}, or move it away"


Table = tuple[list[str], list[list[str]]]
"""Headings and rows."""


def missing(path: Path) -> str:
    """Return a note on a file of a result that is not there, or is not a page of maskprism any more."""
    return f"{path}: is {'no page of maskprism any more' if is_file(path) else 'not there'}; {RERUN}"


@dataclass(frozen=True)
class Result:
    """A manifest and where it is."""

    path: Path
    manifest: ResultManifest

    @property
    def needs_page(self) -> bool:
        """Whether `maskprism report` makes its page."""
        return not self.manifest.page

    @property
    def page(self) -> Path:
        """The page that shows it."""
        made = self.path.with_name(self.path.name.removesuffix(SUFFIX) + ".html")
        return made if self.needs_page else self.file(self.manifest.page)

    @property
    def about(self) -> str:
        """What such results are about, as a heading."""
        return self.manifest.about[:1].upper() + self.manifest.about[1:]

    @property
    def models(self) -> list[str]:
        """The names of the models; of several with A, B before them."""
        names = [name for name in self.manifest.models if name]
        return [f"{letter} {name}" for letter, name in zip("AB", names, strict=False)] if len(names) > 1 else names

    @property
    def numbers(self) -> list[tuple[str, str]]:
        """The values, with their names, without those that the verdict shows."""
        judged = {check.title for check in self.manifest.verdict.checks} if self.manifest.verdict else set()
        return [(one.title, one.text) for one in self.manifest.numbers if one.text and one.title not in judged]

    @property
    def thumbnail(self) -> str:
        """A small picture of it, as HTML: the manifest's, or its first picture that can be read; else the logo."""
        if self.manifest.thumbnail:
            return f'<img src="{self.manifest.thumbnail}" alt="">'
        for picture in self.manifest.pictures:
            if not is_file(path := self.file(picture.file)):
                continue
            try:
                pixels = read_image(path)
                photos = photos_of(read_regular(path, MaskprismError, limit=MOST_BYTES))
            except MaskprismError:
                continue
            x1, y1, x2, y2 = photos[0] if photos else (0, 0, *pixels.shape[1::-1])
            shown = pixels[max(y1, 0) : y2, max(x1, 0) : x2]
            kind = ' class="paper"' if photos == [] else ""
            return f'<img{kind} src="{thumbnail_url(shown if shown.size else pixels)}" alt="">'
        return static_text("icon.svg").strip()

    def pictures(self) -> tuple[list[tuple[Path, PictureFile]], list[str]]:
        """Return the pictures that are there, and a note on each of the others."""
        there, notes = [], []
        for picture in self.manifest.pictures:
            path = self.file(picture.file)
            if not is_file(path):
                notes.append(missing(path))
            elif not _is_png(path):
                notes.append(f"{path}: is no PNG picture any more; {_AGAIN}")
            else:
                there.append((path, picture))
        return there, notes

    def tables(self) -> tuple[list[tuple[Path, TableFile, Table]], list[str]]:
        """Return the tables that can be read, with their headings and rows, and a note on each of the others."""
        read, notes = [], []
        for about in self.manifest.tables:
            path = self.file(about.file)
            try:
                read.append((path, about, read_table(path, {about.order.removeprefix("-"), *about.headings} - {""})))
            except MaskprismError as error:
                notes.append(str(error) if is_file(path) else missing(path))
        return read, notes

    def file(self, url: str) -> Path:
        """Return the file of a URL in the manifest.

        Raises
        ------
        MaskprismError
            For one outside of the folder.
        """
        folder = self.path.parent
        path = Path(os.path.normpath(folder / os.fsdecode(unquote_to_bytes(url))))
        if "\0" in str(path) or not path.resolve().is_relative_to(folder.resolve()) or path == folder:
            raise MaskprismError(f"{self.path}: names {readable(url)}; expected a file in its own folder; {_AGAIN}")
        return path


def page_of(result: Result, home: str) -> str:
    """Return a page for a result without one.

    Parameters
    ----------
    home
        The address of the index.
    """
    manifest = result.manifest
    texts = [text for text in manifest.findings if text]
    reading = [findings([f"<li><p>{html.escape(text)}</p></li>" for text in texts])] if texts else []
    (pictures, picture_notes), (tables, table_notes) = result.pictures(), result.tables()
    sections = [
        Section(f"table-{quote(os.fsencode(path.stem))}", readable(path.stem).capitalize(), _table(path, about, *rows))
        for path, about, rows in tables
    ]
    return page(
        manifest.command,
        title=manifest.title,
        subtitle=" · ".join([*result.models, result.about]),
        warnings=[*picture_notes, *table_notes],
        tiles=result.numbers,
        sections=[*reading, *_pictures(pictures), *sections],
        home=home,
        verdict=manifest.verdict,
    )


def _pictures(there: Sequence[tuple[Path, PictureFile]]) -> list[Section]:
    """Return pictures, as many as one file should hold; links to the others."""
    shared = [one.caption for _, one in there]
    shown, room = "", _PICTURE_BYTES
    for at, (path, picture) in enumerate(there):
        data = read_regular(path, MaskprismError, limit=MOST_BYTES)
        room -= len(data)
        if room < 0:
            links = ", ".join(
                f'<a href="{html.escape(one.file)}">{html.escape(readable(path.stem))}</a>' for path, one in there[at:]
            )
            return [Section("figures", "Pictures", f'<div class="figures">{shown}</div><p>In the folder: {links}.</p>')]
        shown += _figure(path, picture, data, named=shared.count(picture.caption) > 1)
    return [Section("figures", "Pictures", f'<div class="figures">{shown}</div>')] if there else []


def _figure(path: Path, picture: PictureFile, data: bytes, *, named: bool) -> str:
    text = html.escape(picture.caption)
    link = f'<a href="{html.escape(picture.file)}" title="The picture alone">{_image(data, text)}</a>'
    name = f' <span class="quiet">{html.escape(readable(path.stem))}</span>' if named else ""
    wide = " class=wide" if picture.wide else ""
    return f"<figure{wide}><div class=sideways>{link}</div><figcaption>{text}{name}</figcaption></figure>"


def _image(png: bytes, text: str) -> str:
    """Return a picture whose paper is dark on a dark page, and whose images keep their colours."""
    photos = photos_of(png)
    address = data_url("image/png", png)
    if photos is None:
        return f'<img src="{address}" alt="{text}">'
    width, height = size_of(png)
    name = hashlib.sha256(png).hexdigest()[:16]
    path = "".join(f"M{x1} {y1}H{x2}V{y2}H{x1}Z" for x1, y1, x2, y2 in photos)
    return (
        f'<svg class="sheet" width="{round(_READABLE * width)}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{text}"><defs>'
        f'<image id="p{name}" width="{width}" height="{height}" href="{address}"/>'
        f'<clipPath id="c{name}"><path d="{path}"/></clipPath></defs><use class="paper" href="#p{name}"/>'
        + (f'<use href="#p{name}" clip-path="url(#c{name})"/>' if path else "")
        + "</svg>"
    )


def _table(path: Path, about: TableFile, headings: list[str], rows: list[list[str]]) -> str:
    """Return a CSV file as a table: in its order, without the columns that hold nothing."""
    words = f'<p class="quiet">{html.escape(about.caption[:1].upper() + about.caption[1:])}</p>'
    shown = [i for i in range(len(headings)) if not rows or any(row[i] for row in rows)]
    order = about.order.removeprefix("-")
    if order in headings:
        column, sign = headings.index(order), -1 if about.order.startswith("-") else 1
        rows.sort(key=lambda row: (math.isnan(value := _number_of(row[column])), sign * value))
        shown.sort(key=lambda i: 0 if i < _FIRST else 1 if i == column else 2)  # seen without scrolling
    text = {i for i in shown if any(row[i] and math.isnan(_number_of(row[i])) for row in rows)}
    cells = ["".join(cell(_short(row[i]), "text" if i in text else "") for i in shown) for row in rows[:_MOST_ROWS]]
    left = len(rows) - _MOST_ROWS
    more = f'<p class="quiet">and {counted(left, "more row")} in {html.escape(path.name)}</p>' if left > 0 else ""
    names = [about.headings.get(headings[i], headings[i].replace("_", " ")) for i in shown]
    return words + table(names, cells, text=[shown.index(i) for i in text], sortable=True, tall=True) + more


def _is_png(path: Path) -> bool:
    """Return whether a file begins and ends like a PNG."""
    with path.open("rb") as file:
        head, size = file.read(len(_PNG_HEAD)), file.seek(0, os.SEEK_END)
        file.seek(max(size - len(_PNG_TAIL), 0))
        return head == _PNG_HEAD and file.read() == _PNG_TAIL


def read_table(path: Path, known: Collection[str] = ()) -> Table:
    """Return the headings and rows of a CSV file; MaskprismError where it is none, or has none of the known columns."""
    try:
        text = read_regular(path, MaskprismError, limit=MOST_BYTES).decode("utf-8")
        headings, *rows = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise MaskprismError(f"{path}: cannot be read as CSV ({error}); {_AGAIN}") from None
    if any(len(row) != len(headings) for row in rows):
        raise MaskprismError(f"{path}: has rows that are longer or shorter than its headings; {_AGAIN}")
    if not headings or (known and set(known).isdisjoint(headings)):
        raise MaskprismError(f"{path}: has none of the columns that were written; {_AGAIN}")
    return headings, rows


def _number_of(text: str) -> float:
    """Return the number that a cell holds; nan for other text."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _short(value: str) -> str:
    """Return a number with four digits, yes and no; other text and counts unchanged."""
    number = _number_of(value)
    if not math.isfinite(number):
        return {"True": "yes", "False": "no"}.get(value, value)
    return (value if value.isdecimal() else f"{number:.4g}").replace("-", "−")
