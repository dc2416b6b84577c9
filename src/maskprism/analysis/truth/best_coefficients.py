"""The best mask that the prototypes of an image can make of a ground-truth instance, by logistic regression."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from maskprism.core.masks import sigmoid

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

    from maskprism.analysis.truth.overlaps import Region
    from maskprism.core.geometry import Letterbox

PENALTY = 1e-4
"""On half the mean square of the logits: it keeps weights finite where a mask can be had without an error."""
TOLERANCE = 1e-6
"""How long the gradient may be at the solution, over directions in which the logits have mean square 1."""
MAX_STEPS = 100
_RANK = 1e-6
_MANY = 3000
_SLACK = 1e-7  # objectives are compared up to float32 rounding


class Fit(NamedTuple):
    """The best weights for a ground-truth instance, and how they were found.

    Attributes
    ----------
    weights
        They take the place of `Instance.weights`.
    steps
        Steps of Newton's method.
    gradient
        Its length at the end; above the tolerance only if the limit of steps or float32 stopped the search.
    exact
        Within the crop the mask of these weights is the ground truth, to the last pixel (see `exact_coefficients`);
        steps and gradient are then those of the last fit to single pixels.
    """

    weights: Float32[np.ndarray, " K"]
    steps: int
    gradient: float
    exact: bool = False


class Cells(NamedTuple):
    """What the regression sees of M grid cells.

    Attributes
    ----------
    prototypes
        At each cell.
    covered
        The share of the canvas pixels of each cell that the ground truth covers, 0 to 1.
    counts
        Canvas pixels of each cell.
    """

    prototypes: Float32[np.ndarray, "M K"]
    covered: Float32[np.ndarray, " M"]
    counts: Float32[np.ndarray, " M"]


def best_weights(
    prototypes: Float32[np.ndarray, "K h w"],
    letterbox: Letterbox,
    truth: Region,
    rows: slice,
    columns: slice,
    start: Float32[np.ndarray, " K"],
) -> Fit:
    """Return the weights whose logits agree best with `truth` in the window `rows`, `columns` of the canvas.

    A logistic regression on the cells of the prototype grid under the window: the target of a cell is the share of its
    pixels that the ground truth covers. Best is what minimises the mean cross entropy plus PENALTY times half the mean
    square of the logits. That is convex, so `start` (the predicted weights) changes how soon the minimum is found and
    not which it is; and it holds for logits alone, so no change of basis and no rescaling of prototypes changes the
    mask.

    Parameters
    ----------
    truth
        The ground-truth mask on the canvas. An empty window gives `start` back.
    """
    cells = cells_of(prototypes, letterbox, truth, rows, columns)
    if not len(cells.covered):
        return Fit(start, 0, 0.0)
    if len(cells.covered) > _MANY:  # some of the cells lead near to the minimum, for less
        start = fit(Cells(*(values[::7] for values in cells)), start).weights
    return fit(cells, start)


def cells_of(
    prototypes: Float32[np.ndarray, "K h w"], letterbox: Letterbox, truth: Region, rows: slice, columns: slice
) -> Cells:
    """Return the grid cells under a window of the canvas; of cells that it cuts, the pixels within count."""
    inside = window_of(truth, rows, columns)
    if not inside.size:
        return Cells(*(np.zeros(shape, dtype=np.float32) for shape in ((0, len(prototypes)), 0, 0)))
    (canvas_h, canvas_w), (grid_h, grid_w) = letterbox.canvas_hw, letterbox.grid_hw
    y = ((np.arange(rows.start, rows.stop) + 0.5) * (grid_h / canvas_h)).astype(np.int64)
    x = ((np.arange(columns.start, columns.stop) + 0.5) * (grid_w / canvas_w)).astype(np.int64)
    cell_y, first_y, count_y = np.unique(y, return_index=True, return_counts=True)
    cell_x, first_x, count_x = np.unique(x, return_index=True, return_counts=True)
    filled = np.add.reduceat(np.add.reduceat(inside, first_y, axis=0, dtype=np.int32), first_x, axis=1)
    counts = np.outer(count_y, count_x).ravel().astype(np.float32)
    near = prototypes[:, cell_y[0] : cell_y[-1] + 1, cell_x[0] : cell_x[-1] + 1]
    if near.shape[1:] != filled.shape:  # a grid finer than the canvas has cells without a pixel
        near = prototypes[:, cell_y[:, None], cell_x]
    flat = np.ascontiguousarray(near.reshape(len(near), -1).T)
    return Cells(flat, filled.ravel() / counts, counts)


def fit(
    cells: Cells,
    start: Float32[np.ndarray, " K"],
    *,
    penalty: float = PENALTY,
    tolerance: float = TOLERANCE,
    max_steps: int = MAX_STEPS,
) -> Fit:
    """Minimise by Newton's method, damped: plain steps diverge where the logits are large."""
    share = cells.counts / cells.counts.sum()
    to_weights, from_weights = _whitened(cells.prototypes, share)
    features = cells.prototypes @ to_weights.astype(np.float32)

    def objective(at: Float64[np.ndarray, " R"]) -> tuple[float, Float32[np.ndarray, " M"]]:
        with np.errstate(over="ignore", invalid="ignore"):  # a step that goes too far is turned back
            logits = features @ at.astype(np.float32)
        entropy = np.maximum(logits, 0) - cells.covered * logits + np.log1p(np.exp(-np.abs(logits)))
        return float(np.dot(share, entropy)) + penalty / 2 * float(at @ at), logits

    predicted, nothing = from_weights @ start, np.zeros(len(from_weights))
    at = predicted if objective(predicted)[0] < objective(nothing)[0] else nothing
    value, logits = objective(at)
    gradient, steps = np.inf, 0
    for steps in range(max_steps):  # noqa: B007
        probability = sigmoid(logits)
        slope = (features.T @ (share * (probability - cells.covered))).astype(np.float64) + penalty * at
        gradient = float(np.linalg.norm(slope))
        if gradient < tolerance:
            break
        scaled = features * np.sqrt(share * probability * (1 - probability))[:, None]
        curvature = (scaled.T @ scaled).astype(np.float64)
        curvature[np.diag_indices(len(at))] += penalty
        moved = _downhill(objective, at, value, slope, -np.linalg.solve(curvature, slope))
        if moved is None:
            break
        at, value, logits = moved
    return Fit((to_weights @ at).astype(np.float32), steps, gradient)


