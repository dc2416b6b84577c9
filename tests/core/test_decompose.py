"""Decompositions add up exactly, and edits do what they say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import reference
from helpers.strategies import predictions, seeds
from maskprism import RULES, Decomposition, Edit, Letterbox, Prediction
from maskprism.core.decomposition import ORDERS
from maskprism.errors import InputError


def pair() -> Prediction:
    """Two instances over four prototypes."""
    rng = np.random.default_rng(3)
    return Prediction(
        canvas_boxes=np.array([[4, 4, 20, 28], [0, 0, 32, 32]], dtype=np.float32),
        scores=np.array([0.9, 0.8], dtype=np.float32),
        classes=np.array([0, 1]),
        coefficients=np.array([[1, -2, 3, 0.5], [5, 6, 7, 8]], dtype=np.float32),
        prototypes=rng.normal(0, 1, (4, 8, 8)).astype(np.float32),
        letterbox=Letterbox.fit((32, 32), (32, 32)),
        rule=RULES["ultralytics"],
    )


def assert_equal(one: Prediction, other: Prediction) -> None:
    for name in ("canvas_boxes", "scores", "classes", "coefficients", "prototypes"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert (one.letterbox, one.rule, one.names, one.source) == (other.letterbox, other.rule, other.names, other.source)


# --- decomposition --------------------------------------------------------------------------------


@given(predictions())
def test_the_parts_add_up(prediction):
    for index, instance in enumerate(prediction):
        parts = Decomposition(instance)
        logits = reference.summed_terms(instance.weights, instance.prototypes)
        np.testing.assert_allclose(parts.logits, logits, atol=1e-4)
        np.testing.assert_allclose(parts.logits, prediction.logits()[index], atol=1e-4)
        np.testing.assert_allclose(parts.terms.sum(axis=0), logits, atol=1e-4)
        np.testing.assert_allclose(parts.positive + parts.negative, logits, atol=1e-4)
        assert (parts.positive >= 0).all()
        assert (parts.negative <= 0).all()
        for k, term in enumerate(parts.terms):
            np.testing.assert_allclose(
                term, reference.summed_terms(instance.weights, instance.prototypes, [k]), atol=1e-5
            )


@given(predictions(), st.data())
def test_running_sums_end_in_the_logits(prediction, data):
    parts = Decomposition(prediction[0])
    k = len(prediction.prototypes)
    order = data.draw(st.permutations(range(k)))
    sums = parts.partial(order)
    for count, found in enumerate(sums, start=1):
        expected = reference.summed_terms(prediction.weights[0], prediction.prototypes, order[:count])
        np.testing.assert_allclose(found, expected, atol=1e-4)
    np.testing.assert_allclose(sums[-1], parts.logits, atol=1e-4)
    np.testing.assert_allclose(parts.partial()[-1], parts.logits, atol=1e-4)
    assert len(parts.partial(order[: k // 2])) == k // 2


@given(predictions())
def test_orders_match_their_twins(prediction):
    parts = Decomposition(prediction[0])
    weights = prediction.weights[0].tolist()
    indices = range(len(weights))
    assert parts.order("index").tolist() == list(indices)
    assert parts.order("weight").tolist() == sorted(indices, key=lambda k: -weights[k])
    assert parts.order("magnitude").tolist() == sorted(indices, key=lambda k: -abs(weights[k]))
    effects = parts.effects.tolist()
    assert parts.order("effect").tolist() == sorted(indices, key=lambda k: -effects[k])
    np.testing.assert_array_equal(parts.order(), parts.order("effect"))


@given(predictions())
def test_effects_and_contributions_are_means_over_the_cells_in_the_box(prediction):
    instance = prediction[0]
    parts = Decomposition(instance)
    box = instance.letterbox.from_canvas(instance.canvas_box, "grid").tolist()
    kept = reference.inside(instance.letterbox.grid_hw, box)
    rows, columns = parts.box_window
    assert rows.stop > rows.start
    assert columns.stop > columns.start
    if not kept.any():  # a thin box still has the cell that it starts in
        return
    for k, prototype in enumerate(instance.prototypes):
        values = [float(instance.weights[k]) * float(v) for v in prototype[kept]]
        assert parts.effects[k] == pytest.approx(sum(map(abs, values)) / len(values), rel=1e-3, abs=1e-5)
        assert parts.mean_contributions[k] == pytest.approx(sum(values) / len(values), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ([4, 4, 20, 28], (slice(1, 7), slice(1, 5))),
        ([5, 5, 6, 6], (slice(1, 2), slice(1, 2))),  # between two cell corners
        ([9, 17, 10, 18], (slice(4, 5), slice(2, 3))),
        ([-90, -90, -80, -80], (slice(0, 1), slice(0, 1))),
        ([90, 90, 99, 99], (slice(7, 8), slice(7, 8))),
        ([np.nan, np.nan, np.nan, np.nan], (slice(0, 1), slice(0, 1))),
    ],
)
def test_the_box_window_has_at_least_one_cell(box, window):
    prediction = replace(pair()[[0]], canvas_boxes=np.array([box], dtype=np.float32))
    assert Decomposition(prediction[0]).box_window == window


def test_ties_keep_index_order():
    prediction = replace(pair(), coefficients=np.array([[1, -1, 1, -1], [0, 0, 0, 0]], dtype=np.float32))
    parts = Decomposition(prediction[0])
    assert parts.order("weight").tolist() == [0, 2, 1, 3]
    assert parts.order("magnitude").tolist() == [0, 1, 2, 3]
    assert Decomposition(prediction[1]).order("effect").tolist() == [0, 1, 2, 3]
    rng = np.random.default_rng(0)
    weights = rng.integers(-2, 3, 64).astype(np.float32)
    many = replace(pair()[[0]], coefficients=weights[None], prototypes=np.ones((64, 8, 8), dtype=np.float32))
    for by, key in (("weight", -weights), ("magnitude", -np.abs(weights)), ("effect", -np.abs(weights))):
        assert Decomposition(many[0]).order(by).tolist() == sorted(range(64), key=lambda k, key=key: key[k])


def test_unknown_orders_and_indices_are_refused():
    parts = Decomposition(pair()[0])
    assert ORDERS == ("index", "weight", "magnitude", "effect")
    with pytest.raises(InputError, match="order is 'size'; expected one of 'index', 'weight', 'magnitude', 'effect'"):
        parts.order("size")
    with pytest.raises(InputError, match=r"coefficient index 4 is out of range: the model has 4 prototypes \(0..3\)"):
        parts.partial([0, 4])


def test_weights_of_yolov5_carry_the_objectness():
    prediction = replace(pair(), rule=RULES["yolov5"], objectness=np.array([0.5, 1], dtype=np.float32))
    half, whole = Decomposition(prediction[0]), Decomposition(pair()[0])
    np.testing.assert_allclose(half.logits, whole.logits / 2, rtol=1e-5)
    np.testing.assert_allclose(half.terms, whole.terms / 2, rtol=1e-6)


# --- edits ----------------------------------------------------------------------------------------


@given(predictions())
def test_an_edit_with_no_change_is_the_identity(prediction):
    edited = Edit().apply(prediction)
    assert_equal(edited, prediction)
    for size in ("grid", "canvas", "image"):
        np.testing.assert_array_equal(edited.masks(size), prediction.masks(size))


@given(predictions(), st.data())
def test_dropping_is_removing_the_term(prediction, data):
    k = data.draw(st.integers(0, len(prediction.prototypes) - 1))
    edited = Edit(drop=[k]).apply(prediction)
    others = [i for i in range(len(prediction.prototypes)) if i != k]
    for before, after, index in zip(prediction, edited, range(len(prediction)), strict=True):
        without = Decomposition(before).logits - Decomposition(before).terms[k]
        np.testing.assert_allclose(edited.logits()[index], without, atol=1e-4)
        expected = reference.summed_terms(before.weights, before.prototypes, others)
        np.testing.assert_allclose(Decomposition(after).logits, expected, atol=1e-4)


@given(predictions(), seeds)
def test_keeping_some_is_dropping_the_others(prediction, seed):
    k = len(prediction.prototypes)
    kept = np.flatnonzero(np.random.default_rng(seed).random(k) < 0.5).tolist()
    others = [i for i in range(k) if i not in kept]
    assert_equal(Edit(keep=kept).apply(prediction), Edit(drop=others).apply(prediction))


@given(predictions(), st.floats(-4, 4, width=32), st.data())
def test_scaling_scales_the_term_and_setting_replaces_it(prediction, factor, data):
    k = data.draw(st.integers(0, len(prediction.prototypes) - 1))
    before = Decomposition(prediction[0])
    scaled = Decomposition(Edit(scale={k: factor}).apply(prediction)[0])
    np.testing.assert_allclose(scaled.logits, before.logits + (factor - 1) * before.terms[k], atol=1e-3)
    edited = Edit(set={k: factor}).apply(prediction)
    assert (edited.coefficients[:, k] == np.float32(factor)).all()
    untouched = [i for i in range(len(prediction.prototypes)) if i != k]
    np.testing.assert_array_equal(edited.coefficients[:, untouched], prediction.coefficients[:, untouched])


@pytest.mark.parametrize(
    ("edit", "first", "second"),
    [
        (Edit(keep=[0, 2]), [1, 0, 3, 0], [5, 0, 7, 0]),
        (Edit(keep=[]), [0, 0, 0, 0], [0, 0, 0, 0]),
        (Edit(drop=[1]), [1, 0, 3, 0.5], [5, 0, 7, 8]),
        (Edit(scale={0: 2, 3: -1}), [2, -2, 3, -0.5], [10, 6, 7, -8]),
        (Edit(set={1: 9}), [1, 9, 3, 0.5], [5, 9, 7, 8]),
        (Edit(keep=[0, 1], drop=[0]), [0, -2, 0, 0], [0, 6, 0, 0]),
        (Edit(drop=[0], scale={0: 100}), [0, -2, 3, 0.5], [0, 6, 7, 8]),
        (Edit(keep=[0], scale={0: 2}, set={0: 4, 1: 5}), [4, 5, 0, 0], [4, 5, 0, 0]),
        (Edit(scale={2: 3}, set={2: 1}), [1, -2, 1, 0.5], [5, 6, 1, 8]),
        (Edit(drop=[2], instances=[1]), [1, -2, 3, 0.5], [5, 6, 0, 8]),
        (Edit(keep=[2], instances=[0]), [0, 0, 3, 0], [5, 6, 7, 8]),
        (Edit(drop=[0, 1, 2, 3], instances=[]), [1, -2, 3, 0.5], [5, 6, 7, 8]),
        (Edit(drop=(k for k in (0, 1))), [0, 0, 3, 0.5], [0, 0, 7, 8]),
    ],
)
def test_edits_apply_in_their_order(edit, first, second):
    prediction = pair()
    before = prediction.coefficients.copy()
    for _ in range(2):  # an edit can be applied again and again
        assert edit.apply(prediction).coefficients.tolist() == [first, second]
    np.testing.assert_array_equal(prediction.coefficients, before)


def test_setting_is_in_the_units_of_raw_coefficients():
    prediction = replace(pair(), rule=RULES["yolov5"], objectness=np.array([0.5, 0.25], dtype=np.float32))
    edited = Edit(set={0: 8}).apply(prediction)
    assert edited.coefficients[:, 0].tolist() == [8, 8]
    assert edited.weights[:, 0].tolist() == [4, 2]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Edit(drop=[40]), r"coefficient index 40 is out of range: the model has 4 prototypes \(0..3\)"),
        (Edit(keep=[-1]), "coefficient index -1 is out of range"),
        (Edit(scale={4: 1.0}), "coefficient index 4 is out of range"),
        (Edit(set={7: 1.0}), "coefficient index 7 is out of range"),
        (Edit(drop=[1.5]), "coefficient index 1.5 is not an integer"),
        (Edit(drop=[True]), "coefficient index True is not an integer"),
        (Edit(drop=["1"]), "coefficient index '1' is not an integer"),
        (Edit(instances=[2]), r"instance 2 is out of range: the prediction has 2 instances \(0..1\)"),
    ],
)
def test_indices_out_of_range_are_refused(edit, message):
    with pytest.raises(InputError, match=message):
        edit.apply(pair())


@pytest.mark.parametrize("name", ["keep", "drop", "instances"])
def test_a_bare_index_is_refused_with_what_to_write(name):
    with pytest.raises(InputError, match=rf"{name} is 3; expected a collection of indices, such as \[3\]"):
        Edit(**{name: 3})


def test_an_edit_of_nothing_found():
    nothing = pair()[[]]
    assert len(Edit(drop=[1]).apply(nothing)) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": [3]}, "scale is \\[3\\]; expected numbers by prototype index"),
        ({"scale": {3: "x"}}, "scale\\[3\\] is 'x'; expected a finite number"),
        ({"set": {1: float("nan")}}, "set\\[1\\] is nan; expected a finite number"),
        ({"scale": {1: float("inf")}}, "expected a finite number"),
        ({"drop": None}, "drop is None"),
    ],
)
def test_edits_of_something_else_than_numbers_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Edit(**change)
