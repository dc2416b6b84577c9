"""Knock-outs, sufficient sets, insertion and deletion."""

from __future__ import annotations

import itertools
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from helpers import reference_attribution as slow
from helpers.by_hand import drawn, square
from helpers.strategies import predictions, seeds
from maskprism import RULES, Decomposition
from maskprism.analysis.instance.subset_masks import SubsetBound, SubsetMasks
from maskprism.analysis.instance.sufficient_sets import (
    PATHS,
    SmallestSet,
    Sufficiency,
    area,
    faithfulness,
    knock_out,
    smallest_set,
    sufficiency,
)
from maskprism.errors import InputError

sizes = st.sampled_from(["grid", "canvas", "image"])


@settings(max_examples=40)
@given(predictions(max_count=1), sizes, st.sampled_from(["iou", "dice"]), st.data())
def test_scores_of_subsets_match_whole_masks(prediction, size, metric, data):
    instance = prediction[0]
    k = len(prediction.prototypes)
    game = SubsetMasks(instance, size=size, metric=metric)
    full, score = instance.mask(size), {"iou": slow.iou, "dice": slow.dice}[metric]
    members = data.draw(st.lists(st.integers(0, k - 1), unique=True))
    assume(not slow.is_close_call(instance, members, size))
    assert game.of(members) == pytest.approx(score(slow.subset_mask(instance, members, size), full), abs=1e-12)
    assert game.full == 1
    assert game.none == (0 if full.any() else 1)


@settings(max_examples=30)
@given(predictions(max_count=1), sizes)
def test_knock_outs_match_edits(prediction, size):
    instance = prediction[0]
    scores = knock_out(instance, size=size)
    for k, found in enumerate(scores):
        others = [other for other in range(len(scores)) if other != k]
        if not slow.is_close_call(instance, others, size):
            expected = slow.iou(slow.subset_mask(instance, others, size), instance.mask(size))
            assert found == pytest.approx(expected, abs=1e-12)


@settings(max_examples=25)
@given(predictions(max_count=1), seeds)
def test_targets_may_reach_beyond_the_box(prediction, seed):
    instance = prediction[0]
    target = np.random.default_rng(seed).random(prediction.image_size) < 0.5
    game = SubsetMasks(instance, target=target, size="image")
    assert game.full == pytest.approx(slow.iou(instance.mask("image"), target))
    assert SubsetMasks(instance, target=target, size="image", metric="dice").full == pytest.approx(
        slow.dice(instance.mask("image"), target)
    )


@settings(max_examples=25)
@given(predictions(max_count=1), st.sampled_from(PATHS), sizes)
def test_curves_are_scores_of_growing_sets(prediction, by, size):
    instance = prediction[0]
    k = len(prediction.prototypes)
    found = sufficiency(instance, by, size=size)
    assert sorted(found.order.tolist()) == list(range(k))
    assert len(found.curve) == k + 1
    assert found.curve[-1] == 1
    assert found.curve[0] == (0 if instance.mask(size).any() else 1)
    for count in range(1, k):
        members = found.order[:count].tolist()
        if not slow.is_close_call(instance, members, size):
            expected = slow.iou(slow.subset_mask(instance, members, size), instance.mask(size))
            assert found.curve[count] == pytest.approx(expected, abs=1e-12)
    if by == "effect":
        np.testing.assert_array_equal(found.order, Decomposition(instance).order())


@settings(max_examples=15)
@given(predictions(max_count=1, rule=RULES["validation"]))
def test_greedy_steps_match_their_twins(prediction):
    """Every step is the best one of all that were left, looked up among whole masks."""
    instance = prediction[0]
    k = len(prediction.prototypes)
    full = instance.mask()

    def score(members: list[int]) -> float:
        return slow.iou(slow.subset_mask(instance, members, "grid"), full)

    greedy, eliminated = sufficiency(instance, "greedy"), sufficiency(instance, "elimination")
    for count in range(1, k):
        before = greedy.order[: count - 1].tolist()
        rest = [one for one in range(k) if one not in before]
        assert greedy.curve[count] == pytest.approx(max(score([*before, one]) for one in rest), abs=0.02)
        after = eliminated.order[: count + 1].tolist()
        best = max(score([one for one in after if one != out]) for out in after)
        assert eliminated.curve[count] == pytest.approx(best, abs=0.02)


def test_the_smallest_set_stays_sufficient():
    curve = np.array([0, 0.5, 0.96, 0.9, 0.97, 0.96, 1])
    found = Sufficiency(np.array([3, 1, 5, 0, 2, 4]), curve, 0.95)
    assert found.first == 2
    assert found.enough == 4
    assert found.chosen.tolist() == [3, 1, 5, 0]
    assert Sufficiency(np.arange(2), np.array([1.0, 1, 1]), 0.95).enough == 0  # an empty mask needs nothing
    assert Sufficiency(np.arange(2), np.array([0, 0.95, 1]), 0.95).enough == 1  # at the threshold is enough
    never = Sufficiency(np.arange(2), np.array([0.0, 0.1, 0.2]), 0.95)  # against ground truth
    assert never.first == never.enough == 3
    assert never.chosen.tolist() == []


