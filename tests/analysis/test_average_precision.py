"""Average precision: against pycocotools on masks, and against a slow twin on overlaps."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from helpers import reference_ap
from helpers.overlap_cases import images_of_masks, overlaps, some_masks
from helpers.strategies import predictions, seeds
from maskprism import Letterbox, Prediction
from maskprism.analysis.dataset.coco_ap import average_precision, class_precision_at
from maskprism.analysis.truth.overlaps import Overlaps, Region, box_overlap, mask_iou, mask_overlaps
from maskprism.core.masks import RULES
from maskprism.datasets.scenes import draw_scene
from maskprism.errors import InputError


def by_pycocotools(images: list[tuple], kind: str) -> dict[str, float]:
    truth, detections = COCO(), []
    truth.dataset = {"images": [], "annotations": [], "categories": [{"id": c} for c in range(3)], "info": {}}
    for number, ((true, true_classes, crowd), (found, classes, scores)) in enumerate(images):
        truth.dataset["images"].append({"id": number, "height": 160, "width": 160})
        for mask, class_id, many in zip(true, true_classes, crowd, strict=True):
            encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            truth.dataset["annotations"].append(
                {
                    "id": len(truth.dataset["annotations"]) + 1,
                    "image_id": number,
                    "category_id": int(class_id),
                    "segmentation": encoded,
                    "bbox": rle.toBbox(encoded).tolist(),
                    "area": float(mask.sum()),
                    "iscrowd": int(many),
                }
            )
        for mask, class_id, score in zip(found, classes, scores, strict=True):
            encoded = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
            detections.append(
                {
                    "image_id": number,
                    "category_id": int(class_id),
                    "score": float(score),
                    "segmentation": encoded,
                }
                | ({"bbox": rle.toBbox(encoded).tolist()} if kind == "bbox" else {})
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ("ap", "ap50", "ap75", "small", "medium", "large", "ar1", "ar10", "recall")
    return {
        name: float("nan") if value < 0 else float(value) for name, value in zip(names, evaluation.stats, strict=False)
    }


def corners(masks: np.ndarray) -> np.ndarray:
    regions = [Region.of(mask) for mask in masks]
    return np.array([(r.columns.start, r.rows.start, r.columns.stop, r.rows.stop) for r in regions]).reshape(-1, 4)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_equals_pycocotools(seed: int, kind: str) -> None:
    images = images_of_masks(np.random.default_rng(seed))
    ours = []
    for (true, true_classes, crowd), (found, classes, scores) in images:
        if kind == "segm":
            iou = mask_iou([Region.of(mask) for mask in found], [Region.of(mask) for mask in true], crowd)
            areas = found.sum(axis=(1, 2))
        else:
            iou = box_overlap(corners(found), corners(true), crowd)
            areas = np.prod(corners(found)[:, 2:] - corners(found)[:, :2], axis=1)
        ours.append(Overlaps(scores, classes, true_classes, iou, areas, true.sum(axis=(1, 2)), crowd))
    expected = by_pycocotools(images, kind)
    result = average_precision(ours)
    found_here = {"ap": result.ap, "ap50": result.ap50, "ap75": result.ap75, "recall": result.recall, **result.by_size}
    assert found_here == pytest.approx({name: expected[name] for name in found_here}, abs=1e-12, nan_ok=True)
    assert 0.05 < result.ap < 0.95


@settings(max_examples=60)
@given(st.lists(overlaps(), max_size=4), st.sampled_from([0.5, 0.75, 0.9]))
def test_equals_the_slow_twin(images: list[Overlaps], threshold: float) -> None:
    # Images have scores of their own, so that no two detections tie.
    images = [
        Overlaps(p.scores + 0.01 * i, p.classes, p.true_classes, p.iou, crowd=p.crowd) for i, p in enumerate(images)
    ]
    by_class = list(class_precision_at(images, threshold).values())
    found = np.mean(by_class) if by_class else np.nan
    assert found == pytest.approx(reference_ap.average_precision(images, threshold), abs=1e-9, nan_ok=True)


def test_perfect_and_absent_detections() -> None:
    truth = np.array([0, 1, 1])
    perfect = Overlaps(np.ones(3), truth, truth, np.eye(3))
    assert average_precision([perfect]).ap == average_precision([perfect]).ap50 == 1
    nothing = Overlaps(np.zeros(0), np.zeros(0, dtype=int), truth, np.zeros((0, 3)))
    result = average_precision([perfect, nothing])
    assert result.ap == pytest.approx(51 / 101)  # half of them found: precision 1 up to a recall of .5
    assert {class_id: one.objects for class_id, one in result.by_class.items()} == {0: 2, 1: 4}
    assert np.isnan(average_precision([]).ap)
    assert class_precision_at([], 0.5) == {}


@pytest.mark.parametrize(("rank", "counts"), [(100, True), (101, False)])
def test_of_one_class_in_an_image_a_hundred_detections_count(rank: int, counts: bool) -> None:
    iou = np.zeros((150, 1))
    iou[rank - 1] = 1
    one = Overlaps(np.linspace(0.9, 0.1, 150), np.zeros(150, dtype=int), np.zeros(1, dtype=int), iou)
    assert (average_precision([one]).ap > 0) == (class_precision_at([one], 0.5)[0] > 0) == counts


def test_a_wrong_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"iou has shape \(2, 1\); expected \(1, 2\)"):
        Overlaps(np.ones(1), np.zeros(1, dtype=int), np.zeros(2, dtype=int), np.zeros((2, 1)))


@settings(max_examples=40)
@given(seeds)
def test_overlaps_of_masks(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found, true = some_masks(rng, 3, 12), some_masks(rng, 4, 12)
    crowd = rng.random(4) < 0.3
    expected = [[reference_ap.iou(a, b, many) for b, many in zip(true, crowd, strict=True)] for a in found]
    regions = [Region.of(mask) for mask in found]
    np.testing.assert_allclose(mask_iou(regions, [Region.of(mask) for mask in true], crowd), expected)
    for mask, region in zip(found, regions, strict=True):
        whole = np.zeros_like(mask)
        whole[region.rows, region.columns] = region.inside
        np.testing.assert_array_equal(whole, mask)


@settings(max_examples=80)
@given(st.data(), st.sampled_from(["grid", "canvas", "image"]), st.sampled_from(["ultralytics", "yolact", "no-crop"]))
def test_only_what_cannot_count_is_left_out(data: st.DataObject, size: str, rule: str) -> None:
    prediction = data.draw(predictions(rule=RULES[rule]))
    rng = np.random.default_rng(data.draw(seeds))
    true = rng.random((3, *prediction.letterbox.size_hw(size))) < rng.random((3, 1, 1))
    regions, classes = [Region.of(mask) for mask in true], np.array([0, 1, 1])
    exact = mask_overlaps(prediction, regions, classes, size).iou
    expected = [[reference_ap.iou(a, b) for b in true] for a in prediction.masks(size)]
    np.testing.assert_allclose(exact, np.array(expected).reshape(exact.shape))
    quick = mask_overlaps(prediction, regions, classes, size, least=0.3, same_class=True).iou
    same = prediction.classes[:, None] == classes
    np.testing.assert_array_equal(quick[same & (exact >= 0.3)], exact[same & (exact >= 0.3)])
    assert ((quick == exact) | (quick == 0)).all()


def test_a_small_detection_in_a_large_crowd_counts_as_a_whole() -> None:
    prediction = Prediction(
        canvas_boxes=np.array([[8, 8, 16, 16], [48, 8, 56, 16]], dtype=np.float32),
        scores=np.array([0.9, 0.8], dtype=np.float32),
        classes=np.zeros(2, dtype=np.int64),
        coefficients=np.ones((2, 1), dtype=np.float32),
        prototypes=np.ones((1, 16, 16), dtype=np.float32),
        letterbox=Letterbox.fit((64, 64), (64, 64)),
        rule=RULES["ultralytics"],
    )
    half = np.zeros((64, 64), dtype=bool)
    half[:, :32] = True
    for crowd, expected in ((True, [[1], [0]]), (False, [[0], [0]])):  # an IoU of 1/32 is less than the least
        found = mask_overlaps(
            prediction, [Region.of(half)], np.zeros(1, dtype=int), "canvas", crowd=np.array([crowd]), least=0.3
        )
        assert found.iou.tolist() == expected


def test_areas_are_those_of_the_image() -> None:
    import maskprism

    scene = draw_scene(1, (320, 480))
    prediction = maskprism.load("sample", threads=1).predict(scene.image)
    boxes = prediction.letterbox.from_canvas(prediction.extents, "image")
    regions = [Region.of(mask) for mask in scene.masks]
    found = mask_overlaps(prediction, regions, scene.classes, "image")
    np.testing.assert_array_equal(found.true_areas, scene.masks.sum(axis=(1, 2)))
    np.testing.assert_allclose(found.areas, prediction.areas("image"), rtol=0.25)
    assert (found.areas <= np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * 1.2).all()
