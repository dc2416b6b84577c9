"""Which weights of two ONNX files of one model differ, and to how many bits a layer was rounded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from maskprism.models.onnx.file import read_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import ModelProto

_FEWEST_WEIGHTS = 64
"""A channel of fewer weights has few values anyway."""
_MOST_BITS = 8


class ChangedWeight(NamedTuple):
    """A tensor of weights that differs.

    Attributes
    ----------
    name
        In the files.
    change
        Root mean square of the difference over that of A's weights.
    bits
        To how many bits it was rounded in B, for the whole tensor or for each output channel; None where it was not.
    """

    name: str
    change: float
    bits: int | None


@dataclass(frozen=True)
class ChangedWeights:
    """The tensors of weights that differ, of how many that both files have."""

    changed: tuple[ChangedWeight, ...]
    count: int

    @property
    def rounded(self) -> tuple[ChangedWeight, ...]:
        """Those that were rounded to few bits."""
        return tuple(one for one in self.changed if one.bits is not None)


def changed_weights(a: Path, b: Path) -> ChangedWeights | None:
    """Compare the weights of two ONNX files, tensor by tensor.

    Parameters
    ----------
    a, b
        The files.

    Returns
    -------
    ChangedWeights or None
        None if the files do not have the same tensors, as of two exporters or two sizes of model.

    Raises
    ------
    MissingExtraError
        Without the package onnx.
    ModelError
        For a file that cannot be read.
    """
    of_a, of_b = (dict(_weights(read_onnx(path), path)) for path in (a, b))
    if not of_a or {name: one.shape for name, one in of_a.items()} != {name: one.shape for name, one in of_b.items()}:
        return None
    changed = [
        ChangedWeight(name, _distance(one, of_b[name]), _bits(one, of_b[name]))
        for name, one in of_a.items()
        if not np.array_equal(one, of_b[name])
    ]
    return ChangedWeights(tuple(changed), len(of_a))


def _weights(model: ModelProto, path: Path) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    from onnx import numpy_helper

    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor, base_dir=str(path.parent))
        if values.ndim > 1 and values.dtype.kind == "f":
            yield tensor.name, values


def _distance(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    own = a.astype(np.float64)
    size = float(np.sqrt(np.mean(np.square(own))))
    return float(np.sqrt(np.mean(np.square(b - own)))) / size if size else float("inf")


def _bits(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> int | None:
    """Return how many bits tell B's values apart, where A's need more."""
    a, b = (one.astype(np.float32) + 0 for one in (a, b))  # zero has no sign
    for own, theirs in ((a.reshape(1, -1), b.reshape(1, -1)), (a.reshape(len(a), -1), b.reshape(len(b), -1))):
        if own.shape[1] < _FEWEST_WEIGHTS:
            continue
        values_a, values_b = (max(len(np.unique(row)) for row in one) for one in (own, theirs))
        bits = int(np.ceil(np.log2(max(values_b, 2))))
        if bits <= _MOST_BITS and values_b < values_a:
            return bits
    return None
