"""How large the letterboxed input of a model is: what the user asks for, what the file takes, what its family has."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, SupportsIndex

from maskprism.errors import InputError, ModelWarning
from maskprism.models.metadata import MAX_SIDE

if TYPE_CHECKING:
    from maskprism.models.families.family import Family
    from maskprism.models.metadata import Metadata
    from maskprism.models.runtimes import NetworkInput


def input_hw(
    takes: NetworkInput, imgsz: int | Sequence[int] | None, metadata: Metadata, name: str, family: Family
) -> tuple[int, int]:
    """Choose the size of the letterboxed input.

    Parameters
    ----------
    takes
        What the model takes.
    imgsz
        Side or (height, width) that the user asks for; None for the default.
    metadata
        What the file says about itself.
    name
        What messages call the model.
    family
        Where the default and the multiple of sides come from, if the file does not say.

    Returns
    -------
    tuple of int
        (height, width) in pixels, multiples of the stride where the model takes any size.

    Raises
    ------
    InputError
        If `imgsz` is no size, is one that the model does not take, or a batch of it would be too large.

    Warns
    -----
    ModelWarning
        If the model takes any size and none was chosen.
    """
    fixed = (takes.height, takes.width)
    wanted = None if imgsz is None else _height_width(imgsz)
    if wanted is not None and any(side not in (None, asked) for side, asked in zip(fixed, wanted, strict=True)):
        raise InputError(
            f"imgsz is {wanted[0]} x {wanted[1]}; {name} takes exactly {fixed[0] or 'any'} x {fixed[1] or 'any'} "
            "(height x width)"
        )
    own = takes.default_hw
    if own is None and fixed != (None, None):  # one side may vary at most: the file says what it was made for
        own = metadata.imgsz
    height, width = wanted or own or (family.side, family.side)
    stride = metadata.stride or family.multiple
    if (fixed[0] is None and height < stride) or (fixed[1] is None and width < stride):
        raise InputError(f"imgsz is {height} x {width}; expected at least the stride, {stride}")
    canvas_hw = (fixed[0] or -(-height // stride) * stride, fixed[1] or -(-width // stride) * stride)
    if wanted is own is None and None in fixed:
        exported = f", and was exported with {metadata.imgsz[0]} x {metadata.imgsz[1]}" if metadata.imgsz else ""
        warnings.warn(
            f"{name}: takes images of any size{exported}; {canvas_hw[0]} x {canvas_hw[1]} is used, as its own tools do "
            "unless told otherwise. Choose with imgsz= (--imgsz)",
            ModelWarning,
            stacklevel=3,
        )
    if canvas_hw[0] * canvas_hw[1] * (takes.batch or 1) > MAX_SIDE**2:
        raise InputError(
            f"{name}: a batch would have {canvas_hw[0] * canvas_hw[1] * (takes.batch or 1):,} pixels "
            f"({canvas_hw[0]} x {canvas_hw[1]}); expected at most {MAX_SIDE} x {MAX_SIDE} in all. Set imgsz to less, "
            "or export the model for less"
        )
    return canvas_hw


def _height_width(imgsz: int | Sequence[int]) -> tuple[int, int]:
    sides = (imgsz, imgsz) if isinstance(imgsz, SupportsIndex) else imgsz
    try:
        height, width = (operator.index(side) for side in sides)
    except (TypeError, ValueError):
        raise InputError(f"imgsz is {imgsz!r}; expected a side or (height, width) in pixels") from None
    return height, width
