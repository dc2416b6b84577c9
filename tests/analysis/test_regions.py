"""Which prototypes decide a pixel, and which make a region."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers import reference
from helpers import reference_attribution as slow
from helpers.by_hand import drawn, square
from helpers.strategies import predictions, seeds
from maskprism import RULES, Edit, Prediction
from maskprism.analysis.instance.regions import pixel_query, region_blame, truth_blame
from maskprism.errors import InputError


def decided(prediction: Prediction) -> np.ndarray:
    """What the mask of the image's size compares with zero; NaN beyond the crop."""
    patch = next(prediction[[0]].patches("image"))
    values = np.full(prediction.image_size, np.nan)
    values[patch.rows, patch.columns] = 4 * (patch.values - 0.5) if prediction.rule.squash else patch.values
    return values


@settings(max_examples=60)
@given(predictions(max_count=1), st.data())
def test_contributions_sum_to_what_decides_the_pixel(prediction, data):
    height, width = prediction.image_size
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    query = pixel_query(prediction[0], x, y)
    value = decided(prediction)[y, x]
    assert query.logit == pytest.approx(query.contributions.sum() + query.crop)
    assert query.in_crop == np.isfinite(value)
    if query.in_crop:
        assert query.logit == pytest.approx(value, abs=1e-4 * max(1.0, float(np.abs(prediction.weights).sum())))
    if not abs(query.logit) < 1e-4:
        assert query.in_mask == prediction[0].mask("image")[y, x]
    if not prediction.rule.squash:
        assert query.crop == 0


@settings(max_examples=40)
@given(predictions(max_count=1), st.data())
def test_told_from_means_the_patterns_and_one_level_sum_to_the_same(prediction, data):
    """As if every prototype had its mean over the image taken off, and a flat one carried all the means."""
    instance = prediction[0]
    height, width = prediction.image_size
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    plain, query = pixel_query(instance, x, y), pixel_query(instance, x, y, baseline="mean")
    assert plain.level == 0
    sizes = np.abs(instance.weights) @ np.abs(instance.prototypes).max(axis=(1, 2))
    assert query.level + query.contributions.sum() + query.crop == pytest.approx(query.logit)
    assert query.logit == pytest.approx(plain.logit, abs=1e-5 * max(1.0, float(sizes)))
    assert query.margins.tolist() == plain.margins.tolist()
    if query.in_crop and not prediction.rule.squash and prediction.rule.crop_image != "before":
        rows, columns = instance.letterbox.content_cells
        means = instance.prototypes[:, rows, columns].mean(axis=(1, 2))
        np.testing.assert_allclose(query.contributions, plain.contributions - instance.weights * means, atol=1e-4)
    with pytest.raises(InputError, match="baseline is 'blur'"):
        pixel_query(instance, x, y, baseline="blur")


@pytest.mark.parametrize("name", ["yolact", "ultralytics-8.4.83", "ultralytics-8.2"])
def test_pixels_that_the_crop_halves(name):
    """Where a crop on the grid takes some of the cells that a pixel reads, what it takes is reported apart."""
    prediction = drawn(square(1, -0.5), np.ones((16, 16)), weights=[2, 0.7], box=(5, 5, 11, 14))
    rule = replace(RULES[name], crop_image="before")
    one = replace(prediction, rule=rule, letterbox=replace(prediction.letterbox, image_hw=(96, 96)))
    values, halved = decided(one), 0
    for y in range(24, 36, 3):
        for x in range(96):
            query = pixel_query(one[0], x, y)
            assert query.in_crop == np.isfinite(values[y, x])
            if query.in_crop:
                assert query.logit == pytest.approx(values[y, x], abs=1e-4)
                assert query.in_mask == (values[y, x] > 0)
                halved += query.crop < 0
    assert (halved > 0) == rule.squash  # zero logits are at the threshold, zero probabilities below it


@settings(max_examples=25)
@given(predictions(max_count=1), st.data())
def test_contributions_are_the_resized_terms(prediction, data):
    assume(not prediction.rule.squash)
    height, width = prediction.image_size
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    query = pixel_query(prediction[0], x, y)
    if query.in_crop:
        np.testing.assert_allclose(query.contributions, slow.terms(prediction[0], "image")[:, y, x], atol=1e-4)


@settings(max_examples=15)
@given(predictions(max_count=1, rule=RULES["ultralytics-8.2"]), st.data())
def test_contributions_where_probabilities_are_resized(prediction, data):
    """Every cell shares its probability's distance from 1/2 in proportion to the terms."""
    instance = prediction[0]
    height, width = prediction.image_size
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    query = pixel_query(instance, x, y)
    logits = reference.summed_terms(instance.weights, instance.prototypes)
    assume((np.abs(logits) > 1e-3).all())
    share = 4 * (1 / (1 + np.exp(-logits)) - 0.5) / logits
    for k in range(len(prediction.prototypes)):
        term = share * float(instance.weights[k]) * instance.prototypes[k]
        resized = reference.resampled(term, instance.letterbox, "image", instance.rule.unpad)
        assert query.contributions[k] == pytest.approx(resized[y, x], abs=1e-3)


