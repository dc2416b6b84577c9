"""Coefficient tables: one row per instance, and beside it one row per image.

A table on disk, or behind a URI, is Parquet or CSV. Both carry the settings that determine the rows: Parquet in its
schema metadata, CSV in a `.meta.json` file beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from maskprism.columns import METADATA_KEY, image_schema, instance_schema, read_settings_text
from maskprism.errors import TableError
from maskprism.foreign import is_folder, read_regular, shortened, size_of_regular
from maskprism.locations import Location, UriPath, location, shown

if TYPE_CHECKING:
    from jaxtyping import Float32


_ROW_GROUP = 1 << 16
_CSV_BLOCK = 8 << 20
_HINT = "; check its name, your credentials and the connection"


@dataclass(frozen=True)
class TablePaths:
    """The files of one table. `settings` is None for Parquet, which carries them inside."""

    table: Location
    images: Location
    settings: Location | None
    parts: Location

    @classmethod
    def of(cls, out: str | os.PathLike[str] | UriPath) -> TablePaths:
        """The files of the table at the path or URI `out`. Raises TableError unless it ends in .csv or .parquet."""
        try:
            path = location(out)
        except OSError as error:
            raise TableError(f"{shown(out)}: cannot be opened ({error}){_HINT}") from None
        if path.suffix.lower() not in (".csv", ".parquet"):
            raise TableError(
                f"{path}: the suffix is {path.suffix or 'missing'}; expected a table ending in .csv or .parquet"
            )
        return cls(
            table=path,
            images=path.with_name(f"{path.stem}.images{path.suffix}"),
            settings=path.with_name(f"{path.stem}.meta.json") if path.suffix.lower() == ".csv" else None,
            parts=path.with_name(f"{path.name}.parts"),
        )


class TableWriter:
    """Writes one table batch by batch, in whole row groups; CSV or Parquet by `csv`."""

    def __init__(self, path: Path, schema: pa.Schema, *, csv: bool) -> None:
        self._csv, self._waiting, self._rows = csv, [schema.empty_table()], 0
        self._file = path.open("wb")
        self._writer = (
            pa_csv.CSVWriter(self._file, _to_csv(schema.empty_table()).schema)
            if csv
            else pq.ParquetWriter(self._file, schema, compression="zstd")
        )

    def write(self, batch: pa.Table) -> None:
        """Append rows."""
        self._waiting.append(batch)
        self._rows += len(batch)
        if self._rows >= _ROW_GROUP:
            self._flush()

    def close(self) -> None:
        """Finish the file and see it onto the disk."""
        self._flush()
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def _flush(self) -> None:
        rows = pa.concat_tables(self._waiting).combine_chunks()
        self._waiting, self._rows = self._waiting[:1], 0
        if len(rows):
            self._writer.write_table(_to_csv(rows) if self._csv else rows)


def read_batches(path: Location, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a table, a bounded number at a time, as tables of `schema`.

    Raises TableError for a file that is damaged or has other columns.
    """
    size_of_regular(path, TableError)
    try:
        if path.suffix.lower() == ".csv":
            with _opened(path) as data:
                for batch in _open_csv(path, data, schema):
                    yield _from_csv(pa.Table.from_batches([batch]), schema)
            return
        with _opened(path) as data, pq.ParquetFile(data) as file:
            _refuse_other_columns(path, file.schema_arrow, schema)
            for batch in file.iter_batches(_ROW_GROUP):
                yield pa.Table.from_batches([batch]).replace_schema_metadata(schema.metadata)
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise TableError(f"{path}: cannot be read as a table ({error}); has it been edited or damaged?") from None


def read_settings(paths: TablePaths) -> dict[str, Any] | None:
    """The settings that the table at `paths.table` was made with; None where there is no table.

    Raises TableError for a file that is no coefficient table.
    """
    if paths.settings is None:
        return read_parquet_settings(paths.table) if there(paths.table) else None
    if there(paths.settings):
        return read_settings_text(read_regular(paths.settings, TableError), str(paths.settings), "move it away")
    if there(paths.table):
        raise TableError(
            f"{paths.table}: is not a coefficient table, or {paths.settings.name} beside it is missing; "
            "move it away, or choose another name"
        )
    return None


