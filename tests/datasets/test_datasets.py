"""Data sets: what the readers make of right and wrong files, and masks in every frame."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import reference_datasets as reference
from helpers.small_datasets import HEIGHT, TRIANGLE, WIDTH, coco, data_set
from helpers.strategies import letterboxes, seeds
from maskprism import Letterbox
from maskprism.datasets import Dataset, GroundTruth, open_dataset
from maskprism.datasets.scenes import NAMES, draw_scene, write_dataset
from maskprism.datasets.yolo import label_path
from maskprism.errors import ImageError, InputError, LabelError


def truths(dataset: Dataset) -> list[GroundTruth]:
    return [sample.read()[1] for sample in dataset]


def of_polygons(polygons: list[np.ndarray], image_hw: tuple[int, int]) -> GroundTruth:
    return GroundTruth(
        classes=np.zeros(len(polygons), dtype=np.int64),
        segments=tuple((polygon.astype(np.float32),) for polygon in polygons),
        boxes=np.zeros((len(polygons), 4), dtype=np.float32),
        crowd=np.zeros(len(polygons), dtype=bool),
        image_hw=image_hw,
    )


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("scenes ü"), 6, seed=300, validation_share=0.5)


def test_written_scenes_are_read_back_pixel_for_pixel(scenes):
    dataset = open_dataset(scenes)
    assert dataset.split == "val"
    assert len(dataset) == 3
    assert dataset.names == NAMES
    for sample in dataset:
        image, truth = sample.read()
        scene = draw_scene(int(sample.name[-10:-4]))
        assert np.array_equal(image, scene.image)
        assert np.array_equal(truth.classes, scene.classes)
        assert np.array_equal(truth.masks(), scene.masks)
        assert truth.areas.tolist() == scene.masks.sum(axis=(1, 2)).tolist()
        np.testing.assert_allclose(truth.boxes, scene.boxes, atol=0.26)
        assert not truth.remarks


@st.composite
def outlines(draw: st.DrawFn) -> tuple[list[np.ndarray], tuple[int, int]]:
    """Polygons in and around a small image: with corners on ties of the rounding, thin, crossing themselves."""
    rng = np.random.default_rng(draw(seeds))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    polygons = []
    for _ in range(draw(st.integers(1, 3))):
        polygon = rng.uniform(-6, 46, (draw(st.integers(3, 9)), 2))
        if steps := draw(st.sampled_from([0, 1, 2, 5, 10])):
            polygon = np.round(polygon * steps) / steps
        if draw(st.booleans()):
            polygon = polygon * (1, 0.02) + (0, rng.uniform(0, height))
        polygons.append(polygon)
    return polygons, (height, width)


@given(outlines())
@settings(max_examples=200)
def test_coco_polygons_cover_the_pixels_that_pycocotools_gives_them(drawn):
    mask_api = pytest.importorskip("pycocotools.mask")
    polygons, (height, width) = drawn
    truth = replace(of_polygons(polygons[:1], (height, width)), segments=(tuple(polygons),))
    encoded = mask_api.merge(
        mask_api.frPyObjects([polygon.reshape(-1).tolist() for polygon in polygons], height, width)
    )
    np.testing.assert_array_equal(truth.masks()[0], mask_api.decode(encoded).astype(bool))


@given(outlines())
@settings(max_examples=100)
def test_polygons_of_label_files_are_filled_as_ultralytics_fills_them(drawn):
    """By its rule, told by hand: whole numbers, and the outline with its edges. The parity tests call Ultralytics."""
    polygons, (height, width) = drawn
    truth = replace(of_polygons(polygons, (height, width)), outlines="ultralytics")
    for polygon, mask in zip(truth.segments, truth.masks(), strict=True):
        expected = np.zeros((height, width), dtype=np.uint8)
        cv2.fillPoly(expected, [np.trunc(polygon[0]).astype(np.int32)], 1)
        np.testing.assert_array_equal(mask, expected > 0)


@given(letterboxes(), seeds, st.sampled_from(["grid", "canvas", "image"]), st.sampled_from(["coco", "ultralytics"]))
@settings(max_examples=100)
def test_bitmaps_and_polygons_agree_in_every_frame(letterbox, seed, size, outlines):
    """A bitmap of whole pixels, and the rectangle that is the same: equal but for the pixels of the outline."""
    rng = np.random.default_rng(seed)
    height, width = letterbox.image_hw
    (x1, x2), (y1, y2) = np.sort(rng.integers(0, width + 1, 2)), np.sort(rng.integers(0, height + 1, 2))
    bitmap = np.zeros((height, width), dtype=bool)
    bitmap[y1:y2, x1:x2] = True
    corners = of_polygons([np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])], (height, width))
    drawn = replace(corners, outlines=outlines).masks(size, letterbox)[0].astype(np.uint8)
    expected = replace(corners, segments=(bitmap,)).masks(size, letterbox)[0].astype(np.uint8)
    if size == "image" and outlines == "coco":
        np.testing.assert_array_equal(drawn, expected)
    around = np.ones((3, 3), dtype=np.uint8)
    inner = cv2.erode(expected, around, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    outer = cv2.dilate(expected, around) if expected.any() else np.ones_like(expected)
    assert (drawn >= inner).all()
    assert (drawn <= outer).all()


@given(letterboxes(), seeds)
@settings(max_examples=30)
def test_patches_are_windows_of_the_masks_and_stay_off_the_padding(letterbox, seed):
    height, width = letterbox.image_hw
    truth = of_polygons(list(np.random.default_rng(seed).uniform(0, (width, height), (3, 5, 2))), (height, width))
    masks = truth.masks("canvas", letterbox)
    top, left = letterbox.offset_yx
    content = np.zeros(letterbox.canvas_hw, dtype=bool)
    content[top : top + letterbox.content_hw[0], left : left + letterbox.content_hw[1]] = True
    assert not (masks & ~content).any()
    for mask, patch in zip(masks, truth.patches("canvas", letterbox), strict=True):
        assert np.array_equal(mask[patch.rows, patch.columns], patch.values)
        assert mask.sum() == patch.values.sum()


def test_outlines_beyond_the_image_are_not_bent_on_the_canvas():
    """Corners that lie outside stay where they are; what they enclose outside of the image is left out."""
    truth = of_polygons([np.array([(-30.0, 5.0), (35.0, 5.0), (35.0, 60.0)])], (HEIGHT, WIDTH))
    letterbox = Letterbox.fit((HEIGHT, WIDTH), (2 * HEIGHT + 16, 2 * WIDTH))
    twice = cv2.resize(truth.masks()[0].astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    canvas = truth.masks("canvas", letterbox)[0]
    assert letterbox.offset_yx == (8, 0)
    assert not canvas[:8].any()
    assert not canvas[-8:].any()
    assert (canvas[8:-8] != twice).mean() < 0.02


def test_masks_need_the_right_letterbox():
    truth = of_polygons([np.zeros((3, 2))], (40, 60))
    with pytest.raises(InputError, match="need the letterbox"):
        truth.masks("canvas")
    with pytest.raises(InputError, match="60 x 40"):
        truth.masks("canvas", Letterbox.fit((41, 60), (64, 64)))


def test_rows_of_every_kind(tmp_path):
    rows = ["", "  ", "1 0 0 1 0 1 1", TRIANGLE, f" {TRIANGLE} ", "1 0.5 0.5 0.2 0.4", "0 -0.005 0 0.5 0 0.5 1.01"]
    dataset = open_dataset(data_set(tmp_path, {"a": "﻿" + "\r\n".join(rows), "b": "", "c": None}))
    first, empty, missing = truths(dataset)
    assert first.classes.tolist() == [1, 0, 1, 0]
    assert first.box_only.tolist() == [False, False, True, False]
    np.testing.assert_allclose(first.boxes[0], [0, 0, WIDTH, HEIGHT])
    np.testing.assert_allclose(first.boxes[2], [24, 12, 36, 28], atol=1e-4)
    np.testing.assert_allclose(first.boxes[3], [0, 0, 30, 40], atol=1e-4)
    assert first.areas[2] == 0
    assert first.name_of(1) == "dog"
    remarks = "\n".join(first.remarks)
    assert "line 5: repeats line 4" in remarks
    assert "line 6: a box without a polygon" in remarks
    assert "line 7: coordinates a little outside 0..1; clipped" in remarks
    assert len(empty) == len(missing) == 0
    assert empty.masks().shape == (0, HEIGHT, WIDTH)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("0 0.1 0.1 0.9 0.1 0.1", "line 2: has 5 numbers behind the class"),
        ("0 0.1 0.1", "has 2 numbers"),
        ("0 0.1 nan 0.9 0.1 0.1 0.9", "coordinate nan is outside 0..1"),
        ("0 0.1 inf 0.9 0.1 0.1 0.9", "coordinate inf is outside"),
        ("0 0.1 0.1 0.9 0.1 0.1 320", "coordinate 320 is outside 0..1"),
        ("2 0.1 0.1 0.9 0.1 0.1 0.9", "class 2 is out of range: the data set has 2 classes (0..1)"),
        ("-1 0.1 0.1 0.9 0.1 0.1 0.9", "class -1 is out of range"),
        ("0.5 0.1 0.1 0.9 0.1 0.1 0.9", "class 0.5"),
        ("cat 0.1 0.1 0.9 0.1 0.1 0.9", "'cat' is not a number; expected class"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_a_broken_label_file_stops_itself_alone(tmp_path, row, message):
    text = TRIANGLE.encode() + b"\n" + (row if isinstance(row, bytes) else row.encode())
    dataset = open_dataset(data_set(tmp_path, {"a": text, "b": TRIANGLE}))
    bad, good = dataset
    with pytest.raises(LabelError) as raised:
        bad.read()
    assert message in str(raised.value)
    assert "a.txt" in str(raised.value)
    assert len(good.read()[1]) == 1


def test_label_ids_stay_with_their_instances(tmp_path):
    lines = [TRIANGLE, "1 0.5 0.5 0.2 0.2", "", TRIANGLE.replace("0 ", "1 ", 1)]
    (sample,) = open_dataset(data_set(tmp_path, {"a": "\n".join(lines)}))
    _, truth = sample.read()
    assert truth.label_ids == (0, 1, 3)
    chosen = truth.select([2, 0])
    assert chosen.label_ids == (3, 0)
    assert chosen.classes.tolist() == [1, 0]
    assert all(mask.sum() for mask in chosen.masks())
    assert truth.of_classes([1]).label_ids == (1, 3)
    assert replace(truth, label_ids=()).select([1]).label_ids == ()
    assert len(truth.select([])) == len(truth.of_classes([5])) == 0


def test_a_broken_image_is_told(tmp_path):
    described = data_set(tmp_path, {"a": TRIANGLE, "b": TRIANGLE})
    (tmp_path / "images" / "val" / "a.png").write_bytes(b"")
    bad, good = open_dataset(described)
    with pytest.raises(ImageError, match="empty"):
        bad.read()
    assert good.read()[0].shape == (HEIGHT, WIDTH, 3)


def test_splits_are_folders_lists_and_text_files(tmp_path):
    described = data_set(tmp_path, {"a": TRIANGLE, "b": TRIANGLE})
    (tmp_path / "images" / "more").mkdir()
    (tmp_path / "labels" / "more").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "more" / "c.jpg"), np.zeros((8, 8, 3), np.uint8))
    (tmp_path / "labels" / "more" / "c.txt").write_text(TRIANGLE)
    (tmp_path / "list.txt").write_text("./images/val/b.png\nimages/more/c.jpg\n")
    contents = yaml.safe_load(described.read_text())
    contents |= {"train": ["images/val", "images/more"], "test": "list.txt", "path": str(tmp_path)}
    described.write_text(yaml.safe_dump(contents))
    assert [sample.name for sample in open_dataset(described, "train")] == [
        "images/val/a.png", "images/val/b.png", "images/more/c.jpg",
    ]  # fmt: skip
    assert [sample.name for sample in open_dataset(tmp_path, "test")] == ["images/val/b.png", "images/more/c.jpg"]
    assert all(len(truth) == 1 for truth in truths(open_dataset(described, "test")))
    with pytest.raises(InputError, match="has no split 'dev'; it has val, test, train"):
        open_dataset(described, "dev")


@pytest.mark.parametrize("path", [None, ".", "../{name}", "/moved/from/elsewhere", "absolute"])
def test_the_key_path_may_be_meant_in_many_ways(tmp_path, monkeypatch, path):
    folder = tmp_path / "set"
    root = {"path": str(folder) if path == "absolute" else path.format(name=folder.name)} if path else {}
    dataset = open_dataset(data_set(folder, {"a": TRIANGLE}, **root))
    assert [sample.name for sample in dataset] == ["images/val/a.png"]
    monkeypatch.chdir(folder)
    assert len(truths(open_dataset("data.yaml"))) == 1


def test_a_parent_folder_too_many_is_forgiven(tmp_path):
    """As exports of annotation services have it, and as Ultralytics reads it."""
    described = data_set(tmp_path / "set", {"a": TRIANGLE}, val="../images/val")
    assert len(open_dataset(described)) == 1


def test_label_paths():
    assert label_path(Path("/images/set/images/val/a.b.jpg")) == Path("/images/set/labels/val/a.b.txt")
    assert label_path(Path("/photos/a.jpg")) == Path("/photos/a.txt")
    assert label_path(Path("/photos/images.jpg")) == Path("/photos/images.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("val: [", "cannot be read as YAML"),
        ("- 1", "expected keys such as"),
        ("names: [a]", "names no split"),
        ("val: nowhere\nnames: [a]", "nowhere"),
        ("val: images/val", "names is None"),
        ("val: images/val\nnames: {1: a, 2: b}", "expected a list of class names"),
        ("val: images/val\nnames: 3", "names is 3"),
        ("train: images/val\nval:\nnames: [a]\nsplit: x", None),
        ("val: images/val\nnc: 2", None),
    ],
)
def test_descriptions(tmp_path, text, message):
    described = data_set(tmp_path, {"a": TRIANGLE})
    described.write_text(text)
    if message is None:
        assert len(truths(open_dataset(described))) == 1
    else:
        with pytest.raises(InputError, match=message):
            open_dataset(described)


def test_what_is_no_data_set_is_told(tmp_path):
    with pytest.raises(InputError, match="there is no such file"):
        open_dataset(tmp_path / "data.yaml")
    with pytest.raises(InputError, match=r"holds 0 \.yaml and \.json files"):
        open_dataset(tmp_path)
    (tmp_path / "data.txt").write_text("")
    with pytest.raises(InputError, match=r"not \.txt"):
        open_dataset(tmp_path / "data.txt")
    described = data_set(tmp_path, {"a": None})
    with pytest.raises(InputError, match=r"none of its 1 images has labels; expected, for one, .*a\.txt"):
        open_dataset(described)
    with pytest.raises(InputError, match="leave images out"):
        open_dataset(described, images=tmp_path)


def test_classes_are_matched_to_the_model_by_name(tmp_path):
    dataset = open_dataset(data_set(tmp_path, {"a": f"{TRIANGLE}\n1 0 0 1 0 1 1"}))
    fitted = dataset.for_model({0: "Dog ", 1: "fish"})
    assert fitted.names == {0: "Dog ", 1: "fish", 2: "cat"}
    assert truths(fitted)[0].classes.tolist() == [2, 0]
    assert truths(fitted.for_model({5: "cat", 3: "bird"}))[0].classes.tolist() == [5, 6]
    with pytest.raises(InputError, match="none of its 2 classes"):
        dataset.for_model({0: "zebra"})


# COCO


def test_coco_polygons_run_lengths_crowds_and_boxes(tmp_path):
    rng = np.random.default_rng(0)
    mask = rng.random((HEIGHT, WIDTH)) > 0.5
    rows = [
        {"category_id": 7, "segmentation": [[0, 0, 10, 0, 10, 20, 0, 20], [30, 5, 40, 5, 40, 10, 30, 10]]},
        {
            "category_id": 3,
            "iscrowd": 1,
            "segmentation": {"counts": reference.run_lengths(mask), "size": [HEIGHT, WIDTH]},
        },
        {"category_id": 3, "segmentation": [], "bbox": [1, 2, 3, 4]},
    ]
    dataset = open_dataset(coco(tmp_path, rows))
    assert dataset.split is None
    assert dataset.names == {0: "cat", 1: "dog"}
    truth, empty = truths(dataset)
    assert truth.classes.tolist() == [1, 0, 0]
    assert truth.crowd.tolist() == [False, True, False]
    assert truth.box_only.tolist() == [False, False, True]
    assert truth.areas.tolist() == [250, mask.sum(), 0]
    assert truth.boxes[0].tolist() == [0, 0, 40, 20]
    assert truth.boxes[2].tolist() == [1, 2, 4, 6]
    assert np.array_equal(truth.masks()[1], mask)
    assert "annotation 2: a box without a mask" in truth.remarks[0]
    assert len(empty) == 0


def test_coco_compressed_run_lengths(tmp_path):
    from faster_coco_eval.core import mask as mask_api

    mask = np.random.default_rng(1).random((HEIGHT, WIDTH)) > 0.7
    encoded = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    row = {"category_id": 3, "segmentation": {"counts": encoded["counts"].decode(), "size": [HEIGHT, WIDTH]}}
    assert np.array_equal(truths(open_dataset(coco(tmp_path, [row])))[0].masks()[0], mask)


@pytest.mark.parametrize(
    "where", ["instances.json", "val/_annotations.coco.json", "annotations/val.json", "annotations/instances_val.json"]
)
def test_coco_images_are_found_in_the_usual_places(tmp_path, where):
    file = coco(tmp_path, [], where=where)
    assert [sample.name.removeprefix("val/") for sample in open_dataset(file)] == ["a ü.png", "b.png"]
    assert [sample.name for sample in open_dataset(file, images=tmp_path / "val")] == ["a ü.png", "b.png"]
    with pytest.raises(InputError, match="none of its 2 images"):
        open_dataset(file, images=tmp_path / "annotations")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"category_id": 9, "segmentation": []}, "category 9"),
        ({"category_id": 3, "segmentation": [[0, 0, 1, 1]]}, "a polygon has 4 numbers"),
        (
            {"category_id": 3, "segmentation": [[0, 0, 1, 1, 2, float("nan")]]},
            "expected float, got null at segmentation[0][5]",
        ),
        ({"category_id": 3}, "has neither a segmentation nor a bbox"),
        ({"segmentation": []}, "missing required field category_id"),
        ({"category_id": 3, "segmentation": {"counts": [1, 2], "size": [HEIGHT, WIDTH]}}, "adds up to 3"),
        ({"category_id": 3, "segmentation": {"counts": [4], "size": [2, 2]}}, "its mask is 2 x 2"),
    ],
)
def test_coco_mistakes_stop_one_image(tmp_path, row, message):
    bad, good = open_dataset(coco(tmp_path, [row]))
    with pytest.raises(LabelError, match="annotation 0") as raised:
        bad.read()
    assert message in str(raised.value)
    assert len(good.read()[1]) == 0


def test_coco_files_that_are_none(tmp_path):
    file = coco(tmp_path, [])
    with pytest.raises(InputError, match="one split by itself"):
        open_dataset(file, split="val")
    described = json.loads(file.read_text())
    described["images"][0]["height"] = 7
    file.write_text(json.dumps(described))
    with pytest.raises(LabelError, match=r"says that a ü\.png is 60 x 7 pixels; it is 60 x 40"):
        next(iter(open_dataset(file))).read()
    for text, message in (
        ("{", "cannot be read as JSON"),
        ("[]", "expected object, got array"),
        ("{}", "a COCO annotation"),
    ):
        file.write_text(text)
        with pytest.raises(InputError, match=message):
            open_dataset(file)


# Exports of other tools


def export(folder: Path, annotations: list[dict], *, images: list[dict] | None = None, **described: object) -> Path:
    """A COCO json beside images/1.png, as exporters vary it."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "images" / "1.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    tree = {
        "images": images or [{"id": 1, "file_name": "1.png", "height": HEIGHT, "width": WIDTH}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 5, "name": "dog"}],
        "annotations": [{"image_id": 1, "category_id": 5, "iscrowd": 0, **row} for row in annotations],
    }
    (folder / "data.json").write_text(json.dumps(tree | described))
    return folder / "data.json"


