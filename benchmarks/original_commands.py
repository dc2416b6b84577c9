"""`python src/extract_features.py` on eleven images, with all figures, from start to end.

    python benchmarks/original_commands.py [--model M.onnx] [--images FOLDER]

Baseline in the same run: the work of the original script beside the model, one matplotlib figure of 32 subplots per
image. Model and images come from MASKPRISM_REAL_DATA (default ../shared) by default.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cyclopts import run
from prototype_grid import ms, subplots
from rich.console import Console
from rich.table import Table

import maskprism

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT / (os.environ.get("MASKPRISM_REAL_DATA") or "../shared")
IMAGES = 11


def main(
    *,
    model: Path = REAL / "models" / "yolov8n-seg.onnx",
    images: Path = REAL / "datasets" / "coco128-seg" / "images",
) -> None:
    paths = sorted(images.rglob("*.jpg"))[:IMAGES]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "data").mkdir()
        for path in paths:
            shutil.copy(path, folder / "data")
        start = time.perf_counter()
        command = [sys.executable, str(ROOT / "src" / "extract_features.py"), "--model", str(model.resolve())]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        ours = time.perf_counter() - start
        figures = len(list((folder / "visualizations").glob("*.png")))
    network = maskprism.load(model)
    start = time.perf_counter()
    predictions = [network.predict(path) for path in paths]
    inference = time.perf_counter() - start
    original = sum(ms(subplots, prediction[0], png=True) for prediction in predictions if len(prediction)) / 1e3
    table = Table(title=f"extract_features.py on {len(paths)} images, {figures} figures")
    for column in ("", "seconds"):
        table.add_column(column, justify="right")
    table.add_row("ours, whole command with start-up", f"{ours:.2f}")
    table.add_row("of that, the model alone", f"{inference:.2f}")
    table.add_row("ours beside the model", f"{ours - inference:.2f}")
    table.add_row("figures as the original drew them, beside the model", f"{original:.2f}")
    table.add_row("times faster beside the model", f"{original / (ours - inference):.1f}")
    Console().print(table)


if __name__ == "__main__":
    run(main)
