"""Several checkpoints on the same images: mask AP of each with its interval, and which differ for sure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from maskprism.analysis.dataset.ap_bootstrap import intervals_of
from maskprism.analysis.dataset.resampled_ap import ResampledAP
from maskprism.analysis.intervals import Interval
from maskprism.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float64

    from maskprism.analysis.dataset.diagnosis import Diagnosis

_EPOCH = re.compile(r"(?:^|[^a-z])(?:epoch|ep)[_-]?0*(\d+)", re.IGNORECASE)


class Checkpoint(NamedTuple):
    """A model that was diagnosed.

    Attributes
    ----------
    name
        Which tells it from the others.
    epoch
        The epoch that its name carries; None for none.
    """

    name: str
    epoch: int | None
    diagnosis: Diagnosis


@dataclass(frozen=True, eq=False)
class Checkpoints:
    """Checkpoints that were diagnosed on the same images, in the order of their epochs where all have one.

    Raises
    ------
    InputError
        For fewer than two, or other images.
    """

    rows: Sequence[Checkpoint]

    def __post_init__(self) -> None:
        if len(self.rows) < 2:
            raise InputError("expected two checkpoints or more to compare")
        first, *others = ([one.name for one in row.diagnosis.gains.examined] for row in self.rows)
        if any(names != first for names in others):
            raise InputError("the checkpoints were not diagnosed on the same images, so they cannot be compared")
        if self.with_epochs:
            object.__setattr__(self, "rows", sorted(self.rows, key=lambda row: row.epoch or 0))

    @property
    def with_epochs(self) -> bool:
        """Whether the name of each carries another epoch."""
        epochs = [row.epoch for row in self.rows]
        return None not in epochs and len(set(epochs)) == len(epochs)

    @cached_property
    def best(self) -> int:
        """Return which has the highest mask AP."""
        return max(range(len(self.rows)), key=lambda at: self.rows[at].diagnosis.precision["predict"].ap)

    @cached_property
    def ahead(self) -> list[Interval]:
        """By how much the best is ahead of each, over the same resamples of images.

        The intervals hold for all pairs, since the best was chosen after looking. NaN ends with too few images.
        """
        scored = [ResampledAP(row.diagnosis.gains.now) for row in self.rows]
        pairs = len(scored) * (len(scored) - 1) // 2
        n_images = self.rows[0].diagnosis.images

        def behind(weights: Float64[np.ndarray, "R I"]) -> Float64[np.ndarray, "R models"]:
            import numpy as np

            values = np.stack([one(weights) for one in scored], axis=1)
            return values[:, [self.best]] - values

        return intervals_of(behind, n_images, comparisons=pairs)

    def sentences(self) -> list[str]:
        """Return which is best, and from which it differs for sure."""
        best = self.rows[self.best]
        found = [f"{best.name} has the highest mask AP, {best.diagnosis.intervals.precision['predict'].plain()}."]
        others = [(row.name, gap) for row, gap in zip(self.rows, self.ahead, strict=True) if row is not best]
        sure = [f"{name} by {gap.plain()}" for name, gap in others if gap.low > 0]
        unsure = [name for name, gap in others if not gap.low > 0]
        if sure:
            found.append(f"It is ahead of {', of '.join(sure)}.")
        if unsure:
            found.append(f"These images cannot tell it from {', '.join(unsure)}.")
        return found


def names_of(files: Sequence[Path]) -> list[str]:
    """Return names that tell files apart: their stems, or with the folders in which they differ.

    Raises
    ------
    InputError
        For a file that is given twice.
    """
    if len({one.absolute() for one in files}) < len(files):
        raise InputError("a model is given twice; expected different checkpoints")
    for depth in range(1, max(len(one.absolute().parts) for one in files) + 1):
        names = ["-".join([*one.absolute().parts[-depth:-1], one.stem]) for one in files]
        if len(set(names)) == len(files):
            return names
    return [one.name for one in files]


def epoch_of(name: str) -> int | None:
    """Return the epoch in the name of a checkpoint, such as epoch10.pt; None for none."""
    found = _EPOCH.search(name)
    return int(found[1]) if found else None
