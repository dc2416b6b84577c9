"""Drawn scenes: the same from the same seed, with exact and sensible ground truth."""

from __future__ import annotations

from inspect import unwrap

import cv2
import numpy as np
import pytest
import yaml

from maskprism.datasets.scenes import NAMES, SMALLEST_AREA, draw_scene, write_dataset
from maskprism.errors import InputError


@pytest.fixture(scope="module")
def scenes():
    return [draw_scene(seed) for seed in range(40)]


def test_the_seed_decides_the_scene():
    first, again, other = draw_scene(7), unwrap(draw_scene)(7), draw_scene(8)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.owners, again.owners)
    assert np.array_equal(first.classes, again.classes)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("size_hw", [(320, 320), (200, 333), (480, 640)])
def test_shapes_and_types(size_hw):
    scene = draw_scene(3, size_hw)
    assert scene.image.shape == (*size_hw, 3)
    assert scene.image.dtype == np.uint8
    assert scene.masks.shape == (len(scene), *size_hw)
    assert scene.masks.dtype == bool
    assert scene.boxes.shape == (len(scene), 4)
    assert scene.classes.shape == (len(scene),)


def test_masks_never_overlap(scenes):
    for scene in scenes:
        assert scene.masks.sum(axis=0).max() <= 1


def test_boxes_are_tight(scenes):
    for scene in scenes:
        for box, mask in zip(scene.boxes.astype(int), scene.masks, strict=True):
            x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
            assert tuple(box) == (x, y, x + w, y + h)


def test_every_object_keeps_enough_pixels(scenes):
    assert min(int(mask.sum()) for scene in scenes for mask in scene.masks) >= SMALLEST_AREA


def test_every_class_and_many_objects_occur(scenes):
    assert {len(scene) for scene in scenes} <= set(range(3, 13))
    counts = np.bincount(np.concatenate([scene.classes for scene in scenes]), minlength=len(NAMES))
    assert counts.min() >= 8
    assert 5 <= counts.sum() / len(scenes) <= 9


def test_some_objects_hide_parts_of_others(scenes):
    touching = 0
    for scene in scenes:
        for mask in scene.masks:
            ring = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~mask
            touching += bool((scene.owners[ring] > 0).any())
    assert touching >= 40


def test_colour_does_not_tell_the_class():
    """Mean colours of the classes differ no more than samples of one distribution do."""
    colours: dict[int, list[np.ndarray]] = {class_id: [] for class_id in NAMES}
    for seed in range(200, 260):
        scene = draw_scene(seed)
        for class_id, mask in zip(scene.classes, scene.masks, strict=True):
            colours[int(class_id)].append(scene.image[mask].mean(axis=0))
    everything = np.concatenate([np.stack(rows) for rows in colours.values()])
    for rows in colours.values():
        error = everything.std(axis=0) / np.sqrt(len(rows))
        assert (np.abs(np.mean(rows, axis=0) - everything.mean(axis=0)) < 4 * error).all()


def test_a_tiny_scene_is_refused():
    with pytest.raises(InputError, match="at least 64 x 64"):
        draw_scene(0, (32, 320))


def test_a_data_set_holds_the_same_masks(tmp_path):
    described = yaml.safe_load(write_dataset(tmp_path, 10, seed=40).read_text(encoding="utf-8"))
    assert described["names"] == NAMES
    assert len(list((tmp_path / described["train"]).iterdir())) == 8
    assert len(list((tmp_path / described["val"]).iterdir())) == 2
    for path in tmp_path.glob("labels/*/*.txt"):
        scene = draw_scene(int(path.stem.removeprefix("scene_")))
        picture = cv2.imread(str(path).replace("labels", "images").replace(".txt", ".png"))
        assert np.array_equal(picture, scene.image)
        rows = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        assert [int(row[0]) for row in rows] == scene.classes.tolist()
        for row, mask in zip(rows, scene.masks, strict=True):
            points = np.array(row[1:], dtype=float).reshape(-1, 2) * mask.shape[::-1]
            drawn = np.zeros(mask.shape, dtype=np.uint8)
            cv2.fillPoly(drawn, [np.round(points - 0.5).astype(np.int32)], 1)
            union = np.count_nonzero(mask | (drawn > 0))
            assert np.count_nonzero(mask & (drawn > 0)) / union > 0.9
