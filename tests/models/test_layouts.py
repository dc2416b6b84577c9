"""Layouts: found from shapes and metadata, and read into rows."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import maskprism
from helpers import in_process, reference
from helpers.strategies import boxes, seeds
from helpers.tiny_models import DETECTIONS, KEPT, NAMES, OBJECTNESS, Tiny, ultralytics_metadata
from maskprism.errors import InputError, ModelError, ModelWarning
from maskprism.models.families.detection import find_layout
from maskprism.models.families.family import Probe
from maskprism.models.families.rows import Thresholds
from maskprism.models.families.yolo import YoloLayout, detect_layout, non_maximum_suppression
from maskprism.models.metadata import Metadata

CANVAS = (640, 640)
PROTO = (1, 32, 160, 160)


def found(shapes, canvas_hw=CANVAS, forced=None, **metadata) -> YoloLayout:
    return detect_layout(shapes, canvas_hw, Metadata(**metadata), "model.onnx", forced, images_last=False)


# --- detection from shapes ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shapes", "canvas_hw", "family", "classes", "k", "channels_last", "prototypes_last"),
    [
        ([(1, 116, 8400), PROTO], CANVAS, "yolov8", 80, 32, False, False),
        ([(1, 8400, 116), PROTO], CANVAS, "yolov8", 80, 32, True, False),
        ([(1, 116, 6300), (1, 32, 120, 160)], (480, 640), "yolov8", 80, 32, False, False),
        ([(1, 37, 21504), (1, 32, 256, 256)], (1024, 1024), "yolov8", 1, 32, False, False),  # FastSAM
        ([(1, 116, 34000), PROTO], CANVAS, "yolov8", 80, 32, False, False),  # P2 heads
        ([(1, 116, 8500), PROTO], CANVAS, "yolov8", 80, 32, False, False),  # P6 heads
        ([(1, 38, 8400), PROTO], CANVAS, "yolov8", 2, 32, False, False),  # 38 = 4 + 2 + 32 = 6 + 32
        ([(1, 116, 8400), (1, 160, 160, 32)], CANVAS, "yolov8", 80, 32, False, True),
        ([(1, 116, 6300), (1, 120, 160, 32)], (480, 640), "yolov8", 80, 32, False, True),
        ([(1, 116, 8400), (1, 32, 1, 1)], CANVAS, "yolov8", 80, 32, False, False),  # a single cell
        ([(1, 116, 4200), (1, 32, 640, 320)], (640, 320), "yolov8", 80, 32, False, False),  # cells as fine as pixels
        ([(1, 37, 1234), PROTO], CANVAS, "yolov8", 1, 32, False, False),  # no number of anchors that is known
        ([(1, 25200, 37), PROTO], CANVAS, "yolov8", 1, 32, True, False),  # no room for a class of YOLOv5
        ([(1, 148, 8400), (1, 64, 160, 160)], CANVAS, "yolov8", 80, 64, False, False),
        ([(1, 25200, 117), PROTO], CANVAS, "yolov5", 80, 32, True, False),
        ([(1, 117, 25200), PROTO], CANVAS, "yolov5", 80, 32, False, False),
        ([(1, 25200, 117), (1, 160, 160, 32)], CANVAS, "yolov5", 80, 32, True, True),
        ([(1, 300, 38), PROTO], CANVAS, "end2end", None, 32, True, False),
        ([(4, 300, 38), (4, 32, 160, 160)], CANVAS, "end2end", None, 32, True, False),
        ([(16, 116, 8400), (16, 32, 160, 160)], CANVAS, "yolov8", 80, 32, False, False),
    ],
)
@pytest.mark.parametrize("reverse", [False, True])
def test_families_are_told_by_their_shapes(
    shapes, canvas_hw, family, classes, k, channels_last, prototypes_last, reverse
):
    if reverse:
        shapes = shapes[::-1]
    layout = found(shapes, canvas_hw)
    assert layout == YoloLayout(family, int(reverse), 1 - int(reverse), channels_last, prototypes_last, classes, k)


def test_other_outputs_are_passed_over():
    layout = found([(1, 25200, 117), PROTO, (1, 3, 80, 80, 117), (1, 7)])
    assert (layout.family, layout.rows_output, layout.prototypes_output) == ("yolov5", 0, 1)


@pytest.mark.parametrize(
    ("metadata", "family"),
    [
        ({"end2end": True}, "end2end"),
        ({"end2end": False, "nms": True}, "end2end"),
        ({"end2end": False, "nms": False}, "yolov8"),
        ({"end2end": False}, "yolov8"),
        ({"names": {0: "cat", 1: "dog"}}, "yolov8"),
    ],
)
def test_two_classes_in_rows_need_metadata(metadata, family):
    shapes = [(1, 8400, 38), PROTO]  # 2 classes of YOLOv8 turned round, or 8400 finished rows
    assert found(shapes, **metadata).family == family
    with pytest.raises(ModelError, match=r"several ways: end2end: finished rows.*yolov8: columns.*layout="):
        found(shapes)
    assert found(shapes, forced="yolov8").classes == 2
    assert found(shapes, forced="end2end").family == "end2end"


def test_one_class_in_rows_of_yolov5_needs_its_name():
    shapes = [(1, 25200, 38), PROTO]  # 5 + 1 + 32, or 25200 finished rows
    layout = found(shapes, names={0: "cat"})  # YOLOv5 writes no more than names and stride
    assert (layout.family, layout.classes) == ("yolov5", 1)
    assert found(shapes, forced="yolov5").classes == 1
    with pytest.raises(ModelError, match=r"several ways: end2end: .*yolov5: rows.*layout="):
        found(shapes)


@pytest.mark.parametrize("shape", [(1, 116, 1234), (1, 1234, 116)])
def test_an_unknown_number_of_anchors_needs_the_number_of_classes(shape):
    names = {i: str(i) for i in range(80)}
    layout = found([shape, PROTO], names=names)
    assert (layout.family, layout.classes, layout.channels_last) == ("yolov8", 80, shape[2] == 116)
    assert found([shape, PROTO], names={i: str(i) for i in range(79)}).family == "yolov5"
    assert found([shape, PROTO], version="8.3.0").family == "yolov8"
    with pytest.raises(ModelError, match=r"shape \(1, \d+, \d+\), \(1, 32, 160, 160\) can be read in several ways"):
        found([shape, PROTO])
    assert found([shape, PROTO], forced="yolov5").classes == 79
    assert found([shape, PROTO], forced="yolov8").classes == 80


@pytest.mark.parametrize(
    ("shape", "family", "classes", "channels_last"),
    [
        ((1, 8400, 117), "yolov5", 80, True),
        ((1, 117, 8400), "yolov5", 80, False),
        ((1, 8400, 38), "yolov5", 1, True),
        ((1, 25200, 117), "yolov8", 81, True),
        ((1, 25200, 37), "yolov8", 1, True),
        ((1, 117, 117), "yolov5", 80, False),  # columns, where both sides are as long
    ],
)
def test_a_forced_layout_is_read_by_the_longer_side(shape, family, classes, channels_last):
    shapes = [(1, 7), PROTO, shape]
    assert found(shapes, forced=family) == YoloLayout(family, 2, 1, channels_last, False, classes, 32)


@pytest.mark.parametrize(("shape", "family"), [((1, 8400, 37), "yolov5"), ((1, 25200, 36), "yolov8")])
def test_a_forced_layout_without_room_for_a_class_is_refused(shape, family):
    with pytest.raises(ModelError, match="no detections that fit"):
        found([shape, PROTO], forced=family)


@pytest.mark.parametrize("strides", [(8, 16, 32), (4, 8, 16, 32), (8, 16, 32, 64)])
@pytest.mark.parametrize("side", [640, 1024, 4096])  # the last tells neighbouring strides apart
def test_levels_end_where_the_cells_of_their_strides_do(strides, side):
    cells = [(side // stride) * (2 * side // stride) for stride in strides]
    layout = YoloLayout("yolov8", 0, 1, False, False, 1, 2)
    assert layout.level_ends(sum(cells), (side, 2 * side)) == tuple(np.cumsum(cells))
    assert replace(layout, family="end2end").level_ends(sum(cells), (side, 2 * side)) is None


@pytest.mark.parametrize("bad", [-0.5, 1.5, "0.5", None])
@pytest.mark.parametrize("name", ["conf", "iou"])
def test_thresholds_lie_between_zero_and_one(name, bad):
    with pytest.raises(InputError, match=f"{name} is .*; expected 0 to 1"):
        Thresholds(**{name: bad})


def test_as_many_channels_as_detections_are_read_as_columns():
    layout = found([(1, 116, 116), PROTO], names={i: str(i) for i in range(80)})
    assert (layout.family, layout.channels_last) == ("yolov8", False)


def test_prototypes_without_a_cell_are_none():
    with pytest.raises(ModelError, match="Masks come from a segmentation model"):
        found([(1, 116, 8400), (1, 32, 0, 0)])


def test_a_forced_layout_must_fit_and_exist():
    with pytest.raises(ModelError, match="no detections that fit"):
        found([(1, 116, 8400), PROTO], forced="end2end")
    with pytest.raises(ModelError, match="no detections that fit"):
        found([(1, 30, 8400), PROTO])
    with pytest.raises(ModelError, match="no detections that fit"):
        found([(1, 36, 8400), PROTO], forced="yolov8")  # room for a box and coefficients, and for no class
    with pytest.raises(InputError, match="there is no layout 'yolov9'; expected one of yolov5, yolov8, end2end"):
        maskprism.load("sample", layout="yolov9")


@pytest.mark.parametrize(
    ("shapes", "kind"),
    [
        ([(1, 84, 8400)], "detection"),
        ([(1, 25200, 85)], "detection"),
        ([(1, 84, 8400), (1, 3, 7, 7)], "detection"),
        ([(1, 1000)], "classification"),
    ],
)
def test_models_without_prototypes_are_named_for_what_they_look_like(shapes, kind):
    with pytest.raises(ModelError, match=f"look like a {kind} model. Masks come from a segmentation model"):
        found(shapes)


@pytest.mark.parametrize("task", ["detect", "classify", "pose", "obb"])
def test_another_task_is_refused_by_name(task):
    with pytest.raises(ModelError, match=rf"model.onnx: is a {task} model; masks come from a segmentation model"):
        find_layout(Probe([np.zeros(PROTO)], (640, 640), Metadata(task=task), "model.onnx"))


def test_two_outputs_that_could_be_prototypes_need_the_number_of_classes():
    shapes = [(1, 116, 8400), PROTO, (1, 19, 80, 80)]
    with pytest.raises(ModelError, match=r"several outputs or axes could be the prototypes among shapes .*metadata"):
        found(shapes)
    layout = found(shapes, names={i: str(i) for i in range(80)})
    assert (layout.prototypes_output, layout.prototypes, layout.classes) == (1, 32, 80)


def test_an_axis_that_only_looks_like_prototypes_is_told_by_the_detections():
    # 32 x 64 is a stride of 8 on this canvas, but 116 channels have no room for 128 coefficients.
    layout = found([(1, 116, 2688), (1, 32, 64, 128)], (256, 512))
    assert (layout.prototypes, layout.prototypes_last, layout.classes) == (32, False, 80)


@pytest.mark.parametrize("images_last", [False, True])
def test_prototypes_as_many_as_cells_lie_where_the_image_has_its_channels(images_last):
    shapes = [(1, 116, 336), (1, 32, 32, 32)]
    layout = detect_layout(shapes, (128, 128), Metadata(), "model.onnx", images_last=images_last)
    assert (layout.prototypes, layout.prototypes_last, layout.classes) == (32, images_last, 80)


# --- reading --------------------------------------------------------------------------------------

GOOD = Thresholds(conf=0.25, iou=0.7)


def v8(columns: list[list[float]], k: int = 2) -> tuple[YoloLayout, list[np.ndarray]]:
    """A YOLOv8 layout over columns given as rows of cx, cy, w, h, scores, coefficients."""
    rows = np.array(columns, dtype=np.float32)
    return YoloLayout("yolov8", 0, 1, False, False, rows.shape[1] - 4 - k, k), [rows.T[None], np.zeros((1, k, 2, 2))]


def end2end(rows: list[list[float]], k: int = 2) -> tuple[YoloLayout, list[np.ndarray]]:
    return YoloLayout("end2end", 0, 1, True, False, None, k), [
        np.array([rows], dtype=np.float32),
        np.zeros((1, k, 2, 2)),
    ]


def test_yolov8_columns():
    layout, outputs = v8([[20, 30, 10, 20, 0.1, 0.6, -1, 2], [50, 60, 4, 4, 0.9, 0.2, 3, 4]])
    rows = layout.read_rows(outputs, 0, (64, 64), GOOD)
    assert rows.boxes.tolist() == [[48, 58, 52, 62], [15, 20, 25, 40]]
    np.testing.assert_allclose(rows.scores, [0.9, 0.6])
    assert rows.classes.tolist() == [0, 1]
    assert rows.classes.dtype == np.int64
    assert rows.coefficients.tolist() == [[3, 4], [-1, 2]]
    assert rows.objectness is None


def test_yolov5_rows_multiply_scores_by_objectness_and_leave_coefficients_raw():
    rows = np.array(
        [[50, 60, 4, 4, 0.6, 0.4, 0.2, 3, 4], [9, 9, 2, 2, 0.2, 1, 1, 5, 6], [20, 30, 10, 20, 0.5, 0.1, 0.8, -1, 2]],
        dtype=np.float32,
    )
    layout = YoloLayout("yolov5", 0, 1, True, False, 2, 2)
    found = layout.read_rows([rows[None], np.zeros((1, 2, 2, 2))], 0, (64, 64), GOOD)
    np.testing.assert_allclose(found.scores, [0.4])  # 0.5 * 0.8; 0.6 * 0.4 and 0.2 * 1 are too low
    assert found.classes.tolist() == [1]
    assert found.objectness.tolist() == [0.5]
    assert found.coefficients.tolist() == [[-1, 2]]
    assert found.boxes.tolist() == [[15, 20, 25, 40]]


@pytest.mark.parametrize(("family", "per_cell"), [("yolov8", 1), ("yolov5", 3)])
def test_candidates_tell_the_level_that_they_come_from(family, per_cell):
    first_class = 5 if family == "yolov5" else 4
    ends = np.cumsum([per_cell * 8 * 16, per_cell * 4 * 8, per_cell * 2 * 4])  # strides 8, 16, 32 on 64 x 128
    columns = np.zeros((first_class + 1 + 2, ends[-1]), dtype=np.float32)
    places = [ends[2] - 1, 0, ends[0] - 1, ends[0], ends[1] - 1, ends[1]]
    for step, place in enumerate(places):
        columns[:first_class, place] = [20 * step, 9, 10, 10, 1][:first_class]
        columns[first_class:, place] = [0.9 - 0.1 * step, step, step]
    columns[4, places[3]] = np.nan
    outputs = [columns[None], np.zeros((1, 2, 16, 32))]
    layout = YoloLayout(family, 0, 1, False, False, 1, 2)
    rows = layout.read_rows(outputs, 0, (64, 128), Thresholds(conf=0.1))
    assert rows.coefficients[:, 0].tolist() == [0, 1, 2, 4, 5]
    assert rows.levels.tolist() == [2, 0, 0, 1, 2]
    assert layout.read_rows(outputs, 0, (64, 64), Thresholds(conf=0.1)).levels is None  # fewer candidates


def test_finished_rows_do_not_tell_their_level():
    layout, outputs = end2end([[1, 2, 30, 40, 0.9, 5, 7, 8]])
    assert layout.read_rows(outputs, 0, (64, 64), GOOD).levels is None


def test_with_many_labels_a_candidate_counts_once_per_class_above_the_threshold():
    many = Thresholds(conf=0.25, multi_label=True)
    layout, outputs = v8([[20, 30, 10, 20, 0.4, 0.6, -1, 2], [50, 60, 4, 4, 0.9, 0.2, 3, 4]])
    rows = layout.read_rows(outputs, 0, (64, 64), many)
    np.testing.assert_allclose(rows.scores, [0.9, 0.6, 0.4])
    assert rows.classes.tolist() == [0, 1, 0]
    assert rows.coefficients.tolist() == [[3, 4], [-1, 2], [-1, 2]]
    for conf, kept in ((0.15, [0.9, 0.6, 0.4, 0.2]), (0.5, [0.9, 0.6]), (0.95, [])):
        rows = layout.read_rows(outputs, 0, (64, 64), Thresholds(conf=conf, multi_label=True))
        np.testing.assert_allclose(rows.scores, kept)
    v5 = np.array([[20, 30, 10, 20, 0.5, 0.6, 0.8, -1, 2]], dtype=np.float32)
    found = YoloLayout("yolov5", 0, 1, True, False, 2, 2).read_rows([v5[None], outputs[1]], 0, (64, 64), many)
    np.testing.assert_allclose(found.scores, [0.4, 0.3])
    assert found.objectness.tolist() == [0.5, 0.5]
    assert found.boxes.tolist() == [[15, 20, 25, 40]] * 2


def test_finished_rows_are_kept_in_order_and_padding_is_dropped():
    layout, outputs = end2end([[1, 2, 30, 40, 0.9, 5, 7, 8], [3, 4, 50, 60, 0.3, 1, 9, 10], [0] * 8, [0] * 8])
    rows = layout.read_rows(outputs, 0, (64, 64), Thresholds(conf=0))
    assert rows.boxes.tolist() == [[1, 2, 30, 40], [3, 4, 50, 60]]
    np.testing.assert_allclose(rows.scores, [0.9, 0.3])
    assert rows.classes.tolist() == [5, 1]
    assert rows.coefficients.tolist() == [[7, 8], [9, 10]]
    assert rows.objectness is None
    assert layout.read_rows(outputs, 0, (64, 64), Thresholds(conf=0.5)).classes.tolist() == [5]


def test_the_confidence_must_be_above_the_threshold():
    half = np.float32(0.5)
    more = np.nextafter(half, np.float32(1))
    layout, outputs = v8([[20, 30, 10, 20, half, 0, 1, 1], [50, 50, 9, 9, more, 0, 2, 2]])
    assert layout.read_rows(outputs, 0, (64, 64), Thresholds(conf=0.5)).coefficients.tolist() == [[2, 2]]
    layout, outputs = end2end(
        [[1, 2, 30, 40, np.nextafter(half, np.float32(1)), 0, 2, 2], [1, 2, 30, 40, half, 0, 1, 1]]
    )
    assert layout.read_rows(outputs, 0, (64, 64), Thresholds(conf=0.5)).coefficients.tolist() == [[2, 2]]
    v5 = np.array([[20, 30, 10, 20, 1, half, 1, 1], [50, 50, 9, 9, 1, more, 2, 2]], dtype=np.float32)
    layout, keep = YoloLayout("yolov5", 0, 1, True, False, 1, 2), Thresholds(conf=0.5)
    assert layout.read_rows([v5[None]], 0, (64, 64), keep).coefficients.tolist() == [[2, 2]]


@pytest.mark.parametrize("classes", [(0,), (1,), (0, 1), (7,), ()])
def test_only_wanted_classes_are_kept(classes):
    layout, outputs = v8([[20, 30, 10, 20, 0.1, 0.6, -1, 2], [50, 60, 4, 4, 0.9, 0.2, 3, 4]])
    rows = layout.read_rows(outputs, 0, (64, 64), Thresholds(classes=classes))
    assert sorted(rows.classes.tolist()) == sorted(set(classes) & {0, 1})
    layout, outputs = end2end([[1, 2, 30, 40, 0.9, 1, 7, 8], [3, 4, 50, 60, 0.3, 0, 9, 10]])
    rows = layout.read_rows(outputs, 0, (64, 64), Thresholds(classes=classes))
    assert sorted(rows.classes.tolist()) == sorted(set(classes) & {0, 1})


def test_at_most_max_det_the_best_ones():
    many = [[40 * i, 30, 10, 20, 0.3 + 0.01 * i, 0, i, i] for i in range(20)]
    layout, outputs = v8(many)
    rows = layout.read_rows(outputs, 0, (640, 640), Thresholds(max_det=3))
    assert rows.coefficients[:, 0].tolist() == [19, 18, 17]
    finished = [[0, 0, 9, 9, 0.9 - 0.01 * i, 0, i, i] for i in range(20)]
    layout, outputs = end2end(finished)
    assert layout.read_rows(outputs, 0, (64, 64), Thresholds(max_det=3)).coefficients[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_finished_rows_come_best_first_in_whatever_order_they_are(order):
    finished = [[0, 0, 9, 9, 0.9 - 0.1 * i, 0, i, i] for i in range(3)]
    layout, outputs = end2end([finished[i] for i in order])
    assert layout.read_rows(outputs, 0, (64, 64), Thresholds(max_det=2)).coefficients[:, 0].tolist() == [0, 1]


@pytest.mark.parametrize("column", range(8))
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("scale", [1, 1 / 64])
def test_rows_that_are_no_numbers_are_dropped_and_spoil_no_other(column, bad, scale):
    good = [20 * scale, 30 * scale, 10 * scale, 20 * scale, 0.8, 0.1, 1, 1]
    broken = [40 * scale, 40 * scale, 10 * scale, 20 * scale, 0.9, 0.1, 2, 2]
    broken[column] = bad
    layout, outputs = v8([good, broken])
    rows = layout.read_rows(outputs, 0, (64, 64), GOOD)
    assert rows.boxes.tolist() == [[15, 20, 25, 40]]
    assert rows.coefficients.tolist() == [[1, 1]]
    good = [15 * scale, 20 * scale, 25 * scale, 40 * scale, 0.8, 0, 1, 1]
    broken = [1 * scale, 2 * scale, 25 * scale, 40 * scale, 0.9, 0, 2, 2]
    broken[column] = bad
    layout, outputs = end2end([broken, good])
    rows = layout.read_rows(outputs, 0, (64, 64), GOOD)
    assert rows.boxes.tolist() == [[15, 20, 25, 40]]
    assert rows.coefficients.tolist() == [[1, 1]]


def test_nothing_above_the_threshold_gives_rows_of_length_zero():
    for layout, outputs in (v8([[20, 30, 10, 20, 0.1, 0.1, 1, 1]]), end2end([[0] * 8])):
        rows = layout.read_rows(outputs, 0, (64, 64), GOOD)
        assert rows.boxes.shape == (0, 4)
        assert rows.scores.shape == rows.classes.shape == (0,)
        assert rows.coefficients.shape == (0, 2)


def test_a_network_without_candidates_gives_rows_of_length_zero():
    layout, outputs = v8([[20, 30, 10, 20, 0.9, 0.1, 1, 1]])
    outputs = list(outputs)
    outputs[layout.rows_output] = outputs[layout.rows_output].take([], axis=1 if layout.channels_last else 2)
    rows = layout.read_rows(outputs, 0, (64, 64), GOOD)
    assert (rows.boxes.shape, rows.classes.shape, rows.coefficients.shape) == ((0, 4), (0,), (0, 2))


def test_normalised_boxes_become_canvas_pixels():
    layout, outputs = v8([[0.5, 0.25, 0.5, 0.25, 0.9, 0, 1, 1], [0.9, 0.9, 0.1, 0.1, 0.01, 0, 1, 1]])
    assert layout.read_rows(outputs, 0, (64, 128), GOOD).boxes.tolist() == [[32, 8, 96, 24]]
    layout, outputs = end2end([[0.25, 0.125, 0.75, 0.375, 0.9, 0, 1, 1], [0] * 8])
    assert layout.read_rows(outputs, 0, (64, 128), GOOD).boxes.tolist() == [[32, 8, 96, 24]]
    layout, outputs = v8([[1, 0.5, 1.5, 0.5, 0.9, 0, 1, 1]])  # half as wide again as the canvas
    assert layout.read_rows(outputs, 0, (64, 128), GOOD).boxes.tolist() == [[32, 16, 224, 48]]


def test_one_long_side_tells_pixels_from_shares():
    layout, outputs = v8([[1, 1, 1, 50, 0.9, 0, 1, 1], [0.1, 0.1, 0.1, 0.1, 0.01, 0, 1, 1]])
    assert layout.read_rows(outputs, 0, (64, 64), GOOD).boxes.tolist() == [[0.5, -24, 1.5, 26]]
    layout, outputs = end2end([[0, 0, 1, 50, 0.9, 0, 1, 1], [0] * 8])
    assert layout.read_rows(outputs, 0, (64, 64), GOOD).boxes.tolist() == [[0, 0, 1, 50]]


def test_low_shares_of_the_canvas_are_no_low_scores():
    rows = np.array([[0.5, 0.5, 0.4, 0.1, 1, 0.9, 0.1, 1, 1]], dtype=np.float32)
    layout = YoloLayout("yolov5", 0, 1, True, False, 2, 2)
    read = layout.read_rows([rows[None], np.zeros((1, 2, 2, 2))], 0, (100, 100), GOOD)
    np.testing.assert_allclose(read.boxes, [[30, 45, 70, 55]])


def test_a_tiny_box_in_the_corner_is_no_normalised_box():
    corner, elsewhere = [1, 1, 2, 2, 0.9, 0, 1, 1], [30, 30, 60, 60, 0.01, 0, 1, 1]
    layout, outputs = v8([corner, elsewhere])
    assert layout.read_rows(outputs, 0, (64, 64), GOOD).boxes.tolist() == [[0, 0, 2, 2]]
    layout, outputs = end2end([[0, 0, 2, 2, 0.9, 0, 1, 1], [30, 30, 60, 60, 0.01, 0, 1, 1]])
    assert layout.read_rows(outputs, 0, (64, 64), GOOD).boxes.tolist() == [[0, 0, 2, 2]]


def test_prototypes_are_read_with_the_channel_first():
    stored = np.arange(2 * 3 * 5 * 4, dtype=np.float32).reshape(2, 3, 5, 4)  # batch, h, w, K
    layout = YoloLayout("yolov8", 0, 1, False, True, 3, 4)
    prototypes = layout.read_prototypes([np.zeros((2, 9, 9)), stored], 1)
    assert prototypes.shape == (4, 3, 5)
    np.testing.assert_array_equal(prototypes[2], stored[1, :, :, 2])
    assert prototypes.flags.c_contiguous


# --- non-maximum suppression ----------------------------------------------------------------------


@given(st.integers(0, 14), st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.45, 0.5, 0.7, 0.9, 1.0]), seeds, st.data())
def test_nms_matches_its_twin(count, threshold, seed, data):
    rng = np.random.default_rng(seed)
    found = data.draw(boxes((6, 6), count))  # small canvas: many overlaps and ties
    found[rng.random(count) < 0.3] = found[0] if count else 0  # and doubles
    scores = (rng.integers(1, 6, count) / 8).astype(np.float32)
    classes = rng.integers(0, 3, count) * 39
    kept = non_maximum_suppression(found, scores, classes, threshold)
    assert kept.tolist() == reference.suppress(found.tolist(), scores.tolist(), classes.tolist(), threshold)


def test_nms_of_boxes_that_only_touch_or_have_no_area():
    found = np.array([[0, 0, 4, 4], [4, 0, 8, 4], [2, 2, 2, 2], [2, 2, 2, 2], [9, 9, 7, 7]], dtype=np.float32)
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5], dtype=np.float32)
    assert non_maximum_suppression(found, scores, np.zeros(5, dtype=np.int64), 0.0).tolist() == [0, 1, 2, 3, 4]


def test_an_overlap_of_exactly_the_threshold_is_kept():
    found = np.array([[0, 0, 4, 4], [0, 0, 4, 2]], dtype=np.float32)
    scores, classes = np.array([0.9, 0.8], dtype=np.float32), np.zeros(2, dtype=np.int64)
    assert non_maximum_suppression(found, scores, classes, 0.5).tolist() == [0, 1]
    assert non_maximum_suppression(found, scores, classes, 0.499).tolist() == [0]
    tenth = np.array([[0, 0, 10, 10], [0, 0, 10, 1]], dtype=np.float32)
    assert non_maximum_suppression(tenth, scores, classes, 0.1).tolist() == [0, 1]
    assert non_maximum_suppression(tenth, scores, classes, 0.099).tolist() == [0]


def test_nms_takes_the_thirty_thousand_best():
    apart = np.arange(400, dtype=np.float32)[:, None] * 10 + np.array([0, 0, 5, 5], dtype=np.float32)
    scores = np.linspace(0.9, 0.1, 400, dtype=np.float32)
    assert len(non_maximum_suppression(apart, scores, np.zeros(400, dtype=np.int64), 0.7)) == 400
    flat = np.zeros((30_001, 4), dtype=np.float32)  # boxes without area overlap nothing
    scores = np.linspace(0.1, 0.9, 30_001, dtype=np.float32)
    kept = non_maximum_suppression(flat, scores, np.zeros(30_001, dtype=np.int64), 0.7)
    assert kept.tolist() == list(range(30_000, 0, -1))


# --- metadata -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "height_and_width"),
    [("[480, 640]", (480, 640)), ("[320]", (320, 320)), ("640", (640, 640)), ("None", None)],
)
def test_the_input_size_is_height_and_width(written, height_and_width):
    assert Metadata.parse({"imgsz": written}, "model.onnx").imgsz == height_and_width


@pytest.mark.parametrize(
    ("written", "flag"),
    [(None, None), ("None", None), ("True", True), ("true", True), ("False", False), (True, True), (False, False)],
)
def test_a_flag_may_be_unsaid(written, flag):
    found = Metadata.parse({"end2end": written, "args": {"nms": written}}, "model.onnx")
    assert found.end2end is found.nms is flag


# --- whole models ---------------------------------------------------------------------------------


WHITE = np.full((48, 80, 3), 255, dtype=np.uint8)


def assert_reads(model: maskprism.Model, tiny: Tiny, tolerance: float = 1e-4) -> None:
    """The detections of the tiny model, its prototypes, and scores that follow the brightness."""
    rng = np.random.default_rng(5)
    image = rng.integers(0, 256, (*tiny.canvas_hw, 3), dtype=np.uint8)  # fills the canvas
    prediction = model.predict(image)
    kept = [i for i in KEPT if tiny.classes > DETECTIONS[i][1]]
    np.testing.assert_allclose(prediction.canvas_boxes, tiny.canvas_boxes()[kept], atol=100 * tolerance)
    np.testing.assert_allclose(prediction.coefficients, tiny.coefficients()[kept], atol=10 * tolerance)
    assert prediction.classes.tolist() == [DETECTIONS[i][1] for i in kept]
    rgb = image[:, :, ::-1].astype(np.float32) / 255
    if tiny.channels == 1:
        rgb = (rgb @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[:, :, None]
        tolerance = max(tolerance, 5e-3)  # grey is rounded to 8 bits
    brightness = 0.5 + 0.5 * rgb.mean()
    expected = np.array([DETECTIONS[i][2] for i in kept]) * brightness
    if tiny.family == "yolov5":
        expected *= OBJECTNESS
        np.testing.assert_allclose(prediction.objectness, OBJECTNESS * brightness, atol=tolerance)
    np.testing.assert_allclose(prediction.scores, expected, atol=tolerance)
    np.testing.assert_allclose(prediction.prototypes, tiny.prototypes_of(rgb), atol=10 * tolerance)
    assert prediction.masks().shape == (len(kept), *tiny.canvas_hw)


VARIANTS = {
    "yolov8": Tiny(),
    "yolov8 with metadata": Tiny(metadata=ultralytics_metadata()),
    "yolov8 with 64 prototypes": Tiny(prototypes=64),
    "yolov8 with 32 prototypes": Tiny(prototypes=32),
    "yolov8 twice as wide": Tiny(canvas_hw=(64, 128)),
    "yolov8 as many prototypes as cells": Tiny(prototypes=16, classes=5),
    "channels last, as many prototypes as cells": Tiny(prototypes=16, channels_last=True),
    "yolov8 wide": Tiny(canvas_hw=(64, 96)),
    "yolov8 in rows": Tiny(rows_last=True),
    "yolov8 reversed": Tiny(reverse_outputs=True),
    "yolov8 batch of 4": Tiny(batch=4),
    "yolov8 any batch": Tiny(batch=None),
    "yolov8 half precision": Tiny(half=True),
    "yolov8 grey": Tiny(channels=1),
    "yolov8 channels last": Tiny(channels_last=True),
    "yolov8 all otherwise": Tiny(channels_last=True, normalised=True, reverse_outputs=True, rows_last=True),
    "yolov8 normalised": Tiny(normalised=True),
    "yolov8 anchors left out": Tiny(rows=50, metadata=ultralytics_metadata()),
    "yolov5": Tiny(family="yolov5"),
    "yolov5 channels last": Tiny(family="yolov5", channels_last=True, normalised=True),
    "yolov5 with 64 prototypes": Tiny(family="yolov5", prototypes=64),
    "end2end": Tiny(family="end2end", metadata=ultralytics_metadata(end2end=True)),
    "end2end without metadata": Tiny(family="end2end"),
    "end2end normalised": Tiny(family="end2end", normalised=True),
    "nms": Tiny(family="nms", metadata=ultralytics_metadata(nms=True)),
    "nms reversed": Tiny(family="nms", reverse_outputs=True, prototypes=32),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_tiny_models_are_read(variant, tmp_path):
    tiny = VARIANTS[variant]
    model = maskprism.load(tiny.save(tmp_path / "tiny.onnx"))
    assert model.spec.layout == {"nms": "end2end"}.get(tiny.family, tiny.family)
    assert model.spec.input_hw == tiny.canvas_hw
    assert model.spec.grid_hw == (tiny.canvas_hw[0] // 4, tiny.canvas_hw[1] // 4)
    assert (model.spec.stride, model.spec.prototypes, model.spec.rectangular) == (4, tiny.prototypes, False)
    if tiny.metadata:
        assert model.spec.names == NAMES
        assert model.spec.version == "8.4.190"
    else:
        assert model.spec.names == (
            {} if model.spec.layout == "end2end" else {i: f"class{i}" for i in range(tiny.classes)}
        )
        assert model.spec.version is None
    assert model.spec.rule.name == ("yolov5" if tiny.family == "yolov5" else "ultralytics")
    assert_reads(model, tiny, 2e-3 if tiny.half else 1e-4)


@pytest.mark.parametrize(
    "tiny",
    [Tiny(batch=4), Tiny(batch=None), Tiny(family="yolov5", batch=None), Tiny(family="nms", batch=None), Tiny()],
    ids=["batch of 4", "any batch", "yolov5", "nms", "batch of 1"],
)
def test_a_batch_is_predicted_as_one_by_one(tiny, tmp_path):
    rng = np.random.default_rng(1)
    sizes = [(64, 64), (20, 90), (64, 64), (100, 30), (1, 1), (64, 50)]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    model = maskprism.load(tiny.save(tmp_path / "tiny.onnx"))
    if tiny.batch is None:
        model = replace(model, batch=4)  # as on an accelerator
    together = model.predict(images)
    assert len(together) == len(images)
    for one, image in zip(together, images, strict=True):
        alone = model.predict(image)
        assert one.letterbox == alone.letterbox
        assert one.image_size == image.shape[:2]
        np.testing.assert_array_equal(one.classes, alone.classes)
        for name in ("canvas_boxes", "scores", "coefficients", "prototypes"):
            np.testing.assert_allclose(getattr(one, name), getattr(alone, name), atol=1e-5)
        np.testing.assert_array_equal(one.masks("image"), alone.masks("image"))
    assert model.predict([]) == []
    assert len(model.predict(tuple(images[:1]))) == 1


@pytest.mark.parametrize("family", ["yolov8", "yolov5"])
def test_dynamic_axes_cut_the_canvas_to_a_rectangle(family, tmp_path):
    tiny = Tiny(family=family, dynamic=True, metadata=ultralytics_metadata(canvas_hw=(96, 96)))
    model = maskprism.load(tiny.save(tmp_path / "tiny.onnx"), imgsz=96)
    assert (model.spec.input_hw, model.spec.rectangular, model.spec.layout) == ((96, 96), True, family)
    sizes = [(50, 100), (100, 50), (100, 100), (50, 100), (10, 200)]
    model = replace(model, batch=4)
    images = [np.full((*size, 3), 200, dtype=np.uint8) for size in sizes]
    predictions = model.predict(images)
    canvases = [prediction.letterbox.canvas_hw for prediction in predictions]
    assert canvases == [(64, 96), (96, 64), (96, 96), (64, 96), (32, 96)]
    for prediction, image in zip(predictions, images, strict=True):
        assert prediction.letterbox.grid_hw == tuple(side // 4 for side in prediction.letterbox.canvas_hw)
        assert prediction.prototypes.shape[1:] == prediction.letterbox.grid_hw
        alone = model.predict(image)
        np.testing.assert_allclose(prediction.scores, alone.scores, atol=1e-6)
        assert len(alone) == 1
    assert maskprism.load(tmp_path / "tiny.onnx", imgsz=160).spec.input_hw == (160, 160)
    assert maskprism.load(tmp_path / "tiny.onnx", imgsz=(100, 160)).spec.input_hw == (128, 160)


@pytest.mark.parametrize("metadata", [{}, ultralytics_metadata(canvas_hw=(256, 256))], ids=["foreign", "exported"])
def test_a_file_of_any_size_gets_640_and_that_is_told(metadata, tmp_path):
    """As Ultralytics' predict and val have it, whatever size the file was exported with."""
    path = Tiny(dynamic=True, metadata=metadata).save(tmp_path / "tiny.onnx")
    exported = ", and was exported with 256 x 256" if metadata else ""
    with pytest.warns(ModelWarning, match=f"tiny.onnx: takes images of any size{exported}; 640 x 640 is used") as told:
        model = maskprism.load(path, layout="yolov8")
    assert (model.spec.input_hw, len(told)) == ((640, 640), 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert maskprism.load(path, layout="yolov8", imgsz=256).spec.input_hw == (256, 256)
    for arguments, notes in (((), 1), (("--quiet",), 0), (("--imgsz", "640"), 0)):
        result = in_process.command("info", path, "--layout", "yolov8", *arguments)
        assert (result.returncode, result.stderr.count("note: tiny.onnx: takes images")) == (0, notes)
        assert "640 x 640 at most" in result.stdout


def test_one_dynamic_side_keeps_the_other(tmp_path):
    model = Tiny(dynamic=True, metadata=ultralytics_metadata(canvas_hw=(96, 96))).model()
    height = model.graph.input[0].type.tensor_type.shape.dim[2]
    height.dim_value = 64
    onnx.save(model, tmp_path / "band.onnx")
    band = maskprism.load(tmp_path / "band.onnx")
    assert (band.spec.input_hw, band.spec.rectangular) == ((64, 96), False)
    for hw in ((100, 20), (20, 100)):
        assert band.predict(np.zeros((*hw, 3), dtype=np.uint8)).letterbox.canvas_hw == (64, 96)
    assert maskprism.load(tmp_path / "band.onnx", imgsz=(64, 120)).spec.input_hw == (64, 128)
    with pytest.raises(InputError, match=r"imgsz is 96 x 96; band\.onnx takes exactly 64 x any \(height x width\)"):
        maskprism.load(tmp_path / "band.onnx", imgsz=96)


def test_the_version_in_the_metadata_chooses_the_rule_and_the_user_overrides_it(tmp_path):
    path = Tiny(metadata=ultralytics_metadata(version="8.3.0")).save(tmp_path / "tiny.onnx")
    assert maskprism.load(path).spec.rule.name == "ultralytics-8.3"
    assert maskprism.load(path, rule="retina").predict(WHITE).masks().shape == (3, 48, 80)
    with pytest.raises(InputError, match="there is no mask rule 'fancy'"):
        maskprism.load(path, rule="fancy")
    five = Tiny(family="yolov5").save(tmp_path / "five.onnx")
    assert maskprism.load(five, rule="ultralytics-8.2").spec.rule.objectness is False


def test_thresholds_reach_the_reading(tmp_path):
    path = Tiny(metadata=ultralytics_metadata()).save(tmp_path / "tiny.onnx")
    square = np.full((64, 64, 3), 255, dtype=np.uint8)

    def scores(**keep) -> list[float]:
        return [round(float(score), 3) for score in maskprism.load(path, **keep).predict(square).scores]

    assert scores() == [0.9, 0.8, 0.6]
    assert scores(conf=0.7) == [0.9, 0.8]
    assert scores(iou=0.99) == [0.9, 0.8, 0.7, 0.6]
    assert scores(max_det=1) == [0.9]
    assert scores(classes=[1, 2]) == [0.8, 0.6]
    assert scores(classes=[]) == []


def test_a_source_is_kept_for_titles(tmp_path):
    model = maskprism.load(Tiny().save(tmp_path / "tiny.onnx"))
    assert model.predict(WHITE).source is None
    assert repr(model).startswith("Model('tiny.onnx', layout 'yolov8', onnxruntime ")
    assert "input 64x64, 8 prototypes of 16x16, 3 classes (class0, class1, class2)" in repr(model)
    assert repr(model).endswith("rule 'ultralytics', conf 0.25, iou 0.7, max_det 300)")
    assert repr(model.spec) == f"ModelSpec({model.spec.summary})"


def test_a_layout_can_be_forced_on_a_file(tmp_path):
    two = Tiny(classes=2, prototypes=32, rows_last=True).save(tmp_path / "two.onnx")
    with pytest.raises(ModelError, match=r"two.onnx: outputs of shape \(1, 84, 38\).*layout="):
        maskprism.load(two)
    prediction = maskprism.load(two, layout="yolov8").predict(np.full((64, 64, 3), 255, dtype=np.uint8))
    assert prediction.classes.tolist() == [0, 1]
    with pytest.raises(InputError, match="there is no layout 'tea'"):
        maskprism.load(two, layout="tea")


def test_an_agnostic_suppression_takes_all_classes_together():
    layout, outputs = v8([[20, 30, 10, 20, 0.1, 0.6, -1, 2], [20, 30, 10, 21, 0.9, 0.2, 3, 4]])
    assert layout.read_rows(outputs, 0, (64, 64), GOOD).classes.tolist() == [0, 1]
    assert layout.read_rows(outputs, 0, (64, 64), Thresholds(agnostic=True)).classes.tolist() == [0]
