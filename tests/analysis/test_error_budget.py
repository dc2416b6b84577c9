"""The error budget: exact sums, the stages and the best coefficients against slow twins, and the tables."""

from __future__ import annotations

import itertools
import math
import statistics
import warnings
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import maskprism
from helpers import reference
from helpers import reference_budget as twin
from helpers.strategies import letterboxes, predictions, seeds
from maskprism import Instance, Letterbox, Prediction
from maskprism.analysis.intervals import MIN_IMAGES, interval
from maskprism.analysis.truth import best_coefficients as solver
from maskprism.analysis.truth.boundary import boundary_agreement, boundary_width
from maskprism.analysis.truth.counterfactual_masks import Counterfactuals, counterfactuals_of, instance_counterfactuals
from maskprism.analysis.truth.error_budget import (
    BESIDE,
    COLUMNS,
    PARTS,
    RING,
    THRESHOLDS,
    ErrorBudget,
    InstanceBudget,
    budget_of,
    budgets,
    leak,
    thresholds,
)
from maskprism.analysis.truth.exact_coefficients import interpolated
from maskprism.analysis.truth.matching import Matches, match
from maskprism.analysis.truth.overlaps import Region
from maskprism.analysis.truth.score_ranking import ranking, spearman
from maskprism.core.masks import RULES, ULTRALYTICS
from maskprism.datasets import GroundTruth, open_dataset
from maskprism.datasets.scenes import draw_scene
from maskprism.errors import InputError, TableError

DUAL = ("dual_box", "dual_coefficients", "dual_prototypes", "dual_resolution")


def random_truth(prediction: Prediction, seed: int) -> tuple[GroundTruth, Matches]:
    """A polygon per instance, somewhere around its box, matched with it whatever the overlap."""
    rng = np.random.default_rng(seed)
    count = len(prediction)
    height, width = prediction.image_size
    polygons, boxes = [], []
    for box in prediction.boxes:
        corners = rng.uniform(box[:2] - 3, np.maximum(box[2:], box[:2]) + 3, (5, 2))
        polygons.append((np.clip(corners, 0, (width, height)).astype(np.float32),))
        boxes.append([*polygons[-1][0].min(axis=0), *polygons[-1][0].max(axis=0)])
    truth = GroundTruth(
        prediction.classes,
        tuple(polygons),
        np.array(boxes, np.float32),
        np.zeros(count, dtype=bool),
        (height, width),
        prediction.names,
    )
    return truth, in_pairs(count)


def in_pairs(count: int) -> Matches:
    """Every instance with the ground-truth instance of its number."""
    return Matches.given(np.arange(count), np.arange(count), np.ones(count))


def on_canvas(region: Region, letterbox: Letterbox) -> np.ndarray:
    return solver.window_of(region, slice(0, letterbox.canvas_hw[0]), slice(0, letterbox.canvas_hw[1]))


cases = st.tuples(predictions(max_count=2, letterbox=None), seeds)


@given(cases)
@settings(max_examples=60)
def test_the_losses_add_up_exactly_in_both_orders(case):
    prediction, seed = case
    truth, matches = random_truth(prediction, seed)
    own = prediction.masks("canvas")
    uncropped = replace(prediction, rule=replace(prediction.rule, crop="none")).masks("canvas")
    rows = list(budgets(prediction, truth, "photo", matches))
    assert len(rows) == len(prediction)
    for row, (_, masks) in zip(rows, counterfactuals_of(prediction, truth, matches), strict=True):
        mask = truth.masks("canvas", prediction.letterbox)[row.object]
        falling = (masks.truth, masks.on_grid, masks.in_box, masks.best, masks.real)
        rising = (masks.real, masks.true_box, masks.true_box_best, masks.true_box_on_grid, masks.truth)
        for parts, chain, sign in ((PARTS, falling, -1), (DUAL, rising, 1)):
            ious = [1 if stage is masks.truth else stage.iou_with(masks.truth) for stage in chain]
            assert [getattr(row, part) for part in parts] == pytest.approx((sign * np.diff(ious)).tolist(), abs=1e-12)
        assert row.true_box_iou == masks.true_box.iou_with(masks.truth)
        assert row.uncropped_iou == pytest.approx(twin.iou(uncropped[row.instance], mask), abs=1e-12)
        assert row.area == truth.areas[row.object]
        assert row.iou == pytest.approx(twin.iou(own[row.instance], mask), abs=1e-12)
        assert sum(getattr(row, part) for part in PARTS) == pytest.approx(1 - row.iou, abs=1e-12)
        assert sum(getattr(row, part) for part in DUAL) == pytest.approx(1 - row.iou, abs=1e-12)
        assert 0 <= row.resolution <= 1
        assert row.threshold_iou >= row.iou - 1e-12
        assert 0 <= row.leak <= 1
        if prediction.rule.crop == "none":
            assert row.box == row.dual_box == 0
            assert row.uncropped_iou == row.iou


# Strides of 4, and such as YOLACT's, which are no whole number.
small = st.sampled_from([(8, 8), (7, 9)]).flatmap(
    lambda grid: predictions(letterbox=Letterbox.fit((21, 30), (32, 32)).with_grid(grid), max_count=1)
)


