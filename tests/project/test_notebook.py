"""The notebook runs from top to bottom, and its figure is the one in visualizations/."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import cv2
import nbclient
import nbformat
import numpy as np
import pytest

from maskprism.datasets.scenes import write_dataset

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / "notebooks" / "analyze_coefficient_mask.ipynb"
QUICK_START = ROOT / "notebooks" / "quick_start.ipynb"


def execute(
    monkeypatch: pytest.MonkeyPatch, out: Path, path: Path = NOTEBOOK, **environment: str
) -> nbformat.NotebookNode:
    for name in ("MASKPRISM_MODEL", "MASKPRISM_IMAGE", "MASKPRISM_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"MASKPRISM_OUT": str(out), **environment}.items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(path.parent)}}
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute(
        env=dict(os.environ)
    )
    return notebook


def printed(notebook: nbformat.NotebookNode) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.docs
def test_notebook_explains_a_scene_with_the_bundled_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    notebook = execute(monkeypatch, tmp_path)
    assert "(32, 80, 80) (32,)" in printed(notebook)
    assert "pixels that differ from the model's mask: 0 of" in printed(notebook)
    assert "32 prototypes: IoU with the full mask 1.000" in printed(notebook)
    assert pictures(notebook) == 7
    made, kept = (cv2.imread(str(folder / "output.png")) for folder in (tmp_path, ROOT / "visualizations"))
    assert made.shape == kept.shape
    assert np.abs(made.astype(int) - kept.astype(int)).mean() < 1.0


@pytest.mark.docs
def test_notebook_explains_a_real_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, real_data: Path) -> None:
    notebook = execute(
        monkeypatch,
        tmp_path,
        MASKPRISM_MODEL=str((real_data / "models" / "yolov8n-seg.onnx").resolve()),
        MASKPRISM_IMAGE=str((real_data / "images" / "bus.jpg").resolve()),
    )
    assert "(32, 160, 160) (32,)" in printed(notebook)
    assert "pixels that differ from the model's mask: 0 of" in printed(notebook)


@pytest.mark.docs
def test_quick_start_writes_what_it_promises(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    data = write_dataset(tmp_path / "own", 8, validation_share=1)  # a third of what the notebook draws
    notebook = execute(monkeypatch, tmp_path, QUICK_START, MASKPRISM_DATA=str(data))
    for name in ("report/report.html", "labels/labels.html", "tuned.tune.html", "masks/annotations.json"):
        assert (tmp_path / name).is_file(), printed(notebook)
    assert pictures(notebook) == 1


@pytest.mark.parametrize("path", [NOTEBOOK, QUICK_START], ids=lambda path: path.stem)
def test_notebook_is_committed_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
