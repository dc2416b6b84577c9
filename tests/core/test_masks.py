"""Mask rules: the golden square, the versions, and every rule against its slow twin."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import reference
from helpers.strategies import boxes, letterboxes, predictions
from maskprism import RULES, Letterbox, MaskRule, Prediction
from maskprism.core.masks import crop_window, decode, pixels_between, rule_named, rule_of_version, sigmoid
from maskprism.errors import InputError

SIZES = ("grid", "canvas", "image")


def square(logit: float, rule: str) -> Prediction:
    """The golden square: a constant logit, box 40..120 of a canvas of 160, stride 4."""
    letterbox = Letterbox.fit((160, 160), (160, 160))
    return Prediction(
        canvas_boxes=np.array([[40, 40, 120, 120]], dtype=np.float32),
        scores=np.ones(1, dtype=np.float32),
        classes=np.zeros(1, dtype=np.int64),
        coefficients=np.full((1, 32), logit / 32, dtype=np.float32),
        prototypes=np.ones((32, 40, 40), dtype=np.float32),
        letterbox=letterbox,
        rule=RULES[rule],
        objectness=np.ones(1, dtype=np.float32),
    )


@pytest.mark.parametrize(
    ("rule", "logit", "area", "outside"),
    [
        ("ultralytics", 32, 6400, 0),
        ("ultralytics-8.4.90", 32, 6400, 0),
        ("retina", 32, 6400, 0),
        ("ultralytics-8.4.83", 32, 7056, 656),
        ("ultralytics-8.3.215", 32, 7056, 656),
        ("ultralytics-8.3.189", 32, 7056, 656),
        ("ultralytics-8.3", 32, 7056, 656),
        ("ultralytics-8.2", 32, 6396, 0),
        ("yolov5", 32, 6396, 0),
        ("yolact", 32, 7740, 1340),
        ("no-crop", 32, 25600, 19200),
        ("ultralytics", 0.2, 6400, 0),
        ("ultralytics-8.4.90", 0.2, 6400, 0),
        ("retina", 0.2, 6400, 0),
        ("ultralytics-8.4.83", 0.2, 7056, 656),
        ("ultralytics-8.3.215", 0.2, 7056, 656),
        ("ultralytics-8.3.189", 0.2, 7056, 656),
        ("ultralytics-8.3", 0.2, 7056, 656),
        ("ultralytics-8.2", 0.2, 5776, 0),
        ("yolov5", 0.2, 5776, 0),
        ("yolact", 0.2, 7056, 656),
        ("no-crop", 0.2, 25600, 19200),
    ],
)
def test_golden_square(rule, logit, area, outside):
    mask = square(logit, rule).masks("canvas")[0]
    assert mask.sum() == area
    assert mask.sum() - mask[40:120, 40:120].sum() == outside


def test_golden_square_of_validation_is_cut_on_the_grid():
    prediction = square(32, "validation")
    mask = prediction.masks()[0]
    assert mask.shape == (40, 40)
    assert (mask.sum(), mask[10:30, 10:30].sum()) == (400, 400)


def test_every_preset_stands_in_the_golden_square():
    assert set(RULES) == {
        "ultralytics",
        "ultralytics-8.4.90",
        "ultralytics-8.4.83",
        "ultralytics-8.3.215",
        "ultralytics-8.3.189",
        "ultralytics-8.3",
        "ultralytics-8.2",
        "yolov5",
        "retina",
        "validation",
        "yolact",
        "no-crop",
    }
    assert all(name == rule.name for name, rule in RULES.items())


def test_a_rounded_box_is_what_8_3_215_did_on_the_grid():
    exact, rounded = square(32, "ultralytics-8.3.189"), square(32, "ultralytics-8.3.215")
    box = np.array([[41.6, 41.6, 122.4, 122.4]], dtype=np.float32)  # 10.4..30.6 cells: 11..30, or rounded 10..30
    exact, rounded = replace(exact, canvas_boxes=box), replace(rounded, canvas_boxes=box)
    assert exact.masks("grid").sum() == 20 * 20
    assert rounded.masks("grid").sum() == 21 * 21


@pytest.mark.parametrize(
    ("version", "rule"),
    [
        (None, "ultralytics"),
        ("", "ultralytics"),
        ("garbage", "ultralytics"),
        ("8.4", "ultralytics"),
        ("9.0.0", "ultralytics"),
        ("8.4.190", "ultralytics"),
        ("8.4.175", "ultralytics"),
        ("8.4.174", "ultralytics-8.4.90"),
        ("8.4.90", "ultralytics-8.4.90"),
        ("8.4.89", "ultralytics-8.4.83"),
        ("8.4.83", "ultralytics-8.4.83"),
        ("8.4.82", "ultralytics-8.3.215"),
        ("8.4.0", "ultralytics-8.3.215"),
        ("8.3.215", "ultralytics-8.3.215"),
        ("8.3.214", "ultralytics-8.3.189"),
        ("8.3.189", "ultralytics-8.3.189"),
        ("8.3.188", "ultralytics-8.3"),
        ("8.3.0", "ultralytics-8.3"),
        ("8.2.103", "ultralytics-8.2"),
        ("8.0.0", "ultralytics-8.2"),
        ("0.0.0", "ultralytics-8.2"),
        ("8.3.0.dev1", "ultralytics-8.3"),
    ],
)
def test_rule_of_version(version, rule):
    assert rule_of_version(version).name == rule


def test_only_yolov5_multiplies_coefficients_by_objectness():
    assert [name for name, rule in RULES.items() if rule.objectness] == ["yolov5"]


def test_an_unknown_rule_is_refused_with_the_presets():
    with pytest.raises(InputError, match=r"there is no mask rule 'yolov9'; expected one of ultralytics, .*, no-crop"):
        rule_named("yolov9")
    custom = MaskRule("mine", squash=True)
    assert rule_named(custom) is custom


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("size", SIZES)
@settings(max_examples=25)
@given(data=st.data())
def test_every_rule_matches_its_twin(rule, size, data):
    prediction = data.draw(predictions(rule=RULES[rule], max_count=2))
    letterbox = prediction.letterbox
    masks = prediction.masks(size)
    for mask, weights, box in zip(masks, prediction.weights, prediction.extents, strict=True):
        in_frames = {frame: letterbox.from_canvas(box, frame).tolist() for frame in SIZES}
        logits = reference.summed_terms(weights, prediction.prototypes)
        expected, margin = reference.decoded(logits, in_frames, letterbox, RULES[rule], size)
        sure = margin > 1e-3
        np.testing.assert_array_equal(mask[sure], expected[sure])


@pytest.mark.parametrize("rule", list(RULES))
@pytest.mark.parametrize("size", SIZES)
@settings(max_examples=15)
@given(data=st.data())
def test_soft_masks_and_cropped_logits_match_their_twin(rule, size, data):
    prediction = data.draw(predictions(rule=RULES[rule], max_count=2))
    letterbox = prediction.letterbox
    soft, cropped = prediction.probabilities(size), prediction.logits(size, crop=True)
    for index, (weights, box) in enumerate(zip(prediction.weights, prediction.extents, strict=True)):
        in_frames = {frame: letterbox.from_canvas(box, frame).tolist() for frame in SIZES}
        logits = reference.summed_terms(weights, prediction.prototypes)
        values, left = reference.cropped_softly(logits, in_frames, letterbox, RULES[rule], size, RULES[rule].squash)
        expected = values if RULES[rule].squash else 1 / (1 + np.exp(-values))
        np.testing.assert_allclose(soft[index], np.where(left, expected, 0), atol=1e-3)
        values, left = reference.cropped_softly(logits, in_frames, letterbox, RULES[rule], size, squash=False)
        np.testing.assert_allclose(cropped[index], np.where(left, values, 0), atol=1e-3)


@given(letterboxes(), st.sampled_from(["before", "after"]), st.data())
def test_a_box_outside_the_image_gives_an_empty_mask(letterbox, crop, data):
    size = data.draw(st.sampled_from(SIZES))
    height, width = letterbox.canvas_hw
    box = np.array([width + 8, height + 8, width + 20, height + 20], dtype=np.float32)
    rule = MaskRule("any", crop=crop, crop_image=crop)
    patch = decode(np.ones(letterbox.grid_hw, dtype=np.float32), box, letterbox, rule, size)
    assert patch.values.size == 0


@pytest.mark.parametrize("unpad", ["floor", "round", "whole"])
@pytest.mark.parametrize("image_hw", [(20, 60), (60, 20)])
def test_a_box_in_the_padding_touches_nothing_of_the_image(unpad, image_hw):
    letterbox = Letterbox.fit(image_hw, (64, 64))
    box = np.array([0, 0, 8, 8], dtype=np.float32)  # two cells of padding in the corner
    rule = MaskRule("any", crop="before", crop_image="before", unpad=unpad)
    patch = decode(np.ones((16, 16), dtype=np.float32), box, letterbox, rule, "image")
    assert patch.values.size == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_box_that_is_no_number_or_endless_gives_an_empty_mask(bad):
    letterbox = Letterbox.fit((30, 40), (32, 32))
    for size in SIZES:
        for corner in range(4):
            box = np.array([4, 4, 28, 28], dtype=np.float32)
            box[corner] = bad
            patch = decode(np.ones((8, 8), dtype=np.float32), box, letterbox, RULES["ultralytics"], size)
            clipped = size == "image" and not np.isnan(bad)  # an endless box ends at the border of the image
            assert patch.values.size == 0 or clipped


def test_only_a_crop_on_the_grid_is_widened():
    letterbox = Letterbox.fit((32, 32), (32, 32))
    box = np.array([8, 12, 20, 24], dtype=np.float32)
    rule = MaskRule("any", crop="before", crop_image="after", crop_padding=1)
    assert crop_window(box, letterbox, rule, "before", "canvas") == (slice(2, 7), slice(1, 6))
    assert crop_window(box, letterbox, rule, "after", "image") == (slice(12, 24), slice(8, 20))


@given(st.data())
def test_pixels_between_are_those_whose_index_lies_in_the_interval(data):
    quarter = st.integers(-40, 80).map(lambda q: q / 4)
    start, stop = data.draw(quarter), data.draw(quarter)
    length, padding = data.draw(st.integers(0, 12)), data.draw(st.integers(0, 2))
    rounded = data.draw(st.booleans())
    found = pixels_between(start, stop, length, padding, rounded)
    if rounded:  # the edge of the padded box is rounded, in C and JavaScript, too
        start, stop, padding = round(start - padding), round(stop + padding), 0
    expected = [i for i in range(length) if start - padding <= i < stop + padding]
    assert list(range(length))[found] == expected


def test_sigmoid_is_the_logistic_function_and_does_not_overflow():
    x = np.linspace(-20, 20, 401, dtype=np.float32)
    np.testing.assert_allclose(sigmoid(x), 1 / (1 + np.exp(-x.astype(float))), atol=1e-6)
    with np.errstate(all="raise"):
        assert sigmoid(np.array([-1e30, 0, 1e30], dtype=np.float32)).tolist() == [0, 0.5, 1]


@given(letterboxes(), st.data())
def test_cropping_never_adds_a_pixel(letterbox, data):
    found = data.draw(predictions(letterbox=letterbox, rule=RULES["ultralytics"]))
    found = replace(found, canvas_boxes=data.draw(boxes(letterbox.canvas_hw, len(found))))
    for size in SIZES:
        cropped, whole = found.masks(size), found.with_rule("no-crop").masks(size)
        assert not (cropped & ~whole).any()
