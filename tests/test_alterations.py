"""Images and their ground truth, turned, scaled, moved, mirrored and recoloured together."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskprism.datasets import GroundTruth
from maskprism.datasets.alterations import LONGEST, Alteration
from maskprism.scenes import draw_scene


def truth_of(*segments: object, image_hw: tuple[int, int]) -> GroundTruth:
    n = len(segments)
    return GroundTruth(
        classes=np.arange(n),
        segments=tuple(segments),  # type: ignore[arg-type]
        boxes=np.tile(np.array([[4, 3, 12, 11]], dtype=np.float32), (n, 1)),
        crowd=np.arange(n) % 2 > 0,
        image_hw=image_hw,
    )


def test_a_mirror_is_exact() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    polygon = np.array([(3, 2), (11, 2), (11, 9), (3, 9)], dtype=np.float32)
    bitmap = np.zeros((20, 30), dtype=bool)
    bitmap[2:5, 1:4] = True
    truth = truth_of((polygon,), bitmap, None, image_hw=(20, 30))
    how = Alteration.mirror((20, 30))
    np.testing.assert_array_equal(how.image(image), image[:, ::-1])
    seen = how.truth(truth)
    np.testing.assert_array_equal(seen.masks(), truth.masks()[:, :, ::-1])
    np.testing.assert_array_equal(seen.boxes, [[19, 2, 27, 9], [26, 2, 29, 5], [18, 3, 26, 11]])
    assert seen.classes.tolist() == [0, 1, 2]
    assert seen.crowd.tolist() == [False, True, False]


@given(st.integers(0, 10_000))
def test_masks_follow_their_pixels(seed: int) -> None:
    """A disc that is drawn is where its polygon and its bitmap say, however it is seen."""
    rng = np.random.default_rng(seed)
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    polygon = (np.stack([np.cos(angles), np.sin(angles)], axis=1) * (40, 25) + (90, 60)).astype(np.float32)
    truth = truth_of((polygon,), image_hw=(120, 160))
    (bitmap,) = truth.masks()
    image = np.repeat(np.where(bitmap, 255, 0).astype(np.uint8)[..., None], 3, axis=2)
    how = replace(Alteration.drawn(rng, (120, 160)), colour=(0, 1, 1))
    seen, found = how.image(image), how.truth(truth)
    white = seen.max(axis=2) > 127
    for mask in (found.masks()[0], how.truth(truth_of(bitmap, image_hw=(120, 160))).masks()[0]):
        off = mask ^ white
        inner = cv2.erode(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        outer = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
        assert not (off & (inner | ~outer)).any()


def test_an_outline_is_cut_where_the_picture_ends() -> None:
    """A corner that lies outside must not be moved to the side: that would bend the edges that lead to it."""
    triangle = np.array([(2.1, 10.2), (26.3, 2.4), (26.1, 18.2)], dtype=np.float32)
    notched = np.array([(2.2, 2.3), (40.1, 2.1), (10.3, 9.4), (40.2, 16.1), (2.1, 16.4)], dtype=np.float32)
    larger = Alteration(np.diag([2.0, 2.0]), np.array([-20.0, -4.0]), (20, 30))
    whole = truth_of((2 * triangle,), (2 * notched,), image_hw=(40, 100)).masks()[:, 4:24, 20:50]
    assert whole.any(axis=(1, 2)).all()
    found = larger.truth(truth_of((triangle,), (notched,), image_hw=(20, 50)))
    np.testing.assert_array_equal(found.masks(), whole)


def test_what_has_left_the_picture_is_left_out() -> None:
    polygon = np.array([(3, 2), (11, 2), (11, 9), (3, 9)], dtype=np.float32)
    bitmap = np.zeros((20, 30), dtype=bool)
    bitmap[2:5, 1:4] = True
    away = Alteration(np.eye(2), np.array([-15.0, 0.0]), (20, 30))
    truth = truth_of((polygon,), bitmap, None, (polygon + np.float32([10, 0]), polygon), image_hw=(20, 30))
    seen = away.truth(truth)
    assert seen.classes.tolist() == [3]
    np.testing.assert_array_equal(seen.boxes, [[0, 2, 6, 9]])
    assert len(seen.segments[0]) == 1  # type: ignore[arg-type]
    assert len(Alteration(np.eye(2), np.zeros(2), (20, 30)).truth(truth_of(image_hw=(20, 30)))) == 0


@pytest.mark.parametrize("shape", [(33_000, 40), (40, 33_000), (5000, 4200), (1, 1), (2, 3)])
def test_sizes_that_opencv_does_not_turn(shape: tuple[int, int]) -> None:
    how = Alteration.drawn(np.random.default_rng(1), shape)
    assert Alteration.mirror(shape).size_hw == how.size_hw
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
    drawn = [Alteration.drawn(rng, (480, 640)) for _ in range(400)]
    scales = np.array([np.sqrt(abs(np.linalg.det(one.linear))) for one in drawn])
    mirrored = np.array([np.linalg.det(one.linear) < 0 for one in drawn])
    turned = np.array([np.rad2deg(np.arcsin(one.linear[1, 0] / s)) for one, s in zip(drawn, scales, strict=True)])
    assert 0.65 <= scales.min() < 0.7
    assert 1.4 < scales.max() <= 1.5
    assert 7 < np.abs(turned).max() <= 8
    assert 0.4 < mirrored.mean() < 0.6
    centre = np.array([one.linear @ [320, 240] + one.shift - [320, 240] for one in drawn])
    assert (np.abs(centre) <= np.abs(1 - scales)[:, None] / 2 * [640, 480] + 8).all()
    again = Alteration.drawn(np.random.default_rng(0), (480, 640))
    np.testing.assert_array_equal(again.linear, drawn[0].linear)
    assert again.colour == drawn[0].colour


def test_colours_change_and_greys_stay_grey() -> None:
    scene = draw_scene(1).image
    still = Alteration(np.eye(2), np.zeros(2), scene.shape[:2])
    np.testing.assert_array_equal(still.image(scene), scene)
    other = Alteration(np.eye(2), np.zeros(2), scene.shape[:2], (0.01, 1.3, 0.8)).image(scene)
    assert 0.7 * scene.mean() < other.mean() < 0.9 * scene.mean()
    grey = np.full((8, 8, 3), 100, dtype=np.uint8)
    assert set(Alteration(np.eye(2), np.zeros(2), (8, 8), (0.01, 1.4, 0.9)).image(grey).ravel().tolist()) == {90}
