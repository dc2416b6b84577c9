"""The instances of any table in one form, whatever wrote it: the one reader of `search`, `atlas` and `basis --table`.

pyarrow, pandas, Polars and DuckDB write the same values with different types: lists of fixed or of any size, text as
`string`, `large_string`, `string_view` or a dictionary. Here all become the same columns, or one error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maskprism._common.text import counted, one_line, readable
from maskprism.errors import TableError
from maskprism.io.uris import shown
from maskprism.tables.table import TablePaths, read_rows, read_settings

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int32

    from maskprism.io.uris import UriPath

    Columns = dict[str, pa.ChunkedArray]

MOST_COEFFICIENTS = 65_536
LOSSES = ("resolution", "box", "prototypes", "coefficients")
_LISTS = ("coefficients", "mask_coefficients")
_TEXTS = {"image": ("image", "image_name"), "class_name": ("class_name", "class_id")}
_NUMBERS = ("score", "x1", "y1", "x2", "y2", "image_width", "image_height", "objectness", "iou", *LOSSES)
_USED = {"instance", *_LISTS, *_NUMBERS, *(name for names in _TEXTS.values() for name in names)}
_AT_ONCE = 1 << 16


class InstanceRows:
    """The instances of a table, some at a time, as tables of the same columns.

    Attributes
    ----------
    label
        What the table is called in messages.
    settings
        Of a table of `maskprism extract`; None for any other.
    names
        What the table calls each coefficient; empty until the first instance was read.
    not_finite
        How many instances were left out so far because their coefficients hold NaN or infinity.

    Notes
    -----
    Columns of the tables: "image" and "class_name" (text) where the table has them; "instance" (int32), counted within
    each image where the table has none; "weights" (float32 lists of fixed size): what multiplies the prototypes, which
    are the coefficients, times objectness if the mask rule of the table says so; and as float32, NaN where unknown,
    those of "score", "x1" to "y2", "image_width", "image_height", "iou" and the losses of an error budget that the
    table has. Rows without coefficients, such as ground truth that nothing matched, are left out.
    """

    def __init__(self, tables: Iterable[pa.Table], label: str, settings: Mapping[str, Any] | None = None) -> None:
        self._tables, self.label, self.settings = tables, label, settings
        self.names: tuple[str, ...] = ()
        self.not_finite = 0
        self._rows_of_image: dict[str, int] = {}

    @classmethod
    def read(cls, table: str | os.PathLike[str] | UriPath) -> InstanceRows:
        """Open a table of `extract`, or any other CSV or Parquet file with coefficients.

        Parameters
        ----------
        table
            A path or URI. It needs a column of lists `coefficients` or `mask_coefficients`, or columns `mask_0` (or
            `mask_1`) and so on. Of a folder of parts, an image in two parts counts once.

        Raises
        ------
        TableError
            Here, or while rows are read: where there is no such table, it is damaged, a column that is used is there
            twice or of a wrong type, or instances have different numbers of coefficients.
        """
        try:
            settings = read_settings(TablePaths.of(table))
        except TableError:  # a table that something else wrote, or none at all: reading its rows tells
            settings = None
        return cls(read_rows(table), shown(table), settings)

    def __iter__(self) -> Iterator[pa.Table]:
        try:
            for table in self._tables:
                source, columns = self._source(table.schema), self._columns(table)
                for start in range(0, len(table), _AT_ONCE):
                    some = {name: column.slice(start, _AT_ONCE) for name, column in columns.items()}
                    rows = self._in_one_form(some, source)
                    if len(rows):
                        yield rows
        except (pa.ArrowException, UnicodeError) as error:
            raise TableError(f"{self.label}: cannot be read as a table ({one_line(error)[:200]})") from None

    @property
    def note(self) -> str:
        """A sentence about the instances that were left out so far; empty for none."""
        if not self.not_finite:
            return ""
        verb = "is" if self.not_finite == 1 else "are"
        return f"{counted(self.not_finite, 'instance')} {verb} left out: NaN or infinity among the coefficients"

    def _source(self, schema: pa.Schema) -> tuple[str, ...]:
        """Return the column of lists with the coefficients, or the columns with one coefficient each."""
        lists = [field.name for field in schema if field.name in _LISTS and _is_list(field.type)]
        names = [name for name in schema.names if name.startswith("mask_") and name[5:].isdecimal()]
        if not lists and not names:
            raise TableError(
                f"{self.label}: has no coefficients; expected a column of lists 'coefficients' or 'mask_coefficients', "
                f"or columns mask_0, mask_1, ..., and it has {readable(', '.join(schema.names[:8])) or 'none'}"
            )
        return (min(lists, key=_LISTS.index),) if lists else tuple(names)

    def _columns(self, table: pa.Table) -> Columns:
        """Return the columns that are used, by name.

        Raises
        ------
        TableError
            For one that is there twice.
        """
        names = table.schema.names
        used = [name for name in dict.fromkeys(names) if name in _USED or name[:5] == "mask_"]
        if doubled := next((name for name in used if names.count(name) > 1), None):
            raise TableError(f"{self.label}: has the column {doubled} twice; rename or drop one of them")
        return {name: _without_view(table.column(names.index(name))) for name in used}

    def _in_one_form(self, columns: Columns, source: Sequence[str]) -> pa.Table:
        weights, known = self._lists(source[0], columns) if source[0] in _LISTS else self._numbers(source, columns)
        rows = {name: column.filter(pa.array(known)) for name, column in columns.items()}
        texts = {name: self._text(rows, names) for name, names in _TEXTS.items()}
        plain = [name for name in _NUMBERS if name in rows and not pa.types.is_nested(rows[name].type)]
        numbers = {name: self._number(name, rows) for name in plain}
        if "objectness" in numbers and (self.settings or {}).get("rule", {}).get("objectness"):
            weights = weights * numbers["objectness"][:, None]
        finite = np.isfinite(weights).all(axis=1)
        self.not_finite += int(np.count_nonzero(~finite))
        lists = pa.FixedSizeListArray.from_arrays(pa.array(weights.reshape(-1)), max(len(self.names), 1))
        form = {name: text for name, text in texts.items() if text is not None}
        form |= {"instance": pa.array(self._instances(rows, texts["image"])), "weights": lists}
        return pa.table(form | {name: pa.array(values) for name, values in numbers.items()}).filter(pa.array(finite))

    def _lists(self, name: str, columns: Columns) -> tuple[Float32[np.ndarray, "N K"], Bool[np.ndarray, " R"]]:
        """Return the coefficients of the N of R rows that have some, and which these are."""
        column = columns[name]
        lengths = np.asarray(pc.fill_null(pc.list_value_length(column), 0))
        known = lengths > 0
        widths = {*np.unique(lengths[known]).tolist(), *([len(self.names)] if self.names else [])}
        if len(widths) > 1:
            each = ", ".join(map(str, sorted(widths)))
            raise TableError(f"{self.label}: has instances with {each} coefficients each; expected one number for all")
        if max(widths, default=0) > MOST_COEFFICIENTS:
            raise TableError(f"{self.label}: has {max(widths)} coefficients; expected at most {MOST_COEFFICIENTS}")
        self.names = self.names or tuple(map(str, range(max(widths, default=0))))
        values = _as_float32(pc.list_flatten(column.filter(pa.array(known))))
        if values is None:
            raise TableError(f"{self.label}: the column {name} holds {column.type}; expected lists of numbers")
        return values.reshape(-1, max(len(self.names), 1)), known

    def _numbers(
        self, names: Sequence[str], columns: Columns
    ) -> tuple[Float32[np.ndarray, "N K"], Bool[np.ndarray, " R"]]:
        """As `_lists`, of columns with one coefficient each."""
        self.names = tuple(names)
        values = np.stack([self._number(name, columns) for name in names], axis=1)
        known = np.asarray(np.any([np.asarray(pc.is_valid(columns[name])) for name in names], axis=0))
        return values[known], known

    def _number(self, name: str, columns: Columns) -> Float32[np.ndarray, " N"]:
        """Return a column of numbers, NaN for what is missing."""
        values = _as_float32(columns[name])
        if values is None:
            raise TableError(f"{self.label}: the column {name} holds {columns[name].type}; expected numbers")
        return values

    def _text(self, columns: Columns, names: Sequence[str]) -> pa.ChunkedArray | None:
        """Return the first of some columns as text, empty where it is missing.

        None where the table has none of them.
        """
        name = next((name for name in names if name in columns), None)
        if name is None:
            return None
        column = columns[name]
        try:
            text = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
            text = pc.fill_null(text.cast(pa.string()), "")
            text.validate(full=True)
        except pa.ArrowException:
            held = "bytes that are not UTF-8" if pa.types.is_string(column.type) else column.type
            raise TableError(f"{self.label}: the column {name} holds {held}; expected text in UTF-8") from None
        return text

    def _instances(self, columns: Columns, images: pa.ChunkedArray | None) -> Int32[np.ndarray, " N"]:
        """Return the number of each row within its image: as the table has it, -1 where it is missing, or counted."""
        if "instance" in columns:
            values = self._number("instance", columns)
            return np.nan_to_num(values, nan=-1, posinf=-1, neginf=-1).clip(-1, 1 << 30).astype(np.int32)
        counts, found = self._rows_of_image, np.empty(len(next(iter(columns.values()))), dtype=np.int32)
        for row, image in enumerate(images.to_pylist() if images is not None else [""] * len(found)):
            found[row] = counts[image] = counts.get(image, -1) + 1
        return found


def _without_view(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column of text as a type that can be filtered: pyarrow has no such function for views of text."""
    return column.cast(pa.large_string()) if column.type in (pa.string_view(), pa.binary_view()) else column


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return any(
        check(kind)
        for check in (
            types.is_list,
            types.is_large_list,
            types.is_fixed_size_list,
            types.is_list_view,
            types.is_large_list_view,
        )
    )


def _as_float32(column: pa.ChunkedArray) -> Float32[np.ndarray, " N"] | None:
    """Return a column of numbers, NaN for what is missing; None for anything else."""
    try:
        return column.cast(pa.float32(), safe=False).to_numpy().astype(np.float32, copy=False)
    except (pa.ArrowException, UnicodeError):
        return None
