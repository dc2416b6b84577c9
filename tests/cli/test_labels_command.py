"""maskprism labels, as a user starts it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from helpers import small_datasets
from helpers.in_process import command, says
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
    says(
        command(*arguments, "--model", "sample", "--folds", f"sample={folds[0]}"), "--folds takes the place of --model"
    )


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


def test_diagnose_names_the_command_to_run_next(scenes: Path, tmp_path: Path) -> None:
    done = command("diagnose", scenes, "--model", "sample", "--split", "train", "--limit", 1, "--out", tmp_path / "out")
    (line,) = [line for line in done.stdout.splitlines() if "maskprism labels" in line]
    arguments = shlex.split(line.partition(": maskprism ")[2])
    assert arguments[:2] == ["labels", str(scenes)]
    done = command(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ids = pq.read_table(tmp_path / "labels" / "labels.parquet").column("image").to_pylist()
    assert all(name.startswith("images/train/") for name in ids)
