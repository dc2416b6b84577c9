"""From an image to the tensor that a model sees, as data: how it lies on the canvas, how pixels become numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import cv2
import numpy as np

from maskprism.core.geometry import Letterbox
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float32, Int64, UInt8

    Picture = UInt8[np.ndarray, "H W 3"]

Resize = Literal["letterbox", "corner", "stretch"]
Channels = Literal["rgb", "bgr", "grey"]


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing: how an image becomes the input of the model.

    Attributes
    ----------
    resize
        "letterbox" keeps the image's shape and centres it on the canvas, "corner" keeps its shape and puts it at the
        top left (SAM, Mask2Former), "stretch" fills the canvas whatever that does to its shape (YOLACT).
    shortest_side
        Images are enlarged to at most this number of pixels on their shorter side (Mask2Former); None fills the canvas.
    antialias
        Shrinking averages all pixels that fall together, as Pillow does, and does not skip any.
    rounds
        Resized pixels are rounded to whole numbers before they become numbers of the tensor; YOLACT does not, and
        resizes as PyTorch does.
    padding
        The grey, 0 to 255, of the canvas around the image; None for what becomes 0 in the tensor, the mean.
    channels
        Their order in the tensor.
    scale, mean, std
        A pixel, 0 to 255, becomes (pixel / scale - mean) / std; mean and std hold one number for all channels, or one
        for each in their order.
    """

    name: str
    resize: Resize = "letterbox"
    shortest_side: int | None = None
    antialias: bool = False
    rounds: bool = True
    padding: int | None = 114
    channels: Channels = "rgb"
    scale: float = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        for name, options in (("resize", get_args(Resize)), ("channels", get_args(Channels))):
            if getattr(self, name) not in options:
                raise InputError(f"{name} is {getattr(self, name)!r}; expected one of {', '.join(map(repr, options))}")
        if self.padding is not None and not 0 <= self.padding <= 255:
            raise InputError(f"padding is {self.padding}; expected 0 to 255, or None for the mean")
        if self.antialias and not self.rounds:
            raise InputError("antialias resizes whole numbers, so it goes with rounds=True")
        if self.shortest_side is not None and self.shortest_side < 1:
            raise InputError(f"shortest_side is {self.shortest_side}; expected at least 1")
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
            if len(getattr(self, name)) not in (1, self.depth):
                raise InputError(f"{name} holds {len(getattr(self, name))} numbers; expected 1 or {self.depth}")
        if not all(np.isfinite((self.scale, *self.mean, *self.std))) or self.scale <= 0 or min(self.std) <= 0:
            raise InputError("scale, mean and std hold a number that is not finite, or a scale or std of 0 or below")

    @property
    def depth(self) -> int:
        """The number of channels."""
        return 1 if self.channels == "grey" else 3

    @property
    def padding_bgr(self) -> tuple[int, int, int]:
        """The colour around the image on the canvas; rounded, where it is the mean."""
        if self.padding is not None:
            return (self.padding,) * 3
        first, second, third = (int(np.clip(round(mean * self.scale), 0, 255)) for mean in (self.mean * 3)[:3])
        return (third, second, first) if self.channels == "rgb" else (first, second, third)

    def letterbox(
        self, image_hw: tuple[int, int], canvas_hw: tuple[int, int], *, rectangle_stride: int | None = None
    ) -> Letterbox:
        """Return how an image of (height, width) lies on a canvas; see `Letterbox.fit` for `rectangle_stride`."""
        if self.resize == "stretch":
            return Letterbox.stretch(image_hw, canvas_hw)
        return Letterbox.fit(
            image_hw,
            canvas_hw,
            rectangle_stride=rectangle_stride,
            corner=self.resize == "corner",
            shortest_side=self.shortest_side,
        )

    def canvas(self, image: Picture, letterbox: Letterbox) -> UInt8[np.ndarray, "Hc Wc 3"]:
        """Return the image (HWC, BGR) as it lies on the canvas, as a picture: in whole numbers.

        For a model of one channel it loses its colours first, as Ultralytics reads it, and not when it is resized.
        """
        return self._padded(self._resized(image, letterbox, self._scaled), letterbox)

    def exact_canvas(
        self, image: Picture, letterbox: Letterbox
    ) -> UInt8[np.ndarray, "Hc Wc 3"] | Float32[np.ndarray, "Hc Wc 3"]:
        """Return the image (HWC, BGR) as it lies on the canvas, as the model sees it: see `rounds`."""
        if self.rounds:
            return self.canvas(image, letterbox)
        return self._padded(self._resized(image, letterbox, _interpolate).astype(np.float32), letterbox)

    def _padded(self, image: Any, letterbox: Letterbox) -> Any:
        height, width = letterbox.content_hw
        top, left = letterbox.offset_yx
        return cv2.copyMakeBorder(
            image,
            top,
            letterbox.canvas_hw[0] - height - top,
            left,
            letterbox.canvas_hw[1] - width - left,
            cv2.BORDER_CONSTANT,
            value=self.padding_bgr,
        )

    def _resized(self, image: Any, letterbox: Letterbox, scaled: Callable[[Any, tuple[int, int]], Any]) -> Any:
        pixels = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY) if self.channels == "grey" else image
        if image.shape[:2] != letterbox.content_hw:
            pixels = scaled(pixels, letterbox.content_hw)
        return cv2.cvtColor(pixels, cv2.COLOR_GRAY2BGR) if self.channels == "grey" else pixels

    def _scaled(self, image: Any, size_hw: tuple[int, int]) -> Any:
        if not self.antialias:
            return cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
        from PIL import Image

        return np.asarray(Image.fromarray(image).resize(size_hw[::-1], Image.Resampling.BILINEAR))

    def tensor(
        self,
        canvases: Sequence[UInt8[np.ndarray, "H W 3"] | Float32[np.ndarray, "H W 3"]],
        letterboxes: Sequence[Letterbox],
        *,
        channels_last: bool = False,
    ) -> Float32[np.ndarray, "B ..."]:
        """Canvases of one size as float32 [B, C, H, W], or [B, H, W, C] with `channels_last`."""
        blob = np.empty((len(canvases), self.depth, *canvases[0].shape[:2]), dtype=np.float32)
        for image, canvas, letterbox in zip(blob, canvases, letterboxes, strict=True):
            for channel, (plane, values) in enumerate(zip(image, self._planes(canvas), strict=True)):
                np.divide(values, np.float32(self.scale), out=plane)  # 1/255 times it would differ in the last bit
                mean, std = (one[channel if len(one) > 1 else 0] for one in (self.mean, self.std))
                if mean:
                    plane -= np.float32(mean)
                if std != 1:
                    plane /= np.float32(std)
            if self.padding is None:
                (top, left), (height, width) = letterbox.offset_yx, letterbox.content_hw
                image[:, :top] = image[:, top + height :] = 0
                image[:, :, :left] = image[:, :, left + width :] = 0
        return np.ascontiguousarray(blob.transpose(0, 2, 3, 1)) if channels_last else blob

    def _planes(self, canvas: Any) -> Sequence[Any]:
        if self.channels == "grey":
            return (cv2.cvtColor(canvas, cv2.COLOR_BGR2GRAY),)
        planes = cv2.split(canvas)
        return planes[::-1] if self.channels == "rgb" else planes


