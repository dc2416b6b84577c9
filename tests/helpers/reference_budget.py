"""Slow and obvious twins for the error budget: one pixel, one cell, one threshold at a time."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from helpers import reference
from maskprism import Instance, Prediction
from maskprism.datasets import GroundTruth


def matched(prediction: Prediction, truth: GroundTruth, threshold: float) -> list[tuple[int, int]]:
    """Pairs, best score first: of the free ground-truth instances of the class the one whose box overlaps most."""
    pairs: list[tuple[int, int]] = []
    for i in sorted(range(len(prediction)), key=lambda i: (-float(prediction.scores[i]), i)):
        taken = {j for _, j in pairs}
        best, found = 0.0, None
        for j in range(len(truth)):
            if j in taken or truth.crowd[j] or truth.segments[j] is None:
                continue
            shared = reference.iou(prediction.boxes[i].tolist(), truth.boxes[j].tolist())
            if prediction.classes[i] == truth.classes[j] and shared >= threshold and shared > best:
                best, found = shared, j
        if found is not None:
            pairs.append((i, found))
    return pairs


def cell_shares(mask: np.ndarray, grid_hw: tuple[int, int]) -> np.ndarray:
    """The share of every cell that a mask covers, pixels cut by a cell's edge counted in part."""
    (height, width), (grid_h, grid_w) = mask.shape, grid_hw
    cell_h, cell_w = Fraction(height, grid_h), Fraction(width, grid_w)

    def part(pixel: int, cell: int, size: Fraction) -> Fraction:
        return max(Fraction(0), min(Fraction(pixel + 1), (cell + 1) * size) - max(Fraction(pixel), cell * size))

    shares = np.zeros(grid_hw)
    for row in range(grid_h):
        for column in range(grid_w):
            total = Fraction(0)
            for y in range(int(row * cell_h), min(int((row + 1) * cell_h) + 1, height)):
                for x in range(int(column * cell_w), min(int((column + 1) * cell_w) + 1, width)):
                    if mask[y, x]:
                        total += part(y, row, cell_h) * part(x, column, cell_w)
            shares[row, column] = total / (cell_h * cell_w)
    return shares


def boxes_of(instance: Instance, box: np.ndarray) -> dict[str, list[float]]:
    """A box of the canvas in the two frames that drawing on the canvas needs."""
    return {"canvas": box.tolist(), "grid": instance.letterbox.to_grid(box).tolist()}


def drawn(
    instance: Instance, values: np.ndarray, box: np.ndarray, *, squash: bool, crop: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Grid values as a mask on the canvas under the instance's rule, and how far each pixel is from the threshold."""
    rule = instance.rule if crop else replace(instance.rule, crop="none")
    soft, left = reference.cropped_softly(values, boxes_of(instance, box), instance.letterbox, rule, "canvas", squash)
    return (soft > rule.threshold) & left, np.where(left, np.abs(soft - rule.threshold), np.inf)


def iou(first: np.ndarray, second: np.ndarray) -> float:
    """Of two masks; 0 where both are empty."""
    either = sum(bool(a or b) for a, b in zip(first.flat, second.flat, strict=True))
    both = sum(bool(a and b) for a, b in zip(first.flat, second.flat, strict=True))
    return both / either if either else 0.0


def objective(
    instance: Instance, truth: np.ndarray, rows: slice, columns: slice, weights: np.ndarray, penalty: float
) -> float:
    """Mean cross entropy of the cells' coverage under their logits, and the penalty, pixel by pixel."""
    (height, width), (grid_h, grid_w) = instance.letterbox.canvas_hw, instance.letterbox.grid_hw
    pixels: dict[tuple[int, int], list[bool]] = {}
    for y in range(rows.start, rows.stop):
        for x in range(columns.start, columns.stop):
            cell = int((y + 0.5) * grid_h / height), int((x + 0.5) * grid_w / width)
            pixels.setdefault(cell, []).append(bool(truth[y, x]))
    total = count = 0.0
    for (row, column), inside in pixels.items():
        logit = sum(float(w) * float(p) for w, p in zip(weights, instance.prototypes[:, row, column], strict=True))
        covered = sum(inside) / len(inside)
        entropy = max(logit, 0) + math.log1p(math.exp(-abs(logit))) - covered * logit
        total += len(inside) * (entropy + penalty / 2 * logit**2)
        count += len(inside)
    return total / count


def best_threshold(values: np.ndarray, inside: np.ndarray, area: int) -> float:
    """The highest IoU of the pixels above a threshold, over thresholds below every value."""
    best = 0.0
    for threshold in {float(np.nextafter(np.float32(v), np.float32(-np.inf))) for v in values.flat}:
        above = values > threshold
        shared = int((above & inside).sum())
        best = max(best, shared / (area + int(above.sum()) - shared))
    return best


def band(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels of a mask with one outside it, or the border of the frame, in a square of that reach around them."""
    height, length = mask.shape
    result = np.zeros_like(mask)
    for y in range(height):
        for x in range(length):
            around = [
                not (0 <= v < height and 0 <= u < length) or not mask[v, u]
                for v in range(y - width, y + width + 1)
                for u in range(x - width, x + width + 1)
            ]
            result[y, x] = mask[y, x] and any(around)
    return result


def near(mask: np.ndarray, width: int) -> np.ndarray:
    """The pixels with one of the mask in a square of that reach around them."""
    height, length = mask.shape
    result = np.zeros_like(mask)
    for y in range(height):
        for x in range(length):
            result[y, x] = mask[max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1].any()
    return result


def leak(instance: Instance, uncropped: np.ndarray, truth: np.ndarray, ring: float) -> float:
    """Count the pixels of the ring, and those that are wrong."""
    x1, y1, x2, y2 = instance.canvas_box.tolist()
    dx, dy = ring * (x2 - x1), ring * (y2 - y1)
    top, left = instance.letterbox.offset_yx
    height, width = instance.letterbox.content_hw
    pixels = wrong = 0
    for y in range(top, top + height):
        for x in range(left, left + width):
            wide = y1 - dy <= y < y2 + dy and x1 - dx <= x < x2 + dx
            if wide and not (y1 <= y < y2 and x1 <= x < x2):
                pixels += 1
                wrong += bool(uncropped[y, x] and not truth[y, x])
    return wrong / pixels if pixels else 0.0


def spearman(first: list[float], second: list[float]) -> float:
    """Ranks by counting who is below and who is equal, and their correlation."""

    def ranks(values: list[float]) -> list[float]:
        return [sum(b < a for b in values) + (sum(b == a for b in values) + 1) / 2 for a in values]

    a, b = ranks(first), ranks(second)
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    shared = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))
    return shared / spread if spread else math.nan
