"""Frames and boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import reference
from helpers.strategies import boxes, letterboxes, seeds
from maskprism import Letterbox
from maskprism.core.geometry import box_iou
from maskprism.errors import InputError

UNPADS = ("floor", "round", "whole")


@given(letterboxes(), st.integers(0, 7), st.data())
def test_there_and_back_is_the_identity(letterbox, count, data):
    found = data.draw(boxes(letterbox.image_hw, count))
    np.testing.assert_allclose(letterbox.to_image(letterbox.to_canvas(found)), found, atol=1e-4)
    on_canvas = data.draw(boxes(letterbox.canvas_hw, 5))
    np.testing.assert_allclose(letterbox.to_canvas(letterbox.to_image(on_canvas)), on_canvas, atol=1e-4)


@given(letterboxes(), st.data())
def test_frames_match_their_twins(letterbox, data):
    found = data.draw(boxes(letterbox.image_hw, 4))
    expected = [reference.box_to_canvas(letterbox, box) for box in found.tolist()]
    np.testing.assert_allclose(letterbox.to_canvas(found), expected, rtol=1e-5, atol=1e-4)
    on_canvas = data.draw(boxes(letterbox.canvas_hw, 4))
    expected = [reference.box_to_image(letterbox, box) for box in on_canvas.tolist()]
    np.testing.assert_allclose(letterbox.from_canvas(on_canvas, "image"), expected, rtol=1e-5, atol=1e-4)
    grid_y, grid_x = (g / c for g, c in zip(letterbox.grid_hw, letterbox.canvas_hw, strict=True))
    np.testing.assert_allclose(
        letterbox.from_canvas(on_canvas, "grid"), on_canvas * [grid_x, grid_y, grid_x, grid_y], rtol=1e-6
    )
    assert letterbox.from_canvas(on_canvas, "canvas") is on_canvas


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([(640, 640), (384, 640), (1280, 96)]))
def test_a_fitted_image_is_centred_and_keeps_its_shape(height, width, canvas_hw):
    letterbox = Letterbox.fit((height, width), canvas_hw)
    assert letterbox.content_hw == reference.fitted_sides((height, width), canvas_hw)
    assert letterbox.canvas_hw == canvas_hw
    for axis in (0, 1):
        before = letterbox.offset_yx[axis]
        after = canvas_hw[axis] - before - letterbox.content_hw[axis]
        assert before >= 0
        assert after - before in (0, 1)
    assert letterbox.content_hw[0] == canvas_hw[0] or letterbox.content_hw[1] == canvas_hw[1]


@given(st.integers(1, 3000), st.integers(1, 3000), st.sampled_from([16, 32, 64]))
def test_a_rectangle_is_the_smallest_of_whole_strides(height, width, stride):
    letterbox = Letterbox.fit((height, width), (640, 640), rectangle_stride=stride)
    assert letterbox.content_hw == reference.fitted_sides((height, width), (640, 640))
    assert letterbox.canvas_hw == tuple(-(-side // stride) * stride for side in letterbox.content_hw)


@given(letterboxes())
def test_cells_that_show_the_image_hold_a_pixel_of_it(letterbox):
    for axis, cells in enumerate(letterbox.content_cells):
        canvas, grid = letterbox.canvas_hw[axis], letterbox.grid_hw[axis]
        first = letterbox.offset_yx[axis]
        pixels = range(first, first + letterbox.content_hw[axis])
        assert list(range(grid)[cells]) == sorted({pixel * grid // canvas for pixel in pixels})


def test_cells_need_not_be_square():
    letterbox = Letterbox.fit((32, 64), (32, 64)).with_grid((4, 16))
    box = np.array([8, 8, 40, 24], dtype=np.float32)
    assert letterbox.to_grid(box).tolist() == [2, 1, 10, 3]


def test_known_letterboxes():
    bus = Letterbox.fit((1080, 810), (640, 640))
    assert (bus.content_hw, bus.offset_yx, bus.grid_hw) == ((640, 480), (0, 80), (160, 160))
    rectangle = Letterbox.fit((1080, 810), (640, 640), rectangle_stride=32)
    assert (rectangle.canvas_hw, rectangle.offset_yx, rectangle.grid_hw) == ((640, 480), (0, 0), (160, 120))
    thin = Letterbox.fit((10, 30000), (640, 640))
    assert (thin.content_hw, thin.offset_yx) == ((1, 640), (319, 0))
    stretched = Letterbox.stretch((100, 50), (552, 552))
    assert (stretched.content_hw, stretched.offset_yx, stretched.grid_hw) == ((552, 552), (0, 0), (138, 138))
    assert Letterbox.stretch((100, 50), (64, 128)).grid_hw == (16, 32)
    assert Letterbox.stretch((100, 50), (3, 3)).grid_hw == (1, 1)


@pytest.mark.parametrize(
    ("changes", "fits"),
    [
        ({}, True),
        ({"content_hw": (47, 64), "offset_yx": (8, 0)}, True),
        ({"content_hw": (46, 64), "offset_yx": (9, 0)}, False),  # two pixels less than its shape asks for
        ({"offset_yx": (7, 0)}, False),
    ],
)
def test_what_kept_its_shape_and_lies_in_the_middle_is_a_fit(changes, fits):
    letterbox = replace(Letterbox.fit((48, 64), (64, 64)), **changes)
    assert letterbox.is_centred_fit is fits


@pytest.mark.parametrize("changes", [{"offset_yx": (-1, 0)}, {"offset_yx": (17, 0)}, {"image_hw": (0, 64)}])
def test_content_must_lie_on_the_canvas(changes):
    with pytest.raises(InputError, match="expected sides of at least 1, and content that lies on the canvas"):
        replace(Letterbox.fit((48, 64), (64, 64)), **changes)


@given(letterboxes())
def test_cells_that_show_the_image_are_those_that_it_touches(letterbox):
    for axis, span in enumerate(letterbox.content_cells):
        cell = letterbox.canvas_hw[axis] / letterbox.grid_hw[axis]
        start, stop = letterbox.offset_yx[axis], letterbox.offset_yx[axis] + letterbox.content_hw[axis]
        touched = [i for i in range(letterbox.grid_hw[axis]) if i * cell < stop and (i + 1) * cell > start]
        assert list(range(span.start, span.stop)) == touched


@pytest.mark.parametrize("unpad", UNPADS)
@pytest.mark.parametrize("size", ["grid", "canvas", "image"])
@given(letterboxes(), seeds)
def test_resampling_matches_its_twin(size, unpad, letterbox, seed):
    values = np.random.default_rng(seed).normal(0, 5, letterbox.grid_hw).astype(np.float32)
    found = letterbox.resample(values, size, unpad)
    assert found.shape == letterbox.size_hw(size)
    np.testing.assert_allclose(found, reference.resampled(values, letterbox, size, unpad), atol=2e-4)


@given(letterboxes(), st.sampled_from(["grid", "canvas", "image"]), st.sampled_from(UNPADS), seeds)
def test_a_window_is_a_part_of_the_whole(letterbox, size, unpad, seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 5, letterbox.grid_hw).astype(np.float32)
    height, width = letterbox.size_hw(size)
    top, bottom = np.sort(rng.integers(0, height + 1, 2)).tolist()
    left, right = np.sort(rng.integers(0, width + 1, 2)).tolist()
    if rng.random() < 0.2:  # nothing at all
        left = right
    window = letterbox.resample(values, size, unpad, slice(top, bottom), slice(left, right))
    whole = letterbox.resample(values, size, unpad)
    np.testing.assert_allclose(window, whole[top:bottom, left:right], atol=1e-5)


def interpolated(values: np.ndarray, places_y: np.ndarray, places_x: np.ndarray) -> np.ndarray:
    """Values between cells, one line after the other; beyond the ends the ends."""
    rows = np.array([np.interp(places_x, np.arange(values.shape[1]), row) for row in values])
    return np.array([np.interp(places_y, np.arange(values.shape[0]), column) for column in rows.T]).T


@pytest.mark.parametrize(("image_hw", "left", "right"), [((1080, 810), 20, 140), ((4000, 3000), 20, 140)])
def test_resampling_at_real_sizes(image_hw, left, right):
    letterbox = Letterbox.fit(image_hw, (640, 640))
    values = np.random.default_rng(2).normal(0, 5, (160, 160)).astype(np.float32)
    on_canvas = (np.arange(640) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(
        letterbox.resample(values, "canvas"), interpolated(values, on_canvas, on_canvas), atol=1e-3
    )
    height, width = image_hw
    rows, columns = slice(height // 2, height // 2 + 200), slice(width - 150, width)
    found = letterbox.resample(values, "image", "whole", rows, columns)
    places_y = (np.arange(height)[rows] + 0.5) * 160 / height - 0.5
    places_x = (np.arange(width)[columns] + 0.5) * (right - left) / width - 0.5
    np.testing.assert_allclose(found, interpolated(values[:, left:right], places_y, places_x), atol=2e-3)


def test_a_stretch_has_no_padding_to_cut_and_is_resized_at_once():
    letterbox = Letterbox.stretch((97, 41), (550, 550)).with_grid((138, 138))
    values = np.random.default_rng(0).normal(0, 5, (138, 138)).astype(np.float32)
    expected = reference.resized(values, 97, 41)
    np.testing.assert_allclose(letterbox.resample(values, "image"), expected, atol=2e-4)


@given(st.integers(0, 6), st.integers(0, 6), st.data())
def test_box_iou_matches_its_twin(count_a, count_b, data):
    a, b = data.draw(boxes((20, 20), count_a)), data.draw(boxes((20, 20), count_b))
    expected = [[reference.iou(one, other) for other in b.tolist()] for one in a.tolist()]
    np.testing.assert_allclose(box_iou(a, b), np.reshape(expected, (count_a, count_b)), atol=1e-6)


def test_box_iou_of_boxes_without_area_is_zero():
    point = np.array([[5, 5, 5, 5]], dtype=np.float32)
    assert box_iou(point, point).tolist() == [[0]]


def test_an_unknown_size_is_refused_with_the_options():
    with pytest.raises(InputError, match="size is 'photo'; expected one of 'grid', 'canvas', 'image'"):
        Letterbox.fit((10, 10), (32, 32)).size_hw("photo")


@pytest.mark.parametrize(("side", "cells"), [(1, 1), (4, 1), (7, 1), (8, 2), (640, 160)])
def test_the_grid_is_that_of_stride_4_until_another_is_known(side, cells):
    assert Letterbox.fit((9, 5), (side, side)).grid_hw == (cells, cells)
    assert Letterbox.stretch((9, 5), (side, side)).grid_hw == (cells, cells)
