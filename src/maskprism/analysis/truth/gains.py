"""What a change of a model gains against the ground truth: mask IoU before and after, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskprism.analysis.intervals import Interval, claimed_interval
from maskprism.analysis.truth.overlaps import SIZES

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64


class Change(NamedTuple):
    """Of a group of instances: how many, mean mask IoU before and after, and the gain.

    The gain has no interval (NaN) where they are in too few images.
    """

    group: str
    instances: int
    before: float
    after: float
    gain: Interval

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        return self._asdict() | {"gain": self.gain._asdict()}


@dataclass(frozen=True, eq=False)
class Gains:
    """Mask IoU of N instances with their ground truth, before and after.

    Attributes
    ----------
    image
        Which image each is in, any number.
    areas
        Areas of the ground truth, in pixels of the image.
    classes
        names.
    """

    image: Int64[np.ndarray, " N"]
    before: Float[np.ndarray, " N"]
    after: Float[np.ndarray, " N"]
    areas: Float[np.ndarray, " N"]
    classes: Sequence[str]

    def __len__(self) -> int:
        return len(self.image)

    @cached_property
    def change(self) -> Change:
        """Over all instances; means are nan without any."""
        return self._of("all", np.ones(len(self), dtype=bool))

    def by_size(self) -> list[Change]:
        """For each size of object, as in COCO; empty groups are left out."""
        groups = {name: (self.areas >= low) & (self.areas < high) for name, (low, high) in SIZES.items()}
        return [self._of(name, members) for name, members in groups.items() if members.any()]

    def by_class(self) -> list[Change]:
        """For each class, most instances first."""
        names = np.array(self.classes, dtype=object)
        return [self._of(name, names == name) for name, _ in Counter(self.classes).most_common()]

    def _of(self, group: str, members: Bool[np.ndarray, " N"]) -> Change:
        before, after = self.before[members], self.after[members]
        first, last = (float(one.mean()) if len(one) else float("nan") for one in (before, after))
        return Change(group, len(before), first, last, claimed_interval(after - before, self.image[members]))
