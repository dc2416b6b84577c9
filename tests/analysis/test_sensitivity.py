"""The gradient of soft Dice against finite differences."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import reference_attribution as slow
from helpers.by_hand import drawn, square
from helpers.strategies import predictions, seeds
from maskprism import RULES
from maskprism.analysis.instance.coefficient_sensitivity import sensitivity


@settings(max_examples=20)
@given(predictions(max_count=1), st.sampled_from(["grid", "canvas", "image"]), st.booleans(), seeds)
def test_gradients_match_finite_differences(prediction, size, given_target, seed):
    instance = prediction[0]
    target = instance.mask(size)
    if given_target:
        target = np.random.default_rng(seed).random(target.shape) < 0.4
        if target.shape == prediction.image_size and size != "image":
            return  # taken for a mask of the image
    found = sensitivity(instance, size=size, target=target if given_target else None)
    weights = instance.weights.astype(float)
    scale = float(prediction.objectness[0]) if prediction.rule.objectness else 1.0
    assert found.dice == pytest.approx(slow.soft_dice(instance, weights, target, size), abs=1e-4)
    for k in range(len(weights)):
        step = np.zeros(len(weights))
        step[k] = 1e-5
        slope = slow.soft_dice(instance, weights + step, target, size)
        slope = (slope - slow.soft_dice(instance, weights - step, target, size)) / 2e-5
        assert found.gradient[k] == pytest.approx(slope * scale, abs=2e-4, rel=2e-3)
        assert found.elasticity[k] == pytest.approx(weights[k] * slope, abs=2e-4, rel=2e-3)


@settings(max_examples=20)
@given(predictions(max_count=1), st.sampled_from([-4.0, -0.5, 2.0]))
def test_elasticities_do_not_depend_on_the_scale_of_prototypes(prediction, factor):
    rescaled = replace(
        prediction,
        prototypes=prediction.prototypes * np.float32(factor),
        coefficients=prediction.coefficients / np.float32(factor),
    )
    before, after = sensitivity(prediction[0]), sensitivity(rescaled[0])
    np.testing.assert_allclose(after.elasticity, before.elasticity, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(after.gradient, before.gradient * factor, rtol=1e-3, atol=1e-5)


def test_the_gradient_points_towards_the_truth():
    prediction = drawn(square(1, -1), np.ones((16, 16)), weights=[1, 0.5])
    truth = np.kron(square(), np.ones((4, 4))) > 0
    found = sensitivity(prediction[0], target=truth)
    assert found.gradient[0] > 0 > found.gradient[1]


def test_gradients_are_by_the_coefficients_as_the_network_gave_them():
    prediction = drawn(square(1, -1), np.ones((16, 16)), weights=[1, 0.5])
    truth = np.kron(square(), np.ones((4, 4))) > 0
    halved = replace(prediction, rule=replace(prediction.rule, objectness=True), objectness=np.float32([0.5]))
    doubled = replace(halved, coefficients=2 * prediction.coefficients)
    plain, found = sensitivity(prediction[0], target=truth), sensitivity(doubled[0], target=truth)
    np.testing.assert_allclose(found.gradient, plain.gradient / 2, rtol=1e-5)
    np.testing.assert_allclose(found.elasticity, plain.elasticity, rtol=1e-5)


def test_empty_masks():
    prediction = drawn(square(), weights=[-1])
    found = sensitivity(prediction[0])
    assert found.dice == 0
    assert found.gradient.tolist() == [0]  # no change of a coefficient helps while nothing is wanted
    outside = replace(prediction, canvas_boxes=np.array([[900, 900, 950, 950]], dtype=np.float32))
    for rule in RULES.values():
        one = replace(outside, rule=rule, objectness=np.ones(1, dtype=np.float32))
        if rule.crop != "none":
            assert sensitivity(one[0], size="canvas").dice == 1
