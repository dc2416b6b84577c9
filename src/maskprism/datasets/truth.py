"""Ground truth of one image: polygons and bitmaps, and their masks in every frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from maskprism.errors import InputError
from maskprism.masks import Patch

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int64

    from maskprism.geometry import Letterbox, Size

    Polygon = Float32[np.ndarray, "P 2"]
    Bitmap = Bool[np.ndarray, "H W"]
    Segment = tuple[Polygon, ...] | Bitmap | None


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What is really to be seen on one image: M instances.

    classes: class ids, keys of `names`.
    segments: of each instance its polygons in image pixels (they are united), or a mask of the
        image's size, or None where the labels give a box alone.
    boxes: x1, y1, x2, y2 around the segments, in image pixels.
    crowd: groups of instances that COCO marks as one; they are not to be found one by one.
    image_hw: (height, width) of the image.
    remarks: what was mended while reading, such as clipped coordinates or repeated rows.
    """

    classes: Int64[np.ndarray, " M"]
    segments: tuple[Segment, ...]
    boxes: Float32[np.ndarray, "M 4"]
    crowd: Bool[np.ndarray, " M"]
    image_hw: tuple[int, int]
    names: Mapping[int, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @classmethod
    def of_masks(cls, masks: Sequence[Bitmap] | Bool[np.ndarray, "M H W"], classes: Sequence[int]) -> GroundTruth:
        """Ground truth from masks of the image's size and class ids, one for each.

        Raises InputError for no masks, for masks of several sizes, or for another number of class ids.
        """
        shapes = {mask.shape for mask in masks}
        if len(shapes) != 1 or len(masks) != len(classes):
            raise InputError(
                f"expected masks of one size with a class id each; got {len(masks)} masks of {len(shapes)} sizes and "
                f"{len(classes)} class ids"
            )
        segments = tuple(np.asarray(mask, dtype=bool) for mask in masks)
        (image_hw,) = shapes
        return cls(
            classes=np.asarray(classes, dtype=np.int64),
            segments=segments,
            boxes=np.array([box_around(mask, None, image_hw) for mask in segments], dtype=np.float32).reshape(-1, 4),
            crowd=np.zeros(len(segments), dtype=bool),
            image_hw=image_hw,
        )

    def __len__(self) -> int:
        return len(self.classes)

    @property
    def box_only(self) -> Bool[np.ndarray, " M"]:
        """Which instances have a box and no mask."""
        return np.array([segment is None for segment in self.segments], dtype=bool)

    @cached_property
    def areas(self) -> Int64[np.ndarray, " M"]:
        """Mask areas in image pixels (0 for a box alone): small, medium and large of COCO are said of these."""
        return np.array([np.count_nonzero(patch.values) for patch in self.patches("image")], dtype=np.int64)

    def name_of(self, class_id: int) -> str:
        """The name of a class, or "class7" where the data set has none."""
        return self.names.get(int(class_id), f"class{int(class_id)}")

    def masks(self, size: Size = "image", letterbox: Letterbox | None = None) -> Bool[np.ndarray, "M H W"]:
        """The masks in the frame named `size`, as a stack; see `patches`."""
        patches = list(self.patches(size, letterbox))
        height, width = self.image_hw if letterbox is None else letterbox.size_hw(size)
        stack = np.zeros((len(self), height, width), dtype=bool)
        for mask, patch in zip(stack, patches, strict=True):
            mask[patch.rows, patch.columns] = patch.values
        return stack

    def patches(self, size: Size = "image", letterbox: Letterbox | None = None) -> Iterator[Patch]:
        """Per instance the window of the frame that its mask can touch, with the mask in it as booleans.

        A pixel belongs to a mask if its centre does, in every frame: polygons are drawn at the size asked for, not
        resized. That is COCO's convention; crossing lines follow the even-odd rule. A box alone has no pixel.
        Raises InputError for a letterbox of another image, or none where `size` is not "image".
        """
        if letterbox is None and size != "image":
            raise InputError(f'masks of size "{size}" need the letterbox of the prediction they are compared with')
        if letterbox is not None and letterbox.image_hw != self.image_hw:
            raise InputError(
                f"the letterbox is of an image of {letterbox.image_hw[1]} x {letterbox.image_hw[0]} pixels; "
                f"this ground truth is about one of {self.image_hw[1]} x {self.image_hw[0]}"
            )
        height, width = self.image_hw if letterbox is None else letterbox.size_hw(size)
        for index, segment in enumerate(self.segments):
            if isinstance(segment, np.ndarray):
                yield sampled(segment, letterbox, size)
            else:
                yield _united([_filled(one, height, width) for one in self.polygons(index, size, letterbox)])

    def polygons(
        self, index: int, size: Size = "image", letterbox: Letterbox | None = None
    ) -> list[Float64[np.ndarray, "P 2"]]:
        """The polygons of one instance in the frame named `size`; none for a bitmap or a box alone."""
        segment = self.segments[index]
        if segment is None or isinstance(segment, np.ndarray):
            return []
        found = [polygon.astype(np.float64) for polygon in segment]
        if letterbox is None or size == "image":
            return found
        on_canvas = [letterbox.to_canvas(polygon) for polygon in found]
        return on_canvas if size == "canvas" else [letterbox.to_grid(polygon) for polygon in on_canvas]


def _filled(polygon: Float64[np.ndarray, "P 2"], height: int, width: int) -> Patch:
    """The pixels whose centres lie inside a polygon, by the even-odd rule.

    Along the centre line of every row each edge that crosses it flips all pixels to the right of the crossing.
    """
    low, high = np.floor(polygon.min(axis=0)).astype(int), np.ceil(polygon.max(axis=0)).astype(int)
    left, top = np.clip(low, 0, (width, height))
    right, bottom = np.clip(high, (left, top), (width, height))
    rows, columns = slice(int(top), int(bottom)), slice(int(left), int(right))
    (x1, y1), (x2, y2) = (polygon - 0.5).T, np.roll(polygon - 0.5, -1, axis=0).T
    # Rows r of an edge: lower end <= r < upper end, so that a corner counts once.
    first = np.clip(np.ceil(np.minimum(y1, y2)), top, bottom).astype(int)
    last = np.clip(np.ceil(np.maximum(y1, y2)), top, bottom).astype(int)
    spans = np.maximum(last - first, 0)
    edge = np.repeat(np.arange(len(polygon)), spans)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(spans) - spans, spans) + first[edge]
    crossing = x1[edge] + (row - y1[edge]) * (x2[edge] - x1[edge]) / (y2[edge] - y1[edge])
    column = np.clip(np.ceil(crossing), left, right).astype(int)
    wide = right - left + 1
    flips = np.zeros((bottom - top, wide), dtype=np.uint8)
    np.add.at(flips, (row - top, column - left), 1)
    inside = np.cumsum(flips, axis=1, dtype=np.uint8)[:, :-1] & 1 > 0
    return Patch(rows, columns, inside)


