"""maskprism labels --apply: what it refuses, and that nothing of the original is touched."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from helpers import in_process
from helpers.in_process import says
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import write_dataset

run = partial(in_process.command, "labels")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set, and beside it the decision to delete the first label of its first image."""
    data = write_dataset(tmp_path / "scenes", 2, validation_share=1)
    sample = next(iter(open_dataset(data)))
    box = [round(float(side), 2) for side in sample.read()[1].boxes[0]]
    row = {"image": sample.name, "label_id": 0, "box": box, "action": "delete", "kind": "spurious"}
    head = {"format": 1, "command": "labels", "maskprism": "0", "data": "data.yaml", "split": "val"}
    (tmp_path / "decisions.json").write_text(json.dumps(head | {"decisions": [row]}))
    return data


def test_a_corrected_copy_is_written(data: Path, tmp_path: Path) -> None:
    line = [data, "--apply", tmp_path / "decisions.json", "--write", tmp_path / "new"]
    done = run(*line)
    assert done.returncode == 0, done.stderr
    assert "delete: 1" in done.stdout
    before, after = ([len(one.read()[1]) for one in open_dataset(file)] for file in (data, tmp_path / "new/data.yaml"))
    assert after == [before[0] - 1, before[1]]
    says(run(*line), "exists and is not empty; choose another --write, or give --overwrite")
    assert run(*line, "--overwrite").returncode == 0
    again = tmp_path / "new" / "data.yaml"
    elsewhere = run(again, "--apply", tmp_path / "decisions.json", "--write", tmp_path / "newer")
    says(elsewhere, "label 0: lies elsewhere than the label that was decided on")


@pytest.mark.parametrize("folder", [".", "scenes", "scenes/images"])
def test_the_original_is_not_written_over(data: Path, tmp_path: Path, folder: str) -> None:
    content = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    line = [data, "--apply", tmp_path / "decisions.json", "--write", tmp_path / folder, "--overwrite"]
    says(run(*line), "of the original data set; choose another --write")
    assert content == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}


def test_options_that_belong_together(data: Path, tmp_path: Path) -> None:
    says(run(data, "--apply", tmp_path / "decisions.json"), "--apply and --write belong together")
    says(run(data, "--write", tmp_path / "new"), "--apply and --write belong together")
    says(run(data, "--model", "sample"), "--out is missing")
    says(run(data, "--apply", tmp_path / "none.json", "--write", tmp_path / "new"), "there is no such file")
