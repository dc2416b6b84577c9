"""Ground truth of one image: polygons and bitmaps, and their masks in every frame."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from maskprism.core.masks import Patch, pixels_between
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int64

    from maskprism.core.geometry import Letterbox, Size

    Polygon = Float32[np.ndarray, "P 2"] | Float64[np.ndarray, "P 2"]
    Bitmap = Bool[np.ndarray, "H W"]
    Segment = tuple[Polygon, ...] | Bitmap | None


Outlines = Literal["coco", "ultralytics"]
"""Which pixels a polygon covers: as pycocotools draws it, or as Ultralytics does; see `GroundTruth.patches`."""


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """What is really to be seen on one image: M instances.

    Attributes
    ----------
    classes
        Class ids, keys of `names`.
    segments
        Of each instance its polygons in image pixels (they are united), or a mask of the image's size, or None where
        the labels give a box alone.
    boxes
        x1, y1, x2, y2 around the segments, in image pixels.
    crowd
        Groups of instances that COCO marks as one; they are not to be found one by one.
    image_hw
        (height, width) of the image.
    remarks
        What was corrected while reading, such as clipped coordinates or repeated rows.
    outlines
        By whose rule polygons become pixels: "coco" for a COCO json, "ultralytics" for label files.
    label_ids
        Of each instance the id of its annotation in a COCO json, or its line in a label file, from 0; empty where
        it comes from neither.
    repeats
        Labels left out because they repeat another one, as pairs of label ids: its own, the other's.
    mistakes
        Labels left out because they cannot be read, as pairs of label id and reason; see `Dataset.leniently`.
    """

    classes: Int64[np.ndarray, " M"]
    segments: tuple[Segment, ...]
    boxes: Float32[np.ndarray, "M 4"]
    crowd: Bool[np.ndarray, " M"]
    image_hw: tuple[int, int]
    names: Mapping[int, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    outlines: Outlines = "coco"
    label_ids: tuple[int | str, ...] = ()
    repeats: tuple[tuple[int | str, int | str], ...] = ()
    mistakes: tuple[tuple[int | str, str], ...] = ()

    @classmethod
    def of_masks(cls, masks: Sequence[Bitmap] | Bool[np.ndarray, "M H W"], classes: Sequence[int]) -> GroundTruth:
        """Ground truth from masks of the image's size and class ids, one for each.

        Raises
        ------
        InputError
            For no masks, for masks of several sizes, or for another number of class ids.
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

    def select(self, kept: Int64[np.ndarray, " S"] | Sequence[int]) -> GroundTruth:
        """Return these instances alone, by index and in this order."""
        index = np.asarray(kept, dtype=np.int64)
        return replace(
            self,
            classes=self.classes[index],
            segments=tuple(self.segments[i] for i in index),
            boxes=self.boxes[index],
            crowd=self.crowd[index],
            label_ids=tuple(self.label_ids[i] for i in index) if self.label_ids else (),
        )

    def of_classes(self, classes: Sequence[int]) -> GroundTruth:
        """Return the instances of these classes."""
        return self.select(np.flatnonzero(np.isin(self.classes, classes)))

    @property
    def box_only(self) -> Bool[np.ndarray, " M"]:
        """Which instances have a box and no mask."""
        return np.array([segment is None for segment in self.segments], dtype=bool)

    @cached_property
    def areas(self) -> Int64[np.ndarray, " M"]:
        """Mask areas in image pixels (0 for a box alone): COCO's small, medium and large refer to these."""
        return np.array([np.count_nonzero(patch.values) for patch in self.patches("image")], dtype=np.int64)

    def name_of(self, class_id: int) -> str:
        """Return the name of a class, or "class7" where the data set has none."""
        return self.names.get(int(class_id), f"class{int(class_id)}")

    def masks(self, size: Size = "image", letterbox: Letterbox | None = None) -> Bool[np.ndarray, "M H W"]:
        """Return the masks in the frame named `size`, as a stack; see `patches`."""
        patches = list(self.patches(size, letterbox))
        height, width = self.image_hw if letterbox is None else letterbox.size_hw(size)
        stack = np.zeros((len(self), height, width), dtype=bool)
        for mask, patch in zip(stack, patches, strict=True):
            mask[patch.rows, patch.columns] = patch.values
        return stack

    def patches(self, size: Size = "image", letterbox: Letterbox | None = None) -> Iterator[Patch]:
        """Per instance the window of the frame that its mask can touch, with the mask in it as booleans.

        Parameters
        ----------
        size
            The frame: "image", "canvas" or "grid".
        letterbox
            That of the prediction to compare with; needed for every frame but "image".

        Yields
        ------
        Patch
            Empty for a box without a mask.

        Raises
        ------
        InputError
            For a letterbox of another image, or none where `size` is not "image".

        Notes
        -----
        Polygons are drawn at the size asked for, each by the rule of the tool that its file is made for, to the pixel.
        `outlines="coco"`: as pycocotools (`frPyObjects`). `outlines="ultralytics"`: coordinates lose their fractions
        and the outline is filled together with its edges (`cv2.fillPoly`), which makes objects about half a pixel
        larger on every side; for the grid that is done on the canvas, which is then reduced. Bitmaps are sampled at
        the centres of pixels.
        """
        if letterbox is None and size != "image":
            raise InputError(f'masks of size "{size}" need the letterbox of the prediction they are compared with')
        if letterbox is not None and letterbox.image_hw != self.image_hw:
            raise InputError(
                f"the letterbox is of an image of {letterbox.image_hw[1]} x {letterbox.image_hw[0]} pixels; "
                f"this ground truth is about one of {self.image_hw[1]} x {self.image_hw[0]}"
            )
        for segment in self.segments:
            if isinstance(segment, np.ndarray):
                yield sampled(segment, letterbox, size)
            else:
                yield self._drawn(segment or (), size, letterbox)

    def _drawn(self, polygons: Sequence[Polygon], size: Size, letterbox: Letterbox | None) -> Patch:
        if letterbox is None or size == "image":
            return _united([_DRAW[self.outlines](polygon, *self.image_hw) for polygon in polygons])
        by_ultralytics = self.outlines == "ultralytics"
        frame: Size = "canvas" if by_ultralytics else size
        height, width = letterbox.size_hw(frame)
        moved = [letterbox.from_canvas(letterbox.to_canvas(polygon), frame) for polygon in polygons]
        patch = _united([_DRAW[self.outlines](polygon, height, width) for polygon in moved])
        (left, top), (right, bottom) = letterbox.from_canvas(
            letterbox.to_canvas(np.array([(0, 0), self.image_hw[::-1]])), frame
        )
        if by_ultralytics:  # the end of the image is a coordinate, too, and lies in the pixel after the last
            patch = _cut(patch, slice(int(top), int(bottom) + 1), slice(int(left), int(right) + 1))
            return patch if size == "canvas" else _reduced(patch, letterbox)
        return _cut(patch, pixels_between(top, bottom, height), pixels_between(left, right, width))

    def polygons(
        self, index: int, size: Size = "image", letterbox: Letterbox | None = None
    ) -> list[Float64[np.ndarray, "P 2"]]:
        """Return the polygons of one instance in the frame named `size`; none for a bitmap or a box alone.

        In other frames than the image's they end where the image does.
        """
        segment = self.segments[index]
        if segment is None or isinstance(segment, np.ndarray):
            return []
        polygons = [polygon.astype(np.float64) for polygon in segment]
        if letterbox is None or size == "image":
            return polygons
        inside = (np.clip(polygon, 0, self.image_hw[::-1]) for polygon in polygons)
        return [letterbox.from_canvas(letterbox.to_canvas(polygon), size) for polygon in inside]