def _interpolate(image: UInt8[np.ndarray, "H W *C"], size_hw: tuple[int, int]) -> Float32[np.ndarray, "h w *C"]:
    """Resize in floating point by the arithmetic of PyTorch.

    Parameters
    ----------
    image
        Whole numbers, of one channel (H, W) or of several (H, W, C).
    size_hw
        Height and width of the result.

    Returns
    -------
    ndarray
        What `torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` makes of the image in float32 on
        the CPU: equal to the last bit, but for the kernel that PyTorch takes with one thread or for small results. That
        one multiplies the weights first, which changes the last bit.
    """

    def mix(low: Any, high: Any, weight: Any) -> Any:  # fused multiplication and addition: float64 holds the product
        return (low.astype(np.float64) * (1 - weight) + high.astype(np.float32) * weight).astype(np.float32)

    (top, bottom, down), (left, right, along) = map(_neighbours, image.shape[:2], size_hw)
    down, along = (weight.reshape(-1, *(1,) * n) for weight, n in ((down, image.ndim - 1), (along, image.ndim - 2)))
    upper, lower = (mix(image[row][:, left], image[row][:, right], along) for row in (top, bottom))
    return np.asarray(mix(upper, lower, down))


def _neighbours(
    n_pixels: int, size: int
) -> tuple[Int64[np.ndarray, " size"], Int64[np.ndarray, " size"], Float32[np.ndarray, " size"]]:
    """The two pixels between which each pixel of the result lies along one axis, and the weight of the second."""
    scale = np.float64(np.float32(n_pixels) / np.float32(size))
    position = np.maximum(scale * (np.arange(size) + 0.5) - 0.5, 0).astype(np.float32)
    low = np.minimum(position.astype(np.int64), n_pixels - 1)
    return low, np.minimum(low + 1, n_pixels - 1), np.minimum(position - low.astype(np.float32), 1)


YOLO = Preprocessing("yolo")
YOLACT = Preprocessing(
    "yolact",
    resize="stretch",
    rounds=False,
    padding=None,
    scale=1,
    mean=(123.68, 116.78, 103.94),
    std=(58.40, 57.12, 57.38),
)
IMAGENET = Preprocessing(
    "imagenet", resize="stretch", padding=None, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)
MASK2FORMER = replace(IMAGENET, name="mask2former", resize="corner", shortest_side=800, antialias=True)
SAM = replace(IMAGENET, name="sam", resize="corner", antialias=True)

PREPROCESSINGS: dict[str, Preprocessing] = {one.name: one for one in (YOLO, YOLACT, IMAGENET, MASK2FORMER, SAM)}


def preprocessing_named(name: str | Preprocessing) -> Preprocessing:
    """Return the preset of that name.

    Raises
    ------
    InputError
        With a message that lists the presets.
    """
    if isinstance(name, Preprocessing):
        return name
    if name not in PREPROCESSINGS:
        raise InputError(f"there is no preprocessing {name!r}; expected one of {', '.join(PREPROCESSINGS)}")
    return PREPROCESSINGS[name]
