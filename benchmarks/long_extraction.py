"""Memory and speed of a long extraction: many images, a folder as the table, a model that costs next to nothing.

    python benchmarks/long_extraction.py --images photos/ --count 100000

Links to the images stand in for a large folder. Printed are the images per second and the memory of the process after
each tenth, and how the second half compares with the first.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from maskprism.io.images import IMAGE_SUFFIXES
from maskprism.models import load
from maskprism.models.runtimes import FunctionRuntime, NetworkInput
from maskprism.tables.extraction import extract

CLASSES, PROTOTYPES, ANCHORS, INSTANCES = 80, 32, 84, 6


def network(batch: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Six instances on every image."""
    rows = np.zeros((len(batch), 4 + CLASSES + PROTOTYPES, ANCHORS), dtype=np.float32)
    for j in range(INSTANCES):
        rows[:, :4, j] = 10 + 8 * j, 32, 7, 40
        rows[:, 4 + j, j] = 0.9
        rows[:, 4 + CLASSES :, j] = np.sin(np.arange(PROTOTYPES) * (j + 1))
    return rows, np.tile(batch[:, :1, ::4, ::4], (1, PROTOTYPES, 1, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="a folder of images")
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--prototypes", choices=["summary", "fp16", "fp32"])
    options = parser.parse_args()
    files = sorted(path.resolve() for path in options.images.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    metadata = {"task": "segment", "names": {index: f"class {index}" for index in range(CLASSES)}}
    model = load(FunctionRuntime(network, NetworkInput(1, 64, 64), metadata), name="six")
    process = psutil.Process()
    began, marks = time.perf_counter(), []

    def report(done: int, total: int | None, failed: int) -> None:
        if done and done >= (len(marks) + 1) * options.count // 10:
            memory = process.memory_info().rss / 2**20
            marks.append((done, time.perf_counter() - began, memory))
            print(f"{done:>8} images  {done / marks[-1][1]:7.0f} images/s  {memory:6.0f} MB", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        links = Path(folder) / "images"
        for index in range(options.count):
            if index % 1000 == 0:
                (links / f"{index // 1000:05d}").mkdir(parents=True)
            file = files[index % len(files)]
            os.symlink(file, links / f"{index // 1000:05d}" / f"{index:08d}{file.suffix}")  # noqa: PTH211
        print(extract(links, model, Path(folder) / "table", on_progress=report, prototypes=options.prototypes))
        parts = list((Path(folder) / "table").rglob("*.parquet"))
        size = sum(path.stat().st_size for path in parts)
        print(f"{size / options.count:.0f} bytes per image in {len(parts)} files")
    half = marks[len(marks) // 2 - 1]
    print(f"memory at the end / at half: {marks[-1][2] / half[2]:.3f}")
    print(f"speed of the second half / of the first: {half[1] / (marks[-1][1] - half[1]):.3f}")


if __name__ == "__main__":
    main()
