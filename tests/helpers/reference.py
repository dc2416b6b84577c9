"""Slow and obvious twins of the algorithms: one pixel, one box, one term at a time, in plain Python."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from maskprism.core.geometry import Letterbox
from maskprism.core.masks import MaskRule


def fitted_sides(image_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the same shape that fits into the canvas, in whole pixels, at least 1."""
    gain = min(canvas_hw[0] / image_hw[0], canvas_hw[1] / image_hw[1])
    return max(1, round(image_hw[0] * gain)), max(1, round(image_hw[1] * gain))


def box_to_canvas(letterbox: Letterbox, box: list[float]) -> list[float]:
    """A box of the image on the canvas: stretch each axis, then move by the padding."""
    x1, y1, x2, y2 = box
    stretch_y = letterbox.content_hw[0] / letterbox.image_hw[0]
    stretch_x = letterbox.content_hw[1] / letterbox.image_hw[1]
    top, left = letterbox.offset_yx
    return [x1 * stretch_x + left, y1 * stretch_y + top, x2 * stretch_x + left, y2 * stretch_y + top]


def box_to_image(letterbox: Letterbox, box: list[float]) -> list[float]:
    """A box of the canvas on the image: take the padding off, undo the stretch, stay inside."""
    stretch_y = letterbox.content_hw[0] / letterbox.image_hw[0]
    stretch_x = letterbox.content_hw[1] / letterbox.image_hw[1]
    top, left = letterbox.offset_yx
    height, width = letterbox.image_hw
    x1, y1, x2, y2 = box
    return [
        min(max((x1 - left) / stretch_x, 0), width),
        min(max((y1 - top) / stretch_y, 0), height),
        min(max((x2 - left) / stretch_x, 0), width),
        min(max((y2 - top) / stretch_y, 0), height),
    ]


def iou(a: list[float], b: list[float]) -> float:
    """Intersection over union of two boxes; a box without area overlaps nothing."""

    def area(box: list[float]) -> float:
        return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)

    shared = area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])
    union = area(a) + area(b) - shared
    return shared / union if union > 0 else 0.0


