"""Outputs that a device recorded, in the place of a runtime that computes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from maskprism.models.families.raw_outputs import Assembled
from maskprism.models.runtimes import NetworkInput

if TYPE_CHECKING:
    from jaxtyping import Float32


class RecordedRuntime:
    """What was recorded for one image, whatever image is asked for.

    Parameters
    ----------
    recorded
        Outputs in the form of a YOLO-seg export.
    names
        Class names by class id; may be empty.
    name
        What the outputs are called in messages.
    """

    threadsafe = True
    sha256 = "0" * 64

    def __init__(self, recorded: Assembled, names: Mapping[int, str], name: str) -> None:
        self.name = name
        self.input = NetworkInput(1, *recorded.canvas_hw)
        self.metadata: dict[str, Any] = {"task": "segment"} | ({"names": dict(names)} if names else {})
        self._recorded = recorded

    def __call__(self, batch: Float32[np.ndarray, "B ..."]) -> list[Float32[np.ndarray, "..."]]:
        """Return the recorded outputs."""
        return [self._recorded.table, self._recorded.prototypes]
