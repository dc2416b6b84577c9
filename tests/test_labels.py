"""Labels of images, wherever they lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import maskprism
from maskprism.analysis.truth.labels import open_labels
from maskprism.errors import InputError
from maskprism.scenes import draw_scene, write_dataset
from maskprism.sources import open_sources


def test_the_labels_of_scenes_are_their_masks(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, 2, seed=5, validation_share=0.5)
    names = {number + 3: name for number, name in enumerate(maskprism.load().spec.names.values())}  # another numbering
    labels = open_labels(data, tmp_path, names)
    assert len(labels) == 2
    with (tmp_path / "labels" / "val" / "scene_000006.txt").open("a") as file:
        file.write("3 0.5 0.5 0.2 0.2\n")  # a box is no mask
    for seed, path in ((5, "train/scene_000005.png"), (6, "val/scene_000006.png")):
        scene = draw_scene(seed)
        truth = labels.ground_truth(tmp_path / "images" / path, scene.owners.shape)
        assert truth is not None
        masked = ~truth.box_only
        assert truth.classes[masked].tolist() == [class_id + 3 for class_id in scene.classes]
        np.testing.assert_array_equal(truth.masks()[masked], scene.masks)
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
    labels = open_labels(data, open_sources([listed]).files, maskprism.load().spec.names)
    assert len(labels) == 2
    truth = labels.ground_truth(files[1], draw_scene(1).owners.shape)
    assert truth is not None
    assert len(truth) == len(draw_scene(1).classes)
    assert labels.ground_truth(files[0], (10, 10)) is None
