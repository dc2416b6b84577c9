"""Mask heads that are no weighted sum of shared prototypes, known by their outputs, so that a refusal says why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

Shape = tuple[int | None, ...]
Shapes = Sequence[Shape]

DYNAMIC_WEIGHTS = 169
"""Of the three layers that CondInst and RTMDet-Ins predict per instance: 10 x 8 + 8, 8 x 8 + 8, 8 + 1."""
_DYNAMIC_MAPS = 8
_KERNEL = 256
_ROI_SIDES = (28, 14, 56)


def refusal(shapes: Shapes, names: Sequence[str] = ()) -> str | None:
    """Why the masks of a network with these outputs cannot be taken apart; None for a network that is not known.

    shapes: of all outputs, None for a side that may vary. names: of the outputs, as far as they are known.
    """
    named = [name.lower() for name in names]
    return next((reason for known in _KNOWN if (reason := known(shapes, named)) is not None), None)


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
        "sum of maps that all instances share, and there is nothing to take apart. Expected a network with prototypes, "
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
        "share no prototypes, so there is nothing to take apart. Expected a network with prototypes, such as YOLO-seg, "
        "YOLACT or Mask2Former"
    )


_KNOWN: tuple[Callable[[Shapes, Sequence[str]], str | None], ...] = (
    _dynamic_convolutions,
    _kernels_per_cell,
    _masks_in_boxes,
)