def test_one_prototype_is_enough_where_one_draws_the_mask():
    prediction = drawn(square(1, -1), 0.01 * square(), 0.01 * square(0, 1), weights=[1, 1, 1])
    for by in ("greedy", "elimination"):
        found = sufficiency(prediction[0], by)
        assert found.chosen.tolist() == [0]
    assert knock_out(prediction[0]).tolist() == [pytest.approx(64 / 256), 1, 1]


def test_ground_truth_shows_which_prototype_hurts():
    spot = np.zeros((16, 16))
    spot[:2] = 3
    prediction = drawn(square(1, -1), spot, weights=[1, 1])
    truth = np.kron(square(), np.ones((4, 4))) > 0
    without = knock_out(prediction[0], target=truth)
    assert SubsetMasks(prediction[0], target=truth).full < 1
    assert without[1] == 1
    assert sufficiency(prediction[0], "greedy", target=truth).order.tolist() == [0, 1]


@pytest.mark.parametrize("rule", list(RULES))
def test_empty_masks_and_windows(rule):
    prediction = replace(
        drawn(square(), square(), weights=[-1, -1]), rule=RULES[rule], objectness=np.ones(1, dtype=np.float32)
    )
    outside = replace(prediction, canvas_boxes=np.array([[900, 900, 950, 950]], dtype=np.float32))
    for one in (prediction, outside):
        if rule == "no-crop" and one is outside:
            continue
        assert knock_out(one[0]).tolist() == [1, 1]
        assert sufficiency(one[0]).enough == 0
        assert faithfulness(one[0], permutations=2).insertion_gain == 0


@settings(max_examples=20)
@given(predictions(max_count=1), seeds)
def test_deletion_is_insertion_backwards(prediction, seed):
    game = SubsetMasks(prediction[0])
    order = np.random.default_rng(seed).permutation(len(game))
    np.testing.assert_array_equal(game.shrinking(order), game.growing(order[::-1])[::-1])
    assert game.shrinking(order)[0] == game.full
    assert game.shrinking(order)[-1] == game.none


def test_faithfulness_prefers_the_order_that_matters():
    rng = np.random.default_rng(0)
    noise = [0.05 * rng.normal(size=(16, 16)) for _ in range(6)]
    prediction = drawn(square(1, -1), *noise, weights=[1.0] * 7)
    good = faithfulness(prediction[0], permutations=64, seed=1)
    assert good.order[0] == 0
    assert good.insertion_gain > 4 * good.insertion_gain_error > 0
    assert good.deletion_gain > 4 * good.deletion_gain_error
    assert good.insertion_gain == pytest.approx(area(good.insertion) - area(good.random_insertion))
    assert good.deletion_gain == pytest.approx(area(good.random_deletion) - area(good.deletion))
    bad = faithfulness(prediction[0], good.order[::-1].tolist(), permutations=64, seed=1)
    assert bad.insertion_gain < 0
    again = faithfulness(prediction[0], permutations=64, seed=1)
    np.testing.assert_array_equal(again.random_insertion, good.random_insertion)
    np.testing.assert_array_equal(good.random_deletion, good.random_insertion[::-1])
    np.testing.assert_array_equal(good.deletion_error, good.insertion_error[::-1])
    runs = [faithfulness(prediction[0], permutations=16, seed=seed) for seed in range(100)]
    spread = np.var([run.random_insertion for run in runs], axis=0, ddof=1).sum()
    assert np.mean([run.insertion_error**2 for run in runs], axis=0).sum() == pytest.approx(spread, rel=0.25)
    spread = np.var([area(run.random_insertion) for run in runs], ddof=1)
    assert np.mean([run.insertion_gain_error**2 for run in runs]) == pytest.approx(spread, rel=0.25)
    assert (faithfulness(prediction[0], permutations=64, seed=2).random_insertion != good.random_insertion).any()


@settings(max_examples=40)
@given(predictions(max_count=1), sizes, st.sampled_from([0.5, 0.8, 0.95, 1.0]), st.sampled_from(["iou", "dice"]), seeds)
def test_the_smallest_set_is_that_of_all_subsets(prediction, size, threshold, metric, seed):
    """Against the mask itself, and against a target that no set may reach."""
    instance = prediction[0]
    noise = np.random.default_rng(seed).random(prediction.image_size) < 0.5
    for target in (None, noise | instance.mask("image")):
        game = SubsetMasks(instance, size=size, metric=metric, target=target)
        expected = slow.smallest_sufficient(game.of, len(game), threshold)
        found = smallest_set(instance, threshold=threshold, subsets=game)
        assert found.proven
        assert found.exists == (expected is not None)
        if expected is None:
            assert found.at_least == len(game) + 1
        else:
            assert len(found.members) == found.at_least == expected
            assert found.score == game.of(found.members) >= threshold


