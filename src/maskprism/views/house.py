"""One address for what was computed: an index over folders of results, and a page for those that have none.

What `diagnose`, `tune` and `page` write is linked. `prototypes`, `basis` and `compare` write pictures and tables; each of
their folders gets a page of them in the hand of the reports, which leads back to the index.
"""

from __future__ import annotations

import csv
import html
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from maskprism.errors import InputError, MaskprismError
from maskprism.views.report_parts import Section, cell, data_url, page, table

PAGE = "report.html"
_MOST_ROWS, _MOST_PICTURES, _MOST_NUMBERS = 400, 60, 8
_HEAD_BYTES = 400_000
_WORDS = {
    "diagnose": "where masks lose, in parts and kinds of errors",
    "tune": "what a correction of the coefficients gains",
    "page": "images and masks to take apart",
    "compare": "how two networks differ",
    "basis": "how many prototypes are used, in a basis easier to read",
    "prototypes": "what every prototype depends on",
}


@dataclass(frozen=True)
class Result:
    """What one command wrote. page: the file that shows it. numbers: some of its values, by name."""

    command: str
    page: Path
    numbers: tuple[tuple[str, str], ...] = ()

    @property
    def title(self) -> str:
        """What people call it: its folder, or the file where a folder holds several."""
        return self.page.parent.name if self.page.name == PAGE else self.page.stem.removesuffix(".tune")


def write_house(folders: Sequence[Path], out: Path) -> list[Path]:
    """Write the index over these folders and their subfolders, and the pages that were missing; gives all that it wrote.

    Raises InputError where nothing is found, MaskprismError where a file cannot be read or written.
    """
    try:
        found = [result for folder in folders for result in _results(folder, out)]
        if not found:
            raise InputError(
                f"{', '.join(map(str, folders))}: holds nothing that maskprism diagnose, tune, page, compare, basis or "
                "prototypes wrote; expected a folder with such results"
            )
        written = []
        for result in found:
            if result.command in ("compare", "basis", "prototypes"):
                result.page.write_text(_page_of(result, out), encoding="utf-8")
                written.append(result.page)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(_index(found, out), encoding="utf-8")
    except OSError as error:
        raise MaskprismError(
            f"{error.filename or out}: cannot be read or written ({error.strerror or error})"
        ) from None
    return [out, *written]


def _results(folder: Path, out: Path) -> Iterator[Result]:
    if not folder.is_dir():
        raise InputError(f"{folder}: is no folder; expected one with results of maskprism")
    for root, folders, names in os.walk(folder):
        folders.sort()
        here, held = Path(root), set(names)
        if {"summary.json", PAGE} <= held:
            yield Result("diagnose", here / PAGE, _numbers(here / "summary.json"))
        for command, file in (("compare", "comparison.json"), ("basis", "basis.json")):
            if file in held:
                yield Result(command, here / PAGE, _numbers(here / file))
        if {"prototypes.csv", "prototypes.png"} <= held:
            yield Result("prototypes", here / PAGE)
        for name in sorted(held):
            path = here / name
            if name.endswith(".tune.html"):
                yield Result("tune", path)
            elif path.suffix == ".html" and name != PAGE and path != out and _is_page(path):
                yield Result("page", path)


def _is_page(path: Path) -> bool:
    with path.open("rb") as file:
        return b'id="maskprism-scenes"' in file.read(_HEAD_BYTES)


def _numbers(path: Path) -> tuple[tuple[str, str], ...]:
    """The plain values of a JSON file, and of the objects in it, as far as they fit on a tile."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise MaskprismError(f"{path}: is no JSON ({error}); run the command that wrote it again") from None
    found: list[tuple[str, str]] = []

    def add(name: str, value: Any) -> None:
        if isinstance(value, bool) or value is None:
            return
        if isinstance(value, int | float):
            found.append((name, f"{value:.4g}" if isinstance(value, float) else f"{value:,}"))

    for name, value in (said if isinstance(said, dict) else {}).items():
        add(name.replace("_", " "), value)
        for inner, one in value.items() if isinstance(value, dict) else ():
            add(f"{name} {inner}".replace("_", " "), one)
    return tuple(found[:_MOST_NUMBERS])


def _page_of(result: Result, out: Path) -> str:
    """Pictures and tables of a folder that has no page of its own."""
    folder = result.page.parent
    pictures = sorted(folder.glob("*.png"))
    shown = "".join(_picture(path) for path in pictures[:_MOST_PICTURES])
    left = len(pictures) - _MOST_PICTURES
    more = f'<p class="quiet">and {left} more pictures in the folder</p>' if left > 0 else ""
    sections = [Section("figures", "Pictures", f'<div class="figures">{shown}</div>{more}')] if pictures else []
    for path in sorted(folder.glob("*.csv")):
        sections.append(Section(f"table-{path.stem}", path.stem, _table_of(path)))
    return page(
        result.command,
        title=result.title,
        subtitle=_WORDS[result.command],
        warnings=(),
        tiles=result.numbers,
        sections=sections,
        home=_link(result.page, out),
    )


def _picture(path: Path) -> str:
    name = html.escape(path.stem.replace("-", " ").replace("_", " "))
    return (
        f'<figure><img src="{data_url("image/png", path.read_bytes())}" alt="{name}" loading="lazy">'
        f"<figcaption>{name}</figcaption></figure>"
    )


def _table_of(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        headings, *rows = list(csv.reader(file)) or [[]]
    if not headings:
        return "<p>It is empty.</p>"
    cells = ["".join(cell(_short(value)) for value in row) for row in rows[:_MOST_ROWS]]
    left = len(rows) - _MOST_ROWS
    more = f'<p class="quiet">and {left} more rows in {html.escape(path.name)}</p>' if left > 0 else ""
    return table([name.replace("_", " ") for name in headings], cells, sortable=True, tall=True) + more


def _short(value: str) -> str:
    """A number with four digits; any other text as it is."""
    try:
        number = float(value)
    except ValueError:
        return value
    return value if number.is_integer() else f"{number:.4g}".replace("-", "−")


def _index(found: Sequence[Result], out: Path) -> str:
    groups = []
    for command, words in _WORDS.items():
        entries = [result for result in found if result.command == command]
        items = "".join(
            f'<li><p><a href="{html.escape(_link(out, result.page))}">{html.escape(result.title)}</a></p>'
            f'<p class="advice">{html.escape("; ".join(" ".join(pair) for pair in result.numbers))}</p></li>'
            for result in entries
        )
        if entries:
            heading = f"{command}: {words}"
            groups.append(Section(command, heading, f'<ol class="findings">{items}</ol>'))
    return page(
        "report",
        title="All that was computed",
        subtitle=f"{len(found)} results",
        warnings=(),
        tiles=[(command, str(sum(result.command == command for result in found))) for command in _WORDS],
        sections=groups,
    )


def _link(start: Path, target: Path) -> str:
    """The address of a file relative to another."""
    return quote(Path(os.path.relpath(target.resolve(), start.resolve().parent)).as_posix())
