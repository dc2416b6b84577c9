"""Roles: what each prototype does inside the mask, around it, and at its edge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import reference_attribution as slow
from helpers.by_hand import drawn, square
from helpers.strategies import predictions, seeds
from maskprism import RULES, Letterbox
from maskprism.analysis.instance.mask_window import MaskWindow, mask_in_frame
from maskprism.analysis.instance.prototype_roles import CLEAR_LEAD, NEGLIGIBLE, ROLE_ORDERS, ROLES, Roles, roles
from maskprism.errors import InputError

sizes = st.sampled_from(["grid", "canvas", "image"])
NUMBERS = ("inside", "ring", "edge", "share", "bias", "spread", "effect")


@settings(max_examples=25)
@given(predictions(max_count=1))
def test_numbers_match_their_twins(prediction):
    instance, size = prediction[0], "grid"
    found = roles(instance)
    box, mask = slow.box_and_mask(instance, size)
    ring = box & ~mask
    regions = (mask, ring, mask & slow.near(ring, 1), ring & slow.near(mask, 1))
    for k, term in enumerate(slow.terms(instance, size)):
        inside, outside, last, first = (slow.mean(term, region) for region in regions)
        expected = {"inside": inside, "ring": outside, "edge": last - first, "effect": slow.mean(np.abs(term), box)}
        expected["spread"] = float(np.std(term[box])) if box.any() else 0.0
        for name, value in expected.items():
            value = 0.0 if name == "effect" and not box.any() else value
            np.testing.assert_allclose(getattr(found, name)[k], value, rtol=1e-3, atol=1e-4, err_msg=name)
    margins = found.inside - found.ring
    if np.isfinite(margins).all() and abs(margins.sum()) > 1e-3:
        np.testing.assert_allclose(found.share, margins / margins.sum(), rtol=1e-3, atol=1e-4)
        assert found.share.sum() == pytest.approx(1, abs=1e-3)


@settings(max_examples=25)
@given(predictions(max_count=1), seeds)
def test_rescaling_a_prototype_and_its_coefficient_changes_no_role(prediction, seed):
    rng = np.random.default_rng(seed)
    k = len(prediction.prototypes)
    factors = (2.0 ** rng.integers(-3, 4, k) * rng.choice([-1, 1], k)).astype(np.float32)  # exact in binary
    rescaled = replace(
        prediction,
        prototypes=prediction.prototypes * factors[:, None, None],
        coefficients=prediction.coefficients / factors,
    )
    before, after = roles(prediction[0]), roles(rescaled[0])
    assert after.named == before.named
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), rtol=1e-4, atol=1e-5, err_msg=name)


@settings(max_examples=25)
@given(predictions(max_count=1), st.data())
def test_permuting_prototypes_permutes_the_roles(prediction, data):
    order = data.draw(st.permutations(range(len(prediction.prototypes))))
    permuted = replace(
        prediction, prototypes=prediction.prototypes[order], coefficients=prediction.coefficients[:, order]
    )
    before, after = roles(prediction[0]), roles(permuted[0])
    for name in NUMBERS:
        np.testing.assert_allclose(getattr(after, name), getattr(before, name)[order], rtol=1e-3, atol=1e-4)
    if not slow.is_close_call(prediction[0], range(len(order)), "grid"):
        assert after.named == tuple(before.named[k] for k in order)


@settings(max_examples=60)
@given(predictions(max_count=1))
def test_a_negative_share_is_never_a_helpful_role(prediction):
    found = roles(prediction[0])
    for share, names in zip(found.share, found.named, strict=True):
        if share < 0:
            assert names in (("opposes",), ("negligible",))


@settings(max_examples=40)
@given(predictions(max_count=1))
def test_roles_follow_their_definition(prediction):
    """Word by word, from the numbers."""
    found = roles(prediction[0])
    acts = np.nan_to_num(np.stack([found.inside, -found.ring, found.edge]).astype(float))
    totals = np.abs(acts).sum(axis=1)
    least = NEGLIGIBLE / len(found)
    for k, names in enumerate(found.named):
        parts = {role: act[k] / total if total else 0.0 for role, act, total in zip(ROLES, acts, totals, strict=False)}
        helps, harms = max(parts.values()), -min(parts.values())
        if abs(helps - harms) < 1e-5 or abs(max(helps, harms) - least) < 1e-5:
            continue  # rounding decides
        if max(helps, harms) < least:
            assert names == ("negligible",)
        elif found.share[k] < 0 or harms > helps:
            assert names == ("opposes",)
        else:
            assert parts[names[0]] == pytest.approx(helps)
            others = [part for role, part in parts.items() if role != names[0]]
            if len(names) == 2:
                assert helps <= parts[names[1]] * CLEAR_LEAD * 1.001
            else:
                assert helps >= max(others) * CLEAR_LEAD * 0.999 or max(others) < least * 1.001


def test_every_role_has_its_example():
    edge = np.zeros((16, 16))
    edge[4, 4:12] = edge[11, 4:12] = edge[4:12, 4] = edge[4:12, 11] = 1  # the rim of the square
    edge[3, 3:13] = edge[12, 3:13] = edge[3:13, 3] = edge[3:13, 12] = -1  # and around it
    found = roles(
        drawn(
            square(),  # lifts the inside
            square(0, 1),  # with a negative weight: lowers the ring
            edge,
            square(0, 1),  # with a positive weight: lifts the ring
            np.zeros((16, 16)),
            weights=[2, -3, 1.5, 0.5, 7],
        )[0]
    )
    assert found.role == ("builds", "carves", "sharpens", "opposes", "negligible")
    assert set(found.role) == set(ROLES)
    np.testing.assert_allclose(found.inside, [2, 0, 1.5 * 28 / 64, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(found.ring, [0, -3, -1.5 * 36 / 192, 0.5, 0], rtol=1e-6)
    np.testing.assert_allclose(found.edge, [2, 3, 3, -0.5, 0], rtol=1e-6)


def test_a_negative_coefficient_does_not_simply_subtract():
    """A negative prototype with a negative coefficient builds the object."""
    found = roles(drawn(square(-1, 0), square(0, 1), weights=[-2, -1])[0])
    assert found.role == ("builds", "carves")
    assert found.inside[0] == 2


def test_what_lowers_everything_carves_and_what_harms_more_opposes():
    level = np.ones((16, 16))
    found = roles(drawn(square(3, 1), level, square(), square(0.9, 0.5), weights=[1, -1, -1, -1])[0])
    assert found.role[1:] == ("carves", "opposes", "opposes")
    # A part of -0.5 / 2.5 inside harms more than 0.5 / 3.5 in the ring helps.
    found = roles(drawn(square(2), square(0, 1), level, weights=[1, -3, -0.5])[0])
    assert found.role == ("builds", "carves", "opposes")


def test_half_of_an_even_part_is_not_negligible():
    """Of two prototypes an even part is a half; below a quarter of everything is negligible."""
    for weight, role in ((0.32, "negligible"), (0.35, "builds"), (-0.32, "negligible"), (-0.35, "opposes")):
        assert roles(drawn(square(1, -1), square(1, -1), weights=[1, weight])[0]).role == ("builds", role)


def test_a_constant_prototype_is_all_bias():
    found = roles(drawn(square(1, -1), np.ones((16, 16)), weights=[2, -0.5])[0])
    assert found.bias[1] == -0.5
    assert found.spread[1] == found.share[1] == found.edge[1] == 0
    assert found.effect[1] == 0.5


def test_the_image_mean_leaves_the_padding_out():
    prediction = drawn(square(), weights=[1.0])
    wide = Letterbox.fit((32, 64), (64, 64))  # a quarter of the canvas is padding above, a quarter below
    prototypes = np.full((1, 16, 16), 100, dtype=np.float32)
    prototypes[:, 4:12] = 1
    found = roles(replace(prediction, letterbox=wide, prototypes=prototypes)[0])
    assert found.bias[0] == 1


def test_the_crop_is_no_edge():
    """The square fills the box, so its border is where the crop cuts: nothing to sharpen there."""
    found = roles(drawn(square(), weights=[2], box=(4, 4, 12, 12))[0])
    assert np.isnan(found.ring[0])
    assert np.isnan(found.edge[0])
    assert np.isnan(found.share[0])
    assert found.role == ("builds",)


@pytest.mark.parametrize("rule", list(RULES))
def test_masks_without_a_pixel(rule):
    prediction = replace(
        drawn(square(), square(), weights=[-1, 0]), rule=RULES[rule], objectness=np.ones(1, dtype=np.float32)
    )
    empty = roles(prediction[0])
    assert np.isnan(empty.inside).all()
    assert empty.ring[0] < 0
    assert empty.role == ("carves", "negligible")
    outside = replace(prediction, canvas_boxes=np.array([[900, 900, 950, 950]], dtype=np.float32))
    if rule != "no-crop":
        assert roles(outside[0]).role == ("negligible", "negligible")
        assert roles(outside[0]).effect.tolist() == [0, 0]


def test_orders_and_rows():
    found = roles(drawn(square(), square(0, 1), np.ones((16, 16)), weights=[1, -2, -0.25])[0])
    assert ROLE_ORDERS == ("index", "effect", "spread", "share")
    for by in ROLE_ORDERS:
        rows = found.rows(by)
        assert [row["prototype"] for row in rows] == found.order(by).tolist()
        assert set(rows[0]) == {"prototype", "role", "second_role", "weight", *NUMBERS}
    assert found.order("index").tolist() == [0, 1, 2]
    assert found.order("effect").tolist() == [1, 2, 0] if found.effect[2] > found.effect[0] else [1, 0, 2]
    assert found.order("spread").tolist()[-1] == 2
    with pytest.raises(InputError, match="order is 'size'; expected one of 'index', 'effect', 'spread', 'share'"):
        found.order("size")
    assert isinstance(found, Roles)
    assert len(found) == 3
    assert 0 < NEGLIGIBLE < 1


def test_predictions_and_huge_frames_are_refused():
    prediction = drawn(square(), weights=[1])
    with pytest.raises(InputError, match=r"take prediction\[0\]"):
        roles(prediction)
    huge = replace(prediction, letterbox=replace(prediction.letterbox, image_hw=(400_000, 400_000)))
    with pytest.raises(InputError, match='ask for size="canvas"'):
        MaskWindow.of(huge[0], "image")


@settings(max_examples=40)
@given(predictions(max_count=1), sizes)
def test_the_window_holds_the_mask_bit_for_bit(prediction, size):
    window = MaskWindow.of(prediction[0], size)
    whole = np.zeros(prediction.letterbox.size_hw(size), dtype=bool)
    whole[window.rows, window.columns] = window.mask
    np.testing.assert_array_equal(whole, prediction[0].mask(size))


@pytest.mark.parametrize(("side", "cells"), [(64, (1, 4, 4)), (128, (1, 4, 8)), (32, (1, 4, 2)), (8, (1, 4, 1))])
def test_the_pixels_of_a_cell_in_each_frame(side, cells):
    prediction = replace(drawn(square(), weights=[1]), letterbox=Letterbox.fit((side, side), (64, 64)))
    found = tuple(MaskWindow.of(prediction[0], size).cell for size in ("grid", "canvas", "image"))
    assert found == cells


def test_a_mask_as_large_as_the_image_is_one_of_the_image():
    """Even where the frame asked for happens to be as large, and has padding."""
    mask = np.random.default_rng(0).random((7, 9)) > 0.5
    letterbox = Letterbox.fit((7, 9), (32, 32)).with_grid((7, 9))
    twice = replace(letterbox, image_hw=(14, 18))
    expected = mask_in_frame(np.kron(mask, np.ones((2, 2))) > 0, twice, "grid")
    assert (expected != mask).any()
    np.testing.assert_array_equal(mask_in_frame(mask, letterbox, "grid"), expected)


def test_masks_change_frame():
    letterbox = Letterbox.fit((32, 64), (64, 64))
    mask = np.zeros((32, 64), dtype=bool)
    mask[8:16, 16:48] = True
    assert mask_in_frame(mask, letterbox, "image") is mask
    canvas = mask_in_frame(mask, letterbox, "canvas")
    assert canvas.shape == (64, 64)
    assert canvas[24:32, 16:48].all()
    assert canvas.sum() == mask.sum()
    np.testing.assert_array_equal(mask_in_frame(canvas, letterbox, "canvas"), canvas)
    grid = mask_in_frame(mask, letterbox, "grid")
    assert grid.shape == (16, 16)
    assert grid[6:8, 4:12].all()
    assert grid.sum() == mask.sum() / 16
    with pytest.raises(InputError, match=r"truth has shape \(5, 5\); expected that of the image"):
        mask_in_frame(np.zeros((5, 5), dtype=bool), letterbox, "canvas", "truth")
    with pytest.raises(InputError, match="holds uint8; expected booleans"):
        mask_in_frame(mask.astype(np.uint8), letterbox, "canvas")
