"""Slow and obvious twins of tuning: one instance, one coefficient and one pixel at a time."""

from __future__ import annotations

import math

import numpy as np

from maskprism.analysis.tuning.evidence import Evidence


def corrected(coefficients: list[float], map: np.ndarray, offset: np.ndarray) -> list[float]:
    """c + A c + b, by hand."""
    k = len(coefficients)
    return [
        coefficients[i] + float(offset[i]) + sum(float(map[i, j]) * coefficients[j] for j in range(k)) for i in range(k)
    ]


def soft_iou(
    coefficients: list[float],
    prototypes: np.ndarray,
    inside: np.ndarray,
    pixels: np.ndarray,
    outside: float,
    sharpness: float,
) -> float:
    """Of one instance, one pixel after the other; what its box leaves out is missed."""
    shared, either = 0.0, outside
    for values, truth, stands_for in zip(prototypes, inside, pixels, strict=True):
        logit = sharpness * sum(c * float(value) for c, value in zip(coefficients, values, strict=True))
        chance = 1 / (1 + math.exp(-logit))
        shared += float(stands_for) * chance * float(truth)
        either += float(stands_for) * (chance + float(truth) - chance * float(truth))
    return shared / either


def objective(evidence: Evidence, maps: np.ndarray, offsets: np.ndarray, sharpness: float) -> float:
    """1 - mean soft IoU under one correction per level, without the ridge."""
    total = sum(float(weight) for weight in evidence.weights)
    loss = 0.0
    for i in range(len(evidence)):
        level = int(evidence.levels[i]) if len(maps) > 1 else 0
        c = corrected(evidence.coefficients[i].tolist(), maps[level], offsets[level])
        c = [float(evidence.factors[i]) * value for value in c]
        own = (evidence.prototypes[i], evidence.inside[i], evidence.pixels[i], float(evidence.outside[i]))
        loss += float(evidence.weights[i]) / total * (1 - soft_iou(c, *own, sharpness))
    return loss
