"""Images and their ground truth, turned, scaled, moved, mirrored and recoloured together."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskprism.datasets import GroundTruth
from maskprism.datasets import augmentation as augmentations
from maskprism.datasets.augmentation import LONGEST, Augmentation
from maskprism.datasets.scenes import draw_scene


def truth_of(*segments: object, image_hw: tuple[int, int]) -> GroundTruth:
    n = len(segments)
    return GroundTruth(
        classes=np.arange(n),
        segments=tuple(segments),  # type: ignore[arg-type]
        boxes=np.tile(np.array([[4, 3, 12, 11]], dtype=np.float32), (n, 1)),
        crowd=np.arange(n) % 2 > 0,
        image_hw=image_hw,
        label_ids=tuple(range(10, 10 + n)),
    )


def test_a_mirror_is_exact() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    polygon = np.array([(3, 2), (11, 2), (11, 9), (3, 9)], dtype=np.float32)
    bitmap = np.zeros((20, 30), dtype=bool)
    bitmap[2:5, 1:4] = True
    truth = truth_of((polygon,), bitmap, None, image_hw=(20, 30))
    how = Augmentation.mirror((20, 30))
    np.testing.assert_array_equal(how.image(image), image[:, ::-1])
    seen = how.truth(truth)
    np.testing.assert_array_equal(seen.masks(), truth.masks()[:, :, ::-1])
    np.testing.assert_array_equal(seen.boxes, [[19, 2, 27, 9], [26, 2, 29, 5], [18, 3, 26, 11]])
    assert seen.classes.tolist() == [0, 1, 2]
    assert seen.crowd.tolist() == [False, True, False]


@pytest.mark.parametrize(("longest", "off"), [(LONGEST, 1), (100, 2)])
@given(seed=st.integers(0, 10_000))
def test_masks_follow_their_pixels(longest: int, off: int, seed: int) -> None:
    """A disc that is drawn is where its polygon and its bitmap say, however it is seen: reduced, to two pixels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(augmentations, "LONGEST", longest)
        follow_their_pixels(np.random.default_rng(seed), off)


