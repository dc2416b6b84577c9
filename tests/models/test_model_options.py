"""Options of `load` and of one call, classes by name, what a model says of itself."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import get_args

import cv2
import numpy as np
import pytest

import maskprism
from helpers import in_process
from helpers.tiny_models import Tiny, ultralytics_metadata
from maskprism.cli.options import DetectionOptions, ReadingOptions
from maskprism.datasets.scenes import draw_scene
from maskprism.errors import InputError
from maskprism.io.class_names import class_ids
from maskprism.models import Detections, Model, Reading
from maskprism.models.families import FamilyName, known_families

NAMES = {0: "cat", 1: "dog", 2: "person", 3: "dog"}


@pytest.fixture(scope="module")
def model() -> Model:
    return maskprism.load("sample", threads=1)


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return draw_scene(3).image


def test_options_are_given_in_objects_or_by_their_names(scene: np.ndarray) -> None:
    short = maskprism.load("sample", threads=1, rule="retina", conf=0.6, classes=[0, 1])
    long = maskprism.load(
        "sample", reading=Reading(threads=1, rule="retina"), detections=Detections(conf=0.6, classes=[0, 1])
    )
    assert (short.spec, short.keep) == (long.spec, long.keep)
    assert maskprism.load("sample", detections=Detections(conf=0.6), iou=0.3).keep == long.keep.__class__(0.6, 0.3)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"img_size": 320}, r"there is no option img_size=; did you mean imgsz=\?"),
        ({"half": True}, r"there is no option half=; expected agnostic, classes, conf, correction, device, imgsz"),
        ({"layout": "yolo9"}, "there is no layout 'yolo9'; expected one of yolov5, yolov8"),
        ({"threads": 0}, "threads is 0; expected a whole number of at least 1"),
        ({"classes": "disc"}, r"classes is 'disc'; expected a list of class ids or names, such as \[0, \"person\"\]"),
        ({"classes": [0.5]}, r"classes is \[0.5\]; expected a list"),
    ],
)
def test_options_that_are_none(option: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        maskprism.load("sample", **option)


def test_thresholds_of_one_call(model: Model, scene: np.ndarray) -> None:
    whole = model.predict(scene)
    limit = float(np.median(whole.scores))
    few = model.predict(scene, conf=limit)
    assert 0 < len(few) < len(whole)
    np.testing.assert_array_equal(few.scores, maskprism.load("sample", threads=1, conf=limit).predict(scene).scores)
    class_id = int(whole.classes[0])
    for given in (class_id, model.spec.names[class_id]):
        assert set(model.predict(scene, classes=[given]).classes.tolist()) == {class_id}
    assert len(model.predict(scene, max_det=1)) == 1
    assert len(model.predict(scene)) == len(whole)  # the model is as it was
    with pytest.raises(InputError, match=r"imgsz= is chosen when a model is loaded: maskprism.load\(..., imgsz=...\)"):
        model.predict(scene, imgsz=320)
    with pytest.raises(InputError, match=r"there is no option config=; did you mean conf=\?"):
        model.predict(scene, config=0.3)
    with pytest.raises(InputError, match="conf is 3; expected 0 to 1"):
        model.predict(scene, conf=3)


def test_a_called_model_gives_a_list_as_ultralytics_does(model: Model, scene: np.ndarray) -> None:
    alone = model.predict(scene, conf=0.5)
    for given in (scene, [scene]):
        (prediction,) = model(given, conf=0.5)
        np.testing.assert_array_equal(prediction.coefficients, alone.coefficients)
    assert [len(one) for one in model([scene, scene], conf=0.5)] == [len(alone)] * 2


def test_a_model_never_changes(model: Model) -> None:
    with pytest.raises(FrozenInstanceError):
        model.keep = None  # type: ignore[misc, assignment]
    changed = model.with_names({0: "a"})
    assert (changed.spec.names, changed.runtime) == ({0: "a"}, model.runtime)
    assert len(model.spec.names) > 1


def test_classes_are_ids_or_names() -> None:
    assert class_ids(["person", 0], NAMES) == (2, 0)
    assert class_ids(["dog"], NAMES) == (1, 3)  # both that are called so
    assert class_ids([np.int64(7)], {}) == (7,)
    assert class_ids([], NAMES) == ()
    for given, message in {
        "Person": "there is no class 'Person' among the 4 of the model; did you mean 'person'?",
        "persn": "there is no class 'persn' among the 4 of the model; did you mean 'person'?",
        "zebra": "there is no class 'zebra' among the 4 of the model; expected one of cat, dog, person, dog",
    }.items():
        with pytest.raises(InputError) as told:
            class_ids([given], NAMES)
        assert str(told.value) == message
    with pytest.raises(InputError, match="class 'cat': the model does not tell its classes; name them with names="):
        class_ids(["cat"], {})
    with pytest.raises(InputError, match=r"classes \[4\] are not in the model; it has 4 classes \(0..3\)"):
        class_ids([4], NAMES)


def test_the_command_line_takes_names_of_classes(tmp_path: Path) -> None:
    path = Tiny(classes=2, metadata=ultralytics_metadata(names={0: "cat", 1: "dog"})).save(tmp_path / "tiny.onnx")
    image = tmp_path / "white.png"
    cv2.imwrite(str(image), np.full((64, 64, 3), 255, dtype=np.uint8))

    def extracted(*classes: str) -> set[int]:
        out = tmp_path / f"{'-'.join(classes)}.csv"
        line = ("extract", image, "--model", path, "--out", out, "--classes", *classes)
        result = in_process.command(*line)
        assert result.returncode == 0, result.stderr
        return set(maskprism.CoefficientTable.read(out).arrow["class_id"].to_pylist())

    assert (extracted("dog"), extracted("1"), extracted("cat", "1")) == ({1}, {1}, {0, 1})
    result = in_process.command("extract", image, "--model", path, "--out", tmp_path / "t.csv", "--classes", "dig")
    assert result.returncode == 1
    assert "there is no class 'dig' among the 2 of the model; did you mean 'dog'?" in result.stderr


def test_the_command_line_has_the_options_of_the_library() -> None:
    for own, library in ((ReadingOptions, Reading), (DetectionOptions, Detections)):
        assert [(one.name, one.default) for one in fields(own)] == [(one.name, one.default) for one in fields(library)]


def test_what_a_model_says_of_itself(model: Model) -> None:
    text = repr(model)
    for part in ("'sample.onnx'", "layout 'yolov8'", "32 prototypes", "classes (", "rule 'ultralytics'", "conf 0.25"):
        assert part in text
    assert len(text) < 400
    assert repr(model.spec).startswith("ModelSpec('sample.onnx', layout 'yolov8', onnxruntime")
    assert "classes [0]" in repr(maskprism.load("sample", threads=1, classes=[0]))


def test_every_family_is_in_the_registry_under_its_name() -> None:
    families = known_families()
    assert tuple(families) == get_args(FamilyName)
    assert all(family.name == name for name, family in families.items())
