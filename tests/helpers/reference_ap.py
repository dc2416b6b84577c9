"""Slow and obvious twins of average precision and of TIDE's error types: one detection after the other."""

from __future__ import annotations

import math

import numpy as np

from maskprism.analysis.truth.overlaps import Overlaps


def best_first(image: Overlaps) -> list[int]:
    return sorted(range(len(image.scores)), key=lambda i: -image.scores[i])


def matched(image: Overlaps, threshold: float) -> tuple[dict[int, int], set[int]]:
    """Which ground-truth instance every detection takes, best detection first, and which detections a crowd excuses."""
    taken: dict[int, int] = {}
    excused = set()
    for i in best_first(image):
        same = [j for j, c in enumerate(image.true_classes) if c == image.classes[i] and not image.crowd[j]]
        near = [j for j in same if j not in taken.values() and image.iou[i, j] >= threshold]
        if near:
            taken[i] = max(near, key=lambda j: image.iou[i, j])  # the first of equal ones
        elif any(
            image.crowd[j] and true_class == image.classes[i] and image.iou[i, j] >= threshold
            for j, true_class in enumerate(image.true_classes)
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


def average_precision(images: list[Overlaps], threshold: float) -> float:
    """At one IoU threshold: mean over the classes that have ground truth."""
    objects: dict[int, int] = {}
    points: dict[int, list[tuple[float, bool]]] = {}
    for image in images:
        for true_class, crowd in zip(image.true_classes, image.crowd, strict=True):
            objects[int(true_class)] = objects.get(int(true_class), 0) + (not crowd)
        taken, excused = matched(image, threshold)
        for i in best_first(image):
            if i not in excused:
                points.setdefault(int(image.classes[i]), []).append((float(image.scores[i]), i in taken))
    found = [precision_of_class(points.get(c, []), count) for c, count in objects.items() if count]
    return sum(found) / len(found) if found else math.nan


def iou(a: np.ndarray, b: np.ndarray, crowd: bool = False) -> float:
    """Of two masks, pixel sets taken literally; of the share of `a` that lies in a crowd `b`."""
    one, other = set(zip(*np.nonzero(a), strict=True)), set(zip(*np.nonzero(b), strict=True))
    whole = len(one) if crowd else len(one | other)
    return len(one & other) / whole if whole else 0.0


def kind_of(image: Overlaps, i: int, taken: dict[int, int], excused: set[int]) -> tuple[str | None, int | None]:
    """What is wrong with a detection, and which labelled instance it means; the questions of TIDE in their order."""
    if i in taken or i in excused:
        return None, None
    real = [j for j in range(len(image.true_classes)) if not image.crowd[j]]
    own = [j for j in real if image.true_classes[j] == image.classes[i]]
    other = [j for j in real if image.true_classes[j] != image.classes[i]]

    def nearest(candidates: list[int]) -> tuple[float, int | None]:
        return max(((float(image.iou[i, j]), -j) for j in candidates), default=(0.0, None))

    overlap, minus_j = nearest(own)
    if 0.1 <= overlap < 0.5:
        return "localisation", -minus_j
    overlap, minus_j = nearest(other)
    if overlap >= 0.5:
        return "class", -minus_j
    if nearest([j for j in own if j in taken.values()])[0] >= 0.5:
        return "duplicate", None
    if nearest(real)[0] <= 0.1:
        return "background", None
    return "both", None


def fixed(image: Overlaps, kind: str) -> tuple[list[tuple[float, int, bool]], dict[int, int]]:
    """The detections (score, class, right) and the ground truth per class when one kind of error is fixed."""
    taken, excused = matched(image, 0.5)
    kinds = {i: kind_of(image, i, taken, excused) for i in best_first(image)}
    winner: dict[int, int] = {}
    for i, (_, j) in kinds.items():
        if j is not None and j not in taken.values():
            winner.setdefault(j, i)
    points = []
    for i, (what, j) in kinds.items():
        score, class_id = float(image.scores[i]), int(image.classes[i])
        if i in excused:
            continue
        if what != kind:
            points.append((score, class_id, i in taken))
        elif j is not None and winner.get(j) == i:
            points.append((score, int(image.true_classes[j]), True))
    objects: dict[int, int] = {}
    for j, true_class in enumerate(image.true_classes):
        lost = kind == "missed" and j not in taken.values() and j not in winner
        if not image.crowd[j] and not lost:
            objects[int(true_class)] = objects.get(int(true_class), 0) + 1
    return points, objects


def gain(images: list[Overlaps], kind: str) -> float:
    """What fixing one kind of error gives."""

    def mean(everything: list[tuple[list[tuple[float, int, bool]], dict[int, int]]], asked_for: set[int]) -> float:
        points = [point for some, _ in everything for point in some]
        values = []
        for c in asked_for:
            objects = sum(found.get(c, 0) for _, found in everything)
            mine = [(score, right) for score, class_id, right in points if class_id == c]
            if objects:
                values.append(precision_of_class(mine, objects))
            elif mine:
                values.append(0.0)
        return sum(values) / len(values) if values else math.nan

    now = [fixed(image, "nothing") for image in images]
    asked_for = {c for _, objects in now for c in objects}
    after = mean([fixed(image, kind) for image in images], asked_for)
    return 0.0 if math.isnan(after) else max(after - mean(now, asked_for), 0.0)
