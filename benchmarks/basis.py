"""The canonical basis and the study of prototypes, image by image, against holding everything at once.

    python benchmarks/basis.py

The baseline stacks the prototypes of all images, takes the singular value decomposition of the stack, and with
it the components of the contributions: the same energies, from all data in memory. Both are timed in one run, on
prototypes of the size of YOLO-seg (32 x 160 x 160) made from drawn scenes with the bundled model. The second table
sets what every image costs beside the model that had to run for it.
"""

from __future__ import annotations

import statistics
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

import maskprism
from maskprism import Prediction
from maskprism.analysis.prototypes.basis import CanonicalBasis, Usage
from maskprism.analysis.prototypes.positional import DependenceStudy
from maskprism.analysis.prototypes.translation import move
from maskprism.datasets.scenes import draw_scene

IMAGES = 16
RUNS = 3
SIDE = 160


def enlarged(prediction: Prediction) -> Prediction:
    """The same prediction with prototypes of 160 x 160."""
    prototypes = np.array([cv2.resize(one, (SIDE, SIDE)) for one in prediction.prototypes])
    return replace(prediction, prototypes=prototypes, letterbox=prediction.letterbox.with_grid((SIDE, SIDE)))


def streamed(predictions: list[Prediction]) -> np.ndarray:
    return CanonicalBasis.of(Usage.of(predictions), "image").energies


def stacked(predictions: list[Prediction]) -> np.ndarray:
    pixels = np.concatenate([one.prototypes.reshape(len(one.prototypes), -1) for one in predictions], axis=1)
    coefficients = np.concatenate([one.weights for one in predictions]).astype(np.float64)
    left, values, _ = np.linalg.svd(pixels.astype(np.float64), full_matrices=False)
    contributions = coefficients @ (left * values) / np.sqrt(pixels.shape[1] * len(coefficients))
    return np.linalg.svd(contributions, compute_uv=False) ** 2


def peak_mb(compute: Callable[[], Any]) -> float:
    tracemalloc.start()
    compute()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / 2**20


def ms(compute: Callable[[], Any]) -> float:
    start = time.perf_counter()
    compute()
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    model = maskprism.load("sample", threads=1)
    images = [draw_scene(seed).image for seed in range(IMAGES)]
    small = [model.predict(image) for image in images]
    predictions = [enlarged(one) for one in small]
    np.testing.assert_allclose(streamed(predictions), stacked(predictions), rtol=1e-3, atol=1e-6)

    table = Table(title=f"canonical basis of {IMAGES} images, 32 x {SIDE} x {SIDE}, median of {RUNS} runs")
    for column in ("", "time, ms", "peak memory, MB"):
        table.add_column(column, justify="right")
    rows = {}
    for name, compute in (("stacked, singular values", stacked), ("streamed (ours)", streamed)):
        rows[name] = (
            statistics.median(ms(lambda compute=compute: compute(predictions)) for _ in range(RUNS)),
            peak_mb(lambda compute=compute: compute(predictions)),
        )
        table.add_row(name, *(f"{value:.0f}" for value in rows[name]))
    (slow_ms, slow_mb), (our_ms, our_mb) = rows.values()
    table.add_row("times less", f"{slow_ms / our_ms:.1f}", f"{slow_mb / our_mb:.1f}")
    Console().print(table)

    usage, study = Usage(32), DependenceStudy(32, model.spec.names)
    image, prediction = images[0], small[0]
    network = statistics.median(ms(lambda: model.predict(image)) for _ in range(5))
    table = Table(title="per image, beside the bundled model")
    for column in ("", "time, ms", "share of the model's time"):
        table.add_column(column, justify="right")
    table.add_row("network", f"{network:.1f}", "1.00")
    for name, compute in (
        ("Usage.update", lambda: usage.update(prediction)),
        ("DependenceStudy.update", lambda: study.update(image, prediction)),
        ("move (3 more model calls)", lambda: move(model, image, prediction)),
    ):
        taken = statistics.median(ms(compute) for _ in range(5))
        table.add_row(name, f"{taken:.1f}", f"{taken / network:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
