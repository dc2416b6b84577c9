"""Tables of coefficients: finished and unfinished ones, and the CSV files of the original commands."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from fuzz.kind import Kind, image
from fuzz.mutate import JSON, Chance, bytes_damage, text_damage
from helpers.fake_network import fake_model
from maskprism.analysis.atlas.atlas import moments_of
from maskprism.analysis.atlas.class_signatures import signatures
from maskprism.analysis.atlas.near_duplicates import duplicates
from maskprism.analysis.atlas.outlier_search import outliers
from maskprism.analysis.atlas.points import Points
from maskprism.analysis.atlas.projection import Components
from maskprism.analysis.atlas.rank_correlation import dependence
from maskprism.cli import original as classic
from maskprism.drawing import charts
from maskprism.errors import MaskprismError
from maskprism.tables.similar import search
from maskprism.tables.stored_predictions import StoredPredictions
from maskprism.tables.table import IMAGES, INSTANCES, PROTOTYPES, CoefficientTable, TablePaths
from maskprism.tables.worker import Shard, instances_of, prototypes_of, records_of
from maskprism.tables.writer import UnfinishedTable


def _commit(paths: TablePaths, numbers: range, *, finish: bool) -> None:
    """What `extract` does with a table: continue it, or start it, with images by these numbers."""
    shard = Shard(fake_model(conf=0.01), Path("/images"), prototypes=None if paths.settings else "fp16")
    with UnfinishedTable(paths, shard.settings) as unfinished:
        for name in sorted({f"{number}.png" for number in numbers} - unfinished.done):
            found = pa.Table.from_batches([shard([(name, image(40, 56, seed=len(unfinished.done)))])])
            unfinished.commit(
                {INSTANCES: instances_of(found), PROTOTYPES: prototypes_of(found), IMAGES: records_of(found)}
            )
        if finish:
            unfinished.finish()


def _table(folder: Path, name: str, *, finish: bool) -> None:
    _commit(TablePaths.of(folder / name), range(3), finish=finish)


def _use_table(folder: Path) -> None:
    names = {"csv": "table.csv", "parquet": "table.parquet", "": "table"}
    name = next(name for kind, name in names.items() if not kind or any(folder.glob(f"*.{kind}*")))
    with suppress(MaskprismError):
        table = CoefficientTable.read(folder / name)
        _ = table.coefficients, len(table)
    with suppress(MaskprismError):
        stored = StoredPredictions.open(folder / name)
        for image in stored:
            stored[image].areas("grid"), stored.gram(image)
    _commit(TablePaths.of(folder / name), range(5), finish=True)


def _parquet_settings(chance: Chance, data: bytes) -> bytes:
    """Damage to the settings inside a Parquet file, or to its columns."""
    table = pq.read_table(io.BytesIO(data))
    metadata = dict(table.schema.metadata or {})
    if chance.random() < 0.7 and b"maskprism" in metadata:
        metadata[b"maskprism"] = JSON(chance, metadata[b"maskprism"])
    else:
        name = chance.choice(table.column_names)
        other = table.slice(0, len(table) - 1) if chance.random() < 0.3 else table.drop_columns([name])
        column = table[name].cast("string") if chance.random() < 0.3 and name != "coefficients" else table[name]
        table = chance.choice(
            (other, other.append_column(name if name not in other.column_names else "x", table[name][: len(other)]))
        )
        if name in table.column_names and len(column) == len(table):
            table = table.set_column(table.column_names.index(name), name, column)
        chance.note("column", name)
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), out)
    return out.getvalue()


def _rows(folder: Path, *, lists: bool = True, csv: bool = False) -> None:
    """A table of instances as another program may write it."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(60, 4)).astype(np.float32)
    columns: dict[str, Any] = {
        "image": [f"{row // 2}.jpg" for row in range(60)],
        "class_name": ["cat", "dog"] * 30,
        "score": rng.random(60),
        **{name: rng.random(60) * 50 + 50 * (name[1] == "2") for name in ("x1", "y1", "x2", "y2")},
        "iou": rng.random(60),
    }
    if lists:
        columns |= {"instance": [0, 1] * 30, "coefficients": matrix.tolist()}
    else:
        columns |= {f"mask_{k}": matrix[:, k] for k in range(4)}
    write: Any = pa_csv.write_csv if csv else partial(pq.write_table, row_group_size=25)
    write(pa.table(columns), folder / ("rows.csv" if csv else "rows.parquet"))


