"""Tables of coefficients: finished and unfinished ones, and the CSV files of the original commands."""

from __future__ import annotations

import io
from contextlib import suppress
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from fake_network import fake_model
from fuzz.kind import Kind, image
from fuzz.mutate import JSON, Chance, bytes_damage, text_damage
from maskprism import classic
from maskprism.errors import MaskprismError
from maskprism.shard import Shard, instances_of, prototypes_of, records_of
from maskprism.stored_predictions import StoredPredictions
from maskprism.table import IMAGES, INSTANCES, PROTOTYPES, CoefficientTable, TablePaths
from maskprism.unfinished_table import UnfinishedTable
from maskprism.views import charts


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
