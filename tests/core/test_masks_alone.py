"""Predictions without boxes, as models of query masks make them: who asks for a box gets that of the mask."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

import maskprism
from helpers.strategies import predictions
from maskprism import RULES, Decomposition, Edit, Prediction
from maskprism.analysis.comparison.pairing import pair_instances
from maskprism.analysis.comparison.part_swaps import swap
from maskprism.analysis.dataset.diagnosis import examine
from maskprism.analysis.truth.matching import match
from maskprism.datasets import GroundTruth
from maskprism.datasets.scenes import draw_scene
from maskprism.errors import InputError
from maskprism.server.records import Record
from maskprism.tables.schema import instance_columns, settings_of
from maskprism.viewer.page import Page
from maskprism.viewer.payload import viewer_scene

IMAGE = draw_scene(3).image


@pytest.fixture(scope="module")
def alone() -> Prediction:
    """The bundled model's masks as if it gave no boxes, without what lies outside of its boxes."""
    found = maskprism.load("sample").predict(IMAGE)
    return replace(found, canvas_boxes=None, rule=RULES["no-crop"])


@given(predictions(rule=RULES["no-crop"]))
@settings(max_examples=60)
def test_a_box_is_the_smallest_around_the_mask(prediction):
    alone = replace(prediction, canvas_boxes=None)
    boxed = prediction if prediction.has_boxes else replace(prediction, canvas_boxes=prediction.extents)
    assert (alone.has_boxes, boxed.has_boxes) == (False, True)
    for size in ("grid", "canvas", "image"):
        np.testing.assert_array_equal(alone.masks(size), boxed.masks(size))
    letterbox = alone.letterbox
    for instance, mask in zip(alone, alone.masks("canvas"), strict=True):
        rows, columns = np.nonzero(mask)
        (top, left), (height, width) = letterbox.offset_yx, letterbox.content_hw
        expected = (
            [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            if len(rows)
            else [left, top, left + width, top + height]
        )
        np.testing.assert_array_equal(instance.canvas_box, expected)
        np.testing.assert_allclose(instance.box, letterbox.to_image(instance.canvas_box, clip=True))
        np.testing.assert_array_equal(instance.alone.extents[0], instance.canvas_box)
    np.testing.assert_array_equal(alone[::-1].boxes, alone.boxes[::-1])


def test_rules_that_crop_are_refused(alone):
    expected = "rule 'retina' crops masks to their boxes, and this prediction has none; use a rule that does not"
    with pytest.raises(InputError, match=expected):
        alone.with_rule("retina")
    half = replace(RULES["no-crop"], crop_image="after")
    with pytest.raises(InputError, match="crops masks"):
        alone.with_rule(half)


def test_effects_are_measured_around_the_mask(alone):
    instance = alone[0]
    rows, columns = np.nonzero(instance.mask("canvas"))
    rows, columns = slice(rows.min() // 4, rows.max() // 4 + 1), slice(columns.min() // 4, columns.max() // 4 + 1)
    expected = np.abs(instance.weights[:, None, None] * instance.prototypes)[:, rows, columns].mean(axis=(1, 2))
    np.testing.assert_allclose(Decomposition(instance).effects, expected, rtol=0.2)


def test_an_edit_moves_the_box_with_the_mask(alone):
    nothing = Edit(keep=[]).apply(alone)
    height, width = IMAGE.shape[:2]
    assert not nothing.masks().any()
    np.testing.assert_allclose(nothing.boxes, [[0, 0, width, height]] * len(nothing))


def test_instances_are_found_again_and_exchanged(alone):
    again = alone[::-1]
    pairs = pair_instances(alone, again)
    assert sorted(map(tuple, pairs.tolist())) == [(i, len(alone) - 1 - i) for i in range(len(alone))]
    other = Edit(scale={3: -2.0}).apply(alone)
    found = swap(alone, other)
    assert found.total.max() > 0.01
    np.testing.assert_array_equal(found.shares["boxes"], 0)  # there is nothing to exchange


def test_ground_truth_is_matched_and_boxes_cost_nothing(alone):
    masks, boxes, classes = alone.masks("image"), alone.boxes, alone.classes
    corners = [np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]], dtype=np.float32) for x1, y1, x2, y2 in boxes]
    truth = GroundTruth(
        classes, tuple((one,) for one in corners), boxes, np.zeros(len(alone), dtype=bool), masks.shape[1:], alone.names
    )
    assert len(match(alone, truth)) == len(alone)
    one = examine(alone, truth, "scene")
    assert len(one.budgets) == len(alone)
    for row in one.budgets:
        assert (row.box, row.dual_box, row.leak, row.box_iou) == (0, 0, 0, pytest.approx(1))
        assert row.iou == row.true_box_iou == row.uncropped_iou
        assert row.resolution + row.prototypes + row.coefficients == pytest.approx(1 - row.iou)


def test_tables_pages_and_records_hold_the_boxes_of_masks(alone):
    columns = {one.name: one.of(alone) for one in instance_columns(settings_of(maskprism.load("sample"), ""))}
    np.testing.assert_array_equal(np.stack([columns[name] for name in ("x1", "y1", "x2", "y2")], axis=1), alone.boxes)
    header = viewer_scene(IMAGE, alone).header
    assert header["boxes"] is False
    assert viewer_scene(IMAGE, maskprism.load("sample").predict(IMAGE)).header["boxes"] is True
    assert [one["canvas_box"] for one in header["instances"]] == alone.extents.tolist()
    assert Record.of(alone).boxes == tuple(map(tuple, alone.boxes.tolist()))


def test_a_page_has_a_largest_size(alone, monkeypatch):
    page = Page()
    page.add(IMAGE, alone)
    monkeypatch.setattr("maskprism.viewer.page.MAX_BYTES", 2 * len(page._scenes[0]) - 1)
    with pytest.raises(InputError, match="the page would take more than 0 MiB with this image, number 2; write fewer"):
        page.add(IMAGE, alone)
    assert len(page) == 1


def test_without_an_instance_there_is_no_box(alone):
    none = alone[:0]
    assert (none.boxes.shape, none.extents.shape, len(none.masks())) == ((0, 4), (0, 4), 0)
