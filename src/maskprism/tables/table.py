"""Coefficient tables: one row per instance, beside it one row per image, and if asked for one with prototypes.

A table on disk, or behind a URI, is a Parquet or CSV file, or a folder of Parquet parts. All carry the settings that
determine the rows: Parquet in its schema metadata, CSV in a `.meta.json` file beside it, a folder in its manifest.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from maskprism._common.spreadsheet import guarded, unguarded
from maskprism._common.text import one_line, readable
from maskprism.errors import TableError
from maskprism.io.untrusted import is_folder, read_regular, shortened, size_of_regular
from maskprism.io.uris import Location, UriPath, location, shown
from maskprism.tables.schema import (
    METADATA_KEY,
    Manifest,
    image_schema,
    instance_schema,
    read_manifest_text,
    read_settings_text,
)
from maskprism.tables.stored_prototypes import VALUES

if TYPE_CHECKING:
    from jaxtyping import Float32


INSTANCES, PROTOTYPES, IMAGES = "instances", "prototypes", "images"
"""The tables of one table; also the folders of their parts, where there are parts."""

_ROW_GROUP = 1 << 16
_ROW_GROUP_BYTES = 32 << 20
_PROTOTYPE_GROUP_BYTES = 8 << 20
"""Few images, so that one can be read alone."""
_IMAGES_AT_ONCE = 16
"""Of those whose prototypes are read."""
_CSV_BLOCK = 8 << 20
_STEM = re.compile(r"([0-9]{6,18})(-[0-9a-f]{8})?")
_HINT = "; check its name, your credentials and the connection"


@dataclass(frozen=True)
class TablePaths:
    """The files of one table.

    Attributes
    ----------
    table
        As it was named; of a file table the file of instances, of a folder table the folder.
    instances, images, prototypes
        Files, or folders of parts.
    settings
        None for Parquet, which carries them inside.
    parts
        The folder of parts not merged yet; of a folder table the folder itself.
    """

    table: Location
    instances: Location
    images: Location
    prototypes: Location
    settings: Location | None
    parts: Location

    @classmethod
    def of(cls, out: str | os.PathLike[str] | UriPath) -> TablePaths:
        """Return the files of the table at the path or URI `out`: a name without a suffix is a folder.

        Raises
        ------
        TableError
            For another suffix than .csv or .parquet.
        """
        try:
            path = location(out)
        except OSError as error:
            raise TableError(f"{shown(out)}: cannot be opened ({error}){_HINT}") from None
        if path.suffix == "" or str(out).endswith("/"):
            return cls(path, path / INSTANCES, path / IMAGES, path / PROTOTYPES, None, path)
        if path.suffix.lower() not in (".csv", ".parquet"):
            raise TableError(
                f"{path}: the suffix is {path.suffix}; expected a table ending in .csv or .parquet, or a folder"
            )
        return cls(
            table=path,
            instances=path,
            images=path.with_name(f"{path.stem}.images{path.suffix}"),
            prototypes=path.with_name(f"{path.stem}.prototypes{path.suffix}"),
            settings=path.with_name(f"{path.stem}.meta.json") if path.suffix.lower() == ".csv" else None,
            parts=path.with_name(f"{path.name}.parts"),
        )

    @property
    def is_folder(self) -> bool:
        """Whether the table stays in parts."""
        return self.parts == self.table

    @property
    def manifest(self) -> Location:
        """What the folder of parts says of itself."""
        return self.parts / "manifest.json"

    def part(self, kind: str, stem: str) -> Location:
        """Return the file of one part: of `INSTANCES`, `PROTOTYPES` or `IMAGES`."""
        return self.parts / kind / f"{stem}.parquet"

    def stems(self) -> list[str]:
        """Return the names of the parts that are whole, in their order: those whose images are recorded."""
        if not is_folder(self.parts / IMAGES):
            return []
        names = [path.name.removesuffix(".parquet") for path in (self.parts / IMAGES).iterdir()]
        return sorted((name for name in names if _STEM.fullmatch(name)), key=lambda name: (part_number(name), name))


def part_number(stem: str) -> int:
    """Of a part by its name; two processes that wrote behind a URI may have used the same."""
    return int(stem.partition("-")[0])


class TableWriter:
    """Writes one table batch by batch, in whole row groups; CSV or Parquet by `csv`."""

    def __init__(self, path: Path, schema: pa.Schema, *, csv: bool) -> None:
        self._csv, self._waiting, self._rows, self._bytes = csv, [schema.empty_table()], 0, 0
        self._group_bytes = _PROTOTYPE_GROUP_BYTES if VALUES in schema.names else _ROW_GROUP_BYTES
        self._file = path.open("wb")
        self._writer = (
            pa_csv.CSVWriter(self._file, _to_csv(schema.empty_table()).schema)
            if csv
            else pq.ParquetWriter(self._file, schema, **_encoding(schema))
        )

    def write(self, batch: pa.Table) -> None:
        """Append rows."""
        size = max(len(batch) * self._group_bytes // max(batch.nbytes, 1), 1)
        for start in range(0, len(batch), size):
            rows = batch.slice(start, size)
            self._waiting.append(rows)
            self._rows += len(rows)
            self._bytes += rows.nbytes
            if self._rows >= _ROW_GROUP or self._bytes >= self._group_bytes:
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
        self._waiting, self._rows, self._bytes = self._waiting[:1], 0, 0
        if len(rows):
            self._writer.write_table(_to_csv(rows) if self._csv else rows)


def _encoding(schema: pa.Schema) -> dict[str, Any]:
    """Return how a Parquet file is written: the bytes of numbers side by side, so that prototypes take a fifth less."""
    if VALUES not in schema.names:
        return {"compression": "zstd"}
    plain = [name for name in schema.names if name != VALUES]
    return {
        "compression": "zstd",
        "use_dictionary": [name for name in plain if pa.types.is_string(schema.field(name).type)],
        "column_encoding": {f"{VALUES}.list.element": "BYTE_STREAM_SPLIT"},
    }


def read_batches(path: Location, schema: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of a table, a bounded number at a time, as tables of `schema`, whatever wrote them.

    Raises
    ------
    TableError
        For a file that is damaged or has other columns, or columns that do not become those of `schema`.
    """
    size_of_regular(path, TableError)
    try:
        if path.suffix.lower() == ".csv":
            with _opened(path) as data:
                for batch in _open_csv(path, data, schema):
                    yield _from_csv(pa.Table.from_batches([batch]), schema)
            return
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise _damaged(path, error) from None
    with parquet_file(path) as file:
        _refuse_other_columns(path, file.schema_arrow, schema)
        for batch in file.iter_batches(_IMAGES_AT_ONCE if VALUES in schema.names else _ROW_GROUP):
            yield _cast(path, pa.Table.from_batches([batch]), schema)


