"""Predictions: decoding on demand, soft and hard masks, indexing, validation, memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import reference
from helpers.strategies import predictions, seeds
from maskprism import RULES, Letterbox, Prediction
from maskprism.core.decoding import outputs
from maskprism.errors import InputError

SIZES = ("grid", "canvas", "image")


def four() -> Prediction:
    """Four instances over three prototypes, deterministic."""
    rng = np.random.default_rng(7)
    return Prediction(
        canvas_boxes=np.array([[0, 8, 20, 40], [10, 10, 50, 50], [4, 4, 60, 60], [30, 12, 64, 52]], dtype=np.float32),
        scores=np.array([0.9, 0.8, 0.7, 0.6], dtype=np.float32),
        classes=np.array([0, 2, 0, 7]),
        coefficients=rng.normal(0, 1, (4, 3)).astype(np.float32),
        prototypes=rng.normal(0, 1, (3, 16, 16)).astype(np.float32),
        letterbox=Letterbox.fit((48, 64), (64, 64)),
        rule=RULES["ultralytics"],
        names={0: "cat", 2: "fish"},
        source="pond.jpg",
    )


# --- identities -----------------------------------------------------------------------------------


@given(predictions())
def test_logits_are_weights_times_prototypes(prediction):
    found = prediction.logits()
    expected = [reference.summed_terms(w, prediction.prototypes) for w in prediction.weights]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found, np.einsum("nk,khw->nhw", prediction.weights, prediction.prototypes), atol=1e-4)


def assert_same_masks(one: Prediction, other: Prediction) -> None:
    """Equal masks at every size, away from the threshold."""
    for size in SIZES:
        margin = np.abs(one.probabilities(size, crop=False) - 0.5)
        sure = margin > 2e-3
        np.testing.assert_array_equal(one.masks(size)[sure], other.masks(size)[sure])


@given(predictions(), seeds)
def test_permuting_prototypes_with_coefficients_changes_no_mask(prediction, seed):
    order = np.random.default_rng(seed).permutation(len(prediction.prototypes))
    shuffled = replace(
        prediction, prototypes=prediction.prototypes[order], coefficients=prediction.coefficients[:, order]
    )
    assert_same_masks(prediction, shuffled)


@given(predictions(), seeds)
def test_an_invertible_change_of_basis_changes_no_mask(prediction, seed):
    rng = np.random.default_rng(seed)
    k = len(prediction.prototypes)
    rotation = np.linalg.qr(rng.normal(size=(k, k)))[0]
    basis = rotation * rng.uniform(0.5, 2, k)  # well conditioned
    changed = replace(
        prediction,
        prototypes=np.tensordot(basis, prediction.prototypes, axes=1).astype(np.float32),
        coefficients=(prediction.coefficients @ np.linalg.inv(basis)).astype(np.float32),
    )
    np.testing.assert_allclose(changed.logits(), prediction.logits(), atol=1e-3)
    assert_same_masks(prediction, changed)


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("size", SIZES)
@settings(max_examples=15)
@given(data=st.data())
def test_a_mask_is_where_the_probability_is_over_a_half(rule, size, data):
    prediction = data.draw(predictions(rule=RULES[rule]))
    soft, masks = prediction.probabilities(size), prediction.masks(size)
    assert soft.dtype == np.float32
    assert masks.dtype == bool
    assert soft.shape == masks.shape == (len(prediction), *prediction.letterbox.size_hw(size))
    assert ((soft >= 0) & (soft <= 1)).all()
    sure = np.abs(soft - 0.5) > 1e-5
    np.testing.assert_array_equal(masks[sure], (soft > 0.5)[sure])
    assert not (masks & (soft < 0.5)).any()


@given(predictions(), st.sampled_from(SIZES))
def test_areas_are_the_sums_of_masks_and_empty_says_which_are_zero(prediction, size):
    np.testing.assert_array_equal(prediction.areas(size), prediction.masks(size).sum(axis=(1, 2)))
    np.testing.assert_array_equal(prediction.empty, ~prediction.masks().any(axis=(1, 2)))


@given(predictions(), st.sampled_from(SIZES), st.data())
def test_one_instance_is_decoded_as_among_all(prediction, size, data):
    index = data.draw(st.integers(0, len(prediction) - 1))
    instance = prediction[index]
    np.testing.assert_array_equal(instance.mask(size), prediction.masks(size)[index])
    np.testing.assert_allclose(instance.logits(size), prediction.logits(size)[index], atol=1e-5)
    np.testing.assert_allclose(instance.probabilities(size), prediction.probabilities(size)[index], atol=1e-5)


def test_more_instances_than_are_computed_at_once_keep_their_own_boxes_and_weights():
    rng = np.random.default_rng(1)
    corners = rng.integers(0, 40, (70, 2))
    many = replace(
        four()[np.zeros(70, dtype=np.int64)],
        canvas_boxes=np.concatenate([corners, corners + rng.integers(8, 24, (70, 2))], axis=1).astype(np.float32),
        coefficients=rng.normal(0, 1, (70, 3)).astype(np.float32),
    )
    for instance, mask in zip(many, many.masks(), strict=True):
        np.testing.assert_array_equal(mask, instance.mask())


# --- crop, sizes ----------------------------------------------------------------------------------


@given(predictions(rule=RULES["ultralytics"]), st.sampled_from(SIZES))
def test_cropped_logits_are_zero_outside_the_box_and_equal_inside(prediction, size):
    whole, cropped = prediction.logits(size), prediction.logits(size, crop=True)
    shape = prediction.letterbox.size_hw(size)
    for one, other, box in zip(whole, cropped, prediction.extents, strict=True):
        kept = reference.inside(shape, prediction.letterbox.from_canvas(box, size).tolist())
        assert (other[~kept] == 0).all()
        np.testing.assert_allclose(other[kept], one[kept], atol=1e-5)


def test_logits_do_not_squash_whatever_the_rule():
    prediction = four().with_rule("ultralytics-8.2")
    np.testing.assert_array_equal(prediction.logits("canvas"), four().logits("canvas"))
    np.testing.assert_array_equal(four().with_rule("no-crop").logits(crop=True), four().logits())


def test_the_rule_says_at_which_size_masks_are():
    prediction = four()
    assert prediction.masks().shape == (4, 64, 64)
    assert prediction.with_rule("retina").masks().shape == (4, 48, 64)
    assert prediction.with_rule("validation").masks().shape == (4, 16, 16)
    assert prediction.with_rule("validation").masks("image").shape == (4, 48, 64)
    with pytest.raises(InputError, match="size is 'photo'; expected one of 'grid', 'canvas', 'image'"):
        prediction.masks("photo")


def test_an_instance_below_the_threshold_everywhere_is_empty():
    prediction = four()
    coefficients = prediction.coefficients.copy()
    coefficients[1] = 0
    prediction = replace(prediction, coefficients=coefficients)
    assert prediction.empty.tolist() == [False, True, False, False]
    for rule in ("ultralytics", "ultralytics-8.2", "ultralytics-8.4.83", "no-crop"):  # at the threshold is not above it
        assert prediction.with_rule(rule).areas("image")[1] == 0
        assert not prediction.with_rule(rule).masks("image")[1].any()


# --- objectness (YOLOv5) --------------------------------------------------------------------------


def test_objectness_is_a_factor_of_the_weights_under_the_rule_and_coefficients_stay_raw():
    prediction = Prediction(
        canvas_boxes=np.array([[0, 0, 8, 8]], dtype=np.float32),
        scores=np.array([0.4], dtype=np.float32),
        classes=np.array([0]),
        coefficients=np.array([[2.0, -1.0]], dtype=np.float32),
        prototypes=np.stack([np.full((2, 2), 1.0), np.full((2, 2), 0.5)]).astype(np.float32),
        letterbox=Letterbox.fit((8, 8), (8, 8)),
        rule=RULES["yolov5"],
        objectness=np.array([0.5], dtype=np.float32),
    )
    assert prediction.coefficients.tolist() == [[2.0, -1.0]]
    assert prediction.weights.tolist() == [[1.0, -0.5]]
    np.testing.assert_allclose(prediction.logits(), np.full((1, 2, 2), 1.0 * 1 - 0.5 * 0.5))
    np.testing.assert_allclose(prediction.probabilities("grid"), 1 / (1 + np.exp(-0.75)), rtol=1e-6)
    raw = prediction.with_rule("ultralytics-8.2")
    assert raw.weights.tolist() == [[2.0, -1.0]]
    np.testing.assert_allclose(raw.logits(), np.full((1, 2, 2), 1.5))


def test_a_rule_with_objectness_needs_objectness():
    with pytest.raises(InputError, match=r"'yolov5' multiplies coefficients by objectness.*such as 'ultralytics-8.2'"):
        four().with_rule("yolov5").masks()


# --- indexing -------------------------------------------------------------------------------------


def test_an_integer_gives_an_instance():
    prediction = four()
    instance = prediction[1]
    assert (instance.index, instance.class_id, instance.name) == (1, 2, "fish")
    assert instance.score == pytest.approx(0.8)
    np.testing.assert_array_equal(instance.canvas_box, [10, 10, 50, 50])
    np.testing.assert_array_equal(instance.box, [10, 2, 50, 42])
    np.testing.assert_array_equal(prediction.boxes[[0, 2]], [[0, 0, 20, 32], [4, 0, 60, 48]])  # clipped to the image
    assert np.shares_memory(instance.coefficients, prediction.coefficients)
    assert instance.prototypes is prediction.prototypes
    assert instance.letterbox is prediction.letterbox
    assert instance.rule is prediction.rule
    assert prediction[-1].index == 3
    assert prediction[-1].name == "class7"
    assert prediction[np.int64(2)].index == 2
    assert [one.index for one in prediction] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (slice(1, 3), [1, 2]),
        (slice(None, None, -1), [3, 2, 1, 0]),
        ([2, 0], [2, 0]),
        ([-1], [3]),
        ([], []),
        ([True, False, False, True], [0, 3]),
        (np.array([1, 1]), [1, 1]),
        (np.array([False, True, False, False]), [1]),
        (np.zeros(4, dtype=bool), []),
    ],
)
def test_other_keys_give_a_prediction(key, expected):
    prediction = replace(four(), objectness=np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32), levels=np.arange(4) % 3)
    part = prediction[key]
    assert len(part) == len(expected)
    for name in ("canvas_boxes", "boxes", "scores", "classes", "coefficients", "objectness", "levels"):
        np.testing.assert_array_equal(getattr(part, name), getattr(prediction, name)[expected])
    np.testing.assert_array_equal(part.masks(), prediction.masks()[expected])
    assert part.prototypes is prediction.prototypes
    assert part.source == "pond.jpg"


@pytest.mark.parametrize("index", [4, -5, 100])
def test_an_index_out_of_range_is_refused_with_the_range(index):
    message = rf"instance {index} is out of range: the prediction has 4 instances \(0..3\)"
    with pytest.raises(IndexError, match=message):
        four()[index]


def test_nothing_found_is_a_prediction_too():
    nothing = four()[[]]
    assert len(nothing) == 0
    assert nothing.masks("image").shape == (0, 48, 64)
    assert nothing.logits().shape == (0, 16, 16)
    assert nothing.areas().shape == (0,)
    assert nothing.empty.shape == (0,)
    assert nothing.boxes.shape == (0, 4)
    with pytest.raises(IndexError, match=r"instance 0 is out of range: the prediction has 0 instances$"):
        nothing[0]


def test_repr_says_what_there_is():
    found = four()
    assert repr(found[:0]) == "Prediction('pond.jpg', 64x48: 0 instances; 3 prototypes of 16x16, rule 'ultralytics')"
    named = replace(found, classes=np.array([1, 0, 1, 9]), names={0: "cat", 1: "dog"}, source="a/b.jpg")
    assert repr(named) == (
        "Prediction('a/b.jpg', 64x48: 4 instances (2 dog, 1 cat, 1 class9); 3 prototypes of 16x16, rule 'ultralytics')"
    )
    many = replace(found[[0] * 7], classes=np.arange(7), names={})
    assert "(1 class0, 1 class1, 1 class2, 1 class3, 1 class4 and 2 more)" in repr(many)


def test_plot_draws_on_the_image_and_nowhere_else(tmp_path):
    found = four()
    image = np.full((48, 64, 3), 200, np.uint8)
    drawn = found.plot(image)
    assert (drawn.shape, drawn.dtype) == (image.shape, np.uint8)
    assert (image == 200).all()
    assert (drawn[found.masks("image").any(axis=0)] != 200).any(axis=1).mean() > 0.9
    np.testing.assert_array_equal(found[:0].plot(image), image)
    cv2.imwrite(str(tmp_path / "one.png"), image)
    np.testing.assert_array_equal(replace(found, source=str(tmp_path / "one.png")).plot(), drawn)
    with pytest.raises(InputError, match=r"made from 'pond\.jpg', which cannot be read again; give the image"):
        found.plot()
    with pytest.raises(InputError, match="made from an array, which cannot be read again"):
        replace(found, source=None).plot()
    with pytest.raises(InputError, match="the image is 8 x 9 pixels; the prediction is about one of 64 x 48"):
        found.plot(np.zeros((9, 8, 3), np.uint8))


def test_notebooks_show_a_picture_where_the_image_is_still_there(tmp_path):
    named = replace(four(), names=dict.fromkeys(range(4), "<b>&"), source=str(tmp_path / "<i>.png"))
    assert "<img" not in named._repr_html_()
    assert named[0]._repr_png_() is None
    (tmp_path / "<i>.png").write_bytes(b"no image")
    assert "<img" not in named._repr_html_()
    cv2.imwrite(str(tmp_path / "<i>.png"), np.zeros((48, 64, 3), np.uint8))
    shown = named._repr_html_()
    assert "data:image/png;base64," in shown
    assert "&lt;b&gt;&amp;" in shown
    assert "<b>" not in shown
    assert "<i>" not in shown
    assert shown.count("<tr>") == 1 + len(named)
    assert cv2.imdecode(np.frombuffer(named[0]._repr_png_(), np.uint8), cv2.IMREAD_COLOR) is not None


# --- validation -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"canvas_boxes": np.zeros((4, 5))},
            r"canvas_boxes has shape \(4, 5\); expected \(4, 4\) for 4 instances and 3 prototypes",
        ),
        ({"canvas_boxes": np.zeros((3, 4))}, r"canvas_boxes has shape \(3, 4\); expected \(4, 4\)"),
        ({"classes": np.zeros((4, 1))}, r"classes has shape \(4, 1\); expected \(4,\)"),
        ({"coefficients": np.zeros((4, 32))}, r"coefficients has shape \(4, 32\); expected \(4, 3\)"),
        ({"objectness": np.zeros(3)}, r"objectness has shape \(3,\); expected \(4,\)"),
        ({"levels": np.zeros(3)}, r"levels has shape \(3,\); expected \(4,\)"),
        ({"prototypes": np.zeros((3, 256))}, r"prototypes has shape \(3, 256\); expected \(K, h, w\)"),
        (
            {"prototypes": np.zeros((3, 20, 16))},
            "prototypes are 20 x 16; the letterbox says the grid is 16 x 16",
        ),
    ],
)
def test_wrong_shapes_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(four(), **change)


def test_a_grid_that_is_not_square_is_told_the_right_way_round():
    with pytest.raises(InputError, match="prototypes are 16 x 16; the letterbox says the grid is 12 x 8"):
        replace(four(), letterbox=four().letterbox.with_grid((12, 8)))


def test_scores_must_be_one_per_instance():
    with pytest.raises(InputError, match="scores has shape"):
        replace(four(), scores=np.zeros((4, 1)))


# --- memory ---------------------------------------------------------------------------------------


def test_a_stack_over_the_limit_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(outputs, "MAX_STACK_BYTES", 4 * 48 * 64 - 1)
    with pytest.raises(InputError, match=r"4 masks of 64 x 48 would take .* GiB.*take crops or RLE"):
        four().masks("image")
    monkeypatch.setattr(outputs, "MAX_STACK_BYTES", 4 * 48 * 64)
    assert four().masks("image").shape == (4, 48, 64)
    with pytest.raises(InputError, match="4 logits of 64 x 48"):
        four().logits("image")
    with pytest.raises(InputError, match="4 probability maps of 64 x 48"):
        four().probabilities("image")


def test_300_instances_on_24_megapixels_stay_within_memory():
    """In a process of its own, whose peak is that of this prediction alone."""
    pytest.importorskip("resource")
    code = textwrap.dedent(
        """
        import resource
        import numpy as np
        from maskprism import Letterbox, Prediction, RULES
        from maskprism.errors import InputError
        import cv2

        rng = np.random.default_rng(0)
        centres = rng.uniform(100, 500, (300, 2))
        boxes = np.concatenate([centres - 8, centres + 8], axis=1).astype(np.float32)
        boxes[:3] = [0, 107, 640, 533]  # the whole image
        prediction = Prediction(
            canvas_boxes=boxes,
            scores=np.ones(300, dtype=np.float32),
            classes=np.zeros(300, dtype=np.int64),
            coefficients=rng.normal(0, 1, (300, 32)).astype(np.float32),
            prototypes=rng.normal(0, 1, (32, 160, 160)).astype(np.float32),
            letterbox=Letterbox.fit((4000, 6000), (640, 640)),
            rule=RULES["ultralytics"],
        )
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            prediction.masks("image")
        except InputError as error:
            print(error)
        areas = prediction.areas("image")
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(len(areas), areas.min() > 0, (after - before) // 1024)
        """
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    refusal, summary = found.stdout.strip().splitlines()
    assert refusal == (
        "300 masks of 6000 x 4000 would take 6.7 GiB, over the limit of 4 GiB; take crops or RLE, "
        'a slice of the instances, or size="canvas" or "grid"'
    )
    count, all_there, megabytes = summary.split()
    assert (count, all_there) == ("300", "True")
    assert int(megabytes) < 600


def three() -> Prediction:
    return four()[:3]


@pytest.mark.parametrize(
    "key", [True, (0, 1), np.array([0.5]), [5], [-4], np.array([True, False]), np.zeros((2, 2), int)]
)
def test_indices_that_mean_nothing_are_refused(key: Any) -> None:
    prediction = three()
    with pytest.raises(IndexError):
        prediction[key]


def test_arrays_without_axes_index_like_numbers() -> None:
    prediction = three()
    assert prediction[np.array(1)].index == 1
    assert prediction[np.int64(-1)].index == 2
    assert prediction[[-1, 0]].scores.tolist() == prediction.scores[[-1, 0]].tolist()


@given(predictions(), st.data())
def test_prototypes_with_a_value_that_is_no_number_are_named(prediction, data):
    k, height, width = prediction.prototypes.shape
    broken = sorted(data.draw(st.sets(st.integers(0, k - 1))))
    prototypes = prediction.prototypes.copy()
    for index in broken:
        place = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
        prototypes[index][place] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    assert replace(prediction, prototypes=prototypes).broken_prototypes.tolist() == broken
