"""Fewer prototypes for nearly the same masks: the best K' < K of a model, over a set of images.

A reduction is one linear map on the prototypes and one on the coefficients, the same for every
image, so that it can be written into the network. With M the K x K matrix of rank K' that
they make together, logits `c P` become `c M P`, and what is kept small is

    sum over instances, and cells of their boxes, of w (c P - c M P)^2   with w = p (1 - p) / area,

where p is the probability of a cell and area the sum of p over the box. To second order this is
twice the Kullback-Leibler divergence between the soft masks per unit of their area: what counts is
how far the edge moves, not how well large logits are copied.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from maskprism.analysis.prototypes.basis import canonical_maps
from maskprism.core.decomposition import Decomposition
from maskprism.core.masks import sigmoid
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64

    from maskprism.core.masks import Patch
    from maskprism.core.prediction import Prediction

Method = Literal["selection", "projection"]
METHODS: tuple[Method, ...] = ("selection", "projection")
MOST_PROTOTYPES = 64
"""Models with more prototypes are refused: the cost of mixing K prototypes takes 8 K^4 bytes."""
_RIDGE = 0.1
_ROUNDS = 3
_FLOOR = 1e-6


@dataclass(frozen=True, eq=False)
class Reduction:
    """K' prototypes in the place of K.

    Attributes
    ----------
    prototype_map
        New prototypes = prototype_map @ prototypes.
    coefficient_map
        New coefficients = coefficient_map @ coefficients.
    """

    method: Method
    prototype_map: Float64[np.ndarray, "M K"]
    coefficient_map: Float64[np.ndarray, "M K"]

    def __len__(self) -> int:
        return len(self.prototype_map)

    @property
    def kept(self) -> tuple[int, ...] | None:
        """Which prototypes are left, 0-based, in their order; None where they are mixed anew."""
        return tuple(self.prototype_map.argmax(axis=1).tolist()) if self.method == "selection" else None

    def apply(self, prediction: Prediction) -> Prediction:
        """Return the prediction as the reduced model makes it: K' prototypes, K' coefficients."""
        flat = prediction.prototypes.reshape(len(prediction.prototypes), -1)
        prototypes = self.prototype_map.astype(np.float32) @ flat
        return replace(
            prediction,
            prototypes=prototypes.reshape(len(self), *prediction.prototypes.shape[1:]),
            coefficients=prediction.coefficients @ self.coefficient_map.T.astype(np.float32),
        )

    def mixed(self, prediction: Prediction) -> Prediction:
        """Return the same masks as `apply` makes, written in the K prototypes of the full model."""
        mixing = self.coefficient_map.T @ self.prototype_map
        return replace(prediction, coefficients=prediction.coefficients @ mixing.astype(np.float32))


class MixingCost:
    """What any M costs (see the module), added up over predictions: a quadratic form in M.

    Attributes
    ----------
    products
        `[K, K, K, K]`, `products[a, b, i, j]` is the sum over instances of G[a, b] c_i c_j, where G is the Gram matrix
        of the prototypes in the box of the instance with the weights w.
    gram
        The sum of G over instances.
    weight
        That of w.
    instances
        How many there were.
    """

    def __init__(self, prototypes: int) -> None:
        if prototypes > MOST_PROTOTYPES:
            raise InputError(
                f"the model has {prototypes} prototypes; reducing a basis is possible for at most {MOST_PROTOTYPES}"
            )
        self.products: Float64[np.ndarray, "K K K K"] = np.zeros((prototypes,) * 4)
        self.gram: Float64[np.ndarray, "K K"] = np.zeros((prototypes, prototypes))
        self.weight = 0.0
        self.instances = 0

    def __len__(self) -> int:
        return len(self.products)

    def update(self, prediction: Prediction) -> None:
        """Add the instances of an image."""
        if len(prediction.prototypes) != len(self):
            raise InputError(
                f"{prediction.source or 'the prediction'} has {len(prediction.prototypes)} prototypes; the ones before "
                f"had {len(self)}: they must come from one model"
            )
        found = [_gram(Decomposition(instance)) for instance in prediction]
        grams = np.array([gram for gram, _ in found]).reshape(-1, len(self) ** 2)
        density = np.array([total for _, total in found])
        weights = prediction.weights.astype(np.float64)
        squares = np.einsum("ni,nj->nij", weights, weights).reshape(-1, len(self) ** 2)
        self.products += (grams.T @ squares).reshape(self.products.shape)
        self.gram += grams.sum(axis=0).reshape(self.gram.shape)
        self.weight += float(density.sum())
        self.instances += len(prediction)

    def __add__(self, other: MixingCost) -> MixingCost:
        total = MixingCost(len(self))
        total.products = self.products + other.products
        total.gram = self.gram + other.gram
        total.weight = self.weight + other.weight
        total.instances = self.instances + other.instances
        return total

    def of(self, reduction: Reduction) -> float:
        """Return the cost of a reduction as a share of that of having no mask logits at all; 0 for an exact one."""
        loss = np.eye(len(self)) - reduction.coefficient_map.T @ reduction.prototype_map
        everything = float(np.einsum("abab->", self.products))
        return float(np.einsum("ia,abij,jb->", loss, self.products, loss, optimize=True)) / (everything or 1.0)


def reductions(cost: MixingCost, method: Method, keeps: Iterable[int] | None = None) -> list[Reduction]:
    """Return the reductions to fewer prototypes; to 1, 2, ..., K - 1 unless `keeps` says otherwise.

    "selection" keeps some of the prototypes, the best one first, and of the rest the one that lowers
    the cost most; after every step the coefficients are fitted anew (block orthogonal matching
    pursuit). "projection" mixes new prototypes from all: the first components of the canonical basis
    (as in `CanonicalBasis`, with cells weighted as in this module), the selection, or, up to half of
    the prototypes, what alternating least squares makes of either: whatever costs least. They are
    orthonormal over the weighted cells (mean square 1, mean product 0), the most used first.

    Rescaling a prototype by s and its coefficients by 1/s changes nothing.

    Raises
    ------
    InputError
        For a number out of 1 to K - 1, and without an instance.
    """
    if method not in METHODS:
        raise InputError(f"method is {method!r}; expected one of {', '.join(map(repr, METHODS))}")
    if not cost.instances:
        raise InputError(
            "there is no instance in the images, so nothing says how prototypes are used; keep more detections "
            "with a lower conf, or take other images"
        )
    keeps = list(range(1, len(cost)) if keeps is None else keeps)
    for keep in keeps:
        if not 1 <= keep < len(cost):
            raise InputError(f"cannot keep {keep} prototypes of {len(cost)}; expected 1 to {len(cost) - 1}")
    scale, gram, products = _equal_scales(cost)
    form, second = _form(products), np.einsum("aaij->ij", products)
    chosen = np.eye(len(cost))[_greedy_order(form, max(keeps))]
    principal, _, _ = canonical_maps(gram, second)
    found = []
    for keep in keeps:
        pairs = [(chosen[:keep], _fit(form, chosen[:keep]))]
        if method == "selection":
            size = (chosen[:keep] @ scale)[:, None]  # the chosen prototypes stay unchanged
            found.append(Reduction(method, chosen[:keep], pairs[0][1] * scale / size))
            continue
        pairs.append((principal[:keep], _fit(form, principal[:keep])))
        if keep <= len(cost) // 2:
            pairs += [_alternated(form, basis[:keep]) for basis in (principal, chosen)]
        candidates = [Reduction(method, new / scale, fitted * scale) for new, fitted in pairs]
        best = min(range(len(candidates)), key=lambda index: cost.of(candidates[index]))
        new, fitted = _rotated(*pairs[best], gram, second)
        found.append(Reduction(method, new / scale, fitted * scale))
    return found


def fit_halves(predictions: Iterable[Prediction]) -> tuple[MixingCost, MixingCost]:
    """Return the costs over every other prediction, and over the rest.

    Raises
    ------
    InputError
        If there is none.
    """
    halves: list[MixingCost] = []
    for number, prediction in enumerate(predictions):
        if not halves:
            halves = [MixingCost(len(prediction.prototypes)) for _ in range(2)]
        halves[number % 2].update(prediction)
    if not halves:
        raise InputError("there are no predictions; expected at least one")
    return halves[0], halves[1]


@dataclass(frozen=True, eq=False)
class TradeOff:
    """Mask IoU with the full model, by the number of prototypes kept.

    Attributes
    ----------
    keeps
        Numbers of prototypes.
    ious
        Per method `[S, N]`, one row per number kept, one column per instance; masks are compared at canvas size under
        the rule. Two empty masks are the same.
    held_out
        Whether no mask was compared under a reduction that had been fitted to it: every image is measured with what was
        fitted to the other half of the images.
    """

    keeps: tuple[int, ...]
    ious: Mapping[Method, Float32[np.ndarray, "S N"]]
    held_out: bool

    def mean(self, method: Method) -> Float32[np.ndarray, " S"]:
        """Mean over instances."""
        return self.ious[method].mean(axis=1)

    def percentile(self, method: Method, q: float) -> Float32[np.ndarray, " S"]:
        """Percentile over instances; 50 is the median."""
        return np.percentile(self.ious[method], q, axis=1)

    def of(self, method: Method, keep: int) -> Float32[np.ndarray, " N"]:
        """Return the IoU of every instance with `keep` prototypes.

        Raises
        ------
        InputError
            For a number not measured.
        """
        if keep not in self.keeps:
            raise InputError(f"{keep} prototypes were not measured; expected one of {', '.join(map(str, self.keeps))}")
        return self.ious[method][self.keeps.index(keep)]

    def smallest(self, method: Method, mask_iou: float) -> int:
        """Return the smallest number of prototypes with a mean IoU of at least `mask_iou`.

        Raises
        ------
        InputError
            If none has.
        """
        if not 0 < mask_iou <= 1:
            raise InputError(f"mask IoU is {mask_iou}; expected a number above 0 and up to 1")
        means = self.mean(method)
        enough = np.flatnonzero(means >= mask_iou)
        if not len(enough):
            best = int(means.argmax())
            raise InputError(
                f"no {method} of up to {self.keeps[-1]} prototypes keeps a mean mask IoU of {mask_iou}; the best is "
                f"{self.keeps[best]} prototypes with {means[best]:.4f}"
            )
        return self.keeps[int(enough[0])]

    def summary(self) -> dict[str, Any]:
        """Return the curves as plain values, for JSON."""
        return {
            "instances": int(next(iter(self.ious.values())).shape[1]),
            "held_out": self.held_out,
            **{
                method: [
                    {"keep": keep, "mean": mean, "median": median, "p5": low}
                    for keep, mean, median, low in zip(
                        self.keeps,
                        self.mean(method).tolist(),
                        self.percentile(method, 50).tolist(),
                        self.percentile(method, 5).tolist(),
                        strict=True,
                    )
                ]
                for method in self.ious
            },
        }


def measure(
    predictions: Iterable[Prediction], halves: tuple[MixingCost, MixingCost], keeps: Iterable[int] | None = None
) -> TradeOff:
    """Return the curves of both methods over the predictions that `halves` come from, in the same order.

    Parameters
    ----------
    keeps
        The numbers of prototypes to measure. Default: 1 to K - 1. Where a half has no instance, everything is fitted to
        all of them, and `held_out` is False.
    """
    keeps = sorted(set(range(1, len(halves[0])) if keeps is None else keeps))
    held_out = all(half.instances for half in halves)
    others = (halves[1], halves[0]) if held_out else (halves[0] + halves[1],) * 2
    fitted = {method: [reductions(other, method, keeps) for other in others] for method in METHODS}
    columns: dict[Method, list[Float32[np.ndarray, "S N"]]] = {method: [] for method in METHODS}
    for number, prediction in enumerate(predictions):
        for method, found in columns.items():
            found.append(mask_ious(prediction, fitted[method][number % 2]))
    ious = {method: np.concatenate(found, axis=1) for method, found in columns.items()}
    return TradeOff(tuple(keeps), ious, held_out)


def mask_ious(prediction: Prediction, candidates: list[Reduction]) -> Float32[np.ndarray, "M N"]:
    """IoU of every mask with the same one under each reduction, at canvas size."""
    full = prediction.crops("canvas")
    found = np.empty((len(candidates), len(prediction)), dtype=np.float32)
    for row, reduction in zip(found, candidates, strict=True):
        row[:] = [patch_iou(a, b) for a, b in zip(full, reduction.mixed(prediction).crops("canvas"), strict=True)]
    return found


def patch_iou(a: Patch, b: Patch) -> float:
    """IoU of two masks inside one box: patches over the same window. 1 if both are empty."""
    union = np.count_nonzero(a.values | b.values)
    return np.count_nonzero(a.values & b.values) / union if union else 1.0


def _gram(parts: Decomposition) -> tuple[Float64[np.ndarray, "K K"], float]:
    """Of the prototypes in the box of an instance, with the weights w of the module; and their sum."""
    prototypes = parts.instance.prototypes
    inside = prototypes[:, *parts.box_window].reshape(len(prototypes), -1).astype(np.float64)
    logits = parts.logits[parts.box_window].reshape(-1).astype(np.float64)
    # p (1 - p) in a form that is never 0, so that something weighs even where a model is quite sure.
    weight = 0.25 / np.cosh(np.clip(logits, -60, 60) / 2) ** 2 / max(float(sigmoid(logits).sum()), 1.0)
    return (inside * weight) @ inside.T, float(weight.sum())


def _equal_scales(
    cost: MixingCost,
) -> tuple[Float64[np.ndarray, " K"], Float64[np.ndarray, "K K"], Float64[np.ndarray, "K K K K"]]:
    """Return the root mean square of every prototype (1 for prototypes of zeros).

    Gram matrix and products if all were 1.
    """
    mean_square = np.diag(cost.gram) / cost.weight
    scale = np.sqrt(np.where(mean_square > _FLOOR**2 * mean_square.max(), mean_square, 1.0))
    gram = cost.gram / cost.weight / np.outer(scale, scale) + _FLOOR * np.eye(len(scale))
    return scale, gram, cost.products / cost.weight * np.einsum("a,b,i,j->abij", 1 / scale, 1 / scale, scale, scale)


def _form(products: Float64[np.ndarray, "K K K K"]) -> Float64[np.ndarray, "K K K K"]:
    """Return the quadratic form, indexed `[a, i, b, j]` for M[i, a] and M[j, b], with a ridge.

    The ridge lets every coefficient be used a little on its own, over the mean Gram matrix: that
    decides what too few instances leave open. A much smaller one keeps prototypes of zeros solvable.
    """
    k = len(products)
    gram = np.einsum("abii->ab", products) / k
    gram = _RIDGE * gram + _FLOOR * np.trace(gram) / k * np.eye(k)
    return products.transpose(0, 2, 1, 3) + np.einsum("ab,ij->aibj", gram, np.eye(k))


def _greedy_order(form: Float64[np.ndarray, "K K K K"], count: int) -> list[int]:
    """Return the prototypes to keep, in the order of choice.

    Each lowers the cost most, with all coefficients fitted anew.

    After a choice, its block is eliminated from the form (Schur complement), so that the gain of
    every other prototype is that of adding it to all chosen before.
    """
    k = len(form)
    left, target = form.copy(), np.einsum("aibb->ai", form)
    order: list[int] = []
    for _ in range(count):
        rest = [a for a in range(k) if a not in order]
        gains = [target[a] @ np.linalg.solve(left[a, :, a], target[a]) for a in rest]
        best = rest[int(np.argmax(gains))]
        order.append(best)
        row = left[best].reshape(k, k * k)
        step = np.linalg.solve(left[best, :, best], row)
        target = target - (step.T @ target[best]).reshape(k, k)
        left = left - (row.T @ step).reshape(left.shape)
    return order


def _alternated(
    form: Float64[np.ndarray, "K K K K"], basis: Float64[np.ndarray, "M K"]
) -> tuple[Float64[np.ndarray, "M K"], Float64[np.ndarray, "M K"]]:
    """Return maps on prototypes and coefficients by alternating least squares: each fitted to the other, in turns."""
    for _ in range(_ROUNDS):
        fitted = _fit(form, basis)
        basis = _fit(form.transpose(1, 0, 3, 2), fitted)
        basis /= np.linalg.norm(basis, axis=1, keepdims=True)
    return basis, _fit(form, basis)


def _rotated(
    new: Float64[np.ndarray, "M K"],
    fitted: Float64[np.ndarray, "M K"],
    gram: Float64[np.ndarray, "K K"],
    second: Float64[np.ndarray, "K K"],
) -> tuple[Float64[np.ndarray, "M K"], Float64[np.ndarray, "M K"]]:
    """Return the same masks from new prototypes that are orthonormal over the weighted cells, the most used first."""
    basis, inverse, _ = canonical_maps(new @ gram @ new.T, fitted @ second @ fitted.T)
    new, fitted = basis @ new, inverse.T @ fitted
    signs = np.where(new.sum(axis=1) < 0, -1.0, 1.0)[:, None]
    return signs * new, signs * fitted


def _fit(form: Float64[np.ndarray, "K K K K"], basis: Float64[np.ndarray, "M K"]) -> Float64[np.ndarray, "M K"]:
    """Return the map on coefficients that costs least for new prototypes `basis @ prototypes`."""
    keep, k = basis.shape
    half = np.tensordot(basis, form, axes=1)
    matrix = np.einsum("qb,ribj->riqj", basis, half, optimize=True).reshape(keep * k, keep * k)
    target = np.einsum("ribb->ri", half).reshape(-1)
    return np.linalg.solve(matrix, target).reshape(keep, k)
