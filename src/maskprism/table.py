"""Coefficient tables: one row per instance, and beside it one row per image.

On disk a table is Parquet or CSV. Both carry the settings that determine the rows: Parquet in its
schema metadata, CSV in a `.meta.json` file beside it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from maskprism import __version__
from maskprism.errors import TableError

if TYPE_CHECKING:
    from jaxtyping import Float32

    from maskprism.models import Model
    from maskprism.prediction import Prediction

FORMAT = 1
_KEY = b"maskprism"
_NOT_COMPARED = ("maskprism", "model")
_ROW_GROUP = 1 << 16
_CSV_BLOCK = 8 << 20

IMAGE_SCHEMA = pa.schema(
    [
        ("image", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("status", pa.string()),
        ("instances", pa.int32()),
        ("message", pa.string()),
    ]
)


@dataclass(frozen=True)
class TablePaths:
    """The files of one table. `settings` is None for Parquet, which carries them inside."""

    table: Path
    images: Path
    settings: Path | None
    parts: Path

    @classmethod
    def of(cls, out: str | os.PathLike[str]) -> TablePaths:
        """The files of the table at `out`. Raises TableError for a suffix other than .csv or .parquet."""
        path = Path(out)
        if path.suffix not in (".csv", ".parquet"):
            raise TableError(
                f"{path}: the suffix is {path.suffix or 'missing'}; expected a table ending in .csv or .parquet"
            )
        return cls(
            table=path,
            images=path.with_name(f"{path.stem}.images{path.suffix}"),
            settings=path.with_name(f"{path.stem}.meta.json") if path.suffix == ".csv" else None,
            parts=path.with_name(f"{path.name}.parts"),
        )


def settings_of(model: Model, source: Path) -> dict[str, Any]:
    """What determines the rows of a table of `model` over the images under the folder `source`."""
    spec, keep = model.spec, model.keep
    return {
        "format": FORMAT,
        "maskprism": __version__,
        "model": spec.name,
        "model_sha256": spec.sha256,
        "runtime": spec.runtime,
        "layout": spec.layout,
        "rule": asdict(spec.rule),
        "imgsz": list(spec.input_hw),
        "conf": keep.conf,
        "iou": keep.iou,
        "max_det": keep.max_det,
        "classes": None if keep.classes is None else sorted(keep.classes),
        "prototypes": spec.prototypes,
        "objectness": spec.layout == "yolov5",
        "names": {str(class_id): name for class_id, name in spec.names.items()},
        "source": source.as_posix().encode("utf-8", errors="backslashreplace").decode("utf-8"),
    }


def differences(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Every setting that determines rows and differs, as "conf: 0.25 in the table, 0.5 now"."""
    old, new = _flat(recorded), _flat(wanted)
    names = [name for name in {**old, **new} if name not in _NOT_COMPARED]
    return [
        f"{name}: {_short(old.get(name))} in the table, {_short(new.get(name))} now"
        for name in names
        if old.get(name) != new.get(name)
    ]


def instance_schema(settings: Mapping[str, Any]) -> pa.Schema:
    """The columns of the table of instances, with the settings as schema metadata."""
    columns: list[tuple[str, pa.DataType]] = [
        ("image", pa.string()),
        ("image_width", pa.int32()),
        ("image_height", pa.int32()),
        ("instance", pa.int32()),
        ("class_id", pa.int32()),
        ("class_name", pa.string()),
        ("score", pa.float32()),
        ("x1", pa.float32()),
        ("y1", pa.float32()),
        ("x2", pa.float32()),
        ("y2", pa.float32()),
        ("mask_area", pa.int64()),
        ("mask_empty", pa.bool_()),
        *([("objectness", pa.float32())] if settings["objectness"] else []),
        ("coefficients", pa.list_(pa.float32(), int(settings["prototypes"]))),
    ]
    return pa.schema(columns, metadata=_as_metadata(settings))


def image_schema(settings: Mapping[str, Any]) -> pa.Schema:
    """The columns of the table of images, with the settings as schema metadata."""
    return IMAGE_SCHEMA.with_metadata(_as_metadata(settings))


def instance_columns(image: str, prediction: Prediction) -> dict[str, Any]:
    """The rows of one image as columns; decodes every mask once per frame it is measured in."""
    n = len(prediction)
    height, width = prediction.image_size
    x1, y1, x2, y2 = prediction.boxes.T
    columns = {
        "image": [image] * n,
        "image_width": np.full(n, width, dtype=np.int32),
        "image_height": np.full(n, height, dtype=np.int32),
        "instance": np.arange(n, dtype=np.int32),
        "class_id": prediction.classes.astype(np.int32),
        "class_name": [prediction.name_of(class_id) for class_id in prediction.classes],
        "score": prediction.scores,
        "x1": x1,
        "y1": y1,
        "x2": x2,
        "y2": y2,
        "mask_area": prediction.areas("image"),
        "mask_empty": prediction.empty,
        "coefficients": prediction.coefficients,
    }
    if prediction.objectness is not None:
        columns["objectness"] = prediction.objectness
    return columns


