"""Masks are in sight in every picture, in the same colours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest

import maskprism
from helpers.mask_contrast import Pictured, luminance, share_in_sight
from maskprism.datasets.scenes import draw_scene
from maskprism.drawing import palette, sheets
from maskprism.drawing.annotated import annotated
from maskprism.drawing.crops import crop
from maskprism.drawing.mask_style import (
    INNER_LINE,
    OUTER_LINE,
    PaintedMask,
    contrast,
    greys_around,
    instance_colours,
    paint_errors,
    paint_masks,
)
from maskprism.drawing.palette import INSTANCE_COLOURS, MISSING, TOO_MUCH
from maskprism.server.thumbnails import crops, painted_thumbnail
from maskprism.viewer.payload import viewer_scene

CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


@pytest.fixture(scope="module")
def scene() -> Pictured:
    image = draw_scene(3).image
    return image, maskprism.load("sample").predict(image)


def drawn_scenes() -> Iterator[Pictured]:
    model = maskprism.load("sample")
    for seed in range(100):
        image = draw_scene(seed).image
        yield image, model.predict(image)


@pytest.mark.parametrize("whole", [False, True], ids=["on dimmed greys", "on the unmodified image"])
def test_the_edges_of_200_masks_are_in_sight(whole: bool) -> None:
    assert share_in_sight(drawn_scenes(), whole=whole) >= 0.95


def test_frames_of_a_video_have_a_colour_for_each_class(scene: Pictured) -> None:
    image, prediction = scene
    turned = replace(
        prediction,
        canvas_boxes=prediction.canvas_boxes[::-1],
        scores=prediction.scores[::-1],
        classes=prediction.classes[::-1],
        coefficients=prediction.coefficients[::-1],
    )
    for one in (prediction, turned):
        whole = annotated(image, one, by_class=True)
        covered = one.masks("image").sum(axis=0)
        for instance in one:
            alone = (cv2.erode(instance.mask("image").astype(np.uint8), CROSS, iterations=4) > 0) & (covered == 1)
            colour = palette.INSTANCE_COLOURS[instance.class_id % len(palette.INSTANCE_COLOURS)]
            blended = 0.5 * np.array(colour) + 0.5 * image[alone][:, ::-1]
            assert np.median(np.abs(whole[alone][:, ::-1] - blended)) < 1


def test_an_instance_has_one_colour_everywhere(scene: Pictured) -> None:
    image, prediction = scene
    colours = instance_colours(image, prediction)
    assert len(set(colours)) > 1
    header = viewer_scene(image, prediction).header
    assert [one["colour"] for one in header["instances"]] == [bytes(colour).hex() for colour in colours]
    labels = sheets.overview(image, prediction).panels[0].labels
    assert {int(label.text.split()[0]): label.colour for label in labels} == dict(enumerate(colours))
    grey, whole = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), annotated(image, prediction)
    covered = prediction.masks("image").sum(axis=0)
    for instance, colour, small in zip(prediction, colours, crops(image, prediction), strict=True):
        core = cv2.erode(instance.mask("image").astype(np.uint8), CROSS, iterations=4) > 0
        alone = core & (covered == 1)
        expected = 0.5 * np.array(colour) + 0.5 * grey[core].mean()
        blended = 0.5 * np.array(colour) + 0.5 * image[alone][:, ::-1]
        assert np.median(np.abs(whole[alone][:, ::-1] - blended)) < 1  # labels and boxes lie on some
        picture = cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(float)
        assert np.abs(picture - expected).max(axis=2).min() < 12
    thumbnail = cv2.imdecode(np.frombuffer(painted_thumbnail(image, prediction), np.uint8), cv2.IMREAD_COLOR)
    assert np.ptp(thumbnail.astype(int), axis=2).max() > 60  # masks in colour
    assert np.median(np.ptp(thumbnail.astype(int), axis=2)) < 6  # on greys


def test_a_colour_does_not_depend_on_the_size_at_which_a_picture_is_shown(scene: Pictured) -> None:
    image, prediction = scene
    large = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    letterbox = replace(prediction.letterbox, image_hw=large.shape[:2])
    assert instance_colours(large, replace(prediction, letterbox=letterbox)) == instance_colours(image, prediction)


def test_lines_lie_beside_the_edge_and_the_rest_is_dimmed_grey() -> None:
    picture = np.full((30, 40, 3), (200, 100, 50), np.uint8)
    mask = np.zeros((10, 12), bool)
    mask[2:8, 3:9] = True
    painted = paint_masks(picture, [PaintedMask(slice(5, 15), slice(10, 22), mask, INSTANCE_COLOURS[1])])
    whole = np.zeros((30, 40), np.uint8)
    whole[5:15, 10:22] = mask
    outer, inner = cv2.dilate(whole, CROSS) > whole, cv2.erode(whole, CROSS) < whole
    assert (painted[outer] == OUTER_LINE).all()
    assert (painted[inner] == INNER_LINE).all()
    grey = 0.299 * 200 + 0.587 * 100 + 0.114 * 50
    assert np.abs(painted[(whole == 0) & ~outer] - 0.55 * grey).max() <= 1
    assert np.abs(painted[(whole > 0) & ~inner] - (0.5 * np.array(INSTANCE_COLOURS[1]) + 0.5 * grey)).max() <= 1
    assert (picture == (200, 100, 50)).all()


def test_contrast_is_that_of_wcag() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    for a, b in (((230, 159, 0), (60, 60, 60)), ((3, 9, 200), (240, 228, 66))):
        low, high = sorted(luminance(np.array(colour)) for colour in (a, b))
        assert contrast(a, b) == pytest.approx((high + 0.05) / (low + 0.05))


@pytest.mark.parametrize("hw", [(1, 1), (3, 2)])
def test_a_mask_that_is_the_whole_image_or_empty_is_painted(hw: tuple[int, int]) -> None:
    picture = np.full((*hw, 3), 90, np.uint8)
    rows, columns = slice(0, hw[0]), slice(0, hw[1])
    for mask in (np.ones(hw, bool), np.zeros(hw, bool)):
        assert paint_masks(picture, [PaintedMask(rows, columns, mask, INSTANCE_COLOURS[0])]).shape == picture.shape
    empty = PaintedMask(slice(0, 0), slice(0, 0), np.zeros((0, 0), bool), INSTANCE_COLOURS[0])
    assert (paint_masks(picture, [empty]) == 49).all()
    assert greys_around(picture[..., 0], np.ones(hw, bool)) == (90, 90)


def test_neighbours_differ_in_colour_as_long_as_there_are_colours() -> None:
    image, prediction = draw_scene(3).image, maskprism.load("sample").predict(draw_scene(3).image)
    colours = instance_colours(image, prediction)
    for i, a in enumerate(prediction.boxes):
        for j, b in enumerate(prediction.boxes[:i]):
            if min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1]):
                assert colours[i] != colours[j]


def test_errors_are_solid_or_striped() -> None:
    mask, truth = np.zeros((2, 40, 60), bool)
    mask[5:35, 5:35] = True
    truth[5:35, 20:50] = True
    picture = paint_errors(np.full((40, 60, 3), 120, np.uint8), mask, truth)
    assert (picture[mask & ~truth] == TOO_MUCH).all()
    missing = picture[truth & ~mask]
    assert {tuple(colour) for colour in missing.tolist()} == {MISSING, OUTER_LINE}
    assert 0.3 < (missing == OUTER_LINE).all(axis=1).mean() < 0.7


def test_a_crop_is_painted_at_the_size_it_is_shown(scene: Pictured) -> None:
    image, prediction = scene
    small = crop(image, prediction[0], side=60, colour=INSTANCE_COLOURS[0])
    assert max(small.shape[:2]) <= 60
    assert (small == OUTER_LINE).all(axis=2).any()
    assert (small == INNER_LINE).all(axis=2).any()
