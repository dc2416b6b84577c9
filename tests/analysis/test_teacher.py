"""A model in the place of labels: what it teaches, what that repairs, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
from onnxruntime.quantization import quantize_static

from helpers.tiny_models import Tiny, ultralytics_metadata
from helpers.tuned import tune, with_little_effort
from maskprism import load
from maskprism.analysis.comparison import compare
from maskprism.analysis.tuning import pseudo_labels
from maskprism.analysis.tuning.fitting import Effort
from maskprism.cli.options import DetectionOptions
from maskprism.cli.tune import tune as tune_command
from maskprism.datasets.augmentation import Augmentation
from maskprism.datasets.scenes import draw_scene, write_dataset
from maskprism.errors import ImageError, InputError, MaskprismError
from maskprism.models import SAMPLE_MODEL
from maskprism.models.correction import Correction
from maskprism.models.rewrite import write_corrected
from maskprism.models.runtimes import FunctionRuntime


@pytest.fixture(autouse=True)
def _little_effort(monkeypatch: pytest.MonkeyPatch) -> None:
    with_little_effort(monkeypatch)


HELD_OUT = [draw_scene(seed).image for seed in range(5)]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, nothing beside them."""
    folder = tmp_path_factory.mktemp("scenes")
    for number in range(20):
        cv2.imwrite(str(folder / f"{number:02}.png"), draw_scene(500 + number).image)
    return folder


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model with coefficients mixed by a known map."""
    rng = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("models") / "damaged.onnx"
    write_corrected(load("sample"), SAMPLE_MODEL, file, Correction(rng.normal(0, 0.05, (1, 32, 32)), np.zeros((1, 32))))
    return file


@pytest.mark.parametrize("shape", [(150, 230), (320, 320), (700, 330)])
def test_a_lesson_is_what_the_teacher_says_of_the_same_pixels(shape: tuple[int, int], tmp_path: Path) -> None:
    image = cv2.resize(draw_scene(3).image, shape[::-1])
    cv2.imwrite(str(tmp_path / "scene.png"), image)
    model = load("sample")
    (labelled,) = pseudo_labels(model, model, tmp_path)
    canvas, truth = labelled.read()
    alone, seen = model.predict(image), model.predict(canvas)
    assert len(truth) == len(alone) > 0
    for name in ("coefficients", "scores", "classes", "canvas_boxes", "prototypes"):
        np.testing.assert_array_equal(getattr(seen, name), getattr(alone, name), err_msg=name)
    np.testing.assert_array_equal(truth.classes, alone.classes)
    np.testing.assert_array_equal(truth.masks("canvas", seen.letterbox), alone.masks("canvas"))
    np.testing.assert_array_equal(truth.areas, alone.areas("canvas"))
    how = Augmentation.drawn(np.random.default_rng(0), canvas.shape[:2])
    other, found = labelled.augmented(canvas, truth, how)
    np.testing.assert_array_equal(other, how.image(canvas))
    np.testing.assert_array_equal(found.masks(), model.predict(other).masks("canvas"))


def test_instances_without_a_pixel_teach_nothing(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "scene.png"), HELD_OUT[0])
    model = load("sample")
    nothing = Correction(-np.eye(32)[None], np.zeros((1, 32)))  # all logits are 0
    (labelled,) = pseudo_labels(model.with_correction(nothing), model, tmp_path)
    _, truth = labelled.read()
    assert len(model.predict(HELD_OUT[0])) > 0
    assert len(truth) == 0


def test_both_see_one_canvas(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), np.full((100, 200, 3), 255, dtype=np.uint8))
    fixed, free = (
        load(Tiny(dynamic=dynamic, metadata=ultralytics_metadata()).save(tmp_path / f"{dynamic}.onnx"), imgsz=side)
        for dynamic, side in ((False, 64), (True, 128))
    )
    assert free.spec.rectangular
    for teacher, model, canvas_hw in ((free, fixed, (64, 64)), (free, free, (64, 128))):
        (labelled,) = pseudo_labels(teacher, model, tmp_path)
        canvas, truth = labelled.read()
        assert canvas.shape[:2] == truth.image_hw == canvas_hw
        assert model.predict(canvas).letterbox.canvas_hw == canvas_hw
    with pytest.raises(InputError, match=r"sees 64 x 64 .* sees 128 x 128"):
        pseudo_labels(fixed, free, tmp_path)


def test_a_teacher_that_fails_is_told_of(scenes: Path) -> None:
    model = load("sample")
    runtime = model.runtime
    works = True

    def spoilt(batch: np.ndarray) -> list[np.ndarray]:
        if not works:
            raise RuntimeError("out of\nmemory")
        outputs = runtime(batch)
        outputs[model.layout.prototypes_output] = outputs[model.layout.prototypes_output] * np.nan
        return outputs

    spec = replace(model.spec, name="spoilt")
    teacher = replace(model, runtime=FunctionRuntime(spoilt, runtime.input, runtime.metadata), spec=spec)
    with pytest.raises(
        InputError, match=r"not one of 20 images .*the teacher spoilt failed .prototypes 0, .* hold NaN"
    ):
        tune(pseudo_labels(teacher, model, scenes), model, folds=3)
    works = False
    with pytest.raises(InputError, match=r"not one of 20 images .*the teacher spoilt failed \(out of memory\)"):
        tune(pseudo_labels(teacher, model, scenes), model, folds=3)


@pytest.mark.study
def test_a_known_map_is_undone(damaged: Path, scenes: Path) -> None:
    model = load(damaged)
    effort = Effort(ridges=(0.3, 0.03), views=1, steps=100)
    found = tune(pseudo_labels(load("sample"), model, scenes), model, folds=3, per_level=False, effort=effort)
    assert found.teacher is not None
    assert found.helps
    before = compare(load("sample"), model, HELD_OUT).mean_iou
    after = compare(load("sample"), model.with_correction(found.correction), HELD_OUT).mean_iou
    assert before < 0.95
    assert after > 0.99


@pytest.mark.study
@pytest.mark.usefixtures("undrawn")
def test_a_quantised_file_is_repaired_by_the_command(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    int8, out = tmp_path / "int8.onnx", tmp_path / "tuned.onnx"
    batches = ({"images": cv2.dnn.blobFromImage(draw_scene(seed).image, 1 / 255, swapRB=True)} for seed in (1000,))
    quantize_static(SAMPLE_MODEL, int8, SimpleNamespace(get_next=lambda: next(batches, None)))
    assert tune_command(int8, teacher=SAMPLE_MODEL, images=scenes, out=out, folds=3, limit=8, force=True) == 0
    said = capsys.readouterr().out
    assert "int8.onnx against the teacher" in said
    assert "Give more." in said
    assert "with the masks of the teacher" in said
    assert "the tuned model, the correction appended" in said
    old, new = load(int8), load(out)
    for image in HELD_OUT[:3]:
        a, b = old.predict(image), new.predict(image)
        for name in ("canvas_boxes", "scores", "classes", "prototypes"):
            np.testing.assert_array_equal(getattr(b, name), getattr(a, name), err_msg=name)
    before, after = (compare(load("sample"), one, HELD_OUT).mean_iou for one in (old, new))
    assert after > before
    numbers = json.loads((tmp_path / "tuned.tune.json").read_text())
    assert numbers["teacher"]["sha256"] == load("sample").spec.sha256
    assert numbers["data"]["path"] == str(scenes.resolve())
    page = (tmp_path / "tuned.tune.html").read_text()
    assert "There are no labels: what" in page


def test_names_that_one_file_has_lost(damaged: Path, scenes: Path) -> None:
    model = load("sample")
    nameless = model.with_names({class_id: f"class{class_id}" for class_id in model.spec.names})
    for teacher, student in ((nameless, model), (model, nameless)):
        pseudo_labelled = pseudo_labels(teacher, student, scenes).for_model(student.spec.names)
        assert (pseudo_labelled.names, pseudo_labelled.notices) == (model.spec.names, ())
    few = {class_id: name for class_id, name in model.spec.names.items() if class_id}
    other = model.with_names({**few, 0: "something else"})
    (labelled, *_) = pseudo_labels(other, model, scenes).for_model(model.spec.names)
    _, truth = labelled.read()
    assert set(truth.classes.tolist()) & {len(model.spec.names)}
    assert 0 not in truth.classes


def test_mistakes_of_the_user(damaged: Path, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "tuned.onnx"

    def refused(text: str, model: Path = damaged, error: type[MaskprismError] = InputError, **options: Any) -> None:
        with pytest.raises(error, match=text):
            tune_command(model, out=out, **{"teacher": SAMPLE_MODEL, "images": scenes, "folds": 3} | options)

    data = write_dataset(tmp_path / "labelled", 1, validation_share=1)
    refused("say what the masks should be: --data .* or --teacher and --images .*; one of the two", data=data)
    refused("say what the masks should be", teacher=None)
    refused("--teacher needs --images: a folder, pattern or .txt list", images=None)
    refused("--split val is about --data; leave it out", split="val")
    refused("there is no such model file", error=MaskprismError, teacher=tmp_path / "none.onnx")
    refused("there is no such", error=ImageError, images=tmp_path / "none")
    (tmp_path / "clip.mp4").write_bytes(b"x")
    refused("is a video; give its frames as image files", images=tmp_path / "clip.mp4")

    def tiny(names: dict[int, str], side: int) -> Path:
        metadata = ultralytics_metadata(names, canvas_hw=(side, side))
        return Tiny(classes=len(names), canvas_hw=(side, side), metadata=metadata).save(tmp_path / "tiny.onnx")

    names = dict(load("sample").spec.names)
    refused("sees 64 x 64 .* sees 320 x 320 .*; both must see the same", teacher=tiny(names, 64))
    refused("have no class in common; the teacher must be", teacher=tiny({0: "cat", 1: "dog", 2: "fish"}, 320))
    few = str(scenes / "0[0-2].png")
    refused(r"0 of 3 images have an instance that found", images=few, teacher=tiny(names, 320))
    refused(r"finds no masks of classes that the model knows", images=few, detections=DetectionOptions(conf=0.9999))
    assert not out.exists()
