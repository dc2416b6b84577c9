"""How far runtimes, precisions and models disagree with the float ONNX file, instance by instance.

    MASKPRISM_REAL_DATA=folder python benchmarks/runtime_disagreement.py [--limit N]

The folder holds models/ (yolov8n-seg.onnx, .pt and _int8.tflite, yolov5n-seg.onnx) and
datasets/coco128-seg/images/. Rows whose runtime is not installed are left out, with the reason.

Instances are matched one to one by class and box IoU >= 0.5, best first, and masks are compared
at the size of the image, each under its model's own rule. Coefficients are compared where
the model is the same: another model has other prototypes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import maskprism
from maskprism.core.geometry import box_iou

MATCH_IOU = 0.5
REFERENCE = "yolov8n-seg.onnx"


@dataclass(frozen=True)
class Candidate:
    """A model to compare with the reference; `same` where it is the same model."""

    label: str
    file: str
    options: dict[str, Any] = field(default_factory=dict)
    same: bool = True


CANDIDATES = (
    Candidate("PyTorch (rectangle)", "yolov8n-seg.pt"),
    Candidate("OpenVINO f32", "yolov8n-seg.onnx", {"runtime": "openvino", "precision": "f32"}),
    Candidate("OpenVINO bf16", "yolov8n-seg.onnx", {"runtime": "openvino", "precision": "bf16"}),
    Candidate("LiteRT int8", "yolov8n-seg_int8.tflite"),
    Candidate("YOLOv5n ONNX", "yolov5n-seg.onnx", same=False),
)


@dataclass
class Differences:
    """The results over all images."""

    missed: int = 0
    extra: int = 0
    mask_ious: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    coefficients: list[np.ndarray] = field(default_factory=list)

    def add(self, reference: maskprism.Prediction, other: maskprism.Prediction, *, same: bool) -> None:
        """Match the instances of one image and note how the pairs differ."""
        pairs = list(match(reference, other))
        self.missed += len(reference) - len(pairs)
        self.extra += len(other) - len(pairs)
        for i, j in pairs:
            first, second = reference[i], other[j]
            a, b = first.mask("image"), second.mask("image")
            union = np.count_nonzero(a | b)
            self.mask_ious.append(np.count_nonzero(a & b) / union if union else 1.0)
            self.scores.append(abs(first.score - second.score))
            if same:
                self.coefficients.append(np.abs(first.coefficients - second.coefficients))


def match(reference: maskprism.Prediction, other: maskprism.Prediction) -> Iterator[tuple[int, int]]:
    """Pairs of one class and box IoU of at least MATCH_IOU, one to one, best first."""
    iou = np.where(reference.classes[:, None] == other.classes[None], box_iou(reference.boxes, other.boxes), 0)
    while iou.size and iou.max() >= MATCH_IOU:
        i, j = np.unravel_index(np.argmax(iou), iou.shape)
        yield int(i), int(j)
        iou[i], iou[:, j] = 0, 0


def measure(model: maskprism.Model, truth: list[maskprism.Prediction], images: list[Path], same: bool, label: str):
    found = Differences()
    for reference, image in zip(track(truth, label, transient=True), images, strict=True):
        found.add(reference, model.predict(image), same=same)
    return found


def row(label: str, found: Differences) -> list[str]:
    ious = np.array(found.mask_ious or [np.nan])
    differences = np.concatenate(found.coefficients) if found.coefficients else None
    return [
        label,
        str(len(found.mask_ious)),
        str(found.missed),
        str(found.extra),
        f"{ious.mean():.4f}",
        f"{np.median(ious):.4f}",
        f"{ious.min():.4f}",
        "-" if differences is None else f"{differences.mean():.1e}",
        "-" if differences is None else f"{differences.max():.1e}",
        f"{np.mean(found.scores or [np.nan]):.1e}",
        f"{np.max(found.scores or [np.nan]):.1e}",
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--limit", type=int, default=None, help="the first N images only")
    limit = arguments.parse_args().limit
    console = Console()
    data = Path(os.environ.get("MASKPRISM_REAL_DATA") or Path(__file__).parents[1] / "../shared")
    images = sorted((data / "datasets" / "coco128-seg" / "images").rglob("*.jpg"))[:limit]
    if not images or not (data / "models" / REFERENCE).is_file():
        raise SystemExit(f"no {REFERENCE} or no images in {data}; name their folder in MASKPRISM_REAL_DATA")
    model = maskprism.load(data / "models" / REFERENCE)
    truth = [model.predict(image) for image in track(images, REFERENCE, transient=True)]
    table = Table(
        title=f"against {REFERENCE} in {model.spec.runtime}: {len(images)} images, {sum(map(len, truth))} instances"
    )
    for heading in ("model", "matched", "missed", "extra", "mask IoU", "median", "worst"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    for heading in ("|Δcoefficient|", "max", "|Δscore|", "max"):
        table.add_column(heading, justify="right")
    for candidate in CANDIDATES:
        try:
            other = maskprism.load(data / "models" / candidate.file, **candidate.options)
        except maskprism.MaskprismError as error:
            console.print(f"left out: {candidate.label}: {error}", highlight=False, markup=False)
            continue
        table.add_row(*row(candidate.label, measure(other, truth, images, candidate.same, candidate.label)))
    console.print(table)


if __name__ == "__main__":
    main()