def _drawn_by_coco(polygon: Polygon, height: int, width: int) -> Patch:
    """Return the pixels of a polygon by COCO's rule.

    That of pycocotools, whose mask API faster-coco-eval has as well.
    """
    from faster_coco_eval.core.mask import frPyObjects

    if len(polygon) < 3:
        return _united([])
    (encoded,) = frPyObjects([polygon.astype(np.float64).reshape(-1).tolist()], height, width)
    ends = np.cumsum(run_lengths(encoded["counts"]))
    starts, stops = ends[: 2 * (len(ends) // 2) : 2], ends[1::2]  # of the mask, down one column after the other
    starts, stops = starts[stops > starts], stops[stops > starts]
    if not len(starts):
        return _united([])
    left, right = int(starts[0]) // height, (int(stops[-1]) - 1) // height + 1
    changes = np.zeros((right - left) * height + 1, dtype=np.int8)
    np.add.at(changes, starts - left * height, 1)
    np.add.at(changes, stops - left * height, -1)
    columns = np.cumsum(changes[:-1], dtype=np.int8).reshape(right - left, height).astype(bool)
    rows = np.flatnonzero(columns.any(axis=0))
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    return Patch(slice(top, bottom), slice(left, right), columns[:, top:bottom].T)


def run_lengths(compressed: bytes | str) -> Int64[np.ndarray, " R"]:
    """Decode COCO's compressed RLE: runs down the columns, beginning with the background.

    Parameters
    ----------
    compressed
        Text of groups of five bits, lowest first; from the third on, runs are differences to the run before the last.

    Raises
    ------
    ValueError
        For malformed text, or text that ends within a number.
    """
    data = compressed.encode() if isinstance(compressed, str) else compressed
    letters = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - 48
    if not len(letters):
        return letters
    if letters.min() < 0 or letters.max() > 63 or letters[-1] & 32:
        raise ValueError("it is not a compressed RLE, or ends too early")
    last = np.flatnonzero(letters & 32 == 0)
    lengths = np.diff(last, prepend=-1)
    if lengths.max() > 7:  # 35 bits
        raise ValueError("it has a number that is too large")
    position = np.arange(len(letters)) - np.repeat(last - lengths + 1, lengths)
    runs: Int64[np.ndarray, " R"] = np.add.reduceat((letters & 31) << 5 * position, last - lengths + 1)
    runs -= np.where(letters[last] & 16 > 0, 1, 0) << 5 * lengths
    runs[1::2], runs[2::2] = np.cumsum(runs[1::2]), np.cumsum(runs[2::2])
    return runs


def _filled(polygon: Polygon, height: int, width: int) -> Patch:
    """Return the pixels of a polygon by Ultralytics' rule.

    Fractions are cut off, the outline is filled with its edges.
    """
    if not len(polygon):
        return _united([])
    corners = polygon.astype(np.int32)
    left, top = np.clip(corners.min(axis=0), 0, (width, height)).tolist()
    right, bottom = np.clip(corners.max(axis=0) + 1, (left, top), (width, height)).tolist()
    window = np.zeros((bottom - top, right - left), dtype=np.uint8)
    if window.size:
        cv2.fillPoly(window, [corners - np.array([left, top], dtype=np.int32)], 1)
    return Patch(slice(top, bottom), slice(left, right), window > 0)


def _reduced(patch: Patch, letterbox: Letterbox) -> Patch:
    """Return a mask on the canvas as Ultralytics reduces it to the grid."""
    canvas = np.zeros(letterbox.canvas_hw, dtype=np.uint8)
    canvas[patch.rows, patch.columns] = patch.values
    height, width = letterbox.grid_hw
    grid = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_LINEAR) > 0
    return Patch(slice(0, height), slice(0, width), grid)


_DRAW: dict[Outlines, Callable[[Polygon, int, int], Patch]] = {"coco": _drawn_by_coco, "ultralytics": _filled}


def _cut(patch: Patch, rows: slice, columns: slice) -> Patch:
    """Return what of a patch lies in a window of the frame."""
    top, left = max(patch.rows.start, rows.start), max(patch.columns.start, columns.start)
    bottom = max(min(patch.rows.stop, rows.stop), top)
    right = max(min(patch.columns.stop, columns.stop), left)
    values = patch.values[top - patch.rows.start : bottom - patch.rows.start]
    return Patch(
        slice(top, bottom), slice(left, right), values[:, left - patch.columns.start : right - patch.columns.start]
    )


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
    """x1, y1, x2, y2 around a segment, or for None the stated box, within the image; zeros if empty."""
    if segment is None:
        height, width = image_hw
        return [float(v) for v in np.clip(stated or (0, 0, 0, 0), 0, (width, height, width, height))]
    if isinstance(segment, np.ndarray):
        rows, columns = np.flatnonzero(segment.any(axis=1)), np.flatnonzero(segment.any(axis=0))
        return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else (0, 0, 0, 0)
    if not any(map(len, segment)):
        return (0, 0, 0, 0)
    points = np.clip(np.concatenate(segment), 0, image_hw[::-1])
    return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]


def sampled(bitmap: Bitmap, letterbox: Letterbox | None, size: Size) -> Patch:
    """Return a mask of the image's size at the pixel centres of another frame."""
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