SQUARE = [4, 4, 20, 4, 20, 20, 4, 20]
RUNS = {"counts": reference.run_lengths(np.pad(np.ones((16, 16), bool), ((4, 20), (4, 40)))), "size": [HEIGHT, WIDTH]}


@pytest.mark.parametrize(
    "row",
    [
        {"segmentation": [SQUARE]},
        {"segmentation": SQUARE},
        {"segmentation": [[str(value) for value in SQUARE]]},
        {"segmentation": [SQUARE[i : i + 2] for i in range(0, 8, 2)]},
        {"segmentation": [[], SQUARE]},
        {"segmentation": RUNS},
        {"segmentation": [RUNS]},
        {"segmentation": {**RUNS, "counts": [float(run) for run in RUNS["counts"]]}},
        {"segmentation": [SQUARE], "image_id": "1", "category_id": "5", "id": "a"},
        {"segmentation": [SQUARE], "image_id": 1.0, "category_id": 5.0, "id": 2.0},
        {"segmentation": [SQUARE], "image_id": "0001", "iscrowd": "0", "attributes": {"occluded": False}},
    ],
    ids=str,
)
def test_annotations_as_exporters_write_them(tmp_path, row):
    (truth,) = truths(open_dataset(export(tmp_path, [row])))
    assert truth.classes.tolist() == [1]
    expected = np.pad(np.ones((16, 16), bool), ((4, 20), (4, 40)))
    np.testing.assert_array_equal(truth.masks()[0], expected)
    assert not truth.crowd.any()


