"""maskprism predict: every format, read again; bad images, resuming, streams."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from helpers import in_process
from maskprism import Prediction, load
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import write_dataset
from maskprism.integrations.exports.journal import ImageRecord, Journal

IMAGES = ("one.png", "sub ü/two 2.png", "sub ü/012.png")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three scenes, an image without anything in it, and a file that is not an image."""
    folder = tmp_path_factory.mktemp("scenes")
    write_dataset(folder / "data", 3, validation_share=1)
    drawn = sorted((folder / "data" / "images" / "val").iterdir())
    for source, name in zip(drawn, IMAGES, strict=True):
        (folder / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / "photos" / name)
    cv2.imwrite(str(folder / "photos" / "empty.png"), np.full((64, 80, 3), 127, np.uint8))
    (folder / "photos" / "broken.jpg").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def expected(scenes: Path) -> dict[str, Prediction]:
    model = load("sample")
    return {name: model.predict(scenes / "photos" / name) for name in (*IMAGES, "empty.png")}


def predict(scenes: Path, format: str, out: Path, *more: object, code: int = 0) -> dict[str, Any]:
    done = in_process.command(
        "predict", "photos", "--model", "sample", "--format", format, "--out", out, "--json", *more, cwd=scenes
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if code == 0 else {"error": done.stderr}


def test_results_are_those_of_pycocotools(scenes: Path, expected: dict[str, Prediction], tmp_path: Path) -> None:
    answer = predict(scenes, "coco", tmp_path / "o")
    assert answer["files"] == [str(tmp_path / "o" / name) for name in ("results.json", "predict.manifest.json")]
    assert (answer["images"], [one["image"] for one in answer["failures"]]) == (5, ["broken.jpg"])
    assert answer["instances"] == sum(map(len, expected.values())) == sum(answer["classes"].values())
    assert "category ids are the class ids of the model" in answer["notes"][0]
    results = json.loads((tmp_path / "o" / "results.json").read_text())
    ids = {"one.png": "one", "sub ü/two 2.png": "two 2", "sub ü/012.png": 12, "empty.png": "empty"}
    for name, prediction in expected.items():
        own = [one for one in results if one["image_id"] == ids[name]]
        categories = {class_id: class_id for class_id in prediction.names}
        assert own == prediction.to_coco(ids[name], categories=categories)


def test_ids_are_those_of_a_data_set(scenes: Path, expected: dict[str, Prediction], tmp_path: Path) -> None:
    names = expected["one.png"].names
    used = {int(class_id) for one in expected.values() for class_id in one.classes}
    kept = sorted(used)[:-1]
    described = {
        "images": [
            {"id": 40, "file_name": "elsewhere/one.png", "width": 320, "height": 320},
            {"id": 41, "file_name": "sub ü/two 2.png", "width": 320, "height": 320},
        ],
        "annotations": [],
        "categories": [{"id": 100 - class_id, "name": names[class_id].upper()} for class_id in kept],
    }
    (tmp_path / "instances.json").write_text(json.dumps(described))
    answer = predict(scenes, "coco", tmp_path / "o", "--categories", tmp_path / "instances.json")
    left_out = sum(int(np.sum(one.classes == max(used))) for one in expected.values())
    assert answer["instances"] == sum(map(len, expected.values())) - left_out
    assert f"{left_out} instance" in answer["notes"][0]
    assert "not listed" in answer["notes"][1]
    results = json.loads((tmp_path / "o" / "results.json").read_text())
    assert {one["image_id"] for one in results} <= {40, 41, 12}
    one = [result["category_id"] for result in results if result["image_id"] == 40]
    assert one == [100 - class_id for class_id in expected["one.png"].classes if class_id in kept]


@pytest.mark.parametrize(("segmentation", "bound"), [("rle", 1.0), ("polygons", 0.95)])
def test_annotations_are_a_data_set(
    scenes: Path, expected: dict[str, Prediction], tmp_path: Path, segmentation: str, bound: float
) -> None:
    predict(scenes, "coco-annotations", tmp_path / "o", "--segmentation", segmentation)
    file = tmp_path / "o" / "annotations.json"
    coco = COCO(str(file))
    assert sorted(one["file_name"] for one in coco.dataset["images"]) == sorted(expected)
    assert coco.dataset["info"]["description"]
    assert coco.dataset["licenses"] == []  # Roboflow's uploader fails without either
    assert [one["id"] for one in coco.dataset["annotations"]] == list(range(1, len(coco.dataset["annotations"]) + 1))
    model = load("sample")
    for sample in open_dataset(file, images=scenes / "photos").for_model(model.spec.names):
        _, truth = sample.read()
        prediction = expected[sample.name]
        kept = prediction[prediction.areas() > 0]
        np.testing.assert_array_equal(truth.classes, kept.classes)
        for read, mask in zip(truth.masks(), kept.masks("image"), strict=True):
            assert np.count_nonzero(read & mask) >= bound * np.count_nonzero(read | mask)


def test_labels_are_a_data_set_to_train_with(scenes: Path, expected: dict[str, Prediction], tmp_path: Path) -> None:
    predict(scenes, "yolo", tmp_path / "o", "--copy-images")
    dataset = open_dataset(tmp_path / "o" / "data.yaml")
    assert dict(dataset.names) == dict(expected["one.png"].names)
    assert sorted(sample.name for sample in dataset) == sorted(f"images/{name}" for name in expected)
    for sample in dataset:
        image, truth = sample.read()
        prediction = expected[sample.name.removeprefix("images/")]
        np.testing.assert_array_equal(image, cv2.imread(str(scenes / "photos" / sample.name.removeprefix("images/"))))
        kept = prediction[prediction.areas() > 0]
        np.testing.assert_array_equal(truth.classes, kept.classes)
        for read, mask in zip(truth.masks(), kept.masks("image"), strict=True):
            assert np.count_nonzero(read & mask) >= 0.93 * np.count_nonzero(read | mask)
    assert (tmp_path / "o" / "labels" / "empty.txt").read_text() == ""


def test_labelme_finds_the_image(scenes: Path, expected: dict[str, Prediction], tmp_path: Path) -> None:
    predict(scenes, "labelme", tmp_path / "o")
    for name, prediction in expected.items():
        file = (tmp_path / "o" / name).with_suffix(".json")
        document = json.loads(file.read_text())
        assert (file.parent / document["imagePath"]).resolve() == (scenes / "photos" / name).resolve()
        assert {shape["label"] for shape in document["shapes"]} == {
            one.name for one in prediction if one.polygons("image").outlines
        }


def test_pngs_hold_instances_and_classes(scenes: Path, expected: dict[str, Prediction], tmp_path: Path) -> None:
    predict(scenes, "png", tmp_path / "o")
    for name, prediction in expected.items():
        stem = tmp_path / "o" / name.removesuffix(".png")
        masks = prediction.masks("image")
        alone = sorted(stem.glob("*.png"))
        assert [path.name[4:-4] for path in alone] == [one.name for one in prediction]
        for path, mask in zip(alone, masks, strict=True):
            np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), mask * 255)
        index, classes = np.zeros(prediction.image_size, int), np.zeros(prediction.image_size, int)
        for number in reversed(range(len(prediction))):  # scores fall, so the most confident one is drawn last
            index[masks[number]] = number + 1
            classes[masks[number]] = prediction.classes[number] + 1
        for kind, wanted in (("instances", index), ("classes", classes)):
            np.testing.assert_array_equal(cv2.imread(f"{stem}.{kind}.png", cv2.IMREAD_UNCHANGED), wanted)


