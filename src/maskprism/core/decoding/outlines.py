"""Polygons along the level of the threshold, from the grid logits and not from the staircase of a bitmap."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from maskprism.core.decoding.engine import engine
from maskprism.core.decoding.pure import Span, plan_of
from maskprism.core.masks import Patch
from maskprism.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Bool, Float32, Float64, Int64

    from maskprism.core.decoding.job import DecodeJob
    from maskprism.core.decoding.pure import Axis, Plan

    Ring = Float64[np.ndarray, "V 2"]

_BEND = 0.1
"""In pixels of the frame: a segment that misses the curve by more gets a vertex in its middle."""
_GROUP = 16
"""Instances that are bent together."""
TOLERANCE = 0.1
"""In pixels of the frame: how far outlines may move by default, which saves a third of the vertices."""


class Outline(NamedTuple):
    """One part of a mask: rings of x, y in pixels, where pixel i covers i to i + 1; the last vertex is not repeated."""

    exterior: Ring
    holes: list[Ring]


@dataclass(frozen=True, eq=False)
class MaskPolygons:
    """A mask as outlines: parts, each with its holes.

    Parameters
    ----------
    outlines
        Parts of the mask.
    size_hw
        (height, width) of the frame of the coordinates.
    """

    outlines: list[Outline]
    size_hw: tuple[int, int]
    _job: DecodeJob = field(repr=False)
    _index: int = field(repr=False)

    @property
    def n_vertices(self) -> int:
        """Vertices of all rings together."""
        return sum(len(ring) for ring in self._rings)

    @property
    def area(self) -> float:
        """Pixels of the frame inside the outlines, holes subtracted."""
        return float(sum(_area(part.exterior) - sum(map(_area, part.holes)) for part in self.outlines))

    @property
    def _rings(self) -> list[Ring]:
        return [ring for part in self.outlines for ring in (part.exterior, *part.holes)]

    def rasterise(self) -> Patch:
        """Draw the pixels whose centres lie inside, in the window that the mask can touch."""
        y0, y1, x0, x1 = self._window
        return Patch(slice(y0, y1), slice(x0, x1), rasterised(self._rings, y0, y1, x0, x1))

    @cached_property
    def _window(self) -> tuple[int, int, int, int]:
        y0, y1, x0, x1 = engine.windows(_alone(self._job, self._index))[0, :4].tolist()
        return y0, y1, x0, x1

    def iou(self) -> float:
        """Intersection over union of the outlines' pixels with the mask under the rule; 1 where both are empty."""
        drawn = self.rasterise().values
        mask = np.zeros(drawn.shape, dtype=np.uint8)
        width = np.array([drawn.shape[1]], dtype=np.int64)
        engine.fill(_alone(self._job, self._index), mask, np.zeros(1, dtype=np.int64), width, "bitmap")
        union = np.count_nonzero(drawn | mask.view(np.bool_))
        return float(np.count_nonzero(drawn & mask.view(np.bool_)) / union) if union else 1.0


def _alone(job: DecodeJob, index: int) -> DecodeJob:
    rows = slice(index, index + 1)
    return replace(job, weights=job.weights[rows], boxes=None if job.boxes is None else job.boxes[rows])


