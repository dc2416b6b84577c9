"""Results in folders: what is there, and what its files say."""

from __future__ import annotations

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskprism._common.text import readable
from maskprism.errors import InputError, MaskprismError
from maskprism.io.untrusted import decode_json, read_regular
from maskprism.reports.index.result_types import KINDS, PAGE, TUNE, Kind

MOST_BYTES = 64 << 20
"""Larger files were not written by maskprism."""
OURS = b'<meta name="generator" content="maskprism">'
_HEAD_BYTES = 1 << 20
_AGAIN = "run the command that wrote it again, or move it away"


@dataclass(frozen=True)
class Result:
    """What one command wrote. page: the file that shows it. said: the content of its JSON file."""

    kind: Kind
    page: Path
    title: str
    said: Mapping[str, Any] = field(default_factory=dict)

    @property
    def numbers(self) -> list[tuple[str, str]]:
        """Its values that matter, with their names; those that are missing, or no numbers, are left out."""
        found = []
        for title, path, style in self.kind.numbers:
            value = self._at(path)
            if isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15:
                whole = round(value) if style == "," else value
                found.append((title, format(whole, style).replace("-", "−")))
        return found

    @property
    def networks(self) -> list[str]:
        """The names of what it is about, A before B."""
        names = [name for path in self.kind.networks if isinstance(name := self._at(path), str) and name]
        return [f"{letter} {name}" for letter, name in zip("AB", names, strict=False)] if len(names) > 1 else names

    def _at(self, path: tuple[str, ...]) -> Any:
        value: Any = self.said
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def results_in(folder: Path) -> Iterator[Result]:
    """The results in a folder and its subfolders; links to folders are not followed.

    Raises InputError where there is no such folder, MaskprismError where a file of a result is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; expected one with results of maskprism")
    for root, folders, names in os.walk(folder):
        folders.sort()
        here, held = Path(root), set(names)
        known = set()
        for kind in KINDS:
            if held.issuperset(kind.marks) and (kind.made or says(here / kind.page, OURS)):
                known.add(kind.page)
                yield Result(kind, here / kind.page, readable(here.resolve().name), _said(here / kind.json))
        for name in sorted(held - known):
            path = here / name
            if name.endswith(".tune.html") and says(path, OURS):
                beside = path.with_suffix(".json")
                said = _said(beside) if beside.name in held else {}
                yield Result(TUNE, path, readable(name.removesuffix(".tune.html")), said)
            elif path.suffix == ".html" and says(path, b'id="maskprism-scenes"'):
                yield Result(PAGE, path, readable(path.stem))


def says(path: Path, mark: bytes) -> bool:
    """Whether a file, and not a link to one, says so in its beginning."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return mark in file.read(_HEAD_BYTES)


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The headings and rows of a CSV file; MaskprismError where it is none."""
    try:
        text = read_regular(path, MaskprismError, limit=MOST_BYTES).decode("utf-8")
        headings, *rows = list(csv.reader(io.StringIO(text, newline=""), strict=True)) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise MaskprismError(f"{path}: cannot be read as CSV ({error}); {_AGAIN}") from None
    if any(len(row) != len(headings) for row in rows):
        raise MaskprismError(f"{path}: has rows that are longer or shorter than its headings; {_AGAIN}")
    return headings, rows


def number_of(text: str) -> float:
    """The number that a cell holds; nan for other text."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _said(path: Path) -> dict[str, Any]:
    """What a JSON file holds; of the table of prototypes, how many have each tag."""
    if path.suffix != ".csv":
        expected = f"a file of results; {_AGAIN}"
        data = read_regular(path, MaskprismError, limit=MOST_BYTES)
        return decode_json(data, dict[str, Any], str(path), MaskprismError, expected)
    headings, rows = read_table(path)
    at = headings.index("tags") if "tags" in headings else None
    tags = Counter() if at is None else Counter(tag for row in rows for tag in row[at].split())
    return {**tags, "prototypes": len(rows)}
