"""One instance taken apart, and counterfactual edits of its coefficients."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from maskprism.core.masks import pixels_between
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64

    from maskprism.core.prediction import Instance, Prediction

Order = Literal["index", "weight", "magnitude", "effect"]
ORDERS: tuple[Order, ...] = ("index", "weight", "magnitude", "effect")


@dataclass(frozen=True, eq=False)
class Decomposition:
    """One instance as the sum of its K terms, on the prototype grid.

    A term is weight times prototype. Prototypes may be negative themselves, so the sign of a
    contribution is that of the term at a place, not that of the coefficient alone.

    Examples
    --------
    >>> import maskprism
    >>> from maskprism.datasets.scenes import draw_scene
    >>> prediction = maskprism.load("sample").predict(draw_scene(3).image)
    >>> decomposition = Decomposition(prediction[0])
    >>> bool(abs(decomposition.terms.sum(axis=0) - decomposition.logits).max() < 1e-3)
    True
    """

    instance: Instance

    def __post_init__(self) -> None:
        if np.ndim(self.instance.weights) != 1:
            raise InputError("a decomposition is of one instance, not of a prediction; take prediction[0] or another")

    @cached_property
    def terms(self) -> Float32[np.ndarray, "K h w"]:
        """Weight times prototype; they sum to the logits, up to float32 rounding."""
        return self.instance.weights[:, None, None] * self.instance.prototypes

    @cached_property
    def logits(self) -> Float32[np.ndarray, "h w"]:
        """The sum of the terms: the mask is where it is above 0, inside the box."""
        return np.tensordot(self.instance.weights, self.instance.prototypes, axes=1)

    @cached_property
    def positive(self) -> Float32[np.ndarray, "h w"]:
        """The positive evidence at each position: the sum of the positive contributions."""
        return np.maximum(self.terms, 0).sum(axis=0)

    @cached_property
    def negative(self) -> Float32[np.ndarray, "h w"]:
        """The negative evidence: the sum of the negative contributions, 0 or below."""
        return np.minimum(self.terms, 0).sum(axis=0)

    @cached_property
    def box_window(self) -> tuple[slice, slice]:
        """The (rows, columns) of the grid inside the box; at least one cell."""
        x1, y1, x2, y2 = self.instance.letterbox.to_grid(self.instance.canvas_box)
        height, width = self.instance.letterbox.grid_hw
        return _at_least_one(pixels_between(y1, y2, height), y1, height), _at_least_one(
            pixels_between(x1, x2, width), x1, width
        )

    @cached_property
    def effects(self) -> Float32[np.ndarray, " K"]:
        """How much each prototype moves the logits inside the box: the mean of |term| there."""
        return np.abs(self.terms[:, *self.box_window]).mean(axis=(1, 2))

    @cached_property
    def mean_contributions(self) -> Float32[np.ndarray, " K"]:
        """The mean of each term inside the box, with its sign."""
        return self.terms[:, *self.box_window].mean(axis=(1, 2))

    def order(self, by: Order = "effect") -> Int64[np.ndarray, " K"]:
        """Prototype indices, sorted.

        "index": 0 to K - 1; "weight": most positive weight first; "magnitude": largest |weight|
        first; "effect": largest mean |term| inside the box first. Ties keep index order.
        """
        if by == "index":
            return np.arange(len(self.instance.weights))
        if by == "weight":
            key = self.instance.weights
        elif by == "magnitude":
            key = np.abs(self.instance.weights)
        elif by == "effect":
            key = self.effects
        else:
            raise InputError(f"order is {by!r}; expected one of {', '.join(map(repr, ORDERS))}")
        return np.argsort(-key, kind="stable")

    def partial(self, order: Sequence[int] | Int64[np.ndarray, " M"] | None = None) -> Float32[np.ndarray, "M h w"]:
        """Return running sums of the terms, in the order of their effect unless another one is given.

        With all K prototypes in the order, the last sum is the logits.
        """
        chosen = self.order() if order is None else check_indices(order, len(self.terms))
        return np.cumsum(self.terms[chosen], axis=0)


@dataclass(frozen=True, eq=False)
class Edit:
    """A change of coefficients: from a `Prediction` to the `Prediction` it would have been.

    Applied in this order: `keep` zeroes every other coefficient, `drop` zeroes these, `scale` multiplies, `set`
    replaces (in the units of `Prediction.coefficients`). Keys are prototype indices, 0 to K - 1. `instances` limits the
    edit to some instances.

    Raises
    ------
    InputError
        For indices that are not a collection.

    Examples
    --------
    >>> import maskprism
    >>> from maskprism.datasets.scenes import draw_scene
    >>> prediction = maskprism.load("sample").predict(draw_scene(3).image)
    >>> strongest = Decomposition(prediction[0]).order()[0]
    >>> edited = Edit(drop=[strongest]).apply(prediction)
    >>> bool((edited.masks()[0] != prediction.masks()[0]).any())
    True
    """

    keep: Iterable[int] | None = None
    drop: Iterable[int] = ()
    scale: Mapping[int, float] = field(default_factory=dict)
    set: Mapping[int, float] = field(default_factory=dict)
    instances: Iterable[int] | None = None

    def __post_init__(self) -> None:
        for name in ("keep", "drop", "instances"):
            indices = getattr(self, name)
            if indices is not None and not isinstance(indices, Iterable):
                raise InputError(f"{name} is {indices!r}; expected a collection of indices, such as [{indices!r}]")
            if indices is None and name == "drop":
                raise InputError("drop is None; expected a collection of indices, () for none")
            # A generator could be applied only once.
            object.__setattr__(self, name, None if indices is None else tuple(indices))
        for name in ("scale", "set"):
            _check_numbers(name, getattr(self, name))

    def apply(self, prediction: Prediction) -> Prediction:
        """Return the prediction with edited coefficients.

        Raises
        ------
        InputError
            For an index out of range.
        """
        k = len(prediction.prototypes)
        if self.instances is None:
            rows = np.arange(len(prediction))
        else:
            rows = check_indices(self.instances, len(prediction), "instance", "prediction", "instances")
        edited = prediction.coefficients[rows].copy()
        if self.keep is not None:
            others = np.setdiff1d(np.arange(k), check_indices(self.keep, k))
            edited[:, others] = 0
        edited[:, check_indices(self.drop, k)] = 0
        edited[:, check_indices(self.scale, k)] *= np.fromiter(self.scale.values(), np.float32, len(self.scale))
        edited[:, check_indices(self.set, k)] = np.fromiter(self.set.values(), np.float32, len(self.set))
        coefficients = prediction.coefficients.copy()
        coefficients[rows] = edited
        return replace(prediction, coefficients=coefficients)


def _check_numbers(name: str, values: Any) -> None:
    if not isinstance(values, Mapping):
        raise InputError(f"{name} is {values!r}; expected numbers by prototype index, such as {{3: 0.5}}")
    for index, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise InputError(f"{name}[{index!r}] is {value!r}; expected a finite number")


def check_indices(
    indices: Iterable[int],
    count: int,
    noun: str = "coefficient index",
    owner: str = "model",
    plural: str = "prototypes",
) -> Int64[np.ndarray, " M"]:
    """`indices` as an array.

    Raises
    ------
    InputError
        If one is not an integer from 0 to `count` - 1.
    """
    listed = list(indices)
    for index in listed:
        if isinstance(index, bool) or not hasattr(index, "__index__"):
            raise InputError(f"{noun} {index!r} is not an integer")
        if not 0 <= index < count:
            raise InputError(
                f"{noun} {index} is out of range: the {owner} has {count} {plural}"
                + (f" (0..{count - 1})" if count else "")
            )
    return np.array(listed, dtype=np.int64)


def _at_least_one(window: slice, start: float, length: int) -> slice:
    if window.stop > window.start:
        return window
    cell = int(np.clip(start, 0, length - 1)) if np.isfinite(start) else 0
    return slice(cell, cell + 1)
