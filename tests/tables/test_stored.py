"""Prototypes in tables: what is stored, and that the masks drawn from it are those of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskprism
from helpers.by_hand import assert_equal
from helpers.fake_network import fake_model, v5_model, write_images
from maskprism.errors import InputError, TableError
from maskprism.models import Model
from maskprism.tables.extraction import extract
from maskprism.tables.stored_predictions import StoredPredictions
from maskprism.tables.stored_prototypes import gram, packed, unpacked
from maskprism.tables.table import TablePaths
from maskprism.tables.worker import Shard


def stored_of(folder: Path, model: Model, kind: Any, out: Path) -> StoredPredictions:
    summary = extract(folder, model, out, prototypes=kind)
    assert summary.prototypes_table == TablePaths.of(out).prototypes
    assert str(summary).splitlines()[-1] == str(summary.prototypes_table)
    return StoredPredictions.open(out)


@pytest.mark.parametrize("out", ["t.parquet", "t"])
@pytest.mark.parametrize("make", [fake_model, v5_model])
def test_masks_are_those_of_the_network(tmp_path: Path, make: Any, out: str) -> None:
    paths = write_images(tmp_path / "photos", 9)
    (tmp_path / "photos" / "bad.png").write_bytes(b"no image")
    stored = stored_of(tmp_path / "photos", make(), "fp32", tmp_path / out)
    predictions = {path.name: make().predict(path) for path in paths}
    with_instances = [name for name, found in predictions.items() if len(found)]
    assert list(stored) == with_instances
    assert len(stored) == len(with_instances)
    assert "bad.png" not in stored
    with pytest.raises(KeyError):
        stored["bad.png"]
    for name in reversed(with_instances):
        assert_equal(stored[name], predictions[name])
        for size in ("grid", "canvas", "image"):
            np.testing.assert_array_equal(stored[name].masks(size), predictions[name].masks(size))


def test_half_precision_and_summaries(tmp_path: Path) -> None:
    paths = write_images(tmp_path / "photos", 6)
    model = fake_model()
    half = stored_of(tmp_path / "photos", model, "fp16", tmp_path / "half.parquet")
    summary = stored_of(tmp_path / "photos", model, "summary", tmp_path / "summary.parquet")
    assert list(half) == list(summary)
    names = [name for name, _ in half.grams()]
    assert names == list(half)
    for name, found in half.grams():
        prediction = model.predict(tmp_path / "photos" / name)
        np.testing.assert_array_equal(found, half.gram(name))
        np.testing.assert_array_equal(found, summary.gram(name))
        np.testing.assert_array_equal(half[name].prototypes, prediction.prototypes.astype(np.float16))
    with pytest.raises(TableError, match="has no prototypes, only summary"):
        summary[names[0]]
    table = pq.read_table(tmp_path / "summary.parquet".replace(".parquet", ".prototypes.parquet"))
    for row in table.to_pylist():
        prediction = model.predict(tmp_path / "photos" / row["image"])
        rows, columns = prediction.letterbox.content_cells
        cells = prediction.prototypes[:, rows, columns].reshape(4, -1)
        np.testing.assert_allclose(row["mean"], cells.mean(axis=1), rtol=1e-6)
        np.testing.assert_array_equal(row["minimum"], cells.min(axis=1))
        np.testing.assert_array_equal(row["maximum"], cells.max(axis=1))
        assert (row["image_height"], row["image_width"]) == prediction.image_size
    assert len(paths) > len(table) > 0


def test_the_gram_matrix_is_the_distance_of_logits() -> None:
    prediction = fake_model().predict(np.random.default_rng(3).integers(0, 256, (40, 64, 3), dtype=np.uint8))
    matrix = gram(prediction)
    rows, columns = prediction.letterbox.content_cells
    rng = np.random.default_rng(0)
    for _ in range(5):
        difference = rng.normal(size=4).astype(np.float32)
        logits = np.tensordot(difference, prediction.prototypes, 1)[rows, columns]
        assert difference @ matrix @ difference == pytest.approx(np.mean(logits**2), rel=1e-5)
    assert prediction.letterbox.content_hw != prediction.letterbox.canvas_hw  # padding is left out


@given(st.integers(1, 40), st.integers(0, 3))
def test_triangles(k: int, count: int) -> None:
    values = np.random.default_rng(k).normal(size=(count, k, k)).astype(np.float32)
    symmetric = values + values.transpose(0, 2, 1)
    np.testing.assert_array_equal(unpacked(packed(symmetric)), symmetric)


def test_what_cannot_be_stored_or_read(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 3)
    with pytest.raises(InputError, match="prototypes is 'fp8'; expected None or one of 'summary', 'fp16', 'fp32'"):
        Shard(fake_model(), prototypes="fp8")  # type: ignore[arg-type]
    with pytest.raises(TableError, match=r"CSV holds no prototypes; choose a \.parquet file, or a folder"):
        extract(tmp_path / "photos", fake_model(), tmp_path / "t.csv", prototypes="fp16")
    assert not list(tmp_path.glob("t.csv*"))
    out = tmp_path / "t.parquet"
    extract(tmp_path / "photos", fake_model(), out)
    with pytest.raises(TableError, match="has no prototypes; extract it"):
        StoredPredictions.open(out)
    with pytest.raises(TableError, match=r"stored: null in the table, \"fp16\" now"):
        extract(tmp_path / "photos", fake_model(), out, prototypes="fp16")
    extract(tmp_path / "photos", fake_model(), out, prototypes="fp16", overwrite=True)
    kept = (tmp_path / "t.prototypes.parquet").read_bytes()
    (tmp_path / "t.prototypes.parquet").unlink()
    with pytest.raises(TableError, match=r"t\.prototypes\.parquet: is missing"):
        StoredPredictions.open(out)
    write_images(tmp_path / "photos", 4)
    with pytest.raises(TableError, match=r"t\.prototypes\.parquet: is missing"):
        extract(tmp_path / "photos", fake_model(), out, prototypes="fp16")
    (tmp_path / "t.prototypes.parquet").write_bytes(kept[: len(kept) // 2])
    with pytest.raises(TableError, match="cannot be read as a table"):
        StoredPredictions.open(out)


def test_prototypes_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", 3)
    stored = stored_of(tmp_path / "photos", fake_model(), "fp32", tmp_path / "t.parquet")
    name = next(iter(stored))
    path = tmp_path / "t.prototypes.parquet"
    table = pq.read_table(path)
    for column, value in (("grid_height", 7), ("offset_top", 60), ("canvas_boxes", [1.0, 2.0])):
        index = table.column_names.index(column)
        changed = table.set_column(
            index, table.schema.field(column), pa.array([value] * len(table), table.schema.field(column).type)
        )
        pq.write_table(changed, path)
        with pytest.raises(TableError, match=f"{name}: what is stored does not fit together"):
            StoredPredictions.open(tmp_path / "t.parquet")[name]


def test_real_images(real_data: Path, tmp_path: Path) -> None:
    """Half precision: a few pixels along outlines; sizes as the documentation tells them."""
    model = maskprism.load(real_data / "models" / "yolov8n-seg.onnx", threads=1)
    sizes: dict[str, float] = {}
    for kind in ("summary", "fp16", "fp32"):
        extract(real_data / "images", model, tmp_path / f"{kind}.parquet", prototypes=kind)  # type: ignore[arg-type]
        sizes[kind] = (tmp_path / f"{kind}.prototypes.parquet").stat().st_size / 2
    assert sizes["summary"] < 20_000
    assert 0.9e6 < sizes["fp16"] < 1.4e6
    assert 2.2e6 < sizes["fp32"] < 3.0e6
    half, whole = (StoredPredictions.open(tmp_path / f"{kind}.parquet") for kind in ("fp16", "fp32"))
    for path in sorted((real_data / "images").iterdir()):
        masks = model.predict(cv2.imread(str(path))).masks("image")
        np.testing.assert_array_equal(whole[path.name].masks("image"), masks)
        ours = half[path.name].masks("image")
        overlap = (ours & masks).sum(axis=(1, 2)) / (ours | masks).sum(axis=(1, 2))
        assert overlap.min() > 0.999