@settings(max_examples=40)
@given(predictions(max_count=1), st.data())
def test_a_coefficient_moved_past_its_margin_flips_the_pixel(prediction, data):
    height, width = prediction.image_size
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    query = pixel_query(prediction[0], x, y)
    if not query.in_crop:
        assert np.isinf(query.margins).all()
        assert query.easiest is None
        return
    assume(abs(query.logit) > 1e-3)
    for k, margin in enumerate(query.margins):
        if not np.isfinite(margin) or abs(margin) > 1e3:
            continue
        before = float(prediction.coefficients[0, k])
        for factor, flips in ((1.02, True), (0.98, False)):
            edited = Edit(set={k: before + factor * float(margin)}).apply(prediction)
            flipped = bool(edited[0].mask("image")[y, x]) != query.in_mask
            if prediction.rule.squash and flips:
                continue  # not monotone: further on it may flip back
            assert flipped == flips, (k, margin, factor)
    if query.easiest is not None:
        assert abs(query.margins[query.easiest]) == np.abs(query.margins).min()


def test_margins_where_probabilities_are_resized_flip_too():
    prediction = drawn(square(1, -1), square(-1, 0.3), np.zeros((16, 16)), weights=[1, 0.2, 3])
    for name in ("ultralytics-8.2", "yolact", "yolov5"):
        one = replace(prediction, rule=RULES[name], objectness=np.full(1, 0.5, dtype=np.float32))
        query = pixel_query(one[0], 15, 30)
        assert np.isinf(query.margins[2])  # the prototype is zero there
        for k in (0, 1):
            moved = float(one.coefficients[0, k] + 1.001 * query.margins[k])
            assert Edit(set={k: moved}).apply(one)[0].mask("image")[30, 15] != query.in_mask
            short = float(one.coefficients[0, k] + 0.999 * query.margins[k])
            assert Edit(set={k: short}).apply(one)[0].mask("image")[30, 15] == query.in_mask


@pytest.mark.parametrize("sign", [1, -1])
def test_of_two_changes_that_flip_a_pixel_the_smaller_is_its_margin(sign):
    """Where probabilities are resized, more and less of a prototype may both flip a pixel between cells."""
    cells, other = np.zeros((16, 16)), np.zeros((16, 16))
    cells[7:9, 7:9], other[7:9, 7:9] = [[4, -1], [-3, -4]], np.array([[0, 2], [-1, 2]]) * sign
    prediction = replace(drawn(cells, other, weights=[1, 0]), rule=RULES["ultralytics-8.2"])
    query = pixel_query(prediction[0], 31, 31)
    assert query.margins[1] == pytest.approx(sign * 0.39, abs=0.02)
    for weight, flips in ((0.35, False), (0.45, True), (-2.9, False), (-3.1, True)):
        edited = Edit(set={1: sign * weight}).apply(prediction)
        assert (edited[0].mask("image")[31, 31] != query.in_mask) == flips


def test_a_pixel_by_hand():
    prediction = replace(drawn(square(2, -1), np.ones((16, 16)), weights=[1.5, -0.5]), rule=RULES["retina"])
    inside, outside = pixel_query(prediction[0], 32, 32), pixel_query(prediction[0], 2, 2)
    assert inside.contributions.tolist() == [3, -0.5]
    assert (inside.logit, inside.in_mask, inside.in_crop) == (2.5, True, True)
    assert inside.margins.tolist() == [-1.25, -2.5]
    assert inside.easiest == 0
    assert inside.rows()[0] == {"prototype": 0, "contribution": 3.0, "margin": -1.25}
    assert outside.contributions.tolist() == [-1.5, -0.5]
    assert outside.margins.tolist() == [-2.0, 2.0]
    assert not outside.in_mask


@pytest.mark.parametrize("place", [(64, 0), (0, 64), (-1, 5), (5, -1)])
def test_pixels_outside_the_image_are_refused(place):
    prediction = drawn(square(), weights=[1])
    with pytest.raises(InputError, match=r"is outside the image; expected x from 0 to 63 and y from 0 to 63"):
        pixel_query(prediction[0], *place)


