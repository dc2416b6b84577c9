"""Frames: image pixels, canvas pixels (model input) and prototype-grid pixels.

This is the only module in which coordinates change frame. Coordinates are continuous: pixel `i`
covers the interval from `i` to `i + 1`, and boxes are `x1, y1, x2, y2`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import cv2
import numpy as np

from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float32

    Floats = Float32[np.ndarray, "..."]

_PAIRS_AT_ONCE = 1 << 20
Size = Literal["grid", "canvas", "image"]
Unpad = Literal["floor", "round", "whole"]

_ALL = slice(None)
SIZES: tuple[Size, ...] = get_args(Size)


@dataclass(frozen=True)
class Letterbox:
    """How an image lies on the canvas that the model sees, and on the prototype grid.

    Sizes are (height, width) in pixels, `offset_yx` is the (top, left) padding on the canvas. A plain stretch is a
    letterbox without padding whose content fills the canvas.

    Raises
    ------
    InputError
        For a side below 1, or content that does not fit on the canvas.
    """

    image_hw: tuple[int, int]
    canvas_hw: tuple[int, int]
    content_hw: tuple[int, int]
    offset_yx: tuple[int, int]
    grid_hw: tuple[int, int]

    def __post_init__(self) -> None:
        axes = zip(self.offset_yx, self.content_hw, self.canvas_hw, strict=True)
        sides = (*self.image_hw, *self.canvas_hw, *self.content_hw, *self.grid_hw)
        if min(sides) < 1 or any(offset < 0 or offset + content > canvas for offset, content, canvas in axes):
            raise InputError(
                f"image {self.image_hw}, content {self.content_hw} at {self.offset_yx} of canvas {self.canvas_hw}, "
                f"grid {self.grid_hw}: expected sides of at least 1, and content that lies on the canvas"
            )

    @classmethod
    def fit(
        cls,
        image_hw: tuple[int, int],
        canvas_hw: tuple[int, int],
        *,
        rectangle_stride: int | None = None,
        corner: bool = False,
        shortest_side: int | None = None,
    ) -> Letterbox:
        """Keep the aspect ratio, centre the image, pad the rest.

        With `rectangle_stride` the canvas shrinks to the smallest rectangle whose sides are
        multiples of it plus the fitted content (what Ultralytics does for `.pt` and dynamic
        exports). With `corner` the image lies at the top left. With `shortest_side` its shorter
        side gets at most this number of pixels. The grid is that of stride 4 until `with_grid` says
        otherwise.
        """
        (image_h, image_w), (canvas_h, canvas_w) = image_hw, canvas_hw
        gain = min(canvas_h / image_h, canvas_w / image_w)
        if shortest_side is not None:
            gain = min(gain, shortest_side / min(image_hw))
        content_h, content_w = max(round(image_h * gain), 1), max(round(image_w * gain), 1)
        pad_h, pad_w = canvas_h - content_h, canvas_w - content_w
        if rectangle_stride:
            pad_h, pad_w = pad_h % rectangle_stride, pad_w % rectangle_stride
        canvas = (content_h + pad_h, content_w + pad_w)
        return cls(
            image_hw=(image_h, image_w),
            canvas_hw=canvas,
            content_hw=(content_h, content_w),
            offset_yx=(0, 0) if corner else (pad_h // 2, pad_w // 2),
            grid_hw=(max(canvas[0] // 4, 1), max(canvas[1] // 4, 1)),
        )

    @classmethod
    def stretch(cls, image_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> Letterbox:
        """Fill the whole canvas, whatever that does to the aspect ratio (YOLACT)."""
        grid_hw = (max(canvas_hw[0] // 4, 1), max(canvas_hw[1] // 4, 1))
        return cls(image_hw, canvas_hw, canvas_hw, (0, 0), grid_hw)

    def with_grid(self, grid_hw: tuple[int, int]) -> Letterbox:
        """Return the same letterbox over a prototype grid of (height, width)."""
        return replace(self, grid_hw=grid_hw)

    def size_hw(self, size: Size) -> tuple[int, int]:
        """(height, width) of the named frame: "grid", "canvas" or "image"."""
        if size not in SIZES:
            raise InputError(f"size is {size!r}; expected one of {', '.join(map(repr, SIZES))}")
        return {"grid": self.grid_hw, "canvas": self.canvas_hw, "image": self.image_hw}[size]

    @property
    def gain_yx(self) -> tuple[float, float]:
        """Canvas pixels per image pixel, along y and x."""
        return self.content_hw[0] / self.image_hw[0], self.content_hw[1] / self.image_hw[1]

    @property
    def is_centred_fit(self) -> bool:
        """Whether the image kept its shape, up to a pixel, and lies in the middle: as YOLO's do."""
        gain = min(c / i for c, i in zip(self.canvas_hw, self.image_hw, strict=True))
        sides = zip(self.image_hw, self.canvas_hw, self.content_hw, self.offset_yx, strict=True)
        return all(
            abs(content - image * gain) <= 1 and offset == (canvas - content) // 2
            for image, canvas, content, offset in sides
        )

    @property
    def content_cells(self) -> tuple[slice, slice]:
        """The (rows, columns) of the prototype grid that show the image, wholly or in part."""
        spans = []
        for offset, content, grid, canvas in zip(
            self.offset_yx, self.content_hw, self.grid_hw, self.canvas_hw, strict=True
        ):
            spans.append(slice(offset * grid // canvas, -(-(offset + content) * grid // canvas)))
        return spans[0], spans[1]

    def to_image(self, xy: Floats, *, clip: bool = False) -> Floats:
        """Canvas to image coordinates; `xy` holds alternating x and y on its last axis."""
        result = (xy - self._tile(xy, self.offset_yx)) / self._tile(xy, self.gain_yx)
        return np.clip(result, 0, self._tile(xy, self.image_hw)) if clip else result

    def to_canvas(self, xy: Floats) -> Floats:
        """Image to canvas coordinates."""
        return xy * self._tile(xy, self.gain_yx) + self._tile(xy, self.offset_yx)

    def to_grid(self, xy: Floats) -> Floats:
        """Canvas to prototype-grid coordinates."""
        return xy * self._tile(xy, (self.grid_hw[0] / self.canvas_hw[0], self.grid_hw[1] / self.canvas_hw[1]))

    def from_canvas(self, xy: Floats, size: Size) -> Floats:
        """Canvas coordinates to the frame named `size`, clipped to the image for "image"."""
        if size == "image":
            return self.to_image(xy, clip=True)
        return self.to_grid(xy) if size == "grid" else xy

    def resample(
        self,
        values: Float32[np.ndarray, "h w"],
        size: Size,
        unpad: Unpad = "whole",
        rows: slice = _ALL,
        columns: slice = _ALL,
    ) -> Float32[np.ndarray, "rows columns"]:
        """Return a grid image in the frame named `size`, bilinearly; only the window asked for.

        Pixel centres are aligned and edges repeated, as in `torch.nn.functional.interpolate` with
        `mode="bilinear"`. `unpad` says how the padding of a centred fit is cut away for "image".
        """
        if size == "grid":
            return values[rows, columns]
        if size == "image":
            unpad = unpad if self.is_centred_fit else "whole"  # the others reckon with such a fit
            zoom = self.whole_pixel_zoom() if unpad == "whole" else 1
            if zoom > 1:
                grid_h, grid_w = self.grid_hw
                values = cv2.resize(values, (grid_w * zoom, grid_h * zoom), interpolation=cv2.INTER_LINEAR)
            values = values[self.content_span(0, zoom, unpad), self.content_span(1, zoom, unpad)]
        height, width = self.size_hw(size)
        # One axis after the other, so that only the columns and rows of the window are computed.
        wide = cv2.resize(values, (width, values.shape[0]), interpolation=cv2.INTER_LINEAR)[:, columns]
        if not wide.shape[1]:  # a box that lies in the padding touches no column
            return np.zeros((len(range(height)[rows]), 0), dtype=np.float32)
        return cv2.resize(wide, (wide.shape[1], height), interpolation=cv2.INTER_LINEAR)[rows]

    def whole_pixel_zoom(self) -> int:
        """Return the smallest enlargement (1, 2, 4, ... stride) of the grid that puts the padding on whole pixels."""
        stride = max(round(c / g) for c, g in zip(self.canvas_hw, self.grid_hw, strict=True))
        edges = [
            (edge * grid, canvas)
            for edges_yx in (self.offset_yx, self.content_hw)
            for edge, grid, canvas in zip(edges_yx, self.grid_hw, self.canvas_hw, strict=True)
        ]
        zoom = 1
        while zoom < stride and any(edge * zoom % canvas for edge, canvas in edges):
            zoom *= 2
        return zoom

    def content_span(self, axis: int, zoom: int, unpad: Unpad) -> slice:
        """Return where the image lies on one axis of the grid, enlarged by `zoom`; at least one cell."""
        grid = self.grid_hw[axis] * zoom
        if unpad == "whole":
            scale = grid / self.canvas_hw[axis]
            start = round(self.offset_yx[axis] * scale)
            stop = start + round(self.content_hw[axis] * scale)
        else:
            gain = min(g / i for g, i in zip(self.grid_hw, self.image_hw, strict=True))
            if unpad == "floor":
                pad = (grid - self.image_hw[axis] * gain) / 2
                start, stop = int(pad), int(grid - pad)
            else:
                pad = (grid - round(self.image_hw[axis] * gain)) / 2
                start, stop = round(pad - 0.1), grid - round(pad + 0.1)
        start = min(start, grid - 1)
        return slice(start, min(max(stop, start + 1), grid))

    @staticmethod
    def _tile(xy: Floats, yx: tuple[float, float]) -> Floats:
        dtype = np.float64 if xy.dtype == np.float64 else np.float32  # boxes are float32, polygons more exact
        return np.tile(np.asarray(yx[::-1], dtype=dtype), xy.shape[-1] // 2)


def same_shape(grid_hw: tuple[int, int], canvas_hw: tuple[int, int]) -> bool:
    """Return whether a grid of (height, width) has the shape of a canvas, up to a cell."""
    (grid_h, grid_w), (canvas_h, canvas_w) = grid_hw, canvas_hw
    return abs(grid_h * canvas_w - grid_w * canvas_h) <= max(canvas_hw)


def box_iou(a: Float32[np.ndarray, "A 4"], b: Float32[np.ndarray, "B 4"]) -> Float32[np.ndarray, "A B"]:
    """Intersection over union of every box of `a` with every box of `b` (xyxy); 0 for empty boxes.

    Computed some rows at a time: beside the result it takes 32 MB, however many boxes there are.
    """
    result = np.zeros((len(a), len(b)), dtype=np.result_type(a, b))
    area_a, area_b = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a, b))
    step = max(_PAIRS_AT_ONCE // max(len(b), 1), 1)
    for rows in (slice(start, start + step) for start in range(0, len(a), step)):
        top_left = np.maximum(a[rows, None, :2], b[None, :, :2])
        bottom_right = np.minimum(a[rows, None, 2:], b[None, :, 2:])
        overlap = np.prod(np.clip(bottom_right - top_left, 0, None), axis=2)
        # Boxes that are inside out overlap nothing, so that the result is 0 whatever comes out as their area.
        union = area_a[rows, None] + area_b[None, :] - overlap
        np.divide(overlap, union, out=result[rows], where=union > 0)
    return result
