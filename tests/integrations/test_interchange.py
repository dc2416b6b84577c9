"""Predictions and tables in the hands of other tools; those that are not installed are skipped."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from pycocotools import mask as coco_mask

import maskprism
from helpers import strategies
from helpers.fake_network import fake_model, write_images
from maskprism.core.decoding.outlines import rasterised
from maskprism.core.prediction import Prediction
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import draw_scene
from maskprism.errors import InputError, MissingExtraError
from maskprism.integrations.coco import COCO_NAMES, annotation_categories, coco_annotations
from maskprism.integrations.fiftyone import mark_labels, to_fiftyone
from maskprism.integrations.labelme import labelme_document
from maskprism.integrations.rings import joined_rings, shrunk
from maskprism.integrations.supervision import from_supervision
from maskprism.tables.extraction import extract
from maskprism.tables.table import CoefficientTable


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    found = maskprism.load("sample").predict(draw_scene(3).image)
    assert len(found) > 2
    return found


def test_coco_results_are_masks_boxes_and_coefficients(prediction: Prediction) -> None:
    with pytest.warns(UserWarning, match=r"category ids are the class ids of the model, which begin with 0: \d"):
        results = json.loads(json.dumps(prediction.to_coco(17, coefficients=True)))
    assert len(results) == len(prediction)
    for result, instance in zip(results, prediction, strict=True):
        assert (result["image_id"], result["category_id"], result["score"]) == (17, instance.class_id, instance.score)
        np.testing.assert_array_equal(coco_mask.decode(result["segmentation"]).astype(bool), instance.mask("image"))
        x, y, width, height = result["bbox"]
        np.testing.assert_allclose([x, y, x + width, y + height], instance.box, rtol=1e-6)
        np.testing.assert_array_equal(np.float32(result["coefficients"]), instance.coefficients)
    mapped = prediction.to_coco("a.jpg", categories={class_id: class_id + 100 for class_id in range(80)})
    assert [one["category_id"] - 100 for one in mapped] == prediction.classes.tolist()
    with pytest.raises(InputError, match="has no category"):
        prediction.to_coco(1, categories={99: 1})
    assert prediction[:0].to_coco(1) == []


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
    assert [one["category_id"] for one in found.to_coco(1, categories=file)] == [7, 30]
    write_images(tmp_path, 1)
    (tmp_path / "1.png").write_bytes(next(tmp_path.glob("*.png")).read_bytes())
    dataset = open_dataset(file)
    assert [one["category_id"] for one in found.to_coco(1, categories=dataset)] == [7, 30]
    matched = dataset.for_model(found.names)
    assert [one["category_id"] for one in found.to_coco(1, categories=matched)] == [7, 30]
    with pytest.raises(InputError, match=r"class 2 \(bicycle\) has no category"):
        named(prediction, "bus", "car", "bicycle").to_coco(1, categories=file)


def test_the_classes_of_coco_get_their_official_ids(prediction: Prediction) -> None:
    """The ids of COCO's annotation files have gaps: bus is 6, toothbrush, the last of 80, is 90."""
    names = [name for name in COCO_NAMES if name]
    assert (len(names), COCO_NAMES.index("toothbrush") + 1) == (80, 90)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert [one["category_id"] for one in named(prediction, *names).to_coco(1)] == [1, 90]
        turned = named(prediction, *reversed(names))
        assert [one["category_id"] for one in turned.to_coco(1)] == [90, 1]
    with pytest.warns(UserWarning, match=r"0 \(person\), 78 \(hair drier\)"):
        assert [one["category_id"] for one in named(prediction, *names[:79]).to_coco(1)] == [0, 78]


def test_a_result_has_the_name_of_its_image_as_id(prediction: Prediction) -> None:
    ids = {"photos/000000000139.jpg": 139, "photos/one two.jpg": "one two", "c:\\photos\\7a.png": "7a"}
    for source, image_id in ids.items():
        made = replace(prediction[:1], source=source).to_coco(categories=range_ids())
        assert [one["image_id"] for one in made] == [image_id]
    with pytest.raises(InputError, match="give the image_id"):
        prediction.to_coco(categories=range_ids())
    with pytest.raises(InputError, match="segmentation is 'bitmap'"):
        prediction.to_coco(1, categories=range_ids(), segmentation="bitmap")


def range_ids() -> dict[int, int | str]:
    return {class_id: class_id + 1 for class_id in range(80)}


