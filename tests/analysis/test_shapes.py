"""Shapes of masks, labels of several objects, and checkpoints side by side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import maskprism
from helpers.in_process import command as run
from helpers.in_process import says
from helpers.small_datasets import scenes_of_few_objects
from maskprism.analysis.dataset.checkpoints import Checkpoint, Checkpoints, epoch_of, names_of
from maskprism.analysis.truth.merged_labels import held_detections
from maskprism.analysis.truth.overlaps import Overlaps, Region
from maskprism.analysis.truth.shapes import pieces_of, shape_of
from maskprism.core.geometry import Letterbox
from maskprism.errors import InputError
from maskprism.models.options import SAMPLE_MODEL

BOX = Letterbox.fit((60, 96), (96, 96))


def mask(*parts: tuple[int, int, int, int]) -> Region:
    """Rectangles (top, left, bottom, right) on a canvas of 96 x 96."""
    drawn = np.zeros((96, 96), dtype=bool)
    for top, left, bottom, right in parts:
        drawn[top:bottom, left:right] = True
    return Region.of(drawn)


@pytest.mark.parametrize(("length", "width", "expected"), [(12, 12, 1), (40, 8, 5), (60, 4, 15), (8, 40, 5)])
def test_a_bar_is_as_thin_as_its_sides_say(length: int, width: int, expected: float) -> None:
    assert shape_of(mask((30, 10, 30 + width, 10 + length)), BOX).thinness == pytest.approx(expected, rel=0.15)


def test_a_disc_is_not_thin() -> None:
    y, x = np.mgrid[:96, :96]
    assert shape_of(Region.of((y - 48) ** 2 + (x - 48) ** 2 < 15**2), BOX).thinness == pytest.approx(
        np.pi / 4, rel=0.15
    )


def test_pieces_are_parts_that_do_not_touch() -> None:
    two = mask((30, 10, 40, 20), (30, 30, 40, 40))
    assert pieces_of(two) == shape_of(two, BOX).pieces == 2
    assert pieces_of(mask((30, 10, 40, 20), (40, 20, 50, 30))) == 1  # they touch at a corner
    assert pieces_of(mask((20, 10, 60, 50), (30, 70, 31, 71))) == 1  # a speck
    nothing = Region.of(np.zeros((4, 4), dtype=bool))
    assert shape_of(nothing, BOX) == (0, False, 0.0)


def test_the_border_is_that_of_the_image_and_not_of_the_padding() -> None:
    top = BOX.offset_yx[0]
    assert top > 0
    assert shape_of(mask((top, 40, top + 10, 50)), BOX).touches_border
    assert not shape_of(mask((top + 1, 40, top + 10, 50)), BOX).touches_border
    assert shape_of(mask((40, 0, 50, 10)), BOX).touches_border
    assert shape_of(mask((top + 50, 40, top + 60, 50)), BOX).touches_border
    assert not shape_of(mask((top + 50, 40, top + 59, 50)), BOX).touches_border


def overlaps(detections: list[Region], labels: list[Region], scores: list[float]) -> Overlaps:
    iou = np.array([[one.iou_with(other) for other in labels] for one in detections])
    classes = np.zeros(len(detections), dtype=np.int64), np.zeros(len(labels), dtype=np.int64)
    areas = (np.array([float(one.area) for one in group]) for group in (detections, labels))
    return Overlaps(np.array(scores), *classes, iou, *areas)


def test_a_label_of_two_objects_is_held_by_two_detections() -> None:
    left, right = mask((30, 10, 50, 30)), mask((30, 32, 50, 52))
    both, other = mask((30, 10, 50, 30), (30, 32, 50, 52)), mask((60, 60, 80, 80))
    image = overlaps([left, right, other], [both, other], [0.9, 0.8, 0.9])
    assert held_detections(image, 0.25).tolist() == [[True, False], [True, False], [False, False]]
    assert not held_detections(image, 0.85).any()  # one of them is not shown
    covered = overlaps([both, mask((30, 10, 50, 30))], [both], [0.9, 0.9])
    assert not held_detections(covered, 0.25).any()  # a duplicate of a part
    labelled = overlaps([left, right], [left, right], [0.9, 0.8])
    assert not held_detections(labelled, 0.25).any()
    assert not held_detections(replace(image, true_classes=np.array([1, 0])), 0.25).any()


# --- checkpoints


def test_names_tell_checkpoints_apart() -> None:
    assert names_of([Path("a/epoch1.pt"), Path("a/epoch2.pt")]) == ["epoch1", "epoch2"]
    assert names_of([Path("x/weights/best.pt"), Path("y/weights/best.pt")]) == ["x-weights-best", "y-weights-best"]
    with pytest.raises(InputError, match="given twice"):
        names_of([Path("a.pt"), Path("a.pt")])


@pytest.mark.parametrize(
    ("name", "epoch"),
    [("epoch10", 10), ("run-epoch_007", 7), ("ep3", 3), ("best", None), ("yolov8n-seg", None), ("step3", None)],
)
def test_epochs_stand_in_names(name: str, epoch: int | None) -> None:
    assert epoch_of(name) == epoch


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes_of_few_objects(tmp_path_factory.mktemp("scenes"))


@pytest.mark.study
def test_a_worse_checkpoint_is_behind_for_sure_and_an_equal_one_is_not(scenes: Path) -> None:
    model = maskprism.load("sample", conf=0.001, multi_label=True, threads=1)
    dataset = maskprism.open_dataset(scenes)
    good = maskprism.diagnose(dataset, model)
    poor = maskprism.diagnose(dataset, maskprism.load("sample", conf=0.001, rule="no-crop", threads=1))
    rows = [Checkpoint("epoch20", 20, good), Checkpoint("epoch5", 5, poor), Checkpoint("epoch9", 9, good)]
    found = Checkpoints(rows)
    assert [row.epoch for row in found.rows] == [5, 9, 20]
    assert found.rows[found.best].diagnosis is good
    behind = found.ahead[0]
    assert behind.mean == pytest.approx(good.precision["predict"].ap - poor.precision["predict"].ap, abs=1e-6)
    text = " ".join(found.sentences())
    assert f"It is ahead of epoch5 by {behind.plain()}." in text
    assert "These images cannot tell it from epoch" in text
    assert not Checkpoints([row._replace(epoch=None) for row in rows]).with_epochs
    with pytest.raises(InputError, match="two checkpoints"):
        Checkpoints(rows[:1])


@pytest.mark.usefixtures("undrawn")
def test_the_command_compares_checkpoints(scenes: Path, tmp_path: Path) -> None:
    for name in ("epoch10.onnx", "epoch2.onnx"):
        (tmp_path / name).write_bytes(SAMPLE_MODEL.read_bytes())
    models = ("--model", tmp_path / "epoch10.onnx", tmp_path / "epoch2.onnx")
    few = ("--limit", 2, "--worst", 0)
    result = run("diagnose", scenes, *models, "--out", tmp_path / "out", *few)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    first = next(place for place, line in enumerate(lines) if line.startswith("checkpoint"))
    assert [line.split()[0] for line in lines[first + 1 : first + 3]] == ["epoch2", "epoch10"]
    for file in ("checkpoints.csv", "checkpoints.png", "epoch10/report.html", "epoch2/summary.json"):
        assert (tmp_path / "out" / file).is_file()
    says(run("diagnose", scenes, *models, "--out", tmp_path / "o", "--tune", *few), "--tune is for one model")
