"""TIDE's error types: against the authors' own code, a slow twin, and what must always hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import reference_ap
from helpers.overlap_cases import images_of_masks, overlaps
from maskprism.analysis.dataset.coco_ap import class_precision_at
from maskprism.analysis.dataset.tide import error_cost, fix_errors
from maskprism.analysis.truth.matching import ERROR_TYPES, find_errors
from maskprism.analysis.truth.overlaps import Overlaps, Region, mask_iou

# tidecv 1.0.1 in mask mode says this of the masks below: AP50, then the gain in points and the count of each type.
BY_THE_AUTHORS = {
    0: (
        25.877079378,
        {
            "class": (0.045570532, 1),
            "localisation": (50.328580116, 40),
            "both": (0.681775098, 10),
            "duplicate": (3.780108192, 27),
            "background": (0.0, 8),
            "missed": (2.201249547, 2),
        },
        (40.129521283, 12.534913186),
    ),
    4: (
        31.018816167,
        {
            "class": (0.0, 1),
            "localisation": (45.961982753, 55),
            "both": (0.084008401, 3),
            "duplicate": (1.370575654, 19),
            "background": (0.69935565, 13),
            "missed": (4.956567085, 4),
        },
        (18.816167331, 33.197962653),
    ),
}


@pytest.mark.parametrize("seed", BY_THE_AUTHORS)
def test_equals_the_code_of_the_authors(seed: int) -> None:
    images = []
    for number, ((true, true_classes, _), (found, classes, scores)) in enumerate(
        images_of_masks(np.random.default_rng(seed), count=10)
    ):
        scores = scores + np.random.default_rng(number).random(len(scores)) * 1e-3  # no ties
        iou = mask_iou([Region.of(mask) for mask in found], [Region.of(mask) for mask in true])
        images.append(Overlaps(scores, classes, true_classes, iou))
    ap50, kinds, (false_positives, false_negatives) = BY_THE_AUTHORS[seed]
    cost = error_cost(images)
    assert 100 * cost.ap50 == pytest.approx(ap50, abs=1e-6)
    assert cost.counts == {kind: count for kind, (_, count) in kinds.items()}
    gains = {kind: 100 * gain for kind, gain in cost.gain.items()}
    assert gains == pytest.approx({kind: gain for kind, (gain, _) in kinds.items()}, abs=1e-6)
    assert 100 * cost.false_positives == pytest.approx(false_positives, abs=1e-6)
    # Recalls are sampled at i / 100 there and at COCO's own 101 places here; some fall on another side of a step.
    assert 100 * cost.false_negatives == pytest.approx(false_negatives, abs=0.05)


def untied(images: list[Overlaps]) -> list[Overlaps]:
    return [
        Overlaps(p.scores + 0.01 * i, p.classes, p.true_classes, p.iou, crowd=p.crowd) for i, p in enumerate(images)
    ]


@settings(max_examples=40)
@given(st.lists(overlaps(), min_size=1, max_size=3).map(untied))
def test_equals_the_slow_twin(images: list[Overlaps]) -> None:
    for one in images:
        errors = find_errors(one)
        taken, excused = reference_ap.matched(one, 0.5)
        assert {i: j for i, j in enumerate(errors.matched.tolist()) if j >= 0} == taken
        for i, kind in enumerate(errors.kinds.tolist()):
            expected, target = reference_ap.kind_of(one, i, taken, excused)
            assert (ERROR_TYPES[kind] if kind >= 0 else None) == expected
            assert errors.target[i] == (-1 if target is None else target)
    cost = error_cost(images)
    for kind in ERROR_TYPES:
        assert cost.gain[kind] == pytest.approx(reference_ap.gain(images, kind), abs=1e-9), kind


@settings(max_examples=60)
@given(overlaps())
def test_every_detection_and_every_labelled_instance_has_one_fate(one: Overlaps) -> None:
    errors = find_errors(one)
    found = np.isin(np.arange(len(one.true_classes)), errors.matched)
    wanted = np.isin(np.arange(len(one.true_classes)), errors.target[errors.fixable])
    np.testing.assert_array_equal(found.astype(int) + wanted + errors.missed, ~one.crowd)
    assert (errors.kinds[errors.matched >= 0] == -1).all()
    assert ((errors.target >= 0) == (errors.of("class") | errors.of("localisation"))).all()
    assert not errors.of("missed").any()


@settings(max_examples=30)
@given(st.lists(overlaps(), min_size=1, max_size=3).map(untied))
def test_with_all_errors_mended_nothing_is_left_to_gain(images: list[Overlaps]) -> None:
    for kind in ("both", "duplicate", "background", "localisation", "class", "missed"):
        images = [fix_errors(one, find_errors(one), kind) for one in images]
    if any((~one.crowd).any() for one in images):
        assert min(class_precision_at(images, 0.5).values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("iou", "classes", "scores", "kinds"),
    [
        ([[0.8]], [0], [0.9], [None]),
        ([[0.3]], [0], [0.9], ["localisation"]),
        ([[0.8]], [1], [0.9], ["class"]),
        ([[0.3]], [1], [0.9], ["both"]),
        ([[0.05]], [0], [0.9], ["background"]),
        ([[0.8], [0.7]], [0, 0], [0.6, 0.9], ["duplicate", None]),
        ([[0.5]], [0], [0.9], [None]),
        ([[0.1]], [0], [0.9], ["localisation"]),
        ([[0.1]], [1], [0.9], ["background"]),
    ],
)
def test_types_by_hand(iou: list, classes: list[int], scores: list[float], kinds: list[str | None]) -> None:
    one = Overlaps(np.array(scores), np.array(classes), np.array([0]), np.array(iou))
    found = [ERROR_TYPES[kind] if kind >= 0 else None for kind in find_errors(one).kinds]
    assert found == kinds


def test_a_mended_detection_touches_its_object_alone() -> None:
    one = Overlaps(np.array([0.9]), np.array([0]), np.array([0, 1, 0]), np.array([[0.3, 0.2, 0.4]]))
    fixed = fix_errors(one, find_errors(one), "localisation")
    assert fixed.iou.tolist() == [[0, 0, 1]]


def test_mending_never_costs() -> None:
    """With equal overlaps COCO's matching takes the last object, and finds one more than the first would leave."""
    one = Overlaps(np.array([0.9, 0.8]), np.zeros(2, int), np.zeros(2, int), np.array([[0.9, 0.9], [0.8, 0.3]]))
    cost = error_cost([one])
    assert (cost.ap50, cost.counts["duplicate"], cost.gain["duplicate"]) == (pytest.approx(1), 1, 0)


def test_no_detections_and_no_ground_truth() -> None:
    empty = Overlaps(np.zeros(0), np.zeros(0, dtype=int), np.zeros(0, dtype=int), np.zeros((0, 0)))
    assert error_cost([empty]).counts == dict.fromkeys(ERROR_TYPES, 0)
    assert np.isnan(error_cost([empty]).ap50)
    alone = Overlaps(np.zeros(0), np.zeros(0, dtype=int), np.array([0, 1]), np.zeros((0, 2)))
    cost = error_cost([alone, empty])
    assert (cost.ap50, cost.counts["missed"]) == (0, 2)
    stray = Overlaps(np.ones(1), np.array([3]), np.zeros(0, dtype=int), np.zeros((1, 0)))
    assert error_cost([stray]).counts["background"] == 1
