"""What the outputs of two models have in common: equal parts, another order, and changes of A's that give B's.

The usual faults of outputs are tried one after the other on what A says, as `input_faults` tries those of the input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskprism._common.text import in_brief
from maskprism.analysis.prototypes.covariance import RunningCovariance
from maskprism.core.masks import sigmoid

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int64

    from maskprism.analysis.comparison.similarity import PrototypeSimilarity
    from maskprism.core.prediction import Prediction

    Planes = Float32[np.ndarray, "K h w"]

EQUAL = 1e-3
"""Parts that differ by less than this share of their size are equal up to rounding."""
_MOST = 0.9
"""Share of the pairs that says what all of them are."""
_OTHER = 0.3
"""A prototype stands at another index only if it differs from its namesake by this share of its size."""
RESTORED = 0.25
"""A change explains a difference if it leaves less than this share of it."""
_DIFFERENT = 0.01
"""Prototypes that differ by less than this share of their spread are the same but for the precision."""
_MUCH_LESS = 0.1
_FEWEST_PAIRS = 5
"""With fewer pairs scores, boxes and coefficients are not related to each other."""
_SCALED, _SCALE_SPREAD = 0.02, 0.01
"""Boxes are scaled by this at least, and by the same but for this."""
_INT8_VALUES, _ROUNDED, _OFF_GRID, _SAME_STEP = 256, 1e-4, 0.1, 0.05
"""Values of 8 bits; gaps that are rounding; how far multiples may be from whole ones; how far two steps may differ."""
_IMAGES = 2
"""Images of which prototypes are looked at to recognise how they were moved."""


def _moved(planes: Planes, down: float, right: float) -> Planes:
    """Content moved down and right by whole or half cells; beyond the edge the planes are not defined (NaN)."""
    for axis, step in ((1, down), (2, right)):
        low = int(np.floor(step))
        rolled = _rolled(planes, low, axis)
        planes = rolled if step == low else (rolled + _rolled(planes, low + 1, axis)) / 2
    return planes


def _rolled(planes: Planes, step: int, axis: int) -> Planes:
    found = np.full_like(planes, np.nan)
    length = planes.shape[axis]
    if abs(step) < length:
        to, of = [slice(None)] * 3, [slice(None)] * 3
        to[axis] = slice(max(step, 0), length + min(step, 0))
        of[axis] = slice(max(-step, 0), length + min(-step, 0))
        found[tuple(to)] = planes[tuple(of)]
    return found


def _shift_name(down: float, right: float) -> str:
    parts = [
        f"{abs(step):g} cell{'' if abs(step) <= 1 else 's'} {way[step < 0]}"
        for step, way in ((down, ("down", "up")), (right, ("right", "left")))
        if step
    ]
    return f"shifted by {' and '.join(parts)}"


# Zero first, and whole cells before halves: of equal explanations the simplest is named.
_STEPS = (0, 1, -1, 0.5, -0.5, 2, -2)
_CHANGES: dict[str, Callable[[Any], Any]] = {
    "transposed (height and width exchanged)": lambda planes: planes.transpose(0, 2, 1),
    "mirrored left to right": lambda planes: planes[:, :, ::-1],
    "mirrored top to bottom": lambda planes: planes[:, ::-1],
    "rotated by 180°": lambda planes: planes[:, ::-1, ::-1],
    "rotated by 90° clockwise": lambda planes: planes.transpose(0, 2, 1)[:, :, ::-1],
    "rotated by 90° counterclockwise": lambda planes: planes.transpose(0, 2, 1)[:, ::-1],
    "of the opposite sign": lambda planes: -planes,
    "read with their axes in the wrong order (height, width, channels in memory, read as channels, height, width)": (
        lambda planes: planes.transpose(1, 2, 0).reshape(planes.shape)
    ),
    **{
        _shift_name(down, right): partial(_moved, down=down, right=right)
        for down in _STEPS
        for right in _STEPS
        if down or right
    },
}


@dataclass(frozen=True)
class Relation:
    """How B's outputs follow from A's, as far as one sentence can say it.

    Attributes
    ----------
    equal
        Parts that are equal up to rounding: "scores", "boxes", "coefficients", "prototypes"; None without a pair.
    prototype_order, coefficient_order
        B's index of each prototype, and each coefficient, of A, where that is another order.
    change
        Change of the prototypes of `changed`, such as "transposed (height and width exchanged)".
    scores
        Change of the scores, such as "without the objectness".
    box_scale
        Width and height of B's boxes over those of A's, where that is the same for all, about the same centres.
    shared_step
        Boxes and coefficients of B are multiples of this step, which is too coarse for one of them; in pixels.
    """

    equal: frozenset[str] | None
    prototype_order: tuple[int, ...] | None
    coefficient_order: tuple[int, ...] | None
    change: str | None
    changed: tuple[int, ...]
    count: int = 0
    scores: str | None = None
    box_scale: tuple[float, float] | None = None
    shared_step: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "equal": None if self.equal is None else sorted(self.equal),
            "prototype_order": self.prototype_order,
            "coefficient_order": self.coefficient_order,
            "change": self.change,
            "changed_prototypes": list(self.changed),
            "scores": self.scores,
            "box_scale": self.box_scale,
            "shared_step": self.shared_step,
        }

    @property
    def same_order(self) -> bool:
        """Whether prototypes and coefficients are in the same other order, so that masks stay the same."""
        return self.prototype_order is not None and self.prototype_order == self.coefficient_order

    @property
    def coefficients_equal(self) -> bool:
        """Whether coefficients of pairs are equal up to rounding, so that they need no translation."""
        return self.equal is not None and "coefficients" in self.equal

    @property
    def all_differ(self) -> bool:
        """Whether scores, boxes and coefficients of pairs differ together."""
        return self.equal is not None and not self.equal & {"scores", "boxes", "coefficients"}

    def may_start_in_the_input(self, similarity: PrototypeSimilarity) -> bool:
        """Whether all prototypes differ, and neither an order nor, with everything else equal, a change says why."""
        explained = self.prototype_order is not None or (self.change is not None and not self.all_differ)
        return not explained and all_prototypes_differ(similarity)

    def sentences(self) -> list[str]:
        """Return one sentence for each thing that was recognised."""
        found = []
        if self.same_order and self.prototype_order is not None:
            found.append(
                f"B has A's prototypes in another order, and its coefficients in the same order, so masks do not "
                f"change: {_order(self.prototype_order)}."
            )
        else:
            for what, order in (("prototypes", self.prototype_order), ("coefficients", self.coefficient_order)):
                if order is not None:
                    other = "coefficients" if what == "prototypes" else "prototypes"
                    found.append(
                        f"B has A's {what} in another order, and its {other} not in that order, so masks are made of "
                        f"the wrong products: {_order(order)}."
                    )
        if self.change is not None:
            several = f"prototypes {in_brief(self.changed, 8)} are A's"
            if len(self.changed) == self.count:
                several = f"prototypes are all A's {self.count}"
            which = several if len(self.changed) > 1 else f"prototype {self.changed[0]} is A's"
            found.append(f"B's {which} {self.change}.")
        if self.shared_step is not None:
            found.append(
                f"B's boxes and coefficients are multiples of one step ({self.shared_step:.3g} pixels of a box): both "
                "are in one int8 tensor, whose scale fits one of them only. Export the coefficients as a tensor of "
                "their own, or in higher precision."
            )
        if self.box_scale is not None:
            width, height = self.box_scale
            effect = "too much of each mask is cropped" if min(width, height) < 1 else "masks are cropped too late"
            found.append(
                f"B's boxes are A's made {width:.3g} times as wide and {height:.3g} times as high about the same "
                f"centre: {effect}."
            )
        if self.scores is not None:
            found.append(f"B's scores are A's {self.scores}.")
        return found


NO_RELATION = Relation(None, None, None, None, ())
"""Nothing is known, as between models of different numbers of prototypes."""


def all_prototypes_differ(similarity: PrototypeSimilarity) -> bool:
    """Return whether every prototype of B differs from A's of the same index, none much less than the others."""
    errors = similarity.errors
    if similarity.count_a != similarity.count_b or not len(errors):
        return False
    return bool(np.median(errors) > _DIFFERENT and errors.min() > _MUCH_LESS * np.median(errors))