@settings(max_examples=80)
@given(predictions(max_count=1), seeds)
def test_blame_is_the_mean_of_pixel_queries(prediction, seed):
    instance = prediction[0]
    share = min(0.1, 60 / np.prod(prediction.image_size))
    region = np.random.default_rng(seed).random(prediction.image_size) < share
    assume(region.any())
    blame = region_blame(instance, region)
    queries = [pixel_query(instance, int(x), int(y)) for y, x in zip(*np.nonzero(region), strict=True)]
    counted = [query for query in queries if query.in_crop]
    assert (blame.pixels, blame.cropped) == (len(counted), len(queries) - len(counted))
    if counted:
        np.testing.assert_allclose(
            blame.contributions, np.mean([query.contributions for query in counted], axis=0), atol=1e-3
        )
        assert blame.logit == pytest.approx(np.mean([query.logit for query in counted]), abs=1e-3)
    else:
        assert np.isnan(blame.contributions).all()
        assert blame.shares.sum() == 0


@settings(max_examples=25)
@given(predictions(max_count=1), seeds)
def test_false_regions_and_references(prediction, seed):
    instance = prediction[0]
    mask = instance.mask("image")
    truth = np.random.default_rng(seed).random(prediction.image_size) < 0.5
    positives, negatives = truth_blame(instance, truth)
    assert positives.pixels == (mask & ~truth).sum()
    assert positives.cropped == 0
    assert negatives.pixels + negatives.cropped == (truth & ~mask).sum()
    np.testing.assert_array_equal(positives.region, mask & ~truth)
    if mask.any():
        own = region_blame(instance, mask)
        np.testing.assert_allclose(positives.inside, own.contributions, atol=1e-4)
        np.testing.assert_allclose(own.contributions, own.inside, atol=1e-4)


def test_the_guilty_prototype_is_named():
    spot, hole = np.zeros((16, 16)), np.zeros((16, 16))
    spot[:2] = 3
    hole[6:8, 6:8] = -2
    prediction = drawn(square(1, -1), spot, hole, np.full((16, 16), 0.01), weights=[1, 1, 1, 1])
    truth = np.kron(square(), np.ones((4, 4))) > 0
    positives, negatives = truth_blame(prediction[0], truth)
    assert positives.kind == "false positives"
    assert positives.order[0] == 1
    assert positives.shares[1] > 0.95
    assert negatives.order[0] == 2
    assert negatives.shares[2] == 1
    row = negatives.rows()[0]
    assert row["prototype"] == 2
    assert row["contribution"] < -1
    assert row["departure"] == pytest.approx(row["contribution"] - row["inside"])
    assert row["departure"] < 0
    perfect = truth_blame(prediction[0], prediction[0].mask("image"))
    assert [one.pixels for one in perfect] == [0, 0]
    assert np.isnan(perfect[0].logit)


def test_the_prototype_that_failed_is_told_from_the_one_that_always_pushes_down():
    """Prototype 0 lowers everything by 1; prototype 1 makes up for it, except in a corner of the object."""
    builds = square(3)
    builds[4:6, 4:6] = 0
    prediction = drawn(np.full((16, 16), -1.0), builds, weights=[1, 1])
    truth = np.kron(square(), np.ones((4, 4))) > 0
    _, negatives = truth_blame(prediction[0], truth)
    assert negatives.order[0] == 0
    assert negatives.shares[0] == 1
    assert negatives.unusual[0] == 1
    assert negatives.departures[1] < -2
    assert negatives.departures[0] == 0
    positives, _ = truth_blame(prediction[0], np.zeros((64, 64), dtype=bool))
    np.testing.assert_allclose(positives.departures, positives.contributions - positives.outside)
    region = region_blame(prediction[0], truth)
    np.testing.assert_array_equal(region.departures, region.contributions)


def test_regions_on_the_canvas():
    prediction = drawn(square(1, -1), weights=[1])
    letterbox = replace(prediction.letterbox, image_hw=(128, 128))
    large = replace(prediction, letterbox=letterbox)
    canvas = np.zeros((64, 64), dtype=bool)
    canvas[30:34, 30:34] = True
    image = np.kron(canvas, np.ones((2, 2))) > 0
    one, other = region_blame(large[0], canvas), region_blame(large[0], image)
    assert (one.pixels, other.pixels) == (16, 64)
    assert one.contributions[0] == other.contributions[0] == 1
    for wrong, message in (
        (np.zeros((5, 5), dtype=bool), r"region has shape \(5, 5\); expected that of the image, \(128, 128\)"),
        (np.zeros((64, 64)), "region holds float64; expected booleans"),
        (np.zeros((64, 64), dtype=bool), "the region is empty"),
    ):
        with pytest.raises(InputError, match=message):
            region_blame(large[0], wrong)
    with pytest.raises(InputError, match="truth has shape"):
        truth_blame(large[0], np.zeros((5, 5), dtype=bool))