def suppress(boxes: list[list[float]], scores: list[float], classes: list[int], threshold: float) -> list[int]:
    """Greedy: best first, a box goes if a better one of its class that stayed overlaps it too much."""
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        if all(classes[i] != classes[j] or iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def stretched(samples: np.ndarray, length: int) -> np.ndarray:
    """Rows of samples at another length: aligned pixel centres, linear in between, ends repeated."""
    last = len(samples) - 1
    places = np.clip([(i + 0.5) * len(samples) / length - 0.5 for i in range(length)], 0, last)
    above = np.floor(places).astype(int)
    below = np.minimum(above + 1, last)
    return samples[above] + (samples[below] - samples[above]) * (places - above)[:, None]


def resized(values: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear: along every row, then along every column."""
    wide = stretched(np.asarray(values, dtype=float).T, width).T
    return stretched(wide, height)


def unpadded(values: np.ndarray, letterbox: Letterbox, unpad: str) -> np.ndarray:
    """The part of a grid image that shows the image, in the three ways that YOLO tools cut it."""
    grid_h, grid_w = letterbox.grid_hw
    image_h, image_w = letterbox.image_hw
    gains = [canvas / image for canvas, image in zip(letterbox.canvas_hw, letterbox.image_hw, strict=True)]
    centred = all(
        abs(letterbox.content_hw[axis] - letterbox.image_hw[axis] * min(gains)) <= 1
        and letterbox.canvas_hw[axis] - letterbox.content_hw[axis] - 2 * letterbox.offset_yx[axis] in (0, 1)
        for axis in (0, 1)
    )
    if unpad == "whole" or not centred:  # the two other ways are those of images that are fitted and centred
        edges = [
            Fraction(letterbox.offset_yx[axis]) * letterbox.grid_hw[axis] / letterbox.canvas_hw[axis] for axis in (0, 1)
        ]
        edges += [
            Fraction(letterbox.content_hw[axis]) * letterbox.grid_hw[axis] / letterbox.canvas_hw[axis]
            for axis in (0, 1)
        ]
        zoom = 1
        while any((edge * zoom).denominator != 1 for edge in edges):
            zoom *= 2
        large = resized(values, grid_h * zoom, grid_w * zoom) if zoom > 1 else values
        top, left, height, width = (int(edge * zoom) for edge in edges)
        return large[top : top + height, left : left + width]
    gain = min(grid_h / image_h, grid_w / image_w)
    if unpad == "floor":
        pad_y, pad_x = (grid_h - image_h * gain) / 2, (grid_w - image_w * gain) / 2
        top, left, bottom, right = int(pad_y), int(pad_x), int(grid_h - pad_y), int(grid_w - pad_x)
    else:
        pad_y, pad_x = (grid_h - round(image_h * gain)) / 2, (grid_w - round(image_w * gain)) / 2
        top, left = round(pad_y - 0.1), round(pad_x - 0.1)
        bottom, right = grid_h - round(pad_y + 0.1), grid_w - round(pad_x + 0.1)
    top, left = min(top, grid_h - 1), min(left, grid_w - 1)  # something must be left to show
    return values[top : max(bottom, top + 1), left : max(right, left + 1)]


def resampled(values: np.ndarray, letterbox: Letterbox, size: str, unpad: str) -> np.ndarray:
    """A grid image at the size of the grid, the canvas or the image."""
    if size == "grid":
        return np.asarray(values, dtype=float)
    if size == "canvas":
        return resized(values, *letterbox.canvas_hw)
    return resized(unpadded(values, letterbox, unpad), *letterbox.image_hw)


def inside(shape: tuple[int, int], box: list[float], padding: int = 0, rounded: bool = False) -> np.ndarray:
    """Which pixels of an image lie in the box: `x1 <= x < x2` and `y1 <= y < y2`, by their index."""
    x1, y1, x2, y2 = (round(edge) for edge in box) if rounded else box
    rows = np.array([y1 - padding <= y < y2 + padding for y in range(shape[0])])
    columns = np.array([x1 - padding <= x < x2 + padding for x in range(shape[1])])
    return rows[:, None] & columns


def cropped_softly(
    logits: np.ndarray, boxes: dict[str, list[float]], letterbox: Letterbox, rule: MaskRule, size: str, squash: bool
) -> tuple[np.ndarray, np.ndarray]:
    """What the rule thresholds, and which pixels its crop leaves.

    Squash (or not), crop on the grid (or not), resize, crop at the final size (or not). `boxes` has
    the box in each frame.
    """
    values = np.asarray(logits, dtype=float)
    if squash:
        values = 1 / (1 + np.exp(-values))
    crop = rule.crop_image if size == "image" else rule.crop
    if crop == "before":
        cells = inside(values.shape, boxes["grid"], rule.crop_padding, rule.round_box)
        left = resampled(cells.astype(float), letterbox, size, rule.unpad) > 1e-12
        return resampled(np.where(cells, values, 0), letterbox, size, rule.unpad), left
    values = resampled(values, letterbox, size, rule.unpad)
    if crop == "none":
        return values, np.ones(values.shape, dtype=bool)
    return values, inside(values.shape, boxes[size], 0, rule.round_box)


def decoded(
    logits: np.ndarray, boxes: dict[str, list[float]], letterbox: Letterbox, rule: MaskRule, size: str
) -> tuple[np.ndarray, np.ndarray]:
    """The mask of one instance and, at each pixel, how far its value is from the threshold."""
    values, left = cropped_softly(logits, boxes, letterbox, rule, size, rule.squash)
    threshold = 0.5 if rule.squash else 0.0
    return (values > threshold) & left, np.where(left, np.abs(values - threshold), np.inf)


def summed_terms(weights: np.ndarray, prototypes: np.ndarray, indices: list[int] | None = None) -> np.ndarray:
    """The weighted prototypes, added one after the other."""
    total = np.zeros(prototypes.shape[1:])
    for k in range(len(weights)) if indices is None else indices:
        total = total + float(weights[k]) * prototypes[k].astype(float)
    return total