@given(small, seeds)
@settings(max_examples=25)
def test_stages_are_drawn_as_the_slow_twin_does(prediction, seed):
    truth, matches = random_truth(prediction, seed)
    ((_, masks),) = counterfactuals_of(prediction, truth, matches)
    instance, letterbox = prediction[0], prediction.letterbox
    true_box = letterbox.to_canvas(truth.boxes[0])
    assert np.array_equal(on_canvas(masks.truth, letterbox), truth.masks("canvas", letterbox)[0])
    ideal = twin.cell_shares(truth.masks("canvas", letterbox)[0], letterbox.grid_hw) + prediction.rule.threshold - 0.5

    def logits(weights: np.ndarray) -> np.ndarray:
        return reference.summed_terms(weights, prediction.prototypes)

    squash = prediction.rule.squash
    own, best = logits(instance.weights), logits(masks.fit.weights)
    expected = {
        "on_grid": twin.drawn(instance, ideal, instance.canvas_box, squash=False, crop=False),
        "in_box": twin.drawn(instance, ideal, instance.canvas_box, squash=False),
        "best": twin.drawn(instance, best, instance.canvas_box, squash=squash),
        "real": twin.drawn(instance, own, instance.canvas_box, squash=squash),
        "true_box": twin.drawn(instance, own, true_box, squash=squash),
        "true_box_best": twin.drawn(instance, logits(masks.true_box_fit.weights), true_box, squash=squash),
        "true_box_on_grid": twin.drawn(instance, ideal, true_box, squash=False),
        "uncropped": twin.drawn(instance, own, instance.canvas_box, squash=squash, crop=False),
    }
    for name, (mask, distance) in expected.items():
        different = on_canvas(getattr(masks, name), letterbox) != mask
        assert not (different & (distance > 1e-4)).any(), name


# The best coefficients


