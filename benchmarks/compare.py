"""What comparing two models costs beside running them, and what it finds on real weights.

    MASKPRISM_REAL_DATA=folder python benchmarks/compare.py [--limit N]

First the time of `compare` over drawn scenes, as a ratio to running both models alone on the same
scenes in the same run. Then, where the folder holds models/ and datasets/coco128-seg/images/, the
table of the documentation: yolov8n-seg.onnx against other files and runtimes of the same model,
and against another model. Rows whose runtime is not installed are left out, with the reason.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import maskprism
from maskprism.analysis.comparison.paired_run import compare
from maskprism.analysis.comparison.part_swaps import PARTS
from maskprism.analysis.comparison.report import Comparison
from maskprism.datasets.scenes import draw_scene

SCENES = 24
ONNX = "yolov8n-seg.onnx"
# (label, file of A, file of B, how B is loaded)
ROWS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("PyTorch → ONNX", "yolov8n-seg.pt", ONNX, {}),
    ("ONNX → OpenVINO f32", ONNX, ONNX, {"runtime": "openvino"}),
    ("ONNX → OpenVINO bf16", ONNX, ONNX, {"runtime": "openvino", "precision": "bf16"}),
    ("ONNX → LiteRT int8", ONNX, "yolov8n-seg_int8.tflite", {}),
    ("v8n → v5n (another model)", ONNX, "yolov5n-seg.onnx", {}),
)


def seconds(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def cost(console: Console) -> None:
    scenes = [draw_scene(seed).image for seed in range(SCENES)]
    a = maskprism.load("sample", threads=1)
    b = maskprism.load("sample", threads=1, conf=0.3)  # so that something is unmatched
    compare(a, b, scenes[:2])
    alone, whole = [], []
    for _ in range(3):
        alone.append(seconds(lambda: [(a.predict(scene), b.predict(scene)) for scene in scenes]))
        whole.append(seconds(lambda: compare(a, b, scenes)))
    console.print(
        f"{SCENES} scenes: running both models {min(alone):.2f} s (baseline), compare {min(whole):.2f} s, "
        f"{min(whole) / min(alone):.2f} x the baseline",
        highlight=False,
    )


def cells(label: str, found: Comparison) -> list[str]:
    def percent(share: float | None) -> str:
        return "-" if share is None else f"{share * 100:.4f}" if abs(share) < 1e-4 else f"{share * 100:.2f}"

    return [
        label,
        str(found.count("matched")),
        str(found.count("only in A") + found.count("only in B")),
        f"{found.mean_iou:.4f}",
        *(percent(found.shares[part]) for part in PARTS),
        "-" if found.drift is None else " ".join(map(str, found.drift.worst()[:3])),
        "-" if found.own_iou is None else f"{found.own_iou:.4f}",
        percent(found.letterbox_share),
        f"{found.similarity.cka:.4f}",
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--limit", type=int, default=None, help="the first N images only")
    limit = arguments.parse_args().limit
    console = Console(width=150)
    cost(console)
    data = Path(os.environ.get("MASKPRISM_REAL_DATA") or Path(__file__).parents[1] / "../shared")
    images = sorted((data / "datasets" / "coco128-seg" / "images").rglob("*.jpg"))[:limit]
    if not images:
        console.print(f"no images in {data}; name their folder in MASKPRISM_REAL_DATA")
        return
    table = Table(title=f"{len(images)} images; parts and letterbox in percent")
    headings = ("", "matched", "alone", "mask IoU", *PARTS, "worst terms", "IoU, own canvas", "letterbox", "CKA")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    for label, first, second, options in ROWS:
        try:
            models = maskprism.load(data / "models" / first), maskprism.load(data / "models" / second, **options)
            table.add_row(*cells(label, compare(*models, images)))
        except maskprism.MaskprismError as error:
            console.print(f"left out: {label}: {error}", highlight=False, markup=False)
    console.print(table)


if __name__ == "__main__":
    main()