def test_npz_and_overlay(scenes: Path, expected: dict[str, Prediction], tmp_path: Path) -> None:
    predict(scenes, "npz", tmp_path / "n")
    predict(scenes, "overlay", tmp_path / "o")
    for name, prediction in expected.items():
        stem = name.removesuffix(".png")
        read = Prediction.load(tmp_path / "n" / f"{stem}.npz")
        np.testing.assert_array_equal(read.coefficients, prediction.coefficients)
        np.testing.assert_array_equal(read.plot(), prediction.plot())  # it knows its image
        _, packed = cv2.imencode(".jpg", prediction.plot(), [cv2.IMWRITE_JPEG_QUALITY, 92])
        assert (tmp_path / "o" / f"{stem}.jpg").read_bytes() == packed.tobytes()


@pytest.mark.parametrize("format", ["coco", "coco-annotations", "yolo"])
def test_what_is_done_stays(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    whole = predict(scenes, format, tmp_path / "whole")
    append = Journal.append

    def interrupted(self: Journal, record: ImageRecord) -> None:
        if len(self.done) == 2:
            raise KeyboardInterrupt
        append(self, record)

    monkeypatch.setattr(Journal, "append", interrupted)
    told = predict(scenes, format, tmp_path / "o", code=130)
    assert "the same command goes on where it stopped" in told["error"]
    monkeypatch.setattr(Journal, "append", append)
    with (tmp_path / "o" / "images.jsonl").open("ab") as file:
        file.write(b'{"image":"torn')  # as after a kill
    answer = predict(scenes, format, tmp_path / "o")
    assert (answer["skipped"], answer["images"]) == (2, 3)
    assert (answer["instances"], answer["classes"]) == (whole["instances"], whole["classes"])
    for path in (tmp_path / "whole").rglob("*.*"):
        if path.is_file() and path.name not in ("images.jsonl", "predict.manifest.json"):
            assert (tmp_path / "o" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()
    again = predict(scenes, format, tmp_path / "o")
    assert (again["skipped"], again["images"], again["instances"]) == (4, 1, whole["instances"])


def test_other_settings_and_other_files_are_not_mixed(scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "mine.txt").write_text("")
    assert "is not empty" in predict(scenes, "yolo", tmp_path / "o", code=1)["error"]
    predict(scenes, "yolo", tmp_path / "o", "--overwrite")
    error = predict(scenes, "yolo", tmp_path / "o", "--conf", "0.9", code=1)["error"]
    assert "holds results of other settings (conf; conf was 0.25, and is 0.9)" in error
    predict(scenes, "png", tmp_path / "o", "--overwrite")
    left = {path.name for path in (tmp_path / "o").rglob("*") if path.is_file()}
    assert "mine.txt" in left
    assert not any(name.endswith(".txt") for name in left - {"mine.txt"})
    error = predict(scenes, "png", tmp_path / "p", "--categories", "x.json", code=1)["error"]
    assert "categories is given with the format png; it belongs to coco and coco-annotations" in error


def test_damaged_records_are_told(scenes: Path, tmp_path: Path) -> None:
    predict(scenes, "coco", tmp_path / "o")
    file = tmp_path / "o" / "images.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b'{"image": 7}\n')
    assert f"{file}, line 2" in predict(scenes, "coco", tmp_path / "o", code=1)["error"]
    file.write_bytes(b"[]\n")
    assert "expected the settings" in predict(scenes, "coco", tmp_path / "o", code=1)["error"]
    assert predict(scenes, "coco", tmp_path / "o", "--overwrite")["skipped"] == 0


def test_nothing_usable_is_a_failure(scenes: Path, tmp_path: Path) -> None:
    done = in_process.command(
        "predict", scenes / "photos" / "broken.jpg", "--model", "sample", "--format", "coco", "--out", tmp_path / "o"
    )
    assert done.returncode == 1
    assert "failed: broken.jpg" in done.stdout
