"""maskprism labels, as a user starts it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from helpers import small_datasets
from helpers.in_process import command, says
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import write_dataset

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
COLUMNS = {"image", "label_id", "class_id", "kind", "suspicion", "reason", "suggestion"}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three training and three validation images, one of them damaged, one without labels."""
    data = write_dataset(tmp_path_factory.mktemp("labels"), 6, seed=900, validation_share=0.5)
    images = sorted((data.parent / "images" / "val").iterdir())
    images[0].write_bytes(b"no image")
    (data.parent / "labels" / "val" / f"{images[1].stem}.txt").unlink()
    return data


def test_it_writes_a_row_for_each_label(scenes: Path, tmp_path: Path) -> None:
    done = command("labels", scenes, "--model", "sample", "--out", tmp_path / "out", "--json")
    assert done.returncode in (0, 3), done.stderr
    answer = json.loads(done.stdout)
    table = pq.read_table(tmp_path / "out" / "labels.parquet")
    assert set(table.column_names) >= COLUMNS | {"x1", "y1", "x2", "y2", "mask_iou", "span_iou"}
    rows = table.to_pylist()
    images = sorted((scenes.parent / "images" / "val").iterdir())
    label_file = scenes.parent / "labels" / "val" / f"{images[2].stem}.txt"
    ids = [row["label_id"] for row in rows if row["label_id"] is not None]
    assert sorted(ids) == list(range(len(label_file.read_text().splitlines())))
    assert all(0 <= row["suspicion"] <= 1 for row in rows)
    assert [row["suspicion"] for row in rows] == sorted((row["suspicion"] for row in rows), reverse=True)
    assert {row["image"] for row in rows if row["label_id"] is None} >= {f"images/val/{images[1].name}"}
    assert all(row["kind"] == "missing label" for row in rows if row["label_id"] is None)
    assert answer["images"] == 2
    assert answer["labels"] == len(ids)
    assert answer["score"] == "1 - mask IoU"
    assert answer["trained_on"] is None
    assert answer["in_other_splits"] == {"train": 0}
    assert [failure["image"] for failure in answer["failures"]] == [f"images/val/{images[0].name}"]


def test_few_images_are_said_to_be_too_few(scenes: Path, tmp_path: Path) -> None:
    done = command("labels", scenes, "--model", "sample", "--split", "train", "--limit", 1, "--out", tmp_path / "out")
    says(done, "not calibrated", "here are 1", "whether the model remembers these labels", "too few images", code=0)


def test_models_of_folds_judge_what_they_hold_out(scenes: Path, tmp_path: Path) -> None:
    described = yaml.safe_load(scenes.read_text())
    images = sorted((scenes.parent / "images" / "train").iterdir())
    folds = []
    for name, held_out in (("a", images[:1]), ("b", images[2:])):
        (tmp_path / f"{name}.txt").write_text("".join(f"{image}\n" for image in held_out))
        folds.append(tmp_path / f"{name}.yaml")
        folds[-1].write_text(yaml.safe_dump({**described, "val": str(tmp_path / f"{name}.txt")}))
    arguments = ["labels", scenes, "--split", "train", "--out", tmp_path / "out", "--overwrite"]
    done = command(*arguments, "--folds", *(f"sample={fold}" for fold in folds))
    says(done, "1 of 3 images are held out by no fold", "judged by 2 models", code=0)
    judged = {row["image"] for row in pq.read_table(tmp_path / "out" / "labels.parquet").to_pylist()}
    assert judged == {f"images/train/{images[place].name}" for place in (0, 2)}
    says(command(*arguments, "--folds", f"sample={folds[0]}", f"sample={folds[0]}"), "folds must not share images")
    says(command(*arguments, "--folds", "sample"), "expected MODEL=DATA")
    says(command(*arguments, "--model", "sample", "--folds", f"sample={folds[0]}"), "take each other's place")