@pytest.mark.parametrize("ids", [("7", "8"), (7.0, 8.0), ("a-7", "a-8"), ("07", "8"), (2**70, 2**70 + 1)])
def test_ids_of_images_are_compared_by_value(tmp_path, ids):
    images = [{"id": one, "file_name": f"{number}.png"} for number, one in enumerate(ids, 1)]
    file = export(tmp_path, [{"image_id": ids[0], "segmentation": [SQUARE]}], images=images)
    dataset = open_dataset(file)
    assert [len(truth) for truth in truths(dataset)] == [1]
    assert "1 of the 2 images that data.json lists is not there and left out ('2.png')" in dataset.notices[0]


def test_a_file_whose_annotations_belong_to_no_image_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"none of its 2 annotations belongs to an image: their image_id is 41"):
        open_dataset(export(tmp_path, [{"image_id": 41, "segmentation": [SQUARE]}] * 2))
    dataset = open_dataset(export(tmp_path, [{"image_id": 41}, {"segmentation": [SQUARE]}]))
    assert dataset.notices == ("1 annotation of data.json left out: no image of it has their image_id",)


@pytest.mark.parametrize("kind", ["polygon", "box"])
def test_coordinates_divided_by_the_size_are_reported(tmp_path, kind):
    """They would cover no pixel but the first."""
    share = [round(value / 60, 6) for value in SQUARE]
    row = {"segmentation": [share]} if kind == "polygon" else {"bbox": [0.1, 0.1, 0.4, 0.4]}
    (sample,) = open_dataset(export(tmp_path, [row, row]))
    with pytest.raises(LabelError, match=r"all coordinates of 1\.png are between 0 and 1; COCO counts in pixels"):
        sample.read()
    tiny = {"segmentation": [[0, 0, 1, 0, 1, 1]]}
    assert [len(truth) for truth in truths(open_dataset(export(tmp_path, [tiny, {"segmentation": [SQUARE]}])))] == [2]


