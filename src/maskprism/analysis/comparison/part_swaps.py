"""Which part of a model changed a mask: coefficients, prototypes and boxes swapped one at a time.

A mask is coefficients on prototypes, cropped by a box. Going from the mask of model A to that of
model B by exchanging one of the three after the other splits the loss 1 - IoU(A, B) into three
parts that add up to it exactly. The split depends on the order, so there is also the mean over all
six orders: the Shapley values of the three parts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Literal

import numpy as np

from maskprism.analysis.truth.overlaps import Region

if TYPE_CHECKING:
    from jaxtyping import Float64

    from maskprism.analysis.comparison.similarity import Translation
    from maskprism.core.masks import Patch
    from maskprism.core.prediction import Prediction

Part = Literal["coefficients", "prototypes", "boxes"]
PARTS: tuple[Part, ...] = ("coefficients", "prototypes", "boxes")
"""Also the order of the one path that is reported by itself."""
ORDERS: tuple[tuple[Part, ...], ...] = tuple(permutations(PARTS))
_SUBSETS = tuple(frozenset(chosen) for count in range(4) for chosen in combinations(PARTS, count))
_CHUNK = 32


@dataclass(frozen=True, eq=False)
class Swap:
    """The loss 1 - IoU against A's own mask after exchanging each subset of the parts, for N instances."""

    losses: dict[frozenset[Part], Float64[np.ndarray, " N"]]

    @property
    def total(self) -> Float64[np.ndarray, " N"]:
        """1 - IoU of the masks of A and B."""
        return self.losses[frozenset(PARTS)]

    def path(self, order: tuple[Part, ...] = PARTS) -> dict[Part, Float64[np.ndarray, " N"]]:
        """Return what each exchange adds to the loss, in this order; sums to the total. May be negative."""
        done: frozenset[Part] = frozenset()
        steps: dict[Part, Float64[np.ndarray, " N"]] = {}
        for part in order:
            after = done | {part}
            steps[part] = self.losses[after] - self.losses[done]
            done = after
        return steps

    @property
    def shares(self) -> dict[Part, Float64[np.ndarray, " N"]]:
        """The mean of `path` over all six orders (Shapley values); sums to the total."""
        paths = [self.path(order) for order in ORDERS]
        return {part: np.mean([path[part] for path in paths], axis=0) for part in PARTS}


def swap(a: Prediction, b: Prediction, translation: Translation | None = None) -> Swap:
    """Exchange coefficients, prototypes and boxes of N instances of A by those of the same N instances of B.

    Masks are compared at image size, under the rule of A. Without a translation coefficients
    are taken over unchanged: for two versions of one model.
    """
    losses: dict[frozenset[Part], list[Float64[np.ndarray, " N"]]] = {subset: [np.zeros(0)] for subset in _SUBSETS}
    for start in range(0, len(a), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        own = swapped(a[chunk], b[chunk], ()).crops("image")
        for subset in _SUBSETS:
            other = swapped(a[chunk], b[chunk], subset, translation).crops("image") if subset else own
            losses[subset].append(1 - paired_iou(own, other))
    return Swap({subset: np.concatenate(found) for subset, found in losses.items()})


def loss(a: Prediction, b: Prediction) -> Float64[np.ndarray, " N"]:
    """1 - IoU of the masks of N instances of A and the same N of B, as `swap` draws them."""
    return 1 - paired_iou(swapped(a, b, ()).crops("image"), swapped(a, b, PARTS).crops("image"))


def swapped(
    a: Prediction, b: Prediction, parts: Collection[Part], translation: Translation | None = None
) -> Prediction:
    """Return the instances of A with these parts from B, on the canvas that the prototypes belong to."""
    base = b if "prototypes" in parts else a
    donor = b if "coefficients" in parts else a
    weights = donor.weights
    if translation is not None and donor is not base:
        weights = (weights @ (translation.b_to_a if donor is b else translation.a_to_b)).astype(np.float32)
    framed = b if "boxes" in parts else a
    boxes = framed.canvas_boxes
    if boxes is not None and framed.letterbox != base.letterbox:
        boxes = base.letterbox.to_canvas(framed.letterbox.to_image(boxes))
    return replace(
        a,
        canvas_boxes=boxes,
        coefficients=weights,
        prototypes=base.prototypes,
        letterbox=base.letterbox,
        rule=replace(a.rule, objectness=False),  # `weights` have it already
        objectness=None,
    )


def paired_iou(a: Sequence[Patch], b: Sequence[Patch]) -> Float64[np.ndarray, " N"]:
    """Intersection over union of N pairs of masks; 1 for two empty ones."""
    found = np.ones(len(a))
    for index, (one, other) in enumerate(zip(map(Region._make, a), map(Region._make, b), strict=True)):
        shared = one.shared_with(other)
        if union := one.area + other.area - shared:
            found[index] = shared / union
    return found
