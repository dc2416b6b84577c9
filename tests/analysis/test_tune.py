"""Tuning: evidence, the fit, honest measures, and the command."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.optimize import minimize

from helpers import reference_tune as slow
from helpers.by_hand import made
from helpers.tiny_models import Tiny, ultralytics_metadata
from helpers.tuned import LITTLE, tune, with_little_effort
from helpers.undrawn import without_drawing
from maskprism import Model, load
from maskprism.analysis.intervals import interval
from maskprism.analysis.truth.matching import match
from maskprism.analysis.truth.overlaps import Region, regions
from maskprism.analysis.tuning import evidence as gathering
from maskprism.analysis.tuning import tuning
from maskprism.analysis.tuning.evidence import Evidence, evidence_of
from maskprism.analysis.tuning.fitting import SHARPNESS, SPREAD, Objective, Setting, fit, sampled_ious
from maskprism.analysis.tuning.tuning import Tuning
from maskprism.analysis.tuning.validation import cross_fit, curve_sizes, fits
from maskprism.cli.options import ReadingOptions
from maskprism.cli.tune import tune as tune_command
from maskprism.datasets import Dataset, GroundTruth, open_dataset
from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.errors import InputError, MaskprismError, MissingExtraError
from maskprism.models import SAMPLE_MODEL
from maskprism.models.correction import Correction
from maskprism.models.rewrite import write_corrected
from maskprism.models.runtimes import FunctionRuntime
from maskprism.reports import tuning_files as files
from maskprism.reports.tuning import next_steps, report_page, sentences, warnings_of


@pytest.fixture(autouse=True)
def _little_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    with_little_effort(monkeypatch)


@pytest.fixture(scope="module")
def kept() -> dict[Any, Tuning]:
    """Tunings by what they are of."""
    return {}


@pytest.fixture
def written_only(monkeypatch: pytest.MonkeyPatch, kept: dict[Any, Tuning]) -> None:
    """For commands that differ in which files they write: equal ones tune once, and figures are not drawn."""
    without_drawing(monkeypatch)
    search = tuning.tune

    def tune_once(dataset: Dataset, model: Model, **options: Any) -> Tuning:
        key = (
            dataset.path,
            model.spec.sha256,
            *(options.get(name) for name in ("limit", "folds", "seed", "per_level")),
        )
        if key not in kept:
            kept[key] = search(dataset, model, **options)
        return kept[key]

    monkeypatch.setattr(tuning, "tune", tune_once)


def drawn(seed: int = 0, n: int = 12, m: int = 9, k: int = 3, images: int = 6) -> Evidence:
    """Evidence made up: masks that a corrected model would draw."""
    rng = np.random.default_rng(seed)
    coefficients = rng.normal(0, 1, (n, k)).astype(np.float32)
    prototypes = rng.normal(0, 1, (n, m, k)).astype(np.float32)
    right = coefficients + coefficients @ np.array([[0, 0.7, 0], [0, 0, -0.5], [0.4, 0, 0]])[:k, :k].T + 0.3
    pixels = rng.integers(1, 4, (n, m)).astype(np.float32)
    pixels[0, 5:] = 0
    return Evidence(
        image=np.sort(rng.integers(0, images, n)),
        augmented=np.zeros(n, dtype=bool),
        weights=rng.uniform(0.2, 1, n).astype(np.float32),
        coefficients=coefficients,
        factors=rng.uniform(0.5, 1, n).astype(np.float32),
        levels=rng.integers(0, 2, n),
        prototypes=prototypes,
        inside=(np.einsum("nmk,nk->nm", prototypes, right) > 0).astype(np.float32),
        pixels=pixels,
        outside=rng.integers(0, 3, n).astype(np.float32),
    )


def everything(evidence: Evidence) -> list[slice]:
    return [slice(0, len(evidence))]


# The fit


@pytest.mark.parametrize("levels", [1, 2])
def test_the_objective_is_its_twin_and_its_gradient_that_of_differences(levels: int) -> None:
    evidence = drawn()
    objective = Objective(evidence, [slice(0, 5), slice(5, 12)], Setting(0.04, levels), 2)
    x = np.random.default_rng(1).normal(0, 0.2, math.prod(objective.shape))
    value, gradient = objective(x)
    correction = objective.correction(x)
    expected = slow.objective(evidence, correction.maps, correction.offsets, SHARPNESS) + 0.02 * float(x @ x)
    assert value == pytest.approx(expected, abs=1e-6)

    def precisely(x: np.ndarray) -> float:
        at = objective.correction(x)
        return slow.objective(evidence, at.maps, at.offsets, SHARPNESS) + 0.02 * float(x @ x)

    for index in range(0, len(x), 3):
        step = np.eye(len(x))[index] * 1e-4
        assert gradient[index] == pytest.approx((precisely(x + step) - precisely(x - step)) / 2e-4, abs=2e-4)


def test_levels_are_a_common_correction_and_what_differs() -> None:
    objective = Objective(drawn(), everything(drawn()), Setting(0.1, 2), 1)
    assert objective.shape == (3, 3, 4)
    x = np.zeros(objective.shape)
    x[0, 0, 1], x[2, 0, 1], x[0, 1, 3] = 0.5, 1.0, 0.25
    correction = objective.correction(x.ravel())
    assert correction.maps[:, 0, 1].tolist() == [0.5, 0.5 + SPREAD]
    np.testing.assert_allclose(correction.offsets[:, 1], 0.25 * objective.scale)


def test_the_fit_finds_what_a_search_with_the_slow_twin_finds() -> None:
    evidence = drawn(k=2, n=8)
    (found,) = fit(evidence, everything(evidence), [Setting(0.3)], 6)
    objective = Objective(evidence, everything(evidence), Setting(0.05), 1)

    def precisely(x: np.ndarray) -> float:
        at = objective.correction(x)
        return slow.objective(evidence, at.maps, at.offsets, SHARPNESS) + 0.05 * float(x @ x)

    search = minimize(precisely, np.zeros(6), options={"maxiter": 60})
    reached = np.concatenate([found.maps[0], found.offsets[0][:, None] / objective.scale], axis=1).ravel()
    assert precisely(reached) <= search.fun + 1e-4
    assert precisely(reached) < 0.9 * precisely(np.zeros(6))


def test_a_ridge_decides_how_much_is_corrected() -> None:
    evidence = drawn(n=60, images=20)
    sizes = [
        float(np.abs(one.maps).sum())
        for one in fit(evidence, everything(evidence), [Setting(r) for r in (200, 2, 0.2)], 20)
    ]
    assert sizes[0] < 0.1 < sizes[1] < sizes[2]


def test_a_fit_of_few_steps_goes_less_far() -> None:
    evidence = drawn(n=60, images=20)
    objective = Objective(evidence, everything(evidence), Setting(0.2), 20)
    losses = []
    for steps in (1, 3, 100):
        (found,) = fit(evidence, everything(evidence), [Setting(0.2)], 20, steps=steps)
        x = np.concatenate([found.maps[0], found.offsets[0][:, None] / objective.scale], axis=1).ravel()
        losses.append(objective(x)[0])
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("outlines", ["ultralytics", "coco"])
def test_evidence_at_all_pixels_gives_the_iou_that_is_measured(outlines: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "PIXELS", 320 * 320)
    for seed in (3, 4):
        scene = draw_scene(seed, (288, 320))
        outlines_of = [
            cv2.findContours(mask.astype(np.uint8), 0, 2)[0][0][:, 0].astype(np.float32) for mask in scene.masks
        ]
        truth = replace(
            GroundTruth.of_masks(scene.masks, scene.classes),
            segments=tuple((outline,) for outline in outlines_of),
            outlines=outlines,
        )
        prediction = load("sample").predict(scene.image)
        matches = match(prediction, truth)
        pairs = list(zip(matches.instances.tolist(), matches.objects.tolist(), strict=True))[:4]
        evidence = gathering._sampled(prediction, truth, pairs, False, np.random.default_rng(0))
        targets = [Region(*patch) for patch in truth.patches("canvas", prediction.letterbox)]
        masks = regions(prediction[matches.instances[:4]], "canvas")
        measured = [mask.iou_with(targets[index]) for mask, (_, index) in zip(masks, pairs, strict=True)]
        np.testing.assert_allclose(sampled_ious(evidence, slice(0, 4), None), measured, atol=1e-6)


def test_sampled_ious_count_pixels() -> None:
    evidence = drawn()
    correction = Correction(np.full((1, 3, 3), 0.2), np.full((1, 3), 0.1))
    for given in (None, correction):
        found = sampled_ious(evidence, slice(2, 9), given)
        for value, i in zip(found, range(2, 9), strict=True):
            c = evidence.coefficients[i] if given is None else given.coefficients(evidence.coefficients[[i]], None)[0]
            mask, inside = evidence.prototypes[i] @ c > 0, evidence.inside[i] > 0
            shared = evidence.pixels[i][mask & inside].sum()
            assert value == pytest.approx(shared / (evidence.pixels[i][mask | inside].sum() + evidence.outside[i]))


def test_altered_views_count_only_where_they_are_wanted() -> None:
    evidence = drawn(n=30)
    augmented = np.random.default_rng(1).random(30) < 0.5
    mixed, parts = replace(evidence, augmented=augmented), [slice(2, 12), slice(20, 29)]
    kept = np.concatenate([np.arange(2, 12), np.arange(20, 29)])
    kept = kept[~augmented[kept]]
    rest = Evidence(**{name: values[kept] for name, values in vars(evidence).items()})
    x = np.random.default_rng(2).normal(0, 0.3, 12)
    without = Objective(mixed, parts, Setting(0.02, views=False), 1)
    value, gradient = without(x)
    expected, slopes = Objective(rest, everything(rest), Setting(0.02), 1)(x)
    assert value == pytest.approx(expected)
    np.testing.assert_allclose(gradient, slopes, rtol=1e-5, atol=1e-8)
    setting = Setting(0.02)
    assert Objective(mixed, parts, setting, 1)(x)[0] == Objective(evidence, parts, setting, 1)(x)[0] != value


# Evidence


def truth_for(prediction_hw: tuple[int, int], *boxes: tuple[int, int, int, int]) -> GroundTruth:
    polygons = tuple(
        (np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], dtype=np.float32),) for x1, y1, x2, y2 in boxes
    )
    return GroundTruth(
        classes=np.zeros(len(boxes), dtype=np.int64),
        segments=polygons,
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        crowd=np.zeros(len(boxes), dtype=bool),
        image_hw=prediction_hw,
    )


def test_evidence_is_the_pixels_of_boxes_as_the_canvas_has_them() -> None:
    prediction = made(0, n=4)
    boxes = np.array([[4, 4, 13, 12], [5, 4, 13, 12], [4, 4, 13, 12], [30, 20, 44, 29]], dtype=np.float32)
    classes, scores = np.array([0, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.6], dtype=np.float32)
    prediction = replace(prediction, canvas_boxes=boxes, classes=classes, scores=scores, levels=np.array([0, 1, 2, 2]))
    truth = truth_for((32, 48), (4, 4, 13, 14), (31, 20, 44, 29))
    found = evidence_of(prediction, truth, np.random.default_rng(0))
    # The best candidate of each ground-truth instance, and the one of the first that falls to NMS; no other class.
    np.testing.assert_array_equal(found.coefficients, prediction.coefficients[[0, 3, 1]])
    assert found.levels.tolist() == [0, 2, 1]
    assert found.outside.tolist() == [18, 0, 26]
    canvas = np.stack([prediction.letterbox.resample(one, "canvas") for one in prediction.prototypes], axis=-1)
    inside = truth.masks()
    masks = prediction.masks("canvas")
    for row, (index, target) in enumerate([(0, 0), (3, 1), (1, 0)]):
        iou = (masks[index] & inside[target]).sum() / (masks[index] | inside[target]).sum()
        assert found.weights[row] == pytest.approx(scores[index] * iou)
        x1, y1, x2, y2 = boxes[index].astype(int)
        count = (y2 - y1) * (x2 - x1)
        assert count <= gathering.PIXELS
        np.testing.assert_allclose(
            found.prototypes[row, :count], canvas[y1:y2, x1:x2].reshape(count, -1), rtol=1e-4, atol=1e-5
        )
        np.testing.assert_array_equal(found.inside[row, :count], inside[target, y1:y2, x1:x2].ravel())
        assert found.pixels[row].tolist() == [1.0] * count + [0.0] * (gathering.PIXELS - count)


def test_of_large_boxes_some_pixels_stand_for_all() -> None:
    prediction = replace(
        made(0, n=1), canvas_boxes=np.array([[2, 2, 42, 30]], dtype=np.float32), classes=np.zeros(1, int)
    )
    found = evidence_of(prediction, truth_for((32, 48), (2, 2, 42, 30)), np.random.default_rng(0))
    assert found.pixels.sum() == pytest.approx(40 * 28, rel=0.1)
    assert (found.pixels > 0).all()
    assert found.inside.all()


def test_pixels_are_drawn_where_a_mask_can_change_and_stand_for_the_others() -> None:
    prediction = made(0, n=1)
    box, truth = np.array([[2, 2, 42, 30]], dtype=np.float32), truth_for((32, 48), (10, 6, 40, 26))
    prediction = replace(prediction, canvas_boxes=box, classes=np.zeros(1, int))
    (logits,) = prediction.logits("canvas")
    near = SHARPNESS * np.abs(logits[2:30, 2:42]) < 2
    assert 0.01 < near.mean() < 0.4
    share, covered = [], []
    for seed in range(200):
        found = evidence_of(prediction, truth, np.random.default_rng(seed))
        drawn_logits = found.prototypes[0] @ found.coefficients[0]
        share.append((SHARPNESS * np.abs(drawn_logits) < 2).mean())
        covered.append(float(found.pixels[0] @ found.inside[0]))
    assert np.mean(share) > 2 * near.mean()
    assert np.mean(covered) == pytest.approx(30 * 20, rel=0.02)


def test_few_candidates_are_kept_where_few_are_asked_for() -> None:
    prediction = made(0, n=6)
    boxes = np.array([[4, 4, 20, 20], [24, 8, 40, 28]] * 3, dtype=np.float32)
    prediction = replace(prediction, canvas_boxes=boxes, classes=np.zeros(6, dtype=np.int64))
    truth = truth_for((32, 48), (4, 4, 20, 20), (24, 8, 40, 28))
    sizes = {most: evidence_of(prediction, truth, np.random.default_rng(0), most=most) for most in (1, 3, 100)}
    assert [len(one) for one in sizes.values()] == [1, 3, 6]
    assert not sizes[3].augmented.any()
    assert evidence_of(prediction, truth, np.random.default_rng(0), augmented=True).augmented.all()
    rule = replace(prediction.rule, objectness=True)
    scaled = replace(prediction, rule=rule, objectness=np.full(6, 0.5, dtype=np.float32))
    assert set(evidence_of(scaled, truth, np.random.default_rng(0)).factors.tolist()) == {0.5}
    empty = replace(prediction, coefficients=np.zeros_like(prediction.coefficients))
    blank = evidence_of(empty, truth, np.random.default_rng(0))
    np.testing.assert_allclose(blank.weights[:2], empty.scores[:2] / 1000)
    (fixed,) = fit(blank, everything(blank), [Setting(0.001)], 1)
    assert sampled_ious(blank, slice(0, len(blank)), fixed).mean() > 0.3
    nothing = evidence_of(prediction[[]], truth, np.random.default_rng(0))
    assert len(nothing) == 0
    joined = Evidence.joined([sizes[3], nothing, sizes[1]])
    assert joined.image.tolist() == [0, 0, 0, 2]
    assert joined.of_images(1, 3) == slice(3, 4)


# Honest measures


def test_an_interval_is_over_images() -> None:
    values = np.array([0.1, 0.1, 0.1, 0.4])
    found = interval(values, np.array([0, 0, 0, 7]))
    assert found.mean == pytest.approx(0.175)
    assert (found.low, found.high) == (pytest.approx(0.1), pytest.approx(0.4))
    assert interval(np.full(5, 0.2), np.arange(5)) == pytest.approx((0.2, 0.2, 0.2))
    assert np.isnan(interval(values, np.zeros(4, dtype=np.int64))[1:]).all()
    assert np.isnan(interval(values[:0], np.zeros(0, dtype=np.int64))).all()
    rng = np.random.default_rng(0)
    noise = rng.normal(0.5, 1, 400)
    low, high = interval(noise, np.arange(400))[1:]
    assert (high - low) / 2 == pytest.approx(1.96 / 20, rel=0.15)
    # Ten copies of each image tell no more than one.
    assert interval(np.repeat(noise, 10), np.repeat(np.arange(400), 10))[1:] == pytest.approx((low, high))


PATH = [[Setting(ridge) for ridge in (10, 1)]]


@pytest.mark.study
def test_nothing_about_a_fold_decides_what_is_measured_on_it() -> None:
    evidence, told = drawn(n=120, images=30), []
    found = cross_fit(evidence, 30, PATH, folds=5, workers=1, on_fit=lambda: told.append(1))
    assert len(told) == fits(30, folds=5)
    assert [(fold.first, fold.stop) for fold in found.folds] == [(0, 6), (6, 12), (12, 18), (18, 24), (24, 30)]
    assert set(found.chosen) == set(PATH[0])
    for fold in found.folds:
        spoilt = evidence.of_images(fold.first, fold.stop)
        inside, coefficients = evidence.inside.copy(), evidence.coefficients.copy()
        inside[spoilt], coefficients[spoilt] = 1 - inside[spoilt], -5
        other = cross_fit(replace(evidence, inside=inside, coefficients=coefficients), 30, PATH, folds=5, workers=1)
        same = next(one for one in other.folds if one.first == fold.first)
        np.testing.assert_array_equal(same.correction.maps, fold.correction.maps)
        assert same.setting == fold.setting
        assert sorted(fold.curve) == curve_sizes(24)
        for size, one in fold.curve.items():
            np.testing.assert_array_equal(same.curve[size].maps, one.maps)
        assert not np.array_equal(other.correction.maps, found.correction.maps)


def test_folds_gain_where_there_is_something_to_gain() -> None:
    evidence = drawn(n=200, images=40)
    found = cross_fit(evidence, 40, PATH, folds=4)
    again = cross_fit(evidence, 40, PATH, folds=4, workers=1)
    np.testing.assert_array_equal(again.correction.maps, found.correction.maps)
    change = []
    for fold in found.folds:
        part = evidence.of_images(fold.first, fold.stop)
        change += (sampled_ious(evidence, part, fold.correction) - sampled_ious(evidence, part, None)).tolist()
    assert np.mean(change) > 0.05


@pytest.mark.study
def test_altered_evidence_has_no_say_in_the_choice() -> None:
    augmented = np.random.default_rng(2).random(120) < 0.4
    evidence = replace(drawn(n=120, images=30), augmented=augmented)
    without = [[Setting(ridge, views=False) for ridge in (10, 1)]]
    found = cross_fit(evidence, 30, without, workers=1)
    inside = np.where(augmented[:, None], 1 - evidence.inside, evidence.inside)
    assert cross_fit(replace(evidence, inside=inside), 30, without, workers=1).chosen == found.chosen
    plain = cross_fit(replace(evidence, augmented=np.zeros_like(augmented)), 30, without, workers=1)
    assert plain.chosen != found.chosen


def test_too_few_images_are_refused() -> None:
    with pytest.raises(InputError, match=r"1 of 9 images have an instance that found .* needs 3 at the very least"):
        cross_fit(replace(drawn(), image=np.zeros(12, dtype=np.int64)), 9, PATH)
    augmented = drawn().image > 0  # only the first image was found unchanged
    with pytest.raises(InputError, match="1 of 6 images"):
        cross_fit(replace(drawn(), augmented=augmented), 6, PATH)
    with pytest.raises(InputError, match="folds is 2; expected at least 3"):
        cross_fit(drawn(), 6, PATH, folds=2)


# Models


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("scenes"), 24, seed=500, validation_share=1)


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with coefficients that a correction can fix."""
    rng = np.random.default_rng(0)
    wrong = Correction(rng.normal(0, 0.09, (3, 32, 32)), rng.normal(0, 0.2, (3, 32)))
    file = tmp_path_factory.mktemp("models") / "damaged.onnx"
    write_corrected(load("sample"), SAMPLE_MODEL, file, wrong)
    return file