def polygons_of(job: DecodeJob, tolerance: float = TOLERANCE) -> list[MaskPolygons]:
    """Trace each mask of a job.

    Raises
    ------
    InputError
        For a tolerance that is negative or not finite.
    """
    if not (np.isfinite(tolerance) and tolerance >= 0):
        raise InputError(f"tolerance is {tolerance!r}; expected pixels, 0 or more")
    windows = engine.windows(job).astype(np.int64)
    heights, widths = windows[:, 5] - windows[:, 4], windows[:, 7] - windows[:, 6]
    ends = np.cumsum(heights * widths)
    values = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=np.float32)
    engine.fill(job, values, ends - heights * widths, widths, "grid")
    plan = plan_of(job.letterbox, job.size, job.rule.unpad)
    outlines: list[list[Outline]] = [[] for _ in range(len(job))]
    starts = (ends - heights * widths).tolist()
    traced: list[_Traced] = []
    with np.errstate(all="ignore"):  # NaN and infinity are left out
        for index, (window, start, end) in enumerate(zip(windows.tolist(), starts, ends.tolist(), strict=True)):
            if start < end:
                logits = values[start:end].reshape(-1, window[7] - window[6])
                if (one := _traced(index, logits, window, plan, job.rule.threshold)) is not None:
                    traced.append(one)
        for first in range(0, len(traced), _GROUP):
            group = traced[first : first + _GROUP]
            rings = iter(_rings(group, tolerance))
            for one in group:
                for n_rings in np.diff(one.parts).tolist():
                    exterior, *holes = itertools.islice(rings, n_rings)
                    if len(exterior) >= 3:
                        outlines[one.instance].append(Outline(exterior, [hole for hole in holes if len(hole) >= 3]))
    return [MaskPolygons(parts, job.size_hw, job, index) for index, parts in enumerate(outlines)]


class _Traced(NamedTuple):
    """The level lines of one instance, in cells between lines of pixel coordinates.

    Parameters
    ----------
    instance
        Its index.
    level
        Values less the threshold where the lines cross.
    rows, columns
        The pixel coordinates of the lines; the first and the last are the borders of the window.
    vertices
        Column and row among the lines.
    bounds
        Where the closed rings begin.
    parts
        Among the rings, where those of a part begin.
    """

    instance: int
    level: Float64[np.ndarray, "R C"]
    rows: Float64[np.ndarray, " R"]
    columns: Float64[np.ndarray, " C"]
    vertices: Ring
    bounds: Int64[np.ndarray, " B"]
    parts: Int64[np.ndarray, " P"]


def _traced(
    instance: int, logits: Float32[np.ndarray, "h w"], window: list[int], plan: Plan, threshold: float
) -> _Traced | None:
    """Trace the level of the threshold in the window of an instance; None where nothing lies above it."""
    import contourpy

    y0, y1, x0, x1, top, _, left, _ = window
    pixels, cells = (Span(y0, y1), Span(x0, x1)), (top, left)
    lines, field, samples = [], logits, []
    for axis in (1, 0):
        samples.append(plan.to_frame_yx[axis].read_by(pixels[axis]))
        zoom = plan.zoom_yx[axis]
        if zoom.source != zoom.target:
            field = zoom.resize(field, samples[-1].shifted(plan.start_yx[axis]), cells[axis], axis)
    level = field.T.astype(np.float64) - threshold
    for axis, read in zip((1, 0), samples, strict=True):
        at, level = _at_lines(level, plan.to_frame_yx[axis], pixels[axis], read)
        level = level.T if axis else level
        lines.append(at)
    columns, rows = lines
    if not (level > 0).any():
        return None
    known = np.isfinite(level)  # pixels that read NaN or infinity belong to no mask
    x, y = np.empty(level.shape), np.empty(level.shape)
    x[:], y.T[:] = np.arange(len(columns)), np.arange(len(rows))
    generator = contourpy.SerialContourGenerator(  # the function that makes one takes a quarter of the time of all this
        x,
        y,
        level if known.all() else np.where(known, level, 0),
        cast("Any", None if known.all() else ~known),
        corner_mask=False,
        line_type=contourpy.LineType.Separate,
        fill_type=contourpy.FillType.ChunkCombinedOffsetOffset,
        quad_as_tri=False,
        z_interp=contourpy.ZInterp.Linear,
        x_chunk_size=0,
        y_chunk_size=0,
    )
    (vertices,), (bounds,), (parts,) = cast("Any", generator.filled(0.0, np.inf))
    if vertices is None:  # every cell with a pixel above the level reads NaN
        return None
    return _Traced(instance, level, rows, columns, vertices, bounds.astype(np.int64), parts.astype(np.int64))