def test_a_table_takes_the_place_of_the_model(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "scenes", 3, seed=40, validation_share=1)
    table, images = tmp_path / "t.parquet", data.parent / "images" / "val"
    line = ["extract", images, "--model", "sample", "--conf", 0.05, "--out", table]
    assert command(*line, "--prototypes", "fp16").returncode == 0
    rows = {}
    for option, value in (("--model", "sample"), ("--table", table)):
        done = command("labels", data, option, value, "--out", tmp_path / option)
        assert done.returncode == 0, done.stderr
        found = pq.read_table(tmp_path / option / "labels.parquet").to_pylist()
        rows[option] = {(row["image"], row["label_id"], row["instance"]): row for row in found}
    live, stored = rows.values()
    assert live.keys() == stored.keys()
    for key, row in live.items():
        assert row["kind"] == stored[key]["kind"]
        assert row["suspicion"] == pytest.approx(stored[key]["suspicion"], abs=0.01)
        if row["label_id"] is not None:  # a detection has no features
            assert row["span_iou"] == pytest.approx(stored[key]["span_iou"], abs=0.02)
            assert row["prototype_contrast"] == pytest.approx(stored[key]["prototype_contrast"], abs=0.02)
    refused = ["labels", data, "--table", table, "--out", tmp_path / "refused", "--overwrite"]
    says(command(*refused, "--conf", 0.1), "give options of the model to `extract`", code=1)
    says(command(*refused, "--model", "sample"), "take each other's place", code=1)
    first = sorted(images.iterdir())[0]
    cv2.imwrite(str(first), np.zeros((200, 320, 3), np.uint8))
    says(command(*refused), "had 320 x 320 pixels when the table was extracted, and has 320 x 200 now", code=0)
    others = write_dataset(tmp_path / "others", 1, seed=90, validation_share=1)
    says(command("labels", others, *refused[2:]), "expected a table of the same images", code=1)
    command(*line, "--prototypes", "summary", "--overwrite")
    says(command(*refused), "extract it with prototypes stored as fp16", code=1)


