"""The outputs of decoding, for raw arrays and for predictions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from maskprism.core.decoding.engine import engine
from maskprism.core.decoding.job import DecodeJob, decode_job
from maskprism.core.decoding.outlines import TOLERANCE, polygons_of
from maskprism.core.masks import Patch
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Int64

    from maskprism.core.decoding.outlines import MaskPolygons
    from maskprism.core.geometry import Letterbox, Size
    from maskprism.core.masks import MaskRule
    from maskprism.core.prediction import Prediction

Output = Literal["bitmap", "soft", "rle", "counts", "crop", "area", "polygons"]
OUTPUTS: tuple[Output, ...] = get_args(Output)
MAX_STACK_BYTES = 4 << 30
"""Stacks of full-size masks larger than this are refused."""
_CHUNK = 32


def decode(
    coefficients: Any,
    prototypes: Any,
    boxes: Any,
    letterbox: Letterbox,
    *,
    rule: MaskRule | str = "ultralytics",
    size: Size | None = None,
    output: Output = "bitmap",
    out: Bool[np.ndarray, "N H W"] | None = None,
    scale: float = 1.0,
    zero_point: int = 0,
    tolerance: float = TOLERANCE,
) -> Any:
    """Decode the masks of one image from raw arrays.

    Parameters
    ----------
    coefficients
        (N, K), times objectness where the rule says so (YOLOv5, YOLOv7).
    prototypes
        (K, h, w): floats, or int8 with `scale` and `zero_point`. A view of an array of (h, w, K) is not copied.
    boxes
        (N, 4): x1, y1, x2, y2 on the letterboxed input; None where nothing is cropped.
    letterbox
        How the image lies on the letterboxed input and on the grid.
    rule
        Mask post-processing rule, or the name of a preset. Default: "ultralytics".
    size
        "grid", "canvas" (letterboxed input) or "image". Default: that of the rule.
    output
        "bitmap": bool (N, H, W). "soft": per instance a `Patch` of probabilities. "crop": per instance a `Patch` whose
        values are the mask in the window that it can touch. "rle": COCO RLE with compressed counts. "counts": COCO RLE
        with a list of counts. "area": pixels. "polygons": per instance a `MaskPolygons`.
    out
        For "bitmap": the array to write to, all of it.
    scale, zero_point
        Of int8 prototypes: `(value - zero_point) * scale`.
    tolerance
        For "polygons": how far in pixels an outline may move, so that it needs fewer vertices. Default: 0.1.

    Returns
    -------
    object
        What `output` says, in the order of the instances.

    Raises
    ------
    InputError
        For shapes that do not fit together, an unknown rule, frame or output, or a stack over MAX_STACK_BYTES.

    Examples
    --------
    >>> import numpy as np
    >>> from maskprism import Letterbox, decode
    >>> letterbox = Letterbox.fit((160, 160), (160, 160))
    >>> prototypes = np.ones((2, 40, 40), dtype=np.float32)
    >>> decode([[1, -0.5]], prototypes, [[40, 40, 120, 100]], letterbox, output="area")
    array([4800])
    """
    if output not in OUTPUTS:
        raise InputError(f"output is {output!r}; expected one of {', '.join(map(repr, OUTPUTS))}")
    if out is not None and output != "bitmap":
        raise InputError(f"out is given with output={output!r}; it belongs to 'bitmap'")
    job = decode_job(coefficients, prototypes, boxes, letterbox, rule, size, scale, zero_point)
    if output == "bitmap":
        return _bitmaps(job, out)
    if output == "area":
        return engine.areas(job)
    if output == "polygons":
        return polygons_of(job, tolerance)
    if output in ("rle", "counts"):
        return _rle(job, compressed=output == "rle")
    return _patches(job, soft=output == "soft")


def masks(prediction: Prediction, size: Size | None = None) -> Bool[np.ndarray, "N H W"]:
    """Decode all masks of a prediction as a stack of bitmaps; see `decode` for frames and errors."""
    return _bitmaps(_job_of(prediction, size), None)


def each_crop(prediction: Prediction, size: Size | None = None) -> Iterator[Patch]:
    """Decode each mask as `crops` does, a few at a time, so that memory stays that of a few."""
    for start in range(0, len(prediction), _CHUNK):
        yield from crops(prediction[start : start + _CHUNK], size)


def soft(prediction: Prediction, size: Size | None = None) -> list[Patch]:
    """Decode the probabilities of a prediction, each in the window that its mask can touch."""
    return _patches(_job_of(prediction, size), soft=True)


def crops(prediction: Prediction, size: Size | None = None) -> list[Patch]:
    """Decode each mask in the window that it can touch; outside of it there is none."""
    return _patches(_job_of(prediction, size), soft=False)


def rle(prediction: Prediction, size: Size | None = None, *, compressed: bool = True) -> list[dict[str, Any]]:
    """Decode each mask as COCO RLE, `{"size": [height, width], "counts": ...}`.

    Counts are bytes as in pycocotools, or a list of numbers without `compressed`.
    """
    return _rle(_job_of(prediction, size), compressed=compressed)


def areas(prediction: Prediction, size: Size | None = None) -> Int64[np.ndarray, " N"]:
    """Count the pixels of each mask."""
    found: Int64[np.ndarray, " N"] = engine.areas(_job_of(prediction, size))
    return found


def polygons(prediction: Prediction, size: Size | None = None, *, tolerance: float = TOLERANCE) -> list[MaskPolygons]:
    """Decode each mask as polygons along the level of the threshold, at sub-pixel precision.

    Parameters
    ----------
    prediction
        Instances of one image.
    size
        Frame of the coordinates. Default: that of the rule.
    tolerance
        How far in pixels an outline may move, so that it needs fewer vertices; 0 keeps them all.
        `MaskPolygons.iou()` says what that costs. Default: 0.1.

    Returns
    -------
    list of MaskPolygons
        One per instance, without outlines where the mask is empty.
    """
    return polygons_of(_job_of(prediction, size), tolerance)


def _job_of(prediction: Prediction, size: Size | None) -> DecodeJob:
    return decode_job(
        prediction.weights,
        prediction.prototypes,
        prediction.canvas_boxes,
        prediction.letterbox,
        prediction.rule,
        size,
    )


def _bitmaps(job: DecodeJob, out: Bool[np.ndarray, "N H W"] | None) -> Bool[np.ndarray, "N H W"]:
    n, (height, width) = len(job), job.size_hw
    if out is None:
        if n * height * width > MAX_STACK_BYTES:
            raise InputError(
                f"{n} masks of {width} x {height} would take {n * height * width / 2**30:.1f} GiB, over the limit of "
                f"{MAX_STACK_BYTES / 2**30:.0f} GiB; take crops or RLE, a slice of the instances, "
                'or size="canvas" or "grid"'
            )
        out = np.zeros((n, height, width), dtype=np.bool_)
    elif out.shape != (n, height, width) or out.dtype != np.bool_ or not out.flags.c_contiguous:
        raise InputError(
            f"out is {out.dtype} of shape {out.shape}; expected C-contiguous bool of shape {(n, height, width)}"
        )
    else:
        out[...] = False
    windows = engine.windows(job).astype(np.int64)
    offsets = np.arange(n, dtype=np.int64) * (height * width) + windows[:, 0] * width + windows[:, 2]
    engine.fill(job, out.view(np.uint8), offsets, np.full(n, width, dtype=np.int64), "bitmap")
    return out


def _patches(job: DecodeJob, *, soft: bool) -> list[Patch]:
    windows = engine.windows(job).astype(np.int64)
    heights, widths = windows[:, 1] - windows[:, 0], windows[:, 3] - windows[:, 2]
    ends = np.cumsum(heights * widths)
    values = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.float32 if soft else np.uint8)
    engine.fill(job, values, ends - heights * widths, widths, "soft" if soft else "bitmap")
    values = values if soft else values.view(np.bool_)
    return [
        Patch(slice(y0, y1), slice(x0, x1), values[end - (y1 - y0) * (x1 - x0) : end].reshape(y1 - y0, x1 - x0))
        for (y0, y1, x0, x1), end in zip(windows[:, :4].tolist(), ends.tolist(), strict=True)
    ]


def _rle(job: DecodeJob, *, compressed: bool) -> list[dict[str, Any]]:
    size = list(job.size_hw)
    encoded = engine.encode(job, compressed=compressed)
    return [
        {"size": size.copy(), "counts": counts if compressed else np.frombuffer(counts, dtype=np.uint32).tolist()}
        for counts in encoded
    ]
