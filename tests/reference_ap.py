"""Slow and obvious twins of average precision and of TIDE's error types: one detection after the other."""

from __future__ import annotations

import math

import numpy as np

from maskprism.analysis.overlaps import Overlaps


def best_first(photo: Overlaps) -> list[int]:
    return sorted(range(len(photo.scores)), key=lambda i: -photo.scores[i])


def matched(photo: Overlaps, threshold: float) -> tuple[dict[int, int], set[int]]:
    """Which true object every detection takes, best detection first, and which detections a crowd excuses."""
    taken: dict[int, int] = {}
    excused = set()
    for i in best_first(photo):
        best, choice = threshold, None
        for j, true_class in enumerate(photo.true_classes):
            free = true_class == photo.classes[i] and not photo.crowd[j] and j not in taken.values()
            if free and photo.iou[i, j] >= best:
                best, choice = photo.iou[i, j], j
        if choice is not None:
            taken[i] = choice
        elif any(
            photo.crowd[j] and true_class == photo.classes[i] and photo.iou[i, j] >= threshold
            for j, true_class in enumerate(photo.true_classes)
        ):
            excused.add(i)
    return taken, excused


def precision_of_class(points: list[tuple[float, bool]], objects: int) -> float:
    """Mean over recalls 0, .01 ... 1 of the best precision at that recall or beyond."""
    points = sorted(points, key=lambda point: -point[0])
    right, curve = 0, []
    for rank, (_, correct) in enumerate(points, 1):
        right += correct
        curve.append((right / objects, right / rank))
    total = 0.0
    for step in range(101):
        total += max((precision for recall, precision in curve if recall >= step / 100 - 1e-12), default=0.0)
    return total / 101


def average_precision(photographs: list[Overlaps], threshold: float) -> float:
    """At one IoU threshold: mean over the classes that have true objects."""
    objects: dict[int, int] = {}
    points: dict[int, list[tuple[float, bool]]] = {}
    for photo in photographs:
        for true_class, crowd in zip(photo.true_classes, photo.crowd, strict=True):
            objects[int(true_class)] = objects.get(int(true_class), 0) + (not crowd)
        taken, excused = matched(photo, threshold)
        for i in best_first(photo):
            if i not in excused:
                points.setdefault(int(photo.classes[i]), []).append((float(photo.scores[i]), i in taken))
    found = [precision_of_class(points.get(c, []), count) for c, count in objects.items() if count]
    return sum(found) / len(found) if found else math.nan


def iou(a: np.ndarray, b: np.ndarray, crowd: bool = False) -> float:
    """Of two masks, pixel sets taken literally; of the share of `a` that lies in a crowd `b`."""
    one, other = set(zip(*np.nonzero(a), strict=True)), set(zip(*np.nonzero(b), strict=True))
    whole = len(one) if crowd else len(one | other)
    return len(one & other) / whole if whole else 0.0
