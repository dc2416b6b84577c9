"""Masks of label files against those that Ultralytics draws of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from maskprism.datasets import open_dataset
from maskprism.io.images import IMAGE_SUFFIXES


def row(polygon: np.ndarray) -> str:
    return "0 " + " ".join(f"{value:.6f}" for value in polygon.reshape(-1))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outlines of every kind on images of several sizes: thin, crossing themselves, along the sides."""
    folder = tmp_path_factory.mktemp("labels")
    rng = np.random.default_rng(4)
    for kind in ("images", "labels"):
        (folder / kind).mkdir()
    for number, (height, width) in enumerate([(480, 640), (37, 90), (333, 500), (64, 64)]):
        cv2.imwrite(str(folder / "images" / f"{number}.png"), np.full((height, width, 3), 90, np.uint8))
        polygons = [rng.uniform(0, 1, (rng.integers(3, 20), 2)) for _ in range(20)]
        polygons += [
            np.array([x, y]) + rng.uniform(0, 1, (6, 2)) * (0.4, 0.004) for x, y in rng.uniform(0, 0.6, (10, 2))
        ]
        polygons += [np.array([(0, 0), (1, 0), (1, 1), (0, 1)])]
        polygons += [np.round(rng.uniform(0, 1, (5, 2)) * (width, height)) / (width, height) for _ in range(20)]
        (folder / "labels" / f"{number}.txt").write_text("\n".join(map(row, polygons)))
    (folder / "data.yaml").write_text("val: images\nnames: [thing]\n")
    return folder


@pytest.mark.parametrize("which", ["drawn", "coco128"])
def test_masks_of_label_files_are_those_of_ultralytics(which: str, labelled: Path, real_data: Path) -> None:
    from ultralytics.data.utils import polygon2mask, verify_image_label

    folder = labelled if which == "drawn" else real_data / "datasets" / "coco128-seg"
    compared = 0
    for sample in list(open_dataset(folder))[:40]:
        image, truth = sample.read()
        height, width = image.shape[:2]
        path = Path(sample.image.image)
        label = Path(str(path).replace("images", "labels")).with_suffix(".txt")
        theirs = verify_image_label((str(path), str(label), "", False, 80, 0, 0, False))[3]
        masks = truth.masks()
        assert len(theirs) == len(masks)
        for polygon, mask in zip(theirs, masks, strict=True):
            drawn = polygon2mask((height, width), [(polygon * np.array([width, height], np.float32)).reshape(-1)])
            np.testing.assert_array_equal(mask, drawn > 0)
            compared += 1
    assert compared > 100


def test_every_suffix_that_ultralytics_trains_on_is_read() -> None:
    from ultralytics.data.utils import IMG_FORMATS

    assert {f".{suffix}" for suffix in IMG_FORMATS} <= IMAGE_SUFFIXES
