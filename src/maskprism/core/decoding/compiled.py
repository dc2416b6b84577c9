"""The decoder in C (`maskprism_decode.h`), through the extension `_compiled`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from maskprism.core.decoding import _compiled  # type: ignore[attr-defined]
from maskprism.core.decoding.job import KINDS
from maskprism.core.geometry import SIZES, Unpad

if TYPE_CHECKING:
    from jaxtyping import Int32, Int64

    from maskprism.core.decoding.job import DecodeJob, Kind

_CROPS = ("none", "before", "after")


def _arguments(job: DecodeJob) -> tuple[Any, ...]:
    letterbox, rule = job.letterbox, job.rule
    frames = (letterbox.image_hw, letterbox.canvas_hw, letterbox.content_hw, letterbox.offset_yx, letterbox.grid_hw)
    setup = np.array(
        [
            *(side for frame in frames for side in frame),
            *(rule.squash, _CROPS.index(job.crop), rule.crop_padding, rule.round_box),
            get_args(Unpad).index(rule.unpad),
            SIZES.index(job.size),
        ],
        dtype=np.int32,
    )
    maps, (k, height, width) = job.prototypes, job.prototypes.shape
    strides = (height * width, width, 1)
    if not maps.flags.c_contiguous:
        maps, strides = np.moveaxis(maps, 0, -1), (1, width * k, k)
    layout = (k, maps.dtype == np.int8, job.scale, job.zero_point, *strides)
    boxes = None if job.boxes is None else job.rule.crop_boxes(job.boxes)
    return setup, maps, layout, rule.threshold, job.weights, boxes


def windows(job: DecodeJob) -> Int32[np.ndarray, "N 8"]:
    """Per instance y0, y1, x0, x1 of the pixels that it can touch, and of the grid cells that they read."""
    found = np.zeros((len(job), 8), dtype=np.int32)
    _compiled.windows(*_arguments(job), found)
    return found


def fill(
    job: DecodeJob,
    out: np.ndarray[Any, Any],
    offsets: Int64[np.ndarray, " N"],
    strides: Int64[np.ndarray, " N"],
    kind: Kind,
) -> None:
    """Write the window of each instance into flat `out`: from its offset on, rows a stride apart, in elements."""
    _compiled.fill(*_arguments(job), out, offsets, strides, KINDS.index(kind))


def areas(job: DecodeJob) -> Int64[np.ndarray, " N"]:
    """Pixels of each mask."""
    found = np.zeros(len(job), dtype=np.int64)
    _compiled.areas(*_arguments(job), found)
    return found


def encode(job: DecodeJob, *, compressed: bool) -> list[bytes]:
    """COCO's RLE of each mask in the whole frame: its text, or the bytes of uint32 counts."""
    encoded: list[bytes] = _compiled.rle(*_arguments(job), compressed)
    return encoded