def coco_file(folder: Path, prediction: Prediction, **options: Any) -> Path:
    """A COCO json of annotations, and its image."""
    cv2.imwrite(str(folder / "scene.png"), draw_scene(3).image)
    categories = annotation_categories(prediction.names, None)
    entries = coco_annotations(prediction, 5, categories=categories, **options)
    height, width = prediction.image_size
    document = {
        "images": [{"id": 5, "file_name": "scene.png", "width": width, "height": height}],
        "categories": [{"id": categories[class_id], "name": name} for class_id, name in prediction.names.items()],
        "annotations": [{"id": number, **entry} for number, entry in enumerate(entries, 1)],
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder / "annotations.json"


def reread(description: Path, prediction: Prediction) -> tuple[np.ndarray, np.ndarray]:
    """Classes of the model and masks of the only image of a data set."""
    (sample,) = open_dataset(description).for_model(prediction.names)
    _, truth = sample.read()
    return truth.classes, truth.masks()


def test_coco_annotations_are_read_again(prediction: Prediction, tmp_path: Path) -> None:
    kept = prediction[prediction.areas() > 0]
    classes, masks = reread(coco_file(tmp_path, prediction, segmentation="rle"), prediction)
    np.testing.assert_array_equal(classes, kept.classes)
    np.testing.assert_array_equal(masks, kept.masks("image"))
    classes, masks = reread(coco_file(tmp_path, prediction), prediction)
    np.testing.assert_array_equal(classes, kept.classes)
    assert min(iou(*pair) for pair in zip(masks, kept.masks("image"), strict=True)) > 0.97
    entry = json.loads((tmp_path / "annotations.json").read_text())["annotations"][0]
    assert {"id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd", "score"} == set(entry)
    assert entry["area"] == kept[0].area()


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return np.count_nonzero(a & b) / np.count_nonzero(a | b)


def test_label_files_are_read_again(prediction: Prediction, tmp_path: Path) -> None:
    """By the rule of Ultralytics, which fills polygons together with their edges."""
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    cv2.imwrite(str(tmp_path / "images" / "scene.png"), draw_scene(3).image)
    (tmp_path / "labels" / "scene.txt").write_text(prediction.to_yolo_txt())
    names = [prediction.names[class_id] for class_id in sorted(prediction.names)]
    (tmp_path / "data.yaml").write_text(json.dumps({"path": ".", "val": "images", "names": names}))
    kept = prediction[prediction.areas() > 0]
    classes, masks = reread(tmp_path / "data.yaml", prediction)
    np.testing.assert_array_equal(classes, kept.classes)
    around = np.ones((3, 3), np.uint8)
    for read, mask, polygons in zip(masks, kept.masks("image"), kept.polygons("image"), strict=True):
        assert iou(read, mask) > 0.95
        larger = cv2.dilate(mask.astype(np.uint8), around) > 0
        smaller = cv2.erode(mask.astype(np.uint8), around) > 0
        assert not (smaller & ~read).any()
        assert len(polygons.outlines) > 1 or not (read & ~larger).any()  # cuts between parts are drawn, too
    assert prediction[:0].to_yolo_txt() == ""


def test_outlines_shrink_towards_the_mask() -> None:
    """Of a square with a square hole: the exterior gets smaller, the hole larger, by the distance on every side."""
    square = np.array([[1, 1], [9, 1], [9, 9], [1, 9]], dtype=float)
    hole = np.array([[4, 4], [4, 6], [6, 6], [6, 4]], dtype=float)
    np.testing.assert_allclose(shrunk(square, 0.5), [[1.5, 1.5], [8.5, 1.5], [8.5, 8.5], [1.5, 8.5]])
    np.testing.assert_allclose(shrunk(hole, 0.5), [[3.5, 3.5], [3.5, 6.5], [6.5, 6.5], [6.5, 3.5]])
    sharp = np.array([[0, 0], [100, 0.5], [0, 1]], dtype=float)
    assert np.hypot(*(shrunk(sharp, 0.5) - sharp).T).max() <= 1.5


@given(strategies.predictions())
def test_rings_hold_what_outlines_with_holes_hold(prediction: Prediction) -> None:
    for mask in prediction.polygons("image"):
        if mask.outlines:
            ring = joined_rings([ring for part in mask.outlines for ring in (part.exterior, *part.holes)])
            drawn = mask.rasterise()
            rows, columns = drawn.rows, drawn.columns
            np.testing.assert_array_equal(
                rasterised([ring], rows.start, rows.stop, columns.start, columns.stop), drawn.values
            )


@given(strategies.predictions())
def test_exports_of_all_families_speak_of_the_same_masks(prediction: Prediction) -> None:
    masks = prediction.masks("image")
    results = prediction.to_coco(1, categories=range_ids())
    for result, mask in zip(results, masks, strict=True):
        np.testing.assert_array_equal(coco_mask.decode(result["segmentation"]).astype(bool), mask)
    frame = prediction.to_pandas()
    assert frame["mask_area"].tolist() == masks.sum(axis=(1, 2)).tolist()
    assert (frame["class_name"].tolist(), len(frame)) == ([one.name for one in prediction], len(prediction))
    parts = [len(mask.outlines) for mask in prediction.polygons("image")]
    document = labelme_document(prediction, "one.png")
    assert len(document["shapes"]) == sum(parts)
    assert len(prediction.to_yolo_txt().splitlines()) == np.count_nonzero(parts)
    assert len(prediction.to_coco(1, categories=range_ids(), segmentation="polygons")) == np.count_nonzero(parts)


def test_labelme_shapes_are_polygons_in_pixels(prediction: Prediction) -> None:
    document = labelme_document(prediction, "../scene.png")
    assert (document["imageHeight"], document["imageWidth"]) == prediction.image_size
    first = next(one for one in document["shapes"] if one["label"] == prediction[0].name)
    assert first["shape_type"] == "polygon"
    np.testing.assert_allclose(np.max(first["points"], axis=0), prediction[0].box[2:], atol=3)


def test_supervision_there_and_back(prediction: Prediction) -> None:
    supervision = pytest.importorskip("supervision", reason="supervision is not installed")
    detections = prediction.to_supervision()
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
    compact = prediction.to_supervision(compact=True)
    assert isinstance(compact.mask, supervision.CompactMask)
    np.testing.assert_array_equal(np.asarray(compact.mask), detections.mask)
    np.testing.assert_array_equal(np.asarray(compact[[2, 0]].mask), detections.mask[[2, 0]])
    assert len(prediction[:0].to_supervision(compact=True)) == 0
    image = supervision.MaskAnnotator().annotate(draw_scene(3).image.copy(), detections)
    assert (image != draw_scene(3).image).any()
    assert len(prediction[:0].to_supervision()) == 0
    assert len(from_supervision(prediction[:0].to_supervision(), prediction)) == 0


def test_detections_of_others_are_refused(prediction: Prediction) -> None:
    whole = {"instance": np.arange(2), "coefficients": prediction.coefficients[:2]}
    assert len(from_supervision(SimpleNamespace(data=whole), prediction)) == 2
    for data, message in (
        ({}, "do not say which instances they are"),
        (whole | {"instance": np.array([0, 99])}, "name instance 99"),
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


class FiftyOneLabel(SimpleNamespace):
    """A label as FiftyOne has it: named fields, by item, too."""

    def has_field(self, name: str) -> bool:
        return hasattr(self, name)

    __getitem__ = SimpleNamespace.__getattribute__
    __setitem__ = SimpleNamespace.__setattr__


class FiftyOneSamples(list[Any]):
    """Samples as a FiftyOne data set gives them."""

    def compute_metadata(self) -> None:
        for sample in self:
            sample.metadata = SimpleNamespace(width=100, height=50)

    def iter_samples(self, *, autosave: bool) -> Any:
        assert autosave
        return iter(self)


def fiftyone_sample(path: str, **field: list[FiftyOneLabel]) -> FiftyOneLabel:
    return FiftyOneLabel(filepath=path, ground_truth=SimpleNamespace(**field))


@pytest.mark.parametrize("kind", ["detections", "polylines", "ids"])
def test_fiftyone_labels_get_suspicions(kind: str, tmp_path: Path) -> None:
    boxes = {("images/a.png", 7): (10, 10, 30, 30), ("images/a.png", 9): (12, 10, 34, 30), ("b/a.png", 0): (0, 0, 9, 9)}
    rows = [
        {"image": image, "label_id": number, "class_name": "cat", "kind": f"kind {number}", "suspicion": number / 10}
        | dict(zip(("x1", "y1", "x2", "y2"), map(float, box), strict=True))
        for (image, number), box in boxes.items()
    ]
    rows.append(rows[0] | {"label_id": None, "kind": "missing label"})
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "labels.parquet")

    def a_label(number: int, box: tuple[int, ...]) -> FiftyOneLabel:
        x1, y1, x2, y2 = box[0] / 100, box[1] / 50, box[2] / 100, box[3] / 50
        if kind == "polylines":
            return FiftyOneLabel(label="cat", points=[[(x1, y1), (x2, y1)], [(x2, y2)]])
        known = {"coco_id": number} if kind == "ids" else {}
        return FiftyOneLabel(label="cat", bounding_box=[x1, y1, x2 - x1, y2 - y1], **known)

    name = "polylines" if kind == "polylines" else "detections"
    first, second, other = (a_label(number, box) for (_, number), box in boxes.items())
    stranger = FiftyOneLabel(**vars(first) | {"label": "dog"} | ({"coco_id": 99} if kind == "ids" else {}))
    samples = FiftyOneSamples(
        [
            fiftyone_sample("/data/images/a.png", **{name: [stranger, second, first]}),
            fiftyone_sample("/data/b/a.png", **{name: [other]}),
            fiftyone_sample("/data/c/a.png", **{name: [a_label(0, (0, 0, 9, 9))]}),
        ]
    )
    assert mark_labels(samples, tmp_path / "labels.parquet") == (3, 0)
    assert [(one.mask_suspicion, one.mask_issue) for one in (first, second, other)] == [
        (0.7, "kind 7"),
        (0.9, "kind 9"),
        (0.0, "kind 0"),
    ]
    assert not hasattr(stranger, "mask_issue")
    samples[0].ground_truth = None
    assert mark_labels(samples, tmp_path / "labels.parquet") == (1, 2)


@pytest.mark.parametrize(
    ("function", "package"),
    [(Prediction.to_supervision, "supervision"), (Prediction.to_pandas, "pandas"), (to_fiftyone, "fiftyone")],
)
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
