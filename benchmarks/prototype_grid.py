"""The full 32-panel prototype grid: our array renderer against 32 matplotlib subplots, in one run.

    python benchmarks/prototype_grid.py

Both draw the same 32 prototypes with index and weight in the titles, at 2400 x 1200 pixels. "drawn" ends with an array
of pixels in memory, "as PNG" with the bytes of a file.
"""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable

import matplotlib as mpl
from rich.console import Console
from rich.table import Table

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np

import maskprism
from maskprism import Instance
from maskprism.datasets.scenes import draw_scene
from maskprism.drawing import raster, sheets

RUNS = 5


def subplots(instance: Instance, *, png: bool) -> int:
    """What the original script did."""
    figure, axes = plt.subplots(4, 8, figsize=(24, 12), dpi=100)
    for k, ax in enumerate(axes.flat):
        ax.imshow(instance.prototypes[k], cmap="viridis")
        ax.set_title(f"Mask {k}: {instance.weights[k]:.2f}")
        ax.axis("off")
    plt.tight_layout()
    if png:
        data = io.BytesIO()
        figure.savefig(data)
        size = len(data.getvalue())
    else:
        figure.canvas.draw()
        size = np.asarray(figure.canvas.buffer_rgba()).size
    plt.close(figure)
    return size


def ours(instance: Instance, *, png: bool) -> int:
    picture = raster.draw(sheets.prototype_grid(instance))
    return len(raster.encode_png(picture)) if png else picture.size


def ms(draw: Callable[..., int], instance: Instance, *, png: bool) -> float:
    start = time.perf_counter()
    draw(instance, png=png)
    return (time.perf_counter() - start) * 1e3


def main() -> None:
    instance = maskprism.load("sample").predict(draw_scene(0).image)[0]
    height, width, _ = raster.draw(sheets.prototype_grid(instance)).shape
    table = Table(title=f"prototype grid, ours {width} x {height} px, median of {RUNS} interleaved runs")
    for column in ("", "32 matplotlib subplots, ms", "array renderer, ms", "times faster"):
        table.add_column(column, justify="right")
    for png in (False, True):
        ms(subplots, instance, png=png)
        ms(ours, instance, png=png)
        pairs = [(ms(subplots, instance, png=png), ms(ours, instance, png=png)) for _ in range(RUNS)]
        table.add_row(
            "as PNG" if png else "drawn",
            f"{statistics.median(a for a, _ in pairs):.0f}",
            f"{statistics.median(b for _, b in pairs):.1f}",
            f"{statistics.median(a / b for a, b in pairs):.1f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
