"""Fewer prototypes: finding the basis, rewriting the file, and the command."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import reference_reduce as slow
from helpers.by_hand import made
from helpers.in_process import command as run
from helpers.strategies import predictions, seeds
from helpers.tiny_head import LAYOUTS, head, outputs_of
from helpers.tiny_models import Tiny, ultralytics_metadata
from maskprism import MaskprismError, Prediction, load
from maskprism.analysis.reduction import trade_off as reducing
from maskprism.analysis.reduction.reduced_file import BeforeAfter, CalibrationImages, matched_ious, reduce_file
from maskprism.analysis.reduction.trade_off import (
    METHODS,
    MixingCost,
    Reduction,
    fit_halves,
    mask_ious,
    measure,
    reductions,
)
from maskprism.cli.options import DetectionOptions
from maskprism.cli.reduce import reduce as reduce_command
from maskprism.datasets.scenes import NAMES, draw_scene, write_dataset
from maskprism.datasets.visit import Failure
from maskprism.drawing import raster
from maskprism.drawing.reduction import before_after, trade_off_figure
from maskprism.errors import InputError, MissingExtraError, ModelError
from maskprism.io.sources import ImageFiles, VideoFile, open_source
from maskprism.models.onnx.file import read_onnx
from maskprism.models.onnx.graph import ChannelSurgery
from maskprism.models.rewrite import write_reduced


def cost_of(*found: Prediction) -> MixingCost:
    cost = MixingCost(len(found[0].prototypes))
    for prediction in found:
        cost.update(prediction)
    return cost


# The basis


@settings(max_examples=20)
@given(predictions(), seeds)
def test_cost_is_the_weighted_change_of_the_logits(prediction: Prediction, seed: int) -> None:
    k = len(prediction.prototypes)
    rng = np.random.default_rng(seed)
    reduction = Reduction("projection", rng.normal(0, 0.7, (2, k)), rng.normal(0, 0.7, (2, k)))
    expected = slow.cost([prediction], reduction.coefficient_map.T @ reduction.prototype_map)
    assert cost_of(prediction).of(reduction) == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("rule", ["ultralytics", "yolov5"])
def test_selection_equals_trying_every_prototype(rule: str) -> None:
    found = [made(seed, rule=rule) for seed in (1, 2)]
    rows, scale = slow.design(found)
    order = slow.greedy(rows, 3)
    cost = cost_of(*found)
    for reduction in reductions(cost, "selection"):
        keep = len(reduction)
        assert reduction.kept == tuple(order[:keep])
        np.testing.assert_array_equal(reduction.prototype_map, np.eye(4)[order[:keep]])
        expected = slow.fitted(rows, np.eye(4)[order[:keep]])[0] * scale / scale[order[:keep], None]
        np.testing.assert_allclose(reduction.coefficient_map, expected, rtol=1e-5, atol=1e-7)


def test_projection_is_orthonormal_fitted_and_never_worse_than_selection() -> None:
    found = [made(seed, k=6) for seed in range(4)]
    rows, scale = slow.design(found)
    cost = cost_of(*found)
    gram = cost.gram / cost.weight
    for projected, selected in zip(reductions(cost, "projection"), reductions(cost, "selection"), strict=True):
        np.testing.assert_allclose(
            projected.prototype_map @ gram @ projected.prototype_map.T, np.eye(len(projected)), atol=1e-3
        )
        expected = slow.fitted(rows, projected.prototype_map * scale)[0] * scale
        np.testing.assert_allclose(projected.coefficient_map, expected, rtol=1e-4, atol=1e-6)
        assert cost.of(projected) <= cost.of(selected) * (1 + 1e-6)
        assert projected.kept is None
    gains = [cost.of(b) / cost.of(a) for a, b in zip(*(reductions(cost, method) for method in METHODS), strict=True)]
    assert min(gains) < 0.8


@pytest.mark.parametrize("used", [0, 1, 2])
def test_coefficients_that_no_instance_uses_are_kept_as_well(used: int) -> None:
    """All prototypes are multiples of one: whichever is kept can stand for the others."""
    prediction = made(0, k=3, n=1)
    prototypes = prediction.prototypes[:1] * np.array([1, 2, -0.5], dtype=np.float32)[:, None, None]
    prediction = replace(prediction, prototypes=prototypes, coefficients=np.eye(3, dtype=np.float32)[[used]])
    (reduction,) = reductions(cost_of(prediction), "selection", [1])
    for coefficients in np.eye(3, dtype=np.float32):
        other = replace(prediction, coefficients=coefficients[None])
        np.testing.assert_allclose(reduction.apply(other).logits(), other.logits(), atol=1e-3)


@given(st.integers(0, 50), st.sampled_from(METHODS))
@settings(max_examples=10)
def test_rescaling_prototypes_changes_nothing(seed: int, method: reducing.Method) -> None:
    found = made(seed)
    scale = np.random.default_rng(seed).uniform(0.1, 10, 4).astype(np.float32) * np.array([1, -1, 1, -1], np.float32)
    other = replace(found, prototypes=found.prototypes * scale[:, None, None], coefficients=found.coefficients / scale)
    for a, b in zip(reductions(cost_of(found), method), reductions(cost_of(other), method), strict=True):
        mixed = (b.coefficient_map.T @ b.prototype_map) * np.outer(1 / scale, scale)
        np.testing.assert_allclose(a.coefficient_map.T @ a.prototype_map, mixed, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_what_lies_in_a_smaller_space_is_kept(method: reducing.Method) -> None:
    found = [made(seed, k=6, rank=3) for seed in range(3)]
    (reduction,) = reductions(cost_of(*found), method, [3])
    for prediction in found:
        np.testing.assert_allclose(reduction.apply(prediction).logits(), prediction.logits(), atol=5e-3)
        assert mask_ious(prediction, [reduction]).min() > 0.99


@given(predictions())
@settings(max_examples=20)
def test_applied_and_mixed_masks_are_the_same(prediction: Prediction) -> None:
    if len(prediction.prototypes) < 2:
        prediction = replace(
            prediction,
            prototypes=np.repeat(prediction.prototypes, 2, axis=0),
            coefficients=np.repeat(prediction.coefficients, 2, axis=1),
        )
    for method in METHODS:
        for reduction in reductions(cost_of(prediction), method):
            applied = reduction.apply(prediction)
            assert len(applied.prototypes) == applied.coefficients.shape[1] == len(reduction)
            scale = np.abs(prediction.logits()).max(initial=1)
            np.testing.assert_allclose(applied.logits(), reduction.mixed(prediction).logits(), atol=1e-4 * scale)


def test_mask_ious_count_pixels() -> None:
    prediction = made(3)
    reduction = reductions(cost_of(prediction), "selection", [2])[0]
    expected = [
        slow.mask_iou(a, b)
        for a, b in zip(prediction.masks("canvas"), reduction.mixed(prediction).masks("canvas"), strict=True)
    ]
    np.testing.assert_allclose(mask_ious(prediction, [reduction])[0], expected, rtol=1e-6)
    np.testing.assert_allclose(matched_ious(prediction, reduction.apply(prediction)), expected, rtol=1e-6)


def test_an_instance_without_a_partner_counts_as_lost() -> None:
    prediction = made(3, n=4)
    assert matched_ious(prediction, prediction).tolist() == [1, 1, 1, 1]
    assert matched_ious(prediction, prediction[1:]).tolist()[1:] == [1, 1, 1]
    assert matched_ious(prediction, prediction[:0]).tolist() == [0, 0, 0, 0]
    other = replace(prediction, classes=prediction.classes + 1)
    assert matched_ious(prediction, other).max() == 0


def test_the_trade_off_is_measured_on_the_other_half() -> None:
    found = [made(seed, k=5) for seed in range(6)]
    halves = fit_halves(found)
    assert halves[0].instances == halves[1].instances == 18
    curves = measure(found, halves, [4, 2])
    assert curves.held_out
    assert curves.keeps == (2, 4)
    for method in METHODS:
        expected = [mask_ious(p, reductions(halves[1 - i % 2], method, [2, 4])) for i, p in enumerate(found)]
        np.testing.assert_array_equal(curves.ious[method], np.concatenate(expected, axis=1))
        assert curves.mean(method)[1] > curves.mean(method)[0]
        assert curves.smallest(method, float(curves.mean(method)[1])) == 4
        assert curves.of(method, 2).shape == (36,)
    with pytest.raises(InputError, match="no selection of up to 4 prototypes keeps a mean mask IoU of 1"):
        curves.smallest("selection", 1.0)
    with pytest.raises(InputError, match="above 0 and up to 1"):
        curves.smallest("selection", 1.5)
    with pytest.raises(InputError, match="3 prototypes were not measured"):
        curves.of("selection", 3)
    assert json.loads(json.dumps(curves.summary()))["selection"][0]["keep"] == 2
    alone = measure(found[:1], fit_halves(found[:1]))
    assert not alone.held_out


def test_mistakes_are_told() -> None:
    cost = cost_of(made(0))
    with pytest.raises(InputError, match="cannot keep 4 prototypes of 4; expected 1 to 3"):
        reductions(cost, "selection", [4])
    with pytest.raises(InputError, match="method is 'magic'"):
        reductions(cost, "magic")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="no instance in the images"):
        reductions(MixingCost(4), "selection")
    with pytest.raises(InputError, match="has 6 prototypes; the ones before had 4"):
        cost.update(made(0, k=6))
    with pytest.raises(InputError, match="at most 64"):
        MixingCost(65)
    with pytest.raises(InputError, match="no predictions"):
        fit_halves([])


@pytest.mark.parametrize("method", METHODS)
def test_dead_prototypes_and_few_instances_do_no_harm(method: reducing.Method) -> None:
    prediction = made(0, k=6, n=1)
    prototypes = prediction.prototypes.copy()
    prototypes[2] = 0
    for reduction in reductions(cost_of(replace(prediction, prototypes=prototypes)), method):
        assert np.isfinite(reduction.coefficient_map).all()
        assert np.isfinite(reduction.prototype_map).all()
        if reduction.kept is not None and len(reduction) < 6:
            assert 2 not in reduction.kept


# The file


def some_maps(k: int, keep: int, selection: bool) -> Reduction:
    rng = np.random.default_rng(5)
    chosen = np.eye(k)[rng.permutation(k)[:keep]] if selection else rng.normal(0, 0.5, (keep, k))
    return Reduction("selection" if selection else "projection", chosen, rng.normal(0, 0.5, (keep, k)))


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return cv2.resize(draw_scene(1).image, (120, 90))


@pytest.mark.parametrize("selection", [True, False], ids=["selection", "projection"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_predicts_what_the_maps_say(name: str, selection: bool, image: np.ndarray, tmp_path: Path) -> None:
    source, small = LAYOUTS[name].save(tmp_path / "full.onnx"), tmp_path / "small.onnx"
    layout = "yolov5" if LAYOUTS[name].family == "yolov5" else None
    model = load(source, layout=layout, conf=0.1)
    reduction = some_maps(8, 3, selection)
    where = write_reduced(
        model, source, small, reduction.prototype_map, reduction.coefficient_map, {"maskprism_reduced": "a note"}
    )
    assert where.prototypes == ("folded" if selection else "appended")
    reduced = load(small, layout=layout, conf=0.1)
    assert reduced.spec.prototypes == 3
    assert replace(reduced.spec, prototypes=8, sha256=model.spec.sha256, name=model.spec.name) == model.spec
    expected, got = reduction.apply(model.predict(image)), reduced.predict(image)
    assert len(got) == len(expected) > 0
    tolerance = 2e-2 if name == "half" else 1e-5
    for field in ("canvas_boxes", "scores", "classes", "coefficients", "prototypes"):
        np.testing.assert_allclose(
            getattr(got, field), getattr(expected, field), rtol=tolerance, atol=tolerance, err_msg=field
        )
    before, after = onnx.load(source), onnx.load(small)
    onnx.checker.check_model(after, full_check=True)
    assert {e.key: e.value for e in after.metadata_props} == {
        **{e.key: e.value for e in before.metadata_props},
        "maskprism_reduced": "a note",
    }
    assert after.opset_import == before.opset_import
    assert [o.type.tensor_type.elem_type for o in after.graph.output] == [
        o.type.tensor_type.elem_type for o in before.graph.output
    ]
    assert [o.name for o in after.graph.output] == [o.name for o in before.graph.output]
    assert after.graph.input == before.graph.input
    assert not list(tmp_path.glob("*.partial*"))


@pytest.mark.parametrize("name", ["yolov8", "end2end", "yolov5"])
def test_a_reduced_network_is_reduced_again(name: str, image: np.ndarray, tmp_path: Path) -> None:
    source, layout = LAYOUTS[name].save(tmp_path / "8.onnx"), "yolov5" if name == "yolov5" else None
    expected = load(source, layout=layout, conf=0.1).predict(image)
    for keep in (5, 3):
        model, smaller = load(source, layout=layout, conf=0.1), tmp_path / f"{keep}.onnx"
        reduction = some_maps(model.spec.prototypes, keep, selection=False)
        write_reduced(model, source, smaller, reduction.prototype_map, reduction.coefficient_map)
        expected, source = reduction.apply(expected), smaller
    got = load(source, layout=layout, conf=0.1).predict(image)
    assert len(got) == len(expected) > 0
    for field in ("coefficients", "prototypes"):
        np.testing.assert_allclose(getattr(got, field), getattr(expected, field), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("selection", [True, False], ids=["selection", "projection"])
def test_the_bundled_network_is_folded(selection: bool, tmp_path: Path) -> None:
    model, source = load("sample", conf=0.3), Path(load.__code__.co_filename).parents[1] / "data" / "sample.onnx"
    reduction, small = some_maps(32, 12, selection), tmp_path / "small.onnx"
    where = write_reduced(model, source, small, reduction.prototype_map, reduction.coefficient_map)
    assert where.coefficients == "folded"
    assert where.prototypes == ("folded" if selection else "appended")
    scene = draw_scene(2).image
    expected, got = reduction.apply(model.predict(scene)), load(small, conf=0.3).predict(scene)
    assert len(got) == len(expected) > 0
    for field in ("canvas_boxes", "coefficients", "prototypes"):
        want = getattr(expected, field)
        np.testing.assert_allclose(getattr(got, field), want, atol=1e-3 * np.abs(want).max(), err_msg=field)


@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize("reads_inside", [False, True])
@pytest.mark.parametrize("selection", [True, False])
def test_maps_are_folded_only_where_nothing_else_changes(fold: bool, reads_inside: bool, selection: bool) -> None:
    original = head(reads_inside=reads_inside)
    maps = some_maps(4, 2, selection)
    surgery = ChannelSurgery(original, fold=fold)
    places = (
        surgery.map_output("output1", 1, maps.prototype_map),
        surgery.map_last_channels("output0", 1, maps.coefficient_map),
    )
    can = fold and not reads_inside
    assert places == ("folded" if can and selection else "appended", "folded" if can else "appended")
    rewritten = surgery.finish({"key": "value"})
    onnx.checker.check_model(rewritten, full_check=True)
    images = np.random.default_rng(1).random((1, 3, 64, 64), dtype=np.float32)
    before, after = outputs_of(original, images), outputs_of(rewritten, images)
    np.testing.assert_allclose(after[0][:, :6], before[0][:, :6], atol=1e-6)
    mapped = np.einsum("mk,bka->bma", maps.coefficient_map, before[0][:, 6:])
    np.testing.assert_allclose(after[0][:, 6:], mapped, atol=1e-5)
    np.testing.assert_allclose(after[1], np.einsum("mk,bkhw->bmhw", maps.prototype_map, before[1]), atol=1e-5)
    for extra_before, extra_after in zip(before[2:], after[2:], strict=True):
        np.testing.assert_allclose(extra_after, extra_before, atol=1e-6)
    if can:
        names = {tensor.name for tensor in rewritten.graph.initializer}
        assert "w_first" not in names  # old weights are gone
        assert [n.op_type for n in rewritten.graph.node].count("MatMul") == 0


def test_what_cannot_be_rewritten_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="there is no such model file"):
        read_onnx(tmp_path / "none.onnx")
    other = tmp_path / "model.tflite"
    other.write_bytes(b"x")
    with pytest.raises(ModelError, match="only ONNX files can be rewritten; export the model first"):
        read_onnx(other)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"\x08\x07 not a graph")
    with pytest.raises(ModelError, match="cannot be read as ONNX"):
        read_onnx(damaged)
    damaged.write_bytes(b"")
    with pytest.raises(ModelError, match="holds no model"):
        read_onnx(damaged)
    old = Tiny().model()
    old.opset_import[0].version = 9
    onnx.save(old, tmp_path / "old.onnx")
    with pytest.raises(ModelError, match="has opset 9; expected at least 10"):
        read_onnx(tmp_path / "old.onnx")
    monkeypatch.setitem(sys.modules, "onnx", None)  # type: ignore[arg-type]
    with pytest.raises(MissingExtraError, match=r"pip install 'maskprism\[reduce\]'"):
        read_onnx(tmp_path / "old.onnx")


def test_a_network_that_comes_out_wrong_gets_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Tiny().save(tmp_path / "full.onnx")
    maps, twice = some_maps(8, 3, False), ChannelSurgery.map_output

    def wrong(self: ChannelSurgery, name: str, axis: int, map: np.ndarray) -> str:
        return twice(self, name, axis, map * 1.01)

    monkeypatch.setattr(ChannelSurgery, "map_output", wrong)
    with pytest.raises(ModelError, match="prototypes of the new model are off by up to"):
        write_reduced(load(source), source, tmp_path / "small.onnx", maps.prototype_map, maps.coefficient_map)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full.onnx"]


# The command


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("scenes"), 4, validation_share=0)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Tiny(metadata=ultralytics_metadata()).save(tmp_path_factory.mktemp("tiny") / "tiny ü.onnx")


def test_reduce_writes_a_working_file_and_its_report(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    pictures, out = dataset.parent / "images", tmp_path / "new folder" / "small ü.onnx"
    (tmp_path / "photos").mkdir()
    for picture in pictures.rglob("*.png"):
        (tmp_path / "photos" / picture.name).write_bytes(picture.read_bytes())
    (tmp_path / "photos" / "broken.png").write_bytes(b"")
    result = run("reduce", tiny, "--keep", 3, "--images", tmp_path / "photos", "--out", out)
    assert result.returncode == 0, result.stderr
    assert "3 of 8 prototypes by projection: mask IoU with the full model" in result.stdout
    assert "broken.png" in result.stderr
    assert load(out).spec.prototypes == 3
    base = out.parent / "small ü"
    numbers = json.loads((base.parent / "small ü.json").read_text(encoding="utf-8"))
    assert (numbers["keep"], numbers["of"], numbers["method"]) == (3, 8, "projection")
    assert [entry["keep"] for entry in numbers["trade_off"]["projection"]] == [1, 2, 3, 4, 5, 6, 7]
    assert numbers["files_compared"]["output_bytes"]["reduced"] < numbers["files_compared"]["output_bytes"]["full"]
    assert "mask_ap" not in numbers["files_compared"]
    manifest = json.loads((base.parent / "small ü.onnx.reduce.manifest.json").read_text(encoding="utf-8"))
    (shown,) = (one["value"] for one in manifest["numbers"] if one["title"] == "mean mask IoU with the full model")
    assert shown == pytest.approx(numbers["trade_off"]["projection"][2]["mean"])  # of images it was not fitted to
    for name in ("small ü.curve.png", "small ü.masks.png"):
        assert cv2.imdecode(np.fromfile(base.parent / name, np.uint8), cv2.IMREAD_COLOR) is not None
    before = {path.name: path.read_bytes() for path in out.parent.iterdir()}
    with pytest.raises(MaskprismError, match="exists; choose another --out, or give --overwrite"):
        reduce_command(tiny, keep=2, images=pictures, out=out)
    assert {path.name: path.read_bytes() for path in out.parent.iterdir()} == before
    assert reduce_command(tiny, keep=2, images=pictures, out=out, overwrite=True) == 0
    assert load(out).spec.prototypes == 2


def test_reduce_by_mask_iou_and_with_ground_truth(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.onnx"
    named = Tiny(classes=10, metadata=ultralytics_metadata(NAMES))
    source = named.save(tmp_path / "named.onnx")
    assert reduce_command(source, mask_iou=0.5, images=dataset, split="train", out=out, method="selection") == 0
    printed = capsys.readouterr().out
    assert "Mask AP at canvas size" in printed
    assert "Kept, most useful first" in printed
    numbers = json.loads((tmp_path / "small.json").read_text())
    curve = {entry["keep"]: entry["mean"] for entry in numbers["trade_off"]["selection"]}
    assert numbers["keep"] == min(keep for keep, mean in curve.items() if mean >= 0.5)
    assert len(numbers["kept"]) == numbers["keep"]
    assert set(numbers["files_compared"]["mask_ap"]) == {"ap", "ap50", "ap75"}


def test_mistakes_of_the_user(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    photos, small = dataset.parent / "images", tmp_path / "small.onnx"

    def refused(text: str, model: Path = tiny, images: Path = photos, out: Path = small, **options: Any) -> None:
        with pytest.raises(MaskprismError, match=text):
            reduce_command(model, images=images, out=out, **options)

    refused("either how many prototypes to keep or which mask IoU")
    refused("not both or neither", keep=3, mask_iou=0.9)
    refused("cannot keep 8 prototypes of 8; expected 1 to 7", keep=8)
    refused("cannot keep 0 prototypes of 8", keep=0)
    refused("expected a file name ending in .onnx", keep=3, out=tmp_path / "small.pt")
    refused("is the model itself", keep=3, out=tiny)
    refused("goes with a data.yaml", keep=3, split="val")
    refused("limit is 0", keep=3, limit=0)
    refused("there is no such file or folder", keep=3, images=tmp_path / "none")
    refused("detection model", Tiny(family="detect").save(tmp_path / "detect.onnx"), keep=3)
    refused("no instance in the images", keep=3, detections=DetectionOptions(conf=0.99))
    refused(r"none of its \d+ classes", keep=3, images=dataset, split="train")
    (tmp_path / "model.pt").write_bytes(b"x")
    refused("only ONNX files can be rewritten; export the model first", tmp_path / "model.pt", keep=3)
    (tmp_path / "broken.png").write_bytes(b"")
    refused("none of the 1 images can be read", keep=3, images=tmp_path / "broken.png")
    (tmp_path / "file").write_text("in the way")
    refused("cannot be written", keep=3, out=tmp_path / "file" / "small.onnx")
    assert not small.exists()


def test_images_are_gone_through_in_passes(tiny: Path, dataset: Path, tmp_path: Path) -> None:
    source = open_source(dataset.parent / "images")
    steps: list[object] = []
    found = reduce_file(load(tiny), tiny, CalibrationImages(source), tmp_path / "s.onnx", keep=4, on_image=steps.append)
    assert steps == [None] * 3 * 4
    assert found.comparison.ious.shape == (12,)
    applied = [found.reduction.apply(load(tiny).predict(item.read())) for item in source.pending(frozenset())]
    expected = [
        matched_ious(load(tiny).predict(item.read()), reduced)
        for item, reduced in zip(source.pending(frozenset()), applied, strict=True)
    ]
    np.testing.assert_allclose(found.comparison.ious, np.concatenate(expected), atol=0.01)


def test_images_can_be_limited_and_failures_are_told_once(tiny: Path, dataset: Path) -> None:
    source = open_source(dataset.parent / "images")
    names = [item.name for item in source.pending(frozenset())]
    few = CalibrationImages(source, limit=2)
    assert few.count() == 2

    def visited(images: CalibrationImages, **options: Any) -> list[str]:
        return list(images.visit(load(tiny), lambda one: one.name, **options))

    assert visited(few) == [names[0], names[-1]]
    with pytest.raises(InputError, match="limit is 0"):
        CalibrationImages(source, limit=0)
    broken = ImageFiles(source.root, (*source.paths, source.root / "none.png"))
    images, told = CalibrationImages(broken), list[Failure | None]()
    for _ in range(2):
        assert visited(images, on_image=told.append) == names
    assert told == [*[None] * 4, Failure("none.png", "there is no such file"), *[None] * 5]


def test_a_video_that_does_not_tell_its_length_gives_its_first_frames(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(VideoFile, "_claimed", lambda self: None)
    images = CalibrationImages(VideoFile(tmp_path / "clip.avi"), limit=2)
    assert images.source == VideoFile(tmp_path / "clip.avi", frozenset({0, 1}))


# The pictures


def test_pictures_show_curves_and_masks(tmp_path: Path) -> None:
    found = [made(seed, k=5) for seed in range(4)]
    curves = measure(found, fit_halves(found))
    figure = trade_off_figure(curves, 2, "selection")
    (ax,) = figure.axes
    assert "24 instances" in ax.get_title()
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    np.testing.assert_allclose(lines["some of them kept (selection)"], curves.mean("selection"))
    image = np.full((32, 48, 3), 90, np.uint8)
    empty = found[0][:0]
    sheet = before_after([BeforeAfter(image, found[0], found[0], 1.0), BeforeAfter(image, found[1], empty, 0.0)])
    assert len(sheet.panels) == 6
    assert raster.draw(sheet).ndim == 3
    unchanged, lost = sheet.panels[2].picture, sheet.panels[5].picture
    assert unchanged is not None
    assert lost is not None
    assert np.ptp(unchanged) == 0
    assert (lost[..., 2] > lost[..., 0]).sum() == found[1].masks("image").any(axis=0).sum()