def _at_lines(
    values: Float64[np.ndarray, "h w"], resize: Axis, window: Span, samples: Span
) -> tuple[Float64[np.ndarray, " L"], Float64[np.ndarray, "L w"]]:
    """Return lines at the borders of a window of pixels and wherever a sample lies inside, and the values there."""
    scale = resize.source / resize.target
    first = max(math.floor((window.start + 1e-9) * scale - 0.5) + 1, samples.start, 0)
    stop = max(min(math.ceil((window.stop - 1e-9) * scale - 0.5), samples.stop), first)
    at, mixed = np.empty(stop - first + 2), np.empty((stop - first + 2, values.shape[1]))
    at[0], at[-1] = window
    at[1:-1] = (np.arange(first, stop) + 0.5) / scale
    mixed[1:-1] = values[first - samples.start : stop - samples.start]
    for border in (0, -1):
        place = min(max(window[border] * scale - 0.5, samples.start), samples.stop - 1) - samples.start
        low = int(place)
        mixed[border] = values[low]
        if place > low:
            mixed[border] += (place - low) * (values[low + 1] - values[low])
    return at, mixed


def _rings(group: list[_Traced], tolerance: float) -> list[Ring]:
    """Return the rings of several instances in pixels, one after the other; no vertex is repeated.

    Vertices are added where the level inside a cell, a hyperbola, leaves the segment between two vertices.
    """
    counts = [len(one.vertices) for one in group]
    vertices = np.concatenate([one.vertices for one in group])
    starts = list(itertools.accumulate(counts, initial=0))
    bounds = np.concatenate(
        [*(one.bounds[:-1] + start for one, start in zip(group, starts, strict=False)), starts[-1:]]
    )
    rows, columns = _Lines.of([one.rows for one in group], counts), _Lines.of([one.columns for one in group], counts)
    points = np.stack([columns.in_pixels(vertices[:, 0]), rows.in_pixels(vertices[:, 1])], axis=1)
    along = points[1:] - points[:-1]
    shift = _to_level(vertices, along, group, rows, columns)
    shift[bounds[1:-1] - 1] = 0  # from one ring to the next
    bends = np.flatnonzero(np.abs(shift) * np.hypot(along[:, 0], along[:, 1]) > _BEND)
    at = np.arange(len(points))  # as np.insert does, in half the time
    at += np.searchsorted(bends, at)
    bent = np.empty((len(points) + len(bends), 2))
    bent[at] = points
    normal = np.stack([-along[bends, 1], along[bends, 0]], axis=1)
    bent[at[bends] + 1] = (points[bends] + points[bends + 1]) / 2 + shift[bends, None] * normal
    bounds = bounds + np.searchsorted(bends + 1, bounds)
    if tolerance:
        return _simplified(bent, bounds, tolerance)
    return [bent[first : last - 1] for first, last in itertools.pairwise(bounds.tolist())]


class _Lines(NamedTuple):
    """The lines of one axis of several instances, one instance after the other.

    Parameters
    ----------
    at
        Their pixel coordinates.
    first, n_cells
        Per vertex, where the lines of its instance begin, and how many cells lie between them.
    """

    at: Float64[np.ndarray, " L"]
    first: Int64[np.ndarray, " V"]
    n_cells: Int64[np.ndarray, " V"]

    @classmethod
    def of(cls, lines: list[Float64[np.ndarray, " L"]], counts: list[int]) -> _Lines:
        """Return the lines of instances; `counts` are the numbers of their vertices."""
        lengths = np.array([len(one) for one in lines])
        return cls(
            np.concatenate(lines), np.repeat(np.cumsum(lengths) - lengths, counts), np.repeat(lengths - 1, counts)
        )

    def cells(self, places: Float64[np.ndarray, " V"]) -> Int64[np.ndarray, " V"]:
        """Return the cells in which positions among the lines lie."""
        return np.minimum(places.astype(np.int64), self.n_cells[: len(places)] - 1)

    def widths(self, cells: Int64[np.ndarray, " V"]) -> Float64[np.ndarray, " V"]:
        """Return the widths of cells in pixels."""
        lower = self.first[: len(cells)] + cells
        return self.at[lower + 1] - self.at[lower]

    def in_pixels(self, places: Float64[np.ndarray, " V"]) -> Float64[np.ndarray, " V"]:
        """Return the pixel coordinates of positions among the lines."""
        cells = self.cells(places)
        return self.at[self.first + cells] + (places - cells) * self.widths(cells)


