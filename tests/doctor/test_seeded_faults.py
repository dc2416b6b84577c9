"""Twelve faults, one at a time: what `compare` and `diagnose` name first is the fault that was made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import maskprism
from doctor import faults
from helpers.in_process import command as run
from maskprism import Model
from maskprism.analysis.dataset.findings import findings_of
from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.models.options import SAMPLE_MODEL

FAULTS = {
    "crop_too_tight": ("boxes", "0.88 times as wide and 0.88 times as high"),
    "letterbox_off_by_one": ("input", "the image is shifted (by pixels: 1 down, 1 right)"),
    "one_int8_tensor": ("int8", "both are in one int8 tensor"),
    "prototypes_in_the_wrong_order": ("prototypes", "read with their axes in the wrong order"),
    "bgr": ("input", "red and blue are exchanged"),
    "objectness_missing": ("scores", "without the objectness"),
    "sigmoid_twice": ("scores", "after a second sigmoid"),
    "wrong_rule": ("rule", "no-crop in B"),
    "half_grid": ("grid", "B's prototypes have a coarser grid"),
    "one_conv_in_int4": ("weights", "is rounded to 4 bits in B"),
}
"""Of a model: the cause that `compare` names first, and a part of its sentence."""
LABEL_FAULTS = {
    "shifted_labels": ("shift", "to the right and"),
    "merged_labels": ("merged", "Labels hold several objects"),
}
"""Of a data set: the first finding of `diagnose`."""
REAL = ("yolov8n-seg.onnx", "yolov5n-seg.onnx")


def first_cause(path: Path, fault: str, images: Sequence[Any], folder: Path) -> tuple[str, str]:
    if fault == "one_conv_in_int4":
        model = maskprism.load(path, threads=1)
        name = faults.one_conv_in_int4(path, folder / "int4.onnx")
        cause = maskprism.compare(model, maskprism.load(folder / "int4.onnx", threads=1), images).causes[0]
        assert name in cause.sentence
        return cause.name, cause.sentence
    model = maskprism.load(path, threads=1)
    model = faults.with_objectness(model) if fault == "objectness_missing" else model
    cause = maskprism.compare(model, getattr(faults, fault)(model), images).causes[0]
    return cause.name, cause.sentence


def first_finding(model: Model, data: Path, fault: str, folder: Path, limit: int | None = None) -> tuple[str, str]:
    """The first behind the one that always stands first: what masks and what detection cost."""
    described = faults.rewritten(data, folder / "spoilt", getattr(faults, fault))
    found = findings_of(maskprism.diagnose(maskprism.open_dataset(described), model, limit=limit))
    assert found[0].rule == "limit"
    return found[1].rule, found[1].says


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_sample_model_is_named_first(fault: str, tmp_path: Path) -> None:
    images = [draw_scene(seed).image for seed in range(3)]
    name, sentence = first_cause(SAMPLE_MODEL, fault, images, tmp_path)
    assert name == FAULTS[fault][0], sentence
    assert FAULTS[fault][1] in sentence


def test_equal_models_have_no_cause() -> None:
    model = maskprism.load("sample", threads=1)
    images = [draw_scene(seed).image for seed in range(2)]
    assert maskprism.compare(model, faults.changed(model), images).causes == []


def test_the_command_prints_the_cause_first(tmp_path: Path) -> None:
    faults.one_conv_in_int4(SAMPLE_MODEL, tmp_path / "int4.onnx")
    write_dataset(tmp_path / "scenes", 2)
    result = run("compare", "sample", tmp_path / "int4.onnx", "--images", tmp_path / "scenes" / "images")
    assert result.stdout.splitlines()[1].startswith("Most likely cause: Of "), result.stdout + result.stderr


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("scenes"), 24, seed=3, validation_share=1)


@pytest.mark.study
@pytest.mark.parametrize("fault", LABEL_FAULTS)
def test_a_fault_of_labels_is_the_first_finding(scenes: Path, fault: str, tmp_path: Path) -> None:
    model = maskprism.load("sample", conf=0.001, multi_label=True, threads=1)
    rule, says = first_finding(model, scenes, fault, tmp_path)
    assert rule == LABEL_FAULTS[fault][0], says
    assert LABEL_FAULTS[fault][1] in says


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", REAL)
def test_a_fault_of_a_real_model_is_named_first(real_data: Path, name: str, fault: str, tmp_path: Path) -> None:
    images = sorted((real_data / "datasets" / "coco128-seg" / "images").rglob("*.jpg"))[:4]
    found, sentence = first_cause(real_data / "models" / name, fault, images, tmp_path)
    assert found == FAULTS[fault][0], sentence
    assert FAULTS[fault][1] in sentence


@pytest.mark.parametrize("fault", LABEL_FAULTS)
def test_a_fault_of_real_labels_is_the_first_finding(real_data: Path, fault: str, tmp_path: Path) -> None:
    model = maskprism.load(real_data / "models" / REAL[0], conf=0.001, multi_label=True, threads=1)
    data = real_data / "datasets" / "coco128-seg" / "coco128-seg.yaml"
    rule, says = first_finding(model, data, fault, tmp_path, limit=60)
    assert rule == LABEL_FAULTS[fault][0], says
