"""Fit a correction: the mean soft IoU of evidence, made as large as a ridge allows, by L-BFGS (extra `tune`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism.errors import MissingExtraError
from maskprism.models.correction import Correction

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

    from maskprism.analysis.tuning.evidence import Evidence

SHARPNESS = 6.0
"""Logits are multiplied by this in the soft IoU. At 1, most of what it gains is gained by larger logits, which change
no mask; and an edge that moves by a pixel counts for less than the certainty far from it."""
SPREAD = 0.6
"""How far the corrections of levels may differ."""
OFFSETS = 5.0
"""How much farther b may go than A at the same cost, in root mean squares of the coefficients: all evidence bears on
the same few offsets."""
_BLOCK = 512
_TINY = 1e-6


@dataclass(frozen=True)
class Effort:
    """How long `tune` searches.

    Parameters
    ----------
    ridges
        The ridges of `Setting` to try, one after the other: each fit begins where the last one ended.
    views
        How many random augmentations of an image are evidence, beside the image and its mirror image; fewer where
        there are many images.
    steps
        The most iterations of L-BFGS in one fit.
    """

    ridges: tuple[float, ...] = (30.0, 10.0, 3.0, 1.8, 1.0, 0.6, 0.3, 0.1, 0.03, 0.01)
    views: int = 3
    steps: int = 100


FULL_EFFORT = Effort()


@dataclass(frozen=True)
class Setting:
    """How freely a correction is fitted.

    Attributes
    ----------
    ridge
        On the sum of squares of A, and of b over OFFSETS times the root mean square of the coefficients, against
        the loss of one image: the more images, the freer.
    levels
        How many levels of the pyramid have a correction of their own, which is a common one plus SPREAD times something
        that costs as much; 1 for one that is common to all. views: whether augmented evidence counts, too.
    """

    ridge: float
    levels: int = 1
    views: bool = True


class Objective:
    """What is minimised: 1 - mean soft IoU + ridge / images, of parameters x, flat: (A, b / scale), common one first.

    The soft IoU of an instance is the sum over pixels of p g, over the sum of p + g - p g, with p the sigmoid of the
    sharpened logit and g the ground truth; what the box leaves out counts as missed.

    Parameters
    ----------
    parts
        The evidence that counts.
    images
        How many it is of.
    """

    def __init__(self, evidence: Evidence, parts: Sequence[slice], setting: Setting, images: int) -> None:
        self._evidence, self._setting, self._ridge = evidence, setting, setting.ridge / images
        self._blocks = list(_blocks(parts if setting.views else _unaltered(evidence, parts)))
        self._total = sum(float(evidence.weights[block].sum()) for block in self._blocks)
        squares = sum(
            float(np.einsum("n,nk->", evidence.weights[block], evidence.coefficients[block].astype(np.float64) ** 2))
            for block in self._blocks
        )
        k = evidence.coefficients.shape[1]
        self.shape = (setting.levels + (setting.levels > 1), k, k + 1)
        self.scale = OFFSETS * float(np.sqrt(squares / max(self._total * k, _TINY))) or 1.0

    def __call__(self, x: Float64[np.ndarray, " P"]) -> tuple[float, Float64[np.ndarray, " P"]]:
        """The value at x, and its gradient."""
        correction = self.correction(x)
        value, gradient = 0.0, np.zeros((self._setting.levels, *self.shape[1:]))
        for block in self._blocks:
            losses, slopes = self._of_block(block, correction)
            value += losses
            wide = np.concatenate(
                [
                    self._evidence.coefficients[block].astype(np.float64),
                    np.full((len(slopes), 1), self.scale),
                ],
                axis=1,
            )
            for level in range(self._setting.levels):
                chosen = self._levels(block) == level
                gradient[level] += slopes[chosen].T @ wide[chosen]
        if self._setting.levels > 1:
            gradient = np.concatenate([gradient.sum(axis=0, keepdims=True), SPREAD * gradient])
        return value + self._ridge * float(x @ x), gradient.ravel() + 2 * self._ridge * x

    def correction(self, x: Float64[np.ndarray, " P"]) -> Correction:
        """Return the correction that parameters stand for."""
        parameters = x.reshape(self.shape)
        if self._setting.levels > 1:
            parameters = parameters[:1] + SPREAD * parameters[1:]
        return Correction(parameters[:, :, :-1].copy(), parameters[:, :, -1] * self.scale)

    def _levels(self, block: slice) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        levels = self._evidence.levels[block]
        return levels if self._setting.levels > 1 else np.zeros_like(levels)

    def _of_block(self, block: slice, correction: Correction) -> tuple[float, Float64[np.ndarray, "N K"]]:
        """Return the weighted losses of a block, and their slopes by the coefficients of each instance."""
        own = self._evidence
        prototypes, inside, pixels = own.prototypes[block], own.inside[block], own.pixels[block]
        coefficients = correction.coefficients(own.coefficients[block], self._levels(block))
        weights = own.weights[block] / np.float32(self._total)
        steep = np.float32(SHARPNESS) * own.factors[block, None]
        logits = np.matmul(prototypes, (steep * coefficients)[:, :, None])[:, :, 0]
        probability = np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * logits))
        shared = np.einsum("nm,nm,nm->n", pixels, probability, inside)
        either = np.einsum("nm,nm->n", pixels, probability + inside - probability * inside) + own.outside[block]
        either = np.maximum(either, np.float32(_TINY))
        slope = (shared[:, None] * (1 - inside) - either[:, None] * inside) * pixels / either[:, None] ** 2
        slope *= probability * (1 - probability) * weights[:, None]
        by_coefficient = np.matmul(slope[:, None, :], prototypes)[:, 0] * steep
        return float(np.dot(weights.astype(np.float64), 1 - shared / either)), by_coefficient.astype(np.float64)


def fit(
    evidence: Evidence,
    parts: Sequence[slice],
    settings: Sequence[Setting],
    images: int,
    *,
    steps: int = FULL_EFFORT.steps,
) -> list[Correction]:
    """The correction that is best on parts of the evidence, of some images, under each setting, by full-batch L-BFGS.

    Settings differ in their ridge; each search begins where the one before ended, the first at no correction.

    Raises
    ------
    MissingExtraError
        Without SciPy.
    """
    minimize = minimiser()
    options = {"maxiter": steps, "maxcor": 20, "ftol": 1e-6}
    found: list[Correction] = []
    x: Float64[np.ndarray, " P"] | None = None
    for setting in settings:
        objective = Objective(evidence, parts, setting, images)
        start = np.zeros(objective.shape).ravel() if x is None else x
        x = minimize(objective, start, jac=True, method="L-BFGS-B", options=options).x
        found.append(objective.correction(x))
    return found


def minimiser() -> Callable[..., Any]:
    """SciPy's.

    Raises
    ------
    MissingExtraError
        Without it.
    """
    try:
        from scipy.optimize import minimize
    except ImportError:
        raise MissingExtraError.of("tuning", package="scipy", extra="tune") from None
    return minimize


def sampled_ious(evidence: Evidence, part: slice, correction: Correction | None) -> Float32[np.ndarray, " N"]:
    """IoU of the masks of instances with the ground truth, estimated from their pixels; 0 for two empty masks."""
    found = []
    for block in _blocks([part]):
        coefficients = evidence.coefficients[block]
        if correction is not None:
            coefficients = correction.coefficients(coefficients, evidence.levels[block])
        mask = np.matmul(evidence.prototypes[block], coefficients[:, :, None])[:, :, 0] > 0
        inside, pixels = evidence.inside[block] > 0, evidence.pixels[block]
        shared = (pixels * (mask & inside)).sum(axis=1)
        either = (pixels * (mask | inside)).sum(axis=1) + evidence.outside[block]
        found.append(np.divide(shared, either, out=np.zeros_like(shared), where=either > 0))
    return np.concatenate(found) if found else np.zeros(0, dtype=np.float32)


def _unaltered(evidence: Evidence, parts: Sequence[slice]) -> Iterator[slice]:
    """Yield the runs of parts without augmented views."""
    for part in parts:
        edges = np.flatnonzero(np.diff(evidence.augmented[part], prepend=True, append=True)) + part.start
        yield from (slice(int(start), int(stop)) for start, stop in edges.reshape(-1, 2))


def _blocks(parts: Iterable[slice]) -> Iterator[slice]:
    for part in parts:
        for start in range(part.start, part.stop, _BLOCK):
            yield slice(start, min(start + _BLOCK, part.stop))
