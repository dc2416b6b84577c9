"""Crop margin and logit threshold: what they do to masks in every decoder, and how `tune` chooses them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskprism
from helpers.strategies import predictions
from helpers.tiny_models import NAMES, Tiny
from maskprism.analysis.truth.gains import Gains
from maskprism.analysis.truth.matching import match
from maskprism.analysis.truth.overlaps import Region, regions
from maskprism.analysis.tuning.decode_rule import DecodeSetting, choose_decode_rule, setting_ious, settings_of
from maskprism.core.decoding import compiled, pure
from maskprism.core.decoding.job import decode_job
from maskprism.core.geometry import SIZES
from maskprism.core.masks import NO_CROP, RULES, ULTRALYTICS, ULTRALYTICS_8_3, MaskRule
from maskprism.datasets import GroundTruth
from maskprism.datasets.scenes import draw_scene
from maskprism.errors import InputError, ModelError

margins = st.sampled_from([0.01, 0.1, 1.0])
logits = st.sampled_from([-2.0, -0.3, 0.7])


@given(prediction=predictions(), margin=margins)
def test_a_margin_is_a_wider_box(prediction, margin):
    boxes = prediction.canvas_boxes
    sides = boxes[:, 2:] - boxes[:, :2]
    wider = np.concatenate([boxes[:, :2] - np.float32(margin) * sides, boxes[:, 2:] + np.float32(margin) * sides], 1)
    found = replace(prediction, rule=replace(prediction.rule, crop_margin=margin))
    expected = replace(prediction, canvas_boxes=wider)
    for size in SIZES:
        np.testing.assert_array_equal(found.masks(size), expected.masks(size))
        np.testing.assert_array_equal(found.areas(size), expected.areas(size))
        for one, other in zip(found.patches(size), expected.patches(size), strict=True):
            np.testing.assert_array_equal(one.values, other.values)


@given(prediction=predictions(), logit=logits)
def test_a_threshold_is_what_values_are_compared_with(prediction, logit):
    if not prediction.rule.takes_thresholds:
        with pytest.raises(InputError, match="it takes no logit_threshold but 0"):
            replace(prediction.rule, logit_threshold=logit)
        return
    rule = replace(prediction.rule, logit_threshold=logit)
    found = replace(prediction, rule=rule)
    level = 1 / (1 + np.exp(-logit)) if rule.squash else logit
    assert rule.threshold == pytest.approx(level, abs=1e-6)
    for size in SIZES:
        for crop, values in zip(found.crops(size), prediction.patches(size), strict=True):
            unsure = np.abs(values.values - level) < 1e-5
            assert crop.values.size == values.values.size
            if crop.values.size:  # an empty window has no pixels, of whatever height and width
                np.testing.assert_array_equal(crop.values | unsure, (values.values > level) | unsure)


@pytest.mark.parametrize("name", RULES)
def test_both_decoders_draw_the_same_masks(name):
    prediction = maskprism.load("sample").predict(draw_scene(3).image[:200])
    assert len(prediction) > 3
    wide = replace(RULES[name], objectness=False, crop_margin=0.08)
    for rule in (wide, replace(wide, logit_threshold=-0.6 if wide.takes_thresholds else 0)):
        for size in SIZES:
            job = decode_job(
                prediction.weights, prediction.prototypes, prediction.canvas_boxes, prediction.letterbox, rule, size
            )
            assert compiled.encode(job, compressed=True) == pure.encode(job, compressed=True)
        polygons = replace(prediction, rule=rule).polygons("image")
        assert np.mean([polygon.iou() for polygon in polygons if polygon.n_vertices]) > 0.985


def test_what_a_rule_cannot_have_is_refused():
    for name, value in (("crop_margin", -0.1), ("crop_margin", 1.5), ("logit_threshold", float("nan"))):
        with pytest.raises(InputError, match=f"{name} is {value!r}; expected"):
            replace(ULTRALYTICS, **{name: value})


@given(prediction=predictions(), margin=margins)
def test_a_saved_prediction_keeps_its_rule(prediction, margin, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "one.npz"
    kept = replace(prediction, rule=replace(prediction.rule, crop_margin=margin))
    kept.save(path)
    assert maskprism.Prediction.load(path).rule == kept.rule


def tiny_with(tmp_path, rule):
    path = Tiny(metadata={"names": str(NAMES), "task": "segment", "version": "8.4.190"}).save(tmp_path / "tiny.onnx")
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {one.key: one.value for one in model.metadata_props} | {"maskprism_rule": rule})
    onnx.save(model, path)
    return path


def test_the_rule_in_the_metadata_is_applied_at_load(tmp_path):
    path = tiny_with(tmp_path, "{'crop_margin': 0.05, 'logit_threshold': -0.3}")
    model = maskprism.load(path)
    assert model.spec.rule == replace(ULTRALYTICS, crop_margin=0.05, logit_threshold=-0.3)
    assert maskprism.load(path, rule="retina").spec.rule == RULES["retina"]
    white = np.full((64, 64, 3), 255, dtype=np.uint8)
    stock = maskprism.load(path, rule="ultralytics").predict(white)
    assert (model.predict(white).areas() >= stock.areas()).all()
    assert model.predict(white).areas().sum() > stock.areas().sum()


@pytest.mark.parametrize(
    "rule",
    [
        "{'crop_margin': 0.05}",
        "{'crop_margin': 'x', 'logit_threshold': 0}",
        "[1]",
        "{'crop_margin': 9, 'logit_threshold': 0}",
    ],
)
def test_a_damaged_rule_in_the_metadata_is_refused(rule, tmp_path):
    with pytest.raises(ModelError, match=r"crop_margin|expected numbers"):
        maskprism.load(tiny_with(tmp_path, rule))


def test_settings_begin_with_the_rule_and_leave_out_what_it_cannot_have():
    assert settings_of(ULTRALYTICS)[0] == DecodeSetting(0, 0)
    assert len(set(settings_of(ULTRALYTICS))) == len(settings_of(ULTRALYTICS)) == 49
    assert {setting.logit_threshold for setting in settings_of(ULTRALYTICS_8_3)} == {0}
    assert {setting.crop_margin for setting in settings_of(NO_CROP)} == {0}
    own = replace(ULTRALYTICS, crop_margin=0.07)
    assert settings_of(own)[0] == DecodeSetting(0.07, 0)


def gains_of(images: np.ndarray) -> Gains:
    zeros = np.zeros(len(images))
    return Gains(image=images, before=zeros, after=zeros, areas=zeros, classes=["a"] * len(images))


def test_a_fold_has_no_part_in_what_is_measured_on_it():
    settings, rng = settings_of(ULTRALYTICS), np.random.default_rng(0)
    images = np.arange(60)
    folds = images // 20
    plain = rng.uniform(0.5, 0.6, (len(settings), 60))
    for fold, best in enumerate((3, 11, 20)):  # each fold likes another setting, more than all others do
        plain[best, folds == fold] = 1
    corrected = rng.uniform(0.5, 0.6, plain.shape)
    found = choose_decode_rule(ULTRALYTICS, gains_of(images), folds, plain, corrected)
    for fold in range(3):
        by_hand = settings[int(plain[:, folds != fold].mean(axis=1).argmax())]
        assert found.of_folds[fold] == by_hand != settings[(3, 11, 20)[fold]]
        row = settings.index(by_hand)
        np.testing.assert_array_equal(found.gains.after[folds == fold], corrected[row, folds == fold])
    np.testing.assert_array_equal(found.gains.before, corrected[0])
    assert not found.helps
    assert found.chosen == ULTRALYTICS


def test_where_nothing_is_better_the_rule_stays():
    images = np.arange(40)
    same = np.full((len(settings_of(ULTRALYTICS)), 40), 0.7)
    found = choose_decode_rule(ULTRALYTICS, gains_of(images), images % 4, same, same)
    assert found.setting == DecodeSetting(0, 0)
    assert not found.helps
    nothing = choose_decode_rule(ULTRALYTICS, gains_of(images[:0]), images[:0], same[:, :0], same[:, :0])
    assert nothing.setting == DecodeSetting(0, 0)


def measured(kind: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The images of matched instances of drawn scenes, and their IoU under each setting."""
    model, images, ious = maskprism.load("sample"), [], []
    for number in range(count):
        scene = draw_scene(900 + number, kind=kind)
        truth, prediction = GroundTruth.of_masks(scene.masks, scene.classes), model.predict(scene.image)
        matches = match(prediction, truth)
        true = [Region(*patch) for patch in truth.patches("canvas", prediction.letterbox)]
        ious.append(setting_ious(prediction[matches.instances], [true[i] for i in matches.objects], prediction.rule))
        images += [number] * len(matches.instances)
    return np.array(images), np.concatenate(ious, axis=1)