@pytest.fixture(scope="module")
def tuned(damaged: Path, dataset: Path) -> Tuning:
    return tune(open_dataset(dataset), load(damaged), folds=3, per_level=True)


def test_a_damaged_network_is_mended(tuned: Tuning) -> None:
    assert tuned.images == tuned.total == 24
    assert {setting.ridge for setting in tuned.fitted.chosen} == set(LITTLE.ridges)
    assert tuned.helps
    assert tuned.change.gain.mean > 0.02
    before, after = tuned.precision
    assert after.ap > before.ap
    assert (
        sum(one.instances for one in tuned.gains.by_size()) == sum(one.instances for one in tuned.gains.by_class()) > 30
    )
    images, gains = zip(*tuned.curve(), strict=True)
    assert list(images) == sorted(images)
    assert images[-1] == 16
    assert gains[-1] == tuned.change.gain
    for gain, change in ((tuned.ap_gain, after.ap - before.ap), (tuned.ap75_gain, after.ap75 - before.ap75)):
        assert gain.mean == pytest.approx(change, abs=1e-6)
        assert gain.low < gain.mean < gain.high
    fewer, rise = tuned.rise
    assert rise.mean == pytest.approx(gains[-1].mean - dict(tuned.curve())[fewer].mean)


def test_more_labels_help_only_if_the_data_say_so(tuned: Tuning) -> None:
    def with_curve(change: Any) -> Tuning:
        rows = [
            row._replace(curve={size: row.after - change(row.image, i) for size in row.curve})
            for i, row in enumerate(tuned.rows)
        ]
        return replace(tuned, rows=rows)

    assert "more labels would help." in sentences(with_curve(lambda image, i: 0.01 + 0.001 * (i % 2)))[-1]
    chance = sentences(with_curve(lambda image, i: 0.002 + 0.05 * (-1) ** image))[
        -1
    ]  # a mean gain that images differ by
    assert "cannot tell whether more labels would help" in chance
    told = sum(
        "more labels would help." in sentences(with_curve(lambda image, i, d=draws: d[image]))[-1]
        for draws in np.random.default_rng(0).normal(0, 0.02, (60, 24))
    )
    assert told <= 3