def _types_of_rows(chance: Chance, data: bytes) -> bytes:
    """Other types, doubled, missing and empty columns, and malformed values."""
    table = pq.read_table(io.BytesIO(data))
    names, columns = list(table.column_names), list(table.columns)
    at = chance.randrange(len(names))
    column, name = columns[at].combine_chunks(), names[at]
    values = column.to_pylist()
    one = chance.randrange(len(values))
    changes: list[Callable[[], pa.Array]] = [
        lambda: pa.array([None] * len(values), column.type),
        lambda: pa.array([*values[:one], None, *values[one + 1 :]], column.type),
        lambda: pa.nulls(len(values)),
        lambda: pa.array([str(value) for value in values], chance.choice((pa.string(), pa.large_string()))),
        lambda: pa.array([str(value).encode() + b"\xff" for value in values], pa.binary()),
        lambda: pa.Array.from_buffers(pa.string(), len(values), pa.array([b"\xff"] * len(values)).buffers()),
        lambda: pa.array([[value] for value in values]),
        lambda: pa.array([{"a": value} for value in values]),
        lambda: column.cast(chance.choice((pa.float16(), pa.int8(), pa.large_list(pa.float64()), pa.string_view()))),
        lambda: column.dictionary_encode(),
        lambda: pa.array([values[0]] * len(values), column.type),
        lambda: pa.array([float(chance.choice(("nan", "inf", "-inf", "1e300", "-0"))) for _ in values]),
        lambda: pa.array([value[: chance.randrange(5)] if isinstance(value, list) else value for value in values]),
        lambda: pa.array([[float("nan")] * 4 if chance.random() < 0.5 else [1e30] * 4 for _ in values]),
        lambda: pa.array([[] for _ in values], pa.list_(pa.float32())),
    ]
    choice = chance.random()
    chance.note("column", name)
    if choice < 0.1:
        names.append(name)
        columns.append(column)
    elif choice < 0.2:
        del names[at], columns[at]
    elif choice < 0.3:
        names[at] = chance.choice(("mask_0", "coefficients", "image", "instance", "mask_٣", "\x00", "", "weights"))
    else:
        columns[at] = chance.choice(changes)()
    rows = chance.choice((60, 60, 60, 1, 0, 19))
    out = io.BytesIO()
    size = chance.choice((1, 7, 100))
    pq.write_table(pa.Table.from_arrays(columns, names=names).slice(0, rows), out, row_group_size=size)
    return out.getvalue()


def _use_rows(folder: Path) -> None:
    path = next(iter(sorted(folder.glob("*rows.*"))), folder / "rows.parquet")
    errors = []
    for use in (lambda: search(path, ("3.jpg", 1), count=5), lambda: _summary(Points.read(path))):
        try:
            use()
        except MaskprismError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _summary(points: Points) -> None:
    moments = moments_of(points.coefficients)
    count = len(points.class_names)
    _ = moments.effective_rank(), Components.of(moments).places(points.coefficients)
    signatures(points.coefficients, points.classes, count, points.images)
    dependence(points.coefficients, points.numbers, points.images)
    outliers(points.coefficients, points.classes, count)
    duplicates(points.coefficients, moments, points.images)


def _classic(folder: Path) -> None:
    (folder / "coefficients.csv").write_text(
        'image_name,type,mask_1,mask_2,score,model\na.png,All,0.5,-1.25,0.9,m\n"b,c.png",All,1.5,2e-3,0.8,m\nd.png,All,3,0,1,m\n'
    )


def _use_classic(folder: Path) -> None:
    # Drawing takes most of the time and cares for the numbers alone; what is read is drawn as one small picture.
    values, labels = classic._read_masks(folder / "coefficients.csv")
    if len(labels) <= 4:
        for chart in (charts.histograms, charts.correlation)[: len(values)]:
            chart(values, labels)


def _use_resumed_classic(folder: Path) -> None:
    columns = ["image_name", "type", "mask_1", "mask_2", "score", "model"]
    done = classic._rows_done(folder / "coefficients.csv", columns, "m")
    with classic._appending(folder / "coefficients.csv", columns) as append:
        append(["new.png", "All", *map(str, range(len(done))), "m"])


TABLE_DAMAGE = {
    "*.json": (JSON, JSON, bytes_damage),
    "*.parquet": (_parquet_settings, _parquet_settings, bytes_damage),
    "*.csv": (text_damage, bytes_damage),
}
KINDS = {
    "rows": Kind(
        (_rows, partial(_rows, lists=False), partial(_rows, lists=False, csv=True)),
        {"*.parquet": (_types_of_rows, _types_of_rows, bytes_damage), "*.csv": (text_damage, bytes_damage)},
        _use_rows,
        5,
    ),
    "table": Kind(
        tuple(
            partial(_table, name=f"table{suffix}", finish=finish)
            for suffix in (".csv", ".parquet", "")
            for finish in (True, False)
        ),
        TABLE_DAMAGE,
        _use_table,
        5,
    ),
    "classic": Kind((_classic,), {"*": (text_damage, bytes_damage)}, _use_classic, 1),
    "resumed": Kind((_classic,), {"*": (text_damage, bytes_damage)}, _use_resumed_classic, 3),
}
