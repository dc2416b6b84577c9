"""Shapley values: exact for logits, sampled for masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import reference
from helpers import reference_attribution as slow
from helpers.by_hand import drawn, square
from helpers.strategies import predictions, seeds
from maskprism import Decomposition, Letterbox
from maskprism.analysis.instance.shapley_values import shapley, shapley_logits
from maskprism.analysis.instance.subset_masks import SubsetMasks
from maskprism.errors import InputError


@settings(max_examples=15)
@given(predictions(max_count=1), st.data())
def test_shapley_values_of_a_logit_are_the_terms(prediction, data):
    """The definition, enumerated at one cell."""
    instance = prediction[0]
    k, height, width = prediction.prototypes.shape
    y, x = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))

    def logit(members: frozenset[int]) -> float:
        return float(reference.summed_terms(instance.weights, instance.prototypes, sorted(members))[y, x])

    shares = shapley_logits(instance)
    np.testing.assert_allclose(shares.values[:, y, x], slow.shapley(logit, k), atol=1e-4)
    np.testing.assert_array_equal(shares.values, Decomposition(instance).terms)
    assert shares.baseline == 0


@settings(max_examples=25)
@given(predictions(max_count=1), st.sampled_from(["zero", "mean"]))
def test_logit_shares_add_up(prediction, baseline):
    shares = shapley_logits(prediction[0], baseline=baseline)
    np.testing.assert_allclose(
        shares.values.sum(axis=0) + shares.baseline, Decomposition(prediction[0]).logits, atol=1e-3
    )


def test_a_flat_prototype_is_worth_nothing_beside_its_mean():
    shares = shapley_logits(drawn(square(), np.full((16, 16), 3.0), weights=[1, -2])[0], baseline="mean")
    assert not shares.values[1].any()
    assert shares.baseline == pytest.approx(0.25 - 6)


def test_means_are_over_the_image_without_its_padding():
    prediction = drawn(square(), weights=[1])
    padded = replace(prediction, letterbox=Letterbox.fit((32, 64), (64, 64)))  # the middle half of the rows
    assert shapley_logits(padded[0], baseline="mean").baseline == pytest.approx(64 / 128)


@settings(max_examples=10)
@given(predictions(max_count=1), st.sampled_from(["iou", "dice"]))
def test_sampled_values_agree_with_enumeration(prediction, metric):
    instance = prediction[0]
    k = min(len(prediction.prototypes), 4)
    instance = type(prediction)(
        prediction.canvas_boxes,
        prediction.scores,
        prediction.classes,
        prediction.coefficients[:, :k],
        prediction.prototypes[:k],
        prediction.letterbox,
        prediction.rule,
        objectness=prediction.objectness,
    )[0]
    game = SubsetMasks(instance, metric=metric)
    exact = slow.shapley(lambda members: game.of(sorted(members)), k)
    found = shapley(instance, metric=metric, permutations=400, seed=3)
    assert (np.abs(found.values - exact) <= 5 * found.standard_errors + 1e-9).all()
    assert sum(exact) == pytest.approx(game.full - game.none)


@settings(max_examples=20)
@given(predictions(max_count=1), seeds, st.sampled_from(["grid", "canvas", "image"]))
def test_values_sum_to_what_all_change_however_few_orders(prediction, seed, size):
    found = shapley(prediction[0], permutations=4, seed=seed, size=size)
    assert found.values.sum() == pytest.approx(found.full - found.none, abs=1e-12)
    again = shapley(prediction[0], permutations=4, seed=seed, size=size)
    np.testing.assert_array_equal(again.values, found.values)


def test_standard_errors_are_those_of_repeated_sampling():
    rng = np.random.default_rng(5)
    prediction = drawn(*rng.normal(size=(6, 16, 16)), weights=[1.0, -1, 0.5, 2, 1, -0.3])
    runs = [shapley(prediction[0], permutations=32, seed=seed) for seed in range(150)]
    spread = np.var([run.values for run in runs], axis=0, ddof=1).sum()
    claimed = np.mean([run.standard_errors**2 for run in runs], axis=0).sum()
    assert claimed == pytest.approx(spread, rel=0.25)


def test_reversed_orders_lower_the_error():
    """Against as many independent orders, on a mask that several prototypes draw together."""
    rng = np.random.default_rng(6)
    noise = [0.5 * rng.normal(size=(16, 16)) for _ in range(6)]
    prediction = drawn(*(square(1, -1) + one for one in noise), weights=[1.0, 1, 0.5, 2, 1, -0.5])
    game = SubsetMasks(prediction[0])

    def independent(seed: int) -> np.ndarray:
        orders = np.random.default_rng(seed)
        values = np.zeros(6)
        for _ in range(16):
            order = orders.permutation(6)
            values[order] += np.diff(game.growing(order)) / 16
        return values

    paired = np.var([shapley(prediction[0], permutations=16, seed=seed).values for seed in range(150)], axis=0)
    plain = np.var([independent(seed) for seed in range(150)], axis=0)
    assert paired.sum() < 0.9 * plain.sum()


def test_symmetry_and_dummies():
    """Twins are worth the same, and what draws nothing is worth nothing."""
    prediction = drawn(square(), square(), 1e-6 * square(0, 1), np.ones((16, 16)), weights=[1, 1, 1, -0.5])
    found = shapley(prediction[0], permutations=2000)
    assert found.values[0] == pytest.approx(found.values[1], abs=4 * found.standard_errors[:2].sum())
    assert set(found.order()[:2].tolist()) == {0, 1}
    empty = shapley(drawn(square(), weights=[-1])[0], permutations=4)
    assert (empty.full, empty.none, empty.values.tolist()) == (1, 1, [0])


def test_a_harmful_prototype_has_a_negative_value_against_the_truth():
    spot = np.zeros((16, 16))
    spot[:2] = 3
    prediction = drawn(square(1, -1), spot, weights=[1, 1])
    truth = np.kron(square(), np.ones((4, 4))) > 0
    found = shapley(prediction[0], target=truth)
    assert found.values[0] > 0 > found.values[1]
    assert found.values.sum() == pytest.approx(found.full - found.none)


def test_mistakes_are_told():
    instance = drawn(square(), weights=[1])[0]
    for wrong in (0, 2, 7):
        with pytest.raises(InputError, match=f"permutations is {wrong}; expected an even number of at least 4"):
            shapley(instance, permutations=wrong)
    with pytest.raises(InputError, match="baseline is 'blur'"):
        shapley_logits(instance, baseline="blur")
