"""The error budget of one instance: all of it, its parts, and how many times faster than the slow twin of the tests.

    python benchmarks/error_budget.py [--model M --data data.yaml] [--images 24]

Without a model and a data set: the bundled model on drawn scenes. One thread, processor time; images are read
and predicted before the clock runs. The slow twin goes pixel by pixel and cell by cell through the same formulas, for
one instance.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
from rich.console import Console
from rich.table import Table

import maskprism
from maskprism.analysis.truth.best_coefficients import PENALTY, best_weights, window_of
from maskprism.analysis.truth.boundary import boundary_agreement, boundary_width
from maskprism.analysis.truth.counterfactual_masks import Counterfactuals, counterfactuals_of
from maskprism.analysis.truth.error_budget import RING, budgets, leak, thresholds
from maskprism.core.prediction import Prediction
from maskprism.datasets import GroundTruth, open_dataset
from maskprism.datasets.scenes import write_dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from helpers import reference
from helpers import reference_budget as twin

RUNS = 3
cv2.setNumThreads(1)


def ms(call: Callable[[], object]) -> float:
    """Processor milliseconds of the fastest of a few calls: what else the machine does is left out."""
    times = []
    for _ in range(RUNS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return 1e3 * min(times)


def read(model_path: Path | None, data: Path | None, count: int) -> list[tuple[Prediction, GroundTruth]]:
    model = maskprism.load(model_path, threads=1)
    with tempfile.TemporaryDirectory() as folder:
        dataset = open_dataset(data or write_dataset(folder, count, seed=900, validation_share=1))
        pairs = []
        for sample in itertools.islice(dataset.for_model(model.spec.names), count):
            image, truth = sample.read()
            pairs.append((model.predict(image), truth))
    return pairs


def parts_of(masks: Counterfactuals) -> dict[str, Callable[[], object]]:
    instance, real = masks.instance, masks.real
    width = boundary_width(*instance.letterbox.content_hw)
    return {
        "best coefficients, once": lambda: best_weights(
            instance.prototypes, instance.letterbox, masks.truth, real.rows, real.columns, instance.weights
        ),
        "best threshold": lambda: thresholds(masks),
        "boundary and interior IoU": lambda: boundary_agreement(masks.real, masks.truth, width),
        "leak": lambda: leak(masks),
    }


def slowly(masks: Counterfactuals) -> None:
    """The same by the slow twin: every stage, the objective once per step of the search, and the additional columns."""
    instance, letterbox = masks.instance, masks.instance.letterbox
    rows, columns = (slice(0, length) for length in letterbox.canvas_hw)
    truth = window_of(masks.truth, rows, columns)
    ideal = twin.cell_shares(truth, letterbox.grid_hw) - 0.5
    box = instance.canvas_box
    drawn = []
    for weights in (instance.weights, masks.fit.weights, masks.true_box_fit.weights):
        logits = reference.summed_terms(weights, instance.prototypes)
        drawn += [twin.drawn(instance, logits, box, squash=False, crop=crop)[0] for crop in (True, False)]
    drawn += [twin.drawn(instance, ideal, box, squash=False, crop=crop)[0] for crop in (True, False)]
    for mask in drawn:
        twin.iou(mask, truth)
    for _ in range(masks.fit.steps + masks.true_box_fit.steps):
        twin.objective(instance, truth, masks.real.rows, masks.real.columns, instance.weights, PENALTY)
    twin.leak(instance, drawn[1], truth, RING)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--images", type=int, default=24)
    arguments = parser.parse_args()
    pairs = read(arguments.model, arguments.data, arguments.images)
    every = [masks for prediction, truth in pairs for _, masks in counterfactuals_of(prediction, truth)]
    count = len(every)
    cells = statistics.median(masks.real.inside.size for masks in every)
    whole = sum(ms(lambda p=prediction, t=truth: list(budgets(p, t))) for prediction, truth in pairs) / count
    table = Table(title=f"error budget of {count} instances, median window {cells:.0f} pixels")
    for column in ("", "CPU ms per instance"):
        table.add_column(column, justify="right")
    table.add_row("all of it", f"{whole:.2f}")
    for name in parts_of(every[0]):
        table.add_row(name, f"{sum(ms(parts_of(masks)[name]) for masks in every) / count:.2f}")
    middle = sorted(every, key=lambda masks: masks.real.inside.size)[count // 2]
    start = time.process_time()
    slowly(middle)
    slow = 1e3 * (time.process_time() - start)
    table.add_row("slow twin (the instance of median size)", f"{slow:.0f}")
    table.add_row("times faster", f"{slow / whole:.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