def test_all_splits_are_judged_and_corrected_together(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "scenes", 4, seed=60, validation_share=0.5)
    out, record = tmp_path / "out", tmp_path / "decisions.json"
    done = command("labels", data, "--model", "sample", "--split", "all", "--out", out, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["in_other_splits"] == {"val and train": 0}
    rows = pq.read_table(out / "labels.parquet").to_pylist()
    assert {row["split"] for row in rows} == {"train", "val"}
    assert all(row["image"].startswith(f"images/{row['split']}/") for row in rows)
    labels = [row for row in rows if row["label_id"] is not None]
    decisions = []
    for split in ("train", "val"):
        row = next(row for row in labels if row["split"] == split)
        box = [row[edge] for edge in ("x1", "y1", "x2", "y2")]
        decisions.append({"image": row["image"], "label_id": row["label_id"], "box": box, "action": "delete"})
    head = {"format": 1, "command": "labels", "maskprism": "0", "data": "data.yaml", "split": "all"}
    record.write_text(json.dumps(head | {"decisions": decisions}))
    done = command("labels", data, "--apply", record, "--write", tmp_path / "new")
    says(done, code=0)
    for split in ("train", "val"):
        before, after = (
            sum(len(sample.read()[1]) for sample in open_dataset(file, split))
            for file in (data, tmp_path / "new" / "data.yaml")
        )
        assert after == before - 1


@pytest.mark.parametrize("layout", ["yolo", "coco"])
def test_a_label_that_cannot_be_read_is_listed_and_can_be_deleted(layout: str, tmp_path: Path) -> None:
    if layout == "yolo":
        text = f"{small_datasets.TRIANGLE}\n0 0.1 0.1 0.2\n7 0.1 0.1 0.9 0.1 0.1 0.9\n0 0 0 x 1 1 1"
        data, ids = small_datasets.data_set(tmp_path / "d", {"a": text}, names=["disc"]), [0, 1, 2, 3]
    else:
        polygon = [[5, 5, 40, 5, 5, 30]]
        rows = [
            {"segmentation": polygon},
            {"segmentation": [[1, 1, 9, 9]]},
            {"segmentation": polygon, "category_id": 99},
        ]
        rows = [{"category_id": 7} | row for row in [*rows, {"segmentation": [[None] * 6]}]]
        data, ids = small_datasets.coco(tmp_path / "d", rows, where="a.json"), [0, 1, 2, 3]
        described = json.loads(data.read_text())
        described["categories"][0]["name"] = "disc"
        data.write_text(json.dumps(described))
    done = command("labels", data, "--model", "sample", "--out", tmp_path / "out")
    says(done, "3 labels cannot be read", code=0)
    rows = [
        row for row in pq.read_table(tmp_path / "out" / "labels.parquet").to_pylist() if row["label_id"] is not None
    ]
    assert sorted(row["label_id"] for row in rows) == ids
    broken = [row for row in rows if row["kind"] == "unreadable"]
    assert [row["suspicion"] for row in broken] == [1, 1, 1]
    assert {row["label_id"] for row in broken} == {1, 2, 3}
    assert any("99" in row["reason"] or "class 7" in row["reason"] for row in broken)
    decisions = [
        {"image": row["image"], "label_id": row["label_id"], "box": [0, 0, 60, 40], "action": "delete"}
        for row in broken
    ]
    head = {"format": 1, "command": "labels", "maskprism": "0", "data": data.name, "split": None}
    (tmp_path / "decisions.json").write_text(json.dumps(head | {"decisions": decisions}))
    says(command("labels", data, "--apply", tmp_path / "decisions.json", "--write", tmp_path / "new"), code=0)
    assert sum(len(sample.read()[1]) for sample in open_dataset(tmp_path / "new" / data.name)) == 1


def test_one_class_has_no_wrong_class(tmp_path: Path) -> None:
    data = small_datasets.data_set(tmp_path, {"a": small_datasets.TRIANGLE}, names=["disc"])
    out = tmp_path / "out"
    done = command("labels", data, "--model", "sample", "--out", out)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(out / "labels.parquet").column("label_id").to_pylist() == [0]


@pytest.mark.parametrize("text", ["", "0 0.5 0.5 0.2 0.2"])
def test_data_without_masks_is_refused(text: str, tmp_path: Path) -> None:
    data = small_datasets.data_set(tmp_path, {"a": text}, names=["disc"])
    done = command("labels", data, "--model", "sample", "--out", tmp_path / "out")
    says(done, "no label with a mask", code=1)


@pytest.mark.parametrize("name", ["labels", "diagnose"])
def test_data_of_crowds_alone_is_refused_before_the_model_is_opened(name: str, tmp_path: Path) -> None:
    square = {"segmentation": [[1, 1, 9, 1, 9, 9, 1, 9]], "bbox": [1, 1, 8, 8], "category_id": 3, "iscrowd": 1}
    data = small_datasets.coco(tmp_path, [square, square])
    done = command(name, data, "--model", tmp_path / "none.onnx", "--out", tmp_path / "out")
    says(done, "no mask counts: 2 of 2 masks in instances_val.json are crowds", "--crowds as-instances", code=1)


def test_a_split_that_is_the_training_split_is_noticed(tmp_path: Path) -> None:
    labels = dict.fromkeys("ab", small_datasets.TRIANGLE)
    data = small_datasets.data_set(tmp_path, labels, names=["disc"], train="images/val")
    for split in ("val", "train"):
        done = command("labels", data, "--model", "sample", "--split", split, "--limit", 1, "--out", tmp_path / split)
        says(done, f"2 of 2 images of {split} are in {'train' if split == 'val' else 'val'}, too", code=0)
    says(done, "there is no other split to compare with", code=0)


@pytest.mark.usefixtures("undrawn")
def test_diagnose_names_the_command_to_run_next(scenes: Path, tmp_path: Path) -> None:
    done = command("diagnose", scenes, "--model", "sample", "--split", "train", "--limit", 1, "--out", tmp_path / "out")
    (line,) = [line for line in done.stdout.splitlines() if "maskprism labels" in line]
    arguments = shlex.split(line)[1:]
    assert arguments[:2] == ["labels", str(scenes)]
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ids = pq.read_table(tmp_path / "out-labels" / "labels.parquet").column("image").to_pylist()
    assert all(name.startswith("images/train/") for name in ids)
