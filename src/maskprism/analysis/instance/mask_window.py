"""The prototypes of one instance where its mask is decided: resized as its rule resizes, in the window it can touch."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from maskprism.core.decoding import MAX_STACK_BYTES
from maskprism.core.masks import decode, pixels_between
from maskprism.datasets.ground_truth import sampled
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32

    from maskprism.core.geometry import Letterbox, Size
    from maskprism.core.prediction import Instance


@dataclass(frozen=True, eq=False)
class MaskWindow:
    """K prototypes in one frame, within the rows and columns that the mask of the instance can touch.

    Attributes
    ----------
    prototypes
        Resized and cropped as the rule does with logits; times `instance.weights` they are the terms, which sum to the
        logits that decide the mask. A rule that squashes first resizes probabilities instead: there, the terms are
        those of the logits that it would resize.
    mask
        The instance's mask, bit for bit that of `Instance.mask`.
    """

    instance: Instance
    size: Size
    rows: slice
    columns: slice
    prototypes: Float32[np.ndarray, "K H W"]
    mask: Bool[np.ndarray, "H W"]

    @classmethod
    def of(cls, instance: Instance, size: Size | None = None) -> MaskWindow:
        """Return the window of an instance in the frame named `size`, by default that of its rule.

        Raises
        ------
        InputError
            Where K prototypes would not fit into memory: ask for a smaller frame.
        """
        if np.ndim(instance.weights) != 1:
            raise InputError("this is about one instance, not about a prediction; take prediction[0] or another")
        size = size or instance.rule.size
        rule, letterbox, box = instance.rule, instance.letterbox, instance.canvas_box
        _check_memory(instance, size)
        (own,) = instance.alone.patches(size)
        resized = np.empty((len(instance.prototypes), *own.values.shape), dtype=np.float32)
        for target, prototype in zip(resized, instance.prototypes, strict=True):
            target[:] = decode(prototype, box, letterbox, rule, size, squash=False).values
        return cls(instance, size, own.rows, own.columns, resized, own.values > rule.threshold)

    @cached_property
    def in_box(self) -> Bool[np.ndarray, "H W"]:
        """See `box_pixels`."""
        return box_pixels(self.instance, self.size, self.mask.shape)

    @property
    def ring(self) -> Bool[np.ndarray, "H W"]:
        """The pixels of the box outside the mask."""
        return self.in_box & ~self.mask

    @property
    def cell(self) -> int:
        """How many pixels of the frame one prototype cell covers along a side, at least 1."""
        letterbox = self.instance.letterbox
        pixels = max(c / g for c, g in zip(letterbox.canvas_hw, letterbox.grid_hw, strict=True))
        if self.size == "image":
            pixels /= max(letterbox.gain_yx)
        return 1 if self.size == "grid" else max(1, round(pixels))


def _window_hw(instance: Instance, size: Size) -> tuple[int, int]:
    height, width = instance.letterbox.size_hw(size)
    if instance.rule.crop_at(size) == "none":
        return height, width
    x1, y1, x2, y2 = instance.letterbox.from_canvas(instance.canvas_box, size)
    return int(np.clip(np.nan_to_num(y2 - y1), 0, height)), int(np.clip(np.nan_to_num(x2 - x1), 0, width))


def window_bytes(instance: Instance, size: Size) -> int:
    """Return what the prototypes of a `MaskWindow` take, about."""
    height, width = _window_hw(instance, size)
    return len(instance.prototypes) * height * width * np.dtype(np.float32).itemsize


def _check_memory(instance: Instance, size: Size) -> None:
    needed = window_bytes(instance, size)
    if needed > MAX_STACK_BYTES:
        height, width = _window_hw(instance, size)
        raise InputError(
            f"{len(instance.prototypes)} prototypes of {width} x {height} pixels would take {needed / 2**30:.1f} GiB, "
            f'over the limit of {MAX_STACK_BYTES / 2**30:.0f} GiB; ask for size="canvas" or "grid"'
        )


def box_pixels(instance: Instance, size: Size, shape: tuple[int, ...]) -> Bool[np.ndarray, "H W"]:
    """Return which pixels of a window count as the box: all that the crop leaves.

    The box itself where nothing crops.
    """
    if instance.rule.crop_at(size) != "none":
        return np.ones(shape, dtype=bool)
    x1, y1, x2, y2 = instance.letterbox.from_canvas(instance.canvas_box, size)
    inside = np.zeros(shape, dtype=bool)
    inside[pixels_between(y1, y2, shape[0]), pixels_between(x1, x2, shape[1])] = True
    return inside


def mask_in_frame(
    mask: Bool[np.ndarray, "H W"], letterbox: Letterbox, size: Size, name: str = "mask"
) -> Bool[np.ndarray, "h w"]:
    """Return a mask of the image's size, or of the frame's own, in the frame named `size`.

    Pixels whose centre it covers.

    Raises
    ------
    InputError
        For another size or for something else than booleans.
    """
    given = np.asarray(mask)
    if given.dtype != bool:
        raise InputError(f"{name} holds {given.dtype}; expected booleans, such as mask > 0")
    height, width = letterbox.size_hw(size)
    if given.shape == (height, width) and (size == "image" or letterbox.image_hw != given.shape):
        return given
    if given.shape != letterbox.image_hw:
        image = f"{letterbox.image_hw[1]} x {letterbox.image_hw[0]}"
        raise InputError(
            f"{name} has shape {given.shape}; expected that of the image, {letterbox.image_hw} "
            f"({image} pixels), or of the {size}, {(height, width)}"
        )
    found = np.zeros((height, width), dtype=bool)
    patch = sampled(given, letterbox, size)
    found[patch.rows, patch.columns] = patch.values
    return found