@settings(max_examples=25)
@given(predictions(max_count=1), sizes, st.integers(0, 3), st.sampled_from([0.7, 0.95]))
def test_the_bound_rules_out_no_set_that_suffices(prediction, size, count, threshold):
    game = SubsetMasks(prediction[0], size=size)
    kept = {tuple(one.tolist()) for one in SubsetBound(game).candidates(count, threshold)}
    for members in itertools.combinations(range(len(game)), count):
        if game.of(np.array(members, dtype=np.int64)) >= threshold:
            assert members in kept


@pytest.mark.parametrize("seed", range(3))
def test_the_smallest_set_of_ten_smooth_prototypes(seed):
    """On the canvas, where tiles hold 16 pixels each."""
    rng = np.random.default_rng(seed)
    waves = [cv2.resize(rng.normal(size=(4, 4)), (16, 16), interpolation=cv2.INTER_CUBIC) for _ in range(10)]
    instance = drawn(*waves, weights=rng.normal(size=10).tolist())[0]
    game = SubsetMasks(instance, size="canvas")
    found = smallest_set(instance, subsets=game, threshold=0.9)
    assert found.proven
    assert len(found.members) == slow.smallest_sufficient(game.of, 10, 0.9)
    assert len(found.members) <= sufficiency(instance, subsets=game, threshold=0.9).first


def test_without_the_work_only_bounds_are_given():
    rng = np.random.default_rng(0)
    prediction = drawn(*rng.normal(size=(9, 16, 16)), weights=[1.0] * 9)
    whole, none = smallest_set(prediction[0]), smallest_set(prediction[0], work=0)
    assert whole.proven
    assert str(whole) == f"the smallest set that suffices has {len(whole.members)} of 9 prototypes"
    assert not none.proven
    assert none.at_least == 0
    assert len(none.members) >= len(whole.members) > 1
    assert str(none) == f"at most {len(none.members)} of 9 prototypes suffice, and at least 0 are needed"
    some = smallest_set(prediction[0], work=20_000)
    assert none.at_least < some.at_least <= len(whole.members)
    again = smallest_set(prediction[0], work=20_000)
    assert (again.members.tolist(), again.at_least) == (some.members.tolist(), some.at_least)
    far = smallest_set(prediction[0], target=np.ones((64, 64), dtype=bool))
    assert str(far) == "no set of 9 prototypes suffices"
    assert isinstance(far, SmallestSet)
    assert not far.exists
    with pytest.raises(InputError, match="threshold is 95"):
        smallest_set(prediction[0], threshold=95)


def test_the_search_for_a_small_set_is_bounded_too(monkeypatch: pytest.MonkeyPatch):
    """Large masks that need most prototypes took seconds that `work` did not count."""
    prediction = drawn(*np.random.default_rng(0).normal(size=(9, 16, 16)), weights=[1.0] * 9)
    game, asked = SubsetMasks(prediction[0]), []
    monkeypatch.setattr(game, "value", lambda logits, own=game.value: asked.append(1) or own(logits))
    eliminations = 9 * 10 // 2 - 1
    for steps in (0, 1, 2):
        asked.clear()
        smallest_set(prediction[0], subsets=game, threshold=1.0, work=steps * game.terms.size)
        assert len(asked) - eliminations <= 9 * steps + 9, "one mask more is that of the first bound"
    smallest_set(prediction[0], subsets=game, threshold=1.0)
    assert len(asked) > eliminations + 27


def test_areas():
    assert area(np.array([0.0, 1.0])) == 0.5
    assert area(np.array([0, 1, 1, 1, 1.0])) == pytest.approx(0.875)


def test_mistakes_are_told():
    instance = drawn(square(), square(), weights=[1, 1])[0]
    with pytest.raises(InputError, match="order is 'size'; expected one of 'elimination', 'greedy', 'effect'"):
        sufficiency(instance, "size")
    with pytest.raises(InputError, match="the order has 1 of 2 prototypes"):
        sufficiency(instance, [1])
    with pytest.raises(InputError, match="the order has 1 of 2 prototypes"):
        sufficiency(instance, [1, 1])
    with pytest.raises(InputError, match="coefficient index 2 is out of range"):
        sufficiency(instance, [0, 2])
    with pytest.raises(InputError, match="threshold is 95"):
        sufficiency(instance, threshold=95)
    with pytest.raises(InputError, match="metric is 'f1'"):
        knock_out(instance, metric="f1")
    with pytest.raises(InputError, match="permutations is 1"):
        faithfulness(instance, permutations=1)
    with pytest.raises(InputError, match="target has shape"):
        knock_out(instance, target=np.zeros((3, 3), dtype=bool))
