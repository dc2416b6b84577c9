"""What a diagnosis may claim: average precision of resamples, both orders of the oracles, and no sentence by chance."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.strategies import seeds
from maskprism.analysis.dataset.ap_bootstrap import ap_intervals
from maskprism.analysis.dataset.coco_ap import average_precision
from maskprism.analysis.dataset.findings import classes_behind
from maskprism.analysis.dataset.oracles import costs, with_perfect_detection
from maskprism.analysis.dataset.resampled_ap import ResampledAP
from maskprism.analysis.dataset.tide import ERROR_TYPES, error_cost, find_errors
from maskprism.analysis.intervals import CLAIMS, bootstraps
from maskprism.analysis.truth.error_budget import PARTS, ErrorBudget, InstanceBudget
from maskprism.analysis.truth.overlaps import SIZES, Overlaps

SHUFFLES = 100


def image(rng: np.random.Generator, classes: int = 3, objects: int = 6) -> Overlaps:
    """An image with objects of all sizes, some of them crowds, most of them found, and with false positives."""
    g = int(rng.integers(0, objects))
    n = g + int(rng.integers(0, 5))
    true_classes = rng.integers(0, classes, g)
    iou = rng.uniform(0, 0.4, (n, g))
    iou[np.arange(g), np.arange(g)] = rng.uniform(0.3, 1, g)
    found = np.concatenate([np.where(rng.random(g) < 0.9, true_classes, 0), rng.integers(0, classes, n - g)])
    areas = 10 ** rng.uniform(2, 5, n)
    return Overlaps(rng.random(n), found, true_classes, iou, areas, 10 ** rng.uniform(2, 5, g), rng.random(g) < 0.1)


def images(seed: int, count: int = 12) -> list[Overlaps]:
    rng = np.random.default_rng(seed)
    return [image(rng) for _ in range(count)]


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([None, *SIZES]))
def test_ap_of_a_resample_is_that_of_its_images(seed: int, size: str | None) -> None:
    """The slow twin evaluates a list in which an image stands as often as it was drawn."""
    whole = images(seed, 6)
    weights = np.random.default_rng(seed).multinomial(6, np.full(6, 1 / 6), size=3)
    found = ResampledAP(whole, size=size)(weights.astype(np.float64))
    for value, row in zip(found, weights, strict=True):
        drawn = average_precision([one for one, count in zip(whole, row, strict=True) for _ in range(count)])
        assert value == pytest.approx(drawn.ap if size is None else drawn.by_size[size], abs=1e-6, nan_ok=True)


def test_more_images_than_groups_are_the_same_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maskprism.analysis.dataset.resampled_ap.MOST_GROUPS", 5)
    whole = images(3)
    grouped = ResampledAP(whole)
    assert grouped.n_groups == 5
    assert grouped(np.ones((1, 5)))[0] == pytest.approx(average_precision(whole).ap, abs=1e-6)


# --- detection or masks ----------------------------------------------------------------------------


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1))
def test_costs_are_the_mean_over_both_orders_and_add_up(now: float, masks: float, detection: float) -> None:
    of_masks, of_detection = (float(one[0]) for one in costs(*(np.array([v]) for v in (now, masks, detection))))
    first_masks = (masks - now, 1 - masks)
    first_detection = (1 - detection, detection - now)
    assert of_masks == pytest.approx((first_masks[0] + first_detection[0]) / 2, abs=1e-12)
    assert of_detection == pytest.approx((first_masks[1] + first_detection[1]) / 2, abs=1e-12)
    assert of_masks + of_detection == pytest.approx(1 - now, abs=1e-12)
    exchanged = costs(*(np.array([v]) for v in (now, detection, masks)))
    assert (float(exchanged[1][0]), float(exchanged[0][0])) == (of_masks, of_detection)


def test_perfect_detection_finds_everything_once_with_the_masks_as_drawn() -> None:
    whole = images(1)
    rng = np.random.default_rng(0)
    drawn = [rng.uniform(0.3, 1, len(one.true_classes)) for one in whole]
    perfect = with_perfect_detection(whole, drawn)
    for before, after, ious in zip(whole, perfect, drawn, strict=True):
        objects = np.flatnonzero(~before.crowd)
        np.testing.assert_array_equal(after.classes, before.true_classes[objects])
        np.testing.assert_array_equal(after.iou[np.arange(len(objects)), objects], ious[objects])
        np.testing.assert_array_equal(after.scores, ious[objects])
        assert after.iou.sum() == pytest.approx(ious[objects].sum())
    # Right masks come first, so that AP at a threshold is the share of masks that reach it, in steps of recall.
    ious = np.concatenate([one.iou[one.iou > 0] for one in perfect])
    classes = np.concatenate([one.classes for one in perfect])
    shares = [
        np.mean([np.floor(100 * np.mean(ious[classes == c] >= t)) + 1 for c in np.unique(classes)]) / 101
        for t in np.arange(0.5, 1, 0.05)
    ]
    assert average_precision(perfect).ap == pytest.approx(np.mean(shares), abs=0.02)
    assert average_precision(with_perfect_detection(whole, [np.ones_like(one) for one in drawn])).ap == 1


def test_a_missed_instance_is_drawn_like_the_found_one_most_like_it() -> None:
    true_classes, areas = np.array([0, 0, 0, 1, 2]), np.array([100.0, 10_000.0, 150.0, 90.0, 9_000.0])
    one = Overlaps(np.zeros(0), np.zeros(0, int), true_classes, np.zeros((0, 5)), np.zeros(0), areas)
    (found,) = with_perfect_detection([one], [np.array([0.6, 0.9, math.nan, 0.7, math.nan])])
    assert found.scores.tolist() == [0.6, 0.9, 0.6, 0.7, 0.9]  # nearest of its class; of any, where there is none
    (nothing,) = with_perfect_detection([one], [np.full(5, math.nan)])
    assert nothing.scores.tolist() == [0.0] * 5


def test_intervals_hold_what_they_are_of() -> None:
    whole = images(2, 30)
    drawn = [np.full(len(one.true_classes), 0.7) for one in whole]
    detected = with_perfect_detection(whole, drawn)
    masks = [one.with_iou(np.where(one.iou > 0.5, 1.0, one.iou)) for one in whole]
    overlaps = dict.fromkeys(("validation", "predict", "native", "boxes"), whole)
    found = ap_intervals(overlaps, masks, detected, [find_errors(one) for one in whole])
    ap = average_precision(whole).ap
    assert found.precision["predict"].mean == pytest.approx(ap, abs=1e-6)
    assert found.precision["predict"].low < ap < found.precision["predict"].high
    assert found.decodes.mean == 0
    assert not found.decodes.excludes()
    assert found.masks.mean + found.detection.mean == pytest.approx(1 - ap, abs=1e-6)
    assert found.difference.mean == pytest.approx(
        average_precision(masks).ap - average_precision(detected).ap, abs=1e-6
    )
    cost = error_cost(whole)
    assert {kind: one.mean for kind, one in found.errors.items()} == pytest.approx(cost.gain, abs=1e-6)
    assert len(found.ahead) == len(ERROR_TYPES) - 1
    assert set(found.class_images) == {0, 1, 2}
    assert all(found.by_class[c].low < average_precision(whole).by_class[c].ap for c in found.by_class)
    few = ap_intervals(
        {k: v[:19] for k, v in overlaps.items()}, masks[:19], detected[:19], list(map(find_errors, whole[:19]))
    )
    assert math.isnan(few.difference.low)
    assert not few.by_class


# --- chance makes no sentence ----------------------------------------------------------------------


def budget(rng: np.random.Generator, n_images: int = 60, classes: int = 6) -> ErrorBudget:
    """A budget in which masks of one image are alike, and of a few classes much worse than others."""
    rows = []
    for number in range(n_images):
        of_image = rng.normal(0, 0.15)
        for instance in range(int(rng.integers(1, 8))):
            class_id = int(rng.integers(0, classes))
            iou = float(np.clip(0.75 + of_image - 0.25 * (class_id == 0) + rng.normal(0, 0.15), 0, 1))
            losses = rng.dirichlet(np.ones(4)) * (1 - iou)
            rows.append(row(number, instance, class_id, iou, losses))
    return ErrorBudget(rows)


def row(number: int, instance: int, class_id: int, iou: float, losses: np.ndarray) -> InstanceBudget:
    values = {one.name: {"str": "", "int": 0, "float": 0.0}.get(str(one.type), ()) for one in fields(InstanceBudget)}
    values |= {"image": f"{number}.png", "instance": instance, "class_id": class_id, "class_name": f"class {class_id}"}
    return InstanceBudget(**values | {"iou": iou} | dict(zip(PARTS, losses.tolist(), strict=True)))  # type: ignore[arg-type]


def with_columns(rows: ErrorBudget, **columns: np.ndarray) -> ErrorBudget:
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return ErrorBudget(
        [replace(one, **dict(zip(columns, value, strict=True))) for one, value in zip(rows.rows, values, strict=True)]
    )


def test_a_class_that_is_worse_is_told() -> None:
    assert set(classes_behind(budget(np.random.default_rng(1)))) == {"class 0"}


@pytest.mark.study
def test_shuffled_classes_are_not_told_to_be_worse() -> None:
    real = budget(np.random.default_rng(1))
    of_instances, of_images, claims = 0, 0, 0
    for seed in range(SHUFFLES):
        rng = np.random.default_rng(seed)
        iou = rng.permutation(real.columns["iou"])
        of_instances += bool(classes_behind(with_columns(real, iou=iou)))
        # Classes dealt to whole images: instances of one image are alike for a reason that is not their class.
        names = np.array([f"class {c}" for c in rng.integers(0, 3, 60)])
        image = np.array([int(name.removesuffix(".png")) for name in real.columns["image"]])
        dealt = with_columns(real, class_name=names[image])
        of_images += bool(classes_behind(dealt))
        claims += min(mean.iou for mean in dealt.means("class_name")) < dealt.mean().iou - 0.02
    assert of_instances <= 0.05 * SHUFFLES
    assert of_images <= 0.05 * SHUFFLES
    assert claims > 0.5 * SHUFFLES  # there is always a worst class


def test_a_part_that_leads_is_told_and_shuffled_ones_are_not() -> None:
    real = budget(np.random.default_rng(2))
    losses = np.stack([real.columns[part] for part in PARTS], axis=1)
    image = np.unique(real.columns["image"].astype(str), return_inverse=True)[1]
    led = with_columns(real, **dict(zip(PARTS, (losses * [1, 1, 1, 3]).T, strict=True)))
    assert led.leading().certain
    assert led.leading().part == "coefficients"
    certain = 0
    for seed in range(SHUFFLES):
        rng = np.random.default_rng(seed)
        order = np.argsort(rng.random((image.max() + 1, 4)), axis=1)[image]  # another order of parts in each image
        skewed = np.take_along_axis(losses * [1, 1, 1, 3], order, axis=1)
        certain += with_columns(real, **dict(zip(PARTS, skewed.T, strict=True))).leading().certain
    assert certain <= 0.05 * SHUFFLES


@pytest.mark.study
def test_what_costs_more_is_not_told_where_it_is_dealt_at_random() -> None:
    told = 0
    for seed in range(SHUFFLES):
        rng = np.random.default_rng(seed)
        whole = [image(rng, objects=5) for _ in range(25)]
        sides = [
            with_perfect_detection(whole, [rng.uniform(0.3, 1, len(one.true_classes)) for one in whole])
            for _ in range(2)
        ]
        first, second = map(ResampledAP, sides)
        (found,) = bootstraps(lambda w, a=first, b=second: (a(w) - b(w))[:, None], 25, centred=True, comparisons=CLAIMS)
        told += found.excludes()
    assert told <= 0.05 * SHUFFLES


@pytest.mark.study
def test_scores_that_rank_masks_are_not_said_not_to() -> None:
    told = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        real = budget(rng, 40)
        noise = rng.normal(0, 1, len(real))
        score = 0.5 + 0.1 * (0.32 * (real.columns["iou"] - 0.7) / 0.2 + noise)
        told += with_columns(real, score=score).rank_correlation().high < 0.3
    assert told <= 0.05 * 40 + 1
