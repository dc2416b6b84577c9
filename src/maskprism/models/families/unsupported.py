"""Outputs that are not read, known by their shapes, so that a refusal says what they are and what to do.

Mask heads that are no weighted sum of shared prototypes, and YOLO heads that other exporters write in another form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Float32

Shape = tuple[int | None, ...]
Shapes = Sequence[Shape]

DYNAMIC_WEIGHTS = 169
"""Of the three layers that CondInst and RTMDet-Ins predict per instance: 10 x 8 + 8, 8 x 8 + 8, 8 + 1."""
_DYNAMIC_MAPS = 8
_KERNEL = 256
_ROI_SIDES = (28, 14, 56)
_STRIDES = (2, 4, 8)
"""Of prototypes, and of masks as finished heads have them."""
_IN_FRONT = (5, 6, 7)
"""Columns before the mask in rows of finished heads: box, score, class."""
_HAND_OVER = (
    'or hand the outputs for one image to maskprism.from_raw(outputs, image, layout="rknn"), or what its runtime is '
    "called; or decode its boxes, run NMS, and call maskprism.from_arrays"
)


def refusal(shapes: Shapes, names: Sequence[str] = (), canvas_hw: tuple[int, int] | None = None) -> str | None:
    """Return why the masks of a model with these outputs cannot be taken apart; None for a model that is not known.

    Parameters
    ----------
    shapes
        Of all outputs, None for a side that may vary.
    names
        Of the outputs, where they are known.
    canvas_hw
        (height, width) of the input that they are for, where that is known; heads of YOLO are known by it only.
    """
    named = [name.lower() for name in names]
    reason = next((reason for known in _KNOWN if (reason := known(shapes, named)) is not None), None)
    if reason is not None or canvas_hw is None:
        return reason
    return next((reason for form in _FORMS if (reason := form(shapes, canvas_hw)) is not None), None)


def coefficients_apart(outputs: Sequence[Float32[np.ndarray, "..."]], canvas_hw: tuple[int, int]) -> str | None:
    """Return why a YOLO head whose coefficients are an output of their own is not read; None where there is none.

    Boxes and scores beside them may have the shape of a whole table with fewer classes, so values are looked at: some
    exports repeat the coefficients of their table, and those are read.
    """
    for _, k in _grids(outputs, canvas_hw):
        tables = [one for one in outputs if one.ndim == 3]
        for apart in tables:
            for axis in (1, 2):
                count = apart.shape[3 - axis]
                beside = [one for one in tables if one is not apart and one.shape[3 - axis] == count]
                if apart.shape[axis] != k or count <= k or not beside:
                    continue
                if not any(
                    np.array_equal(one.take(range(-k, 0), axis), apart, equal_nan=True)
                    for one in beside
                    if one.shape[axis] > k
                ):
                    return _pieces([one.shape for one in outputs])
    return None


def _pieces(shapes: Shapes) -> str:
    return (
        "looks like a YOLO-seg head in pieces (as EdgeFirst, RKNN and Hailo have it): boxes, scores and coefficients "
        f"in outputs of their own, {_described(shapes)}. Export the model with one table of detections and one output "
        f"of prototypes, {_HAND_OVER}"
    )


def _described(shapes: Shapes) -> str:
    return ", ".join(str(tuple(shape)) for shape in shapes)


def _grids(arrays: Sequence[Float32[np.ndarray, "..."]], canvas_hw: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """(stride, number of prototypes) of every output of 4 axes that could be prototypes."""
    for shape in (one.shape for one in arrays if one.ndim == 4):
        for k, grid_hw in ((shape[1], shape[2:]), (shape[3], shape[1:3])):
            for stride in _STRIDES:
                if grid_hw == _cells(canvas_hw, stride) and k > 1:
                    yield stride, k


def _cells(canvas_hw: tuple[int, int], stride: int) -> tuple[int, int]:
    return canvas_hw[0] // stride, canvas_hw[1] // stride


def _levels(shapes: Shapes, canvas_hw: tuple[int, int]) -> str | None:
    """RKNN and Hailo: for each level of the pyramid boxes, classes and coefficients apart, and prototypes."""
    maps = [shape for shape in shapes if len(shape) == 4]
    for channels, sides in ((1, (2, 3)), (3, (1, 2))):
        by_grid: dict[tuple[int | None, ...], list[int | None]] = {}
        for shape in maps:
            by_grid.setdefault((shape[sides[0]], shape[sides[1]]), []).append(shape[channels])
        prototypes = {k for stride in _STRIDES for k in by_grid.get(_cells(canvas_hw, stride), ())}
        levels = [by_grid.get(_cells(canvas_hw, stride), ()) for stride in (8, 16, 32)]
        if any(k in prototypes and all(len(level) > 1 and k in level for level in levels) for k in prototypes):
            return _pieces(shapes)
    return None


def _without_batch(shapes: Shapes, canvas_hw: tuple[int, int]) -> str | None:
    """Return outputs of a YOLO-seg whose batch axis was squeezed away, in all of them or in one."""
    for shape in shapes:
        *_, first, second, third = shape if len(shape) in (3, 4) else (None, None, None)
        tables = [table for table in shapes if table is not shape and len(table) in (2, 6 - len(shape))]
        for k, grid_hw in ((first, (second, third)), (third, (first, second))):
            wide = [table for table in tables if min(side or 0 for side in table[-2:]) > (k or 0) + 4]
            if k and k > 1 and wide and any(grid_hw == _cells(canvas_hw, stride) for stride in _STRIDES):
                return (
                    f"looks like a YOLO-seg without a batch axis: detections {wide[0]} and prototypes {tuple(shape)}. "
                    f"Export the model with the batch axis in its outputs, {_HAND_OVER}"
                )
    return None


def _flat_prototypes(shapes: Shapes, canvas_hw: tuple[int, int]) -> str | None:
    """Return a YOLO-seg whose prototypes are (B, K, h w)."""
    tables = [shape for shape in shapes if len(shape) in (2, 3)]
    for stride in _STRIDES:
        height, width = _cells(canvas_hw, stride)
        for flat in tables:
            if height * width not in flat[-2:]:
                continue
            k = flat[-1] if flat[-2] == height * width else flat[-2]
            if k and k > 1 and any(k + 4 < min(side or 0 for side in table[-2:]) for table in tables if table != flat):
                return (
                    f"looks like a YOLO-seg with flattened prototypes, {tuple(flat)} in place of (1, {k}, {height}, "
                    f"{width}). Export the model without the reshape, {_HAND_OVER}. The prototypes are that output, "
                    f"reshaped to ({k}, {height}, {width})"
                )
    return None


def finished_masks(shapes: Shapes, canvas_hw: tuple[int, int]) -> str | None:
    """DeepStream: one output, whose rows are box, score, class and a finished mask."""
    if len(shapes) != 1 or len(shapes[0]) not in (2, 3):
        return None
    columns = shapes[0][-1]
    for stride in (1, *_STRIDES):
        height, width = _cells(canvas_hw, stride)
        if columns in [height * width + front for front in _IN_FRONT]:
            return (
                f"looks like an export for DeepStream: rows of box, score, class and a finished mask of {height} x "
                f"{width} ({tuple(shapes[0])}). Coefficients and prototypes are not in its output, so nothing can be "
                "taken apart. Export the model without that output layer (yolo export format=onnx), or hand over its "
                "coefficients and prototypes: maskprism.from_arrays"
            )
    return None


def _dynamic_convolutions(shapes: Shapes, names: Sequence[str]) -> str | None:
    """CondInst (Tian et al., ECCV 2020) and RTMDet-Ins (Lyu et al., 2022)."""
    weights = [shape for shape in shapes if len(shape) > 2 and DYNAMIC_WEIGHTS in shape[1:]]
    maps = [shape for shape in shapes if len(shape) == 4 and shape[1] == _DYNAMIC_MAPS]
    spoken = any(word in name for name in names for word in ("kernel", "controller", "param"))
    if not weights or not (maps or spoken):
        return None
    # CondInst predicts a centre-ness, one channel beside its weights; RTMDet-Ins has none.
    with_centres = any(len(shape) == 4 and shape[1] == 1 for shape in shapes)
    who = "CondInst" if with_centres or any("controller" in name for name in names) else "RTMDet-Ins"
    return (
        f"looks like {who}: {DYNAMIC_WEIGHTS} weights of dynamic convolutions for each instance. Every instance runs "
        "three layers of its own, with ReLU in between and its own coordinates as input, so its mask is no weighted "
        "sum of maps that all instances share, and there is nothing to take apart. Expected a model with prototypes, "
        "such as YOLO-seg, YOLACT or Mask2Former"
    )


def _kernels_per_cell(shapes: Shapes, names: Sequence[str]) -> str | None:
    """SOLOv2 (Wang et al., NeurIPS 2020): a kernel for every cell of a few square grids."""
    maps = [shape for shape in shapes if len(shape) == 4]
    grids = {shape[2] for shape in maps if shape[2] == shape[3] and shape[2] is not None}
    beside = Counter(shape[2] for shape in maps if shape[1] not in (_KERNEL, 9 * _KERNEL))
    sizes = {
        size: {side for side in grids if beside[side] and (size, side) in {(s[1], s[2]) for s in maps}}
        for size in (_KERNEL, 9 * _KERNEL)
    }
    size = max(sizes, key=lambda one: len(sizes[one]))
    if len(sizes[size]) < 2:
        return None
    sum_or_not = (
        "Kernels of 1 x 1 make a weighted sum of its mask features: hand them over yourself, after its own matrix NMS, "
        'with maskprism.from_arrays(image, kernels, mask_features, rule="no-crop")'
        if size == _KERNEL
        else "Kernels of 3 x 3 mix the surroundings of every pixel, so its mask is no weighted sum of maps"
    )
    return (
        f"looks like SOLOv2: {size} kernel parameters for each cell of {len(sizes[size])} grids, no boxes and no "
        f"coefficients; such files are not read. {sum_or_not}"
    )


def _masks_in_boxes(shapes: Shapes, names: Sequence[str]) -> str | None:
    """Mask R-CNN (He et al., ICCV 2017) and its kin: a small mask drawn inside every box."""
    masks = [s for s in shapes if len(s) >= 3 and s[-1] == s[-2] and s[-1] in _ROI_SIDES]
    boxes = [shape for shape in shapes if len(shape) in (2, 3) and shape[-1] in (4, 5)]
    flat = [shape for shape in shapes if len(shape) in (1, 2) and shape not in boxes]
    if not masks or not boxes or not flat:
        return None
    side = masks[0][-1]
    return (
        f"looks like Mask R-CNN: masks of {side} x {side} pixels, each drawn by convolutions inside its own box. They "
        "share no prototypes, so there is nothing to take apart. Expected a model with prototypes, such as YOLO-seg, "
        "YOLACT or Mask2Former"
    )


_KNOWN: tuple[Callable[[Shapes, Sequence[str]], str | None], ...] = (
    _dynamic_convolutions,
    _kernels_per_cell,
    _masks_in_boxes,
)
_FORMS: tuple[Callable[[Shapes, tuple[int, int]], str | None], ...] = (
    _levels,
    _without_batch,
    _flat_prototypes,
    finished_masks,
)
