"""Which instance is which ground-truth instance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from helpers import reference_budget as reference
from helpers.strategies import letterboxes, predictions, seeds
from maskprism import Letterbox, Prediction
from maskprism.analysis.truth.matching import MATCHING_RULE, match, match_masks
from maskprism.core.masks import ULTRALYTICS
from maskprism.datasets import GroundTruth
from maskprism.errors import InputError

LETTERBOX = Letterbox.fit((32, 32), (32, 32))
SQUARE = np.array([(0, 0), (8, 0), (8, 8), (0, 8)], dtype=np.float32)


def found(boxes: list[list[float]], scores: list[float], classes: list[int]) -> Prediction:
    return Prediction(
        canvas_boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        scores=np.array(scores, dtype=np.float32),
        classes=np.array(classes, dtype=np.int64),
        coefficients=np.ones((len(scores), 1), dtype=np.float32),
        prototypes=np.ones((1, *LETTERBOX.grid_hw), dtype=np.float32),
        letterbox=LETTERBOX,
        rule=ULTRALYTICS,
    )


def true(boxes: list[list[float]], classes: list[int], image_hw: tuple[int, int] = (32, 32)) -> GroundTruth:
    return GroundTruth(
        classes=np.array(classes, dtype=np.int64),
        segments=((SQUARE,),) * len(classes),
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        crowd=np.zeros(len(classes), dtype=bool),
        image_hw=image_hw,
    )


def test_the_most_confident_takes_what_it_overlaps_most():
    prediction = found([[0, 0, 10, 10], [0, 0, 9, 10], [20, 20, 30, 30]], [0.5, 0.9, 0.8], [0, 0, 1])
    matches = match(prediction, true([[0, 0, 10, 10], [0, 0, 8, 10], [20, 20, 30, 30]], [0, 0, 0]))
    assert matches.instances.tolist() == [1, 0]
    assert matches.objects.tolist() == [0, 1]  # the first is free for a more confident one
    np.testing.assert_allclose(matches.box_iou, [0.9, 0.8])
    assert matches.false_positives.tolist() == [2]  # another class
    assert matches.missed.tolist() == [2]


def test_crowds_and_boxes_without_a_mask_excuse():
    prediction = found([[0, 0, 4, 4], [10, 10, 20, 20], [25, 25, 30, 30]], [0.9, 0.8, 0.7], [0, 0, 0])
    truth = replace(
        true([[0, 0, 30, 9], [10, 10, 20, 20]], [0, 0]),
        crowd=np.array([True, False]),
        segments=((SQUARE,), None),
    )
    matches = match(prediction, truth)
    assert len(matches) == 0
    assert matches.excused.tolist() == [0, 1]
    assert matches.false_positives.tolist() == [2]
    assert matches.missed.tolist() == []


def test_nothing_found_and_nothing_there():
    assert match(found([], [], []), true([[0, 0, 1, 1]], [0])).missed.tolist() == [0]
    assert match(found([[0, 0, 1, 1]], [0.5], [0]), true([], [])).false_positives.tolist() == [0]
    assert len(match(found([], [], []), true([], []))) == 0


def test_mistakes():
    with pytest.raises(InputError, match="threshold is 0"):
        match(found([], [], []), true([], []), threshold=0)
    with pytest.raises(InputError, match="of 32 x 31 pixels"):
        match(found([], [], []), true([], [], (31, 32)))


@given(predictions(letterbox=Letterbox.fit((20, 30), (32, 32)), max_count=6), seeds)
@settings(max_examples=60)
def test_as_the_slow_twin(prediction, seed):
    rng = np.random.default_rng(seed)
    boxes = np.clip(np.repeat(prediction.boxes, 2, axis=0) + rng.integers(-2, 3, (2 * len(prediction), 4)), 0, 30)
    truth = true(boxes.tolist(), rng.integers(0, 3, len(boxes)).tolist(), (20, 30))
    matches = match(prediction, truth, threshold=0.3)
    pairs = list(zip(matches.instances.tolist(), matches.objects.tolist(), strict=True))
    assert pairs == reference.matched(prediction, truth, 0.3)
    everyone = [*matches.instances, *matches.false_positives, *matches.excused]
    assert sorted(everyone) == list(range(len(prediction)))
    assert sorted([*matches.objects, *matches.missed]) == list(range(len(truth)))


@given(letterboxes(), seeds)
@settings(max_examples=20)
def test_a_perfect_detector_finds_everything(letterbox, seed):
    rng = np.random.default_rng(seed)
    height, width = letterbox.image_hw
    corners = np.sort(rng.uniform(0, (width, height), (3, 2, 2)), axis=1).astype(np.float32)
    truth = true(corners.reshape(3, 4).tolist(), [0, 1, 2], (height, width))
    base = found(np.zeros((3, 4)).tolist(), [0.9, 0.8, 0.7], [0, 1, 2])
    prediction = replace(
        base,
        letterbox=letterbox,
        canvas_boxes=letterbox.to_canvas(truth.boxes),
        prototypes=np.ones((1, *letterbox.grid_hw), dtype=np.float32),
    )
    assert match(prediction, truth, threshold=0.9).objects.tolist() == [0, 1, 2]


def test_kinds_of_errors_by_boxes():
    boxes = [[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 3], [20, 20, 30, 30], [10, 20, 11, 21], [0, 0, 10, 2]]
    prediction = found(boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0, 0, 0, 1, 0, 1])
    matches = match(prediction, true([[0, 0, 10, 10], [20, 20, 30, 30]], [0, 0]))
    assert matches.errors == (None, "duplicate", "localisation", "class", "background", "both")
    assert matches.outcomes == ("true positive", *["false positive"] * 5)
    assert matches.targets.tolist() == [0, -1, 0, 1, -1, -1]


def test_a_pair_whose_mask_is_off_is_a_localisation_error():
    """Boxes agree, and the mask covers a quarter of the labelled one: a true positive, told apart."""
    prediction = found([[0, 0, 16, 16], [16, 16, 32, 32]], [0.9, 0.8], [0, 0])
    corner = np.zeros((32, 32), dtype=bool)
    corner[:8, :8] = corner[0, 15] = corner[15, 0] = True
    whole = np.zeros((32, 32), dtype=bool)
    whole[16:, 16:] = True
    matches = match_masks(prediction, GroundTruth.of_masks([corner, whole], [0, 0]))
    assert matches.outcomes == ("true positive", "true positive")
    assert matches.errors == ("localisation", None)
    np.testing.assert_allclose(matches.mask_iou, [66 / 256, 1])
    assert np.isnan(match(prediction, GroundTruth.of_masks([corner, whole], [0, 0])).mask_iou).all()


def test_a_detection_of_another_class_finds_nothing():
    """A cat that is called a dog beside a dog: their masks touch, and still the dog is missed."""
    prediction = found([[0, 0, 10, 10]], [0.9], [1])
    matches = match(prediction, true([[0, 0, 10, 10], [9, 9, 19, 19]], [0, 1]))
    assert len(matches) == 0
    assert matches.false_positives.tolist() == [0]
    assert matches.missed.tolist() == [0, 1]
    assert matches.errors == ("class",)


def test_classes_that_do_not_count_are_excused_and_not_missed():
    prediction = found([[0, 0, 10, 10], [20, 20, 30, 30]], [0.9, 0.8], [0, 1])
    matches = match(prediction, true([[20, 20, 30, 30], [0, 0, 9, 9]], [2, 0]), classes=[0])
    assert matches.outcomes == ("true positive", "excused")
    assert matches.missed.tolist() == []


def test_the_rule_states_its_thresholds():
    assert "0.5 or more" in MATCHING_RULE
    assert "by 0.1 to 0.5" in MATCHING_RULE


def test_masks_become_ground_truth():
    masks = np.zeros((2, 4, 6), dtype=bool)
    masks[0, 1:3, 2:5] = True
    truth = GroundTruth.of_masks(masks, [3, 4])
    assert truth.boxes.tolist() == [[2, 1, 5, 3], [0, 0, 0, 0]]
    np.testing.assert_array_equal(truth.masks(), masks)
    with pytest.raises(InputError, match="2 masks of 1 sizes and 1 class ids"):
        GroundTruth.of_masks(masks, [3])
    with pytest.raises(InputError, match="0 masks"):
        GroundTruth.of_masks([], [])