def crisp(seed: int, rule: str = "ultralytics", stride: int = 1) -> tuple[Prediction, np.ndarray, Region]:
    """One instance over smooth prototypes, weights that draw a mask, and that mask within the box."""
    rng = np.random.default_rng(seed)
    side = 40
    letterbox = Letterbox.fit((side, side), (side, side)).with_grid((side // stride, side // stride))
    y, x = (np.indices(letterbox.grid_hw) + 0.5) * stride / side - 0.5
    waves = rng.uniform(-5, 5, (5, 3))
    prototypes = np.array([np.sin(a * x + b * y + c) for a, b, c in waves])
    prototypes = np.concatenate([prototypes, np.ones((1, *x.shape))]).astype(np.float32)
    weights = rng.normal(0, 1, 6).astype(np.float32)
    weights[5] -= np.median(weights @ prototypes.reshape(6, -1))
    prediction = Prediction(
        canvas_boxes=np.array([[4, 6, 35, 37]], dtype=np.float32),
        scores=np.ones(1, np.float32),
        classes=np.zeros(1, np.int64),
        coefficients=rng.normal(0, 1, (1, 6)).astype(np.float32),
        prototypes=prototypes,
        letterbox=letterbox,
        rule=RULES[rule],
    )
    drawn = replace(prediction, coefficients=weights[None]).masks("canvas")[0]
    return prediction, weights, Region.of(drawn)


WINDOW = (slice(6, 37), slice(4, 35))


@given(seeds)
@settings(max_examples=20)
def test_an_object_that_the_prototypes_can_draw_is_drawn(seed):
    """At the size of the grid the share of a cell is 0 or 1, and nothing is lost by averaging."""
    prediction, _, truth = crisp(seed)
    found = solver.best_weights(prediction.prototypes, prediction.letterbox, truth, *WINDOW, prediction.weights[0])
    best = replace(prediction, coefficients=found.weights[None]).masks("canvas")[0]
    assert found.gradient <= solver.TOLERANCE
    mask = on_canvas(truth, prediction.letterbox)
    # Pixels through which the outline runs have logits of nearly 0, which the penalty may turn over.
    assert np.count_nonzero(best != mask) <= 0.01 * mask.size
    assert twin.iou(best, mask) > 0.97


@pytest.mark.parametrize(("stride", "least"), [(1, 0.98), (2, 0.98), (4, 0.96)])
def test_on_coarser_grids_little_is_lost_to_seeing_shares_of_cells(stride, least):
    """The regression sees no pixels but shares of cells, which say less of an outline the larger they are."""
    ious = []
    for seed in range(12):
        prediction, _, truth = crisp(seed, stride=stride)
        start = prediction.weights[0]
        found = solver.best_weights(prediction.prototypes, prediction.letterbox, truth, *WINDOW, start)
        best = replace(prediction, coefficients=found.weights[None]).masks("canvas")[0]
        ious.append(Region.of(best).iou_with(truth))
    assert np.mean(ious) > least


@pytest.mark.parametrize("rule", ["ultralytics", "ultralytics-8.2", "yolact", "validation", "no-crop"])
def test_an_object_in_the_span_with_a_clear_outline_comes_out_at_iou_1(rule):
    """A prototype that steps between pixels, among others: no mask could be better, and none is."""
    prediction, _, _ = crisp(3, rule)
    prototypes = prediction.prototypes.copy()
    prototypes[2] = np.where(np.hypot(*(np.indices((40, 40)) - 19.5)) < 11, 1, -0.2)
    prediction = replace(prediction, prototypes=prototypes, canvas_boxes=np.array([[2, 2, 38, 38]], np.float32))
    mask = prototypes[2] > 0
    truth = GroundTruth(
        np.zeros(1, np.int64), (mask,), np.array([[8, 8, 31, 31]], np.float32), np.zeros(1, dtype=bool), (40, 40)
    )
    (row,) = budgets(prediction, truth, matches=in_pairs(1))
    assert row.image == ""
    for image, source, name in (("given", "source", "given"), ("", "source", "source"), ("given", None, "given")):
        assert next(budgets(replace(prediction, source=source), truth, image, in_pairs(1))).image == name
    assert row.resolution == row.box == row.prototypes == 0
    assert not any(math.copysign(1, getattr(row, part)) < 0 for part in ("resolution", "box", "prototypes"))
    assert row.coefficients == pytest.approx(1 - row.iou)
    assert row.coefficients > 0.2


@given(small, seeds)
@settings(max_examples=25)
def test_no_weights_are_better_than_the_best(prediction, seed):
    rng = np.random.default_rng(seed)
    instance = prediction[0]
    rows, columns = (slice(*np.sort(rng.choice(33, 2, replace=False)).tolist()) for _ in range(2))
    mask = rng.random((32, 32)) > rng.uniform(0.2, 0.8)
    found = solver.best_weights(
        prediction.prototypes, prediction.letterbox, Region.of(mask), rows, columns, instance.weights
    )

    def objective(weights: np.ndarray) -> float:
        return twin.objective(instance, mask, rows, columns, weights, solver.PENALTY)

    least = objective(found.weights)
    assert found.gradient <= solver.TOLERANCE
    assert found.steps < solver.MAX_STEPS - 1
    for size in (0.01, 0.1, 1, 10):
        step = size * rng.normal(0, 1, len(found.weights))
        assert objective(found.weights + step) >= least - 1e-6
    assert objective(instance.weights) >= least - 1e-6


@given(seeds, st.sampled_from([1e-3, 1.0, 1e3]))
@settings(max_examples=20)
def test_the_start_does_not_change_the_solution(seed, size):
    """Predicted weights a thousand times too large are where plain Newton steps run away."""
    prediction, _, truth = crisp(seed, stride=4)
    first, second = (
        solver.best_weights(prediction.prototypes, prediction.letterbox, truth, *WINDOW, start.astype(np.float32))
        for start in (prediction.weights[0] * size, np.zeros(6))
    )
    np.testing.assert_allclose(
        np.tensordot(first.weights, prediction.prototypes, 1),
        np.tensordot(second.weights, prediction.prototypes, 1),
        atol=0.05,
    )


@given(seeds)
@settings(max_examples=20)
def test_neither_a_change_of_basis_nor_of_scale_changes_the_best_logits(seed):
    prediction, _, truth = crisp(seed, stride=4)
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.5, prediction.prototypes.shape).astype(np.float32)
    prediction = replace(prediction, prototypes=prediction.prototypes + noise)  # none nearly a mixture of others
    turn = np.linalg.qr(rng.normal(0, 1, (6, 6)))[0] * rng.uniform(0.3, 3, 6)
    turned = np.tensordot(turn.astype(np.float32), prediction.prototypes, 1)
    scaled = prediction.prototypes * (10.0 ** rng.uniform(-3, 3, (6, 1, 1))).astype(np.float32)
    logits = [
        np.tensordot(
            solver.best_weights(prototypes, prediction.letterbox, truth, *WINDOW, prediction.weights[0]).weights,
            prototypes,
            1,
        )
        for prototypes in (prediction.prototypes, turned, scaled)
    ]
    for other in logits[1:]:
        np.testing.assert_allclose(other, logits[0], atol=0.05)


# Objects that the prototypes can draw exactly


UNSQUASHED = [name for name, rule in RULES.items() if not (rule.squash or rule.objectness)]


def asked_for(instance: Instance, rng: np.random.Generator) -> tuple[Region, np.ndarray]:
    """What other weights than its own draw in the box of an instance, and the box around that."""
    away = 0.4 * np.abs(instance.weights).mean() * rng.normal(size=len(instance.weights))
    weights = (instance.weights + away)[None].astype(np.float32)
    drawn = replace(instance.prediction[[instance.index]], coefficients=weights).masks("canvas")[0]
    truth = Region.of(drawn)
    box = (truth.columns.start, truth.rows.start, truth.columns.stop, truth.rows.stop)
    return truth, np.array(box, dtype=np.float32)


@pytest.mark.parametrize("rule", UNSQUASHED)
def test_an_object_in_the_span_of_real_prototypes_comes_out_at_iou_1(rule):
    """To the last pixel of the canvas, on a grid of stride 4 and whatever rule resizes logits."""
    rng = np.random.default_rng(0)
    prediction = replace(maskprism.load("sample", threads=1).predict(draw_scene(0).image), rule=RULES[rule])
    assert len(prediction) > 4
    for instance in prediction:
        truth, box = asked_for(instance, rng)
        masks = instance_counterfactuals(instance, truth, box)
        assert masks.fit.exact
        assert masks.best.iou_with(truth) == 1
        if rule == "ultralytics":
            assert masks.true_box_fit.exact
            assert masks.true_box_best.iou_with(truth) == 1


def test_a_few_mistakes_on_the_way_do_not_end_the_search():
    """The first fit to single pixels gets some of them wrong, and later ones none."""
    prediction, _, truth = crisp(138, stride=4)
    assert instance_counterfactuals(prediction[0], truth, prediction.canvas_boxes[0]).fit.exact


def test_exact_weights_are_not_looked_for_where_a_rule_squashes():
    prediction, _, truth = crisp(3, "ultralytics-8.2")
    box = prediction.canvas_boxes[0]
    assert instance_counterfactuals(replace(prediction, rule=ULTRALYTICS)[0], truth, box).fit.exact
    masks = instance_counterfactuals(prediction[0], truth, prediction.canvas_boxes[0])
    assert not masks.fit.exact
    assert not masks.true_box_fit.exact


def test_each_box_has_its_own_best_weights():
    prediction, _, _ = crisp(1, stride=4)
    noise = Region.of(np.random.default_rng(0).random((40, 40)) > 0.5)
    true_box = np.array([12, 0, 24, 20], dtype=np.float32)
    masks = instance_counterfactuals(prediction[0], noise, true_box)
    for found, window in ((masks.fit, WINDOW), (masks.true_box_fit, (slice(0, 20), slice(12, 24)))):
        expected = solver.best_weights(
            prediction.prototypes, prediction.letterbox, noise, *window, np.zeros(6, dtype=np.float32)
        )
        logits = [np.tensordot(one.weights, prediction.prototypes, 1) for one in (found, expected)]
        rows, columns = (slice(side.start // 4, -(-side.stop // 4)) for side in window)
        np.testing.assert_allclose(logits[0][rows, columns], logits[1][rows, columns], atol=0.05)


def test_with_many_cells_the_fit_starts_from_some_and_ends_on_all_of_them(monkeypatch):
    prediction, _, truth = crisp(1)
    given = (prediction.prototypes, prediction.letterbox, truth, *WINDOW, prediction.weights[0])
    expected = solver.best_weights(*given)
    monkeypatch.setattr(solver, "_MANY", 900)  # the window has 31 x 31 cells
    found = solver.best_weights(*given)
    assert found.steps < expected.steps
    np.testing.assert_allclose(
        np.tensordot(found.weights, prediction.prototypes, 1),
        np.tensordot(expected.weights, prediction.prototypes, 1),
        atol=0.05,
    )


@pytest.mark.parametrize("stride", [1, 2, 4])
def test_an_object_in_the_span_of_smooth_waves_comes_out_at_iou_1(stride):
    for seed in range(12):
        prediction, _, truth = crisp(seed, stride=stride)
        masks = instance_counterfactuals(prediction[0], truth, prediction.canvas_boxes[0])
        assert masks.fit.exact
        assert masks.best.iou_with(truth) == 1


def test_the_true_box_is_searched_where_the_own_box_shows_more_than_the_object():
    rng = np.random.default_rng(0)
    prediction = maskprism.load("sample", threads=1).predict(draw_scene(0).image)
    alone = 0
    for instance in prediction:
        x1, y1, x2, y2 = instance.canvas_box
        cut = np.array([x1, y1, x1 + 0.7 * (x2 - x1), y2], dtype=np.float32)
        whole = replace(instance.prediction[[instance.index]], canvas_boxes=cut[None])
        truth, _ = asked_for(whole[0], rng)
        masks = instance_counterfactuals(instance, truth, cut)
        assert masks.true_box_fit.exact
        assert masks.true_box_best.iou_with(truth) == 1
        alone += not masks.fit.exact
    assert alone


def test_an_object_outside_the_span_gets_the_best_weights_on_cells():
    prediction, _, _ = crisp(1, stride=4)
    noise = Region.of(np.random.default_rng(0).random((40, 40)) > 0.5)
    masks = instance_counterfactuals(prediction[0], noise, prediction.canvas_boxes[0])
    assert not masks.fit.exact
    assert masks.fit.gradient <= solver.TOLERANCE


@given(letterboxes(), seeds)
@settings(max_examples=40)
def test_prototypes_at_pixels_are_those_of_resizing(letterbox, seed):
    rng = np.random.default_rng(seed)
    prototypes = rng.normal(size=(3, *letterbox.grid_hw)).astype(np.float32)
    kept = (rng.random(letterbox.grid_hw) > 0.3).astype(np.float32)
    y, x = (rng.integers(0, length, 50) for length in letterbox.canvas_hw)
    found = interpolated(prototypes, letterbox, y, x, kept)
    expected = [letterbox.resample(prototype * kept, "canvas")[y, x] for prototype in prototypes]
    np.testing.assert_allclose(found.T, expected, atol=1e-5)


def test_prototypes_that_follow_from_others_add_no_direction():
    rng = np.random.default_rng(0)
    two = rng.normal(size=(50, 2)).astype(np.float32)
    cells = np.column_stack([two, two.sum(axis=1), np.zeros(50, np.float32)])
    there, back = solver._whitened(cells, np.full(50, 1 / 50, dtype=np.float32))
    assert there.shape == (4, 2)
    assert back.shape == (2, 4)
    np.testing.assert_allclose(((cells @ there) ** 2).mean(axis=0), 1, rtol=1e-4)


def test_windows_without_pixels_and_prototypes_without_values():
    prediction, _, truth = crisp(0)
    empty = (slice(5, 5), slice(0, 9))
    start = prediction.weights[0]
    assert solver.best_weights(prediction.prototypes, prediction.letterbox, truth, *empty, start).weights is start
    silent = solver.best_weights(prediction.prototypes * 0, prediction.letterbox, truth, *WINDOW, start)
    assert not silent.weights.any()


# Columns in addition to the budget


def beside(case: tuple[Prediction, int]) -> tuple[Prediction, GroundTruth, Counterfactuals]:
    prediction, seed = case
    truth, matches = random_truth(prediction, seed)
    return prediction, truth, next(iter(counterfactuals_of(prediction, truth, matches)))[1]


@given(cases)
@settings(max_examples=30)
def test_the_best_threshold(case):
    prediction, _, masks = beside(case)
    threshold, iou, curve = thresholds(masks)
    values = masks.values.values
    inside = solver.window_of(masks.truth, masks.real.rows, masks.real.columns)
    if not values.size:
        assert (threshold, iou, set(curve)) == (prediction.rule.threshold, 0, {0})
        return
    assert iou == pytest.approx(twin.best_threshold(values, inside, masks.truth.area), abs=1e-12)
    assert masks_iou(values > threshold, inside, masks.truth.area) == pytest.approx(iou, abs=1e-12)
    for nearer in (0, 0.5, 0.9):  # of thresholds as good the closest to the rule's is taken
        cut = prediction.rule.threshold + nearer * (threshold - prediction.rule.threshold)
        assert cut == threshold or masks_iou(values > cut, inside, masks.truth.area) < iou - 1e-12
    for probability, reached in zip(THRESHOLDS, curve, strict=True):
        cut = probability if prediction.rule.squash else np.log(probability / (1 - probability))
        assert reached == pytest.approx(masks_iou(values > cut, inside, masks.truth.area), abs=1e-12)
    assert curve[THRESHOLDS.index(0.5)] == pytest.approx(masks.real.iou_with(masks.truth), abs=1e-12)


def masks_iou(above: np.ndarray, inside: np.ndarray, area: int) -> float:
    shared = np.count_nonzero(above & inside)
    whole = area + np.count_nonzero(above) - shared
    return shared / whole if whole else 0.0


def test_one_threshold_for_all_masks():
    kinds = {"str": "", "int": 0, "float": 0.0, "tuple[float, ...]": ()}
    blank = InstanceBudget(**{field.name: kinds[str(field.type)] for field in fields(InstanceBudget)})

    def row(*curve: float) -> InstanceBudget:
        return replace(blank, threshold_curve=(0.1,) * 8 + curve + (0.0,) * (11 - len(curve)), iou=curve[1])

    assert ErrorBudget([row(0.4, 0.5, 0.8), row(0.6, 0.7, 0.2)]).common_threshold() == (0.5, pytest.approx(0.6))
    assert ErrorBudget([row(0.4, 0.5, 0.8), row(0.6, 0.7, 0.6)]).common_threshold() == (0.55, pytest.approx(0.7))
    assert ErrorBudget([row(0.4, 0.5, 0.5)]).common_threshold()[0] == 0.5
    assert ErrorBudget([row(0.5, 0.5, 0.4)]).common_threshold()[0] == 0.5
    with pytest.raises(InputError, match="no matched instance"):
        ErrorBudget([]).common_threshold()


def in_a_box(prototype: np.ndarray, box: tuple[int, int, int, int], truth: np.ndarray) -> Counterfactuals:
    """The stages of one instance over one prototype as large as the canvas, its own box being the true one."""
    height, width = truth.shape
    prediction = Prediction(
        canvas_boxes=np.array([box], np.float32),
        scores=np.ones(1, np.float32),
        classes=np.zeros(1, np.int64),
        coefficients=np.ones((1, 1), np.float32),
        prototypes=prototype[None].astype(np.float32),
        letterbox=Letterbox.fit((height, width), (height, width)).with_grid((height, width)),
        rule=ULTRALYTICS,
    )
    return instance_counterfactuals(prediction[0], Region.of(truth), prediction.canvas_boxes[0])


@pytest.mark.parametrize("covered", [slice(4, 6), slice(6, 8)])
def test_equal_values_are_in_or_out_together(covered):
    """However values are sorted: no threshold tells the half that the truth covers from the other."""
    truth = np.zeros((12, 12), dtype=bool)
    truth[covered, 4:7] = True
    found = thresholds(in_a_box(np.ones((12, 12)), (4, 4, 7, 8), truth))
    assert (found.best, found.iou) == (0, 0.5)


def test_the_ring_is_a_quarter_of_the_sides_wide():
    """A box of 20 x 12 pixels: a ring of 5 columns and 3 rows, of which the mask covers 1 and 1."""
    box = np.zeros((40, 40), dtype=bool)
    box[14:26, 10:30] = True
    wide = np.full((40, 40), -1.0)
    wide[13:27, 9:31] = 1
    assert leak(in_a_box(wide, (10, 14, 30, 26), box)) == (14 * 22 - 12 * 20) / (18 * 30 - 12 * 20)


@given(cases)
@settings(max_examples=20)
def test_the_leak(case):
    prediction, _, masks = beside(case)
    uncropped, truth = (on_canvas(mask, prediction.letterbox) for mask in (masks.uncropped, masks.truth))
    assert leak(masks) == pytest.approx(twin.leak(prediction[0], uncropped, truth, RING), abs=1e-12)


@given(seeds, st.integers(1, 4))
@settings(max_examples=25)
def test_boundary_and_interior(seed, width):
    rng = np.random.default_rng(seed)
    shape = tuple(rng.integers(1, 16, 2))
    masks = [np.zeros(shape, dtype=bool) for _ in range(2)]
    for mask in masks:
        for _ in range(2):
            (y1, y2), (x1, x2) = (np.sort(rng.integers(0, side + 1, 2)) for side in shape)
            mask[y1:y2, x1:x2] = True
    found = boundary_agreement(Region.of(masks[0]), Region.of(masks[1]), width)
    bands = [twin.band(mask, width) for mask in masks]
    assert found.boundary == pytest.approx(twin.iou(*bands))
    truth = masks[1]
    if (truth & ~bands[1]).any():
        away = (truth & ~bands[1]) | ~twin.near(truth, width)
        assert found.interior == pytest.approx(twin.iou(masks[0] & away, truth & away))
    else:
        assert math.isnan(found.interior)


def test_the_width_of_the_boundary_is_that_of_the_paper():
    assert boundary_width(480, 640) == 16
    assert boundary_width(3, 4) == 1


def test_bands_along_outlines_are_measured_on_the_image_without_its_padding():
    prediction, _, _ = crisp(0, stride=4)
    mask = np.zeros((24, 96), dtype=bool)
    mask[4:20, 30:60] = True
    truth = GroundTruth(
        np.zeros(1, np.int64), (mask,), np.array([[30, 4, 60, 20]], np.float32), np.zeros(1, dtype=bool), (24, 96)
    )
    letterbox = Letterbox.fit((24, 96), (96, 96))
    prototypes = np.full((1, *letterbox.grid_hw), -1, np.float32)
    prototypes[0, 10:14, 8:14] = 1
    prediction = replace(
        prediction,
        canvas_boxes=np.array([[0, 0, 96, 96]], np.float32),
        coefficients=np.ones((1, 1), np.float32),
        prototypes=prototypes,
        letterbox=letterbox,
    )
    (row,) = budgets(prediction, truth, matches=in_pairs(1))
    own, true = prediction.masks("canvas")[0], truth.masks("canvas", letterbox)[0]
    assert boundary_width(24, 96) == 2 != boundary_width(96, 96)
    assert row.boundary_iou == pytest.approx(twin.iou(twin.band(own, 2), twin.band(true, 2)))
    assert 0.1 < row.boundary_iou < 0.9


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(31, 33, "small"), (32, 32, "medium"), (95, 97, "medium"), (96, 96, "large")],
)
def test_sizes_are_those_of_coco(height, width, size):
    """By pixels of the image, whatever they are on the canvas."""
    prediction, _, _ = crisp(0, stride=4)
    mask = np.zeros((120, 120), dtype=bool)
    mask[:height, :width] = True
    truth = GroundTruth(
        np.zeros(1, np.int64), (mask,), np.array([[0, 0, width, height]], np.float32), np.zeros(1, bool), (120, 120)
    )
    smaller = replace(prediction, letterbox=replace(prediction.letterbox, image_hw=(120, 120)))
    (row,) = budgets(smaller, truth, matches=in_pairs(1))
    assert (row.area, row.size) == (height * width, size)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.4, 0.5, 0.95, 1.0]), st.integers(0, 4)), max_size=8))
