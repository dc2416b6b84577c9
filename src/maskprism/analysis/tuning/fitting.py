"""Fit a correction: the mean soft IoU of evidence, made as large as a ridge allows, by L-BFGS (extra `tune`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskprism.errors import MissingExtraError
from maskprism.models.correction import Correction

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64

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
        self._setting, self._ridge = setting, setting.ridge / images
        slices = list(_blocks(parts if setting.views else _unaltered(evidence, parts)))
        total = sum(float(evidence.weights[block].sum()) for block in slices)
        squares = sum(
            float(np.einsum("n,nk->", evidence.weights[block], evidence.coefficients[block].astype(np.float64) ** 2))
            for block in slices
        )
        k = evidence.coefficients.shape[1]
        self.shape = (setting.levels + (setting.levels > 1), k, k + 1)
        self.scale = OFFSETS * float(np.sqrt(squares / max(total * k, _TINY))) or 1.0
        self._blocks = [_Block.of(evidence, block, setting.levels, self.scale, total) for block in slices]

    def __call__(self, x: Float64[np.ndarray, " P"]) -> tuple[float, Float64[np.ndarray, " P"]]:
        """The value at x, and its gradient."""
        of_level = self._of_level(x)
        value, gradient = 0.0, np.zeros((self._setting.levels, *self.shape[1:]))
        for block in self._blocks:
            losses, slopes = block.losses(of_level)
            value += losses
            for level, chosen in enumerate(block.of_level):
                gradient[level] += slopes[chosen].T @ block.wide[chosen]
        if self._setting.levels > 1:
            gradient = np.concatenate([gradient.sum(axis=0, keepdims=True), SPREAD * gradient])
        return value + self._ridge * float(x @ x), gradient.ravel() + 2 * self._ridge * x

    def correction(self, x: Float64[np.ndarray, " P"]) -> Correction:
        """Return the correction that parameters stand for."""
        of_level = self._of_level(x)
        return Correction(of_level[:, :, :-1].copy(), of_level[:, :, -1] * self.scale)

    def _of_level(self, x: Float64[np.ndarray, " P"]) -> Float64[np.ndarray, "L K K+1"]:
        """Return (A, b / scale) of each level."""
        parameters = x.reshape(self.shape)
        return parameters[:1] + SPREAD * parameters[1:] if self._setting.levels > 1 else parameters


class _Block(NamedTuple):
    """Evidence of some instances, with all that stays the same while a correction is searched.

    Attributes
    ----------
    wide
        The coefficients, and the scale of the offsets behind them.
    of_level
        Which instances come from each level that has a correction of its own.
    steep
        What the logits are multiplied by.
    within, beside
        How many pixels each stands for, in the ground truth and beside it.
    truth
        Pixels of the ground truth.
    weights
        Of all evidence, they add up to 1.
    """

    prototypes: Float32[np.ndarray, "N M K"]
    wide: Float64[np.ndarray, "N K+1"]
    of_level: list[slice | Bool[np.ndarray, " N"]]
    steep: Float32[np.ndarray, "N 1"]
    within: Float32[np.ndarray, "N M"]
    beside: Float32[np.ndarray, "N M"]
    truth: Float32[np.ndarray, " N"]
    weights: Float32[np.ndarray, " N"]

    @classmethod
    def of(cls, evidence: Evidence, block: slice, levels: int, scale: float, total: float) -> _Block:
        coefficients = evidence.coefficients[block].astype(np.float64)
        within = evidence.pixels[block] * evidence.inside[block]
        return cls(
            prototypes=evidence.prototypes[block],
            wide=np.concatenate([coefficients, np.full((len(coefficients), 1), scale)], axis=1),
            of_level=[evidence.levels[block] == level for level in range(levels)] if levels > 1 else [slice(None)],
            steep=np.float32(SHARPNESS) * evidence.factors[block, None],
            within=within,
            beside=evidence.pixels[block] - within,
            truth=within.sum(axis=1) + evidence.outside[block],
            weights=evidence.weights[block] / np.float32(total),
        )

    def losses(self, of_level: Float64[np.ndarray, "L K K+1"]) -> tuple[float, Float64[np.ndarray, "N K"]]:
        """Return the weighted losses, and their slopes by the coefficients of each instance."""
        corrected = self.wide[:, :-1].copy()
        for chosen, parameters in zip(self.of_level, of_level, strict=True):
            corrected[chosen] += self.wide[chosen] @ parameters.T
        steep = self.steep * corrected.astype(np.float32)
        probability = np.matmul(self.prototypes, steep[:, :, None])[:, :, 0]
        probability *= np.float32(0.5)
        np.tanh(probability, out=probability)
        probability += np.float32(1)
        probability *= np.float32(0.5)
        shared = np.einsum("nm,nm->n", self.within, probability)
        either = np.maximum(self.truth + np.einsum("nm,nm->n", self.beside, probability), np.float32(_TINY))
        per_either = self.weights / either
        slope = self.beside * (per_either * shared / either)[:, None]
        slope -= self.within * per_either[:, None]
        slope *= probability
        slope *= np.float32(1) - probability
        by_coefficient = np.matmul(slope[:, None, :], self.prototypes)[:, 0] * self.steep
        return float(np.dot(self.weights.astype(np.float64), 1 - shared / either)), by_coefficient.astype(np.float64)


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