def test_crowds_are_counted_and_may_be_taken_for_instances(tmp_path):
    crowd = {"segmentation": RUNS, "iscrowd": 1}
    file = export(tmp_path, [crowd, crowd, {"segmentation": [SQUARE]}, {"bbox": [1, 2, 3, 4], "iscrowd": 1}])
    dataset = open_dataset(file)
    assert dataset.notices[0].startswith("2 of 3 masks in data.json are crowds (iscrowd: 1), which COCO")
    assert "CVAT marks every brush mask so" in dataset.notices[0]
    assert not dataset.nothing_counts
    assert truths(dataset)[0].crowd.tolist() == [True, True, False, True]
    counted = open_dataset(file, crowds="as-instances")
    assert not truths(counted)[0].crowd.any()
    assert counted.notices == ("2 of 3 masks in data.json are crowds (iscrowd: 1), counted as single objects",)
    assert open_dataset(export(tmp_path, [crowd])).nothing_counts
    with pytest.raises(InputError, match="crowds is 'all'; expected one of 'left-out', 'as-instances'"):
        open_dataset(file, crowds="all")


@pytest.mark.parametrize(
    "name",
    [
        "images\\1.png",
        ".\\images\\1.png",
        "C:\\Users\\me\\project\\images\\1.png",
        "/home/somebody/project/images/1.png",
        "../project/images/1.png",
        "upload/deep/1.png",
        "1.PNG",
    ],
)
def test_images_are_found_by_the_last_parts_of_their_names(tmp_path, name):
    file = export(tmp_path, [{"segmentation": [SQUARE]}], images=[{"id": 1, "file_name": name}])
    (sample,) = open_dataset(file)
    assert len(sample.read()[1]) == 1
    (sample,) = open_dataset(file, images=tmp_path / "images")
    assert len(sample.read()[1]) == 1