@settings(max_examples=50)
def test_rank_correlation_and_calibration(pairs):
    scores, ious = (np.array([pair[axis] for pair in pairs], dtype=np.float64) for axis in (0, 1))
    ious /= 4
    expected = twin.spearman(scores.tolist(), ious.tolist()) if len(pairs) > 1 else math.nan
    assert spearman(scores, ious) == pytest.approx(expected, nan_ok=True)
    found = ranking(scores, ious, bins=5)
    assert sum(one.instances for one in found.bins) == len(pairs)
    for one in found.bins:
        chosen = (scores >= one.low) & ((scores < one.high) | (one.high == 1))
        assert one.score == pytest.approx(scores[chosen].mean())
        assert one.iou == pytest.approx(ious[chosen].mean())
    assert math.isnan(found.calibration_error) == (not pairs)
    if pairs:
        error = sum(abs(one.score - one.iou) * one.instances for one in found.bins) / len(pairs)
        assert found.calibration_error == pytest.approx(error)


# Whole data sets


@pytest.fixture(scope="module")
def measured() -> ErrorBudget:
    """The bundled model on three scenes."""
    model = maskprism.load("sample")
    rows: list[InstanceBudget] = []
    for seed in (50, 51, 52):
        scene = draw_scene(seed)
        truth = GroundTruth(
            scene.classes,
            tuple(scene.masks),
            scene.boxes,
            np.zeros(len(scene), dtype=bool),
            (scene.image.shape[0], scene.image.shape[1]),
            model.spec.names,
        )
        rows += budgets(model.predict(scene.image), truth, f"scene {seed}")
    return ErrorBudget(rows)


