"""The statistics of the atlas, written out slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats


def signature(coefficients: Any, classes: Any, of_class: int, k: int) -> dict[str, float]:
    """Of one class and one coefficient."""
    own = coefficients[classes == of_class, k].astype(float)
    others = coefficients[classes != of_class, k].astype(float)
    n, m = len(own), len(others)
    pooled = np.sqrt(((n - 1) * own.var(ddof=1) + (m - 1) * others.var(ddof=1)) / (n + m - 2))
    low, high = stats.t.interval(0.95, n - 1, own.mean(), stats.sem(own))
    return {
        "mean": own.mean(),
        "low": low,
        "high": high,
        "effect": (own.mean() - others.mean()) / pooled * (1 - 3 / (4 * (n + m - 2) - 1)),
        "p": stats.ttest_ind(own, others, equal_var=False).pvalue,
    }


def share_between(column: Any, classes: Any) -> float:
    """Eta squared."""
    column = column.astype(float)
    within = sum(((column[classes == one] - column[classes == one].mean()) ** 2).sum() for one in np.unique(classes))
    return 1 - within / ((column - column.mean()) ** 2).sum()


def adjusted(p: list[float]) -> list[float]:
    """Benjamini and Hochberg, as the paper has it."""
    order = np.argsort(p)
    found, lowest = [0.0] * len(p), 1.0
    for rank in range(len(p), 0, -1):
        place = order[rank - 1]
        lowest = min(lowest, p[place] * len(p) / rank)
        found[place] = lowest
    return found


def near_pairs(coefficients: Any, share: float) -> set[tuple[int, int]]:
    """All pairs that are nearer than that share of the root mean square distance."""
    values = coefficients.astype(float)
    limit = share * np.sqrt(2 * values.var(axis=0).sum())
    return {
        (i, j)
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if np.linalg.norm(values[i] - values[j]) < limit
    }
