"""What users of Ultralytics type is answered with a command that works, with their own arguments."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

import maskprism
from helpers.in_process import command as run
from maskprism.analysis.dataset.edits import Edits
from maskprism.analysis.dataset.findings import Finding
from maskprism.analysis.intervals import Interval
from maskprism.cli import COMMANDS, app
from maskprism.cli.next_commands import commands_after, words_of
from maskprism.cli.options import DetectionOptions, ReadingOptions
from maskprism.datasets.scenes import write_dataset
from maskprism.models.options import SAMPLE_MODEL

TYPED = {
    "val model=best.pt data=coco8.yaml imgsz=960": "diagnose coco8.yaml --model best.pt --out diagnosis --imgsz 960",
    "segment val --model best.pt": "diagnose data.yaml --model best.pt --out diagnosis",
    "export model=runs/best.pt format=onnx": "compare runs/best.pt runs/best.onnx --images photos",
    "train data=d.yaml model=n.pt epochs=10": "tune n.pt --data d.yaml --out n-tuned.pt",
    "segment photos --model best.pt": "predict photos --model best.pt --out masks --format coco",
    "track source=video.mp4 model=best.pt conf=0.4": (
        "predict video.mp4 --model best.pt --out masks --format coco --conf 0.4"
    ),
    "benchmark model=best.onnx": "compare best.onnx best.onnx --runtime-b openvino --images photos",
    "predict model=best.pt source=photos/": "predict photos/ --model best.pt --out masks --format coco",
    "segment predict model=best.pt source=a.jpg classes=[0,2]": (
        "predict a.jpg --model best.pt --out masks --format coco --classes 0 2"
    ),
    "mode=val model=best.pt": "diagnose data.yaml --model best.pt --out diagnosis",
    "diagnose data=data.yaml model=best.pt": "diagnose data.yaml --model best.pt --out diagnosis",
    "tune model=best.onnx data=d.yaml": "tune best.onnx --data d.yaml --out tuned.onnx",
}


@pytest.mark.parametrize("typed", TYPED)
def test_the_right_spelling_is_printed_and_is_one_of_ours(typed: str) -> None:
    result = run(*shlex.split(typed))
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.endswith(f"maskprism {TYPED[typed]}\n"), result.stderr
    assert len(result.stderr.splitlines()) == 1
    command, bound, _ = app.parse_args(TYPED[typed], exit_on_error=False, print_error=False)
    assert command.__name__ == TYPED[typed].split()[0]
    assert bound.arguments


def test_our_own_words_are_left_alone(tmp_path: Path) -> None:
    assert run("predict", "--help").returncode == 0
    result = run("labels", tmp_path / "d.yaml", "--folds", "model=x.yaml", "--out", tmp_path / "o")
    assert "two dashes" not in result.stderr


def test_classes_are_given_by_name(tmp_path: Path) -> None:
    write_dataset(tmp_path / "scenes", 2)
    result = run(
        *("predict", tmp_path / "scenes" / "images", "--model", "sample", "--classes", "disc", "star"),
        *("--out", tmp_path / "masks", "--format", "coco"),
    )
    assert result.returncode == 0, result.stderr


def test_options_become_the_words_that_were_typed() -> None:
    words = words_of(
        {"split": "val", "images": None}, ReadingOptions(imgsz=960), DetectionOptions(classes=["disc", 2], conf=0.4)
    )
    assert words == ["--split", "val", "--imgsz", "960", "--conf", "0.4", "--classes", "disc", "2"]


def test_the_next_commands_have_the_users_own_paths(tmp_path: Path) -> None:
    data = write_dataset(tmp_path / "my scenes", 2, validation_share=1)
    model, out = tmp_path / "best.onnx", tmp_path / "report"
    model.write_bytes(SAMPLE_MODEL.read_bytes())
    loaded = maskprism.load(model, conf=0.001, multi_label=True, threads=1)
    found = maskprism.diagnose(maskprism.open_dataset(data), loaded)
    lines = commands_after(found, [], data, model, out, ReadingOptions(device="cpu"))
    assert [shlex.split(line)[1] for line in lines] == ["labels", "tune", "serve"]
    for line in lines:
        words = shlex.split(line)
        assert words[0] == "maskprism"
        assert words[1] in COMMANDS
        assert str(model) in words
        assert str(data) in words
        app.parse_args(words[1:], exit_on_error=False, print_error=False)
    model.with_suffix(".pt").touch()
    merged = Finding("merged", "", "", "errors", Interval(0.1, 0.05, 0.2))
    assert [shlex.split(line)[1] for line in commands_after(found, [merged], data, model, out)][:2] == [
        "labels",
        "compare",
    ]


def test_advice_is_what_the_model_allows() -> None:
    spec = maskprism.load("sample").spec
    assert spec.fixed_size
    fixed = " ".join(Edits(spec).larger_input())
    assert "re-export with imgsz=480: yolo export model=sample.pt format=onnx imgsz=480" in fixed
    assert "--imgsz" not in fixed
    free = replace(spec, fixed_size=False)
    assert "Try --imgsz 480" in " ".join(Edits(free).larger_input())
    other = replace(spec, layout="query")
    assert "=" not in " ".join(sentence for part in ("box", "coefficients") for sentence in Edits(other).part(part))
