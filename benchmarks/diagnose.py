"""Masks against the ground truth: windows that can count, against whole masks as RLE.

    python benchmarks/diagnose.py [--model yolov8n-seg.onnx --data data.yaml] [--images 16]

The baseline decodes every mask of a prediction at full size, encodes it and the ground-truth masks as RLE, and lets
`faster_coco_eval` compare each with each: the same IoUs, by the usual road. Ours decodes the windows of those masks
alone that can reach an IoU of 0.5 with a ground-truth instance of their class. Both are timed in one run, on detections
as AP takes them (scores above 0.001, many labels); below that, what each part of `maskprism diagnose` takes per image.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from faster_coco_eval.core import mask as rle
from rich.console import Console
from rich.table import Table

import maskprism
from maskprism.analysis.dataset.ap_protocols import AP_PROTOCOLS, overlaps_of_boxes, overlaps_under, true_regions
from maskprism.analysis.dataset.diagnosis import examine
from maskprism.analysis.truth.overlaps import mask_overlaps
from maskprism.datasets import open_dataset
from maskprism.datasets.scenes import write_dataset


def by_run_lengths(prediction: maskprism.Prediction, true: np.ndarray) -> np.ndarray:
    found = prediction.masks("canvas")
    encoded = [
        [rle.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks] for masks in (found, true)
    ]  # fmt: skip
    return np.asarray(rle.iou(*encoded, [0] * len(true))).reshape(len(found), len(true))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=16)
    options = parser.parse_args()
    model = maskprism.load(options.model, conf=0.001, multi_label=True, threads=1)
    seconds: dict[str, list[float]] = defaultdict(list)
    detections = objects = 0

    def timed(name: str, compute: Any) -> Any:
        started = time.perf_counter()
        result = compute()
        seconds[name].append(time.perf_counter() - started)
        return result

    with tempfile.TemporaryDirectory() as folder:
        data = options.data or write_dataset(folder, options.images, seed=0, validation_share=1.0)
        samples = list(open_dataset(data).for_model(model.spec.names))
        places = np.linspace(0, len(samples) - 1, min(options.images, len(samples))).astype(int)
        for sample in (samples[i] for i in places):
            image, truth = timed("reading", sample.read)
            prediction = timed("model and suppression", lambda pixels=image: model.predict(pixels))
            true, masks = (
                true_regions(truth, prediction.letterbox, "canvas"),
                truth.masks("canvas", prediction.letterbox),
            )
            detections, objects = detections + len(prediction), objects + len(truth)
            if len(prediction) and len(truth):
                whole = timed("whole masks, RLE", lambda p=prediction, m=masks: by_run_lengths(p, m))
                quick = timed(
                    "windows that count",
                    lambda p=prediction, t=true, c=truth.classes: mask_overlaps(
                        p, t, c, "canvas", least=0.5, same_class=True
                    ),
                )
                counts = quick.same_class & (whole >= 0.5)
                np.testing.assert_allclose(quick.iou[counts], whole[counts])
            for name in AP_PROTOCOLS:
                timed(f"decode {name}", lambda p=prediction, t=truth, d=name: overlaps_under(p, t, d))
            timed("boxes", lambda p=prediction, t=truth: overlaps_of_boxes(p, t))
            timed("everything after the model", lambda p=prediction, t=truth: examine(p, t, ""))
    report(seconds, detections, objects, len(places))


def report(seconds: dict[str, list[float]], detections: int, objects: int, images: int) -> None:
    console = Console()
    table = Table(
        title=f"{detections / images:.0f} detections and {objects / images:.1f} ground-truth instances per image"
    )
    for heading in ("", "median ms per image", "ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    base = statistics.median(seconds["whole masks, RLE"])
    for name, values in seconds.items():
        median = statistics.median(values)
        ratio = f"{base / median:.1f} x" if name in ("whole masks, RLE", "windows that count") else ""
        table.add_row(name, f"{1e3 * median:.1f}", ratio)
    console.print(table)


if __name__ == "__main__":
    main()