def read_parquet_settings(path: Location) -> dict[str, Any]:
    """The settings in the schema metadata of one Parquet file; TableError where it has none."""
    hint = "move it away, or choose another name"
    size_of_regular(path, TableError)
    try:
        with _opened(path) as data:
            metadata = pq.read_schema(data).metadata or {}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise TableError(f"{path}: cannot be read as Parquet ({error}); {hint}") from None
    if METADATA_KEY not in metadata:
        raise TableError(f"{path}: is not a coefficient table of maskprism; {hint}")
    return read_settings_text(metadata[METADATA_KEY], str(path), hint)


def count_rows(path: Location) -> int:
    """The rows that a Parquet file says it has."""
    with _opened(path) as data:
        return int(pq.read_metadata(data).num_rows)


@dataclass(frozen=True, eq=False)
class CoefficientTable:
    """A table in memory, the same whether it was Parquet or CSV, on disk or behind a URI.

    arrow: one row per instance, coefficients as fixed-size lists.
    images: one row per image, with those that failed; None where that file is not beside the table.
    metadata: the settings that determined the rows.
    """

    arrow: pa.Table
    images: pa.Table | None
    metadata: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike[str] | UriPath) -> CoefficientTable:
        """Read the table at `path`, a path or URI, whole. Raises TableError where there is none, or it is damaged."""
        paths = TablePaths.of(path)
        try:
            return cls._read(paths)
        except OSError as error:
            raise TableError(f"{paths.table}: cannot be read ({error}){_HINT}") from None

    @classmethod
    def _read(cls, paths: TablePaths) -> CoefficientTable:
        settings = read_settings(paths)
        if settings is None or not there(paths.table):
            unfinished = "; its extraction is not finished, run it again" if is_folder(paths.parts) else ""
            raise TableError(f"{shortened(paths.table)}: there is no such table{unfinished}")
        schema = instance_schema(settings)
        images = image_schema(settings)
        return cls(
            arrow=pa.concat_tables([schema.empty_table(), *read_batches(paths.table, schema)]),
            images=pa.concat_tables([images.empty_table(), *read_batches(paths.images, images)])
            if there(paths.images)
            else None,
            metadata=settings,
        )

    def __len__(self) -> int:
        return len(self.arrow)

    @property
    def coefficients(self) -> Float32[np.ndarray, "N K"]:
        """One row per instance, as the network gave them."""
        return _matrix(self.arrow["coefficients"])


def _matrix(column: pa.ChunkedArray) -> Float32[np.ndarray, "N K"]:
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.float32)
    return flat.reshape(-1, column.type.list_size)


def _to_csv(table: pa.Table) -> pa.Table:
    """Coefficients spread over columns mask_0, mask_1, ...; CSV knows no lists."""
    if "coefficients" not in table.column_names:
        return table
    by_prototype = np.ascontiguousarray(_matrix(table["coefficients"]).T)
    columns = {name: table[name] for name in table.column_names if name != "coefficients"}
    return pa.table(columns | {f"mask_{k}": pa.array(values) for k, values in enumerate(by_prototype)})


def _from_csv(table: pa.Table, schema: pa.Schema) -> pa.Table:
    if "coefficients" not in schema.names:
        return table.cast(schema)
    kind = schema.field("coefficients").type
    matrix = np.stack([table[f"mask_{k}"].to_numpy() for k in range(kind.list_size)], axis=1)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), type=kind)
    arrays = [lists if name == "coefficients" else table[name] for name in schema.names]
    return pa.Table.from_arrays(arrays, schema=schema)


def _opened(path: Location) -> AbstractContextManager[Any]:
    return path.opened() if isinstance(path, UriPath) else nullcontext(path)


def _open_csv(path: Location, data: Any, schema: pa.Schema) -> Any:
    expected = _to_csv(schema.empty_table()).schema
    reader = pa_csv.open_csv(
        data,
        read_options=pa_csv.ReadOptions(block_size=_CSV_BLOCK),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(column_types=expected, null_values=[""], strings_can_be_null=False),
    )
    _refuse_other_columns(path, reader.schema, expected)
    return reader


def _refuse_other_columns(path: Location, found: pa.Schema, expected: pa.Schema) -> None:
    if not found.equals(expected):
        raise TableError(
            f"{path}: has the columns {', '.join(found.names)}; expected {', '.join(expected.names)}. "
            "Put the file back as it was written, or choose another name"
        )


def there(path: Location) -> bool:
    """Whether something has this name, be it a link that leads nowhere."""
    return os.path.lexists(path) if isinstance(path, Path) else path.exists()  # Path.exists raises for long names
