"""Data sets of a few grey images, in the layouts of YOLO and COCO."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import yaml

from maskprism.datasets.scenes import write_dataset

HEIGHT, WIDTH = 40, 60
TRIANGLE = "0 0.1 0.1 0.9 0.1 0.1 0.9"


_FEW_OBJECTS = (5, 8, 9, 13, 22, 25, 26, 29, 37, 42, 53, 57, 67, 84, 85, 98, 113, 117, 129, 136)


def scenes_of_few_objects(folder: Path) -> Path:
    """20 drawn scenes of 3 or 4 objects: as many images as a claim needs, with the least work on each."""
    return [write_dataset(folder, 1, seed=seed, validation_share=1) for seed in _FEW_OBJECTS][-1]


def data_set(folder: Path, labels: Mapping[str, str | bytes | None], **described: object) -> Path:
    """A data set with a split "val" of grey images, and these label files."""
    (folder / "images" / "val").mkdir(parents=True)
    (folder / "labels" / "val").mkdir(parents=True)
    for stem, text in labels.items():
        cv2.imwrite(str(folder / "images" / "val" / f"{stem}.png"), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
        if text is not None:
            data = text.encode() if isinstance(text, str) else text
            (folder / "labels" / "val" / f"{stem}.txt").write_bytes(data)
    (folder / "data.yaml").write_text(yaml.safe_dump({"val": "images/val", "names": ["cat", "dog"], **described}))
    return folder / "data.yaml"


def coco(folder: Path, annotations: list[dict], *, where: str = "annotations/instances_val.json") -> Path:
    file = folder / where
    file.parent.mkdir(parents=True, exist_ok=True)
    (folder / "val").mkdir(exist_ok=True)
    names = ("a ü.png", "b.png")
    for name in names:
        (folder / "val" / name).write_bytes(cv2.imencode(".png", np.zeros((HEIGHT, WIDTH, 3), np.uint8))[1].tobytes())
    described = {
        "images": [
            {"id": 10 * (n + 1), "file_name": name, "height": HEIGHT, "width": WIDTH} for n, name in enumerate(names)
        ],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [{"id": n, "image_id": 10, "iscrowd": 0, **row} for n, row in enumerate(annotations)],
    }
    file.write_text(json.dumps(described))
    return file
