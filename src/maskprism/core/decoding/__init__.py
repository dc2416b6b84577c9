"""Masks out of coefficients and prototypes: bitmaps, soft masks, COCO RLE, crops, polygons and areas.

Everything is computed from the logits in the window of the grid that a box reads. Results equal those of
`maskprism.core.masks.decode`, pixel for pixel. `implementation()` says whether the compiled decoder is in use.
"""

from maskprism.core.decoding.engine import implementation
from maskprism.core.decoding.outlines import MaskPolygons, Outline
from maskprism.core.decoding.outputs import (
    MAX_STACK_BYTES,
    OUTPUTS,
    Output,
    areas,
    crops,
    decode,
    each_crop,
    masks,
    polygons,
    rle,
    soft,
)

__all__ = [
    "MAX_STACK_BYTES",
    "OUTPUTS",
    "MaskPolygons",
    "Outline",
    "Output",
    "areas",
    "crops",
    "decode",
    "each_crop",
    "implementation",
    "masks",
    "polygons",
    "rle",
    "soft",
]