def test_where_no_gain_is_shown_the_next_step_is_given(tuned: Tuning) -> None:
    def with_gain(mean: float, spread: float) -> Tuning:
        rows = [row._replace(after=row.before + mean + spread * (-1) ** row.image) for row in tuned.rows]
        return replace(tuned, rows=rows)

    assert next_steps(with_gain(0.02, 0.0)) == []
    unsure = with_gain(0.003, 0.02)
    gain = unsure.change.gain
    (count,) = re.findall(r"about (\d+) labelled images would show it; these are 24", " ".join(next_steps(unsure)))
    assert gain.mean - (gain.mean - gain.low) * math.sqrt(24 / int(count)) >= 0  # the low end with that many
    assert "better masks are not shown" in next_steps(unsure)[0]
    assert "hardly change that" in " ".join(next_steps(with_gain(0.0001, 0.05)))
    assert "worse masks" in next_steps(with_gain(-0.02, 0.0))[0]
    assert "20 labelled images at the very least" in " ".join(next_steps(replace(tuned, rows=tuned.rows[:3], images=1)))


def test_of_too_few_images_no_gain_is_claimed(tuned: Tuning) -> None:
    few = replace(tuned, rows=[row for row in tuned.rows if row.image < 19], images=19)
    assert few.change.gain.mean > 0.02
    assert math.isnan(few.change.gain.low)
    assert not few.helps
    assert "too few images to tell whether it helps" in sentences(few)[0]
    assert "Only 19 images: with fewer than 20" in warnings_of(few)[0]
    assert "too few images" in report_page(few, [], {}, [])