def test_images_in_subfolders_are_found_unless_two_have_the_name(tmp_path):
    file = export(tmp_path, [{"segmentation": [SQUARE]}], images=[{"id": 1, "file_name": "b.png"}])
    for split in ("train", "val"):
        (tmp_path / "images" / split).mkdir()
    picture = (tmp_path / "images" / "1.png").read_bytes()
    (tmp_path / "images" / "train" / "b.png").write_bytes(picture)
    assert [sample.name for sample in open_dataset(file)] == ["train/b.png"]
    (tmp_path / "images" / "val" / "b.png").write_bytes(picture)
    with pytest.raises(InputError, match=r"none of its 1 images is there; looked for 'b\.png'.*say where they are"):
        open_dataset(file)
    file = export(tmp_path, [], images=[{"id": n, "file_name": f"{n}/b.png"} for n in range(2)])
    (tmp_path / "images" / "b.png").write_bytes(picture)  # of which of the two?
    with pytest.raises(InputError, match="none of its 2 images is there"):
        open_dataset(file, images=tmp_path / "images")


def test_only_some_of_the_images_are_there(tmp_path):
    images = [{"id": n, "file_name": f"{n}.png"} for n in range(4)]
    dataset = open_dataset(export(tmp_path, [{"segmentation": [SQUARE]}], images=images))
    assert [sample.name for sample in dataset] == ["1.png"]
    assert len(truths(dataset)[0]) == 1
    assert dataset.notices == (
        "3 of the 4 images that data.json lists are not there and left out (the first: '0.png')",
    )


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_descriptions_and_labels_in_the_encodings_of_windows(tmp_path, encoding):
    described = data_set(tmp_path, {"a": TRIANGLE.encode(encoding)}, names=["Köter", "猫"])
    described.write_bytes(described.read_text(encoding="utf-8").encode(encoding))
    assert truths(open_dataset(described))[0].name_of(0) == "Köter"
    file = export(tmp_path / "coco", [{"segmentation": [SQUARE]}])
    file.write_bytes(file.read_text(encoding="utf-8").encode(encoding))
    assert len(truths(open_dataset(file))[0]) == 1