def _order(order: tuple[int, ...]) -> str:
    moved = [(a, b) for a, b in enumerate(order) if a != b]
    if len(moved) == 2:
        return f"{moved[0][0]} and {moved[1][0]} are exchanged"
    shown = ", ".join(f"{a} of A is {b} of B" for a, b in moved[:6])
    return shown if len(moved) <= 6 else f"{shown}, and {len(moved) - 6} more"


def coefficient_change(a: Prediction, b: Prediction) -> Float64[np.ndarray, " N"]:
    """Return how far the coefficients of N instances of B are from those of the same N of A, over the size of A's."""
    own = a.coefficients.astype(np.float64)
    return np.linalg.norm(b.coefficients - own, axis=1) / np.maximum(np.linalg.norm(own, axis=1), 1e-12)


class _PairedOutputs(NamedTuple):
    """What A and B say of N instances at the same positions."""

    scores: Float64[np.ndarray, "N 2"]
    objectness: Float64[np.ndarray, " N"]
    has_objectness: Bool[np.ndarray, " N"]
    sides: Float64[np.ndarray, "N 2 2"]
    centres: Float64[np.ndarray, "N 2 2"]
    coefficients: Float64[np.ndarray, "N 2 K"]
    canvas: Float64[np.ndarray, "N 2"]

    @classmethod
    def of(cls, a: Prediction, b: Prediction) -> _PairedOutputs:
        both = (a, b)
        boxes = np.stack([one.letterbox.to_image(one.extents).astype(np.float64) for one in both], axis=1)
        own = np.stack([one.extents.astype(np.float64) for one in both], axis=1)
        height, width = b.letterbox.canvas_hw
        return cls(
            np.stack([one.scores for one in both], axis=1).astype(np.float64),
            np.ones(len(a)) if a.objectness is None else a.objectness.astype(np.float64),
            np.full(len(a), a.objectness is not None),
            own[..., 2:] - own[..., :2],
            (boxes[..., :2] + boxes[..., 2:]) / 2,
            np.stack([one.coefficients for one in both], axis=1).astype(np.float64),
            np.tile((float(width), float(height)), (len(a), 1)),
        )

    @classmethod
    def joined(cls, parts: Sequence[_PairedOutputs]) -> _PairedOutputs:
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def score_change(self) -> str | None:
        """Return the change of A's scores that leaves least of the difference, if it leaves little."""
        own, theirs = self.scores.T
        if len(own) < _FEWEST_PAIRS:
            return None
        with np.errstate(divide="ignore"):
            known = {
                "without the objectness (a factor is missing)": own / self.objectness,
                "times the objectness once more": own * self.objectness,
                "after a second sigmoid": np.where(
                    self.has_objectness, sigmoid(own / self.objectness) * sigmoid(self.objectness), sigmoid(own)
                ),
                "without the sigmoid": np.log(own) - np.log1p(-own),
            }
        now = float(np.sqrt(np.mean(np.square(theirs - own))))
        left = {name: float(np.sqrt(np.mean(np.square(theirs - one)))) for name, one in known.items()}
        best = min(left, key=lambda name: left[name])
        return best if now > EQUAL and left[best] < RESTORED * now else None

    def box_scale(self) -> tuple[float, float] | None:
        """Return by how much B's boxes are smaller or larger than A's, if that is the same for nearly all."""
        if len(self.sides) < _FEWEST_PAIRS:
            return None
        own, theirs = self.sides[:, 0], self.sides[:, 1]
        ratios = theirs / np.maximum(own, 1e-6)
        scale = np.median(ratios, axis=0)
        spread = np.abs(ratios - scale) < np.maximum(_SCALE_SPREAD, 1 / np.maximum(own, 1))
        moved = np.abs(self.centres[:, 1] - self.centres[:, 0]).max(axis=1) < np.maximum(own.max(axis=1) / 50, 0.5)
        same = spread.all(axis=1) & moved
        if np.abs(scale - 1).max() < _SCALED or np.mean(same) < _MOST:
            return None
        return float(scale[0]), float(scale[1])

    def shared_step(self) -> float | None:
        """Return the step of B's boxes, in pixels, if its coefficients are multiples of the same number."""
        sides, coefficients = self.sides[:, 1], self.coefficients[:, 1]
        if len(sides) < _FEWEST_PAIRS or np.array_equal(coefficients, self.coefficients[:, 0]):
            return None
        of_boxes, of_coefficients = _step(sides), _step(coefficients)
        if of_boxes is None or _on_grid(self.sides[:, 0], of_boxes):
            return None
        if of_coefficients is None:  # so coarse that all of them are zero
            return None if coefficients.any() else of_boxes
        steps = (of_coefficients, *(of_coefficients * self.canvas[0]))
        return of_boxes if any(abs(step / of_boxes - 1) < _SAME_STEP for step in steps) else None


