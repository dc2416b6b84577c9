"""Every tool counts the same true positives, missed instances, false positives and localisation errors."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

import maskprism
from helpers import in_process
from maskprism.analysis.atlas.mask_quality import judged
from maskprism.analysis.atlas.points import Points
from maskprism.analysis.dataset.diagnosis import diagnose
from maskprism.analysis.truth.labels import DatasetLabels, open_labels
from maskprism.core.prediction import Prediction
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import draw_scene
from maskprism.models import Model
from maskprism.models.families.rows import Thresholds
from maskprism.server import Gallery
from maskprism.server.records import Query
from maskprism.tables.extraction import extract
from maskprism.viewer.payload import viewer_scene


class Counts(NamedTuple):
    """What a tool reports."""

    found: int
    missed: int
    false_positives: int
    localisation: int


def by_diagnosis(data: Path, images: Path, model: Model) -> Counts:
    every = model.with_thresholds(Thresholds(conf=0.001, classes=model.keep.classes, multi_label=True))
    dataset = open_dataset(data, images=images if data.suffix == ".json" else None)
    found = diagnose(dataset, every, conf=model.keep.conf)
    return Counts(len(found.budget), found.missed, found.false_positives, found.shown["localisation"])


def by_server(images: Path, model: Model, labels: DatasetLabels) -> Counts:
    async def scan() -> dict[str, Any]:
        gallery = Gallery(images, model, labels=labels.match)
        for image in gallery.images:
            await gallery.examined(image)
        answer = gallery.page(Query())
        await gallery.stop()
        return answer

    answer = asyncio.run(scan())
    names = ("found", "missed", "false_positives", "localisation_errors")
    return Counts(*(answer[name] for name in names))


def predictions_of(images: Path, model: Model) -> dict[str, Prediction]:
    return {path.name: model.predict(path) for path in sorted(images.iterdir())}


def by_viewer(images: Path, predictions: dict[str, Prediction], labels: DatasetLabels) -> Counts:
    """The payload of page, widget and server."""
    outcomes, missed = Counter[str](), 0
    for name, prediction in predictions.items():
        path = images / name
        found = labels.match(prediction, path)
        assert found
        header, _ = viewer_scene(path, prediction, bits=8, truth=found[0], matches=found[1])
        missed += len(header["missed"])
        for instance in header["instances"]:
            assert (instance["truth"] is not None) == (instance["outcome"] == "true positive")
            outcomes.update([instance["outcome"], f"error {instance['error']}"])
    return Counts(outcomes["true positive"], missed, outcomes["false positive"], outcomes["error localisation"])


def by_table(
    images: Path, model: Model, predictions: dict[str, Prediction], labels: DatasetLabels, folder: Path
) -> int:
    """How many points of a table are judged: the true positives."""
    table = extract(images, model, folder / "table.parquet").table
    points = judged(Points.read(table), predictions, labels, images)
    assert not points.failures
    return int(np.isfinite(points.points.numbers["iou"]).sum())


def described(folder: Path, names: dict[int, str]) -> Path:
    """Scenes whose labels lack instances, name wrong classes, and hold crowds, boxes without masks and torn masks."""
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    kinds = ["right", "gone", "class", "crowd", "box", "corner", "half", "right"]
    for seed in range(5):
        scene = draw_scene(seed)
        height, width = scene.owners.shape
        cv2.imwrite(str(folder / "images" / f"{seed}.png"), scene.image)
        images.append({"id": seed, "file_name": f"{seed}.png", "height": height, "width": width})
        for place, (class_id, mask) in enumerate(zip(scene.classes.tolist(), scene.masks, strict=True)):
            kind = kinds[(place + 3 * seed) % len(kinds)]
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            x, y, w, h = int(columns[0]), int(rows[0]), int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1
            shown = mask.copy()
            if kind == "corner":  # the same box, and hardly any mask
                shown[y + 2 : y + h, x + 2 : x + w] = False
                shown[y + h - 1, x + w - 1] = shown[y, x] = True
            elif kind == "half":
                shown[:, x + w // 3 :] = False
            if kind == "gone" or not shown.any():
                continue
            flat = np.concatenate([[False], shown.T.reshape(-1), [False]])
            edges = np.flatnonzero(flat[1:] != flat[:-1])
            counts = np.diff(np.concatenate([[0], edges, [shown.size]])).tolist()
            one = {"id": len(annotations) + 1, "image_id": seed, "iscrowd": int(kind == "crowd"), "bbox": [x, y, w, h]}
            one["category_id"] = 1 + (class_id + (kind == "class")) % len(names)
            if kind != "box":
                one["segmentation"] = {"size": [height, width], "counts": counts}
            annotations.append(one)
    categories = [{"id": 1 + class_id, "name": name} for class_id, name in names.items()]
    path = folder / "labels.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path


@pytest.mark.parametrize("classes", [None, (0, 2, 3)])
def test_all_tools_count_the_same(tmp_path: Path, classes: tuple[int, ...] | None) -> None:
    model = maskprism.load("sample", threads=1, classes=classes)
    data, images = described(tmp_path, dict(model.spec.names)), tmp_path / "images"
    labels = open_labels(data, images, model.spec.names, kept=model.keep.classes)
    counts = by_diagnosis(data, images, model)
    assert min(counts[:3]) > 0
    assert by_server(images, model, labels) == counts
    predictions = predictions_of(images, model)
    assert by_viewer(images, predictions, labels) == counts
    assert by_table(images, model, predictions, labels, tmp_path) == counts.found
    chosen = [] if classes is None else ["--classes", *map(str, classes)]
    line = ["page", images, "--data", data, "--out", tmp_path / "page.html", "--model", "sample", "--json", *chosen]
    said = json.loads(in_process.command(*line).stdout)["labels"]
    assert said == {name: getattr(counts, name) for name in ("found", "missed", "false_positives")}


def test_classes_that_are_not_labelled_count_nowhere(tmp_path: Path) -> None:
    """A data set that labels two of the model's classes: other detections are no false positives."""
    model = maskprism.load("sample", threads=1)
    data, images = described(tmp_path, dict(model.spec.names)), tmp_path / "images"
    whole = json.loads(data.read_text())
    whole["categories"] = whole["categories"][:2]
    whole["annotations"] = [one for one in whole["annotations"] if one["category_id"] <= 2]
    data.write_text(json.dumps(whole))
    labels = open_labels(data, images, model.spec.names)
    counts = by_diagnosis(data, images, model)
    predictions = predictions_of(images, model)
    assert by_server(images, model, labels) == by_viewer(images, predictions, labels) == counts
    assert counts.false_positives < sum(map(len, predictions.values())) - counts.found


def test_all_tools_count_the_same_on_real_images(tmp_path: Path, real_data: Path) -> None:
    source = real_data / "datasets" / "coco128-seg"
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    (found,) = (path for path in source.rglob("images") if path.is_dir())
    for path in sorted(found.rglob("*.jpg"))[::10][:6]:
        (tmp_path / "images" / path.name).write_bytes(path.read_bytes())
        label = next(iter(source.rglob(f"{path.stem}.txt")), None)
        if label:
            (tmp_path / "labels" / label.name).write_bytes(label.read_bytes())
    model = maskprism.load(real_data / "models" / "yolov8n-seg.onnx", threads=1)
    data = tmp_path / "data.yaml"
    data.write_text(json.dumps({"path": str(tmp_path), "val": "images", "names": dict(model.spec.names)}))
    images = tmp_path / "images"
    labels = open_labels(data, images, model.spec.names)
    counts = by_diagnosis(data, images, model)
    assert counts.found + counts.missed > 50
    predictions = predictions_of(images, model)
    assert by_server(images, model, labels) == by_viewer(images, predictions, labels) == counts
    assert by_table(images, model, predictions, labels, tmp_path) == counts.found