def test_cells_of_a_grid_finer_than_the_canvas():
    """Only those with the centre of a pixel in them count, each with its pixel."""
    letterbox = Letterbox.fit((4, 6), (4, 6)).with_grid((8, 12))
    prototypes = np.random.default_rng(0).standard_normal((3, 8, 12)).astype(np.float32)
    inside = np.random.default_rng(1).random((2, 3)) < 0.5
    cells = solver.cells_of(prototypes, letterbox, Region(slice(1, 3), slice(2, 5), inside), slice(1, 3), slice(2, 5))
    places = [(2 * y + 1, 2 * x + 1) for y in (1, 2) for x in (2, 3, 4)]
    np.testing.assert_array_equal(cells.prototypes, [prototypes[:, y, x] for y, x in places])
    np.testing.assert_array_equal(cells.covered, inside.ravel())
    np.testing.assert_array_equal(cells.counts, np.ones(6))


def test_means_are_those_of_the_rows(measured):
    mean = measured.mean()
    assert mean.instances == len(measured) > 8
    assert mean.iou == pytest.approx(sum(row.iou for row in measured.rows) / len(measured))
    assert mean.iou > 0.5
    assert 1 - mean.iou == pytest.approx(mean.resolution + mean.box + mean.prototypes + mean.coefficients)
    for by in ("class_name", "size"):
        groups = measured.means(by)
        assert sum(one.instances for one in groups) == len(measured)
        assert sum(one.instances * one.coefficients for one in groups) == pytest.approx(
            sum(row.coefficients for row in measured.rows)
        )
        for one in groups:
            chosen = [row for row in measured.rows if getattr(row, by) == one.group]
            assert one.box == pytest.approx(sum(row.box for row in chosen) / len(chosen))
    counts = [one.instances for one in measured.means("class_name")]
    assert counts == sorted(counts, reverse=True)
    assert mean.images == len({row.image for row in measured.rows})
    assert {name: one.mean for name, one in mean.intervals.items()} == pytest.approx(
        {name: getattr(mean, name) for name in ("iou", *PARTS)}
    )
    assert measured.ranking() == measured.ranking(bins=10) != measured.ranking(bins=11)
    with warnings.catch_warnings(action="error"):  # one instance has no interval, which is no mistake
        assert math.isnan(ErrorBudget(measured.rows[:1]).mean().intervals["iou"].low)
    with pytest.raises(InputError, match="expected 'class_name' or 'size'"):
        measured.means("colour")


