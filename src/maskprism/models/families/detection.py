"""Which family a network is of: asked once, of what it gives for a plain canvas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from maskprism._common.choices import Family
from maskprism.errors import InputError, ModelError
from maskprism.models.families.unsupported import coefficients_apart, refusal
from maskprism.models.families.yolact import find_yolact
from maskprism.models.families.yolo import FAMILIES, Layout, detect_layout
from maskprism.models.metadata import refuse_other_tasks

if TYPE_CHECKING:
    import numpy as np
    from jaxtyping import Float32

    from maskprism.models.metadata import Metadata


def find_layout(
    outputs: Sequence[Float32[np.ndarray, "..."]],
    names: Sequence[str],
    canvas_hw: tuple[int, int],
    metadata: Metadata,
    label: str,
    forced: Family | None = None,
    *,
    images_last: bool,
) -> Layout:
    """How the outputs of a network are read, from those for a plain canvas of (height, width).

    names: of the outputs, as far as the runtime knows them. `images_last`: the network takes images as (H, W, 3), and
    so likely gives its prototypes. `forced`: the family that the user says it is.

    Raises ModelError where the outputs hold no prototypes, with the reason for heads that are known, or can be read in
    several ways and nothing decides.
    """
    if forced is not None and forced not in FAMILIES:
        raise InputError(f"there is no layout {forced!r}; expected one of {', '.join(FAMILIES)}")
    refuse_other_tasks(metadata.task, label)
    shapes = [output.shape for output in outputs]
    if forced in (None, "yolact"):
        found = find_yolact(outputs, names, canvas_hw, label, images_last=images_last)
        if found is not None:
            return found
        if forced is not None:
            described = ", ".join(str(shape) for shape in shapes)
            raise ModelError(
                f"{label}: outputs of shape {described} are not those of a YOLACT; expected boxes (B, P, 4), scores "
                "(B, P, 1 + classes) with the background first, coefficients (B, P, K), prototypes (B, h, w, K), and "
                "priors (P, 4)"
            )
    if forced == "query":
        raise ModelError(
            f"{label}: has no finished masks that can be taken apart; expected an ONNX file, in ONNX Runtime, whose "
            "masks are a product of queries and a pixel embedding"
        )
    if forced is None and (reason := coefficients_apart(outputs, canvas_hw)) is not None:
        raise ModelError(f"{label}: {reason}")
    try:
        return detect_layout(shapes, canvas_hw, metadata, label, forced, images_last=images_last)
    except ModelError:
        reason = refusal(shapes, names, canvas_hw)
        if reason is None:
            raise
        raise ModelError(f"{label}: {reason}") from None
