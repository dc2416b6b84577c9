"""Slow and obvious twins of the analysis of the basis: every sum a loop over pixels, images and instances."""

from __future__ import annotations

import math

import numpy as np

from maskprism import Prediction


def effective_rank(matrix: np.ndarray) -> float:
    """From the definition of Roy and Vetterli, by singular value decomposition of the whole matrix."""
    values = np.linalg.svd(np.asarray(matrix, dtype=float), compute_uv=False)
    total = sum(values)
    entropy = 0.0
    for value in values:
        if value > 0:
            entropy -= value / total * math.log(value / total)
    return math.exp(entropy)


def cells_of_image(prediction: Prediction) -> list[tuple[int, int]]:
    """Grid cells that the image touches: those whose area on the canvas overlaps it."""
    box = prediction.letterbox
    stride_y, stride_x = box.canvas_hw[0] / box.grid_hw[0], box.canvas_hw[1] / box.grid_hw[1]
    top, left = box.offset_yx
    bottom, right = top + box.content_hw[0], left + box.content_hw[1]
    return [
        (y, x)
        for y in range(box.grid_hw[0])
        for x in range(box.grid_hw[1])
        if y * stride_y < bottom and (y + 1) * stride_y > top and x * stride_x < right and (x + 1) * stride_x > left
    ]


def mean_square_logit(predictions: list[Prediction], region: str) -> float:
    """E over instances and, independently, cells of (c P)^2: every instance with every cell of every image."""
    columns, weights = [], []
    for prediction in predictions:
        cells = cells_of_image(prediction)
        if region == "image":
            columns += [prediction.prototypes[:, y, x].astype(float) for y, x in cells]
        else:
            for instance in prediction:
                x1, y1, x2, y2 = prediction.letterbox.to_grid(instance.canvas_box)
                columns += [
                    prediction.prototypes[:, y, x].astype(float) for y, x in cells if y1 <= y < y2 and x1 <= x < x2
                ]
        weights += [row.astype(float) for row in prediction.weights]
    return float(np.mean([[(row @ column) ** 2 for column in columns] for row in weights]))


def correlation(a: list[float], b: list[float]) -> float:
    """Pearson."""
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    product = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))
    return product / spread