def test_intervals_of_the_budget_are_over_images_and_not_over_instances(measured):
    rng = np.random.default_rng(0)
    rows = []
    for number in range(40):
        iou = rng.uniform(0.4, 1)  # of one image all masks are alike
        losses = dict.fromkeys(PARTS, (1 - iou) / 4)
        rows += [replace(measured.rows[0], image=f"{number}", iou=iou, **losses) for _ in range(10)]
    found = ErrorBudget(rows).mean().intervals
    expected = interval(np.array([row.iou for row in rows]), [row.image for row in rows])
    assert found["iou"] == pytest.approx(expected, abs=1e-9)
    over_instances = statistics.stdev(row.iou for row in rows) / math.sqrt(len(rows))
    assert found["iou"].high - found["iou"].low > 2 * 3.92 * over_instances
    few = ErrorBudget([row for row in rows if int(row.image) < MIN_IMAGES - 1]).mean()
    assert few.images == MIN_IMAGES - 1
    assert all(math.isnan(one.low) for one in few.intervals.values())
    assert not ErrorBudget(rows).leading().certain


def test_the_worst_come_first(measured):
    ious = [row.iou for row in measured.worst(5)]
    assert ious == sorted(row.iou for row in measured.rows)[:5]
    losses = [row.coefficients for row in measured.worst(len(measured) + 3, by="coefficients")]
    assert losses == sorted(losses, reverse=True)
    assert len(losses) == len(measured)
    for by in ("score", "area"):
        values = [getattr(row, by) for row in measured.worst(len(measured), by=by)]
        assert values == sorted(values)
        assert values[0] < values[-1]
    assert not math.isnan(measured.worst(1, by="interior_iou")[0].interior_iou)
    with pytest.raises(InputError, match="by is 'image'; expected one of instance, object"):
        measured.worst(by="image")
    assert measured.worst(0) == []
    with pytest.raises(InputError, match="count is -1"):
        measured.worst(-1)