def _to_level(
    vertices: Ring, along: Ring, group: list[_Traced], rows: _Lines, columns: _Lines
) -> Float64[np.ndarray, " V"]:
    """Return how far along the normals of segments the level lies from their middles, in lengths.

    0 where not in the cell.
    """
    x, y = ((vertices[:-1] + vertices[1:]) / 2).T
    column, row = columns.cells(x), rows.cells(y)
    flat, sizes = np.concatenate([one.level.ravel() for one in group]), [one.level.size for one in group]
    begin = np.repeat(np.cumsum(sizes) - sizes, [len(one.vertices) for one in group])[:-1]
    n_columns = columns.n_cells[:-1] + 1
    first = begin + row * n_columns + column
    a, b, c, d = flat[first], flat[first + 1], flat[first + n_columns], flat[first + n_columns + 1]
    u, v = x - column, y - row
    p, q = -along[:, 1] / columns.widths(column), along[:, 0] / rows.widths(row)  # the normal, in cells
    right, down = b - a, c - a
    twist = d - b - down
    constant = a + u * right + v * (down + u * twist)
    linear = p * right + q * down + (u * q + v * p) * twist
    root = np.sqrt(linear * linear - 4 * p * q * twist * constant)
    shift = -2 * constant / (linear + np.copysign(root, linear))
    inside = (np.abs(u + shift * p - 0.5) <= 0.5) & (np.abs(v + shift * q - 0.5) <= 0.5)
    on_border = (along[:, 0] == 0) & ((x == 0) | (x == columns.n_cells[:-1]))
    on_border |= (along[:, 1] == 0) & ((y == 0) | (y == rows.n_cells[:-1]))
    return np.where(inside & ~on_border, shift, 0.0)


def _simplified(vertices: Ring, bounds: Int64[np.ndarray, " B"], tolerance: float) -> list[Ring]:
    """Douglas and Peucker's simplification of rings, in single precision around the first vertex of each.

    `bounds` says where the closed rings begin; in the result, no vertex is repeated.
    """
    import cv2

    origins = vertices[bounds[:-1]]
    moved = (vertices - np.repeat(origins, np.diff(bounds), axis=0)).astype(np.float32)[:, None]
    return [
        cv2.approxPolyDP(moved[first : last - 1], tolerance, True)[:, 0] + origin
        for (first, last), origin in zip(itertools.pairwise(bounds.tolist()), origins, strict=True)
    ]


def _area(ring: Ring) -> float:
    x, y = (ring - ring[0]).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def rasterised(rings: list[Ring], y0: int, y1: int, x0: int, x1: int) -> Bool[np.ndarray, "rows columns"]:
    """Draw the pixels of a window whose centres lie inside rings, by the even-odd rule."""
    changes = np.zeros((y1 - y0, x1 - x0 + 1), dtype=np.int32)
    for ring in rings:
        start, stop = ring - (x0 + 0.5, y0 + 0.5), np.roll(ring, -1, axis=0) - (x0 + 0.5, y0 + 0.5)
        down = start[:, 1] <= stop[:, 1]
        upper, lower = np.where(down[:, None], start, stop), np.where(down[:, None], stop, start)
        first = np.clip(np.ceil(upper[:, 1]), 0, y1 - y0).astype(np.int64)
        counts = np.maximum(np.clip(np.ceil(lower[:, 1]), 0, y1 - y0).astype(np.int64) - first, 0)
        edge = np.repeat(np.arange(len(ring)), counts)
        row = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
        slope = (lower[edge, 0] - upper[edge, 0]) / (lower[edge, 1] - upper[edge, 1])
        column = np.ceil(upper[edge, 0] + (row - upper[edge, 1]) * slope)
        np.add.at(changes, (row, np.clip(column, 0, x1 - x0).astype(np.int64)), 1)
    return (np.cumsum(changes[:, :-1], axis=1) % 2).astype(np.bool_)
