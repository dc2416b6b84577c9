"""Decisions written into a copy of a data set: what was decided is there, everything else is as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.judged import rle
from maskprism.datasets import Dataset, GroundTruth, open_dataset
from maskprism.datasets.bitmap_outlines import border_rings, pixel_rings
from maskprism.datasets.decisions import LabelDecisions, read_decisions
from maskprism.datasets.ground_truth import _DRAW
from maskprism.datasets.scenes import NAMES, draw_scene, write_dataset
from maskprism.errors import InputError
from maskprism.integrations.corrected_labels import RECORD, write_corrected

BRIDGED_IOU = 0.9
"""A mask of several parts is one polygon in a label file; the lines between its parts cover other pixels."""


def blobs(seed: int, size: tuple[int, int] = (40, 60)) -> np.ndarray:
    """A mask of parts and holes of any shape."""
    rng = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(rng.normal(size=size).astype(np.float32), (0, 0), rng.uniform(0.6, 4))
    return np.asarray(noise > rng.uniform(-0.5, 1) * noise.std())


def drawn(rule: Any, rings: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    for ring in rings:
        patch = _DRAW[rule](ring.astype(np.float64), *size)
        mask[patch.rows, patch.columns] |= patch.values
    return mask


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_outlines_are_filled_to_the_mask_by_the_rule_of_their_format(seed: int) -> None:
    mask = blobs(seed)
    size = (mask.shape[0], mask.shape[1])
    filled = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0
    for shape in (mask, filled):
        borders, pixels = np.zeros(size, dtype=bool), np.zeros(size, dtype=bool)
        for outline, *holes in border_rings(shape):
            borders |= drawn("coco", [outline], size) & ~drawn("coco", holes, size)
        for outline, *holes in pixel_rings(shape):
            inside = [hole for hole in holes if len(hole)]
            edges = np.zeros(size, np.uint8)
            cv2.polylines(edges, [hole.astype(np.int32) for hole in inside], True, 1)
            pixels |= drawn("ultralytics", [outline], size) & ~(drawn("ultralytics", inside, size) & (edges == 0))
        assert (borders == shape).all()
        assert (pixels == shape).all()


def coco_of_scenes(folder: Path, *, polygons: bool) -> Path:
    """Scenes as a COCO json with ids of their own, RLE or polygons, and keys that we do not know."""
    described: dict[str, Any] = {
        "info": {"year": 2024, "note": "ü"},
        "images": [],
        "categories": [{"id": 10 * class_id + 3, "name": name} for class_id, name in NAMES.items()],
        "annotations": [],
    }
    for number in range(3):
        scene = draw_scene(number, (128, 128))
        name = f"sub/{number}.png"
        (folder / "images" / "sub").mkdir(parents=True, exist_ok=True)
        (folder / "images" / name).write_bytes(cv2.imencode(".png", scene.image)[1].tobytes())
        described["images"].append({"id": number + 50, "file_name": name, "height": 128, "width": 128})
        for class_id, mask in zip(scene.classes.tolist(), scene.masks, strict=True):
            outlines = [part[0].reshape(-1).tolist() for part in border_rings(mask)]
            described["annotations"].append(
                {
                    "id": len(described["annotations"]) * 7 + 5,
                    "image_id": number + 50,
                    "category_id": 10 * class_id + 3,
                    "segmentation": outlines if polygons else rle(mask),
                    "iscrowd": 0,
                    "area": 1.0,
                    "score": 0.1 + 0.2,
                }
            )
    (folder / "instances.json").write_text(json.dumps(described, ensure_ascii=False))
    return folder / "instances.json"


def truths(dataset: Dataset) -> dict[str, GroundTruth]:
    return {Path(sample.name).name: sample.read()[1] for sample in dataset}


def decision(sample: Any, number: int | None, action: str, **more: Any) -> dict[str, Any]:
    truth = sample.read()[1]
    box = [1, 2, 3, 4] if number is None else [round(float(side), 2) for side in truth.boxes[number]]
    label_id = None if number is None else truth.label_ids[number]
    return {"image": sample.name, "label_id": label_id, "box": box, "action": action, **more}


def decisions_file(path: Path, decisions: list[dict[str, Any]], split: str | None = None, **head: Any) -> Path:
    given = {"format": 1, "command": "labels", "maskprism": "0", "data": "d", "split": split, "decisions": decisions}
    path.write_text(json.dumps(given | head))
    return path


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("form", ["polygons", "rle", "yolo"])
def test_what_was_decided_is_there_and_all_else_is_as_it_was(tmp_path: Path, form: str) -> None:
    source = tmp_path / "source"
    if form == "yolo":
        data, split = write_dataset(source, 4, seed=3, validation_share=0.5), "val"
    else:
        data, split = coco_of_scenes(source, polygons=form == "polygons"), None
    dataset = open_dataset(data, split)
    first, second = list(dataset)[:2]
    before = truths(dataset)
    content = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    name, other = Path(first.name).name, Path(second.name).name
    masks = before[name].masks()
    height, width = masks.shape[1:]
    moved = np.roll(masks[0], 3, axis=1)
    one_part = np.zeros((height, width), dtype=bool)
    one_part[7:30, 20:50] = True
    one_part[12:20, 30:40] = False
    category = 7 if form == "yolo" else 73
    file = decisions_file(
        tmp_path / "decisions.json",
        [
            decision(first, 0, "replace", mask=rle(moved), kind="shifted"),
            decision(first, 1, "delete"),
            decision(first, 2, "reclassify", category=category),
            decision(second, None, "add", category=category, mask=rle(one_part)),
            decision(second, 0, "keep"),
        ],
        split,
    )
    corrected = write_corrected(dataset, read_decisions(file), tmp_path / "new")
    assert corrected.counts == {"replace": 1, "delete": 1, "reclassify": 1, "add": 1, "keep": 1}
    assert content == {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    assert msgspec.json.decode((tmp_path / "new" / RECORD).read_bytes(), type=LabelDecisions) == read_decisions(file)

    after = truths(open_dataset(corrected.description, split))
    assert after.keys() == before.keys()
    assert len(after[name]) == len(before[name]) - 1
    assert len(after[other]) == len(before[other]) + 1
    new = after[name].masks()
    assert iou(new[0], moved) >= (BRIDGED_IOU if form == "yolo" else 1.0)
    assert (new[1:] == masks[2:]).all()
    assert after[name].classes.tolist() == [before[name].classes[0], 7, *before[name].classes[3:].tolist()]
    assert (after[other].masks()[-1] == one_part).all()  # one part with a hole is exact in all formats
    assert after[other].classes.tolist() == [*before[other].classes.tolist(), 7]
    assert (after[other].masks()[:-1] == before[other].masks()).all()
    for rest in before.keys() - {name, other}:
        assert (after[rest].masks() == before[rest].masks()).all()
    if form == "yolo":
        train = open_dataset(corrected.description, "train")
        assert [len(truth) for truth in truths(train).values()] == [
            len(truth) for truth in truths(open_dataset(data, "train")).values()
        ]
        links = list((tmp_path / "new" / "images").rglob("*.png"))
        assert len(links) == 4
        assert all(link.is_symlink() for link in links)
    else:
        old, written = json.loads(data.read_text()), json.loads(corrected.description.read_text())
        assert {key: value for key, value in old.items() if key != "annotations"} == {
            key: value for key, value in written.items() if key != "annotations"
        }
        rows = {row["id"]: row for row in written["annotations"]}
        changed = {before[name].label_ids[number] for number in range(3)}
        assert all(rows[row["id"]] == row for row in old["annotations"] if row["id"] not in changed)
        replaced = rows[before[name].label_ids[0]]
        assert isinstance(replaced["segmentation"], list) == (form == "polygons")
        assert replaced["area"] == moved.sum()


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1)])
def test_masks_of_one_or_two_pixels_stay_masks_in_label_files(tmp_path: Path, size: tuple[int, int]) -> None:
    dataset = open_dataset(write_dataset(tmp_path / "source", 1, validation_share=1))
    sample = next(iter(dataset))
    mask = np.zeros(sample.read()[1].image_hw, dtype=bool)
    mask[5 : 5 + size[0], 9 : 9 + size[1]] = True
    file = decisions_file(tmp_path / "d.json", [decision(sample, 0, "replace", mask=rle(mask))], "val")
    corrected = write_corrected(dataset, read_decisions(file), tmp_path / "new")
    truth = next(iter(open_dataset(corrected.description, "val"))).read()[1]
    assert (truth.masks()[0] == mask).all()


def test_a_repeated_row_of_a_label_file_can_be_deleted(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "source", 1, validation_share=1)
    (labels,) = (tmp_path / "source" / "labels").rglob("*.txt")
    lines = labels.read_text().splitlines()
    labels.write_text("\n".join([*lines, lines[1]]) + "\n")
    dataset = open_dataset(data)
    sample = next(iter(dataset))
    repeated = decision(sample, 1, "delete") | {"label_id": len(lines)}
    file = decisions_file(tmp_path / "d.json", [repeated], "val")
    write_corrected(dataset, read_decisions(file), tmp_path / "new")
    (corrected,) = (tmp_path / "new" / "labels").rglob("*.txt")
    assert corrected.read_text().splitlines() == lines


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label_id": 99}, "is there 0 times"),
        ({"box": [0, 0, 1, 1]}, "lies elsewhere than the label that was decided on"),
        ({"image": "../../etc/passwd"}, "has no image"),
        ({"action": "reclassify", "category": 99}, "has no category 99"),
        ({"action": "replace", "mask": {"size": [1, 1], "counts": [0, 1]}}, "its mask is 1 x 1 pixels"),
        ({"action": "replace", "mask": {"size": [320, 320], "counts": [10**12]}}, "its RLE adds up to"),
        ({"action": "replace", "mask": {"size": [320, 320], "counts": [320 * 320]}}, "its mask is empty"),
        (
            {"action": "replace", "mask": {"size": [320, 320], "counts": "\u00ff\u0001"}},
            "its compressed RLE is damaged",
        ),
    ],
)
def test_decisions_that_do_not_fit_are_refused_and_nothing_is_written(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    dataset = open_dataset(write_dataset(tmp_path / "source", 1, validation_share=1))
    given = decision(next(iter(dataset)), 0, "delete") | change
    file = decisions_file(tmp_path / "d.json", [given], "val")
    with pytest.raises(InputError, match=message):
        write_corrected(dataset, read_decisions(file), tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        '{"format": 1}',
        "[" * 100_000,
        '{"format": 2, "command": "labels", "maskprism": "", "data": "", "split": null, "decisions": []}',
        '{"format": 1, "command": "labels", "maskprism": "", "data": "", "split": null, "decisions": [{}]}',
    ],
)
def test_files_that_are_no_decisions_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(InputError, match="expected decisions exported by the page"):
        read_decisions(tmp_path / "d.json")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"action": "burn"}], "invalid enum value 'burn'"),
        ([{"action": "replace"}], "has no mask, which the action 'replace' needs"),
        ([{"action": "add"}], "has no category"),
        ([{"action": "delete", "label_id": None}], "has no label_id"),
        ([{}, {}], "decides again on label 0"),
        ([{"box": [0, 0, 1, None]}], "expected float, got null"),
        ([{"image": "a" * 5000}], "expected str of length <= 4096"),
        ([{"extra": 1}], "unknown field"),
    ],
)
def test_decisions_that_lack_something_are_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    plain = {"image": "a.png", "label_id": 0, "box": [0, 0, 1, 1], "action": "delete"}
    file = decisions_file(tmp_path / "d.json", [plain | row for row in rows])
    with pytest.raises(InputError, match=message):
        read_decisions(file)


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "d.json").open("wb") as file:
        file.truncate(65 << 20)
    with pytest.raises(InputError, match=r"has 65\.0 MB; expected at most 64 MB"):
        read_decisions(tmp_path / "d.json")