@pytest.mark.parametrize(
    ("keys", "split"),
    [
        ({"train": "images/val", "validation": "images/val"}, "val"),
        ({"train": "images/val", "valid": "images/val"}, "val"),
        ({"train": "images/val", "val": None, "valid": ["images/val"]}, "val"),
        ({"val": "images\\val"}, "val"),
        ({"val": ".\\images\\val\\"}, "val"),
        ({"val": "C:\\data\\set\\images\\val"}, "val"),
        ({"val": "/content/set/images/val", "path": "/content/set"}, "val"),
        ({"test": "D:/set/images/val", "path": "D:/set", "val": None}, "test"),
    ],
)
def test_splits_under_other_names_and_paths_of_other_machines(tmp_path, keys, split):
    described = data_set(tmp_path, {"a": TRIANGLE})
    described.write_text(yaml.safe_dump({"names": ["cat"], **keys}))
    dataset = open_dataset(described)
    assert dataset.split == split
    assert [len(truth) for truth in truths(dataset)] == [1]
    shorter = str(keys.get("val") or keys.get("test")).startswith(("C:", "/content", "D:"))
    assert len(dataset.notices) == shorter
    if shorter:
        assert "which is not there; taken are those in" in dataset.notices[0]


def test_a_last_part_that_says_nothing_is_not_enough(tmp_path):
    """images/ holds every split: it must not be taken for the validation images of another machine."""
    described = data_set(tmp_path, {"a": TRIANGLE})
    described.write_text("val: /content/valid/images\nnames: [cat]\n")
    with pytest.raises(InputError, match=r"its images are not there; looked for .*valid/images.* last parts"):
        open_dataset(described)


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("val.txt", "data/images/val/a.png"),
        ("lists/val.txt", "images/val/a.png"),
        ("val.txt", ".\\images\\val\\a.png"),
        ("val.txt", "C:\\Users\\me\\images\\val\\a.png"),
        ("val.txt", "/home/me/images/val/a.png"),
    ],
)
def test_lists_of_images_from_elsewhere(tmp_path, where, line):
    described = data_set(tmp_path, {"a": TRIANGLE})
    (tmp_path / "lists").mkdir()
    (tmp_path / where).write_text(f"{line}\nimages/val/gone.png\n")
    described.write_text(f"val: {where}\nnames: [cat]\n")
    dataset = open_dataset(described)
    assert [(sample.name, len(sample.read()[1])) for sample in dataset] == [("images/val/a.png", 1)]
    assert "1 of the 2 images that val.txt lists is not there" in dataset.notices[0]
    (tmp_path / where).write_text("somewhere/else/b.png\n")
    with pytest.raises(
        InputError, match=r"none of the 1 images that val\.txt lists is there; looked for .*else/b\.png"
    ):
        open_dataset(described)