def _united(parts: Sequence[Patch]) -> Patch:
    if len(parts) == 1:
        return parts[0]
    if not parts:
        return Patch(slice(0, 0), slice(0, 0), np.zeros((0, 0), dtype=bool))
    rows = slice(min(part.rows.start for part in parts), max(part.rows.stop for part in parts))
    columns = slice(min(part.columns.start for part in parts), max(part.columns.stop for part in parts))
    values = np.zeros((rows.stop - rows.start, columns.stop - columns.start), dtype=bool)
    for part in parts:
        top, left = part.rows.start - rows.start, part.columns.start - columns.start
        values[top : top + part.values.shape[0], left : left + part.values.shape[1]] |= part.values
    return Patch(rows, columns, values)


def box_around(segment: Segment, stated: Sequence[float] | None, image_hw: tuple[int, int]) -> Sequence[float]:
    """x1, y1, x2, y2 around a segment, or of one that is None the stated box, within the image; zeros for nothing."""
    if segment is None:
        height, width = image_hw
        return [float(v) for v in np.clip(stated or (0, 0, 0, 0), 0, (width, height, width, height))]
    if isinstance(segment, np.ndarray):
        rows, columns = np.flatnonzero(segment.any(axis=1)), np.flatnonzero(segment.any(axis=0))
        return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else (0, 0, 0, 0)
    if not segment:
        return (0, 0, 0, 0)
    points = np.concatenate(segment)
    return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]


def sampled(bitmap: Bitmap, letterbox: Letterbox | None, size: Size) -> Patch:
    """A mask of the image's size at the pixel centres of another frame."""
    height, width = bitmap.shape
    if letterbox is None or size == "image":
        return Patch(slice(0, height), slice(0, width), bitmap)
    places = []
    for axis, length in enumerate(bitmap.shape):
        scale = letterbox.canvas_hw[axis] / letterbox.size_hw(size)[axis]
        centres = (np.arange(letterbox.size_hw(size)[axis]) + 0.5) * scale
        places.append(np.floor((centres - letterbox.offset_yx[axis]) / letterbox.gain_yx[axis]).astype(int))
        places[-1] = np.where((places[-1] >= 0) & (places[-1] < length), places[-1], -1)
    rows, columns = (np.flatnonzero(place >= 0) for place in places)
    if not len(rows) or not len(columns):
        return _united([])
    values = bitmap[np.ix_(places[0][rows], places[1][columns])]
    return Patch(slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1), values)