def _cast(path: Location, rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return the same rows with the types of `schema`.

    Pandas, Polars and DuckDB write lists and text with other types.
    """
    arrays = []
    for field in schema:
        column = rows[field.name]
        if column.type != field.type:
            try:
                column = column.cast(field.type)
            except pa.ArrowException as error:
                raise TableError(
                    f"{path}: the column {field.name} holds {column.type}; expected {field.type} "
                    f"({one_line(error)[:120]})"
                ) from None
        if pa.types.is_string(field.type):
            column.validate(full=True)  # Parquet may hold bytes that are no text
        arrays.append(column)
    return pa.Table.from_arrays(arrays, schema=schema)


@contextmanager
def parquet_file(path: Location) -> Iterator[pq.ParquetFile]:
    """A Parquet file, to be read here and there.

    Raises
    ------
    TableError
        For one that is damaged, also while it is read.
    """
    try:
        with _opened(path) as data, pq.ParquetFile(data) as file:
            yield file
    except (OSError, UnicodeError, pa.ArrowException) as error:
        raise _damaged(path, error) from None


def read_row_group(
    path: Location, file: pq.ParquetFile, group: int, schema: pa.Schema, names: Sequence[str] | None = None
) -> pa.Table:
    """Return some columns of one row group of a file, with the types of `schema`; all of them unless named."""
    chosen = schema if names is None else pa.schema([schema.field(name) for name in names])
    return _cast(path, file.read_row_group(group, chosen.names), chosen)


def _damaged(path: Location, error: Exception) -> TableError:
    return TableError(f"{path}: cannot be read as a table ({one_line(error)[:200]}); has it been edited or damaged?")


def read_settings(paths: TablePaths) -> dict[str, Any] | None:
    """Return the settings that the table at `paths.table` was made with; None without one.

    Raises
    ------
    TableError
        For a file that is no coefficient table.
    """
    if paths.is_folder:
        manifest = read_manifest(paths)
        return None if manifest is None else manifest.settings
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


def read_manifest(paths: TablePaths) -> Manifest | None:
    """Return what the folder of parts says of itself; None where there is none.

    Raises
    ------
    TableError
        For anything else.
    """
    if not there(paths.manifest):
        return None
    hint = "move it away" if paths.is_folder else f"delete {paths.parts} to start over"
    return read_manifest_text(read_regular(paths.manifest, TableError), str(paths.manifest), hint)


def read_parquet_settings(path: Location) -> dict[str, Any]:
    """Return the settings in the schema metadata of one Parquet file; TableError where it has none."""
    hint = "move it away, or choose another name"
    size_of_regular(path, TableError)
    try:
        with _opened(path) as data:
            metadata = pq.read_schema(data).metadata or {}
    except (OSError, ValueError, pa.ArrowException) as error:
        raise TableError(f"{path}: cannot be read as Parquet ({one_line(error)[:200]}); {hint}") from None
    if METADATA_KEY not in metadata:
        raise TableError(f"{path}: is not a coefficient table of maskprism; {hint}")
    return read_settings_text(metadata[METADATA_KEY], str(path), hint)


def count_rows(path: Location) -> int:
    """Return the rows that a Parquet file says it has."""
    with _opened(path) as data:
        return int(pq.read_metadata(data).num_rows)


def without(rows: pa.Table, names: set[str]) -> pa.Table:
    """Return the rows whose images are none of `names`."""
    found = [name for name in rows["image"].unique().to_pylist() if name in names]
    if not found:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows["image"], value_set=pa.array(found, pa.string()))))


@dataclass(frozen=True, eq=False)
class CoefficientTable:
    """A table in memory, the same whether it was Parquet or CSV, a file or a folder, on disk or behind a URI.

    Attributes
    ----------
    arrow
        One row per instance, coefficients as fixed-size lists.
    images
        One row per image, with those that failed; None where that file is not beside the table.
    metadata
        The settings that determined the rows.
    """

    arrow: pa.Table
    images: pa.Table | None
    metadata: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike[str] | UriPath) -> CoefficientTable:
        """Read the table at `path`, a path or URI, whole.

        Of a folder that is being written the parts that are whole so far are read.

        Raises
        ------
        TableError
            Where there is none, or it is damaged.
        """
        paths = TablePaths.of(path)
        try:
            return cls._read(paths)
        except OSError as error:
            raise TableError(f"{paths.table}: cannot be read ({one_line(error)[:200]}){_HINT}") from None

    @classmethod
    def _read(cls, paths: TablePaths) -> CoefficientTable:
        settings = read_settings(paths)
        if settings is None or not there(paths.table):
            unfinished = "; its extraction is not finished, run it again" if is_folder(paths.parts) else ""
            expected = "; it holds no manifest.json" if paths.is_folder and unfinished else unfinished
            raise TableError(f"{shortened(paths.table)}: there is no such table{expected}")
        instances, images = instance_schema(settings), image_schema(settings)
        if paths.is_folder:
            found: dict[str, list[pa.Table]] = {INSTANCES: [instances.empty_table()], IMAGES: [images.empty_table()]}
            for kind, rows in _each_once(paths, {INSTANCES: instances, IMAGES: images}):
                found[kind].append(rows)
            return cls(pa.concat_tables(found[INSTANCES]), pa.concat_tables(found[IMAGES]), settings)
        return cls(
            arrow=pa.concat_tables([instances.empty_table(), *read_batches(paths.instances, instances)]),
            images=pa.concat_tables([images.empty_table(), *read_batches(paths.images, images)])
            if there(paths.images)
            else None,
            metadata=settings,
        )

    def __len__(self) -> int:
        return len(self.arrow)

    @property
    def coefficients(self) -> Float32[np.ndarray, "N K"]:
        """One row per instance, as the model gave them."""
        return matrix_of(self.arrow["coefficients"])


def read_rows(path: str | os.PathLike[str] | UriPath) -> Iterator[pa.Table]:
    """Yield the rows of any table, a CSV or Parquet file or a folder of parts, whatever its columns: some at a time.

    Of a folder an image that is in two parts counts once.

    Raises
    ------
    TableError
        If the table is missing or damaged.
    """
    paths = TablePaths.of(path)
    if paths.is_folder:
        settings = read_settings(paths)
        if settings is None:
            raise TableError(f"{shortened(paths.table)}: there is no such table; a folder of parts has a manifest.json")
        schemas = {INSTANCES: instance_schema(settings), IMAGES: image_schema(settings)}
        yield from (rows for kind, rows in _each_once(paths, schemas) if kind == INSTANCES)
        return
    if not there(paths.table):
        raise TableError(f"{shortened(paths.table)}: there is no such table")
    size_of_regular(paths.table, TableError)
    if paths.settings is None:
        with parquet_file(paths.table) as file:
            yield file.schema_arrow.empty_table()
            for batch in file.iter_batches(_ROW_GROUP):
                yield pa.Table.from_batches([batch])
        return
    try:
        with _opened(paths.table) as data:
            parsing = pa_csv.ParseOptions(newlines_in_values=True)
            yield unguarded(pa_csv.read_csv(data, parse_options=parsing))
    except (OSError, UnicodeDecodeError, pa.ArrowException) as error:
        raise _damaged(paths.table, error) from None


def _each_once(paths: TablePaths, schemas: Mapping[str, pa.Schema]) -> Iterator[tuple[str, pa.Table]]:
    """Yield the rows of all parts by kind; an image that two processes have done counts once."""
    done: set[str] = set()
    for stem in paths.stems():
        images: set[str] = set()
        for kind, schema in schemas.items():
            for rows in read_batches(paths.part(kind, stem), schema):
                if kind == IMAGES:
                    images.update(rows["image"].to_pylist())
                yield kind, without(rows, done) if done else rows
        done |= images


def matrix_of(column: pa.ChunkedArray) -> Float32[np.ndarray, "N K"]:
    """Return a column of lists of one size, one row for each."""
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = np.concatenate(chunks) if chunks else np.zeros(0, dtype=np.float32)
    return flat.reshape(-1, column.type.list_size)


def _to_csv(table: pa.Table) -> pa.Table:
    """Coefficients spread over columns mask_0, mask_1, ..., for CSV knows no lists; and text that is no formula."""
    table = guarded(table)
    if "coefficients" not in table.column_names:
        return table
    by_prototype = np.ascontiguousarray(matrix_of(table["coefficients"]).T)
    columns = {name: table[name] for name in table.column_names if name != "coefficients"}
    return pa.table(columns | {f"mask_{k}": pa.array(values) for k, values in enumerate(by_prototype)})


def _from_csv(table: pa.Table, schema: pa.Schema) -> pa.Table:
    table = unguarded(table)
    if "coefficients" not in schema.names:
        return table.cast(schema)
    kind = schema.field("coefficients").type
    matrix = np.stack([table[f"mask_{k}"].to_numpy() for k in range(kind.list_size)], axis=1)
    lists = pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), type=kind)
    arrays = [lists if name == "coefficients" else table[name] for name in schema.names]
    return pa.Table.from_arrays(arrays, schema=schema)


def _opened(path: Location) -> AbstractContextManager[Any]:
    if isinstance(path, UriPath):
        return path.opened()
    # pyarrow opens no name that is not Unicode
    return nullcontext(path) if readable(str(path)) == str(path) else path.open("rb")


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
    if sorted(found.names) != sorted(expected.names):
        raise TableError(
            f"{path}: has the columns {readable(', '.join(found.names))}; expected {', '.join(expected.names)}. "
            "Put the file back as it was written, or choose another name"
        )


def there(path: Location) -> bool:
    """Return whether something has this name, even a dangling link."""
    return os.path.lexists(path) if isinstance(path, Path) else path.exists()  # Path.exists raises for long names
