"""YOLACT: priors, boxes, Fast NMS, how its outputs are recognised, and whole files."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskprism
from helpers import reference, reference_yolact
from helpers.strategies import boxes, seeds
from helpers.tiny_yolact import SIDE, TinyYolact
from maskprism.core.masks import RULES
from maskprism.errors import ModelError
from maskprism.models.correction import Correction
from maskprism.models.families.detection import find_layout
from maskprism.models.families.family import Probe
from maskprism.models.families.rows import Thresholds
from maskprism.models.families.yolact import YolactLayout, decoded_boxes, fast_nms, level_sizes, made_priors
from maskprism.models.metadata import Metadata
from maskprism.models.rewrite import write_corrected, write_reduced
from maskprism.models.runtimes import FunctionRuntime, NetworkInput

COCO = {
    "base": [[24], [48], [96], [192], [384]],
    "plus": [[s * 2 ** (i / 3) for i in range(3)] for s in (24, 48, 96, 192, 384)],
}


# --- priors and boxes -----------------------------------------------------------------------------


def test_levels_of_the_paper():
    assert level_sizes((550, 550)) == [(side, side) for side in (69, 35, 18, 9, 5)]
    assert [len(made_priors(kind, (550, 550))) for kind in ("base", "plus")] == [19_248, 57_744]


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_priors_are_those_of_the_configurations(kind):
    found = made_priors(kind, (550, 550))
    np.testing.assert_allclose(found, reference_yolact.priors((550, 550), COCO[kind], kind == "base"), atol=1e-7)
    assert found.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        found[0] = 0


def test_priors_of_yolact_are_squares_and_those_of_its_successor_are_not():
    base, plus = made_priors("base", (550, 550)), made_priors("plus", (550, 550))
    np.testing.assert_array_equal(base[:, 2], base[:, 3])
    np.testing.assert_allclose(base[:3, 2] * 550, 24 * np.sqrt([1, 0.5, 2]), rtol=1e-6)
    np.testing.assert_allclose((plus[:, 2] / plus[:, 3])[:9], [1, 0.5, 2] * 3, rtol=1e-5)


def test_other_canvases_have_scales_in_proportion():
    wide = made_priors("base", (400, 400))
    assert level_sizes((400, 400)) == [(side, side) for side in (50, 25, 13, 7, 4)]
    scales = [[int(24 * 2**level / 550 * 400)] for level in range(5)]
    np.testing.assert_allclose(wide, reference_yolact.priors((400, 400), scales, square=True), atol=1e-7)


@given(st.integers(0, 12), seeds)
def test_boxes_match_their_twin(count, seed):
    rng = np.random.default_rng(seed)
    offsets = rng.normal(0, 2, (count, 4)).astype(np.float32)
    priors = rng.uniform(0.01, 1, (count, 4)).astype(np.float32)
    found = decoded_boxes(offsets, priors)
    expected = [reference_yolact.decoded(*pair) for pair in zip(offsets.tolist(), priors.tolist(), strict=True)]
    np.testing.assert_allclose(found, np.reshape(expected, (-1, 4)), atol=1e-5)


# --- Fast NMS -------------------------------------------------------------------------------------


@given(st.integers(0, 14), st.integers(1, 14), st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.9, 1.0]), seeds, st.data())
def test_fast_nms_matches_its_twin(count, most, threshold, seed, data):
    rng = np.random.default_rng(seed)
    found = data.draw(boxes((6, 6), count))  # small canvas: many overlaps and ties
    scores = (rng.integers(1, 6, count) / 8).astype(np.float32)
    kept = fast_nms(found, scores, threshold, most)
    assert kept.tolist() == reference_yolact.fast_nms(found.tolist(), scores.tolist(), threshold, most)


def test_a_dropped_box_drops_others_all_the_same():
    row = np.array([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]], dtype=np.float32)  # neighbours: IoU 7/13
    scores = np.array([0.9, 0.8, 0.7], dtype=np.float32)
    assert fast_nms(row, scores, 0.5).tolist() == [0]
    assert reference.suppress(row.tolist(), scores.tolist(), [0] * 3, 0.5) == [0, 2]  # the usual suppression


def test_fast_nms_looks_at_the_two_hundred_best():
    apart = np.arange(250, dtype=np.float32)[:, None] * 10 + np.array([0, 0, 5, 5], dtype=np.float32)
    scores = np.linspace(0.1, 0.9, 250, dtype=np.float32)
    assert fast_nms(apart, scores, 0.5).tolist() == list(range(249, 49, -1))


# --- reading --------------------------------------------------------------------------------------


def drawn(seed: int, classes: int = 3, k: int = 2) -> tuple[YolactLayout, list[np.ndarray]]:
    rng = np.random.default_rng(seed)
    count = len(made_priors("base", (SIDE, SIDE)))
    offsets = rng.normal(0, 1, (1, count, 4)).astype(np.float32)
    scores = rng.dirichlet(np.full(classes + 1, 0.3), (1, count)).astype(np.float32)
    coefficients = np.tanh(rng.normal(0, 1, (1, count, k))).astype(np.float32)
    layout = YolactLayout("yolact", 2, 3, True, True, classes, k, 0, 1, None, "base")
    return layout, [offsets, scores, coefficients, np.zeros((1, 18, 18, k), dtype=np.float32)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("keep", [(0.05, 0.5, 100), (0.3, 0.5, 100), (0.15, 0.2, 7), (0.9, 1.0, 300)])
def test_detections_match_those_of_the_twin(seed, keep):
    layout, outputs = drawn(seed)
    rows = layout.read_rows(outputs, 0, (SIDE, SIDE), Thresholds(*keep))
    offsets, scores, coefficients = (one[0].tolist() for one in outputs[:3])
    priors = made_priors("base", (SIDE, SIDE)).tolist()
    located = [reference_yolact.decoded(*pair) for pair in zip(offsets, priors, strict=True)]
    expected = reference_yolact.detections(located, scores, *keep)
    assert len(rows.scores) == len(expected) > 0
    np.testing.assert_allclose(rows.scores, [scores[i][1 + c] for i, c in expected], atol=1e-7)
    assert rows.classes.tolist() == [c for _, c in expected]
    np.testing.assert_allclose(rows.coefficients, [coefficients[i] for i, _ in expected], atol=1e-7)
    np.testing.assert_allclose(rows.boxes, np.multiply([located[i] for i, _ in expected], SIDE), atol=1e-3)
    ends = np.cumsum([3 * height * width for height, width in level_sizes((SIDE, SIDE))])
    assert rows.levels.tolist() == [int((i >= ends).sum()) for i, _ in expected]


def test_only_wanted_classes_are_kept():
    layout, outputs = drawn(0)
    everything = layout.read_rows(outputs, 0, (SIDE, SIDE), Thresholds(0.3, 0.5, 999))
    rows = layout.read_rows(outputs, 0, (SIDE, SIDE), Thresholds(0.3, 0.5, 999, (2,)))
    assert set(everything.classes) == {0, 1, 2}
    np.testing.assert_array_equal(rows.scores, everything.scores[everything.classes == 2])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("table", [0, 2])
def test_rows_that_are_no_numbers_are_dropped_and_spoil_no_other(table, bad):
    layout, outputs = drawn(1)
    best = int(outputs[1][0, :, 1:].max(axis=1).argmax())
    outputs[1][0, best] = [0, 1, 0, 0]
    outputs[table][0, best, 3 if table == 0 else 0] = bad
    rows = layout.read_rows(outputs, 0, (SIDE, SIDE), Thresholds(0.3, 0.5))
    kept = outputs[1].copy()
    if table == 0 or not np.isfinite(bad):
        kept[0, best] = [1, 0, 0, 0]
        clean = [np.nan_to_num(one, posinf=0, neginf=0) for one in outputs]
        expected = layout.read_rows([clean[0], kept, *clean[2:]], 0, (SIDE, SIDE), Thresholds(0.3, 0.5))
        np.testing.assert_array_equal(rows.boxes, expected.boxes)
    assert np.isfinite(rows.boxes).all()
    assert len(rows.scores) > 10


def test_nothing_above_the_threshold_gives_rows_of_length_zero():
    layout, outputs = drawn(0)
    rows = layout.read_rows(outputs, 0, (SIDE, SIDE), Thresholds(1.0))
    assert (rows.boxes.shape, rows.scores.shape, rows.classes.shape) == ((0, 4), (0,), (0,))
    assert (rows.coefficients.shape, rows.levels.shape) == ((0, 2), (0,))


# --- telling outputs apart ------------------------------------------------------------------------


def tables(classes=80, k=32, side=550, kind="base", grid=138, seed=0):
    """loc, conf, mask, priors, proto as a model for COCO gives them."""
    return list(_tables(classes, k, side, kind, grid, seed))


@cache
def _tables(classes, k, side, kind, grid, seed):
    rng = np.random.default_rng(seed)
    priors = made_priors(kind, (side, side))
    loc = rng.normal(0, 1, (1, len(priors), 4)).astype(np.float32)
    conf = np.exp(rng.normal(0, 1, (1, len(priors), classes + 1))).astype(np.float32)
    conf /= conf.sum(axis=2, keepdims=True)
    mask = np.tanh(rng.normal(0, 1, (1, len(priors), k))).astype(np.float32)
    made = loc, conf, mask, priors, np.zeros((1, grid, grid, k), dtype=np.float32)
    for table in made:
        table.flags.writeable = False
    return made


NAMES = ("loc", "conf", "mask", "priors", "proto")


def found(outputs, names=(), side=550, forced=None):
    return find_layout(Probe(outputs, (side, side), Metadata(), "net.onnx", names), forced)[0]


def test_the_grid_of_138_cells_on_550_pixels_is_read():
    layout = found(tables())
    assert layout == YolactLayout("yolact", 2, 4, True, True, 80, 32, 0, 1, 3, None)
    assert layout.notes == ("priors: from the file",)
    assert layout.level_ends(19_248, (550, 550)) == (14_283, 17_958, 18_930, 19_173, 19_248)


@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [1, 0, 4, 3, 2], [2, 4, 0, 1, 3]])
@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize(("classes", "k"), [(80, 32), (31, 32), (3, 32), (1, 32), (20, 64)])
def test_outputs_are_told_apart_in_any_order(order, batched, classes, k):
    outputs = tables(classes, k)
    outputs[3] = outputs[3][None] if batched else outputs[3]
    layout = found([outputs[i] for i in order])
    places = [order.index(i) for i in range(5)]
    assert (layout.boxes_output, layout.scores_output, layout.rows_output) == tuple(places[:3])
    assert (layout.priors_output, layout.prototypes_output) == tuple(places[3:])
    assert (layout.classes, layout.prototypes) == (classes, k)


@pytest.mark.parametrize("images_last", [False, True])
@pytest.mark.parametrize("axis", [1, 3])
def test_prototypes_may_have_the_channel_first_or_last(axis, images_last):
    outputs = tables()
    outputs[4] = np.moveaxis(outputs[4], 3, axis)
    layout = find_layout(Probe(outputs, (550, 550), Metadata(), "net.onnx", images_last=images_last))[0]
    assert layout.prototypes_last is (axis == 3)


@pytest.mark.parametrize(("kind", "who"), [("base", "YOLACT"), ("plus", r"YOLACT\+\+")])
def test_priors_that_a_file_lacks_are_made(kind, who):
    outputs = tables(kind=kind)
    layout = found([*outputs[:3], outputs[4]])
    assert (layout.priors_output, layout.made, layout.corners) == (None, kind, False)
    assert len(layout.notes) == 1
    assert re.match(rf"priors: made as those of {who} for COCO", layout.notes[0])


def test_priors_of_another_number_are_asked_for():
    outputs = [one[:, :-3] if one.ndim == 3 else one for one in tables()]
    with pytest.raises(ModelError, match=r"19,245 boxes are not .* 19,248 or 57,744 .*export the priors, \(P, 4\)"):
        found([*outputs[:3], outputs[4]])


def test_scores_before_softmax_are_refused():
    outputs = tables()
    outputs[1] = np.log(outputs[1])
    with pytest.raises(ModelError, match=r"scores go from -\d+.* to .*; expected probabilities"):
        found(outputs, NAMES)
    with pytest.raises(ModelError, match="softmax over the last axis of conf"):
        found(outputs)


@pytest.mark.parametrize("names", [(), NAMES])
def test_the_range_that_is_told_is_that_of_the_scores(names):
    """Of the table called so; without names, of the one that is neither boxes nor coefficients."""
    outputs = tables(classes=31 if names else 80)  # as wide as the coefficients, or not
    outputs[1] = 1000 + outputs[1]
    with pytest.raises(ModelError, match=r"scores go from 1e\+03 to 1e\+03; expected probabilities"):
        found(outputs, names)


def test_names_decide_where_values_do_not():
    outputs = tables()
    outputs[0] = outputs[3][None].copy()  # a model that says nothing: offsets that look like priors
    outputs[3] = outputs[3][None]
    with pytest.raises(ModelError, match=r"could each be its scores, .* or priors; name the outputs loc"):
        found(outputs)
    layout = found(outputs, NAMES)
    assert (layout.boxes_output, layout.priors_output) == (0, 3)
    layout = found(outputs, ("priors", "conf", "mask", "loc", "proto"))
    assert (layout.boxes_output, layout.priors_output) == (3, 0)


def test_priors_in_pixels_are_refused():
    for batched in (False, True):
        outputs = tables()
        outputs[3] = outputs[3] * 550
        outputs[3] = outputs[3][None] if batched else outputs[3]
        with pytest.raises(ModelError, match=r"priors go from .* to 546; expected cx, cy, w, h as shares"):
            found(outputs, NAMES)


def test_priors_without_a_side_are_refused():
    outputs = tables()
    outputs[3] = outputs[3].copy()
    outputs[3][7, 2] = 0
    with pytest.raises(ModelError, match=r"priors go from 0 to .*; expected cx, cy, w, h as"):
        found(outputs, NAMES)


@pytest.mark.parametrize("images_last", [False, True])
def test_prototypes_as_many_as_cells_lie_where_the_image_has_its_channels(images_last):
    outputs = [*tables(3, 8)[:4], np.zeros((1, 8, 8, 8), dtype=np.float32)]
    layout = find_layout(Probe(outputs, (550, 550), Metadata(), "net.onnx", NAMES, images_last))[0]
    assert layout.prototypes_last is images_last


def test_finished_corners_are_known_by_their_name():
    outputs = tables()
    layout = found([*outputs[:3], outputs[4]], ("boxes", "conf", "mask", "proto"))
    assert layout.corners
    assert layout.notes == ("priors: none, boxes are finished corners",)
    outputs[:2] = [table.copy() for table in outputs[:2]]
    outputs[0][0, :2] = [[0.1, 0.2, 0.5, 0.6], [0.5, 0.5, 1, 1]]
    outputs[1][0] = np.eye(1, 81)
    outputs[1][0, :2] = [np.eye(81)[5], np.eye(81)[6]]
    rows = layout.read_rows([*outputs[:3], outputs[4]], 0, (550, 550), Thresholds())
    np.testing.assert_allclose(rows.boxes, [[55, 110, 275, 330], [275, 275, 550, 550]], rtol=1e-6)
    assert rows.classes.tolist() == [4, 5]


def test_other_tables_are_no_yolact():
    loc, conf, mask, _, proto = tables()
    few = [one[:, :32] for one in (loc, conf, mask)]  # no more boxes than prototypes: queries, rather
    for outputs in (
        [*few, proto],
        [loc, conf, proto],
        [loc, mask, proto],
        [conf, mask, proto],
        [loc, conf, mask],
        [loc, conf, mask, conf, mask, proto],
        [loc, mask, conf[:, :, :1], proto],
    ):
        with pytest.raises(ModelError, match="are not those of layout 'yolact'"):
            found(outputs, forced="yolact")


def test_a_forced_layout_must_fit():
    with pytest.raises(ModelError, match=r"shape \(1, 19248, 4\) are not those of layout 'yolact'; expected"):
        found(tables()[:1], forced="yolact")
    with pytest.raises(ModelError, match=r"no output holds prototypes|no detections that fit"):
        found(tables(), forced="yolov8")


# --- whole files ----------------------------------------------------------------------------------

VARIANTS = {
    "plain": TinyYolact(),
    "priors in a batch": TinyYolact(priors="batched"),
    "priors made": TinyYolact(priors="none"),
    "plus": TinyYolact(plus=True),
    "plus, priors made": TinyYolact(plus=True, priors="none"),
    "without names": TinyYolact(named=False),
    "reversed, channel first": TinyYolact(named=False, reverse=True, prototypes_last=False),
    "as many columns of scores as of boxes": TinyYolact(classes=3, priors="batched"),
    "as many columns of scores as of coefficients": TinyYolact(classes=7),
    "one class": TinyYolact(classes=1),
    "batch of 4": TinyYolact(batch=4),
    "any batch": TinyYolact(batch=None),
    "corners": TinyYolact(priors="none", corners=True),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_tiny_files_are_read(variant, tmp_path):
    tiny = VARIANTS[variant]
    model = maskprism.load(tiny.save(tmp_path / "tiny.onnx"))
    spec = model.spec
    assert (spec.layout, spec.input_hw, spec.grid_hw, spec.stride) == ("yolact", (SIDE, SIDE), (18, 18), 4)
    assert (spec.prototypes, spec.rule.name, spec.preprocessing.name) == (8, "yolact", "yolact")
    assert (model.keep, spec.rectangular) == (Thresholds(0.15, 0.5, 100), False)
    assert len(spec.names) == tiny.classes
    rng = np.random.default_rng(3)
    image = rng.integers(0, 256, (40, 90, 3), dtype=np.uint8)
    prediction = model.predict(image)
    assert prediction.letterbox.content_hw == (SIDE, SIDE)
    assert len(prediction) > 5

    tensor = _tensor(image)
    offsets, scores, coefficients = tiny.tables()
    brightness = 1 / (1 + np.exp(-float(tensor.mean())))
    scores = scores - 6 * brightness * np.eye(1, tiny.classes + 1)
    scores = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    priors = tiny.prior_boxes()
    located = [reference_yolact.decoded(*pair) for pair in zip(offsets.tolist(), priors.tolist(), strict=True)]
    expected = reference_yolact.detections(located, scores.tolist(), 0.15, 0.5, 100)
    assert prediction.classes.tolist() == [c for _, c in expected]
    np.testing.assert_allclose(
        prediction.scores, [scores[i, 1 + c] for i, c in expected], atol=2e-3
    )  # pixels are rounded
    np.testing.assert_allclose(prediction.coefficients, coefficients[[i for i, _ in expected]], atol=1e-6)
    np.testing.assert_allclose(prediction.canvas_boxes, np.multiply([located[i] for i, _ in expected], SIDE), atol=1e-3)
    assert prediction.prototypes.min() >= 0

    masks = prediction.masks()
    assert masks.shape == (len(prediction), 40, 90)
    for index in range(3):
        box = prediction.canvas_boxes[index]
        frames = {size: prediction.letterbox.from_canvas(box, size).tolist() for size in ("grid", "canvas", "image")}
        logits = reference.summed_terms(prediction.coefficients[index], prediction.prototypes)
        mask, margin = reference.decoded(logits, frames, prediction.letterbox, RULES["yolact"], "image")
        sure = margin > 1e-4
        np.testing.assert_array_equal(masks[index][sure], mask[sure])


def _tensor(image: np.ndarray) -> np.ndarray:
    """Stretched to the canvas, RGB, mean and deviation of ImageNet in 0..255, one pixel after the other in effect."""
    planes = [reference.resized(image[:, :, channel], SIDE, SIDE) for channel in (2, 1, 0)]
    means, deviations = (123.68, 116.78, 103.94), (58.40, 57.12, 57.38)
    return np.stack([(plane - m) / s for plane, m, s in zip(planes, means, deviations, strict=True)])


def test_thresholds_are_the_familys_unless_given(tmp_path):
    path = TinyYolact().save(tmp_path / "tiny.onnx")
    assert maskprism.load(path, conf=0.4).keep == Thresholds(0.4, 0.5, 100)
    assert maskprism.load(path, iou=0.7, max_det=5, classes=[1], multi_label=True).keep == Thresholds(
        0.15, 0.7, 5, (1,), True
    )
    assert maskprism.load("sample").keep == Thresholds(0.25, 0.7, 300)


def test_a_batch_is_predicted_as_one_by_one(tmp_path):
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((70, 70), (20, 90), (100, 30))]
    model = maskprism.load(TinyYolact(batch=None).save(tmp_path / "tiny.onnx"))
    model = replace(model, batch=3)
    for together, image in zip(model.predict(images), images, strict=True):
        alone = model.predict(image)
        np.testing.assert_array_equal(together.classes, alone.classes)
        np.testing.assert_array_equal(together.masks(), alone.masks())


def test_the_sum_of_the_terms_is_the_logit(tmp_path):
    model = maskprism.load(TinyYolact().save(tmp_path / "tiny.onnx"))
    prediction = model.predict(np.full((50, 50, 3), 180, dtype=np.uint8))
    for instance in prediction:
        terms = maskprism.Decomposition(instance).terms
        np.testing.assert_allclose(terms.sum(axis=0), instance.logits(), atol=1e-4)
    assert maskprism.roles(prediction[0]).rows()


def test_a_reduced_file_draws_the_same_masks(tmp_path):
    source = TinyYolact().save(tmp_path / "tiny.onnx")
    model = maskprism.load(source)
    turned = np.eye(8)[::-1].copy()
    turned[0] *= -2  # coefficients beyond tanh, prototypes below ReLU
    write_reduced(model, source, tmp_path / "turned.onnx", turned, np.linalg.inv(turned).T)
    image = np.random.default_rng(4).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    before, after = model.predict(image), maskprism.load(tmp_path / "turned.onnx").predict(image)
    np.testing.assert_allclose(after.logits(), before.logits(), atol=1e-4)
    np.testing.assert_allclose(after.prototypes[0], -2 * before.prototypes[7], atol=1e-5)


def test_a_canvas_of_any_size_is_taken_where_the_network_takes_it():
    def network(batch):
        side = batch.shape[2]
        loc, conf, mask, priors, _ = tables(3, 8, side)
        return loc, conf, mask, priors, np.ones((1, *(2 * s for s in level_sizes((side, side))[0]), 8), np.float32)

    runtime = FunctionRuntime(network, NetworkInput(None, None, None))
    model = maskprism.load(runtime, layout="yolact", imgsz=200)
    assert (model.spec.input_hw, model.spec.grid_hw, model.spec.rectangular) == ((200, 200), (50, 50), False)
    assert maskprism.load(runtime, layout="yolact").spec.input_hw == (550, 550)
    other = model.on_canvas((150, 150))
    prediction = other.predict(np.zeros((30, 90, 3), dtype=np.uint8))
    assert other.spec.grid_hw == prediction.letterbox.grid_hw == (38, 38)


def test_info_says_where_priors_come_from(tmp_path):
    from helpers.in_process import command

    path = TinyYolact(priors="none").save(tmp_path / "tiny.onnx")
    result = command("info", str(path), cwd=tmp_path)
    assert result.returncode == 0
    assert "priors: made as those of YOLACT for COCO" in " ".join(result.stdout.split())


def test_a_file_without_softmax_is_refused(tmp_path):
    path = TinyYolact(softmax=False).save(tmp_path / "tiny.onnx")
    with pytest.raises(ModelError, match=r"tiny.onnx: looks like a YOLACT whose scores go from"):
        maskprism.load(path)


def test_names_must_be_as_many_as_classes_without_the_background(tmp_path):
    path = TinyYolact().save(tmp_path / "tiny.onnx")
    assert maskprism.load(path, names=["a", "b", "c"]).spec.names[2] == "c"
    with pytest.raises(maskprism.MaskprismError, match=r"4 classes are named; tiny\.onnx has 3"):
        maskprism.load(path, names=["background", "a", "b", "c"])
    assert onnx.load(path).graph.output[0].name == "loc"
    assert replace(TinyYolact(), named=False).model().graph.output[0].name == "700"


@pytest.mark.parametrize("levels", [1, 5])
def test_a_corrected_file_gives_corrected_coefficients(levels, tmp_path):
    source = TinyYolact().save(tmp_path / "tiny.onnx")
    rng = np.random.default_rng(0)
    correction = Correction(rng.normal(0, 0.1, (levels, 8, 8)), rng.normal(0, 0.1, (levels, 8)))
    write_corrected(maskprism.load(source), source, tmp_path / "new.onnx", correction)
    image = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    expected = maskprism.load(source, correction=correction).predict(image)
    found = maskprism.load(tmp_path / "new.onnx").predict(image)
    assert levels == 1 or len(set(found.levels)) > 1
    np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-5)
    np.testing.assert_array_equal(found.canvas_boxes, expected.canvas_boxes)