def test_what_a_setting_gives_is_what_its_rule_draws():
    scene = draw_scene(7)
    truth, prediction = GroundTruth.of_masks(scene.masks, scene.classes), maskprism.load("sample").predict(scene.image)
    for rule in (ULTRALYTICS, RULES["yolact"], NO_CROP):
        seen = replace(prediction, rule=rule)
        matches = match(seen, truth)
        true = [Region(*patch) for patch in truth.patches("canvas", seen.letterbox)]
        targets, found = [true[i] for i in matches.objects], seen[matches.instances]
        assert len(targets) > 3
        by_hand = [
            [one.iou_with(target) for one, target in zip(regions(drawn, "canvas"), targets, strict=True)]
            for setting in settings_of(rule)
            for drawn in [replace(found, rule=setting.of_rule(rule))]
        ]
        np.testing.assert_allclose(setting_ious(found, targets, rule), by_hand, atol=1e-3)


@pytest.mark.study
def test_long_thin_objects_gain_from_a_wider_crop():
    images, ious = measured("long", 60)
    assert len(images) > 150
    found = choose_decode_rule(ULTRALYTICS, gains_of(images), images % 4, ious, ious)
    assert found.helps
    assert found.setting.crop_margin > 0
    assert found.chosen == found.setting.of_rule(ULTRALYTICS)


def test_scenes_of_each_kind_follow_from_their_seed():
    assert (draw_scene(5, kind="long").classes == 7).all()
    np.testing.assert_array_equal(draw_scene(5, kind="long").image, draw_scene(5, kind="long").image)
    with pytest.raises(InputError, match="kind is 'round'; expected one of 'shapes', 'long'"):
        draw_scene(5, kind="round")


def test_a_rule_with_a_margin_is_data():
    assert MaskRule("mine", crop_margin=0.1).crop_boxes(np.float32([[0, 10, 20, 20]])).tolist() == [[-2, 9, 22, 21]]
