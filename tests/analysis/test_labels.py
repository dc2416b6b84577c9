"""Labels of images, wherever they lie."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

import maskprism
from maskprism.analysis.truth.labels import open_labels
from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.errors import InputError
from maskprism.io.sources import open_sources


def test_the_labels_of_scenes_are_their_masks(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, 2, seed=5, validation_share=0.5)
    names = {
        number + 3: name for number, name in enumerate(maskprism.load("sample").spec.names.values())
    }  # another numbering
    labels = open_labels(data, tmp_path, names)
    assert len(labels) == 2
    with (tmp_path / "labels" / "val" / "scene_000006.txt").open("a") as file:
        file.write("3 0.5 0.5 0.2 0.2\n")  # a box is not a mask
    for seed, path in ((5, "train/scene_000005.png"), (6, "val/scene_000006.png")):
        scene = draw_scene(seed)
        truth = labels.ground_truth(tmp_path / "images" / path, scene.owners.shape)
        assert truth is not None
        masked = ~truth.box_only
        assert truth.classes[masked].tolist() == [class_id + 3 for class_id in scene.classes]
        for mask, drawn in zip(truth.masks()[masked], scene.masks, strict=True):
            if cv2.connectedComponents(drawn.astype(np.uint8), connectivity=4)[0] == 2:
                np.testing.assert_array_equal(mask, drawn)
            else:  # label files hold one outline each: lines join its parts, and Ultralytics draws them
                assert (mask >= drawn).all()
                assert (mask & ~drawn).sum() < 60
    assert labels.ground_truth(tmp_path / "elsewhere.png", (10, 10)) is None


def test_labels_of_other_images_are_refused(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "other", 2, validation_share=1.0)
    with pytest.raises(InputError, match=r"lists 2 images, and none of them is in"):
        open_labels(data, tmp_path / "photos", {})
    with pytest.raises(InputError, match=r"lists 2 images, and none of them is among those that are shown"):
        open_labels(data, [tmp_path / "photos" / "a.png"], {})


def test_labels_are_found_for_files_wherever_their_list_lies(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", 3, validation_share=1.0)
    files = sorted((tmp_path / "data" / "images" / "val").iterdir())
    (tmp_path / "lists").mkdir()
    listed = tmp_path / "lists" / "two.txt"
    listed.write_text("".join(f"{file}\n" for file in files[1:]))
    labels = open_labels(data, open_sources([listed]).files, maskprism.load("sample").spec.names)
    assert len(labels) == 2
    truth = labels.ground_truth(files[1], draw_scene(1).owners.shape)
    assert truth is not None
    assert len(truth) == len(draw_scene(1).classes)
    assert labels.ground_truth(files[0], (10, 10)) is None


def scene_json(file: Path, names: list[str]) -> Path:
    """A COCO json with one square on every one of these images."""
    square = {"category_id": 3, "segmentation": [[8, 8, 40, 8, 40, 40, 8, 40]], "iscrowd": 0}
    tree = {
        "images": [{"id": str(number), "file_name": name} for number, name in enumerate(names)],
        "categories": [{"id": 3, "name": "disc"}],
        "annotations": [{"image_id": number, **square} for number in range(len(names))],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(tree))
    return file


def test_a_json_elsewhere_is_about_the_images_that_are_shown(tmp_path: Path) -> None:
    """It lists more than there are, and the first of them is missing; the folder has others, too."""
    photos = tmp_path / "photos"
    (photos / "deep").mkdir(parents=True)
    for name in ("b.png", "deep/c.png", "other.png"):
        cv2.imwrite(str(photos / name), np.full((64, 64, 3), 90, np.uint8))
    names = ["val2017/a.png", "val2017/b.png", "val2017\\c.png"]
    data = scene_json(tmp_path / "labels" / "instances.json", names)
    files = open_sources([photos]).files
    for images in (photos, str(photos), files):
        labels = open_labels(data, images, {0: "disc"})
        assert len(labels) == 2
        assert "1 of the 3 images that instances.json lists is not there" in labels.notices[0]
        for name in ("b.png", "deep/c.png"):
            truth = labels.ground_truth(photos / name, (64, 64))
            assert truth is not None
            assert truth.areas.tolist() == [32 * 32]
        assert labels.ground_truth(photos / "other.png", (64, 64)) is None


def test_labels_of_copied_images_are_found_by_file_name(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "data", 3, validation_share=1.0)
    photos = tmp_path / "photos"
    photos.mkdir()
    first, second, _ = sorted((tmp_path / "data" / "images" / "val").iterdir())
    (photos / first.name).write_bytes(first.read_bytes())
    (photos / "mine.png").write_bytes(second.read_bytes())
    for images in (photos, [photos / first.name, photos / "mine.png"]):
        labels = open_labels(data, images, maskprism.load("sample").spec.names)
        assert len(labels) == 1
        assert "the 1 images with labels are found by their file names" in labels.notices[0]
        truth = labels.ground_truth(photos / first.name, draw_scene(0).owners.shape)
        assert truth is not None
        assert len(truth) == len(draw_scene(0).classes)


def test_crowds_of_a_json_are_labels_if_they_are_taken_for_instances(tmp_path: Path) -> None:
    data = scene_json(tmp_path / "instances.json", ["a.png"])
    data.write_text(data.read_text().replace('"iscrowd": 0', '"iscrowd": 1'))
    cv2.imwrite(str(tmp_path / "a.png"), np.full((64, 64, 3), 90, np.uint8))
    for crowds, count in (("left-out", 0), ("as-instances", 1)):
        labels = open_labels(data, tmp_path, {0: "disc"}, crowds=crowds)
        truth = labels.ground_truth(tmp_path / "a.png", (64, 64))
        assert truth is not None
        assert int((~truth.box_only & ~truth.crowd).sum()) == count
        assert "1 of 1 mask in instances.json is a crowd (iscrowd: 1)" in labels.notices[0]