def test_the_same_seed_gives_the_same_correction(damaged: Path, dataset: Path) -> None:
    model = load(damaged)
    found = [
        tune(open_dataset(dataset), model, folds=3, limit=4, seed=seed, workers=workers)
        for seed, workers in ((0, 1), (0, 2), (1, 2))
    ]
    np.testing.assert_array_equal(found[0].correction.maps, found[1].correction.maps)
    assert found[0].rows == found[1].rows
    assert found[0].images == 4
    assert found[0].correction.levels == 1
    assert not np.array_equal(found[0].correction.maps, found[2].correction.maps)


def test_extra_is_named_at_once(monkeypatch: pytest.MonkeyPatch, dataset: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "scipy.optimize", None)
    with pytest.raises(MissingExtraError, match=r"tuning needs the package scipy.*maskprism\[tune\]"):
        tune(open_dataset(dataset), Model.__new__(Model))


# The command


def test_the_command_writes_a_file_that_is_better(
    damaged: Path,
    dataset: Path,
    tuned: Tuning,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, correction = tmp_path / "made" / "tuned.onnx", tmp_path / "made" / "tuned.correction.json"

    def known(dataset: Dataset, model: Model, **options: Any) -> Tuning:
        assert (model.spec.sha256, dataset.path) == (tuned.spec.sha256, tuned.dataset.path)
        assert (options["folds"], options["per_level"], options["limit"]) == (3, True, None)
        return tuned

    monkeypatch.setattr(tuning, "tune", known)
    assert tune_command(damaged, data=dataset, out=out, folds=3, per_level=True) == 0
    said = capsys.readouterr().out
    assert "It helps." in said
    assert "the tuned model, the correction folded" in said
    assert sorted(file.name for file in out.parent.iterdir()) == [
        "tuned.correction.json",
        "tuned.onnx",
        "tuned.onnx.tune.manifest.json",
        "tuned.tune.html",
        "tuned.tune.json",
    ]
    scene = draw_scene(7).image
    old, new, corrected = (
        one.predict(scene) for one in (load(damaged), load(out), load(damaged, correction=correction))
    )
    assert len(old) > 0
    for field in ("canvas_boxes", "scores", "classes", "prototypes"):
        np.testing.assert_array_equal(getattr(new, field), getattr(old, field), err_msg=field)
    np.testing.assert_allclose(new.coefficients, corrected.coefficients, rtol=1e-4, atol=1e-4)
    assert np.mean(new.masks() != corrected.masks()) < 1e-5
    assert not np.array_equal(new.masks(), old.masks())
    numbers = json.loads((out.parent / "tuned.tune.json").read_text())
    assert numbers["helps"] is True
    gain = numbers["mask_iou"]["all"]["gain"]
    assert 0 < gain["low"] < gain["mean"] < gain["high"]
    assert numbers["mask_iou"]["all"]["after"] - numbers["mask_iou"]["all"]["before"] == pytest.approx(gain["mean"])
    assert sum(one["images"] for one in numbers["folds"]) == numbers["data"]["images"] == 24
    page = (out.parent / "tuned.tune.html").read_text()
    assert page.count("<img") == 2 + 24  # figures, and masks before and after
    assert "tuned.onnx holds the correction, folded." in page
    assert json.loads((out.parent / "tuned.onnx.tune.manifest.json").read_text())["thumbnail"] in page


@pytest.mark.study
@pytest.mark.usefixtures("written_only")
def test_what_may_be_chance_is_not_written_unless_forced(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tuned.onnx"
    assert tune_command(Path("sample"), data=dataset, out=out, folds=3, limit=5) == 1
    told = capsys.readouterr()
    assert "was not written: its gain of" in told.err
    assert "label more images, or add --force" in told.err
    assert not out.exists()
    assert "The model was not written" in (tmp_path / "tuned.tune.html").read_text()
    with pytest.raises(MaskprismError, match=r"tuned.onnx.tune.manifest.json: exists; .* give --overwrite"):
        tune_command(Path("sample"), data=dataset, out=out, folds=3, limit=5, force=True)
    assert tune_command(Path("sample"), data=dataset, out=out, folds=3, limit=5, force=True, overwrite=True) == 0
    assert out.exists()


@pytest.mark.usefixtures("written_only")
def test_the_correction_can_be_had_alone(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "alone.json"
    assert tune_command(Path("sample"), data=dataset, out=out, folds=3, limit=5, force=True) == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "alone.json",
        "alone.json.tune.manifest.json",
        "alone.tune.html",
        "alone.tune.json",
    ]
    assert load("sample", correction=out).correction is not None


def test_mistakes_of_the_user(damaged: Path, dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned.onnx"

    def refused(text: str, model: Path = damaged, data: Path = dataset, out: Path = out, **options: Any) -> None:
        with pytest.raises(MaskprismError, match=text):
            tune_command(model, data=data, out=out, **options)

    refused("expected a file name ending in .onnx, as the model has it, or in .json", out=tmp_path / "tuned.pt")
    refused("as the model has it, or in .json", out=tmp_path / "correction.npz")
    refused("leave out --correction", reading=ReadingOptions(correction=tmp_path / "correction.json"))
    refused("is the model itself", out=damaged)
    refused("there is no such model file", tmp_path / "none.onnx")
    (tmp_path / "there.onnx").write_bytes(b"")
    refused("exists; choose another --out", out=tmp_path / "there.onnx")
    for name, kind in (("model.tflite", "TFLite files"), ("model.xml", "OpenVINO files")):
        (tmp_path / name).write_bytes(b"x")
        refused(f"{kind} cannot be rewritten; tune the .onnx or .pt .* --out FILE.json", tmp_path / name)
    refused("holds no model; is it a complete .onnx", tmp_path / "there.onnx")
    (tmp_path / "folder.onnx").mkdir()
    refused("folder.onnx: is a folder", out=tmp_path / "folder.onnx")
    refused("seed is -1; expected 0 or more", seed=-1)
    refused("cannot be written", out=tmp_path / "there.onnx" / "tuned.onnx")
    refused("there is no such file", data=tmp_path / "none.yaml")
    refused("limit is 0", limit=0)
    refused("folds is 2", folds=2, limit=4)
    refused(r"2 of 2 images have an instance that found .* needs 3 at the very least", limit=2)
    other = Tiny(prototypes=32, metadata=ultralytics_metadata()).save(tmp_path / "other.onnx")
    refused(r"none of its \d+ classes", other)
    boxes = tmp_path / "boxes"
    described = write_dataset(boxes, 3, validation_share=1)
    for file in boxes.rglob("labels/**/*.txt"):
        file.write_text("".join(f"{line.split()[0]} 0.5 0.5 0.2 0.2\n" for line in file.read_text().splitlines()))
    refused("labels no masks of classes that the model knows", data=described)
    assert not out.exists()


def test_broken_images_are_left_out_and_broken_networks_refused(damaged: Path, dataset: Path, tmp_path: Path) -> None:
    described = write_dataset(tmp_path / "broken", 5, validation_share=1)
    next(file for file in tmp_path.rglob("*") if file.suffix in (".jpg", ".png")).write_bytes(b"no image")
    model, told = load(damaged), []
    found = tune(open_dataset(described), model, folds=3, on_progress=lambda *step: told.append(step))
    assert (found.images, found.total, len(found.failures)) == (4, 5, 1)
    assert [failed is not None for _, _, failed in told].count(True) == 1
    assert "1 image of 5 could not be used" in "".join(warnings_of(found))
    runtime = model.runtime

    def broken(batch: np.ndarray) -> list[np.ndarray]:
        outputs = runtime(batch)
        outputs[model.layout.prototypes_output] = outputs[model.layout.prototypes_output] * np.nan
        return outputs

    spoilt = replace(model, runtime=FunctionRuntime(broken, runtime.input, runtime.metadata))
    with pytest.raises(InputError, match=r"not one of 4 images can be used .*prototypes 0, 1, .* NaN or infinity"):
        tune(open_dataset(dataset), spoilt, folds=3, limit=4)


@pytest.mark.parametrize("beside", ["tuned.tune.html", "tuned.tune.json", "tuned.correction.json"])
def test_existing_files_are_kept_and_options_checked_before_the_model_runs(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: str
) -> None:
    monkeypatch.setattr(Model, "predict", lambda *_: pytest.fail("the model ran"))
    (tmp_path / beside).write_text("mine")
    out = tmp_path / "tuned.onnx"
    with pytest.raises(MaskprismError, match=f"{beside}: exists"):
        tune_command(Path("sample"), data=dataset, out=out)
    assert (tmp_path / beside).read_text() == "mine"
    for options, text in (({"folds": 2}, "folds is 2"), ({"limit": 0}, "limit is 0"), ({"seed": -1}, "seed is -1")):
        with pytest.raises(InputError, match=text):
            tune_command(Path("sample"), data=dataset, out=out, overwrite=True, **options)


@pytest.mark.usefixtures("written_only")
def test_the_model_is_written_last(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped while the report is written, the same command can be called again."""
    out, whole = tmp_path / "tuned.onnx", files.write_report

    def stopped(*_: object) -> None:
        assert not out.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "write_report", stopped)
    options: dict[str, Any] = {"data": dataset, "out": out, "folds": 3, "limit": 5, "force": True}
    with pytest.raises(KeyboardInterrupt):
        tune_command(Path("sample"), **options)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(files, "write_report", whole)
    assert tune_command(Path("sample"), **options) == 0
    assert len(list(tmp_path.iterdir())) == 5


@pytest.mark.usefixtures("written_only")
def test_folds_are_at_most_the_images(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tune_command(Path("sample"), data=dataset, out=tmp_path / "a.json", folds=10**9, limit=4, force=True) == 0
    assert "--folds 1000000000 is more than there are images; each of the 4 is a fold" in capsys.readouterr().err
    assert len(json.loads((tmp_path / "a.tune.json").read_text())["folds"]) == 4
