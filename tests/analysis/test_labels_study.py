"""Labels of drawn scenes, measured and judged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from helpers import small_datasets
from maskprism import load
from maskprism.analysis.labels.features import MIN_SCORE, ImageEvidence, as_matrix, label_features
from maskprism.analysis.labels.held_out import compare_splits, judged_by_folds, shared_images
from maskprism.analysis.labels.study import (
    LabelReport,
    LabelStudy,
    MeasuredImage,
    MeasuredLabel,
    Measuring,
    _suggested_detection,
)
from maskprism.analysis.truth.overlaps import Region
from maskprism.core.geometry import Letterbox
from maskprism.datasets import GroundTruth, open_dataset
from maskprism.datasets.coco import RunLengths, bitmap_of
from maskprism.datasets.scenes import draw_scene
from maskprism.datasets.visit import VisitedImage, look_at
from maskprism.errors import InputError
from maskprism.io.sources import SourceImage

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
pytestmark = pytest.mark.study
IMAGES = 24
WRONG_ONE_IN = 6


@pytest.fixture(scope="module")
def visited() -> list[VisitedImage]:
    """Drawn scenes with their ground truth, and what the bundled model says."""
    model = load("sample", conf=MIN_SCORE, threads=1)
    scenes = [draw_scene(seed) for seed in range(700, 700 + IMAGES)]
    items = [SourceImage(f"{number}.png", scene.image) for number, scene in enumerate(scenes)]
    results = look_at(items, model, lambda image: image)
    truths = [GroundTruth.of_masks(scene.masks, scene.classes.tolist()) for scene in scenes]
    return [
        result._replace(number=number, truth=replace(truth, label_ids=tuple(range(len(truth)))))
        for number, (result, truth) in enumerate(zip(results, truths, strict=True))
    ]


def mistaken(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A mask as a careless annotator leaves it; not by the code that is tested."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = len(rows), len(columns)
    wrong = np.zeros_like(mask)
    match rng.integers(4):
        case 0:
            wrong = np.roll(mask, (height // 4 + 1, width // 4 + 1), axis=(0, 1))
        case 1:
            wrong[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] = True
        case 2:
            wrong[: rows[height // 2]] = mask[: rows[height // 2]]
        case 3:
            size = max(3, (height + width) // 6)
            wrong = cv2.dilate(mask.astype(np.uint8), np.ones((size, size), np.uint8)) > 0
    return wrong


@pytest.fixture(scope="module")
def judged(visited: list[VisitedImage]) -> tuple[LabelReport, set[tuple[str, int]]]:
    """All labels judged, one in six of them wrong; and which these are."""
    rng = np.random.default_rng(5)
    study, wrong = LabelStudy(visited[0].truth.names), set()
    measuring = Measuring(range(10))
    for image in visited:
        masks = image.truth.masks()
        for index in np.flatnonzero(rng.random(len(masks)) < 1 / WRONG_ONE_IN):
            masks[index] = mistaken(masks[index], rng)
            wrong.add((image.name, int(index)))
        truth = GroundTruth.of_masks(masks, image.truth.classes.tolist())  # numbers its labels from 0
        study.update(measuring(image._replace(truth=truth)))
    return study.compute(), wrong


def test_wrong_labels_are_found(judged: tuple[LabelReport, set[tuple[str, int]]]) -> None:
    report, wrong = judged
    rows = [row for row in report.rows if row.label_id is not None]
    is_wrong = np.array([(row.image, row.label_id) in wrong for row in rows])
    suspicion = np.array([row.suspicion for row in rows])
    assert len(wrong) > 20
    pairs = suspicion[is_wrong][:, None] - suspicion[~is_wrong][None]
    assert ((pairs > 0) + 0.5 * (pairs == 0)).mean() > 0.9
    assert is_wrong[: len(wrong) // 2].mean() > 0.6  # the most suspicious come first
    for row in rows:
        assert (row.kind != "") == (row.suspicion >= 0.5) == bool(row.reason)
        assert (row.suggestion is None) or row.suspicion >= 0.5
        assert row.kind != "wrong class" or row.suggested_class is not None


def test_every_label_is_judged_once(
    judged: tuple[LabelReport, set[tuple[str, int]]], visited: list[VisitedImage]
) -> None:
    report, _ = judged
    expected = [(image.name, label) for image in visited for label in image.truth.label_ids]
    rows = [(row.image, row.label_id) for row in report.rows if row.label_id is not None]
    assert sorted(rows) == sorted(expected)
    assert report.n_labels == len(expected)
    assert report.n_images == IMAGES


def test_the_features_have_the_same_names_and_are_numbers(
    judged: tuple[LabelReport, set[tuple[str, int]]],
) -> None:
    measured = [row.features for row in judged[0].rows if row.label_id is not None]
    assert len({tuple(row) for row in measured}) == 1
    names, matrix = as_matrix(measured)
    assert matrix.shape == (len(measured), len(names))
    assert not np.isinf(matrix).any()
    assert np.isfinite(matrix[:, [names.index(name) for name in ("mask_iou", "span_iou", "log_area")]]).all()


def regions_of(image: VisitedImage) -> list[Region]:
    """The labels on the letterboxed input."""
    return [Region.of(mask) for mask in image.truth.masks("canvas", image.prediction.letterbox)]


def test_measuring_does_not_depend_on_the_order_of_prototypes(visited: list[VisitedImage]) -> None:
    image, rng = visited[1], np.random.default_rng(0)
    prediction = image.prediction
    order = rng.permutation(len(prediction.prototypes))
    other = replace(prediction, prototypes=prediction.prototypes[order], coefficients=prediction.coefficients[:, order])
    labels = regions_of(image)
    for place, label in enumerate(labels):
        beside = [one for index, one in enumerate(labels) if index != place]
        first, second = (
            label_features(ImageEvidence(one, image.image), label, int(image.truth.classes[place]), beside)
            for one in (prediction, other)
        )
        np.testing.assert_allclose(list(first.values()), list(second.values()), rtol=0.02, atol=0.02)


def test_measuring_does_not_depend_on_the_size_of_the_image(visited: list[VisitedImage]) -> None:
    """Detections, boxes and labels are compared on the letterboxed input."""
    image = visited[1]
    before = image.prediction.letterbox
    height, width = before.image_hw
    letterbox = Letterbox(
        (3 * height, 3 * width), before.canvas_hw, before.content_hw, before.offset_yx, before.grid_hw
    )
    large = cv2.resize(image.image, (3 * width, 3 * height), interpolation=cv2.INTER_NEAREST)
    for place, label in enumerate(regions_of(image)):
        first, second = (
            label_features(ImageEvidence(prediction, pixels), label, int(image.truth.classes[place]), [])
            for prediction, pixels in (
                (image.prediction, image.image),
                (replace(image.prediction, letterbox=letterbox), large),
            )
        )
        assert first["box_iou"] > 0.3 or first["mask_iou"] < 0.3
        np.testing.assert_allclose(list(first.values()), list(second.values()), rtol=0.02, atol=0.02)


def test_edges_of_prototypes_lie_on_the_outline_of_a_right_label(visited: list[VisitedImage]) -> None:
    """With one prototype that is the label itself."""
    image = visited[0]
    letterbox = image.prediction.letterbox
    label = max(regions_of(image), key=lambda region: region.area)
    canvas = np.zeros(letterbox.canvas_hw, dtype=np.float32)
    canvas[label.rows, label.columns] = label.inside
    prototypes = np.zeros_like(image.prediction.prototypes)
    prototypes[0] = cv2.resize(canvas, prototypes.shape[:0:-1], interpolation=cv2.INTER_AREA)
    evidence = ImageEvidence(replace(image.prediction, prototypes=prototypes), image.image)
    large = Region.of(cv2.dilate(canvas, np.ones((31, 31))) > 0)
    small = Region.of(cv2.erode(canvas, np.ones((17, 17))) > 0)
    right, too_large, too_small = (label_features(evidence, one, 0, []) for one in (label, large, small))
    assert right["prototype_edge_peak"] == 1
    assert right["span_iou"] > 0.97
    for wrong in (too_large, too_small):
        assert wrong["prototype_edge_peak"] < 0.7
        assert wrong["span_loss"] > 2 * right["span_loss"]
    assert too_large["prototype_edge_inside"] > 1 > right["prototype_edge_inside"]


def test_the_label_that_a_label_doubles_is_known(visited: list[VisitedImage]) -> None:
    truth = visited[3].truth
    masks, classes = truth.masks(), truth.classes.tolist()
    doubled = GroundTruth.of_masks(np.concatenate([masks, np.roll(masks[:1], 1, axis=2)]), [*classes, classes[0] + 1])
    labels = Measuring(range(10))(visited[3]._replace(truth=doubled)).labels
    assert labels[0].twin == (len(masks), classes[0] + 1)
    assert labels[-1].twin == (0, classes[0])
    assert all(label.twin is None for label in labels[1:-1])


def bitmap(rle: Any) -> np.ndarray:
    return bitmap_of(RunLengths(tuple(rle["size"]), rle["counts"]), tuple(rle["size"]))


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def measured_with(image: VisitedImage, masks: np.ndarray) -> list[MeasuredLabel]:
    truth = GroundTruth.of_masks(masks, image.truth.classes.tolist())
    return list(Measuring(range(10), learned_share=0)(image._replace(truth=truth)).labels)


def test_the_detection_of_a_label_that_is_cut_off_is_suggested(visited: list[VisitedImage]) -> None:
    n_cut = 0
    for image in visited[:6]:
        whole = image.truth.masks()
        for index, before in enumerate(measured_with(image, whole)):
            if before.features["mask_iou_of_class"] < 0.8:
                continue
            columns = np.flatnonzero(whole[index].any(axis=0))
            masks = whole.copy()
            masks[index, :, columns[len(columns) // 3] :] = False
            label = measured_with(image, masks)[index]
            if label.features["mask_iou"] <= 0.1:
                continue
            n_cut += 1
            assert label.suggested_by == "prediction"
            assert iou(bitmap(label.suggestion), whole[index]) > 0.75
    assert n_cut > 5


def test_the_object_of_another_label_is_not_suggested(visited: list[VisitedImage]) -> None:
    overlap, claimed = np.array([0.45, 0.2, 0.6]), np.array([0.9, 0.0, 0.1])
    of_class = np.array([True, True, False])
    assert _suggested_detection(overlap, claimed, of_class) == 1
    assert _suggested_detection(overlap, claimed, ~of_class) == 2
    assert _suggested_detection(overlap, claimed, np.zeros(3, dtype=bool)) == 2
    assert _suggested_detection(overlap, np.ones(3), of_class) == -1
    assert _suggested_detection(np.zeros(0), np.zeros(0), np.zeros(0, dtype=bool)) == -1


def test_holes_are_filled_and_labels_within_a_label_are_taken_out_of_it(visited: list[VisitedImage]) -> None:
    image = visited[0]
    whole = image.truth.masks()
    first, second = np.argsort(-whole.sum(axis=(1, 2)))[:2]
    masks = whole.copy()
    rows, columns = (np.flatnonzero(masks[first].any(axis=axis)) for axis in (1, 0))
    middle = (slice(*rows[len(rows) // 2 - 2 :][[0, 5]]), slice(*columns[len(columns) // 2 - 2 :][[0, 5]]))
    masks[(first, *middle)] = False
    with_hole = measured_with(image, masks)[first]
    assert (bitmap(with_hole.corrections["hole"]) == whole[first]).all()
    masks = whole.copy()
    masks[first] |= masks[second]
    merged = measured_with(image, masks)
    assert (bitmap(merged[first].corrections["merged"]) == (whole[first] & ~whole[second])).all()
    assert merged[second].corrections == measured_with(image, whole)[second].corrections


def test_a_hole_is_suggested_to_be_filled() -> None:
    names = ("label_iou", "span_iou", "corners", "fill", "detections_inside", "centre_distance", "log_area_ratio")
    right = {**dict.fromkeys(names, 0.2), "mask_iou": 0.9, "hole_share": 0.0}
    wrong = right | {"mask_iou": 0.3, "hole_share": 0.3}
    copies = [("hole", wrong), ("too large", wrong | {"hole_share": 0.0})]
    filled, predicted = {"size": [1, 1], "counts": "01"}, {"size": [1, 1], "counts": "1"}
    label = MeasuredLabel(0, 0, (0, 0, 1, 1), features=right, copies=copies, suggestion=predicted)
    label = label._replace(suggested_by="prediction", corrections={"hole": filled})
    study = LabelStudy({0: "cat"})
    for number in range(60):
        given = label if number else label._replace(features=wrong)
        study.update(MeasuredImage(f"{number}.png", [given], [], []))
    worst = study.compute().rows[0]
    assert (worst.image, worst.kind) == ("0.png", "hole")
    assert (worst.suggestion, worst.suggested_by, worst.prediction) == (filled, "labels", predicted)


def test_measuring_is_the_same_each_time(visited: list[VisitedImage]) -> None:
    measuring = Measuring(range(10), seed=3)
    first, again = measuring(visited[2]), measuring(visited[2])
    assert repr(first) == repr(again)  # NaN is not equal to NaN
    assert repr(replace(measuring, seed=4)(visited[2])) != repr(first)
    assert all(not label.copies for label in Measuring(range(10), learned_share=0)(visited[2]).labels)
    assert all(1 <= len(label.copies) <= 3 for label in first.labels)


def study_of(data: Path, **options: str) -> LabelReport:
    """The labels of a data set, judged with the bundled model without its class names."""
    model = load("sample", conf=MIN_SCORE, threads=1)
    dataset = open_dataset(data, **options)
    study = LabelStudy(dataset.names)
    for result in look_at(list(dataset), model, Measuring(sorted(set(dataset.class_ids.values())))):
        assert isinstance(result, MeasuredImage), result
        study.update(result)
    return study.compute()


def test_no_line_of_a_label_file_is_skipped(tmp_path: Path) -> None:
    ring = "1 0.3 0.3 0.7 0.3 0.7 0.7 0.3 0.7 0.3 0.3 0.4 0.4 0.4 0.6 0.6 0.6 0.6 0.4 0.4 0.4"
    lines = [
        small_datasets.TRIANGLE,
        "",
        "0 0.5 0.5 0.2 0.2",  # a box
        small_datasets.TRIANGLE,  # a repeated line
        "1 0.5 0.5 0.501 0.5 0.501 0.501",  # one pixel
        ring,
    ]
    report = study_of(small_datasets.data_set(tmp_path, {"a": "\n".join(lines), "empty": "", "none": None}))
    rows = {row.label_id: row for row in report.rows if row.label_id is not None}
    assert sorted(rows) == [0, 2, 3, 4, 5]
    assert len(report.rows) == 5
    assert report.n_images == 3
    assert rows[2].kind == "no mask"
    assert np.isnan(rows[2].suspicion)
    assert (rows[3].kind, rows[3].suspicion) == ("duplicate", 1.0)
    assert rows[3].reason == "It repeats label 0 (cat) of this image word for word."
    assert rows[5].features["hole_share"] > 0.1
    assert report.suspicion.score == "1 - mask IoU"
    assert not report.suspicion.calibrated


def test_no_annotation_of_a_coco_json_is_skipped(tmp_path: Path) -> None:
    square = [[5, 5, 30, 5, 30, 30, 5, 30]]
    runs = {"size": [small_datasets.HEIGHT, small_datasets.WIDTH], "counts": [100, 60, 2240]}
    annotations = [
        {"id": 70, "category_id": 7, "segmentation": square, "bbox": [5, 5, 25, 25]},
        {"id": 71, "category_id": 3, "segmentation": runs, "bbox": [0, 0, 40, 40], "iscrowd": 1},
        {"id": 72, "category_id": 3, "segmentation": [], "bbox": [1, 1, 8, 8]},
        {"id": 73, "category_id": 3, "segmentation": [[1, 1, 2, 1, 2, 2]], "bbox": [1, 1, 1, 1]},
        {"id": 74, "category_id": 3, "segmentation": square, "bbox": [5, 5, 25, 25], "image_id": 20},
    ]
    report = study_of(small_datasets.coco(tmp_path, annotations))
    assert sorted(row.label_id for row in report.rows if row.label_id is not None) == [70, 71, 72, 73, 74]
    kinds = {row.label_id: row.kind for row in report.rows}
    assert (kinds[71], kinds[72]) == ("crowd", "no mask")
    json.dumps([row.reason for row in report.rows])


def test_labels_without_any_mask_are_refused(tmp_path: Path) -> None:
    data = small_datasets.data_set(tmp_path, {"a": "0 0.5 0.5 0.2 0.2", "b": ""})
    with pytest.raises(InputError, match="no label with a mask in 2 images"):
        study_of(data)


def images_with(ious: list[float]) -> list[MeasuredImage]:
    """One label on each image."""
    return [
        MeasuredImage(str(n), [MeasuredLabel(0, 0, (0, 0, 1, 1), features={"mask_iou": iou})], [], [])
        for n, iou in enumerate(ious)
    ]


def test_remembered_labels_are_noticed() -> None:
    rng = np.random.default_rng(0)
    high, low = (rng.normal(mean, 0.1, 30).clip(0, 1).tolist() for mean in (0.8, 0.5))
    found = compare_splits("train", images_with(high), "val", images_with(low))
    assert found.remembered
    assert found.mask_iou.mean == pytest.approx(np.mean(high) - np.mean(low))
    assert found.recall.mean == pytest.approx(np.mean(np.array(high) >= 0.5) - np.mean(np.array(low) >= 0.5))
    assert compare_splits("train", images_with(low), "val", images_with(high)).remembered is False
    assert compare_splits("train", images_with(high[:5]), "val", images_with(low)).remembered is None
    nothing = [MeasuredImage("x", [MeasuredLabel(0, 0, (0, 0, 1, 1), "crowd")], [], [])]
    assert compare_splits("train", images_with(high), "val", nothing).remembered is None


def test_each_fold_judges_the_images_that_it_holds_out(tmp_path: Path) -> None:
    data = small_datasets.data_set(tmp_path, dict.fromkeys(("a", "b", "c", "d"), small_datasets.TRIANGLE))
    dataset = open_dataset(data)
    folds = [dataset.take([2, 0]), dataset.take([3])]
    assert judged_by_folds(dataset, folds) == [[0, 2], [3]]
    with pytest.raises(InputError, match="folds must not share images"):
        judged_by_folds(dataset, [dataset.take([0]), dataset.take([0, 1])])
    with pytest.raises(InputError, match="none of its 1 held-out images is one of the 2"):
        judged_by_folds(dataset.take([0, 1]), [dataset.take([0]), dataset.take([3])])


def test_images_of_two_splits_are_recognised(tmp_path: Path) -> None:
    data = small_datasets.data_set(tmp_path, dict.fromkeys(("a", "b", "c"), ""))
    images = tmp_path / "images"
    rng = np.random.default_rng(0)
    for stem in "abc":
        cv2.imwrite(str(images / "val" / f"{stem}.png"), rng.integers(0, 255, (20, 20, 3), dtype=np.uint8))
    (images / "train").mkdir()
    (images / "train" / "copy.png").write_bytes((images / "val" / "b.png").read_bytes())
    other = (images / "val" / "c.png").read_bytes()
    (images / "train" / "same_size.png").write_bytes(other[:-1] + bytes([other[-1] ^ 1]))
    (tmp_path / "train.txt").write_text(f"{images}/train/same_size.png\n{images}/train/copy.png\n{images}/val/a.png\n")
    data.write_text(f"val: images/val\ntrain: {tmp_path}/train.txt\nnames: [cat, dog]\n")
    val, train = open_dataset(data, "val"), open_dataset(data, "train")
    names = [path.name for path in train.images.paths]
    same = [(one.position, names[one.other]) for one in shared_images(val, train) if one.how == "the same file"]
    assert [place for place, _ in same] == [0, 1]
    backwards = [one.position for one in shared_images(train, val) if one.how == "the same file"]
    assert backwards == sorted(map(names.index, ("a.png", "copy.png")))
    assert [one for one in shared_images(val.take([2]), train) if one.how == "the same file"] == []


def test_nearly_identical_pictures_are_recognised(tmp_path: Path) -> None:
    pytest.importorskip("imagehash", reason="ImageHash is not installed")
    for split in ("val", "train"):
        (tmp_path / "images" / split).mkdir(parents=True)
        (tmp_path / "labels" / split).mkdir(parents=True)
    first, second, other = (draw_scene(seed).image for seed in (1, 2, 3))
    cv2.imwrite(str(tmp_path / "images/train/first.png"), first)
    cv2.imwrite(str(tmp_path / "images/train/second.png"), second)
    (tmp_path / "images/train/third.png").write_bytes(b"no image")
    bright = np.clip(first * 1.1, 0, 255).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "images/val/a.jpg"), cv2.resize(bright, (200, 200)), [cv2.IMWRITE_JPEG_QUALITY, 70])
    cv2.imwrite(str(tmp_path / "images/val/b.png"), second[:, ::-1])
    cv2.imwrite(str(tmp_path / "images/val/c.png"), other)
    for split in ("val", "train"):
        for image in (tmp_path / "images" / split).iterdir():
            (tmp_path / "labels" / split / f"{image.stem}.txt").write_text(small_datasets.TRIANGLE)
    (tmp_path / "data.yaml").write_text("val: images/val\ntrain: images/train\nnames: [cat]\n")
    val, train = (open_dataset(tmp_path / "data.yaml", split) for split in ("val", "train"))
    (twin,) = shared_images(val, train)
    assert twin.how == "nearly the same picture"
    assert val.images.paths[twin.position].name == "a.jpg"
    assert train.images.paths[twin.other].name == "first.png"
    assert shared_images(train, val) == [twin.swapped()]
