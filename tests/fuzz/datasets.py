"""Data sets: COCO json, data.yaml with its label files, names of classes, and lists of images."""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fuzz.kind import Kind, image, write_images
from fuzz.mutate import JSON, YAML, as_yaml, bytes_damage, text_damage
from maskprism import Letterbox
from maskprism.datasets import open_dataset
from maskprism.datasets.decisions import read_decisions
from maskprism.errors import MaskprismError
from maskprism.integrations.corrected_labels import write_corrected
from maskprism.io.sources import open_source
from maskprism.models.names import read_names

CATEGORIES = [{"id": 1, "name": "cat", "supercategory": "animal"}, {"id": 7, "name": "dog"}]


def _coco(folder: Path) -> None:
    from faster_coco_eval.core.mask import encode

    write_images(folder / "images")
    packed = encode(np.asfortranarray(image()[:, :, 0] > 128).astype(np.uint8))["counts"].decode()
    polygon = {"segmentation": [[2, 2, 20.5, 2, 20, 18], [1, 1, 5, 1, 5, 5]], "bbox": [2, 2, 18, 16], "area": 144}
    shared = {"iscrowd": 0, "bbox": [0, 0, 32, 24], "area": 300.0}
    tree = {
        "info": {"year": 2017},
        "images": [{"id": i, "file_name": f"{i}.png", "height": 24, "width": 32, "license": 1} for i in range(2)],
        "annotations": [
            {"id": 1, "image_id": 0, "category_id": 1, "iscrowd": 0, **polygon},
            {"id": 2, "image_id": 0, "category_id": 7, **shared, "segmentation": {"counts": packed, "size": [24, 32]}},
            {"id": 3, "image_id": 1, "category_id": 7, **shared, "bbox": [1, 2, 9, 8.5]},
            {"id": 4, "image_id": 1, "category_id": 1, **shared, "iscrowd": 1}
            | {"segmentation": {"counts": [100, 60, 600, 8], "size": [24, 32]}},
        ],
        "categories": CATEGORIES,
    }
    (folder / "data.json").write_text(json.dumps(tree))


def _coco_export(folder: Path) -> None:
    """As other tools vary it: ids as text, paths of another machine, a bare polygon, points, uncompressed RLE."""
    write_images(folder / "images" / "deep")
    runs = {"counts": [100, 60, 600, 8], "size": [24, 32]}
    square = [2, 2, 20.5, 2, 20, 18, 2, 18]
    shared = {"iscrowd": "0", "category_id": "7"}
    tree = {
        "images": [
            {"id": "a0", "file_name": "C:\\data\\deep\\0.png", "height": 24.0, "width": 32.0},
            {"id": "1", "file_name": "/data/deep/1.png", "height": 0, "width": None},
            {"id": "2", "file_name": "gone.png"},
        ],
        "annotations": [
            {"id": "x", "image_id": "a0", "segmentation": square, **shared},
            {"image_id": 1, "segmentation": [[2, 2], [20, 2], [20, 18]], **shared},
            {"image_id": 1.0, "segmentation": [runs], **shared, "iscrowd": 1},
            {"image_id": "2", "segmentation": [[], square], **shared},
            {"image_id": 99, "segmentation": [square], **shared},
        ],
        "categories": [*CATEGORIES, {"id": "9", "name": "dog"}],
    }
    (folder / "data.json").write_text(json.dumps(tree))


def _yolo(folder: Path, tree: Any, images: str = "images/val") -> None:
    write_images(folder / images)
    labels = folder / images.replace("images", "labels")
    labels.mkdir(parents=True)
    (labels / "0.txt").write_text("0 0.1 0.1 0.9 0.15 0.5 0.9\n1 0.2 0.2 0.4 0.2 0.4 0.6 0.2 0.6\n")
    (labels / "1.txt").write_text("1 0.5 0.5 0.25 0.25\n0 1.005 0.1 0.9 0.15 0.5 0.9\n\n")
    (folder / "list.txt").write_text("./images/val/0.png\n.\\images\\val\\1.png\n/home/me/images/val/gone.png\n")
    (folder / "data.yaml").write_text(as_yaml(tree))


