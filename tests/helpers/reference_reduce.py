"""Slow and obvious twins of reducing a basis: one cell of one box after the other, and plain least squares."""

from __future__ import annotations

import itertools
import math

import numpy as np

from maskprism import Decomposition, Prediction
from maskprism.analysis.reduction.trade_off import _FLOOR, _RIDGE


def weighted_cells(prediction: Prediction) -> list[tuple[int, np.ndarray, float]]:
    """(instance, prototypes there, weight) of every cell in every box."""
    found = []
    for index, instance in enumerate(prediction):
        parts = Decomposition(instance)
        rows, columns = parts.box_window
        cells = list(itertools.product(range(rows.start, rows.stop), range(columns.start, columns.stop)))
        chances = [1 / (1 + math.exp(-float(parts.logits[y, x]))) for y, x in cells]
        area = max(sum(chances), 1.0)
        for (y, x), p in zip(cells, chances, strict=True):
            found.append((index, prediction.prototypes[:, y, x].astype(float), p * (1 - p) / area))
    return found


def cost(predictions: list[Prediction], mixing: np.ndarray) -> float:
    """Weighted squared change of the logits, as a share of their weighted squares."""
    lost = whole = 0.0
    for prediction in predictions:
        for index, values, weight in weighted_cells(prediction):
            c = prediction.weights[index].astype(float)
            logit = float(c @ values)
            lost += weight * (logit - float(c @ mixing @ values)) ** 2
            whole += weight * logit**2
    return lost / whole


def design(predictions: list[Prediction]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a linear system whose unknowns are M[i, a]: cells first, then the ridge; prototypes of mean square 1.

    Returns the rows `[R, K, K]` (by i, a) and the scale of the prototypes.
    """
    rows, squares, total = [], 0.0, 0.0
    for prediction in predictions:
        for index, values, weight in weighted_cells(prediction):
            c = prediction.weights[index].astype(float)
            rows.append(math.sqrt(weight) * np.outer(c, values))
            squares = squares + weight * values**2
            total += weight
    scale = np.sqrt(squares / total)
    k = len(scale)
    stacked = np.array(rows) * (scale[:, None] / scale[None, :]) / math.sqrt(total)
    # The mean Gram matrix of the prototypes, weighted by the mean square of the coefficients.
    gram = sum(row.T @ row for row in stacked) / k
    gram = _RIDGE * gram + _FLOOR * np.trace(gram) / k * np.eye(k)
    ridge = [np.outer(unit, direction) for unit in np.eye(k) for direction in np.linalg.cholesky(gram).T]
    return np.concatenate([stacked, ridge]), scale


def fitted(rows: np.ndarray, basis: np.ndarray) -> tuple[np.ndarray, float]:
    """The coefficient map `[M, K]` for new prototypes `basis @ prototypes`, by plain least squares; and the rest."""
    m, k = basis.shape
    wanted = np.einsum("rii->r", rows)
    system = np.einsum("ria,ma->rmi", rows, basis).reshape(len(rows), m * k)
    solution = np.linalg.lstsq(system, wanted, rcond=None)[0]
    return solution.reshape(m, k), float(np.sum((wanted - system @ solution) ** 2))


def greedy(rows: np.ndarray, count: int) -> list[int]:
    """Try every prototype at every step, with all coefficients fitted anew."""
    k = rows.shape[1]
    order: list[int] = []
    for _ in range(count):
        rest = [a for a in range(k) if a not in order]
        order.append(min(rest, key=lambda a: fitted(rows, np.eye(k)[[*order, a]])[1]))
    return order


def mask_iou(a: np.ndarray, b: np.ndarray) -> float:
    """Pixel by pixel; 1 for two empty masks."""
    both = either = 0
    for x, y in zip(a.reshape(-1).tolist(), b.reshape(-1).tolist(), strict=True):
        both += x and y
        either += x or y
    return both / either if either else 1.0