def _downhill(
    objective: Callable[[Float64[np.ndarray, " R"]], tuple[float, Float32[np.ndarray, " M"]]],
    at: Float64[np.ndarray, " R"],
    value: float,
    slope: Float64[np.ndarray, " R"],
    step: Float64[np.ndarray, " R"],
) -> tuple[Float64[np.ndarray, " R"], float, Float32[np.ndarray, " M"]] | None:
    """Return the first of the whole, half, quarter ... step that lowers the objective as it should; None for none."""
    for halvings in range(20):
        share = 1 / (1 << halvings)
        there = at + share * step
        reached, logits = objective(there)
        if reached <= value + 1e-4 * share * float(slope @ step) + _SLACK * abs(value):
            return there, reached, logits
    return None


def _whitened(
    prototypes: Float32[np.ndarray, "M K"], share: Float32[np.ndarray, " M"]
) -> tuple[Float64[np.ndarray, "K R"], Float64[np.ndarray, "R K"]]:
    """Return a basis of what the prototypes can make of these cells, of mean square 1 and uncorrelated; there and back.

    In it the penalty is the same in all directions, and directions that change no cell are gone.
    """
    gram = ((prototypes * share[:, None]).T @ prototypes).astype(np.float64)
    size = np.sqrt(np.diag(gram))
    size[size == 0] = 1
    squares, directions = np.linalg.eigh(gram / np.outer(size, size))
    kept = squares > _RANK * max(float(squares[-1]), 1e-30)
    root, directions = np.sqrt(squares[kept]), directions[:, kept]
    return directions / root / size[:, None], (directions * root).T * size


def window_of(mask: Region, rows: slice, columns: slice) -> np.ndarray[tuple[int, int], np.dtype[np.bool_]]:
    """Return what a mask is in another window of the same frame."""
    found = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=bool)
    top, bottom = max(rows.start, mask.rows.start), min(rows.stop, mask.rows.stop)
    left, right = max(columns.start, mask.columns.start), min(columns.stop, mask.columns.stop)
    if top < bottom and left < right:
        found[top - rows.start : bottom - rows.start, left - columns.start : right - columns.start] = mask.inside[
            top - mask.rows.start : bottom - mask.rows.start, left - mask.columns.start : right - mask.columns.start
        ]
    return found
