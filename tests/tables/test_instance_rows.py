"""The reader of `search`, `atlas` and `basis --table`: the same instances whatever wrote the table, or one error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from helpers.fake_network import fake_model, v5_model, write_images
from helpers.in_process import command as run
from maskprism.analysis.atlas.points import Points
from maskprism.errors import InputError, TableError
from maskprism.tables.extraction import extract
from maskprism.tables.instance_rows import InstanceRows
from maskprism.tables.similar import search
from maskprism.tables.table import CoefficientTable, matrix_of


def _pyarrow(source: pa.Table, path: Path) -> None:
    pq.write_table(pa.table({name: source[name].to_pylist() for name in source.column_names}), path)


def _pandas(source: pa.Table, path: Path) -> None:
    pytest.importorskip("pandas", reason="needs pandas")
    source.to_pandas().to_parquet(path)


def _polars(source: pa.Table, path: Path) -> None:
    polars = pytest.importorskip("polars", reason="needs polars")
    frame = polars.from_arrow(source)
    assert isinstance(frame, polars.DataFrame)
    frame.write_parquet(path)


def _polars_lists(source: pa.Table, path: Path) -> None:
    polars = pytest.importorskip("polars", reason="needs polars")
    frame = polars.from_arrow(source)
    frame.with_columns(
        polars.col("coefficients").arr.to_list(), polars.col("class_name").cast(polars.Categorical)
    ).write_parquet(path)


def _duckdb(source: pa.Table, path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="needs duckdb")
    assert len(source)
    duckdb.sql(f"copy (select * from source) to '{path}' (format parquet)")


def _large(source: pa.Table, path: Path) -> None:
    types = {"image": pa.large_string(), "class_name": pa.dictionary(pa.int16(), pa.string())}
    types["coefficients"] = pa.large_list(pa.float64())
    columns = {name: source[name].cast(types.get(name, source[name].type)) for name in source.column_names}
    pq.write_table(pa.table(columns), path)


WRITERS: list[Callable[[pa.Table, Path], None]] = [_pyarrow, _pandas, _polars, _polars_lists, _duckdb, _large]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows")
    write_images(folder / "photos", 12)
    extract(folder / "photos", fake_model(conf=0.01), folder / "t.parquet", prototypes="fp16")
    return folder / "t.parquet"


@pytest.mark.parametrize("write", WRITERS)
def test_a_table_means_the_same_whatever_wrote_it(write: Any, table: Path, tmp_path: Path) -> None:
    source = pq.read_table(table)
    write(source, tmp_path / "other.parquet")
    points, expected = Points.read(tmp_path / "other.parquet"), Points.read(table)
    np.testing.assert_array_equal(points.coefficients, expected.coefficients)
    assert (points.image_names, points.class_names) == (expected.image_names, expected.class_names)
    np.testing.assert_array_equal(points.instances, expected.instances)
    np.testing.assert_array_equal(points.numbers["size"], expected.numbers["size"])
    like = (source["image"][3].as_py(), source["instance"][3].as_py())
    found, wanted = (search(path, like, count=7).rows for path in (tmp_path / "other.parquet", table))
    assert found.to_pylist() == wanted.to_pylist()
    answers = []
    for path in (tmp_path / "other.parquet", table):
        done = run("basis", "--table", path, "--out", tmp_path / path.stem, "--json")
        assert done.returncode == 0, done.stderr
        answers.append({key: value for key, value in json.loads(done.stdout).items() if key != "files"})
    assert answers[0] == answers[1]


@pytest.mark.parametrize("write", WRITERS)
def test_a_table_of_extract_may_be_written_again_with_its_settings(write: Any, table: Path, tmp_path: Path) -> None:
    """Lists and text of other types are read as those that `extract` writes, prototypes included."""
    for suffix in ("", ".images", ".prototypes"):
        source = pq.read_table(table.with_suffix(f"{suffix}.parquet"))
        path = tmp_path / f"t{suffix}.parquet"
        write(source, path) if suffix == "" else pq.write_table(source, path)
        pq.write_table(pq.read_table(path).replace_schema_metadata(source.schema.metadata), path)
    assert CoefficientTable.read(tmp_path / "t.parquet").arrow.equals(CoefficientTable.read(table).arrow)
    name = CoefficientTable.read(table).arrow["image"][0].as_py()
    found = search(tmp_path / "t.parquet", (name, 0), metric="mask", count=5).rows
    assert found.to_pylist() == search(table, (name, 0), metric="mask", count=5).rows.to_pylist()


def test_weights_of_the_yolov5_layout_are_coefficients_times_objectness(tmp_path: Path) -> None:
    """`search`, `atlas` and `basis` agree about what multiplies the prototypes."""
    write_images(tmp_path / "photos", 6)
    extract(tmp_path / "photos", v5_model(), tmp_path / "t.parquet")
    own = CoefficientTable.read(tmp_path / "t.parquet")
    expected = own.coefficients * own.arrow["objectness"].to_numpy()[:, None]
    assert not np.allclose(expected, own.coefficients)
    np.testing.assert_allclose(Points.read(tmp_path / "t.parquet").coefficients, expected, rtol=1e-6)


def test_an_empty_first_row_group_has_no_width(tmp_path: Path) -> None:
    schema = pa.schema([("image", pa.string()), ("coefficients", pa.list_(pa.float32()))])
    with pq.ParquetWriter(tmp_path / "t.parquet", schema) as writer:
        writer.write_table(schema.empty_table())
        writer.write_table(pa.table({"image": ["a"], "coefficients": [None]}, schema))
        writer.write_table(pa.table({"image": ["a", "b"], "coefficients": [[1, 2, 3], [4, 5, 6]]}, schema))
    np.testing.assert_array_equal(Points.read(tmp_path / "t.parquet").coefficients, [[1, 2, 3], [4, 5, 6]])


@pytest.mark.parametrize("form", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_text_of_every_type_is_read(form: pa.DataType, tmp_path: Path) -> None:
    rows = {
        "image": pa.array(["a.jpg", "b.jpg", None]).cast(form),
        "coefficients": [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]],
    }
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    assert search(tmp_path / "t.parquet", ("a.jpg", 0), count=1).rows["image"].to_pylist() == ["b.jpg"]


def test_an_instance_that_was_left_out_is_not_called_missing_alone(tmp_path: Path) -> None:
    rows = {"image": ["a.jpg", "b.jpg"], "coefficients": [[np.nan, 1.0], [2.0, 1.0]]}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    with pytest.raises(InputError, match=r"no instance 0 of 'a\.jpg'.*1 instance is left out: NaN or infinity"):
        search(tmp_path / "t.parquet", ("a.jpg", 0))


def test_different_widths_are_one_error(tmp_path: Path) -> None:
    """Within a row group, in two row groups, and in two parts of a folder."""
    schema = pa.schema([("image", pa.string()), ("coefficients", pa.list_(pa.float32()))])
    with pq.ParquetWriter(tmp_path / "t.parquet", schema) as writer:
        for width in (8, 4):
            writer.write_table(pa.table({"image": ["a"], "coefficients": [[0.5] * width]}, schema))
    write_images(tmp_path / "photos", 2)
    extract(tmp_path / "photos", fake_model(), tmp_path / "parts")
    part = next((tmp_path / "parts" / "instances").iterdir())
    rows = pq.read_table(part)
    wider = pa.array([[*row, 0.5] for row in rows["coefficients"].to_pylist()])
    pq.write_table(rows.set_column(rows.column_names.index("coefficients"), "coefficients", wider), part)
    for name, said in (
        ("t.parquet", "has instances with 4, 8 coefficients each; expected one number for all"),
        ("parts", "the column coefficients holds list<"),
    ):
        for arguments in (
            ("search", "--like", "a#0"),
            ("atlas", "--out", tmp_path / "out"),
            ("basis", "--out", tmp_path / "out"),
        ):
            table = ("--table", tmp_path / name) if arguments[0] == "basis" else (tmp_path / name,)
            done = run(arguments[0], *table, *arguments[1:])
            assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
            assert said in done.stderr


def test_an_image_in_two_parts_counts_once_for_every_reader(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 5)
    extract(tmp_path / "photos", fake_model(conf=0.01), tmp_path / "parts")
    expected = CoefficientTable.read(tmp_path / "parts").arrow
    for kind in ("instances", "images"):  # as two processes behind a URI may leave it
        first = next((tmp_path / "parts" / kind).iterdir())
        first.with_name("000001.parquet").write_bytes(first.read_bytes())
    assert len(CoefficientTable.read(tmp_path / "parts")) == len(expected)
    assert len(Points.read(tmp_path / "parts")) == len(expected)
    name = expected["image"][0].as_py()
    assert len(search(tmp_path / "parts", (name, 0), count=1000).rows) == len(expected) - 1


def _text_of_bytes(values: list[bytes]) -> pa.Array:
    """A column of text whose bytes are not UTF-8, as other programs write it."""
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values).buffers())


NAMES = pa.array(["a", "b", "c"])
LISTS = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
EMPTY = pa.array([[], [], None], pa.list_(pa.float32()))


@pytest.mark.parametrize(
    ("names", "columns", "said"),
    [
        (["image", "coefficients", "coefficients"], [NAMES, LISTS, LISTS], "has the column coefficients twice"),
        (["image", "image", "coefficients"], [NAMES, NAMES, LISTS], "has the column image twice"),
        (["mask_0", "mask_0"], [pa.array([1.0, 2, 3])] * 2, "has the column mask_0 twice"),
        (["image", "coefficients"], [_text_of_bytes([b"\xff", b"b", b"c"]), LISTS], "holds bytes that are not UTF-8"),
        (["image", "coefficients"], [pa.array([b"\xff", b"b", b"c"]), LISTS], "expected text in UTF-8"),
        (["image", "coefficients"], [LISTS, LISTS], "the column image holds list"),
        (["image", "coefficients"], [NAMES, pa.array([["a"], ["b"], ["c"]])], "expected lists of numbers"),
        (["image", "coefficients"], [NAMES, pa.array([{"a": 1.0}] * 3)], "has no coefficients"),
        (["image", "coefficients"], [NAMES, EMPTY], "holds no instance with"),
        (["image", "coefficients"], [NAMES, pa.array([[np.nan, 1.0]] * 3)], "holds no instance with finite coeff"),
        (["image", "coefficients", "score"], [NAMES, LISTS, pa.array([None, 1, 2], pa.date32())], "expected numbers"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_error(names: list[str], columns: Any, said: str, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays(columns, names), tmp_path / "t.parquet")
    with pytest.raises(TableError, match=said):
        Points.read(tmp_path / "t.parquet")
    done = run("atlas", tmp_path / "t.parquet", "--out", tmp_path / "out")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_instances_that_are_not_finite_are_left_out_and_counted(value: float, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(60, 4))
    matrix[[7, 9], [0, 3]] = value
    rows = {"image": [f"{i}.jpg" for i in range(60)], "coefficients": matrix.tolist()}
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    said = "note: 2 instances are left out: NaN or infinity among the coefficients"
    for arguments in (
        ("basis", "--table", tmp_path / "t.parquet", "--out", tmp_path / "basis"),
        ("search", tmp_path / "t.parquet", "--like", "0.jpg#0", "--count", "100"),
        ("atlas", tmp_path / "t.parquet", "--out", tmp_path / "atlas"),
    ):
        done = run(*arguments)
        assert done.returncode == 0, done.stderr
        assert said in done.stderr
    assert json.loads((tmp_path / "basis" / "basis.json").read_text())["instances"] == 58
    assert json.loads((tmp_path / "atlas" / "atlas.json").read_text())["instances"] == 58


def test_instances_are_counted_within_images_where_the_table_does_not(tmp_path: Path) -> None:
    rows = pa.table({"image": ["a", "b", "a", "a"], "mask_0": [1.0, 2.0, 3.0, 4.0]})
    found = list(InstanceRows([rows.slice(0, 2), rows.slice(2)], "rows"))
    assert [number for some in found for number in some["instance"].to_pylist()] == [0, 0, 1, 2]
    np.testing.assert_array_equal(np.concatenate([matrix_of(some["weights"]) for some in found])[:, 0], [1, 2, 3, 4])
