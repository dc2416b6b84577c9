"""Attribution of one instance: terms resized once, within the box, against decoding a whole mask for every subset.

    python benchmarks/attribution.py [MODEL IMAGE]

Both give the same numbers (checked in the run): roles, the IoU without each prototype, and the greedy elimination
that finds the smallest sufficient set. The plain way edits the prediction and decodes a whole mask at canvas size
every time. Without arguments: the bundled model on drawn scenes.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import maskprism
from maskprism import Edit, Instance
from maskprism.analysis.instance.prototype_roles import roles
from maskprism.analysis.instance.regions import pixel_query
from maskprism.analysis.instance.shapley_values import shapley
from maskprism.analysis.instance.subset_masks import SubsetMasks
from maskprism.analysis.instance.sufficient_sets import knock_out, sufficiency
from maskprism.datasets.scenes import draw_scene

INSTANCES = 12
ORDERS = 8


def score(instance: Instance, members: list[int], full: np.ndarray) -> float:
    mask = Edit(keep=members).apply(instance.alone)[0].mask("canvas")
    union = np.count_nonzero(mask | full)
    return np.count_nonzero(mask & full) / union if union else 1.0


def plain_knock_out(instance: Instance) -> np.ndarray:
    everything, full = range(len(instance.weights)), instance.mask("canvas")
    return np.array([score(instance, [k for k in everything if k != out], full) for out in everything])


def plain_elimination(instance: Instance) -> np.ndarray:
    full = instance.mask("canvas")
    left = maskprism.Decomposition(instance).order()[::-1].tolist()
    curve = [1.0]
    while len(left) > 1:
        scores = [score(instance, [k for k in left if k != out], full) for out in left]
        curve.append(max(scores))
        left.pop(int(np.argmax(scores)))
    return np.array([*curve, score(instance, [], full)])[::-1]


def plain_roles(instance: Instance) -> np.ndarray:
    """Means of every term inside the mask, each decoded as a whole map."""
    mask = instance.mask("canvas")
    found = [Edit(keep=[k]).apply(instance.alone)[0].logits("grid")[mask] for k in range(len(instance.weights))]
    return np.array([values.mean() if values.size else np.nan for values in found])


def plain_shapley(instance: Instance) -> np.ndarray:
    """As many orders, every prefix decoded as a whole mask."""
    full, values = instance.mask("canvas"), np.zeros(len(instance.weights))
    rng = np.random.default_rng(0)
    for _ in range(ORDERS):
        order = rng.permutation(len(values))
        scores = [score(instance, order[:n].tolist(), full) for n in range(len(values) + 1)]
        values[order] += np.diff(scores) / ORDERS
    return values


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    found = work()
    return found, (time.perf_counter() - start) * 1e3


def instances() -> list[Instance]:
    if len(sys.argv) > 2:
        return list(maskprism.load(sys.argv[1], threads=1).predict(sys.argv[2]))[:INSTANCES]
    model = maskprism.load("sample", threads=1)
    predictions = [model.predict(draw_scene(seed).image) for seed in range(4)]
    return [one for prediction in predictions for one in prediction][:INSTANCES]


def main() -> None:
    chosen = instances()
    times: dict[str, list[tuple[float, float]]] = {}
    together = []
    for instance in chosen:
        SubsetMasks(instance, size="canvas")  # warm
        pairs: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "roles": (lambda one=instance: roles(one).inside, lambda one=instance: plain_roles(one)),
            "knock-out": (
                lambda one=instance: knock_out(one, size="canvas"),
                lambda one=instance: plain_knock_out(one),
            ),
            "elimination": (
                lambda one=instance: sufficiency(one, size="canvas").curve,
                lambda one=instance: plain_elimination(one),
            ),
            f"Shapley values, {ORDERS} orders": (
                lambda one=instance: shapley(one, size="canvas", permutations=ORDERS).values.sum(),
                lambda one=instance: plain_shapley(one).sum(),
            ),
        }
        for name, (ours, plain) in pairs.items():
            (found, quick), (expected, slow) = timed(ours), timed(plain)
            np.testing.assert_allclose(found, expected, atol=5e-3, err_msg=name)
            times.setdefault(name, []).append((slow, quick))

        def everything(one: Instance = instance) -> None:
            game = SubsetMasks(one, size="canvas")
            roles(one)
            knock_out(one, coalitions=game)
            sufficiency(one, coalitions=game)

        together.append(timed(everything)[1])
    x1, y1, x2, y2 = chosen[0].box
    query = [timed(lambda: pixel_query(chosen[0], int((x1 + x2) / 2), int((y1 + y2) / 2)))[1] for _ in range(5)]

    sizes = [np.ptp(one.canvas_box[::2]) * np.ptp(one.canvas_box[1::2]) for one in chosen]
    table = Table(
        title=f"{len(chosen)} instances, {len(chosen[0].weights)} prototypes, boxes of {statistics.median(sizes):.0f} "
        f"canvas pixels (median); medians"
    )
    for column in ("", "whole masks, ms", "ours, ms", "times faster"):
        table.add_column(column, justify="right")
    for name, measured in times.items():
        table.add_row(
            name,
            f"{statistics.median(slow for slow, _ in measured):.0f}",
            f"{statistics.median(quick for _, quick in measured):.1f}",
            f"{statistics.median(slow / quick for slow, quick in measured):.0f}",
        )
    table.add_row("roles, knock-out and elimination together", "", f"{statistics.median(together):.1f}", "")
    table.add_row("one pixel query", "", f"{statistics.median(query):.1f}", "")
    Console().print(table)


if __name__ == "__main__":
    main()
