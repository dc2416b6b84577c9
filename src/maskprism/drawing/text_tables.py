"""Tables: rows of text with a title and a note, and rows of values as CSV files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskprism._common.files import write_atomically
from maskprism._common.spreadsheet import guarded_text

Rows = Sequence[Mapping[str, int | float | str]]

MOST_ROWS = 64
"""Tables of text show at most this number of prototypes, and the others as one row; CSV files hold all."""


@dataclass(frozen=True)
class TextTable:
    """A table of at most 100 columns of text: a title, headers, rows, sums below them, and what to know about it."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    totals: tuple[tuple[str, ...], ...] = ()


def write_rows(rows: Rows, path: Path) -> Path:
    """Write rows as CSV; values that do not exist are left empty, and no text is a formula (`spreadsheet`).

    Raises
    ------
    MaskprismError
        If that fails.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows({name: _cell(value) for name, value in row.items()} for row in rows)
    return write_atomically(path, text.getvalue())


def _cell(value: int | float | str) -> int | float | str:
    if isinstance(value, str):
        return guarded_text(value)
    return "" if value != value else value
