from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskprism
from helpers.fake_network import PROTOTYPES, fake_model, v5_model, write_images
from maskprism.errors import TableError
from maskprism.tables.extraction import extract
from maskprism.tables.schema import (
    IMAGE_SCHEMA,
    ExtractedImage,
    differences,
    image_schema,
    instance_schema,
    records_of,
    settings_of,
    shard_batch,
    shard_schema,
)
from maskprism.tables.table import CoefficientTable, TablePaths, TableWriter, read_batches

COLUMNS = "image image_width image_height instance class_id class_name score x1 y1 x2 y2 mask_area mask_empty".split()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One extraction as CSV and as Parquet."""
    folder = tmp_path_factory.mktemp("tables")
    write_images(folder / "photos", 8)
    (folder / "photos" / "bad.jpg").write_bytes(b"nothing")
    for suffix in (".csv", ".parquet"):
        extract(folder / "photos", fake_model(), folder / f"t{suffix}")
    return folder / "t.csv", folder / "t.parquet"


def test_csv_and_parquet_hold_the_same(both: tuple[Path, Path]) -> None:
    csv, parquet = (CoefficientTable.read(path) for path in both)
    assert csv.arrow.schema.equals(parquet.arrow.schema, check_metadata=True)
    assert csv.arrow.equals(parquet.arrow)
    assert csv.images is not None
    assert csv.images.equals(parquet.images)
    assert csv.metadata == parquet.metadata
    assert csv.coefficients.dtype == np.float32
    assert csv.coefficients.shape == (len(csv), PROTOTYPES)
    np.testing.assert_array_equal(csv.coefficients, parquet.coefficients)
    assert len(csv) > 5


def test_pandas_reads_both(both: tuple[Path, Path]) -> None:
    csv, parquet = pd.read_csv(both[0]), pd.read_parquet(both[1])
    assert list(csv) == [*COLUMNS, *(f"mask_{k}" for k in range(PROTOTYPES))]
    assert list(parquet) == [*COLUMNS, "coefficients"]
    assert csv["mask_empty"].dtype == bool
    spread = csv[[f"mask_{k}" for k in range(PROTOTYPES)]].to_numpy(np.float32)
    np.testing.assert_array_equal(spread, np.stack(parquet["coefficients"]))
    for name in COLUMNS:
        np.testing.assert_array_equal(csv[name].astype(parquet[name].dtype), parquet[name])
    images = pd.read_csv(both[0].with_name("t.images.csv"))
    assert list(images) == ["image", "width", "height", "status", "instances", "message"]
    assert images["status"].value_counts()["failed"] == 1
    assert images["instances"].sum() == len(csv)


def test_settings_travel_with_the_table(both: tuple[Path, Path]) -> None:
    inside = json.loads(pq.read_schema(both[1]).metadata[b"maskprism"])
    beside = json.loads(both[0].with_name("t.meta.json").read_text(encoding="utf-8"))
    assert inside == beside == CoefficientTable.read(both[1]).metadata
    model = fake_model()
    assert inside == settings_of(model, both[0].parent / "photos")
    assert inside["model_sha256"] == "a" * 64
    assert inside["names"] == {"0": "cat", "1": "dog"}
    assert inside["imgsz"] == [64, 64]
    assert inside["rule"]["name"] == model.spec.rule.name
    assert (inside["conf"], inside["iou"], inside["max_det"], inside["classes"]) == (0.25, 0.7, 300, None)
    assert inside["maskprism"] == maskprism.__version__


def test_every_column_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "tables.md").read_text(encoding="utf-8")
    for model, heading in ((v5_model(), "### Columns: one row per instance"), (None, "### Columns: one row per image")):
        schema = IMAGE_SCHEMA if model is None else instance_schema(settings_of(model, ""))
        rows = page.split(heading)[1].split("\n##")[0].splitlines()
        documented = {
            name for row in rows if row.startswith("| `") for name in re.findall("`(.+?)`", row.split("|")[1])
        }
        assert set(schema.names) == {name for name in documented if not name.startswith("mask_{") and name != "mask_0"}


def test_objectness_is_a_column_only_where_the_layout_has_it(tmp_path: Path, both: tuple[Path, Path]) -> None:
    write_images(tmp_path / "photos", 2)
    for suffix in (".csv", ".parquet"):
        extract(tmp_path / "photos", v5_model(), tmp_path / f"v5{suffix}")
        table = CoefficientTable.read(tmp_path / f"v5{suffix}")
        np.testing.assert_array_equal(table.arrow["objectness"].to_numpy(), np.float32([0.8, 0.8]))
        # As the model gave them: not multiplied by objectness.
        np.testing.assert_array_equal(table.coefficients, np.float32([range(1, PROTOTYPES + 1)] * 2))
        np.testing.assert_allclose(table.arrow["score"].to_numpy(), 0.8 * 0.9, rtol=1e-6)
    assert "objectness" not in CoefficientTable.read(both[0]).arrow.column_names


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_without_rows(tmp_path: Path, suffix: str) -> None:
    write_images(tmp_path / "photos", 2)
    extract(tmp_path / "photos", fake_model(conf=0.99), tmp_path / f"t{suffix}")
    table = CoefficientTable.read(tmp_path / f"t{suffix}")
    assert table.coefficients.shape == (0, PROTOTYPES)
    assert table.images is not None
    assert table.images["status"].to_pylist() == ["empty", "empty"]
    write_images(tmp_path / "photos", 1, start=2)
    assert extract(tmp_path / "photos", fake_model(conf=0.99), tmp_path / f"t{suffix}").skipped == 2


def test_differences_name_what_determines_rows() -> None:
    old = settings_of(fake_model(), Path("/photos"))
    assert differences(old, dict(old, model="renamed.onnx", maskprism="99")) == []
    new = settings_of(fake_model(rule="yolact", conf=0.5), Path("/photos"))
    found = differences(old, new)
    assert "conf: 0.25 in the table, 0.5 now" in found
    assert any(line.startswith("rule.name: ") and line.endswith('"yolact" now') for line in found)
    assert all(line.startswith(("conf", "rule.")) for line in found)
    other = settings_of(v5_model(), Path("/photos"))
    assert [line.split(":")[0] for line in differences(old, other)] == ["model", "model_sha256"]
    many = {str(i): f"class number {i}" for i in range(80)}
    assert len(differences(old, dict(old, names=many))[0]) < 250


def rows_table(schema: pa.Schema, count: int) -> pa.Table:
    rng = np.random.default_rng(count)
    columns = []
    for field in schema:
        if pa.types.is_string(field.type):
            columns.append(pa.array([f'Ã,"{i}\n' for i in range(count)]))
        elif pa.types.is_boolean(field.type):
            columns.append(pa.array(rng.random(count) > 0.5))
        elif pa.types.is_fixed_size_list(field.type):
            flat = rng.normal(0, 10.0 ** rng.integers(-20, 20, count * PROTOTYPES)).astype(np.float32)
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), type=field.type))
        else:
            columns.append(pa.array(rng.integers(0, 1000, count)).cast(field.type))
    return pa.Table.from_arrays(columns, schema=schema)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_batches_of_any_size_come_back_in_order(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskprism.tables.table._ROW_GROUP", 100)
    monkeypatch.setattr("maskprism.tables.table._CSV_BLOCK", 20_000)
    schema = instance_schema(settings_of(fake_model(), Path("/photos")))
    batches = [rows_table(schema, count) for count in (0, 30, 250, 0, 1, 99, 400)]
    writer = TableWriter(tmp_path / f"t{suffix}", schema, csv=suffix == ".csv")
    for batch in batches:
        writer.write(batch)
    writer.close()
    found = list(read_batches(tmp_path / f"t{suffix}", schema))
    assert len(found) > 2
    assert max(len(batch) for batch in found) < 300  # never the whole table at once
    assert pa.concat_tables(found).equals(pa.concat_tables(batches))


@given(
    values=st.lists(st.floats(width=32, allow_nan=False), min_size=PROTOTYPES, max_size=PROTOTYPES),
    name=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12),
)
def test_csv_keeps_every_bit_and_letter(values: list[float], name: str) -> None:
    import tempfile

    schema = instance_schema(settings_of(fake_model(), Path("/photos")))
    row = rows_table(schema, 1)
    kind = schema.field("coefficients").type
    lists = pa.FixedSizeListArray.from_arrays(pa.array(np.float32(values)), type=kind)
    row = row.set_column(0, "image", pa.array([name])).set_column(len(schema) - 1, "coefficients", lists).cast(schema)
    with tempfile.TemporaryDirectory() as folder:
        writer = TableWriter(Path(folder) / "t.csv", schema, csv=True)
        writer.write(row)
        writer.close()
        back = pa.concat_tables(read_batches(Path(folder) / "t.csv", schema))
    assert back["image"].to_pylist() == [name]
    np.testing.assert_array_equal(
        back["coefficients"].combine_chunks().flatten().to_numpy().view(np.int32), np.float32(values).view(np.int32)
    )


def test_records_without_a_size_stay_without_one(tmp_path: Path) -> None:
    settings = settings_of(fake_model(), Path("/photos"))
    records = [("a.jpg", 640, 480, "failed", 0, "no room"), ("b.jpg", None, None, "failed", 0, 'no, "image"')]
    failed = [ExtractedImage("a.jpg", (480, 640), message="no room"), ExtractedImage("b.jpg", message='no, "image"')]
    found = records_of(pa.Table.from_batches([shard_batch(failed, shard_schema(settings))]))
    for suffix in (".csv", ".parquet"):
        writer = TableWriter(tmp_path / f"t{suffix}", image_schema(settings), csv=suffix == ".csv")
        writer.write(found)
        writer.close()
        back = pa.concat_tables(read_batches(tmp_path / f"t{suffix}", image_schema(settings)))
        assert [tuple(row.values()) for row in back.to_pylist()] == records
    assert found.schema.equals(image_schema(settings), check_metadata=True)


def test_paths_of_a_table() -> None:
    csv, parquet = TablePaths.of("out/people.csv"), TablePaths.of("out/people.v2.parquet")
    assert csv == TablePaths(
        table=Path("out/people.csv"),
        instances=Path("out/people.csv"),
        images=Path("out/people.images.csv"),
        prototypes=Path("out/people.prototypes.csv"),
        settings=Path("out/people.meta.json"),
        parts=Path("out/people.csv.parts"),
    )
    folder = TablePaths.of("out/people/")
    assert folder == TablePaths.of(Path("out/people"))
    assert (folder.is_folder, csv.is_folder) == (True, False)
    assert (folder.parts, folder.manifest) == (Path("out/people"), Path("out/people/manifest.json"))
    assert folder.part("images", "000007") == Path("out/people/images/000007.parquet")
    assert (parquet.images, parquet.settings) == (Path("out/people.v2.images.parquet"), None)


def test_reading_what_is_no_table(tmp_path: Path, both: tuple[Path, Path]) -> None:
    with pytest.raises(TableError, match="there is no such table"):
        CoefficientTable.read(tmp_path / "none.csv")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(TableError, match="is not a coefficient table"):
        CoefficientTable.read(tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("text")
    with pytest.raises(TableError, match="cannot be read as Parquet"):
        CoefficientTable.read(tmp_path / "text.parquet")
    (tmp_path / "t.meta.json").write_bytes(both[0].with_name("t.meta.json").read_bytes())
    lines = both[0].read_text().splitlines()
    (tmp_path / "t.csv").write_text("\n".join([lines[0].replace("mask_0", "first"), *lines[1:]]))
    with pytest.raises(TableError, match="mask_0"):
        CoefficientTable.read(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(b"\xe9" + both[0].read_bytes())
    with pytest.raises(TableError, match=r"t\.csv: cannot be read as a table"):
        CoefficientTable.read(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_bytes(both[0].read_bytes())
    assert CoefficientTable.read(tmp_path / "t.csv").images is None


def test_arrow_is_not_imported_with_the_package() -> None:
    code = "import sys, maskprism; assert not {'pyarrow', 'cv2', 'onnxruntime'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_text_in_csv_is_no_formula_and_comes_back(tmp_path: Path) -> None:
    """Names of images come from other people; spreadsheet programs run cells that begin with these characters."""
    write_images(tmp_path / "photos", 1)
    picture = next((tmp_path / "photos").iterdir())
    names = ["=HYPERLINK(A1).png", "+1.png", "-2.png", "@x.png", "'=quoted.png", "plain.png"]
    for name in names:
        (tmp_path / "photos" / name).write_bytes(picture.read_bytes())
    extract(tmp_path / "photos", fake_model(), tmp_path / "t.csv")
    for name in ("t.csv", "t.images.csv"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        cells = {row.split(",")[0].strip('"') for row in text.splitlines()[1:]}
        assert not [cell for cell in cells if cell[:1] in "=+-@"]
        assert {"'=HYPERLINK(A1).png", "'-2.png", "''=quoted.png", "plain.png"} <= cells or name == "t.csv"
    images = CoefficientTable.read(tmp_path / "t.csv").images
    assert images is not None
    assert set(images["image"].to_pylist()) == {picture.name, *names}
    before = (tmp_path / "t.csv").read_bytes()
    extract(tmp_path / "photos", fake_model(), tmp_path / "t.csv")  # all are known by their names
    assert (tmp_path / "t.csv").read_bytes() == before
