"""A tuned checkpoint: the coefficients of every level corrected, and everything else bit for bit as it was."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import maskprism
from maskprism.cli.tune import tune
from maskprism.models.correction import Correction
from maskprism.models.rewrite import write_corrected
from parity.networks import scenes


def some(levels: int) -> Correction:
    rng = np.random.default_rng(levels)
    return Correction(rng.normal(0, 0.05, (levels, 32, 32)), rng.normal(0, 0.05, (levels, 32)))


@pytest.mark.parametrize(
    ("name", "layout", "branch", "levels"),
    [
        ("yolov8n-seg", None, "cv4", 3),
        ("yolo11n-seg", None, "cv4", 1),
        ("yolo26n-seg", "yolov8", "cv4", 3),
        ("yolo26n-seg", "end2end", "one2one_cv4", 1),
    ],
)
def test_a_corrected_checkpoint_predicts_what_the_correction_says(name, layout, branch, levels, checkpoint, tmp_path):
    import torch

    source = shutil.copy(checkpoint(name), tmp_path / "old.pt")
    target = tmp_path / "new.pt"
    model = maskprism.load(source, layout=layout, imgsz=160, conf=0.25)
    correction = some(levels)
    assert write_corrected(model, source, target, correction).coefficients == "folded"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new.pt", "old.pt"]
    opened, found = maskprism.load(target, layout=layout, imgsz=160, conf=0.25), 0
    for scene in scenes():
        expected, got = correction.apply(model.predict(scene)), opened.predict(scene)
        found += len(got)
        for field in ("canvas_boxes", "scores", "classes", "prototypes"):
            np.testing.assert_array_equal(getattr(got, field), getattr(expected, field), err_msg=field)
        off = np.abs(got.coefficients - expected.coefficients).max(initial=0)
        assert off < 5e-3 * np.abs(expected.coefficients).max(initial=0)  # weights are kept in half precision
    assert found > 10
    before, after = (torch.load(file, weights_only=False) for file in (source, target))
    assert before.keys() == after.keys()
    old, new = (one["model"].state_dict() for one in (before, after))
    assert old.keys() == new.keys()
    changed = {key for key in old if not torch.equal(old[key], new[key])}
    assert {old[key].dtype for key in old} == {new[key].dtype for key in new}
    last = len(before["model"].model) - 1
    assert changed == {f"model.{last}.{branch}.{level}.2.{kind}" for level in range(3) for kind in ("weight", "bias")}


def test_a_head_without_such_branches_is_refused(checkpoint, tmp_path):
    import torch

    source = shutil.copy(checkpoint("yolov8n-seg"), tmp_path / "old.pt")
    model = maskprism.load(source, imgsz=160)
    held = torch.load(source, weights_only=False)
    held["model"].model[-1].cv4 = torch.nn.ModuleList()
    torch.save(held, source)
    with pytest.raises(maskprism.MaskprismError, match="branches of its head that make coefficients are not found"):
        write_corrected(model, source, tmp_path / "new.pt", some(3))
    assert not (tmp_path / "new.pt").exists()


def test_the_command_tunes_a_checkpoint(tmp_path, real_data):
    source, out = real_data / "models" / "yolov8n-seg.pt", tmp_path / "tuned.pt"
    data = real_data / "datasets" / "coco128-seg"
    assert tune(source, data=data, out=out, limit=6, folds=3, force=True) == 0
    old, new, corrected = (
        maskprism.load(source),
        maskprism.load(out),
        maskprism.load(source, correction=tmp_path / "tuned.correction.json"),
    )
    image = real_data / "images" / "bus.jpg"
    before, after, expected = (model.predict(image) for model in (old, new, corrected))
    assert len(before) > 3
    for field in ("canvas_boxes", "scores", "classes", "prototypes"):
        np.testing.assert_array_equal(getattr(after, field), getattr(before, field), err_msg=field)
    assert not np.array_equal(after.coefficients, before.coefficients)
    np.testing.assert_allclose(after.coefficients, expected.coefficients, atol=2e-2)  # kept in half precision
