"""The statistics of the atlas, written out slowly."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import stats


def signature(coefficients: Any, classes: Any, images: Any, of_class: int, k: int) -> dict[str, float]:
    """Of one class and one coefficient; images are the unit."""
    own, column = classes == of_class, coefficients[:, k].astype(float)
    n, m = int(own.sum()), int((~own).sum())
    pooled = np.sqrt(((n - 1) * column[own].var(ddof=1) + (m - 1) * column[~own].var(ddof=1)) / (n + m - 2))
    difference, unit = column[own].mean() - column[~own].mean(), (1 - 3 / (4 * (n + m - 2) - 1)) / pooled
    sizes = [int((~own & (images == one)).sum()) for one in np.unique(images)]
    evenly = m**2 / sum(size**2 for size in sizes)
    variance = 0.0
    for one in np.unique(images):
        here, rest = own & (images == one), ~own & (images == one)
        part = (column[here] - column[own].mean()).sum() / n / (1 - here.sum() / n)
        part -= (column[rest] - column[~own].mean()).sum() / m * np.sqrt(evenly / (evenly - 1))
        variance += part**2
    freedom = min(len(np.unique(images[own])), len(np.unique(images[~own]))) - 1
    return {
        "mean": column[own].mean(),
        "effect": difference * unit,
        "error": np.sqrt(variance) * unit,
        "p": 2 * stats.t.sf(abs(difference) / np.sqrt(variance), freedom),
    }


def correlation(first: Any, second: Any, images: Any) -> tuple[float, float]:
    """Spearman's rank correlation, and its p value with images as the unit."""
    x, y = (stats.zscore(stats.rankdata(np.asarray(one, np.float64))) for one in (first, second))
    rho = float(np.mean(x * y))
    variance = 0.0
    for one in np.unique(images):
        here = images == one
        share = np.sum(x[here] ** 2 + y[here] ** 2) / 2 / len(x)
        variance += ((np.sum(x[here] * y[here]) / len(x) - rho * share) / (1 - share)) ** 2
    return rho, float(2 * stats.t.sf(abs(rho) / np.sqrt(variance), len(np.unique(images)) - 1))


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


def groups(pairs: set[tuple[int, int]], count: int) -> set[frozenset[int]]:
    """What pairs join, each group once."""
    group = [{one} for one in range(count)]
    for first, second in pairs:
        if group[first] is not group[second]:
            group[first] |= group[second]
            for one in group[second]:
                group[one] = group[first]
    return {frozenset(one) for one in group if len(one) > 1}
