"""Predictions and tables in the hands of other tools; those that are not installed are skipped."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pycocotools import mask as coco_mask

import maskprism
from fake_network import fake_model, write_images
from maskprism.core.prediction import Prediction
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import draw_scene
from maskprism.errors import InputError, MissingExtraError
from maskprism.integrations.interchange import COCO_NAMES, coco_results, from_supervision, to_fiftyone, to_supervision
from maskprism.tables.extraction import extract
from maskprism.tables.table import CoefficientTable


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    found = maskprism.load("sample").predict(draw_scene(3).image)
    assert len(found) > 2
    return found


def test_coco_results_are_masks_boxes_and_coefficients(prediction: Prediction) -> None:
    with pytest.warns(UserWarning, match=r"category ids are the class ids of the model, which begin with 0: \d"):
        results = json.loads(json.dumps(coco_results(prediction, 17)))
    assert len(results) == len(prediction)
    for result, instance in zip(results, prediction, strict=True):
        assert (result["image_id"], result["category_id"], result["score"]) == (17, instance.class_id, instance.score)
        np.testing.assert_array_equal(coco_mask.decode(result["segmentation"]).astype(bool), instance.mask("image"))
        x, y, width, height = result["bbox"]
        np.testing.assert_allclose([x, y, x + width, y + height], instance.box, rtol=1e-6)
        np.testing.assert_array_equal(np.float32(result["coefficients"]), instance.coefficients)
    mapped = coco_results(prediction, "a.jpg", categories={class_id: class_id + 100 for class_id in range(80)})
    assert [one["category_id"] - 100 for one in mapped] == prediction.classes.tolist()
    with pytest.raises(InputError, match="has no category"):
        coco_results(prediction, 1, categories={99: 1})
    assert coco_results(prediction[:0], 1) == []


def named(prediction: Prediction, *names: str) -> Prediction:
    """Two instances, of the first and the last of these classes."""
    kept = prediction[np.array([0, 1])]
    return replace(kept, classes=np.array([0, len(names) - 1], dtype=kept.classes.dtype), names=dict(enumerate(names)))


def test_category_ids_are_those_of_the_annotation_file(prediction: Prediction, tmp_path: Path) -> None:
    file = tmp_path / "instances.json"
    categories = [{"id": 30, "name": "Traffic_Light"}, {"id": "7", "name": "bus"}, {"id": 2, "name": "car"}]
    image = {"id": 1, "file_name": "1.png"}
    file.write_text(json.dumps({"images": [image], "annotations": [], "categories": categories}))
    found = named(prediction, "bus", "car", "traffic light")
    assert [one["category_id"] for one in coco_results(found, 1, categories=file)] == [7, 30]
    write_images(tmp_path, 1)
    (tmp_path / "1.png").write_bytes(next(tmp_path.glob("*.png")).read_bytes())
    dataset = open_dataset(file)
    assert [one["category_id"] for one in coco_results(found, 1, categories=dataset)] == [7, 30]
    matched = dataset.for_model(found.names)
    assert [one["category_id"] for one in coco_results(found, 1, categories=matched)] == [7, 30]
    with pytest.raises(InputError, match=r"class 2 \(bicycle\) has no category"):
        coco_results(named(prediction, "bus", "car", "bicycle"), 1, categories=file)


def test_the_classes_of_coco_get_their_official_ids(prediction: Prediction) -> None:
    """The ids of COCO's annotation files have gaps: bus is 6, toothbrush, the last of 80, is 90."""
    names = [name for name in COCO_NAMES if name]
    assert (len(names), COCO_NAMES.index("toothbrush") + 1) == (80, 90)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [one["category_id"] for one in coco_results(named(prediction, *names), 1)] == [1, 90]
        turned = named(prediction, *reversed(names))
        assert [one["category_id"] for one in coco_results(turned, 1)] == [90, 1]
    with pytest.warns(UserWarning, match=r"0 \(person\), 78 \(hair drier\)"):
        assert [one["category_id"] for one in coco_results(named(prediction, *names[:79]), 1)] == [0, 78]