def follow_their_pixels(rng: np.random.Generator, off: int) -> None:
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    polygon = (np.stack([np.cos(angles), np.sin(angles)], axis=1) * (40, 25) + (90, 60)).astype(np.float32)
    truth = truth_of((polygon,), image_hw=(120, 160))
    (bitmap,) = truth.masks()
    image = np.repeat(np.where(bitmap, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    how = replace(Augmentation.drawn(rng, (120, 160)), colour=(0, 1, 1))
    height, width = how.size_hw
    wider = replace(how, size_hw=(height + 16, width + 16), shift=how.shift + 8)  # what lies beyond the edges, too
    disc = wider.truth(truth).masks()[0].astype(np.uint8)
    around = np.ones((2 * off + 1, 2 * off + 1), dtype=np.uint8)
    inner, outer = (change(disc, around)[8:-8, 8:-8] > 0 for change in (cv2.erode, cv2.dilate))
    outlined, mapped = (how.truth(truth_of(one, image_hw=(120, 160))).masks()[0] for one in ((polygon,), bitmap))
    for mask in (how.image(image).max(axis=2) > 127, outlined, mapped):
        assert mask[inner].all()
        assert not mask[~outer].any()


def test_a_mask_is_cut_where_the_picture_ends() -> None:
    """A corner that lies outside must not be moved to the side: that would bend the edges that lead to it."""
    triangle = np.array([(2.1, 10.2), (26.3, 2.4), (26.1, 18.2)], dtype=np.float32)
    notched = np.array([(2.2, 2.3), (40.1, 2.1), (10.3, 9.4), (40.2, 16.1), (2.1, 16.4)], dtype=np.float32)
    larger = Augmentation(np.diag([2.0, 2.0]), np.array([-20.0, -4.0]), (20, 30))
    whole = truth_of((2 * triangle,), (2 * notched,), image_hw=(40, 100)).masks()[:, 4:24, 20:50]
    assert whole.any(axis=(1, 2)).all()
    found = larger.truth(truth_of((triangle,), (notched,), image_hw=(20, 50)))
    # COCO's rule rounds towards zero, so corners left of the image lie a fifth of a pixel further right.
    assert (found.masks() != whole).sum() <= 2
    bent = replace(found, segments=tuple((np.clip(one, 0, (30, 20)),) for (one,) in found.segments))
    assert (bent.masks() != whole).sum() > 20


@given(st.floats(-25, 25), st.floats(-25, 25))
def test_a_rectangle_is_cut_at_every_side(x: float, y: float) -> None:
    rectangle = np.array([(4, 3), (24, 3), (24, 17), (4, 17)], dtype=np.float32)
    moved = Augmentation(np.eye(2), np.array([x, y]), (20, 28))
    found = moved.truth(truth_of((rectangle,), image_hw=(20, 28)))
    width, height = (
        max(min(hi + by, end) - max(lo + by, 0), 0) for lo, hi, by, end in ((4, 24, x, 28), (3, 17, y, 20))
    )
    assert len(found) == (width > 0 and height > 0)
    for box, (polygon,) in zip(found.boxes, found.segments, strict=True):
        np.testing.assert_allclose(
            polygon, rectangle + np.array([x, y])
        )  # the outline stays; its mask and its box are cut
        np.testing.assert_allclose(box[2:] - box[:2], (width, height), atol=1e-5)


@given(st.integers(0, 10_000))
def test_a_box_without_a_mask_holds_its_corners(seed: int) -> None:
    how = Augmentation.drawn(np.random.default_rng(seed), (16, 20))
    found = how.truth(truth_of(None, image_hw=(16, 20)))
    corners = np.array([how.linear @ (x, y) + how.shift for x in (4, 12) for y in (3, 11)])
    expected = np.clip([*corners.min(axis=0), *corners.max(axis=0)], 0, (20, 16, 20, 16))
    for box in found.boxes:
        np.testing.assert_allclose(box, expected, atol=1e-5)
    assert len(found) == (expected[2] > expected[0] and expected[3] > expected[1])


def test_there_is_grey_where_the_image_does_not_reach() -> None:
    moved = Augmentation(np.eye(2), np.array([3.0, 2.0]), (10, 12))
    seen = moved.image(np.full((10, 12, 3), 200, dtype=np.uint8))
    assert (seen[2:, 3:] == 200).all()
    assert (seen[:2] == 114).all()
    assert (seen[:, :3] == 114).all()


def test_what_has_left_the_picture_is_left_out() -> None:
    polygon = np.array([(3, 2), (11, 2), (11, 9), (3, 9)], dtype=np.float32)
    bitmap = np.zeros((20, 30), dtype=bool)
    bitmap[2:5, 1:4] = True
    away = Augmentation(np.eye(2), np.array([-15.0, 0.0]), (20, 30))
    truth = truth_of((polygon,), bitmap, None, (polygon + np.float32([10, 0]), polygon), image_hw=(20, 30))
    seen = away.truth(truth)
    assert seen.classes.tolist() == [3]
    assert seen.label_ids == (13,)
    np.testing.assert_array_equal(seen.boxes, [[0, 2, 6, 9]])
    assert not seen.masks()[0, :, 6:].any()
    assert len(Augmentation(np.eye(2), np.zeros(2), (20, 30)).truth(truth_of(image_hw=(20, 30)))) == 0


@pytest.mark.parametrize(
    ("shape", "size_hw"),
    [
        ((33_000, 40), (4096, 5)),
        ((1, 33_000), (1, 4096)),
        ((5000, 4200), (4096, 3441)),
        ((1, 1), (1, 1)),
        ((2, 3), (2, 3)),
    ],
)
def test_sizes_that_opencv_does_not_turn(shape: tuple[int, int], size_hw: tuple[int, int]) -> None:
    how = Augmentation.drawn(np.random.default_rng(1), shape)
    assert Augmentation.mirror(shape).size_hw == how.size_hw == size_hw
    bitmap = np.ones(shape, dtype=bool)
    corners = np.array([(0, 0), (shape[1], 0), (shape[1], shape[0]), (0, shape[0])], dtype=np.float32)
    assert max(how.size_hw) <= LONGEST
    seen = how.image(np.full((*shape, 3), 255, dtype=np.uint8))
    assert seen.shape == (*how.size_hw, 3)
    assert seen.dtype == np.uint8
    for mask in how.truth(truth_of(bitmap, (corners,), image_hw=shape)).masks():
        assert mask.shape == how.size_hw


def test_chance_draws_what_it_says() -> None:
    rng = np.random.default_rng(0)
    drawn = [Augmentation.drawn(rng, (480, 640)) for _ in range(400)]
    scales = np.array([np.sqrt(abs(np.linalg.det(one.linear))) for one in drawn])
    mirrored = np.array([np.linalg.det(one.linear) < 0 for one in drawn])
    turned = np.array([np.rad2deg(np.arcsin(one.linear[1, 0] / s)) for one, s in zip(drawn, scales, strict=True)])
    assert 0.65 <= scales.min() < 0.7
    assert 1.4 < scales.max() <= 1.5
    assert 7 < np.abs(turned).max() <= 8
    assert 0.4 < mirrored.mean() < 0.6
    centre = np.array([one.linear @ [320, 240] + one.shift - [320, 240] for one in drawn])
    assert (np.abs(centre) <= np.abs(1 - scales)[:, None] / 2 * [640, 480] + 8).all()
    moved = centre / (np.abs(1 - scales)[:, None] / 2 * [640, 480] + 8)
    assert (moved.min(axis=0) < -0.8).all()
    assert (moved.max(axis=0) > 0.8).all()
    pixels = centre[np.abs(1 - scales) < 0.02]  # nearly nothing but these is left to move by
    assert (pixels.min(axis=0) < -5).all()
    assert (pixels.max(axis=0) > 5).all()
    assert abs(np.corrcoef(pixels.T)[0, 1]) < 0.6
    colours = np.array([one.colour for one in drawn])
    for index, (low, high) in enumerate(((-0.015, 0.015), (0.5, 1.5), (0.7, 1.3))):
        edge = 0.05 * (high - low)
        assert low <= colours[:, index].min() < low + edge
        assert high - edge < colours[:, index].max() <= high
    chances = np.concatenate([colours, moved, scales[:, None], turned[:, None], mirrored[:, None]], axis=1)
    assert np.abs(np.corrcoef(chances.T) - np.eye(8)).max() < 0.2
    again = Augmentation.drawn(np.random.default_rng(0), (480, 640))
    np.testing.assert_array_equal(again.linear, drawn[0].linear)
    assert again.colour == drawn[0].colour


def test_colours_change_and_greys_stay_grey() -> None:
    scene = draw_scene(1).image
    still = Augmentation(np.eye(2), np.zeros(2), scene.shape[:2])
    np.testing.assert_array_equal(still.image(scene), scene)
    other = Augmentation(np.eye(2), np.zeros(2), scene.shape[:2], (0.01, 1.3, 0.8)).image(scene)
    assert 0.7 * scene.mean() < other.mean() < 0.9 * scene.mean()
    grey = np.full((8, 8, 3), 100, dtype=np.uint8)
    assert set(Augmentation(np.eye(2), np.zeros(2), (8, 8), (0.01, 1.4, 0.9)).image(grey).ravel().tolist()) == {90}


@pytest.mark.parametrize(
    ("colour", "before", "after"),
    [
        ((1 / 3, 1, 1), (0, 0, 255), (0, 255, 0)),
        ((-1 / 3, 1, 1), (0, 0, 255), (255, 0, 0)),
        ((0.5, 1, 1), (255, 0, 0), (0, 255, 255)),
        ((0, 1, 0.5), (0, 0, 200), (0, 0, 100)),
        ((0, 1, 1.3), (0, 0, 250), (0, 0, 255)),
        ((0, 0, 1), (0, 0, 250), (250, 250, 250)),
        ((0, 2, 1), (100, 100, 255), (0, 0, 255)),
        ((0, 1, 0), (10, 20, 30), (0, 0, 0)),
    ],
)
def test_hue_is_turned_and_saturation_and_value_end_at_the_full(
    colour: tuple[float, float, float], before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    found = Augmentation(np.eye(2), np.zeros(2), (2, 2), colour).image(np.full((2, 2, 3), before, dtype=np.uint8))
    assert found[1, 1].tolist() == list(after)