def test_means_of_what_stands_beside(measured):
    beside = measured.means_beside()
    assert list(beside) == ["all", *(one.group for one in measured.means("size"))]
    for group, means in beside.items():
        chosen = [row for row in measured.rows if group in ("all", row.size)]
        assert list(means) == [*DUAL, *BESIDE]
        assert means["leak"] == pytest.approx(sum(row.leak for row in chosen) / len(chosen))
        known = [row.interior_iou for row in chosen if not math.isnan(row.interior_iou)]
        assert means["interior_iou"] == pytest.approx(sum(known) / len(known) if known else math.nan, nan_ok=True)
    whole = 1 - measured.mean().iou
    assert sum(beside["all"][part] for part in DUAL) == pytest.approx(whole)
    assert beside["all"]["threshold_iou"] >= measured.mean().iou
    assert ErrorBudget(()).means_beside() == {}


def test_the_table_is_written_and_read_back(measured, tmp_path):
    names = [field.name for field in COLUMNS]
    parquet = pyarrow.parquet.read_table(measured.write(tmp_path / "a ü" / "budget.parquet"))
    csv = pyarrow.csv.read_csv(measured.write(tmp_path / "budget.csv"))
    assert parquet.column_names == csv.column_names == names
    assert parquet["iou"].to_pylist() == [row.iou for row in measured.rows]
    assert csv["class_name"].to_pylist() == [row.class_name for row in measured.rows]
    with pytest.raises(TableError, match=r"\.csv or \.parquet"):
        measured.write(tmp_path / "budget.xlsx")
    (tmp_path / "file").write_text("")
    with pytest.raises(TableError, match=r"cannot be written \((File exists|Not a directory)\)$"):
        measured.write(tmp_path / "file" / "budget.csv")


