"""Slow and obvious twins of what tells positional from semantic prototypes: loops over places, pairs and instances."""

from __future__ import annotations

import math

import numpy as np


def averaged(line: list[float], parts: int) -> list[float]:
    """Means over equal parts of a line of samples; samples that lie across an edge count by their share."""
    length, result = len(line), []
    for part in range(parts):
        start, stop = part * length / parts, (part + 1) * length / parts
        total = sum(value * max(0.0, min(stop, i + 1) - max(start, i)) for i, value in enumerate(line))
        result.append(total / (stop - start))
    return result


def place_means(values: np.ndarray, parts: int) -> np.ndarray:
    """Every row, then every column."""
    rows = [averaged(row, parts) for row in np.asarray(values, dtype=float).tolist()]
    return np.array([averaged([row[x] for row in rows], parts) for x in range(parts)]).T


def position(maps: list[np.ndarray], values: list[np.ndarray]) -> float:
    """Mean over pairs of different images of the covariance across places, as a share of the whole variance."""
    covariances = []
    for i, first in enumerate(maps):
        for j, second in enumerate(maps):
            if i != j:
                covariances.append(float(np.mean(first * second) - np.mean(first) * np.mean(second)))
    everything = np.concatenate([one.reshape(-1) for one in values])
    return sum(covariances) / len(covariances) / float(everything.var())


def half_plane(values: np.ndarray, variance: float, angles: int) -> float:
    """The largest variance between the two sides of a line, trying every direction and every position as the cut."""
    side, best = len(values), 0.0
    centres = [(i + 0.5) / side for i in range(side)]
    for step in range(angles):
        angle = 2 * math.pi * step / angles
        along = np.array([[x * math.cos(angle) + y * math.sin(angle) for x in centres] for y in centres])
        for cut in np.unique(np.round(along, 9))[:-1]:
            high = along > cut + 1e-8
            share = high.mean()
            best = max(best, share * (1 - share) * (values[high].mean() - values[~high].mean()) ** 2)
    return best / variance


def epsilon_squared(values: list[float], classes: list[int]) -> float:
    """Kelley's epsilon squared: (between - (J - 1) mean square within) / total."""
    grand = sum(values) / len(values)
    groups = {c: [v for v, d in zip(values, classes, strict=True) if d == c] for c in classes}
    between = sum(len(g) * (sum(g) / len(g) - grand) ** 2 for g in groups.values())
    within = sum((v - sum(g) / len(g)) ** 2 for g in groups.values() for v in g)
    mean_within = within / (len(values) - len(groups))
    return max(0.0, (between - (len(groups) - 1) * mean_within) / (between + within))


def explained_by(target: np.ndarray, by: np.ndarray) -> float:
    """R^2 of a line through the points: the squared correlation."""
    x, y = by - by.mean(), target - target.mean()
    return float((x @ y) ** 2 / ((x @ x) * (y @ y)))


def sobel_size(image: np.ndarray) -> np.ndarray:
    """The Sobel operator written out, divided by 8, with the border mirrored without its edge."""
    padded = np.pad(image, 1, mode="reflect")
    height, width = image.shape
    result = np.zeros(image.shape)
    for y in range(height):
        for x in range(width):
            p = padded[y : y + 3, x : x + 3]
            dx = (p[0, 2] + 2 * p[1, 2] + p[2, 2] - p[0, 0] - 2 * p[1, 0] - p[2, 0]) / 8
            dy = (p[2, 0] + 2 * p[2, 1] + p[2, 2] - p[0, 0] - 2 * p[0, 1] - p[0, 2]) / 8
            result[y, x] = math.hypot(dx, dy)
    return result