def _step(values: Float64[np.ndarray, "..."]) -> float | None:
    """Return the step of which all values are multiples; None where there is none, or all are zero."""
    sizes = np.unique(np.abs(values).round(5))
    gaps = np.diff(np.append(0.0, sizes))
    gaps = gaps[gaps > _ROUNDED * max(float(sizes.max(initial=0)), 1e-9)]
    if not len(gaps):
        return None
    step = float(gaps.min())
    step *= float(np.median((sizes / step)[sizes > 0] / np.maximum(np.round((sizes / step)[sizes > 0]), 1)))
    return step if _on_grid(values, step) and len(sizes) <= _INT8_VALUES else None


def _on_grid(values: Float64[np.ndarray, "..."], step: float) -> bool:
    multiples = np.ravel(values) / step
    return bool(np.mean(np.abs(multiples - np.round(multiples)) < _OFF_GRID) >= _MOST)


@dataclass
class Relations:
    """What is gathered of pairs and prototypes, image by image, to recognise a `Relation`."""

    count: int
    same_count: bool
    pairs: list[tuple[float, float, float]] = field(default_factory=list)
    outputs: list[_PairedOutputs] = field(default_factory=list)
    shifts_xy: list[Float32[np.ndarray, " 2"]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._coefficients = RunningCovariance(2 * self.count)
        self._squares = np.zeros((1 + len(_CHANGES), self.count))
        self._sizes = np.zeros_like(self._squares)
        self._images = 0

    def update(self, a: Prediction, b: Prediction, at_same_position: Int64[np.ndarray, "M 2"]) -> None:
        """Add one image; pairs are instances at the same position, whatever their classes."""
        left, right = a[at_same_position[:, 0]], b[at_same_position[:, 1]]
        boxes = [one.letterbox.to_image(one.extents) for one in (left, right)]
        sides = np.maximum(np.abs(boxes[0][:, 2:] - boxes[0][:, :2]).max(axis=1, initial=0), 1)
        moved = np.abs(boxes[1] - boxes[0]).max(axis=1, initial=0) / sides
        canvas = right.extents - left.extents
        self.shifts_xy += list((canvas[:, :2] + canvas[:, 2:]) / 2)
        if not self.same_count:
            return
        apart = coefficient_change(left, right)
        drift = np.abs(right.scores - left.scores)
        self.outputs.append(_PairedOutputs.of(left, right))
        self.pairs += list(zip(drift.tolist(), moved.tolist(), apart.tolist(), strict=True))
        self._coefficients.update(np.concatenate([left.coefficients, right.coefficients], axis=1))
        self._add_planes(a.prototypes, b.prototypes)

    @property
    def shift_xy(self) -> tuple[float, float] | None:
        """How far B's boxes lie from A's on the letterboxed input, in pixels; the median over pairs, None without."""
        if not self.shifts_xy:
            return None
        right, down = np.median(np.array(self.shifts_xy), axis=0).tolist()
        return right, down

    def _add_planes(self, a: Planes, b: Planes) -> None:
        if self._images == _IMAGES or np.array_equal(a, b) or a.shape[1:] not in (b.shape[1:], b.shape[:0:-1]):
            return
        self._images += 1
        for row, change in enumerate((lambda planes: planes, *_CHANGES.values())):
            planes = change(a)
            inside = np.isfinite(planes[0])
            own = planes[:, inside]
            spread = own - own.mean(axis=1, keepdims=True)
            self._sizes[row] += np.einsum("kp,kp->k", spread, spread)
            if planes.shape != b.shape:  # of a grid that is no square
                self._squares[row] = np.inf
                continue
            apart = own - b[:, inside]
            self._squares[row] += np.einsum("kp,kp->k", apart, apart)

    def relation(self, similarity: PrototypeSimilarity) -> Relation:
        """Everything that can be recognised."""
        if not self.same_count:
            return NO_RELATION
        prototypes = _order_of(similarity.moments, self.count, own_size=True)
        coefficients = _order_of(self._coefficients, self.count, own_size=False) if self.pairs else None
        change, changed = self._change() if prototypes is None else (None, ())
        paired = _PairedOutputs.joined(self.outputs)
        return Relation(
            self._equal(similarity),
            prototypes,
            coefficients,
            change,
            changed,
            self.count,
            paired.score_change(),
            paired.box_scale(),
            paired.shared_step(),
        )

    def _equal(self, similarity: PrototypeSimilarity) -> frozenset[str] | None:
        if not self.pairs:
            return None
        values = np.array(self.pairs)
        found = {
            part
            for part, column in zip(("scores", "boxes", "coefficients"), values.T, strict=True)
            if np.mean(column < EQUAL) >= _MOST
        }
        return frozenset(found | ({"prototypes"} if similarity.errors.max(initial=0) < EQUAL else set()))

    def _change(self) -> tuple[str | None, tuple[int, ...]]:
        """Return the change that leaves least of the difference of the prototypes that differ.

        None if it leaves much.
        """
        if not self._images:
            return None, ()
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = np.sqrt(self._squares / self._sizes)
        errors[:, self._sizes[0] == 0] = 0
        own = np.where(np.isfinite(errors[0]), errors[0], 1.0)
        median = np.median(own)
        differ = own > 3 * median + EQUAL  # some among others that are equal, or nearly so
        differ = differ if differ.any() and median < _OTHER else own > EQUAL
        if not differ.any():
            return None, ()
        left = np.nan_to_num(errors[1:, differ], nan=np.inf).max(axis=1)
        best = int(np.argmin(left))
        if left[best] > RESTORED * own[differ].min():
            return None, ()
        return list(_CHANGES)[best], tuple(np.flatnonzero(differ).tolist())


def _order_of(moments: RunningCovariance, count: int, *, own_size: bool) -> tuple[int, ...] | None:
    """B's index of each quantity of A, if they are the same quantities in another order."""
    gram = moments.gram
    a, b = slice(None, count), slice(count, None)
    squares = np.diag(gram)[a, None] + np.diag(gram)[None, b] - 2 * gram[a, b]
    sizes = np.diag(moments.covariance)[a] if own_size else np.full(count, np.diag(gram)[a].mean())
    alive = sizes > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        apart: Float64[np.ndarray, "K K"] = np.sqrt(np.maximum(squares, 0) / sizes[:, None])
    order = np.arange(count)
    rows = np.flatnonzero(alive & (np.diag(apart) > _OTHER))
    order[rows] = np.argmin(apart[rows], axis=1) if len(rows) else order[rows]
    if not len(rows) or sorted(order.tolist()) != list(range(count)):
        return None
    best = apart[rows, order[rows]]
    if (order[rows] == rows).any() or best.max() > RESTORED * _OTHER:
        return None
    return tuple(order.tolist())
