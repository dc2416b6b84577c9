"""A page for a folder of pictures and tables, in the style of the reports."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from maskprism._common.text import counted, readable
from maskprism.errors import MaskprismError
from maskprism.io.untrusted import read_regular
from maskprism.reports.html import Section, cell, findings, page, table
from maskprism.reports.index.result_types import HEADINGS, Kind, Rows
from maskprism.reports.index.results import MOST_BYTES, Result, number_of, read_table
from maskprism.viewer.markup import data_url

_MOST_ROWS, _MOST_NAMED, _FIRST = 400, 8, 2
_PICTURE_BYTES = 32 << 20
"""Pictures beyond these stay beside the page."""


def page_of(result: Result, home: str) -> str:
    """Make the page of a result that has no page. home: the address of the index."""
    folder, kind = result.page.parent, result.kind
    said = [findings([f"<li><p>{html.escape(one)}</p></li>" for one in found])] if (found := sentences(result)) else []
    tables = [
        Section(f"table-{name}", name.capitalize(), _table(folder / f"{name}.csv", rows))
        for name, rows in kind.tables.items()
        if (folder / f"{name}.csv").is_file()
    ]
    return page(
        kind.command,
        title=result.title,
        subtitle=" · ".join([*result.networks, f"{kind.words[0].upper()}{kind.words[1:]}"]),
        warnings=(),
        tiles=result.numbers,
        sections=[*said, *_pictures(folder, kind), *tables],
        home=home,
    )


def sentences(result: Result) -> list[str]:
    """The sentences of a comparison or a basis, as far as its file has them."""
    said = result.said
    if result.kind.command == "compare":
        tolerance = said.get("tolerance")
        violations = tolerance.get("violations") if isinstance(tolerance, Mapping) else None
        found = [f"{one[0].upper()}{one[1:]}." for one in _all(str, violations) if one]
        if isinstance(part := said.get("guilty"), str):
            found.append(f"Most of the difference comes from the {part}.")
        return found or ["Both networks are the same within the tolerance."]
    if result.kind.command == "basis":
        pairs = [
            f"{pair.get('first')} and {pair.get('second')}"
            for pair in _all(dict, said.get("redundant_pairs"))
            if isinstance(pair.get("first"), int) and isinstance(pair.get("second"), int)
        ]
        dead = [str(one) for one in _all(int, said.get("dead"))]
        told = (
            ("Redundant, that is drawn alike and asked for alike", pairs),
            ("Dead, that is adding next to nothing", dead),
        )
        return [f"{words}: {_listed(names)}." for words, names in told if names]
    return []


def _all(kind: type, value: Any) -> list[Any]:
    return [one for one in value if isinstance(one, kind)] if isinstance(value, list) else []


def _listed(names: list[str]) -> str:
    left = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {left} more" if left > 0 else "")


def _pictures(folder: Path, kind: Kind) -> list[Section]:
    """The pictures of a folder that have captions, in the order of these, as many as one file should hold."""
    named = [(path, name) for path in sorted(folder.glob("*.png")) if (name := _name(path.stem, kind))]
    named.sort(key=lambda one: list(kind.captions).index(one[1]))
    shown, room = "", _PICTURE_BYTES
    for at, (path, name) in enumerate(named):
        data = read_regular(path, MaskprismError, limit=MOST_BYTES)
        room -= len(data)
        if room < 0:
            links = ", ".join(
                f'<a href="{address(one)}">{html.escape(readable(one.stem))}</a>' for one, _ in named[at:]
            )
            return [Section("figures", "Pictures", f'<div class="figures">{shown}</div><p>In the folder: {links}.</p>')]
        shown += _figure(path, data, kind.captions[name], which=path.stem != name, wide=name in kind.wide)
    return [Section("figures", "Pictures", f'<div class="figures">{shown}</div>')] if named else []


def _name(stem: str, kind: Kind) -> str:
    """The name in `captions` that a picture goes by, the longest that fits; nothing for one that is not shown."""
    known = [name for name in kind.captions if stem == name or stem.startswith(f"{name.removesuffix('-')}-")]
    return max(known, key=len, default="")


def _figure(path: Path, data: bytes, caption: str, *, which: bool, wide: bool) -> str:
    name, text = html.escape(readable(path.stem)), html.escape(caption)
    image = f'<img src="{data_url("image/png", data)}" alt="{text}">'
    link = f'<a href="{address(path)}" title="The picture alone">{image}</a>'
    said = f' <span class="quiet">{name}</span>' if which else ""
    return f"<figure{' class=wide' if wide else ''}>{link}<figcaption>{text}{said}</figcaption></figure>"


def address(path: Path) -> str:
    """The address of a file in the same folder, whatever the bytes of its name are."""
    return quote(path.name.encode(errors="surrogateescape"))


def _table(path: Path, about: Rows) -> str:
    """A CSV file as a table: in its order, without the columns that hold nothing."""
    headings, rows = read_table(path)
    words = f'<p class="quiet">{about.words[0].upper()}{about.words[1:]}.</p>'
    shown = [i for i in range(len(headings)) if not rows or any(row[i] for row in rows)]
    order = about.order.removeprefix("-")
    if order in headings:
        column, sign = headings.index(order), -1 if about.order.startswith("-") else 1
        rows.sort(key=lambda row: (math.isnan(value := number_of(row[column])), sign * value))
        shown.sort(key=lambda i: 0 if i < _FIRST else 1 if i == column else 2)  # seen without scrolling
    text = {i for i in shown if any(row[i] and math.isnan(number_of(row[i])) for row in rows)}
    cells = ["".join(cell(_short(row[i]), "text" if i in text else "") for i in shown) for row in rows[:_MOST_ROWS]]
    left = len(rows) - _MOST_ROWS
    more = f'<p class="quiet">and {counted(left, "more row")} in {html.escape(path.name)}</p>' if left > 0 else ""
    names = [HEADINGS.get(headings[i], headings[i].replace("_", " ")) for i in shown]
    return words + table(names, cells, text=[shown.index(i) for i in text], sortable=True, tall=True) + more


def _short(value: str) -> str:
    """A number with four digits, yes and no; any other text, and counts unchanged."""
    number = number_of(value)
    if not math.isfinite(number):
        return {"True": "yes", "False": "no"}.get(value, value)
    return (value if value.isdecimal() else f"{number:.4g}").replace("-", "−")