YOLO = (
    partial(
        _yolo,
        tree={"path": "C:\\set", "train": "C:\\set\\images\\val", "validation": "list.txt", "names": ["cat", "dog"]},
    ),
    partial(_yolo, tree={"path": ".", "train": "images/val", "val": "images/val", "names": {0: "cat", 1: "dog"}}),
    partial(_yolo, tree={"val": ["images/val", "list.txt"], "test": None, "nc": 2, "names": ["cat", "dog"]}),
    partial(_yolo, tree={"train": "list.txt", "nc": 2}),
    partial(
        _yolo,
        images="valid/images",
        tree={"train": "../train/images", "val": "../valid/images", "nc": 2, "names": ["cat", "dog"]}
        | {"roboflow": {"workspace": "w", "version": 1, "license": "CC BY 4.0", "url": "https://example.org"}},
    ),
)


BOX = Letterbox.fit((24, 32), (64, 64))


def _use_dataset(folder: Path, name: str) -> None:
    dataset = open_dataset(folder / name)
    str(dataset), len(dataset), "\n".join(dataset.notices)
    errors = []
    for sample in dataset.for_model({0: "cat", 1: "class1"}):
        try:
            _, truth = sample.read()
            (
                truth.masks(),
                truth.masks("grid", BOX),
                truth.areas,
                truth.box_only,
                [truth.name_of(one) for one in truth.classes],
            )
        except MaskprismError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _list_of_images(folder: Path) -> None:
    write_images(folder / "images")
    (folder / "list.txt").write_text("images/0.png\n# a remark\n\n./images/1.png\n")


def use_source(folder: Path, name: str) -> None:
    """Every image of a list, or frame of a video."""
    found = open_source(folder / name)
    found.count()
    for one in found.pending(frozenset()):
        one.read()


def _names(folder: Path) -> None:
    (folder / "names.txt").write_text("cat\ndog\ntraffic light\n")
    (folder / "names.yaml").write_text(as_yaml({"names": {0: "cat", 1: "dog"}, "nc": 2, "stride": 32}))
    (folder / "names.json").write_text(json.dumps({"images": [], "annotations": [], "categories": CATEGORIES}))


def _use_names(folder: Path) -> None:
    errors = []
    for path in sorted(folder.iterdir()):
        try:
            read_names(path)
        except MaskprismError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def _decisions(folder: Path) -> None:
    """Decisions of all kinds about labels of a COCO json."""
    _coco(folder)
    mask = {"size": [24, 32], "counts": [100, 60, 608]}
    dataset = open_dataset(folder / "data.json")
    rows: list[dict[str, Any]] = []
    for sample in dataset:
        _, truth = sample.read()
        rows += [
            {"image": sample.name, "label_id": label_id, "box": box.tolist(), "kind": "shifted"}
            for label_id, box in zip(truth.label_ids, truth.boxes, strict=True)
        ]
    rows[0] |= {"action": "replace", "mask": mask}
    rows[1] |= {"action": "reclassify", "category": 1}
    rows[2] |= {"action": "delete"}
    rows[3] |= {"action": "keep"}
    rows.append(rows[0] | {"action": "add", "label_id": None, "category": 7})
    head = {"format": 1, "command": "labels", "maskprism": "0", "data": "data.json", "split": None}
    (folder / "decisions.json").write_text(json.dumps(head | {"decisions": rows}))


def _apply_decisions(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as new:
        decisions = read_decisions(folder / "decisions.json")
        corrected = write_corrected(open_dataset(folder / "data.json"), decisions, Path(new))
        for sample in open_dataset(corrected.description):
            sample.read()


COCO_USE, YAML_USE = partial(_use_dataset, name="data.json"), partial(_use_dataset, name="data.yaml")
KINDS = {
    "coco": Kind((_coco, _coco_export), {"data.json": (JSON, JSON, JSON, bytes_damage)}, COCO_USE, 20),
    "yaml": Kind(YOLO, {"data.yaml": (YAML, YAML, YAML, bytes_damage), "list.txt": (text_damage,)}, YAML_USE, 20),
    "labels": Kind(YOLO[1:2], {"labels/*": (text_damage, bytes_damage)}, YAML_USE, 10),
    "names": Kind(
        (_names,),
        {"*.txt": (text_damage, bytes_damage), "*.yaml": (YAML, bytes_damage), "*.json": (JSON, bytes_damage)},
        _use_names,
        5,
    ),
    "decisions": Kind(
        (_decisions,),
        {"decisions.json": (JSON, JSON, bytes_damage), "data.json": (JSON, bytes_damage)},
        _apply_decisions,
        5,
    ),
    "list": Kind(
        (_list_of_images,), {"list.txt": (text_damage, bytes_damage)}, partial(use_source, name="list.txt"), 5
    ),
}