def instance_table(per_image: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """The columns of several images, one after the other, as one table."""

    def joined(field: pa.Field) -> pa.Array:
        values = [columns[field.name] for columns in per_image]
        if pa.types.is_string(field.type):
            return pa.array([value for image in values for value in image], type=field.type)
        if pa.types.is_fixed_size_list(field.type):
            flat = np.concatenate([np.asarray(image, dtype=np.float32).reshape(-1) for image in values])
            return pa.FixedSizeListArray.from_arrays(pa.array(flat), type=field.type)
        return pa.array(np.concatenate(values), type=field.type)

    return (
        pa.Table.from_arrays([joined(field) for field in schema], schema=schema) if per_image else schema.empty_table()
    )


def image_records(records: list[tuple[Any, ...]], settings: dict[str, Any]) -> pa.Table:
    """Records of (image, width, height, status, instances, message) as a table."""
    columns = zip(*records, strict=True) if records else [()] * len(IMAGE_SCHEMA)
    arrays = [pa.array(values, type=field.type) for values, field in zip(columns, IMAGE_SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=image_schema(settings))


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


def read_batches(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a table on disk, a bounded number at a time, as tables of `schema`.

    Raises TableError for a file that is damaged or has other columns.
    """
    try:
        if path.suffix == ".csv":
            for batch in _open_csv(path, schema):
                yield _from_csv(pa.Table.from_batches([batch]), schema)
            return
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(schema):
                raise TableError(
                    f"{path}: has the columns {', '.join(file.schema_arrow.names)}; expected {', '.join(schema.names)}"
                )
            for batch in file.iter_batches(_ROW_GROUP):
                yield pa.Table.from_batches([batch]).replace_schema_metadata(schema.metadata)
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{path}: cannot be read as a table ({error}); has it been edited or damaged?") from None


def read_settings(paths: TablePaths) -> dict[str, Any] | None:
    """The settings that the table at `paths.table` was made with; None where there is no table.

    Raises TableError for a file that is no coefficient table.
    """
    try:
        if paths.settings is None:
            return read_parquet_settings(paths.table) if _there(paths.table) else None
        if _there(paths.settings):
            found = json.loads(paths.settings.read_text(encoding="utf-8"))
            if isinstance(found, dict) and found.get("format") == FORMAT:
                return found
            raise TableError(f"{paths.settings}: is not the settings of a coefficient table; move it away")
        if _there(paths.table):
            raise TableError(
                f"{paths.table}: is not a coefficient table, or {paths.settings.name} beside it is missing; "
                "move it away, or choose another name"
            )
    except (OSError, ValueError) as error:
        raise TableError(f"{paths.settings or paths.table}: cannot be read ({error})") from None
    return None


def read_parquet_settings(path: Path) -> dict[str, Any]:
    """The settings in the schema metadata of one Parquet file; TableError where it has none."""
    try:
        metadata = pq.read_schema(path).metadata or {}
        found = json.loads(metadata.get(_KEY, b"null"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise TableError(f"{path}: cannot be read as Parquet ({error}); move it away, or choose another name") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise TableError(f"{path}: is not a coefficient table of maskprism; move it away, or choose another name")
    return found


@dataclass(frozen=True, eq=False)
class CoefficientTable:
    """A table in memory, the same whether it was Parquet or CSV.

    arrow: one row per instance, coefficients as fixed-size lists.
    images: one row per image, with those that failed; None where that file is not beside the table.
    metadata: the settings that determined the rows.
    """

    arrow: pa.Table
    images: pa.Table | None
    metadata: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> CoefficientTable:
        """Read the table at `path` whole. Raises TableError where there is none, or it is damaged."""
        paths = TablePaths.of(path)
        settings = read_settings(paths)
        if settings is None or not _there(paths.table):
            unfinished = "; its extraction is not finished, run it again" if paths.parts.is_dir() else ""
            raise TableError(f"{paths.table}: there is no such table{unfinished}")
        schema = instance_schema(settings)
        images = image_schema(settings)
        return cls(
            arrow=pa.concat_tables([schema.empty_table(), *read_batches(paths.table, schema)]),
            images=pa.concat_tables([images.empty_table(), *read_batches(paths.images, images)])
            if _there(paths.images)
            else None,
            metadata=settings,
        )

    def __len__(self) -> int:
        return len(self.arrow)

    @property
    def coefficients(self) -> Float32[np.ndarray, "N K"]:
        """One row per instance, as the network gave them."""
        return _matrix(self.arrow["coefficients"])


def _as_metadata(settings: Mapping[str, Any]) -> dict[bytes, bytes]:
    return {_KEY: json.dumps(settings, ensure_ascii=False).encode("utf-8")}


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


def _open_csv(path: Path, schema: pa.Schema) -> Any:
    expected = _to_csv(schema.empty_table()).schema
    return pa_csv.open_csv(
        path,
        read_options=pa_csv.ReadOptions(block_size=_CSV_BLOCK),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types=expected, include_columns=expected.names, null_values=[""], strings_can_be_null=False
        ),
    )


def _there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping) and name == "rule":
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:76]} ..."
