"""Labels of images, and which instance found which labelled instance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import maskprism
from maskprism.analysis.truth.labels import Truth, match_masks, open_labels
from maskprism.errors import InputError
from maskprism.scenes import draw_scene, write_dataset
from maskprism.sources import open_sources
from strategies import predictions


@given(prediction=predictions(), seed=st.integers(0, 99))
@settings(max_examples=40)
def test_labels_are_matched_by_their_definition(prediction: maskprism.Prediction, seed: int) -> None:
    """The slow way: whole masks, and loops over everything."""
    rng = np.random.default_rng(seed)
    height, width = prediction.image_size
    count = int(rng.integers(0, 4))
    noise = rng.random((count, height, width)) < 0.5
    own = prediction.masks("image")[rng.integers(0, len(prediction), count)]
    truth = Truth(rng.integers(0, 3, count).tolist(), list(noise & (own | (rng.random((count, 1, 1)) < 0.5))))
    found = match_masks(prediction, truth)
    masks, left = prediction.masks("image"), list(range(count))
    expected: list[tuple[int | None, float]] = [(None, 0.0)] * len(prediction)
    for index in sorted(range(len(prediction)), key=lambda i: -prediction.scores[i]):
        best: tuple[float, int] | None = None
        for candidate in left:
            if truth.classes[candidate] == prediction.classes[index]:
                either = (masks[index] | truth.masks[candidate]).sum()
                iou = (masks[index] & truth.masks[candidate]).sum() / either if either else 0
                if iou > 0 and (best is None or iou > best[0]):
                    best = (iou, candidate)
        if best:
            expected[index] = (best[1], best[0])
            left.remove(best[1])
    assert all(
        mask is (None if one is None else truth.masks[one])
        for (one, _), mask in zip(expected, found.masks, strict=True)
    )
    np.testing.assert_allclose(found.ious, [iou for _, iou in expected], atol=1e-12)
    assert found.missed == [truth.classes[one] for one in left]


def test_the_labels_of_scenes_are_their_masks(tmp_path: Path) -> None:
    data = write_dataset(tmp_path, 2, seed=5, validation_share=0.5)
    names = {
        number + 3: name for number, name in enumerate(maskprism.load("sample").spec.names.values())
    }  # another numbering
    labels = open_labels(data, tmp_path, names)
    assert len(labels) == 2
    with (tmp_path / "labels" / "val" / "scene_000006.txt").open("a") as file:
        file.write("3 0.5 0.5 0.2 0.2\n")  # a box is no mask, so there is nothing to compare
    for seed, path in ((5, "train/scene_000005.png"), (6, "val/scene_000006.png")):
        scene = draw_scene(seed)
        truth = labels(tmp_path / "images" / path, scene.owners.shape)
        assert truth is not None
        assert list(truth.classes) == [class_id + 3 for class_id in scene.classes]
        np.testing.assert_array_equal(truth.masks, scene.masks)
    assert labels(tmp_path / "elsewhere.png", (10, 10)) is None


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
