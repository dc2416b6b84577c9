"""A model of plain numpy whose answer depends on the image; and, run as a script, a slow extraction with it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from maskprism.models import Model, load
from maskprism.models.runtimes import FunctionRuntime, NetworkInput

CLASSES, PROTOTYPES, ANCHORS = 2, 4, 84


def network(batch: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """0 to 3 instances per image, depending on its brightness."""
    cells = batch.reshape(len(batch), 3, 16, 4, 16, 4).mean(axis=(3, 5))
    prototypes = np.concatenate([cells - 0.5, cells[:, :1] * cells[:, 1:2]], axis=1)
    rows = np.zeros((len(batch), 4 + CLASSES + PROTOTYPES, ANCHORS), dtype=np.float32)
    for row, image in zip(rows, batch, strict=True):
        brightness = float(image.mean())
        for j in range(int(brightness * 1000) % 4):
            row[:4, j] = 14 + 18 * j, 32, 16 + 4 * j, 20 + 10 * brightness
            row[4 + j % CLASSES, j] = 0.4 + 0.2 * j
            row[4 + CLASSES :, j] = np.sin(np.arange(PROTOTYPES) + 9 * brightness + j)
            if j == 2:  # nowhere positive: a mask without a pixel
                row[4 + CLASSES :, j] = 0, 0, 0, -1 - brightness
    return rows, prototypes


@cache  # models are frozen; opening one takes longer than a run of it
def fake_model(function: Any = network, *, batch: int | None = 1, sha256: str = "a" * 64, **options: Any) -> Model:
    """A model around `function`, with names for its two classes."""
    runtime = FunctionRuntime(
        function,
        input=NetworkInput(batch, 64, 64),
        metadata={"task": "segment", "names": {0: "cat", 1: "dog"}},
        sha256=sha256,
    )
    return load(runtime, name="fake", **options)


@cache
def v5_model() -> Model:
    """The layout of YOLOv5: rows with objectness, three per cell of the grid."""

    def function(batch: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        rows = np.zeros((len(batch), 252, 5 + 2 + PROTOTYPES), dtype=np.float32)
        rows[:, 7] = [32, 32, 30, 30, 0.8, 0.1, 0.9, *range(1, PROTOTYPES + 1)]
        return rows, np.ones((len(batch), PROTOTYPES, 16, 16), dtype=np.float32)

    runtime = FunctionRuntime(function, NetworkInput(1, 64, 64), {"task": "segment", "names": {0: "cat", 1: "dog"}})
    return load(runtime, name="v5")


def write_images(folder: Path, count: int, *, start: int = 0, suffix: str = ".png") -> list[Path]:
    """Small images of different sizes and content, the same on every call."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(start, start + count):
        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 256, (40 + index % 5, 56 - index % 3, 3), dtype=np.uint8)
        paths.append(folder / f"{index:03d}{suffix}")
        cv2.imwrite(str(paths[-1]), cv2.blur(pixels, (9, 9)))
    return paths


def _slow(batch: np.ndarray[Any, Any]) -> Any:
    time.sleep(0.03)
    return network(batch)


def slow_model() -> Model:
    """As on a slower machine, so that there is something to interrupt."""
    return fake_model(_slow)


def extract_slowly(source: str, out: str, report: Callable[[int], object]) -> None:
    """Extract with `slow_model`, and report how far this is."""
    from maskprism.tables.extraction import extract

    def on_progress(done: int, total: int | None, failed: int) -> None:
        report(done)

    extract(source, slow_model(), out, workers=2, flush_s=0.02, on_progress=on_progress)


if __name__ == "__main__":
    extract_slowly(sys.argv[1], sys.argv[2], partial(print, flush=True))
