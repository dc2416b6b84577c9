"""Masks from fewer prototypes: the same decoding with K and with K' of them, in one run.

    python benchmarks/reduce.py
    python benchmarks/reduce.py --model yolov8n-seg.onnx --images photos --keep 16

The basis is found on the images, and both ways of decoding are timed on each of them, taking turns. Told are
medians and their ratio: of the weighted sums alone, of masks window by window as `Prediction.patches` gives them, and
of whole masks at canvas size, as most predictors make them. By default the bundled model on drawn scenes.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import maskprism
from maskprism import Prediction
from maskprism.analysis.reduction.trade_off import fit_halves, reductions
from maskprism.datasets.scenes import draw_scene
from maskprism.io.sources import open_source

ROUNDS = 5
SCENES = 24


def whole_masks(prediction: Prediction) -> int:
    """Every mask resized as a whole, then cut: what most predictors do."""
    letterbox = prediction.letterbox
    logits = np.tensordot(prediction.weights, prediction.prototypes, axes=1)
    return sum(int((letterbox.resample(one, "canvas") > 0).sum()) for one in logits)


WORK: dict[str, Callable[[Prediction], object]] = {
    "weighted sums": lambda prediction: prediction.logits("grid"),
    "masks, window by window": lambda prediction: list(prediction.patches("canvas")),
    "whole masks": whole_masks,
}


def ms(work: Callable[[Prediction], object], prediction: Prediction) -> float:
    start = time.perf_counter()
    work(prediction)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--images")
    parser.add_argument("--keep", type=int, default=16)
    options = parser.parse_args()
    model = maskprism.load(options.model)
    if options.images:
        images = [item.read() for item in open_source(options.images).pending(frozenset())]
    else:
        images = [draw_scene(seed).image for seed in range(SCENES)]
    predictions = [prediction for prediction in model.predict(images) if len(prediction)]
    halves = fit_halves(predictions)
    (reduction,) = reductions(halves[0] + halves[1], "projection", [options.keep])
    pairs = [(full, reduction.apply(full)) for full in predictions]
    full_k, instances = model.spec.prototypes, sum(map(len, predictions))
    table = Table(title=f"{model.spec.name}: {instances} instances on {len(pairs)} images, medians per image")
    for heading in ("", f"{full_k} prototypes", f"{options.keep} prototypes", "ratio"):
        table.add_column(heading, justify="left" if not heading else "right")
    for name, work in WORK.items():
        times: tuple[list[float], list[float]] = ([], [])
        for turn in range(ROUNDS):
            for pair in pairs:
                for side in (0, 1) if turn % 2 else (1, 0):
                    times[side].append(ms(work, pair[side]))
        before, after = (statistics.median(one) for one in times)
        table.add_row(name, f"{before:.2f} ms", f"{after:.2f} ms", f"{after / before:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
