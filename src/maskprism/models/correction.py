"""A correction of mask coefficients: c + A c + b, the same for all instances of a level of the pyramid."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from msgspec import Meta, Struct

from maskprism._common.files import write_atomically
from maskprism.errors import InputError
from maskprism.io.untrusted import decode_json, read_regular

if TYPE_CHECKING:
    from jaxtyping import Float32, Float64, Int64

    from maskprism.core.prediction import Prediction

MAX_BYTES = 64 << 20
_EXPECTED = "a correction as maskprism tune writes it"
_Row = Annotated[list[float], Meta(min_length=1, max_length=1024)]


class _Level(Struct):
    map: Annotated[list[_Row], Meta(min_length=1, max_length=1024)]
    offset: _Row


class _File(Struct):
    maskprism_correction: Annotated[int, Meta(ge=1, le=1)]
    network_sha256: str
    levels: Annotated[list[_Level], Meta(min_length=1, max_length=16)]


@dataclass(frozen=True, eq=False)
class Correction:
    """Coefficients c become c + A c + b.

    Attributes
    ----------
    maps
        A of each level of the pyramid, the finest first; one alone is for all levels.
    offsets
        b.
    sha256
        Fingerprint of the model that it was fitted to; None where it is for any.
    """

    maps: Float64[np.ndarray, "L K K"]
    offsets: Float64[np.ndarray, "L K"]
    sha256: str | None = None

    def __post_init__(self) -> None:
        shape = np.shape(self.maps)
        if len(shape) != 3 or shape[1] != shape[2] or np.shape(self.offsets) != shape[:2] or not shape[0]:
            raise InputError(
                f"maps have shape {shape} and offsets {np.shape(self.offsets)}; expected (L, K, K) and (L, K)"
            )
        if not (np.isfinite(self.maps).all() and np.isfinite(self.offsets).all()):
            raise InputError("a correction contains NaN or infinity")

    @classmethod
    def none(cls, prototypes: int, levels: int = 1) -> Correction:
        """Return the correction that changes nothing."""
        return cls(np.zeros((levels, prototypes, prototypes)), np.zeros((levels, prototypes)))

    @property
    def fingerprint(self) -> str:
        """Of its numbers, as hexadecimal digits: equal corrections have the same."""
        numbers = np.concatenate([self.maps.ravel(), self.offsets.ravel()])
        return hashlib.sha256(numbers.astype("<f8").tobytes()).hexdigest()

    @property
    def levels(self) -> int:
        """How many levels have a correction of their own; 1 where all have the same."""
        return len(self.maps)

    @property
    def prototypes(self) -> int:
        """How many coefficients it takes."""
        return self.maps.shape[1]

    @property
    def mixing(self) -> Float64[np.ndarray, "L K K"]:
        """I + A of each level."""
        return np.eye(self.prototypes) + self.maps

    def coefficients(
        self, coefficients: Float32[np.ndarray, "N K"], levels: Int64[np.ndarray, " N"] | None
    ) -> Float32[np.ndarray, "N K"]:
        """Corrected coefficients of instances that come from these levels.

        Raises
        ------
        InputError
            For another number of coefficients, or where levels are needed and unknown.
        """
        if coefficients.shape[1] != self.prototypes:
            raise InputError(
                f"the correction is for {self.prototypes} coefficients; the instances have {coefficients.shape[1]}"
            )
        if self.levels > 1 and levels is None:
            raise InputError(
                f"the correction has {self.levels} levels, and the outputs do not tell from which an instance comes; "
                "fit one for all levels"
            )
        which = np.zeros(len(coefficients), dtype=np.int64) if self.levels == 1 or levels is None else levels
        wide = coefficients.astype(np.float64)
        change = np.matmul(self.maps[which], wide[:, :, None])[:, :, 0] + self.offsets[which]
        return (wide + change).astype(np.float32)

    def apply(self, prediction: Prediction) -> Prediction:
        """Return the prediction with corrected coefficients and all else unchanged; see `coefficients`."""
        return replace(prediction, coefficients=self.coefficients(prediction.coefficients, prediction.levels))

    def write(self, path: str | os.PathLike[str]) -> Path:
        """Write it as JSON, every number unchanged.

        Raises
        ------
        MaskprismError
            Where that fails.
        """
        levels = [
            {"map": map.tolist(), "offset": offset.tolist()}
            for map, offset in zip(self.maps, self.offsets, strict=True)
        ]
        text = json.dumps({"maskprism_correction": 1, "network_sha256": self.sha256 or "", "levels": levels})
        return write_atomically(path, text + "\n")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Correction:
        """Read what `write` wrote.

        Raises
        ------
        InputError
            For anything else.
        """
        file = Path(path)
        found = decode_json(read_regular(file, InputError, limit=MAX_BYTES), _File, str(file), InputError, _EXPECTED)
        k = len(found.levels[0].offset)
        for number, level in enumerate(found.levels):
            if len(level.offset) != k or [len(row) for row in level.map] != [k] * k:
                raise InputError(
                    f"{file}: the map of level {number} is not {k} x {k} with an offset of {k}; expected {_EXPECTED}"
                )
        try:
            return cls(
                np.array([level.map for level in found.levels], dtype=np.float64),
                np.array([level.offset for level in found.levels], dtype=np.float64),
                found.network_sha256 or None,
            )
        except InputError as error:
            raise InputError(f"{file}: {error}") from None