def test_supervision_there_and_back(prediction: Prediction) -> None:
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    detections = to_supervision(prediction)
    assert isinstance(detections, supervision.Detections)
    np.testing.assert_array_equal(detections.mask, prediction.masks("image"))
    np.testing.assert_array_equal(detections.xyxy, prediction.boxes)
    assert detections.data["class_name"].tolist() == [one.name for one in prediction]
    kept = detections[detections.confidence > np.median(prediction.scores)]
    back = from_supervision(kept, prediction)
    assert 0 < len(back) == len(kept) < len(prediction)
    np.testing.assert_array_equal(back.masks("image"), kept.mask)
    edited = detections[[2, 0]]
    edited.data["coefficients"] = edited.data["coefficients"] * 2
    np.testing.assert_array_equal(
        from_supervision(edited, prediction).coefficients, prediction.coefficients[[2, 0]] * 2
    )
    image = supervision.MaskAnnotator().annotate(draw_scene(3).image.copy(), detections)
    assert (image != draw_scene(3).image).any()
    assert len(to_supervision(prediction[:0])) == 0
    assert len(from_supervision(to_supervision(prediction[:0]), prediction)) == 0


def test_detections_of_others_are_refused(prediction: Prediction) -> None:
    whole = {"instance": np.arange(2), "coefficients": prediction.coefficients[:2]}
    assert len(from_supervision(SimpleNamespace(data=whole), prediction)) == 2
    for data, message in (
        ({}, "do not say which instances they are"),
        (whole | {"instance": np.array([0, 99])}, "refer to instance 99"),
        (whole | {"coefficients": np.zeros((2, 5))}, r"shape \(2, 5\); expected \(2, 32\)"),
    ):
        with pytest.raises(InputError, match=message):
            from_supervision(SimpleNamespace(data=data), prediction)


def test_fiftyone_gets_masks_inside_their_boxes(prediction: Prediction, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to the call: FiftyOne itself wants a database."""
    stand_in = SimpleNamespace(Detection=SimpleNamespace, Detections=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "fiftyone", stand_in)
    found = to_fiftyone(prediction).detections
    height, width = prediction.image_size
    for one, instance in zip(found, prediction, strict=True):
        x, y, w, h = np.array(one.bounding_box) * [width, height, width, height]
        assert one.mask.shape == (round(h), round(w))
        whole = np.zeros((height, width), bool)
        whole[round(y) : round(y + h), round(x) : round(x + w)] = one.mask
        np.testing.assert_array_equal(whole, instance.mask("image"))
        assert (one.label, one.confidence) == (instance.name, instance.score)
        assert one.coefficients == instance.coefficients.tolist()


@pytest.mark.parametrize(("function", "package"), [(to_supervision, "supervision"), (to_fiftyone, "fiftyone")])
def test_a_missing_package_is_named(prediction: Prediction, monkeypatch: pytest.MonkeyPatch, function, package) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=f"pip install {package}"):
        function(prediction)


@pytest.mark.parametrize("out", ["t.parquet", "t"])
def test_tables_are_read_by_others_as_they_are(tmp_path: Path, out: str) -> None:
    write_images(tmp_path / "photos", 9)
    extract(tmp_path / "photos", fake_model(), tmp_path / out)
    table = CoefficientTable.read(tmp_path / out)
    files = str(tmp_path / out) if out.endswith(".parquet") else str(tmp_path / out / "instances" / "*.parquet")
    count, best = len(table), max(table.arrow["score"].to_pylist())

    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(files.removesuffix("/*.parquet"))
    np.testing.assert_array_equal(np.stack(frame["coefficients"]), table.coefficients)

    polars = pytest.importorskip("polars", reason="polars is not installed")
    rows = polars.read_parquet(files)
    np.testing.assert_array_equal(rows["coefficients"].to_numpy(), table.coefficients)

    duckdb = pytest.importorskip("duckdb", reason="DuckDB is not installed")
    assert duckdb.sql(f"select count(*), max(score) from '{files}'").fetchall()[0] == (count, pytest.approx(best))
    nearest = (
        f"select instance, list_distance(coefficients, {table.coefficients[0].tolist()}::float[]) d from '{files}'"
    )
    assert duckdb.sql(f"{nearest} order by d limit 1").fetchall()[0][1] == 0

    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    data = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert len(data) == count
    np.testing.assert_array_equal(np.float32(data[0]["coefficients"]), table.coefficients[0])
