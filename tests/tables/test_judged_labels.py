"""The table of `maskprism labels` read again."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from maskprism.errors import TableError
from maskprism.tables.judged_labels import JudgedLabels

BOX = {"x1": 0.0, "y1": 0.0, "x2": 1.0, "y2": 1.0, "class_name": "cat"}


def written(folder: Path, images: list[str]) -> Path:
    rows = [{"image": name, "label_id": place, "kind": "hole", "suspicion": 0.9} for place, name in enumerate(images)]
    pq.write_table(pa.Table.from_pylist([row | BOX for row in rows]), folder / "labels.parquet")
    return folder


def test_images_are_found_by_the_end_of_their_path(tmp_path: Path) -> None:
    judged = JudgedLabels.read(written(tmp_path, ["val/a.png", "train/a.png", "train/b.png", "train/b.png"]))
    assert [row.label_id for row in judged.of("/data/train/a.png")] == [1]
    assert [row.label_id for row in judged.of(Path("elsewhere/b.png"))] == [2, 3]
    assert judged.of("a.png") == ()  # of which split?
    assert judged.of("/data/xtrain/a.png") == ()
    assert judged.of("c.png") == ()


def test_other_tables_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError):
        JudgedLabels.read(tmp_path)
    pq.write_table(pa.table({"image": ["a.png"]}), tmp_path / "labels.parquet")
    with pytest.raises(TableError, match="has no column label_id"):
        JudgedLabels.read(tmp_path)
    (tmp_path / "labels.parquet").write_bytes(b"nothing")
    with pytest.raises(TableError):
        JudgedLabels.read(tmp_path / "labels.parquet")
