"""What is to be decoded, as arrays that both implementations read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from maskprism.core.masks import rule_named
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Int64

    from maskprism.core.geometry import Letterbox, Size
    from maskprism.core.masks import Crop, MaskRule

Kind = Literal["bitmap", "soft", "resized", "grid"]
"""What `fill` writes: masks, probabilities, the values that the rule compares with its threshold, or grid logits."""
KINDS: tuple[Kind, ...] = ("bitmap", "soft", "resized", "grid")


@dataclass(frozen=True, eq=False)
class DecodeJob:
    """Instances of one image, and the frame and rule under which their masks are decoded.

    Parameters
    ----------
    weights
        What multiplies the prototypes, C-contiguous: the coefficients, times objectness where the rule says so.
    prototypes
        float32, or int8 with `scale` and `zero_point`: `(value - zero_point) * scale`. C-contiguous as (K, h, w), or a
        view of an array that is so as (h, w, K).
    boxes
        x1, y1, x2, y2 on the letterboxed input, C-contiguous; None where nothing is cropped.
    """

    weights: Float32[np.ndarray, "N K"]
    prototypes: np.ndarray[Any, Any]
    boxes: Float32[np.ndarray, "N 4"] | None
    letterbox: Letterbox
    rule: MaskRule
    size: Size
    scale: float = 1.0
    zero_point: int = 0

    def __len__(self) -> int:
        return len(self.weights)

    @property
    def crop(self) -> Crop:
        """Where the boxes cut on the way to the frame."""
        return self.rule.crop_at(self.size)

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) of the frame."""
        return self.letterbox.size_hw(self.size)


def decode_job(
    weights: Any,
    prototypes: Any,
    boxes: Any,
    letterbox: Letterbox,
    rule: MaskRule | str,
    size: Size | None,
    scale: float = 1.0,
    zero_point: int = 0,
) -> DecodeJob:
    """Check arrays and bring them into the form that `DecodeJob` asks for; nothing is copied that has it.

    Raises
    ------
    InputError
        For shapes that do not fit together, prototypes that are neither numbers nor int8, or a rule or frame that
        there is not.
    """
    rule = rule_named(rule)
    size = rule.size if size is None else size
    letterbox.size_hw(size)  # raises for a frame that there is not
    maps = np.asarray(prototypes)
    if maps.ndim != 3 or 0 in maps.shape:
        raise InputError(f"prototypes have shape {maps.shape}; expected (K, h, w), each at least 1")
    if maps.shape[1:] != letterbox.grid_hw:
        raise InputError(
            f"prototypes have shape {maps.shape}; the letterbox says the grid is {letterbox.grid_hw}, so expected "
            f"(K, {letterbox.grid_hw[0]}, {letterbox.grid_hw[1]}). Prototypes of (h, w, K): "
            "np.moveaxis(prototypes, -1, 0)"
        )
    if maps.dtype != np.int8:
        if maps.dtype.kind != "f":
            raise InputError(f"prototypes hold {maps.dtype}; expected floats, or int8 with scale= and zero_point=")
        if (scale, zero_point) != (1.0, 0):
            raise InputError(f"scale and zero_point are given for prototypes of {maps.dtype}; they belong to int8")
        maps = maps.astype(np.float32, copy=False)
    elif not -128 <= zero_point <= 127 or not np.isfinite(scale):
        raise InputError(f"scale is {scale!r} and zero_point {zero_point!r}; expected a number and -128..127")
    if not (maps.flags.c_contiguous or np.moveaxis(maps, 0, -1).flags.c_contiguous):
        maps = np.ascontiguousarray(maps)
    rows = np.ascontiguousarray(weights, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != len(maps):
        raise InputError(f"coefficients have shape {rows.shape}; expected (N, {len(maps)}) for {len(maps)} prototypes")
    corners = None if boxes is None else np.ascontiguousarray(boxes, dtype=np.float32)
    if corners is not None and corners.shape != (len(rows), 4):
        raise InputError(f"boxes have shape {corners.shape}; expected ({len(rows)}, 4): x1, y1, x2, y2")
    return DecodeJob(rows, maps, corners, letterbox, rule, size, float(scale), int(zero_point))


def count_runs(
    mask: Bool[np.ndarray, "rows columns"], corner_yx: tuple[int, int], size_hw: tuple[int, int]
) -> Int64[np.ndarray, " M"]:
    """Return the lengths of the runs down the columns of an image, the background first, of a mask in a window.

    Parameters
    ----------
    mask
        The window.
    corner_yx
        Row and column of its upper left pixel in the image.
    size_hw
        Of the image, which holds the window.
    """
    (top, left), (height, width) = corner_yx, size_hw
    columns, rows = np.nonzero(np.diff(np.pad(mask.T.astype(np.int8), ((0, 0), (1, 1)))))
    changes, times = np.unique((columns + left) * height + rows + top, return_counts=True)
    changes = changes[times == 1]  # a column that ends where the next one begins goes on
    ends = [] if len(changes) and changes[-1] == height * width else [height * width]
    return np.diff(np.concatenate([[0], changes, ends]).astype(np.int64))


def compress(counts: Int64[np.ndarray, " M"]) -> bytes:
    """COCO's text of uncompressed RLE: differences to the count before the last one, in groups of 5 bits."""
    differences = counts.astype(np.int64)
    differences[3:] -= counts[1:-2].astype(np.int64)
    text = bytearray()
    for difference in differences.tolist():
        more = True
        while more:
            bits = difference & 31
            difference >>= 5
            more = difference != (-1 if bits & 16 else 0)
            text.append((bits | 32 if more else bits) + 48)
    return bytes(text)
