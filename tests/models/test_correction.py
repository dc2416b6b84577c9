"""Corrections of coefficients: applied, kept in a file, given to a model, and folded into models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from helpers import reference_tune as slow
from helpers.by_hand import made
from helpers.tiny_head import LAYOUTS, head, outputs_of
from helpers.tiny_models import Tiny
from maskprism import load
from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.errors import InputError, MaskprismError, ModelError, TableError
from maskprism.models import SAMPLE_MODEL
from maskprism.models.correction import Correction
from maskprism.models.onnx.graph import ChannelSurgery
from maskprism.models.rewrite import write_corrected
from maskprism.tables.extraction import extract
from maskprism.tables.table import CoefficientTable
from maskprism.viewer.payload import viewer_scene


def some(levels: int = 3, k: int = 4, sha256: str | None = None) -> Correction:
    rng = np.random.default_rng(levels)
    return Correction(rng.normal(0, 0.3, (levels, k, k)), rng.normal(0, 0.3, (levels, k)), sha256)


@pytest.mark.parametrize("levels", [1, 3])
def test_coefficients_are_corrected_by_level(levels: int) -> None:
    prediction, correction = replace(made(0), levels=np.array([2, 0, 1, 1, 2, 0])), some(levels)
    got = correction.apply(prediction)
    for row, own, level in zip(got.coefficients, prediction.coefficients, prediction.levels, strict=True):
        which = level if levels > 1 else 0
        expected = slow.corrected(own.tolist(), correction.maps[which], correction.offsets[which])
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)
    assert got.prototypes is prediction.prototypes
    assert got.canvas_boxes is prediction.canvas_boxes
    np.testing.assert_array_equal(Correction.none(4, levels).apply(prediction).coefficients, prediction.coefficients)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="has 3 levels, and the outputs do not tell from which"):
        some().apply(made(0))
    with pytest.raises(InputError, match="is for 5 coefficients; the instances have 4"):
        some(1, 5).apply(made(0))
    with pytest.raises(InputError, match=r"maps have shape \(1, 2, 3\) and offsets \(1, 2\); expected \(L, K, K\)"):
        Correction(np.zeros((1, 2, 3)), np.zeros((1, 2)))
    with pytest.raises(InputError, match="contains NaN or infinity"):
        Correction(np.full((1, 2, 2), np.nan), np.zeros((1, 2)))
    with pytest.raises(InputError, match=r"for 4 coefficients on 3 levels; sample\.onnx has 32 on 3 levels"):
        load("sample", correction=some())


def test_a_file_keeps_every_number(tmp_path: Path) -> None:
    correction = some(sha256="ab")
    found = Correction.read(correction.write(tmp_path / "made" / "correction.json"))
    np.testing.assert_array_equal(found.maps, correction.maps)
    np.testing.assert_array_equal(found.offsets, correction.offsets)
    assert found.sha256 == "ab"
    with pytest.raises(MaskprismError, match="cannot be written"):
        correction.write(tmp_path / "made" / "correction.json" / "below")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"maskprism_correction": 2}, "expected a correction as maskprism tune"),
        ({"levels": []}, "is not as it should be"),
        ({"levels": [{"map": [[1, 2]], "offset": [1, 2]}]}, "the map of level 0 is not 2 x 2"),
        ({"levels": [{"map": [["a"]], "offset": [1]}]}, "is not as it should be"),
        ({"levels": [{"map": [[1]], "offset": [1]}, {"map": [[1, 2], [3, 4]], "offset": [1, 2]}]}, "level 1 is not 1"),
        ({"levels": [{"map": [[float("nan")]], "offset": [1]}]}, "is not as it should be|contains NaN or infinity"),
    ],
)
def test_damaged_files_are_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    file = tmp_path / "correction.json"
    good = {"maskprism_correction": 1, "network_sha256": "", "levels": [{"map": [[1]], "offset": [1]}]}
    file.write_text(json.dumps(good))
    assert Correction.read(file).sha256 is None
    file.write_text(json.dumps(good | change))
    with pytest.raises(InputError, match=message):
        Correction.read(file)


def test_a_model_applies_a_correction_made_for_it(tmp_path: Path) -> None:
    model, scene = load("sample"), draw_scene(3).image
    correction = some(3, 32, model.spec.sha256)
    file = correction.write(tmp_path / "correction.json")
    expected = correction.apply(model.predict(scene)).coefficients
    for opened in (
        load("sample", correction=file),
        load("sample", correction=correction),
        model.with_correction(correction),
    ):
        np.testing.assert_array_equal(opened.predict(scene).coefficients, expected)
    assert model.correction is None
    np.testing.assert_array_equal(
        load("sample", correction=file).with_correction(None).predict(scene).coefficients,
        model.predict(scene).coefficients,
    )
    other = Tiny(prototypes=32).save(tmp_path / "other.onnx")
    with pytest.raises(InputError, match=r"correction.json was fitted to another model than other.onnx"):
        load(other, correction=file)
    assert load(other, correction=Correction.read(file)).correction is not None


def test_predictions_from_before_the_correction_come_along() -> None:
    scene, plain = draw_scene(3).image, load("sample")
    correction = some(3, 32)
    found, untuned = plain.with_correction(correction).predict_untuned(scene)
    np.testing.assert_array_equal(untuned, plain.predict(scene).coefficients)
    np.testing.assert_array_equal(found.coefficients, plain.with_correction(correction).predict(scene).coefficients)
    same, nothing = plain.predict_untuned(scene)
    np.testing.assert_array_equal(same.coefficients, untuned)
    assert nothing is None
    header = viewer_scene(scene, found, untuned=untuned).header
    np.testing.assert_array_equal([one["untuned"] for one in header["instances"]], untuned)
    assert all(one["untuned"] is None for one in viewer_scene(scene, same).header["instances"])
    with pytest.raises(InputError, match="untuned has shape"):
        viewer_scene(scene, found, untuned=untuned[:1])


def test_a_table_says_which_correction_its_rows_have(tmp_path: Path) -> None:
    write_dataset(tmp_path, 1, validation_share=1)
    images, table = tmp_path / "images", tmp_path / "table.parquet"
    correction = some(3, 32)
    extract(images, load("sample", correction=correction), table)
    assert CoefficientTable.read(table).metadata["correction"] == correction.fingerprint
    assert correction.fingerprint != some(1, 32).fingerprint
    with pytest.raises(TableError, match=r'correction: "[0-9a-f]{64}" in the table, null now'):
        extract(images, load("sample"), table)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_corrected_file_predicts_what_the_correction_says(name: str, levels: int, tmp_path: Path) -> None:
    source, target = LAYOUTS[name].save(tmp_path / "old.onnx"), tmp_path / "new.onnx"
    layout = "yolov5" if LAYOUTS[name].family == "yolov5" else None
    model = load(source, layout=layout, conf=0.1)
    correction = some(levels, 8)
    if levels > model.levels:
        with pytest.raises(InputError, match=r"has 8 on 1 level: fit one to this model"):
            write_corrected(model, source, target, correction)
        return
    if levels > 1 and LAYOUTS[name].dynamic:  # one constant table: its levels lie apart nowhere
        with pytest.raises(ModelError, match="cannot be distinguished in the model; fit one correction for all levels"):
            write_corrected(model, source, target, correction)
        assert not target.exists()
        return
    assert write_corrected(model, source, target, correction, {"tuned": "so"}).coefficients == "appended"
    image = cv2.resize(draw_scene(1).image, (120, 90))
    expected, got = correction.apply(model.predict(image)), load(target, layout=layout, conf=0.1).predict(image)
    assert len(got) == len(expected) > 0
    for field in ("canvas_boxes", "scores", "classes", "prototypes"):
        np.testing.assert_array_equal(getattr(got, field), getattr(expected, field), err_msg=field)
    tolerance = 2e-2 if name == "half" else 1e-5
    np.testing.assert_allclose(got.coefficients, expected.coefficients, rtol=tolerance, atol=tolerance)
    after = onnx.load(target)
    onnx.checker.check_model(after, full_check=True)
    assert {e.key: e.value for e in after.metadata_props}["tuned"] == "so"


@pytest.mark.parametrize("levels", [1, 3])
def test_the_bundled_network_is_folded_and_all_else_stays(levels: int, tmp_path: Path) -> None:
    model, target, correction = load("sample", conf=0.05), tmp_path / "new.onnx", some(levels, 32)
    assert write_corrected(model, SAMPLE_MODEL, target, correction).coefficients == "folded"
    scene = draw_scene(2).image
    expected, got = correction.apply(model.predict(scene)), load(target, conf=0.05).predict(scene)
    assert len(got) == len(expected) > 0
    for field in ("canvas_boxes", "scores", "classes", "prototypes"):
        np.testing.assert_array_equal(getattr(got, field), getattr(expected, field), err_msg=field)
    np.testing.assert_allclose(got.coefficients, expected.coefficients, rtol=1e-4, atol=1e-4)
    kinds = [[node.op_type for node in onnx.load(file).graph.node] for file in (target, SAMPLE_MODEL)]
    assert len(kinds[0]) <= len(kinds[1])  # folded weights need not be widened from half precision
    assert [kind for kind in kinds[0] if kind != "Cast"] == [kind for kind in kinds[1] if kind != "Cast"]


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("reads_inside", [False, True])
@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
def test_levels_are_folded_only_where_nothing_else_changes(
    fold: bool, reads_inside: bool, levels: int, bias: bool
) -> None:
    original = head(reads_inside=reads_inside)
    if not bias:
        for node in original.graph.node:
            if node.output[0] == "first":
                del node.input[2]
    correction = some(levels)
    surgery = ChannelSurgery(original, fold=fold)
    place = surgery.correct_last_channels(
        "output0", 1, list(correction.mixing), list(correction.offsets), (64, 80) if levels > 1 else None
    )
    assert place == ("folded" if fold and not reads_inside else "appended")
    rewritten = surgery.finish({})
    onnx.checker.check_model(rewritten, full_check=True)
    images = np.random.default_rng(1).random((1, 3, 64, 64), dtype=np.float32)
    before, after = outputs_of(original, images), outputs_of(rewritten, images)
    np.testing.assert_array_equal(after[0][:, :6], before[0][:, :6])
    np.testing.assert_array_equal(after[1], before[1])
    rows = np.ascontiguousarray(before[0][0, 6:].T)
    expected = correction.coefficients(rows, np.repeat([0, 1], [64, 16]))
    np.testing.assert_allclose(after[0][0, 6:].T, expected, atol=1e-5)
    for extra_before, extra_after in zip(before[2:], after[2:], strict=True):
        np.testing.assert_array_equal(extra_after, extra_before)


def test_levels_that_cannot_be_told_apart_are_refused() -> None:
    correction = some(2)
    surgery = ChannelSurgery(head(), fold=False)
    assert surgery.correct_last_channels("output0", 1, list(correction.mixing), list(correction.offsets), None) is None