def test_no_instance_at_all(tmp_path):
    nothing = ErrorBudget(())
    assert len(nothing) == 0
    assert nothing.means("size") == nothing.worst() == []
    assert nothing.table().num_rows == 0
    assert pyarrow.parquet.read_table(nothing.write(tmp_path / "b.parquet")).num_rows == 0
    assert math.isnan(nothing.ranking().spearman)
    with pytest.raises(InputError, match="no matched instance"):
        nothing.mean()


def test_degenerate_ground_truth_and_boxes():
    """Ground truth without a pixel costs everything by resolution; a box without area everything by the box."""
    prediction, _, _ = crisp(1, stride=4)
    sliver = GroundTruth(
        np.zeros(1, np.int64),
        ((np.array([(5, 5), (20, 5), (20, 5)], np.float32),),),
        np.array([[5, 5, 20, 5]], np.float32),
        np.zeros(1, dtype=bool),
        (40, 40),
    )
    matches = in_pairs(1)
    (row,) = budgets(prediction, sliver, matches=matches)
    assert (row.iou, row.resolution, row.box, row.prototypes, row.coefficients) == (0, 1, 0, 0, 0)
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:30, 10:30] = True
    square = replace(sliver, segments=(mask,), boxes=np.array([[10, 10, 30, 30]], np.float32))
    flat = replace(prediction, canvas_boxes=np.array([[10, 10, 10, 30]], np.float32))
    (row,) = budgets(flat, square, matches=matches)
    assert row.iou == 0
    assert row.box == pytest.approx(1 - row.resolution)
    assert row.prototypes == row.coefficients == 0
    assert row.true_box_iou > 0


@given(letterboxes(), seeds)
@settings(max_examples=15)
def test_a_network_without_mistakes_loses_by_resolution_alone(letterbox, seed):
    """Its one prototype is the ground truth on the grid, its box that of the canvas."""
    height, width = letterbox.image_hw
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), dtype=bool)
    (y1, y2), (x1, x2) = (np.sort(rng.integers(0, side + 1, 2)) for side in (height, width))
    mask[y1:y2, x1:x2] = True
    truth = GroundTruth(
        np.zeros(1, np.int64),
        (mask,),
        np.array([[x1, y1, x2, y2]], np.float32),
        np.zeros(1, dtype=bool),
        (height, width),
    )
    shares = twin.cell_shares(truth.masks("canvas", letterbox)[0], letterbox.grid_hw)
    prediction = Prediction(
        canvas_boxes=np.array([[0, 0, *letterbox.canvas_hw[::-1]]], np.float32),
        scores=np.ones(1, np.float32),
        classes=np.zeros(1, np.int64),
        coefficients=np.ones((1, 1), np.float32),
        prototypes=(shares - 0.5)[None].astype(np.float32),
        letterbox=letterbox,
        rule=ULTRALYTICS,
    )
    (row,) = budgets(prediction, truth, matches=in_pairs(1))
    assert row.box == 0
    assert row.prototypes + row.coefficients == pytest.approx(0, abs=1e-12)
    if row.iou:
        assert row.prototypes == row.coefficients == pytest.approx(0, abs=1e-12)


def test_real_weights(real_data: Path):
    model = maskprism.load(real_data / "models" / "yolov8n-seg.onnx")
    rows: list[InstanceBudget] = []
    samples = open_dataset(real_data / "datasets" / "coco128-seg").for_model(model.spec.names)
    for sample in itertools.islice(samples, 6):
        image, truth = sample.read()
        prediction = model.predict(image)
        matches = match(prediction, truth)
        for pair, masks in counterfactuals_of(prediction, truth, matches):
            rows.append(budget_of(pair, masks, truth, sample.name))
            assert masks.fit.exact or masks.best.iou_with(masks.truth) < 1
            for found in (masks.fit, masks.true_box_fit):
                assert found.exact or found.gradient <= solver.TOLERANCE
    mean = ErrorBudget(rows).mean()
    assert mean.instances >= 8
    assert 0.65 < mean.iou < 0.9
    assert all(0 < getattr(mean, part) < 0.2 for part in PARTS)
    assert mean.coefficients > mean.prototypes  # they can draw better than they are asked to
