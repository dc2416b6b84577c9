"""Slow and obvious twins of comparing two models: every pixel, every pair, every permutation."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from helpers import reference
from maskprism import Prediction
from maskprism.core.geometry import Letterbox


def cka(x: np.ndarray, y: np.ndarray) -> float:
    """Kornblith et al. 2019 from its definition: kernels between all pixels, centred, and their alignment."""
    n = len(x)
    centre = np.eye(n) - np.ones((n, n)) / n
    k, l = centre @ x @ x.T @ centre, centre @ y @ y.T @ centre  # noqa: E741
    return float(np.sum(k * l) / np.sqrt(np.sum(k * k) * np.sum(l * l)))


def angles(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Principal angles in degrees between the columns of two matrices with a row per pixel (Björck and Golub)."""
    q, r = np.linalg.qr(x)[0], np.linalg.qr(y)[0]
    return np.degrees(np.arccos(np.clip(np.linalg.svd(q.T @ r, compute_uv=False), 0, 1)))


def best_matching(strength: np.ndarray) -> float:
    """The largest sum over one-to-one matchings, by trying all of them."""
    rows, columns = strength.shape
    if rows > columns:
        return best_matching(strength.T)
    return max(
        (sum(strength[i, j] for i, j in enumerate(chosen)) for chosen in permutations(range(columns), rows)),
        default=0.0,
    )


def pairs(a: Prediction, b: Prediction, min_iou: float) -> list[tuple[int, int]]:
    """Most confident of A first, each takes the free one of its class whose box overlaps it most."""
    free, found = list(range(len(b))), []
    boxes_a, boxes_b = (one.letterbox.to_image(one.extents).tolist() for one in (a, b))
    for i in sorted(range(len(a)), key=lambda i: (-a.scores[i], i)):
        options = [(reference.iou(boxes_a[i], boxes_b[j]), -j) for j in free if a[i].name == b[j].name]
        if options and max(options)[0] >= min_iou:
            j = -max(options)[1]
            free.remove(j)
            found.append((i, j))
    return sorted(found)


def corner(a: Prediction, b: Prediction, n: int, parts: frozenset[str]) -> tuple[np.ndarray, np.ndarray]:
    """The mask of instance n with these parts from B, and how far each pixel is from the threshold."""
    base = b if "prototypes" in parts else a
    weights = (b if "coefficients" in parts else a).weights[n]
    framed = b if "boxes" in parts else a
    own, letterbox = framed.letterbox, base.letterbox
    image_box = [
        (edge - own.offset_yx[1 - axis % 2]) / own.content_hw[1 - axis % 2] * own.image_hw[1 - axis % 2]
        for axis, edge in enumerate(framed.extents[n].tolist())
    ]
    canvas_box = reference.box_to_canvas(letterbox, image_box)
    boxes = {
        "image": reference.box_to_image(letterbox, canvas_box),
        "canvas": canvas_box,
        "grid": [
            edge * letterbox.grid_hw[1 - axis % 2] / letterbox.canvas_hw[1 - axis % 2]
            for axis, edge in enumerate(canvas_box)
        ],
    }
    logits = reference.summed_terms(weights, base.prototypes)
    return reference.decoded(logits, boxes, letterbox, a.rule, "image")


def sampled(prototype: np.ndarray, own: Letterbox, target: Letterbox) -> np.ndarray:
    """One prototype at the cell centres of another letterbox, one cell after the other."""
    found = np.zeros(target.grid_hw)
    for row in range(target.grid_hw[0]):
        for column in range(target.grid_hw[1]):
            place = []
            for axis, cell in enumerate((row, column)):
                canvas = (cell + 0.5) * target.canvas_hw[axis] / target.grid_hw[axis]
                share = (canvas - target.offset_yx[axis]) / target.content_hw[axis]
                own_canvas = own.offset_yx[axis] + share * own.content_hw[axis]
                at = own_canvas * own.grid_hw[axis] / own.canvas_hw[axis] - 0.5
                place.append(min(max(at, 0), own.grid_hw[axis] - 1))
            y, x = place
            top, left = int(y), int(x)
            bottom, right = min(top + 1, own.grid_hw[0] - 1), min(left + 1, own.grid_hw[1] - 1)
            upper = prototype[top, left] * (1 - (x - left)) + prototype[top, right] * (x - left)
            lower = prototype[bottom, left] * (1 - (x - left)) + prototype[bottom, right] * (x - left)
            found[row, column] = upper * (1 - (y - top)) + lower * (y - top)
    return found


def drift(a: Prediction, b: Prediction) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean |change| of each term over the cells of both boxes, blame of each, and how many cells flip; cell by cell."""
    k = len(a.prototypes)
    changes, flips, flipped, instances = np.zeros(k), np.zeros(k), 0, 0
    height, width = a.letterbox.grid_hw
    for n in range(len(a)):
        corners = [box for one in (a, b) for box in one.letterbox.to_grid(one.extents[n : n + 1].astype(float))]
        low, high = np.minimum(*corners)[:2], np.maximum(*corners)[2:]
        cells = [(y, x) for y in range(height) for x in range(width) if low[0] <= x < high[0] and low[1] <= y < high[1]]
        instances += bool(cells)
        sizes = np.zeros(k)
        for y, x in cells:
            old, new = a.weights[n] * a.prototypes[:, y, x], b.weights[n] * b.prototypes[:, y, x]
            sizes += np.abs(new - old)
            if (old.sum() > 0) != (new.sum() > 0):
                flipped += 1
                flips += (new - old) * np.sign(new.sum() - old.sum())
        changes += sizes / max(len(cells), 1)
    return changes / max(instances, 1), flips / flips.sum() if flips.sum() > 0 else flips, flipped