@pytest.mark.parametrize("names", [["a", "b"], ["a", "b", "c", "d"], {0: "a"}])
def test_another_number_of_classes_than_of_names_is_refused(tmp_path, names):
    with pytest.raises(InputError, match=rf"nc is 3, and names has {len(names)} class name"):
        open_dataset(data_set(tmp_path, {"a": TRIANGLE}, names=names, nc=3))
    assert len(open_dataset(data_set(tmp_path / "right", {"a": TRIANGLE}, nc="2"))) == 1


def test_repeated_class_names_are_matched_in_their_order(tmp_path):
    names = ["facade", "fence", "car", "facade"]
    described = data_set(tmp_path, {"a": TRIANGLE.replace("0", "3", 1)}, names=names)
    dataset = open_dataset(described)
    same = dataset.for_model(dict(enumerate(names)))
    assert same.class_ids == {0: 0, 1: 1, 2: 2, 3: 3}
    assert same.notices == ()
    assert truths(same)[0].classes.tolist() == [3]
    longer = dataset.for_model(dict(enumerate(["dog", *names])))
    assert longer.class_ids == {0: 1, 1: 2, 2: 3, 3: 4}
    assert "the class name 'facade' occurs 2 times in data.yaml and 2 times in the model" in longer.notices[0]
    fewer = dataset.for_model({0: "fence", 1: "car", 2: "Facade"})
    assert fewer.class_ids == {0: 2, 1: 0, 2: 1, 3: 2}
    assert "2 times in data.yaml and 1 time in the model: class 2 of the model is taken for it" in fewer.notices[0]
    file = export(tmp_path / "coco", [{"category_id": 9, "segmentation": [SQUARE]}])
    tree = json.loads(file.read_text())
    tree["categories"] = [{"id": n * 3, "name": name} for n, name in enumerate(names)]
    file.write_text(json.dumps(tree))
    assert open_dataset(file).for_model(dict(enumerate(names))).class_ids == {0: 0, 3: 1, 6: 2, 9: 3}


def test_real_labels(real_data):
    dataset = open_dataset(real_data / "datasets" / "coco128-seg")
    found = truths(dataset)
    assert len(found) == 128
    assert sum(map(len, found)) == 929
    assert not any(truth.remarks for truth in found)
    assert not any(truth.box_only.any() for truth in found)
